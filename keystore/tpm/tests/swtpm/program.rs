//! assertd-keystore-tpm as whoever starts it sees it.

use crate::world::{SECRET, World};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL};
use harness::DEADLINE;
use harness::process::send;
use harness::swtpm::kept_until_we_end;
use keystore::charter::PurposeKind;
use keystore::client::Client;
use keystore::protocol::{Condition, Health, KeyEntry, Reply, Request, Standing};
use keystore::{
    Alg, CertificateUse, Charter, Claims, Clock, Error, KeyId, KidMember, Kind, Purpose, Typ,
};
use nix::sys::signal::Signal;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

const PROGRAM: &str = env!("CARGO_BIN_EXE_assertd-keystore-tpm");

/// A running keystore that ends with the test.
pub struct Running(Child);

impl Running {
    /// Its process.
    pub fn id(&self) -> u32 {
        self.0.id()
    }

    /// Ends it; what it said on standard error.
    fn end(&mut self) -> String {
        let _ = self.0.kill();
        let _ = self.0.wait();
        let mut text = String::new();
        if let Some(mut stderr) = self.0.stderr.take() {
            stderr.read_to_string(&mut text).unwrap();
        }
        text
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end();
    }
}

fn write(path: &Path, bytes: &[u8]) {
    let mut options = std::fs::OpenOptions::new();
    let file = options.create_new(true).write(true).mode(0o600).open(path);
    file.unwrap().write_all(bytes).unwrap();
}

pub fn start(world: &World, more: &str, secret: &[u8]) -> Running {
    let dir = world.dir.path();
    write(&dir.join("tpm.auth"), secret);
    let config = format!(
        "[keystore.tpm]\nbackend = \"tpm\"\ntcti = \"{}\"\nauth = {{ file = \"{}/tpm.auth\" }}\n{more}",
        world.swtpm.tcti(),
        dir.display()
    );
    write(&dir.join("assertd.toml"), config.as_bytes());
    let listener = UnixListener::bind(dir.join("socket")).unwrap();
    let child = kept_until_we_end(PROGRAM)
        .args(["--name", "tpm", "--listen-stdin", "--config"])
        .arg(dir.join("assertd.toml"))
        .arg("--state-dir")
        .arg(dir.join("state"))
        .env_remove("TSS2_LOG")
        .stdin(OwnedFd::from(listener))
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    Running(child)
}

pub fn health(world: &World) -> Health {
    let socket = world.dir.path().join("socket");
    let mut client = Client::connect(&socket, DEADLINE).unwrap();
    match client.call(&Request::Health {}).unwrap() {
        Reply::Health(health) => health,
        other => panic!("{other:?}"),
    }
}

#[test]
fn it_serves_in_its_sandbox_and_says_what_it_found() {
    let world = World::new();
    let mut running = start(&world, "", &SECRET);
    let health = health(&world);
    assert_eq!(health.standing, Standing::Usable {}, "{health:?}");
    for part in [
        "TPM IBM",
        "at swtpm:host=127.",
        "password sessions by default",
        "key slots: 2",
    ] {
        assert!(health.token.contains(part), "{part}: {health:?}");
    }
    let socket = world.dir.path().join("socket");
    let client = Client::connect(&socket, DEADLINE).unwrap();
    assert_eq!(
        client.welcome().pid,
        running.0.id(),
        "the second start kept the process id"
    );
    let text = running.end();
    assert!(text.contains("keystore tpm: sandbox:"), "{text}");
}

#[test]
fn a_tpm_that_is_away_is_waited_for_and_the_library_keeps_quiet() {
    let mut world = World::new();
    world.swtpm.power_off();
    let mut running = start(&world, "sessions = \"encrypted\"\n", &SECRET);
    match health(&world).standing {
        Standing::Degraded { why, .. } => assert!(why.contains("0xa000a"), "{why}"),
        other => panic!("{other:?}"),
    }
    world.swtpm.power_on();
    let deadline = Instant::now() + DEADLINE;
    let token = loop {
        match health(&world) {
            Health {
                standing: Standing::Usable {},
                token,
                ..
            } => break token,
            other => assert!(Instant::now() < deadline, "{other:?}"),
        }
        std::thread::park_timeout(std::time::Duration::from_millis(20));
    };
    assert!(token.contains("encrypted sessions,"), "{token}");
    let text = running.end();
    let ours = |line: &str| line.starts_with("keystore tpm:");
    assert!(text.lines().all(ours), "{text}");
}

#[test]
fn a_secret_of_another_length_is_refused_without_being_shown() {
    let world = World::new();
    let mut running = start(&world, "", b"hunter2\n");
    match health(&world).standing {
        Standing::Failed { kind, why } => {
            assert_eq!(kind, Kind::BadPin, "{why}");
            assert!(why.contains("exactly 32 random bytes"), "{why}");
            assert!(!why.contains("hunter2"), "{why}");
        }
        other => panic!("{other:?}"),
    }
    assert!(!running.end().contains("hunter2"));
}

