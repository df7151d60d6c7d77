//! The TPM's floor: TPM2_Sign with a key that is loaded, in a loop, nothing around it. P-256 over a
//! 32-byte digest, through the same binding, with a key of the same attributes and under the same kind
//! of session as the keystore's.
//!
//! Like [`crate::raw`] it runs in a process of its own: the TPM's library reads its environment when it
//! starts, and an emulator serves one connection at a time, so that this one has its own.

use crate::load::Times;
use crate::raw::Floor;
use keystore::config::Sessions;
use serde::{Deserialize, Serialize};
use std::process::{Command, ExitCode};
use std::str::FromStr;
use std::time::{Duration, Instant};
use tss_esapi::Context;
use tss_esapi::attributes::{ObjectAttributes, ObjectAttributesBuilder, SessionAttributesBuilder};
use tss_esapi::constants::SessionType;
use tss_esapi::constants::tss::{TPM2_RH_NULL, TPM2_ST_HASHCHECK};
use tss_esapi::handles::KeyHandle;
use tss_esapi::interface_types::algorithm::{HashingAlgorithm, PublicAlgorithm};
use tss_esapi::interface_types::ecc::EccCurve;
use tss_esapi::interface_types::resource_handles::Hierarchy;
use tss_esapi::interface_types::session_handles::AuthSession;
use tss_esapi::structures::{
    Auth, Digest, EccPoint, EccScheme, HashScheme, Public, PublicBuilder, PublicEccParameters,
    PublicEccParametersBuilder, SignatureScheme, SymmetricDefinition, SymmetricDefinitionObject,
};
use tss_esapi::tcti_ldr::TctiNameConf;
use tss_esapi::tss2_esys::TPMT_TK_HASHCHECK;

/// Tells a process that it is the child, and what to measure.
const JOB: &str = "ASSERTD_BENCH_TPM";

/// Signatures before the measurement begins.
const WARM_UP: usize = 100;

#[derive(Serialize, Deserialize)]
struct Job {
    tcti: String,
    encrypted: bool,
    duration: Duration,
}

/// Signs in a loop for `duration` on the TPM that `tcti` leads to.
///
/// # Panics
/// If the loop cannot be run: a benchmark without its floor says nothing.
pub fn raw(tcti: &str, sessions: Sessions, duration: Duration) -> Floor {
    let job = Job {
        tcti: tcti.to_owned(),
        encrypted: sessions == Sessions::Encrypted,
        duration,
    };
    let output = Command::new(std::env::current_exe().expect("a process has a program"))
        .env(JOB, serde_json::to_string(&job).expect("plain data"))
        .env("TSS2_LOG", "all+none")
        .output()
        .expect("this program can be started");
    let shown = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "raw TPM2_Sign: {}: {shown}",
        output.status
    );
    serde_json::from_slice(&output.stdout).expect("the child prints the floor")
}

/// Measures and prints, if this process was started by [`raw`].
pub fn child() -> Option<ExitCode> {
    let job: Job = serde_json::from_str(&std::env::var(JOB).ok()?).expect("raw wrote the job");
    let floor = measure(&job);
    println!("{}", serde_json::to_string(&floor).expect("three numbers"));
    Some(ExitCode::SUCCESS)
}

