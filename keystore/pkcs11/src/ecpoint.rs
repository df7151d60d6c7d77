//! CKA_EC_POINT, which modules encode in five ways: the standard's DER OCTET STRING, the bare
//! point, X ‖ Y without its 0x04, and, for Edwards keys, the bare 32 bytes or a BIT STRING. 0x04
//! is both the tag of an OCTET STRING and that of an uncompressed point (SEC 1 §2.3.3), so the
//! length decides; that the result is on its curve is checked by [`PublicKey`]. Pure.

use keystore::{Error, Kind, PublicKey};

/// The curves we make keys on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Curve {
    /// secp256r1
    P256,
    /// secp384r1
    P384,
    /// edwards25519
    Ed25519,
}

impl Curve {
    /// DER of the named curve's object identifier, for CKA_EC_PARAMS (RFC 5480 §2.1.1.1,
    /// RFC 8410 §3).
    pub fn oid(self) -> &'static [u8] {
        match self {
            Curve::P256 => &[0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07],
            Curve::P384 => &[0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x22],
            Curve::Ed25519 => &[0x06, 0x03, 0x2b, 0x65, 0x70],
        }
    }

    /// Bytes of a coordinate.
    fn width(self) -> usize {
        match self {
            Curve::P256 | Curve::Ed25519 => 32,
            Curve::P384 => 48,
        }
    }
}

/// DER PrintableString "edwards25519": the other form PKCS#11 v3.1 §6.3.6 allows for Ed25519.
pub const EDWARDS25519_NAME: &[u8] = b"\x13\x0cedwards25519";

const OCTET_STRING: u8 = 0x04;
const BIT_STRING: u8 = 0x03;

/// The public key in a CKA_EC_POINT.
///
/// # Errors
/// [`Kind::Mismatch`] if the bytes are no point of this curve in an encoding we know.
pub fn parse(curve: Curve, bytes: &[u8]) -> Result<PublicKey, Error> {
    let mismatch = || {
        let head: Vec<String> = bytes
            .iter()
            .take(4)
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let text = format!(
            "CKA_EC_POINT: {} bytes starting {} are no {curve:?} point in a known encoding",
            bytes.len(),
            head.join(" ")
        );
        Error::new(Kind::Mismatch, text)
    };
    let point_len = match curve {
        Curve::Ed25519 => curve.width(),
        Curve::P256 | Curve::P384 => 1 + 2 * curve.width(),
    };
    let point = unwrap_der(bytes, point_len).unwrap_or(bytes);
    let key = match curve {
        Curve::Ed25519 => PublicKey::from_ed25519(point),
        _ if point.len() == point_len => PublicKey::from_sec1(point),
        _ if point.len() == point_len - 1 => PublicKey::from_sec1(&[&[0x04], point].concat()),
        _ => return Err(mismatch()),
    };
    key.map_err(|error| mismatch().because(error))
}

/// The content of an OCTET STRING, or of a BIT STRING without unused bits, if the content is
/// exactly `len` bytes long. All our lengths are below 128: one length byte.
fn unwrap_der(bytes: &[u8], len: usize) -> Option<&[u8]> {
    let (head, content) = bytes.split_at_checked(bytes.len().checked_sub(len)?)?;
    match *head {
        [OCTET_STRING, n] if usize::from(n) == len => Some(content),
        [BIT_STRING, n, 0] if usize::from(n) == len + 1 => Some(content),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_lc_rs::signature::{self, EcdsaKeyPair, Ed25519KeyPair, KeyPair};
    use proptest::prelude::*;

    fn ec_point(algorithm: &'static signature::EcdsaSigningAlgorithm) -> Vec<u8> {
        EcdsaKeyPair::generate(algorithm)
            .unwrap()
            .public_key()
            .as_ref()
            .to_vec()
    }

    fn every_form(point: &[u8]) -> Vec<Vec<u8>> {
        let len = point.len() as u8;
        vec![
            [&[0x04, len], point].concat(),
            [&[0x03, len + 1, 0x00], point].concat(),
            point.to_vec(),
        ]
    }

    #[test]
    fn every_encoding_of_an_ec_point_gives_the_same_key() {
        for (curve, algorithm) in [
            (Curve::P256, &signature::ECDSA_P256_SHA256_FIXED_SIGNING),
            (Curve::P384, &signature::ECDSA_P384_SHA384_FIXED_SIGNING),
        ] {
            let point = ec_point(algorithm);
            let expected = PublicKey::from_sec1(&point).unwrap();
            let mut forms = every_form(&point);
            forms.push(point[1..].to_vec());
            for form in forms {
                assert_eq!(parse(curve, &form).unwrap(), expected, "{form:02x?}");
            }
        }
    }

    #[test]
    fn every_encoding_of_an_edwards_point_gives_the_same_key() {
        let pair = Ed25519KeyPair::generate().unwrap();
        let point = pair.public_key().as_ref();
        let expected = PublicKey::from_ed25519(point).unwrap();
        for form in every_form(point) {
            assert_eq!(
                parse(Curve::Ed25519, &form).unwrap(),
                expected,
                "{form:02x?}"
            );
        }
    }

    #[test]
    fn a_bare_x_and_y_that_begin_like_der_are_read_by_their_length() {
        // A P-256 key whose X begins 04 3e would be an OCTET STRING of 62 bytes, were it not for
        // the length; some key has such an X, and so has this search for one that starts with 04.
        let point =
            std::iter::repeat_with(|| ec_point(&signature::ECDSA_P256_SHA256_FIXED_SIGNING))
                .find(|point| point[1] == 0x04)
                .unwrap();
        let expected = PublicKey::from_sec1(&point).unwrap();
        assert_eq!(parse(Curve::P256, &point[1..]).unwrap(), expected);
    }

    #[test]
    fn a_point_of_another_curve_or_off_the_curve_is_no_key() {
        let point = ec_point(&signature::ECDSA_P384_SHA384_FIXED_SIGNING);
        assert_eq!(
            parse(Curve::P256, &point).unwrap_err().kind(),
            Kind::Mismatch
        );
        let mut point = ec_point(&signature::ECDSA_P256_SHA256_FIXED_SIGNING);
        point[64] ^= 1;
        assert_eq!(
            parse(Curve::P256, &point).unwrap_err().kind(),
            Kind::Mismatch
        );
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..120)) {
            for curve in [Curve::P256, Curve::P384, Curve::Ed25519] {
                let _ = parse(curve, &bytes);
            }
        }
    }
}
