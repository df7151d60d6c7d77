//! What the TPM proves to somebody far away: who it is, what its keys are, what the host has booted. What
//! it signs is verified here by other programs (tpm2-tools) and by nothing that made it.

use crate::tools::{read, write};
use crate::world::{How, World, make, object, sign};
use aws_lc_rs::digest::{SHA256, digest};
use harness::swtpm::Authority;
use harness::tpmproxy::TpmProxy;
use keystore::backend::{Backend, Likeness, Testimony};
use keystore::config::Sessions;
use keystore::evidence::bundle::{Bank, Bytes, PcrIndex, Selection, Tpm};
use keystore::evidence::context::Sha256;
use keystore::evidence::public::PublicArea;
use keystore::protocol::{Credential, EvidenceLevel};
use keystore::{Alg, Kind};
use keystore_tpm::TpmBackend;

const ABOUT: Sha256 = [0x5a; 32];

fn likeness(backend: &TpmBackend) -> Tpm {
    match backend.likeness().unwrap() {
        Likeness::Tpm(tpm) => *tpm,
        Likeness::Token(module) => panic!("{module:?}"),
    }
}

/// Public area, statement and signature.
fn certified(backend: &TpmBackend, n: u8, key: &keystore::PublicKey) -> [Vec<u8>; 3] {
    match backend.attest(object(n), key, &ABOUT).unwrap() {
        Testimony::Certified {
            public,
            attest,
            signature,
            policy,
        } => {
            assert_eq!(policy, None);
            [public.into_vec(), attest.into_vec(), signature.into_vec()]
        }
        Testimony::Asserted(attributes) => panic!("{attributes:?}"),
    }
}

fn selection(bank: Bank, indices: impl IntoIterator<Item = u8>) -> Selection {
    let indices = indices.into_iter().map(|n| PcrIndex::new(n).unwrap());
    Selection::from([(bank, indices.collect())])
}

/// TPM2B
fn sized(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u16).to_be_bytes(), bytes].concat()
}

/// SHA-256 names.
fn name(public: &[u8]) -> Vec<u8> {
    [&[0, 0x0b], digest(&SHA256, public).as_ref()].concat()
}

fn keys_are_certified_and_sign_meanwhile(sessions: Sessions) {
    let world = World::new();
    let how = How {
        sessions: Some(sessions),
        ..How::default()
    };
    let backend = world.open_as(&how).unwrap();
    let algs = [Alg::ES256, Alg::RS256, Alg::ES384, Alg::ES256, Alg::PS256];
    let keys: Vec<_> = (1..)
        .zip(algs)
        .map(|(n, alg)| make(&backend, n, alg))
        .collect();
    let ak = likeness(&backend).ak;
    let area = |bytes: &[u8]| PublicArea::parse(bytes).unwrap();
    let parent = area(ak.parent.as_slice());
    let below = area(ak.public.as_slice()).qualified_name(&parent);
    assert_eq!(
        below,
        ak.qualified_name.as_slice(),
        "in the endorsement hierarchy"
    );
    for ((n, alg), key) in (1..).zip(algs).zip(&keys) {
        let looked = backend.inspect(object(n)).unwrap();
        assert_eq!(looked.evidence.level, EvidenceLevel::TpmCertified);
        let [public, attest, signature] = certified(&backend, n, key);
        sign(&backend, n, key, alg);
        assert!(world.handles("transient") <= 3);
        assert_eq!(attest[..6], [0xff, b'T', b'C', b'G', 0x80, 0x17]);
        let holds = |part: &[u8]| attest.windows(part.len()).any(|it| it == part);
        assert!(holds(&sized(&ABOUT)), "extraData");
        assert!(holds(&sized(&name(&public))), "the key's name");
        assert!(
            holds(&sized(ak.qualified_name.as_slice())),
            "qualifiedSigner"
        );
        write(&world, "attest", &attest);
        write(&world, "signature", &signature);
        write(&world, "ak.pub", &sized(ak.public.as_slice()));
        let pem = world.tool("tpm2_print", &["-t", "TPM2B_PUBLIC", "-f", "pem", "ak.pub"]);
        write(&world, "ak.pem", pem.as_bytes());
        let verify = [
            "-sha256",
            "-verify",
            "ak.pem",
            "-signature",
            "der",
            "attest",
        ];
        write(&world, "der", &der(&signature));
        let verify: Vec<&str> = ["dgst"].into_iter().chain(verify).collect();
        world.tool("openssl", &verify);
    }
    let first = certified(&backend, 1, &keys[0]);
    let error = backend.attest(object(1), &keys[3], &ABOUT).unwrap_err();
    assert_eq!(error.kind(), Kind::Mismatch, "{error}");
    let error = backend.attest(object(9), &keys[3], &ABOUT).unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound, "{error}");
    drop(backend);
    let backend = world.open_as(&how).unwrap();
    assert_eq!(likeness(&backend).ak, ak, "it is kept");
    assert_eq!(certified(&backend, 1, &keys[0])[0], first[0]);
    assert!(world.handles("loaded-session") <= 1);
}

