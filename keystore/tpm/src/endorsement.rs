//! The endorsement key: the one that the TPM was born with and its maker has certified. It signs nothing;
//! what others encrypt to it proves that the attestation key is in the same TPM. Owns its templates and
//! the certificates in NV (TCG EK Credential Profile for TPM Family 2.0, 2.5: §2.2.1, annex B).

use crate::attestationkey::primary_of_endorsement;
use crate::codes::{Code, Cure};
use crate::connection::{Connection, Lasting};
use crate::failure::Failure;
use crate::{nv, template};
use keystore::evidence::bundle::{CERTIFICATE_LEN_MAX, CHAIN_MAX};
use keystore::evidence::ekcert;
use keystore::protocol::Credential;
use keystore::{Error, Kind, der};
use tss_esapi::constants::SessionType;
use tss_esapi::handles::{AuthHandle, KeyHandle, PersistentTpmHandle, SessionHandle, TpmHandle};
use tss_esapi::interface_types::algorithm::HashingAlgorithm;
use tss_esapi::interface_types::session_handles::{AuthSession, PolicySession};
use tss_esapi::structures::{
    Digest, EncryptedSecret, IdObject, Nonce, Public, SymmetricDefinition,
};
use tss_esapi::{Context, WrapperErrorKind};
use zeroize::Zeroizing;

/// Where a chip's certificates are, from the key's own to the authorities'.
const CERTIFICATE_RSA: u32 = 0x01c0_0002;
const CERTIFICATE_P256: u32 = 0x01c0_000a;
const CHAIN: std::ops::RangeInclusive<u32> = 0x01c0_0100..=0x01c0_01ff;

/// Where firmware and system managers keep an RSA key that was made once: making it anew takes a chip
/// seconds (TPM v2.0 Provisioning Guidance §7.8).
const PERSISTENT_RSA: u32 = 0x8101_0001;

/// Bytes of certificates that are handed out: a message of the keystore's protocol has 64 KiB.
const CERTIFICATES_LEN_MAX: usize = 40 * 1024;

/// Which of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Template {
    /// L-1
    Rsa2048,
    /// L-2
    P256,
}

impl Template {
    fn public(self) -> Public {
        match self {
            Template::Rsa2048 => template::endorsement_rsa(),
            Template::P256 => template::endorsement_p256(),
        }
    }
}

/// In the TPM for one command, or for good.
struct Loaded {
    handle: KeyHandle,
    public: Public,
    place: Place,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Transient,
    Persistent,
}

impl Connection {
    /// Opens what was encrypted to the endorsement key for our attestation key.
    pub fn activate(
        &mut self,
        lasting: &Lasting,
        credential: &Credential,
    ) -> Result<Zeroizing<Vec<u8>>, Failure> {
        let (place, doing) = (&lasting.place, "activating a credential");
        let failed = |error: tss_esapi::Error| Failure::of(place, doing, &error);
        let malformed = |_| {
            let text = format!("{place}: {doing}: it is no credential; make it anew");
            Error::new(Kind::Mismatch, text)
        };
        let blob = IdObject::try_from(credential.blob.as_slice().to_vec()).map_err(malformed)?;
        let secret = EncryptedSecret::try_from(credential.secret.as_slice().to_vec());
        let secret = secret.map_err(malformed)?;
        let (which, _) = self.certificate(place)?;
        let (ak, _) = self.bring_ak(lasting)?;
        let endorsement = self.load(which, place)?;
        // Whatever fails from here on, the place it took is given back.
        let opened = self.open_credential(ak, endorsement.handle, blob, secret);
        self.unload(&endorsement, place)?;
        let opened = match opened {
            Ok(opened) => opened,
            Err(error) => return Err(self.not_opened(failed(error), place)),
        };
        Ok(Zeroizing::new(opened.value().to_vec()))
    }

