//! `make bench`: what an assertion costs, beside what it cannot cost less than. Everything is
//! measured in one run and in turns, so that a noisy neighbour hits the floors and us alike.
//! Prints a table and writes `target/bench/summary.json`; docs/performance.md explains the names.
//!
//! It must never report a time of an answer that was not right: every answer is 200, and a sample
//! of the assertions is verified.

mod echo;
mod floors;
mod load;
mod process;
mod raw;
mod site;
mod summary;

use floors::Flushes;
use load::{Next, Times};
use site::Site;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};
use summary::Summary;

/// Turns of all measurements.
const ROUNDS: usize = 3;

/// One measurement in one round; three rounds make the 3 s a figure needs here to be steady.
const WINDOW: Duration = Duration::from_secs(1);

/// Before each measurement: caches, the processor's clock, lanes that rested.
const WARM_UP: Duration = Duration::from_millis(500);

/// Connections at a time.
const LEVELS: [usize; 3] = [1, 8, 64];

/// Of so many assertions one is kept and verified.
const SAMPLE: usize = 500;

/// What the rounds have measured.
#[derive(Default)]
struct Figures {
    raw: [Vec<raw::Floor>; 2],
    flushes: Vec<Duration>,
    /// On one connection and on 64.
    echo: [Vec<Run>; 2],
    assertions: [Vec<Run>; LEVELS.len()],
}

/// One window of requests.
struct Run {
    times: Vec<Duration>,
    elapsed: Duration,
    cpu: Cpu,
    samples: Vec<String>,
}

/// Processor time in one window.
#[derive(Clone, Copy, Default)]
struct Cpu {
    broker: Duration,
    keystore: Duration,
    client: Duration,
    machine: Duration,
}

fn main() -> ExitCode {
    if let Some(code) = raw::child().or_else(echo::child) {
        return code;
    }
    let site = Site::start();
    let mut summary = Summary::default();
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
    floors_of(&figures, &mut summary);
    assertions_of(&figures, &mut summary);
    verifier_of(&site, &figures, &mut summary);
    summary.push("rss_broker_mib", process::rss_mib(site.broker_pid()), "MiB");
    summary.push(
        "rss_keystore_mib",
        process::rss_mib(site.keystore_pid()),
        "MiB",
    );
    ratios_of(&mut summary);
    summary.push("load_average_1m", process::load_average(), "");

    print!("{summary}");
    summary.write(Path::new("target/bench/summary.json"));
    ExitCode::SUCCESS
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
            let cpu = || Cpu {
                broker: process::cpu(site.broker_pid()),
                keystore: process::cpu(site.keystore_pid()),
                client: process::own_thread_cpu(),
                machine: process::machine_cpu(),
            };
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

/// Warms up, then counts whole requests of one window.
fn run(socket: &Path, connections: usize, request: &[u8], cpu: impl Fn() -> Cpu) -> Run {
    let (begin, mut before) = (Instant::now() + WARM_UP, None);
    let (mut times, mut samples) = (Vec::with_capacity(200_000), Vec::new());
    let (mut last, mut after) = (begin, Cpu::default());
    load::ask(socket, connections, request, |answer| {
        assert_eq!(
            answer.status,
            200,
            "{}",
            String::from_utf8_lossy(answer.body)
        );
        if last >= begin + WINDOW {
            return Next::Stop; // the others' answers, when the window is over
        }
        if answer.answered < begin {
            return Next::Ask;
        }
        before.get_or_insert_with(&cpu);
        last = answer.answered;
        times.push(answer.answered - answer.asked);
        if times.len().is_multiple_of(SAMPLE) {
            samples.push(String::from_utf8_lossy(answer.body).into_owned());
        }
        if last >= begin + WINDOW {
            after = cpu();
            return Next::Stop;
        }
        Next::Ask
    })
    .expect("every connection is answered");
    let before = before.expect("a request takes less than a window");
    Run {
        times,
        elapsed: last - begin,
        cpu: Cpu {
            broker: after.broker - before.broker,
            keystore: after.keystore - before.keystore,
            client: after.client - before.client,
            machine: after.machine.saturating_sub(before.machine),
        },
        samples,
    }
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
    let (times, elapsed, _) = together(many);
    let rate = times.count() as f64 / elapsed.as_secs_f64();
    summary.push("echo_rate_c64", rate, "1/s");
}

fn assertions_of(figures: &Figures, summary: &mut Summary) {
    let (mut all, mut requests) = (Cpu::default(), 0);
    for (connections, runs) in LEVELS.into_iter().zip(&figures.assertions) {
        let (times, elapsed, cpu) = together(runs);
        let rate = times.count() as f64 / elapsed.as_secs_f64();
        summary.push(&format!("assertion_rate_c{connections}"), rate, "1/s");
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

fn together(runs: &[Run]) -> (Times, Duration, Cpu) {
    let times = runs.iter().flat_map(|run| run.times.iter().copied());
    let elapsed = runs.iter().map(|run| run.elapsed).sum();
    let cpu = runs
        .iter()
        .fold(Cpu::default(), |sum, run| sum.plus(run.cpu));
    (Times::new(times.collect()), elapsed, cpu)
}

impl Cpu {
    fn plus(self, other: Cpu) -> Cpu {
        Cpu {
            broker: self.broker + other.broker,
            keystore: self.keystore + other.keystore,
            client: self.client + other.client,
            machine: self.machine + other.machine,
        }
    }

    /// What others took of all processors, who are none of our business and slow us down.
    fn neighbours_percent(self, elapsed: Duration) -> f64 {
        let others = self
            .machine
            .saturating_sub(self.broker + self.keystore + self.client);
        let processors = std::thread::available_parallelism().map_or(1, |count| count.get());
        100.0 * others.as_secs_f64() / (elapsed.as_secs_f64() * processors as f64)
    }

    fn report(self, suffix: &str, requests: usize, summary: &mut Summary) {
        for (who, time) in [
            ("broker", self.broker),
            ("keystore", self.keystore),
            ("client", self.client),
        ] {
            let each = time.as_secs_f64() * 1e6 / requests as f64;
            summary.push(&format!("cpu_us_per_request_{who}{suffix}"), each, "us");
        }
    }
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
