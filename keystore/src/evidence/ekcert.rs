//! The certificate of an endorsement key (TCG EK Credential Profile §3): whether it leads to a root that the
//! policy trusts, whether it is one of an endorsement key, and which key and maker it is about. The chain is
//! rustls-webpki's to verify; what that leaves out (key usage, the names in it) is read here.

use super::bundle::Text;
use super::wire::Wrong;
use crate::PublicKey;
use crate::der::{
    self, BIT_STRING, BOOLEAN, CONTEXT_0, CONTEXT_3, Elements, INTEGER, OBJECT_IDENTIFIER,
    OCTET_STRING, SEQUENCE, SET, UTF8_STRING, boolean, magnitude,
};
use rustls_pki_types::{CertificateDer, UnixTime};
use webpki::{ALL_VERIFICATION_ALGS, EndEntityCert, ExtendedKeyUsageValidator, KeyPurposeIdIter};

/// tcg-kp-EKCertificate, 2.23.133.8.1
const EK_CERTIFICATE: &[u8] = &[0x67, 0x81, 0x05, 0x08, 0x01];
/// tcg-at-tpmManufacturer, tcg-at-tpmModel, tcg-at-tpmVersion
const MANUFACTURER: &[u8] = &[0x67, 0x81, 0x05, 0x02, 0x01];
const MODEL: &[u8] = &[0x67, 0x81, 0x05, 0x02, 0x02];
const FIRMWARE: &[u8] = &[0x67, 0x81, 0x05, 0x02, 0x03];

const KEY_USAGE: &[u8] = &[0x55, 0x1d, 0x0f];
const ALT_NAME: &[u8] = &[0x55, 0x1d, 0x11];
const EXTENDED_KEY_USAGE: &[u8] = &[0x55, 0x1d, 0x25];

/// directoryName in a GeneralName.
const DIRECTORY_NAME: u8 = 0xa4;
const CONTEXT_1_PRIMITIVE: u8 = 0x81;
const CONTEXT_2_PRIMITIVE: u8 = 0x82;
const PRINTABLE_STRING: u8 = 0x13;
const IA5_STRING: u8 = 0x16;

/// id-ecPublicKey on P-256 and P-384; rsaEncryption; id-RSAES-OAEP, whichever parameters it has.
const EC_P256: &[u8] =
    b"\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07";
const EC_P384: &[u8] = b"\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x05\x2b\x81\x04\x00\x22";
const RSA: &[u8] = b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01";
const RSAES_OAEP: &[u8] = b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x07";

/// What a certificate says, once its chain is verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EkCertificate {
    /// About which key.
    pub key: PublicKey,
    /// Whose TPM: `IFX`, or the text that stands there.
    pub manufacturer: Text,
    /// Its model.
    pub model: Text,
}

