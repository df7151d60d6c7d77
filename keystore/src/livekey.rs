//! A recorded key as the token shows it: looked up, compared with its record, and made to sign a
//! probe before it is used for anything (B-SIG-1).

use crate::backend::{Backend, ObjectId};
use crate::jws::SigningInput;
use crate::protocol::{Condition, Evidence, EvidenceLevel, KeyEntry};
use crate::publickey::WrongSignature;
use crate::{Certificate, CertificateUse, Charter, Error, KeyId, Kid, Kind, PublicKey};
use serde::{Deserialize, Serialize};

/// A key as minting uses it.
#[derive(Clone)]
pub struct LiveKey {
    pub object: ObjectId,
    pub charter: Charter,
    pub public_key: PublicKey,
    pub kid: Kid,
    pub evidence: Evidence,
    pub condition: Condition,
    pub certificate: Option<Certificate>,
    pub origin: Origin,
}

/// How a version came to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// Root had it made, under a charter of its own.
    #[default]
    Made,
    /// The broker had it made, under the charter of the version before.
    Next,
    /// Root brought it in; it has been elsewhere, whatever the token says of it.
    Imported,
    /// It was in the token.
    Adopted,
}

impl Origin {
    /// Whether it is the one that records of old do not mention.
    pub fn is_made(&self) -> bool {
        *self == Origin::Made
    }
}

impl LiveKey {
    /// As it stands in its record; nothing is known of it yet.
    pub fn recorded(object: ObjectId, charter: Charter, public_key: PublicKey) -> LiveKey {
        LiveKey {
            object,
            charter,
            kid: public_key.kid(),
            public_key,
            evidence: Evidence {
                level: EvidenceLevel::None,
                imported: false,
            },
            condition: Condition::Usable {},
            certificate: None,
            origin: Origin::Made,
        }
    }

    /// Whether its assertions are to name a certificate, and it has none.
    pub fn lacks_certificate(&self) -> bool {
        self.charter.certificate == CertificateUse::Named && self.certificate.is_none()
    }

    /// Whether it signs.
    pub fn is_usable(&self) -> bool {
        self.condition == Condition::Usable {}
    }

    /// Whether it was only not there when it was looked at.
    pub fn may_come_back(&self) -> bool {
        let kind = match self.condition {
            Condition::Usable {} => return false,
            Condition::Failed { kind, .. } => kind,
        };
        match kind {
            Kind::Unavailable | Kind::Absent | Kind::NotFound => true,
            // Approvals come, and so do states of the host.
            Kind::Unhealthy => true,
            // A module that is ill also says that it cannot do what it did.
            Kind::Internal | Kind::Unsupported => true,
            _ => false,
        }
    }

    /// Whether it does not sign because of the state that the host is in.
    pub fn is_unhealthy(&self) -> bool {
        let kind = Kind::Unhealthy;
        matches!(&self.condition, Condition::Failed { kind: of, .. } if *of == kind)
    }

    /// As it is listed.
    pub fn entry(&self, key: &KeyId) -> KeyEntry {
        KeyEntry {
            key: key.clone(),
            kid: self.kid.clone(),
            public_key: self.public_key.clone(),
            charter: self.charter.clone(),
            evidence: self.evidence,
            condition: self.condition.clone(),
            certificate: self.certificate.clone(),
        }
    }
}

/// Looks a recorded key up in the token and lets it sign a probe. What it was before does not count.
pub fn look<B: Backend>(backend: &B, key: &KeyId, mut live: LiveKey) -> LiveKey {
    let failed = |error: Error| Condition::Failed {
        kind: error.kind(),
        why: error.to_string(),
    };
    let compared = compare(backend, key, &live);
    let tried = compared.and_then(|evidence| match probe(backend, key, &live) {
        Ok(()) => Ok((evidence, Condition::Usable {})),
        Err(error) if error.kind() == Kind::Unhealthy => Ok((evidence, failed(error))),
        Err(error) => Err(error),
    });
    (live.evidence, live.condition) = match tried {
        Ok(seen) => seen,
        Err(error) => {
            let unknown = Evidence {
                level: EvidenceLevel::None,
                imported: false,
            };
            (unknown, failed(error))
        }
    };
    live.evidence.imported |= live.origin == Origin::Imported;
    live
}

/// Whether the token still shows a key as it was recorded, without using it.
///
/// # Errors
/// `NotFound`; `Mismatch` for another public key, or one that could do more than sign.
pub fn compare<B: Backend>(backend: &B, key: &KeyId, live: &LiveKey) -> Result<Evidence, Error> {
    let token = backend.describe();
    let inspection = backend
        .inspect(live.object)
        .map_err(|error| match error.kind() {
            Kind::NotFound => Error::new(
                Kind::NotFound,
                format!(
                    "key {key} (kid {}): recorded, but {token} does not show object {}; bring that \
                     token back or restore it from its backup; nothing was made in its place",
                    live.kid, live.object
                ),
            )
            .because(error),
            Kind::Mismatch => Error::new(
                Kind::Mismatch,
                format!("key {key} (kid {}): {error}", live.kid),
            ),
            _ => error,
        })?;
    if inspection.public_key != live.public_key {
        return Err(Error::new(
            Kind::Mismatch,
            format!(
                "key {key} (kid {}): object {} in {token} has another public key; it is not \
                     used and not destroyed; find out who put it there",
                live.kid, live.object
            ),
        ));
    }
    Ok(inspection.evidence)
}

/// B-SIG-1: a fixed probe is signed and verified before the key is used for anything.
pub fn probe<B: Backend>(backend: &B, key: &KeyId, live: &LiveKey) -> Result<(), Error> {
    let alg = live.charter.alg;
    let input = SigningInput::probe(alg, &live.object.to_string());
    let signature = backend.sign(live.object, &live.public_key, alg, input.as_bytes())?;
    let verifier = live.public_key.verifier(alg)?;
    let _valid = verifier
        .verify(input.as_bytes(), &signature)
        .map_err(|WrongSignature| {
            Error::new(
                Kind::Mismatch,
                format!(
                    "key {key}: {} signs {alg} wrongly (start-up probe); the key is not used; \
                     check the module's version and mechanism list",
                    backend.describe()
                ),
            )
        })?;
    Ok(())
}
