//! What a service manager sees and hands over: READY, STATUS, WATCHDOG and STOPPING on its socket
//! (sd_notify(3)), and listening sockets it made before assertd ran (sd_listen_fds(3)). The test is
//! the service manager; systemd itself is not needed.

use crate::world::{BANK, bank, serves};
use harness::daemon::Site;
use harness::http::{Raw, post};
use harness::manager::{Ear, SILENCE};
use harness::process::Process;
use harness::{DEADLINE, Daemon, Token, public_dir, wait_for, wait_until};
use nix::sys::signal::Signal;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// A watchdog's time that a test can wait for, and longer than none of ours: a third of it is the
/// shortest interval assertd keeps.
const WATCHDOG: Duration = Duration::from_millis(300);

/// assertd's command with a service manager that listens.
fn told(site: &Site, ear: &Ear) -> Command {
    let mut command = site.command();
    command.env("NOTIFY_SOCKET", ear.path());
    command
}

fn watched(site: &Site, ear: &Ear) -> Command {
    let mut command = told(site, ear);
    command.env("WATCHDOG_USEC", WATCHDOG.as_micros().to_string());
    command
}

/// A site that was running once, so that its keys are made.
fn with_keys(token: &Token) -> Site {
    let mut daemon = Daemon::with_keys(bank(token));
    assert_eq!(daemon.stop(), Some(0), "{}", daemon.stderr());
    daemon.into_site()
}

#[test]
fn ready_is_said_only_when_the_keystore_is_usable() {
    let token = Token::new();
    let dir = public_dir();
    let socket = dir.path().join("keystore.sock");
    // As a socket unit has it: connections wait until the keystore's process takes them.
    let listener = UnixListener::bind(&socket).unwrap();
    let config = harness::Config::default().keystore(
        "hsm",
        &token,
        &format!("socket = \"{}\"", socket.display()),
    );
    let (site, ear) = (Site::new(config.text()), Ear::new());
    let mut daemon = Process::start(&mut told(&site, &ear));
    let admin = site.runtime_dir().join("admin.sock");
    let state = || {
        let status = assertd_client::Client::connect(&admin)
            .ok()?
            .status()
            .ok()?;
        Some(status.keystores[0].state.clone())
    };
    let before = wait_for(DEADLINE, state);
    assert_eq!(before.as_deref(), Some("starting"), "{}", daemon.stderr());
    assert_eq!(ear.hear(SILENCE), None, "nothing is usable yet");

    let mut keystore = Command::new(site.programs().keystore());
    keystore.arg("--config").arg(site.config());
    keystore.args(["--name", "hsm", "--listen-stdin", "--broker-uid"]);
    keystore.arg(nix::unistd::geteuid().to_string());
    keystore.arg("--state-dir").arg(dir.path().join("state"));
    keystore.stdin(Stdio::from(OwnedFd::from(listener)));
    let _keystore = Process::start(&mut keystore);
    assert_eq!(
        ear.hear_state(),
        "READY=1\nSTATUS=0 workloads, 1 of 1 keystores usable\n"
    );
    assert_eq!(state().as_deref(), Some("usable"));
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.wait(DEADLINE).code(), Some(0), "{}", daemon.stderr());
}

#[test]
fn a_keystore_that_failed_delays_no_readiness_and_the_status_counts_it() {
    let token = Token::new();
    std::fs::write(token.secret_file(), "00000001").unwrap();
    let (site, ear) = (Site::new(bank(&token).text()), Ear::new());
    let daemon = Daemon::ready(Process::start(&mut told(&site, &ear)), site);
    assert_eq!(
        ear.hear_state(),
        "READY=1\nSTATUS=1 workload, 0 of 1 keystores usable\n"
    );
    assert_eq!(daemon.status().keystores[0].state, "failed");
}

#[test]
fn a_keystore_that_never_answers_delays_readiness_by_seconds_and_no_more() {
    let token = Token::new();
    let dir = public_dir();
    let socket = dir.path().join("keystore.sock");
    let _mute = UnixListener::bind(&socket).unwrap();
    let line = format!("socket = \"{}\"", socket.display());
    let config = harness::Config::default().keystore("hsm", &token, &line);
    let (site, ear) = (Site::new(config.text()), Ear::new());
    let start = Instant::now();
    let _daemon = Process::start(&mut told(&site, &ear));
    assert_eq!(
        ear.hear_state(),
        "READY=1\nSTATUS=0 workloads, 0 of 1 keystores usable\n"
    );
    let took = start.elapsed();
    assert!(
        (Duration::from_secs(2)..Duration::from_secs(8)).contains(&took),
        "{took:?}"
    );
}

