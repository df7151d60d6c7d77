//! Each test takes claims the charter permits and moves one thing.

use super::*;
use crate::jws::{ASSERTION_LEN_MAX, SigningInput};
use proptest::prelude::*;

const NOW: u64 = 1_800_000_000;

fn now() -> Time {
    Time::from_unix_s(NOW)
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
        lifetime_max_s: 60,
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
        lifetime_max_s: 600,
    }
}

fn permitted() -> Claims {
    Claims {
        iss: "payments-prod".into(),
        sub: "payments-prod".into(),
        aud: "https://as.example".into(),
        jti: "A".repeat(JTI_LEN),
        iat: NOW,
        nbf: None,
        exp: NOW + 60,
    }
}

fn client_verdict(change: impl FnOnce(&mut Claims)) -> Result<(), Refusal> {
    let mut claims = permitted();
    change(&mut claims);
    client().permits(PurposeKind::ClientAuthentication, &claims, now())
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
        let verdict = client_verdict(|claims| claims.aud = aud.into());
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
        client_verdict(|claims| claims.aud = String::new()),
        Err(Refusal::Malformed { claim: "aud" })
    );
}

#[test]
fn another_issuer_or_subject_is_refused() {
    assert!(client_verdict(|claims| claims.iss = "other".into()).is_err());
    assert!(client_verdict(|claims| claims.sub = "other".into()).is_err());
}

#[test]
fn another_purpose_is_refused() {
    let verdict = client().permits(PurposeKind::Federation, &permitted(), now());
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
            client_verdict(|claims| claims.jti = jti.into()),
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
            sub: sub.into(),
            ..permitted()
        };
        charter.permits(PurposeKind::Federation, &claims, now())
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
        let (iss, sub, aud) = (text.clone(), text.clone(), text);
        let nbf = Some(NOW);
        let claims = Claims {
            iss,
            sub,
            aud,
            nbf,
            ..permitted()
        };
        let verdict = with(most).permits(PurposeKind::ClientAuthentication, &claims, now());
        assert_eq!(verdict, Ok(()));
        let kid = serde_json::from_str(&format!("\"{}\"", "k".repeat(43))).unwrap();
        let input = SigningInput::new(Alg::RS256, Typ::ClientAuthentication, &kid, &claims);
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

proptest! {
    /// Whatever is asked at whatever time: what is permitted is pinned and short.
    #[test]
    fn what_is_permitted_is_pinned_and_short(
        iss in "(payments-prod|other)", aud in "(https://as.example|https://b.example)",
        iat in NOW - 100..NOW + 100, lifetime in 0u64..200, seen in NOW - 100..NOW + 100,
    ) {
        let claims = Claims { iss, aud, iat, exp: iat + lifetime, ..permitted() };
        let seen_at = Time::from_unix_s(seen);
        if client().permits(PurposeKind::ClientAuthentication, &claims, seen_at).is_ok() {
            prop_assert_eq!(&claims.iss, "payments-prod");
            prop_assert_eq!(&claims.aud, "https://as.example");
            prop_assert!(claims.exp <= seen + 60 + IAT_AHEAD_MAX_S);
            prop_assert!(claims.exp > claims.iat);
        }
    }
}
