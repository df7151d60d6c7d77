//! The bundle: everything that a host says about its keys, in one document (`assertctl attest` writes it,
//! `assertctl verify` reads it). Types and limits; what a bundle proves is found out elsewhere.
//!
//! Bytes are base64url without padding. A member that is not known is refused, so that nobody
//! takes something for verified that was never looked at.

mod bytes;
mod pcr;

pub use bytes::{Bytes, Firmware, Host, Nonce, Text, hex, to_hex};
pub use pcr::{Bank, PCRS, PcrIndex, PcrValue, Pcrs, Selection};

use crate::charter::PurposeKind;
use crate::keyid::check_part;
use crate::publickey::Kid;
use crate::shown::unread;
use crate::{Alg, KeyId, PublicKey};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// Longest bundle, in bytes of JSON.
pub const BUNDLE_LEN_MAX: usize = 16 * 1024 * 1024;

/// The version of the format.
pub const VERSION: u32 = 1;

/// Most keystores of one host.
pub const KEYSTORES_MAX: usize = 32;

/// Most keys of one bundle.
pub const KEYS_MAX: usize = 4096;

/// Longest TPMT_PUBLIC: RSA-4096 has about 550 bytes.
pub const PUBLIC_LEN_MAX: usize = 1024;

/// Longest TPMS_ATTEST: a quote over every bank, with the longest digests, has less than 400 bytes.
pub const ATTEST_LEN_MAX: usize = 1024;

/// Longest TPMT_SIGNATURE: RSA-4096 has 520 bytes.
pub const SIGNATURE_LEN_MAX: usize = 1024;

/// Longest Name or Qualified Name: two bytes and a SHA-512.
pub const NAME_LEN_MAX: usize = 66;

/// Longest certificate.
pub const CERTIFICATE_LEN_MAX: usize = 8 * 1024;

/// Most certificates between that of an endorsement key and a root.
pub const CHAIN_MAX: usize = 8;

/// Longest event log: firmware keeps some 64 KiB for it.
pub const EVENT_LOG_LEN_MAX: usize = 1024 * 1024;

/// Longest IMA list: some 80,000 measurements.
pub const IMA_LEN_MAX: usize = 8 * 1024 * 1024;

/// Most steps of a key's policy.
pub const POLICY_STEPS_MAX: usize = 8;

/// A host's evidence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bundle {
    /// What this document is.
    pub r#type: BundleType,
    /// [`VERSION`]
    pub version: u32,
    /// When, by the host's clock, in seconds since 1970. Nobody relies on it: the nonce says when.
    pub made_at: u64,
    /// What the operator calls the host.
    pub host: Host,
    /// The verifier's.
    pub nonce: Nonce,
    /// Those that keys were asked of.
    pub keystores: Vec<KeystoreEvidence>,
    /// `binary_bios_measurements`, as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event_log: Option<Bytes<EVENT_LOG_LEN_MAX>>,
    /// `binary_runtime_measurements`, as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ima: Option<Bytes<IMA_LEN_MAX>>,
}

/// The one value of `type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum BundleType {
    /// A bundle.
    #[serde(rename = "assertd-evidence")]
    AssertdEvidence,
}

/// What one keystore says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum KeystoreEvidence {
    /// A TPM 2.0, which proves it.
    Tpm(TpmEvidence),
    /// A PKCS#11 token, which asserts it.
    Pkcs11(Pkcs11Evidence),
}

/// A TPM, and what it says of its keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TpmEvidence {
    /// The keystore's, in the configuration.
    pub name: Text,
    /// The TPM.
    pub tpm: Tpm,
    /// In the order that the quote is bound to.
    pub keys: Vec<CertifiedKey>,
    /// The state of the host.
    pub quote: Option<Quote>,
}

/// A TPM: what it says of itself, and the two keys that the rest hangs on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tpm {
    /// TPM_PT_MANUFACTURER: `IFX`
    pub manufacturer: Text,
    /// TPM_PT_VENDOR_STRING_1 to 4
    pub vendor: Text,
    /// TPM_PT_FIRMWARE_VERSION_1 and 2
    pub firmware: Firmware,
    /// TPM_PT_REVISION: `1.59`
    pub family_revision: Text,
    /// The endorsement key.
    pub ek: EndorsementKey,
    /// The attestation key.
    pub ak: AttestationKey,
}

