//! What never comes out, whatever the configuration or the request says: a float for a time, a list
//! for an audience, a long life, another `typ`, a member of header or claims that the profile does
//! not have, a value that belongs to another member, an algorithm that the vendor does not take. Over
//! all profiles, as they are shipped and as an operator narrows them, with values of which many are
//! hostile, and against a table that is written here from the standards and not from the rows.

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
    algs: &'static [&'static str],
    header: &'static [&'static str],
    claims: &'static [&'static str],
    /// Longest `exp − iat` in seconds.
    life_s: u64,
    /// How long before now `iat` lies, in seconds.
    back_s: u64,
}

/// RFC 7523bis, and each vendor's documents (docs/profiles.md). `x5t#S256` is a member of no
/// header but entra-cert's, which has to have it.
const SHAPES: [Shape; 17] = [
    client("rfc7523", "client-authentication+jwt", ANY),
    client(
        "fapi2",
        "client-authentication+jwt",
        &["PS256", "ES256", "EdDSA"],
    ),
    client("keycloak", "client-authentication+jwt", ANY),
    client("okta", "JWT", &["RS256", "ES256", "ES384"]),
    client("auth0", "JWT", &["RS256", "PS256"]),
    Shape {
        header: &["alg", "typ", "x5t#S256"],
        claims: &["iss", "sub", "aud", "jti", "iat", "nbf", "exp"],
        ..client("entra-cert", "JWT", &["PS256"])
    },
    federation("aws-oidc", &["RS256", "ES256", "ES384"]),
    federation("entra-fic", &["RS256"]),
    federation("gcp-wif", &["RS256", "ES256"]),
    federation("vault-jwt", ANY),
    federation("jwt-svid", &["RS256", "ES256", "ES384", "PS256"]),
    federation("k8s-structured-auth", &["RS256", "ES256", "ES384", "PS256"]),
    federation("databricks-fed", &["RS256", "ES256"]),
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

/// How many targets are tried: of the rarest profile a tenth loads, half of them narrowed, and there
/// are seventeen.
const CASES: u32 = 4000;

const ANY: &[&str] = &["ES256", "ES384", "PS256", "RS256", "EdDSA"];

const KID: &[&str] = &["alg", "typ", "kid"];
const JTI: &[&str] = &["iss", "sub", "aud", "jti", "iat", "exp"];

/// google-sa-jwt at the token endpoint.
const SCOPED: &[&str] = &["iss", "aud", "scope", "iat", "exp"];

const fn client(profile: &'static str, typ: &'static str, algs: &'static [&'static str]) -> Shape {
    Shape {
        profile,
        typ,
        algs,
        header: KID,
        claims: JTI,
        life_s: 300,
        back_s: 0,
    }
}

const fn federation(profile: &'static str, algs: &'static [&'static str]) -> Shape {
    Shape {
        life_s: 3600,
        ..client(profile, "JWT", algs)
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
        ..client(profile, "JWT", &["RS256"])
    }
}

/// A value for a key of a target: one that the vendor takes, or whatever somebody might write.
fn value(key: Key) -> BoxedStrategy<String> {
    let good: &'static [&'static str] = match key {
        Key::AuthorizationServer => &["https://as.example/", "https://login.salesforce.com/"],
        Key::TokenEndpoint => &[
            "https://example.okta.com/oauth2/v1/token",
            "https://login.microsoftonline.com/7e4a/oauth2/v2.0/token",
            "https://login.microsoftonline.us/7e4a/oauth2/v2.0/token",
        ],
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
        1 => "\\PC{1,20}",
        1 => ("[a-z]", 200usize..1100).prop_map(|(letter, count)| letter.repeat(count)),
    ]
    .boxed()
}

/// A target of a profile, what is asked of it, and what stands around it in the configuration.
#[derive(Clone, Debug)]
struct Asked {
    row: &'static Row,
    keys: Vec<(Key, String)>,
    alg: Option<&'static str>,
    lifetime: Option<u32>,
    requested: Option<u32>,
    own: Option<Own>,
    issuer_url: &'static str,
    issuer_alg: &'static str,
}

/// What an operator has made of the profile.
#[derive(Clone, Debug)]
struct Own {
    lifetime_max: Option<u32>,
    lifetime: Option<u32>,
    algs: Option<Vec<&'static str>>,
    audience: Option<String>,
}

fn any_seconds() -> impl Strategy<Value = Option<u32>> {
    prop::option::of(prop_oneof![
        3 => 1u32..600,
        1 => prop::sample::select(vec![0, 540, 541, 3600, 3601, 86_400, u32::MAX]),
    ])
}

/// RS256 more often than not: everybody takes it.
fn any_alg() -> impl Strategy<Value = &'static str> {
    prop_oneof![3 => Just("RS256"), 1 => prop::sample::select(ANY)]
}

