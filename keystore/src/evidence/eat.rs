//! The result of a verification as an Entity Attestation Token (RFC 9711): an ES256 JWT by the verifier's own
//! key, for those who rely on the verifier. It says which evidence was held against which policy, so that a
//! result by a weak policy does not pass for one by a strong one; and names keys only if every check passed.

use super::bundle::Host;
use super::enrolment::registry::{Enrolled, Registry};
use super::policy::Policy;
use super::verdict::{Check, Outcome, Overall, Report, Verdict};
use super::verify::Question;
use crate::privatekey::Parts;
use crate::{Alg, Error, Kind, PrivateKey, PublicKey};
use aws_lc_rs::digest::{Context, SHA256, digest};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL};
use serde_json::{Map, Value, json};

/// What the claims mean (RFC 9711 §4.3.2): docs/attestation.md.
pub const PROFILE: &str = "urn:assertd:evidence-result:1";

/// The `typ` of the header (RFC 9782 §2): never that of an assertion.
pub const TYP: &str = "eat+jwt";

/// What is said, of a question and its answer.
pub fn claims(question: &Question<'_>, policy_text: &str, report: &Report) -> Value {
    let overall = report.overall();
    let verdicts: Vec<Value> = report
        .verdicts
        .iter()
        .map(|it| {
            let mut verdict = json!({ "check": it.check, "outcome": it.outcome.name() });
            let members = [
                ("about", Some(it.about.clone())),
                ("reason", it.outcome.reason()),
            ];
            for (name, value) in members {
                if let Some(value) = value.filter(|it| !it.is_empty()) {
                    verdict[name] = value.into();
                }
            }
            verdict
        })
        .collect();
    // The policy names files of roots; which ones were in them is said beside it.
    let mut roots = Context::new(&SHA256);
    for root in question.roots {
        roots.update(digest(&SHA256, root).as_ref());
    }
    let mut claims = json!({
        "eat_profile": PROFILE,
        "eat_nonce": question.nonce.to_base64url(),
        "iat": question.now,
        // What the policy finds too old as evidence is no news as a result either.
        "exp": question.now.saturating_add(question.policy.max_age_s),
        "assertd_result": overall,
        "assertd_policy": BASE64URL.encode(Policy::digest(policy_text)),
        "assertd_roots": BASE64URL.encode(roots.finish()),
        "assertd_evidence": BASE64URL.encode(digest(&SHA256, question.evidence)),
        "assertd_verdicts": verdicts,
    });
    if overall == Overall::Passed {
        if let Some(host) = report.verified_host() {
            claims["assertd_host"] = json!(host);
            claims["assertd_tpms"] = tpms(host, question.registry, report);
        }
        let keys = report.keys.iter().map(|key| {
            let mut jwk = json!(key.jwk);
            jwk["alg"] = json!(key.alg);
            jwk["kid"] = json!(key.jwk.kid());
            let submodule = json!({
                "cnf": { "jwk": jwk },
                "assertd_keystore": key.keystore,
                "assertd_purpose": key.purpose,
                "assertd_level": key.level,
                "assertd_imported": key.imported,
                "assertd_use_by": key.use_by,
            });
            (key.key.to_string(), submodule)
        });
        let keys: Map<String, Value> = keys.collect();
        if !keys.is_empty() {
            claims["submods"] = Value::Object(keys);
        }
    }
    claims
}

/// By which TPMs it is this host: a registry is no part of a policy, and says which these are.
fn tpms(host: &Host, registry: &Registry, report: &Report) -> Value {
    let is_enrolled =
        |it: &&Verdict| it.check == Check::AkEnrolled && it.outcome == Outcome::Passed;
    let enrolled = report.verdicts.iter().filter(is_enrolled);
    let enrolled = enrolled.filter_map(|it| registry.find(host, &it.about));
    let tpm =
        |it: &Enrolled| json!({ "keystore": it.keystore, "ek": it.ek, "ak_name": it.ak_name });
    enrolled.map(tpm).collect()
}

/// A verifier's key.
pub struct VerifierKey {
    pair: EcdsaKeyPair,
    public: PublicKey,
}

impl VerifierKey {
    /// Of a private key on P-256.
    ///
    /// # Errors
    /// It is of another kind, or damaged.
    pub fn new(key: &PrivateKey) -> Result<VerifierKey, Error> {
        let unusable = || Error::new(Kind::Unsupported, "the verifier's key is not one on P-256");
        let (public, parts) = key.read()?;
        let (Parts::P256(secret), PublicKey::P256 { x, y }) = (parts, &public) else {
            return Err(unusable());
        };
        let point = [&[4], &x[..], &y[..]].concat();
        let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let pair = EcdsaKeyPair::from_private_key_and_public_key(algorithm, secret, &point);
        let pair = pair.map_err(|_| unusable())?;
        Ok(VerifierKey { pair, public })
    }

    /// By which a relying party verifies.
    pub fn public(&self) -> &PublicKey {
        &self.public
    }

    /// The token of these claims.
    ///
    /// # Errors
    /// No random bytes from the operating system.
    pub fn sign(&self, claims: &Value) -> Result<String, Error> {
        let header = json!({ "alg": Alg::ES256, "typ": TYP, "kid": self.public.kid() });
        let [header, payload] = [&header, claims].map(|it| BASE64URL.encode(it.to_string()));
        let input = format!("{header}.{payload}");
        let signature = self.pair.sign(&SystemRandom::new(), input.as_bytes());
        let signature = signature
            .map_err(|_| Error::new(Kind::Internal, "no random bytes from the operating system"))?;
        Ok(format!("{input}.{}", BASE64URL.encode(signature)))
    }
}