/// The key that the TPM was born with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EndorsementKey {
    /// TPMT_PUBLIC
    pub public: Bytes<PUBLIC_LEN_MAX>,
    /// Its maker's word for it (X.509), where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<Bytes<CERTIFICATE_LEN_MAX>>,
    /// Certificates from there on, without the root.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub chain: Vec<Bytes<CERTIFICATE_LEN_MAX>>,
}

/// The key that signs what the TPM says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AttestationKey {
    /// TPMT_PUBLIC
    pub public: Bytes<PUBLIC_LEN_MAX>,
    /// Its Qualified Name.
    pub qualified_name: Bytes<NAME_LEN_MAX>,
    /// TPMT_PUBLIC of the key it lives below, from which the Qualified Name follows.
    pub parent: Bytes<PUBLIC_LEN_MAX>,
}

/// A signing key in a TPM, and the TPM's statement about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CertifiedKey {
    /// Its id.
    pub key: KeyId,
    /// The target that it was asked for, if it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<Text>,
    /// Its RFC 7638 thumbprint.
    pub kid: Kid,
    /// What it is for, by its charter.
    pub purpose: PurposeKind,
    /// Its one algorithm.
    pub alg: Alg,
    /// The key that is registered at the other side: required members alone.
    pub jwk: PublicKey,
    /// TPMT_PUBLIC
    pub public: Bytes<PUBLIC_LEN_MAX>,
    /// TPMS_ATTEST of TPM2_Certify
    pub attest: Bytes<ATTEST_LEN_MAX>,
    /// TPMT_SIGNATURE over it, by the attestation key
    pub signature: Bytes<SIGNATURE_LEN_MAX>,
    /// Whether it existed outside.
    pub imported: bool,
    /// How it may be used, if its auth value is not all that it needs.
    pub policy: Option<Vec<PolicyStep>>,
}

/// A command of a policy session; the policy of a key is the digest that these lead to, from none on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case", deny_unknown_fields)]
pub enum PolicyStep {
    /// TPM2_PolicyPCR
    Pcr {
        /// Which.
        selection: Selection,
        /// The digest of their values.
        digest: Bytes<64>,
    },
    /// TPM2_PolicyAuthorize
    Authorize {
        /// TPMT_PUBLIC of who may approve.
        authority: Bytes<PUBLIC_LEN_MAX>,
        /// policyRef
        reference: Bytes<64>,
    },
    /// TPM2_PolicyAuthValue
    AuthValue {},
}

/// What a TPM says about its PCRs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Quote {
    /// TPMS_ATTEST of TPM2_Quote
    pub attest: Bytes<ATTEST_LEN_MAX>,
    /// TPMT_SIGNATURE over it, by the attestation key
    pub signature: Bytes<SIGNATURE_LEN_MAX>,
    /// The values.
    pub pcrs: Pcrs,
}

/// What a PKCS#11 module says about a token's keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pkcs11Evidence {
    /// The keystore's, in the configuration.
    pub name: Text,
    /// The token.
    pub module: Module,
    /// Its keys.
    pub keys: Vec<AssertedKey>,
}

/// A token, in the words of its module.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Module {
    /// The module's: `manufacturer, version`.
    pub library: Text,
    /// The token's maker.
    pub manufacturer: Text,
    /// Its model.
    pub model: Text,
    /// Its serial number.
    pub serial: Text,
    /// Its firmware.
    pub firmware: Text,
}

/// A signing key in a token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AssertedKey {
    /// Its id.
    pub key: KeyId,
    /// The target that it was asked for, if it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<Text>,
    /// Its RFC 7638 thumbprint.
    pub kid: Kid,
    /// What it is for, by its charter.
    pub purpose: PurposeKind,
    /// Its one algorithm.
    pub alg: Alg,
    /// The key that is registered at the other side: required members alone.
    pub jwk: PublicKey,
    /// As they were read back.
    pub attributes: Attributes,
    /// Whether it existed outside.
    pub imported: bool,
}

