//! What the TPM signs of our keys and of the host, with the attestation key. Every statement is read and
//! its signature verified before it leaves this process: what is handed out says what it was made for.

use crate::attestationkey::{self, StoredAk};
use crate::bond::Bond;
use crate::codes::Cure;
use crate::connection::{Connection, Lasting};
use crate::failure::Failure;
use crate::{pcrs, sign, template};
use aws_lc_rs::digest::{SHA256, digest};
use keystore::backend::{ObjectId, Testimony};
use keystore::evidence::bundle::{Bytes, Quote, Selection};
use keystore::evidence::context::Sha256;
use keystore::{Alg, Error, Kind, PublicKey};
use tss_esapi::handles::KeyHandle;
use tss_esapi::structures::{Attest, AttestInfo, Data, Signature, SignatureScheme};
use tss_esapi::traits::Marshall;

/// What the attestation key says of itself when the TPM is opened, to find out whether it can.
const TRIAL: &[u8] = b"assertd-attest-v1\0trial\0";

/// PCRs may change between reading and quoting them so often; then something is wrong.
const QUOTES_MAX: usize = 4;

impl Connection {
    /// TPM2_Certify of a key of ours.
    pub fn certify(
        &mut self,
        lasting: &Lasting,
        object: ObjectId,
        public_key: &PublicKey,
        about: &Sha256,
    ) -> Result<Testimony, Failure> {
        let place = &lasting.place;
        let (_, ak) = self.bring_ak(lasting)?;
        let stored = lasting.keys.read(object)?;
        let is_in_use = self.slots.loaded_handle(object).is_some();
        let (key, loaded) = self.bring(lasting, object, &|| lasting.keys.read(object))?;
        if loaded != *public_key || stored.public_key != *public_key {
            let text = format!(
                "{place}: object {object} has another public key (kid {}) than was recorded (kid {}); \
                 nothing is said of it; find out who put it there",
                stored.public_key.kid(),
                public_key.kid()
            );
            return Err(Error::new(Kind::Mismatch, text).into());
        }
        let Some(signer) = self.slots.loaded_handle(attestationkey::OBJECT) else {
            let text = format!(
                "{place}: has no room for a key and the attestation key at the same time; end programs \
                 that use it"
            );
            // Others took a place; how many there are is asked anew with the next connection.
            return Err(Failure {
                error: Error::new(Kind::Unavailable, text),
                cure: Cure::Room,
            });
        };
        let doing = format!("certifying object {object}");
        let failed = |error: tss_esapi::Error| Failure::of(place, &doing, &error);
        let (attest, signature) = self.certified(lasting, key, signer, about, &doing)?;
        if !is_in_use {
            self.slots.first_to_go(object); // not a key that a workload uses, nor ours, for the next
        }
        let name = template::name(&stored.public).map_err(failed)?;
        let is_it = match attest.attested() {
            AttestInfo::Certify { info } => info.name().value() == name,
            _ => false,
        };
        let (attest, signature) = checked(lasting, &ak, &attest, &signature, about, is_it, &doing)?;
        let too_long = || Error::new(Kind::Internal, format!("{place}: {doing}: it is too long"));
        Ok(Testimony::Certified {
            public: Bytes::new(template::marshalled(&stored.public).map_err(failed)?)
                .ok_or_else(too_long)?,
            attest: Bytes::new(attest).ok_or_else(too_long)?,
            signature: Bytes::new(signature).ok_or_else(too_long)?,
            policy: stored.bond.as_deref().map(Bond::steps),
        })
    }

    /// Whether the attestation key works: it certifies itself.
    pub fn try_ak(&mut self, lasting: &Lasting) -> Result<(), Failure> {
        let (place, doing) = (&lasting.place, "trying the attestation key");
        let (handle, ak) = self.bring_ak(lasting)?;
        let about: Sha256 = digest(&SHA256, TRIAL)
            .as_ref()
            .try_into()
            .expect("SHA-256 has 32 bytes");
        let (attest, signature) = self.certified(lasting, handle, handle, &about, doing)?;
        let name = template::name(&ak.public);
        let name = name.map_err(|error| Failure::of(place, doing, &error))?;
        let is_it = match attest.attested() {
            AttestInfo::Certify { info } => info.name().value() == name,
            _ => false,
        };
        checked(lasting, &ak, &attest, &signature, &about, is_it, doing)?;
        Ok(())
    }

