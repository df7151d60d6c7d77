//! What evidence of fifty keys of a TPM costs: its verifier, which wants to know, and the workloads of the
//! host meanwhile, which want signatures.
//!
//! The bundle that is verified is a real one: made by swtpm with its maker's certificate, with a quote over
//! PCRs that were extended as an event log says, and that log. Nothing of it may fail, or the time says nothing.

#[path = "../../keystore/tests/evidence/logs.rs"]
#[allow(dead_code, reason = "the verifier's tests use more of it")]
mod logs;

use crate::load::{self, Next, Times};
use crate::site::NO_LIMIT;
use crate::summary::{Summary, median};
use crate::tpm_raw;
use crate::window::WINDOW;
use harness::programs::Programs;
use harness::swtpm::Authority;
use harness::{Config, Daemon, Tpm, public_dir};
use keystore::config::Sessions;
use keystore::evidence::bundle::{Bank, Bundle, Bytes, to_hex};
use keystore::evidence::enrolment::registry::EkFingerprint;
use keystore::evidence::enrolment::{File, Request};
use keystore::evidence::hash::Hash;
use keystore::evidence::public::PublicArea;
use serde_json::Value;
use std::process::{Command, Output};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Keys, one of each target.
const KEYS: usize = 50;

/// Events of the firmware beside those that tests need: so many and so long are a laptop's.
const EVENTS: usize = 100;
const EVENT_LEN: usize = 400;

/// Runs of the verifier.
const RUNS: usize = 25;

/// Connections that ask without pause: so that the TPM has nothing to do now and then, and never. And turns
/// of the floor, of evidence and of undisturbed workloads, so that a neighbour who comes or goes decides
/// nothing; with eight a bundle takes a minute.
const CONNECTIONS_AND_ROUNDS: [(usize, usize); 2] = [(1, 7), (8, 3)];

const TARGET: &str = "bank";
const NONCE: &str = "0707070707070707070707070707070707070707070707070707070707070707";

const POLICY: &str = "\
minimum = \"tpm-certified\"
registry = \"registry.json\"
[ek]
roots = [\"root.pem\", \"issuer.pem\"]
[quote]
select = { sha256 = [0, 1, 2, 3, 4, 5, 6, 7] }
[event_log]
required = true
secure_boot = true
";

/// Measures both.
pub fn report(summary: &mut Summary) {
    let place = Place::new();
    place.enrol();
    verifier(&place, summary);
    for (connections, rounds) in CONNECTIONS_AND_ROUNDS {
        workloads(&place, connections, rounds, summary);
    }
}

/// A host with fifty keys in its TPM, and the desk of somebody who is asked to trust them.
struct Place {
    /// Before its TPM.
    daemon: Daemon,
    /// Of the same make, for the floor: an emulator has three places, and the keystore has those.
    alone: Tpm,
    _tpm: Tpm,
    log: Vec<u8>,
    programs: Programs,
    desk: TempDir,
}

impl Place {
    fn new() -> Place {
        let (tmp, desk) = (public_dir(), public_dir());
        let maker = Authority::new(tmp.path());
        let tpm = Tpm::with_certificates(&maker);
        let at = |name: &str| desk.path().join(name);
        std::fs::copy(maker.root(), at("root.pem")).expect("it was made with the TPM");
        std::fs::copy(maker.issuer(), at("issuer.pem")).expect("it was made with the TPM");
        std::fs::write(at("policy.toml"), POLICY).expect("the directory is ours");
        let log = booted(&tpm);
        let uid = nix::unistd::geteuid().as_raw();
        let config = Config::default()
            .keystore("tpm", &tpm, "sessions = \"password\"\n")
            .with("[attest]\nhost = \"web-1\"\nbank = \"sha256\"")
            .workload("bench", uid, NO_LIMIT)
            .target("bench", TARGET, "");
        let others = (1..KEYS).map(|number| format!("other-{number}"));
        let config = others.fold(config, |config, name| config.target("bench", &name, ""));
        Place {
            daemon: Daemon::with_keys(config),
            alone: Tpm::new(),
            _tpm: tpm,
            log,
            programs: Programs::installed(),
            desk,
        }
    }

    /// On the host.
    fn host(&self, arguments: &[&str]) {
        done(&self.daemon.assertctl(arguments));
    }

    /// Anywhere else.
    fn party(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(self.programs.assertctl());
        command.args(arguments).current_dir(self.desk.path());
        command.env_clear().output().expect("it can be started")
    }

    fn at(&self, name: &str) -> String {
        self.desk.path().join(name).display().to_string()
    }

    fn enrol(&self) {
        let [request, challenge, response] =
            ["request", "challenge", "response"].map(|name| self.at(&format!("web-1.{name}.json")));
        self.host(&["enroll", "request", "-o", &request]);
        let bytes = std::fs::read(&request).expect("it was written");
        let asked = Request::parse(&bytes).expect("it is a request");
        let ek = PublicArea::parse(asked.tpm.ek.public.as_slice()).expect("it is a public area");
        let ek = EkFingerprint::of(&ek).expect("it is a key");
        std::fs::write(self.at("approved"), format!("{ek} web-1\n")).expect("it is ours");
        let policy = ["--policy", "policy.toml"];
        let enroll = ["enroll", "challenge", &request, "--approved", "approved"];
        done(&self.party(&[&enroll[..], &policy].concat()));
        self.host(&["enroll", "respond", &challenge, "-o", &response]);
        done(&self.party(&[&["enroll", "finish", &response][..], &policy].concat()));
    }

    /// Evidence of all keys; how long it took.
    fn attest(&self) -> (Instant, Instant) {
        let file = self.at("evidence.json");
        let begun = Instant::now();
        self.host(&["attest", "--nonce", NONCE, "--all", "-o", &file]);
        (begun, Instant::now())
    }
}

fn done(output: &Output) {
    let said = String::from_utf8_lossy(&output.stderr);
    let shown = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}: {said}{shown}", output.status);
}

