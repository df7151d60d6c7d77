//! What every keystore backend promises, whatever holds the keys. Each promise gets a way to open
//! the same token again, as after a restart.

use keystore::backend::{Backend, LABEL_PREFIX, ObjectId};
use keystore::protocol::{Evidence, EvidenceLevel};
use keystore::{Alg, Kind, PublicKey};
use p256::ecdsa::signature::Verifier as _;

/// Opens the token; what was open before is closed by then.
pub type Open<'a> = &'a dyn Fn() -> Box<dyn Backend>;

const ONE: ObjectId = ObjectId([1; 16]);
const TWO: ObjectId = ObjectId([2; 16]);

fn label(name: &str) -> String {
    format!("{LABEL_PREFIX}{name}")
}

/// Checks a signature by aws-lc and, for ES256, by the p256 crate, which share no code.
pub fn check(public_key: &PublicKey, alg: Alg, message: &[u8], signature: &[u8]) {
    let verdict = public_key.verifier(alg).unwrap().verify(message, signature);
    assert!(verdict.is_ok(), "{alg}: aws-lc refuses the signature");
    if let PublicKey::P256 { x, y } = public_key {
        let point = [&[4], &x[..], &y[..]].concat();
        let key = p256::ecdsa::VerifyingKey::from_sec1_bytes(&point).unwrap();
        let signature = p256::ecdsa::Signature::from_slice(signature).unwrap();
        key.verify(message, &signature)
            .expect("p256 refuses the signature");
    }
}

pub fn exists_fails(open: Open<'_>) {
    let backend = open();
    assert_eq!(backend.inspect(ONE).unwrap_err().kind(), Kind::NotFound);
    let made = backend.generate(ONE, &label("a/b/1"), Alg::ES256).unwrap();
    assert_eq!(backend.inspect(ONE).unwrap(), made);
    let again = backend
        .generate(ONE, &label("a/b/1"), Alg::ES256)
        .unwrap_err();
    assert_eq!(again.kind(), Kind::Exists);
    assert_eq!(backend.inspect(ONE).unwrap(), made);
}

pub fn signatures_verify(open: Open<'_>) {
    let backend = open();
    let algs = backend.algs();
    assert!(
        algs.contains(&Alg::ES256),
        "every backend has the default algorithm"
    );
    for (index, alg) in algs.into_iter().enumerate() {
        let object = ObjectId([10 + index as u8; 16]);
        let key = backend
            .generate(object, &label(alg.name()), alg)
            .unwrap()
            .public_key;
        assert!(key.fits(alg));
        // r or s is short once in about 128: a thousand times leaves no doubt about padding.
        let times = if alg == Alg::ES256 { 1_000 } else { 60 };
        for time in 0..times {
            let message = vec![time as u8; time];
            let signature = backend.sign(object, &key, alg, &message).unwrap();
            check(&key, alg, &message, &signature);
        }
        let signature = backend.sign(object, &key, alg, b"this").unwrap();
        assert!(
            key.verifier(alg)
                .unwrap()
                .verify(b"that", &signature)
                .is_err(),
            "{alg}"
        );
    }
}

pub fn stable(open: Open<'_>) {
    let backend = open();
    let algs = backend.algs();
    let ids = |index: usize| ObjectId([20 + index as u8; 16]);
    let made: Vec<_> = (algs.iter().enumerate())
        .map(|(index, alg)| {
            backend
                .generate(ids(index), &label(alg.name()), *alg)
                .unwrap()
        })
        .collect();
    drop(backend);
    let backend = open();
    for (index, alg) in algs.into_iter().enumerate() {
        assert_eq!(backend.inspect(ids(index)).unwrap(), made[index]);
        let key = &made[index].public_key;
        check(
            key,
            alg,
            b"after",
            &backend.sign(ids(index), key, alg, b"after").unwrap(),
        );
    }
}

pub fn strange(open: Open<'_>) {
    let backend = open();
    assert_eq!(backend.strange(&[]).unwrap(), Vec::<String>::new());
    backend.generate(ONE, &label("a/b/1"), Alg::ES256).unwrap();
    backend
        .generate(TWO, "somebody else's", Alg::ES256)
        .unwrap();
    assert_eq!(backend.strange(&[]).unwrap(), [label("a/b/1")]);
    assert_eq!(backend.strange(&[ONE]).unwrap(), Vec::<String>::new());
}

