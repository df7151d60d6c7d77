//! `entra-cert`: the key has a certificate, assertions name it, and Microsoft's own client is the measure of
//! both. Each version has its own, made before anybody hears of the version and replaced by nothing.

use crate::world::{decode, us};
use harness::token::KEYSTORE;
use harness::{Config, DEADLINE, Daemon, Token, peers, wait_until};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::io::Write;
use std::process::{Command, Stdio};

const CLIENT: &str = "00000000-0000-0000-0000-00000000c11e";
const TENANT: &str = "00000000-0000-0000-0000-000000007e4a";

fn entra(token: &Token, extra: &str) -> Config {
    Config::new(token).workload("ours", us(), "").with(&format!(
        "[workload.ours.target.graph]\nprofile = \"entra-cert\"\nclient_id = \"{CLIENT}\"\n\
         token_endpoint = \"https://login.microsoftonline.com/{TENANT}/oauth2/v2.0/token\"\n\
         keystore = \"{KEYSTORE}\"\n{extra}\n"
    ))
}

fn done(daemon: &Daemon, arguments: &[&str]) -> String {
    let output = daemon.assertctl(arguments);
    let why = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{arguments:?}: {why}");
    String::from_utf8(output.stdout).unwrap()
}

fn certificate(daemon: &Daemon, key: &str) -> Value {
    let printed = done(daemon, &["keys", "certificate", key, "--json"]);
    serde_json::from_str(&printed).unwrap()
}

