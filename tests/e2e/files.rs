//! What `assertctl assertion` hands over where a SDK reads a file or runs a program: the file is whole, its
//! owner's alone, kept fresh for as long as its directory is there; and the answers of programs have the
//! form that their vendors wrote down.

use crate::world::{decode, us, with_bank};
use harness::process::Process;
use harness::{Config, DEADLINE, Daemon, Token, wait_until};
use serde_json::Value;
use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;
use std::process::{Command, Output};
use std::time::Instant;

fn federation(token: &Token, lifetime_s: u32) -> Config {
    Config::new(token).workload("ours", us(), "").with(&format!(
        "[issuer.prod]\nurl = \"https://id.example.com/prod\"\nsubjects = [\"payments\"]\n\
         keystore = \"hsm\"\nalg = \"ES256\"\n[workload.ours.target.aws]\nprofile = \"aws-oidc\"\n\
         issuer = \"prod\"\nsubject = \"payments\"\naudience = \"sts.amazonaws.com\"\n\
         lifetime = {lifetime_s}\n"
    ))
}

fn write_to(daemon: &Daemon, target: &str, file: &Path) -> Output {
    let file = file.to_str().unwrap();
    daemon.assertctl(&["assertion", "--target", target, "--output", file])
}

fn said(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn a_file_has_the_assertion_alone_and_a_denial_leaves_none() {
    let (daemon, _token) = with_bank();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("bank.jwt");
    // No permission is left by this umask, and too many were there before.
    fs::write(&file, "old").unwrap();
    let script = format!(
        "umask 0777; exec {} -c {} assertion --target bank --output {}",
        daemon.site().programs().assertctl().display(),
        daemon.site().config().display(),
        file.display()
    );
    let output = Command::new("/bin/sh").args(["-c", &script]).output();
    let output = output.unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert!(output.stdout.is_empty() && output.stderr.is_empty());
    let text = fs::read_to_string(&file).unwrap();
    assert_eq!(decode(&text).1["aud"], "https://as.bank.example");
    assert!(!text.contains(char::is_whitespace), "{text:?}");
    assert_eq!(fs::metadata(&file).unwrap().mode() & 0o7777, 0o600);

    let started = Instant::now();
    let other = dir.path().join("other.jwt");
    let output = write_to(&daemon, "nowhere", &other);
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("denied"), "{}", said(&output));
    assert!(
        started.elapsed() < DEADLINE,
        "an answer is not waited for again"
    );

    let link = dir.path().join("link");
    symlink(&file, &link).unwrap();
    let output = write_to(&daemon, "bank", &link);
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("no plain file"), "{}", said(&output));
    assert_eq!(fs::read_to_string(&file).unwrap(), text, "behind the link");
    let mut left: Vec<_> = fs::read_dir(dir.path())
        .unwrap()
        .map(|it| it.unwrap().file_name())
        .collect();
    left.sort();
    assert_eq!(left, ["bank.jwt", "link"]);
}

/// With assertd gone and come back, and at last the directory gone, as when a unit stops whose KillMode=
/// spares the process.
#[test]
fn a_file_that_is_kept_says_when_it_is_over_and_recovers_and_ends_with_its_directory() {
    let token = Token::new();
    let mut daemon = Daemon::with_keys(federation(&token, 6));
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("run");
    fs::create_dir(&run).unwrap();
    let file = run.join("aws.jwt");
    let mut command = Command::new(daemon.site().programs().assertctl());
    command.arg("-c").arg(daemon.site().config());
    command.args(["assertion", "--target", "aws", "--keep", "--foreground"]);
    let mut keeper = Process::start(command.arg("--output").arg(&file));
    let text = || fs::read_to_string(&file).unwrap_or_default();
    let written = wait_until(DEADLINE, || !text().is_empty());
    assert!(written, "{}", keeper.stderr());
    let first = text();
    let replaced = wait_until(DEADLINE, || text() != first);
    assert!(replaced, "{}", keeper.stderr());
    assert_eq!(keeper.stderr(), "");

    assert_eq!(daemon.stop(), Some(0));
    keeper.wait_for_stderr("the assertion in the file has expired and there is no new one");
    let last = text();
    assert!(decode(&last).1["exp"].as_u64().unwrap() <= crate::world::now_s());
    let said = keeper.stderr();
    assert!(
        said.contains("is tried again") && said.lines().count() <= 2,
        "{said}"
    );

    let _daemon = Daemon::start_at(daemon.into_site());
    // Its next try may be 45 s away.
    let fresh = wait_until(4 * DEADLINE, || {
        keeper
            .stderr()
            .contains("target `aws`: the file is fresh again")
    });
    assert!(fresh, "{}", keeper.stderr());
    assert_ne!(text(), last);
    assert!(keeper.ended().is_none());

    fs::remove_dir_all(&run).unwrap();
    assert_eq!(keeper.wait(DEADLINE).code(), Some(0), "{}", keeper.stderr());
}

