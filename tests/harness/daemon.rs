//! assertd as a real process, with its keystores as its children, in a directory of its own.

use crate::http::{Answer, Raw};
use crate::process::{self, Process};
use crate::programs::Programs;
use crate::{DEADLINE, public_dir, wait_until};
use assertd_client::Client;
use assertd_client::api::{KeyStatus, Status};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use tempfile::TempDir;

/// Where one assertd lives: programs, configuration, sockets, state. Outlives its process, so that
/// it can be started again.
pub struct Site {
    programs: Programs,
    dir: TempDir,
}

impl Site {
    /// With this configuration, to which the `[server]` section is added.
    pub fn new(config: &str) -> Site {
        let site = Site {
            programs: Programs::installed(),
            dir: public_dir(),
        };
        site.configure(config);
        site
    }

    /// Writes another configuration.
    pub fn configure(&self, config: &str) {
        let (run, state) = (self.runtime_dir(), self.state_dir());
        let server = format!(
            "[server]\nruntime_dir = \"{}\"\nstate_dir = \"{}\"\n",
            run.display(),
            state.display()
        );
        std::fs::write(self.config(), format!("{server}{config}")).unwrap();
    }

    /// assertd.toml
    pub fn config(&self) -> PathBuf {
        self.dir.path().join("assertd.toml")
    }

    /// Sockets.
    pub fn runtime_dir(&self) -> PathBuf {
        self.dir.path().join("run")
    }

    /// The broker's state, with the audit log and the keystores' state below.
    pub fn state_dir(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    /// A keystore's state, where the broker starts it itself.
    pub fn keystore_state(&self, name: &str) -> PathBuf {
        self.state_dir().join("keystore").join(name)
    }

    /// The programs.
    pub fn programs(&self) -> &Programs {
        &self.programs
    }

    /// The command that starts assertd here, to be changed before it is run.
    pub fn command(&self) -> Command {
        let mut command = Command::new(self.programs.assertd());
        command.arg("--config").arg(self.config());
        for name in [
            "NOTIFY_SOCKET",
            "LISTEN_FDS",
            "LISTEN_PID",
            "LISTEN_FDNAMES",
            "WATCHDOG_USEC",
            "WATCHDOG_PID",
        ] {
            command.env_remove(name);
        }
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command
    }
}

/// A running assertd.
pub struct Daemon {
    process: Process,
    site: Site,
}

impl Daemon {
    /// Starts one and waits until it is ready; panics with what it said otherwise.
    pub fn start(config: impl AsRef<str>) -> Daemon {
        Daemon::start_at(Site::new(config.as_ref()))
    }

    /// Starts one and has its keys made.
    pub fn with_keys(config: impl AsRef<str>) -> Daemon {
        let daemon = Daemon::start(config);
        daemon.apply();
        daemon
    }

    /// Starts one at a place that may have seen others.
    pub fn start_at(site: Site) -> Daemon {
        let process = Process::start(&mut site.command());
        Daemon::ready(process, site)
    }

    /// Takes over a process that was started by [`Site::command`].
    pub fn ready(mut process: Process, site: Site) -> Daemon {
        let ready = wait_until(DEADLINE, || {
            process.stderr().contains("assertd: ready:") || process.ended().is_some()
        });
        let ended = process.ended();
        assert!(
            ready && ended.is_none(),
            "assertd is not ready ({ended:?}):\n{}",
            process.stderr()
        );
        Daemon { process, site }
    }

    /// Ends it as systemd would and starts it again.
    pub fn restart(mut self) -> Daemon {
        assert_eq!(self.stop(), Some(0), "{}", self.stderr());
        Daemon::start_at(self.into_site())
    }

    /// Ends it for good; what is left is the place.
    pub fn into_site(self) -> Site {
        drop(self.process);
        self.site
    }

    /// assertd's process id.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Whether it still is the process that was started.
    pub fn lives(&mut self) -> bool {
        self.process.ended().is_none()
    }

    /// Process id of its only keystore.
    pub fn keystore_pid(&self) -> u32 {
        let mut children = process::children(self.pid());
        let program = |pid: &u32| std::fs::read_link(format!("/proc/{pid}/exe")).ok();
        let beside =
            |exe: PathBuf| exe.ends_with("assertd-witness") || exe.ends_with("assertd-courier");
        children.retain(|pid| !program(pid).is_some_and(beside));
        assert_eq!(
            children.len(),
            1,
            "keystore processes of assertd: {children:?}"
        );
        children[0]
    }

    /// Process id of the keystore of this name, if its process runs.
    pub fn keystore_process(&self, name: &str) -> Option<u32> {
        let is_named = |pid: &u32| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let words: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
            words
                .windows(2)
                .any(|two| two == [b"--name", name.as_bytes()])
        };
        process::children(self.pid()).into_iter().find(is_named)
    }

    /// What it and its keystores have said.
    pub fn stderr(&self) -> String {
        self.process.stderr()
    }

    /// Where it lives.
    pub fn site(&self) -> &Site {
        &self.site
    }

    /// The workloads' socket.
    pub fn socket(&self) -> PathBuf {
        self.site.runtime_dir().join("assertd.sock")
    }

