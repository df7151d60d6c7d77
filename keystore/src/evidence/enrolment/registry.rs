//! What a verifier has learned: which attestation key is in the TPM of which endorsement key, and which
//! host that is. A TPM is one host's, and an attestation key is in one TPM; what says otherwise is a
//! copy, and is refused.

use crate::evidence::bundle::{Bytes, Host, NAME_LEN_MAX, Text, check_keystore, hex, to_hex};
use crate::evidence::context::Sha256;
use crate::evidence::public::PublicArea;
use crate::evidence::wire::Wrong;
use crate::shown::unread;
use crate::textual::textual;
use aws_lc_rs::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

/// Longest registry, in bytes of JSON.
pub const REGISTRY_LEN_MAX: usize = 256 * 1024 * 1024;

/// SHA-256 of a public endorsement key (SubjectPublicKeyInfo in DER), in hexadecimal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EkFingerprint(pub Sha256);

/// All that were enrolled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Registry {
    /// What this document is.
    pub r#type: RegistryType,
    /// [`super::VERSION`]
    pub version: u32,
    /// They.
    pub enrolled: Vec<Enrolled>,
}

/// The one value of `type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RegistryType {
    #[serde(rename = "assertd-enrolment-registry")]
    Registry,
}

/// One keystore of one host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Enrolled {
    /// What the operator calls the host.
    pub host: Host,
    /// The keystore's, in the host's configuration.
    pub keystore: Text,
    /// Of its endorsement key.
    pub ek: EkFingerprint,
    /// Name of its attestation key.
    pub ak_name: Bytes<NAME_LEN_MAX>,
    /// The key's Qualified Name.
    pub ak_qualified_name: Bytes<NAME_LEN_MAX>,
    /// Whose TPM it is, by the certificate that was verified then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manufacturer: Option<Text>,
    /// When, in seconds since 1970.
    pub enrolled_at: u64,
    /// As they were in the last evidence that was accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counters: Option<Counters>,
}

/// Of a TPM: they grow, unless it is cleared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Counters {
    /// How often it was reset.
    pub reset: u32,
    /// How often it was restarted or resumed since.
    pub restart: u32,
}

/// Why a host is not enrolled so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Conflict {
    /// Its TPM is another host's.
    SameEk(Host),
    /// Its attestation key was shown to be in another TPM.
    SameAk(Host),
    /// It has another TPM now than this one.
    OtherEk(Host, EkFingerprint),
}

/// Whether a host may have another TPM than it had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replacing {
    /// It must not.
    Refused,
    /// An operator has said so.
    Meant,
}

impl Registry {
    /// With nobody in it.
    pub fn new() -> Registry {
        Registry {
            r#type: RegistryType::Registry,
            version: super::VERSION,
            enrolled: Vec::new(),
        }
    }

    /// Reads one.
    ///
    /// # Errors
    /// A sentence's end: what is wrong with it. One that has a copy in it is wrong as well.
    pub fn parse(json: &[u8]) -> Result<Registry, String> {
        if json.len() > REGISTRY_LEN_MAX {
            return Err(format!("it is longer than {REGISTRY_LEN_MAX} bytes"));
        }
        let mut registry: Registry =
            serde_json::from_slice(json).map_err(|error| unread(&error))?;
        if registry.version != super::VERSION {
            let (found, known) = (registry.version, super::VERSION);
            return Err(format!(
                "its version is {found}, and this program knows {known}"
            ));
        }
        registry.enrolled.sort_by(|a, b| a.place().cmp(&b.place()));
        let pairs = registry.enrolled.windows(2);
        if let Some([twice, _]) = pairs.into_iter().find(|it| it[0].place() == it[1].place()) {
            return Err(format!("it has {} of {} twice", twice.keystore, twice.host));
        }
        registry.has_no_copy()?;
        Ok(registry)
    }

    /// As it is written.
    pub fn to_json(&self) -> String {
        let mut json = serde_json::to_string_pretty(self).expect("it has no map and no float");
        json.push('\n');
        json
    }

    /// What [`Self::check`] would have refused, had it been asked: somebody has edited the file.
    fn has_no_copy(&self) -> Result<(), String> {
        let (mut hosts, mut eks, mut aks) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        for it in &self.enrolled {
            check_keystore(&it.keystore)?;
            if *hosts.entry(it.ek).or_insert(&it.host) != &it.host {
                return Err(format!("it has the TPM {} as two hosts", it.ek));
            }
            if *eks.entry(&it.host).or_insert(it.ek) != it.ek {
                return Err(format!("it has {} with two TPMs", it.host));
            }
            if *aks.entry(it.ak_name.as_slice()).or_insert(it.ek) != it.ek {
                return Err(format!(
                    "it has the attestation key of {} in two TPMs",
                    it.host
                ));
            }
        }
        Ok(())
    }

