//! Which request is answered with a challenge (standards §4.3): one of an attestation key that signs only what its
//! TPM has made, beside an endorsement key that somebody vouches for, of a host whose TPM it is by the word of who
//! keeps the inventory: a maker's certificate says that there is a TPM, and not in which machine.

use super::Request;
use super::approval::Approved;
use super::registry::{EkFingerprint, Enrolled, Registry, Replacing};
use crate::PublicKey;
use crate::evidence::bundle::Host;
use crate::evidence::policy::{Enroll, Policy};
use crate::evidence::public::PublicArea;
use crate::evidence::verify::{ak_attributes, ak_hierarchy, ek_certificate};
use crate::evidence::weak;
use rustls_pki_types::CertificateDer;
use std::collections::BTreeSet;

/// What a request is held against.
#[derive(Clone, Copy)]
pub struct Rules<'a> {
    /// The relying party's.
    pub policy: &'a Policy,
    /// The roots that it names.
    pub roots: &'a [CertificateDer<'static>],
    /// TPMs that an operator has approved, if there is a list.
    pub approved: Option<&'a Approved>,
    /// Who is enrolled.
    pub registry: &'a Registry,
    /// Hosts that have another TPM than they had, as an operator has said.
    pub replaced: &'a BTreeSet<Host>,
    /// In seconds since 1970.
    pub now: u64,
}

/// What would be recorded, and the key that the challenge is enclosed for.
///
/// # Errors
/// A sentence: why the request is refused.
pub fn vet(request: &Request, rules: &Rules<'_>) -> Result<(Enrolled, PublicArea), String> {
    let tpm = &request.tpm;
    let ak = PublicArea::parse(tpm.ak.public.as_slice());
    let ak = ak.map_err(|wrong| format!("the attestation key's public area {wrong}"))?;
    ak_attributes(&ak).map_err(|wrong| format!("the attestation key: {wrong}"))?;
    ak_hierarchy(&ak, &tpm.ak).map_err(|wrong| format!("the attestation key: {wrong}"))?;
    let ek = PublicArea::parse(tpm.ek.public.as_slice());
    let ek = ek.map_err(|wrong| format!("the endorsement key's public area {wrong}"))?;
    let key = ek.public_key();
    let key = key.map_err(|wrong| format!("the endorsement key {wrong}"))?;
    if matches!(&key, PublicKey::Rsa { n, .. } if weak::is_roca(n)) {
        return Err(
            "the endorsement key's private half can be computed (ROCA, CVE-2017-15361)".into(),
        );
    }
    let certificate = ek_certificate(rules.policy, rules.roots, rules.now, &tpm.ek);
    let certificate =
        certificate.map_err(|wrong| format!("the endorsement key's certificate: {wrong}"))?;
    if certificate.as_ref().is_some_and(|it| it.key != key) {
        return Err("the certificate is about another endorsement key".into());
    }
    let fingerprint = EkFingerprint::of_spki(&key.spki());
    let pinned = rules.policy.host.get(&request.host);
    let pinned = pinned.filter(|it| !it.ek.is_empty());
    if pinned.is_some_and(|it| !it.ek.contains(&fingerprint)) {
        let host = &request.host;
        return Err(format!(
            "by the policy its TPM ({fingerprint}) is not the one of {host}"
        ));
    }
    let elsewhere = rules.policy.host.iter();
    let mut elsewhere = elsewhere.filter(|(host, _)| **host != request.host);
    if let Some((host, _)) = elsewhere.find(|(_, it)| it.ek.contains(&fingerprint)) {
        return Err(format!(
            "by the policy its TPM ({fingerprint}) is that of {host}"
        ));
    }
    if let Some(approved) = rules.approved {
        let permitted = approved.permits(&fingerprint, &request.host);
        permitted.map_err(|why| format!("{why}: {fingerprint} {}", request.host))?;
    }
    let enrolled = Enrolled {
        host: request.host.clone(),
        keystore: request.keystore.clone(),
        manufacturer: certificate.as_ref().map(|it| it.manufacturer.clone()),
        ek: fingerprint,
        ak_name: super::Bytes::new(ak.name().to_vec()).ok_or("its Name is too long")?,
        ak_qualified_name: tpm.ak.qualified_name.clone(),
        enrolled_at: rules.now,
        counters: None,
    };
    let replacing = match rules.replaced.contains(&request.host) {
        true => Replacing::Meant,
        false => Replacing::Refused,
    };
    let recorded = rules.registry.check(&enrolled, replacing);
    recorded.map_err(|conflict| conflict.to_string())?;
    let is_named = rules.approved.is_some() || pinned.is_some();
    match (is_named, certificate, rules.policy.ek.enroll) {
        (true, _, _) | (false, Some(_), Enroll::AnyCertified) => Ok((enrolled, ek)),
        (false, None, _) => Err(format!(
            "nobody vouches for its TPM ({fingerprint}): no certificate was verified, and neither a list of \
             approved TPMs (--approved) nor the policy's [host.NAME] has it"
        )),
        // Activation will show that there is a genuine TPM, and not whose (standards §4.3, 4).
        (false, Some(_), Enroll::Approved) => Err(format!(
            "its TPM ({fingerprint}) is a genuine one, and nobody has said that it is the one of {}: give a list of \
             approved TPMs (--approved), or name it in the policy's [host.NAME]",
            request.host
        )),
    }
}
