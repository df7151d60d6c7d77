//! What the records promise over every backend: versions of a key come one after the other under one
//! charter, old ones go, and whatever is cut off half way is finished by asking again, in a new
//! process, without a second object and without one that nobody knows.

use crate::cut::{Cut, Severed};
use crate::site::Site;
use crate::subject::Subject;
use keystore::protocol::{Condition, KeyEntry};
use keystore::records::{Keys, Reach, VERSIONS_MAX};
use keystore::{Alg, CertificateUse, Charter, Error, KeyId, KidMember, Kind, Purpose, Typ};

fn id(version: u32) -> KeyId {
    format!("conformance/rotation.{version}").parse().unwrap()
}

fn charter(audience: &str) -> Charter {
    Charter {
        purpose: Purpose::ClientAuthentication {
            iss: "a".into(),
            sub: "a".into(),
            aud: audience.into(),
        },
        alg: Alg::ES256,
        typ: Typ::ClientAuthentication,
        kid: KidMember::Thumbprint,
        lifetime_max_s: 60,
        backdate_s: 0,
        certificate: CertificateUse::None,
    }
}

fn listed(keys: &Keys<Severed>) -> Vec<KeyId> {
    let (entries, more) = keys.list(None);
    assert!(!more);
    entries.into_iter().map(|entry| entry.key).collect()
}

#[track_caller]
fn refused<T: std::fmt::Debug>(done: Result<T, Error>, phrase: &str) {
    let error = done.unwrap_err();
    assert_eq!(error.kind(), Kind::Refused, "{error}");
    assert!(error.to_string().contains(phrase), "{error}");
}

#[track_caller]
fn is_usable(entry: &KeyEntry, key: &KeyId) {
    assert_eq!(&entry.key, key);
    assert_eq!(entry.condition, Condition::Usable {}, "{entry:?}");
}

pub fn the_next_version_has_the_charter_of_the_newest(subject: &Subject<'_>) {
    let site = Site::new(subject);
    let keys = site.open();
    assert_eq!(keys.next(&id(1)).unwrap_err().kind(), Kind::NotFound);
    keys.make(&id(1), &charter("https://one")).unwrap();
    let (second, created) = keys.next(&id(2)).unwrap();
    assert!(created);
    is_usable(&second, &id(2));
    assert_eq!(second.charter, charter("https://one"));
    assert_eq!(
        keys.next(&id(2)).unwrap(),
        (second.clone(), false),
        "asked again"
    );
    keys.amend(&id(1).name, &charter("https://two")).unwrap();
    let (third, _) = keys.next(&id(3)).unwrap();
    assert_eq!(third.charter, charter("https://two"));
    assert_ne!(third.kid, second.kid);
    // In another process it is the same.
    drop(keys);
    let keys = site.open();
    assert_eq!(keys.next(&id(3)).unwrap(), (third, false));
    assert_eq!(listed(&keys), [id(1), id(2), id(3)]);
    assert_eq!(site.made(), 3);
    site.no_orphans(&keys);
}

pub fn a_version_is_made_once_and_in_its_turn(subject: &Subject<'_>) {
    let site = Site::new(subject);
    let keys = site.open();
    keys.make(&id(3), &charter("https://one")).unwrap(); // of a keystore that was lost
    let number = "the newest version of it is conformance/rotation.3";
    refused(keys.next(&id(3)), "did not come by rotation");
    for other in [1, 2, 3 + VERSIONS_MAX as u32 + 1, u32::MAX] {
        refused(keys.next(&id(other)), number);
    }
    for other in [1, 2, 4] {
        refused(
            keys.make(&id(other), &charter("https://one")),
            "by rotation",
        );
    }
    let (_, created) = keys.make(&id(3), &charter("https://one")).unwrap();
    assert!(!created);
    keys.next(&id(5)).unwrap(); // 4 was made, and destroyed
    for other in [3, 4] {
        refused(keys.next(&id(other)), "rotation.5");
    }
    assert_eq!(site.made(), 2);
}