/// Thirty seconds is the least that assertd hands out again, for half of it.
#[test]
fn a_file_that_is_kept_is_new_at_half_of_its_life_although_assertions_are_handed_out_again() {
    let token = Token::new();
    let daemon = Daemon::with_keys(federation(&token, 30));
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("aws.jwt");
    let first = daemon.client().assertion("aws", None).unwrap().assertion;
    let output = write_to(&daemon, "aws", &file);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert_eq!(
        fs::read_to_string(&file).unwrap(),
        first,
        "handed out again"
    );
    let mut command = Command::new(daemon.site().programs().assertctl());
    command.arg("-c").arg(daemon.site().config());
    command.args(["assertion", "--target", "aws", "--keep", "--foreground"]);
    let keeper = Process::start(command.arg("--output").arg(&file));
    let replaced = wait_until(2 * DEADLINE, || fs::read_to_string(&file).unwrap() != first);
    assert!(replaced, "{}", keeper.stderr());
    let made_s = |text: &str| decode(text).1["iat"].as_u64().unwrap();
    let later_s = made_s(&fs::read_to_string(&file).unwrap()) - made_s(&first);
    assert!((15..30).contains(&later_s), "{later_s} s");
    let records = daemon.audit_records();
    let granted = records.iter().filter(|it| it["kind"] == "decision");
    assert_eq!(
        granted.count(),
        3,
        "it does not ask before there is a new one"
    );
}

#[test]
fn a_program_that_an_sdk_runs_answers_in_its_vendors_form() {
    let token = Token::new();
    let daemon = Daemon::with_keys(federation(&token, 600));
    let ask = |form: &str, target: &str, info: Option<&str>| {
        let mut command = Command::new(daemon.site().programs().assertctl());
        command.arg("-c").arg(daemon.site().config());
        command.args(["assertion", "--target", target, "--as", form]);
        command.env_remove("KUBERNETES_EXEC_INFO");
        command.envs(info.map(|info| ("KUBERNETES_EXEC_INFO", info)));
        command.output().unwrap()
    };
    let json = |output: &Output| -> Value { serde_json::from_slice(&output.stdout).unwrap() };

    let google = ask("google", "aws", None);
    assert_eq!(
        (google.status.code(), &google.stderr[..]),
        (Some(0), &b""[..])
    );
    let google = json(&google);
    let claims = decode(google["id_token"].as_str().unwrap()).1;
    assert_eq!(google["expiration_time"], claims["exp"]);
    assert_eq!(
        (&google["version"], &google["success"]),
        (&1.into(), &true.into())
    );
    assert_eq!(google["token_type"], "urn:ietf:params:oauth:token-type:jwt");
    let denied = ask("google", "nowhere", None);
    assert_eq!(
        (denied.status.code(), &denied.stderr[..]),
        (Some(0), &b""[..])
    );
    let denied = json(&denied);
    assert_eq!(
        (&denied["version"], &denied["success"]),
        (&1.into(), &false.into())
    );
    assert!(denied["code"].is_string() && denied["message"].as_str().unwrap().contains("denied"));

    for version in ["v1", "v1beta1"] {
        let version = format!("client.authentication.k8s.io/{version}");
        let info =
            format!("{{\"apiVersion\":\"{version}\",\"kind\":\"ExecCredential\",\"spec\":{{}}}}");
        let answer = ask("kubernetes", "aws", Some(&info));
        assert_eq!(answer.status.code(), Some(0), "{}", said(&answer));
        let answer = json(&answer);
        assert_eq!(answer["apiVersion"], *version);
        assert_eq!(answer["kind"], "ExecCredential");
        assert_eq!(
            decode(answer["status"]["token"].as_str().unwrap()).1["sub"],
            "payments"
        );
        assert!(
            answer["status"]["expirationTimestamp"]
                .as_str()
                .unwrap()
                .ends_with('Z')
        );
    }
    let other = "{\"apiVersion\":\"client.authentication.k8s.io/v9\"}";
    let answer = ask("kubernetes", "aws", Some(other));
    assert_eq!(
        (answer.status.code(), &answer.stdout[..]),
        (Some(1), &b""[..])
    );
    assert!(said(&answer).contains("io/v1beta1"), "{}", said(&answer));
}
