//! Every profile, character by character: tests/peers/golden.toml.

use super::*;
use crate::config::Config;
use crate::peer::Proof;
use crate::policy::{Decision, Policy};
use crate::profile::Row;
use crate::workload::Workload;
use keystore::jws::{Header, SigningInput};
use keystore::{Alg, Certificate, PublicKey};
use serde::Deserialize;
use std::io::Write;

mod negative;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
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

const KEYSTORE: &str = r#"
[keystore.hsm]
backend = "pkcs11"
module = "/m.so"
token = { label = "t" }
pin = { credential = "p" }
"#;

/// RFC 7515 appendix A.3.
const P256: &str = r#"{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}"#;

/// RFC 7638 §3.1.
const RSA: &str = r#"{"kty":"RSA","n":"0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw","e":"AQAB"}"#;

/// Of any key, as far as a header is concerned.
const CERTIFICATE: &str = r#"{"der":"AA==","validity":{"not_before":1,"not_after":2}}"#;

fn file() -> File {
    toml::from_str(include_str!("../../../tests/peers/golden.toml")).unwrap()
}

/// The configuration that has this target, if there is none wrong with it.
fn configured(issuers: &str, golden: &Golden) -> Option<Config> {
    let target = format!(
        "[workload.payments]\nmatch = {{ uid = 1 }}\n[workload.payments.target.it]\n\
         profile = \"{}\"\n{}",
        golden.profile, golden.target
    );
    let mut config = tempfile::NamedTempFile::new().unwrap();
    write!(config, "{KEYSTORE}{issuers}{target}").unwrap();
    Config::load(config.path()).ok()
}

/// Header and claims of its target, as JSON text.
fn granted(config: Config, lifetime: Option<u32>) -> (String, String) {
    let policy = Policy::new(config.workloads);
    let workload = Workload::for_test(1, 1, None, false, Proof::Pidfd);
    let now = Time::from_unix_s(1_800_000_000);
    let Decision::Allow(grant) = policy.decide(&workload, "it", lifetime, now) else {
        panic!("denied");
    };
    let charter = grant.target().charter.clone();
    let key: PublicKey = serde_json::from_str(match charter.alg {
        Alg::ES256 => P256,
        _ => RSA,
    })
    .unwrap();
    let claims = Claims::from_grant(grant, &key, now, [0xab; JTI_BYTES]);
    // What the keystore signs is what its charter permits: nothing that comes out is beyond it.
    let kind = charter.purpose.kind();
    assert_eq!(charter.permits(kind, claims.wire(), &key, now), Ok(()));
    assert!(charter.check().is_ok());
    // Where it is to be named, a key without one signs nothing.
    let certificate: Certificate = serde_json::from_str(CERTIFICATE).unwrap();
    let header = Header::of(&charter, &key.kid(), Some(&certificate));
    let input = SigningInput::new(&header, claims.wire());
    let text = std::str::from_utf8(input.as_bytes()).unwrap();
    let (header, payload) = text.split_once('.').unwrap();
    let decode = |part| String::from_utf8(BASE64URL.decode(part).unwrap()).unwrap();
    (decode(header), decode(payload))
}

fn minted(issuers: &str, golden: &Golden, lifetime: Option<u32>) -> (String, String) {
    let config = configured(issuers, golden);
    granted(
        config.unwrap_or_else(|| panic!("{}", golden.profile)),
        lifetime,
    )
}

#[test]
fn every_profile_is_golden() {
    let File { issuers, golden } = file();
    let mut missing = Row::names();
    for golden in &golden {
        missing.retain(|name| *name != golden.profile);
        let (header, payload) = minted(&issuers, golden, None);
        assert_eq!(header, golden.header, "{}", golden.profile);
        assert_eq!(payload, golden.payload, "{}", golden.profile);
    }
    assert!(missing.is_empty(), "no golden vector for {missing:?}");
}

#[test]
fn a_request_shortens_a_life_and_changes_nothing_else() {
    let File { issuers, golden } = file();
    for golden in &golden {
        let long = minted(&issuers, golden, None);
        assert_eq!(minted(&issuers, golden, Some(u32::MAX)), long);
        let (header, payload) = minted(&issuers, golden, Some(7));
        assert_eq!(header, long.0);
        let ends = |text: &str| text.rsplit_once(r#","exp":"#).unwrap().1 == "1800000007}";
        assert!(
            ends(&payload) && !ends(&long.1),
            "{}: {payload}",
            golden.profile
        );
        let before = |text: &str| text.rsplit_once(r#","exp":"#).unwrap().0.to_owned();
        assert_eq!(before(&payload), before(&long.1));
    }
}
