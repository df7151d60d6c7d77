//! Messages to the service manager (sd_notify(3)), for both programs. Owns how they are sent; what
//! is said, and when, is the programs'. Must never stop service, whatever is at the other end:
//! a manager that has gone or does not read costs [`NOTIFY_WAIT`] and a line in the log
//! (reliability row 50); sd_notify's own call would wait for ever.

use sd_notify::NotifyState;
use std::ffi::OsString;
use std::io::ErrorKind;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// How long a message may wait for room: a service manager reads them between its other work. A
/// drain waits so long at most before it begins.
pub const NOTIFY_WAIT: Duration = Duration::from_secs(3);

/// How long a start that failed waits before it ends. Whoever waits at our socket makes the service
/// manager start us again at once; without a pause that were a busy circle (systemd.socket(5),
/// TriggerLimitIntervalSec=, which the units switch off so that it never becomes an outage).
pub const FAILED_START_PAUSE: Duration = Duration::from_secs(2);

/// Variables that are meant for one process and must not be inherited by those it starts
/// (sd_notify(3), sd_listen_fds(3), sd_watchdog_enabled(3)).
pub const VARIABLES: [&str; 6] = [
    "NOTIFY_SOCKET",
    "WATCHDOG_PID",
    "WATCHDOG_USEC",
    "LISTEN_PID",
    "LISTEN_FDS",
    "LISTEN_FDNAMES",
];

/// Tells the service manager, if there is one. Blocks for [`NOTIFY_WAIT`] at most.
///
/// # Errors
/// A sentence for the log.
pub fn notify(states: &[NotifyState<'_>]) -> Result<(), String> {
    send(&text(states))
}

/// The message as it is sent: a line for each state.
pub fn text(states: &[NotifyState<'_>]) -> String {
    // A line feed in a status would begin a state of its own.
    let line = |state: &NotifyState<'_>| state.to_string().replace('\n', " ") + "\n";
    states.iter().map(line).collect()
}

/// Sends what [`text`] made.
///
/// # Errors
/// As [`notify`].
pub fn send(text: &str) -> Result<(), String> {
    let Some(path) = manager() else {
        return Ok(());
    };
    let sent = || {
        let address = match path.as_bytes().strip_prefix(b"@") {
            Some(name) => SocketAddr::from_abstract_name(name)?, // sd_notify(3)
            None => SocketAddr::from_pathname(&path)?,
        };
        let socket = UnixDatagram::unbound()?;
        socket.set_write_timeout(Some(NOTIFY_WAIT))?;
        socket.connect_addr(&address)?;
        socket.send(text.as_bytes()).map(drop)
    };
    sent().map_err(|error: std::io::Error| match error.kind() {
        ErrorKind::WouldBlock => "NOTIFY_SOCKET: the service manager does not read it".to_owned(),
        _ => format!("NOTIFY_SOCKET: {error}"),
    })
}

/// Gives a failed start its pause, where a service manager would start us again at once.
pub fn pause_after_failed_start(why: &str) {
    if is_managed() {
        let _ = notify(&[NotifyState::Status(why)]); // the journal has it too
        std::thread::sleep(FAILED_START_PAUSE);
    }
}

/// Whether a service manager started us and listens.
pub fn is_managed() -> bool {
    manager().is_some()
}

/// Whether the service manager's socket is in the abstract namespace, which a sandbox may close.
pub fn has_abstract_socket() -> bool {
    manager().is_some_and(|path| path.as_bytes().starts_with(b"@"))
}

#[expect(
    clippy::disallowed_methods,
    reason = "it is the service manager's to say"
)]
fn manager() -> Option<OsString> {
    std::env::var_os("NOTIFY_SOCKET")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_of_two_lines_is_one_state() {
        let states = [
            NotifyState::Ready,
            NotifyState::Status("token: gone\nWATCHDOG=trigger"),
        ];
        assert_eq!(
            text(&states),
            "READY=1\nSTATUS=token: gone WATCHDOG=trigger\n"
        );
    }
}