    /// The administrators' socket.
    pub fn admin_socket(&self) -> PathBuf {
        self.site.runtime_dir().join("admin.sock")
    }

    /// A keystore's socket.
    pub fn keystore_socket(&self, name: &str) -> PathBuf {
        self.site
            .runtime_dir()
            .join(format!("keystore-{name}.sock"))
    }

    /// The audit log's directory.
    pub fn audit_dir(&self) -> PathBuf {
        self.site.state_dir().join("audit")
    }

    /// A connection of this process to the workloads' socket.
    pub fn client(&self) -> Client {
        Client::connect(&self.socket()).unwrap()
    }

    /// A connection to the administrators' socket.
    pub fn admin(&self) -> Client {
        Client::connect(&self.admin_socket()).unwrap()
    }

    /// The daemon at a glance.
    pub fn status(&self) -> Status {
        self.admin().status().unwrap()
    }

    /// The same, if it answers now: a daemon short of descriptors turns administrators away too.
    pub fn try_status(&self) -> Option<Status> {
        self.admin().status().ok()
    }

    /// All keys.
    pub fn keys(&self) -> Vec<KeyStatus> {
        self.admin().keys().unwrap().keys
    }

    /// The public keys as they are published.
    pub fn jwks(&self) -> Value {
        json!({ "keys": self.keys().into_iter().map(|key| key.jwk).collect::<Vec<_>>() })
    }

    /// Makes the keys that the configuration wants; returns what assertctl said of it.
    pub fn apply(&self) -> String {
        self.wait_usable();
        let applied = self.assertctl(&["apply", "--yes", "--max", "1000"]);
        let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (stdout, stderr) = (said(&applied.stdout), said(&applied.stderr));
        assert!(
            applied.status.success(),
            "{stdout}{stderr}\n{}",
            self.stderr()
        );
        stdout
    }

    /// Waits until every keystore can sign.
    pub fn wait_usable(&self) {
        let mut last = String::new();
        let usable = wait_until(DEADLINE, || {
            let keystores = self.status().keystores;
            last = format!("{keystores:?}");
            keystores.iter().all(|keystore| keystore.state == "usable")
        });
        assert!(usable, "keystores: {last}\n{}", self.stderr());
    }

    /// Runs assertctl with this daemon's sockets and configuration, as root.
    pub fn assertctl(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(self.site.programs.assertctl());
        command
            .arg("--config")
            .arg(self.site.config())
            .args(arguments)
            .stdin(Stdio::null());
        command.output().unwrap()
    }

    /// A raw connection to the workloads' socket.
    pub fn raw(&self) -> Raw {
        Raw::connect(&self.socket())
    }

    /// Asks for an assertion in one raw request of this process and waits for the answer.
    pub fn ask(&self, body: &str) -> Answer {
        let mut raw = self.raw();
        raw.send(&crate::http::post(body)).unwrap();
        raw.answer(DEADLINE).expect("an answer in time")
    }

    /// The audit log's records, oldest first, read from its files without the product's help.
    pub fn audit_records(&self) -> Vec<Value> {
        audit_records(&self.audit_dir())
    }

    /// Waits until the log has a record like that and returns the first.
    pub fn audit_record(&self, wanted: impl Fn(&Value) -> bool) -> Value {
        let found = crate::wait_for(DEADLINE, || self.audit_records().into_iter().find(&wanted));
        found.unwrap_or_else(|| panic!("no such record in {:#?}", self.audit_records()))
    }

    /// Stops assertd as SIGSTOP does, for SIGCONT to go on.
    pub fn freeze(&self) {
        process::freeze(self.pid());
    }

    /// Sends a signal to assertd.
    pub fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// SIGTERM, then its exit code; `None` if a signal ended it.
    pub fn stop(&mut self) -> Option<i32> {
        self.signal(Signal::SIGTERM);
        self.exit_code()
    }

    /// Waits for its end; `None` if a signal ended it.
    pub fn exit_code(&mut self) -> Option<i32> {
        self.process.wait(DEADLINE).code()
    }
}

/// The records below a directory.
pub fn audit_records(dir: &Path) -> Vec<Value> {
    audit_records_holding(dir, "")
}

/// Those of them in whose line this text stands; segments are preallocated, zeros end what is written.
pub fn audit_records_holding(dir: &Path, text: &str) -> Vec<Value> {
    let entries = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let mut segments: Vec<PathBuf> = entries
        .filter(|path| path.extension().is_some_and(|extension| extension == "log"))
        .collect();
    segments.sort(); // names hold the first sequence number with leading zeros
    let mut records = Vec::new();
    for segment in segments {
        let bytes = std::fs::read(&segment).unwrap();
        let written = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
        // A line without its end is still being written.
        let whole = written
            .iter()
            .rposition(|byte| *byte == b'\n')
            .map_or(0, |end| end + 1);
        let lines = std::str::from_utf8(&written[..whole]).unwrap().lines();
        let lines = lines.filter(|line| !line.is_empty() && line.contains(text));
        records.extend(lines.map(|line| serde_json::from_str::<Value>(line).unwrap()));
    }
    records
}