/// Attributes of a private key (PKCS#11 v3.2 §4.9); `None` where the token does not have one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Attributes {
    pub token: Option<bool>,
    pub private: Option<bool>,
    pub sensitive: Option<bool>,
    pub always_sensitive: Option<bool>,
    pub extractable: Option<bool>,
    pub never_extractable: Option<bool>,
    pub local: Option<bool>,
    pub sign: Option<bool>,
    pub sign_recover: Option<bool>,
    pub decrypt: Option<bool>,
    pub unwrap: Option<bool>,
    pub derive: Option<bool>,
    pub modifiable: Option<bool>,
    pub copyable: Option<bool>,
    pub wrap_with_trusted: Option<bool>,
}

impl Bundle {
    /// Reads one.
    ///
    /// # Errors
    /// A sentence's end: what is wrong with it.
    pub fn parse(json: &[u8]) -> Result<Bundle, String> {
        if json.len() > BUNDLE_LEN_MAX {
            return Err(format!("it is longer than {BUNDLE_LEN_MAX} bytes"));
        }
        let bundle: Bundle = serde_json::from_slice(json).map_err(|error| unread(&error))?;
        bundle.check()?;
        Ok(bundle)
    }

    /// As it is written: one line of JSON.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("its maps have texts as keys, and it has no float")
    }

    /// What the types do not say.
    fn check(&self) -> Result<(), String> {
        if self.version != VERSION {
            let found = self.version;
            return Err(format!(
                "its version is {found}, and this program knows {VERSION}"
            ));
        }
        if self.keystores.len() > KEYSTORES_MAX {
            return Err(format!("it has more than {KEYSTORES_MAX} keystores"));
        }
        let (mut names, mut keys) = (BTreeSet::new(), BTreeSet::new());
        for keystore in &self.keystores {
            if !names.insert(keystore.name()) {
                return Err(format!("it has keystore `{}` twice", keystore.name()));
            }
            for key in keystore.keys() {
                if !keys.insert(key) {
                    return Err(format!("it has key {key} twice"));
                }
            }
            keystore.check()?;
        }
        match keys.len() {
            ..=KEYS_MAX => Ok(()),
            _ => Err(format!("it has more than {KEYS_MAX} keys")),
        }
    }
}

/// Whether a keystore can be called so in a configuration: verdicts are about keystores and keys by their names, and none
/// of them is to pass for another, or for the whole.
///
/// # Errors
/// A sentence's end.
pub fn check_keystore(name: &Text) -> Result<(), String> {
    check_part(name.as_str())
        .map_err(|wrong| format!("its keystore has a name that is none: {wrong}"))
}

impl KeystoreEvidence {
    /// The keystore's, in the configuration.
    pub fn name(&self) -> &str {
        match self {
            KeystoreEvidence::Tpm(it) => it.name.as_str(),
            KeystoreEvidence::Pkcs11(it) => it.name.as_str(),
        }
    }

    /// Its keys, in their order.
    pub fn keys(&self) -> Vec<&KeyId> {
        match self {
            KeystoreEvidence::Tpm(it) => it.keys.iter().map(|key| &key.key).collect(),
            KeystoreEvidence::Pkcs11(it) => it.keys.iter().map(|key| &key.key).collect(),
        }
    }

    fn check(&self) -> Result<(), String> {
        let tpm = match self {
            KeystoreEvidence::Tpm(tpm) => tpm,
            KeystoreEvidence::Pkcs11(token) => return check_keystore(&token.name),
        };
        check_keystore(&tpm.name)?;
        if tpm.tpm.ek.chain.len() > CHAIN_MAX {
            return Err(format!(
                "it has more than {CHAIN_MAX} certificates in a chain"
            ));
        }
        let long = |key: &&CertifiedKey| {
            key.policy
                .as_ref()
                .is_some_and(|it| it.len() > POLICY_STEPS_MAX)
        };
        match tpm.keys.iter().find(long) {
            Some(key) => Err(format!(
                "the policy of {} has more than {POLICY_STEPS_MAX} steps",
                key.key
            )),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
