//! V-CERTIFY (standards §4.4): whether a key that is to be registered was made in this TPM and cannot leave it, by
//! the TPM's own statement for this nonce.

use super::Session;
use super::ak::Vetted;
use super::state::Stated;
use crate::evidence::attest::{Attest, Attested};
use crate::evidence::bundle::{Bank, CertifiedKey, PcrIndex, PolicyStep, Selection};
use crate::evidence::context;
use crate::evidence::policy::Imported;
use crate::evidence::public::{Attributes, PublicArea};
use crate::evidence::signature::Signature;
use crate::evidence::steps::policy_digest;
use crate::evidence::verdict::{Check, Done, Finding, KeyVerdict, Report, UseBy, both};
use crate::evidence::weak;
use crate::protocol::EvidenceLevel;
use std::collections::BTreeSet;

/// What says that the private half was made here and stays here.
const ORIGIN: u32 =
    Attributes::FIXED_TPM | Attributes::FIXED_PARENT | Attributes::SENSITIVE_DATA_ORIGIN;

/// What a key that signs JWS is not: a restricted one would be an attestation key misused.
const CLEAR: u32 = Attributes::RESTRICTED | Attributes::DECRYPT | Attributes::ENCRYPTED_DUPLICATION;

/// What others rest on.
pub struct Certified {
    /// What the TPM stated, if its signature is right.
    pub stated: Done<Stated>,
    /// Whether it was for this nonce.
    pub in_context: Done<()>,
}

/// Looks at one key.
pub fn key(
    session: &Session<'_>,
    key: &CertifiedKey,
    vetted: Done<&Vetted>,
    report: &mut Report,
) -> Certified {
    let about = &key.key.to_string();
    let first = report.verdicts.len();
    let signed = report.look(Check::CertifySignature, about, vetted, |vetted| {
        Finding::of(signed(
            key.signature.as_slice(),
            key.attest.as_slice(),
            vetted,
        ))
    });
    let statement = report.look(
        Check::CertifyStatement,
        about,
        signed,
        |()| match Attest::parse(key.attest.as_slice()) {
            Ok(attest) if matches!(attest.attested, Attested::Certify { .. }) => {
                Finding::Passed(attest)
            }
            Ok(_) => Finding::Failed("the statement is not one about a key".into()),
            Err(wrong) => Finding::Failed(format!("the statement {wrong}")),
        },
    );
    let statement = statement.as_ref().map_err(|it| *it);
    let by = both(vetted, statement);
    let _ = report.look(Check::CertifySigner, about, by, |(vetted, attest)| {
        signer(vetted, attest)
    });
    let area = report.look(Check::KeyPublic, about, Ok(()), |()| {
        let area = PublicArea::parse(key.public.as_slice());
        Finding::of(area.map_err(|wrong| format!("its public area {wrong}")))
    });
    let area = area.as_ref().map_err(|it| *it);
    let named = report.look(
        Check::CertifyName,
        about,
        both(statement, area),
        |(attest, area)| match &attest.attested {
            Attested::Certify { name, .. } if name == area.name() => {
                Finding::Passed((attest, area))
            }
            _ => Finding::Failed("the statement is about another key".into()),
        },
    );
    let for_this = both(session.nonce, named);
    let in_context = report.look(
        Check::CertifyContext,
        about,
        for_this,
        |((), (attest, area))| is_for_this(session, key, attest, area),
    );
    let area = named.map(|(_, area)| area);
    let origin = report.look(Check::KeyOrigin, about, area, |area| {
        origin(session, key, area)
    });
    let _ = report.look(Check::KeyAttributes, about, area, |area| {
        match area.attributes.differs(Attributes::SIGN, CLEAR) {
            Some(differs) => Finding::Failed(differs),
            None if !area.name_alg.is_strong() => Finding::Failed("its Name is a SHA-1".into()),
            None => Finding::Passed(()),
        }
    });
    let scheme = report.look(Check::KeyScheme, about, area, |area| match area.alg() {
        Some(alg) if alg == key.alg => {
            let strong = area.public_key().map_or(Ok(()), |it| weak::check(&it));
            Finding::of(strong.map(|()| area))
        }
        Some(alg) => Finding::Failed(format!("it is fixed to {alg}, not {}", key.alg)),
        None => Finding::Failed("it is fixed to no algorithm of ours".into()),
    });
    let _ = report.look(Check::KeyJwk, about, scheme, |area| {
        match area.public_key() {
            Err(wrong) => Finding::Failed(format!("it {wrong}")),
            Ok(found) if found.spki() != key.jwk.spki() => {
                Finding::Failed("the key that is registered is another than the TPM's".into())
            }
            Ok(found) if found.kid() != key.kid => {
                Finding::Failed("its kid is another key's".into())
            }
            Ok(_) => Finding::Passed(()),
        }
    });
    let use_by = report.look(Check::KeyPolicy, about, area, |area| {
        Finding::of(policy(session, key, area))
    });
    level(session, key, (origin, use_by), first, report);
    let stated = statement.map(|attest| Stated {
        clock: attest.clock,
        firmware: attest.firmware_version,
    });
    Certified { stated, in_context }
}

