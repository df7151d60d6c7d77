//! Charter and claims. The input is a charter, the claims that a broker asks for (mostly the
//! charter's own with something changed, else nothing would ever pass) and the time.
//!
//! Asserted: what a charter permits is what a second check, written here from the standards and not
//! from the code, permits, and the other way round; what is minted parses as JSON with exactly the
//! members we mint and the values that were asked for, under the header of the charter; it is never
//! longer than an assertion may be, since an assertion that is too long suspends its key.

use super::input::Input;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL};
use keystore::charter::{AccountIss, KidMember, PurposeKind, SubjectPattern};
use keystore::jws::{ASSERTION_LEN_MAX, Header, SigningInput};
use keystore::{Alg, CertificateUse, Charter, Claims, Kid, PublicKey, Purpose, Time, Typ};
use serde_json::{Value, json};

/// Longest text in an input: enough for one beyond the limit of a claim.
const TEXT_LEN_MAX: usize = 1100;

/// Longest signature: RSA with 8192 bits.
const SIGNATURE_LEN_MAX: usize = 1024;

/// Runs one input.
pub fn check(data: &[u8]) {
    let mut input = Input::of(data);
    let Some(charter) = charter(&mut input) else {
        return;
    };
    let is_sound = charter.check().is_ok();
    assert_eq!(is_sound, naive_check(&charter), "{charter:?}");
    let now = input.number(5);
    let claims = claims(&mut input, &charter, now);
    let kind = match input.choice(8) {
        0 => PurposeKind::Federation,
        1 => PurposeKind::ClientAuthentication,
        2 => PurposeKind::Account,
        _ => charter.purpose.kind(),
    };
    let verdict = charter.permits(kind, &claims, &key(), Time::from_unix_s(now));
    let naive = naive(&charter, kind, &claims, now);
    assert_eq!(
        verdict.is_ok(),
        naive,
        "{charter:?} {claims:?} {now} {verdict:?}"
    );
    match verdict {
        Ok(()) => is_minted_as_asked(&charter, &claims),
        Err(refusal) => {
            let text = refusal.to_string();
            assert!(text.len() < 1000, "a refusal is a sentence: {text}");
            assert!(!text.contains(char::is_control), "{text:?}");
        }
    }
}

fn charter(input: &mut Input<'_>) -> Option<Charter> {
    let purpose = match input.choice(3) {
        0 => Purpose::ClientAuthentication {
            iss: input.text(TEXT_LEN_MAX),
            sub: input.text(TEXT_LEN_MAX),
            aud: input.text(TEXT_LEN_MAX),
        },
        2 => {
            let iss = input.text(TEXT_LEN_MAX);
            let mut optional = || (input.choice(2) == 1).then(|| input.text(TEXT_LEN_MAX));
            let (sub, aud, scope) = (optional(), optional(), optional());
            let iss = match input.choice(2) {
                0 => AccountIss::Is(iss),
                _ => AccountIss::WithFingerprint(iss),
            };
            Purpose::Account {
                iss,
                sub,
                aud,
                scope,
            }
        }
        _ => {
            let iss = input.text(TEXT_LEN_MAX);
            let mut subjects = Vec::new();
            for _ in 0..input.choice(4) {
                let text = input.text(TEXT_LEN_MAX);
                let pattern = SubjectPattern::try_from(text.clone());
                assert_eq!(pattern.is_ok(), naive_pattern(&text), "{text:?}");
                subjects.push(pattern.ok()?);
            }
            Purpose::Federation { iss, subjects }
        }
    };
    let (kid, backdate_s) = match purpose {
        Purpose::Account { .. } => (kid(input), u32::from(input.byte())),
        _ => (KidMember::Thumbprint, 0),
    };
    Some(Charter {
        purpose,
        alg: Alg::ALL[usize::from(input.choice(5))],
        typ: [Typ::ClientAuthentication, Typ::Jwt][usize::from(input.choice(2))],
        kid,
        lifetime_max_s: input.number(3) as u32,
        backdate_s,
        certificate: CertificateUse::None,
    })
}

fn kid(input: &mut Input<'_>) -> KidMember {
    match input.choice(3) {
        0 => KidMember::Thumbprint,
        1 => KidMember::Absent,
        _ => KidMember::Assigned(input.text(140)),
    }
}

/// A public key that anybody may know (RFC 7515 appendix A.3).
fn key() -> PublicKey {
    let jwk = json!({
        "kty": "EC", "crv": "P-256",
        "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
        "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
    });
    serde_json::from_value(jwk).expect("it is a key")
}

