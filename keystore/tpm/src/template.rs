//! What our objects look like to the TPM: the templates keys are made from, and whether an object
//! that is there is one of them. Pure. No key is taken for ours that could leave the TPM, sign what
//! the TPM itself made, or be locked by somebody else's wrong guesses (`noDA`).

use aws_lc_rs::digest;
use keystore::evidence::context::Sha256;
use keystore::{Alg, Error, Kind, PublicKey};
use tss_esapi::attributes::{ObjectAttributes, ObjectAttributesBuilder};
use tss_esapi::interface_types::algorithm::{HashingAlgorithm, PublicAlgorithm};
use tss_esapi::interface_types::ecc::EccCurve;
use tss_esapi::interface_types::key_bits::RsaKeyBits;
use tss_esapi::structures::{
    Digest, EccParameter, EccPoint, EccScheme, HashScheme, Public, PublicBuilder,
    PublicEccParameters, PublicEccParametersBuilder, PublicKeyRsa, PublicParameters,
    PublicRsaParameters, PublicRsaParametersBuilder, RsaExponent, RsaScheme,
    SymmetricDefinitionObject,
};
use tss_esapi::traits::{Marshall, UnMarshall};

/// TPM_ALG_SHA256, which begins every name we compute (TPM 2.0 Part 1 §16).
const NAME_ALG: [u8; 2] = [0x00, 0x0b];

/// The exponent a TPM uses where the template says 0.
const RSA_EXPONENT: [u8; 3] = [1, 0, 1];

/// Bytes of an RSA modulus.
const RSA_LEN: usize = 256;

/// What both kinds of our objects are: made in this TPM, never to leave it, used with an auth value
/// alone, and not subject to its dictionary-attack lockout.
fn ours() -> ObjectAttributesBuilder {
    ObjectAttributesBuilder::new()
        .with_fixed_tpm(true)
        .with_fixed_parent(true)
        .with_sensitive_data_origin(true)
        .with_user_with_auth(true)
        .with_no_da(true)
}

fn built(attributes: ObjectAttributesBuilder) -> ObjectAttributes {
    attributes
        .build()
        .expect("no two of these exclude each other")
}

fn storage_attributes() -> ObjectAttributes {
    built(ours().with_decrypt(true).with_restricted(true))
}

fn signing_attributes() -> ObjectAttributes {
    built(ours().with_sign_encrypt(true))
}

/// What of our keys is used in some states of the host alone: by its policy, and never by its auth value. That
/// it is certified by its auth value, whatever the state, is what adminWithPolicy clear means.
fn bound_attributes() -> ObjectAttributes {
    built(ours().with_user_with_auth(false).with_sign_encrypt(true))
}

/// What of our keys was made elsewhere. It cannot leave either: to duplicate an object takes a policy
/// (TPM 2.0 Part 3 §13.1), and it has none.
fn imported_attributes() -> ObjectAttributes {
    let attributes = ours()
        .with_fixed_tpm(false)
        .with_fixed_parent(false)
        .with_sensitive_data_origin(false)
        .with_sign_encrypt(true);
    built(attributes)
}

fn storage_parameters() -> PublicEccParameters {
    let (symmetric, curve) = (SymmetricDefinitionObject::AES_128_CFB, EccCurve::NistP256);
    PublicEccParametersBuilder::new_restricted_decryption_key(symmetric, curve)
        .build()
        .expect("a restricted decryption key has these")
}

/// The storage primary of the owner hierarchy that key files of this format mean by parent
/// 0x40000001 (draft-bottomley-tpm2-keys §3.1.8): P-256, AES-128-CFB, no auth value.
pub fn storage_primary() -> Public {
    PublicBuilder::new()
        .with_public_algorithm(PublicAlgorithm::Ecc)
        .with_name_hashing_algorithm(HashingAlgorithm::Sha256)
        .with_object_attributes(storage_attributes())
        .with_ecc_parameters(storage_parameters())
        .with_ecc_unique_identifier(EccPoint::default())
        .build()
        .expect("an ECC key has these")
}

