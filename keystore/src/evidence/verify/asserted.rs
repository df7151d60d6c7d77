//! Keys in a PKCS#11 token (standards §4.6). A module says what it likes over a call that nobody signs: what is
//! checked here is that it says the right thing, and no more than `asserted` comes of it.

use crate::evidence::bundle::{AssertedKey, Attributes, Pkcs11Evidence};
use crate::evidence::policy::{Imported, Policy};
use crate::evidence::verdict::{Check, Finding, KeyVerdict, Report};
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
    let known = jwk.and(attributes);
    let level = match known {
        Ok(()) if !key.imported => EvidenceLevel::Asserted,
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
    let _ = report.look(Check::Level, about, known, |()| {
        if key.imported && policy.imported == Imported::Allow {
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
