//! Keys that sign in some states of the host alone, from the configuration to the assertion. Whatever KEYSTORE
//! says, the keystore is a TPM; the approver is openssl.

use crate::world::{BANK, SHORT, code, us};
use assertd_client::api::KeyStatus;
use harness::daemon::Site;
use harness::token::KEYSTORE;
use harness::{Config, DEADLINE, Daemon, Tpm, public_dir, wait_for};
use keystore::evidence::enrolment::registry::EkFingerprint;
use keystore::evidence::enrolment::{File as _, Request};
use keystore::evidence::hash::Hash;
use keystore::evidence::healthy::Authority;
use keystore::evidence::public::PublicArea;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout)
}

#[track_caller]
fn tool(command: &mut Command) -> Output {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", said(&output));
    output
}

fn openssl(dir: &Path, arguments: &[&str]) {
    tool(Command::new("openssl").args(arguments).current_dir(dir));
}

/// Somebody's key, in `NAME.key` and `NAME.pem`.
fn approver(dir: &Path, name: &str) {
    let (key, public) = (format!("{name}.key"), format!("{name}.pem"));
    let curve = "ec_paramgen_curve:P-256";
    openssl(
        dir,
        &[
            "genpkey",
            "-algorithm",
            "EC",
            "-pkeyopt",
            curve,
            "-out",
            &key,
        ],
    );
    openssl(dir, &["pkey", "-in", &key, "-pubout", "-out", &public]);
}

fn extend(tpm: &Tpm, pcr: u8) {
    let mut extend = Command::new("tpm2_pcrextend");
    extend.arg(format!("{pcr}:sha256={}", "ab".repeat(32)));
    tool(extend.env("TPM2TOOLS_TCTI", tpm.tcti()));
}

