//! What a module that has been taken over could do: the shim in place of the vendor's module tries
//! it from inside the keystore's process. The same module in a process without our sandbox, with
//! the same user and the same files, is the control.

use crate::world::{BANK, us};
use harness::softhsm::MODULE;
use harness::{Config, DEADLINE, Daemon, SoftHsm, Token, public_dir, wait_until};
use nix::errno::Errno;
use std::collections::BTreeMap;
use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// The shim's files, which are its state, and what it is to reach for.
struct Bait {
    dir: TempDir,
    tcp: TcpListener,
    name: String,
    _abstract: UnixListener,
    _unix: UnixListener,
}

impl Bait {
    fn new() -> Bait {
        let dir = public_dir();
        let path = dir.path();
        std::fs::create_dir(path.join("shim")).unwrap();
        std::fs::create_dir(path.join("others")).unwrap();
        std::fs::write(path.join("others/secret"), "s").unwrap();
        let name = format!("assertd-test-{}", path.display());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        Bait {
            tcp: TcpListener::bind("127.0.0.1:0").unwrap(),
            _abstract: UnixListener::bind_addr(&address).unwrap(),
            _unix: UnixListener::bind(path.join("others/socket")).unwrap(),
            name,
            dir,
        }
    }

    fn shim(&self, name: &str) -> PathBuf {
        self.dir.path().join("shim").join(name)
    }

    fn others(&self, name: &str) -> PathBuf {
        self.dir.path().join("others").join(name)
    }

    fn environment(&self, token: &SoftHsm) -> BTreeMap<&'static str, PathBuf> {
        BTreeMap::from([
            ("SOFTHSM2_CONF", token.conf()),
            ("P11SHIM_REAL", MODULE.into()),
            ("P11SHIM_RULES", self.shim("rules")),
            ("P11SHIM_PROBE", self.shim("probe")),
            ("P11SHIM_REPORT", self.shim("report")),
        ])
    }

    /// A daemon whose keystore has the shim as its module; `extra` is more of its section.
    fn daemon(&self, token: &SoftHsm, extra: &str) -> Daemon {
        let environment = self.environment(token);
        let variables: Vec<String> = (environment.iter())
            .map(|(name, value)| format!("{name} = \"{}\"", value.display()))
            .collect();
        let section = format!(
            "[keystore.hsm]\nbackend = \"pkcs11\"\nmodule = \"{}\"\n\
             token = {{ label = \"{}\" }}\npin = {{ file = \"{}\" }}\nenvironment = {{ {} }}\n\
             module_state = [\"{}\", \"{}\"]\n{extra}\n",
            pkcs11_shim::module_path().display(),
            token.label(),
            token.pin_file().display(),
            variables.join(", "),
            token.state().display(),
            self.dir.path().join("shim").display(),
        );
        let config = Config::default()
            .with(&section)
            .workload("ours", us(), "")
            .target("ours", "bank", "");
        Daemon::with_keys(config)
    }

    /// Has the shim try these when `function` is called next.
    fn order(&self, function: &str, attempts: &[String]) {
        let _ = std::fs::remove_file(self.shim("report")); // of an earlier order
        std::fs::write(self.shim("probe"), attempts.join("\n")).unwrap();
        std::fs::write(self.shim("rules.new"), format!("{function} 1 probe\n")).unwrap();
        std::fs::rename(self.shim("rules.new"), self.shim("rules")).unwrap();
    }

    /// What came of each.
    fn report(&self) -> Vec<(String, String)> {
        let report = self.shim("report");
        assert!(wait_until(DEADLINE, || report.exists()), "no report");
        let text = std::fs::read_to_string(report).unwrap();
        let pair = |line: &str| {
            let (attempt, outcome) = line.rsplit_once(" = ").unwrap();
            (attempt.to_owned(), outcome.to_owned())
        };
        text.lines().map(pair).collect()
    }

    /// From inside the daemon's keystore.
    fn inside(&self, daemon: &Daemon, attempts: &[String]) -> Vec<(String, String)> {
        self.order("C_SignInit", attempts);
        assert_eq!(daemon.ask(BANK).status, 200, "{}", daemon.stderr());
        self.report()
    }

    /// From a process that has only loaded the module.
    fn outside(&self, token: &SoftHsm, attempts: &[String]) -> Vec<(String, String)> {
        self.order("C_Initialize", attempts);
        let mut tool = Command::new("pkcs11-tool");
        tool.arg("--module").arg(pkcs11_shim::module_path());
        let listed = tool
            .arg("--list-slots")
            .envs(self.environment(token))
            .output();
        let listed = listed.expect("pkcs11-tool is installed by `make setup`");
        assert!(listed.status.success(), "{listed:?}");
        self.report()
    }
}

fn demand(outcomes: &[(String, String)], attempts: &[String], wanted: &[&str]) {
    let tried: Vec<&String> = outcomes.iter().map(|(attempt, _)| attempt).collect();
    assert_eq!(tried, attempts.iter().collect::<Vec<_>>());
    for (attempt, outcome) in outcomes {
        assert!(wanted.contains(&outcome.as_str()), "{attempt}: {outcome}");
    }
}

fn a_file_in(dir: &Path) -> PathBuf {
    let mut entries = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    entries.find(|path| path.is_file()).unwrap()
}