/// Boots as a firmware does: extends the PCRs, and returns the log.
fn booted(tpm: &Tpm) -> Vec<u8> {
    const FIRMWARE_BLOB: u32 = 0x8000_0008;
    let blob = |number: usize| {
        (
            (number % 7) as u32,
            FIRMWARE_BLOB,
            vec![number as u8; EVENT_LEN],
        )
    };
    let mut events = vec![(0, 8, b"version".to_vec())];
    events.extend((0..EVENTS).map(blob));
    events.push((7, 0x8000_0001, logs::variable(1)));
    events.extend((0..8).map(|pcr| (pcr, 4, vec![0; 4])));
    events.push((4, 0x8000_0003, b"kernel".to_vec()));
    let digest = |data: &[u8]| to_hex(&Hash::Sha256.of(&[data]));
    let extend = |(pcr, _, data): &(u32, u32, Vec<u8>)| format!("{pcr}:sha256={}", digest(data));
    let extended = Command::new("tpm2_pcrextend")
        .args(events.iter().map(extend))
        .env("TPM2TOOLS_TCTI", tpm.tcti())
        .output()
        .expect("tpm2-tools are installed by `make setup`");
    done(&extended);
    let event = |(pcr, kind, data): &(u32, u32, Vec<u8>)| logs::event(*pcr, *kind, data);
    [vec![logs::begun()], events.iter().map(event).collect()]
        .concat()
        .concat()
}

/// `assertctl verify` as a whole: its start, the files, and every check.
fn verifier(place: &Place, summary: &mut Summary) {
    eprintln!("the verifier, {KEYS} keys");
    place.attest();
    let file = place.at("evidence.json");
    let mut bundle =
        Bundle::parse(&std::fs::read(&file).expect("it was written")).expect("it is one");
    bundle.event_log = Bytes::new(place.log.clone()); // as from the host's own kernel
    let json = bundle.to_json();
    std::fs::write(&file, &json).expect("it is ours");
    let arguments = [
        "verify",
        "evidence.json",
        "--nonce",
        NONCE,
        "--policy",
        "policy.toml",
        "--json",
    ];
    let run = |_| {
        let begun = Instant::now();
        let output = place.party(&arguments);
        let took = begun.elapsed();
        done(&output);
        check(&output.stdout);
        took.as_secs_f64() * 1e3
    };
    run(0); // its pages come from disk once
    let took = median((0..RUNS).map(run).collect());
    summary.push(&format!("verify_ms_{KEYS}_keys"), took, "ms");
    let kib = json.len() as f64 / 1024.0;
    summary.push(&format!("evidence_kib_{KEYS}_keys"), kib, "KiB");
}

