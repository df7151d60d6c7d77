//! V-AK (standards §4.3): whether an attestation key is in a genuine TPM, that of this host, and signs only what
//! that TPM has made. Whether it is *in* the TPM was proved when it was enrolled; here is compared.

use super::Session;
use crate::PublicKey;
use crate::evidence::bundle::{AttestationKey, EndorsementKey, Text};
use crate::evidence::ekcert::{self, EkCertificate};
use crate::evidence::enrolment::registry::{EkFingerprint, Enrolled};
use crate::evidence::policy::{Certificates, Policy};
use crate::evidence::public::{Attributes, PublicArea};
use crate::evidence::verdict::{Check, Done, Finding, Report, both};
use crate::evidence::weak;
use rustls_pki_types::CertificateDer;

/// An attestation key that was vetted.
pub struct Vetted {
    /// Its public area.
    pub ak: PublicArea,
    /// What was recorded about it.
    pub enrolled: Enrolled,
    /// Whose TPM, by its certificate, if one is shown.
    pub manufacturer: Option<Text>,
}

/// Bits that an attestation key must have, and must not.
const SET: u32 = Attributes::FIXED_TPM
    | Attributes::FIXED_PARENT
    | Attributes::SENSITIVE_DATA_ORIGIN
    | Attributes::RESTRICTED
    | Attributes::SIGN;
const CLEAR: u32 = Attributes::DECRYPT | Attributes::ENCRYPTED_DUPLICATION;

/// Does it.
pub fn vet(session: &Session<'_>, report: &mut Report) -> Done<Vetted> {
    let (question, tpm) = (session.question, &session.tpm.tpm);
    let about = session.tpm.name.as_str();
    let ak = report.look(Check::AkPublic, about, Ok(()), |()| {
        let parsed = PublicArea::parse(tpm.ak.public.as_slice());
        Finding::of(parsed.map_err(|wrong| format!("its public area {wrong}")))
    });
    let attributes = report.look(
        Check::AkAttributes,
        about,
        ak.as_ref().map_err(|it| *it),
        |ak| Finding::of(attributes(ak)),
    );
    let placed = report.look(
        Check::AkHierarchy,
        about,
        both(ak.as_ref().map_err(|it| *it), attributes),
        |(ak, ())| Finding::of(hierarchy(ak, &tpm.ak)),
    );
    let ek = report.look(Check::EkPublic, about, Ok(()), |()| {
        let key = PublicArea::parse(tpm.ek.public.as_slice());
        let key = key.and_then(|ek| ek.public_key());
        Finding::of(key.map_err(|wrong| format!("its public area {wrong}")))
    });
    let ek = ek.as_ref().map_err(|it| *it);
    let strong = report.look(Check::EkStrength, about, ek, |key| match key {
        PublicKey::Rsa { n, .. } if weak::is_roca(n) => Finding::Failed(
            "its modulus is of the form that Infineon's library made until 2017 (ROCA, \
             CVE-2017-15361): anybody can compute the private key; replace the TPM"
                .into(),
        ),
        _ => Finding::Passed(()),
    });
    let certificate = report.look(Check::EkCertificate, about, ek, |_| {
        match certificate(question.policy, question.roots, question.now, &tpm.ek) {
            Ok(None) => Finding::Skipped(
                None,
                "none is verified: the policy relies on the fingerprint that was recorded".into(),
            ),
            found => Finding::of(found),
        }
    });
    let matching = both(ek, certificate);
    let manufacturer =
        report.look(
            Check::EkMatch,
            about,
            matching,
            |(ek, certificate)| match certificate {
                None => Finding::Skipped(None, "there is no certificate".into()),
                Some(it) if it.key == *ek => Finding::Passed(Some(it.manufacturer)),
                Some(_) => {
                    Finding::Failed("the certificate is about another endorsement key".into())
                }
            },
        );
    let host = report.look(
        Check::Host,
        about,
        both(ek, manufacturer),
        |(ek, manufacturer)| match host(session, EkFingerprint::of_spki(&ek.spki())) {
            Ok(()) => Finding::Passed(manufacturer),
            Err(reason) => Finding::Failed(reason),
        },
    );
    let rests_on = both(both(ak, placed), both(strong, host));
    report.look(
        Check::AkEnrolled,
        about,
        rests_on,
        |((ak, ()), ((), manufacturer))| {
            let enrolled = question.registry.find(&session.bundle.host, about);
            match enrolled {
                None => Finding::Failed(format!(
                    "no attestation key of keystore {about} of {} is in the registry: enrol it \
                 (`assertctl enroll challenge`)",
                    session.bundle.host
                )),
                Some(enrolled) if enrolled.ak_name.as_slice() != ak.name() => {
                    Finding::Failed(
                        "another attestation key of it is enrolled: if the host has made a new one, enrol it anew \
                         (`assertctl enroll challenge`)"
                            .into(),
                    )
                }
                Some(enrolled) if enrolled.ak_qualified_name != tpm.ak.qualified_name => {
                    Finding::Failed(
                        "it is enrolled with another Qualified Name: enrol it anew (`assertctl enroll challenge`)".into(),
                    )
                }
                Some(enrolled) => Finding::Passed(Vetted {
                    ak,
                    enrolled: enrolled.clone(),
                    manufacturer,
                }),
            }
        },
    )
}

