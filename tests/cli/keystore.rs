//! `assertctl keystore check` on real keystores: what it says of a healthy one, of one that lost a
//! key, that was given a wrong PIN, that hangs, and of one beside it that does not; and that it
//! leaves nothing in the token.

use harness::daemon::Site;
use harness::process::{Process, freeze, send};
use harness::{Config, DEADLINE, Daemon, SoftHsm, Tpm, wait_until};
use keystore::Kind;
use keystore::client::Client;
use keystore::protocol::Request;
use nix::sys::signal::Signal;
use serde_json::Value;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output, Stdio};
use std::sync::Barrier;
use std::time::{Duration, Instant};

/// Everybody who runs these tests is root.
const ROOT: u32 = 0;

/// Between two requests: a workload may ask a hundred times a second.
const PACE: Duration = Duration::from_millis(20);

/// Longer than the sum of all its deadlines here, on a machine that is busy.
const ENDED: Duration = Duration::from_secs(60);

fn with_targets(config: Config) -> Config {
    let workload = config.workload("w", ROOT, "owner = \"w@example.com\"\nexpires = 2999-01-01");
    workload.target("w", "bank", "").target("w", "shop", "")
}

/// A place whose configuration root alone can change, whatever the umask of the test.
fn site(config: &Config) -> Site {
    let site = Site::new(config.text());
    fs::set_permissions(site.config(), Permissions::from_mode(0o644)).unwrap();
    site
}

fn started(config: &Config) -> Daemon {
    let daemon = Daemon::start_at(site(config));
    daemon.apply();
    daemon
}

fn run(site: &Site, arguments: &[&str]) -> Output {
    let begun = Instant::now();
    let output = Command::new(site.programs().assertctl())
        .args(["keystore", "check", "--config"])
        .arg(site.config())
        .args(arguments)
        .output()
        .unwrap();
    assert!(begun.elapsed() < ENDED, "{:?}", begun.elapsed());
    output
}

/// What it says of a keystore.
#[derive(Debug)]
struct Report(Vec<Value>);

fn examine(site: &Site, name: &str) -> Report {
    let output = run(site, &["--json", name]);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
        let said = String::from_utf8_lossy(&output.stderr);
        panic!("{error}: {said}")
    });
    let findings = report["findings"].as_array().unwrap().clone();
    let fails = findings.iter().any(|it| it["severity"] == "fail");
    assert_eq!(
        (&report["format"], &report["keystore"]),
        (&1.into(), &name.into())
    );
    assert_eq!(report["ok"], !fails);
    assert_eq!(output.status.code(), Some(i32::from(fails)), "{report:#}");
    for finding in &findings {
        let has_none = finding["remedy"].is_null();
        assert_eq!(has_none, finding["severity"] == "ok", "{finding}");
    }
    Report(findings)
}

impl Report {
    fn of<'a>(&'a self, id: &str) -> impl Iterator<Item = &'a Value> + use<'a> {
        let id = id.to_owned();
        self.0.iter().filter(move |it| it["id"] == *id)
    }

    /// The text of the one finding of this id.
    #[track_caller]
    fn text(&self, id: &str, severity: &str) -> &str {
        let mut found = self.of(id);
        let one = found.next().unwrap_or_else(|| panic!("no {id}: {self:#?}"));
        assert!(found.next().is_none(), "two of {id}: {self:#?}");
        assert_eq!(one["severity"], severity, "{one}");
        one["text"].as_str().unwrap()
    }

    #[track_caller]
    fn says(&self, id: &str, severity: &str, phrases: &[&str]) {
        let text = self.text(id, severity);
        for phrase in phrases {
            assert!(text.contains(phrase), "{phrase}: {text}");
        }
    }

    /// Of everything that is not as it should be: severity and id.
    fn bad(&self) -> Vec<(&str, &str)> {
        let bad = self.0.iter().filter(|it| it["severity"] != "ok");
        bad.map(|it| (it["severity"].as_str().unwrap(), it["id"].as_str().unwrap()))
            .collect()
    }

    /// What this host shows without the keystore's help, of one with a PKCS#11 token.
    #[track_caller]
    fn shows_the_host_of_a_token(&self) {
        self.says("K01", "ok", &["assertd-keystore-pkcs11"]);
        self.says("K02", "ok", &["isolation: none"]);
        self.says("D17", "ok", &["libsofthsm2.so"]);
        self.says("D23", "ok", &["PIN file"]);
    }
}

/// How many signatures a second the line says.
fn rate(report: &Report) -> f64 {
    let text = report.text("K32", "ok");
    let number = text
        .strip_prefix("ES256: ")
        .unwrap_or_else(|| panic!("{text}"));
    number.split(' ').next().unwrap().parse().unwrap()
}

