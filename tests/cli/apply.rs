//! `assertctl` against a running assertd with a SoftHSM token: what `apply` makes, what it leaves
//! alone, and that it can be broken off anywhere.

use harness::fault::{Function, Shimmed};
use harness::{Config, Daemon, SoftHsm};
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::process::{Command, Output, Stdio};

/// Everybody who runs these tests is root.
const ROOT: u32 = 0;

/// Longer than assertd leaves a silent connection open, which is 30 s; a chip takes that long for an RSA
/// key. Below a keystore's `hang_limit_s`.
const MAKES_SLOWLY_MS: u32 = 33_000;

/// A token, and a configuration of one workload with these targets on it.
fn configured(targets: &[&str]) -> (SoftHsm, Config) {
    let token = SoftHsm::new();
    let config = Config::new(&token).workload("w", ROOT, "");
    let config = targets
        .iter()
        .fold(config, |config, target| config.target("w", target, ""));
    (token, config)
}

/// Its stdout, if it ended with `code`.
#[track_caller]
fn stdout(output: &Output, code: i32) -> String {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "{out}{err}");
    out
}

/// Its stderr, if it ended with `code`.
#[track_caller]
fn stderr(output: &Output, code: i32) -> String {
    stdout(output, code);
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn started(config: &Config) -> Daemon {
    let daemon = Daemon::start(config.text());
    daemon.wait_usable();
    daemon
}

#[test]
fn a_lost_key_is_named_and_never_made_anew() {
    let (token, config) = configured(&["bank"]);
    let daemon = started(&config);
    stdout(&daemon.assertctl(&["apply"]), 0);
    assert_eq!(token.private_keys(), 1);
    let deleted = token
        .pkcs11_tool()
        .args([
            "--delete-object",
            "--type",
            "privkey",
            "--label",
            "assertd/w/bank/1",
        ])
        .output()
        .unwrap();
    assert!(deleted.status.success(), "{deleted:?}");
    assert_eq!(token.private_keys(), 0);

    let daemon = daemon.restart();
    daemon.wait_usable();
    let diff = stdout(&daemon.assertctl(&["config", "diff"]), 0);
    assert!(
        diff.starts_with("! w → bank") && !diff.contains("new ES256"),
        "{diff}"
    );
    stdout(&daemon.assertctl(&["config", "diff", "--exit-code"]), 1);
    let said = stderr(&daemon.assertctl(&["apply"]), 1);
    assert!(said.contains("w/bank.1"), "{said}");
    assert_eq!(token.private_keys(), 0);
    let said = stderr(&daemon.assertctl(&["jwks", "--target", "w/bank"]), 1);
    assert!(said.contains("nothing to publish"), "{said}");
}

#[test]
fn an_apply_that_is_killed_is_finished_by_the_next() {
    let names: Vec<String> = (0..12).map(|n| format!("t{n}")).collect();
    let targets: Vec<&str> = names.iter().map(String::as_str).collect();
    let (token, config) = configured(&targets);
    let daemon = started(&config);
    let mut killed = Command::new(daemon.site().programs().assertctl())
        .arg("-c")
        .arg(daemon.site().config())
        .arg("apply")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(killed.stdout.take().unwrap()).lines();
    assert!(lines.next().unwrap().unwrap().starts_with("created w/t"));
    killed.kill().unwrap();
    killed.wait().unwrap();

    stdout(&daemon.assertctl(&["apply"]), 0);
    assert_eq!(token.private_keys(), targets.len());
    assert_eq!(daemon.keys().len(), targets.len());
    let nothing = stdout(&daemon.assertctl(&["apply"]), 0);
    assert_eq!(nothing, "nothing to do: 12 keys as configured\n");
}

#[test]
fn more_keys_than_allowed_are_refused_as_a_whole() {
    let (token, config) = configured(&["a", "b", "c"]);
    let daemon = started(&config);
    let said = stderr(&daemon.assertctl(&["apply", "--max", "2"]), 1);
    assert!(
        said.contains("3 keys would be made, more than 2 at once"),
        "{said}"
    );
    assert_eq!((token.private_keys(), daemon.keys().len()), (0, 0));
    stdout(&daemon.assertctl(&["apply", "--max", "3"]), 0);
    assert_eq!(token.private_keys(), 3);
}

#[test]
fn a_key_that_takes_longer_than_a_connection_lasts_is_recorded_and_the_next_one_is_made() {
    let token = Shimmed::new();
    let config = Config::new(&token).workload("w", ROOT, "");
    let config = config.target("w", "bank", "").target("w", "vault", "");
    let daemon = started(&config);
    token.rules(&format!("C_GenerateKeyPair 1 delay:{MAKES_SLOWLY_MS}\n"));
    let before = std::time::Instant::now();
    let applied = stdout(&daemon.assertctl(&["apply"]), 0);
    assert!(before.elapsed().as_millis() >= MAKES_SLOWLY_MS.into());
    assert_eq!(token.fired(Function::C_GenerateKeyPair), 1);
    let created = |line: &str| line.starts_with("created w/");
    assert_eq!(applied.lines().filter(|line| created(line)).count(), 2);
    assert_eq!((daemon.keys().len(), token.token().private_keys()), (2, 2));
    stdout(&daemon.assertctl(&["assertion", "--target", "bank"]), 0);
}

#[test]
fn a_charter_is_amended_by_consent_alone() {
    let (token, config) = configured(&["bank"]);
    let daemon = started(&config);
    stdout(&daemon.assertctl(&["apply"]), 0);
    let kid = daemon.keys()[0].kid.clone();
    let moved = Config::new(&token).workload("w", ROOT, "");
    let moved = moved.target_at("w", "bank", "https://as2.bank.example", "");
    daemon.site().configure(moved.text());

    let diff = stdout(&daemon.assertctl(&["config", "diff"]), 0);
    assert!(
        diff.starts_with(
            "what assertd grants, once it reloads:\n\
             ~ w → bank  aud: https://as.bank.example → https://as2.bank.example\n\
             keys, once `assertctl apply` is run:\n\
             ~ w → bank  aud: https://as.bank.example → https://as2.bank.example\n"
        ),
        "{diff}"
    );
    assert!(
        diff.contains("assertd still runs another configuration"),
        "{diff}"
    );
    let said = stderr(&daemon.assertctl(&["apply"]), 1);
    assert!(said.contains("1 charter would be amended"), "{said}");
    let diff_again = stdout(&daemon.assertctl(&["config", "diff"]), 0);
    assert_eq!(diff, diff_again);

    stdout(&daemon.assertctl(&["apply", "--yes"]), 0);
    let daemon = daemon.restart();
    daemon.wait_usable();
    let nothing = stdout(&daemon.assertctl(&["config", "diff", "--exit-code"]), 0);
    assert_eq!(nothing, "nothing to do: 1 key as configured\n");
    assert_eq!(daemon.keys()[0].kid, kid);
    stdout(&daemon.assertctl(&["assertion", "--target", "bank"]), 0);
}

#[test]
fn a_key_of_another_algorithm_is_a_conflict_and_stays() {
    let (token, config) = configured(&["bank"]);
    let daemon = started(&config);
    stdout(&daemon.assertctl(&["apply"]), 0);
    let other = Config::new(&token)
        .workload("w", ROOT, "")
        .target("w", "bank", "alg = \"RS256\"");
    daemon.site().configure(other.text());
    let said = stderr(&daemon.assertctl(&["apply", "--yes"]), 1);
    assert!(
        said.contains("the key is for ES256 and cannot become one for RS256"),
        "{said}"
    );
    assert_eq!(token.private_keys(), 1);
}

#[test]
fn what_is_printed_is_what_a_script_reads() {
    let (_token, config) = configured(&["bank"]);
    let daemon = started(&config);
    let said = stderr(&daemon.assertctl(&["jwks"]), 1);
    assert!(said.contains("`assertctl apply` makes"), "{said}");
    let diff = stdout(&daemon.assertctl(&["config", "diff"]), 0);
    assert_eq!(diff, "+ w → bank  new ES256 key in hsm, lifetime 60 s\n");
    let applied = stdout(&daemon.assertctl(&["apply"]), 0);
    let key = daemon.keys().remove(0);
    let created = format!(
        "created w/bank  kid {}  evidence asserted  in hsm\nnext: ",
        key.kid
    );
    assert!(applied.starts_with(&created), "{applied}");

    let jwks = stdout(&daemon.assertctl(&["jwks", "--target", "w/bank"]), 0);
    let jwks: Value = serde_json::from_str(&jwks).unwrap();
    assert_eq!(jwks, serde_json::json!({ "keys": [key.jwk] }));
    let assertion = stdout(&daemon.assertctl(&["assertion", "--target", "bank"]), 0);
    let line = assertion.strip_suffix('\n').unwrap();
    assert_eq!(line.split('.').count(), 3, "{line}");
    assert!(
        line.bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)),
        "{line}"
    );
    let whole = stdout(
        &daemon.assertctl(&["--json", "assertion", "--target", "bank"]),
        0,
    );
    let whole: Value = serde_json::from_str(&whole).unwrap();
    assert_eq!(
        (&whole["kid"], &whole["target"]),
        (&key.kid.into(), &"bank".into())
    );

    for command in ["status", "keys", "whoami", "targets"] {
        let json = stdout(&daemon.assertctl(&["--json", command]), 0);
        assert!(
            serde_json::from_str::<Value>(&json).unwrap().is_object(),
            "{json}"
        );
        assert!(!stdout(&daemon.assertctl(&[command]), 0).is_empty());
    }
    let denied = stderr(
        &daemon.assertctl(&["assertion", "--target", "nobody-has-it"]),
        1,
    );
    assert!(denied.starts_with("assertctl: denied ("), "{denied}");
}