/// Whether the attestation key has signed this.
///
/// # Errors
/// Why not.
pub fn signed(signature: &[u8], bytes: &[u8], vetted: &Vetted) -> Result<(), String> {
    let signature = Signature::parse(signature);
    let verified = signature.and_then(|it| it.verify(&vetted.ak, bytes));
    match verified {
        Ok(_valid) => Ok(()),
        Err(wrong) => Err(format!("the signature {wrong}")),
    }
}

/// Whether the statement says that it is this attestation key's.
pub fn signer(vetted: &Vetted, attest: &Attest) -> Finding<()> {
    match attest.qualified_signer == vetted.enrolled.ak_qualified_name.as_slice() {
        true => Finding::Passed(()),
        false => Finding::Failed("it says that another key has signed it than was enrolled".into()),
    }
}

fn is_for_this(
    session: &Session<'_>,
    key: &CertifiedKey,
    attest: &Attest,
    area: &PublicArea,
) -> Finding<()> {
    let Ok(public_key) = area.public_key() else {
        return Finding::Failed("there is no key that it could have been made for".into());
    };
    let (nonce, host) = (session.question.nonce, &session.bundle.host);
    let expected = context::certify(nonce, host, &key.key, key.purpose, &public_key.spki());
    match attest.extra_data == expected {
        true => Finding::Passed(()),
        false => Finding::Failed(format!(
            "it was made for another nonce, another host than {host}, another key than this one or another \
             purpose than {}",
            key.purpose.name()
        )),
    }
}

/// Whether the key was made in the TPM; `true` if it was.
fn origin(session: &Session<'_>, key: &CertifiedKey, area: &PublicArea) -> Finding<bool> {
    let differs = area.attributes.differs(ORIGIN, 0);
    let reason = match (differs, key.imported) {
        (None, false) => return Finding::Passed(true),
        (Some(differs), _) => format!("{differs}: the key existed outside, or can leave the TPM"),
        (None, true) => "it is said to be imported".into(),
    };
    // A policy may permit a key that is said to be imported, wherever it was and may go; its level is `none` then.
    match session.question.policy.imported {
        Imported::Allow if key.imported => {
            Finding::Skipped(false, format!("{reason}; the policy allows imported keys"))
        }
        _ => Finding::Failed(reason),
    }
}

