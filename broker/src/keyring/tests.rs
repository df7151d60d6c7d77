//! A keystore that comes, goes, lies and comes back, as the keyring sees it.

use super::*;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use keystore::protocol::EvidenceLevel;
use keystore::{CertificateUse, Charter, KidMember, Purpose, Typ};

fn entry(key: &str) -> KeyEntry {
    let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
    let public_key = PublicKey::from_sec1(pair.public_key().as_ref()).unwrap();
    let text = || "x".to_owned();
    KeyEntry {
        key: key.parse().unwrap(),
        kid: public_key.kid(),
        public_key,
        charter: Charter {
            purpose: Purpose::ClientAuthentication {
                iss: text(),
                sub: text(),
                aud: text(),
            },
            alg: Alg::ES256,
            typ: Typ::ClientAuthentication,
            kid: KidMember::Thumbprint,
            lifetime_max_s: 60,
            backdate_s: 0,
            certificate: CertificateUse::None,
        },
        evidence: Evidence {
            level: EvidenceLevel::Asserted,
            imported: false,
        },
        condition: Condition::Usable {},
        certificate: None,
    }
}

fn failed(entry: &KeyEntry) -> KeyEntry {
    let condition = Condition::Failed {
        kind: Kind::Unavailable,
        why: "the probe failed".into(),
    };
    KeyEntry {
        condition,
        ..entry.clone()
    }
}

fn keyring() -> (tempfile::TempDir, StateDir, Keyring) {
    let tmp = tempfile::tempdir().unwrap();
    let dir = StateDir::lock(&tmp.path().join("state")).unwrap();
    let keyring = Keyring::open(&dir).unwrap();
    (tmp, dir, keyring)
}

fn shows(keyring: &Keyring, entries: &[KeyEntry]) {
    keyring.compare("hsm", &keyring.records(), entries);
}

#[test]
fn a_recorded_key_is_active_after_a_restart_once_its_keystore_shows_it() {
    let (_tmp, dir, first) = keyring();
    let bank = entry("a/bank.1");
    first.record("hsm", &bank, 1).unwrap();
    assert_eq!(first.active(&bank.key.name).unwrap().kid, bank.kid);
    let second = Keyring::open(&dir).unwrap();
    assert!(matches!(
        second.active(&bank.key.name),
        Err(Unusable::Failed(..))
    ));
    shows(&second, std::slice::from_ref(&bank));
    assert_eq!(second.active(&bank.key.name).unwrap().kid, bank.kid);
}

#[test]
fn a_key_that_vanishes_or_changes_is_not_used_and_comes_back() {
    let (_tmp, _dir, keyring) = keyring();
    let bank = entry("a/bank.1");
    keyring.record("hsm", &bank, 1).unwrap();
    for wrong in [vec![], vec![entry("a/bank.1")], vec![failed(&bank)]] {
        shows(&keyring, &wrong);
        assert!(matches!(
            keyring.active(&bank.key.name),
            Err(Unusable::Failed(..))
        ));
        shows(&keyring, std::slice::from_ref(&bank));
        assert!(keyring.active(&bank.key.name).is_ok());
    }
}

#[test]
fn a_suspension_outlives_whatever_the_keystore_does() {
    let (_tmp, _dir, keyring) = keyring();
    let bank = entry("a/bank.1");
    keyring.record("hsm", &bank, 1).unwrap();
    keyring.suspend(&bank.key);
    for shown in [
        vec![failed(&bank)],
        vec![bank.clone()],
        vec![],
        vec![bank.clone()],
    ] {
        shows(&keyring, &shown);
        assert!(keyring.active(&bank.key.name).is_err());
    }
    assert!(matches!(
        keyring.active(&bank.key.name),
        Err(Unusable::Suspended(_))
    ));
}

#[test]
fn an_id_is_recorded_with_one_public_key() {
    let (_tmp, _dir, keyring) = keyring();
    let bank = entry("a/bank.1");
    keyring.record("hsm", &bank, 1).unwrap();
    assert_eq!(keyring.record("hsm", &bank, 2).unwrap().made_at, 1);
    let error = keyring.record("hsm", &entry("a/bank.1"), 2).unwrap_err();
    assert_eq!(error.kind(), Kind::Mismatch);
    assert_eq!(
        keyring.record("other", &bank, 2).unwrap_err().kind(),
        Kind::Mismatch
    );
}

#[test]
fn a_key_recorded_while_the_keystore_was_asked_is_not_missing() {
    let (_tmp, _dir, keyring) = keyring();
    let (bank, later) = (entry("a/bank.1"), entry("a/later.1"));
    keyring.record("hsm", &bank, 1).unwrap();
    let before = keyring.records();
    keyring.record("hsm", &later, 1).unwrap();
    keyring.compare("hsm", &before, std::slice::from_ref(&bank));
    assert!(keyring.active(&later.key.name).is_ok());
}

#[test]
fn a_key_that_was_not_made_says_so() {
    let (_tmp, _dir, keyring) = keyring();
    let name: KeyName = "a/bank".parse().unwrap();
    assert_eq!(keyring.active(&name).err(), Some(Unusable::NotMade(name)));
}