fn assertion(daemon: &Daemon) -> String {
    let answer = daemon.ask(r#"{"target":"graph"}"#);
    assert_eq!(answer.status, 200, "{}\n{}", answer.body(), daemon.stderr());
    answer.member("assertion")
}

/// The thumbprint that an assertion of now names.
fn named(daemon: &Daemon) -> Value {
    decode(&assertion(daemon)).0["x5t#S256"].take()
}

/// What OpenSSL says of what it is given.
fn openssl(arguments: &[&str], input: &str) -> String {
    let mut command = Command::new("openssl");
    command.args(arguments).stdin(Stdio::piped());
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(input.as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    assert!(output.status.success(), "{arguments:?}: {said}");
    said
}

fn names(map: &Value) -> BTreeSet<&str> {
    map.as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect()
}

#[test]
fn microsofts_clients_make_the_same_assertion_and_send_ours() {
    let token = Token::new();
    let daemon = Daemon::with_keys(entra(&token, "certificate = { validity = \"90d\" }"));
    let printed = done(&daemon, &["keys", "certificate", "ours/graph"]);
    let facts = certificate(&daemon, "ours/graph");
    assert_eq!(facts["pem"], printed.as_str());
    let assertion = assertion(&daemon);
    let (header, claims) = decode(&assertion);
    let line = json!({
        "assertion": assertion, "certificate": printed, "client_id": CLIENT, "tenant": TENANT,
    });
    let verdict = peers::entra(&line.to_string());
    assert_eq!(
        verdict["accepted"],
        json!({
            "msal": "", "ours": "",
            "ours for another application": "InvalidIssuerError",
            "ours under another certificate": "x5t#S256",
        })
    );
    assert_eq!(verdict["calls"], 3, "MSAL asks for one each time");
    // Whoever reads one reads the other.
    let (their_header, their_claims) = (&verdict["msal"]["header"], &verdict["msal"]["claims"]);
    for member in ["alg", "typ"] {
        assert_eq!(header[member], their_header[member]);
    }
    let mut members = names(their_header);
    members.remove("x5c"); // for those who are known by an authority
    assert_eq!(names(&header), members);
    assert_eq!(header["x5t#S256"], facts["x5t#S256"]);
    let mut expected = names(their_claims);
    expected.insert("nbf"); // documented, and sent by MSAL for Node
    assert_eq!(names(&claims), expected);
    let node = &verdict["node"];
    assert_eq!(names(&node["header"]), names(&header));
    assert_eq!(names(&node["claims"]), names(&claims));
    for member in ["alg", "typ"] {
        assert_eq!(header[member], node["header"][member]);
    }
    for claim in ["iss", "sub", "aud"] {
        assert_eq!(claims[claim], node["claims"][claim], "{claim}");
    }
    for claim in ["iss", "sub", "aud"] {
        assert_eq!(claims[claim], their_claims[claim], "{claim}");
    }
    let broken = verdict["broken"].as_object().unwrap();
    for (variant, why) in broken {
        let is_good = variant == "nothing";
        assert_eq!(why == "", is_good, "{variant}: {why}");
    }
    assert!(broken.len() > 15, "{broken:?}");
    // The certificate, by a library that nobody here wrote.
    let read = &verdict["certificate"];
    assert_eq!(
        *read,
        json!({
            "subject": "CN=ours/graph.1", "version": "v3", "self_signed": true, "ca": false,
            "digital_signature": true, "key_cert_sign": false, "days": 90,
            "sha1": facts["sha1"], "sha256": facts["sha256"], "bits": read["bits"],
        })
    );
    assert!(read["bits"].as_u64().unwrap() >= 2048);
}

#[test]
fn openssl_reads_what_is_printed() {
    let token = Token::new();
    let daemon = Daemon::with_keys(entra(&token, ""));
    let printed = done(&daemon, &["keys", "certificate", "ours/graph.1"]);
    let text = openssl(
        &["x509", "-noout", "-text", "-fingerprint", "-sha1"],
        &printed,
    );
    for phrase in [
        "rsassaPss",
        "CN = ours/graph.1",
        "Salt Length: 0x20",
        "CA:FALSE",
    ] {
        assert!(text.contains(phrase), "{phrase}: {text}");
    }
    let sha1 = certificate(&daemon, "ours/graph")["sha1"].take();
    let colons = text.lines().find_map(|line| line.split_once("ingerprint="));
    assert_eq!(sha1, colons.unwrap().1.replace(':', ""));
    let request = done(&daemon, &["keys", "certificate", "ours/graph", "--csr"]);
    let said = openssl(&["req", "-verify", "-noout", "-text"], &request);
    assert!(said.contains("verify OK"), "{said}");
    assert!(said.contains("CN = ours/graph.1"), "{said}");
    // Nothing was kept of it.
    assert_eq!(
        done(&daemon, &["keys", "certificate", "ours/graph"]),
        printed
    );
    let output = daemon.assertctl(&["keys", "certificate", "ours/graph.2"]);
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn each_version_has_its_own_certificate_before_it_is_published() {
    let token = Token::new();
    let daemon = Daemon::with_keys(entra(&token, ""));
    let first = certificate(&daemon, "ours/graph")["x5t#S256"].take();
    assert_eq!(named(&daemon), first);
    done(&daemon, &["keys", "rotate", "ours/graph"]);
    let states = || -> Vec<String> { daemon.keys().into_iter().map(|key| key.state).collect() };
    let published = wait_until(DEADLINE, || states() == ["active", "published"]);
    assert!(published, "{:?}\n{}", daemon.keys(), daemon.stderr());
    let second = certificate(&daemon, "ours/graph")["x5t#S256"].take();
    assert_ne!(first, second);
    assert_eq!(certificate(&daemon, "ours/graph.1")["x5t#S256"], first);
    assert_eq!(named(&daemon), first, "nobody has registered the other one");
    for (key, x5t) in daemon.keys().iter().zip([&first, &second]) {
        let certificate = key.certificate.as_ref().unwrap();
        assert_eq!(*x5t, certificate.x5t_s256.as_str());
        assert_eq!(certificate.warning, None);
    }
    let daemon = daemon.restart();
    daemon.wait_usable();
    assert_eq!(named(&daemon), first);
    done(&daemon, &["keys", "activate", "ours/graph"]);
    assert_eq!(named(&daemon), second);
    assert_eq!(certificate(&daemon, "ours/graph.2")["x5t#S256"], second);
}

#[test]
fn a_certificate_that_ends_soon_is_spoken_of() {
    let token = Token::new();
    let daemon = Daemon::with_keys(entra(&token, "certificate = { validity = \"29d\" }"));
    let listed = done(&daemon, &["keys"]);
    let phrase =
        "warn: ours/graph.1: its certificate ends soon; `assertctl keys rotate ours/graph`";
    assert!(listed.contains(phrase), "{listed}");
    let checked = daemon.assertctl(&["check"]);
    let checked = String::from_utf8(checked.stdout).unwrap();
    let line = checked.lines().find(|line| line.ends_with("[D82]"));
    let line = line.unwrap_or_else(|| panic!("{checked}"));
    assert!(
        line.starts_with("warn") && line.contains("of ours/graph.1 ends soon"),
        "{line}"
    );
}

/// Whether root or assertd has it made, and for a key that is there already.
#[test]
fn each_certificate_is_on_record_before_an_assertion_names_it() {
    let token = Token::new();
    let daemon = Daemon::with_keys(entra(&token, ""));
    let on_record = |key: &str| -> Vec<Value> {
        let records = daemon.audit_records().into_iter();
        let of_key = records.filter(|it| it["action"] == "certified" && it["key"] == key);
        of_key.map(|mut it| it["x5t_s256"].take()).collect()
    };
    let thumbprint = |key: &str| certificate(&daemon, key)["x5t#S256"].take();
    assert_eq!(on_record("ours/graph.1"), [thumbprint("ours/graph.1")]);
    done(&daemon, &["keys", "rotate", "ours/graph"]);
    let second = "ours/graph.2";
    let published = wait_until(DEADLINE, || {
        daemon
            .keys()
            .iter()
            .any(|key| key.key == second && key.state == "published")
    });
    assert!(published, "{:?}\n{}", daemon.keys(), daemon.stderr());
    assert_eq!(on_record(second), [thumbprint(second)]);
    let records = daemon.audit_records();
    let at = |action: &str| {
        let is_it = |it: &Value| it["action"] == action && it["key"] == second;
        records
            .iter()
            .position(is_it)
            .unwrap_or_else(|| panic!("{action}: {records:#?}"))
    };
    assert!(at("certified") < at("made") && at("made") < at("published"));
    let shown = done(&daemon, &["audit", "show", "-n", "100"]);
    let phrase = format!("x5t#S256 {}", thumbprint(second).as_str().unwrap());
    assert!(shown.contains(&phrase), "{shown}");
}

#[test]
fn a_key_that_was_there_before_its_certificate_has_it_on_record() {
    let token = Token::new();
    let of = |target: &str| {
        Config::new(&token)
            .workload("ours", us(), "")
            .with(&format!(
                "[workload.ours.target.crm]\nkeystore = \"{KEYSTORE}\"\n{target}"
            ))
    };
    let daemon = Daemon::with_keys(of(
        "profile = \"snowflake\"\naccount = \"ACME-PROD\"\nuser = \"PAYMENTS\"\n",
    ));
    let is_certified = |record: &Value| record["action"] == "certified";
    assert!(!daemon.audit_records().iter().any(is_certified));
    let crm = of(
        "profile = \"salesforce-jwt\"\nclient_id = \"3MVG9\"\nuser = \"payments@acme.example\"\n\
         authorization_server = \"https://login.salesforce.com\"\n",
    );
    daemon.site().configure(crm.text());
    done(&daemon, &["reload"]);
    assert!(daemon.apply().contains("certified"), "{}", daemon.stderr());
    let record = daemon.audit_record(is_certified);
    let made = certificate(&daemon, "ours/crm");
    assert_eq!(
        (&record["key"], &record["kid"], &record["x5t_s256"]),
        (&json!("ours/crm.1"), &made["kid"], &made["x5t#S256"])
    );
}