#[test]
fn a_healthy_token_is_shown_with_every_key_and_its_rate() {
    let token = SoftHsm::new();
    let daemon = started(&with_targets(Config::new(&token)));
    let before = objects(&token);
    let report = examine(daemon.site(), "hsm");
    assert_eq!(report.bad(), [], "{report:#?}");
    report.shows_the_host_of_a_token();
    report.says("K10", "ok", &["hsm: usable", "0 failed"]);
    report.says("K11", "ok", &["libsofthsm2.so", "SoftHSM", "version 2."]);
    report.says(
        "K12",
        "ok",
        &["token \"workloads\" (slot ", "serial ", "firmware"],
    );
    report.says("K13", "ok", &["no wrong user PIN"]);
    report.says("K14", "ok", &["of ours sign", "any number allowed"]);
    let algs: Vec<&str> = report
        .of("K16")
        .map(|it| it["text"].as_str().unwrap())
        .collect();
    let es256 = "ES256 by CKM_EC_KEY_PAIR_GEN (112 to 521 bits) and CKM_ECDSA (112 to 521 bits)";
    assert!(algs.contains(&es256), "{algs:#?}");
    let keys: Vec<&Value> = report.of("K30").collect();
    let kids: Vec<String> = daemon.keys().into_iter().map(|key| key.kid).collect();
    assert_eq!(keys.len(), 2, "{keys:#?}");
    for (key, (target, kid)) in keys.iter().zip(["bank", "shop"].iter().zip(&kids)) {
        let text = key["text"].as_str().unwrap();
        let head = format!("w/{target}.1: ES256, kid {kid}: there with the recorded public key");
        assert!(text.starts_with(&head), "{text}");
        let party = format!("for client w-{target} at https://as.bank.example");
        assert!(text.contains("can only sign (evidence asserted)"), "{text}");
        assert!(text.ends_with(&party), "{text}");
    }
    report.says("K31", "ok", &["nothing looks like ours"]);
    assert!(rate(&report) > 1.0, "{report:#?}");
    assert_eq!(objects(&token), before, "the trial's key has gone");

    // For people, and without the name, since there is one.
    let output = run(daemon.site(), &[]);
    let shown = String::from_utf8(output.stdout).unwrap();
    assert!(shown.contains("\nok    rate        ES256: "), "{shown}");
    assert!(shown.ends_with(" ok, 0 warn, 0 FAIL\n"), "{shown}");
}

/// Every object of the token as another program lists it.
fn objects(token: &SoftHsm) -> Vec<String> {
    let listed = token.pkcs11_tool().arg("--list-objects").output().unwrap();
    assert!(listed.status.success());
    let text = String::from_utf8(listed.stdout).unwrap();
    let lines = text.lines().filter(|line| !line.trim().is_empty());
    let mut lines: Vec<String> = lines.map(str::to_owned).collect();
    lines.sort();
    lines
}

#[test]
fn a_missing_key_and_a_strange_one_are_named_and_nothing_is_done_about_them() {
    let token = SoftHsm::new();
    let daemon = started(&with_targets(Config::new(&token)));
    token.delete_all("privkey");
    let strange = token
        .pkcs11_tool()
        .args(["--keypairgen", "--key-type", "EC:prime256v1"])
        .args(["--label", "assertd/somebody/else/1", "--id", "0102"])
        .output()
        .unwrap();
    assert!(strange.status.success());
    // It sees now what another process has done.
    let mut daemon = daemon.restart();
    daemon.wait_usable();
    let report = examine(daemon.site(), "hsm");
    let fails = [("fail", "K30"), ("fail", "K30"), ("warn", "K31")];
    assert_eq!(report.bad(), fails, "{report:#?}");
    for key in report.of("K30") {
        let text = key["text"].as_str().unwrap();
        assert!(text.contains("recorded, but token \"workloads\""), "{text}");
        let remedy = key["remedy"].as_str().unwrap();
        assert!(remedy.contains("restart the keystore"), "{remedy}");
    }
    report.says("K31", "warn", &["assertd/somebody/else/1"]);
    assert_eq!(token.private_keys(), 1, "the strange one stays");
    assert!(daemon.lives());
}

#[test]
fn a_wrong_pin_is_said_with_its_remedy_and_the_host_is_shown_all_the_same() {
    let token = SoftHsm::new();
    fs::write(token.pin_file(), "00000000").unwrap();
    let daemon = Daemon::start_at(site(&with_targets(Config::new(&token))));
    let failed = || daemon.status().keystores[0].state == "failed";
    assert!(wait_until(DEADLINE, failed), "{}", daemon.stderr());
    let report = examine(daemon.site(), "hsm");
    assert_eq!(report.bad(), [("fail", "D72")], "{report:#?}");
    report.shows_the_host_of_a_token();
    report.says("D72", "fail", &["hsm has failed:", "CKR_PIN_INCORRECT"]);
    let remedy = report.of("D72").next().unwrap()["remedy"].as_str().unwrap();
    assert!(remedy.contains("with the right PIN"), "{remedy}");
}