/// Whether an object can be the parent of our keys: all of the template but the point.
pub fn is_storage_primary(public: &Public) -> bool {
    let Public::Ecc {
        object_attributes,
        name_hashing_algorithm,
        auth_policy: _, // its auth value is enough: userWithAuth
        parameters,
        unique: _,
    } = public
    else {
        return false;
    };
    *object_attributes == storage_attributes()
        && *name_hashing_algorithm == HashingAlgorithm::Sha256
        && *parameters == storage_parameters()
}

/// The point of a storage primary.
pub fn storage_point(public: &Public) -> Option<Vec<u8>> {
    match public {
        Public::Ecc { unique, .. } if is_storage_primary(public) => sec1(Alg::ES256, unique).ok(),
        _ => None,
    }
}

/// Curve and hash of an ECDSA algorithm.
fn curve(alg: Alg) -> Option<(EccCurve, HashingAlgorithm)> {
    match alg {
        Alg::ES256 => Some((EccCurve::NistP256, HashingAlgorithm::Sha256)),
        Alg::ES384 => Some((EccCurve::NistP384, HashingAlgorithm::Sha384)),
        Alg::RS256 | Alg::PS256 | Alg::EdDSA => None,
    }
}

fn ecc_parameters(alg: Alg) -> Option<PublicEccParameters> {
    let (curve, hash) = curve(alg)?;
    let scheme = EccScheme::EcDsa(HashScheme::new(hash));
    let parameters = PublicEccParametersBuilder::new_unrestricted_signing_key(scheme, curve);
    Some(parameters.build().expect("a signing key has these"))
}

fn rsa_parameters(alg: Alg) -> Option<PublicRsaParameters> {
    let hash = HashScheme::new(HashingAlgorithm::Sha256);
    let scheme = match alg {
        Alg::RS256 => RsaScheme::RsaSsa(hash),
        Alg::PS256 => RsaScheme::RsaPss(hash),
        Alg::ES256 | Alg::ES384 | Alg::EdDSA => return None,
    };
    let (bits, exponent) = (RsaKeyBits::Rsa2048, RsaExponent::default());
    let parameters =
        PublicRsaParametersBuilder::new_unrestricted_signing_key(scheme, bits, exponent);
    Some(parameters.build().expect("a signing key has these"))
}

fn attestation_attributes() -> ObjectAttributes {
    built(ours().with_sign_encrypt(true).with_restricted(true))
}

fn attestation_parameters() -> PublicEccParameters {
    let scheme = EccScheme::EcDsa(HashScheme::new(HashingAlgorithm::Sha256));
    PublicEccParametersBuilder::new_unrestricted_signing_key(scheme, EccCurve::NistP256)
        .with_restricted(true)
        .build()
        .expect("a restricted signing key has these")
}

/// The template of the attestation key: P-256, ECDSA with SHA-256, for what the TPM itself says alone.
/// Not subject to the lockout, because its auth value cannot be guessed: neither is it stopped by others'
/// guesses, nor are others by a secret of ours that is the wrong one.
pub fn attestation_key() -> Public {
    PublicBuilder::new()
        .with_public_algorithm(PublicAlgorithm::Ecc)
        .with_name_hashing_algorithm(HashingAlgorithm::Sha256)
        .with_object_attributes(attestation_attributes())
        .with_ecc_parameters(attestation_parameters())
        .with_ecc_unique_identifier(EccPoint::default())
        .build()
        .expect("an ECC key has these")
}

/// The public key of an attestation key.
///
/// # Errors
/// What is wrong with it, as the end of a sentence.
pub fn read_attestation_key(public: &Public) -> Result<PublicKey, String> {
    let Public::Ecc { unique, .. } = public else {
        return Err("is no ECC key".to_owned());
    };
    if !is_like(public, &attestation_key()) {
        return Err("is no attestation key of ours".to_owned());
    }
    let key = sec1(Alg::ES256, unique).and_then(|point| PublicKey::from_sec1(&point));
    key.map_err(|error| format!("has a public key that cannot be used ({error})"))
}

