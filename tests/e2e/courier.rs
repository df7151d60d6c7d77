//! The courier: what it brings and what it says where there is nothing to bring, how fast, and whom it
//! answers. Asked over its socket, as assertd asks it: a question in a frame. What is published is served
//! by TLS on the loopback, with certificates of an authority made for the test.

use crate::served::Served;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use harness::process::Process;
use harness::programs::Programs;
use harness::public_dir;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

mod access;
mod answers;
mod child;
mod configuration;
mod gate;
mod token;

/// Longer than the courier takes for anything.
const DEADLINE: Duration = Duration::from_secs(30);

/// What a document may take on a machine that does other things too.
const SOON: Duration = Duration::from_secs(4);

/// Longest document.
const BODY_LEN_MAX: usize = 256 * 1024;

/// Everything that a document can be published badly by, and how.
struct Publisher {
    served: Served,
    ports: BTreeMap<String, u16>,
}

impl Publisher {
    fn start() -> Publisher {
        let served = Served::start(include_str!("courier/publisher.py"), &[]);
        for name in ["old", "new", "other"] {
            let document = json!({ "keys": [{ "kty": "EC", "kid": name }] });
            std::fs::write(
                served.dir().join(format!("{name}.json")),
                document.to_string(),
            )
            .unwrap();
        }
        let ports = serde_json::from_str(served.said()).unwrap();
        Publisher { served, ports }
    }

    fn dir(&self) -> &Path {
        self.served.dir()
    }

    fn url(&self, port: &str, path: &str) -> String {
        format!("https://localhost:{}/{path}", self.ports[port])
    }

    fn ca(&self) -> PathBuf {
        self.served.ca()
    }

    fn document(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.dir().join(format!("{name}.json"))).unwrap()
    }

    /// Heads of the requests that have arrived over TLS, or without.
    fn requests(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.dir().join("requests.log"));
        let text = text.unwrap_or_default();
        let heads = text.split_terminator("\r\n\r\n");
        heads.map(str::to_owned).collect()
    }
}

/// A configuration with an issuer for each of these, by name and `verify_url`.
fn configured<'a>(courier: &str, issuers: impl IntoIterator<Item = (&'a str, String)>) -> String {
    let mut text = "[keystore.hsm]\nbackend = \"pkcs11\"\nmodule = \"/usr/lib/x.so\"\n\
                    token = { label = \"t\" }\npin = { credential = \"hsm.pin\" }\n"
        .to_owned();
    for (name, url) in issuers {
        write!(
            text,
            "[issuer.{name}]\nurl = \"https://id.example/{name}\"\nsubjects = [\"a\"]\n\
             keystore = \"hsm\"\nverify_url = \"{url}\"\n"
        )
        .unwrap();
    }
    format!("{text}[courier]\n{courier}\n")
}

/// A running courier.
struct Courier {
    process: Process,
    dir: TempDir,
    _programs: Programs,
}

impl Courier {
    fn start(configuration: &str) -> Courier {
        Courier::start_as(nix::unistd::geteuid().as_raw(), 0, configuration, &[])
    }

    /// As a user, for a broker of another. The socket lets everybody connect, so that only the courier can
    /// tell peers apart.
    fn start_as(
        uid: u32,
        broker: u32,
        configuration: &str,
        environment: &[(&str, &str)],
    ) -> Courier {
        harness::user::need_root();
        let (programs, dir) = (Programs::installed(), public_dir());
        let (config, socket) = (
            dir.path().join("assertd.toml"),
            dir.path().join("courier.sock"),
        );
        std::fs::write(&config, configuration).unwrap();
        let listener = UnixListener::bind(&socket).unwrap();
        std::fs::set_permissions(&socket, PermissionsExt::from_mode(0o666)).unwrap();
        let mut command = Command::new("setpriv");
        command.args([&format!("--reuid={uid}"), &format!("--regid={uid}")]);
        command.arg("--clear-groups");
        command.arg(programs.path("assertd-courier"));
        command.args([
            "--listen-stdin",
            "--broker-uid",
            &broker.to_string(),
            "--config",
        ]);
        command
            .arg(config)
            .current_dir("/")
            .envs(environment.iter().copied());
        let process = Process::start(command.stdin(Stdio::from(OwnedFd::from(listener))));
        process.wait_for_stderr("courier: sandbox: ");
        Courier {
            process,
            dir,
            _programs: programs,
        }
    }

    fn config(&self) -> PathBuf {
        self.dir.path().join("assertd.toml")
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("courier.sock")
    }

    fn ask(&self, issuer: &str) -> Value {
        ask(&self.socket(), issuer)
    }

    /// The document, which has to be there.
    fn fetch(&self, issuer: &str) -> Vec<u8> {
        let answer = self.ask(issuer);
        let body = answer["document"]["body"].as_str();
        let body = body.unwrap_or_else(|| panic!("{issuer}: {answer}\n{}", self.process.stderr()));
        BASE64.decode(body).unwrap()
    }

    /// A line of its status in /proc, in the unit that is there.
    fn status(&self, line: &str) -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.process.pid())).unwrap();
        let found = text.lines().find_map(|it| it.strip_prefix(line));
        let number = found.and_then(|it| it.split_whitespace().next());
        number.and_then(|it| it.parse().ok()).unwrap()
    }
}

/// What is answered to a question, which has to be answered.
fn ask(socket: &Path, issuer: &str) -> Value {
    let question = json!({ "version": 2, "issuer": issuer });
    let answer = exchange(socket, &question.to_string());
    answer.unwrap_or_else(|| panic!("{issuer}: hung up on"))
}

/// What comes back for these bytes in a frame; nothing if the courier hangs up.
fn exchange(socket: &Path, question: &str) -> Option<Value> {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let length = u32::try_from(question.len()).unwrap().to_be_bytes();
    stream
        .write_all(&[&length, question.as_bytes()].concat())
        .ok()?;
    let mut header = [0; 4];
    stream.read_exact(&mut header).ok()?;
    let mut frame = vec![0; u32::from_be_bytes(header) as usize];
    stream.read_exact(&mut frame).unwrap();
    Some(serde_json::from_slice(&frame).unwrap())
}

/// Asks, and demands this kind of failure with this in its sentence. Returns how long it took.
fn refused(courier: &Courier, issuer: &str, kind: &Value, part: &str) -> Duration {
    let started = Instant::now();
    let answer = courier.ask(issuer);
    let (failed, took) = (&answer["failed"], started.elapsed());
    let message = failed["message"].as_str().unwrap_or_default();
    let right = failed["kind"] == *kind && message.contains(part);
    assert!(right, "{issuer} is to be {kind} with {part:?}: {answer}");
    assert!(!message.contains(|c: char| c.is_control()), "{message:?}");
    took
}
