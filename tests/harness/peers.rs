//! What nobody here wrote: three verifiers and an authorization server (tests/peers, installed by
//! tests/setup/venv.sh). Where they are missing, a test fails and says how to get them.

use crate::process::Process;
use crate::{DEADLINE, wait_for};
use serde_json::Value;
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use tempfile::TempDir;

/// Where the peers are installed.
fn installed() -> PathBuf {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR"));
    let default = || sources.join("../target/peers");
    let peers = std::env::var_os("ASSERTD_PEERS").map_or_else(default, PathBuf::from);
    assert!(
        peers.join("stamp").is_file(),
        "{}: run tests/setup/venv.sh",
        peers.display()
    );
    peers
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("peers")
        .join(name)
}

/// What an assertion is expected to say.
pub struct Expected<'a> {
    pub assertion: &'a str,
    pub iss: &'a str,
    pub sub: &'a str,
    pub aud: &'a str,
    pub alg: &'a str,
    pub typ: &'a str,
}

/// Judges assertions by PyJWT, joserfc, jwcrypto and the lint; one verdict for each, in order.
pub fn verify(jwks: &Value, assertions: &[Expected]) -> Vec<Value> {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), jwks.to_string()).unwrap();
    let lines: Vec<String> = assertions
        .iter()
        .map(|expected| {
            serde_json::json!({
                "assertion": expected.assertion, "iss": expected.iss, "sub": expected.sub,
                "aud": expected.aud, "alg": expected.alg, "typ": expected.typ,
            })
            .to_string()
        })
        .collect();
    let mut command = python("verify.py");
    command.arg("--jwks").arg(file.path()).arg("--batch");
    let (_, verdicts) = run(command, &lines);
    assert_eq!(verdicts.len(), assertions.len());
    verdicts
}

/// Judges assertions by what each vendor documents; `lines` as vendors.py reads them. A verdict for each.
pub fn vendors(lines: &[String]) -> Vec<Value> {
    let (code, verdicts) = run(python("vendors.py"), lines);
    assert_eq!((code, verdicts.len()), (Some(0), lines.len()));
    verdicts
}

/// What Microsoft's own clients make of an assertion and its certificate, and what it makes by itself; `line`
/// as entra.py reads it.
pub fn entra(line: &str) -> Value {
    let mut command = python("entra.py");
    command.env("ASSERTD_PEERS", installed());
    let (code, mut verdicts) = run(command, &[line.to_owned()]);
    assert_eq!((code, verdicts.len()), (Some(0), 1));
    verdicts.remove(0)
}

/// What clients make of what is published at `address`, as if a proxy of the issuer's name were there:
/// `ok` or a reason by client. `line` as published.py reads it.
pub fn published(address: SocketAddr, issuer: &str, trust_domain: &str, line: &str) -> Value {
    let mut command = python("published.py");
    command.args(["--at", &address.to_string(), "--issuer", issuer]);
    command.args(["--trust-domain", trust_domain]);
    command.env("ASSERTD_PEERS", installed());
    run(command, &[line.to_owned()]).1.remove(0)
}

/// What a TPM has signed, read and verified by what nobody here wrote; `lines` as statement.py reads them. For
/// each line an object of verdicts for every key and quote.
pub fn statements(lines: &[String]) -> Vec<Value> {
    let (code, verdicts) = run(python("statement.py"), lines);
    assert_eq!((code, verdicts.len()), (Some(0), lines.len()));
    verdicts
}

/// Holds configurations against a JSON Schema; `lines` as schema.py reads them. A verdict for each.
pub fn hold_against_schema(schema: &Path, lines: &[String]) -> Vec<Value> {
    let mut command = python("schema.py");
    command.arg(schema);
    let (code, verdicts) = run(command, lines);
    assert_eq!((code, verdicts.len()), (Some(0), lines.len()));
    verdicts
}

/// A configuration, and what becomes of it by one change at a time: what was changed, and the text.
pub fn variants(file: &Path) -> Vec<(String, String)> {
    let mut command = python("vary.py");
    command.arg(file);
    let (code, lines) = run(command, &[]);
    assert_eq!(code, Some(0));
    let text = |line: &Value, key: &str| line[key].as_str().unwrap().to_owned();
    lines
        .iter()
        .map(|line| (text(line, "what"), text(line, "text")))
        .collect()
}

