//! Each test takes claims the charter permits and moves one thing.

use super::*;
use crate::claims::JTI_LEN;
use crate::jws::{ASSERTION_LEN_MAX, Header, SigningInput};
use proptest::prelude::*;

const NOW: u64 = 1_800_000_000;

fn now() -> Time {
    Time::from_unix_s(NOW)
}

/// RFC 7638 §3.1.
fn key() -> PublicKey {
    let jwk = r#"{"kty":"RSA","n":"0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw","e":"AQAB"}"#;
    serde_json::from_str(jwk).unwrap()
}

/// Snowflake's, backdated as if it were GitHub's too.
fn account() -> Charter {
    Charter {
        purpose: Purpose::Account {
            iss: AccountIss::WithFingerprint("ACME-PROD.PAYMENTS".into()),
            sub: Some("ACME-PROD.PAYMENTS".into()),
            aud: None,
            scope: None,
        },
        alg: Alg::RS256,
        typ: Typ::Jwt,
        kid: KidMember::Absent,
        lifetime_max_s: 300,
        backdate_s: 60,
        certificate: CertificateUse::None,
    }
}

fn of_account() -> Claims {
    Claims {
        iss: format!("ACME-PROD.PAYMENTS.SHA256:{}", key().fingerprint()),
        sub: Some("ACME-PROD.PAYMENTS".into()),
        aud: None,
        scope: None,
        jti: None,
        iat: NOW - 60,
        nbf: None,
        exp: NOW + 300,
    }
}

fn account_verdict(change: impl FnOnce(&mut Claims)) -> Result<(), Refusal> {
    let mut claims = of_account();
    change(&mut claims);
    account().permits(PurposeKind::Account, &claims, &key(), now())
}

fn client() -> Charter {
    Charter {
        purpose: Purpose::ClientAuthentication {
            iss: "payments-prod".into(),
            sub: "payments-prod".into(),
            aud: "https://as.example".into(),
        },
        alg: Alg::ES256,
        typ: Typ::ClientAuthentication,
        kid: KidMember::Thumbprint,
        lifetime_max_s: 60,
        backdate_s: 0,
        certificate: CertificateUse::None,
    }
}

fn issuer(subjects: &[&str]) -> Charter {
    Charter {
        purpose: Purpose::Federation {
            iss: "https://id.example".into(),
            subjects: subjects
                .iter()
                .map(|text| SubjectPattern::try_from((*text).to_owned()).unwrap())
                .collect(),
        },
        alg: Alg::RS256,
        typ: Typ::Jwt,
        kid: KidMember::Thumbprint,
        lifetime_max_s: 600,
        backdate_s: 0,
        certificate: CertificateUse::None,
    }
}

fn permitted() -> Claims {
    Claims {
        iss: "payments-prod".into(),
        sub: Some("payments-prod".into()),
        aud: Some("https://as.example".into()),
        scope: None,
        jti: Some("A".repeat(JTI_LEN)),
        iat: NOW,
        nbf: None,
        exp: NOW + 60,
    }
}

fn client_verdict(change: impl FnOnce(&mut Claims)) -> Result<(), Refusal> {
    let mut claims = permitted();
    change(&mut claims);
    client().permits(PurposeKind::ClientAuthentication, &claims, &key(), now())
}

#[test]
fn claims_within_the_charter_are_permitted() {
    assert_eq!(client_verdict(|_| ()), Ok(()));
}

#[test]
fn another_audience_is_refused_however_close() {
    for aud in [
        "https://as.example/",
        "https://AS.example",
        "https://as.exampl",
        "https://as.example\u{0430}",
        "https://other.example",
    ] {
        let verdict = client_verdict(|claims| claims.aud = Some(aud.into()));
        assert_eq!(
            verdict,
            Err(Refusal::Claim {
                claim: "aud",
                asked: aud.into()
            }),
            "{aud}"
        );
    }
    assert_eq!(
        client_verdict(|claims| claims.aud = Some(String::new())),
        Err(Refusal::Malformed { claim: "aud" })
    );
}

