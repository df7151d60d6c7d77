//! The SDKs of AWS, Google and Azure, unmodified, with what `assertctl env` prints and nothing else: its
//! variables are their environment, its file is written where it says, its unit's lines are run. The other
//! side is a stand-in that verifies with what `assertctl jwks` publishes. Each SDK is also refused: for
//! another audience, for another key, for an assertion that has expired; so that the stand-in can fail.

use crate::world::{decode, us};
use harness::peers::{Sdk, StandIn, Trust};
use harness::{Config, DEADLINE, Daemon, Token, replace_file, wait_for, wait_until};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use tempfile::TempDir;

const ISSUER: &str = "https://id.example.com/prod";
const PROVIDER: &str =
    "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/providers/v";

/// Seconds: below it, one would be over before an SDK has sent it; above, the test would wait for longer.
const SHORT_S: u32 = 6;

/// What keeps a file is looked for by its file, which nobody else has.
struct Keeper(u32);

/// A daemon, the other side, and a directory in the place of the unit's RuntimeDirectory=.
struct World {
    config: Config,
    daemon: Daemon,
    stand_in: StandIn,
    dir: TempDir,
    jwks: PathBuf,
    _token: Token,
}

/// What `env` printed for a target.
struct Printed {
    variables: Vec<(String, String)>,
    before: Option<String>,
    after: Option<String>,
    output: PathBuf,
}

/// One SDK: its name in sdk.py, the profile, the audience of that, `--for`, and what its vendor takes.
struct Kind {
    name: &'static str,
    profile: &'static str,
    audience: &'static str,
    sdk: &'static str,
    alg: &'static str,
}

const AWS: Kind = Kind {
    name: "aws",
    profile: "aws-oidc",
    audience: "sts.amazonaws.com",
    sdk: "aws",
    alg: "ES256",
};
const GOOGLE: Kind = Kind {
    name: "google",
    profile: "gcp-wif",
    audience: PROVIDER,
    sdk: "google",
    alg: "ES256",
};
const EXECUTABLE: Kind = Kind {
    sdk: "google-executable",
    ..GOOGLE
};
const AZURE: Kind = Kind {
    name: "azure",
    profile: "entra-fic",
    audience: "api://AzureADTokenExchange",
    sdk: "azure",
    alg: "RS256",
};

impl World {
    /// Three targets of the kind: `good`, `other` for somebody else, and `short`, which lives [`SHORT_S`].
    fn new(kind: &Kind) -> World {
        let token = Token::new();
        let mut text = String::new();
        for (issuer, alg) in [("prod", kind.alg), ("next", "ES256")] {
            text += &format!(
                "[issuer.{issuer}]\nurl = \"https://id.example.com/{issuer}\"\n\
                 subjects = [\"payments\"]\nkeystore = \"hsm\"\nalg = \"{alg}\"\n"
            );
        }
        let other = format!("{}-not", kind.audience);
        for (target, audience, lifetime_s) in [
            ("good", kind.audience, 3600),
            ("other", &other, 3600),
            ("short", kind.audience, SHORT_S),
        ] {
            text += &format!(
                "[workload.ours.target.{target}]\nprofile = \"{}\"\nissuer = \"prod\"\n\
                 subject = \"payments\"\naudience = \"{audience}\"\nlifetime = {lifetime_s}\n",
                kind.profile
            );
        }
        let config = Config::new(&token).workload("ours", us(), "").with(&text);
        let daemon = Daemon::with_keys(&config);
        let dir = tempfile::tempdir().unwrap();
        let jwks = dir.path().join("jwks.json");
        let stand_in = StandIn::start(&Trust {
            jwks: &jwks,
            iss: ISSUER,
            sub: "payments",
            aws: AWS.audience,
            google: PROVIDER,
            azure: AZURE.audience,
        });
        let world = World {
            config,
            daemon,
            stand_in,
            dir,
            jwks,
            _token: token,
        };
        world.publish("prod");
        world
    }

