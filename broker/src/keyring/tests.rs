//! A keystore that comes, goes, lies and comes back, as the keyring sees it.

use super::*;
use crate::lifecycle::{Boot, Cause, Hold, Phase, Sync};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use keystore::protocol::{Condition, Counter, CounterPlace, Evidence, EvidenceLevel};
use keystore::{CertificateUse, Charter, KidMember, Purpose, Typ};
use std::sync::atomic::{AtomicU64, Ordering};

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
    let keyring = opened(&dir);
    (tmp, dir, keyring)
}

fn opened(dir: &StateDir) -> Keyring {
    opened_where_a_look_takes(1, dir)
}

/// So many seconds from one look at the clock to the next.
fn opened_where_a_look_takes(seconds: u64, dir: &StateDir) -> Keyring {
    let boot_s = AtomicU64::new(100);
    let clocks = move || Reading {
        wall_s: 1_700_000_000,
        boot_s: boot_s.fetch_add(seconds, Ordering::Relaxed),
        boot: Boot("one".into()),
        sync: Sync::Unknown,
    };
    Keyring::open(dir, Box::new(clocks)).unwrap()
}

fn change(keyring: &Keyring, key: &KeyEntry, changes: &[Change]) {
    let lineage = keyring.lineage(&key.key.name).unwrap();
    let changed = keyring.change(&key.key.name, &lineage, changes).unwrap();
    assert!(matches!(changed, Changed::Yes(_)));
}

/// Recorded, published, active.
fn activated(keyring: &Keyring, key: &KeyEntry) {
    keyring.record("hsm", key, By::Keeper, 1).unwrap();
    let version = key.key.version;
    let changes = [
        Change::List(version),
        Change::Written,
        Change::Activate(version),
    ];
    change(keyring, key, &changes);
}

fn shows(keyring: &Keyring, entries: &[KeyEntry]) {
    keyring.compare("hsm", &keyring.records(), entries);
}

#[test]
fn a_recorded_key_is_active_after_a_restart_once_its_keystore_shows_it() {
    let (_tmp, dir, first) = keyring();
    let bank = entry("a/bank.1");
    activated(&first, &bank);
    assert_eq!(first.active(&bank.key.name).unwrap().kid, bank.kid);
    let second = opened(&dir);
    assert!(matches!(
        second.active(&bank.key.name),
        Err(Unusable::Failed(..))
    ));
    shows(&second, std::slice::from_ref(&bank));
    assert_eq!(second.active(&bank.key.name).unwrap().kid, bank.kid);
}

#[test]
fn what_has_happened_counts_from_the_end_of_its_second() {
    let (_tmp, _dir, keyring) = keyring();
    let (first, second) = (entry("a/bank.1"), entry("a/bank.2"));
    activated(&keyring, &first);
    let version = second.key.version;
    change(&keyring, &first, &[Change::Intend { lifetime_max_s: 60 }]);
    keyring.record("hsm", &second, By::Keeper, 1).unwrap();
    change(&keyring, &first, &[Change::List(version)]);
    let before = keyring.now().age;
    change(&keyring, &first, &[Change::Written]); // one second later: each look at the clock is
    let lineage = keyring.lineage(&first.key.name).unwrap();
    let Phase::Published { since, .. } = lineage.version(version).unwrap().phase else {
        panic!("{lineage:?}");
    };
    assert_eq!(since, before.plus(2));
}

#[test]
fn what_signs_while_its_end_is_written_down_retires_when_that_is_done() {
    for (look_s, expected) in [(1, 1), (30, 60)] {
        let tmp = tempfile::tempdir().unwrap();
        let dir = StateDir::lock(&tmp.path().join("state")).unwrap();
        let keyring = opened_where_a_look_takes(look_s, &dir);
        let (first, second) = (entry("a/bank.1"), entry("a/bank.2"));
        activated(&keyring, &first);
        let version = second.key.version;
        change(&keyring, &first, &[Change::Intend { lifetime_max_s: 60 }]);
        keyring.record("hsm", &second, By::Keeper, 1).unwrap();
        change(&keyring, &first, &[Change::List(version), Change::Written]);
        let before = keyring.now().age;
        change(&keyring, &first, &[Change::Activate(version)]); // one look before it is written, one after
        for keyring in [&keyring, &opened(&dir)] {
            let lineage = keyring.lineage(&first.key.name).unwrap();
            let retiring = lineage.version(first.key.version).unwrap();
            let Phase::Retiring { since } = retiring.phase else {
                panic!("{lineage:?}");
            };
            assert_eq!(since, before.plus(expected).over());
        }
    }
}