/// TPM2_PolicySecret of the endorsement hierarchy: PolicyA (EK Credential Profile annex B.6).
const POLICY_A: [u8; 32] = [
    0x83, 0x71, 0x97, 0x67, 0x44, 0x84, 0xb3, 0xf8, 0x1a, 0x90, 0xcc, 0x8d, 0x46, 0xa5, 0xd7, 0x24,
    0xfd, 0x52, 0xd7, 0x6e, 0x06, 0x52, 0x0b, 0x64, 0xf2, 0xa1, 0xda, 0x1b, 0x33, 0x14, 0x69, 0xaa,
];

fn endorsement() -> PublicBuilder {
    let attributes = ours()
        .with_user_with_auth(false)
        .with_no_da(false)
        .with_admin_with_policy(true)
        .with_decrypt(true)
        .with_restricted(true);
    PublicBuilder::new()
        .with_name_hashing_algorithm(HashingAlgorithm::Sha256)
        .with_object_attributes(built(attributes))
        .with_auth_policy(Digest::try_from(&POLICY_A[..]).expect("it is a digest"))
}

/// The template of a P-256 endorsement key (L-2).
pub fn endorsement_p256() -> Public {
    let zero = || EccParameter::try_from(vec![0; 32]).expect("it is as long as a coordinate");
    endorsement()
        .with_public_algorithm(PublicAlgorithm::Ecc)
        .with_ecc_parameters(storage_parameters())
        .with_ecc_unique_identifier(EccPoint::new(zero(), zero()))
        .build()
        .expect("an ECC key has these")
}

/// The template of an RSA endorsement key (L-1).
pub fn endorsement_rsa() -> Public {
    endorsement_rsa_with(vec![0; RSA_LEN])
}

/// The RSA endorsement key with this public key; `None` if the template makes no such key.
pub fn endorsement_rsa_of(key: &PublicKey) -> Option<Public> {
    match key {
        PublicKey::Rsa { n, e } if n.len() == RSA_LEN && *e == RSA_EXPONENT => {
            Some(endorsement_rsa_with(n.clone()))
        }
        _ => None,
    }
}

fn endorsement_rsa_with(modulus: Vec<u8>) -> Public {
    let (symmetric, bits) = (SymmetricDefinitionObject::AES_128_CFB, RsaKeyBits::Rsa2048);
    let parameters = PublicRsaParametersBuilder::new_restricted_decryption_key(
        symmetric,
        bits,
        RsaExponent::default(),
    );
    endorsement()
        .with_public_algorithm(PublicAlgorithm::Rsa)
        .with_rsa_parameters(parameters.build().expect("a decryption key has these"))
        .with_rsa_unique_identifier(
            PublicKeyRsa::try_from(modulus).expect("it is as long as a modulus"),
        )
        .build()
        .expect("an RSA key has these")
}

/// Whether a key was made from a template: all of it but what is the key's own.
pub fn is_like(public: &Public, template: &Public) -> bool {
    let same = public.object_attributes() == template.object_attributes()
        && public.name_hashing_algorithm() == template.name_hashing_algorithm()
        && public.auth_policy() == template.auth_policy();
    let parameters = match (public, template) {
        (Public::Ecc { parameters: of, .. }, Public::Ecc { parameters, .. }) => of == parameters,
        (Public::Rsa { parameters: of, .. }, Public::Rsa { parameters, .. }) => of == parameters,
        _ => false,
    };
    same && parameters
}

/// The parameters to ask a TPM about; `None` for an algorithm that no TPM has.
pub fn parameters(alg: Alg) -> Option<PublicParameters> {
    let ecc = ecc_parameters(alg).map(PublicParameters::Ecc);
    ecc.or_else(|| rsa_parameters(alg).map(PublicParameters::Rsa))
}

/// The template of a signing key; `None` for an algorithm that no TPM has. The key has one
/// algorithm for good: its scheme is fixed (B-SIG-3).
pub fn signing_key(alg: Alg) -> Option<Public> {
    of_alg(
        alg,
        PublicBuilder::new().with_object_attributes(signing_attributes()),
    )
}