#[test]
fn arguments_and_sections_that_are_wrong_end_it_with_the_codes_of_the_manual() {
    let dir = tempfile::tempdir().unwrap();
    let run = |arguments: &[&str]| {
        let mut command = Command::new(PROGRAM);
        let output = command
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let shown = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), shown)
    };
    assert_eq!(run(&["-V"]).0, Some(0));
    assert_eq!(run(&["--help"]).0, Some(0));
    assert_eq!(run(&["--nonsense"]).0, Some(2));
    assert_eq!(run(&["--list-tokens", "--module", "/x"]).0, Some(2));
    for (section, part) in [
        (
            "backend = \"tpm\"\ntct = \"device\"\n",
            "did you mean `tcti`?",
        ),
        (
            "backend = \"tpm\"\nmodule = \"/x\"\n",
            "`module` is for backend = \"pkcs11\" alone",
        ),
        (
            "backend = \"pkcs11\"\nmodule = \"/x\"\ntoken = { label = \"t\" }\n\
             pin = { file = \"/p\" }\n",
            "keystore `tpm` is for assertd-keystore-pkcs11",
        ),
    ] {
        let config = dir.path().join("assertd.toml");
        write(&config, format!("[keystore.tpm]\n{section}").as_bytes());
        let arguments = [
            "--config",
            config.to_str().unwrap(),
            "--name",
            "tpm",
            "--listen-stdin",
        ];
        let (code, shown) = run(&arguments);
        assert_eq!(code, Some(78), "{shown}");
        assert!(shown.contains(part), "{shown}");
        std::fs::remove_file(&config).unwrap();
    }
}

pub fn charter() -> Charter {
    Charter {
        purpose: Purpose::ClientAuthentication {
            iss: "payments".into(),
            sub: "payments".into(),
            aud: "https://as.bank.example".into(),
        },
        alg: Alg::ES256,
        typ: Typ::ClientAuthentication,
        kid: KidMember::Thumbprint,
        lifetime_max_s: 60,
        backdate_s: 0,
        certificate: CertificateUse::None,
    }
}

/// An assertion, if the keystore mints one now.
pub fn mint(client: &mut Client, key: &KeyId) -> Result<String, Error> {
    let now = Clock::new().trusted().unwrap().unix_s();
    let claims = Claims {
        iss: "payments".into(),
        sub: Some("payments".into()),
        aud: Some("https://as.bank.example".into()),
        scope: None,
        jti: Some("AAAAAAAAAAAAAAAAAAAAAA".into()),
        iat: now,
        nbf: None,
        exp: now + 60,
    };
    let key = key.clone();
    let purpose = PurposeKind::ClientAuthentication;
    match client.call(&Request::Mint {
        key,
        purpose,
        claims,
    })? {
        Reply::Minted { jws } => Ok(jws),
        other => panic!("{other:?}"),
    }
}

/// Has a usable key made.
fn made(client: &mut Client, key: &KeyId) -> KeyEntry {
    let make = Request::Make {
        key: key.clone(),
        charter: charter(),
    };
    let entry = match client.call(&make).unwrap() {
        Reply::Made { key, created: true } => key,
        other => panic!("{other:?}"),
    };
    assert_eq!(entry.condition, Condition::Usable {}, "{entry:?}");
    entry
}

#[test]
fn a_keystore_that_is_told_to_end_leaves_nothing_in_a_bare_tpm() {
    for sessions in ["password", "encrypted"] {
        for signal in [Signal::SIGTERM, Signal::SIGINT] {
            let world = World::new();
            let more = format!("sessions = \"{sessions}\"\n");
            let mut running = start(&world, &more, &SECRET);
            assert_eq!(health(&world).standing, Standing::Usable {});
            let socket = world.dir.path().join("socket");
            let mut client = Client::connect(&socket, DEADLINE).unwrap();
            for number in 1..=3 {
                let key: KeyId = format!("payments/bank{number}.1").parse().unwrap();
                made(&mut client, &key);
                mint(&mut client, &key).unwrap();
            }
            assert!(world.handles("transient") > 0, "nothing to leave behind");
            if sessions == "encrypted" {
                assert!(world.handles("loaded-session") > 0, "it has no session");
            }
            send(running.0.id(), signal);
            let ended = harness::wait_for(DEADLINE, || running.0.try_wait().unwrap());
            assert_eq!(ended.and_then(|status| status.code()), Some(0), "{ended:?}");
            for kind in ["transient", "loaded-session", "saved-session"] {
                let left = world.handles(kind);
                assert_eq!(left, 0, "{sessions}, {signal}, {kind}: {}", running.end());
            }
        }
    }
}

#[test]
fn an_assertion_is_minted_by_the_same_key_before_and_after_the_tpm_was_off() {
    let mut world = World::new();
    let _running = start(&world, "sessions = \"encrypted\"\n", &SECRET);
    assert_eq!(health(&world).standing, Standing::Usable {});
    let socket = world.dir.path().join("socket");
    let mut client = Client::connect(&socket, DEADLINE).unwrap();
    let key: KeyId = "payments/bank.1".parse().unwrap();
    let entry = made(&mut client, &key);
    let verifier = entry.public_key.verifier(Alg::ES256).unwrap();
    let verified = |jws: &str| {
        let (input, signature) = jws.rsplit_once('.').unwrap();
        let signature = BASE64URL.decode(signature).unwrap();
        verifier.verify(input.as_bytes(), &signature).is_ok()
    };
    assert!(verified(&mint(&mut client, &key).unwrap()));
    world.swtpm.power_off();
    let away = mint(&mut client, &key).unwrap_err();
    assert_eq!(away.kind(), Kind::Absent, "{away}");
    world.swtpm.power_on();
    let mut last = away;
    let again = harness::wait_for(DEADLINE, || match mint(&mut client, &key) {
        Ok(jws) => Some(jws),
        Err(error) => {
            last = error;
            None
        }
    });
    assert!(verified(&again.unwrap_or_else(|| panic!("{last}"))));
}
