//! What these tests begin with: a daemon on a TPM behind the proxy, with as many keys as a test
//! wants; a witness that verifies what it releases; and the TPM as another program sees it.

use assertd_client::api::AssertionResponse;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use harness::fault::Proxied;
use harness::http::Answer;
use harness::token::{KEYSTORE, Keystore};
use harness::{Config, DEADLINE, Daemon, wait_until};
use keystore::publickey::Verifier;
use keystore::{Alg, PublicKey};
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// The lines of a keystore's section for each kind of session.
pub const PASSWORD: &str = "sessions = \"password\"";
pub const ENCRYPTED: &str = "sessions = \"encrypted\"";
pub const BOTH: [&str; 2] = [PASSWORD, ENCRYPTED];

/// More keys than swtpm has room for beside their parent: each of them is brought back from time to
/// time.
pub const MANY: usize = 3;

/// What a request may take (assertd's `http`), and what two busy cores may add.
pub const REFUSED_WITHIN: Duration = Duration::from_secs(5 + 10);

/// A rate that no test reaches.
const NO_LIMIT: &str = "rate = 1000000\nburst = 1000000";

/// A daemon on a TPM behind the proxy.
pub struct Scene {
    /// Before the TPM, so that it ends first.
    pub daemon: Daemon,
    pub tpm: Proxied,
    pub witness: Witness,
}

impl Scene {
    /// With so many targets, each with a key of its own, that have been served; `sessions` is one of
    /// [`BOTH`].
    pub fn new(targets: usize, sessions: &str) -> Scene {
        Scene::on(Proxied::new(), targets, sessions)
    }

    /// On a TPM that is there.
    pub fn on(tpm: Proxied, targets: usize, sessions: &str) -> Scene {
        let daemon = Daemon::with_keys(config(&tpm, targets, sessions));
        let witness = Witness::of(&daemon);
        for target in names(targets) {
            daemon.wait_served(&target);
        }
        Scene {
            daemon,
            tpm,
            witness,
        }
    }

    /// Asks for an assertion for the `n`th target: the status, and the problem's code. What is
    /// released must verify.
    #[track_caller]
    pub fn ask(&self, n: usize) -> (u16, String) {
        self.witness.ask(&self.daemon, n)
    }

    /// Asks until the `n`th target is served, and verifies.
    #[track_caller]
    pub fn serves_again(&self, n: usize) {
        self.witness.serves_again(&self.daemon, n);
    }

    /// How the keystore reaches the TPM, without the proxy, for others.
    pub fn tcti(&self) -> String {
        self.tpm.tpm.tcti()
    }

    /// Everything in the keystore's own directory.
    pub fn state(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        files(&self.daemon.site().keystore_state(KEYSTORE))
    }

    /// Demands that the same keystore process has served all the time, with the same keys.
    #[track_caller]
    pub fn is_as_before(&self, pid: u32) {
        assert_eq!(self.daemon.keystore_pid(), pid, "{}", self.daemon.stderr());
        assert!(self.daemon.status().keystores[0].restarts == 0);
        self.witness.knows_all(&self.daemon);
    }

    /// Demands that nobody has panicked so far.
    #[track_caller]
    pub fn nobody_panicked(&self) {
        let log = self.daemon.stderr();
        assert!(!log.contains("panicked"), "{log}");
    }
}

/// One keystore, one workload of ours, so many targets.
pub fn config(keystore: &impl Keystore, targets: usize, sessions: &str) -> Config {
    let uid = nix::unistd::geteuid().as_raw();
    let config = Config::default()
        .keystore(KEYSTORE, keystore, sessions)
        .workload("payments", uid, NO_LIMIT);
    names(targets).fold(config, |config, name| config.target("payments", &name, ""))
}

/// The name of the `n`th target.
pub fn name(n: usize) -> String {
    format!("bank-{n}")
}

fn names(targets: usize) -> impl Iterator<Item = String> {
    (1..=targets).map(name)
}

/// Knows the public keys as they were at first, and looks at every answer.
pub struct Witness {
    verifiers: HashMap<String, Verifier>,
}

impl Witness {
    /// Of the keys that a daemon shows now.
    pub fn of(daemon: &Daemon) -> Witness {
        let keys = daemon.keys().into_iter();
        let verifiers = keys.map(|key| {
            let coordinate = |name: &str| URL_SAFE_NO_PAD.decode(key.jwk[name].as_str().unwrap());
            let point = [vec![4], coordinate("x").unwrap(), coordinate("y").unwrap()].concat();
            let public_key = PublicKey::from_sec1(&point).unwrap();
            (key.kid, public_key.verifier(Alg::ES256).unwrap())
        });
        Witness {
            verifiers: verifiers.collect(),
        }
    }