#[test]
fn stopping_is_said_before_the_drain_and_nothing_after_it() {
    let token = Token::new();
    let (site, ear) = (with_keys(&token), Ear::new());
    let mut daemon = Daemon::ready(Process::start(&mut told(&site, &ear)), site);
    assert!(ear.hear_state().starts_with("READY=1\n"));
    let keystore = daemon.keystore_pid();
    harness::process::freeze(keystore);
    let mut raw = daemon.raw();
    raw.send(&post(BANK)).unwrap();
    daemon.audit_record(|record| record["kind"] == "decision");
    daemon.signal(Signal::SIGTERM);
    assert_eq!(ear.hear_state(), "STOPPING=1\nSTATUS=draining\n");
    assert!(daemon.lives(), "ended with a request under way");
    harness::process::send(keystore, Signal::SIGCONT);
    assert_eq!(raw.answer(DEADLINE).expect("an answer").status, 200);
    assert_eq!(daemon.exit_code(), Some(0), "{}", daemon.stderr());
    assert!(ear.hears_nothing());
}

#[test]
fn the_watchdog_is_fed_while_idle_and_not_by_a_process_that_stands_still() {
    let token = Token::new();
    let (site, ear) = (with_keys(&token), Ear::new());
    let mut daemon = Daemon::ready(Process::start(&mut watched(&site, &ear)), site);
    assert!(ear.hear_state().starts_with("READY=1\n"));
    // Ten a second are due; the audit writer of an idle broker shows itself once a second.
    ear.hear_watchdog(30, Duration::from_secs(6));
    daemon.freeze();
    assert!(ear.hears_nothing(), "a stopped process feeds its watchdog");
    daemon.signal(Signal::SIGCONT);
    ear.hear_watchdog(5, DEADLINE);
    serves(&mut daemon);
}

#[test]
fn the_watchdog_is_not_fed_while_the_audit_log_hangs() {
    let token = Token::new();
    let (site, ear) = (with_keys(&token), Ear::new());
    let mut daemon = Daemon::ready(Process::start(&mut watched(&site, &ear)), site);
    assert!(ear.hear_state().starts_with("READY=1\n"));
    serves(&mut daemon);
    // One flush takes ten seconds; strace(1), and no hook in the product.
    let mut strace = Command::new("strace");
    strace
        .args(["--trace=fdatasync", "--output=/dev/null"])
        .arg("--inject=fdatasync:delay_enter=10s:when=1")
        .arg(format!("--attach={}", writer_thread(daemon.pid())));
    let strace = Process::start(&mut strace);
    strace.wait_for_stderr("attached");
    let mut raw = daemon.raw();
    raw.send(&post(BANK)).unwrap();
    assert!(ear.hears_nothing(), "the writer hangs and nobody is told");
    let answer = raw.answer(DEADLINE).expect("an answer at its deadline");
    assert_eq!(answer.status, 503, "{}", answer.body());
    daemon.status(); // answers
    ear.hear_watchdog(5, DEADLINE);
    serves(&mut daemon);
}

pub fn writer_thread(pid: u32) -> String {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let mut tasks = tasks.map(|task| task.unwrap());
    let writer = tasks.find(|task| {
        std::fs::read_to_string(task.path().join("comm")).is_ok_and(|name| name == "audit-writer\n")
    });
    let writer = writer.expect("assertd has a thread of this name");
    writer.file_name().into_string().unwrap()
}

#[test]
fn a_service_manager_that_is_gone_stops_no_service() {
    let token = Token::new();
    let (site, ear) = (with_keys(&token), Ear::new());
    let mut command = watched(&site, &ear);
    std::fs::remove_file(ear.path()).unwrap();
    let mut daemon = Daemon::ready(Process::start(&mut command), site);
    serves(&mut daemon);
    assert_eq!(daemon.stop(), Some(0), "{}", daemon.stderr());
    assert!(daemon.stderr().contains("NOTIFY_SOCKET"));
}

#[test]
fn a_service_manager_that_does_not_listen_stops_no_service() {
    let token = Token::new();
    let (site, ear) = (with_keys(&token), Ear::new());
    let mut daemon = Daemon::ready(Process::start(&mut watched(&site, &ear)), site);
    let probe = UnixDatagram::unbound().unwrap();
    probe.connect(ear.path()).unwrap();
    probe.set_nonblocking(true).unwrap();
    let full = wait_until(DEADLINE, || probe.send(b"X_TEST=1").is_err());
    assert!(full, "the queue of the socket was to fill up");
    assert!(probe.send(b"X_TEST=1").is_err());
    for _ in 0..4 {
        serves(&mut daemon);
    }
    assert_eq!(daemon.stop(), Some(0), "{}", daemon.stderr());
}

/// Puts standard input and output at descriptors 3 and 4, as a service manager would, and becomes
/// assertd: the process id stays.
const PASS: &str = "
import os, sys
os.dup2(0, 3)
os.dup2(1, 4)
null = os.open('/dev/null', os.O_RDWR)
os.dup2(null, 0)
os.dup2(null, 1)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS='2', LISTEN_FDNAMES=sys.argv[1])
os.execv(sys.argv[2], sys.argv[2:])
";

