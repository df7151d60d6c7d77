//! The courier as assertd's child, where no unit runs it: started by the first question, again when it
//! has ended, and ended with assertd.

use super::*;
use crate::world::{bank, serves};
use harness::daemon::Site;
use harness::process::{children, runs, send};
use harness::{Daemon, Token, wait_for, wait_until};
use nix::sys::signal::Signal;

/// The courier among a process's children.
fn courier_of(assertd: u32) -> Option<u32> {
    let is_one = |pid: &u32| {
        let program = std::fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
        program.ends_with("assertd-courier") && runs(*pid)
    };
    children(assertd).into_iter().find(is_one)
}

fn with_verify_url(token: &Token, publisher: &Publisher, ca: &Path) -> String {
    let courier = format!(
        "[issuer.prod]\nurl = \"https://id.example/prod\"\nsubjects = [\"a\"]\nverify_url = {:?}\n\
         keystore = {:?}\n[courier]\nca = {:?}\n",
        publisher.url("right", "new"),
        harness::token::KEYSTORE,
        ca
    );
    bank(token).with(&courier).text().to_owned()
}

#[test]
fn without_units_assertd_starts_it_for_the_first_question_and_ends_it() {
    let (publisher, token) = (Publisher::start(), Token::new());
    let mut daemon = Daemon::with_keys(with_verify_url(&token, &publisher, &publisher.ca()));
    let socket = daemon.site().runtime_dir().join("courier.sock");
    serves(&mut daemon);
    let fetches = || assert_ne!(ask(&socket, "prod")["document"], Value::Null);
    fetches();
    let first = courier_of(daemon.pid()).expect("one that was asked");
    fetches();
    assert_eq!(courier_of(daemon.pid()), Some(first));
    // One that dies is replaced when it is asked again.
    send(first, Signal::SIGKILL);
    assert!(wait_until(DEADLINE, || courier_of(daemon.pid()).is_none()));
    fetches();
    let second = wait_for(DEADLINE, || courier_of(daemon.pid())).unwrap();
    assert_ne!(second, first);
    assert!(
        daemon
            .stderr()
            .contains("assertd: courier: its process ended")
    );
    // Whose `ca` is another now, and lies where its sandbox does not reach, gives way to a new one.
    let elsewhere = public_dir();
    let ca = elsewhere.path().join("ca.pem");
    std::fs::copy(publisher.ca(), &ca).unwrap();
    daemon
        .site()
        .configure(&with_verify_url(&token, &publisher, &ca));
    let question = r#"{"version":2,"issuer":"prod"}"#;
    let ends = || exchange(&socket, question).is_none();
    assert!(wait_until(DEADLINE, ends), "{}", daemon.stderr());
    fetches();
    let third = wait_for(DEADLINE, || courier_of(daemon.pid())).unwrap();
    assert_ne!(third, second);
    serves(&mut daemon);
    assert_eq!(daemon.stop(), Some(0), "{}", daemon.stderr());
    assert!(!runs(second) && !runs(third), "it ends with assertd");
}

#[test]
fn nobody_asks_it_where_nothing_is_to_be_read_back() {
    let token = Token::new();
    let mut daemon = Daemon::with_keys(bank(&token));
    serves(&mut daemon);
    assert_eq!(courier_of(daemon.pid()), None);
}

#[test]
fn assertd_serves_without_one() {
    let (publisher, token) = (Publisher::start(), Token::new());
    let site = Site::new(&with_verify_url(&token, &publisher, &publisher.ca()));
    std::fs::remove_file(site.programs().path("assertd-courier")).unwrap();
    let mut daemon = Daemon::start_at(site);
    daemon.apply();
    serves(&mut daemon);
    assert!(
        daemon.stderr().contains("no courier: "),
        "{}",
        daemon.stderr()
    );
}

#[test]
fn check_tries_every_url_and_says_what_is_there() {
    let (publisher, token) = (Publisher::start(), Token::new());
    let more = format!(
        "[issuer.down]\nurl = \"https://id.example/down\"\nsubjects = [\"a\"]\nkeystore = {:?}\n\
         verify_url = {:?}\n",
        harness::token::KEYSTORE,
        publisher.url("right", "500")
    );
    let text = with_verify_url(&token, &publisher, &publisher.ca());
    let mut daemon = Daemon::with_keys(more + &text);
    let said = daemon.assertctl(&["check"]).stdout;
    let said = String::from_utf8_lossy(&said);
    let line = |start: &str, part: &str| {
        let mut lines = said.lines();
        let there = lines.any(|it| it.starts_with(start) && it.contains(part));
        assert!(there, "{start} {part}: {said}");
    };
    let (new, down) = (publisher.url("right", "new"), publisher.url("right", "500"));
    line("ok    courier", &format!("prod: {new} is a set of keys"));
    line("warn  courier", &format!("down: {down}: answers 500"));
    line("      ", "correct `verify_url` of [issuer.down]");
    assert_eq!(daemon.stop(), Some(0), "{}", daemon.stderr());
}
