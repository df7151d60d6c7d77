//! What a TPM states, held against a policy by the verifier; and secrets that the verifier encloses without a
//! TPM, opened by one: by ours, and by tpm2-tools with endorsement keys of either kind.

use crate::tools::{read, write};
use crate::world::{World, make, object};
use keystore::backend::{Backend, Likeness, Testimony};
use keystore::charter::PurposeKind;
use keystore::evidence::bundle::{
    Bank, Bundle, BundleType, CertifiedKey, Host, KeystoreEvidence, Nonce, PcrIndex, Selection,
    Text, Tpm, TpmEvidence, VERSION, to_hex,
};
use keystore::evidence::context;
use keystore::evidence::enrolment::approval::Approved;
use keystore::evidence::enrolment::registry::{Registry, Replacing};
use keystore::evidence::enrolment::vetting::{Rules, vet};
use keystore::evidence::enrolment::{
    self, Request, RequestType, Response, ResponseType, credential,
};
use keystore::evidence::nonces::NonceUse;
use keystore::evidence::policy::Policy;
use keystore::evidence::public::PublicArea;
use keystore::evidence::verdict::{Outcome, Overall, Report};
use keystore::evidence::verify::{Question, verify};
use keystore::protocol::Credential;
use keystore::{Alg, PublicKey};
use keystore_tpm::TpmBackend;
use std::path::Path;

const NOW: u64 = 1_800_000_000;
const NONCE: Nonce = Nonce([7; 32]);

fn likeness(backend: &TpmBackend) -> Tpm {
    match backend.likeness().unwrap() {
        Likeness::Tpm(tpm) => *tpm,
        Likeness::Token(module) => panic!("{module:?}"),
    }
}

fn host() -> Host {
    "web-1".parse().unwrap()
}

fn policy() -> Policy {
    let text = "minimum = \"tpm-certified\"\n[ek]\ncertificate = \"optional\"\n\
                [quote]\nselect = { sha256 = [0, 4, 7] }\nany = true\n";
    Policy::parse(Path::new("policy.toml"), text).unwrap()
}

/// As a broker puts it together.
fn bundle(backend: &TpmBackend, keys: &[(u8, Alg, PublicKey)]) -> Bundle {
    let purpose = PurposeKind::ClientAuthentication;
    let certified = keys.iter().map(|(n, alg, jwk)| {
        let id: keystore::KeyId = format!("ours/key{n}.1").parse().unwrap();
        let about = context::certify(&NONCE, &host(), &id, purpose, &jwk.spki());
        let Testimony::Certified {
            public,
            attest,
            signature,
            policy,
        } = backend.attest(object(*n), jwk, &about).unwrap()
        else {
            panic!("a TPM certifies");
        };
        CertifiedKey {
            key: id,
            target: None,
            kid: jwk.kid(),
            purpose,
            alg: *alg,
            jwk: jwk.clone(),
            public,
            attest,
            signature,
            imported: false,
            policy,
        }
    });
    let keys: Vec<CertifiedKey> = certified.collect();
    let statements = context::statements(keys.iter().map(|key| key.attest.as_slice()));
    let about = context::quote(&NONCE, &host(), &statements);
    let pcrs = [0, 4, 7].map(|n| PcrIndex::new(n).unwrap());
    let selection = Selection::from([(Bank::Sha256, pcrs.into())]);
    let quote = backend.quote(&selection, &about).unwrap();
    Bundle {
        r#type: BundleType::AssertdEvidence,
        version: VERSION,
        made_at: NOW,
        host: host(),
        nonce: NONCE,
        keystores: vec![KeystoreEvidence::Tpm(TpmEvidence {
            name: Text::cut("tpm"),
            tpm: likeness(backend),
            keys,
            quote: Some(quote),
        })],
        event_log: None,
        ima: None,
    }
}

fn verified(bundle: &Bundle, registry: &Registry) -> Report {
    verify(&Question {
        evidence: bundle.to_json().as_bytes(),
        nonce: &NONCE,
        nonce_use: NonceUse::NotKept,
        policy: &policy(),
        roots: &[],
        registry,
        now: NOW,
    })
}

