//! Makes listening sockets in the file system. A path that is taken by anything but our own stale
//! socket is refused, never unlinked (reliability row 52): it may be another daemon's, alive.

use crate::{Error, Kind};
use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};
use nix::sys::stat::{Mode, umask};
use std::fs;
use std::io::ErrorKind;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::UnixListener;
use std::path::Path;

/// Binds `path` with the mode bits `mode` (0660, for example), in place of a stale socket of ours.
/// The mode is right from the first moment: the umask is set around the bind. The umask is the
/// process's, so this is called at start, before other threads make files.
///
/// # Errors
/// `Refused` if what is at `path` is no socket or somebody else's, `Unavailable` if somebody
/// listens there or it cannot be bound; all name the path.
pub fn bind(path: &Path, mode: u32) -> Result<UnixListener, Error> {
    remove_stale(path)?;
    let before = umask(Mode::from_bits_truncate(!mode & 0o777));
    let bound = UnixListener::bind(path);
    umask(before);
    bound.map_err(|e| error(Kind::Unavailable, path, "cannot be bound").because(e))
}

fn remove_stale(path: &Path) -> Result<(), Error> {
    let metadata = match fs::symlink_metadata(path) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(error(Kind::Unavailable, path, "cannot be looked at").because(e)),
        Ok(metadata) => metadata,
    };
    if !metadata.file_type().is_socket() {
        let text = "something else is there; move it away";
        return Err(error(Kind::Refused, path, text));
    }
    if metadata.uid() != nix::unistd::geteuid().as_raw() {
        let text = "belongs to another user; remove it if nothing uses it";
        return Err(error(Kind::Refused, path, text));
    }
    match try_connect(path) {
        // EAGAIN: its backlog is full (unix(7)), so there is one.
        Ok(()) | Err(Errno::EAGAIN) => {
            let text = "another process listens there; stop it first";
            Err(error(Kind::Unavailable, path, text))
        }
        Err(Errno::ECONNREFUSED) => fs::remove_file(path)
            .map_err(|e| error(Kind::Unavailable, path, "stale, cannot be removed").because(e)),
        Err(e) => Err(error(Kind::Unavailable, path, "cannot be tried").because(e)),
    }
}

/// Never waits: a listener that accepts nothing would hold us for ever.
fn try_connect(path: &Path) -> Result<(), Errno> {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let socket = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    connect(socket.as_raw_fd(), &UnixAddr::new(path)?)
}

fn error(kind: Kind, path: &Path, text: &str) -> Error {
    Error::new(kind, format!("socket {}: {text}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::socket::{Backlog, listen};
    use std::os::unix::fs::{PermissionsExt, chown};

    fn refusal(path: &Path) -> (Kind, String) {
        let error = bind(path, 0o600).unwrap_err();
        (error.kind(), error.to_string())
    }

    #[test]
    fn a_socket_has_its_mode_from_the_start_and_a_stale_one_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        for mode in [0o600, 0o660, 0o666] {
            let _listener = bind(&path, mode).unwrap();
            let found = fs::symlink_metadata(&path).unwrap().permissions().mode();
            assert_eq!(found & 0o7777, mode, "{found:o}");
        }
    }

    #[test]
    fn what_is_not_our_stale_socket_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let _live = bind(&path, 0o600).unwrap();
        let (kind, text) = refusal(&path);
        assert_eq!(kind, Kind::Unavailable);
        assert!(text.contains("another process listens"), "{text}");
        let directory = dir.path().join("directory");
        fs::create_dir(&directory).unwrap();
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        for other in [&directory, &link] {
            let (kind, text) = refusal(other);
            assert_eq!(kind, Kind::Refused);
            assert!(text.contains("something else"), "{text}");
        }
        assert!(path.exists() && directory.exists() && link.is_symlink());
    }

    #[test]
    fn a_stale_socket_of_another_user_is_left_alone() {
        if !nix::unistd::geteuid().is_root() {
            return; // nobody else can make one
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        drop(UnixListener::bind(&path).unwrap());
        chown(&path, Some(65534), None).unwrap();
        let (kind, text) = refusal(&path);
        assert_eq!(kind, Kind::Refused);
        assert!(text.contains("another user"), "{text}");
        assert!(path.exists());
    }

    #[test]
    fn a_listener_that_accepts_nothing_holds_nobody_up() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let full = UnixListener::bind(&path).unwrap();
        listen(&full, Backlog::new(0).unwrap()).unwrap(); // room for one that was not accepted
        try_connect(&path).unwrap();
        assert_eq!(try_connect(&path), Err(Errno::EAGAIN));
        let (kind, text) = refusal(&path);
        assert_eq!(kind, Kind::Unavailable);
        assert!(text.contains("another process listens"), "{text}");
    }
}