#[test]
fn a_key_that_vanishes_or_changes_is_not_used_and_comes_back() {
    let (_tmp, _dir, keyring) = keyring();
    let bank = entry("a/bank.1");
    activated(&keyring, &bank);
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
    activated(&keyring, &bank);
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
    keyring.record("hsm", &bank, By::Keeper, 1).unwrap();
    assert_eq!(
        keyring.record("hsm", &bank, By::Keeper, 2).unwrap().made_at,
        1
    );
    let error = keyring
        .record("hsm", &entry("a/bank.1"), By::Keeper, 2)
        .unwrap_err();
    assert_eq!(error.kind(), Kind::Mismatch);
    assert_eq!(
        keyring
            .record("other", &bank, By::Keeper, 2)
            .unwrap_err()
            .kind(),
        Kind::Mismatch
    );
}

#[test]
fn a_key_recorded_while_the_keystore_was_asked_is_not_missing() {
    let (_tmp, _dir, keyring) = keyring();
    let (bank, later) = (entry("a/bank.1"), entry("a/later.1"));
    activated(&keyring, &bank);
    let before = keyring.records();
    activated(&keyring, &later);
    keyring.compare("hsm", &before, std::slice::from_ref(&bank));
    assert!(keyring.active(&later.key.name).is_ok());
}

#[test]
fn a_key_that_was_not_made_says_so() {
    let (_tmp, _dir, keyring) = keyring();
    let name: KeyName = "a/bank".parse().unwrap();
    assert_eq!(keyring.active(&name).err(), Some(Unusable::NotMade(name)));
}

#[test]
fn a_key_signs_when_it_is_its_time_and_not_before() {
    let (_tmp, _dir, keyring) = keyring();
    let bank = entry("a/bank.1");
    let version = bank.key.version;
    keyring.record("hsm", &bank, By::Keeper, 1).unwrap();
    for step in [Change::List(version), Change::Written] {
        let refused = keyring.active(&bank.key.name);
        assert!(matches!(refused, Err(Unusable::NotActive(..))));
        change(&keyring, &bank, &[step]);
    }
    change(&keyring, &bank, &[Change::Activate(version)]);
    assert!(keyring.active(&bank.key.name).is_ok());
}

#[test]
fn the_next_version_takes_the_place_in_one_write_and_over_a_restart() {
    let (_tmp, dir, first) = keyring();
    let (old, new) = (entry("a/bank.1"), entry("a/bank.2"));
    activated(&first, &old);
    change(&first, &old, &[Change::Intend { lifetime_max_s: 60 }]);
    let unasked = first
        .record("hsm", &entry("a/bank.3"), By::Keeper, 1)
        .unwrap_err();
    assert_eq!(unasked.kind(), Kind::Mismatch);
    activated(&first, &new);
    assert_eq!(first.active(&old.key.name).unwrap().kid, new.kid);
    let second = opened(&dir);
    shows(&second, &[old.clone(), new.clone()]);
    assert_eq!(second.active(&old.key.name).unwrap().kid, new.kid);
    // The one before is no substitute for one that has vanished.
    shows(&second, std::slice::from_ref(&old));
    assert!(second.active(&old.key.name).is_err());
}

#[test]
fn what_is_revoked_or_held_is_not_released_and_not_signed_with() {
    let (_tmp, dir, first) = keyring();
    let (bank, other) = (entry("a/bank.1"), entry("a/other.1"));
    activated(&first, &bank);
    activated(&first, &other);
    change(
        &first,
        &bank,
        &[Change::End(bank.key.version, Cause::Compromise)],
    );
    change(&first, &other, &[Change::Hold(Hold::Held)]);
    let second = opened(&dir);
    shows(&second, &[bank.clone(), other.clone()]);
    for keyring in [&first, &second] {
        assert_eq!(
            keyring.may_release(&bank.key),
            Err(Unusable::Revoked(bank.key.clone()))
        );
        assert!(keyring.active(&bank.key.name).is_err());
        let held = Err(Unusable::Held(other.key.name.clone()));
        assert_eq!(keyring.may_release(&other.key), held);
        assert!(keyring.active(&other.key.name).is_err());
    }
    change(&second, &other, &[Change::Hold(Hold::Free)]);
    assert!(second.active(&other.key.name).is_ok());
    assert!(second.may_release(&bank.key).is_err());
}

