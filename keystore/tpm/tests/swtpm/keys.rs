//! What keys do: they are made, looked at, used, destroyed, and stay when the TPM restarts.

use crate::tools::{read, write};
use crate::world::{How, World, make, object, refusal, sign};
use aws_lc_rs::digest;
use harness::DEADLINE;
use keystore::backend::Backend;
use keystore::config::Sessions;
use keystore::protocol::EvidenceLevel;
use keystore::{Alg, Kind, PublicKey};
use std::os::unix::fs::MetadataExt;

const ALGS: [Alg; 4] = [Alg::ES256, Alg::ES384, Alg::RS256, Alg::PS256];

fn a_key_of_every_algorithm_is_made_looked_at_used_and_destroyed(sessions: Sessions) {
    let world = World::new();
    let how = How {
        sessions: Some(sessions),
        ..How::default()
    };
    let backend = world.open_as(&how).unwrap();
    assert_eq!(backend.algs(), ALGS);
    assert_eq!(backend.parallelism(), 1);
    for (n, alg) in (1..).zip(ALGS) {
        let label = format!("assertd/a/{alg}/1");
        let made = backend.generate(object(n), &label, alg).unwrap();
        assert!(made.public_key.fits(alg));
        assert_eq!(made.evidence.level, EvidenceLevel::TpmCertified);
        assert!(!made.evidence.imported);
        assert_eq!(
            world.key_file(object(n)).metadata().unwrap().mode() & 0o777,
            0o600
        );
        assert_eq!(backend.inspect(object(n)).unwrap(), made);
        sign(&backend, n, &made.public_key, alg);
        let again = backend.generate(object(n), &label, alg).unwrap_err();
        assert_eq!(again.kind(), Kind::Exists, "{again}");
        sign(&backend, n, &made.public_key, alg);
        backend.destroy(object(n), &made.public_key).unwrap();
        assert!(!world.key_file(object(n)).exists());
        assert_eq!(
            refusal(&backend, n, &made.public_key, alg).kind(),
            Kind::NotFound
        );
        assert_eq!(
            backend.inspect(object(n)).unwrap_err().kind(),
            Kind::NotFound
        );
        backend.destroy(object(n), &made.public_key).unwrap();
    }
    let unsupported = backend.generate(object(9), "assertd/a/b/1", Alg::EdDSA);
    assert_eq!(unsupported.unwrap_err().kind(), Kind::Unsupported);
}

#[test]
fn every_algorithm_works_with_password_sessions() {
    a_key_of_every_algorithm_is_made_looked_at_used_and_destroyed(Sessions::Password);
}

#[test]
fn every_algorithm_works_with_encrypted_sessions() {
    a_key_of_every_algorithm_is_made_looked_at_used_and_destroyed(Sessions::Encrypted);
}

#[test]
fn a_ps256_signature_has_a_salt_of_32_bytes() {
    let world = World::new();
    let backend = world.open();
    let key = make(&backend, 1, Alg::PS256);
    let signature = sign(&backend, 1, &key, Alg::PS256);
    let PublicKey::Rsa { n, .. } = &key else {
        panic!("{key:?}");
    };
    write(&world, "signature", &signature);
    drop(backend); // its slots are openssl's now
    let pem = world.public_pem(&world.key_file(object(1)).display().to_string());
    write(&world, "public.pem", pem.as_bytes());
    world.tool(
        "openssl",
        &[
            "pkeyutl",
            "-verifyrecover",
            "-pubin",
            "-inkey",
            "public.pem",
            "-in",
            "signature",
            "-pkeyopt",
            "rsa_padding_mode:none",
            "-out",
            "padded",
        ],
    );
    let padded = read(&world, "padded");
    assert_eq!(padded.len(), n.len());
    assert_eq!(salt_len(&padded), 32);
}

/// EMSA-PSS with SHA-256 (RFC 8017 §9.1.2, steps 4 to 10), for a modulus of 2048 bits.
fn salt_len(padded: &[u8]) -> usize {
    let (masked, rest) = padded.split_at(padded.len() - 33);
    let (hash, trailer) = rest.split_at(32);
    assert_eq!(trailer, [0xbc]);
    let mut data = Vec::new();
    for (counter, chunk) in (0u32..).zip(masked.chunks(32)) {
        let block = [hash, &counter.to_be_bytes()].concat();
        let mask = digest::digest(&digest::SHA256, &block);
        data.extend(chunk.iter().zip(mask.as_ref()).map(|(a, b)| a ^ b));
    }
    data[0] &= 0x7f;
    let one = data.iter().position(|byte| *byte != 0).unwrap();
    assert_eq!(data[one], 1);
    data.len() - one - 1
}

#[test]
fn keys_outlive_the_backend_and_the_tpms_power() {
    let mut world = World::new();
    let backend = world.open();
    let keys: Vec<PublicKey> = (1..)
        .zip(ALGS)
        .map(|(n, alg)| make(&backend, n, alg))
        .collect();
    drop(backend);
    world.swtpm.restart();
    let backend = world.open();
    for ((n, alg), key) in (1..).zip(ALGS).zip(&keys) {
        assert_eq!(backend.inspect(object(n)).unwrap().public_key, *key);
        sign(&backend, n, key, alg);
    }
}

