//! Deny lists: what is listed gets nothing, as soon as the file says so, and the record says why.

use crate::who::is_served_as;
use harness::caller::{Caller, finished, script_as};
use harness::cgroup::{self, Slice};
use harness::http::post_target;
use harness::programs::Copies;
use harness::user::{ALICE, BOB, exchange_as, need_root};
use harness::{Config, DEADLINE, Daemon, Token, public_dir, replace_file, wait_until};
use std::fs::OpenOptions;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use tempfile::TempDir;

/// How often an attack is tried whose moment may be missed on a machine that is busy.
const TRIES: usize = 10;

/// A daemon with two workloads, and the directory of its lists.
fn daemon(token: &Token, lists: &[&str]) -> (Daemon, TempDir) {
    need_root();
    let dir = public_dir();
    let mut deny = "[deny]\n".to_owned();
    for list in lists {
        replace_file(&dir.path().join(list), "# nothing yet\n");
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

fn status(daemon: &Daemon, uid: u32, target: &str) -> u16 {
    exchange_as(uid, &daemon.socket(), &post_target(target)).status
}

#[test]
fn a_user_is_denied_from_the_moment_the_list_names_it_until_it_does_not() {
    let token = Token::new();
    let (daemon, dir) = daemon(&token, &["users"]);
    let users = dir.path().join("users");
    assert_eq!(status(&daemon, ALICE, "bank"), 200);
    replace_file(&users, &format!("{ALICE} # until it is looked at\n"));
    assert!(wait_until(DEADLINE, || status(&daemon, ALICE, "bank") == 403));
    assert_eq!(status(&daemon, BOB, "vault"), 200);
    daemon.audit_record(|it| it["reason"] == "listed_user" && it["uid"] == ALICE);
    // What cannot be read changes nothing, and is said.
    replace_file(&users, "no-such-user-here\n");
    daemon.wait_logged("the old ones stay in force", 1);
    assert_eq!(status(&daemon, ALICE, "bank"), 403);
    replace_file(&users, "");
    assert!(wait_until(DEADLINE, || status(&daemon, ALICE, "bank") == 200));
}

/// Writes a list, and waits until it is in force.
#[track_caller]
pub fn is_listed(daemon: &Daemon, list: &Path, text: &str) {
    const READ: &str = "deny lists: read again";
    let before = daemon.logged(READ).len();
    replace_file(list, text);
    daemon.wait_logged(READ, before + 1);
}

/// What Alice is answered who runs this Python. On a busy machine the witness may answer too late, and
/// what it has not seen before may take it too long: who asks again is told.
#[track_caller]
fn asks_with(python: &Path, daemon: &Daemon, expected: &str) {
    let ask = "s = connect()\nask(s, 'bank')\nsay(status(s))";
    let usual = script_as(ALICE, &daemon.socket(), ask);
    let mut command = Command::new(python);
    command.args(usual.get_args()).uid(ALICE).gid(ALICE);
    let mut answer = String::new();
    let answered = wait_until(DEADLINE, || {
        answer = finished(&mut command);
        answer == expected || expected != "200" && answer != "503"
    });
    assert!(
        answered && answer == expected,
        "{}: {answer}",
        python.display()
    );
}

#[test]
fn an_executable_is_denied_wherever_it_lies_and_no_other_of_its_user_is() {
    let token = Token::new();
    let (daemon, dir) = daemon(&token, &["executables"]);
    let copies = Copies::new();
    let python = copies.of("/usr/bin/python3", "python");
    let elsewhere = copies.of("/usr/bin/python3", "another-name");
    let assertctl = copies.of(daemon.site().programs().assertctl(), "assertctl");
    for program in [&python, &elsewhere] {
        asks_with(program, &daemon, "200");
    }
    let list = dir.path().join("executables");
    let line = format!("{} python\n", copies.sha256("python"));
    is_listed(&daemon, &list, &line);
    asks_with(&python, &daemon, "403");
    asks_with(&elsewhere, &daemon, "403");
    let moved = copies.path("moved");
    std::fs::rename(&python, &moved).unwrap();
    asks_with(&moved, &daemon, "403");
    let denied = daemon.audit_record(|it| it["reason"] == "listed_executable");
    let id = denied["id"].as_str().unwrap();
    let explained = daemon.assertctl(&["explain", id]);
    let said = String::from_utf8_lossy(&explained.stdout);
    assert!(said.contains("what it runs is on the deny list"), "{said}");
    // Another program of the same user is nobody's business.
    let is_served = || is_served_as(&daemon, &assertctl, ALICE, "bank");
    assert!(wait_until(DEADLINE, is_served));
    is_listed(&daemon, &list, "# it was a false alarm\n");
    asks_with(&moved, &daemon, "200");
}

/// A file that is longer than the witness hashes: a hole behind the program.
#[test]
fn while_executables_are_listed_what_cannot_be_attested_gets_nothing() {
    const HASHED_MAX: u64 = 1 << 30;
    let token = Token::new();
    let (daemon, dir) = daemon(&token, &["executables"]);
    let copies = Copies::new();
    let [python, huge] = ["python", "huge"].map(|name| copies.of("/usr/bin/python3", name));
    let file = OpenOptions::new().write(true).open(&huge).unwrap();
    file.set_len(HASHED_MAX + 1).unwrap();
    drop(file); // nobody executes what somebody may write to
    asks_with(&huge, &daemon, "200"); // nothing is listed
    let list = dir.path().join("executables");
    is_listed(&daemon, &list, &format!("{}\n", "ab".repeat(32)));
    asks_with(&huge, &daemon, "403");
    asks_with(&python, &daemon, "200");
    let denied = daemon.audit_record(|it| it["reason"] == "program_not_attestable");
    assert_eq!(denied["uid"], ALICE, "{denied}");
    let explained = daemon.assertctl(&["explain", denied["id"].as_str().unwrap()]);
    let said = String::from_utf8_lossy(&explained.stdout);
    assert!(said.contains("could not be found out"), "{said}");
}

#[test]
fn a_unit_is_denied_by_its_name_by_its_path_and_by_a_pattern_and_no_other_is() {
    let (token, slice) = (Token::new(), Slice::new());
    let (daemon, dir) = daemon(&token, &["units"]);
    // The last is what systemd calls the cgroup of io.service (cg_escape()).
    let units = [
        "web@1.service",
        "web@2.service",
        "batch.service",
        "_io.service",
    ];
    let units = units.map(|name| slice.unit(name));
    let script = "
say('ready')
while told() == 'ask':
    s = connect()
    ask(s, 'bank')
    say(status(s))
";
    let mut caller = Caller::start(ALICE, &daemon.socket(), script);
    caller.expect("ready");
    let mut answers = || {
        units.each_ref().map(|unit| {
            unit.take(caller.pid());
            assert_eq!(cgroup::of(caller.pid()), unit.path());
            caller.tell("ask");
            caller.line()
        })
    };
    assert_eq!(answers(), ["200"; 4]);
    for (listed, expected) in [
        ("web@1.service".to_owned(), ["403", "200", "200", "200"]),
        (units[2].path().to_owned(), ["200", "200", "403", "200"]),
        ("web@*.service".to_owned(), ["403", "403", "200", "200"]),
        (
            format!("{}/b*.service", slice.path()),
            ["200", "200", "403", "200"],
        ),
        ("io.service".to_owned(), ["200", "200", "200", "403"]),
        (units[3].path().to_owned(), ["200", "200", "200", "403"]),
        ("_io.service".to_owned(), ["200"; 4]),
        // A path is the whole of it, and a name is not another's beginning.
        ("/web@1.service\neb@1.service".to_owned(), ["200"; 4]),
    ] {
        is_listed(&daemon, &dir.path().join("units"), &format!("{listed}\n"));
        assert_eq!(answers(), expected, "{listed}");
    }
    let denied = daemon.audit_record(|it| it["reason"] == "listed_unit");
    assert_eq!(denied["unit"], units[0].path(), "{denied}");
    let said = daemon.assertctl(&["explain", denied["id"].as_str().unwrap()]);
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    // By the lists of now: what is listed no more would be granted.
    assert!(said.contains("its unit is on the deny list"), "{said}");
    assert!(said.contains("now it is granted"), "{said}");
}

#[test]
fn a_list_that_cannot_be_read_stops_a_start_and_a_reload() {
    let token = Token::new();
    let (daemon, dir) = daemon(&token, &["units"]);
    replace_file(&dir.path().join("units"), "payments\n");
    let reloaded = daemon.assertctl(&["reload"]);
    let said = String::from_utf8_lossy(&reloaded.stderr);
    assert_eq!(reloaded.status.code(), Some(1), "{said}");
    assert!(said.contains("units:1:1: a unit's name ends in"), "{said}");
    let shown = "\n    1 | payments\n      | ^~~~~~~~";
    assert!(said.contains(shown), "{said}");
    assert_eq!(status(&daemon, ALICE, "bank"), 200);
    let site = daemon.into_site();
    let started = site.command().output().unwrap();
    let said = String::from_utf8_lossy(&started.stderr);
    assert_eq!(started.status.code(), Some(78), "{said}");
    assert!(said.contains("units:1:1: a unit's name ends in"), "{said}");
}

/// A tool that writes in place empties the list first; whoever reloads at that moment lets nobody in.
#[test]
fn a_reload_while_a_list_is_written_anew_lets_nobody_in() {
    let token = Token::new();
    let (daemon, dir) = daemon(&token, &["users"]);
    let users = dir.path().join("users");
    let line = format!("{ALICE}\n");
    is_listed(&daemon, &users, &line);
    assert_eq!(status(&daemon, ALICE, "bank"), 403);
    let write = |text: &str| {
        let mut file = OpenOptions::new().write(true).truncate(true).open(&users);
        std::io::Write::write_all(file.as_mut().unwrap(), text.as_bytes()).unwrap();
    };
    let looks = || daemon.logged("deny lists: read again").len();
    let hit = (0..TRIES).any(|_| {
        let before = looks();
        write("");
        let reloaded = daemon.assertctl(&["reload"]);
        assert!(reloaded.status.success(), "{reloaded:?}");
        let answer = status(&daemon, ALICE, "bank");
        assert_eq!(std::fs::metadata(&users).unwrap().len(), 0, "it is empty");
        // On a machine that is busy it may have stayed so for long enough to count.
        let has_settled = looks() > before;
        assert!(answer == 403 || has_settled, "{answer}");
        write(&line);
        assert!(wait_until(DEADLINE, || status(&daemon, ALICE, "bank") == 403));
        !has_settled
    });
    assert!(
        hit,
        "each time the empty list had settled before the reload"
    );
    // What stays so comes into force, though a reload has passed it by.
    write("");
    assert!(daemon.assertctl(&["reload"]).status.success());
    assert!(wait_until(DEADLINE, || status(&daemon, ALICE, "bank") == 200));
}

#[test]
fn who_is_listed_is_told_of_no_target() {
    let token = Token::new();
    let (daemon, dir) = daemon(&token, &["users", "executables"]);
    // With a Python, whom the witness looks at for a list of executables alone.
    let script = "
s = connect()
s.sendall(b'GET /v1/targets HTTP/1.1\\r\\nhost: a\\r\\n\\r\\n')
code, body = answer(s)
say(code, body.count('\"target\":'))
";
    let targets = |uid| finished(&mut script_as(uid, &daemon.socket(), script));
    assert_eq!(
        (targets(ALICE), targets(BOB)),
        ("200 1".into(), "200 1".into())
    );
    is_listed(&daemon, &dir.path().join("users"), &format!("{ALICE}\n"));
    assert_eq!(
        (targets(ALICE), targets(BOB)),
        ("200 0".into(), "200 1".into())
    );
    let python = std::fs::canonicalize("/usr/bin/python3").unwrap();
    let copies = Copies::new();
    copies.of(python, "python");
    let line = format!("{} python\n", copies.sha256("python"));
    is_listed(&daemon, &dir.path().join("executables"), &line);
    assert!(wait_until(DEADLINE, || targets(BOB) == "200 0"));
}