/// The two sockets that outlive every assertd.
struct Sockets {
    workload: UnixListener,
    admin: UnixListener,
}

impl Sockets {
    /// At the site's usual paths, so that the harness finds them.
    fn bind(site: &Site) -> Sockets {
        let run = site.runtime_dir();
        std::fs::create_dir(&run).unwrap();
        let bind = |name: &str| UnixListener::bind(run.join(name)).unwrap();
        Sockets {
            workload: bind("assertd.sock"),
            admin: bind("admin.sock"),
        }
    }

    /// Starts assertd with them under these names.
    fn pass(&self, names: &str, site: &Site) -> Process {
        let descriptor = |listener: &UnixListener| OwnedFd::from(listener.try_clone().unwrap());
        let (workload, admin) = (descriptor(&self.workload), descriptor(&self.admin));
        pass(workload, admin, names, site)
    }
}

fn pass(first: OwnedFd, second: OwnedFd, names: &str, site: &Site) -> Process {
    let assertd = site.command();
    let mut python = Command::new("/usr/bin/python3");
    python.args(["-I", "-c", PASS, names]);
    python.arg(assertd.get_program()).args(assertd.get_args());
    Process::start(python.stdin(first).stdout(second))
}

#[test]
fn passed_sockets_are_served_and_no_connection_is_refused_over_a_restart() {
    let token = Token::new();
    let site = Site::new(bank(&token).text());
    let sockets = Sockets::bind(&site);
    let early = Raw::connect(&site.runtime_dir().join("assertd.sock"));
    let mut daemon = Daemon::ready(sockets.pass("workload:admin", &site), site);
    daemon.apply(); // over the admin socket
    let mut waiting = vec![early];
    for _ in 0..3 {
        waiting.push(daemon.raw());
        let (first, rest) = waiting.split_first_mut().unwrap();
        first.send(&post(BANK)).unwrap();
        assert_eq!(first.answer(DEADLINE).expect("an answer").status, 200);
        assert_eq!(rest.len(), 1);
        assert_eq!(daemon.stop(), Some(0), "{}", daemon.stderr());

        // Nobody accepts now; a connection and a request on it can be made all the same.
        let socket = daemon.socket();
        let site = daemon.into_site();
        waiting = (0..20).map(|_| Raw::connect(&socket)).collect();
        for raw in &mut waiting {
            raw.send(&post(BANK)).unwrap();
        }
        daemon = Daemon::ready(sockets.pass("workload:admin", &site), site);
        for raw in &mut waiting {
            let answer = raw.answer(DEADLINE).expect("an answer after the start");
            assert_eq!(answer.status, 200, "{}\n{}", answer.body(), daemon.stderr());
        }
        waiting.truncate(1);
        serves(&mut daemon);
    }
}

#[test]
fn a_passed_socket_of_an_unknown_name_ends_the_start_with_78() {
    let token = Token::new();
    let site = Site::new(bank(&token).text());
    let sockets = Sockets::bind(&site);
    let mut process = sockets.pass("workload:metrics", &site);
    let ended = process.wait(DEADLINE);
    assert_eq!(ended.code(), Some(78), "{}", process.stderr());
    let said = process.stderr();
    assert!(
        said.contains("`metrics`") && said.contains("FileDescriptorName="),
        "{said}"
    );
}

#[test]
fn a_passed_socket_on_which_nobody_can_connect_ends_the_start_with_78() {
    let token = Token::new();
    let site = Site::new(bank(&token).text());
    let sockets = Sockets::bind(&site);
    // Accept=yes: one connection instead of the listener. And one of another family.
    let (connection, _other) = UnixStream::pair().unwrap();
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    for wrong in [OwnedFd::from(connection), OwnedFd::from(tcp)] {
        let admin = OwnedFd::from(sockets.admin.try_clone().unwrap());
        let mut process = pass(wrong, admin, "workload:admin", &site);
        let ended = process.wait(DEADLINE);
        assert_eq!(ended.code(), Some(78), "{}", process.stderr());
        let said = process.stderr();
        assert!(
            said.contains("`workload`") && said.contains("ListenStream="),
            "{said}"
        );
    }
}

#[test]
fn sockets_that_were_passed_to_another_process_are_not_taken() {
    let token = Token::new();
    let site = with_keys(&token);
    let mut command = site.command();
    command.envs([
        ("LISTEN_PID", "1"),
        ("LISTEN_FDS", "2"),
        ("LISTEN_FDNAMES", "a:b"),
    ]);
    let mut daemon = Daemon::ready(Process::start(&mut command), site);
    serves(&mut daemon);
}
