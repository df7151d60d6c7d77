//! What holds for every row.

use super::*;

#[test]
fn every_row_is_sound() {
    for row in &ROWS {
        let name = row.name;
        assert_eq!(Row::named(name), Some(row));
        assert_eq!(Row::names().iter().filter(|it| **it == name).count(), 1);
        assert!(!row.algs.is_empty(), "{name}");
        assert!(row.lifetime_default_s > 0, "{name}");
        assert!(row.lifetime_default_s <= row.lifetime_max_s, "{name}");
        for text in [row.party, row.registration, row.source, row.tested] {
            assert!(!text.is_empty(), "{name}");
            assert!(
                !text.contains("  ") && !text.contains('\n'),
                "{name}: {text}"
            );
        }
        for (of, _) in row.rules {
            if let Of::Key(key) = of {
                assert_ne!(row.takes(*key), Takes::Not, "{name}: a rule of nothing");
            }
        }
    }
}

#[test]
fn client_assertions_live_five_minutes_at_most() {
    let client = |row: &&Row| row.purpose == PurposeKind::ClientAuthentication;
    assert!(ROWS.iter().filter(client).count() > 3);
    for row in ROWS.iter().filter(client) {
        assert!(row.lifetime_max_s <= 300, "{}", row.name);
    }
}

#[test]
fn a_vendors_rule_is_held_to_the_character() {
    let https = |value| Rule::HttpsUrl.check(value, None).is_ok();
    assert!(https("https://as.example") && https("https://as.example/a/b"));
    for bad in [
        "http://as.example",
        "https://",
        "https:///a",
        "https://a?b",
        "https://a#b",
        "as",
    ] {
        assert!(!https(bad), "{bad}");
    }
    let origin = |value| Rule::HttpsOrigin.check(value, None).is_ok();
    assert!(origin("https://tenant.eu.auth0.com/"));
    for bad in [
        "https://tenant.auth0.com",
        "https://tenant.auth0.com/x",
        "http://a/",
        "https://a//",
    ] {
        assert!(!origin(bad), "{bad}");
    }
    let without_port = |value| Rule::NoPort.check(value, None).is_ok();
    assert!(without_port("https://id.example/a:b") && without_port("https://[::1]/"));
    assert!(!without_port("https://id.example:8443/") && !without_port("https://[::1]:8443"));
    assert!(Rule::Chars(3).check("äöü", None).is_ok());
    assert!(Rule::Chars(3).check("abcd", None).is_err());
    assert!(Rule::Bytes(3).check("äö", None).is_err());
    let spiffe = |value| Rule::SpiffeId.check(value, Some("example.org"));
    assert!(spiffe("spiffe://example.org/payments").is_ok());
    assert!(spiffe("spiffe://example.com/payments").is_err());
    assert!(spiffe("payments").is_err());
    assert!(
        Rule::SpiffeId
            .check("spiffe://example.org/payments", None)
            .is_err()
    );
}

