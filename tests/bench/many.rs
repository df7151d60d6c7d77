//! What ten thousand workloads of one issuer cost: assertd with 10,000 sections beside one with ten and
//! one with none, each with a SoftHSM token of its own, in turns. How late READY comes, what memory
//! it takes, what a request and the decision in it take, and what a reload does to requests.
//!
//! Needs root: the callers of the decisions are other users.

mod decisions;
mod sections;

use crate::load::{self, Next, Times};
use crate::process;
use crate::summary::{Summary, median};
use crate::window::{Cpu, Run, run, together};
use decisions::{Decisions, FEW, Round};
use harness::cgroup::Slice;
use harness::daemon::Site;
use harness::manager::Ear;
use harness::process::Process;
use harness::token::KEYSTORE;
use harness::{Config, DEADLINE, Daemon, SoftHsm, wait_for};
use sections::{Sections, TARGET};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Workloads of the three, and what figures are called by.
const SIZES: [(usize, &str); 3] = [(0, "none"), (10, "10"), (10_000, "10k")];

/// Starts of each that are timed, in turns.
const STARTS: usize = 9;

/// Turns of the decisions and of the requests.
const ROUNDS: usize = 8;

/// Reloads that are timed.
const RELOADS: usize = 5;

/// Runs of assertctl that are timed.
const RUNS: usize = 3;

/// An assertd with so many workloads.
struct Place {
    name: &'static str,
    sections: Sections,
    daemon: Daemon,
    _token: SoftHsm,
}

/// Measures all of it.
pub fn report(summary: &mut Summary) {
    let slice = Slice::new();
    let places = SIZES.map(|(count, name)| Place::start(count, name, slice.path()));
    eprintln!("many workloads: ready");
    let [none, mut ten, mut many] = ready(places, summary);
    drop(none);
    memory("_ready", &ten, &many, summary);
    eprintln!("many workloads: requests");
    requests(&ten, &many, summary);
    memory("", &ten, &many, summary);
    eprintln!("many workloads: reload");
    reloads(&many, summary);
    eprintln!("many workloads: assertctl");
    assertctl(&many, summary);
    memory("_reloaded", &ten, &many, summary); // by now the old one's memory has been given back
    for place in [&mut ten, &mut many] {
        assert_eq!(place.daemon.stop(), Some(0), "{}", place.daemon.stderr());
    }
    eprintln!("many workloads: decisions");
    decisions(&ten, &many, &slice, summary);
}

impl Place {
    /// Writes the configuration, starts assertd and has the issuer's key made.
    fn start(count: usize, name: &'static str, slice: &str) -> Place {
        let (token, sections) = (SoftHsm::new(), Sections::new(count, slice));
        let config = Config::new(&token).with(&sections.main(KEYSTORE));
        let site = Site::new(config.text());
        let conf_d = site.config().with_file_name("conf.d");
        std::fs::create_dir(&conf_d).expect("the directory is ours");
        for (file, text) in sections.drop_ins() {
            std::fs::write(conf_d.join(file), text).expect("the directory is ours");
        }
        let daemon = Daemon::start_at(site);
        daemon.apply();
        Place {
            name,
            sections,
            daemon,
            _token: token,
        }
    }

    fn config(&self) -> std::path::PathBuf {
        self.daemon.site().config()
    }

    /// Starts it anew; the time to READY=1, as a service manager sees it, and the processor's time.
    fn start_again(mut self) -> (Place, [f64; 2]) {
        let stderr = self.daemon.stderr();
        assert_eq!(self.daemon.stop(), Some(0), "{stderr}");
        let (site, ear) = (self.daemon.into_site(), Ear::new());
        let mut command = site.command();
        command.env("NOTIFY_SOCKET", ear.path());
        let begun = Instant::now();
        let started = Process::start(&mut command);
        let is_ready = |said: &String| said.lines().any(|line| line == "READY=1");
        let ready = wait_for(DEADLINE, || ear.hear(DEADLINE).filter(is_ready));
        let (took, cpu) = (begun.elapsed(), process::cpu(started.pid()));
        assert!(ready.is_some(), "{}", started.stderr());
        self.daemon = Daemon::ready(started, site);
        (self, [took, cpu].map(|time| time.as_secs_f64() * 1e3))
    }
}

