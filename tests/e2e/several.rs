//! Several keystores in one configuration: what befalls one of them is felt by its own targets alone.
//! Which keystores there are is said here, whatever KEYSTORE says.

use crate::world::{code, us};
use harness::daemon::Site;
use harness::http::{Answer, Raw, post_target};
use harness::process::{self, Process, send};
use harness::token::Keystore;
use harness::user::{ALICE, exchange_as};
use harness::{Config, DEADLINE, Daemon, SoftHsm, Tpm, wait_for, wait_until};
use nix::sys::signal::Signal;
use std::collections::BTreeMap;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::{Duration, Instant};

/// The keystore that something befalls, and the one that must not notice.
const ILL: &str = "ill";
const WELL: &str = "well";

/// A target of each has its name.
const REQUESTS: usize = 50;

/// What a request may take (assertd's `http`), and what two busy cores may add.
const REFUSED_WITHIN: Duration = Duration::from_secs(5 + 10);

/// Connections of one user, and requests that may wait for a silent keystore (assertd's `server` and
/// `keystores`).
const CONNECTIONS_PER_UID_MAX: usize = 256;
const WAITING_SILENT_MAX: usize = 64;

/// A rate that these tests do not reach.
const NO_LIMIT: &str = "rate = 100000\nburst = 100000";

/// Our own user and [`ALICE`] have a target in each keystore, with the keystore's name.
fn config(ill: &impl Keystore, well: &impl Keystore) -> Config {
    let config = Config::default()
        .keystore(ILL, ill, "")
        .keystore(WELL, well, "");
    let users = [("ours", us()), ("hers", ALICE)];
    users.into_iter().fold(config, |config, (workload, uid)| {
        let config = config.workload(workload, uid, NO_LIMIT);
        [ILL, WELL].into_iter().fold(config, |config, keystore| {
            config.target(workload, keystore, &format!("keystore = \"{keystore}\""))
        })
    })
}

fn ask(daemon: &Daemon, target: &str) -> Answer {
    daemon.ask(&format!("{{\"target\":\"{target}\"}}"))
}

/// Demands that every request for the well keystore is granted, ours and another user's.
#[track_caller]
fn others_are_served(daemon: &Daemon) {
    for _ in 0..REQUESTS {
        let answer = ask(daemon, WELL);
        assert_eq!(answer.status, 200, "{}\n{}", answer.body(), daemon.stderr());
    }
    let answer = exchange_as(ALICE, &daemon.socket(), &post_target(WELL));
    assert_eq!(answer.status, 200, "{}", answer.body());
}

#[track_caller]
fn is_refused_for_now(answer: &Answer) {
    let (status, retry) = (answer.status, answer.header("retry-after"));
    assert_eq!((status, retry), (503, Some("1")), "{}", answer.body());
}

/// Waits until the ill keystore serves again without anybody's help.
#[track_caller]
fn serves_again(daemon: &Daemon) {
    let mut last = String::new();
    let back = wait_until(DEADLINE, || {
        let answer = ask(daemon, ILL);
        last = answer.body().to_owned();
        answer.status == 200
    });
    assert!(back, "{last}\n{}", daemon.stderr());
}

/// Waits until status shows the ill keystore in a state; what it says of why.
#[track_caller]
fn wait_ill(daemon: &Daemon, state: &str) -> String {
    let said = wait_for(DEADLINE, || {
        let keystores = daemon.status().keystores;
        let ill = keystores.into_iter().find(|keystore| keystore.name == ILL);
        ill.filter(|ill| ill.state == state)
            .map(|ill| ill.why.unwrap_or_default())
    });
    said.unwrap_or_else(|| panic!("never {state}: {:?}", daemon.status().keystores))
}

/// Stops a keystore's process as a module that never returns would.
fn hang(daemon: &Daemon) -> u32 {
    let pid = daemon.keystore_process(ILL).expect("it runs");
    send(pid, Signal::SIGSTOP);
    assert!(wait_until(DEADLINE, || process::state(pid) == Some('T')));
    pid
}

/// Asks for the ill keystore's target on so many connections, each closed once it is answered; their
/// answers, and how long each took.
struct Waiting(Vec<std::thread::JoinHandle<(Answer, Duration)>>);

