//! A TPM in Rust, for tests: keys of the test in place of those in silicon, statements as a TPM lays them out,
//! and a certificate authority. What an attacker can have is made with it as well: whatever a genuine TPM
//! would sign for him, and whatever he can sign himself.
#![allow(
    dead_code,
    reason = "each of the programs that take this in uses a part of it"
)]

#[path = "authority.rs"]
mod authority;
#[path = "logs.rs"]
pub mod logs;

pub use authority::Authority;

use keystore::charter::PurposeKind;
use keystore::evidence::bundle::{
    AttestationKey, Bank, Bundle, BundleType, Bytes, CertifiedKey, EndorsementKey, Firmware, Host,
    KeystoreEvidence, Nonce, PcrIndex, PcrValue, Pcrs, Quote, Text, Tpm, TpmEvidence, VERSION,
};
use keystore::evidence::context;
use keystore::evidence::enrolment::registry::{EkFingerprint, Enrolled, Registry, Replacing};
use keystore::evidence::hash::Hash;
use keystore::evidence::public::PublicArea;
use keystore::{Alg, KeyId, PublicKey};
use p256::ecdsa::signature::Signer as _;
use p256::ecdsa::{Signature, SigningKey};
use std::collections::BTreeMap;

/// When everything happens.
pub const NOW: u64 = 1_800_000_000;

/// Attributes of the three kinds of key.
pub const AK: u32 = 0x0005_0472;
pub const EK: u32 = 0x0003_00b2;
pub const KEY: u32 = 0x0004_0472;

/// TPM_RH_ENDORSEMENT
pub const ENDORSEMENT: u32 = 0x4000_000b;

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
    /// TPM_RH_ENDORSEMENT: in which hierarchy it is.
    pub hierarchy: u32,
    /// Whom statements name as their signer, if not the attestation key.
    pub signer: Option<Vec<u8>>,
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
            hierarchy: ENDORSEMENT,
            signer: None,
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

    /// Qualified Name of the attestation key, as its TPM has it (TPM 2.0 Part 1, names).
    pub fn ak_qn(&self) -> Vec<u8> {
        let below = |above: &[u8], area: &[u8]| {
            let digest = Hash::Sha256.of(&[above, &name(area)]);
            [&[0, 0x0b], &digest[..]].concat()
        };
        let parent = below(&self.hierarchy.to_be_bytes(), &self.parent_area());
        below(&parent, &self.ak_area())
    }

    /// Of the key above the attestation key.
    pub fn parent_area(&self) -> Vec<u8> {
        area(&self.ek, 0x0003_0472, &[], true)
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
            signer: self.signer.clone().unwrap_or_else(|| self.ak_qn()),
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
        let id: KeyId = key.id.parse().expect("it is an id");
        let extra = context::certify(&self.nonce, &self.host, &id, purpose, &public_key.spki());
        let mut certified = CertifiedKey {
            key: id,
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
                qualified_name: bytes(&self.ak_qn()),
                parent: bytes(&self.parent_area()),
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
            manufacturer: Some(Text::cut("IBM")),
            ak_name: bytes(&name(&self.ak_area())),
            ak_qualified_name: bytes(&self.ak_qn()),
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
             [[event_log.rule]]\npcr = 4\nnone = [\"{}\"]\n\
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