/// By what the key is used, if the public area has the policy that the steps lead to.
fn policy(session: &Session<'_>, key: &CertifiedKey, area: &PublicArea) -> Result<UseBy, String> {
    let by_auth = area.attributes.has(Attributes::USER_WITH_AUTH);
    let Some(steps) = &key.policy else {
        return match (area.auth_policy.is_empty(), by_auth) {
            (true, true) if session.question.policy.healthy.is_some() => {
                Err("it signs in any state of its host".into())
            }
            (true, true) => Ok(UseBy::AuthValue),
            (true, false) => Err("it can be used by nobody: no auth value, and no policy".into()),
            (false, _) => Err("it has a policy that is not shown".into()),
        };
    };
    if by_auth {
        return Err("userWithAuth is set: its auth value is enough, without the policy".into());
    }
    match policy_digest(steps, area.name_alg)? == area.auth_policy {
        true => wanted(session, steps).and_then(|()| use_by(steps)),
        false => Err("its policy is another than is shown".into()),
    }
}

/// Whether the states that these steps let the key be used in are those that the relying party wants.
fn wanted(session: &Session<'_>, steps: &[PolicyStep]) -> Result<(), String> {
    let Some(healthy) = &session.question.policy.healthy else {
        return Ok(());
    };
    let is_more = |it: &PolicyStep| !matches!(it, PolicyStep::AuthValue {});
    match steps {
        [first, rest @ ..] if healthy.wants(first) && !rest.iter().any(is_more) => Ok(()),
        [PolicyStep::Authorize { .. }, ..] => {
            Err("who approves the states that it signs in is nobody that the policy names".into())
        }
        _ => Err("the state that it signs in is none that the policy names".into()),
    }
}

/// What these steps ask of who uses the key. Whose word they take for the host's state is shown by nothing but
/// themselves: a relying party has to know the PCRs or the authority.
fn use_by(steps: &[PolicyStep]) -> Result<UseBy, String> {
    let is_of_state = |it: &PolicyStep| match it {
        PolicyStep::Pcr { selection, .. } => is_state(selection),
        PolicyStep::Authorize { .. } => true,
        PolicyStep::AuthValue {} => false,
    };
    let wants_auth = |it: &PolicyStep| matches!(it, PolicyStep::AuthValue {});
    if steps.iter().any(is_of_state) {
        return Ok(UseBy::Policy);
    }
    match steps.iter().any(wants_auth) {
        true => Ok(UseBy::AuthValue),
        false => Err("its policy asks for nothing: anybody can use it".into()),
    }
}

/// Whether not every program can bring these PCRs to the values that are wanted of them, as it can if there is none.
fn is_state(selection: &Selection) -> bool {
    let is_lasting = |(bank, of): (&Bank, &BTreeSet<PcrIndex>)| {
        bank.is_strong() && of.iter().any(|it| !it.is_resettable())
    };
    selection.iter().any(is_lasting)
}

/// What all of that comes to, and whether it is enough.
fn level(
    session: &Session<'_>,
    key: &CertifiedKey,
    (origin, use_by): (Done<bool>, Done<UseBy>),
    first: usize,
    report: &mut Report,
) {
    use crate::evidence::verdict::Outcome;
    let wrong = report.verdicts[first..]
        .iter()
        .find_map(|it| match it.outcome {
            Outcome::Failed { .. } => Some(it.check),
            Outcome::Unreachable { after } => Some(after),
            Outcome::Passed | Outcome::Skipped { .. } => None,
        });
    let level = match (wrong, origin) {
        (None, Ok(true)) => EvidenceLevel::TpmCertified,
        _ => EvidenceLevel::None,
    };
    report.keys.push(KeyVerdict {
        key: key.key.clone(),
        keystore: session.tpm.name.to_string(),
        jwk: key.jwk.clone(),
        alg: key.alg,
        purpose: key.purpose,
        level,
        imported: key.imported || origin == Ok(false),
        use_by: use_by.ok(),
    });
    let about = &key.key.to_string();
    let minimum = session.question.policy.minimum;
    let _ = report.look(
        Check::Level,
        about,
        wrong.map_or(Ok(origin), Err),
        |origin| match origin {
            Ok(false) => Finding::Skipped((), "the policy allows imported keys".into()),
            _ if level >= minimum => Finding::Passed(()),
            _ => Finding::Failed(format!("it is {level}, and the policy wants {minimum}")),
        },
    );
}