/// Its fingerprint, as openssl computes it.
const FINGERPRINT: &str = "K9G7DESol8MKeqCZHN442AYv5EHeUNoPRoJTRPYC6Cc=";

/// The charter's own values, each with a chance to be another.
fn claims(input: &mut Input<'_>, charter: &Charter, now: u64) -> Claims {
    let (iss, sub, aud) = match &charter.purpose {
        Purpose::ClientAuthentication { iss, sub, aud } => {
            (iss.clone(), Some(sub.clone()), Some(aud.clone()))
        }
        Purpose::Federation { iss, subjects } => {
            let pattern = subjects.first().map_or("", SubjectPattern::as_str);
            let aud = input.text(TEXT_LEN_MAX);
            (iss.clone(), Some(pattern.to_owned()), Some(aud))
        }
        Purpose::Account { iss, sub, aud, .. } => (naive_iss(iss), sub.clone(), aud.clone()),
    };
    let mut text = |own: String| match input.choice(6) {
        0 => input.text(TEXT_LEN_MAX),
        1 => own.replacen('*', &input.text(TEXT_LEN_MAX), 1),
        2 => own + &input.text(TEXT_LEN_MAX),
        _ => own,
    };
    let (iss, sub, aud) = (text(iss), sub.map(&mut text), aud.map(&mut text));
    let is_account = matches!(charter.purpose, Purpose::Account { .. });
    let scope = match &charter.purpose {
        Purpose::Account { scope, .. } if input.choice(4) > 0 => scope.clone(),
        Purpose::Account { .. } => Some(input.text(30)),
        _ => None,
    };
    // The others may also leave out what they must not, and say what they must not.
    let without = match is_account {
        true => input.choice(8),
        false => 0,
    };
    let (sub, aud) = match without {
        6 => (None, aud),
        7 => (sub, None),
        _ => (sub, aud),
    };
    let jti = match input.choice(4) {
        0 => input.text(30),
        _ => BASE64URL.encode([input.byte(); 16]),
    };
    let mut near = |from: u64, span: u64| match input.choice(4) {
        0 => u64::MAX - input.number(8),
        1 => from.saturating_sub(input.number(1) % span),
        _ => from.saturating_add(input.number(3) % span),
    };
    let iat = near(now.saturating_sub(charter.backdate_s.into()), 16);
    let exp = near(iat, 100_000);
    let nbf = match input.choice(4) {
        0 => Some(iat),
        1 => Some(iat.wrapping_add(input.number(8))),
        _ => None,
    };
    Claims {
        iss,
        sub,
        aud,
        scope,
        jti: (without < 4 && (!is_account || without == 3)).then_some(jti),
        iat,
        nbf,
        exp,
    }
}

/// The claim that an account's charter stands for.
fn naive_iss(iss: &AccountIss) -> String {
    match iss {
        AccountIss::Is(text) => text.clone(),
        AccountIss::WithFingerprint(text) => format!("{text}.SHA256:{FINGERPRINT}"),
    }
}

/// 1 to 1,024 bytes as they stand in the JSON between their quotes, none of them a control
/// character.
fn is_text(text: &str) -> bool {
    let json = Value::from(text).to_string().len() - 2;
    (1..=1024).contains(&json) && text.chars().all(|c| !c.is_control())
}

fn naive_pattern(text: &str) -> bool {
    let stars: Vec<usize> = text.match_indices('*').map(|(at, _)| at).collect();
    match stars[..] {
        [] => is_text(text),
        [at] => at + 1 == text.len() && is_text(&text[..at]),
        _ => false,
    }
}

fn naive_check(charter: &Charter) -> bool {
    let texts = match &charter.purpose {
        Purpose::ClientAuthentication { iss, sub, aud } => {
            [iss, sub, aud].iter().all(|t| is_text(t))
        }
        Purpose::Federation { iss, subjects } => {
            is_text(iss) && (1..=1024).contains(&subjects.len())
        }
        Purpose::Account {
            iss,
            sub,
            aud,
            scope,
        } => {
            let is_named = matches!(iss, AccountIss::Is(text) | AccountIss::WithFingerprint(text) if !text.is_empty());
            let header = charter.typ == Typ::Jwt
                && charter.backdate_s <= 60
                && match &charter.kid {
                    KidMember::Assigned(kid) => {
                        (1..=128).contains(&kid.len())
                            && kid
                                .chars()
                                .all(|c| c.is_ascii_alphanumeric() || "-._~".contains(c))
                    }
                    KidMember::Thumbprint | KidMember::Absent => true,
                };
            let all = [sub, aud, scope]
                .into_iter()
                .flatten()
                .all(|text| is_text(text));
            is_named && is_text(&naive_iss(iss)) && all && header
        }
    };
    texts && (1..=24 * 3600).contains(&charter.lifetime_max_s)
}