/// Whether all four judges accepted.
pub fn all_accept(verdict: &Value) -> bool {
    let judges = ["pyjwt", "joserfc", "jwcrypto", "lint"];
    judges.iter().all(|judge| verdict[judge]["ok"] == true)
}

/// Whether none of the three verifiers accepted; the lint looks at no signature.
pub fn all_refuse(verdict: &Value) -> bool {
    ["pyjwt", "joserfc", "jwcrypto"]
        .iter()
        .all(|judge| verdict[judge]["ok"] == false)
}

/// The same assertion with one byte changed: of `signature`, `payload` or `header`.
pub fn flipped(assertion: &str, part: &str) -> String {
    let mut command = python("redeem.py");
    command.args(["flip", "--part", part]);
    let output = feed(command, &[assertion.to_owned()]);
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// An unmodified oidc-provider on loopback.
pub struct AuthorizationServer {
    process: Process,
    issuer: String,
    dir: TempDir,
}

/// Who introspects.
const RESOURCE_SERVER: &str = "resource-server";

impl AuthorizationServer {
    /// Starts one that knows no workload yet.
    pub fn start() -> AuthorizationServer {
        let peers = installed();
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("secret"), "introspect me").unwrap();
        std::fs::write(dir.path().join("clients.json"), "[]").unwrap();
        let mut command = Command::new(peers.join("bin/node"));
        command
            .arg(script("as/server.mjs"))
            .arg(dir.path().join("clients.json"));
        let output = std::fs::File::create(dir.path().join("stdout")).unwrap();
        command
            .env("ASSERTD_PEERS", &peers)
            .stdin(Stdio::null())
            .stdout(output);
        let mut process = Process::start(&mut command);
        let issuer = wait_for(DEADLINE * 2, || {
            assert!(process.ended().is_none(), "{}", process.stderr());
            let said = std::fs::read_to_string(dir.path().join("stdout")).unwrap();
            Some(said.strip_prefix("ready ")?.strip_suffix('\n')?.to_owned())
        });
        let issuer = issuer.unwrap_or_else(|| panic!("not ready: {}", process.stderr()));
        AuthorizationServer {
            process,
            issuer,
            dir,
        }
    }

    /// Its issuer identifier: what `aud` must be.
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// Registers a workload for `private_key_jwt` with its public keys, or with others than before.
    pub fn register(&self, client_id: &str, alg: &str, jwks: &Value) {
        self.set_client(serde_json::json!({ "client_id": client_id, "alg": alg, "jwks": jwks }));
    }

    /// Registers one whose public keys the server fetches, and keeps for a minute at least.
    pub fn register_at(&self, client_id: &str, alg: &str, jwks_uri: &str) {
        let client =
            serde_json::json!({ "client_id": client_id, "alg": alg, "jwks_uri": jwks_uri });
        self.set_client(client);
    }

    fn set_client(&self, client: Value) {
        let clients = serde_json::json!([
            client,
            { "client_id": RESOURCE_SERVER, "client_secret": "introspect me" },
        ]);
        crate::replace_file(&self.dir.path().join("clients.json"), &clients.to_string());
    }

    /// Redeems assertions one after the other: `{"status", "body"}` each.
    pub fn redeem(&self, assertions: &[String]) -> Vec<Value> {
        let mut command = python("redeem.py");
        command.args(["redeem", "--issuer", &self.issuer]);
        run(command, assertions).1
    }

    /// Asks what an access token is worth.
    pub fn introspect(&self, access_token: &str) -> Value {
        let mut command = python("redeem.py");
        command.args([
            "introspect",
            "--issuer",
            &self.issuer,
            "--client-id",
            RESOURCE_SERVER,
        ]);
        command
            .arg("--secret-file")
            .arg(self.dir.path().join("secret"));
        run(command, &[access_token.to_owned()]).1.remove(0)
    }

    /// The reasons of its refusals so far.
    pub fn reasons(&self) -> String {
        self.process.stderr()
    }
}

