//! `assertctl verify` and `enroll`, on a machine that has no TPM and no assertd: what a relying party sees. The host
//! is one of the verifier's own tests, whose TPM is made of keys of the test.

#[path = "../../keystore/tests/evidence/fixture.rs"]
mod fixture;
mod records;
mod registry;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL};
use fixture::{World, public, secret};
use harness::programs::Programs;
use keystore::evidence::bundle::{Bundle, Text};
use keystore::evidence::enrolment::registry::{EkFingerprint, Registry};
use keystore::evidence::enrolment::{
    Challenge, File as _, Request, RequestType, Response, ResponseType, VERSION,
};
use keystore::evidence::nonces::Nonces;
use p256::pkcs8::EncodePrivateKey as _;
use serde_json::Value;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};
use tempfile::TempDir;

/// A relying party's directory.
struct Desk {
    dir: TempDir,
    programs: Programs,
    world: World,
}

impl Desk {
    fn new() -> Desk {
        let desk = Desk {
            dir: tempfile::tempdir().unwrap(),
            programs: Programs::installed(),
            world: World::new(),
        };
        desk.put("policy.toml", &desk.world.policy());
        desk.put("roots.pem", &desk.world.root.pem());
        desk.put("registry.json", &desk.world.registry().to_json());
        desk.put("evidence.json", &desk.bundle().to_json());
        desk
    }

    /// Made now: the program has a clock of its own.
    fn bundle(&self) -> Bundle {
        Bundle {
            made_at: now(),
            ..self.world.bundle()
        }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn put(&self, name: &str, text: &str) {
        let path = self.at(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.at(name)).unwrap()
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(self.programs.assertctl());
        command
            .args(arguments)
            .current_dir(self.dir.path())
            .env_clear();
        command.stdin(Stdio::null()).output().unwrap()
    }

    fn verify(&self, more: &[&str]) -> Output {
        let nonce = self.world.nonce.to_base64url();
        let arguments = [
            "verify",
            "evidence.json",
            "--nonce",
            &nonce,
            "--policy",
            "policy.toml",
        ];
        self.run(&[&arguments[..], more].concat())
    }

    /// As if the nonce had been made here, now.
    fn opens(&self) {
        let mut nonces = Nonces::new();
        nonces.keep(&self.world.nonce, now());
        self.put("registry.nonces", &nonces.to_json());
    }

    fn registry(&self) -> Registry {
        Registry::parse(self.read("registry.json").as_bytes()).unwrap()
    }
}

fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// Its lines, each with one space between its columns.
fn plain(output: &Output) -> String {
    let text = stdout(output);
    let lines = text.lines().map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        words.join(" ")
    });
    lines.collect::<Vec<String>>().join("\n")
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn every_check_has_its_verdict_and_every_key_its_level() {
    let desk = Desk::new();
    let passed = desk.verify(&[]);
    let text = plain(&passed);
    assert_eq!(
        (passed.status.code(), stderr(&passed).as_str()),
        (Some(0), ""),
        "{text}"
    );
    for line in [
        "passed nonce -",
        "passed ak-enrolled tpm",
        "passed certify-context ours/bank.1",
        "passed ima tpm",
        "ours/bank.1 tpm-certified by auth-value ",
        "web-1: passed: ",
    ] {
        assert!(
            text.lines().any(|it| it.starts_with(line)),
            "{line}\n{text}"
        );
    }

    let nonce = "08".repeat(32);
    let arguments = [
        "verify",
        "evidence.json",
        "--nonce",
        &nonce,
        "--policy",
        "policy.toml",
    ];
    let failed = desk.run(&arguments);
    let text = plain(&failed);
    assert_eq!(failed.status.code(), Some(1), "{text}");
    let line = "failed nonce - it answers another nonce";
    assert!(text.lines().any(|it| it == line), "{text}");
    assert!(
        text.contains("unreachable certify-context ours/bank.1 after nonce"),
        "{text}"
    );
    assert!(text.contains("web-1: failed: "), "{text}");

    let json = desk.verify(&["--json"]);
    let json: Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(json["format"], 1);
    assert_eq!(json["result"], "passed");
    assert_eq!(json["keys"][0]["level"], "tpm-certified");
    assert_eq!(json["verdicts"][0]["check"], "bundle");
    assert_eq!(json["verdicts"][0]["outcome"], "passed");
    assert_eq!(json["policy"].as_str().map(str::len), Some(64));
}

