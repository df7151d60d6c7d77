//! Reload after reload: nothing is left behind by any of them, and whoever asks meanwhile gets an
//! answer by one configuration or by the next, whole.

use crate::generator::{self, Next};
use crate::observed::{self, NO_LIMIT, TARGET};
use harness::assertion::decode;
use harness::daemon::Site;
use harness::{Config, DEADLINE, Daemon, SoftHsm, wait_until};
use nix::sys::signal::Signal;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

const SHORT: usize = 100;
const LONG: usize = 1_000;

/// First times of everything.
const WARM_UP: usize = 30;

/// A few descriptors come and go (an administrator's connection, a caller's directory).
const DESCRIPTORS_MORE: usize = 4;
const RSS_MORE_KIB: u64 = 2 * 1024;

/// Connections that ask during the reloads.
const ASKING: usize = 16;

/// The two configurations of one target, which differ in all that an assertion shows of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Which {
    Old,
    New,
}

impl Which {
    fn other(self) -> Which {
        match self {
            Which::Old => Which::New,
            Which::New => Which::Old,
        }
    }

    /// Subject, audience and lifetime.
    fn shows(self) -> (&'static str, &'static str, u64) {
        match self {
            Which::Old => ("old", "https://old.example", 100),
            Which::New => ("new", "https://new.example", 200),
        }
    }

    /// The configuration.
    fn text(self, token: &SoftHsm) -> String {
        let (subject, audience, lifetime) = self.shows();
        let uid = nix::unistd::geteuid().as_raw();
        let issuer = "[issuer.prod]\nurl = \"https://id.example.com/prod\"\n\
                      subjects = [\"old\", \"new\"]\nkeystore = \"hsm\"\nalg = \"ES256\"\n";
        let target = format!(
            "[workload.payments.target.{TARGET}]\nprofile = \"aws-oidc\"\nissuer = \"prod\"\n\
             subject = \"{subject}\"\naudience = \"{audience}\"\nlifetime = {lifetime}\n"
        );
        let config = Config::new(token).workload("payments", uid, NO_LIMIT);
        config.with(issuer).with(&target).text().to_owned()
    }

    /// Which configuration an assertion is of; panics if it is of neither, or of both.
    fn of(assertion: &str) -> Which {
        let (_, claims) = decode(assertion);
        let lifetime = claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap();
        let shown = (
            claims["sub"].as_str().unwrap(),
            claims["aud"].as_str().unwrap(),
            lifetime,
        );
        [Which::Old, Which::New]
            .into_iter()
            .find(|which| which.shows() == shown)
            .unwrap_or_else(|| panic!("of two configurations at once: {claims}"))
    }
}

struct Scene {
    daemon: Daemon,
    token: SoftHsm,
    now: Which,
}

impl Scene {
    fn new() -> Scene {
        let token = SoftHsm::new();
        let daemon = Daemon::with_keys(Which::Old.text(&token));
        let now = Which::Old;
        Scene { daemon, token, now }
    }

    /// Writes the other configuration.
    fn turn(&mut self) {
        self.now = self.now.other();
        configure(self.daemon.site(), &self.now.text(&self.token));
    }

    fn ask(&self) -> Which {
        let answer = self.daemon.client().assertion(TARGET, None);
        Which::of(&answer.unwrap().assertion)
    }
}

/// As whoever replaces a file in use does it: whoever reads sees the old one or the new one.
pub fn configure(site: &Site, text: &str) {
    let path = site.config();
    let old = std::fs::read_to_string(&path).unwrap();
    let server: Vec<&str> = old.lines().take(3).collect();
    harness::replace_file(&path, &format!("{}\n{text}", server.join("\n")));
}

/// What a process holds.
#[derive(Clone, Copy, Debug)]
struct Held {
    descriptors: usize,
    rss_kib: u64,
}

impl Held {
    fn by(pid: u32) -> Held {
        let fds = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let mut lines = status.lines();
        let rss = lines.find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        Held {
            descriptors: fds.count(),
            rss_kib: rss.trim().trim_end_matches(" kB").parse().unwrap(),
        }
    }
}

