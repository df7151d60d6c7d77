//! TPMT_PUBLIC (TPM 2.0 Part 2 §12.2.4): the public area of an RSA or ECC key, its Name, and the public
//! key in it. Its attributes are what the TPM enforces about the private half.

use super::hash::Hash;
use super::wire::{Reader, Wrong};
use crate::{Alg, Kind, PublicKey};

/// Longest coordinate, of P-521.
const COORDINATE_LEN_MAX: usize = 66;

/// Longest modulus: RSA-4096.
const MODULUS_LEN_MAX: usize = 512;

const RSA: u16 = 0x0001;
const ECC: u16 = 0x0023;
const NULL: u16 = 0x0010;
const AES: u16 = 0x0006;
const CFB: u16 = 0x0043;

/// 65537, which a public area has as zero (Part 2 §12.2.3.5).
const EXPONENT: u32 = 0x1_0001;

/// A public area, whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicArea {
    /// The hash of its Name.
    pub name_alg: Hash,
    /// What the TPM enforces.
    pub attributes: Attributes,
    /// authPolicy; empty for none.
    pub auth_policy: Vec<u8>,
    /// What it encloses its children with, if it is a parent.
    pub symmetric: Symmetric,
    /// How it signs, if that is fixed.
    pub scheme: Option<Scheme>,
    /// RSA or ECC.
    pub unique: Unique,
    name: Vec<u8>,
}

/// TPMA_OBJECT (Part 2 §8.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attributes(pub u32);

/// TPMT_SYM_DEF_OBJECT, as far as parents have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Symmetric {
    /// No parent.
    None,
    /// AES-128 in CFB mode.
    Aes128Cfb,
    /// AES-256 in CFB mode.
    Aes256Cfb,
}

/// A signature scheme and its hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scheme {
    /// TPM_ALG_ID
    pub id: u16,
    /// Its hash.
    pub hash: Hash,
}

/// What tells one key from another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unique {
    /// Modulus, and exponent.
    Rsa { n: Vec<u8>, e: u32, bits: u16 },
    /// TPM_ECC_CURVE and a point.
    Ecc { curve: u16, x: Vec<u8>, y: Vec<u8> },
}

/// TPM_RH_ENDORSEMENT: what a primary key of the endorsement hierarchy is below.
const ENDORSEMENT: [u8; 4] = [0x40, 0x00, 0x00, 0x0b];

impl Scheme {
    /// RSASSA-PKCS1-v1_5
    pub const RSASSA: u16 = 0x0014;
    /// RSAES-PKCS1-v1_5, which no key of ours has.
    const RSAES: u16 = 0x0015;
    /// RSASSA-PSS
    pub const RSAPSS: u16 = 0x0016;
    const OAEP: u16 = 0x0017;
    /// ECDSA
    pub const ECDSA: u16 = 0x0018;
}

impl Attributes {
    pub const FIXED_TPM: u32 = 1 << 1;
    pub const FIXED_PARENT: u32 = 1 << 4;
    pub const SENSITIVE_DATA_ORIGIN: u32 = 1 << 5;
    pub const USER_WITH_AUTH: u32 = 1 << 6;
    pub const ENCRYPTED_DUPLICATION: u32 = 1 << 11;
    pub const RESTRICTED: u32 = 1 << 16;
    pub const DECRYPT: u32 = 1 << 17;
    pub const SIGN: u32 = 1 << 18;

    const NAMES: [(u32, &str); 8] = [
        (Attributes::FIXED_TPM, "fixedTPM"),
        (Attributes::FIXED_PARENT, "fixedParent"),
        (Attributes::SENSITIVE_DATA_ORIGIN, "sensitiveDataOrigin"),
        (Attributes::USER_WITH_AUTH, "userWithAuth"),
        (Attributes::ENCRYPTED_DUPLICATION, "encryptedDuplication"),
        (Attributes::RESTRICTED, "restricted"),
        (Attributes::DECRYPT, "decrypt"),
        (Attributes::SIGN, "sign"),
    ];

    /// Whether all of these are set.
    pub fn has(self, bits: u32) -> bool {
        self.0 & bits == bits
    }

    /// Those of `set` that are not, and those of `clear` that are: the first of them, in words.
    pub fn differs(self, set: u32, clear: u32) -> Option<String> {
        let wrong = |(bit, name): &(u32, &str)| match self.has(*bit) {
            false if set & bit != 0 => Some(format!("{name} is not set")),
            true if clear & bit != 0 => Some(format!("{name} is set")),
            _ => None,
        };
        Attributes::NAMES.iter().find_map(wrong)
    }
}