#[test]
fn a_tpm_is_enrolled_and_its_keys_are_certified() {
    let world = World::new();
    let backend = world.open();
    let algs = [Alg::ES256, Alg::RS256, Alg::ES384];
    let keys: Vec<(u8, Alg, PublicKey)> = (1..)
        .zip(algs)
        .map(|(n, alg)| (n, alg, make(&backend, n, alg)))
        .collect();
    let request = Request {
        r#type: RequestType::Request,
        version: enrolment::VERSION,
        host: host(),
        keystore: Text::cut("tpm"),
        tpm: likeness(&backend),
    };
    let ek = PublicArea::parse(request.tpm.ek.public.as_slice()).unwrap();
    let ek = enrolment::registry::EkFingerprint::of(&ek).unwrap();
    let approved = Approved::parse(&format!("{ek} web-1\n")).unwrap();
    let mut registry = Registry::new();
    let (enrolled, ek) = vet(
        &request,
        &Rules {
            policy: &policy(),
            roots: &[],
            approved: Some(&approved),
            registry: &registry,
            replaced: &Default::default(),
            now: NOW,
        },
    )
    .unwrap();
    let (challenge, pending) = enrolment::challenge(&request, enrolled, &ek, NOW + 300).unwrap();
    let opened = backend.activate(&Credential {
        blob: challenge.credential.clone(),
        secret: challenge.secret.clone(),
    });
    let response = Response {
        r#type: ResponseType::Response,
        version: enrolment::VERSION,
        id: challenge.id,
        host: host(),
        secret: keystore::evidence::bundle::Bytes::new(opened.unwrap().to_vec()).unwrap(),
    };
    let enrolled = pending.proven(&response, NOW).unwrap().clone();
    assert!(
        pending.proven(&response, NOW + 301).is_err(),
        "it is too late"
    );
    registry.record(enrolled, Replacing::Refused).unwrap();

    let report = verified(&bundle(&backend, &keys), &registry);
    let wrong = |it: &&keystore::evidence::verdict::Verdict| {
        !matches!(it.outcome, Outcome::Passed | Outcome::Skipped { .. })
    };
    let wrong: Vec<_> = report.verdicts.iter().filter(wrong).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!(report.overall(), Overall::Passed);
    assert!(
        report
            .keys
            .iter()
            .all(|it| it.level.to_string() == "tpm-certified")
    );

    // Another TPM under this one's name.
    let other = World::new();
    let other = other.open();
    let theirs = vec![(1, Alg::ES256, make(&other, 1, Alg::ES256))];
    let report = verified(&bundle(&other, &theirs), &registry);
    let failed =
        |it: &&keystore::evidence::verdict::Verdict| matches!(it.outcome, Outcome::Failed { .. });
    let failed: Vec<String> = report
        .verdicts
        .iter()
        .filter(failed)
        .map(|it| it.check.to_string())
        .collect();
    assert_eq!(failed, ["host"]);
}

/// TPM2B, unwrapped.
fn area(sized: &[u8]) -> &[u8] {
    &sized[2..]
}

#[test]
fn what_is_enclosed_without_a_tpm_opens_in_one() {
    let world = World::new();
    for kind in ["rsa", "ecc"] {
        world.tool(
            "tpm2_createek",
            &["-c", "ek.ctx", "-G", kind, "-u", "ek.pub"],
        );
        world.tool("tpm2_flushcontext", &["-t"]);
        world.tool(
            "tpm2_createak",
            &[
                "-C", "ek.ctx", "-c", "ak.ctx", "-G", "ecc", "-g", "sha256", "-s", "ecdsa", "-u",
                "ak.pub",
            ],
        );
        world.tool("tpm2_flushcontext", &["-t"]);
        let (ek, ak) = (read(&world, "ek.pub"), read(&world, "ak.pub"));
        let ek = PublicArea::parse(area(&ek)).unwrap();
        let ak = PublicArea::parse(area(&ak)).unwrap();
        let secret = [0x42; 32];
        let made = credential::make(&ek, ak.name(), &secret).unwrap();
        // As tpm2-tools keep it: magic, version, both with their sizes.
        let sized = |bytes: &[u8]| [&(bytes.len() as u16).to_be_bytes(), bytes].concat();
        let head = [0xba, 0xdc, 0xc0, 0xde, 0, 0, 0, 1];
        let blob = [&head[..], &sized(&made.credential), &sized(&made.secret)].concat();
        write(&world, "blob", &blob);
        let open = ["session.ctx", "ek.ctx", "ak.ctx"];
        world.tool(
            "tpm2_startauthsession",
            &["--policy-session", "-S", open[0]],
        );
        world.tool("tpm2_policysecret", &["-S", open[0], "-c", "e"]);
        let session = format!("session:{}", open[0]);
        world.tool(
            "tpm2_activatecredential",
            &[
                "-c", open[2], "-C", open[1], "-i", "blob", "-o", "opened", "-P", &session,
            ],
        );
        assert_eq!(to_hex(&read(&world, "opened")), to_hex(&secret), "{kind}");
        world.tool("tpm2_flushcontext", &["-l"]);
        world.tool("tpm2_flushcontext", &["-t"]);
    }
}