fn ten_keys_share_three_slots(sessions: Sessions) {
    let world = World::new();
    let how = How {
        sessions: Some(sessions),
        ..How::default()
    };
    let backend = world.open_as(&how).unwrap();
    let keys: Vec<PublicKey> = (0..10).map(|n| make(&backend, n, Alg::ES256)).collect();
    // Forward, backward, and each twice: every way in which a key can be in or out.
    let order = (0..10)
        .chain((0..10).rev())
        .chain((0..10).flat_map(|n| [n, n]));
    for n in order {
        sign(&backend, n, &keys[usize::from(n)], Alg::ES256);
        assert!(world.handles("transient") <= 3);
    }
    let thirty = (0..30).map(|n| n * 7 % 10);
    for n in thirty {
        sign(&backend, n, &keys[usize::from(n)], Alg::ES256);
    }
    make(&backend, 10, Alg::ES384); // a key that is made needs a slot too
    drop(backend);
    // The backend's own thread may be what closes it.
    let left = || (world.handles("transient"), world.handles("loaded-session"));
    let is_empty = harness::wait_until(DEADLINE, || left() == (0, 0));
    assert!(is_empty, "a closed backend leaves {:?}", left());
}

#[test]
fn ten_keys_share_three_slots_with_password_sessions() {
    ten_keys_share_three_slots(Sessions::Password);
}

#[test]
fn ten_keys_share_three_slots_with_encrypted_sessions() {
    ten_keys_share_three_slots(Sessions::Encrypted);
}

#[test]
fn a_key_signs_only_as_the_key_it_was_recorded_as() {
    let world = World::new();
    let backend = world.open();
    let (first, second) = (make(&backend, 1, Alg::ES256), make(&backend, 2, Alg::ES256));
    assert_eq!(
        refusal(&backend, 1, &second, Alg::ES256).kind(),
        Kind::Mismatch
    );
    assert_eq!(
        refusal(&backend, 1, &first, Alg::RS256).kind(),
        Kind::Mismatch
    );
    let destroyed = backend.destroy(object(1), &second).unwrap_err();
    assert_eq!(destroyed.kind(), Kind::Mismatch);
    // Another key's file in its place.
    std::fs::copy(world.key_file(object(2)), world.key_file(object(1))).unwrap();
    sign(&backend, 1, &first, Alg::ES256); // it is in a slot
    let looked = backend.inspect(object(1));
    // Its auth value is made of another id, so that it could not even sign.
    assert_eq!(looked.unwrap().public_key, second);
    assert_eq!(
        refusal(&backend, 1, &first, Alg::ES256).kind(),
        Kind::Mismatch
    );
    assert_eq!(
        refusal(&backend, 1, &second, Alg::ES256).kind(),
        Kind::BadPin
    );
}

#[test]
fn a_damaged_key_file_is_named_and_left_alone() {
    let world = World::new();
    let backend = world.open();
    let key = make(&backend, 1, Alg::ES256);
    let path = world.key_file(object(1));
    let whole = std::fs::read(&path).unwrap();
    for (damaged, kind) in [
        (whole[..whole.len() - 1].to_vec(), Kind::Corrupt),
        (Vec::new(), Kind::Corrupt),
        (vec![0xff; 100], Kind::Corrupt),
        (flipped_in_private_part(&whole), Kind::Mismatch), // which the TPM alone can tell
    ] {
        write(&world, "state/keys/damaged", &damaged);
        std::fs::rename(world.dir.path().join("state/keys/damaged"), &path).unwrap();
        let error = backend.inspect(object(1)).unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert_eq!(std::fs::read(&path).unwrap(), damaged);
    }
    write(&world, "state/keys/whole", &whole);
    std::fs::rename(world.dir.path().join("state/keys/whole"), &path).unwrap();
    sign(&backend, 1, &key, Alg::ES256);
}

/// The last letter but padding of the last line of base64, changed.
fn flipped_in_private_part(pem: &[u8]) -> Vec<u8> {
    let text = String::from_utf8(pem.to_vec()).unwrap();
    let at = text.find("\n-----END").unwrap() - 6;
    let mut bytes = text.into_bytes();
    bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
    bytes
}

#[test]
fn what_is_nobodys_is_shown() {
    let world = World::new();
    let backend = world.open();
    make(&backend, 1, Alg::ES256);
    make(&backend, 2, Alg::ES256);
    write(&world, "state/keys/note.txt", b"hello");
    assert_eq!(
        backend.strange(&[object(1)]).unwrap(),
        [
            format!("assertd/test/key2/1 ({}.pem)", object(2)),
            "keys/note.txt".to_owned()
        ]
    );
}

#[test]
fn what_a_crash_left_half_written_is_taken_away_and_nothing_of_others_is() {
    let world = World::new();
    let backend = world.open();
    let key = make(&backend, 1, Alg::ES256);
    drop(backend);
    let (live, keys) = (
        world.key_file(object(1)),
        world.dir.path().join("state/keys"),
    );
    // Between the two steps of placing a file it has two names.
    let half = keys.join(format!("{}.pem.new", object(1)));
    std::fs::hard_link(&live, &half).unwrap();
    for other in ["backup.new", "0123.pem.new"] {
        std::fs::copy(&live, keys.join(other)).unwrap();
    }
    let directory = keys.join(format!("{}.pem.new", object(2)));
    std::fs::create_dir(&directory).unwrap();
    let backend = world.open();
    assert!(!half.exists());
    assert!(directory.is_dir());
    sign(&backend, 1, &key, Alg::ES256);
    let strange = backend.strange(&[object(1)]).unwrap();
    for other in ["backup.new", "0123.pem.new"] {
        assert_eq!(
            std::fs::read(keys.join(other)).unwrap(),
            std::fs::read(&live).unwrap()
        );
        assert!(
            strange.iter().any(|name| name.contains(other)),
            "{strange:?}"
        );
    }
}
