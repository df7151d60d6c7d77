//! Deny lists: what is listed gets nothing, as soon as the file says so, and the record says why.

use harness::caller::printed;
use harness::http::post_target;
use harness::user::{ALICE, BOB, exchange_as, need_root};
use harness::{Config, DEADLINE, Daemon, Token, public_dir, wait_until};
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// A daemon with two workloads, and the directory of its lists.
fn daemon(token: &Token, lists: &[&str]) -> (Daemon, TempDir) {
    need_root();
    let dir = public_dir();
    let mut deny = "[deny]\n".to_owned();
    for list in lists {
        replace(&dir.path().join(list), "# nothing yet\n");
        deny += &format!("{list} = \"{}\"\n", dir.path().join(list).display());
    }
    let config = Config::new(token)
        .workload("alice", ALICE, "")
        .target("alice", "bank", "")
        .workload("bob", BOB, "")
        .target("bob", "vault", "")
        .with(&deny);
    (Daemon::with_keys(config), dir)
}

fn replace(path: &Path, text: &str) {
    let new = path.with_extension("new");
    std::fs::write(&new, text).unwrap();
    std::fs::rename(new, path).unwrap();
}

fn status(daemon: &Daemon, uid: u32, target: &str) -> u16 {
    exchange_as(uid, &daemon.socket(), &post_target(target)).status
}

#[test]
fn a_user_is_denied_from_the_moment_the_list_names_it_until_it_does_not() {
    let token = Token::new();
    let (daemon, dir) = daemon(&token, &["users"]);
    let users = dir.path().join("users");
    assert_eq!(status(&daemon, ALICE, "bank"), 200);
    replace(&users, &format!("{ALICE} # until it is looked at\n"));
    assert!(wait_until(DEADLINE, || status(&daemon, ALICE, "bank") == 403));
    assert_eq!(status(&daemon, BOB, "vault"), 200);
    daemon.audit_record(|it| it["reason"] == "listed_user" && it["uid"] == ALICE);
    // What cannot be read changes nothing, and is said.
    replace(&users, "no-such-user-here\n");
    daemon.wait_logged("the old ones stay in force", 1);
    assert_eq!(status(&daemon, ALICE, "bank"), 403);
    replace(&users, "");
    assert!(wait_until(DEADLINE, || status(&daemon, ALICE, "bank") == 200));
}

#[test]
fn an_executable_is_denied_wherever_it_lies() {
    let token = Token::new();
    let (daemon, dir) = daemon(&token, &["executables"]);
    let python = PathBuf::from("/usr/bin/python3").canonicalize().unwrap();
    let ask = || {
        printed(
            ALICE,
            &daemon.socket(),
            "s = connect()\nask(s, 'bank')\nsay(status(s))",
        )
    };
    assert_eq!(ask(), "200");
    let listed = Command::new("sha256sum").arg(&python).output().unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    replace(&dir.path().join("executables"), &listed);
    assert!(wait_until(DEADLINE, || ask() == "403"));
    let denied = daemon.audit_record(|it| it["reason"] == "listed_executable");
    let id = denied["id"].as_str().unwrap();
    let explained = daemon.assertctl(&["explain", id]);
    let said = String::from_utf8_lossy(&explained.stdout);
    assert!(said.contains("what it runs is on the deny list"), "{said}");
    // Another program of the same user is nobody's business.
    let assertctl = Command::new(daemon.site().programs().assertctl())
        .args(["assertion", "--target", "vault", "-s"])
        .arg(daemon.socket())
        .output()
        .unwrap();
    assert!(!assertctl.status.success(), "root has no target");
}

#[test]
fn a_list_that_cannot_be_read_stops_a_start_and_a_reload() {
    let token = Token::new();
    let (daemon, dir) = daemon(&token, &["units"]);
    replace(&dir.path().join("units"), "payments\n");
    let reloaded = daemon.assertctl(&["reload"]);
    let said = String::from_utf8_lossy(&reloaded.stderr);
    assert_eq!(reloaded.status.code(), Some(1), "{said}");
    assert!(said.contains("units:1:1: a unit's name ends in"), "{said}");
    assert_eq!(status(&daemon, ALICE, "bank"), 200);
    let site = daemon.into_site();
    let started = site.command().output().unwrap();
    let said = String::from_utf8_lossy(&started.stderr);
    assert_eq!(started.status.code(), Some(78), "{said}");
    assert!(said.contains("units:1:1: a unit's name ends in"), "{said}");
}