#[test]
fn a_change_of_what_somebody_else_has_changed_is_not_made() {
    let (_tmp, _dir, keyring) = keyring();
    let bank = entry("a/bank.1");
    activated(&keyring, &bank);
    let looked_at = keyring.lineage(&bank.key.name).unwrap();
    change(&keyring, &bank, &[Change::Hold(Hold::Held)]);
    let intend = [Change::Intend { lifetime_max_s: 1 }];
    let changed = keyring.change(&bank.key.name, &looked_at, &intend).unwrap();
    assert!(matches!(changed, Changed::Meanwhile));
    let bad = [Change::Made(bank.key.version)];
    let now = keyring.lineage(&bank.key.name).unwrap();
    let refused = keyring.change(&bank.key.name, &now, &bad).unwrap_err();
    assert_eq!(refused.kind(), Kind::Internal);
    assert_eq!(keyring.lineage(&bank.key.name).unwrap(), now);
}

#[test]
fn a_key_recorded_before_there_were_lives_signs() {
    #[derive(Serialize, serde::Deserialize, Default)]
    struct Before {
        keys: BTreeMap<KeyId, KeyRecord>,
    }
    let (_tmp, dir, _keyring) = keyring();
    let bank = entry("a/bank.1");
    let record = KeyRecord {
        keystore: "hsm".into(),
        public_key: bank.public_key.clone(),
        alg: Alg::ES256,
        made_at: 7,
        imported: false,
    };
    let (mut file, _) = StateFile::<Before>::open(&dir, "keyring.v1").unwrap();
    let keys = BTreeMap::from([(bank.key.clone(), record)]);
    file.replace(&Before { keys }).unwrap();
    let keyring = opened(&dir);
    shows(&keyring, std::slice::from_ref(&bank));
    assert_eq!(keyring.active(&bank.key.name).unwrap().kid, bank.kid);
}

#[test]
fn what_may_live_longer_is_written_down_before_it_does() {
    let (_tmp, dir, first) = keyring();
    let bank = entry("a/bank.1");
    activated(&first, &bank);
    let name = bank.key.name.clone();
    first
        .will_live(&BTreeMap::from([(name.clone(), 3600)]))
        .unwrap();
    first
        .will_live(&BTreeMap::from([(name.clone(), 60)]))
        .unwrap();
    let lineage = opened(&dir).lineage(&name).unwrap();
    assert_eq!(lineage.active().unwrap().1.lifetime_max_s, 3600);
}

#[test]
fn root_brings_in_the_next_version_and_nobody_else_does() {
    let (_tmp, dir, first) = keyring();
    let (old, new) = (entry("a/bank.1"), entry("a/bank.2"));
    activated(&first, &old);
    let imported = Evidence {
        level: EvidenceLevel::Asserted,
        imported: true,
    };
    let new = KeyEntry {
        evidence: imported,
        ..new
    };
    let refused = first.record("hsm", &new, By::Keeper, 1).unwrap_err();
    assert_eq!(refused.kind(), Kind::Mismatch);
    // Numbers are not left out, and one is on its way at a time.
    let far = first.record("hsm", &entry("a/bank.3"), By::Root, 1);
    assert_eq!(far.unwrap_err().kind(), Kind::Mismatch);
    assert!(first.record("hsm", &new, By::Root, 1).unwrap().imported);
    let another = first.record("hsm", &entry("a/bank.3"), By::Root, 1);
    assert_eq!(another.unwrap_err().kind(), Kind::Mismatch);
    let second = opened(&dir);
    let lineage = second.lineage(&new.key.name).unwrap();
    assert_eq!(lineage.coming().unwrap().0, new.key.version);
    shows(&second, &[old.clone(), new.clone()]);
    assert_eq!(second.active(&old.key.name).unwrap().kid, old.kid);
    assert!(second.key_record(&new.key).unwrap().imported, "for ever");
}