/// The same of one that is used by this policy alone.
pub fn bound_key(alg: Alg, policy: &Sha256) -> Option<Public> {
    let policy = Digest::try_from(&policy[..]).expect("it is a digest");
    of_alg(
        alg,
        PublicBuilder::new()
            .with_object_attributes(bound_attributes())
            .with_auth_policy(policy),
    )
}

fn of_alg(alg: Alg, key: PublicBuilder) -> Option<Public> {
    let key = key.with_name_hashing_algorithm(HashingAlgorithm::Sha256);
    let key = match (ecc_parameters(alg), rsa_parameters(alg)) {
        (Some(parameters), _) => key
            .with_public_algorithm(PublicAlgorithm::Ecc)
            .with_ecc_parameters(parameters)
            .with_ecc_unique_identifier(EccPoint::default()),
        (_, Some(parameters)) => key
            .with_public_algorithm(PublicAlgorithm::Rsa)
            .with_rsa_parameters(parameters)
            .with_rsa_unique_identifier(PublicKeyRsa::default()),
        (None, None) => return None,
    };
    Some(key.build().expect("a signing key has these"))
}

/// The public area of a key that was made elsewhere.
///
/// # Errors
/// `Unsupported` if a TPM has no such key.
pub fn imported_key(alg: Alg, key: &PublicKey) -> Result<Public, Error> {
    let unsupported = |what: &str| {
        let text = format!("{what}; a TPM takes P-256 for ES256, and RSA with 2048 bits and 65537");
        Error::new(Kind::Unsupported, text)
    };
    let public = PublicBuilder::new()
        .with_name_hashing_algorithm(HashingAlgorithm::Sha256)
        .with_object_attributes(imported_attributes());
    let public = match (key, ecc_parameters(alg), rsa_parameters(alg)) {
        (PublicKey::P256 { x, y }, Some(parameters), _) if key.fits(alg) => {
            let coordinate = |bytes: &[u8; 32]| {
                EccParameter::try_from(&bytes[..]).expect("32 bytes are fewer than the largest has")
            };
            public
                .with_public_algorithm(PublicAlgorithm::Ecc)
                .with_ecc_parameters(parameters)
                .with_ecc_unique_identifier(EccPoint::new(coordinate(x), coordinate(y)))
        }
        (PublicKey::Rsa { n, e }, _, Some(parameters))
            if n.len() == RSA_LEN && *e == RSA_EXPONENT =>
        {
            let modulus = PublicKeyRsa::try_from(n.clone());
            public
                .with_public_algorithm(PublicAlgorithm::Rsa)
                .with_rsa_parameters(parameters)
                .with_rsa_unique_identifier(modulus.map_err(|_| unsupported("the RSA modulus"))?)
        }
        _ => return Err(unsupported("it is another kind of key")),
    };
    Ok(public.build().expect("a signing key has these"))
}

/// The algorithm and the public key of one of our signing keys.
///
/// # Errors
/// What is wrong with it, as the end of a sentence.
pub fn read_signing_key(public: &Public) -> Result<(Alg, PublicKey), String> {
    if public.object_attributes() != signing_attributes() {
        let wrong = "has other attributes than fixedTPM, fixedParent, sensitiveDataOrigin, \
                     userWithAuth, noDA and sign";
        return Err(wrong.to_owned());
    }
    read_key(public, &[])
}

/// The same of one that is used by this policy alone.
///
/// # Errors
/// What is wrong with it, as the end of a sentence.
pub fn read_bound_key(public: &Public, policy: &Sha256) -> Result<(Alg, PublicKey), String> {
    if public.object_attributes() != bound_attributes() {
        let wrong = "has other attributes than fixedTPM, fixedParent, sensitiveDataOrigin, noDA and \
                     sign";
        return Err(wrong.to_owned());
    }
    read_key(public, policy)
}

/// The same of one that was made elsewhere.
///
/// # Errors
/// What is wrong with it, as the end of a sentence.
pub fn read_imported_key(public: &Public) -> Result<(Alg, PublicKey), String> {
    if public.object_attributes() != imported_attributes() {
        let wrong = "has other attributes than userWithAuth, noDA and sign";
        return Err(wrong.to_owned());
    }
    read_key(public, &[])
}