#[test]
fn keys_are_certified_with_password_sessions_and_sign_meanwhile() {
    keys_are_certified_and_sign_meanwhile(Sessions::Password);
}

#[test]
fn keys_are_certified_with_encrypted_sessions_and_sign_meanwhile() {
    keys_are_certified_and_sign_meanwhile(Sessions::Encrypted);
}

/// An ECDSA TPMT_SIGNATURE as openssl reads it.
fn der(signature: &[u8]) -> Vec<u8> {
    assert_eq!(
        signature[..4],
        [0x00, 0x18, 0x00, 0x0b],
        "ECDSA with SHA-256"
    );
    let (r, s) = signature[4..].split_at(2 + usize::from(signature[5]));
    let numbers = [
        keystore::der::positive(&r[2..]),
        keystore::der::positive(&s[2..]),
    ];
    keystore::der::element(keystore::der::SEQUENCE, &numbers.concat())
}

#[test]
fn a_quote_verifies_with_tpm2_checkquote_and_changes_with_the_host() {
    let world = World::new();
    let backend = world.open();
    let tpm = likeness(&backend);
    write(&world, "ak.pub", &sized(tpm.ak.public.as_slice()));
    let pem = world.tool("tpm2_print", &["-t", "TPM2B_PUBLIC", "-f", "pem", "ak.pub"]);
    write(&world, "ak.pem", pem.as_bytes());
    let about: String = ABOUT.iter().map(|byte| format!("{byte:02x}")).collect();
    let mut seen = Vec::new();
    for extended in [false, true] {
        if extended {
            let event = format!("4:sha256={}", "ab".repeat(32));
            world.tool("tpm2_pcrextend", &[&event]);
        }
        let quote = backend
            .quote(&selection(Bank::Sha256, 0..10), &ABOUT)
            .unwrap();
        write(&world, "quote.msg", quote.attest.as_slice());
        write(&world, "quote.sig", quote.signature.as_slice());
        let values: Vec<u8> = quote.pcrs[&Bank::Sha256]
            .values()
            .flat_map(|value| value.as_slice().to_vec())
            .collect();
        assert_eq!(values.len(), 10 * 32);
        write(&world, "values", &values);
        let arguments = [
            "-u",
            "ak.pem",
            "-m",
            "quote.msg",
            "-s",
            "quote.sig",
            "-g",
            "sha256",
        ];
        let right: Vec<&str> = arguments.into_iter().chain(["-q", &about]).collect();
        world.tool("tpm2_checkquote", &right);
        let other = about.replace("5a", "5b");
        let wrong: Vec<&str> = arguments.into_iter().chain(["-q", &other]).collect();
        assert!(!world.run("tpm2_checkquote", &wrong).status.success());
        let digest = digest(&SHA256, &read(&world, "values"));
        let attest = quote.attest.as_slice();
        assert!(
            attest.ends_with(&sized(digest.as_ref())),
            "the digest of the values"
        );
        seen.push(values);
    }
    assert_ne!(seen[0], seen[1]);
    assert_eq!(seen[0][..4 * 32], seen[1][..4 * 32]);
    let error = backend.quote(&selection(Bank::Sha512, [0]), &ABOUT);
    if let Err(error) = error {
        assert_eq!(error.kind(), Kind::Unsupported, "{error}");
    }
}

