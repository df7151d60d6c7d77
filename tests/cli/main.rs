//! `assertctl` as a program: arguments in, stdout, stderr and exit code out, byte for byte.
//!
//! Each `*.toml` beside this file is a list of cases; the words people and scripts see are data
//! there, so that changing one is seen in a review. In arguments, files and expectations `{dir}`
//! stands for the case's own directory. No daemon runs in these; with one, [`apply`] asks, and
//! [`init`] comes before there is one. What is wrong with a configuration is in [`errors`].
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod apply;
mod approve;
mod doctor;
mod errors;
mod evidence;
mod init;
mod keystore;
mod schema;
mod sentences;

use harness::programs::Programs;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A user that owns nothing here: nobody's uid, which needs no entry in passwd(5).
const NOBODY: u32 = 65_534;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Suite {
    /// Files that every case finds.
    #[serde(default)]
    files: BTreeMap<String, String>,
    case: Vec<Case>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    /// The promise.
    name: String,
    args: Vec<String>,
    /// By path below `{dir}`.
    #[serde(default)]
    files: BTreeMap<String, String>,
    /// Sockets that exist and that nobody answers on, readable by root alone.
    #[serde(default)]
    closed_sockets: Vec<String>,
    /// Runs as nobody, which root alone can become.
    #[serde(default)]
    as_nobody: bool,
    #[serde(default)]
    stdout: String,
    #[serde(default)]
    stderr: String,
    exit: i32,
}

#[test]
fn help_says_what_it_says() {
    run_suite("help.toml");
}

#[test]
fn mistakes_are_answered_with_the_nearest_word() {
    run_suite("usage.toml");
}

#[test]
fn sets_of_several_hosts_are_merged_and_what_is_private_is_not() {
    run_suite("jwks.toml");
}

#[test]
fn configurations_are_checked_with_place_and_remedy() {
    run_suite("config.toml");
}

#[test]
fn a_configuration_is_checked_for_a_host_that_this_one_is_not() {
    run_suite("check.toml");
}

#[test]
fn what_an_sdk_needs_is_printed_whole_or_in_parts() {
    run_suite("env.toml");
}

#[test]
fn an_absent_daemon_is_told_from_a_forbidden_one() {
    run_suite("daemon.toml");
}

/// As nobody, whom no file is closed to that the configuration is checked by.
#[test]
fn what_a_host_says_of_itself_is_what_a_configuration_is_checked_with() {
    harness::user::need_root();
    let programs = Programs::installed();
    let program = programs.assertctl();
    let run = |args: &[&str]| {
        let mut command = Command::new(&program);
        command
            .args(args)
            .current_dir("/")
            .env_clear()
            .uid(NOBODY)
            .gid(NOBODY);
        let output = command.stdin(Stdio::null()).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        (
            output.status.code(),
            text,
            String::from_utf8(output.stderr).unwrap(),
        )
    };
    let (code, facts, wrong) = run(&["host-facts"]);
    assert_eq!((code, wrong.as_str()), (Some(0), ""));
    assert!(facts.contains("\n\"root\" = 0\n"), "{facts}");
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let put = |name: &str, text: &str| {
        let path = dir.path().join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let facts = put("facts.toml", &facts);
    let config = put(
        "assertd.toml",
        "[workload.a]\nmatch = { unit = \"no-such-unit-here.service\", user = \"root\" }\n",
    );
    let (code, found, wrong) = run(&["-c", &config, "config", "check", "--host-facts", &facts]);
    assert_eq!((code, wrong.as_str()), (Some(0), ""), "{found}");
    assert!(
        found.contains("this host has no unit `no-such-unit-here.service`"),
        "{found}"
    );
}

#[test]
fn every_file_of_cases_is_run() {
    let source = fs::read_to_string(here().join("main.rs")).unwrap();
    let files = fs::read_dir(here())
        .unwrap()
        .map(|entry| entry.unwrap().path());
    for file in files.filter(|path| path.extension().is_some_and(|e| e == "toml")) {
        let name = file.file_name().unwrap().to_str().unwrap();
        assert!(
            source.contains(&format!("run_suite(\"{name}\")")),
            "{name} is not run"
        );
    }
}

#[test]
fn a_reader_that_leaves_early_is_no_crash() {
    let programs = Programs::installed();
    let mut child = Command::new(programs.assertctl())
        .arg("help")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(
        (output.status.code(), output.stderr.as_slice()),
        (Some(0), &b""[..])
    );
}

fn here() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("cli")
}

fn run_suite(name: &str) {
    let text = fs::read_to_string(here().join(name)).unwrap();
    let suite: Suite = toml::from_str(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
    assert!(!suite.case.is_empty(), "{name} has no case");
    let programs = Programs::installed();
    let program = programs.assertctl();
    let wrong: Vec<String> = suite
        .case
        .iter()
        .filter_map(|case| run(&program, case, &suite.files))
        .collect();
    assert!(wrong.is_empty(), "{name}:\n{}", wrong.join("\n"));
}

/// Runs one case; what it should not have done, if anything.
fn run(program: &Path, case: &Case, common: &BTreeMap<String, String>) -> Option<String> {
    if case.as_nobody {
        harness::user::need_root();
    }
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path();
    fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).unwrap();
    let placed = |text: &str| text.replace("{dir}", dir.to_str().unwrap());
    for (path, text) in common.iter().chain(&case.files) {
        let path = dir.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, placed(text)).unwrap();
    }
    let listeners: Vec<UnixListener> = case
        .closed_sockets
        .iter()
        .map(|name| {
            let listener = UnixListener::bind(dir.join(name)).unwrap();
            fs::set_permissions(dir.join(name), fs::Permissions::from_mode(0o600)).unwrap();
            listener
        })
        .collect();
    let mut command = Command::new(program);
    command
        .args(case.args.iter().map(|arg| placed(arg)))
        .current_dir("/")
        .env_clear();
    if case.as_nobody {
        command.uid(NOBODY).gid(NOBODY);
    }
    let output = command.stdin(Stdio::null()).output().unwrap();
    drop(listeners);

    let got = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (stdout, stderr) = (got(&output.stdout), got(&output.stderr));
    let code = output.status.code().unwrap_or(-1);
    let expected = (placed(&case.stdout), placed(&case.stderr), case.exit);
    if (&stdout, &stderr, code) == (&expected.0, &expected.1, expected.2) {
        return None;
    }
    Some(format!(
        "{}\n--- expected, exit {}\n{}{}--- got, exit {code}\n{stdout}{stderr}",
        case.name, expected.2, expected.0, expected.1
    ))
}
