//! The world around the product, for tests and the benchmark: a token of its own, a configuration,
//! the real programs as real processes, callers that really are other users, raw bytes on sockets,
//! and the peers nobody here wrote.
//!
//! Black box: everything goes through files, sockets, signals and exit codes. What cannot run here
//! panics and says why; nothing is skipped. Every process that is started is ended when its value
//! is dropped, and every wait has a deadline.
#![allow(
    clippy::unwrap_used,
    reason = "a harness that cannot go on fails the test that uses it"
)]

pub mod assertion;
pub mod caller;
pub mod cgroup;
pub mod clock;
pub mod config;
pub mod daemon;
pub mod fault;
pub mod hold;
pub mod http;
pub mod keystore;
pub mod manager;
pub mod peers;
pub mod pidspace;
pub mod process;
pub mod programs;
pub mod publisher;
pub mod redeemer;
pub mod rootspace;
pub mod setuid;
pub mod softhsm;
pub mod stepper;
pub mod suite;
pub mod swtpm;
pub mod token;
pub mod tpm;
pub mod tpmproxy;
pub mod trace;
pub mod user;
mod watch;
pub mod webserver;

pub use config::Config;
pub use daemon::Daemon;
pub use softhsm::SoftHsm;
pub use token::Token;
pub use tpm::Tpm;

use std::time::{Duration, Instant};

/// How long anything may take that usually takes milliseconds: two cores, shared with a build.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// Polls until `condition` holds; `false` if it does not within `deadline`.
#[must_use]
pub fn wait_until(deadline: Duration, mut condition: impl FnMut() -> bool) -> bool {
    wait_for(deadline, || condition().then_some(())).is_some()
}

/// Polls until there is something; `None` if there is nothing within `deadline`.
#[must_use]
pub fn wait_for<T>(deadline: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + deadline;
    loop {
        if let Some(found) = look() {
            return Some(found);
        }
        if Instant::now() >= end {
            return None;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A directory below the system's temporary one that every user may enter.
pub fn public_dir() -> tempfile::TempDir {
    public_dir_in(&std::env::temp_dir())
}

/// The same below another.
pub fn public_dir_in(parent: &std::path::Path) -> tempfile::TempDir {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::Builder::new()
        .prefix("assertd-")
        .permissions(std::fs::Permissions::from_mode(0o755))
        .tempdir_in(parent)
        .unwrap();
    // The umask may have narrowed it.
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    dir
}

/// Replaces a file as a whole: whoever reads it sees the old text or the new.
pub fn replace_file(path: &std::path::Path, text: &str) {
    let unfinished = path.with_extension("new");
    std::fs::write(&unfinished, text).unwrap();
    std::fs::rename(&unfinished, path).unwrap();
}
