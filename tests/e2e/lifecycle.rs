//! Start, drain, stop.

use harness::{Config, Daemon, SoftHsm, wait_until};

#[test]
fn a_killed_broker_takes_its_keystore_with_it() {
    let token = SoftHsm::new();
    let mut daemon = Daemon::start(Config::new(&token).text());
    let keystore = daemon.keystore_pid();
    daemon.signal(nix::sys::signal::Signal::SIGKILL);
    assert_eq!(daemon.exit_code(), None);
    assert!(wait_until(harness::DEADLINE, || !harness::process::runs(
        keystore
    )));
}

#[test]
fn hello() {
    let token = SoftHsm::new();
    let config = Config::new(&token)
        .workload("bank", 0, "")
        .target("bank", "bank", "");
    let mut daemon = Daemon::with_keys(config.text());
    let answer = daemon.ask(r#"{"target":"bank"}"#);
    assert_eq!(answer.status, 200, "{}", answer.body());
    eprintln!("{:#?} {}", daemon.audit_records(), daemon.stderr());
    assert_eq!(daemon.stop(), Some(0));
}