impl Waiting {
    fn start(socket: &Path, count: usize) -> Waiting {
        let ask = |_| {
            let mut raw = Raw::connect(socket);
            let asked = Instant::now();
            raw.send(&post_target(ILL)).unwrap();
            std::thread::spawn(move || {
                let answer = raw.answer(REFUSED_WITHIN).expect("an answer in time");
                (answer, asked.elapsed())
            })
        };
        Waiting((0..count).map(ask).collect())
    }

    fn answers(self) -> Vec<(Answer, Duration)> {
        let threads = self.0.into_iter();
        threads.map(|thread| thread.join().unwrap()).collect()
    }
}

/// What administrators need is there while a keystore hangs.
fn administrators_are_served(daemon: &Daemon) {
    for arguments in [&["status"][..], &["keys"], &["reload"]] {
        let said = daemon.assertctl(arguments);
        let text = String::from_utf8_lossy(&said.stdout).into_owned();
        let error = String::from_utf8_lossy(&said.stderr).into_owned();
        assert_eq!(said.status.code(), Some(0), "{arguments:?}: {text}{error}");
    }
    // These ask every keystore; one that does not answer is what they say of it.
    for arguments in [&["config", "diff"][..], &["apply"]] {
        let said = daemon.assertctl(arguments);
        let text = [said.stdout, said.stderr].concat();
        let text = String::from_utf8_lossy(&text).into_owned();
        assert!(text.contains(ILL), "{arguments:?}: {text}");
        assert!(!text.contains(&format!("keystore {WELL}")), "{text}");
    }
}

/// Everything about a keystore that stands still and goes on; meanwhile, `and` too must hold.
fn one_hangs(ill: &impl Keystore, well: &impl Keystore, and: impl Fn(&Daemon)) {
    let daemon = Daemon::with_keys(config(ill, well));
    others_are_served(&daemon);
    serves_again(&daemon);
    let pid = hang(&daemon);
    let waiting = Waiting::start(&daemon.socket(), 100);
    others_are_served(&daemon);
    for (answer, took) in waiting.answers() {
        is_refused_for_now(&answer);
        assert!(took < REFUSED_WITHIN, "refused after {took:?}");
    }
    others_are_served(&daemon);
    let why = wait_ill(&daemon, "degraded");
    assert!(why.contains(ILL) && why.contains("no answer"), "{why}");
    is_refused_for_now(&ask(&daemon, ILL));
    and(&daemon);
    others_are_served(&daemon);
    send(pid, Signal::SIGCONT);
    serves_again(&daemon);
    others_are_served(&daemon);
    assert_eq!(daemon.keystore_process(ILL), Some(pid));
}

#[test]
fn a_tpm_that_hangs_is_felt_by_its_targets_alone() {
    let (tpm, hsm) = (Tpm::new(), SoftHsm::new());
    one_hangs(&tpm, &hsm, administrators_are_served);
}

#[test]
fn an_hsm_that_hangs_is_felt_by_its_targets_alone() {
    let (hsm, tpm) = (SoftHsm::new(), Tpm::new());
    one_hangs(&hsm, &tpm, |_| ());
}

#[test]
fn of_two_hsms_one_may_hang() {
    let (one, other) = (SoftHsm::labelled("one"), SoftHsm::labelled("other"));
    one_hangs(&one, &other, |_| ());
    assert_eq!((one.private_keys(), other.private_keys()), (2, 2));
}

/// Has requests for the ill keystore wait on all connections that a user may have: soon the most of
/// them are refused, so that the same user's other targets are reached again. How many had which
/// answer.
fn take_every_connection(socket: &Path) -> BTreeMap<String, usize> {
    let waiting = Waiting::start(socket, CONNECTIONS_PER_UID_MAX);
    let answer = exchange_as(ALICE, socket, &post_target(WELL));
    assert_eq!(answer.status, 200, "another user: {}", answer.body());
    let reached = wait_until(DEADLINE, || {
        let mut raw = Raw::connect(socket); // at first it is turned away, maybe before it has asked
        let asked = raw.send(&post_target(WELL));
        let answer = asked.ok().and_then(|()| raw.answer(DEADLINE));
        answer.is_some_and(|answer| answer.status == 200)
    });
    assert!(reached, "the same user never");
    let mut codes = BTreeMap::new();
    for (answer, _) in waiting.answers() {
        is_refused_for_now(&answer);
        *codes.entry(code(&answer)).or_default() += 1;
    }
    codes
}