/// Whether all of it was verified.
fn check(report: &[u8]) {
    let report: Value = serde_json::from_slice(report).expect("--json is JSON");
    let keys = report["keys"].as_array().expect("it lists keys");
    assert_eq!(keys.len(), KEYS);
    assert!(keys.iter().all(|key| key["level"] == "tpm-certified"));
    let verdicts = report["verdicts"].as_array().expect("it lists verdicts");
    for check in ["ek-certificate", "quote-values", "event-log", "event-rules"] {
        let passed = |it: &&Value| it["check"] == check && it["outcome"] == "passed";
        assert!(verdicts.iter().any(|it| passed(&it)), "{check}: {report:#}");
    }
}

/// What one round has shown, in microseconds.
#[derive(Debug)]
struct Round {
    raw_us: f64,
    /// 50th and 99th percentile, without and with evidence being made.
    beside: [f64; 2],
    during: [f64; 2],
    took: Duration,
}

/// What workloads wait for while evidence is made, in times of what the TPM takes for a signature alone.
fn workloads(place: &Place, connections: usize, rounds: usize, summary: &mut Summary) {
    let rounds: Vec<Round> = (1..=rounds)
        .map(|number| {
            eprintln!("evidence beside {connections} connections, round {number} of {rounds}");
            let round = round(place, connections);
            eprintln!("{round:?}");
            round
        })
        .collect();
    let mut push = |name: &str, unit, of: &dyn Fn(&Round) -> f64| {
        let name = match connections {
            1 => name.to_owned(),
            _ => format!("{name}_c{connections}"),
        };
        summary.push(&name, median(rounds.iter().map(of).collect()), unit);
    };
    push("attest_raw_p50_us", "us", &|round| round.raw_us);
    push("attest_p99_us_before", "us", &|round| round.beside[1]);
    push("attest_p99_us", "us", &|round| round.during[1]);
    push(&format!("attest_ms_{KEYS}_keys"), "ms", &|round| {
        round.took.as_secs_f64() * 1e3
    });
    for (index, percentile) in ["p50", "p99"].into_iter().enumerate() {
        push(
            &format!("attest_{percentile}_added_signatures"),
            "",
            &|round| (round.during[index] - round.beside[index]) / round.raw_us,
        );
    }
}

/// Ends the asking, also of one that fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

fn round(place: &Place, connections: usize) -> Round {
    let raw = tpm_raw::raw(&place.alone.tcti(), Sessions::Password, WINDOW);
    let (stop, answers) = (AtomicBool::new(false), Mutex::new(Vec::new()));
    let socket = place.daemon.socket();
    let ask = || {
        load::ask(&socket, connections, &load::request(TARGET), |answer| {
            let body = String::from_utf8_lossy(answer.body);
            assert_eq!(answer.status, 200, "{body}");
            let mut answers = answers.lock().expect("nobody panics with it");
            answers.push((answer.asked, answer.answered));
            match stop.load(Ordering::SeqCst) {
                true => Next::Stop,
                false => Next::Ask,
            }
        })
        .expect("every request is answered");
    };
    // What it takes is not known before, so that the undisturbed part is behind it.
    let (begun, ended) = std::thread::scope(|scope| {
        scope.spawn(ask);
        let _stop = Stop(&stop);
        std::thread::sleep(WINDOW); // caches, lanes that rested
        let (begun, ended) = place.attest();
        std::thread::sleep(ended - begun);
        (begun, ended)
    });
    let (mut during, mut beside) = (Vec::new(), Vec::new());
    for (asked, answered) in answers.into_inner().expect("nobody panicked with it") {
        match asked < ended && answered > begun {
            true => during.push(answered - asked),
            false if asked >= ended => beside.push(answered - asked),
            false => {} // it warmed up
        }
    }
    let percentiles = |times: Vec<Duration>| {
        let times = Times::new(times);
        [50.0, 99.0].map(|percent| times.percentile_us(percent))
    };
    Round {
        raw_us: raw.p50_us,
        beside: percentiles(beside),
        during: percentiles(during),
        took: ended - begun,
    }
}
