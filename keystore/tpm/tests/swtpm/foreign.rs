//! Others and the same TPM: tools that we did not write read our keys, and what they do to the TPM
//! does not stop them, or is named.

use crate::tools::read;
use crate::world::{How, SECRET, World, make, object, refusal, sign};
use aws_lc_rs::hmac;
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use keystore::backend::Backend;
use keystore::config::Sessions;
use keystore::{Alg, Kind, PublicKey};

const BOTH: [Sessions; 2] = [Sessions::Password, Sessions::Encrypted];

/// Where the TCG wants a storage root key.
const SRK: &str = "0x81000001";

pub fn pem_path(world: &World, n: u8) -> String {
    world.key_file(object(n)).display().to_string()
}

/// SubjectPublicKeyInfo of a key, as openssl writes it with nothing but the public numbers.
fn spki_ends_with(spki: &[u8], key: &PublicKey) -> bool {
    let numbers = match key {
        PublicKey::P256 { x, y } => [&x[..], y].concat(),
        PublicKey::P384 { x, y } => [&x[..], &y[..]].concat(),
        PublicKey::Rsa { n, .. } => [&n[..], &[2, 3, 1, 0, 1]].concat(),
        PublicKey::Ed25519 { x } => x.to_vec(),
    };
    spki.ends_with(&numbers)
}

#[test]
fn openssl_reads_our_key_files_and_shows_the_same_public_keys() {
    let world = World::new();
    let backend = world.open();
    let algs = [Alg::ES256, Alg::ES384, Alg::RS256, Alg::PS256];
    let keys: Vec<PublicKey> = (1..)
        .zip(algs)
        .map(|(n, alg)| make(&backend, n, alg))
        .collect();
    drop(backend); // its slots are openssl's now
    for (n, key) in (1..).zip(&keys) {
        let pem = world.public_pem(&pem_path(&world, n));
        let base64: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
        let spki = BASE64.decode(base64).unwrap();
        assert!(spki_ends_with(&spki, key), "{pem}");
    }
}

/// The auth value of a key, computed as the documentation says.
pub fn auth_bytes(secret: &[u8; 32], n: u8) -> Vec<u8> {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
    hmac::sign(&key, &[n; 16]).as_ref().to_vec()
}

