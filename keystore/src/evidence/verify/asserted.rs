//! Keys in a PKCS#11 token (standards §4.6). A module says what it likes over a call that nobody signs: what is
//! checked here is that it says the right thing, and no more than `asserted` comes of it.

use crate::evidence::bundle::{AssertedKey, Attributes, Pkcs11Evidence};
use crate::evidence::policy::{Imported, Policy};
use crate::evidence::verdict::{Check, Finding, KeyVerdict, Report, both};
use crate::evidence::weak;
use crate::protocol::EvidenceLevel;

/// Looks at the keys of one token.
pub fn keys(policy: &Policy, evidence: &Pkcs11Evidence, report: &mut Report) {
    for key in &evidence.keys {
        one(policy, evidence, key, report);
    }
}

fn one(policy: &Policy, evidence: &Pkcs11Evidence, key: &AssertedKey, report: &mut Report) {
    let about = &key.key.to_string();
    let scheme = report.look(Check::KeyScheme, about, Ok(()), |()| {
        match key.jwk.fits(key.alg) {
            true => Finding::of(weak::check(&key.jwk)),
            false => Finding::Failed(format!("the key is none for {}", key.alg)),
        }
    });
    let jwk = report.look(Check::KeyJwk, about, scheme, |()| {
        match key.jwk.kid() == key.kid {
            true => Finding::Passed(()),
            false => Finding::Failed("its kid is another key's".into()),
        }
    });
    let attributes = report.look(Check::AssertedAttributes, about, Ok(()), |()| {
        Finding::of(attributes(&key.attributes))
    });
    let origin = report.look(Check::KeyOrigin, about, attributes, |()| {
        let reason = match (key.imported, key.attributes.local) {
            (false, Some(true)) => match stayed(&key.attributes) {
                Ok(()) => return Finding::Passed(true),
                Err(reason) => reason,
            },
            (false, _) => "CKA_LOCAL is not true: it was not made in the token".into(),
            (true, _) => "it is said to be imported".into(),
        };
        match policy.imported {
            Imported::Allow if key.imported => {
                Finding::Skipped(false, format!("{reason}; the policy allows imported keys"))
            }
            _ => Finding::Failed(reason),
        }
    });
    let known = both(jwk, origin);
    let level = match known {
        Ok(((), true)) => EvidenceLevel::Asserted,
        _ => EvidenceLevel::None,
    };
    report.keys.push(KeyVerdict {
        key: key.key.clone(),
        keystore: evidence.name.to_string(),
        jwk: key.jwk.clone(),
        alg: key.alg,
        purpose: key.purpose,
        level,
        imported: key.imported,
        use_by: None,
    });
    // Where a key was made may be left open; that a token in this keystore's place proves nothing may not. Whoever
    // carries the bundle could add keys of his own to it.
    let _ = report.look(Check::Level, about, known, |((), is_own)| {
        let wanted = policy.minimum;
        match (EvidenceLevel::Asserted >= wanted, is_own) {
            (true, true) => Finding::Passed(()),
            (true, false) => Finding::Skipped((), "the policy allows imported keys".into()),
            (false, _) => Finding::Failed(format!(
                "a token's key is at most asserted, and the policy wants {wanted}"
            )),
        }
    });
}

/// Whether it was never out of the token, as far as the token says so.
fn stayed(attributes: &Attributes) -> Result<(), String> {
    for (name, value) in [
        ("CKA_ALWAYS_SENSITIVE", attributes.always_sensitive),
        ("CKA_NEVER_EXTRACTABLE", attributes.never_extractable),
    ] {
        if value == Some(false) {
            return Err(format!("{name} is false"));
        }
    }
    Ok(())
}

/// The mandatory ones, and uses that would sign or give away what the keystore never sees. What a token does not say is
/// taken for nothing better here than what would be wrong: who is far away can try nothing.
fn attributes(attributes: &Attributes) -> Result<(), String> {
    for (name, value, wanted) in [
        ("CKA_TOKEN", attributes.token, true),
        ("CKA_SENSITIVE", attributes.sensitive, true),
        ("CKA_EXTRACTABLE", attributes.extractable, false),
        ("CKA_SIGN", attributes.sign, true),
        ("CKA_PRIVATE", attributes.private, true),
        ("CKA_DECRYPT", attributes.decrypt, false),
        ("CKA_UNWRAP", attributes.unwrap, false),
        ("CKA_DERIVE", attributes.derive, false),
        ("CKA_SIGN_RECOVER", attributes.sign_recover, false),
    ] {
        match value {
            Some(value) if value == wanted => {}
            Some(value) => return Err(format!("{name} is {value}")),
            None => return Err(format!("the token does not say that {name} is {wanted}")),
        }
    }
    Ok(())
}
