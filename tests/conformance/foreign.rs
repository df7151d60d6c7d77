//! Keys that a keystore did not have made, over every backend: one that is brought in signs, is
//! marked for ever and is finished when its import was cut off; one that is in the token already is
//! taken as it is.

use crate::certificates::openssl;
use crate::cut::{Cut, Severed};
use crate::promises::check;
use crate::site::Site;
use crate::subject::{Birth, Subject, ours};
use keystore::backend::{Backend as _, Existing, TokenId};
use keystore::protocol::{Condition, KeyEntry};
use keystore::records::{Keys, Reach};
use keystore::{
    Alg, CertificateUse, Charter, Error, KeyId, KidMember, Kind, PrivateKey, Purpose, Typ,
};
use zeroize::Zeroizing;

fn id(alg: Alg, version: u32) -> KeyId {
    let name = alg.name().to_lowercase();
    let text = format!("conformance/foreign-{name}.{version}");
    text.parse().unwrap()
}

pub fn charter(alg: Alg) -> Charter {
    Charter {
        purpose: Purpose::ClientAuthentication {
            iss: "a".into(),
            sub: "a".into(),
            aud: "https://as".into(),
        },
        alg,
        typ: Typ::Jwt,
        kid: KidMember::Thumbprint,
        lifetime_max_s: 60,
        backdate_s: 0,
        certificate: CertificateUse::None,
    }
}

/// A new private key, made elsewhere.
pub fn made_elsewhere(alg: Alg) -> PrivateKey {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("der");
    let path = path.to_str().unwrap();
    let (algorithm, option) = match alg {
        Alg::ES256 => ("EC", "ec_paramgen_curve:P-256"),
        _ => ("RSA", "rsa_keygen_bits:2048"),
    };
    let made = ["genpkey", "-algorithm", algorithm, "-pkeyopt", option];
    openssl(&[&made[..], &["-outform", "DER", "-out", path]].concat());
    PrivateKey::new(Zeroizing::new(std::fs::read(path).unwrap())).unwrap()
}

#[track_caller]
fn signs(keys: &Keys<Severed>, entry: &KeyEntry) {
    assert_eq!(entry.condition, Condition::Usable {}, "{entry:?}");
    let alg = entry.charter.alg;
    let object = keys
        .recorded()
        .into_iter()
        .find(|(key, _)| *key == entry.key);
    let live = object.unwrap().1.unwrap();
    let signature = keys
        .backend()
        .sign(live.object, &entry.public_key, alg, b"x");
    check(&entry.public_key, alg, b"x", &signature.unwrap());
}

#[track_caller]
fn is_refused<T: std::fmt::Debug>(done: Result<T, Error>, kind: Kind, phrase: &str) {
    let error = done.unwrap_err();
    assert_eq!(error.kind(), kind, "{error}");
    assert!(error.to_string().contains(phrase), "{error}");
}

pub fn an_imported_key_signs_and_is_marked_for_ever(subject: &Subject<'_>) {
    let site = Site::new(subject);
    let mut keys = site.open();
    let algs = keys.backend().algs();
    let imported = [Alg::ES256, Alg::RS256, Alg::PS256];
    for alg in imported.into_iter().filter(|alg| algs.contains(alg)) {
        let (first, charter) = (id(alg, 1), charter(alg));
        let private_key = made_elsewhere(alg);
        let (entry, created) = keys.import(&first, &charter, &private_key).unwrap();
        assert!(created);
        assert_eq!(entry.public_key, private_key.read().unwrap().0, "{alg}");
        assert!(entry.evidence.imported, "{alg}: {:?}", entry.evidence);
        signs(&keys, &entry);
        let again = keys.import(&first, &charter, &private_key).unwrap();
        assert_eq!(again, (entry.clone(), false), "{alg}");
        let other = made_elsewhere(alg);
        let done = keys.import(&first, &charter, &other);
        is_refused(done, Kind::Exists, "another public key");
        drop(keys);
        keys = site.open();
        let listed = keys.list(None).0;
        assert!(listed.contains(&entry), "{alg}: {listed:?}");
        signs(&keys, &entry);

        // Its next version is made in the token; one after that comes from elsewhere again.
        let (second, _) = keys.next(&id(alg, 2)).unwrap();
        signs(&keys, &second);
        assert_eq!(second.charter, charter);
        match subject.birth {
            Birth::Told | Birth::Proven => {
                assert!(!second.evidence.imported, "{:?}", second.evidence)
            }
            Birth::NotTold | Birth::Shown => {}
        }
        let (third, _) = keys.import(&id(alg, 3), &charter, &other).unwrap();
        signs(&keys, &third);
        for version in [1, 2, 3] {
            keys.destroy(&id(alg, version), Reach::Any).unwrap();
        }
        site.no_orphans(&keys);
    }
}

