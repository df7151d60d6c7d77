//! A TPM in Rust, for tests: keys of the test in place of those in silicon, statements as a TPM lays them out,
//! and a certificate authority. What an attacker can have is made with it as well: whatever a genuine TPM
//! would sign for him, and whatever he can sign himself.
#![allow(
    dead_code,
    reason = "each of the programs that take this in uses a part of it"
)]

use keystore::charter::PurposeKind;
use keystore::der::{
    BIT_STRING, BOOLEAN, CONTEXT_0, CONTEXT_3, INTEGER, OBJECT_IDENTIFIER, OCTET_STRING, SEQUENCE,
    SET, UTC_TIME, UTF8_STRING, element, unsigned_element,
};
use keystore::evidence::bundle::{
    AttestationKey, Bank, Bundle, BundleType, Bytes, CertifiedKey, EndorsementKey, Firmware, Host,
    KeystoreEvidence, Nonce, PcrIndex, PcrValue, Pcrs, Quote, Text, Tpm, TpmEvidence, VERSION,
};
use keystore::evidence::context;
use keystore::evidence::enrolment::registry::{EkFingerprint, Enrolled, Registry, Replacing};
use keystore::evidence::hash::Hash;
use keystore::evidence::public::PublicArea;
use keystore::{Alg, PublicKey};
use p256::ecdsa::signature::Signer as _;
use p256::ecdsa::{Signature, SigningKey};
use std::collections::BTreeMap;

/// When everything happens.
pub const NOW: u64 = 1_800_000_000;

/// Attributes of the three kinds of key.
pub const AK: u32 = 0x0005_0472;
pub const EK: u32 = 0x0003_00b2;
pub const KEY: u32 = 0x0004_0472;

const ECDSA_SHA256: &[u8] = b"\x30\x0a\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x02";
const EKU: &[u8] = &[0x67, 0x81, 0x05, 0x08, 0x01];

/// A host with its TPM.
#[derive(Clone)]
pub struct World {
    pub host: Host,
    pub nonce: Nonce,
    pub root: Authority,
    pub ek: SigningKey,
    pub ak: SigningKey,
    /// AK's attributes.
    pub ak_attributes: u32,
    /// Qualified Name of the AK.
    pub ak_qn: Vec<u8>,
    pub keys: Vec<Key>,
    pub reset: u32,
    pub restart: u32,
    pub firmware: u64,
    pub pcrs: Pcrs,
    pub event_log: Vec<u8>,
    pub ima: Vec<u8>,
}

/// A workload's key.
#[derive(Clone)]
pub struct Key {
    pub id: &'static str,
    pub secret: SigningKey,
    pub attributes: u32,
    pub auth_policy: Vec<u8>,
}

/// A certificate authority.
#[derive(Clone)]
pub struct Authority {
    pub secret: SigningKey,
    name: Vec<u8>,
}

/// TPMS_ATTEST, taken apart.
#[derive(Clone)]
pub struct Statement {
    pub magic: u32,
    pub kind: u16,
    pub signer: Vec<u8>,
    pub extra: Vec<u8>,
    pub reset: u32,
    pub restart: u32,
    pub firmware: u64,
    /// TPMU_ATTEST
    pub attested: Vec<u8>,
}

pub fn secret(byte: u8) -> SigningKey {
    SigningKey::from_slice(&[byte; 32]).expect("any such number is a key")
}

pub fn public(key: &SigningKey) -> PublicKey {
    let point = key.verifying_key().to_sec1_bytes();
    PublicKey::from_sec1(&point).expect("it is a point")
}

/// TPM2B
pub fn sized(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u16).to_be_bytes(), bytes].concat()
}

/// TPMT_PUBLIC of a P-256 key: a signing one if it has no cipher.
pub fn area(key: &SigningKey, attributes: u32, policy: &[u8], is_parent: bool) -> Vec<u8> {
    let PublicKey::P256 { x, y } = public(key) else {
        panic!("it is P-256");
    };
    let how: &[u8] = match is_parent {
        true => b"\x00\x06\x00\x80\x00\x43\x00\x10", // AES-128-CFB, no scheme
        false => b"\x00\x10\x00\x18\x00\x0b",        // ECDSA, SHA-256
    };
    [
        &b"\x00\x23\x00\x0b"[..],
        &attributes.to_be_bytes(),
        &sized(policy),
        how,
        b"\x00\x03\x00\x10", // P-256, no KDF
        &sized(&x),
        &sized(&y),
    ]
    .concat()
}