#[test]
fn a_credential_opens_for_this_tpm_and_its_attestation_key_alone() {
    for sessions in [Sessions::Password, Sessions::Encrypted] {
        let world = World::new();
        let how = How {
            sessions: Some(sessions),
            ..How::default()
        };
        let backend = world.open_as(&how).unwrap();
        let key = make(&backend, 1, Alg::ES256);
        let other = World::new();
        let strange = other.open();
        let tpm = likeness(&backend);
        let credential = |ek: &[u8], ak: &[u8]| credential(&world, ek, ak);
        let ours = credential(tpm.ek.public.as_slice(), tpm.ak.public.as_slice());
        let opened = backend.activate(&ours).unwrap();
        assert_eq!(*opened, SECRET_OF_CREDENTIALS);
        sign(&backend, 1, &key, Alg::ES256);
        let elsewhere = likeness(&strange);
        assert_ne!(elsewhere.ek, tpm.ek);
        let mut broken = ours.clone();
        let mut bytes = broken.blob.into_vec();
        *bytes.last_mut().unwrap() ^= 1;
        broken.blob = Bytes::new(bytes).unwrap();
        for not_ours in [
            credential(tpm.ek.public.as_slice(), elsewhere.ak.public.as_slice()),
            credential(elsewhere.ek.public.as_slice(), tpm.ak.public.as_slice()),
            broken,
        ] {
            let error = backend.activate(&not_ours).unwrap_err();
            assert_eq!(error.kind(), Kind::Mismatch, "{error}");
            sign(&backend, 1, &key, Alg::ES256);
        }
        assert_eq!(*backend.activate(&ours).unwrap(), *opened);
        assert!(world.handles("loaded-session") <= 1);
    }
}

const SECRET_OF_CREDENTIALS: &[u8] = b"thirty-two bytes that are secret";

/// What tpm2_makecredential makes, which asks no TPM.
fn credential(world: &World, ek: &[u8], ak: &[u8]) -> Credential {
    write(world, "ek.pub", &sized(ek));
    write(world, "secret", SECRET_OF_CREDENTIALS);
    let name: String = name(ak).iter().map(|byte| format!("{byte:02x}")).collect();
    let arguments = [
        "-T", "none", "-u", "ek.pub", "-s", "secret", "-n", &name, "-o", "blob",
    ];
    world.tool("tpm2_makecredential", &arguments);
    // Magic and version, TPM2B_ID_OBJECT, TPM2B_ENCRYPTED_SECRET.
    let blob = read(world, "blob");
    let (id, rest) = unsized_(&blob[8..]);
    let (secret, rest) = unsized_(rest);
    assert!(rest.is_empty());
    Credential {
        blob: Bytes::new(id.to_vec()).unwrap(),
        secret: Bytes::new(secret.to_vec()).unwrap(),
    }
}

fn unsized_(bytes: &[u8]) -> (&[u8], &[u8]) {
    let (size, rest) = bytes.split_first_chunk::<2>().unwrap();
    rest.split_at(usize::from(u16::from_be_bytes(*size)))
}

/// What every bundle begins with, while workloads wait. Its maker has certified an RSA key here, which
/// nobody keeps in the TPM: it would have to be made, which takes a chip seconds.
#[test]
fn who_it_is_is_read_when_it_is_opened_and_asked_quickly_from_then_on() {
    let tmp = tempfile::tempdir().unwrap();
    let mut world = World::with_certificates(&Authority::new(tmp.path()));
    let kept = likeness(&world.open()).ek;
    assert!(kept.certificate.is_some());
    world.tool("tpm2_evictcontrol", &["-C", "o", "-c", "0x81010001"]);
    let proxy = TpmProxy::before(&world.swtpm);
    let how = How {
        tcti: Some(proxy.tcti()),
        ..How::default()
    };
    let backend = world.open_as(&how).unwrap();
    let made = proxy.seen("TPM2_CreatePrimary");
    assert_eq!(
        made, 2,
        "our primary, and what is above the attestation key"
    );
    let keys: Vec<_> = (1..=3).map(|n| make(&backend, n, Alg::ES256)).collect();
    let sign_all = || {
        (1..)
            .zip(&keys)
            .for_each(|(n, key)| drop(sign(&backend, n, key, Alg::ES256)))
    };
    sign_all();
    let asked = || {
        let (before, primaries) = (proxy.seen("*"), proxy.seen("TPM2_CreatePrimary"));
        let tpm = likeness(&backend);
        let more = proxy.seen("TPM2_CreatePrimary") - primaries;
        (tpm, proxy.seen("*") - before, more)
    };
    let (tpm, commands, primaries) = asked();
    assert_eq!(tpm.ek, kept, "as if it were kept");
    assert_eq!(primaries, 0);
    assert!(
        commands <= 4,
        "{commands}: a key makes room, ours comes back and is read"
    );
    assert_eq!(asked(), (tpm.clone(), 1, 0));
    let loaded = [0; 2].map(|_| {
        sign_all();
        asked().1
    });
    assert!(loaded[1] <= 3, "{loaded:?}: what makes room is saved once");

    // It was away for a moment, and is the same.
    world.swtpm.restart();
    let (again, commands, primaries) = asked();
    assert_eq!(again, tpm);
    assert!(
        commands < 40,
        "{commands}: its certificates are not read again"
    );
    assert_eq!(primaries, 2);
    sign_all();
}

