//! Evidence of keys, from the keystores to the file: what is in it, what is recorded of it, who may ask,
//! and that workloads are served meanwhile. What it proves is looked at where it is verified.

use crate::world::{BANK, bank, now_s, serves, us};
use harness::swtpm::Authority;
use harness::token::KEYSTORE;
use harness::{Config, Daemon, Token, Tpm, public_dir};
use keystore::evidence::Bundle;
use keystore::evidence::bundle::Bytes;
use keystore::evidence::bundle::{Bank, CertifiedKey, KeystoreEvidence, Nonce, TpmEvidence};
use keystore::evidence::context;
use keystore::evidence::enrolment::{
    Challenge, ChallengeType, EnrolmentId, File, Request, Response, VERSION,
};
use keystore::evidence::public::PublicArea;
use serde_json::{Value, json};
use std::path::Path;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const NONCE: &str = "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc";

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout)
}

/// The bundle that is made of these keys, which must be all that was asked for.
#[track_caller]
fn attested(daemon: &Daemon, dir: &Path, which: &[&str]) -> Bundle {
    let file = dir.join("evidence.json");
    let shown = file.display().to_string();
    let arguments = [&["attest", "--nonce", NONCE, "-o", &shown], which].concat();
    let output = daemon.assertctl(&arguments);
    assert_eq!(
        output.status.code(),
        Some(0),
        "{}\n{}",
        said(&output),
        daemon.stderr()
    );
    Bundle::parse(&std::fs::read(file).unwrap()).unwrap()
}

fn of_tpm(bundle: &Bundle) -> &TpmEvidence {
    let is_tpm = |it: &&KeystoreEvidence| matches!(it, KeystoreEvidence::Tpm(_));
    match bundle.keystores.iter().find(is_tpm) {
        Some(KeystoreEvidence::Tpm(tpm)) => tpm,
        _ => panic!("{bundle:?}"),
    }
}

/// What the TPM was asked to sign stands in what it signed.
fn is_bound(bundle: &Bundle) {
    let (tpm, nonce) = (of_tpm(bundle), Nonce([7; 32]));
    let holds = |attest: &[u8], about: &[u8]| attest.windows(about.len()).any(|it| it == about);
    let about = |key: &CertifiedKey| {
        context::certify(&nonce, &bundle.host, &key.key, key.purpose, &key.jwk.spki())
    };
    for key in &tpm.keys {
        assert!(holds(key.attest.as_slice(), &about(key)), "{}", key.key);
    }
    let quote = tpm.quote.as_ref().unwrap();
    let statements = context::statements(tpm.keys.iter().map(|key| key.attest.as_slice()));
    let about = context::quote(&nonce, &bundle.host, &statements);
    assert!(holds(quote.attest.as_slice(), &about));
}

