//! `make bench`: what an assertion costs, beside what it cannot cost less than. Everything is
//! measured in one run and in turns, so that a noisy neighbour hits the floors and us alike.
//! Both kinds of keystores are measured, whatever KEYSTORE says. Prints a table and writes
//! `target/bench/summary.json`; docs/performance.md explains the names.
//!
//! It must never report a time of an answer that was not right: every answer is 200, and a sample
//! of the assertions is verified.

mod echo;
mod evidence;
mod fair;
mod floors;
mod load;
mod many;
mod process;
mod raw;
mod reuse;
mod several;
mod site;
mod slow;
mod summary;
mod tpm;
mod tpm_raw;
mod window;

use floors::Flushes;
use load::{Next, Times};
use site::Site;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;
use summary::Summary;
use window::{Cpu, Run, WINDOW, rate, run, together};

/// What can be asked for alone, by words on the command line.
const PARTS: [&str; 8] = [
    "token", "tpm", "evidence", "several", "many", "reuse", "slow", "fair",
];

/// Turns of all measurements.
const ROUNDS: usize = 3;

/// Connections at a time.
const LEVELS: [usize; 3] = [1, 8, 64];

/// What the rounds have measured.
#[derive(Default)]
struct Figures {
    raw: [Vec<raw::Floor>; 2],
    flushes: Vec<Duration>,
    /// On one connection and on 64.
    echo: [Vec<Run>; 2],
    assertions: [Vec<Run>; LEVELS.len()],
}

fn main() -> ExitCode {
    if let Some(code) = raw::child().or_else(tpm_raw::child).or_else(echo::child) {
        return code;
    }
    let parts: Vec<String> = std::env::args().skip(1).collect();
    let known = parts.iter().all(|part| PARTS.contains(&part.as_str()));
    assert!(
        known,
        "{parts:?}: there are {PARTS:?}, and all of them without a word"
    );
    let wanted = |part: &str| parts.is_empty() || parts.iter().any(|wanted| wanted == part);
    if wanted("many") || wanted("fair") {
        harness::user::need_root(); // told now, not when the others have taken their minutes
    }
    let mut summary = Summary::default();
    if wanted("token") {
        token(&mut summary);
    }
    if wanted("tpm") {
        tpm::report(&mut summary);
    }
    if wanted("evidence") {
        evidence::report(&mut summary);
    }
    if wanted("several") {
        several::report(&mut summary);
    }
    if wanted("many") {
        many::report(&mut summary);
    }
    if wanted("reuse") {
        reuse::report(&mut summary);
    }
    if wanted("slow") {
        slow::report(&mut summary);
    }
    if wanted("fair") {
        fair::report(&mut summary);
    }
    summary.push("load_average_1m", process::load_average(), "");

    print!("{summary}");
    summary.write(Path::new("target/bench/summary.json"));
    ExitCode::SUCCESS
}

/// Assertions by a SoftHSM token, and their floors.
fn token(summary: &mut Summary) {
    let site = Site::start();
    summary.push(
        "rss_broker_idle_mib",
        process::rss_mib(site.broker_pid()),
        "MiB",
    );
    summary.push(
        "rss_keystore_idle_mib",
        process::rss_mib(site.keystore_pid()),
        "MiB",
    );

    let figures = measure(&site);
    floors_of(&figures, summary);
    assertions_of(&figures, summary);
    verifier_of(&site, &figures, summary);
    summary.push("rss_broker_mib", process::rss_mib(site.broker_pid()), "MiB");
    summary.push(
        "rss_keystore_mib",
        process::rss_mib(site.keystore_pid()),
        "MiB",
    );
    ratios_of(summary);
}

fn measure(site: &Site) -> Figures {
    let request = load::request(site.target());
    let answer_len = one_answer_len(site, &request);
    let echo = echo::Echo::start(&site.dir(), answer_len);
    let mut flushes = Flushes::prepare(&site.audit_dir());
    let mut figures = Figures::default();
    for round in 1..=ROUNDS {
        eprintln!("round {round} of {ROUNDS}");
        for (sessions, floors) in (1..).zip(&mut figures.raw) {
            floors.push(site.raw(sessions, WINDOW));
        }
        figures.flushes.extend(flushes.run(WINDOW));
        for (connections, runs) in [1, 64].into_iter().zip(&mut figures.echo) {
            runs.push(run(&echo.socket, connections, &request, Cpu::default));
        }
        for (connections, runs) in LEVELS.into_iter().zip(&mut figures.assertions) {
            let cpu = || Cpu::so_far(site.broker_pid(), site.keystore_pid());
            runs.push(run(site.socket(), connections, &request, cpu));
        }
    }
    figures
}