#[test]
fn another_issuer_or_subject_is_refused() {
    assert!(client_verdict(|claims| claims.iss = "other".into()).is_err());
    assert!(client_verdict(|claims| claims.sub = Some("other".into())).is_err());
}

#[test]
fn another_purpose_is_refused() {
    let verdict = client().permits(PurposeKind::Federation, &permitted(), &key(), now());
    assert!(matches!(verdict, Err(Refusal::Purpose { .. })));
}

#[test]
fn a_longer_lifetime_is_refused_by_the_second() {
    assert!(client_verdict(|claims| claims.exp = NOW + 60).is_ok());
    for exp in [NOW + 61, NOW, NOW - 1, 0, u64::MAX] {
        assert!(
            matches!(
                client_verdict(|claims| claims.exp = exp),
                Err(Refusal::Lifetime { .. })
            ),
            "{exp}"
        );
    }
}

#[test]
fn an_iat_that_is_not_now_is_refused() {
    for iat in [NOW + IAT_AHEAD_MAX_S, NOW - IAT_AGE_MAX_S] {
        assert!(
            client_verdict(|claims| (claims.iat, claims.exp) = (iat, iat + 60)).is_ok(),
            "{iat}"
        );
    }
    for iat in [NOW + IAT_AHEAD_MAX_S + 1, NOW - IAT_AGE_MAX_S - 1, 0] {
        assert!(
            matches!(
                client_verdict(|claims| (claims.iat, claims.exp) = (iat, iat + 60)),
                Err(Refusal::Clock { claim: "iat", .. })
            ),
            "{iat}"
        );
    }
}

#[test]
fn an_nbf_other_than_iat_is_refused() {
    assert!(client_verdict(|claims| claims.nbf = Some(NOW)).is_ok());
    assert!(client_verdict(|claims| claims.nbf = Some(NOW + 1)).is_err());
}

#[test]
fn a_jti_of_another_form_is_refused() {
    for jti in [
        "",
        "A",
        "AAAAAAAAAAAAAAAAAAAAA=",
        "AAAAAAAAAAAAAAAAAAAAAAA",
        "AAAAAAAAAAAAAAAAAAAAA\n",
    ] {
        assert_eq!(
            client_verdict(|claims| claims.jti = Some(jti.into())),
            Err(Refusal::Malformed { claim: "jti" })
        );
    }
}

#[test]
fn an_issuer_asserts_only_its_subjects() {
    let charter = issuer(&["payments", "reports-*"]);
    let verdict = |sub: &str| {
        let claims = Claims {
            iss: "https://id.example".into(),
            sub: Some(sub.into()),
            ..permitted()
        };
        charter.permits(PurposeKind::Federation, &claims, &key(), now())
    };
    assert!(verdict("payments").is_ok());
    assert!(verdict("reports-daily").is_ok());
    for sub in [
        "payments2",
        "payment",
        "reports-",
        "reports",
        "xreports-daily",
        "*",
    ] {
        assert!(verdict(sub).is_err(), "{sub}");
    }
}

#[test]
fn a_pattern_is_a_prefix_and_nothing_more() {
    for text in ["", "*", "a*b", "a**", "a\n"] {
        assert!(
            SubjectPattern::try_from(text.to_owned()).is_err(),
            "{text:?}"
        );
    }
}

#[test]
fn a_charter_has_a_lifetime_and_subjects() {
    assert!(client().check().is_ok());
    assert!(
        Charter {
            lifetime_max_s: 0,
            ..client()
        }
        .check()
        .is_err()
    );
    assert!(
        Charter {
            lifetime_max_s: LIFETIME_MAX_S,
            ..client()
        }
        .check()
        .is_ok()
    );
    assert!(
        Charter {
            lifetime_max_s: LIFETIME_MAX_S + 1,
            ..client()
        }
        .check()
        .is_err()
    );
    assert!(issuer(&[]).check().is_err());
}