pub fn there_are_so_many_versions_at_a_time(subject: &Subject<'_>) {
    let site = Site::new(subject);
    let keys = site.open();
    keys.make(&id(1), &charter("https://one")).unwrap();
    let most = VERSIONS_MAX as u32;
    for version in 2..=most {
        keys.next(&id(version)).unwrap();
    }
    refused(keys.next(&id(most + 1)), "destroy old ones");
    assert!(!keys.next(&id(most)).unwrap().1, "asked again");
    keys.destroy(&id(1), Reach::Superseded).unwrap();
    keys.next(&id(most + 1)).unwrap();
    assert_eq!(site.made(), VERSIONS_MAX + 1);
}

pub fn the_newest_version_is_out_of_the_brokers_reach(subject: &Subject<'_>) {
    let site = Site::new(subject);
    let keys = site.open();
    keys.make(&id(1), &charter("https://one")).unwrap();
    let reach = "only root may destroy it";
    refused(keys.destroy(&id(1), Reach::Superseded), reach);
    drop(keys);
    // A next one that is only intended takes nobody's place, and may not be destroyed either.
    site.cut_off(Cut::BeforeMaking, |keys| keys.next(&id(2)));
    let keys = site.open();
    for version in [1, 2] {
        refused(keys.destroy(&id(version), Reach::Superseded), reach);
    }
    refused(keys.next(&id(3)), "finish that one first");
    is_usable(
        &keys.make(&id(1), &charter("https://one")).unwrap().0,
        &id(1),
    );
    keys.next(&id(2)).unwrap();
    refused(keys.destroy(&id(2), Reach::Superseded), reach);
    keys.destroy(&id(1), Reach::Superseded).unwrap();
    let gone = keys.destroy(&id(1), Reach::Superseded).unwrap_err();
    assert_eq!(gone.kind(), Kind::NotFound, "{gone}");
    assert_eq!(listed(&keys), [id(2)]);
    keys.destroy(&id(2), Reach::Any).unwrap();
    assert!(listed(&keys).is_empty());
    let (again, created) = keys.make(&id(3), &charter("https://one")).unwrap();
    assert!(created);
    is_usable(&again, &id(3));
}

pub fn a_version_whose_making_was_cut_off_is_finished(subject: &Subject<'_>) {
    let site = Site::new(subject);
    let first = |keys: &Keys<Severed>| keys.make(&id(1), &charter("https://one"));
    let second = |keys: &Keys<Severed>| keys.next(&id(2));
    let mut objects = 0;
    for make in [&first as &dyn Fn(&Keys<Severed>) -> _, &second] {
        for (cut, there) in [(Cut::BeforeMaking, 0), (Cut::AfterMaking, 1)] {
            site.cut_off(cut, make);
            assert_eq!(site.made(), objects + there, "{cut:?}");
            let keys = site.open();
            site.no_orphans(&keys); // it is intended, and so known
            assert_eq!(listed(&keys).len(), objects);
        }
        let keys = site.open();
        site.cut(Cut::FirstSignature); // which is no reason to make another
        let (entry, created) = make(&keys).unwrap();
        assert!(created);
        objects += 1;
        assert_eq!(site.made(), objects, "what was there is adopted");
        is_usable(&entry, &id(objects as u32));
        let made = subject.made();
        assert_eq!(made.lock().unwrap().last().unwrap().1, entry.public_key);
        site.no_orphans(&keys);
    }
}

pub fn a_version_whose_destruction_was_cut_off_is_destroyed(subject: &Subject<'_>) {
    for cut in [Cut::BeforeDestroying, Cut::AfterDestroying] {
        let site = Site::new(subject);
        let keys = site.open();
        keys.make(&id(1), &charter("https://one")).unwrap();
        let (second, _) = keys.next(&id(2)).unwrap();
        drop(keys);
        site.cut_off(cut, |keys| keys.destroy(&id(1), Reach::Superseded));
        let keys = site.open();
        assert_eq!(listed(&keys), [id(1), id(2)], "{cut:?}");
        keys.destroy(&id(1), Reach::Superseded).unwrap();
        assert_eq!(listed(&keys), [id(2)]);
        is_usable(&keys.next(&id(2)).unwrap().0, &id(2));
        assert_eq!(keys.next(&id(2)).unwrap().0.kid, second.kid);
        site.no_orphans(&keys);
        keys.destroy(&id(2), Reach::Any).unwrap();
    }
}