#[test]
fn what_is_no_evidence_is_a_verdict_and_a_wrong_policy_is_a_mistake() {
    let desk = Desk::new();
    desk.put("evidence.json", "{}");
    let failed = desk.verify(&[]);
    assert_eq!(failed.status.code(), Some(1));
    assert!(
        stdout(&failed).starts_with("failed       bundle  "),
        "{}",
        stdout(&failed)
    );

    let policy = desk.world.policy().replace("[ek]", "[ek]\nrots = []");
    desk.put("policy.toml", &policy);
    let wrong = desk.verify(&[]);
    assert_eq!(wrong.status.code(), Some(78));
    let said = stderr(&wrong);
    assert!(
        said.starts_with("assertctl: policy.toml:4:1: unknown key `rots`"),
        "{said}"
    );

    desk.put("policy.toml", &desk.world.policy());
    desk.put("roots.pem", "no certificate");
    let wrong = desk.verify(&[]);
    assert_eq!(wrong.status.code(), Some(78));
    assert!(
        stderr(&wrong).contains("roots.pem: has no certificate"),
        "{}",
        stderr(&wrong)
    );
}

/// A program for another machine: what it links is what every machine has.
#[test]
fn no_tpm_library_is_linked() {
    let desk = Desk::new();
    let linked = Command::new("ldd")
        .arg(desk.programs.assertctl())
        .output()
        .unwrap();
    let linked = stdout(&linked);
    assert!(linked.contains("libc.so"), "{linked}");
    for library in ["tss2", "tpm", "pkcs11", "p11"] {
        assert!(!linked.contains(library), "{linked}");
    }
}

#[test]
fn a_result_is_signed_by_a_key_that_nobody_else_can_read() {
    let desk = Desk::new();
    let key = p256::SecretKey::from_slice(&[9; 32]).unwrap();
    let der = key.to_pkcs8_der().unwrap();
    fs::write(desk.at("verifier.key"), der.as_bytes()).unwrap();
    let mode =
        |mode| fs::set_permissions(desk.at("verifier.key"), fs::Permissions::from_mode(mode));
    let sign = || desk.verify(&["--eat", "result.jwt", "--eat-key", "verifier.key"]);
    mode(0o640).unwrap();
    let refused = sign();
    assert_eq!(
        (refused.status.code(), stdout(&refused).as_str()),
        (Some(1), "")
    );
    assert!(
        stderr(&refused).contains("others can read"),
        "{}",
        stderr(&refused)
    );
    mode(0o600).unwrap();
    assert_eq!(sign().status.code(), Some(0));
    let token = desk.read("result.jwt");
    let (input, signature) = token.rsplit_once('.').unwrap();
    let verifier = public(&secret(9)).verifier(keystore::Alg::ES256).unwrap();
    let signature = BASE64URL.decode(signature).unwrap();
    assert!(verifier.verify(input.as_bytes(), &signature).is_ok());
    let payload = input.split_once('.').unwrap().1;
    let payload: Value = serde_json::from_slice(&BASE64URL.decode(payload).unwrap()).unwrap();
    assert_eq!(payload["eat_nonce"], desk.world.nonce.to_base64url());
    assert_eq!(payload["assertd_result"], "passed");
    let (made, over) = (payload["iat"].as_u64(), payload["exp"].as_u64());
    assert_eq!(made.map(|it| it + 300), over);
}

#[test]
fn counters_that_were_accepted_are_kept_and_an_older_state_is_found_out() {
    let desk = Desk::new();
    assert_eq!(desk.verify(&[]).status.code(), Some(0));
    assert_eq!(desk.registry().enrolled[0].counters, None);
    desk.opens();
    assert_eq!(desk.verify(&["--record"]).status.code(), Some(0));
    let counters = desk.registry().enrolled[0].counters.unwrap();
    assert_eq!(
        (counters.reset, counters.restart),
        (desk.world.reset, desk.world.restart)
    );
    let older = World {
        reset: desk.world.reset - 1,
        ..desk.world.clone()
    };
    let older = Bundle {
        made_at: now(),
        ..older.bundle()
    };
    desk.put("evidence.json", &older.to_json());
    desk.opens();
    let failed = desk.verify(&["--record"]);
    assert_eq!(failed.status.code(), Some(1));
    assert!(
        stdout(&failed).contains("failed  counters"),
        "{}",
        stdout(&failed)
    );
    assert_eq!(desk.registry().enrolled[0].counters, Some(counters));
}

fn request(world: &World) -> String {
    let request = Request {
        r#type: RequestType::Request,
        version: VERSION,
        host: world.host.clone(),
        keystore: Text::cut("tpm"),
        tpm: world.tpm(),
    };
    request.to_json()
}

fn host(name: &str, ek: u8, ak: u8) -> World {
    World {
        host: name.parse().unwrap(),
        ek: secret(ek),
        ak: secret(ak),
        ..World::new()
    }
}

