//! Keys of every kind, for tests.

use super::{Key, KeySet};
use crate::config::Issuer;
use crate::lifecycle::{Activation, Gate, Schedule};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair,
    KeyPair,
};
use keystore::charter::{Charter, KidMember, Purpose, Typ};
use keystore::keyid::KeyVersion;
use keystore::{Alg, KeyName, PublicKey};
use std::sync::Arc;

/// A new public key for an algorithm.
pub fn public_key(alg: Alg) -> PublicKey {
    let of_curve = |curve| {
        let pair = EcdsaKeyPair::generate(curve).unwrap();
        PublicKey::from_sec1(pair.public_key().as_ref()).unwrap()
    };
    match alg {
        Alg::ES256 => of_curve(&ECDSA_P256_SHA256_FIXED_SIGNING),
        Alg::ES384 => of_curve(&ECDSA_P384_SHA384_FIXED_SIGNING),
        Alg::EdDSA => {
            let pair = Ed25519KeyPair::generate().unwrap();
            PublicKey::from_ed25519(pair.public_key().as_ref()).unwrap()
        }
        // A modulus is any number of its size here: nothing is verified with it.
        Alg::RS256 | Alg::PS256 => {
            let mut n = crate::id::random::<256>().unwrap();
            n[0] |= 0x80;
            PublicKey::from_rsa(&n, &[1, 0, 1]).unwrap()
        }
    }
}

/// A new version of a key.
pub fn key(version: u32, alg: Alg) -> Key {
    Key::new(KeyVersion::new(version).unwrap(), public_key(alg), alg).unwrap()
}

/// A set of new ES256 keys, of which the first signs.
pub fn set(versions: &[u32]) -> KeySet {
    let mut keys = versions.iter().map(|version| key(*version, Alg::ES256));
    KeySet::new(keys.next().unwrap(), keys).unwrap()
}

/// An issuer as it is configured.
pub fn issuer(name: &str, url: &str, trust_domain: Option<&str>) -> Issuer {
    let purpose = Purpose::Federation {
        iss: url.to_owned(),
        subjects: Vec::new(),
    };
    Issuer {
        name: name.to_owned(),
        url: url.to_owned(),
        trust_domain: trust_domain.map(str::to_owned),
        subjects: Vec::new(),
        keystore: "hsm".to_owned(),
        alg: Alg::ES256,
        key: KeyName::issuer(name).unwrap(),
        charter: Arc::new(Charter {
            purpose,
            alg: Alg::ES256,
            typ: Typ::Jwt,
            kid: KidMember::Thumbprint,
            lifetime_max_s: 600,
            backdate_s: 0,
            certificate: keystore::CertificateUse::None,
        }),
        verify_url: None,
        schedule: Schedule {
            period_s: None,
            publish_s: 0,
            verifier_cache_s: 0,
            skew_s: 0,
            leeway_s: 0,
            rollback_s: 0,
            lifetime_max_s: 600,
            activation: Activation::ByTime,
            gate: Gate::Written,
        },
    }
}