/// The same in hexadecimal.
pub fn auth_of(secret: &[u8; 32], n: u8) -> String {
    let bytes = auth_bytes(secret, n);
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn tpm2_tools_load_our_key_with_its_attributes_and_sign_with_its_auth_value_alone() {
    let world = World::new();
    let backend = world.open();
    let key = make(&backend, 1, Alg::ES256);
    drop(backend); // its slots are the tools' now
    let path = pem_path(&world, 1);
    world.tool("tpm2_load", &["-r", &path, "-c", "key.ctx"]); // the parent stands in the file
    world.tool("tpm2_flushcontext", &["-t"]);
    let shown = world.tool("tpm2_readpublic", &["-c", "key.ctx"]);
    assert!(
        shown.contains("value: fixedtpm|fixedparent|sensitivedataorigin|userwithauth|noda|sign"),
        "{shown}"
    );
    let PublicKey::P256 { x, .. } = &key else {
        panic!("{key:?}");
    };
    let x: String = x.iter().map(|byte| format!("{byte:02x}")).collect();
    assert!(shown.contains(&format!("x: {x}")), "{shown}");

    let sign_as = |auth: &str| {
        world.tool("tpm2_flushcontext", &["-t"]);
        let mut arguments = vec![
            "-c",
            "key.ctx",
            "-g",
            "sha256",
            "-o",
            "signature",
            "-f",
            "plain",
        ];
        if !auth.is_empty() {
            arguments.extend(["-p", auth]);
        }
        arguments.push("message");
        world.run("tpm2_sign", &arguments).status.success()
    };
    std::fs::copy(&path, world.dir.path().join("message")).unwrap();
    assert!(!sign_as(""), "the file alone signs");
    let wrong = format!("hex:{}", auth_of(&[0; 32], 1));
    assert!(!sign_as(&wrong), "the file signs with another secret");
    let other_key = format!("hex:{}", auth_of(&SECRET, 2));
    assert!(
        !sign_as(&other_key),
        "the file signs with another key's auth value"
    );
    assert!(sign_as(&format!("hex:{}", auth_of(&SECRET, 1))));
    assert!(!read(&world, "signature").is_empty());
    assert_eq!(world.property("TPM2_PT_LOCKOUT_COUNTER"), 0);
}

#[test]
fn a_wrong_secret_signs_nothing_and_is_not_counted() {
    for sessions in BOTH {
        let world = World::new();
        let how = How {
            sessions: Some(sessions),
            ..How::default()
        };
        let backend = world.open_as(&how).unwrap();
        let key = make(&backend, 1, Alg::ES256);
        drop(backend);
        let wrong = How {
            secret: [1; 32],
            ..how.clone()
        };
        let backend = world.open_as(&wrong).unwrap();
        for _ in 0..5 {
            let refused = refusal(&backend, 1, &key, Alg::ES256);
            assert_eq!(refused.kind(), Kind::BadPin, "{refused}");
        }
        assert_eq!(world.property("TPM2_PT_LOCKOUT_COUNTER"), 0);
        drop(backend);
        sign(&world.open_as(&how).unwrap(), 1, &key, Alg::ES256);
    }
}

#[test]
fn a_lockout_that_others_caused_does_not_stop_our_keys() {
    for sessions in BOTH {
        let world = World::new();
        let how = How {
            sessions: Some(sessions),
            ..How::default()
        };
        world.tool(
            "tpm2_createprimary",
            &["-C", "o", "-G", "ecc", "-p", "right", "-c", "da.ctx"],
        );
        world.tool(
            "tpm2_create",
            &[
                "-C", "da.ctx", "-P", "right", "-G", "ecc", "-p", "right", "-c", "key.ctx",
            ],
        );
        world.tool("tpm2_flushcontext", &["-t"]);
        let backend = world.open_as(&how).unwrap();
        let key = make(&backend, 1, Alg::ES256);
        let in_lockout = || world.property("inLockout") == 1;
        for _ in 0..10 {
            if in_lockout() {
                break;
            }
            let wrong = ["-c", "key.ctx", "-p", "wrong", "-o", "x", "state/lock"];
            assert!(!world.run("tpm2_sign", &wrong).status.success());
            world.tool("tpm2_flushcontext", &["-t"]); // what the tool left, and our keys too
        }
        assert!(in_lockout());
        sign(&backend, 1, &key, Alg::ES256);
        let made = make(&backend, 2, Alg::ES256);
        drop(backend);
        let backend = world.open_as(&how).unwrap();
        sign(&backend, 1, &key, Alg::ES256);
        sign(&backend, 2, &made, Alg::ES256);
        assert!(in_lockout());
    }
}

#[test]
fn a_tpm_that_was_cleared_is_a_mismatch_and_nothing_is_made_in_its_place() {
    let world = World::new();
    let backend = world.open();
    let key = make(&backend, 1, Alg::ES256);
    world.tool("tpm2_clear", &[]); // under our feet
    // That it is for good is said when it is opened, which this makes happen.
    let refused = refusal(&backend, 1, &key, Alg::ES256);
    assert_eq!(refused.kind(), Kind::Unavailable, "{refused}");
    assert!(refused.to_string().contains("it was cleared"), "{refused}");
    let made = backend.generate(object(2), "assertd/a/b/1", Alg::ES256);
    assert_eq!(made.unwrap_err().kind(), Kind::Unavailable);
    drop(backend);
    for _ in 0..2 {
        let opened = world.open_as(&How::default()).err().unwrap();
        assert_eq!(opened.kind(), Kind::Mismatch, "{opened}");
        assert!(opened.to_string().contains("it was cleared"), "{opened}");
        assert_eq!(world.handles("transient"), 0);
    }
    assert!(world.key_file(object(1)).exists());
    // What the text says to do.
    let anew = How {
        state: "other",
        ..How::default()
    };
    let backend = world.open_as(&anew).unwrap();
    let made = make(&backend, 2, Alg::ES256);
    sign(&backend, 2, &made, Alg::ES256);
}

#[test]
fn a_key_file_of_another_tpm_is_not_loaded() {
    let (here, there) = (World::new(), World::new());
    let (backend, foreign) = (here.open(), there.open());
    make(&backend, 1, Alg::ES256);
    let key = make(&foreign, 1, Alg::ES256);
    std::fs::copy(there.key_file(object(1)), here.key_file(object(1))).unwrap();
    let error = backend.inspect(object(1)).unwrap_err();
    assert_eq!(error.kind(), Kind::Mismatch, "{error}");
    assert!(error.to_string().contains("made by another TPM"), "{error}");
    assert_eq!(
        refusal(&backend, 1, &key, Alg::ES256).kind(),
        Kind::Mismatch
    );
}

/// As our own error text says to make one.
fn make_storage_root_key(world: &World, owner: &str) {
    let attributes =
        "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|noda|restricted|decrypt";
    world.tool(
        "tpm2_createprimary",
        &[
            "-C",
            "o",
            "-P",
            owner,
            "-g",
            "sha256",
            "-G",
            "ecc256:aes128cfb",
            "-a",
            attributes,
            "-c",
            "srk.ctx",
        ],
    );
    world.tool(
        "tpm2_evictcontrol",
        &["-C", "o", "-P", owner, "-c", "srk.ctx", SRK],
    );
    world.tool("tpm2_flushcontext", &["-t"]);
}

#[test]
fn a_storage_root_key_that_is_there_is_used_and_left_there() {
    for sessions in BOTH {
        let world = World::new();
        make_storage_root_key(&world, "");
        let how = How {
            sessions: Some(sessions),
            ..How::default()
        };
        let backend = world.open_as(&how).unwrap();
        let keys = [1, 2, 3, 4].map(|n| make(&backend, n, Alg::ES256));
        for (n, key) in (1..).zip(&keys).chain((1..).zip(&keys)) {
            sign(&backend, n, key, Alg::ES256);
        }
        let path = pem_path(&world, 1);
        drop(backend);
        assert_eq!(world.handles("persistent"), 1);
        assert_eq!(world.handles("transient"), 0);
        world.tool("tpm2_load", &["-r", &path, "-c", "key.ctx"]);
        world.tool("tpm2_flushcontext", &["-t"]);
        let backend = world.open_as(&how).unwrap();
        sign(&backend, 1, &keys[0], Alg::ES256);
    }
}

#[test]
fn what_else_lies_where_the_storage_root_key_belongs_is_not_used() {
    let world = World::new();
    world.tool(
        "tpm2_createprimary",
        &["-C", "o", "-G", "rsa", "-c", "rsa.ctx"],
    );
    world.tool("tpm2_evictcontrol", &["-C", "o", "-c", "rsa.ctx", SRK]);
    world.tool("tpm2_flushcontext", &["-t"]);
    let backend = world.open();
    let key = make(&backend, 1, Alg::ES256);
    sign(&backend, 1, &key, Alg::ES256);
    drop(backend);
    assert_eq!(world.handles("persistent"), 1);
    // One that would fit comes later: our keys stay under the one they were made under.
    world.tool("tpm2_evictcontrol", &["-C", "o", "-c", SRK]);
    make_storage_root_key(&world, "");
    sign(&world.open(), 1, &key, Alg::ES256);
}

#[test]
fn an_owner_with_an_auth_value_is_told_how_to_make_a_storage_root_key() {
    let world = World::new();
    world.tool("tpm2_changeauth", &["-c", "owner", "secret"]);
    let refused = world.open_as(&How::default()).err().unwrap();
    assert_eq!(refused.kind(), Kind::Refused, "{refused}");
    let text = refused.to_string();
    assert!(text.contains("tpm2_createprimary -C o -P AUTH"), "{text}");
    make_storage_root_key(&world, "secret");
    let backend = world.open();
    let key = make(&backend, 1, Alg::ES256);
    sign(&backend, 1, &key, Alg::ES256);
}

#[test]
fn a_storage_root_key_with_an_auth_value_is_named() {
    for sessions in BOTH {
        let world = World::new();
        let attributes =
            "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|noda|restricted|decrypt";
        let mut arguments = vec!["-C", "o", "-g", "sha256", "-G", "ecc256:aes128cfb"];
        arguments.extend(["-a", attributes, "-p", "secret", "-c", "srk.ctx"]);
        world.tool("tpm2_createprimary", &arguments);
        world.tool("tpm2_evictcontrol", &["-C", "o", "-c", "srk.ctx", SRK]);
        world.tool("tpm2_flushcontext", &["-t"]);
        let how = How {
            sessions: Some(sessions),
            ..How::default()
        };
        let backend = world.open_as(&how).unwrap();
        let made = backend.generate(object(1), "assertd/a/b/1", Alg::ES256);
        let refused = made.unwrap_err();
        assert_eq!(refused.kind(), Kind::Refused, "{refused}");
        assert!(refused.to_string().contains(SRK), "{refused}");
        assert!(!world.key_file(object(1)).exists());
        assert_eq!(world.property("TPM2_PT_LOCKOUT_COUNTER"), 0);
        // As the text says where nobody uses it: no key was made under it, so nothing binds us to it.
        drop(backend);
        world.tool("tpm2_evictcontrol", &["-C", "o", "-c", SRK]);
        let backend = world.open_as(&how).unwrap();
        let key = make(&backend, 1, Alg::ES256);
        sign(&backend, 1, &key, Alg::ES256);
    }
}