    fn certified(
        &mut self,
        lasting: &Lasting,
        key: KeyHandle,
        signer: KeyHandle,
        about: &Sha256,
        doing: &str,
    ) -> Result<(Attest, Signature), Failure> {
        let failed = |error: tss_esapi::Error| Failure::of(&lasting.place, doing, &error);
        let about = Data::try_from(about.as_slice()).map_err(failed)?;
        let first = (self.session.next(&mut self.context, self.primary)).map_err(failed)?;
        let second = self.session.second(&mut self.context).map_err(failed)?;
        let sessions = (Some(first), Some(second), None);
        let certified = self.context.execute_with_sessions(sessions, |c| {
            c.certify(key.into(), signer, about, SignatureScheme::Null)
        });
        let given_back = self.session.give_back_second(&mut self.context);
        let certified = certified.map_err(failed)?;
        given_back.map_err(failed)?;
        Ok(certified)
    }

    /// TPM2_Quote, with the values it is about.
    pub fn quote(
        &mut self,
        lasting: &Lasting,
        selection: &Selection,
        about: &Sha256,
    ) -> Result<Quote, Failure> {
        let (place, doing) = (&lasting.place, "quoting PCRs");
        let failed = |error: tss_esapi::Error| Failure::of(place, doing, &error);
        let (signer, ak) = self.bring_ak(lasting)?;
        for _ in 0..QUOTES_MAX {
            let values = pcrs::read(&mut self.context, selection, place)?;
            let list = pcrs::list(selection).map_err(failed)?;
            let data = Data::try_from(about.as_slice()).map_err(failed)?;
            let session = (self.session.next(&mut self.context, self.primary)).map_err(failed)?;
            let (attest, signature) = self
                .context
                .execute_with_session(Some(session), |c| {
                    c.quote(signer, data, SignatureScheme::Null, list)
                })
                .map_err(failed)?;
            let quoted = match attest.attested() {
                AttestInfo::Quote { info } => Some(info.pcr_digest().value().to_vec()),
                _ => None,
            };
            let is_quote = quoted.is_some();
            let (bytes, signature) =
                checked(lasting, &ak, &attest, &signature, about, is_quote, doing)?;
            if quoted.as_deref() != Some(pcrs::digest_of(&values).as_slice()) {
                continue; // somebody has extended one meanwhile
            }
            let too_long = || Error::new(Kind::Internal, format!("{place}: a quote is too long"));
            return Ok(Quote {
                attest: Bytes::new(bytes).ok_or_else(too_long)?,
                signature: Bytes::new(signature).ok_or_else(too_long)?,
                pcrs: values,
            });
        }
        let text = format!("{place}: its PCRs go on changing; do this again");
        Err(Error::new(Kind::Unavailable, text).into())
    }
}

/// TPMS_ATTEST and TPMT_SIGNATURE as bytes, if they are what was asked for.
fn checked(
    lasting: &Lasting,
    ak: &StoredAk,
    attest: &Attest,
    signature: &Signature,
    about: &Sha256,
    is_it: bool,
    doing: &str,
) -> Result<(Vec<u8>, Vec<u8>), Failure> {
    let place = &lasting.place;
    let failed = |error: tss_esapi::Error| Failure::of(place, doing, &error);
    let bytes = attest.marshall().map_err(failed)?;
    let verifier = ak.public_key.verifier(Alg::ES256)?;
    let is_signed = sign::jws_signature(Alg::ES256, signature)
        .is_some_and(|signature| verifier.verify(&bytes, &signature).is_ok());
    if !is_it || attest.extra_data().value() != about || !is_signed {
        let text = format!(
            "{place}: {doing}: what it signed is not what it was asked for; it is not handed out; find \
             out what sits between the TPM and this machine"
        );
        return Err(Error::new(Kind::Mismatch, text).into());
    }
    Ok((bytes, signature.marshall().map_err(failed)?))
}
