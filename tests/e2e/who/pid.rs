//! A number that was taken again (polkit CVE-2019-6133, systemd-coredump CVE-2025-4598). The attacker
//! is Alice in a unit that may nothing; whoever takes its number is Alice in the unit that may. On a
//! kernel without SO_PEERPIDFD: see [`crate::fallback`].

use super::with_unit;
use harness::cgroup::{Slice, Unit};
use harness::hold::{Call, Hold};
use harness::pidspace::PidSpace;
use harness::process::{self, freeze, send};
use harness::user::{ALICE, need_root};
use harness::{Config, Daemon, Token};
use nix::sys::signal::Signal;
use std::path::Path;

/// The namespace and the two units in it.
struct Place {
    space: PidSpace,
    poor: Unit,
    rich: Unit,
    _slice: Slice,
    _token: Token,
}

fn place() -> Place {
    need_root();
    let (token, slice) = (Token::new(), Slice::new());
    let config = with_unit(Config::new(&token), "payments", "payments.service", "hers");
    let mut daemon = Daemon::with_keys(config);
    assert_eq!(daemon.stop(), Some(0), "{}", daemon.stderr());
    let site = daemon.into_site();
    let command = site.command();
    let mut place = Place {
        space: PidSpace::start(site, &command, ALICE),
        poor: slice.unit("attacker.service"),
        rich: slice.unit("payments.service"),
        _slice: slice,
        _token: token,
    };
    place.control("at first");
    place
}

impl Place {
    /// Each of the two on a connection of its own gets what it may have.
    fn control(&mut self, when: &str) {
        for (unit, expected) in [(&self.poor, "403"), (&self.rich, "200")] {
            self.space.actor("one", "none", Some(unit));
            let said = self.space.tell("one", "afresh hers");
            assert_eq!(said, expected, "{when}: {}", unit.path());
            self.space.end("one");
        }
    }

    fn records(&self, kind: &str) -> Vec<serde_json::Value> {
        let records = self.space.daemon().audit_records().into_iter();
        records.filter(|record| record["kind"] == kind).collect()
    }
}

#[test]
fn a_reused_pid_gets_nothing() {
    let mut place = place();
    for attack in [
        before_it_is_accepted,
        before_it_is_looked_at,
        on_a_served_connection,
    ] {
        let granted = place.records("decision").len();
        attack(&mut place);
        assert_eq!(place.records("decision").len(), granted);
        // Who has the number now may have what is its own, on its own connection.
        assert_eq!(place.space.tell("second", "afresh hers"), "200");
        place.space.end("second");
    }
    place.control("at last");
}

/// assertd stands still from before the connection until the number has been taken again.
fn before_it_is_accepted(place: &mut Place) {
    let space = &mut place.space;
    let number = space.actor("first", "waiting", Some(&place.poor));
    freeze(space.assertd());
    assert_eq!(space.tell("first", "connect"), "connected");
    space.end("first");
    space.successor("second", "waiting", Some(&place.rich), ("first", number));
    assert_eq!(space.tell("second", "send hers"), "sent");
    assert_eq!(
        process::state(space.assertd()),
        Some('T'),
        "not accepted yet"
    );
    send(space.assertd(), Signal::SIGCONT);
    assert_eq!(space.tell("second", "read"), "nothing");
}

/// assertd has the pidfd of the connector, and is about to open `/proc/NUMBER`.
fn before_it_is_looked_at(place: &mut Place) {
    let space = &mut place.space;
    for socket in ["held1", "held2", "held3", "held4", "held5"] {
        let number = space.actor("first", socket, Some(&place.poor));
        let directory = format!("/proc/{number}");
        let hold = Hold::attach(space.assertd(), Call::Openat, "2s", "");
        assert_eq!(space.tell("first", "connect"), "connected");
        hold.wait_opening(Path::new(&directory));
        space.end("first");
        space.successor("second", socket, Some(&place.rich), ("first", number));
        let in_time = hold.opening(Path::new(&directory));
        assert_eq!(space.tell("second", "send hers"), "sent");
        assert_eq!(space.tell("second", "read"), "nothing");
        let traced = hold.end();
        if in_time {
            let opened = traced.lines().any(|line| {
                line.contains(&format!("\"{directory}\""))
                    && line.contains(") = ")
                    && !line.contains("= -1")
            });
            assert!(opened, "the other's directory was there:\n{traced}");
            return;
        }
        space.end("second");
    }
    panic!("five times assertd went on before the number was taken again");
}

/// The connection was served already, and its connector is over.
fn on_a_served_connection(place: &mut Place) {
    let space = &mut place.space;
    let number = space.actor("first", "served", Some(&place.poor));
    assert_eq!(space.tell("first", "connect"), "connected");
    assert_eq!(space.tell("first", "send hers"), "sent");
    assert_eq!(space.tell("first", "read"), "403");
    space.end("first");
    space.successor("second", "served", Some(&place.rich), ("first", number));
    assert_eq!(space.tell("second", "send hers"), "sent");
    assert_eq!(space.tell("second", "read"), "nothing");
    let denied = space
        .daemon()
        .audit_record(|record| record["reason"] == "peer_gone");
    assert_eq!(denied["pid"], number, "{denied}");
}