/// Found by fuzzing: 1,024 quotation marks are 2,048 bytes of JSON, three times that is more than an
/// assertion may have, and one that is too long suspends its key.
#[test]
fn the_longest_claims_make_an_assertion_that_is_released() {
    for (mark, most) in [
        ("a", CLAIM_LEN_MAX),
        ("\"", CLAIM_LEN_MAX / 2),
        ("\\", CLAIM_LEN_MAX / 2),
    ] {
        let with = |length| {
            let text = mark.repeat(length);
            let (iss, sub, aud) = (text.clone(), text.clone(), text);
            let purpose = Purpose::ClientAuthentication { iss, sub, aud };
            Charter {
                purpose,
                ..client()
            }
        };
        assert!(with(most).check().is_ok(), "{mark}");
        assert!(with(most + 1).check().is_err(), "{mark}");
        let text = mark.repeat(most);
        let (iss, sub, aud) = (text.clone(), Some(text.clone()), Some(text));
        let nbf = Some(NOW);
        let claims = Claims {
            iss,
            sub,
            aud,
            nbf,
            ..permitted()
        };
        let verdict = with(most).permits(PurposeKind::ClientAuthentication, &claims, &key(), now());
        assert_eq!(verdict, Ok(()));
        let kid = serde_json::from_str(&format!("\"{}\"", "k".repeat(43))).unwrap();
        let input = SigningInput::new(&Header::of(&client(), &kid, None), &claims);
        let longest = input.with_signature(&[0; 8192 / 8]);
        assert!(
            longest.len() <= ASSERTION_LEN_MAX,
            "{} bytes",
            longest.len()
        );
    }
}

#[test]
fn an_unknown_purpose_is_no_charter() {
    let json = serde_json::to_string(&client()).unwrap();
    assert!(serde_json::from_str::<Charter>(&json).is_ok());
    for (old, new) in [
        ("client_authentication", "tls"),
        ("\"ES256\"", "\"none\""),
        ("client-authentication+jwt", "at+jwt"),
        ("\"lifetime_max_s\"", "\"more\":1,\"lifetime_max_s\""),
    ] {
        let changed = json.replacen(old, new, 1);
        assert_ne!(changed, json);
        assert!(
            serde_json::from_str::<Charter>(&changed).is_err(),
            "{changed}"
        );
    }
}

#[test]
fn an_account_says_what_its_charter_has_and_nothing_more() {
    assert_eq!(account_verdict(|_| ()), Ok(()));
    let missing = Err(Refusal::Missing { claim: "sub" });
    assert_eq!(account_verdict(|claims| claims.sub = None), missing);
    let changes: [fn(&mut Claims); 6] = [
        |claims| claims.iss = "ACME-PROD.PAYMENTS".into(),
        |claims| claims.sub = Some("ACME-PROD.ADMIN".into()),
        |claims| claims.aud = Some("https://evil.example".into()),
        |claims| claims.scope = Some("everything".into()),
        |claims| claims.jti = Some("A".repeat(JTI_LEN)),
        |claims| claims.iss.push('A'),
    ];
    for (index, change) in changes.into_iter().enumerate() {
        let verdict = account_verdict(change);
        assert!(
            matches!(verdict, Err(Refusal::Claim { .. })),
            "{index}: {verdict:?}"
        );
    }
    let purpose = account().permits(PurposeKind::Federation, &of_account(), &key(), now());
    assert!(matches!(purpose, Err(Refusal::Purpose { .. })));
}

#[test]
fn another_keys_fingerprint_is_refused() {
    let PublicKey::Rsa { mut n, e } = key() else {
        unreachable!("the key of RFC 7638 is RSA")
    };
    n[7] ^= 1;
    let other = PublicKey::from_rsa(&n, &e).unwrap();
    let verdict = account().permits(PurposeKind::Account, &of_account(), &other, now());
    assert!(
        matches!(verdict, Err(Refusal::Claim { claim: "iss", .. })),
        "{verdict:?}"
    );
}