/// Restricted, fixed, and of a scheme that is accepted; the key in it is sound.
///
/// # Errors
/// What it is not.
pub fn attributes(ak: &PublicArea) -> Result<(), String> {
    if let Some(differs) = ak.attributes.differs(SET, CLEAR) {
        return Err(format!("{differs}: it may sign what the TPM has not made"));
    }
    if !ak.name_alg.is_strong() {
        return Err("its Name is a SHA-1".into());
    }
    if ak.alg().is_none() {
        return Err("it has no fixed scheme that is accepted: ES256, ES384, RS256, PS256".into());
    }
    let key = ak.public_key().map_err(|wrong| format!("it {wrong}"))?;
    weak::check(&key).map_err(str::to_owned)
}

/// Whether the key lives below the one that is shown, a primary key of the endorsement hierarchy: nobody finds another
/// that leads to the same Qualified Name. In other hierarchies a TPM disguises its counters and its firmware.
///
/// # Errors
/// What it is not.
pub fn hierarchy(ak: &PublicArea, key: &AttestationKey) -> Result<(), String> {
    let parent = PublicArea::parse(key.parent.as_slice());
    let parent = parent.map_err(|wrong| format!("the public area of the key above it {wrong}"))?;
    if !parent.name_alg.is_strong() {
        return Err("the Name of the key above it is a SHA-1: others lead to the same".into());
    }
    match ak.qualified_name(&parent) == key.qualified_name.as_slice() {
        true => Ok(()),
        false => Err(
            "its Qualified Name is not one of the endorsement hierarchy, below the key that is shown: its TPM may \
             state counters and firmware as they are not"
                .into(),
        ),
    }
}

/// What the certificate says, verified; none where there is none to be verified, and the policy is content.
///
/// # Errors
/// What is wrong with it.
pub fn certificate(
    policy: &Policy,
    roots: &[CertificateDer<'_>],
    now: u64,
    ek: &EndorsementKey,
) -> Result<Option<EkCertificate>, String> {
    let Some(certificate) = &ek.certificate else {
        return match policy.ek.certificate {
            Certificates::Required => Err("there is none".into()),
            Certificates::Optional => Ok(None),
        };
    };
    if roots.is_empty() && policy.ek.certificate == Certificates::Optional {
        return Ok(None);
    }
    let chain: Vec<&[u8]> = ek.chain.iter().map(|it| it.as_slice()).collect();
    let verified = ekcert::verify(certificate.as_slice(), &chain, roots, now);
    verified.map(Some).map_err(|wrong| format!("it {wrong}"))
}

/// Whether the TPM is this host's: by the policy, and by the registry, where they know the host.
fn host(session: &Session<'_>, ek: EkFingerprint) -> Result<(), String> {
    let (host, question) = (&session.bundle.host, session.question);
    let by_policy = question
        .policy
        .host
        .get(host)
        .filter(|it| !it.ek.is_empty());
    let by_registry = question.registry.find(host, session.tpm.name.as_str());
    let others = question.policy.host.iter();
    let mut others = others.filter(|(it, of)| *it != host && of.ek.contains(&ek));
    if let Some((other, _)) = others.next() {
        return Err(format!("its TPM ({ek}) is, by the policy, that of {other}"));
    }
    if by_policy.is_none() && by_registry.is_none() {
        return Err(format!(
            "nothing is known of a host {host}: enrol it, or name its EK in the policy"
        ));
    }
    let is_its =
        by_policy.is_none_or(|it| it.ek.contains(&ek)) && by_registry.is_none_or(|it| it.ek == ek);
    if is_its {
        return Ok(());
    }
    let other = question.registry.enrolled.iter().find(|it| it.ek == ek);
    Err(match other {
        Some(other) => format!("its TPM ({ek}) is that of {}", other.host),
        None => format!("its TPM ({ek}) is not the one of {host}"),
    })
}
