//! Keys and state: made once, never replaced behind anybody's back, private, checked.

use crate::world::{BANK, bank, code, serves, with_bank};
use harness::daemon::Site;
use harness::process::Process;
use harness::token::KEYSTORE;
use harness::{DEADLINE, Daemon, Token, wait_until};
use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

#[test]
fn nothing_is_granted_before_keys_are_made_and_the_answer_says_how() {
    let token = Token::new();
    let mut daemon = Daemon::start(bank(&token));
    let state = daemon.site().keystore_state(KEYSTORE);
    let answer = daemon.ask(BANK);
    assert_eq!(
        (answer.status, code(&answer).as_str()),
        (503, "key_unavailable")
    );
    assert!(
        answer.member("detail").contains("assertctl apply"),
        "{}",
        answer.body()
    );
    assert_eq!(answer.header("retry-after"), Some("1"));
    assert_eq!(token.private_keys(&state), 0, "a request made a key");
    daemon.apply();
    serves(&mut daemon);
}

#[test]
fn apply_makes_each_key_once() {
    let (mut daemon, token) = with_bank();
    let state = daemon.site().keystore_state(KEYSTORE);
    // What comes next is found out anew after a start, and times are shown by the clock of the moment.
    let known = |daemon: &Daemon| -> Vec<_> {
        let keys = daemon.keys().into_iter();
        keys.map(|key| (key.key, key.kid, key.state, key.made_at, key.jwk))
            .collect()
    };
    let (keys, status) = (known(&daemon), daemon.status().audit.seq);
    let said = daemon.apply();
    assert_eq!(known(&daemon), keys, "{said}");
    assert_eq!(token.private_keys(&state), 1);
    assert_eq!(
        daemon.status().audit.seq,
        status,
        "nothing happened, and something was recorded"
    );
    let mut again = daemon.restart();
    again.apply();
    assert_eq!(known(&again), keys);
    assert_eq!(token.private_keys(&state), 1);
    serves(&mut again);
    daemon = again.restart();
    serves(&mut daemon);
}

#[test]
fn a_key_the_token_has_lost_is_named_and_never_made_again() {
    let token = Token::new();
    let config = bank(&token).target("ours", "other", "");
    let daemon = Daemon::with_keys(&config);
    let before = daemon.keys();
    let state = daemon.site().keystore_state(KEYSTORE);
    token.lose_private_keys(&state);
    let daemon = daemon.restart();
    daemon.wait_usable();
    let answer = daemon.ask(BANK);
    assert_eq!(
        (answer.status, code(&answer).as_str()),
        (503, "key_unavailable")
    );
    assert!(
        answer.member("detail").contains("ours/bank.1"),
        "{}",
        answer.body()
    );
    for (key, was) in daemon.keys().iter().zip(&before) {
        assert_eq!((&key.kid, &key.key), (&was.kid, &was.key));
        assert_eq!(key.state, "failed", "{key:?}");
        assert!(
            key.why.as_ref().is_some_and(|why| why.contains(&key.key)),
            "{key:?}"
        );
    }
    // Not even by root's explicit act: a new key would need registering at the other side.
    let applied = daemon.assertctl(&["apply", "--yes"]);
    assert!(
        !applied.status.success(),
        "{}",
        String::from_utf8_lossy(&applied.stdout)
    );
    let said = String::from_utf8_lossy(&applied.stderr).into_owned();
    assert!(said.contains("ours/bank"), "{said}");
    assert_eq!(token.private_keys(&state), 0);
    assert_eq!(daemon.ask(BANK).status, 503);
}

/// Path → (mode, owner, inode, length, time of change) of everything below a directory.
fn everything(dir: &Path) -> BTreeMap<PathBuf, (u32, u32, u64, u64, i64, i64)> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let at = path.symlink_metadata().unwrap();
        if at.is_dir() {
            found.extend(everything(&path));
        }
        let facts = (
            at.mode(),
            at.uid(),
            at.ino(),
            at.size(),
            at.mtime(),
            at.mtime_nsec(),
        );
        found.insert(path, facts);
    }
    found
}

#[test]
fn state_is_private_and_sockets_have_their_modes_whatever_the_umask() {
    for umask in ["000", "777", "022"] {
        let token = Token::new();
        let site = Site::new(bank(&token).text());
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("umask {umask}; exec \"$0\" --config \"$1\"")]);
        shell
            .arg(site.programs().assertd())
            .arg(site.config())
            .stdin(Stdio::null());
        let mut daemon = Daemon::ready(Process::start(&mut shell), site);
        daemon.apply();
        serves(&mut daemon);
        let mode = |path: &Path| path.symlink_metadata().unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode(&daemon.socket()), 0o666, "umask {umask}");
        assert_eq!(mode(&daemon.admin_socket()), 0o600, "umask {umask}");
        assert_eq!(mode(&daemon.keystore_socket("hsm")), 0o600, "umask {umask}");
        assert_eq!(mode(&daemon.site().runtime_dir()), 0o755, "umask {umask}");
        let state = everything(&daemon.site().state_dir());
        assert!(state.len() > 5, "{state:?}");
        for (path, (mode, ..)) in state {
            let (path, owner) = (path.display(), mode & 0o700);
            assert_eq!(mode & 0o077, 0, "umask {umask}: {path} has mode {mode:o}");
            assert!(
                owner == 0o600 || owner == 0o700,
                "umask {umask}: {path} has mode {mode:o}"
            );
        }
        assert_eq!(daemon.stop(), Some(0), "{}", daemon.stderr());
    }
}