#[test]
fn a_backdated_iat_lies_so_far_back_and_lengthens_nothing() {
    let at = |iat: u64, exp: u64| account_verdict(|claims| (claims.iat, claims.exp) = (iat, exp));
    let (least, most) = (NOW - 60 - IAT_AGE_MAX_S, NOW - 60 + IAT_AHEAD_MAX_S);
    for iat in [least, most] {
        assert_eq!(at(iat, iat + 60 + 300), Ok(()), "{iat}");
        assert!(matches!(
            at(iat, iat + 60 + 301),
            Err(Refusal::Lifetime { .. })
        ));
        assert!(matches!(at(iat, iat + 60), Err(Refusal::Lifetime { .. })));
    }
    for iat in [least - 1, most + 1, NOW, 0] {
        let verdict = at(iat, iat + 60 + 300);
        assert!(
            matches!(verdict, Err(Refusal::Clock { claim: "iat", .. })),
            "{iat}: {verdict:?}"
        );
    }
}

#[test]
fn only_an_account_may_leave_claims_out_or_ask_for_a_scope() {
    for (claim, change) in [
        ("sub", (|claims| claims.sub = None) as fn(&mut Claims)),
        ("aud", |claims| claims.aud = None),
        ("jti", |claims| claims.jti = None),
    ] {
        assert_eq!(client_verdict(change), Err(Refusal::Missing { claim }));
        let mut claims = Claims {
            iss: "https://id.example".into(),
            sub: Some("payments".into()),
            ..permitted()
        };
        change(&mut claims);
        let verdict =
            issuer(&["payments"]).permits(PurposeKind::Federation, &claims, &key(), now());
        assert_eq!(verdict, Err(Refusal::Missing { claim }));
    }
    let scoped = client_verdict(|claims| claims.scope = Some("admin".into()));
    assert!(matches!(scoped, Err(Refusal::Claim { claim: "scope", .. })));
}

#[test]
fn what_only_an_account_may_have_is_in_no_other_charter() {
    let check = |charter: Charter| charter.check().map_err(|error| error.to_string());
    assert_eq!(check(account()), Ok(()));
    let kid = |kid: &str| KidMember::Assigned(kid.into());
    for (charter, fits) in [
        (
            Charter {
                kid: kid("370ab79b"),
                ..account()
            },
            true,
        ),
        (
            Charter {
                kid: kid("370ab79b"),
                ..client()
            },
            true,
        ),
        (
            Charter {
                kid: kid("370ab79b"),
                ..issuer(&["a"])
            },
            false,
        ),
        (
            Charter {
                kid: kid(""),
                ..account()
            },
            false,
        ),
        (
            Charter {
                kid: kid("a\"b"),
                ..account()
            },
            false,
        ),
        (
            Charter {
                kid: kid("a b"),
                ..account()
            },
            false,
        ),
        (
            Charter {
                kid: kid(&"a".repeat(ASSIGNED_KID_LEN_MAX)),
                ..account()
            },
            true,
        ),
        (
            Charter {
                kid: kid(&"a".repeat(ASSIGNED_KID_LEN_MAX + 1)),
                ..account()
            },
            false,
        ),
        (
            Charter {
                kid: KidMember::Absent,
                ..client()
            },
            false,
        ),
        (
            Charter {
                kid: KidMember::Absent,
                ..issuer(&["a"])
            },
            false,
        ),
        (
            Charter {
                backdate_s: 1,
                ..client()
            },
            false,
        ),
        (
            Charter {
                backdate_s: 1,
                ..issuer(&["a"])
            },
            false,
        ),
        (
            Charter {
                backdate_s: BACKDATE_MAX_S + 1,
                ..account()
            },
            false,
        ),
        (
            Charter {
                typ: Typ::ClientAuthentication,
                ..account()
            },
            false,
        ),
    ] {
        assert_eq!(check(charter.clone()).is_ok(), fits, "{charter:?}");
    }
}

