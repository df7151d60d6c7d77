//! Who the TPM is: what it says of itself, the keys by which others know it, and whether it can prove
//! anything. All of it is read when the TPM is opened, which takes dozens of commands; later it is only
//! asked whether it is the same one still.

use crate::attestationkey;
use crate::connection::{Connection, Lasting};
use crate::failure::Failure;
use crate::template;
use keystore::evidence::bundle::{AttestationKey, Bytes, EndorsementKey, Firmware, Text, Tpm};
use keystore::{Error, Kind};
use tss_esapi::constants::PropertyTag;

impl Connection {
    /// When the TPM is opened: whether it can prove anything, and what it is then. The attestation key
    /// leaves its place to the workloads' again.
    pub fn introduce(&mut self, lasting: &Lasting) -> Result<Tpm, Failure> {
        self.try_ak(lasting)?;
        let tpm = self.identity(lasting, None)?;
        self.slots
            .put_away(&mut self.context, attestationkey::OBJECT, &lasting.place)?;
        Ok(tpm)
    }

    /// What the TPM is, with the keys by which others know it. `known` is what it was found to be before:
    /// while our attestation key loads into it, it is the same TPM with the same endorsement key.
    pub fn identity(&mut self, lasting: &Lasting, known: Option<&Tpm>) -> Result<Tpm, Failure> {
        let ak = self.shown_ak(lasting)?;
        let (ek, family_revision) = match known {
            Some(known) if known.ak == ak => (known.ek.clone(), known.family_revision.clone()),
            _ => (
                self.shown_ek(&lasting.place)?,
                self.revision(&lasting.place)?,
            ),
        };
        let (first, second) = self.chip.firmware;
        Ok(Tpm {
            manufacturer: Text::cut(&self.chip.maker),
            vendor: Text::cut(&self.chip.model),
            firmware: Firmware(u64::from(first) << 32 | u64::from(second)),
            family_revision,
            ek,
            ak,
        })
    }

    fn revision(&mut self, place: &str) -> Result<Text, Failure> {
        let revision = self.context.get_tpm_property(PropertyTag::Revision);
        let revision = revision
            .map_err(|error| Failure::of(place, "asking for its revision", &error))?
            .unwrap_or_default();
        Ok(Text::cut(&format!(
            "{}.{:02}",
            revision / 100,
            revision % 100
        )))
    }

    /// The attestation key, which is in the TPM now, and what it is below.
    fn shown_ak(&mut self, lasting: &Lasting) -> Result<AttestationKey, Failure> {
        let place = &lasting.place;
        let failed = |error| Failure::of(place, "reading the attestation key", &error);
        let (handle, ak) = self.bring_ak(lasting)?;
        let (_, _, qualified_name) = self
            .context
            .execute_without_session(|c| c.read_public(handle))
            .map_err(failed)?;
        let nothing_above = || {
            let text = format!("{place}: the attestation key was not loaded by this connection");
            Error::new(Kind::Internal, text)
        };
        let parent = self.above_ak.as_ref().ok_or_else(nothing_above)?;
        Ok(AttestationKey {
            public: bounded(template::marshalled(&ak.public).map_err(failed)?, place)?,
            qualified_name: bounded(qualified_name.value().to_vec(), place)?,
            parent: bounded(template::marshalled(parent).map_err(failed)?, place)?,
        })
    }

    /// The endorsement key, with what its maker has put into NV.
    fn shown_ek(&mut self, place: &str) -> Result<EndorsementKey, Failure> {
        let (which, certificate) = self.certificate(place)?;
        let chain = match &certificate {
            Some(certificate) => self.chain(place, certificate.len())?,
            None => Vec::new(),
        };
        let public = self.endorsement_public(which, certificate.as_deref(), place)?;
        let public = template::marshalled(&public)
            .map_err(|error| Failure::of(place, "reading the endorsement key", &error))?;
        Ok(EndorsementKey {
            public: bounded(public, place)?,
            certificate: certificate.map(|der| bounded(der, place)).transpose()?,
            chain: chain
                .into_iter()
                .map(|der| bounded(der, place))
                .collect::<Result<_, _>>()?,
        })
    }
}

fn bounded<const MAX: usize>(bytes: Vec<u8>, place: &str) -> Result<Bytes<MAX>, Error> {
    Bytes::new(bytes).ok_or_else(|| {
        let text = format!("{place}: one of its keys or certificates is too long");
        Error::new(Kind::Internal, text)
    })
}