#[test]
fn a_changed_audit_record_is_found_and_an_untouched_log_verifies() {
    let (_token, config) = configured(&["bank"]);
    let mut daemon = started(&config);
    stdout(&daemon.assertctl(&["apply"]), 0);
    stdout(&daemon.assertctl(&["assertion", "--target", "bank"]), 0);
    assert_eq!(daemon.stop(), Some(0));
    let verified = stdout(&daemon.assertctl(&["audit", "verify"]), 0);
    assert!(verified.starts_with("ok    audit log "), "{verified}");
    let shown = stdout(
        &daemon.assertctl(&["audit", "show", "--json", "-n", "1000"]),
        0,
    );
    let shown: Vec<Value> = shown
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(shown, daemon.audit_records());

    let log = daemon.audit_dir().join("audit-00000000000000000000.log");
    let bytes = std::fs::read(&log).unwrap();
    let at = bytes
        .windows(12)
        .position(|w| w == b"\"uid\":0,\"gid")
        .unwrap()
        + 6;
    let mut changed = bytes.clone();
    changed[at] = b'7';
    std::fs::write(&log, changed).unwrap();
    let said = stderr(&daemon.assertctl(&["audit", "verify"]), 1);
    assert!(
        said.contains("audit-00000000000000000000.log line "),
        "{said}"
    );
}

