//! What never comes out, whatever the configuration or the request says: a float for a time, a list
//! for an audience, a long life, another `typ`, a member of header or claims that the profile does
//! not have, an audience or a subject that no operator wrote. Over all profiles, with values of
//! which many are hostile, and against a table that is written here from the standards and not from
//! the rows.

use super::*;
use crate::profile::{Key, Row, Takes};
use proptest::prelude::*;
use proptest::test_runner::{Config as Cases, TestRunner};
use serde_json::{Map, Value};
use std::cell::Cell;
use std::collections::BTreeSet;

/// What a profile's assertions have, and nothing else.
struct Shape {
    profile: &'static str,
    typ: &'static str,
    header: &'static [&'static str],
    claims: &'static [&'static str],
    /// Longest `exp − iat` in seconds.
    life_s: u64,
    /// How long before now `iat` lies, in seconds.
    back_s: u64,
}

/// RFC 7523bis, and each vendor's documents (docs/profiles.md). `x5t#S256` is a member of no
/// header: it comes with the certificates of entra-cert, whose shape demands it then.
const SHAPES: [Shape; 16] = [
    client("rfc7523", "client-authentication+jwt"),
    client("fapi2", "client-authentication+jwt"),
    client("keycloak", "client-authentication+jwt"),
    client("okta", "JWT"),
    client("auth0", "JWT"),
    federation("aws-oidc"),
    federation("entra-fic"),
    federation("gcp-wif"),
    federation("vault-jwt"),
    federation("jwt-svid"),
    federation("k8s-structured-auth"),
    federation("databricks-fed"),
    account(
        "snowflake",
        &["alg", "typ"],
        &["iss", "sub", "iat", "exp"],
        3600,
    ),
    Shape {
        back_s: 60,
        ..account("github-app", &["alg", "typ"], &["iss", "iat", "exp"], 600)
    },
    account(
        "google-sa-jwt",
        KID,
        &["iss", "sub", "aud", "iat", "exp"],
        3600,
    ),
    account(
        "salesforce-jwt",
        &["alg", "typ"],
        &["iss", "sub", "aud", "iat", "exp"],
        180,
    ),
];

/// How many targets are tried: of the rarest profile a tenth loads, and there are sixteen.
const CASES: u32 = 2000;

const KID: &[&str] = &["alg", "typ", "kid"];
const JTI: &[&str] = &["iss", "sub", "aud", "jti", "iat", "exp"];

/// google-sa-jwt at the token endpoint.
const SCOPED: &[&str] = &["iss", "aud", "scope", "iat", "exp"];

const fn client(profile: &'static str, typ: &'static str) -> Shape {
    Shape {
        profile,
        typ,
        header: KID,
        claims: JTI,
        life_s: 300,
        back_s: 0,
    }
}

const fn federation(profile: &'static str) -> Shape {
    Shape {
        life_s: 3600,
        ..client(profile, "JWT")
    }
}

const fn account(
    profile: &'static str,
    header: &'static [&'static str],
    claims: &'static [&'static str],
    life_s: u64,
) -> Shape {
    Shape {
        header,
        claims,
        life_s,
        ..client(profile, "JWT")
    }
}

/// A value for a key of a target: one that the vendor takes, or whatever somebody might write.
fn value(key: Key) -> BoxedStrategy<String> {
    let good: &'static [&'static str] = match key {
        Key::AuthorizationServer => &["https://as.example/", "https://login.salesforce.com/"],
        Key::TokenEndpoint => &["https://example.okta.com/oauth2/v1/token"],
        Key::ClientId => &["payments-prod", "0oa1"],
        Key::Account => &["ACME-PROD"],
        Key::User => &["PAYMENTS", "PAYMENTS@ACME.EXAMPLE"],
        Key::ServiceAccount => &["payments@acme.iam.gserviceaccount.com"],
        Key::Subject => &["payments", "spiffe://example.org/payments"],
        Key::Audience => &["sts.amazonaws.com", "https://storage.googleapis.com/"],
        Key::Scope => &["https://www.googleapis.com/auth/bigquery", "a b"],
        Key::Kid => &["370ab79b"],
    };
    let hostile = prop::sample::select(vec![
        r#"x","aud":"https://evil.example"#,
        r#"["https://a.example","https://b.example"]"#,
        "1.5e3",
        "\u{202e}gro.elpmaxe",
        "*",
        "",
        "https://evil.example/\\",
    ]);
    prop_oneof![
        6 => prop::sample::select(good).prop_map(str::to_owned),
        1 => hostile.prop_map(str::to_owned),
        1 => "\\PC{1,40}",
        1 => "[a-z]{200,1100}",
    ]
    .boxed()
}

