//! A certificate authority of a test.

use super::{NOW, public, secret};
use keystore::der::{
    BIT_STRING, BOOLEAN, CONTEXT_0, CONTEXT_3, INTEGER, OBJECT_IDENTIFIER, OCTET_STRING, SEQUENCE,
    SET, UTC_TIME, UTF8_STRING, element, unsigned_element,
};
use p256::ecdsa::signature::Signer as _;
use p256::ecdsa::{Signature, SigningKey};

const ECDSA_SHA256: &[u8] = b"\x30\x0a\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x02";

/// One.
#[derive(Clone)]
pub struct Authority {
    pub secret: SigningKey,
    name: Vec<u8>,
}

impl Authority {
    pub fn new(byte: u8, name: &str) -> Authority {
        let attribute = [
            element(OBJECT_IDENTIFIER, b"\x55\x04\x03"),
            element(UTF8_STRING, name.as_bytes()),
        ];
        let attribute = element(SEQUENCE, &attribute.concat());
        Authority {
            secret: secret(byte),
            name: element(SEQUENCE, &element(SET, &attribute)),
        }
    }

    /// Its own certificate.
    pub fn certificate(&self) -> Vec<u8> {
        self.certifies(self)
    }

    /// One of an authority below it.
    pub fn certifies(&self, other: &Authority) -> Vec<u8> {
        let is_ca = element(SEQUENCE, &element(BOOLEAN, &[0xff]));
        let extensions = extension(b"\x55\x1d\x13", true, &is_ca);
        self.issue(&other.name, &public(&other.secret).spki(), &extensions, NOW)
    }

    pub fn pem(&self) -> String {
        use base64::{Engine as _, engine::general_purpose::STANDARD};
        let base64 = STANDARD.encode(self.certificate());
        let lines: Vec<&str> = base64
            .as_bytes()
            .chunks(64)
            .map(|line| std::str::from_utf8(line).expect("base64 is ASCII"))
            .collect();
        format!(
            "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n",
            lines.join("\n")
        )
    }

    /// One of an endorsement key, as chips have it: no subject, the maker in a critical name.
    pub fn ek_certificate(&self, spki: &[u8], usage: &[u8], now: u64) -> Vec<u8> {
        let agrees = [0x03, 0x08]; // keyAgreement
        self.ek_certificate_for(agrees, spki, usage, now)
    }

    /// One with another key usage: how many bits at its end are none, and the bits (RFC 5280 §4.2.1.3).
    pub fn ek_certificate_for(
        &self,
        uses: [u8; 2],
        spki: &[u8],
        usage: &[u8],
        now: u64,
    ) -> Vec<u8> {
        let part = |last: u8, text: &str| {
            let content = [
                element(OBJECT_IDENTIFIER, &[0x67, 0x81, 0x05, 0x02, last]),
                element(UTF8_STRING, text.as_bytes()),
            ];
            element(SET, &element(SEQUENCE, &content.concat()))
        };
        let name = [
            part(1, "id:49424D00"),
            part(2, "swtpm"),
            part(3, "id:20191023"),
        ];
        let name = element(0xa4, &element(SEQUENCE, &name.concat()));
        let extensions = [
            extension(b"\x55\x1d\x11", true, &element(SEQUENCE, &name)),
            extension(b"\x55\x1d\x0f", true, &element(BIT_STRING, &uses)),
            extension(
                b"\x55\x1d\x25",
                false,
                &element(SEQUENCE, &element(OBJECT_IDENTIFIER, usage)),
            ),
        ];
        self.issue(&element(SEQUENCE, &[]), spki, &extensions.concat(), now)
    }

    fn issue(&self, subject: &[u8], spki: &[u8], extensions: &[u8], now: u64) -> Vec<u8> {
        // As long as UTCTime can say, or over for years.
        let (from, to) = match now {
            NOW => ("250101000000Z", "491231235959Z"),
            _ => ("200101000000Z", "200103000000Z"),
        };
        let validity = [from, to].map(|it| element(UTC_TIME, it.as_bytes()));
        let content = [
            element(CONTEXT_0, &unsigned_element(2)),
            element(INTEGER, &[0x40, 1, 2, 3]),
            ECDSA_SHA256.to_vec(),
            self.name.clone(),
            element(SEQUENCE, &validity.concat()),
            subject.to_vec(),
            spki.to_vec(),
            element(CONTEXT_3, &element(SEQUENCE, extensions)),
        ];
        self.sign(&element(SEQUENCE, &content.concat()))
    }

    /// A certificate of this content (TBSCertificate), whatever it is.
    pub fn sign(&self, content: &[u8]) -> Vec<u8> {
        let signature: Signature = self.secret.sign(content);
        let signature = [&[0], signature.to_der().as_bytes()].concat();
        let whole = [content, ECDSA_SHA256, &element(BIT_STRING, &signature)].concat();
        element(SEQUENCE, &whole)
    }
}

fn extension(oid: &[u8], critical: bool, value: &[u8]) -> Vec<u8> {
    let mut content = element(OBJECT_IDENTIFIER, oid);
    if critical {
        content.extend(element(BOOLEAN, &[0xff]));
    }
    content.extend(element(OCTET_STRING, value));
    element(SEQUENCE, &content)
}