/// As keystores have stored them since the first version: nothing of what came later is in them, and
/// one that needs none of it is still written so.
#[test]
fn charters_from_before_accounts_are_read_and_written_as_they_were() {
    for (text, charter) in [
        (
            r#"{"purpose":{"client_authentication":{"iss":"payments-prod","sub":"payments-prod","aud":"https://as.example"}},"alg":"ES256","typ":"client-authentication+jwt","lifetime_max_s":60}"#,
            client(),
        ),
        (
            r#"{"purpose":{"federation":{"iss":"https://id.example","subjects":["payments"]}},"alg":"RS256","typ":"JWT","lifetime_max_s":600}"#,
            issuer(&["payments"]),
        ),
    ] {
        assert_eq!(serde_json::from_str::<Charter>(text).unwrap(), charter);
        assert_eq!(serde_json::to_string(&charter).unwrap(), text);
    }
    let text = serde_json::to_string(&account()).unwrap();
    assert_eq!(
        text,
        r#"{"purpose":{"account":{"iss":{"with_fingerprint":"ACME-PROD.PAYMENTS"},"sub":"ACME-PROD.PAYMENTS"}},"alg":"RS256","typ":"JWT","kid":"absent","lifetime_max_s":300,"backdate_s":60}"#
    );
    assert_eq!(serde_json::from_str::<Charter>(&text).unwrap(), account());
}

proptest! {
    /// Whatever is asked at whatever time: what is permitted is pinned and short.
    #[test]
    fn what_is_permitted_is_pinned_and_short(
        iss in "(payments-prod|other)", aud in "(https://as.example|https://b.example)",
        iat in NOW - 100..NOW + 100, lifetime in 0u64..200, seen in NOW - 100..NOW + 100,
    ) {
        let claims = Claims { iss, aud: Some(aud), iat, exp: iat + lifetime, ..permitted() };
        let seen_at = Time::from_unix_s(seen);
        if client().permits(PurposeKind::ClientAuthentication, &claims, &key(), seen_at).is_ok() {
            prop_assert_eq!(&claims.iss, "payments-prod");
            prop_assert_eq!(claims.aud.as_deref(), Some("https://as.example"));
            prop_assert!(claims.exp <= seen + 60 + IAT_AHEAD_MAX_S);
            prop_assert!(claims.exp > claims.iat);
        }
    }
}

#[test]
fn a_certificate_is_for_keys_of_clients_and_accounts() {
    use CertificateUse::{Allowed, Named, None};
    let check = |certificate, charter: Charter| {
        let charter = Charter {
            certificate,
            ..charter
        };
        charter.check().map_err(|error| error.kind())
    };
    for certificate in [None, Allowed, Named] {
        assert_eq!(check(certificate, client()), Ok(()), "{certificate:?}");
        assert_eq!(check(certificate, account()), Ok(()), "{certificate:?}");
    }
    for certificate in [Allowed, Named] {
        let refused = check(certificate, issuer(&["a"]));
        assert_eq!(refused, Err(Kind::Refused), "{certificate:?}");
    }
    // A client without a kid is found by its certificate alone.
    let without_kid = || Charter {
        kid: KidMember::Absent,
        ..client()
    };
    assert_eq!(check(Named, without_kid()), Ok(()));
    assert_eq!(check(Allowed, without_kid()), Err(Kind::Refused));
    assert_eq!(check(None, without_kid()), Err(Kind::Refused));
}

#[test]
fn a_charter_without_a_certificate_is_written_as_it_always_was() {
    let json = serde_json::to_string(&client()).unwrap();
    assert!(!json.contains("certificate"), "{json}");
    let read: Charter = serde_json::from_str(&json).unwrap();
    assert_eq!(read.certificate, CertificateUse::None);
    let named = Charter {
        certificate: CertificateUse::Named,
        ..client()
    };
    let json = serde_json::to_string(&named).unwrap();
    assert!(json.contains(r#""certificate":"named""#), "{json}");
    assert_eq!(serde_json::from_str::<Charter>(&json).unwrap(), named);
}
