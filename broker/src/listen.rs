//! Listening sockets: passed by systemd, or bound here. A path that is taken by anything but our
//! own stale socket is refused, never unlinked (reliability row 52).

use crate::sys;
use nix::sys::stat::{Mode, umask};
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

/// Who may connect, by the socket's mode. Who gets an answer is decided elsewhere.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Everybody (0666): workloads.
    Everybody,
    /// Its owner and root (0600): administrators, the broker.
    Owner,
}

/// Binds `path`. The mode is right from the first moment: the umask is set around the bind.
/// Called at start, before other threads make files.
///
/// # Errors
/// A sentence that names the path and the remedy.
pub fn bind(path: &Path, access: Access) -> Result<UnixListener, String> {
    remove_stale(path)?;
    let mask = match access {
        Access::Everybody => 0o111,
        Access::Owner => 0o177,
    };
    let before = umask(Mode::from_bits_truncate(mask));
    let bound = UnixListener::bind(path);
    umask(before);
    bound.map_err(|error| format!("socket {}: cannot be bound: {error}", path.display()))
}

fn remove_stale(path: &Path) -> Result<(), String> {
    let refuse = |what: &str| Err(format!("socket {}: {what}", path.display()));
    let metadata = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return refuse(&format!("cannot be looked at: {error}")),
        Ok(metadata) => metadata,
    };
    if !metadata.file_type().is_socket() {
        return refuse("something else is there; move it away");
    }
    if metadata.uid() != nix::unistd::geteuid().as_raw() {
        return refuse("belongs to another user; remove it if nothing uses it");
    }
    match UnixStream::connect(path) {
        Ok(_) => refuse("another process listens there; stop it first"),
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => fs::remove_file(path)
            .map_err(|e| format!("socket {}: stale, cannot be removed: {e}", path.display())),
        Err(error) => refuse(&format!("cannot be tried: {error}")),
    }
}

/// The listeners systemd passed, by the names in `FileDescriptorName=`.
pub fn passed() -> Result<Vec<(String, UnixListener)>, String> {
    let fds = sd_notify::listen_fds_with_names()
        .map_err(|error| format!("passed sockets (LISTEN_FDS): {error}"))?;
    Ok(fds
        .map(|(number, name)| (name, UnixListener::from(sys::take_passed_fd(number))))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_socket_has_its_mode_from_the_start_and_a_stale_one_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        for (access, mode) in [(Access::Owner, 0o600), (Access::Everybody, 0o666)] {
            let _listener = bind(&path, access).unwrap();
            let found = fs::symlink_metadata(&path).unwrap().permissions().mode() & 0o777;
            assert_eq!(found, mode);
        }
    }

    #[test]
    fn what_is_not_our_stale_socket_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let _live = bind(&path, Access::Owner).unwrap();
        assert!(
            bind(&path, Access::Owner)
                .unwrap_err()
                .contains("another process listens")
        );
        let file = dir.path().join("file");
        fs::create_dir(&file).unwrap();
        assert!(
            bind(&file, Access::Owner)
                .unwrap_err()
                .contains("something else")
        );
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert!(
            bind(&link, Access::Owner)
                .unwrap_err()
                .contains("something else")
        );
        assert!(path.exists() && file.exists());
    }
}