fn measure(job: &Job) -> Floor {
    let name = TctiNameConf::from_str(&job.tcti).expect("a place tpm2-tss knows");
    let mut context = Context::new(name).expect("the TPM answers");
    let auth = Auth::try_from(vec![7; 32]).expect("32 bytes are an auth value");
    let key = primary(&mut context, signing_key(), Some(auth.clone()));
    context
        .tr_set_auth(key.into(), auth)
        .expect("an auth value can be set");
    let session = match job.encrypted {
        false => AuthSession::Password,
        true => encrypted_session(&mut context),
    };
    let sign = |context: &mut Context| {
        let ticket = TPMT_TK_HASHCHECK {
            tag: TPM2_ST_HASHCHECK,
            hierarchy: TPM2_RH_NULL,
            digest: Default::default(),
        };
        let ticket = ticket.try_into().expect("a null ticket");
        let digest = Digest::try_from(vec![7; 32]).expect("32 bytes are a digest");
        let signed = context.execute_with_session(Some(session), |c| {
            c.sign(key, digest, SignatureScheme::Null, ticket)
        });
        signed.expect("the TPM signs");
    };
    (0..WARM_UP).for_each(|_| sign(&mut context));
    let (begun, mut times) = (Instant::now(), Vec::new());
    while begun.elapsed() < job.duration {
        let before = Instant::now();
        sign(&mut context);
        times.push(before.elapsed());
    }
    let rate = times.len() as f64 / begun.elapsed().as_secs_f64();
    let times = Times::new(times);
    Floor {
        p50_us: times.percentile_us(50.0),
        p99_us: times.percentile_us(99.0),
        rate,
    }
}

fn primary(context: &mut Context, public: Public, auth: Option<Auth>) -> KeyHandle {
    let made = context.execute_with_session(Some(AuthSession::Password), |c| {
        c.create_primary(Hierarchy::Owner, public, auth, None, None, None)
    });
    made.expect("the owner's auth value is empty").key_handle
}

/// As keystore-tpm makes them.
fn signing_key() -> Public {
    let attributes = ObjectAttributesBuilder::new()
        .with_fixed_tpm(true)
        .with_fixed_parent(true)
        .with_sensitive_data_origin(true)
        .with_user_with_auth(true)
        .with_no_da(true)
        .with_sign_encrypt(true)
        .build()
        .expect("they go together");
    let scheme = EccScheme::EcDsa(HashScheme::new(HashingAlgorithm::Sha256));
    let curve = EccCurve::NistP256;
    let parameters = PublicEccParametersBuilder::new_unrestricted_signing_key(scheme, curve)
        .build()
        .expect("they go together");
    with_both(attributes, parameters)
}

/// A storage key, which the session is salted with.
fn storage_key() -> Public {
    let attributes = ObjectAttributesBuilder::new()
        .with_fixed_tpm(true)
        .with_fixed_parent(true)
        .with_sensitive_data_origin(true)
        .with_user_with_auth(true)
        .with_no_da(true)
        .with_restricted(true)
        .with_decrypt(true)
        .build()
        .expect("they go together");
    let (symmetric, curve) = (SymmetricDefinitionObject::AES_128_CFB, EccCurve::NistP256);
    let parameters = PublicEccParametersBuilder::new_restricted_decryption_key(symmetric, curve)
        .build()
        .expect("they go together");
    with_both(attributes, parameters)
}

fn with_both(attributes: ObjectAttributes, parameters: PublicEccParameters) -> Public {
    PublicBuilder::new()
        .with_public_algorithm(PublicAlgorithm::Ecc)
        .with_name_hashing_algorithm(HashingAlgorithm::Sha256)
        .with_object_attributes(attributes)
        .with_ecc_parameters(parameters)
        .with_ecc_unique_identifier(EccPoint::default())
        .build()
        .expect("they go together")
}

fn encrypted_session(context: &mut Context) -> AuthSession {
    let salt = primary(context, storage_key(), None);
    let session = context
        .start_auth_session(
            Some(salt),
            None,
            None,
            SessionType::Hmac,
            SymmetricDefinition::AES_128_CFB,
            HashingAlgorithm::Sha256,
        )
        .expect("the TPM starts a session")
        .expect("it has a handle");
    let (attributes, mask) = SessionAttributesBuilder::new()
        .with_continue_session(true)
        .with_decrypt(true)
        .with_encrypt(true)
        .build();
    context
        .tr_sess_set_attributes(session, attributes, mask)
        .expect("a session has attributes");
    session
}