/// What a PCR has after [`extend`].
fn extended(pcr: &[u8]) -> String {
    let value = Hash::Sha256.of(&[pcr, &[0xab; 32]]);
    value.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// One target in a keystore that binds keys to PCR 7.
fn config(tpm: &Tpm, healthy: &str) -> Config {
    config_of(tpm, healthy, "")
}

/// The same, with more of the target's section.
fn config_of(tpm: &Tpm, healthy: &str, target: &str) -> Config {
    Config::default()
        .keystore(
            KEYSTORE,
            tpm,
            &format!("healthy = {{ pcrs = [7]{healthy} }}"),
        )
        .with("[attest]\nhost = \"web-1\"")
        .workload("ours", us(), "")
        .target("ours", "bank", target)
}

/// Every request has this name: what is approved later takes the place of nothing.
const REQUEST: &str = "today.json";

/// A state, as it is if `pcrs` says nothing, is written down and approved as an operator does it; what `approve
/// finish` said.
fn approve(daemon: &Daemon, dir: &Path, by: &str, pcrs: &[&str]) -> Output {
    let at = |name: &str| dir.join(name).display().to_string();
    let (file, sig, tbs, key) = (
        at(REQUEST),
        at(&format!("{REQUEST}.sig")),
        at(&format!("{REQUEST}.tbs")),
        at(&format!("{by}.key")),
    );
    let request = ["approve", "request", "-o", &file];
    let asked = daemon.assertctl(&[&request[..], pcrs].concat());
    assert_eq!(asked.status.code(), Some(0), "{}", said(&asked));
    for command in [
        format!("assertctl approve bytes {file} -o {tbs}"),
        format!("openssl dgst -sha256 -sign KEY -out {sig} {tbs}"),
    ] {
        assert!(said(&asked).contains(&command), "{}", said(&asked));
    }
    // On a machine of theirs: without the configuration.
    let mut bytes = Command::new(daemon.site().programs().assertctl());
    tool(bytes.args(["approve", "bytes", &file, "-o", &tbs]));
    openssl(dir, &["dgst", "-sha256", "-sign", &key, "-out", &sig, &tbs]);
    daemon.assertctl(&["approve", "finish", &file, &sig])
}

/// Waits until the target is served.
#[track_caller]
fn comes_back(daemon: &Daemon) {
    let back = wait_for(DEADLINE, || (daemon.ask(BANK).status == 200).then_some(()));
    assert!(
        back.is_some(),
        "{}\n{}",
        daemon.ask(BANK).body(),
        daemon.stderr()
    );
}

#[track_caller]
fn is_refused(daemon: &Daemon, words: &[&str]) {
    let answer = daemon.ask(BANK);
    assert_eq!(
        (answer.status, code(&answer).as_str()),
        (503, "key_unavailable"),
        "{}",
        answer.body()
    );
    let key = daemon.keys().into_iter().find(|key| key.state == "failed");
    let why = key
        .unwrap_or_else(|| panic!("{:?}", daemon.keys()))
        .why
        .unwrap();
    for word in words {
        assert!(why.contains(word), "{word}: {why}");
    }
    // The keystore is well.
    let status = daemon.status();
    assert!(
        status.keystores.iter().all(|it| it.state == "usable"),
        "{:?}",
        status.keystores
    );
}

const NONCE: &str = "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc";

/// Has a relying party in the same directory know the TPM, by its fingerprint.
fn enrol(daemon: &Daemon, dir: &Path) {
    let policy = "minimum = \"tpm-certified\"\nregistry = \"registry.json\"\n[ek]\ncertificate = \"optional\"\n";
    std::fs::write(dir.join("policy.toml"), policy).unwrap();
    let at = |name: &str| dir.join(name).display().to_string();
    let run = |arguments: &[&str]| {
        let output = daemon.assertctl(arguments);
        assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    };
    run(&["enroll", "request", "-o", &at("web-1.json")]);
    let request = Request::parse(&std::fs::read(at("web-1.json")).unwrap()).unwrap();
    let ek = PublicArea::parse(request.tpm.ek.public.as_slice()).unwrap();
    let ek = EkFingerprint::of(&ek).unwrap();
    std::fs::write(at("approved"), format!("{ek} web-1\n")).unwrap();
    let (policy, approved) = (at("policy.toml"), at("approved"));
    let challenge = [
        "enroll",
        "challenge",
        &at("web-1.json"),
        "--policy",
        &policy,
    ];
    run(&[&challenge[..], &["--approved", &approved, "-o", &at("")]].concat());
    run(&[
        "enroll",
        "respond",
        &at("web-1.challenge.json"),
        "-o",
        &at("web-1.response.json"),
    ]);
    run(&[
        "enroll",
        "finish",
        &at("web-1.response.json"),
        "--policy",
        &policy,
    ]);
}

/// What it makes of the host's keys if it wants states that `by` approves.
fn verified(daemon: &Daemon, dir: &Path, by: &str) -> Output {
    let at = |name: &str| dir.join(name).display().to_string();
    let pem = std::fs::read_to_string(at(&format!("{by}.pem"))).unwrap();
    let authority = Authority::from_pem(&pem).unwrap();
    let policy = std::fs::read_to_string(at("policy.toml")).unwrap();
    let policy = format!("{policy}[healthy]\nauthorities = [\"{authority}\"]\n");
    std::fs::write(at("healthy.toml"), policy).unwrap();
    let (evidence, policy) = (at("evidence.json"), at("healthy.toml"));
    let attested = daemon.assertctl(&["attest", "--all", "--nonce", NONCE, "-o", &evidence]);
    assert_eq!(attested.status.code(), Some(0), "{}", said(&attested));
    daemon.assertctl(&["verify", &evidence, "--nonce", NONCE, "--policy", &policy])
}

#[test]
fn an_update_that_is_approved_costs_no_key() {
    let (mut tpm, tmp) = (Tpm::new(), public_dir());
    let dir = tmp.path();
    approver(dir, "approver");
    approver(dir, "stranger");
    let (authority, approvals) = (dir.join("approver.pem"), dir.join("approvals"));
    let healthy = format!(
        ", authority = \"{}\", approvals = \"{}\"",
        authority.display(),
        approvals.display()
    );
    let daemon = Daemon::start(config(&tpm, &healthy));
    daemon.wait_usable();
    let none = daemon.assertctl(&["apply", "--yes"]);
    assert_ne!(none.status.code(), Some(0));
    assert!(
        said(&none).contains("assertctl approve request"),
        "{}",
        said(&none)
    );

    let done = approve(&daemon, dir, "approver", &[]);
    assert_eq!(done.status.code(), Some(0), "{}", said(&done));
    daemon.apply();
    comes_back(&daemon);
    let kid = daemon.keys().remove(0).kid;

    extend(&tpm, 7);
    assert_eq!(daemon.ask(BANK).status, 503);
    let failed = wait_for(DEADLINE, || {
        daemon.keys().into_iter().find(|key| key.state == "failed")
    });
    assert!(failed.is_some(), "{:?}", daemon.keys());
    is_refused(&daemon, &["PCR 7 is", "in 1-", "assertctl approve request"]);
    // Evidence goes on, and a relying party knows who approves.
    enrol(&daemon, dir);
    let (ours, theirs) = (
        verified(&daemon, dir, "approver"),
        verified(&daemon, dir, "stranger"),
    );
    assert_eq!(ours.status.code(), Some(0), "{}", said(&ours));
    assert!(said(&ours).contains("by policy"), "{}", said(&ours));
    assert_eq!(theirs.status.code(), Some(1), "{}", said(&theirs));
    assert!(
        said(&theirs).contains("is nobody that the policy names"),
        "{}",
        said(&theirs)
    );

    let foreign = approve(&daemon, dir, "stranger", &[]);
    assert_eq!(foreign.status.code(), Some(1), "{}", said(&foreign));
    assert!(
        said(&foreign).contains("is not signed by the authority"),
        "{}",
        said(&foreign)
    );
    assert_eq!(std::fs::read_dir(&approvals).unwrap().count(), 1);
    // A keystore with no other key starts all the same.
    let daemon = daemon.restart();
    daemon.wait_usable();
    is_refused(&daemon, &["PCR 7 is", "in 1-"]);
    let looked = daemon.assertctl(&["keystore", "check"]);
    assert!(
        said(&looked).contains("does not sign now"),
        "{}",
        said(&looked)
    );
    let done = approve(&daemon, dir, "approver", &[]);
    assert_eq!(done.status.code(), Some(0), "{}", said(&done));
    comes_back(&daemon);
    assert_eq!(daemon.keys().remove(0).kid, kid);
    // What was approved first holds too, over a new start of everything.
    let daemon = daemon.restart();
    comes_back(&daemon);
    tpm.swtpm().restart();
    comes_back(&daemon);
    assert_eq!(daemon.keys().remove(0).kid, kid);
}

#[test]
fn without_an_authority_the_next_version_is_bound_to_the_state_as_it_is() {
    let tpm = Tpm::new();
    let daemon = Daemon::with_keys(config(&tpm, ""));
    comes_back(&daemon);
    let kid = daemon.keys().remove(0).kid;
    extend(&tpm, 7);
    assert_eq!(daemon.ask(BANK).status, 503);
    let failed = wait_for(DEADLINE, || {
        daemon.keys().into_iter().find(|key| key.state == "failed")
    });
    assert!(failed.is_some(), "{:?}", daemon.keys());
    is_refused(
        &daemon,
        &["PCR 7 is", "when it was made", "keys replace-lost"],
    );
    let refused = daemon.assertctl(&["approve", "request", "-o", "/nonexistent/x"]);
    assert_eq!(refused.status.code(), Some(1), "{}", said(&refused));
    assert!(
        said(&refused).contains("no keystore has an `authority`"),
        "{}",
        said(&refused)
    );
    let lost = daemon.assertctl(&["keys", "replace-lost", "ours/bank", "--yes"]);
    assert_eq!(lost.status.code(), Some(0), "{}", said(&lost));
    comes_back(&daemon);
    let signs = daemon.keys().into_iter().find(|key| key.state == "active");
    assert_ne!(signs.unwrap().kid, kid);
}

#[test]
fn a_state_that_is_approved_ahead_is_signed_in_at_once() {
    let (tpm, tmp) = (Tpm::new(), public_dir());
    let dir = tmp.path();
    approver(dir, "approver");
    let healthy = format!(
        ", authority = \"{0}/approver.pem\", approvals = \"{0}/approvals\"",
        dir.display()
    );
    let daemon = Daemon::start(config(&tpm, &healthy));
    daemon.wait_usable();
    let now = approve(&daemon, dir, "approver", &[]);
    assert_eq!(now.status.code(), Some(0), "{}", said(&now));
    daemon.apply();
    comes_back(&daemon);
    let kid = daemon.keys().remove(0).kid;
    // Of a PCR that nothing has been measured into: as it will be.
    let ahead = format!("--pcr=7={}", extended(&[0; 32]));
    let ahead = approve(&daemon, dir, "approver", &[&ahead]);
    assert_eq!(ahead.status.code(), Some(0), "{}", said(&ahead));
    assert_eq!(daemon.ask(BANK).status, 200, "and as it is");
    extend(&tpm, 7);
    let answer = daemon.ask(BANK);
    assert_eq!(answer.status, 200, "{}", answer.body());
    assert_eq!(daemon.keys().remove(0).kid, kid);
}

#[test]
fn a_host_that_was_started_otherwise_does_not_come_to_sign_by_rotating() {
    let tpm = Tpm::new();
    let config = config_of(&tpm, "", SHORT);
    let daemon = Daemon::with_keys(config);
    comes_back(&daemon);
    extend(&tpm, 7);
    assert_eq!(daemon.ask(BANK).status, 503);
    let waits = |key: &KeyStatus| {
        let next = key.next.as_deref().unwrap_or_default();
        key.state == "failed" && next.contains("keys replace-lost ours/bank")
    };
    let waiting = wait_for(DEADLINE, || daemon.keys().into_iter().find(waits));
    assert!(waiting.is_some(), "{:?}", daemon.keys());
    let rotate = daemon.assertctl(&["keys", "rotate", "ours/bank"]);
    assert_eq!(rotate.status.code(), Some(1), "{}", said(&rotate));
    for words in ["PCR 7 is", "keys replace-lost ours/bank"] {
        assert!(said(&rotate).contains(words), "{}", said(&rotate));
    }
    let only_one = |daemon: &Daemon| {
        let keys = daemon.keys();
        assert_eq!(keys.len(), 1, "{keys:?}\n{}", daemon.stderr());
        is_refused(daemon, &["PCR 7 is", "when it was made"]);
    };
    std::thread::sleep(Duration::from_secs(18)); // its period is over
    only_one(&daemon);
    // It is over before anything is known of the key, too.
    let daemon = daemon.restart();
    daemon.wait_usable();
    std::thread::sleep(Duration::from_secs(3));
    only_one(&daemon);
    let lost = daemon.assertctl(&["keys", "replace-lost", "ours/bank", "--yes"]);
    assert_eq!(lost.status.code(), Some(0), "{}", said(&lost));
    comes_back(&daemon);
}

#[test]
fn approvals_beside_the_brokers_state_are_read_after_a_restart() {
    let (tpm, tmp) = (Tpm::new(), public_dir());
    let dir = tmp.path();
    approver(dir, "approver");
    let site = Site::new("");
    let approvals = site.state_dir().with_file_name("approvals");
    let healthy = format!(
        ", authority = \"{}/approver.pem\", approvals = \"{}\"",
        dir.display(),
        approvals.display()
    );
    site.configure(config(&tpm, &healthy).as_ref());
    let daemon = Daemon::start_at(site);
    daemon.wait_usable();
    // The sandbox is from before the directory.
    let done = approve(&daemon, dir, "approver", &[]);
    assert_eq!(done.status.code(), Some(0), "{}", said(&done));
    assert!(
        said(&done).contains("restart the keystore"),
        "{}",
        said(&done)
    );
    let none = daemon.assertctl(&["apply", "--yes"]);
    assert_ne!(none.status.code(), Some(0));
    assert!(
        said(&none).contains("restart the keystore"),
        "{}",
        said(&none)
    );
    let daemon = daemon.restart();
    daemon.wait_usable();
    daemon.apply();
    comes_back(&daemon);
}