fn naive(charter: &Charter, kind: PurposeKind, claims: &Claims, now: u64) -> bool {
    let Claims {
        iss,
        sub,
        aud,
        scope,
        jti,
        iat,
        nbf,
        exp,
    } = claims;
    let party = match (&charter.purpose, kind) {
        (
            Purpose::ClientAuthentication {
                iss: i,
                sub: s,
                aud: a,
            },
            PurposeKind::ClientAuthentication,
        ) => (Some(iss), sub.as_ref(), aud.as_ref(), scope) == (Some(i), Some(s), Some(a), &None),
        (Purpose::Federation { iss: i, subjects }, PurposeKind::Federation) => {
            let sub = sub.as_deref().unwrap_or_default(); // no pattern covers it
            let covers = |pattern: &SubjectPattern| match pattern.as_str().split_once('*') {
                Some((prefix, "")) => {
                    sub.len() > prefix.len() && sub.as_bytes()[..prefix.len()] == *prefix.as_bytes()
                }
                _ => pattern.as_str() == sub,
            };
            iss == i && subjects.iter().any(covers) && aud.is_some() && scope.is_none()
        }
        (
            Purpose::Account {
                iss: i,
                sub: s,
                aud: a,
                scope: c,
            },
            PurposeKind::Account,
        ) => *iss == naive_iss(i) && (sub, aud, scope) == (s, a, c),
        _ => false,
    };
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let is_account = matches!(charter.purpose, Purpose::Account { .. });
    let unique = match jti {
        Some(jti) => {
            !is_account && jti.len() == 22 && jti.bytes().all(|byte| alphabet.contains(&byte))
        }
        None => is_account,
    };
    let (iat, exp, now) = (i128::from(*iat), i128::from(*exp), i128::from(now));
    let minted_at = iat + i128::from(charter.backdate_s);
    let lifetime = exp - minted_at;
    let texts = [Some(iss), sub.as_ref(), aud.as_ref(), scope.as_ref()];
    party
        && texts.into_iter().flatten().all(|text| is_text(text))
        && unique
        && lifetime >= 1
        && lifetime <= i128::from(charter.lifetime_max_s)
        && (-10..=1).contains(&(minted_at - now))
        && nbf.is_none_or(|nbf| i128::from(nbf) == iat)
}

fn is_minted_as_asked(charter: &Charter, claims: &Claims) {
    let kid: Kid = serde_json::from_value(json!("0123456789012345678901234567890123456789012"))
        .expect("a kid is text");
    if charter.check().is_err() {
        return; // no key is made under it, and nothing is said of what it would sign
    }
    let input = SigningInput::new(&Header::of(charter, &kid, None), claims);
    let text = std::str::from_utf8(input.as_bytes()).expect("base64url is ASCII");
    let (header, payload) = text.split_once('.').expect("two parts");
    let json = |part: &str| -> Value {
        let bytes = BASE64URL.decode(part).expect("each part is base64url");
        let value: Value = serde_json::from_slice(&bytes).expect("each part is JSON");
        // No member twice and no blank: what was parsed is as long as what stands there.
        assert_eq!(value.to_string().len(), bytes.len(), "{value}");
        value
    };
    let typ = match charter.typ {
        Typ::ClientAuthentication => "client-authentication+jwt",
        Typ::Jwt => "JWT",
    };
    let alg = charter.alg.name();
    let mut expected = json!({ "alg": alg, "typ": typ });
    match &charter.kid {
        KidMember::Thumbprint => expected["kid"] = json!(kid.as_str()),
        KidMember::Assigned(kid) => expected["kid"] = json!(kid),
        KidMember::Absent => {}
    }
    assert_eq!(json(header), expected);
    let Claims {
        iss,
        sub,
        aud,
        scope,
        jti,
        iat,
        nbf,
        exp,
    } = claims;
    let mut expected = json!({ "iss": iss, "iat": iat, "exp": exp });
    let texts = [("sub", sub), ("aud", aud), ("scope", scope), ("jti", jti)];
    for (name, text) in texts {
        if let Some(text) = text {
            expected[name] = json!(text);
        }
    }
    if let Some(nbf) = nbf {
        expected["nbf"] = json!(nbf);
    }
    assert_eq!(json(payload), expected);

    let compact = input.with_signature(&[0; SIGNATURE_LEN_MAX]);
    assert!(
        compact.len() <= ASSERTION_LEN_MAX,
        "{} bytes",
        compact.len()
    );
}
