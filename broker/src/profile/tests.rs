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