pub fn name(area: &[u8]) -> Vec<u8> {
    PublicArea::parse(area).expect("it is one").name().to_vec()
}

/// TPMT_SIGNATURE
pub fn sign(key: &SigningKey, bytes: &[u8]) -> Vec<u8> {
    let signature: Signature = key.sign(bytes);
    let (r, s) = signature.split_bytes();
    [&b"\x00\x18\x00\x0b"[..], &sized(&r), &sized(&s)].concat()
}

pub fn bytes<const MAX: usize>(bytes: &[u8]) -> Bytes<MAX> {
    Bytes::new(bytes.to_vec()).expect("it is short enough")
}

pub fn pcr(index: u8) -> PcrIndex {
    PcrIndex::new(index).expect("a PC has it")
}

impl World {
    /// A healthy host.
    pub fn new() -> World {
        let key = |id, byte| Key {
            id,
            secret: secret(byte),
            attributes: KEY,
            auth_policy: Vec::new(),
        };
        let mut world = World {
            host: "web-1".parse().expect("it is a name"),
            nonce: Nonce([7; 32]),
            root: Authority::new(1, "Root"),
            ek: secret(2),
            ak: secret(3),
            ak_attributes: AK,
            ak_qn: [&[0, 11][..], &[9; 32]].concat(),
            keys: vec![key("ours/bank.1", 4), key("issuer/prod.2", 5)],
            reset: 12,
            restart: 3,
            firmware: 0x2019_1023_0016_3636,
            pcrs: Pcrs::new(),
            event_log: logs::event_log(1),
            ima: Vec::new(),
        };
        world.boot();
        world
    }

    /// The PCRs that the logs lead to.
    pub fn boot(&mut self) {
        let log =
            keystore::evidence::eventlog::EventLog::parse(&self.event_log).expect("it is one");
        let mut values = log.replay(Bank::Sha256).expect("it has that bank");
        for index in 0..=9 {
            let begun = PcrValue::new(&log.beginning(pcr(index), Bank::Sha256));
            values.entry(pcr(index)).or_insert(begun);
        }
        let parts: Vec<&[u8]> = (0..=9).map(|it| values[&pcr(it)].as_slice()).collect();
        let (list, value) = logs::ima(&Hash::Sha256.of(&parts));
        self.ima = list;
        values.insert(pcr(10), PcrValue::new(&value));
        self.pcrs = BTreeMap::from([(Bank::Sha256, values)]);
    }

    pub fn ak_area(&self) -> Vec<u8> {
        area(&self.ak, self.ak_attributes, &[], false)
    }

    pub fn ek_area(&self) -> Vec<u8> {
        area(&self.ek, EK, &[0xa5; 32], true)
    }

    pub fn ek_certificate(&self) -> Vec<u8> {
        self.root.ek_certificate(&public(&self.ek).spki(), EKU, NOW)
    }

    fn statement(&self, kind: u16, extra: &[u8], attested: Vec<u8>) -> Statement {
        Statement {
            magic: 0xff54_4347,
            kind,
            signer: self.ak_qn.clone(),
            extra: extra.to_vec(),
            reset: self.reset,
            restart: self.restart,
            firmware: self.firmware,
            attested,
        }
    }

    /// TPM2_Certify
    pub fn certify(&self, area: &[u8], extra: &[u8]) -> Statement {
        let attested = [
            sized(&name(area)),
            sized(&[&[0, 11][..], &[8; 32]].concat()),
        ];
        self.statement(0x8017, extra, attested.concat())
    }

    /// TPM2_Quote over all of `pcrs`
    pub fn quote(&self, extra: &[u8], pcrs: &Pcrs) -> Statement {
        let mut attested = (pcrs.len() as u32).to_be_bytes().to_vec();
        let mut values = Vec::new();
        for (bank, of) in pcrs {
            let mut bitmap = [0u8; 3];
            for (index, value) in of {
                bitmap[usize::from(index.number() / 8)] |= 1 << (index.number() % 8);
                values.push(value.as_slice());
            }
            attested.extend(bank.id().to_be_bytes());
            attested.push(3);
            attested.extend(bitmap);
        }
        attested.extend(sized(&Hash::Sha256.of(&values)));
        self.statement(0x8018, extra, attested)
    }

