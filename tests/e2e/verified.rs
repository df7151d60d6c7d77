//! The round trip: a host is enrolled by files, attests its keys, and a relying party without a TPM verifies
//! what came. The TPM has a certificate of its maker, and nothing else is known about it.

use crate::world::{bank, serves};
use harness::programs::Programs;
use harness::swtpm::Authority;
use harness::{Daemon, Tpm, public_dir};
use keystore::evidence::enrolment::registry::EkFingerprint;
use keystore::evidence::enrolment::{File as _, Request};
use keystore::evidence::public::PublicArea;
use serde_json::Value;
use std::path::Path;
use std::process::{Command, Output, Stdio};

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout)
}

/// Runs assertctl as a relying party does, in its own directory and without a configuration.
fn party(programs: &Programs, dir: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(programs.assertctl());
    command.args(arguments).current_dir(dir).env_clear();
    command.stdin(Stdio::null()).output().unwrap()
}

#[track_caller]
fn done(output: &Output) {
    assert_eq!(output.status.code(), Some(0), "{}", said(output));
}

/// The names of the checks that failed.
fn failed(output: &Output) -> Vec<String> {
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let verdicts = report["verdicts"].as_array().unwrap();
    let failed = verdicts.iter().filter(|it| it["outcome"] == "failed");
    failed
        .map(|it| it["check"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn a_host_is_enrolled_attests_and_is_verified_where_no_tpm_is() {
    let (tmp, desk, programs) = (public_dir(), public_dir(), Programs::installed());
    let maker = Authority::new(tmp.path());
    let tpm = Tpm::with_certificates(&maker);
    let config = bank(&tpm).with("[attest]\nhost = \"web-1\"\npcrs = [0, 4, 7]\nbank = \"sha256\"");
    let mut daemon = Daemon::with_keys(config);
    let at = |name: &str| desk.path().join(name).display().to_string();
    std::fs::copy(maker.root(), at("root.pem")).unwrap();
    std::fs::copy(maker.issuer(), at("issuer.pem")).unwrap();
    let policy = "minimum = \"tpm-certified\"\nregistry = \"registry.json\"\n\
                  [ek]\nroots = [\"root.pem\", \"issuer.pem\"]\n\
                  [quote]\nselect = { sha256 = [0, 4, 7] }\nany = true\n";
    std::fs::write(at("policy.toml"), policy).unwrap();

    done(&daemon.assertctl(&["enroll", "request", "-o", &at("web-1.request.json")]));
    let challenge = [
        "enroll",
        "challenge",
        "web-1.request.json",
        "--policy",
        "policy.toml",
    ];
    // Its maker says that it is genuine, and somebody has to say whose it is.
    let unknown = party(&programs, desk.path(), &challenge);
    assert_eq!(unknown.status.code(), Some(1), "{}", said(&unknown));
    let request = std::fs::read(at("web-1.request.json")).unwrap();
    let request = Request::parse(&request).unwrap();
    let ek = PublicArea::parse(request.tpm.ek.public.as_slice()).unwrap();
    let ek = EkFingerprint::of(&ek).unwrap();
    std::fs::write(at("approved"), format!("{ek} web-1\n")).unwrap();
    let challenge = [&challenge[..], &["--approved", "approved"]].concat();
    done(&party(&programs, desk.path(), &challenge));
    let (challenged, response) = (at("web-1.challenge.json"), at("web-1.response.json"));
    done(&daemon.assertctl(&["enroll", "respond", &challenged, "-o", &response]));
    let finish = [
        "enroll",
        "finish",
        "web-1.response.json",
        "--policy",
        "policy.toml",
    ];
    done(&party(&programs, desk.path(), &finish));
    let again = party(&programs, desk.path(), &finish);
    assert_eq!(again.status.code(), Some(1), "a challenge is answered once");

    let nonce = party(
        &programs,
        desk.path(),
        &["nonce", "--policy", "policy.toml"],
    );
    done(&nonce);
    let nonce = String::from_utf8(nonce.stdout)
        .unwrap()
        .trim_end()
        .to_owned();
    done(&daemon.assertctl(&[
        "attest",
        "--nonce",
        &nonce,
        "--all",
        "-o",
        &at("evidence.json"),
    ]));
    let verify = |nonce: &str, more: &[&str]| {
        let arguments = [
            "verify",
            "evidence.json",
            "--nonce",
            nonce,
            "--policy",
            "policy.toml",
            "--json",
        ];
        party(&programs, desk.path(), &[&arguments[..], more].concat())
    };
    let verified = verify(&nonce, &["--record"]);
    done(&verified);
    let again = verify(&nonce, &["--record"]);
    assert_eq!(
        (again.status.code(), failed(&again)),
        (Some(1), vec!["nonce-use".to_owned()])
    );
    let report: Value = serde_json::from_slice(&verified.stdout).unwrap();
    assert_eq!(report["keys"][0]["key"], "ours/bank.1");
    assert_eq!(report["keys"][0]["level"], "tpm-certified");
    assert_eq!(report["keys"][0]["use_by"], "auth-value");
    let other = verify(&"08".repeat(32), &[]);
    assert_eq!(
        (other.status.code(), failed(&other)),
        (Some(1), vec!["nonce".to_owned()])
    );

    // Another TPM of the same maker under the name of this host.
    let second = Tpm::with_certificates(&maker);
    let config =
        bank(&second).with("[attest]\nhost = \"web-1\"\npcrs = [0, 4, 7]\nbank = \"sha256\"");
    let impostor = Daemon::with_keys(config);
    done(&impostor.assertctl(&[
        "attest",
        "--nonce",
        &nonce,
        "--all",
        "-o",
        &at("evidence.json"),
    ]));
    let other = verify(&nonce, &[]);
    assert_eq!(
        (other.status.code(), failed(&other)),
        (Some(1), vec!["host".to_owned()])
    );
    serves(&mut daemon);
}
