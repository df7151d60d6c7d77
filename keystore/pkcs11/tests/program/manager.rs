//! Under a service manager: what it is told (sd_notify(3)), and what is served while something is
//! missing that only an administrator can bring.

use crate::site::{
    DEADLINE, Running, health, prepare, prepare_with, program, start, start_told, write,
};
use keystore::protocol::Standing;
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

/// The manager's watchdog: a third of it is the time between two messages.
const WATCHDOG_USEC: &str = "300000";

/// The manager's end of NOTIFY_SOCKET.
struct Ear(UnixDatagram);

impl Ear {
    fn new(dir: &Path) -> Ear {
        let socket = UnixDatagram::bind(dir.join("notify")).unwrap();
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        Ear(socket)
    }

    fn hear(&self) -> String {
        let mut bytes = [0; 4096];
        let length = self.0.recv(&mut bytes).expect("a message in time");
        String::from_utf8(bytes[..length].to_vec()).unwrap()
    }

    fn hear_until(&self, wanted: &str) -> Vec<String> {
        let mut heard = Vec::new();
        let end = Instant::now() + DEADLINE;
        loop {
            assert!(Instant::now() < end, "no {wanted:?} in {heard:?}");
            let said = self.hear();
            let found = said.contains(wanted);
            heard.push(said);
            if found {
                return heard;
            }
        }
    }
}

fn start_watched(dir: &Path) -> Running {
    let socket = dir.join("notify");
    let told = [
        ("NOTIFY_SOCKET", socket.to_str().unwrap()),
        ("WATCHDOG_USEC", WATCHDOG_USEC),
    ];
    start_told(nix::unistd::geteuid().as_raw(), dir, &told)
}

#[test]
fn it_is_ready_before_the_token_is_opened_and_feeds_the_watchdog() {
    let dir = tempfile::tempdir().unwrap();
    prepare_with(dir.path(), "123456\n", &pkcs11_shim::module_path());
    write(&dir.path().join("rules"), "C_Initialize 1 delay:1500\n");
    let ear = Ear::new(dir.path());
    let _running = start_watched(dir.path());
    let first = ear.hear();
    assert_eq!(first, "READY=1\nSTATUS=opening the token\n");
    // The shim holds the first call of the module back for longer than the watchdog's time.
    let heard = ear.hear_until("STATUS=usable: ");
    let fed = heard.iter().filter(|said| *said == "WATCHDOG=1\n").count();
    assert!(fed >= 3, "{heard:?}");
}

#[test]
fn a_call_that_hangs_ends_in_the_managers_watchdog() {
    let dir = tempfile::tempdir().unwrap();
    prepare_with(dir.path(), "123456\n", &pkcs11_shim::module_path());
    write(&dir.path().join("rules"), "C_Initialize 1 hang\n");
    let config = dir.path().join("assertd.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::remove_file(&config).unwrap();
    write(&config, &format!("{text}hang_limit_s = 1\n"));
    let ear = Ear::new(dir.path());
    let mut running = start_watched(dir.path());
    let heard = ear.hear_until("WATCHDOG=trigger");
    assert_eq!(heard[0], "READY=1\nSTATUS=opening the token\n");
    // This manager does nothing, so the process ends itself.
    let ended = running.0.wait().unwrap();
    assert_eq!(ended.signal(), Some(6), "{ended}");
}

#[test]
fn a_broken_configuration_is_served_as_a_failure_until_it_is_mended() {
    let dir = tempfile::tempdir().unwrap();
    prepare(dir.path(), "123456\n");
    let config = dir.path().join("assertd.toml");
    let good = std::fs::read_to_string(&config).unwrap();
    std::fs::remove_file(&config).unwrap();
    write(&config, &good.replace("module =", "modul ="));
    let mut running = start(dir.path());
    match health(dir.path()).standing {
        Standing::Degraded { why, .. } => {
            assert!(
                why.contains("assertd.toml:3:1: unknown key `modul`"),
                "{why}"
            );
        }
        other => panic!("{other:?}"),
    }
    std::fs::remove_file(&config).unwrap();
    write(&config, &good);
    let end = Instant::now() + DEADLINE;
    // Connections are cut while it starts again.
    let usable = || std::panic::catch_unwind(|| health(dir.path()).standing).ok();
    while usable() != Some(Standing::Usable {}) {
        assert!(Instant::now() < end, "it was not read again");
        std::thread::park_timeout(Duration::from_millis(50));
    }
    assert!(running.0.try_wait().unwrap().is_none(), "the same process");
}

#[test]
fn a_failed_start_waits_before_it_ends_under_a_manager_alone() {
    let dir = tempfile::tempdir().unwrap();
    prepare(dir.path(), "123456\n");
    let ear = Ear::new(dir.path());
    let mut command = program();
    command
        .args([
            "--name",
            "hsm",
            "--listen-stdin",
            "--broker-user",
            "nobody-of-that-name",
        ])
        .arg("--config")
        .arg(dir.path().join("assertd.toml"))
        .arg("--state-dir")
        .arg(dir.path().join("state"))
        .stdin(Stdio::null());
    let begun = Instant::now();
    let alone = command.output().unwrap();
    assert!(begun.elapsed() < keystore::notify::FAILED_START_PAUSE);
    command.env("NOTIFY_SOCKET", dir.path().join("notify"));
    let begun = Instant::now();
    let managed = command.output().unwrap();
    assert!(begun.elapsed() >= keystore::notify::FAILED_START_PAUSE);
    for ended in [alone, managed] {
        let shown = String::from_utf8_lossy(&ended.stderr).into_owned();
        assert_eq!(ended.status.code(), Some(69), "{shown}");
        assert!(shown.contains("run systemd-sysusers"), "{shown}");
    }
    assert!(ear.hear().contains("run systemd-sysusers"));
}