impl PublicArea {
    /// Reads one; nothing may follow it.
    ///
    /// # Errors
    /// What is wrong with it. Another type than RSA and ECC, another hash, cipher or scheme than those
    /// that are known are wrong as well.
    pub fn parse(bytes: &[u8]) -> Result<PublicArea, Wrong> {
        let mut reader = Reader::of(bytes);
        let kind = reader.u16()?;
        let name_alg = Hash::of_id(reader.u16()?).ok_or("has a Name of an unknown hash")?;
        let attributes = Attributes(reader.u32()?);
        let auth_policy = reader.sized(64)?.to_vec();
        if !auth_policy.is_empty() && auth_policy.len() != name_alg.digest_len() {
            return Err("has a policy of another length than its hash");
        }
        let symmetric = symmetric(&mut reader)?;
        let scheme = scheme(&mut reader)?;
        let unique = match kind {
            RSA => {
                let (bits, e) = (reader.u16()?, reader.u32()?);
                let n = reader.sized(MODULUS_LEN_MAX)?.to_vec();
                let e = if e == 0 { EXPONENT } else { e };
                Unique::Rsa { n, e, bits }
            }
            ECC => {
                let curve = reader.u16()?;
                if reader.u16()? != NULL {
                    return Err("has a key derivation of its own");
                }
                let x = reader.sized(COORDINATE_LEN_MAX)?.to_vec();
                let y = reader.sized(COORDINATE_LEN_MAX)?.to_vec();
                Unique::Ecc { curve, x, y }
            }
            _ => return Err("is neither RSA nor ECC"),
        };
        reader.end()?;
        let digest = name_alg.of(&[bytes]);
        let name = [&name_alg.id().to_be_bytes(), &digest[..]].concat();
        Ok(PublicArea {
            name_alg,
            attributes,
            auth_policy,
            symmetric,
            scheme,
            unique,
            name,
        })
    }

    /// Its Name: the hash's id and the digest of the area as it was read, without a size.
    pub fn name(&self) -> &[u8] {
        &self.name
    }

    /// Its Qualified Name, if it lives below this primary key of the endorsement hierarchy: the one in
    /// which a TPM shows its counters and its firmware's version as they are (TPM 2.0 Part 1, names).
    pub fn qualified_name(&self, parent: &PublicArea) -> Vec<u8> {
        let qualified = |area: &PublicArea, above: &[u8]| {
            let digest = area.name_alg.of(&[above, area.name()]);
            [&area.name_alg.id().to_be_bytes()[..], &digest].concat()
        };
        qualified(self, &qualified(parent, &ENDORSEMENT))
    }

    /// The public key, its parameters checked.
    ///
    /// # Errors
    /// What is wrong with it: a point that is not on its curve, a modulus of another size, a curve
    /// that is not P-256 or P-384.
    pub fn public_key(&self) -> Result<PublicKey, Wrong> {
        let key = match &self.unique {
            Unique::Rsa { n, e, bits } => {
                if n.len() * 8 != usize::from(*bits) || n.first().is_none_or(|it| *it < 0x80) {
                    return Err("has a modulus of another size than it says");
                }
                PublicKey::from_rsa(n, &e.to_be_bytes())
            }
            Unique::Ecc { curve, x, y } => {
                let width: usize = match curve {
                    3 => 32,
                    4 => 48,
                    _ => return Err("is on another curve than P-256 and P-384"),
                };
                // Some TPMs leave out the zeros that a coordinate begins with.
                let padded = |bytes: &[u8]| {
                    let zeros = width.checked_sub(bytes.len())?;
                    Some([&vec![0; zeros], bytes].concat())
                };
                let (Some(x), Some(y)) = (padded(x), padded(y)) else {
                    return Err("has a point that is not on its curve");
                };
                PublicKey::from_sec1(&[&[4], &x[..], &y[..]].concat())
            }
        };
        key.map_err(|error| match error.kind() {
            Kind::Corrupt => match &self.unique {
                Unique::Rsa { .. } => "has a modulus or an exponent that is not accepted",
                Unique::Ecc { .. } => "has a point that is not on its curve",
            },
            _ => "is of no known kind",
        })
    }

    /// The JWS algorithm that it signs by, where that is fixed and one of ours.
    pub fn alg(&self) -> Option<Alg> {
        let scheme = self.scheme?;
        match (&self.unique, scheme.id, scheme.hash) {
            (Unique::Ecc { curve: 3, .. }, Scheme::ECDSA, Hash::Sha256) => Some(Alg::ES256),
            (Unique::Ecc { curve: 4, .. }, Scheme::ECDSA, Hash::Sha384) => Some(Alg::ES384),
            (Unique::Rsa { .. }, Scheme::RSASSA, Hash::Sha256) => Some(Alg::RS256),
            (Unique::Rsa { .. }, Scheme::RSAPSS, Hash::Sha256) => Some(Alg::PS256),
            _ => None,
        }
    }
}

fn symmetric(reader: &mut Reader<'_>) -> Result<Symmetric, Wrong> {
    match reader.u16()? {
        NULL => Ok(Symmetric::None),
        AES => match (reader.u16()?, reader.u16()?) {
            (128, CFB) => Ok(Symmetric::Aes128Cfb),
            (256, CFB) => Ok(Symmetric::Aes256Cfb),
            _ => Err("has an unknown cipher for its children"),
        },
        _ => Err("has an unknown cipher for its children"),
    }
}

fn scheme(reader: &mut Reader<'_>) -> Result<Option<Scheme>, Wrong> {
    match reader.u16()? {
        NULL => Ok(None),
        id @ (Scheme::RSASSA | Scheme::RSAPSS | Scheme::ECDSA) => {
            let hash = Hash::of_id(reader.u16()?).ok_or("signs with an unknown hash")?;
            Ok(Some(Scheme { id, hash }))
        }
        Scheme::RSAES | Scheme::OAEP => Err("has a scheme for encrypting"),
        _ => Err("has an unknown scheme"),
    }
}
