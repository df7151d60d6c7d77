//! Every profile, minted by a real token and judged by verifiers that nobody here wrote, configured by
//! what each vendor documents (tests/peers/vendors.py). A verifier that cannot refuse proves nothing:
//! each rule is also broken, and has to be refused for it.

use crate::world::{decode, us};
use harness::{Config, Daemon, Token, peers};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Vectors {
    issuers: String,
    golden: Vec<Golden>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Golden {
    profile: String,
    target: String,
    header: String,
    payload: String,
}

/// When the golden vectors were minted, in seconds since 1970.
const MINTED_AT: i64 = 1_800_000_000;

fn vectors() -> Vectors {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers/golden.toml");
    toml::from_str(&std::fs::read_to_string(file).unwrap()).unwrap()
}

fn parsed(json: &str) -> Value {
    serde_json::from_str(json).unwrap()
}

/// One target for each vector, in one workload of ours.
fn every_target(token: &Token, vectors: &Vectors) -> Config {
    let mut config = Config::new(token).with(&vectors.issuers);
    config = config.workload("ours", us(), "");
    for (index, golden) in vectors.golden.iter().enumerate() {
        config = config.with(&format!(
            "[workload.ours.target.t{index}]\nprofile = \"{}\"\n{}",
            golden.profile, golden.target
        ));
    }
    config
}

/// What was registered with the vendor: the golden vector says what the operator wrote.
fn registered(
    golden: &Golden,
    assertion: &str,
    kid: &str,
    jwks: &Value,
    certificate: &Value,
) -> Value {
    let (header, claims) = (parsed(&golden.header), parsed(&golden.payload));
    let keys = jwks["keys"].as_array().unwrap();
    let jwk = keys.iter().find(|key| key["kid"] == kid).unwrap();
    let is_assigned = golden.target.contains("kid = ");
    let iss = claims["iss"].as_str().unwrap();
    json!({
        "profile": golden.profile, "assertion": assertion, "jwk": jwk,
        "iss": iss.split(".SHA256:").next().unwrap(),
        "x5t#S256": certificate, "sub": claims["sub"], "aud": claims["aud"], "scope": claims["scope"], "alg": header["alg"],
        "kid": match header.get("kid") {
            None => Value::Null,
            Some(assigned) if is_assigned => assigned.clone(),
            Some(_) => kid.into(),
        },
    })
}

/// The golden header and claims, but for what differs from one assertion to the next.
fn is_golden(golden: &Golden, assertion: &str, kid: &str, certificate: &Value) {
    let (header, mut claims) = decode(assertion);
    let (mut expected, mut golden_claims) = (parsed(&golden.header), parsed(&golden.payload));
    if expected.get("kid").is_some() && !golden.target.contains("kid = ") {
        expected["kid"] = kid.into();
    }
    if expected.get("x5t#S256").is_some() {
        expected["x5t#S256"] = certificate.clone();
    }
    assert_eq!(header, expected, "{}", golden.profile);
    let iat = |claims: &Value| claims["iat"].as_i64().unwrap();
    let backdated = MINTED_AT - iat(&golden_claims);
    let shift = iat(&claims) + backdated - MINTED_AT;
    let times = ["iat", "nbf", "exp"];
    for name in times.into_iter().filter(|it| claims.get(it).is_some()) {
        golden_claims[name] = (golden_claims[name].as_i64().unwrap() + shift).into();
    }
    for varying in ["jti", "iss"] {
        let is_varying = varying == "jti" || golden.profile == "snowflake"; // its `iss` has the key's fingerprint
        if is_varying && golden_claims.get(varying).is_some() {
            golden_claims[varying] = claims[varying].take();
            claims[varying] = golden_claims[varying].clone();
        }
    }
    assert_eq!(claims, golden_claims, "{}", golden.profile);
}

/// A key that a vendor makes and shows once.
fn import_rsa(daemon: &Daemon, key: &str) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("key.pem");
    let path = path.to_str().unwrap();
    let made = Command::new("openssl")
        .args(["genrsa", "-traditional", "-out", path, "2048"])
        .output();
    assert!(made.unwrap().status.success());
    let output = daemon.assertctl(&["keys", "import", key, path]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
}

/// The thumbprint of the certificate that is registered, where one is.
fn x5t(daemon: &Daemon, key: &str, golden: &Golden) -> Value {
    if !golden.header.contains("x5t#S256") {
        return Value::Null;
    }
    let output = daemon.assertctl(&["keys", "certificate", key, "--json"]);
    parsed(&String::from_utf8(output.stdout).unwrap())["x5t#S256"].take()
}

#[test]
fn every_profile_is_accepted_by_its_vendors_rules_and_refused_for_each_that_is_broken() {
    let (token, vectors) = (Token::new(), vectors());
    let daemon = Daemon::start(every_target(&token, &vectors));
    daemon.wait_usable();
    let made_there = vectors.golden.iter().enumerate();
    for (index, _) in made_there.filter(|(_, golden)| golden.profile == "github-app") {
        import_rsa(&daemon, &format!("ours/t{index}"));
    }
    daemon.apply();
    let (jwks, mut client) = (daemon.jwks(), daemon.client());
    let mut lines = Vec::new();
    for (index, golden) in vectors.golden.iter().enumerate() {
        let answer = client.assertion(&format!("t{index}"), None).unwrap();
        let certificate = x5t(&daemon, &format!("ours/t{index}"), golden);
        let (assertion, kid) = (&answer.assertion, &answer.kid);
        is_golden(golden, assertion, kid, &certificate);
        lines.push(registered(golden, assertion, kid, &jwks, &certificate).to_string());
    }
    // Each a second time: where `jti` is compared, that is a replay.
    let again = lines
        .iter()
        .map(|line| line.replacen('{', "{\"once\":true,", 1));
    let again: Vec<String> = again.collect();
    let verdicts = peers::vendors(&[lines, again].concat());
    let (first, again) = verdicts.split_at(vectors.golden.len());
    let mut profiles = BTreeSet::new();
    let mut replays = 0;
    for ((golden, verdict), again) in vectors.golden.iter().zip(first).zip(again) {
        let profile = golden.profile.as_str();
        profiles.insert(profile);
        let all = json!({ "pyjwt": true, "joserfc": true, "jwcrypto": true, "rules": [] });
        assert_eq!(verdict["accepted"], all, "{profile}");
        let has_jti = golden.payload.contains("\"jti\"");
        match again["accepted"]["rules"].as_array().unwrap().as_slice() {
            [] => {}
            [rule] if rule == "replay" && has_jti => replays += 1,
            other => panic!("{profile}: {other:?}"),
        }
        is_refused_for_each_rule(golden, &verdict["broken"]);
    }
    let rows: BTreeSet<&str> = broker::profile::ROWS.iter().map(|row| row.name).collect();
    assert_eq!(profiles, rows);
    assert!(replays >= 5, "client assertions are used once, {replays}");
}

/// The same assertion signed by a key made there is accepted, and broken in one place it is refused,
/// for that and not only for something else.
fn is_refused_for_each_rule(golden: &Golden, broken: &Value) {
    let (profile, has_aud) = (&golden.profile, golden.payload.contains("\"aud\""));
    let broken = broken.as_object().unwrap();
    assert!(broken.len() > 20, "{profile}: {} variants", broken.len());
    for (variant, who) in broken {
        let who: Vec<&str> = who
            .as_array()
            .unwrap()
            .iter()
            .filter_map(Value::as_str)
            .collect();
        let Some((rule, _)) = variant.rsplit_once(' ') else {
            assert!(
                who.is_empty(),
                "{profile}: unbroken, and refused by {who:?}"
            );
            continue;
        };
        assert!(
            who.contains(&rule),
            "{profile}: {variant} is refused by {who:?} alone"
        );
        // These the libraries know too, each for itself.
        let known = ["iss 0", "alg 0", "exp 0"].contains(&variant.as_str());
        if known || (variant == "aud 0" && has_aud) {
            for library in ["pyjwt", "joserfc", "jwcrypto"] {
                assert!(
                    who.contains(&library),
                    "{profile}: {variant}: {library} accepts it"
                );
            }
        }
    }
}
