//! Reload is all or nothing (P13): a good file is in force when the command returns, a bad one
//! changes nothing and says where it is wrong.

use crate::notify::writer_thread;
use crate::world::{BANK, bank, serves, us, with_bank};
use harness::process::{Process, send};
use harness::{DEADLINE, Daemon, Token, wait_until};
use nix::sys::signal::Signal;
use std::process::{Command, Output};

/// Workloads come and go with this file; what the site was made with stays.
fn drop_in(daemon: &Daemon, text: &str) {
    let dir = daemon.site().config().with_file_name("conf.d");
    std::fs::create_dir_all(&dir).unwrap();
    std::fs::write(dir.join("team.toml"), text).unwrap();
}

fn said(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    text(&output.stdout) + &text(&output.stderr)
}

/// A second workload of our own user that owns `other`, with the key of nobody: what counts is
/// whether policy knows the target.
fn other() -> String {
    format!(
        "[workload.other]\nmatch = {{ uid = {} }}\n[workload.other.target.other]\n\
         profile = \"rfc7523\"\nauthorization_server = \"https://as.example\"\n\
         client_id = \"other\"\nkeystore = \"hsm\"\n",
        us()
    )
}

fn knows_other(daemon: &Daemon) -> bool {
    let targets = daemon.client().targets().unwrap().targets;
    targets.iter().any(|target| target.target == "other")
}

#[test]
fn a_good_file_is_in_force_when_the_command_returns() {
    let (mut daemon, _token) = with_bank();
    let before = daemon.status().config.sha256;
    assert!(!knows_other(&daemon));
    drop_in(&daemon, &other());
    let reloaded = daemon.assertctl(&["reload"]);
    assert_eq!(reloaded.status.code(), Some(0), "{}", said(&reloaded));
    assert!(
        said(&reloaded).contains("2 workloads"),
        "{}",
        said(&reloaded)
    );
    assert!(knows_other(&daemon));
    let after = daemon.status().config.sha256;
    assert_ne!(before, after);
    // The log says from which record on it holds.
    daemon
        .audit_record(|record| record["kind"] == "configured" && record["config_sha256"] == after);
    serves(&mut daemon);

    drop_in(&daemon, "");
    assert_eq!(daemon.assertctl(&["reload"]).status.code(), Some(0));
    assert!(!knows_other(&daemon), "a workload that is gone is served");
    let denied = daemon.ask(r#"{"target":"other"}"#);
    assert_eq!(denied.status, 403, "{}", denied.body());
}

#[test]
fn a_typo_on_reload_keeps_serving() {
    let (mut daemon, _token) = with_bank();
    let before = daemon.status().config;
    drop_in(&daemon, &other().replace("client_id", "client"));
    let socket = daemon.admin_socket();
    // As the unit does it; and by the configuration that is wrong, but for where sockets are.
    for arguments in [&["-s", socket.to_str().unwrap(), "reload"][..], &["reload"]] {
        let refused = daemon.assertctl(arguments);
        assert_eq!(refused.status.code(), Some(1), "{}", said(&refused));
        let caret = "team.toml:6:1: unknown key `client`";
        assert!(said(&refused).contains(caret), "{}", said(&refused));
        assert!(
            said(&refused).contains("      | ^~~~~~"),
            "{}",
            said(&refused)
        );
    }
    let refused = daemon.assertctl(&["reload"]);
    for part in ["team.toml:6:1: unknown key `client`", "stays in force"] {
        assert!(said(&refused).contains(part), "{}", said(&refused));
    }
    assert_eq!(daemon.status().config, before);
    assert!(!knows_other(&daemon));
    serves(&mut daemon);
    // A file that cannot be read at all is no reason to forget the old one either.
    std::fs::remove_file(daemon.site().config()).unwrap();
    let client = assertd_client::Client::connect(&daemon.admin_socket());
    assert!(client.unwrap().reload().is_err());
    serves(&mut daemon);
}

#[test]
fn a_keystores_section_takes_a_restart() {
    let token = Token::new();
    let daemon = Daemon::with_keys(bank(&token));
    let config = daemon.site().config();
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(
        &config,
        text.replacen("backend =", "hang_limit_s = 59\nbackend =", 1),
    )
    .unwrap();
    let refused = daemon.assertctl(&["reload"]);
    assert_eq!(refused.status.code(), Some(1), "{}", said(&refused));
    for part in ["[keystore.hsm] changed", "systemctl restart assertd"] {
        assert!(said(&refused).contains(part), "{}", said(&refused));
    }
    assert_eq!(daemon.ask(BANK).status, 200);
}

#[test]
fn sighup_reloads_and_says_so() {
    let (mut daemon, _token) = with_bank();
    drop_in(&daemon, &other());
    send(daemon.pid(), Signal::SIGHUP);
    assert!(
        wait_until(DEADLINE, || knows_other(&daemon)),
        "{}",
        daemon.stderr()
    );
    drop_in(&daemon, "nonsense");
    send(daemon.pid(), Signal::SIGHUP);
    let told = wait_until(DEADLINE, || daemon.stderr().contains("reload failed: "));
    assert!(told, "{}", daemon.stderr());
    assert!(knows_other(&daemon));
    serves(&mut daemon);
}

#[test]
fn only_administrators_reload() {
    let (daemon, _token) = with_bank();
    let request = "POST /v1/reload HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n";
    let mut raw = daemon.raw();
    raw.send(request.as_bytes()).unwrap();
    assert_eq!(raw.answer(DEADLINE).unwrap().status, 404); // no such path at the workloads' socket
}

#[test]
fn a_reload_that_nobody_waits_for_ends_with_its_verdict_all_the_same() {
    let (mut daemon, _token) = with_bank();
    drop_in(&daemon, &other());
    // The record of the new configuration takes nine seconds to become durable.
    let mut strace = Command::new("strace");
    strace
        .args(["--trace=fdatasync", "--output=/dev/null"])
        .arg("--inject=fdatasync:delay_enter=9s:when=1")
        .arg(format!("--attach={}", writer_thread(daemon.pid())));
    let strace = Process::start(&mut strace);
    strace.wait_for_stderr("attached");
    let unsure = daemon.admin().reload().unwrap_err();
    assert!(unsure.to_string().contains("no verdict yet"), "{unsure}");
    assert!(
        !knows_other(&daemon),
        "in force before the record is durable"
    );
    let in_force = wait_until(DEADLINE, || knows_other(&daemon));
    assert!(in_force, "{}", daemon.stderr());
    let told = wait_until(DEADLINE, || daemon.stderr().contains("(reloaded)"));
    assert!(told, "{}", daemon.stderr());
    serves(&mut daemon);
}