    /// A TPM that cannot undo a padding may say of itself that it is in failure mode, in which it would
    /// answer nothing else either.
    fn not_opened(&mut self, failure: Failure, place: &str) -> Failure {
        let is_about_it = match failure.error.kind() {
            Kind::Mismatch | Kind::Unsupported | Kind::Internal => true,
            Kind::Unavailable if failure.cure == Cure::Forget => self.context.get_random(8).is_ok(),
            _ => false,
        };
        if !is_about_it {
            return failure;
        }
        let text = format!(
            "{place}: the challenge is not for this TPM and its attestation key; have one made of the \
             identity that it shows now"
        );
        Failure {
            error: Error::new(Kind::Mismatch, text),
            cure: failure.cure,
        }
    }

    fn open_credential(
        &mut self,
        ak: KeyHandle,
        endorsement: KeyHandle,
        blob: IdObject,
        secret: EncryptedSecret,
    ) -> tss_esapi::Result<Digest> {
        let session = self.session.next(&mut self.context, self.primary)?;
        let policy = policy_a(&mut self.context)?;
        let sessions = (Some(session), Some(policy), None);
        let opened = self.context.execute_with_sessions(sessions, |c| {
            c.activate_credential(ak, endorsement, blob, secret)
        });
        let flushed = self
            .context
            .flush_context(SessionHandle::from(policy).into());
        let opened = opened?;
        flushed?;
        Ok(opened)
    }

    /// The template that has a certificate, and that; P-256 before RSA, since it is there in no time, and
    /// where there is none.
    pub fn certificate(&mut self, place: &str) -> Result<(Template, Option<Vec<u8>>), Failure> {
        for (which, index) in [
            (Template::P256, CERTIFICATE_P256),
            (Template::Rsa2048, CERTIFICATE_RSA),
        ] {
            let Some(bytes) = nv::read(&mut self.context, index, CERTIFICATE_LEN_MAX, place)?
            else {
                continue;
            };
            if let Some((certificate, _)) = der::first(&bytes) {
                return Ok((which, Some(certificate.to_vec())));
            }
        }
        Ok((Template::P256, None))
    }

    /// The certificates of authorities: the indices hold one text together (§2.2.1.5.2).
    pub fn chain(&mut self, place: &str, before: usize) -> Result<Vec<Vec<u8>>, Failure> {
        let mut bytes = Vec::new();
        for index in nv::indices(&mut self.context, CHAIN, place)? {
            let room = CERTIFICATES_LEN_MAX.saturating_sub(before + bytes.len());
            match nv::read(&mut self.context, index, room, place)? {
                Some(part) => bytes.extend(part),
                None => break,
            }
        }
        Ok(split(&bytes))
    }

    /// Its public area. An RSA key that is not kept takes a chip seconds to make anew, at every start: its
    /// maker says in the certificate which one it is. Whether it is in this TPM is not believed anyway but
    /// shown, once, by what it opens.
    pub fn endorsement_public(
        &mut self,
        which: Template,
        certificate: Option<&[u8]>,
        place: &str,
    ) -> Result<Public, Failure> {
        let template = which.public();
        let kept = match which {
            Template::Rsa2048 => persistent(&mut self.context, &template, place)?,
            Template::P256 => None,
        };
        let certified = || {
            let key = ekcert::subject_key(certificate?).ok()?;
            template::endorsement_rsa_of(&key)
        };
        let loaded = match (kept, certified()) {
            (Some(kept), _) => kept,
            (None, Some(public)) => return Ok(public),
            (None, None) => self.load(which, place)?,
        };
        self.unload(&loaded, place)?;
        Ok(loaded.public)
    }

    /// The endorsement key, in the TPM until [`Self::unload`].
    fn load(&mut self, which: Template, place: &str) -> Result<Loaded, Failure> {
        let template = which.public();
        if which == Template::Rsa2048
            && let Some(loaded) = persistent(&mut self.context, &template, place)?
        {
            return Ok(loaded);
        }
        let limit = self.slots.capacity();
        self.slots.make_room(&mut self.context, limit, place)?;
        let (handle, public) = primary_of_endorsement(&mut self.context, template, place)?;
        Ok(Loaded {
            handle,
            public,
            place: Place::Transient,
        })
    }