    /// What is recorded of a host's keystore.
    pub fn find(&self, host: &Host, keystore: &str) -> Option<&Enrolled> {
        let is_it = |it: &&Enrolled| it.host == *host && it.keystore.as_str() == keystore;
        self.enrolled.iter().find(is_it)
    }

    /// Whether this one may be recorded.
    pub fn check(&self, new: &Enrolled, replacing: Replacing) -> Result<(), Conflict> {
        for old in &self.enrolled {
            if old.ek == new.ek && old.host != new.host {
                return Err(Conflict::SameEk(old.host.clone()));
            }
            if old.ak_name == new.ak_name && old.ek != new.ek {
                return Err(Conflict::SameAk(old.host.clone()));
            }
            // Whatever its keystore is called: who asks chooses that.
            let is_other = old.host == new.host && old.ek != new.ek;
            if is_other && replacing == Replacing::Refused {
                return Err(Conflict::OtherEk(old.host.clone(), old.ek));
            }
        }
        Ok(())
    }

    /// Records it, in place of what was recorded of the keystore, and of a TPM that the host has no longer.
    ///
    /// # Errors
    /// As [`Self::check`].
    pub fn record(&mut self, new: Enrolled, replacing: Replacing) -> Result<(), Conflict> {
        self.check(&new, replacing)?;
        let is_gone = |it: &Enrolled| it.host == new.host && it.ek != new.ek;
        self.enrolled.retain(|it| !is_gone(it));
        match self
            .enrolled
            .binary_search_by(|it| it.place().cmp(&new.place()))
        {
            // Its counters with it: a TPM that was cleared begins to count anew, and what it has
            // signed for older challenges answers none.
            Ok(index) => self.enrolled[index] = new,
            Err(index) => self.enrolled.insert(index, new),
        }
        Ok(())
    }

    /// Keeps the counters of evidence that was accepted.
    pub fn count(&mut self, host: &Host, keystore: &str, counters: Counters) {
        let is_it = |it: &&mut Enrolled| it.host == *host && it.keystore.as_str() == keystore;
        if let Some(enrolled) = self.enrolled.iter_mut().find(is_it) {
            enrolled.counters = Some(counters);
        }
    }
}

impl Enrolled {
    /// By which it is found.
    fn place(&self) -> (&Host, &Text) {
        (&self.host, &self.keystore)
    }
}

impl Default for Registry {
    fn default() -> Registry {
        Registry::new()
    }
}

impl EkFingerprint {
    /// Of a public area.
    ///
    /// # Errors
    /// Why there is no public key in it.
    pub fn of(ek: &PublicArea) -> Result<EkFingerprint, Wrong> {
        Ok(EkFingerprint::of_spki(&ek.public_key()?.spki()))
    }

    /// Of a SubjectPublicKeyInfo.
    pub fn of_spki(spki: &[u8]) -> EkFingerprint {
        let digest = digest(&SHA256, spki);
        EkFingerprint(digest.as_ref().try_into().expect("SHA-256 has 32 bytes"))
    }
}

impl fmt::Display for EkFingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&to_hex(&self.0))
    }
}

impl FromStr for EkFingerprint {
    type Err = String;
    fn from_str(text: &str) -> Result<EkFingerprint, String> {
        let bytes = hex(text).and_then(|bytes| bytes.try_into().ok());
        bytes.map(EkFingerprint).ok_or_else(|| {
            "a fingerprint has 64 hexadecimal digits in lower case (SHA-256)".to_owned()
        })
    }
}

textual!(EkFingerprint);

impl fmt::Display for Conflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Conflict::SameEk(host) => write!(f, "its TPM is enrolled as that of {host}"),
            Conflict::SameAk(host) => write!(
                f,
                "its attestation key is enrolled with the TPM of {host}: one of them is a copy"
            ),
            Conflict::OtherEk(host, ek) => write!(
                f,
                "it is enrolled with the TPM {ek}; if that was replaced on purpose: --replace {host}"
            ),
        }
    }
}

#[cfg(test)]
mod tests;