/// Whether no more than a share of the requests waited as long as a request may, with this answer;
/// the others were told before.
fn a_share_waited(codes: &BTreeMap<String, usize>, waited: &str) -> bool {
    let of = |code: &str| codes.get(code).copied().unwrap_or_default();
    (1..=WAITING_SILENT_MAX).contains(&of(waited))
        && of("keystore_unavailable") == CONNECTIONS_PER_UID_MAX - of(waited)
}

/// A daemon with two keystores that serve, and no connection.
fn at_rest(ill: &impl Keystore, well: &impl Keystore) -> Daemon {
    let daemon = Daemon::with_keys(config(ill, well));
    serves_again(&daemon);
    let closed = wait_until(DEADLINE, || daemon.status().connections == 0);
    assert!(closed, "{:?}", daemon.status());
    daemon
}

#[test]
fn a_keystore_that_hangs_holds_no_more_than_a_share_of_a_users_connections() {
    let (tpm, hsm) = (Tpm::new(), SoftHsm::new());
    let daemon = at_rest(&tpm, &hsm);
    let pid = hang(&daemon);
    let codes = take_every_connection(&daemon.socket());
    assert!(a_share_waited(&codes, "deadline"), "{codes:?}");
    others_are_served(&daemon);
    send(pid, Signal::SIGCONT);
    serves_again(&daemon);
}

/// Its process is gone and none can be started; connections wait in its socket, which is still there.
#[test]
fn a_keystore_that_is_gone_holds_no_more_than_a_share_of_a_users_connections() {
    let (tpm, hsm) = (Tpm::new(), SoftHsm::new());
    let daemon = at_rest(&tpm, &hsm);
    let program = daemon.site().programs().path("assertd-keystore-tpm");
    let away = program.with_file_name("away");
    std::fs::rename(&program, &away).unwrap();
    let pid = daemon.keystore_process(ILL).expect("it runs");
    send(pid, Signal::SIGKILL);
    let tried = wait_until(DEADLINE, || daemon.stderr().contains("cannot be started"));
    assert!(tried, "{}", daemon.stderr());
    let codes = take_every_connection(&daemon.socket());
    assert!(a_share_waited(&codes, "deadline"), "{codes:?}");
    others_are_served(&daemon);
    std::fs::rename(&away, &program).unwrap();
    serves_again(&daemon);
}

/// Nobody knows yet whether it can serve: its requests wait for its first answer.
#[test]
fn a_keystore_that_hangs_at_the_start_holds_no_more_than_a_share_of_a_users_connections() {
    let (tpm, hsm) = (Tpm::new(), SoftHsm::new());
    let site = Daemon::with_keys(config(&tpm, &hsm)).into_site();
    let _mute = mute(&site);
    // Whoever asks later than in the first three seconds waits no more. A busy machine may miss them,
    // but not five times.
    let mut seen = Vec::new();
    let shared = (0..5).any(|_| {
        let process = start(&site);
        let codes = take_every_connection(&site.runtime_dir().join("assertd.sock"));
        process.wait_for_stderr("assertd: ready:");
        let shared = a_share_waited(&codes, "key_unavailable");
        seen.push(codes);
        shared
    });
    assert!(shared, "{seen:?}");
}

#[test]
fn a_keystore_that_is_killed_again_and_again_is_felt_by_its_targets_alone() {
    let (hsm, tpm) = (SoftHsm::new(), Tpm::new());
    let daemon = Daemon::with_keys(config(&hsm, &tpm));
    for _ in 0..5 {
        let waiting = Waiting::start(&daemon.socket(), 20);
        if let Some(pid) = daemon.keystore_process(ILL) {
            send(pid, Signal::SIGKILL);
        }
        others_are_served(&daemon);
        for (answer, _) in waiting.answers() {
            match answer.status {
                200 => {} // it came before
                _ => is_refused_for_now(&answer),
            }
        }
    }
    serves_again(&daemon);
}