/// Reads and verifies one.
///
/// # Errors
/// A sentence's end: what is wrong with it.
pub fn verify(
    certificate: &[u8],
    chain: &[&[u8]],
    roots: &[CertificateDer<'_>],
    now: u64,
) -> Result<EkCertificate, String> {
    let certificate = CertificateDer::from(without_padding(certificate));
    let chain: Vec<CertificateDer<'_>> = chain
        .iter()
        .map(|it| CertificateDer::from(without_padding(it)))
        .collect();
    let anchors: Result<Vec<_>, _> = roots.iter().map(webpki::anchor_from_trusted_cert).collect();
    let anchors =
        anchors.map_err(|error| format!("cannot be checked: a root is unreadable: {error}"))?;
    let parsed = EndEntityCert::try_from(&certificate);
    let parsed = parsed.map_err(|error| format!("is unreadable: {error}"))?;
    let now = UnixTime::since_unix_epoch(std::time::Duration::from_secs(now));
    parsed
        .verify_for_usage(
            ALL_VERIFICATION_ALGS,
            &anchors,
            &chain,
            now,
            AnyUsage,
            None,
            None,
        )
        .map_err(|error| format!("does not lead to a root of the policy: {error}"))?;
    read(&certificate).map_err(|wrong| format!("{wrong} (TCG EK Credential Profile §3)"))
}

/// Which key a certificate is about, whoever may have signed it.
///
/// # Errors
/// What it is instead.
pub fn subject_key(certificate: &[u8]) -> Result<PublicKey, Wrong> {
    let mut whole = Elements::of(without_padding(certificate));
    let mut certificate = Elements::of(whole.take(SEQUENCE)?);
    key_in(&mut Elements::of(certificate.take(SEQUENCE)?))
}

/// Which usage an authority may certify is not said in most of theirs; that of the certificate itself is
/// looked at below.
struct AnyUsage;

impl ExtendedKeyUsageValidator for AnyUsage {
    fn validate(&self, _: KeyPurposeIdIter<'_, '_>) -> Result<(), webpki::Error> {
        Ok(())
    }
}

/// Some TPMs fill their NV index behind the certificate.
fn without_padding(der: &[u8]) -> &[u8] {
    der::first(der).map_or(der, |(certificate, _)| certificate)
}

fn read(der: &[u8]) -> Result<EkCertificate, Wrong> {
    let mut whole = Elements::of(der);
    let mut certificate = Elements::of(whole.take(SEQUENCE)?);
    let mut content = Elements::of(certificate.take(SEQUENCE)?);
    let key = key_in(&mut content)?;
    content.take_optional(CONTEXT_1_PRIMITIVE)?;
    content.take_optional(CONTEXT_2_PRIMITIVE)?;
    let mut extensions = Elements::of(content.take(CONTEXT_3)?);
    let mut list = Elements::of(extensions.take(SEQUENCE)?);
    let (mut usage, mut extended, mut names) = (None, None, None);
    while let Some(extension) = list.take_optional(SEQUENCE)? {
        let mut extension = Elements::of(extension);
        let id = extension.take(OBJECT_IDENTIFIER)?;
        if let Some(critical) = extension.take_optional(BOOLEAN)? {
            boolean(critical)?;
        }
        let value = extension.take(OCTET_STRING)?;
        extension.end()?;
        match id {
            KEY_USAGE => usage = Some(value),
            EXTENDED_KEY_USAGE => extended = Some(value),
            ALT_NAME => names = Some(value),
            _ => {}
        }
    }
    list.end()?;
    check_usage(&key, usage.ok_or("has no key usage")?)?;
    let extended =
        extended.ok_or("is not one of an endorsement key: it has no extended key usage")?;
    check_extended(extended)?;
    let names = directory_name(names.ok_or("does not name the TPM's maker")?)?;
    let [manufacturer, model, _] = names;
    Ok(EkCertificate {
        key,
        manufacturer: Text::cut(&maker(&manufacturer)),
        model: Text::cut(&model),
    })
}

/// The beginning of a TBSCertificate, up to its key.
fn key_in(content: &mut Elements<'_>) -> Result<PublicKey, Wrong> {
    content.take(CONTEXT_0)?; // version
    content.take(INTEGER)?; // serial number
    content.take(SEQUENCE)?; // algorithm
    content.take(SEQUENCE)?; // issuer
    content.take(SEQUENCE)?; // validity
    content.take(SEQUENCE)?; // subject, which is empty as a rule
    key(content.take(SEQUENCE)?)
}

/// SubjectPublicKeyInfo
fn key(content: &[u8]) -> Result<PublicKey, Wrong> {
    let mut content = Elements::of(content);
    let algorithm = content.take(SEQUENCE)?;
    let bits = content.take(BIT_STRING)?;
    content.end()?;
    let Some((0, bits)) = bits.split_first().map(|(unused, bits)| (*unused, bits)) else {
        return Err("has a key of another length than whole bytes");
    };
    let key = match algorithm {
        EC_P256 if bits.len() == 65 => PublicKey::from_sec1(bits),
        EC_P384 if bits.len() == 97 => PublicKey::from_sec1(bits),
        it if it.starts_with(RSA) || it.starts_with(RSAES_OAEP) => {
            let mut whole = Elements::of(bits);
            let mut numbers = Elements::of(whole.take(SEQUENCE)?);
            whole.end()?;
            let n = numbers.take(INTEGER).and_then(magnitude)?;
            let e = numbers.take(INTEGER).and_then(magnitude)?;
            numbers.end()?;
            PublicKey::from_rsa(n, e)
        }
        _ => return Err("is of a key that is none of RSA, P-256 and P-384"),
    };
    key.map_err(|_| "is of a key that is not accepted")
}

/// keyEncipherment for RSA, keyAgreement for ECC. RFC 8813 §3 forbids the first for ECC, and the certificates that
/// swtpm (0.7) issues for such keys have it nevertheless: it is taken for what is meant, a key that does not sign.
fn check_usage(key: &PublicKey, value: &[u8]) -> Result<(), Wrong> {
    let mut value = Elements::of(value);
    let bits = value.take(BIT_STRING)?;
    value.end()?;
    let first = bits.get(1).copied().unwrap_or_default();
    let (wanted, wrong) = match key {
        PublicKey::Rsa { .. } => (0x20, "is not for encrypting keys"),
        _ => (0x28, "is not for agreeing on keys"),
    };
    match first & wanted != 0 {
        true => Ok(()),
        false => Err(wrong),
    }
}

fn check_extended(value: &[u8]) -> Result<(), Wrong> {
    let mut value = Elements::of(value);
    let mut purposes = Elements::of(value.take(SEQUENCE)?);
    value.end()?;
    while let Some(purpose) = purposes.take_optional(OBJECT_IDENTIFIER)? {
        if purpose == EK_CERTIFICATE {
            return Ok(());
        }
    }
    Err("is not one of an endorsement key: its extended key usage is another")
}

/// Maker, model and firmware, of GeneralNames with a directoryName.
fn directory_name(value: &[u8]) -> Result<[String; 3], Wrong> {
    const MISSING: Wrong = "does not name the TPM's maker, model and firmware";
    let mut value = Elements::of(value);
    let mut names = Elements::of(value.take(SEQUENCE)?);
    value.end()?;
    // Others, such as a permanent identifier, may stand before or behind it.
    let name = loop {
        match names.take_optional(DIRECTORY_NAME)? {
            Some(name) => break name,
            None => match names.take_optional(CONTEXT_0)? {
                Some(_) => continue,
                None => return Err(MISSING),
            },
        }
    };
    let mut name = Elements::of(name);
    let mut parts = Elements::of(name.take(SEQUENCE)?);
    let mut found = [None, None, None];
    while let Some(set) = parts.take_optional(SET)? {
        let mut set = Elements::of(set);
        while let Some(attribute) = set.take_optional(SEQUENCE)? {
            let mut attribute = Elements::of(attribute);
            let id = attribute.take(OBJECT_IDENTIFIER)?;
            let index = match id {
                MANUFACTURER => 0,
                MODEL => 1,
                FIRMWARE => 2,
                _ => continue,
            };
            let mut text = None;
            for tag in [UTF8_STRING, PRINTABLE_STRING, IA5_STRING] {
                if text.is_none() {
                    text = attribute.take_optional(tag)?;
                }
            }
            let text = std::str::from_utf8(text.ok_or(MISSING)?).map_err(|_| MISSING)?;
            found[index] = Some(text.to_owned());
        }
    }
    match found {
        [Some(manufacturer), Some(model), Some(firmware)] => Ok([manufacturer, model, firmware]),
        _ => Err(MISSING),
    }
}

/// `id:49465800` is `IFX` (TCG Vendor ID Registry): four bytes, of which the last may be zeros or blanks.
fn maker(text: &str) -> String {
    let bytes = text
        .strip_prefix("id:")
        .and_then(|digits| super::bundle::hex(&digits.to_ascii_lowercase()));
    let letters = bytes.and_then(|bytes| String::from_utf8(bytes).ok());
    let letters = letters.unwrap_or_else(|| text.to_owned());
    letters.trim_end_matches(['\0', ' ']).to_owned()
}