/// There are places for two keys. What is certified once makes room first, so that a workload's key and the
/// attestation key do not drive each other out.
#[test]
fn a_key_that_is_certified_takes_no_place_of_those_in_use() {
    let world = World::new();
    let proxy = TpmProxy::before(&world.swtpm);
    let how = How {
        tcti: Some(proxy.tcti()),
        ..How::default()
    };
    let backend = world.open_as(&how).unwrap();
    let keys: Vec<_> = (1..=6).map(|n| make(&backend, n, Alg::ES256)).collect();
    let round = || {
        let before = proxy.seen("TPM2_ContextLoad");
        for (n, key) in (2..).zip(&keys[1..]) {
            sign(&backend, 1, &keys[0], Alg::ES256);
            certified(&backend, n, key);
        }
        proxy.seen("TPM2_ContextLoad") - before
    };
    round(); // each is saved once
    let loaded = round();
    assert_eq!(
        loaded,
        2 * 5,
        "the workload's, and the one that is certified"
    );
}

#[test]
fn another_tpm_in_its_place_is_not_shown_as_the_first() {
    let mut world = World::new();
    let backend = world.open(); // without keys, which would tell
    likeness(&backend);
    world.swtpm.replace();
    let error = backend.likeness().unwrap_err();
    assert!(error.to_string().contains("enrolled anew"), "{error}");
}

#[test]
fn without_its_file_another_attestation_key_is_made_and_one_of_another_tpm_is_named() {
    let mut world = World::new();
    let backend = world.open();
    let first = likeness(&backend).ak;
    drop(backend);
    let file = world.dir.path().join("state/ak.pem");
    let kept = std::fs::read(&file).unwrap();
    std::fs::remove_file(&file).unwrap();
    let backend = world.open();
    assert_ne!(likeness(&backend).ak, first);
    drop(backend);
    world.swtpm.replace();
    let backend = world.open(); // it has no keys yet
    let key = make(&backend, 1, Alg::ES256);
    let looked = backend.inspect(object(1)).unwrap();
    assert_eq!(looked.evidence.level, EvidenceLevel::Asserted);
    let error = backend.attest(object(1), &key, &ABOUT).unwrap_err();
    assert_eq!(error.kind(), Kind::Refused, "{error}");
    assert!(error.to_string().contains("enrolled anew"), "{error}");
    sign(&backend, 1, &key, Alg::ES256);
    drop(backend);
    for damaged in [&kept[..kept.len() - 1], b""] {
        write(&world, "state/ak.pem", damaged);
        let backend = world.open();
        let error = backend.likeness().unwrap_err();
        assert!(error.to_string().contains("ak.pem"), "{error}");
        sign(&backend, 1, &key, Alg::ES256);
    }
}

#[test]
fn an_endorsement_hierarchy_that_is_not_ours_costs_the_evidence_and_nothing_else() {
    let world = World::new();
    world.tool("tpm2_changeauth", &["-c", "e", "theirs"]);
    let backend = world.open();
    let key = make(&backend, 1, Alg::ES256);
    sign(&backend, 1, &key, Alg::ES256);
    let looked = backend.inspect(object(1)).unwrap();
    assert_eq!(looked.evidence.level, EvidenceLevel::Asserted);
    let error = backend.attest(object(1), &key, &ABOUT).unwrap_err();
    assert_eq!(error.kind(), Kind::Refused, "{error}");
    assert!(
        error.to_string().contains("tpm2_changeauth -c e"),
        "{error}"
    );
    assert_eq!(world.property("TPM2_PT_LOCKOUT_COUNTER"), 0);
}