/// Whom a [`StandIn`] believes.
pub struct Trust<'a> {
    pub jwks: &'a Path,
    pub iss: &'a str,
    pub sub: &'a str,
    pub aws: &'a str,
    pub google: &'a str,
    pub azure: &'a str,
}

/// A stand-in for the token services of AWS, Google and Azure that verifies (tests/peers/sdk.py).
pub struct StandIn {
    /// Where AWS' and Google's are.
    pub http: String,
    /// Where Azure's is.
    pub https: String,
    /// The CA of its certificate.
    pub ca: PathBuf,
    dir: TempDir,
    _process: Process,
}

impl StandIn {
    /// Starts one.
    pub fn start(trust: &Trust) -> StandIn {
        let dir = tempfile::tempdir().unwrap();
        let mut command = python("sdk.py");
        command.arg("serve").arg("--dir").arg(dir.path());
        command.arg("--jwks").arg(trust.jwks);
        let expected = [
            ("--iss", trust.iss),
            ("--sub", trust.sub),
            ("--aws", trust.aws),
            ("--google", trust.google),
            ("--azure", trust.azure),
        ];
        for (option, value) in expected {
            command.args([option, value]);
        }
        let said = dir.path().join("stdout");
        let output = std::fs::File::create(&said).unwrap();
        command.stdin(Stdio::null()).stdout(output);
        let mut process = Process::start(&mut command);
        let ready = wait_for(DEADLINE * 2, || {
            assert!(process.ended().is_none(), "{}", process.stderr());
            serde_json::from_str::<Value>(&std::fs::read_to_string(&said).ok()?).ok()
        });
        let ready = ready.unwrap_or_else(|| panic!("not ready: {}", process.stderr()));
        let text = |key: &str| ready[key].as_str().unwrap().to_owned();
        StandIn {
            http: text("http"),
            https: text("https"),
            ca: text("ca").into(),
            dir,
            _process: process,
        }
    }

    /// Its verdicts so far: `who`, `ok`, and `jti` or `error`.
    pub fn verdicts(&self) -> Vec<Value> {
        let log = std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
        let verdicts = log.lines().map(|line| serde_json::from_str(line).unwrap());
        verdicts.collect()
    }
}

/// An SDK that asks for credentials as its environment says: one line in, one answer out.
pub struct Sdk {
    child: std::process::Child,
    answers: std::io::BufReader<std::process::ChildStdout>,
}

impl Sdk {
    /// Starts it with these variables and no other.
    pub fn start(name: &str, home: &Path, variables: &[(String, String)]) -> Sdk {
        let mut command = python("sdk.py");
        command.args(["use", name]).env_clear();
        command.env("PATH", "/usr/bin:/bin").env("HOME", home);
        command.envs(variables.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.stderr(Stdio::null()).spawn().unwrap();
        let answers = std::io::BufReader::new(child.stdout.take().unwrap());
        Sdk { child, answers }
    }

    /// Asks; `order` is `now`, or `later SECONDS`, by which its clock goes first.
    pub fn ask(&mut self, order: &str) -> Value {
        use std::io::BufRead;
        let stdin = self.child.stdin.as_mut().unwrap();
        writeln!(stdin, "{order}").unwrap();
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"))
    }
}

impl Drop for Sdk {
    fn drop(&mut self) {
        let _ = self.child.kill(); // it may have ended
        let _ = self.child.wait();
    }
}

fn python(name: &str) -> Command {
    let mut command = Command::new(installed().join("venv/bin/python"));
    command.arg(script(name));
    command
}

fn run(command: Command, lines: &[String]) -> (Option<i32>, Vec<Value>) {
    let output = feed(command, lines);
    let text = String::from_utf8(output.stdout).unwrap();
    let answers = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    (output.status.code(), answers)
}

fn feed(mut command: Command, lines: &[String]) -> std::process::Output {
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    // Written beside reading: both pipes are finite.
    let writer = std::thread::spawn(move || stdin.write_all(text.as_bytes()));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    output
}