pub fn an_import_that_was_cut_off_is_finished_with_the_same_key(subject: &Subject<'_>) {
    let site = Site::new(subject);
    let (first, charter) = (id(Alg::ES256, 1), charter(Alg::ES256));
    let (private_key, other) = (made_elsewhere(Alg::ES256), made_elsewhere(Alg::ES256));
    let import = |keys: &Keys<Severed>| keys.import(&first, &charter, &private_key);
    for cut in [Cut::BeforeMaking, Cut::AfterMaking] {
        site.cut_off(cut, import);
        let keys = site.open();
        site.no_orphans(&keys);
        let otherwise = "was begun in another way";
        is_refused(keys.make(&first, &charter), Kind::Refused, otherwise);
        is_refused(
            keys.next(&id(Alg::ES256, 2)),
            Kind::Refused,
            "is not made yet",
        );
    }
    assert_eq!(site.made(), 1);
    let keys = site.open();
    let done = keys.import(&first, &charter, &other);
    is_refused(done, Kind::Refused, "was begun in another way");
    let (entry, created) = import(&keys).unwrap();
    assert!(created);
    assert_eq!(site.made(), 1, "what was there is adopted");
    assert!(entry.evidence.imported, "{:?}", entry.evidence);
    signs(&keys, &entry);
    site.no_orphans(&keys);
}

pub fn only_a_key_of_the_charters_algorithm_is_imported(subject: &Subject<'_>) {
    let site = Site::new(subject);
    let keys = site.open();
    let wrong = [
        (Alg::ES256, Alg::RS256),
        (Alg::RS256, Alg::ES256),
        (Alg::ES384, Alg::ES256),
    ];
    for (of_charter, of_key) in wrong {
        let done = keys.import(
            &id(of_charter, 1),
            &charter(of_charter),
            &made_elsewhere(of_key),
        );
        is_refused(done, Kind::Refused, "the key is not one for");
    }
    let nonsense = PrivateKey::new(Zeroizing::new(vec![0x30, 0])).unwrap();
    let done = keys.import(&id(Alg::ES256, 1), &charter(Alg::ES256), &nonsense);
    is_refused(done, Kind::Refused, "the private key ends too early");
    assert!(keys.recorded().is_empty(), "nothing was begun");
    assert_eq!(site.made(), 0);
}

pub fn a_key_that_is_there_is_adopted_as_it_is(subject: &Subject<'_>) {
    let site = Site::new(subject);
    let theirs = ours("theirs");
    let backend = subject.open();
    let made = subject.generate(&*backend, &theirs, Alg::ES256).unwrap();
    drop(backend);
    let keys = site.open();
    let (first, charter) = (id(Alg::ES256, 1), charter(Alg::ES256));
    let label = Existing::Label(theirs.label.clone().try_into().unwrap());
    let by_id = Existing::Id(TokenId::from(theirs.object));
    let missing = Existing::Label("nobody's".to_owned().try_into().unwrap());
    is_refused(
        keys.adopt(&first, &charter, &missing),
        Kind::NotFound,
        "nobody's",
    );
    let rsa = crate::foreign::charter(Alg::RS256);
    let done = keys.adopt(&first, &rsa, &by_id);
    is_refused(done, Kind::Refused, "the key is not one for RS256");

    let (entry, created) = keys.adopt(&first, &charter, &label).unwrap();
    assert!(created);
    assert_eq!(entry.public_key, made.public_key);
    assert_eq!(entry.evidence, made.evidence);
    signs(&keys, &entry);
    let again = keys.adopt(&first, &charter, &by_id).unwrap();
    assert_eq!(again, (entry.clone(), false));
    let other: KeyId = "conformance/other.1".parse().unwrap();
    let done = keys.adopt(&other, &charter, &by_id);
    is_refused(
        done,
        Kind::Exists,
        "is key conformance/foreign-es256.1 already",
    );
    site.no_orphans(&keys); // it was one, and is not any more
    drop(keys);
    let keys = site.open();
    assert_eq!(keys.list(None).0, std::slice::from_ref(&entry));
    signs(&keys, &entry);
    signs(&keys, &keys.next(&id(Alg::ES256, 2)).unwrap().0);
    keys.destroy(&first, Reach::Superseded).unwrap();
    let gone = keys.backend().find(&by_id).unwrap_err();
    assert_eq!(gone.kind(), Kind::NotFound, "{gone}");
}
