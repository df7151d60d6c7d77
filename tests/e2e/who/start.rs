//! A peer that dies while assertd starts: requests wait then for the keystore's first answer.

use super::daemon;
use super::death::{DEATHS, Death, TRIES, connector, die, gets_nothing};
use crate::world::serves;
use harness::daemon::Site;
use harness::process::Process;
use harness::{DEADLINE, Daemon, Token, wait_until};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

#[test]
fn a_peer_that_died_while_the_keystore_starts_gets_nothing() {
    let token = Token::new();
    let mut daemon = daemon(&token);
    for how in DEATHS {
        let mut hit = false;
        for _ in 0..TRIES {
            assert_eq!(daemon.stop(), Some(0), "{}", daemon.stderr());
            let (again, in_time) = died_at_the_start(daemon.into_site(), how);
            daemon = again;
            hit |= in_time;
            if hit {
                break;
            }
        }
        assert!(hit, "{how:?}: it never died in the wait");
    }
    daemon.wait_usable();
    serves(&mut daemon);
}

/// Starts assertd with a keystore that begins only when the connector is over; whether that was before
/// assertd gave the keystore up, which it does after three seconds.
fn died_at_the_start(site: Site, how: Death) -> (Daemon, bool) {
    let gate = Gate::shut(&site);
    let before = decisions_at(&site);
    let started = Instant::now();
    let process = Process::start(&mut site.command());
    let socket = site.runtime_dir().join("assertd.sock");
    let listens = wait_until(DEADLINE, || UnixStream::connect(&socket).is_ok());
    assert!(listens, "{}", process.stderr());
    // The first answer of all takes a while, in which random numbers are made ready.
    let before_it = "whoami(s)\nask(s, 'hers')\nuntil(lambda: unread(s) == 0, 'assertd reads')";
    let mut connector = connector(&socket, before_it, "pass");
    connector.expect("asked");
    die(&mut connector, how);
    assert_eq!(decisions_at(&site), before, "decided without the keystore");
    let in_time = started.elapsed() < Duration::from_secs(2);
    gate.open();
    let daemon = Daemon::ready(process, site);
    if !in_time {
        return (daemon, false);
    }
    gets_nothing(&daemon, &mut connector, how);
    let requests = daemon.status().requests;
    assert_eq!(requests.released, 0, "{requests:?}");
    // It waited, and ended for want of a keystore that is ready, or of a caller; unless it was attested
    // only when the caller was dead.
    let waited = requests.unavailable + requests.peer_gone;
    assert_eq!(waited + requests.denied, 1, "{requests:?}");
    (daemon, waited == 1)
}

fn decisions_at(site: &Site) -> usize {
    let records = harness::daemon::audit_records(&site.state_dir().join("audit"));
    records.iter().filter(|it| it["kind"] == "decision").count()
}

/// The keystore's program waits here before it begins.
struct Gate {
    fifo: PathBuf,
}

impl Gate {
    fn shut(site: &Site) -> Gate {
        let program = site.programs().keystore();
        let (real, fifo) = (
            program.with_extension("real"),
            program.with_extension("gate"),
        );
        if !real.exists() {
            std::fs::rename(&program, &real).unwrap();
            let (fifo, real) = (fifo.display(), real.display());
            let script = format!(
                "#!/bin/sh\nif [ -p '{fifo}' ]; then read open <'{fifo}'; fi\nexec '{real}' \"$@\"\n"
            );
            std::fs::write(&program, script).unwrap();
            let mode = std::fs::Permissions::from_mode(0o755);
            std::fs::set_permissions(&program, mode).unwrap();
        }
        let mode = nix::sys::stat::Mode::from_bits_truncate(0o600);
        nix::unistd::mkfifo(&fifo, mode).unwrap();
        Gate { fifo }
    }

    /// Waits until the program reads.
    fn open(self) {
        std::fs::write(&self.fifo, "open\n").unwrap();
        std::fs::remove_file(&self.fifo).unwrap();
    }
}