/// Starts all in turns; what comes back runs without a service manager.
fn ready(mut places: [Place; 3], summary: &mut Summary) -> [Place; 3] {
    let mut times: [Vec<[f64; 2]>; 3] = Default::default();
    for _ in 0..STARTS {
        places = places.map(|place| {
            let number = SIZES.iter().position(|(_, name)| *name == place.name);
            let (place, took) = place.start_again();
            times[number.expect("it is one of them")].push(took);
            place
        });
    }
    let [none, _, many] = &times;
    for (number, what) in ["ready_ms", "ready_cpu_ms"].into_iter().enumerate() {
        for ((_, name), times) in SIZES.iter().zip(&times) {
            let times = times.iter().map(|took| took[number]).collect();
            summary.push(&format!("{what}_{name}"), median(times), "ms");
        }
        let both = many.iter().zip(none);
        let extra = both.map(|(many, none)| many[number] - none[number]);
        summary.push(&format!("{what}_extra_10k"), median(extra.collect()), "ms");
    }
    places.map(|place| Place {
        daemon: place.daemon.restart(),
        ..place
    })
}

fn memory(moment: &str, ten: &Place, many: &Place, summary: &mut Summary) {
    for place in [ten, many] {
        let (pid, name) = (place.daemon.pid(), place.name);
        let (now, most) = (process::rss_mib(pid), process::peak_rss_mib(pid));
        summary.push(&format!("rss_broker{moment}_mib_{name}"), now, "MiB");
        summary.push(&format!("rss_broker{moment}_peak_mib_{name}"), most, "MiB");
    }
}

/// Whole requests of one connection.
fn requests(ten: &Place, many: &Place, summary: &mut Summary) {
    let (request, places) = (load::request(TARGET), [ten, many]);
    let mut runs: [Vec<Run>; 2] = Default::default();
    for round in 0..ROUNDS {
        // Each is the first as often as the other.
        for turn in [round % 2, 1 - round % 2] {
            let daemon = &places[turn].daemon;
            let cpu = || Cpu::so_far(daemon.pid(), daemon.keystore_pid());
            runs[turn].push(run(&daemon.socket(), 1, &request, cpu));
        }
    }
    for (place, runs) in places.iter().zip(&runs) {
        let (times, _, cpu) = together(runs);
        cpu.report(&format!("_of_{}", place.name), times.count(), summary);
    }
    let p50 = |run: &Run| together(std::slice::from_ref(run)).0.percentile_us(50.0);
    let [ten, many] = runs.map(|runs| runs.iter().map(p50).collect::<Vec<f64>>());
    let rounds: Vec<(f64, f64)> = ten.into_iter().zip(many).collect();
    pairs("request_p50", "us", &rounds, summary);
}

/// Of pairs that were measured one after the other: both, and their ratio.
fn pairs(name: &str, unit: &'static str, rounds: &[(f64, f64)], summary: &mut Summary) {
    let each = |of: fn(&(f64, f64)) -> f64| median(rounds.iter().map(of).collect());
    summary.push(&format!("{name}_{unit}_10"), each(|(ten, _)| *ten), unit);
    summary.push(&format!("{name}_{unit}_10k"), each(|(_, many)| *many), unit);
    summary.push(
        &format!("{name}_ratio_10k"),
        each(|(ten, many)| many / ten),
        "",
    );
}

fn decisions(ten: &Place, many: &Place, slice: &Slice, summary: &mut Summary) {
    let prepared = |place: &Place| Decisions::prepare(&place.config(), &place.sections, slice);
    let (mut ten, mut many) = (prepared(ten), prepared(many));
    for (callers, suffix) in [(usize::MAX, ""), (FEW, "_few")] {
        let round = |_| (ten.round(callers), many.round(callers));
        let rounds: Vec<_> = (0..ROUNDS).map(round).collect();
        let mut push = |name, of: fn(&Round) -> f64| {
            let both = rounds.iter().map(|(ten, many)| (of(ten), of(many)));
            pairs(
                &format!("{name}{suffix}_p50"),
                "ns",
                &both.collect::<Vec<_>>(),
                summary,
            );
        };
        push("decision", |round| round.decision);
        push("policy", |round| round.policy);
    }
}