/// A profile, what a target of it says, the lifetime that it says, and the one that is asked for.
type Asked = (&'static Row, Vec<(Key, String)>, Option<u32>, Option<u32>);

/// A target of any profile with any values, and what is asked of it.
fn any_target() -> impl Strategy<Value = Asked> {
    let row = prop::sample::select(crate::profile::ROWS.iter().collect::<Vec<_>>());
    let seconds = || {
        prop::option::of(prop_oneof![
            3 => 1u32..600,
            1 => prop::sample::select(vec![0, 540, 541, 3600, 3601, 86_400, u32::MAX]),
        ])
    };
    // Built once: a strategy of each case's own would be most of the work.
    let values = Key::ALL.map(|key| (value(key), 0.0..1.0f64));
    (row, seconds(), seconds(), values).prop_map(|(row, written, asked, values)| {
        let keys = Key::ALL.into_iter().zip(values);
        let written_keys = keys.filter(|(key, (_, luck))| match row.takes(*key) {
            Takes::Needs => *luck < 0.99,
            Takes::May => *luck < 0.5,
            Takes::Not => *luck < 0.01,
        });
        let keys = written_keys.map(|(key, (value, _))| (key, value)).collect();
        // Of no seconds at all a request is refused before anything is decided (http::parse).
        (row, keys, written, asked.map(|seconds| seconds.max(1)))
    })
}

const ISSUERS: &str = r#"
[issuer.RS256]
url = "https://id.example.com/rs"
trust_domain = "example.org"
subjects = ["p*", "spiffe://example.org/*", "[*", "x*", "a*"]
keystore = "hsm"
alg = "RS256"
"#;

/// Header and claims of a target of these values; none if the loader refuses them.
fn comes_out(
    row: &Row,
    keys: &[(Key, String)],
    written: Option<u32>,
    asked: Option<u32>,
) -> Option<(String, String)> {
    let text = |value: &str| Value::from(value).to_string().replace('\u{7f}', "\\u007f");
    let mut target: String = keys
        .iter()
        .map(|(key, value)| format!("{} = {}\n", key.as_str(), text(value)))
        .collect();
    if row.purpose == keystore::charter::PurposeKind::Federation {
        target += "issuer = \"RS256\"\n";
    } else if row.algs.contains(&Alg::ES256) && row.algs.contains(&Alg::RS256) {
        target += "alg = \"RS256\"\n";
    }
    if let Some(seconds) = written {
        target += &format!("lifetime = {seconds}\n");
    }
    let golden = Golden {
        profile: row.name.to_owned(),
        target,
        header: String::new(),
        payload: String::new(),
    };
    let config = configured(ISSUERS, &golden)?;
    Some(granted(config, asked))
}

/// The members of a JSON object of which no text was lost in reading: no member twice, no blank,
/// and each number as it stands there.
fn members(json: &str) -> Map<String, Value> {
    let value: Value = serde_json::from_str(json).unwrap();
    assert_eq!(value.to_string().len(), json.len(), "{json}");
    value.as_object().unwrap().clone()
}

#[test]
fn nothing_but_its_profiles_shape_comes_out_of_any_target() {
    let (out, refused) = (Cell::new(0), Cell::new(0));
    let seen = std::cell::RefCell::new(BTreeSet::new());
    let mut runner = TestRunner::new(Cases {
        cases: CASES,
        failure_persistence: None,
        ..Cases::default()
    });
    let verdict = runner.run(&any_target(), |(row, keys, written, asked)| {
        let Some((header, payload)) = comes_out(row, &keys, written, asked) else {
            refused.set(refused.get() + 1);
            return Ok(());
        };
        out.set(out.get() + 1);
        seen.borrow_mut().insert(row.name);
        holds(row.name, &keys, written, asked, &header, &payload)
    });
    verdict.unwrap();
    // A test that refuses everything would hold too.
    assert!(
        out.get() > 200 && refused.get() > 200,
        "{out:?} {refused:?}"
    );
    assert_eq!(seen.borrow().len(), SHAPES.len(), "{seen:?}");
}

fn holds(
    profile: &str,
    keys: &[(Key, String)],
    written: Option<u32>,
    asked: Option<u32>,
    header: &str,
    payload: &str,
) -> Result<(), TestCaseError> {
    let shape = SHAPES
        .iter()
        .find(|shape| shape.profile == profile)
        .unwrap();
    let (header, claims) = (members(header), members(payload));
    let of = |key: Key| {
        keys.iter()
            .find(|(it, _)| *it == key)
            .map(|(_, value)| value.as_str())
    };
    let names = |map: &Map<String, Value>| map.keys().cloned().collect::<BTreeSet<_>>();
    let set = |names: &[&str]| {
        names
            .iter()
            .map(|it| (*it).to_owned())
            .collect::<BTreeSet<_>>()
    };

    prop_assert_eq!(names(&header), set(shape.header));
    prop_assert_eq!(header["typ"].as_str(), Some(shape.typ));
    let has = match of(Key::Scope) {
        Some(_) => SCOPED,
        None => shape.claims,
    };
    prop_assert_eq!(names(&claims), set(has));

    let now = 1_800_000_000;
    let (iat, exp) = (claims["iat"].as_u64(), claims["exp"].as_u64());
    let (Some(iat), Some(exp)) = (iat, exp) else {
        return Err(TestCaseError::fail("a time is no integer"));
    };
    prop_assert_eq!(iat, now - shape.back_s);
    prop_assert!(exp > now && exp - iat <= shape.life_s, "{} s", exp - iat);
    for most in [written, asked].into_iter().flatten() {
        prop_assert!(exp - now <= u64::from(most), "{} s, not {most}", exp - now);
    }

    let operators: Vec<&str> = keys.iter().map(|(_, value)| value.as_str()).collect();
    let constants = [
        "api://AzureADTokenExchange",
        "https://oauth2.googleapis.com/token",
    ];
    for name in ["sub", "aud", "scope"] {
        let Some(value) = claims.get(name) else {
            continue;
        };
        let Some(value) = value.as_str() else {
            return Err(TestCaseError::fail(format!("{name} is no text")));
        };
        let account = format!(
            "{}.{}",
            of(Key::Account).unwrap_or_default(),
            of(Key::User).unwrap_or_default()
        );
        let is_operators = operators.contains(&value) || value == account;
        let is_constant =
            name == "aud" && of(Key::Audience).is_none() && constants.contains(&value);
        prop_assert!(is_operators || is_constant, "{name} {value}");
    }
    Ok(())
}

#[test]
fn every_row_has_its_shape() {
    let shapes: Vec<&str> = SHAPES.iter().map(|shape| shape.profile).collect();
    assert_eq!(shapes, Row::names());
}