    /// A key with the TPM's statement about it.
    pub fn certified(&self, key: &Key) -> CertifiedKey {
        let public_key = public(&key.secret);
        let area = area(&key.secret, key.attributes, &key.auth_policy, false);
        let purpose = PurposeKind::ClientAuthentication;
        let extra = context::certify(&self.nonce, &self.host, purpose, &public_key.spki());
        let mut certified = CertifiedKey {
            key: key.id.parse().expect("it is an id"),
            target: None,
            kid: public_key.kid(),
            purpose,
            alg: Alg::ES256,
            jwk: public_key,
            public: bytes(&area),
            attest: bytes(&[]),
            signature: bytes(&[]),
            imported: false,
            policy: None,
        };
        self.restate(&mut certified, &self.certify(&area, &extra));
        certified
    }

    /// Has the TPM state this about a key.
    pub fn restate(&self, key: &mut CertifiedKey, statement: &Statement) {
        let attest = statement.bytes();
        key.signature = bytes(&sign(&self.ak, &attest));
        key.attest = bytes(&attest);
    }

    /// A quote with these statements.
    pub fn quoted(&self, keys: &[CertifiedKey]) -> Quote {
        self.requoted(keys, &self.pcrs)
    }

    /// A quote of other PCRs.
    pub fn requoted(&self, keys: &[CertifiedKey], pcrs: &Pcrs) -> Quote {
        let statements = context::statements(keys.iter().map(|key| key.attest.as_slice()));
        let extra = context::quote(&self.nonce, &self.host, &statements);
        let attest = self.quote(&extra, pcrs).bytes();
        Quote {
            signature: bytes(&sign(&self.ak, &attest)),
            attest: bytes(&attest),
            pcrs: pcrs.clone(),
        }
    }

    /// What the TPM says.
    pub fn evidence(&self) -> TpmEvidence {
        let keys: Vec<CertifiedKey> = self.keys.iter().map(|key| self.certified(key)).collect();
        let quote = Some(self.quoted(&keys));
        TpmEvidence {
            name: Text::cut("tpm"),
            tpm: self.tpm(),
            keys,
            quote,
        }
    }

    pub fn tpm(&self) -> Tpm {
        Tpm {
            manufacturer: Text::cut("IBM"),
            vendor: Text::cut("SW   TPM"),
            firmware: Firmware(self.firmware),
            family_revision: Text::cut("1.59"),
            ek: EndorsementKey {
                public: bytes(&self.ek_area()),
                certificate: Some(bytes(&self.ek_certificate())),
                chain: Vec::new(),
            },
            ak: AttestationKey {
                public: bytes(&self.ak_area()),
                qualified_name: bytes(&self.ak_qn),
            },
        }
    }

    pub fn bundle_of(&self, evidence: TpmEvidence) -> Bundle {
        Bundle {
            r#type: BundleType::AssertdEvidence,
            version: VERSION,
            made_at: NOW,
            host: self.host.clone(),
            nonce: self.nonce,
            keystores: vec![KeystoreEvidence::Tpm(evidence)],
            event_log: Some(bytes(&self.event_log)),
            ima: Some(bytes(&self.ima)),
        }
    }

    pub fn bundle(&self) -> Bundle {
        self.bundle_of(self.evidence())
    }

    pub fn enrolled(&self) -> Enrolled {
        Enrolled {
            host: self.host.clone(),
            keystore: Text::cut("tpm"),
            ek: EkFingerprint::of_spki(&public(&self.ek).spki()),
            ak_name: bytes(&name(&self.ak_area())),
            ak_qualified_name: bytes(&self.ak_qn),
            enrolled_at: NOW,
            counters: None,
        }
    }

    pub fn registry(&self) -> Registry {
        let mut registry = Registry::new();
        let recorded = registry.record(self.enrolled(), Replacing::Refused);
        recorded.expect("there is nobody else");
        registry
    }

    /// One that wants all that this host can show.
    pub fn policy(&self) -> String {
        let seven = &self.pcrs[&Bank::Sha256][&pcr(7)];
        format!(
            "minimum = \"tpm-certified\"\nregistry = \"registry.json\"\n\
             [ek]\nroots = [\"roots.pem\"]\n\
             [quote]\nselect = {{ sha256 = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10] }}\n\
             [quote.values.sha256]\n7 = [\"{seven}\"]\n\
             [event_log]\nrequired = true\nsecure_boot = true\n\
             [[event_log.rule]]\npcr = 4\ntype = 0x80000003\nnone = [\"{}\"]\n\
             [ima]\nrequired = true\n",
            "00".repeat(32)
        )
    }
}