#[test]
fn a_stopped_keystore_is_given_up_and_the_one_beside_it_is_not_slowed() {
    let (stopped, other) = (SoftHsm::new(), SoftHsm::labelled("other"));
    let config = Config::default()
        .keystore("stopped", &stopped, "")
        .keystore("other", &other, "");
    let daemon = Daemon::start_at(site(&config));
    daemon.wait_usable();
    let pid = |name: &str| {
        let status = daemon.status();
        let keystore = status.keystores.iter().find(|it| it.name == name).unwrap();
        keystore.pid.unwrap()
    };
    let pid = pid("stopped");
    freeze(pid);
    let report = examine(daemon.site(), "stopped");
    assert_eq!(report.bad(), [("fail", "K10")], "{report:#?}");
    report.shows_the_host_of_a_token();
    let phrases = ["does not answer within 10 s", "hangs, or was stopped"];
    report.says("K10", "fail", &phrases);
    let beside = examine(daemon.site(), "other");
    assert_eq!(beside.bad(), [], "{beside:#?}");
    send(pid, Signal::SIGCONT);
    assert_eq!(examine(daemon.site(), "stopped").bad(), []);

    let which = run(daemon.site(), &[]);
    let said = String::from_utf8(which.stderr).unwrap();
    assert_eq!(said, "assertctl: which keystore? other or stopped\n");
    assert_eq!(which.status.code(), Some(2));
}

#[test]
fn a_keystore_that_does_not_run_is_looked_at_from_the_host() {
    let token = SoftHsm::new();
    let site = site(&with_targets(Config::new(&token)));
    let report = examine(&site, "hsm");
    report.says("K10", "fail", &["there is no socket"]);
    let remedy = report.of("K10").next().unwrap()["remedy"].as_str().unwrap();
    assert!(remedy.starts_with("start assertd"), "{remedy}");
    report.says("D17", "ok", &["libsofthsm2.so"]);
    let none = run(&site, &["hms"]);
    let said = String::from_utf8(none.stderr).unwrap();
    assert!(said.contains("no [keystore.hms]; there are: hsm"), "{said}");
    assert_eq!(none.status.code(), Some(2));
}

#[test]
fn a_tpm_is_shown_with_lockout_slots_and_salt() {
    let tpm = Tpm::new();
    let daemon = started(&with_targets(Config::default().keystore("tpm", &tpm, "")));
    let report = examine(daemon.site(), "tpm");
    assert_eq!(report.bad(), [("warn", "D27")], "an emulator: {report:#?}");
    report.says("K01", "ok", &["assertd-keystore-tpm"]);
    report.says("D27", "warn", &["EMULATOR"]);
    report.says("K20", "ok", &["IBM", "firmware", "revision 1."]);
    report.says("K21", "ok", &["owner hierarchy", "the recorded one"]);
    report.says("K22", "ok", &["not locked: ", "counted: 0 of ", "noDA"]);
    report.says("K14", "ok", &["password sessions by default"]);
    report.says("K16", "ok", &["ES256 ES384 RS256 PS256; not EdDSA"]);
    report.says("K24", "ok", &["has not been tried"]);
    let slots: Vec<&Value> = report.of("K23").collect();
    let text = slots[0]["text"].as_str().unwrap();
    assert!(text.starts_with("room for 2 of our keys"), "{text}");
    assert_eq!(report.of("K30").count(), 2);
    assert!(rate(&report) > 1.0, "{report:#?}");
    let state = daemon.site().state_dir().join("keystore/tpm");
    assert_eq!(
        Tpm::key_files(&state).len(),
        2,
        "the trial's key has no file"
    );
}

#[test]
fn keys_sign_while_it_looks() {
    let token = SoftHsm::new();
    let daemon = started(&with_targets(Config::new(&token)));
    let mut command = Command::new(daemon.site().programs().assertctl());
    command.args(["keystore", "check", "--config"]);
    command.arg(daemon.site().config()).stdout(Stdio::null());
    let mut looking = Process::start(&mut command);
    let mut minted = 0;
    while looking.ended().is_none() {
        assert_eq!(daemon.ask(r#"{"target":"bank"}"#).status, 200);
        minted += 1;
        std::thread::sleep(PACE);
    }
    let ended = looking.wait(DEADLINE);
    assert_eq!(ended.code(), Some(0), "{}", looking.stderr());
    // It measures for a second.
    assert!(minted > 5, "{minted} in all that time");
}

#[test]
fn of_two_looks_at_a_time_one_is_refused_and_may_be_repeated() {
    let token = SoftHsm::new();
    let daemon = started(&with_targets(Config::new(&token)));
    let socket = daemon.keystore_socket("hsm");
    let look = |barrier: &Barrier| {
        let mut client = Client::connect(&socket, ENDED).unwrap();
        barrier.wait();
        client.call(&Request::Check {})
    };
    // Each takes a second, so that they meet; unless this machine is very busy.
    let met = (0..5).any(|_| {
        let barrier = Barrier::new(2);
        let answers = std::thread::scope(|scope| {
            let other = scope.spawn(|| look(&barrier));
            [look(&barrier), other.join().unwrap()]
        });
        let done = answers.iter().filter(|answer| answer.is_ok()).count();
        assert!(done > 0, "{answers:?}");
        let refused = answers.into_iter().filter_map(Result::err);
        refused
            .map(|error| {
                assert_eq!(error.kind(), Kind::Unavailable);
                assert!(error.to_string().contains("looked at already"), "{error}");
            })
            .count()
            > 0
    });
    assert!(met, "two at a time were never refused");
}