#[test]
fn what_a_reload_grants_changes_and_revokes_is_shown_before_and_is_no_difference_after() {
    let (token, config) = configured(&["bank", "old"]);
    let config = config
        .workload("gone", 4_242, "")
        .target("gone", "bank", "");
    let daemon = started(&config);
    stdout(&daemon.assertctl(&["apply"]), 0);
    let new = Config::new(&token)
        .workload("w", ROOT, "unless = { interactive = true }")
        .target("w", "bank", "lifetime = 30")
        .workload("new", 4_242, "expires = 2999-01-02T03:04:05Z")
        .target("new", "bank", "");
    daemon.site().configure(new.text());

    let diff = daemon.assertctl(&["config", "diff", "--exit-code"]);
    let expected = "\
what assertd grants, once it reloads:
- gone → bank  uid = 4242, container = false: gone-bank to https://as.bank.example, 60 s
+ new → bank   uid = 4242, container = false: new-bank to https://as.bank.example, 60 s, until 2999-01-02T03:04:05Z
~ w → bank     unless: none → interactive = true; lifetime: 60 s → 30 s
- w → old      uid = 0, container = false: w-old to https://as.bank.example, 60 s
keys, once `assertctl apply` is run:
+ new → bank   new ES256 key in hsm, lifetime 60 s
~ w → bank     lifetime_max_s: 60 → 30
? gone → bank  version 1 in hsm is not asked for; it is kept
? w → old      version 1 in hsm is not asked for; it is kept
note: assertd still runs another configuration (2 workloads, 3 targets; these files have 2 workloads, \
2 targets). To have it run these: assertctl reload
";
    assert_eq!(stdout(&diff, 1), expected);
    let json = stdout(&daemon.assertctl(&["--json", "config", "diff"]), 0);
    let json: Value = serde_json::from_str(&json).unwrap();
    let kinds: Vec<&str> = json["grants"]
        .as_array()
        .unwrap()
        .iter()
        .map(|change| change["change"].as_str().unwrap())
        .collect();
    assert_eq!(kinds, ["revoke", "grant", "amend", "revoke"]);
    let amended = &json["grants"][2]["changes"][1];
    let lifetime = serde_json::json!({ "member": "lifetime", "from": "60 s", "to": "30 s" });
    assert_eq!(amended, &lifetime);

    stdout(&daemon.assertctl(&["reload"]), 0);
    stdout(&daemon.assertctl(&["apply", "--yes"]), 0);
    let diff = stdout(&daemon.assertctl(&["config", "diff", "--exit-code"]), 0);
    let nothing = "nothing to do: 2 keys as configured\n";
    assert!(
        diff.ends_with(nothing) && !diff.contains("once it reloads"),
        "{diff}"
    );
}