    /// Asks for the `n`th target.
    #[track_caller]
    pub fn ask(&self, daemon: &Daemon, n: usize) -> (u16, String) {
        let begun = Instant::now();
        let answer = daemon.ask(&format!("{{\"target\":\"{}\"}}", name(n)));
        let took = begun.elapsed();
        assert!(took < REFUSED_WITHIN, "an answer after {took:?}");
        self.look_at(&answer);
        (answer.status, answer.problem())
    }

    /// Asks for the `n`th target until there is an assertion.
    #[track_caller]
    pub fn serves_again(&self, daemon: &Daemon, n: usize) {
        let mut last = (0, String::new());
        let served = wait_until(DEADLINE, || {
            last = self.ask(daemon, n);
            last.0 == 200
        });
        let outcomes = daemon.audit_records().into_iter();
        let why = outcomes.rev().find(|it| it["kind"] == "outcome");
        let (target, log) = (name(n), daemon.stderr());
        assert!(served, "{target}: {last:?}: {why:?}\n{log}");
    }

    /// A 200 is signed by a key that was there at first; a 503 says when to come back.
    #[track_caller]
    fn look_at(&self, answer: &Answer) {
        match answer.status {
            200 => {
                let answer: AssertionResponse = serde_json::from_str(answer.body()).unwrap();
                let verifier = &self.verifiers[&answer.kid];
                let (message, signature) = answer.assertion.rsplit_once('.').unwrap();
                let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
                let valid = verifier.verify(message.as_bytes(), &signature);
                assert!(valid.is_ok(), "released: {}", answer.assertion);
            }
            503 => {
                let retry = answer.header("retry-after");
                let seconds = retry.and_then(|text| text.parse::<u64>().ok());
                assert!(seconds.is_some_and(|s| s > 0), "{answer:?}");
            }
            other => panic!("{other}: {answer:?}"),
        }
    }

    /// Demands that the keys are still the same, and as many.
    #[track_caller]
    pub fn knows_all(&self, daemon: &Daemon) {
        let keys = daemon.keys();
        assert_eq!(keys.len(), self.verifiers.len(), "{keys:?}");
        for key in keys {
            assert!(self.verifiers.contains_key(&key.kid), "{key:?}");
        }
    }
}

/// How many commands a TPM may have got since a moment: some at once, and then so many a second,
/// because the ladder goes by time and a busy machine takes longer over the same requests.
pub struct Allowance {
    pub at_once: u64,
    pub each_second: u64,
}

impl Allowance {
    /// What is allowed by now.
    pub fn since(&self, moment: Instant) -> u64 {
        self.at_once + self.each_second * (moment.elapsed().as_secs() + 1)
    }
}

/// All files below a directory, by path.
pub fn files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.insert(path.clone(), std::fs::read(&path).unwrap());
        }
    }
    assert!(!found.is_empty(), "{}: nothing there", dir.display());
    found
}

/// Runs one of tpm2-tools on the TPM itself, without the proxy; its standard output. None of them
/// is used here in a way that needs a slot.
#[track_caller]
pub fn tool(tcti: &str, program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program)
        .args(arguments)
        .env("TPM2TOOLS_TCTI", tcti)
        .env("TSS2_LOG", "all+NONE")
        .output()
        .unwrap_or_else(|error| panic!("{program}, from `make setup`: {error}"));
    let shown = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {shown}");
    String::from_utf8(output.stdout).unwrap()
}

/// The handles in use of a kind: `transient`, `loaded-session`, `saved-session`, `persistent`.
#[track_caller]
pub fn handles(tcti: &str, kind: &str) -> Vec<String> {
    let shown = tool(tcti, "tpm2_getcap", &[&format!("handles-{kind}")]);
    let lines = shown.lines().filter(|line| line.contains("0x"));
    lines.map(str::to_owned).collect()
}

/// A number that a tool shows on a line of its own, decimal or hexadecimal.
#[track_caller]
pub fn number(shown: &str, name: &str) -> u64 {
    let line = shown
        .lines()
        .find_map(|line| line.trim().strip_prefix(name));
    let value = line.unwrap_or_else(|| panic!("{name}: {shown}"));
    let value = value.trim_start_matches(':').trim();
    match value.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).unwrap(),
        None => value.parse().unwrap(),
    }
}