/// By command and by signal in turn, every tenth of a file that is wrong.
fn reload_again_and_again(times: usize) {
    let mut scene = Scene::new();
    let mut admin = scene.daemon.admin();
    let mut at_first = None;
    let mut refused = 0;
    for number in 0..WARM_UP + times {
        if number == WARM_UP {
            at_first = Some(Held::by(scene.daemon.pid()));
        }
        if number % 10 == 9 {
            configure(scene.daemon.site(), "[nonsense\n");
            admin
                .reload()
                .expect_err("a file that is wrong is in force");
            refused += 1;
            continue;
        }
        scene.turn();
        match number % 2 {
            0 => drop(admin.reload().unwrap()),
            _ => {
                let before = admin.status().unwrap().config.sha256;
                scene.daemon.signal(Signal::SIGHUP);
                let there = || admin.status().unwrap().config.sha256 != before;
                assert!(wait_until(DEADLINE, there), "{}", scene.daemon.stderr());
            }
        }
        assert_eq!(scene.ask(), scene.now, "after reload {number}");
    }
    let accepted = WARM_UP + times - refused;
    let (first, last) = (at_first.unwrap(), Held::by(scene.daemon.pid()));
    println!("{accepted} reloads, {refused} refused: {first:?}, then {last:?}");
    assert!(scene.daemon.lives());
    // Each that was accepted is recorded, and none else: the first record is the start's.
    let records = scene.daemon.audit_records();
    let recorded = observed::of_kind(&records, "configured").len();
    assert_eq!(recorded, 1 + accepted);
    assert!(
        last.descriptors <= first.descriptors + DESCRIPTORS_MORE,
        "{first:?}, then {last:?}"
    );
    assert!(
        last.rss_kib <= first.rss_kib + RSS_MORE_KIB,
        "{first:?}, then {last:?}"
    );
    scene.turn(); // assertctl finds the log by it
    observed::chain_verifies(&scene.daemon);
}

#[test]
fn row_37_a_hundred_reloads_leave_nothing_behind() {
    reload_again_and_again(SHORT);
}

#[test]
#[ignore = "long: a thousand reloads (2026-11-22)"]
fn row_37_a_thousand_reloads_leave_nothing_behind() {
    reload_again_and_again(LONG);
}

/// Nobody waits for any of them; the last one that is told finds the last file.
#[test]
fn row_37_of_a_thousand_signals_at_once_the_last_is_not_lost_and_none_is_two_at_a_time() {
    let mut scene = Scene::new();
    let before = Held::by(scene.daemon.pid());
    for number in 0..LONG {
        if number % 100 == 0 {
            scene.turn();
        }
        scene.daemon.signal(Signal::SIGHUP);
        if number % 100 == 99 {
            let now = scene.now;
            let there = || scene.ask() == now;
            assert!(wait_until(DEADLINE, there), "{}", scene.daemon.stderr());
        }
    }
    let reloads = || scene.daemon.logged("(reloaded)").len();
    let mut seen = reloads();
    assert!((10..=LONG).contains(&seen), "{seen} reloads");
    let quiet = wait_until(DEADLINE, || {
        let (last, now) = (seen, reloads());
        seen = now;
        std::thread::sleep(std::time::Duration::from_millis(100)); // between two looks at what grows
        reloads() == last
    });
    assert!(quiet, "it goes on reloading");
    let status = scene.daemon.status();
    let records = scene.daemon.audit_records();
    let configured = observed::of_kind(&records, "configured");
    let last = configured.last().unwrap();
    assert_eq!(last["config_sha256"], status.config.sha256.as_str());
    assert_eq!(scene.ask(), scene.now);
    let after = Held::by(scene.daemon.pid());
    println!("{seen} reloads: {before:?}, then {after:?}");
    assert!(
        after.descriptors <= before.descriptors + DESCRIPTORS_MORE,
        "{before:?}, then {after:?}"
    );
}

#[test]
fn row_37_under_load_every_answer_is_by_the_old_configuration_or_by_the_new_one() {
    let mut scene = Scene::new();
    let stop = AtomicBool::new(false);
    let counts: Mutex<BTreeMap<Which, usize>> = Mutex::default();
    let total = || counts.lock().unwrap().values().sum::<usize>();
    let socket = scene.daemon.socket();
    std::thread::scope(|scope| {
        let load = scope.spawn(|| {
            let request = generator::request(TARGET);
            generator::ask(&socket, ASKING, &request, |answer| {
                let body = String::from_utf8_lossy(answer.body).into_owned();
                assert_eq!(answer.status, 200, "{body}");
                let body: Value = serde_json::from_str(&body).unwrap();
                let which = Which::of(body["assertion"].as_str().unwrap());
                *counts.lock().unwrap().entry(which).or_default() += 1;
                match stop.load(Ordering::SeqCst) {
                    true => Next::Stop,
                    false => Next::Ask,
                }
            })
        });
        let mut admin = scene.daemon.admin();
        for number in 0..50 {
            let before = total();
            // The load is there at each of them.
            let more = wait_until(DEADLINE, || total() > before + ASKING || load.is_finished());
            assert!(more && !load.is_finished(), "the load has ended");
            scene.turn();
            admin.reload().unwrap();
            assert_eq!(scene.ask(), scene.now, "after reload {number}");
        }
        stop.store(true, Ordering::SeqCst);
        load.join().unwrap().expect("no request is cut");
    });
    let counts = counts.into_inner().unwrap();
    println!("answers: {counts:?}");
    assert!(
        counts.len() == 2 && counts.values().all(|count| *count > 100),
        "{counts:?}"
    );
    observed::chain_verifies(&scene.daemon);
}