impl Statement {
    pub fn bytes(&self) -> Vec<u8> {
        [
            &self.magic.to_be_bytes()[..],
            &self.kind.to_be_bytes(),
            &sized(&self.signer),
            &sized(&self.extra),
            &123_456_789u64.to_be_bytes(),
            &self.reset.to_be_bytes(),
            &self.restart.to_be_bytes(),
            &[1],
            &self.firmware.to_be_bytes(),
            &self.attested,
        ]
        .concat()
    }
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
        let is_ca = element(SEQUENCE, &element(BOOLEAN, &[0xff]));
        let extensions = extension(b"\x55\x1d\x13", true, &is_ca);
        self.issue(&self.name, &public(&self.secret).spki(), &extensions, NOW)
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
            extension(b"\x55\x1d\x0f", true, b"\x03\x02\x03\x08"), // keyAgreement
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
        let content = element(SEQUENCE, &content.concat());
        let signature: Signature = self.secret.sign(&content);
        let signature = [&[0], signature.to_der().as_bytes()].concat();
        let whole = [&content, ECDSA_SHA256, &element(BIT_STRING, &signature)].concat();
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

/// What firmware and kernel write.
pub mod logs {
    use super::{Bank, Hash};

    /// A firmware that handed over in good order, with Secure Boot on or off.
    pub fn event_log(secure_boot: u8) -> Vec<u8> {
        let mut log = begun();
        log.extend(event(0, 8, b"version"));
        log.extend(event(7, 0x8000_0001, &variable(secure_boot)));
        for pcr in 0..8 {
            log.extend(event(pcr, 4, &[0; 4]));
        }
        log.extend(event(4, 0x8000_0003, b"kernel"));
        log
    }

    /// The first record: SHA-1 and SHA-256.
    pub fn begun() -> Vec<u8> {
        let mut spec = b"Spec ID Event03\0".to_vec();
        spec.extend([0, 0, 0, 0, 0, 2, 0, 2]);
        spec.extend(2u32.to_le_bytes());
        for (id, length) in [(4u16, 20u16), (0xb, 32)] {
            spec.extend([id.to_le_bytes(), length.to_le_bytes()].concat());
        }
        spec.push(0);
        let mut log = [0u32, 3].map(u32::to_le_bytes).concat();
        log.extend([0; 20]);
        log.extend((spec.len() as u32).to_le_bytes());
        log.extend(spec);
        log
    }

    /// An event that says what was measured.
    pub fn event(pcr: u32, kind: u32, data: &[u8]) -> Vec<u8> {
        let mut event = [pcr, kind, 2].map(u32::to_le_bytes).concat();
        for bank in [Bank::Sha1, Bank::Sha256] {
            event.extend(bank.id().to_le_bytes());
            event.extend(bank.of(&[data]));
        }
        event.extend((data.len() as u32).to_le_bytes());
        event.extend(data);
        event
    }

    fn variable(value: u8) -> Vec<u8> {
        let guid = [
            0x61, 0xdf, 0xe4, 0x8b, 0xca, 0x93, 0xd2, 0x11, 0xaa, 0x0d, 0x00, 0xe0, 0x98, 0x03,
            0x2b, 0x8c,
        ];
        let name: Vec<u8> = "SecureBoot"
            .encode_utf16()
            .flat_map(u16::to_le_bytes)
            .collect();
        let lengths = [10u64.to_le_bytes(), 1u64.to_le_bytes()].concat();
        [&guid[..], &lengths, &name, &[value]].concat()
    }

    /// A list that begins with this aggregate and has entries after what was quoted; and PCR 10.
    pub fn ima(aggregate: &[u8]) -> (Vec<u8>, Vec<u8>) {
        let mut list = Vec::new();
        let mut value = vec![0; 32];
        for (name, digest, is_quoted) in [
            ("boot_aggregate", aggregate, true),
            ("/usr/bin/assertd", &[1; 32], true),
            ("/usr/bin/later", &[2; 32], false),
        ] {
            let sized = |bytes: &[u8]| [&(bytes.len() as u32).to_le_bytes(), bytes].concat();
            let digest = sized(&[b"sha256:\0", digest].concat());
            let data = [digest, sized(&[name.as_bytes(), b"\0"].concat())].concat();
            list.extend(10u32.to_le_bytes());
            list.extend(Hash::Sha1.of(&[&data]));
            list.extend(sized(b"ima-ng"));
            list.extend(sized(&data));
            if is_quoted {
                value = Hash::Sha256.of(&[&value, &Hash::Sha256.of(&[&data])]);
            }
        }
        (list, value)
    }
}
