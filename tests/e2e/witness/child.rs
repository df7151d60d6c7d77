//! The witness as assertd's child, where no unit runs it: started by the first question, again when it
//! has ended, and ended with assertd.

use super::python;
use crate::world::{bank, serves, us, with_bank};
use harness::daemon::Site;
use harness::process::{children, runs, send};
use harness::{DEADLINE, Daemon, Token, wait_for, wait_until};
use nix::sys::signal::Signal;
use std::path::Path;

/// Asks about itself, and prints what came back.
const ABOUT_ITSELF: &str = "
print(json.dumps(ask(connect(sys.argv[1]), os.getpid())))
";

fn answers(socket: &Path) {
    let output = python(us(), ABOUT_ITSELF).arg(socket).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("/usr/bin/python3"), "{said} {output:?}");
}

/// The witness among a process's children.
fn witness_of(assertd: u32) -> Option<u32> {
    let is_one = |pid: &u32| {
        let program = std::fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
        program.ends_with("assertd-witness") && runs(*pid)
    };
    children(assertd).into_iter().find(is_one)
}

#[test]
fn without_units_assertd_starts_it_for_the_first_question_and_ends_it() {
    let (mut daemon, _token) = with_bank();
    let socket = daemon.site().runtime_dir().join("witness.sock");
    serves(&mut daemon);
    assert_eq!(witness_of(daemon.pid()), None, "nobody has asked");
    answers(&socket);
    let first = witness_of(daemon.pid()).expect("one that was asked");
    answers(&socket);
    assert_eq!(witness_of(daemon.pid()), Some(first));
    // One that dies is replaced when it is asked again.
    send(first, Signal::SIGKILL);
    assert!(wait_until(DEADLINE, || witness_of(daemon.pid()).is_none()));
    answers(&socket);
    let second = wait_for(DEADLINE, || witness_of(daemon.pid())).unwrap();
    assert_ne!(second, first);
    assert!(
        daemon
            .stderr()
            .contains("assertd: witness: its process ended")
    );
    serves(&mut daemon);
    assert_eq!(daemon.stop(), Some(0), "{}", daemon.stderr());
    assert!(!runs(second), "it ends with assertd");
}

#[test]
fn it_ends_with_an_assertd_that_is_killed() {
    let (daemon, _token) = with_bank();
    answers(&daemon.site().runtime_dir().join("witness.sock"));
    let witness = witness_of(daemon.pid()).unwrap();
    send(daemon.pid(), Signal::SIGKILL);
    assert!(wait_until(DEADLINE, || !runs(witness)));
}

#[test]
fn without_the_program_assertd_serves_and_says_what_is_missing() {
    let token = Token::new();
    let site = Site::new(bank(&token).text());
    std::fs::remove_file(site.programs().path("assertd-witness")).unwrap();
    let mut daemon = Daemon::start_at(site);
    daemon.apply();
    serves(&mut daemon);
    let said = daemon.stderr();
    let line = said
        .lines()
        .find(|line| line.starts_with("assertd: no witness: "));
    let line = line.unwrap_or_else(|| panic!("{said}"));
    assert!(line.contains("assertd-witness is missing"), "{line}");
}
