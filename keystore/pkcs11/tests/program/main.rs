//! The program as whoever starts it sees it: arguments, exit codes, and that it serves on its
//! standard input with the environment its section asks for.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod manager;
mod site;

use keystore::Kind;
use keystore::client::Client;
use keystore::protocol::Standing;
use pkcs11_shim::counts::Counts;
use pkcs11_shim::functions::Function;
use site::{
    DEADLINE, NOBODY, Running, health, prepare, prepare_with, program, run, start, start_as, write,
};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

#[test]
fn it_serves_on_standard_input_with_the_environment_of_its_section() {
    let dir = tempfile::tempdir().unwrap();
    prepare(dir.path(), "123456\n");
    let running = start(dir.path());
    let health = health(dir.path());
    assert_eq!(health.standing, Standing::Usable {}, "{health:?}");
    assert!(health.token.contains("\"t\""), "{health:?}");
    let client = Client::connect(&dir.path().join("socket"), DEADLINE).unwrap();
    assert_eq!(
        client.welcome().pid,
        running.0.id(),
        "the second start kept the process id"
    );
}

#[test]
fn with_a_wrong_pin_it_stays_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    prepare(dir.path(), "wrong\n");
    let _running = start(dir.path());
    match health(dir.path()).standing {
        Standing::Failed { kind, why } => {
            assert_eq!(kind, Kind::BadPin, "{why}");
            assert!(!why.contains("wrong"), "{why}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_login_without_a_clear_answer_is_tried_three_times_and_then_rarely_whatever_restarts() {
    let dir = tempfile::tempdir().unwrap();
    prepare_with(dir.path(), "123456\n", &pkcs11_shim::module_path());
    let logins = Counts::open(&dir.path().join("counts")).unwrap();
    let logins = || logins.of(Function::C_Login);
    write(&dir.path().join("rules"), "C_Login * ckr:0x5\n"); // CKR_GENERAL_ERROR
    let waits = || match health(dir.path()).standing {
        Standing::Degraded { kind, why } if why.contains("without a clear answer") => {
            assert_eq!(kind, Kind::Unavailable, "{why}");
            assert!(why.contains("the next is made in"), "{why}");
            assert!(why.contains("pin.v1, and it is tried at once"), "{why}");
            true
        }
        Standing::Degraded { why, .. } => {
            assert!(why.contains("CKR_GENERAL_ERROR"), "{why}");
            false
        }
        other => panic!("{other:?}"),
    };
    let begun = Instant::now();
    for _ in 0..3 {
        let running = start(dir.path());
        let deadline = Instant::now() + DEADLINE;
        while !waits() {
            assert!(Instant::now() < deadline, "it is tried for ever");
            std::thread::park_timeout(Duration::from_millis(20));
        }
        drop(running);
    }
    // The fourth is made 10 s after the third, by a clock of whole seconds.
    let made = logins();
    let rare = u64::from(begun.elapsed() > Duration::from_secs(9));
    assert!((3..=3 + rare).contains(&made), "{made} logins");
}

#[test]
fn a_wrong_pin_costs_one_login_over_twenty_restarts() {
    let dir = tempfile::tempdir().unwrap();
    prepare_with(dir.path(), "wrong\n", &pkcs11_shim::module_path());
    let logins = Counts::open(&dir.path().join("counts")).unwrap();
    for _ in 0..20 {
        let _running = start(dir.path());
        match health(dir.path()).standing {
            Standing::Failed { kind, why } => assert_eq!(kind, Kind::BadPin, "{why}"),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(logins.of(Function::C_Login), 1);
    // The right one is another one.
    std::fs::remove_file(dir.path().join("pin")).unwrap();
    write(&dir.path().join("pin"), "123456\n");
    let _running = start(dir.path());
    assert_eq!(health(dir.path()).standing, Standing::Usable {});
    assert_eq!(logins.of(Function::C_Login), 2);
}

#[test]
fn a_token_that_was_gone_at_login_is_logged_in_to_when_it_is_back() {
    let dir = tempfile::tempdir().unwrap();
    prepare_with(dir.path(), "123456\n", &pkcs11_shim::module_path());
    let rules = dir.path().join("rules");
    write(&rules, "C_Login * ckr:0xe0\n"); // CKR_TOKEN_NOT_PRESENT
    let _running = start(dir.path());
    match health(dir.path()).standing {
        Standing::Degraded { .. } => {}
        other => panic!("{other:?}"),
    }
    std::fs::remove_file(&rules).unwrap();
    let deadline = Instant::now() + DEADLINE;
    while health(dir.path()).standing != (Standing::Usable {}) {
        assert!(Instant::now() < deadline, "it was not tried again");
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

#[test]
fn its_memory_is_for_nobody_else_and_what_it_makes_is_its_own() {
    let dir = tempfile::tempdir().unwrap();
    prepare(dir.path(), "123456\n");
    // As another user than root: what belongs to root in /proc is then what is not dumpable.
    let own = nix::unistd::geteuid();
    let user = if own.is_root() { NOBODY } else { own.as_raw() };
    let chowned = Command::new("chown")
        .args(["-R", &user.to_string()])
        .arg(dir.path())
        .status();
    assert!(chowned.unwrap().success());
    let running = start_as(user, dir.path());
    health(dir.path()); // the second start is over
    let proc = PathBuf::from(format!("/proc/{}", running.0.id()));
    let limits = std::fs::read_to_string(proc.join("limits")).unwrap();
    let core = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max core file size"))
        .unwrap();
    let core: Vec<&str> = core.split_whitespace().collect();
    assert_eq!(core[..2], ["0", "0"], "{limits}");
    let status = std::fs::read_to_string(proc.join("status")).unwrap();
    assert!(status.contains("\nUmask:\t0077\n"), "{status}");
    let uid = format!("\nUid:\t{user}\t");
    assert!(status.contains(&uid), "{status}");
    assert_eq!(proc.join("mem").metadata().unwrap().uid(), 0, "dumpable");
}

#[test]
fn its_socket_is_for_owner_and_group_and_is_not_taken_from_a_live_process() {
    let dir = tempfile::tempdir().unwrap();
    prepare(dir.path(), "123456\n");
    let socket = dir.path().join("socket");
    let command = || {
        let mut command = program();
        command
            .args(["--name", "hsm", "--config"])
            .arg(dir.path().join("assertd.toml"))
            .arg("--socket")
            .arg(&socket)
            .arg("--state-dir")
            .arg(dir.path().join("state"))
            .stdin(Stdio::null());
        command
    };
    let live = UnixListener::bind(&socket).unwrap();
    let refused = command().output().unwrap();
    let shown = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(69), "{shown}");
    assert!(shown.contains("another process listens there"), "{shown}");
    UnixStream::connect(&socket).unwrap();
    drop(live); // which leaves a stale socket
    let child = command().stderr(Stdio::null()).spawn().unwrap();
    let _running = Running(child);
    let deadline = Instant::now() + DEADLINE;
    while UnixStream::connect(&socket).is_err() {
        assert!(Instant::now() < deadline, "it does not listen");
        std::thread::park_timeout(Duration::from_millis(5));
    }
    assert_eq!(health(dir.path()).standing, Standing::Usable {});
    assert_eq!(socket.metadata().unwrap().mode() & 0o777, 0o660);
}

#[test]
fn a_child_whose_parent_has_ended_ends_before_it_touches_anything() {
    let dir = tempfile::tempdir().unwrap();
    prepare(dir.path(), "123456\n");
    let ended = program()
        .args(["--name", "hsm", "--listen-stdin", "--parent"])
        .arg((std::process::id() + 1).to_string())
        .arg("--config")
        .arg(dir.path().join("none.toml"))
        .arg("--state-dir")
        .arg(dir.path().join("state"))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let shown = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert_eq!(ended.status.code(), Some(69), "{shown}");
    assert!(shown.contains("--parent"), "{shown}");
    assert!(!dir.path().join("state").exists());
}

#[test]
fn a_keystore_ends_with_its_parent() {
    let dir = tempfile::tempdir().unwrap();
    prepare(dir.path(), "123456\n");
    let socket = dir.path().join("socket");
    let listener = UnixListener::bind(&socket).unwrap();
    // A parent that we can kill: a shell, which tells its own pid. It would give what it runs
    // beside itself another standard input than its own (POSIX sh, 2.9.3.1).
    let script = "exec 3<&0; \"$0\" \"$@\" --parent $$ <&3 3<&- & wait";
    let parent = Command::new("sh")
        .args(["-c", script, env!("CARGO_BIN_EXE_assertd-keystore-pkcs11")])
        .args(["--name", "hsm", "--listen-stdin", "--config"])
        .arg(dir.path().join("assertd.toml"))
        .arg("--state-dir")
        .arg(dir.path().join("state"))
        .stdin(OwnedFd::from(listener))
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let parent = Running(parent);
    let health = health(dir.path());
    assert_eq!(health.standing, Standing::Usable {}, "{health:?}");
    drop(parent);
    let deadline = Instant::now() + DEADLINE;
    while UnixStream::connect(&socket).is_ok() {
        assert!(Instant::now() < deadline, "it outlived its parent");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

#[test]
fn exit_codes_are_those_of_the_manual() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("assertd.toml");
    write(
        &file,
        "[keystore.hsm]\nbackend = \"pkcs11\"\nmodul = \"/x\"\n",
    );
    let file = file.to_str().unwrap();
    assert_eq!(run(&["-V"]).status.code(), Some(0));
    assert_eq!(run(&["--help"]).status.code(), Some(0));
    assert_eq!(run(&["--nonsense"]).status.code(), Some(2));
    let wrong = run(&["--config", file, "--name", "hsm", "--listen-stdin"]);
    assert_eq!(wrong.status.code(), Some(78));
    let shown = String::from_utf8_lossy(&wrong.stderr).into_owned();
    assert!(shown.contains(":3:1: unknown key `modul`"), "{shown}");
}

#[test]
fn standard_input_that_is_no_listening_socket_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    prepare(dir.path(), "123456\n");
    let ended = program()
        .args(["--name", "hsm", "--listen-stdin", "--config"])
        .arg(dir.path().join("assertd.toml"))
        .arg("--state-dir")
        .arg(dir.path().join("state"))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert_eq!(
        ended.status.code(),
        Some(70),
        "{}",
        String::from_utf8_lossy(&ended.stderr)
    );
}
