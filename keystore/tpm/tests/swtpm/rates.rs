//! Numbers, for people: `cargo nextest run -p keystore-tpm --run-ignored only --no-capture rates`.

use crate::world::{How, World, make, object};
use keystore::Alg;
use keystore::backend::Backend;
use keystore::config::Sessions;
use std::str::FromStr;
use std::time::{Duration, Instant};
use tss_esapi::Context;
use tss_esapi::attributes::{ObjectAttributesBuilder, SessionAttributesBuilder};
use tss_esapi::constants::SessionType;
use tss_esapi::constants::tss::{TPM2_RH_NULL, TPM2_ST_HASHCHECK};
use tss_esapi::interface_types::algorithm::{HashingAlgorithm, PublicAlgorithm};
use tss_esapi::interface_types::ecc::EccCurve;
use tss_esapi::interface_types::resource_handles::Hierarchy;
use tss_esapi::interface_types::session_handles::AuthSession;
use tss_esapi::structures::{
    Digest, EccPoint, EccScheme, HashScheme, PublicBuilder, PublicEccParametersBuilder,
    SignatureScheme, SymmetricDefinition,
};
use tss_esapi::tcti_ldr::TctiNameConf;
use tss_esapi::tss2_esys::TPMT_TK_HASHCHECK;

const FOR: Duration = Duration::from_secs(3);

#[test]
#[ignore = "measures, and asserts nothing that a busy machine could not break"]
fn rates() {
    for sessions in [Sessions::Password, Sessions::Encrypted] {
        let world = World::new();
        let how = How {
            sessions: Some(sessions),
            ..How::default()
        };
        let backend = world.open_as(&how).unwrap();
        println!("{}", backend.describe());
        drop(backend);
        raw(&world, sessions);
        let backend = world.open_as(&how).unwrap();
        for (n, alg) in (1..).zip([Alg::ES256, Alg::ES384, Alg::RS256, Alg::PS256]) {
            let key = make(&backend, n, alg);
            let (begun, mut times) = (Instant::now(), Vec::new());
            while begun.elapsed() < FOR {
                let one = Instant::now();
                backend.sign(object(n), &key, alg, b"message").unwrap();
                times.push(one.elapsed());
            }
            times.sort();
            let rate = times.len() as f64 / begun.elapsed().as_secs_f64();
            let (p50, p99) = (times[times.len() / 2], times[times.len() * 99 / 100]);
            println!("{sessions:?} {alg}: {rate:.0}/s, p50 {p50:?}, p99 {p99:?}");
        }
        let keys: Vec<_> = (10..20).map(|n| make(&backend, n, Alg::ES256)).collect();
        let (begun, mut count) = (Instant::now(), 0u32);
        while begun.elapsed() < FOR {
            for (n, key) in (10..).zip(&keys) {
                backend
                    .sign(object(n), key, Alg::ES256, b"message")
                    .unwrap();
                count += 1;
            }
        }
        let rate = f64::from(count) / begun.elapsed().as_secs_f64();
        println!("{sessions:?} ES256, ten keys in turn: {rate:.0}/s");
        drop(backend);
        let begun = Instant::now();
        drop(world.open_as(&how).unwrap());
        println!("{sessions:?} opening and closing: {:?}", begun.elapsed());
        let backend = world.open_as(&how).unwrap();
        let keys: Vec<_> = (100..200).map(|n| make(&backend, n, Alg::ES256)).collect();
        drop(backend);
        let begun = Instant::now();
        let backend = world.open_as(&how).unwrap();
        for (n, key) in (100..).zip(&keys) {
            backend.inspect(object(n)).unwrap(); // as a keystore does when it starts
            backend.sign(object(n), key, Alg::ES256, b"probe").unwrap();
        }
        println!("{sessions:?} ready with 100 keys: {:?}", begun.elapsed());
    }
}

/// TPM2_Sign with a loaded key and nothing of ours around it: the floor.
fn raw(world: &World, sessions: Sessions) {
    let name = TctiNameConf::from_str(&world.swtpm.tcti().to_string()).unwrap();
    let mut context = Context::new(name).unwrap();
    let attributes = ObjectAttributesBuilder::new()
        .with_fixed_tpm(true)
        .with_fixed_parent(true)
        .with_sensitive_data_origin(true)
        .with_user_with_auth(true)
        .with_sign_encrypt(true)
        .build();
    let scheme = EccScheme::EcDsa(HashScheme::new(HashingAlgorithm::Sha256));
    let parameters =
        PublicEccParametersBuilder::new_unrestricted_signing_key(scheme, EccCurve::NistP256);
    let public = PublicBuilder::new()
        .with_public_algorithm(PublicAlgorithm::Ecc)
        .with_name_hashing_algorithm(HashingAlgorithm::Sha256)
        .with_object_attributes(attributes.unwrap())
        .with_ecc_parameters(parameters.build().unwrap())
        .with_ecc_unique_identifier(EccPoint::default())
        .build()
        .unwrap();
    let made = context.execute_with_session(Some(AuthSession::Password), |c| {
        c.create_primary(Hierarchy::Owner, public, None, None, None, None)
    });
    let key = made.unwrap().key_handle;
    let session = match sessions {
        Sessions::Password => AuthSession::Password,
        Sessions::Encrypted => {
            let symmetric = SymmetricDefinition::AES_128_CFB;
            let (hmac, hash) = (SessionType::Hmac, HashingAlgorithm::Sha256);
            let session = context.start_auth_session(None, None, None, hmac, symmetric, hash);
            let session = session.unwrap().unwrap();
            let (attributes, mask) = SessionAttributesBuilder::new()
                .with_continue_session(true)
                .with_decrypt(true)
                .with_encrypt(true)
                .build();
            context
                .tr_sess_set_attributes(session, attributes, mask)
                .unwrap();
            session
        }
    };
    let (begun, mut times) = (Instant::now(), Vec::new());
    while begun.elapsed() < FOR {
        let ticket = TPMT_TK_HASHCHECK {
            tag: TPM2_ST_HASHCHECK,
            hierarchy: TPM2_RH_NULL,
            digest: Default::default(),
        };
        let (digest, ticket) = (
            Digest::try_from(vec![7; 32]).unwrap(),
            ticket.try_into().unwrap(),
        );
        let one = Instant::now();
        context
            .execute_with_session(Some(session), |c| {
                c.sign(key, digest, SignatureScheme::Null, ticket)
            })
            .unwrap();
        times.push(one.elapsed());
    }
    times.sort();
    let rate = times.len() as f64 / begun.elapsed().as_secs_f64();
    let p50 = times[times.len() / 2];
    println!("{sessions:?} ES256, raw: {rate:.0}/s, p50 {p50:?}");
}
