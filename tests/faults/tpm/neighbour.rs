//! Another program on the same TPM, without any manners but one: what it takes it gives back when it
//! is asked to, or when it ends.

use std::str::FromStr;
use tss_esapi::Context;
use tss_esapi::attributes::ObjectAttributesBuilder;
use tss_esapi::constants::SessionType;
use tss_esapi::handles::{KeyHandle, SessionHandle};
use tss_esapi::interface_types::algorithm::{HashingAlgorithm, PublicAlgorithm};
use tss_esapi::interface_types::ecc::EccCurve;
use tss_esapi::interface_types::resource_handles::Hierarchy;
use tss_esapi::interface_types::session_handles::AuthSession;
use tss_esapi::structures::{
    Auth, EccPoint, EccScheme, HashScheme, Public, PublicBuilder, PublicEccParametersBuilder,
    SymmetricDefinition,
};
use tss_esapi::tcti_ldr::TctiNameConf;

/// Its auth value, where one is asked for.
pub const RIGHT: &[u8] = b"right";

/// What it has of the TPM.
pub struct Neighbour {
    pub context: Context,
    objects: Vec<KeyHandle>,
    sessions: Vec<AuthSession>,
}

impl Neighbour {
    /// On this TPM, with nothing yet.
    pub fn at(tcti: &str) -> Neighbour {
        Neighbour {
            context: Context::new(TctiNameConf::from_str(tcti).unwrap()).unwrap(),
            objects: Vec::new(),
            sessions: Vec::new(),
        }
    }

    /// Takes a place for an object; false if there is none.
    pub fn take_object(&mut self) -> bool {
        let made = self.make(&[]);
        self.objects.extend(made);
        made.is_some()
    }

    /// Takes a place for a session; false if there is none.
    pub fn take_session(&mut self) -> bool {
        let started = self.start_session();
        self.sessions.extend(started);
        started.is_some()
    }

    /// A session; `None` if the TPM starts none.
    pub fn start_session(&mut self) -> Option<AuthSession> {
        let started = self.context.execute_without_session(|c| {
            c.start_auth_session(
                None,
                None,
                None,
                SessionType::Hmac,
                SymmetricDefinition::AES_128_CFB,
                HashingAlgorithm::Sha256,
            )
        });
        started.ok().flatten()
    }

    /// A key that whoever has its auth value may sign with, and that counts wrong ones; `None` if
    /// there is no place for it.
    pub fn make(&mut self, auth: &[u8]) -> Option<KeyHandle> {
        let auth = Auth::try_from(auth.to_vec()).unwrap();
        let made = self
            .context
            .execute_with_session(Some(AuthSession::Password), |c| {
                c.create_primary(
                    Hierarchy::Owner,
                    signing_key(),
                    Some(auth),
                    None,
                    None,
                    None,
                )
            });
        made.ok().map(|made| made.key_handle)
    }

    /// Whether everything that it has taken is still there.
    pub fn has_all(&mut self) -> bool {
        let objects = self.objects.clone();
        objects
            .into_iter()
            .all(|object| self.context.read_public(object).is_ok())
    }

    /// Gives everything back.
    pub fn leave(&mut self) {
        for object in self.objects.drain(..) {
            self.context.flush_context(object.into()).unwrap();
        }
        for session in self.sessions.drain(..) {
            let session = SessionHandle::from(session);
            self.context.flush_context(session.into()).unwrap();
        }
    }
}

/// One that is subject to the TPM's lockout: no noDA.
fn signing_key() -> Public {
    let attributes = ObjectAttributesBuilder::new()
        .with_fixed_tpm(true)
        .with_fixed_parent(true)
        .with_sensitive_data_origin(true)
        .with_user_with_auth(true)
        .with_sign_encrypt(true)
        .build()
        .unwrap();
    let scheme = EccScheme::EcDsa(HashScheme::new(HashingAlgorithm::Sha256));
    let parameters =
        PublicEccParametersBuilder::new_unrestricted_signing_key(scheme, EccCurve::NistP256)
            .build()
            .unwrap();
    PublicBuilder::new()
        .with_public_algorithm(PublicAlgorithm::Ecc)
        .with_name_hashing_algorithm(HashingAlgorithm::Sha256)
        .with_object_attributes(attributes)
        .with_ecc_parameters(parameters)
        .with_ecc_unique_identifier(EccPoint::default())
        .build()
        .unwrap()
}