fn any_own() -> impl Strategy<Value = Own> {
    let algs = prop::option::weighted(0.3, prop::collection::vec(any_alg(), 0..3));
    let audience = prop::option::weighted(0.3, value(Key::Audience));
    (any_seconds(), any_seconds(), algs, audience).prop_map(
        |(lifetime_max, lifetime, algs, audience)| Own {
            lifetime_max,
            lifetime: lifetime.filter(|seconds| seconds % 3 == 0),
            algs,
            audience,
        },
    )
}

/// A target of any profile with any values, and what is asked of it.
fn any_target() -> impl Strategy<Value = Asked> {
    let row = prop::sample::select(crate::profile::ROWS.iter().collect::<Vec<_>>());
    let times = (any_seconds(), any_seconds());
    let algs = (prop::option::weighted(0.7, any_alg()), any_alg());
    let issuer_url = prop_oneof![
        9 => Just("https://id.example.com/rs"),
        1 => prop::sample::select(vec![
            "https://id.example.com:8443/rs",
            "https://id.example.com/\",\"sub\":\"root",
            "http://id.example.com",
        ]),
    ];
    // Built once: a strategy of each case's own would be most of the work.
    let values = Key::ALL.map(|key| (value(key), 0.0..1.0f64));
    let own = prop::option::of(any_own());
    (row, times, algs, issuer_url, own, values).prop_map(
        |(row, (lifetime, requested), (alg, issuer_alg), issuer_url, own, values)| {
            let is_fixed = own.as_ref().is_some_and(|own| own.audience.is_some());
            let keys = Key::ALL.into_iter().zip(values);
            let keys = keys.filter(|(key, (_, luck))| match row.takes(*key) {
                Takes::Needs | Takes::May if *key == Key::Audience && is_fixed => *luck < 0.1,
                Takes::Needs => *luck < 0.99,
                Takes::May => *luck < 0.5,
                Takes::Not => *luck < 0.01,
            });
            Asked {
                row,
                keys: keys.map(|(key, (value, _))| (key, value)).collect(),
                alg,
                lifetime,
                // Of no seconds at all a request is refused before anything is decided (http::parse).
                requested: requested.map(|seconds| seconds.max(1)),
                own,
                issuer_url,
                issuer_alg,
            }
        },
    )
}

/// As TOML writes a text.
fn text(value: &str) -> String {
    Value::from(value).to_string().replace('\u{7f}', "\\u007f")
}

/// The sections that stand around the target.
fn around(asked: &Asked) -> String {
    let Asked {
        issuer_url: url,
        issuer_alg: alg,
        ..
    } = asked;
    let mut sections = format!(
        "[issuer.prod]\nurl = {}\ntrust_domain = \"example.org\"\nkeystore = \"hsm\"\nalg = \"{alg}\"\n\
         subjects = [\"p*\", \"spiffe://example.org/*\", \"[*\", \"x*\", \"a*\"]\n",
        text(url)
    );
    let Some(own) = &asked.own else {
        return sections;
    };
    sections += &format!("[profile.own]\nextends = \"{}\"\n", asked.row.name);
    for (key, seconds) in [
        ("lifetime_max", own.lifetime_max),
        ("lifetime", own.lifetime),
    ] {
        if let Some(seconds) = seconds {
            sections += &format!("{key} = {seconds}\n");
        }
    }
    if let Some(algs) = &own.algs {
        sections += &format!("algs = {algs:?}\n");
    }
    if let Some(audience) = &own.audience {
        sections += &format!("audience = {}\n", text(audience));
    }
    sections
}

/// Header and claims of a target of these values; none if the loader refuses them.
fn comes_out(asked: &Asked) -> Option<(String, String)> {
    let mut target: String = asked
        .keys
        .iter()
        .map(|(key, value)| format!("{} = {}\n", key.as_str(), text(value)))
        .collect();
    if asked.row.purpose == keystore::charter::PurposeKind::Federation {
        target += "issuer = \"prod\"\n";
    } else if let Some(alg) = asked.alg {
        target += &format!("alg = \"{alg}\"\n");
    }
    if let Some(seconds) = asked.lifetime {
        target += &format!("lifetime = {seconds}\n");
    }
    let golden = Golden {
        profile: match asked.own {
            None => asked.row.name.to_owned(),
            Some(_) => "own".to_owned(),
        },
        target,
        header: String::new(),
        payload: String::new(),
    };
    let config = configured(&around(asked), &golden)?;
    Some(granted(config, asked.requested))
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
    let seen = std::cell::RefCell::new([BTreeSet::new(), BTreeSet::new()]);
    let mut runner = TestRunner::new(Cases {
        cases: CASES,
        failure_persistence: None,
        ..Cases::default()
    });
    let verdict = runner.run(&any_target(), |asked| {
        let Some((header, payload)) = comes_out(&asked) else {
            refused.set(refused.get() + 1);
            return Ok(());
        };
        out.set(out.get() + 1);
        seen.borrow_mut()[usize::from(asked.own.is_some())].insert(asked.row.name);
        holds(&asked, &header, &payload)
    });
    verdict.unwrap();
    // A test that refuses everything would hold too.
    assert!(
        out.get() > 200 && refused.get() > 200,
        "{out:?} {refused:?}"
    );
    let [shipped, own] = seen.into_inner();
    assert_eq!(shipped.len(), SHAPES.len(), "{shipped:?}");
    assert!(own.len() > SHAPES.len() / 2, "{own:?}");
}