pub fn destroy(open: Open<'_>) {
    let backend = open();
    let one = backend
        .generate(ONE, &label("a/b/1"), Alg::ES256)
        .unwrap()
        .public_key;
    let two = backend
        .generate(TWO, &label("a/b/2"), Alg::ES256)
        .unwrap()
        .public_key;
    backend.sign(ONE, &one, Alg::ES256, b"before").unwrap();
    backend.destroy(ONE, &one).unwrap();
    assert_eq!(backend.inspect(ONE).unwrap_err().kind(), Kind::NotFound);
    for _ in 0..=backend.parallelism() {
        let gone = backend.sign(ONE, &one, Alg::ES256, b"after").unwrap_err();
        assert_eq!(gone.kind(), Kind::NotFound, "{gone}");
    }
    backend.destroy(ONE, &one).unwrap();
    check(
        &two,
        Alg::ES256,
        b"x",
        &backend.sign(TWO, &two, Alg::ES256, b"x").unwrap(),
    );
    assert_eq!(backend.strange(&[TWO]).unwrap(), Vec::<String>::new());
}

pub fn another_public_key(open: Open<'_>) {
    let backend = open();
    let one = backend.generate(ONE, &label("a/b/1"), Alg::ES256).unwrap();
    let two = backend.generate(TWO, &label("a/b/2"), Alg::ES256).unwrap();
    let refused = backend.destroy(ONE, &two.public_key).unwrap_err();
    assert_eq!(refused.kind(), Kind::Mismatch, "{refused}");
    assert_eq!(backend.inspect(ONE).unwrap(), one);
    for _ in 0..=backend.parallelism() {
        let refused = backend
            .sign(ONE, &two.public_key, Alg::ES256, b"x")
            .unwrap_err();
        assert_eq!(refused.kind(), Kind::Mismatch, "{refused}");
    }
    backend
        .sign(ONE, &one.public_key, Alg::ES256, b"x")
        .unwrap();
}

pub fn not_confused(open: Open<'_>) {
    const CALLERS: usize = 8;
    let backend = open();
    let one = backend
        .generate(ONE, &label("a/b/1"), Alg::ES256)
        .unwrap()
        .public_key;
    let two = backend
        .generate(TWO, &label("a/b/2"), Alg::ES256)
        .unwrap()
        .public_key;
    std::thread::scope(|scope| {
        for caller in 0..CALLERS {
            let (backend, one, two) = (&backend, &one, &two);
            scope.spawn(move || {
                for time in 0..100 {
                    let (object, key) = match (caller + time) % 2 {
                        0 => (ONE, one),
                        _ => (TWO, two),
                    };
                    let message = format!("{caller} {time}");
                    let signature = backend
                        .sign(object, key, Alg::ES256, message.as_bytes())
                        .unwrap();
                    check(key, Alg::ES256, message.as_bytes(), &signature);
                }
            });
        }
    });
}

pub fn odd_labels(open: Open<'_>) {
    let backend = open();
    let labels = [
        label("a/b/1"),
        label("äöü/☃/1"),
        label("a b\"c'd\\e/%00/1"),
        label(&"long".repeat(35)), // as long as a label of ours can be
    ];
    for (index, label) in labels.iter().enumerate() {
        let object = ObjectId([30 + index as u8; 16]);
        let key = backend
            .generate(object, label, Alg::ES256)
            .unwrap()
            .public_key;
        check(
            &key,
            Alg::ES256,
            b"x",
            &backend.sign(object, &key, Alg::ES256, b"x").unwrap(),
        );
    }
    let mut expected = labels.to_vec();
    expected.sort();
    let mut strange = backend.strange(&[]).unwrap();
    strange.sort();
    assert_eq!(strange, expected);
}

pub fn born_here(open: Open<'_>) {
    let backend = open();
    for (index, alg) in backend.algs().into_iter().enumerate() {
        let object = ObjectId([40 + index as u8; 16]);
        let made = backend.generate(object, &label(alg.name()), alg).unwrap();
        let born_here = Evidence {
            level: EvidenceLevel::Asserted,
            imported: false,
        };
        assert_eq!(made.evidence, born_here, "{alg}");
    }
}

pub fn one_algorithm(open: Open<'_>) {
    let backend = open();
    let key = backend
        .generate(ONE, &label("a/b/1"), Alg::ES256)
        .unwrap()
        .public_key;
    for alg in Alg::ALL.into_iter().filter(|alg| *alg != Alg::ES256) {
        let refused = backend.sign(ONE, &key, alg, b"x").unwrap_err();
        assert_eq!(refused.kind(), Kind::Mismatch, "{alg}: {refused}");
    }
    check(
        &key,
        Alg::ES256,
        b"x",
        &backend.sign(ONE, &key, Alg::ES256, b"x").unwrap(),
    );
}