#[test]
fn pkcs11_a_module_that_was_taken_over_can_do_nothing_but_its_work() {
    let (token, bait) = (SoftHsm::new(), Bait::new());
    let daemon = bait.daemon(&token, "");
    let said = daemon.stderr();
    assert!(
        said.contains("keystore hsm: sandbox: fully enforced"),
        "{said}"
    );
    let (audit, state) = (daemon.audit_dir(), daemon.site().state_dir());
    let forbidden = [
        format!("write {}", bait.others("new").display()),
        format!("write {}", bait.others("secret").display()),
        format!("write {}", token.conf().display()),
        format!("truncate {}", bait.others("secret").display()),
        format!("read {}", bait.others("secret").display()),
        format!("list {}", bait.others("").display()),
        format!("list {}", audit.display()),
        format!("read {}", a_file_in(&audit).display()),
        format!("read {}", a_file_in(&state).display()),
        format!("link /proc/{}/exe", daemon.pid()),
        "exec /bin/true".to_owned(),
        format!("exec {}", daemon.site().programs().assertctl().display()),
        format!("tcp {}", bait.tcp.local_addr().unwrap()),
        "listen 127.0.0.1:0".to_owned(),
        format!("abstract {}", bait.name),
        format!("signal {}", daemon.pid()),
        format!("signal {}", std::process::id()),
        format!("remove {}", bait.others("secret").display()),
    ];
    let refused = [Errno::EACCES, Errno::EPERM].map(|errno| (errno as i32).to_string());
    let refused: Vec<&str> = refused.iter().map(String::as_str).collect();
    demand(&bait.inside(&daemon, &forbidden), &forbidden, &refused);
    // Nothing but the sandbox stands between: the same files are there, the same user may.
    demand(&bait.outside(&token, &forbidden), &forbidden, &["ok"]);

    let needed = [
        "read /etc/passwd".to_owned(),
        "write /dev/null".to_owned(),
        format!("read {}", token.conf().display()),
        format!("read {}", token.pin_file().display()),
        format!("write {}", bait.shim("made").display()),
        format!("remove {}", bait.shim("made").display()),
        format!("write {}", token.state().join("made").display()),
        format!("remove {}", token.state().join("made").display()),
        format!("write {}", state.join("keystore/hsm/made").display()),
        format!("remove {}", state.join("keystore/hsm/made").display()),
        format!("unix {}", bait.others("socket").display()),
    ];
    demand(&bait.inside(&daemon, &needed), &needed, &["ok"]);
}

#[test]
fn pkcs11_a_network_hsm_gets_tcp_and_nothing_else() {
    let (token, bait) = (SoftHsm::new(), Bait::new());
    let daemon = bait.daemon(&token, "network = true");
    let tcp = [format!("tcp {}", bait.tcp.local_addr().unwrap())];
    demand(&bait.inside(&daemon, &tcp), &tcp, &["ok"]);
    let forbidden = [
        format!("read {}", bait.others("secret").display()),
        "exec /bin/true".to_owned(),
    ];
    let eacces = (Errno::EACCES as i32).to_string();
    demand(&bait.inside(&daemon, &forbidden), &forbidden, &[&eacces]);
}

#[test]
fn pkcs11_a_directory_of_the_module_that_is_not_there_is_said_and_the_keystore_serves() {
    let (token, bait) = (SoftHsm::new(), Bait::new());
    let missing = bait.others("missing");
    let config = Config::new(&token).text().replace(
        "module_state = [",
        &format!("module_state = [\"{}\", ", missing.display()),
    );
    let daemon = Daemon::start(config);
    daemon.wait_usable();
    let said = daemon.stderr();
    let line = format!(
        "keystore hsm: module_state: {} is not there",
        missing.display()
    );
    assert!(said.contains(&line), "{said}");
}

/// The broker runs as root here, whom no file mode stops; before the sandbox it reads the same file
/// as its configuration.
#[test]
fn the_broker_reads_nothing_outside_of_its_places_even_as_root() {
    let token = Token::new();
    let (elsewhere, known) = (public_dir(), public_dir());
    let config = crate::world::bank(&token);
    let drop_in = |workload: &str| format!("[workload.{workload}]\nmatch = {{ uid = 61001 }}\n");
    let site = harness::daemon::Site::new(config.text());
    let conf_d = site.config().with_file_name("conf.d");
    std::fs::create_dir(&conf_d).unwrap();
    let link = |dir: &TempDir, name: &str| {
        std::fs::write(
            dir.path().join(name),
            drop_in(name.strip_suffix(".toml").unwrap()),
        )
        .unwrap();
        std::os::unix::fs::symlink(dir.path().join(name), conf_d.join(name)).unwrap();
    };
    link(&known, "first.toml");
    let daemon = Daemon::start_at(site);
    assert!(
        daemon.stderr().contains("assertd: sandbox: fully enforced"),
        "{}",
        daemon.stderr()
    );
    let reload = || {
        let output = daemon.assertctl(&["reload"]);
        let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        (output.status.success(), text)
    };
    // Where links led at the start is where teams put their files.
    link(&known, "second.toml");
    let (taken, said) = reload();
    assert!(taken && said.contains("3 workloads"), "{said}");

    link(&elsewhere, "third.toml");
    let (taken, said) = reload();
    assert!(
        !taken && said.contains("third.toml") && said.contains("ermission"),
        "{said}"
    );
    // A process that is not in the sandbox reads it, as does assertd when it starts.
    let checked = daemon.assertctl(&["config", "check"]);
    assert!(checked.status.success(), "{checked:?}");
    let daemon = daemon.restart();
    assert_eq!(daemon.status().config.workloads, 4);
}