#[test]
fn keys_of_a_tpm_and_of_a_pkcs11_token_are_in_one_bundle_and_on_record() {
    let (tpm, token, tmp) = (Tpm::new(), Token::new(), public_dir());
    let config = Config::default()
        .keystore("chip", &tpm, "")
        .keystore("hsm", &token, "")
        .with("[attest]\nhost = \"web-1\"\npcrs = [0, 7, 10]\nbank = \"sha256\"")
        .workload("ours", us(), "")
        .target(
            "ours",
            "bank",
            "keystore = \"chip\"\nevidence = \"tpm-certified\"",
        )
        .target("ours", "shop", "keystore = \"chip\"\nalg = \"RS256\"")
        .target("ours", "club", "keystore = \"hsm\"")
        .target(
            "ours",
            "bond",
            "keystore = \"hsm\"\nevidence = \"tpm-certified\"",
        );
    let mut daemon = Daemon::with_keys(config);
    serves(&mut daemon);
    // What a target wants at least is held to.
    let refused = daemon.ask(r#"{"target":"bond"}"#);
    assert_eq!(refused.status, 503, "{}", refused.body());
    assert!(
        refused.member("detail").contains("`asserted`"),
        "{}",
        refused.body()
    );

    let bundle = attested(&daemon, tmp.path(), &["--all"]);
    assert_eq!(bundle.host.as_str(), "web-1");
    assert!(bundle.made_at.abs_diff(now_s()) < 60);
    let [KeystoreEvidence::Tpm(chip), KeystoreEvidence::Pkcs11(hsm)] = &bundle.keystores[..] else {
        panic!("{bundle:?}");
    };
    let names: Vec<String> = chip.keys.iter().map(|it| it.key.to_string()).collect();
    assert_eq!(names, ["ours/bank.1", "ours/shop.1"]);
    assert_eq!((chip.name.as_str(), hsm.name.as_str()), ("chip", "hsm"));
    let values = &chip.quote.as_ref().unwrap().pcrs[&Bank::Sha256];
    let indices: Vec<u8> = values.keys().map(|index| index.number()).collect();
    assert_eq!(indices, [0, 7, 10]);
    is_bound(&bundle);
    assert_eq!(hsm.keys.len(), 2);
    for key in &hsm.keys {
        let shown = &key.attributes;
        assert_eq!(
            (shown.sensitive, shown.extractable),
            (Some(true), Some(false))
        );
        assert_eq!((shown.local, shown.sign), (Some(true), Some(true)));
        // All of which a verifier wants to be told.
        let uses = [
            shown.decrypt,
            shown.unwrap,
            shown.derive,
            shown.sign_recover,
        ];
        assert_eq!((shown.token, uses), (Some(true), [Some(false); 4]));
        assert!(!key.imported);
    }
    assert!(
        hsm.module.model.as_str().contains("SoftHSM"),
        "{:?}",
        hsm.module
    );

    // The same, of one target, under its name.
    let one = attested(&daemon, tmp.path(), &["--target", "ours/shop"]);
    assert_eq!(one.keystores.len(), 1);
    let [key] = &of_tpm(&one).keys[..] else {
        panic!("{one:?}");
    };
    assert_eq!(key.key.to_string(), "ours/shop.1");
    assert_eq!(key.target.as_ref().unwrap().as_str(), "ours/shop");
    is_bound(&one);
    let none = daemon.assertctl(&["attest", "--nonce", NONCE, "--all", "--purpose", "account"]);
    assert_eq!(none.status.code(), Some(1), "{}", said(&none));
    for wrong in [["--target", "ours/nobody"], ["--purpose", "tls"]] {
        let mut arguments = vec!["attest", "--nonce", NONCE];
        arguments.extend(wrong);
        if wrong[0] == "--purpose" {
            arguments.push("--all");
        }
        let output = daemon.assertctl(&arguments);
        assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    }

    let records = daemon.audit_records();
    let attested = |keystore: &str| {
        let is_it = |it: &&Value| it["kind"] == "attested" && it["keystore"] == keystore;
        records
            .iter()
            .find(is_it)
            .unwrap_or_else(|| panic!("{records:?}"))
    };
    let chip = attested("chip");
    assert_eq!(chip["nonce"], NONCE);
    assert_eq!(chip["host"], "web-1");
    assert_eq!((&chip["keys"], &chip["uid"]), (&json!(2), &json!(us())));
    assert_eq!(chip["evidence"], "tpm-certified");
    assert_eq!(attested("hsm")["evidence"], "asserted");
    let decision = records.iter().find(|it| it["kind"] == "decision").unwrap();
    assert_eq!(decision["evidence"], "tpm-certified");

    let jwks = daemon.assertctl(&["jwks", "--key", "ours/bank", "--with-evidence"]);
    let set: Value = serde_json::from_slice(&jwks.stdout).unwrap();
    let kid = set["keys"][0]["kid"].as_str().unwrap();
    let known = json!({ "level": "tpm-certified", "imported": false });
    assert_eq!(set["assertd_evidence"], json!({ kid: known }));
    let plain = daemon.assertctl(&["jwks", "--key", "ours/bank"]);
    let plain: Value = serde_json::from_slice(&plain.stdout).unwrap();
    assert_eq!(plain.get("assertd_evidence"), None);
    serves(&mut daemon);
}

#[test]
fn a_keystore_that_cannot_prove_anything_is_left_out_and_said() {
    let (mut tpm, tmp) = (Tpm::new(), public_dir());
    let mut daemon = Daemon::with_keys(bank(&tpm));
    serves(&mut daemon);
    attested(&daemon, tmp.path(), &["--all"]);
    std::fs::write(
        daemon.site().keystore_state(KEYSTORE).join("ak.pem"),
        "no key",
    )
    .unwrap();
    let mut daemon = daemon.restart();
    serves(&mut daemon);
    let output = daemon.assertctl(&["attest", "--nonce", NONCE, "--all"]);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    let text = said(&output);
    assert!(text.contains("ours/bank.1 is not in it"), "{text}");
    assert!(text.contains("ak.pem"), "{text}");
    assert_eq!(daemon.keys()[0].evidence, "asserted");
    tpm.swtpm().power_off();
    let output = daemon.assertctl(&["attest", "--nonce", NONCE, "--all"]);
    assert_ne!(output.status.code(), Some(0), "{}", said(&output));
}

/// Many keys while a workload asks all the time: nobody is refused, and nobody waits for more than a
/// statement or two, of which there are few. How long exactly is measured elsewhere.
#[test]
fn workloads_are_served_between_the_statements() {
    let (tpm, tmp) = (Tpm::new(), public_dir());
    let mut config = Config::new(&tpm)
        .workload("ours", us(), "rate = 100000\nburst = 100000")
        .target("ours", "bank", "");
    for n in 0..19 {
        config = config.target("ours", &format!("other-{n}"), "");
    }
    let mut daemon = Daemon::with_keys(config);
    serves(&mut daemon);
    let over = AtomicBool::new(false);
    let (slowest, served) = std::thread::scope(|scope| {
        let asking = scope.spawn(|| {
            let (mut slowest, mut served) = (Duration::ZERO, 0);
            while !over.load(Ordering::Relaxed) {
                let began = Instant::now();
                let answer = daemon.ask(BANK);
                assert_eq!(answer.status, 200, "{}", answer.body());
                slowest = slowest.max(began.elapsed());
                served += 1;
            }
            (slowest, served)
        });
        let bundle = attested(&daemon, tmp.path(), &["--all"]);
        over.store(true, Ordering::Relaxed);
        assert_eq!(of_tpm(&bundle).keys.len(), 20);
        is_bound(&bundle);
        asking.join().unwrap()
    });
    assert!(slowest < Duration::from_secs(2), "{slowest:?}");
    assert!(served > 10 * 20, "{served}: it rests between statements");
}

#[test]
fn a_challenge_is_answered_by_the_tpm_that_it_is_for() {
    let tmp = public_dir();
    let maker = Authority::new(tmp.path());
    let tpm = Tpm::with_certificates(&maker);
    let config = bank(&tpm).with("[attest]\nhost = \"web-1\"");
    let mut daemon = Daemon::with_keys(config);
    let path = |name: &str| tmp.path().join(name).display().to_string();
    let output = daemon.assertctl(&["enroll", "request", "-o", &path("request.json")]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let request = Request::parse(&std::fs::read(path("request.json")).unwrap()).unwrap();
    assert_eq!(request.host.as_str(), "web-1");
    assert_eq!(request.keystore.as_str(), KEYSTORE);
    assert!(request.tpm.ek.certificate.is_some());

    // What another program encrypts for it.
    let sized = |bytes: &[u8]| [&(bytes.len() as u16).to_be_bytes(), bytes].concat();
    let ak = request.tpm.ak.public.as_slice();
    let name = PublicArea::parse(ak).unwrap().name().to_vec();
    std::fs::write(path("ek.pub"), sized(request.tpm.ek.public.as_slice())).unwrap();
    std::fs::write(path("secret"), [9; 32]).unwrap();
    let hex: String = name.iter().map(|byte| format!("{byte:02x}")).collect();
    let made = Command::new("tpm2_makecredential")
        .args(["-T", "none", "-n", &hex, "-u", &path("ek.pub")])
        .args(["-s", &path("secret"), "-o", &path("blob")])
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", said(&made));
    let blob = std::fs::read(path("blob")).unwrap();
    let part = |at: usize| {
        let length = usize::from(u16::from_be_bytes([blob[at], blob[at + 1]]));
        blob[at + 2..at + 2 + length].to_vec()
    };
    let credential = part(8);
    let secret = part(8 + 2 + credential.len());
    let challenge = |host: &str, secret: Vec<u8>| {
        let challenge = Challenge {
            r#type: ChallengeType::Challenge,
            version: VERSION,
            id: EnrolmentId([3; 16]),
            host: host.parse().unwrap(),
            keystore: request.keystore.clone(),
            ak_name: Bytes::new(name.clone()).unwrap(),
            expires_at: now_s() + 300,
            credential: Bytes::new(credential.clone()).unwrap(),
            secret: Bytes::new(secret).unwrap(),
        };
        std::fs::write(path("challenge.json"), challenge.to_json()).unwrap();
        let (from, to) = (path("challenge.json"), path("response.json"));
        daemon.assertctl(&["enroll", "respond", &from, "-o", &to])
    };
    let output = challenge("web-1", secret.clone());
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let response = Response::parse(&std::fs::read(path("response.json")).unwrap()).unwrap();
    assert_eq!(response.secret.as_slice(), [9; 32]);
    assert_eq!(
        (response.id, response.host.as_str()),
        (EnrolmentId([3; 16]), "web-1")
    );
    let output = challenge("web-2", secret.clone());
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    let mut another = secret;
    another[20] ^= 1;
    let output = challenge("web-1", another);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(
        said(&output).contains("not for this TPM"),
        "{}",
        said(&output)
    );
    serves(&mut daemon);
}