#[test]
fn a_second_daemon_on_the_same_state_ends_and_touches_nothing() {
    let (mut daemon, _token) = with_bank();
    serves(&mut daemon);
    // The first one's outcome is written behind the answer.
    daemon.audit_record(|record| record["kind"] == "outcome");
    let (state, run) = (daemon.site().state_dir(), daemon.site().runtime_dir());
    let before = (everything(&state), everything(&run));
    let mut second = Process::start(&mut daemon.site().command());
    let code = second.wait(DEADLINE).code();
    assert_eq!(code, Some(69), "{}", second.stderr());
    assert!(
        second.stderr().contains(&state.display().to_string()),
        "{}",
        second.stderr()
    );
    assert_eq!((everything(&state), everything(&run)), before);
    serves(&mut daemon);
}

#[test]
fn a_second_daemon_with_its_own_state_does_not_take_the_sockets() {
    let (mut daemon, _token) = with_bank();
    let other = tempfile::tempdir().unwrap();
    let config = std::fs::read_to_string(daemon.site().config()).unwrap();
    let state = daemon.site().state_dir().display().to_string();
    let path = other.path().join("assertd.toml");
    let elsewhere = other.path().join("state").display().to_string();
    std::fs::write(&path, config.replace(&state, &elsewhere)).unwrap();
    let mut command = Command::new(daemon.site().programs().assertd());
    let mut second = Process::start(command.arg("--config").arg(path).stdin(Stdio::null()));
    assert_eq!(
        second.wait(DEADLINE).code(),
        Some(69),
        "{}",
        second.stderr()
    );
    assert!(
        second.stderr().contains("assertd.sock"),
        "{}",
        second.stderr()
    );
    serves(&mut daemon);
}

#[test]
fn a_socket_path_that_is_taken_by_something_else_is_left_alone() {
    let token = Token::new();
    for what in ["file", "directory", "symlink"] {
        let site = Site::new(bank(&token).text());
        std::fs::create_dir(site.runtime_dir()).unwrap();
        let path = site.runtime_dir().join("assertd.sock");
        match what {
            "file" => std::fs::write(&path, "precious").unwrap(),
            "directory" => std::fs::create_dir(&path).unwrap(),
            _ => std::os::unix::fs::symlink("/nonexistent", &path).unwrap(),
        }
        let inode = path.symlink_metadata().unwrap().ino();
        let mut process = Process::start(&mut site.command());
        assert_eq!(
            process.wait(DEADLINE).code(),
            Some(69),
            "{what}: {}",
            process.stderr()
        );
        assert!(
            process.stderr().contains("assertd.sock"),
            "{what}: {}",
            process.stderr()
        );
        assert_eq!(path.symlink_metadata().unwrap().ino(), inode, "{what}");
    }
}

#[test]
fn a_bad_state_file_ends_the_start_and_is_named() {
    let (daemon, token) = with_bank();
    let site = daemon.into_site();
    let state = site.keystore_state(KEYSTORE);
    let path = site.state_dir().join("keyring.v1");
    let good = std::fs::read(&path).unwrap();
    let mut flipped = good.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 1;
    let longer = [&good[..], b"x"].concat();
    let bad: [(&str, &[u8]); 5] = [
        ("one bit", &flipped),
        ("cut", &good[..good.len() / 2]),
        ("empty", b""),
        ("longer", &longer),
        ("another", b"{\"keys\":{}}"),
    ];
    for (what, bytes) in bad {
        std::fs::write(&path, bytes).unwrap();
        let mut process = Process::start(&mut site.command());
        assert_eq!(
            process.wait(DEADLINE).code(),
            Some(78),
            "{what}: {}",
            process.stderr()
        );
        assert!(
            process.stderr().contains("keyring.v1"),
            "{what}: {}",
            process.stderr()
        );
        assert_eq!(
            std::fs::read(&path).unwrap(),
            bytes,
            "{what}: the file was changed"
        );
    }
    std::fs::write(&path, &good).unwrap();
    let mut daemon = Daemon::start_at(site);
    serves(&mut daemon);
    assert_eq!(token.private_keys(&state), 1);
}

#[test]
fn a_bad_state_file_of_a_keystore_fails_that_keystore_alone() {
    let token = Token::new();
    let other = Token::new();
    let config = harness::Config::new(&token)
        .keystore("second", &other, "")
        .workload("ours", crate::world::us(), "")
        .target("ours", "bank", "keystore = \"hsm\"")
        .target("ours", "two", "keystore = \"second\"");
    let daemon = Daemon::with_keys(config);
    let site = daemon.into_site();
    let dir = site.keystore_state("second");
    let mut changed = Vec::new();
    for (path, _) in everything(&dir) {
        let bytes = std::fs::read(&path).unwrap_or_default();
        let name = path.file_name().unwrap().to_string_lossy();
        if name.starts_with("keys.v1") && bytes.len() > 16 {
            std::fs::write(&path, &bytes[..bytes.len() - 9]).unwrap();
            changed.push(path);
        }
    }
    let names: Vec<&str> = changed
        .iter()
        .filter_map(|path| path.file_name().and_then(|name| name.to_str()))
        .collect();
    assert_eq!(names, ["keys.v1", "keys.v1.prev"]);
    let mut daemon = Daemon::start_at(site);
    serves(&mut daemon);
    let answer = daemon.ask(r#"{"target":"two"}"#);
    assert_eq!(answer.status, 503, "{}", answer.body());
    let named = wait_until(DEADLINE, || daemon.stderr().contains("keys.v1"));
    assert!(named, "{}", daemon.stderr());
    let status = daemon.status();
    let state = |name: &str| {
        let keystore = status
            .keystores
            .iter()
            .find(|keystore| keystore.name == name)
            .unwrap();
        keystore.state.clone()
    };
    assert_eq!(
        (state("hsm").as_str(), state("second").as_str()),
        ("usable", "failed")
    );
    assert_eq!(other.private_keys(&dir), 1, "nothing was made or destroyed");
}
