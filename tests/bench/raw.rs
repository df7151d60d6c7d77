//! The floor: C_Sign in a loop, nothing around it. P-256, CKM_ECDSA over a 32-byte digest, through
//! the same binding as the keystore (three module calls a signature).
//!
//! The module reads its environment when it is initialised, so the loop runs in a process of its
//! own: [`raw`] starts this program again, and `main` has to begin with
//! `if let Some(code) = raw::child() { return code; }`.

use crate::load::Times;
use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::mechanism::Mechanism;
use cryptoki::object::{Attribute, ObjectClass};
use cryptoki::session::{Session, UserType};
use cryptoki::types::AuthPin;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

/// Tells a process that it is the child, and what to measure.
const JOB: &str = "ASSERTD_BENCH_RAW";

/// Signatures before the measurement begins, per session.
const WARM_UP: usize = 200;

/// The token, as the module is told of it.
#[derive(Clone, Serialize, Deserialize)]
pub struct Token {
    pub module: PathBuf,
    pub environment: Vec<(String, PathBuf)>,
    pub label: String,
    pub pin: String,
}

#[derive(Serialize, Deserialize)]
struct Job {
    token: Token,
    key_id: Vec<u8>,
    sessions: usize,
    duration: Duration,
}

/// What the token gives when nobody is in between.
#[derive(Serialize, Deserialize)]
pub struct Floor {
    /// Median time of one signature in microseconds.
    pub p50_us: f64,
    /// The time that 99 of 100 signatures do not exceed, in microseconds.
    pub p99_us: f64,
    /// Signatures per second, of all sessions together.
    pub rate: f64,
}

/// Signs in a loop for `duration`. `key_id` is the CKA_ID of a P-256 key in the token.
///
/// # Panics
/// If the loop cannot be run: a benchmark without its floor says nothing.
pub fn raw(token: &Token, key_id: &[u8], sessions: usize, duration: Duration) -> Floor {
    let job = Job {
        token: token.clone(),
        key_id: key_id.to_vec(),
        sessions,
        duration,
    };
    let output = Command::new(std::env::current_exe().expect("a process has a program"))
        .env(JOB, serde_json::to_string(&job).expect("plain data"))
        .envs(token.environment.iter().map(|(name, value)| (name, value)))
        .output()
        .expect("this program can be started");
    let shown = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "raw C_Sign: {}: {shown}",
        output.status
    );
    serde_json::from_slice(&output.stdout).expect("the child prints the floor")
}

/// Measures and prints, if this process was started by [`raw`].
pub fn child() -> Option<ExitCode> {
    let job: Job = serde_json::from_str(&std::env::var(JOB).ok()?).expect("raw wrote the job");
    println!(
        "{}",
        serde_json::to_string(&measure(&job)).expect("three numbers")
    );
    Some(ExitCode::SUCCESS)
}

fn measure(job: &Job) -> Floor {
    let context = Pkcs11::new(&job.token.module).expect("the module loads");
    let flags = CInitializeFlags::OS_LOCKING_OK;
    context
        .initialize(CInitializeArgs::new(flags))
        .expect("the module starts");
    let slots = context.get_slots_with_token().expect("it lists its slots");
    let is_ours = |slot| {
        context
            .get_token_info(slot)
            .is_ok_and(|info| info.label() == job.token.label)
    };
    let slot = slots
        .into_iter()
        .find(|slot| is_ours(*slot))
        .expect("the token is there");
    let login = context.open_ro_session(slot).expect("a session opens");
    login
        .login(
            UserType::User,
            Some(&AuthPin::new(job.token.pin.clone().into())),
        )
        .expect("the PIN is right");

    let sessions: Vec<Session> = (0..job.sessions)
        .map(|_| context.open_ro_session(slot).expect("a session opens"))
        .collect();
    let ready = std::sync::Barrier::new(job.sessions);
    let times: Vec<Vec<Duration>> = std::thread::scope(|scope| {
        let threads: Vec<_> = sessions
            .into_iter()
            .map(|session| {
                let ready = &ready;
                scope.spawn(move || sign_for(&session, &job.key_id, job.duration, ready))
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().expect("no panic"))
            .collect()
    });
    let times = Times::new(times.concat());
    Floor {
        p50_us: times.percentile_us(50.0),
        p99_us: times.percentile_us(99.0),
        rate: times.count() as f64 / job.duration.as_secs_f64(),
    }
}

fn sign_for(
    session: &Session,
    key_id: &[u8],
    duration: Duration,
    ready: &std::sync::Barrier,
) -> Vec<Duration> {
    let template = [
        Attribute::Class(ObjectClass::PRIVATE_KEY),
        Attribute::Id(key_id.to_vec()),
    ];
    let key = session.find_objects(&template).expect("the token searches")[0];
    let sign = |digest: &[u8; 32]| {
        let signature = session
            .sign(&Mechanism::Ecdsa, key, digest)
            .expect("the token signs");
        assert_eq!(signature.len(), 64);
    };
    for _ in 0..WARM_UP {
        sign(&[7; 32]);
    }
    ready.wait();
    let (started, mut times) = (Instant::now(), Vec::new());
    loop {
        let before = Instant::now();
        if before - started >= duration {
            return times;
        }
        sign(&[7; 32]);
        times.push(before.elapsed());
    }
}