#[test]
fn a_tpm_that_loses_its_power_is_felt_by_its_targets_alone() {
    let (mut tpm, hsm) = (Tpm::new(), SoftHsm::new());
    let daemon = Daemon::with_keys(config(&tpm, &hsm));
    serves_again(&daemon);
    tpm.swtpm().power_off();
    let waiting = Waiting::start(&daemon.socket(), 20);
    others_are_served(&daemon);
    for (answer, _) in waiting.answers() {
        is_refused_for_now(&answer);
    }
    tpm.swtpm().power_on();
    serves_again(&daemon);
    others_are_served(&daemon);
}

#[test]
fn a_tpm_that_is_absent_at_the_start_is_felt_by_its_targets_alone() {
    let (mut tpm, hsm) = (Tpm::new(), SoftHsm::new());
    tpm.swtpm().power_off();
    let daemon = Daemon::start(config(&tpm, &hsm));
    let why = wait_ill(&daemon, "degraded");
    assert!(why.contains("TPM"), "{why}");
    // Its key is not made, and says so; the other's are.
    assert_ne!(daemon.assertctl(&["apply"]).status.code(), Some(0));
    others_are_served(&daemon);
    is_refused_for_now(&ask(&daemon, ILL));
    tpm.swtpm().power_on();
    wait_ill(&daemon, "usable");
    daemon.apply();
    serves_again(&daemon);
    others_are_served(&daemon);
}

/// A section that names a module which is not there.
struct NoModule;

impl Keystore for NoModule {
    fn section(&self) -> String {
        "backend = \"pkcs11\"\nmodule = \"/nonexistent/module.so\"\ntoken = { label = \"x\" }\n\
         pin = { file = \"/nonexistent/pin\" }\n"
            .to_owned()
    }
}

#[test]
fn a_keystore_that_never_starts_is_felt_by_its_targets_alone() {
    let hsm = SoftHsm::new();
    let daemon = Daemon::start(config(&NoModule, &hsm));
    assert_ne!(daemon.assertctl(&["apply"]).status.code(), Some(0));
    others_are_served(&daemon);
    let why = wait_ill(&daemon, "degraded");
    assert!(why.contains("/nonexistent/"), "{why}");
    is_refused_for_now(&ask(&daemon, ILL));
    others_are_served(&daemon);
}

/// Gives the ill keystore a socket that takes connections and says nothing, from the first moment.
fn mute(site: &Site) -> UnixListener {
    let socket = site.config().with_file_name("mute.sock");
    let mute = UnixListener::bind(&socket).unwrap();
    let text = std::fs::read_to_string(site.config()).unwrap();
    let (head, line) = (
        format!("[keystore.{ILL}]\n"),
        format!("socket = \"{}\"\n", socket.display()),
    );
    let muted = text.replace(&head, &format!("{head}{line}"));
    std::fs::write(site.config(), muted).unwrap();
    mute
}

/// Starts assertd, and waits until it listens.
fn start(site: &Site) -> Process {
    // It is bound after the workloads' socket, which listens by then; that one's path is there before.
    let later = site.runtime_dir().join("admin.sock");
    let _ = std::fs::remove_file(&later);
    let process = Process::start(&mut site.command());
    let listens = wait_until(DEADLINE, || later.exists());
    assert!(listens, "{}", process.stderr());
    process
}

#[test]
fn a_keystore_that_hangs_at_the_start_keeps_others_waiting_not_even_then() {
    let (tpm, hsm) = (Tpm::new(), SoftHsm::new());
    let site = Daemon::with_keys(config(&tpm, &hsm)).into_site();
    let _mute = mute(&site);
    let path = site.runtime_dir().join("assertd.sock");
    // There are three seconds in which it is not said that assertd is ready. A busy machine may miss
    // them, but not five times.
    let served = (0..5).any(|_| {
        let process = start(&site);
        let mut raw = Raw::connect(&path);
        raw.send(&post_target(WELL)).unwrap();
        let answer = raw.answer(DEADLINE).expect("an answer");
        let early = !process.stderr().contains("assertd: ready:");
        assert_eq!(answer.status, 200, "{}", answer.body());
        let mut late = Raw::connect(&path);
        late.send(&post_target(ILL)).unwrap();
        is_refused_for_now(&late.answer(REFUSED_WITHIN).expect("an answer"));
        process.wait_for_stderr("assertd: ready:");
        early
    });
    assert!(served, "others waited for it each time");
}
