//! `assertctl check` where no systemd runs: what it says of an assertd that somebody has started,
//! what it finds when that one is broken in one place, that it ends, and that it touches nothing.
//! Units, users and credentials are looked at in the box of `tests/units`.

use harness::daemon::Site;
use harness::{Config, Daemon, SoftHsm, Tpm, public_dir};
use nix::sys::signal::Signal;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs::{self, File, Permissions};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// Everybody who runs these tests is root.
const ROOT: u32 = 0;

/// Longer than the sum of all its deadlines here, on a machine that is busy.
const ENDED: Duration = Duration::from_secs(60);

fn config(token: &SoftHsm) -> Config {
    Config::new(token)
        .workload("w", ROOT, "owner = \"w@example.com\"\nexpires = 2999-01-01")
        .target("w", "bank", "")
}

/// A place whose configuration root alone can change, whatever the umask of the test.
fn site(config: &Config) -> Site {
    site_of(config.text())
}

fn site_of(text: &str) -> Site {
    let site = Site::new(text);
    fs::set_permissions(site.config(), Permissions::from_mode(0o644)).unwrap();
    site
}

fn started(token: &SoftHsm) -> Daemon {
    let daemon = Daemon::start_at(site(&config(token)));
    daemon.apply();
    daemon
}

/// What the doctor says of this place.
#[derive(Debug)]
struct Report {
    exit: i32,
    findings: Vec<Value>,
}

fn examine(site: &Site) -> Report {
    let begun = Instant::now();
    let output = Command::new(site.programs().assertctl())
        .args(["check", "--json", "--config"])
        .arg(site.config())
        .output()
        .unwrap();
    assert!(begun.elapsed() < ENDED, "{:?}", begun.elapsed());
    let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
        let said = String::from_utf8_lossy(&output.stderr);
        panic!("{error}: {said}")
    });
    let findings = report["findings"].as_array().unwrap().clone();
    let fails = findings.iter().any(|it| it["severity"] == "fail");
    assert_eq!(report["format"], 1);
    assert_eq!(report["ok"], !fails);
    assert_eq!(output.status.code(), Some(i32::from(fails)), "{report:#}");
    for finding in &findings {
        assert_eq!(
            finding["remedy"].is_null(),
            finding["severity"] == "ok",
            "{finding}"
        );
    }
    Report {
        exit: output.status.code().unwrap(),
        findings,
    }
}

impl Report {
    fn severity(&self, id: &str) -> Option<&str> {
        let found = self.findings.iter().find(|it| it["id"] == id)?;
        found["severity"].as_str()
    }

    /// The remedy of the one finding of this id.
    #[track_caller]
    fn remedy(&self, id: &str, severity: &str) -> &str {
        let mut found = self.findings.iter().filter(|it| it["id"] == id);
        let one = found.next().unwrap_or_else(|| panic!("no {id}: {self:#?}"));
        assert_eq!(one["severity"], severity, "{one}");
        one["remedy"].as_str().unwrap()
    }

    /// The ids of everything that fails.
    fn fails(&self) -> Vec<&str> {
        let fails = self.findings.iter().filter(|it| it["severity"] == "fail");
        fails.map(|it| it["id"].as_str().unwrap()).collect()
    }
}

#[test]
fn a_healthy_assertd_without_units_has_warnings_and_no_failure() {
    let token = SoftHsm::new();
    let daemon = started(&token);
    let report = examine(daemon.site());
    assert_eq!(report.fails(), [""; 0], "{report:#?}");
    assert_eq!(report.exit, 0);
    let of_units: Vec<&Value> = report
        .findings
        .iter()
        .filter(|it| it["area"] == "units")
        .collect();
    assert_eq!(of_units.len(), 1, "{of_units:#?}");
    assert_eq!(of_units[0]["severity"], "warn");
    for id in [
        "D12", "D14", "D17", "D23", "D40", "D50", "D60", "D70", "D81", "D91",
    ] {
        assert_eq!(report.severity(id), Some("ok"), "{id}: {report:#?}");
    }
    let text = daemon.assertctl(&["check"]);
    let text = String::from_utf8(text.stdout).unwrap();
    assert!(
        text.contains("\nok    keystore    hsm: token \"workloads\""),
        "{text}"
    );
    assert!(text.ends_with(" warn, 0 FAIL\n"), "{text}");
}