/// Reads the configuration again and again while one connection asks; before each reload it asks
/// undisturbed for as long as the last one took.
fn reloads(place: &Place, summary: &mut Summary) {
    let (stop, answers) = (AtomicBool::new(false), Mutex::new(Vec::new()));
    let socket = place.daemon.socket();
    let ask = || {
        load::ask(&socket, 1, &load::request(TARGET), |answer| {
            assert_eq!(answer.status, 200);
            let mut answers = answers.lock().expect("nobody panics with it");
            answers.push((answer.asked, answer.answered));
            match stop.load(Ordering::SeqCst) {
                true => Next::Stop,
                false => Next::Ask,
            }
        })
        .expect("every request is answered");
    };
    let spans = std::thread::scope(|scope| {
        scope.spawn(ask);
        let mut pause = Duration::from_secs(1);
        let reload = |_| {
            std::thread::sleep(pause);
            let begun = Instant::now();
            let reloaded = place.daemon.assertctl(&["reload"]);
            let ended = Instant::now();
            assert!(
                reloaded.status.success(),
                "{}",
                String::from_utf8_lossy(&reloaded.stderr)
            );
            pause = ended - begun;
            (begun, ended)
        };
        let spans: Vec<(Instant, Instant)> = (0..RELOADS).map(reload).collect();
        stop.store(true, Ordering::SeqCst);
        spans
    });
    let (mut during, mut beside) = (Vec::new(), Vec::new());
    for (asked, answered) in answers.into_inner().expect("nobody panicked with it") {
        let meets = |(begun, ended): &(Instant, Instant)| asked < *ended && answered > *begun;
        let times = match spans.iter().any(meets) {
            true => &mut during,
            false => &mut beside,
        };
        times.push(answered - asked);
    }
    let ms = |(begun, ended): &(Instant, Instant)| (*ended - *begun).as_secs_f64() * 1e3;
    let took = median(spans.iter().map(ms).collect());
    summary.push("reload_ms_10k", took, "ms");
    for (name, times) in [("during", during), ("beside", beside)] {
        let times = Times::new(times);
        for (percentile, percent) in [("p50", 50.0), ("p99", 99.0), ("slowest", 100.0)] {
            let name = format!("reload_{name}_request_{percentile}_us_10k");
            summary.push(&name, times.percentile_us(percent), "us");
        }
    }
}

/// What an administrator waits for.
fn assertctl(place: &Place, summary: &mut Summary) {
    let pid = std::process::id().to_string();
    let runs: [(&str, &[&str], &str); 2] = [
        ("config_check", &["config", "check"], "10000 workloads"),
        (
            "explain",
            &["explain", "--pid", &pid, "--target", TARGET],
            "granted",
        ),
    ];
    for (name, arguments, expected) in runs {
        let timed = |_| {
            let begun = Instant::now();
            let output = place.daemon.assertctl(arguments);
            let took = begun.elapsed().as_secs_f64() * 1e3;
            let said = String::from_utf8_lossy(&output.stdout);
            assert!(output.status.success() && said.contains(expected), "{said}");
            took
        };
        let times = (0..RUNS).map(timed).collect();
        summary.push(&format!("{name}_ms_10k"), median(times), "ms");
    }
    summary.push("config_kib_10k", config_kib(&place.config()), "KiB");
}

/// All files of a configuration.
fn config_kib(path: &Path) -> f64 {
    let files = broker::config::files(path).expect("they were read before");
    let length = |path: &std::path::PathBuf| std::fs::metadata(path).expect("it is there").len();
    files.iter().map(length).sum::<u64>() as f64 / 1024.0
}