    /// What the other side fetches from the issuer: the key of this one.
    fn publish(&self, issuer: &str) {
        let jwks = self.daemon.assertctl(&["jwks", "--issuer", issuer]);
        assert_eq!(jwks.status.code(), Some(0));
        replace_file(&self.jwks, &String::from_utf8(jwks.stdout).unwrap());
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Has it printed, and writes the file that was printed.
    fn env(&self, kind: &Kind, target: &str) -> Printed {
        let output = self.path(&format!("{target}.jwt"));
        let file = self.path(&format!("{target}.json"));
        let mut settings = vec!["unit=ours.service".to_owned()];
        if kind.sdk != EXECUTABLE.sdk {
            settings.push(format!("output={}", output.display()));
        }
        let http = &self.stand_in.http;
        settings.extend(match kind.name {
            "aws" => vec![
                "role_arn=arn:aws:iam::123456789012:role/payments".to_owned(),
                "region=eu-central-1".to_owned(),
                format!("endpoint={http}"),
            ],
            "google" => vec![
                format!("file={}", file.display()),
                format!("token_url={http}/v1/token"),
                "project=payments".to_owned(),
                format!(
                    "provider={}",
                    PROVIDER.trim_start_matches("//iam.googleapis.com/")
                ),
            ],
            _ => vec![
                "tenant_id=00000000-0000-0000-0000-000000007e4a".to_owned(),
                "client_id=00000000-0000-0000-0000-00000000c11e".to_owned(),
                format!("authority_host={}", self.stand_in.https),
            ],
        });
        let name = format!("ours/{target}");
        let mut arguments = vec!["env", &name, "--for", kind.sdk];
        for setting in &settings {
            arguments.extend(["--set", setting]);
        }
        // The variables as a script has them, the rest as a program.
        let variables = self.variables(&[&arguments[..], &["--part", "variables"]].concat());
        let printed = self.printed(&[&arguments[..], &["--json"]].concat());
        let printed: Value = serde_json::from_str(&printed).unwrap();
        assert_eq!(printed["missing"], serde_json::json!([]));
        if let Some(text) = printed["file"]["text"].as_str() {
            assert_eq!(printed["file"]["path"], *file.to_str().unwrap());
            std::fs::write(&file, text).unwrap();
        }
        let unit = printed["unit"]["text"].as_str().unwrap();
        let line = |key: &str| {
            let mut lines = unit.lines().filter_map(|line| line.strip_prefix(key));
            lines.next().map(str::to_owned)
        };
        Printed {
            variables,
            before: line("ExecStartPre="),
            after: line("ExecStartPost="),
            output,
        }
    }

    fn printed(&self, arguments: &[&str]) -> String {
        let output = self.daemon.assertctl(arguments);
        let wrong = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(0), "{wrong}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// What a shell makes of the printed lines.
    fn variables(&self, arguments: &[&str]) -> Vec<(String, String)> {
        let script = format!("set -a\n{}\nexec env", self.printed(arguments));
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", &script]).env_clear();
        let output = shell.output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let pairs = text.lines().filter_map(|line| line.split_once('='));
        let ours = pairs.filter(|(name, _)| !["PWD", "_", "SHLVL", "OLDPWD"].contains(name));
        ours.map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect()
    }

    fn sdk(&self, kind: &Kind, printed: &Printed) -> Sdk {
        let mut variables = printed.variables.clone();
        // Of the machine, not of the workload: whom it trusts.
        let ca = self.stand_in.ca.to_str().unwrap().to_owned();
        variables.push(("REQUESTS_CA_BUNDLE".to_owned(), ca));
        Sdk::start(kind.name, self.dir.path(), &variables)
    }

    /// What the stand-in found the last time.
    fn verdict(&self) -> Value {
        self.stand_in.verdicts().pop().expect("somebody asked")
    }

    #[track_caller]
    fn accepts(&self, sdk: &mut Sdk, order: &str) -> String {
        let before = self.stand_in.verdicts().len();
        let answer = sdk.ask(order);
        assert_eq!(
            answer["ok"],
            true,
            "{answer}, {:?}",
            self.stand_in.verdicts()
        );
        assert!(self.stand_in.verdicts().len() > before, "nothing was sent");
        self.verdict()["jti"].as_str().unwrap().to_owned()
    }

    /// The same with what lives some seconds: on a busy machine one may be over on the way.
    #[track_caller]
    fn accepts_in_time(&self, sdk: &mut Sdk, order: &str) -> String {
        let accepted = wait_for(DEADLINE, || {
            let answer = sdk.ask(order);
            let verdict = self.verdict();
            let late = verdict["error"] == "ExpiredSignatureError";
            assert!(answer["ok"] == true || late, "{answer}, {verdict}");
            verdict["jti"].as_str().map(str::to_owned)
        });
        accepted.expect("one that holds")
    }

    #[track_caller]
    fn refuses(&self, sdk: &mut Sdk, order: &str, why: &str) {
        let before = self.stand_in.verdicts().len();
        let answer = sdk.ask(order);
        assert_eq!(answer["ok"], false, "{answer}");
        assert!(
            self.stand_in.verdicts().len() > before,
            "nothing was sent: {answer}"
        );
        let verdict = self.verdict();
        assert_eq!(verdict["error"], *why, "{verdict}");
    }
}

impl Printed {
    /// Runs a line of the unit as systemd does: it has to end, well, and says nothing.
    fn run(line: Option<&String>) {
        let line = line.expect("the unit has such a line");
        let mut command = Command::new("/bin/sh");
        command.args(["-c", line]).env_clear().stdin(Stdio::null());
        let output = command.stderr(Stdio::null()).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{line}");
        assert_eq!(output.stdout, b"", "{line}");
    }

    fn write(&self) {
        Printed::run(self.before.as_ref());
    }

    /// The process that goes on.
    fn keep(&self) -> Keeper {
        Printed::run(self.after.as_ref());
        let output = self.output.to_str().unwrap();
        let found = wait_for(DEADLINE, || keeper(output));
        Keeper(found.expect("somebody keeps the file"))
    }

    fn exp_s(&self) -> u64 {
        let text = std::fs::read_to_string(&self.output).unwrap();
        decode(&text).1["exp"].as_u64().unwrap()
    }
}

/// Who was started to keep this file.
fn keeper(output: &str) -> Option<u32> {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let mut pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.find(|pid: &u32| {
        let words = std::fs::read(Path::new("/proc").join(pid.to_string()).join("cmdline"));
        let words = String::from_utf8(words.unwrap_or_default()).unwrap_or_default();
        words.contains(output) && words.contains("--foreground")
    })
}

impl Keeper {
    /// As systemd does when the unit stops.
    fn stop(self) {
        harness::process::send(self.0, nix::sys::signal::Signal::SIGTERM);
        let ended = wait_until(DEADLINE, || !harness::process::runs(self.0));
        assert!(ended, "it outlives its unit");
        std::mem::forget(self);
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        if harness::process::runs(self.0) {
            harness::process::send(self.0, nix::sys::signal::Signal::SIGKILL);
        }
    }
}

/// The whole promise, for an SDK that reads a file. `later` is how long it may go on with what it read.
fn takes_the_file(kind: &Kind, later: &str) {
    let world = World::new(kind);
    let good = world.env(kind, "good");
    good.write();
    world.accepts(&mut world.sdk(kind, &good), "now");

    let other = world.env(kind, "other");
    other.write();
    world.refuses(&mut world.sdk(kind, &other), "now", "InvalidAudienceError");

    world.publish("next");
    world.refuses(&mut world.sdk(kind, &good), "now", "Verdict");
    world.publish("prod");

    // One that nobody keeps fresh.
    let short = world.env(kind, "short");
    short.write();
    let end_s = short.exp_s();
    let over = wait_until(DEADLINE * 2, || crate::world::now_s() > end_s);
    assert!(over && short.exp_s() == end_s);
    world.refuses(&mut world.sdk(kind, &short), "now", "ExpiredSignatureError");

    // And one that somebody does: the SDK that runs already uses the new one.
    short.write();
    let keeper = short.keep();
    let mut sdk = world.sdk(kind, &short);
    let first = world.accepts_in_time(&mut sdk, "now");
    let end_s = short.exp_s();
    let refreshed = wait_until(DEADLINE * 2, || short.exp_s() > end_s);
    assert!(refreshed, "the file is as old as it was");
    let second = world.accepts_in_time(&mut sdk, later);
    assert_ne!(first, second);
    keeper.stop();
}

#[test]
fn the_aws_sdk_takes_what_env_prints() {
    takes_the_file(&AWS, "now");
}

#[test]
fn googles_library_takes_what_env_prints() {
    takes_the_file(&GOOGLE, "now");
}

#[test]
fn the_azure_sdk_takes_what_env_prints() {
    // It goes on with what it read for 600 s.
    takes_the_file(&AZURE, "later 601");
}

#[test]
fn googles_library_runs_assertctl_as_env_prints_it() {
    let world = World::new(&EXECUTABLE);
    let good = world.env(&EXECUTABLE, "good");
    assert_eq!(good.before, None, "there is no file");
    world.accepts(&mut world.sdk(&EXECUTABLE, &good), "now");

    let other = world.env(&EXECUTABLE, "other");
    let mut sdk = world.sdk(&EXECUTABLE, &other);
    world.refuses(&mut sdk, "now", "InvalidAudienceError");
    world.publish("next");
    world.refuses(&mut world.sdk(&EXECUTABLE, &good), "now", "Verdict");
    world.publish("prod");

    // Too short-lived to be handed out again: each is new.
    let short = world.env(&EXECUTABLE, "short");
    let mut sdk = world.sdk(&EXECUTABLE, &short);
    let first = world.accepts_in_time(&mut sdk, "now");
    assert_ne!(first, world.accepts_in_time(&mut sdk, "now"));

    // A denial reaches who uses the SDK in assertd's own words.
    let renamed = world.config.text().replace("target.short", "target.gone");
    world.daemon.site().configure(&renamed);
    assert_eq!(world.daemon.assertctl(&["reload"]).status.code(), Some(0));
    let answer = sdk.ask("now");
    let said = answer["error"].as_str().unwrap();
    assert!(answer["ok"] == false && said.contains("denied"), "{answer}");
}
