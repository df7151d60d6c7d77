//! Keys in a PKCS#11 token (standards §4.6). A module says what it likes over a call that nobody signs: what is
//! checked here is that it says the right thing, and no more than `asserted` comes of it.

use crate::evidence::bundle::{AssertedKey, Attributes, Pkcs11Evidence};
use crate::evidence::policy::{Imported, Policy};
use crate::evidence::verdict::{Check, Finding, KeyVerdict, Report, both};
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
            true => Finding::Passed(()),
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
    let _ = report.look(Check::Level, about, known, |((), is_own)| {
        if !is_own {
            return Finding::Skipped((), "the policy allows imported keys".into());
        }
        match level >= policy.minimum {
            true => Finding::Passed(()),
            false => Finding::Failed(format!(
                "it is {level}, and the policy wants {}",
                policy.minimum
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

/// The mandatory ones, and uses that would sign or give away what the keystore never sees.
fn attributes(attributes: &Attributes) -> Result<(), String> {
    for (name, value, wanted) in [
        ("CKA_SENSITIVE", attributes.sensitive, true),
        ("CKA_EXTRACTABLE", attributes.extractable, false),
        ("CKA_SIGN", attributes.sign, true),
    ] {
        if value != Some(wanted) {
            return Err(format!("{name} is not {wanted}"));
        }
    }
    for (name, value) in [
        ("CKA_DECRYPT", attributes.decrypt),
        ("CKA_UNWRAP", attributes.unwrap),
        ("CKA_DERIVE", attributes.derive),
        ("CKA_SIGN_RECOVER", attributes.sign_recover),
    ] {
        if value == Some(true) {
            return Err(format!("{name} is true"));
        }
    }
    Ok(())
}