/// What the claims say, by the standards, of what an operator wrote.
fn said(asked: &Asked) -> [(&'static str, Option<String>); 4] {
    let of = |wanted: Key| {
        let found = asked.keys.iter().find(|(key, _)| *key == wanted);
        found.map(|(_, value)| value.clone())
    };
    let fixed = asked.own.as_ref().and_then(|own| own.audience.clone());
    let audience = fixed.or_else(|| of(Key::Audience));
    let client = of(Key::ClientId);
    let account = || {
        let (account, user) = (of(Key::Account).unwrap(), of(Key::User).unwrap());
        format!("{account}.{user}")
    };
    // The fingerprint of the key, as openssl computes it.
    let signed =
        |account: String| format!("{account}.SHA256:rTIyDPbFltiEsFOBulc6uo3dV0m03o9KI6efmondrrI=");
    let (iss, sub, aud) = match asked.row.name {
        "rfc7523" | "fapi2" | "keycloak" | "auth0" => {
            (client.clone(), client, of(Key::AuthorizationServer))
        }
        "okta" | "entra-cert" => (client.clone(), client, of(Key::TokenEndpoint)),
        "snowflake" => (Some(signed(account())), Some(account()), None),
        "github-app" => (client, None, None),
        "salesforce-jwt" => (client, of(Key::User), of(Key::AuthorizationServer)),
        "google-sa-jwt" if of(Key::Scope).is_some() => {
            let endpoint = "https://oauth2.googleapis.com/token".to_owned();
            (of(Key::ServiceAccount), None, Some(endpoint))
        }
        "google-sa-jwt" => (of(Key::ServiceAccount), of(Key::ServiceAccount), audience),
        profile => {
            let entra = (profile == "entra-fic").then(|| "api://AzureADTokenExchange".to_owned());
            let issuer = Some(asked.issuer_url.to_owned());
            (issuer, of(Key::Subject), audience.or(entra))
        }
    };
    [
        ("iss", iss),
        ("sub", sub),
        ("aud", aud),
        ("scope", of(Key::Scope)),
    ]
}

fn holds(asked: &Asked, header: &str, payload: &str) -> Result<(), TestCaseError> {
    let mut shapes = SHAPES.iter();
    let shape = shapes.find(|it| it.profile == asked.row.name).unwrap();
    let (header, claims) = (members(header), members(payload));
    let names = |map: &Map<String, Value>| map.keys().cloned().collect::<BTreeSet<_>>();
    let set = |names: &[&str]| {
        names
            .iter()
            .map(|it| (*it).to_owned())
            .collect::<BTreeSet<_>>()
    };

    prop_assert_eq!(names(&header), set(shape.header));
    prop_assert_eq!(header["typ"].as_str(), Some(shape.typ));
    let alg = header["alg"].as_str().unwrap_or_default();
    prop_assert!(shape.algs.contains(&alg), "{alg}");
    let has_scope = asked.keys.iter().any(|(key, _)| *key == Key::Scope);
    let has = match has_scope {
        true => SCOPED,
        false => shape.claims,
    };
    prop_assert_eq!(names(&claims), set(has));

    let now = 1_800_000_000;
    let (iat, exp) = (claims["iat"].as_u64(), claims["exp"].as_u64());
    let (Some(iat), Some(exp)) = (iat, exp) else {
        return Err(TestCaseError::fail("a time is no integer"));
    };
    prop_assert_eq!(iat, now - shape.back_s);
    if let Some(nbf) = claims.get("nbf") {
        prop_assert_eq!(nbf.as_u64(), Some(iat));
    }
    if let Some(x5t) = header.get("x5t#S256") {
        // SHA-256 of the one byte that the certificate consists of here.
        prop_assert_eq!(
            x5t.as_str(),
            Some("bjQLnP-zepicpUTmu3gKLHiQHT-zNzh2hRGjBhevoB0")
        );
    }
    prop_assert!(exp > now && exp - iat <= shape.life_s, "{} s", exp - iat);
    for most in [asked.lifetime, asked.requested].into_iter().flatten() {
        prop_assert!(exp - now <= u64::from(most), "{} s, not {most}", exp - now);
    }
    if let Some(own) = &asked.own {
        let most = own.lifetime_max.unwrap_or(u32::MAX);
        prop_assert!(exp - now <= u64::from(most), "{} s, not {most}", exp - now);
        let algs = own.algs.as_deref().unwrap_or(ANY);
        prop_assert!(algs.contains(&alg), "{alg} is not among {algs:?}");
    }
    for (name, value) in said(asked) {
        let value = value.map(Value::from);
        prop_assert_eq!(claims.get(name), value.as_ref(), "{}", name);
    }
    Ok(())
}

#[test]
fn every_row_has_its_shape() {
    let shapes: Vec<&str> = SHAPES.iter().map(|shape| shape.profile).collect();
    assert_eq!(shapes, Row::names());
}