fn counter(value: Option<u64>) -> Counter {
    let place = CounterPlace::Tpm;
    Counter { value, place }
}

fn weighed(keyring: &Keyring, value: Option<u64>) -> Verdict {
    keyring.weigh("hsm", &counter(value)).unwrap().verdict
}

/// A key, active, with the counter at 7.
fn counted() -> (tempfile::TempDir, StateDir, KeyEntry) {
    let (tmp, dir, keyring) = keyring();
    let bank = entry("a/bank.1");
    assert_eq!(weighed(&keyring, None), Verdict::Begin);
    keyring.reached("hsm", 7).unwrap();
    activated(&keyring, &bank);
    keyring.reached("hsm", keyring.due("hsm").unwrap()).unwrap();
    (tmp, dir, bank)
}

#[test]
fn what_is_stopped_before_the_counter_was_looked_at_hides_no_rollback_and_is_counted_after_it() {
    let (_tmp, dir, bank) = counted();
    let keyring = opened(&dir);
    change(&keyring, &bank, &[Change::Hold(Hold::Held)]);
    assert_eq!(
        weighed(&keyring, Some(9)),
        Verdict::Older,
        "8 and a hold are not 9"
    );
    drop(keyring);
    let keyring = opened(&dir);
    change(&keyring, &bank, &[Change::Hold(Hold::Free)]);
    change(&keyring, &bank, &[Change::Hold(Hold::Held)]);
    assert_eq!(weighed(&keyring, Some(8)), Verdict::Newest { due: None });
    assert_eq!(keyring.due("hsm"), Some(9), "the hold is counted by itself");
}

#[test]
fn a_key_that_is_recorded_before_the_counter_was_looked_at_makes_no_older_records() {
    let (_tmp, _dir, keyring) = keyring();
    activated(&keyring, &entry("a/bank.1"));
    assert_eq!(weighed(&keyring, Some(7)), Verdict::Joins(7));
}

#[test]
fn the_word_for_older_records_is_heeded_once() {
    let (_tmp, dir, _bank) = counted();
    let text = accepted::text_for(dir.path()).unwrap().unwrap();
    let word = dir.path().join(accepted::FILE);
    let backup = std::fs::read(dir.path().join(FILE)).unwrap();
    let say = || {
        let mut options = std::fs::OpenOptions::new();
        let mut file = options
            .write(true)
            .create(true)
            .truncate(true)
            .open(&word)
            .unwrap();
        std::io::Write::write_all(&mut file, text.as_bytes()).unwrap();
    };
    say();
    let keyring = opened(&dir);
    assert_eq!(weighed(&keyring, Some(20)), Verdict::Joins(20));
    assert!(!word.exists());
    drop(keyring);
    // The same copy, restored over it.
    let mut options = std::fs::OpenOptions::new();
    let mut file = options
        .write(true)
        .truncate(true)
        .open(dir.path().join(FILE))
        .unwrap();
    std::io::Write::write_all(&mut file, &backup).unwrap();
    assert_eq!(weighed(&opened(&dir), Some(20)), Verdict::Older);
}

#[test]
fn a_hold_that_could_not_be_written_outlives_other_changes() {
    let (_tmp, dir, keyring) = keyring();
    let bank = entry("a/bank.1");
    activated(&keyring, &bank);
    shows(&keyring, std::slice::from_ref(&bank));
    let obstacle = dir.path().join("keyring.v1.new");
    std::fs::create_dir(&obstacle).unwrap();
    let lineage = keyring.lineage(&bank.key.name).unwrap();
    let hold = [Change::Hold(Hold::Held)];
    assert!(keyring.change(&bank.key.name, &lineage, &hold).is_err());
    std::fs::remove_dir(&obstacle).unwrap();
    change(&keyring, &bank, &[Change::Intend { lifetime_max_s: 60 }]);
    let held = keyring.active(&bank.key.name).err();
    assert_eq!(held, Some(Unusable::Held(bank.key.name.clone())));
}