#[test]
fn a_batch_is_answered_file_by_file_and_by_the_list_of_approved_tpms() {
    let desk = Desk::new();
    let worlds = [
        host("web-2", 30, 31),
        host("web-3", 32, 33),
        host("web-4", 34, 35),
    ];
    for world in &worlds {
        desk.put(
            &format!("requests/{}.request.json", world.host),
            &request(world),
        );
    }
    desk.put("requests/torn.json", "{");
    let fingerprint = |world: &World| EkFingerprint::of_spki(&public(&world.ek).spki());
    let approved = format!(
        "# rack 4\n{}\n{} web-9\n",
        fingerprint(&worlds[0]),
        fingerprint(&worlds[1])
    );
    desk.put("approved", &approved);
    let answered = desk.run(&[
        "enroll",
        "challenge",
        "requests",
        "--policy",
        "policy.toml",
        "--approved",
        "approved",
        "-o",
        ".",
        "--json",
    ]);
    assert_eq!(answered.status.code(), Some(1), "{}", stderr(&answered));
    let json: Value = serde_json::from_slice(&answered.stdout).unwrap();
    let files = json["files"].as_array().unwrap();
    let why = |index: usize| {
        files[index]["refused"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    };
    assert!(why(0).contains("EOF"), "{}", why(0));
    assert_eq!(files[1]["challenge"], "./web-2.challenge.json", "{json:#}");
    assert!(why(2).contains("is that of web-9"), "{}", why(2));
    assert!(why(3).contains("not on the list"), "{}", why(3));
    let challenge = Challenge::parse(desk.read("web-2.challenge.json").as_bytes()).unwrap();
    assert_eq!(challenge.host, worlds[0].host);
    assert!(!desk.at("web-3.challenge.json").exists());

    // What was not in it enrols nobody, and the challenge is used up.
    let respond = |secret: &[u8]| {
        let response = Response {
            r#type: ResponseType::Response,
            version: VERSION,
            id: challenge.id,
            host: challenge.host.clone(),
            secret: fixture::bytes(secret),
        };
        desk.put("answers/web-2.response.json", &response.to_json());
        desk.put("answers/web-2.request.json", &request(&worlds[0]));
        desk.put(
            "answers/web-2.challenge.json",
            &desk.read("web-2.challenge.json"),
        );
        desk.run(&["enroll", "finish", "answers", "--policy", "policy.toml"])
    };
    let before = desk.registry();
    // Beside its request and its challenge, as one directory is carried to and fro.
    let refused = respond(&[0; 32]);
    assert_eq!(refused.status.code(), Some(1));
    let text = stdout(&refused);
    assert!(
        text.starts_with("refused  web-2/tpm  it is not what was in the challenge"),
        "{text}"
    );
    let again = stdout(&respond(&[0; 32]));
    assert!(again.contains("no challenge is open for it"), "{again}");
    assert_eq!(desk.registry(), before);
}

#[test]
fn a_copy_a_software_key_and_a_tpm_that_nobody_vouches_for_are_not_even_challenged() {
    let desk = Desk::new();
    let refused = |world: &World, more: &[&str]| {
        desk.put("r.json", &request(world));
        let arguments = ["enroll", "challenge", "r.json", "--policy", "policy.toml"];
        let output = desk.run(&[&arguments[..], more].concat());
        assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
        stdout(&output)
    };
    let known = &desk.world;
    let second = World {
        host: "web-2".parse().unwrap(),
        ..known.clone()
    };
    assert!(refused(&second, &[]).contains("its TPM is enrolled as that of web-1"));
    let cloned = World {
        ek: secret(40),
        host: "web-2".parse().unwrap(),
        ..known.clone()
    };
    assert!(refused(&cloned, &[]).contains("one of them is a copy"));
    let replaced = World {
        ek: secret(40),
        ak: secret(41),
        ..known.clone()
    };
    assert!(refused(&replaced, &[]).contains("--replace web-1"));
    assert!(refused(&replaced, &["--replace", "web-2"]).contains("--replace web-1"));
    // A genuine one, of which nobody has said whose it is.
    let genuine = refused(&host("web-3", 42, 43), &[]);
    assert!(
        genuine.contains("nobody has said that it is the one of web-3"),
        "{genuine}"
    );
    let software = World {
        ak_attributes: fixture::KEY,
        ..host("web-3", 42, 43)
    };
    assert!(refused(&software, &[]).contains("restricted is not set"));
    let unknown = World {
        root: fixture::Authority::new(44, "Root"),
        ..host("web-3", 42, 43)
    };
    assert!(refused(&unknown, &[]).contains("does not lead to a root"));
    let policy = desk.world.policy().replace(
        "[ek]\nroots = [\"roots.pem\"]",
        "[ek]\ncertificate = \"optional\"",
    );
    desk.put("policy.toml", &policy);
    assert!(refused(&unknown, &[]).contains("nobody vouches for its TPM"));
    desk.put("r.json", &request(&replaced));
    let fingerprint = EkFingerprint::of_spki(&public(&replaced.ek).spki());
    desk.put("approved", &format!("{fingerprint} web-1\n"));
    let meant = desk.run(&[
        "enroll",
        "challenge",
        "r.json",
        "--policy",
        "policy.toml",
        "--approved",
        "approved",
        "--replace",
        "web-1",
    ]);
    assert_eq!(meant.status.code(), Some(0), "{}", stdout(&meant));
}