    fn unload(&mut self, loaded: &Loaded, place: &str) -> Result<(), Failure> {
        let failed = |error| Failure::of(place, "letting the endorsement key go", &error);
        match loaded.place {
            Place::Transient => self.context.flush_context(loaded.handle.into()),
            Place::Persistent => self.context.tr_close(&mut loaded.handle.into()),
        }
        .map_err(failed)
    }
}

/// The key at its usual place, if it is one of this template.
fn persistent(
    context: &mut Context,
    template: &Public,
    place: &str,
) -> Result<Option<Loaded>, Failure> {
    let failed = |e: tss_esapi::Error| Failure::of(place, "looking for an endorsement key", &e);
    let handle = PersistentTpmHandle::new(PERSISTENT_RSA).map_err(failed)?;
    let object =
        context.execute_without_session(|c| c.tr_from_tpm_public(TpmHandle::Persistent(handle)));
    let mut object = match object {
        Ok(object) => object,
        Err(error) if Code::of(&error).is_some_and(Code::is_no_such_handle) => {
            return Ok(None);
        }
        Err(error) => return Err(failed(error)),
    };
    let handle = KeyHandle::from(object);
    let read = context.execute_without_session(|c| c.read_public(handle));
    match read {
        Ok((public, _, _)) if template::is_like(&public, template) => Ok(Some(Loaded {
            handle,
            public,
            place: Place::Persistent,
        })),
        other => {
            context.tr_close(&mut object).map_err(failed)?; // forgets it, and leaves it where it is
            other.map(|_| None).map_err(failed)
        }
    }
}

/// A session that has met the policy of the endorsement key: who uses it may use the endorsement
/// hierarchy, whose auth value is empty.
fn policy_a(context: &mut Context) -> tss_esapi::Result<AuthSession> {
    let session = context
        .execute_without_session(|c| {
            c.start_auth_session(
                None,
                None,
                None,
                SessionType::Policy,
                SymmetricDefinition::AES_128_CFB,
                HashingAlgorithm::Sha256,
            )
        })?
        .ok_or(tss_esapi::Error::WrapperError(
            WrapperErrorKind::WrongValueFromTpm,
        ))?;
    let (attributes, mask) = tss_esapi::attributes::SessionAttributesBuilder::new()
        .with_continue_session(true) // so that it is ours to flush, whatever comes
        .build();
    let met = context
        .tr_sess_set_attributes(session, attributes, mask)
        .and_then(|()| {
            let policy = PolicySession::try_from(session)?;
            context.execute_with_session(Some(AuthSession::Password), |c| {
                c.policy_secret(
                    policy,
                    AuthHandle::Endorsement,
                    Nonce::default(),
                    Digest::default(),
                    Nonce::default(),
                    None,
                )
            })
        });
    match met {
        Ok(_) => Ok(session),
        Err(error) => {
            let _ = context.flush_context(SessionHandle::from(session).into());
            Err(error) // which came first
        }
    }
}

/// Certificates that stand one behind the other, up to what is none.
fn split(bytes: &[u8]) -> Vec<Vec<u8>> {
    let (mut left, mut certificates) = (bytes, Vec::new());
    while certificates.len() < CHAIN_MAX
        && let Some((certificate, rest)) = der::first(left)
        && certificate.len() <= CERTIFICATE_LEN_MAX
    {
        certificates.push(certificate.to_vec());
        left = rest;
    }
    certificates
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certificate(len: usize) -> Vec<u8> {
        der::element(der::SEQUENCE, &vec![7; len])
    }

    #[test]
    fn what_fills_an_index_up_is_no_part_of_a_certificate() {
        let certificate = certificate(300);
        for tail in [&[][..], &[0, 0, 0], &[0xff; 9]] {
            let bytes = [&certificate, tail].concat();
            assert_eq!(
                split(&bytes),
                std::slice::from_ref(&certificate),
                "{tail:?}"
            );
        }
    }

    #[test]
    fn a_chain_has_an_end() {
        let many = certificate(300).repeat(CHAIN_MAX + 3);
        assert_eq!(split(&many).len(), CHAIN_MAX);
        assert!(split(&certificate(CERTIFICATE_LEN_MAX)).is_empty());
        assert!(split(&[0; 40]).is_empty());
    }
}