#[test]
fn a_wrong_secret_locks_nobody_out() {
    let world = World::new();
    drop(world.open()); // makes the attestation key
    let wrong = How {
        secret: [9; 32],
        ..How::default()
    };
    for _ in 0..5 {
        let backend = world.open_as(&wrong).unwrap();
        let error = backend.likeness().unwrap_err();
        assert_eq!(error.kind(), Kind::Refused, "{error}");
    }
    assert_eq!(world.property("TPM2_PT_LOCKOUT_COUNTER"), 0);
    likeness(&world.open());
}

#[test]
fn the_endorsement_key_comes_with_the_certificates_that_its_maker_has_put_into_nv() {
    let tmp = tempfile::tempdir().unwrap();
    let maker = Authority::new(tmp.path());
    let world = World::with_certificates(&maker);
    let backend = world.open();
    let tpm = likeness(&backend);
    assert_eq!(tpm.manufacturer.as_str(), "IBM");
    assert_eq!(tpm.family_revision.as_str(), "1.64");
    assert!(tpm.ek.chain.is_empty());
    let certificate = tpm.ek.certificate.clone().unwrap();
    write(&world, "ek.der", certificate.as_slice());
    let x509 = ["x509", "-inform", "DER", "-in", "ek.der"];
    let pem = |more: &[&str]| world.tool("openssl", &[&x509[..], more].concat());
    write(&world, "ek.crt", pem(&[]).as_bytes());
    let (root, issuer) = (maker.root(), maker.issuer());
    let (root, issuer) = (root.to_str().unwrap(), issuer.to_str().unwrap());
    let verify = ["verify", "-CAfile", root, "-untrusted", issuer, "ek.crt"];
    world.tool("openssl", &verify);
    write(&world, "ek.pub", &sized(tpm.ek.public.as_slice()));
    let shown = world.tool("tpm2_print", &["-t", "TPM2B_PUBLIC", "-f", "pem", "ek.pub"]);
    let certified = pem(&["-pubkey", "-noout"]);
    assert_eq!(shown, certified, "it is the key that was certified");

    // Authorities' certificates stand one behind the other, over indices, and something after them.
    drop(backend);
    let issuer = [
        "x509",
        "-in",
        issuer,
        "-outform",
        "DER",
        "-out",
        "issuer.der",
    ];
    world.tool("openssl", &issuer);
    let issuer = read(&world, "issuer.der");
    let text = [&issuer[..], &issuer, &[0; 20]].concat();
    let (first, second) = text.split_at(issuer.len() + 100);
    for (index, part) in [("0x1c00100", first), ("0x1c00101", second)] {
        write(&world, "part", part);
        let size = part.len().to_string();
        let attributes = "ownerread|ownerwrite|authread|no_da";
        world.tool(
            "tpm2_nvdefine",
            &["-C", "o", "-s", &size, "-a", attributes, index],
        );
        world.tool("tpm2_nvwrite", &["-C", "o", "-i", "part", index]);
    }
    let mut backend = world.open();
    let again = likeness(&backend);
    let chain: Vec<&[u8]> = again.ek.chain.iter().map(Bytes::as_slice).collect();
    assert_eq!(chain, [&issuer[..], &issuer]);
    assert_eq!(again.ek.public, tpm.ek.public);

    // A credential for it opens where its key is persistent and where it is made anew.
    for is_persistent in [true, false] {
        if !is_persistent {
            world.tool("tpm2_evictcontrol", &["-C", "o", "-c", "0x81010001"]);
            drop(backend);
            backend = world.open(); // what it was is remembered
        }
        let credential = credential(&world, tpm.ek.public.as_slice(), tpm.ak.public.as_slice());
        assert_eq!(
            *backend.activate(&credential).unwrap(),
            SECRET_OF_CREDENTIALS
        );
        assert_eq!(likeness(&backend).ek, again.ek);
    }
}