/// Whether a key was made elsewhere.
pub fn is_imported(public: &Public) -> bool {
    public.object_attributes() == imported_attributes()
}

fn read_key(public: &Public, policy: &[u8]) -> Result<(Alg, PublicKey), String> {
    let wrong = |what: &str| Err(what.to_owned());
    if public.name_hashing_algorithm() != HashingAlgorithm::Sha256 {
        return wrong("is not named by SHA-256");
    }
    if public.auth_policy().value() != policy {
        return match policy {
            [] => wrong("has a policy"),
            _ => wrong("has another policy than its file says"),
        };
    }
    let key = match public {
        Public::Ecc {
            parameters, unique, ..
        } => [Alg::ES256, Alg::ES384]
            .into_iter()
            .find(|alg| ecc_parameters(*alg).as_ref() == Some(parameters))
            .map(|alg| {
                (
                    alg,
                    sec1(alg, unique).and_then(|p| PublicKey::from_sec1(&p)),
                )
            }),
        Public::Rsa {
            parameters, unique, ..
        } => [Alg::RS256, Alg::PS256]
            .into_iter()
            .find(|alg| rsa_parameters(*alg).as_ref() == Some(parameters))
            .map(|alg| (alg, rsa(unique))),
        _ => None,
    };
    match key {
        Some((alg, Ok(key))) => Ok((alg, key)),
        Some((_, Err(error))) => Err(format!("has a public key that cannot be used ({error})")),
        None => wrong("has parameters that none of our keys has"),
    }
}

/// Of the size that its parameters say, to the bit: a verifier of evidence takes no other.
fn rsa(modulus: &[u8]) -> Result<PublicKey, Error> {
    let is_full = modulus.len() == RSA_LEN && modulus.first().is_some_and(|byte| *byte >= 0x80);
    match is_full {
        true => PublicKey::from_rsa(modulus, &RSA_EXPONENT),
        false => Err(Error::new(
            Kind::Corrupt,
            "public key: a modulus of another size than its parameters say",
        )),
    }
}

/// An uncompressed point. TPMs may leave out leading zero octets.
fn sec1(alg: Alg, point: &EccPoint) -> Result<Vec<u8>, Error> {
    let width = if alg == Alg::ES384 { 48 } else { 32 };
    let mut bytes = vec![4];
    for coordinate in [point.x(), point.y()] {
        let padded = left_padded(coordinate, width);
        let too_long = || Error::new(Kind::Corrupt, "public key: a coordinate is too long");
        bytes.extend(padded.ok_or_else(too_long)?);
    }
    Ok(bytes)
}

/// An unsigned number in exactly so many bytes; `None` if it does not fit.
pub fn left_padded(number: &EccParameter, width: usize) -> Option<Vec<u8>> {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    let digits = &number[zeros..];
    let padding = width.checked_sub(digits.len())?;
    Some([&vec![0; padding], digits].concat())
}

/// TPMT_PUBLIC as bytes.
///
/// # Errors
/// A value that the library cannot write.
pub fn marshalled(public: &Public) -> tss_esapi::Result<Vec<u8>> {
    public.marshall()
}

/// TPMT_PUBLIC from bytes, none of them left over.
///
/// # Errors
/// What is wrong with them, as the end of a sentence.
pub fn unmarshalled(bytes: &[u8]) -> Result<Public, &'static str> {
    let wrong = |_| "has a public area that cannot be read";
    let public = Public::unmarshall(bytes).map_err(wrong)?;
    match public.marshall().map_err(wrong)? == bytes {
        true => Ok(public),
        false => Err("has a public area that is not laid out as a TPM does"),
    }
}