#[test]
fn what_a_vendor_takes_is_taken_and_one_character_more_is_not() {
    for (rule, good, bad) in [
        (Rule::Chars(3), &["", "abc"][..], &["abcd"][..]),
        (Rule::Bytes(3), &["", "abc", "aö"], &["abcd"]),
        (
            Rule::SnowflakeAccount,
            &["ACME-PROD_1"],
            &["acme", "ACME.PROD", "ÄCME"],
        ),
        (Rule::UpperCase, &["PAY_1.ÄÖ", "1"], &["pAY", "PAYä"]),
        (
            Rule::ServiceAccount,
            &["pay@acme.iam.gserviceaccount.com"],
            &[
                "pay",
                "@acme.iam.gserviceaccount.com",
                "pay@acme.example",
                "a@b@acme.iam.gserviceaccount.com",
            ],
        ),
        (
            Rule::Scope,
            &["read", "read write:all https://api.example/x!"],
            &["", " ", "a  b", " a", "a\"b", "a\\b", "a\tb", "ä"],
        ),
        (
            Rule::EntraTokenEndpoint,
            &[
                "https://login.microsoftonline.com/7e4a/oauth2/v2.0/token",
                "https://login.partner.microsoftonline.cn/contoso.cn/oauth2/v2.0/token",
            ],
            &[
                "",
                "https://login.microsoftonline.com/common/oauth2/v2.0/token",
                "https://login.microsoftonline.com/organizations/oauth2/v2.0/token",
                "https://login.microsoftonline.com/7e4a/oauth2/token",
                "https://login.microsoftonline.com/7e4a/oauth2/v2.0/token/",
                "https://login.microsoftonline.com/7e4a/oauth2/v2.0/token?x",
                "https://login.microsoftonline.com//oauth2/v2.0/token",
                "https://login.microsoftonline.com/a/7e4a/oauth2/v2.0/token",
                "https:///7e4a/oauth2/v2.0/token",
                "http://login.microsoftonline.com/7e4a/oauth2/v2.0/token",
            ],
        ),
        (Rule::AudienceOrScope, &["anything"], &[]),
    ] {
        for value in good {
            assert_eq!(rule.check(value, None), Ok(()), "{rule:?}: {value}");
        }
        for value in bad {
            assert!(rule.check(value, None).is_err(), "{rule:?}: {value}");
        }
    }
    let either = |keys: &[Key]| Rule::AudienceOrScope.check_target(|key| keys.contains(&key));
    assert!(either(&[Key::Audience]).is_ok() && either(&[Key::Scope, Key::Kid]).is_ok());
    assert!(either(&[]).is_err() && either(&[Key::Audience, Key::Scope]).is_err());
    assert_eq!(Rule::NoPort.check_target(|_| false), Ok(()));
}

#[test]
fn a_row_takes_the_keys_that_it_makes_claims_of_and_no_others() {
    use Key::*;
    let expected: [(&str, &[Key], &[Key]); 7] = [
        ("rfc7523", &[AuthorizationServer, ClientId], &[]),
        ("okta", &[TokenEndpoint, ClientId], &[]),
        ("entra-cert", &[TokenEndpoint, ClientId], &[]),
        ("auth0", &[AuthorizationServer, ClientId], &[Kid]),
        ("entra-fic", &[Subject], &[Audience]),
        ("snowflake", &[Account, User], &[]),
        ("google-sa-jwt", &[ServiceAccount], &[Audience, Scope, Kid]),
    ];
    for (name, needs, may) in expected {
        let row = Row::named(name).unwrap();
        let takes = |wanted: Takes| -> Vec<Key> {
            let keys = Key::ALL.into_iter();
            keys.filter(|key| row.takes(*key) == wanted).collect()
        };
        assert_eq!(takes(Takes::Needs), needs, "{name}");
        assert_eq!(takes(Takes::May), may, "{name}");
        assert_eq!(
            takes(Takes::Not).len() + needs.len() + may.len(),
            Key::ALL.len()
        );
    }
}

#[test]
fn a_profile_with_an_audience_of_its_own_takes_no_other() {
    let row = Row::named("aws-oidc").unwrap();
    let plain = Profile::of(row);
    assert_eq!(plain.takes(Key::Audience), Takes::Needs);
    assert_eq!((plain.row, plain.algs.as_slice()), (row, row.algs));
    let narrowed = Profile {
        audience: Some("sts.amazonaws.com".into()),
        ..Arc::into_inner(plain).unwrap()
    };
    assert_eq!(narrowed.takes(Key::Audience), Takes::Not);
    assert_eq!(narrowed.takes(Key::Subject), Takes::Needs);
}

#[test]
fn every_row_is_explained_and_none_that_is_not_there() {
    let document = include_str!("../../../docs/profiles.md");
    let sections = document
        .lines()
        .filter_map(|line| line.strip_prefix("### "));
    assert_eq!(sections.collect::<Vec<_>>(), Row::names());
    for row in &ROWS {
        let algs: Vec<&str> = row.algs.iter().map(|alg| alg.name()).collect();
        let (default, most) = (row.lifetime_default_s, row.lifetime_max_s);
        let cells = format!("| {} | {default}, {most} |", algs.join(" "));
        let line = document
            .lines()
            .find(|line| line.starts_with(&format!("| [{}]", row.name)));
        assert!(line.unwrap().ends_with(&cells), "{}: {cells}", row.name);
    }
}
