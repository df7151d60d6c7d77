//! A service manager's end of NOTIFY_SOCKET (sd_notify(3)): what a process tells it, in the order in
//! which it does. It is the test; systemd itself is not needed.

use crate::{DEADLINE, public_dir, wait_for, wait_until};
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Nothing for so long is silence: a service manager would have acted three times.
pub const SILENCE: Duration = Duration::from_secs(1);

/// The service manager's end of NOTIFY_SOCKET.
pub struct Ear {
    socket: UnixDatagram,
    dir: TempDir,
}

impl Ear {
    /// Before anybody speaks.
    pub fn new() -> Ear {
        let dir = public_dir();
        let socket = UnixDatagram::bind(dir.path().join("notify")).unwrap();
        Ear { socket, dir }
    }

    /// NOTIFY_SOCKET.
    pub fn path(&self) -> PathBuf {
        self.dir.path().join("notify")
    }

    /// The next message; `None` if none comes in time.
    pub fn hear(&self, deadline: Duration) -> Option<String> {
        self.socket.set_read_timeout(Some(deadline)).unwrap();
        let mut bytes = [0; 4096];
        let length = self.socket.recv(&mut bytes).ok()?;
        Some(String::from_utf8(bytes[..length].to_vec()).unwrap())
    }

    /// The next message that is no watchdog's; panics if none comes.
    pub fn hear_state(&self) -> String {
        let heard = wait_for(DEADLINE, || {
            self.hear(DEADLINE).filter(|said| said != "WATCHDOG=1\n")
        });
        heard.expect("a message to the service manager")
    }

    /// Demands so many messages of the watchdog within a time, none of them anything else.
    pub fn hear_watchdog(&self, count: usize, within: Duration) {
        let end = Instant::now() + within;
        for number in 0..count {
            let left = end.saturating_duration_since(Instant::now());
            let said = self.hear(left.max(Duration::from_millis(1)));
            assert_eq!(
                said.as_deref(),
                Some("WATCHDOG=1\n"),
                "message {number} of {count} within {within:?}"
            );
        }
    }

    /// Waits until nothing has come for [`SILENCE`].
    pub fn hears_nothing(&self) -> bool {
        wait_until(DEADLINE, || self.hear(SILENCE).is_none())
    }
}

impl Default for Ear {
    fn default() -> Ear {
        Ear::new()
    }
}