/// The name of an object (TPM 2.0 Part 1 §16): it changes with every bit of the public area.
///
/// # Errors
/// A value that the library cannot write.
pub fn name(public: &Public) -> tss_esapi::Result<Vec<u8>> {
    let digest = digest::digest(&digest::SHA256, &public.marshall()?);
    Ok([&NAME_ALG, digest.as_ref()].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_have_the_bits_of_the_standard() {
        let bits = |public: &Public| u32::from(public.object_attributes());
        assert_eq!(bits(&storage_primary()), 0x0003_0472);
        for alg in [Alg::ES256, Alg::ES384, Alg::RS256, Alg::PS256] {
            assert_eq!(bits(&signing_key(alg).unwrap()), 0x0004_0472, "{alg}");
            assert_eq!(
                bits(&bound_key(alg, &[1; 32]).unwrap()),
                0x0004_0432,
                "{alg}"
            );
        }
        assert_eq!(bits(&attestation_key()), 0x0005_0472);
        for endorsement in [endorsement_p256(), endorsement_rsa()] {
            assert_eq!(bits(&endorsement), 0x0003_00b2);
        }
        assert!(signing_key(Alg::EdDSA).is_none());
        assert!(parameters(Alg::EdDSA).is_none());
    }

    #[test]
    fn a_public_area_has_one_form() {
        for alg in [Alg::ES256, Alg::RS256] {
            let public = signing_key(alg).unwrap();
            let bytes = marshalled(&public).unwrap();
            assert_eq!(unmarshalled(&bytes), Ok(public));
            for length in 0..bytes.len() {
                assert!(unmarshalled(&bytes[..length]).is_err(), "{alg} {length}");
            }
            assert!(unmarshalled(&[&bytes[..], &[0]].concat()).is_err(), "{alg}");
        }
    }

    #[test]
    fn only_the_storage_template_is_a_parent() {
        assert!(is_storage_primary(&storage_primary()));
        for alg in [Alg::ES256, Alg::RS256] {
            assert!(!is_storage_primary(&signing_key(alg).unwrap()), "{alg}");
        }
        let guessable = ours()
            .with_no_da(false)
            .with_decrypt(true)
            .with_restricted(true);
        let public = PublicBuilder::new()
            .with_public_algorithm(PublicAlgorithm::Ecc)
            .with_name_hashing_algorithm(HashingAlgorithm::Sha256)
            .with_object_attributes(built(guessable))
            .with_ecc_parameters(storage_parameters())
            .with_ecc_unique_identifier(EccPoint::default())
            .build()
            .unwrap();
        assert!(!is_storage_primary(&public));
    }

    #[test]
    fn a_modulus_is_as_long_as_its_key_says() {
        let empty = marshalled(&signing_key(Alg::RS256).unwrap()).unwrap();
        let before = empty
            .strip_suffix(&[0, 0])
            .expect("a template has no modulus");
        let read = |modulus: &[u8]| {
            let length = (modulus.len() as u16).to_be_bytes();
            let public = unmarshalled(&[before, &length, modulus].concat()).unwrap();
            read_signing_key(&public).map(|(alg, _)| alg)
        };
        let of = |first: u8, length: usize| [&[first][..], &vec![0xc1; length - 1]].concat();
        assert_eq!(read(&of(0x80, 256)), Ok(Alg::RS256));
        for (first, length) in [
            (0x7f, 256),
            (0x00, 257),
            (0x80, 255),
            (0x80, 257),
            (0x80, 264),
        ] {
            let wrong = read(&of(first, length)).unwrap_err();
            assert!(wrong.contains("another size"), "{first} {length}: {wrong}");
        }
    }

    #[test]
    fn numbers_are_padded_on_the_left_and_never_cut() {
        let number = |bytes: &[u8]| EccParameter::try_from(bytes).unwrap();
        for (bytes, padded) in [
            (&[1, 2, 3, 4][..], Some(vec![1, 2, 3, 4])),
            (&[2, 3, 4], Some(vec![0, 2, 3, 4])),
            (&[0, 0, 1, 2, 3, 4], Some(vec![1, 2, 3, 4])),
            (&[], Some(vec![0; 4])),
            (&[1, 2, 3, 4, 5], None),
        ] {
            assert_eq!(left_padded(&number(bytes), 4), padded, "{bytes:?}");
        }
    }
}