fn one_answer_len(site: &Site, request: &[u8]) -> usize {
    let mut length = 0;
    load::ask(site.socket(), 1, request, |answer| {
        length = answer.body.len();
        Next::Stop
    })
    .expect("assertd answers");
    length
}

fn floors_of(figures: &Figures, summary: &mut Summary) {
    for (sessions, floors) in (1..).zip(&figures.raw) {
        let median = |of: fn(&raw::Floor) -> f64| summary::median(floors.iter().map(of).collect());
        if sessions == 1 {
            summary.push("raw_p50_us", median(|floor| floor.p50_us), "us");
            summary.push("raw_p99_us", median(|floor| floor.p99_us), "us");
        }
        summary.push(
            &format!("raw_rate_s{sessions}"),
            median(|floor| floor.rate),
            "1/s",
        );
    }
    let flushes = Times::new(figures.flushes.clone());
    summary.push("fdatasync_p50_us", flushes.percentile_us(50.0), "us");
    summary.push("fdatasync_p99_us", flushes.percentile_us(99.0), "us");
    let [alone, many] = &figures.echo;
    let (times, _, _) = together(alone);
    summary.push("echo_p50_us_c1", times.percentile_us(50.0), "us");
    summary.push("echo_rate_c64", rate(many), "1/s");
}

fn assertions_of(figures: &Figures, summary: &mut Summary) {
    let (mut all, mut requests) = (Cpu::default(), 0);
    for (connections, runs) in LEVELS.into_iter().zip(&figures.assertions) {
        let (times, elapsed, cpu) = together(runs);
        let name = format!("assertion_rate_c{connections}");
        summary.push(&name, rate(runs), "1/s");
        for percent in [50, 99] {
            let name = format!("assertion_p{percent}_us_c{connections}");
            summary.push(&name, times.percentile_us(f64::from(percent)), "us");
        }
        cpu.report(&format!("_c{connections}"), times.count(), summary);
        let name = format!("cpu_neighbours_percent_c{connections}");
        summary.push(&name, cpu.neighbours_percent(elapsed), "%");
        all = all.plus(cpu);
        requests += times.count();
    }
    all.report("", requests, summary);
}

/// Checks the sample, and what one check costs: the broker makes it for every assertion.
fn verifier_of(site: &Site, figures: &Figures, summary: &mut Summary) {
    use p256::ecdsa::signature::Verifier as _;
    let verifier = site.verifier();
    let assertions: Vec<String> = figures
        .assertions
        .iter()
        .flatten()
        .flat_map(|run| &run.samples)
        .map(|body| {
            let answer: assertd_client::api::AssertionResponse =
                serde_json::from_str(body).expect("a 200 holds an assertion");
            answer.assertion
        })
        .collect();
    for assertion in &assertions {
        assert!(floors::verifies(&verifier, assertion), "{assertion}");
    }
    let one = assertions.first().expect("more than SAMPLE were minted");
    let (message, signature) = floors::parts(one);
    let ours = floors::verify_us(|| verifier.verify(message, &signature).is_ok(), WINDOW);
    summary.push("verify_p50_us", ours, "us");

    let key = p256::ecdsa::VerifyingKey::from_sec1_bytes(&site.public_point()).expect("a point");
    let parsed = p256::ecdsa::Signature::from_slice(&signature).expect("64 bytes");
    let pure_rust = floors::verify_us(|| key.verify(message, &parsed).is_ok(), WINDOW);
    summary.push("verify_p256_crate_p50_us", pure_rust, "us");
    summary.push("assertions_verified", assertions.len() as f64, "");
}

/// What the aims are about.
fn ratios_of(summary: &mut Summary) {
    for connections in [1, 8, 64] {
        let ratio =
            summary.value(&format!("assertion_rate_c{connections}")) / summary.value("raw_rate_s1");
        summary.push(&format!("ratio_c{connections}_to_raw_s1"), ratio, "");
    }
    let above = summary.value("assertion_p50_us_c1")
        - summary.value("raw_p50_us")
        - summary.value("fdatasync_p50_us");
    summary.push("assertion_p50_us_c1_above_floor", above, "us");
}