/// The kernel's word, asked by another program (adjtimex(2): STA_UNSYNC is 0x40, at offset 40).
#[test]
fn the_clock_is_judged_by_the_kernels_word() {
    let script = "import ctypes; b = (ctypes.c_char * 256)(); \
                  assert ctypes.CDLL(None).adjtimex(b) >= 0; \
                  print(int.from_bytes(b[40:44], 'little') & 64)";
    let kernel = Command::new("/usr/bin/python3")
        .args(["-I", "-c", script])
        .output()
        .unwrap();
    assert!(kernel.status.success(), "{kernel:?}");
    let report = examine(&Site::new(""));
    match kernel.stdout.as_slice() {
        b"0\n" => assert_eq!(report.severity("D05"), Some("ok")),
        b"64\n" => {
            let remedy = report.remedy("D05", "warn");
            assert!(remedy.contains("timedatectl set-ntp true"), "{remedy}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn each_broken_mode_is_found_and_its_remedy_mends_it() {
    let token = SoftHsm::new();
    let daemon = started(&token);
    let (config, pin) = (daemon.site().config(), token.pin_file());
    for (path, mode, id) in [
        (config, 0o666, "D14"),
        (pin, 0o644, "D23"),
        (daemon.site().state_dir(), 0o755, "D50"),
        (daemon.audit_dir(), 0o770, "D50"),
        (daemon.socket(), 0o600, "D42"),
        (daemon.admin_socket(), 0o666, "D42"),
        (daemon.keystore_socket("hsm"), 0o666, "D42"),
    ] {
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        let report = examine(daemon.site());
        assert_eq!(report.fails(), [id], "{}: {report:#?}", path.display());
        let remedy = report.remedy(id, "fail");
        assert!(remedy.contains(path.to_str().unwrap()), "{remedy}");
        let command = remedy.split('`').nth(1).unwrap();
        let done = Command::new("/bin/sh")
            .args(["-euc", command])
            .status()
            .unwrap();
        assert!(done.success(), "{command}");
        let report = examine(daemon.site());
        assert_eq!(report.fails(), [""; 0], "after {command}: {report:#?}");
    }
}

#[test]
fn a_module_in_a_directory_of_others_is_found() {
    let (token, dir) = (SoftHsm::new(), public_dir());
    let (vendor, module) = (
        dir.path().join("vendor"),
        dir.path().join("vendor/module.so"),
    );
    fs::create_dir(&vendor).unwrap();
    fs::copy(token.module(), &module).unwrap();
    let text = config(&token).text().replace(
        &token.module().display().to_string(),
        &module.display().to_string(),
    );
    let site = Site::new(&text);
    fs::set_permissions(&vendor, Permissions::from_mode(0o777)).unwrap();
    let remedy = examine(&site).remedy("D17", "fail").to_owned();
    assert_eq!(remedy, format!("run `chmod go-w {}`", vendor.display()));
    fs::set_permissions(&vendor, Permissions::from_mode(0o755)).unwrap();
    assert_eq!(examine(&site).severity("D17"), Some("ok"));
    fs::remove_file(&module).unwrap();
    let report = examine(&site);
    let remedy = report.remedy("D16", "fail");
    assert!(
        remedy.contains("correct `module` in [keystore.hsm]"),
        "{remedy}"
    );
}

#[test]
fn a_tpm_is_looked_at_and_an_emulator_is_told_loudly() {
    let tpm = Tpm::new();
    let text = Config::new(&tpm)
        .workload("w", ROOT, "owner = \"w@example.com\"\nexpires = 2999-01-01")
        .target("w", "bank", "");
    let daemon = Daemon::start_at(site(&text));
    daemon.apply();
    let report = examine(daemon.site());
    assert_eq!(report.fails(), [""; 0], "{report:#?}");
    assert_eq!(report.severity("D23"), Some("ok"), "{report:#?}");
    let emulator = report.findings.iter().find(|it| it["id"] == "D27").unwrap();
    let said = emulator["text"].as_str().unwrap();
    assert!(said.contains("AN EMULATOR PROTECTS NOTHING"), "{said}");
    assert!(
        report
            .remedy("D27", "warn")
            .contains("leave `tcti` out of [keystore.")
    );

    // There is a key: no remedy makes another secret.
    for bytes in [Some(&b"secret"[..]), None] {
        fs::remove_file(tpm.auth_file()).unwrap();
        if let Some(bytes) = bytes {
            let mut options = fs::OpenOptions::new();
            let options = options.write(true).create_new(true).mode(0o400);
            let mut file = options.open(tpm.auth_file()).unwrap();
            std::io::Write::write_all(&mut file, bytes).unwrap();
        }
        let report = examine(daemon.site());
        let remedy = report.remedy("D23", "fail");
        assert!(remedy.contains("bring it back from a backup"), "{remedy}");
        assert!(!remedy.contains("urandom"), "{remedy}");
    }
}

#[test]
fn a_tpm_that_is_not_there_or_no_tpm_is_found() {
    let tpm = Tpm::new();
    let of = |tcti: &str| {
        let text = Config::new(&tpm).text().replace(&tpm.tcti(), tcti);
        examine(&site_of(&text))
    };
    let report = of("device:/dev/tpm-that-is-not-there");
    assert_eq!(report.severity("D24"), Some("fail"), "{report:#?}");
    let report = of("device:/etc/passwd");
    assert!(report.remedy("D24", "fail").contains("leave `tcti` out"));
    let report = of("device:/dev/null");
    assert_eq!(report.severity("D24"), None, "{report:#?}");
    assert_eq!(report.severity("D27"), Some("warn"), "{report:#?}");
}

#[test]
fn what_a_keystore_says_becomes_a_remedy() {
    let token = SoftHsm::new();
    let mut wrong = fs::OpenOptions::new()
        .write(true)
        .open(token.pin_file())
        .unwrap();
    std::io::Write::write_all(&mut wrong, b"00000000").unwrap();
    let daemon = Daemon::start_at(site(&config(&token)));
    out_of_service(&daemon);
    let report = examine(daemon.site());
    let remedy = report.remedy("D72", "fail");
    assert!(
        remedy.contains(token.pin_file().to_str().unwrap()),
        "{remedy}"
    );
    assert!(remedy.contains("`kill "), "{remedy}");

    fs::remove_file(token.pin_file()).unwrap();
    let daemon = daemon.restart();
    out_of_service(&daemon);
    let report = examine(daemon.site());
    assert!(report.remedy("D71", "fail").contains("write the PIN to"));
    assert!(report.remedy("D23", "fail").contains("install -m 0400"));
    assert!(report.remedy("D80", "fail").contains("apply"));
}

/// Waits until its keystore cannot serve because of its PIN.
fn out_of_service(daemon: &Daemon) {
    let failed = harness::wait_until(harness::DEADLINE, || {
        daemon.status().keystores.iter().all(|keystore| {
            keystore
                .why
                .as_deref()
                .is_some_and(|why| why.contains("PIN"))
        })
    });
    assert!(failed, "{:?}", daemon.status().keystores);
}

#[test]
fn a_socket_that_was_taken_is_found() {
    let token = SoftHsm::new();
    let daemon = started(&token);
    fs::remove_file(daemon.socket()).unwrap();
    let report = examine(daemon.site());
    assert!(
        report
            .remedy("D40", "fail")
            .contains(&format!("kill {}", daemon.pid()))
    );
    File::create(daemon.socket()).unwrap();
    let report = examine(daemon.site());
    assert!(report.remedy("D41", "fail").contains("mv "), "{report:#?}");
    fs::remove_file(daemon.socket()).unwrap();
    let _thief = UnixListener::bind(daemon.socket()).unwrap();
    let report = examine(daemon.site());
    let remedy = report.remedy("D41", "fail");
    assert!(
        remedy.contains(&format!("kill {}`", std::process::id())),
        "{remedy}"
    );
}

#[test]
fn a_configuration_and_a_program_that_are_newer_than_what_runs_are_found() {
    let token = SoftHsm::new();
    let daemon = started(&token);
    let text = fs::read_to_string(daemon.site().config()).unwrap();
    fs::write(daemon.site().config(), format!("{text}\n# changed\n")).unwrap();
    let report = examine(daemon.site());
    assert!(report.remedy("D61", "warn").contains("reload`"));
    let program = daemon.site().programs().assertd();
    let newer = program.with_extension("new");
    fs::copy(&program, &newer).unwrap();
    fs::rename(&newer, &program).unwrap();
    let report = examine(daemon.site());
    assert!(report.remedy("D62", "warn").contains("start it again"));
}

#[test]
fn an_assertd_that_stands_still_holds_nobody_up() {
    let token = SoftHsm::new();
    let daemon = started(&token);
    daemon.freeze();
    let report = examine(daemon.site());
    daemon.signal(Signal::SIGCONT);
    let remedy = report.remedy("D60", "fail");
    assert!(
        remedy.contains("end assertd and start it again"),
        "{remedy}"
    );
}

#[test]
fn an_absent_assertd_and_a_broken_configuration_hide_nothing_else() {
    let token = SoftHsm::new();
    let site = started(&token).into_site();
    let report = examine(&site);
    assert_eq!(report.fails(), ["D60"], "{report:#?}");
    let start = format!("start it: `assertd -c {}`", site.config().display());
    assert_eq!(report.remedy("D60", "fail"), start);

    let text = fs::read_to_string(site.config()).unwrap();
    fs::write(site.config(), format!("{text}\n[workload.b]\nmach = 1\n")).unwrap();
    fs::set_permissions(token.pin_file(), Permissions::from_mode(0o644)).unwrap();
    let report = examine(&site);
    assert_eq!(report.fails(), ["D12", "D23", "D60"], "{report:#?}");
    let broken = report.findings.iter().find(|it| it["id"] == "D12").unwrap();
    let line = text.lines().count() + 3;
    let place = format!("{}:{line}:1: unknown key `mach`", site.config().display());
    assert!(
        broken["text"].as_str().unwrap().starts_with(&place),
        "{broken}"
    );
    assert_eq!(
        report.severity("D91"),
        Some("ok"),
        "the log is read all the same"
    );
}

#[test]
fn a_changed_record_is_found() {
    let token = SoftHsm::new();
    let daemon = started(&token);
    let (dir, site) = (daemon.audit_dir(), daemon.into_site());
    let log = fs::read_dir(&dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.extension().is_some_and(|extension| extension == "log"))
        .unwrap();
    let mut bytes = fs::read(&log).unwrap();
    let at = bytes
        .windows(8)
        .position(|window| window == b"\"opened\"")
        .unwrap();
    bytes[at + 1] = b'O';
    fs::write(&log, bytes).unwrap();
    let report = examine(&site);
    let remedy = report.remedy("D91", "fail");
    assert!(
        remedy.contains(&format!("mv {0} {0}.evidence", dir.display())),
        "{remedy}"
    );
}

#[test]
fn looking_changes_nothing() {
    let token = SoftHsm::new();
    let site = started(&token).into_site();
    let before = tree(site.config().parent().unwrap());
    examine(&site);
    assert_eq!(tree(site.config().parent().unwrap()), before);
}

/// Every path below a directory with what a change would change.
fn tree(dir: &Path) -> BTreeMap<PathBuf, (u32, u32, u64, i64, i64)> {
    let mut found = BTreeMap::new();
    let mut left = vec![dir.to_owned()];
    while let Some(path) = left.pop() {
        let it = path.symlink_metadata().unwrap();
        if it.is_dir() {
            left.extend(
                fs::read_dir(&path)
                    .unwrap()
                    .map(|entry| entry.unwrap().path()),
            );
        }
        found.insert(
            path,
            (it.mode(), it.uid(), it.len(), it.ctime(), it.ctime_nsec()),
        );
    }
    found
}
