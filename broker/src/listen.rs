//! Listening sockets: passed by systemd, or bound here by the rule of [`keystore::listen`].

use crate::sys;
use nix::sys::socket::{SockType, getsockopt, sockopt};
use std::os::unix::net::UnixListener;
use std::path::Path;

/// The two listening sockets.
pub struct Listeners {
    /// Workloads'.
    pub workload: UnixListener,
    /// Administrators'.
    pub admin: UnixListener,
}

/// Who may connect, by the socket's mode. Who gets an answer is decided elsewhere.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Everybody (0666): workloads.
    Everybody,
    /// Its owner and root (0600): administrators, the broker.
    Owner,
}

/// Binds `path`. Called at start, before other threads make files.
///
/// # Errors
/// A sentence that names the path and the remedy.
pub fn bind(path: &Path, access: Access) -> Result<UnixListener, String> {
    let mode = match access {
        Access::Everybody => 0o666,
        Access::Owner => 0o600,
    };
    keystore::listen::bind(path, mode).map_err(|error| error.to_string())
}

/// The listeners systemd passed, by the names in `FileDescriptorName=`.
pub fn passed() -> Result<Vec<(String, UnixListener)>, String> {
    let bad = |error| format!("passed sockets (LISTEN_FDS): {error}");
    // Without this look, names that were meant for another process (LISTEN_PID) and inherited by
    // this one are an error for having no descriptors.
    if sd_notify::listen_fds().map_err(bad)?.len() == 0 {
        return Ok(Vec::new());
    }
    let fds = sd_notify::listen_fds_with_names().map_err(bad)?;
    fds.map(|(number, name)| {
        let listener = UnixListener::from(sys::take_passed_fd(number));
        if !listens(&listener) {
            return Err(format!(
                "the passed socket `{name}` (descriptor {number}) does not listen on a Unix \
                 stream; use ListenStream= with a path, and Accept=no"
            ));
        }
        Ok((name, listener))
    })
    .collect()
}

/// Any other descriptor would be accepted on for ever, in vain.
fn listens(listener: &UnixListener) -> bool {
    listener.local_addr().is_ok() // fails for other families
        && getsockopt(listener, sockopt::SockType) == Ok(SockType::Stream)
        && getsockopt(listener, sockopt::AcceptConn) == Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn workloads_and_administrators_get_sockets_of_their_modes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        for (access, mode) in [(Access::Owner, 0o600), (Access::Everybody, 0o666)] {
            let _listener = bind(&path, access).unwrap();
            let found = path.symlink_metadata().unwrap().permissions().mode() & 0o777;
            assert_eq!(found, mode);
        }
    }
}
