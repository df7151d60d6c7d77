//! What is published, as those see it who fetch it: `assertd-publish` over TCP, and clients that
//! nobody here wrote. The documents are put there by assertd's own code, called from here.

use crate::world::us;
use broker::publication::documents::Spiffe;
use broker::publication::{Documents, Key, KeySet, publish};
use harness::programs::Programs;
use harness::publisher::{self, Publisher};
use harness::{Config, DEADLINE, Daemon, Token, peers};
use keystore::keyid::KeyVersion;
use keystore::{Alg, PublicKey};
use nix::sys::signal::Signal;
use serde_json::Value;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::time::Duration;
use tempfile::TempDir;

const URL: &str = "https://id.example.com/prod";

/// What a key of a set that `assertctl jwks` has printed is.
fn key(version: u32, jwk: &Value) -> Key {
    let mut members = jwk.as_object().unwrap().clone();
    let alg: Alg = serde_json::from_value(members.remove("alg").unwrap()).unwrap();
    members.retain(|name, _| !["kid", "use"].contains(&name.as_str()));
    let public_key: PublicKey = serde_json::from_value(Value::Object(members)).unwrap();
    Key::new(KeyVersion::new(version).unwrap(), public_key, alg).unwrap()
}

/// The published directory of an issuer at [`URL`] and a client, with keys that nobody has.
struct Published {
    dir: TempDir,
    programs: Programs,
}

impl Published {
    fn new(of_issuer: &KeySet) -> Published {
        let published = Published {
            dir: harness::public_dir(),
            programs: Programs::installed(),
        };
        published.put(of_issuer);
        published
    }

    fn put(&self, of_issuer: &KeySet) {
        let config = "[keystore.t]\nbackend = \"tpm\"\n[issuer.prod]\nkeystore = \"t\"\n\
            url = \"https://id.example.com/prod\"\nsubjects = [\"spiffe://example.org/*\"]\n\
            trust_domain = \"example.org\"\n";
        let file = self.dir.path().join("issuer.toml");
        std::fs::write(&file, config).unwrap();
        let config = broker::config::Config::load(&file).unwrap();
        let mut documents = Documents::default();
        let spiffe = Spiffe {
            sequence_min: 1,
            refresh_hint_s: 300,
        };
        documents.add_issuer(&config.issuers["prod"], of_issuer, spiffe);
        documents.add_client(&"payments/bank".parse().unwrap(), of_issuer);
        let outcome = publish(&self.directory(), &documents).unwrap();
        assert!(outcome.failed.is_empty(), "{outcome:?}");
    }

    fn directory(&self) -> PathBuf {
        self.dir.path().join("published")
    }

    fn file(&self, path: &str) -> String {
        std::fs::read_to_string(self.directory().join(path)).unwrap()
    }

    fn serve(&self) -> Publisher {
        Publisher::start(&self.programs, &self.directory(), &[("prod", URL)])
    }
}

/// RFC 8037 §A.2.
fn of_rfc_8037() -> KeySet {
    let jwk = serde_json::json!({
        "kty": "OKP", "crv": "Ed25519", "alg": "EdDSA",
        "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
    });
    KeySet::new(key(1, &jwk), []).unwrap()
}

const DISCOVERY: &str = "/prod/.well-known/openid-configuration";

#[test]
fn a_document_is_what_was_published_with_headers_for_caches() {
    let published = Published::new(&of_rfc_8037());
    let publisher = published.serve();
    for (path, file, content_type) in [
        (
            DISCOVERY,
            "issuer/prod/.well-known/openid-configuration",
            "application/json",
        ),
        (
            "/prod/jwks.json",
            "issuer/prod/jwks.json",
            "application/jwk-set+json",
        ),
        (
            "/prod/bundle.json",
            "issuer/prod/bundle.json",
            "application/json",
        ),
        (
            "/client/payments/bank/jwks.json",
            "client/payments/bank/jwks.json",
            "application/jwk-set+json",
        ),
    ] {
        let answer = publisher.get(path, "");
        assert_eq!(answer.status, 200, "{path}");
        assert_eq!(answer.body(), published.file(file), "{path}");
        assert_eq!(answer.header("content-type"), Some(content_type));
        assert_eq!(
            answer.header("cache-control"),
            Some("public, max-age=300, must-revalidate")
        );
        let etag = answer.header("etag").unwrap().to_owned();
        let sha256 = broker::audit::Sha256::of(answer.body().as_bytes());
        assert_eq!(etag, format!("\"{sha256}\""));
        // Who has it is told so, and nothing twice; who has another gets this one.
        for known in [etag.clone(), format!("\"x\", W/{etag}"), "*".to_owned()] {
            let again = publisher.get(path, &format!("if-none-match: {known}\r\n"));
            assert_eq!((again.status, again.body()), (304, ""), "{known}");
            assert_eq!(again.header("etag"), Some(etag.as_str()));
        }
        let other = publisher.get(path, "if-none-match: \"x\"\r\n");
        assert_eq!(other.status, 200);
        // HEAD is the same without the content.
        let head = publisher.ask(format!("HEAD {path} HTTP/1.1\r\nhost: a\r\n\r\n"));
        let head = String::from_utf8(head).unwrap();
        let length = format!("content-length: {}\r\n", answer.body().len());
        assert!(
            head.starts_with("HTTP/1.1 200 ") && head.contains(&length),
            "{head}"
        );
        assert!(head.ends_with("\r\n\r\n") && head.contains(&etag), "{head}");
    }
}

#[test]
fn what_is_published_anew_is_shown_at_once() {
    let published = Published::new(&of_rfc_8037());
    let publisher = published.serve();
    let before = publisher.get("/prod/jwks.json", "");
    published.put(&KeySet::all_revoked());
    let etag = before.header("etag").unwrap();
    let after = publisher.get("/prod/jwks.json", &format!("if-none-match: {etag}\r\n"));
    assert_eq!(after.status, 200);
    assert_eq!(after.json(), serde_json::json!({ "keys": [] }));
}

#[test]
fn there_is_no_other_route_and_no_other_method() {
    let published = Published::new(&of_rfc_8037());
    let publisher = published.serve();
    for path in [
        "/",
        "/prod",
        "/prod/jwks.upload.json",
        "/prod/by-sha256/",
        "/published",
        "/issuer/prod/jwks.json",
        "/client/payments/other/jwks.json",
        "/client/../issuer/prod/jwks.json",
        "/prod/../prod/jwks.json",
        "/prod/%6awks.json",
        "//prod/jwks.json",
    ] {
        let answer = publisher.get(path, "");
        assert_eq!(
            (answer.status, answer.body()),
            (404, "Not Found\n"),
            "{path}"
        );
        assert_eq!(answer.header("cache-control"), Some("no-store"));
    }
    let status = |request: String| {
        let said = String::from_utf8(publisher.ask(request)).unwrap();
        said.get(9..12).unwrap_or_default().to_owned()
    };
    for method in [
        "POST", "PUT", "DELETE", "OPTIONS", "TRACE", "CONNECT", "PROPFIND",
    ] {
        let request = format!("{method} /prod/jwks.json HTTP/1.1\r\nhost: a\r\n\r\n");
        let status = status(request);
        // CONNECT has no path that could be a document's.
        assert!(status == "405" || method == "CONNECT", "{method}: {status}");
        assert_ne!(status, "200");
    }
    let request = |more: &str| format!("GET /prod/jwks.json HTTP/1.1\r\nhost: a\r\n{more}");
    assert_eq!(status(request("content-length: 1\r\n\r\na")), "413");
    assert_eq!(
        status(request("transfer-encoding: chunked\r\n\r\n0\r\n\r\n")),
        "413"
    );
    let many: String = (0..70).map(|n| format!("x-{n}: 1\r\n")).collect();
    assert_eq!(status(request(&format!("{many}\r\n"))), "431");
    let long = "a".repeat(17 * 1024);
    assert_eq!(status(request(&format!("x: {long}\r\n\r\n"))), "431");
    assert_eq!(publisher.get("/prod/jwks.json", "").status, 200);
}

#[test]
fn a_link_is_not_followed_and_a_document_that_is_not_there_is_not_found() {
    let published = Published::new(&of_rfc_8037());
    let mut publisher = published.serve();
    let issuer = published.directory().join("issuer/prod");
    let secret = published.dir.path().join("secret");
    std::fs::write(&secret, "secret").unwrap();
    for (file, path) in [("jwks.json", "/prod/jwks.json"), (".well-known", DISCOVERY)] {
        let file = issuer.join(file);
        std::fs::rename(&file, issuer.join("aside")).unwrap();
        assert_eq!(publisher.get(path, "").status, 404);
        symlink(&secret, &file).unwrap();
        let answer = publisher.get(path, "");
        assert_eq!(answer.status, 503, "{}", answer.body());
        assert_eq!(answer.header("retry-after"), Some("5"));
        assert!(!answer.body().contains("secret"));
        std::fs::remove_file(&file).unwrap();
        std::fs::rename(issuer.join("aside"), &file).unwrap();
        assert_eq!(publisher.get(path, "").status, 200);
    }
    publisher
        .process()
        .wait_for_stderr("jwks.json: is a symbolic link");
}

#[test]
fn who_is_slow_or_silent_is_hung_up_on_and_keeps_nobody_from_being_answered() {
    let published = Published::new(&of_rfc_8037());
    let publisher = published.serve();
    let silent: Vec<_> = (0..100).map(|_| publisher.connect()).collect();
    let mut slow = publisher.connect();
    slow.write_all(b"GET /prod/jwks.json HTTP/1.1\r\nhost:")
        .unwrap();
    assert_eq!(publisher.get("/prod/jwks.json", "").status, 200);
    let started = std::time::Instant::now();
    for mut stream in silent.into_iter().chain([slow]) {
        let mut said = Vec::new();
        std::io::Read::read_to_end(&mut stream, &mut said).unwrap();
        assert!(
            said.is_empty() || said.starts_with(b"HTTP/1.1 408"),
            "{said:?}"
        );
    }
    assert!(
        started.elapsed() < Duration::from_secs(9),
        "{:?}",
        started.elapsed()
    );
}

#[test]
fn it_ends_when_it_is_told_and_answers_what_it_has_accepted() {
    let published = Published::new(&of_rfc_8037());
    let mut publisher = published.serve();
    let mut stream = publisher.connect();
    stream
        .write_all(b"GET /prod/jwks.json HTTP/1.1\r\n")
        .unwrap();
    assert_eq!(publisher.get("/prod/jwks.json", "").status, 200); // so the other was accepted
    publisher.process().signal(Signal::SIGTERM);
    stream.write_all(b"host: a\r\n\r\n").unwrap();
    let mut said = Vec::new();
    std::io::Read::read_to_end(&mut stream, &mut said).unwrap();
    assert!(
        said.starts_with(b"HTTP/1.1 200"),
        "{}",
        String::from_utf8_lossy(&said)
    );
    assert!(publisher.process().wait(DEADLINE).success());
}

/// What keeps it from serving: the exit code, and a part of what it says.
#[test]
fn what_it_cannot_serve_it_says() {
    let published = Published::new(&of_rfc_8037());
    let started = |text: &str| {
        let config = published.dir.path().join("assertd.toml");
        std::fs::write(&config, text).unwrap();
        let mut command = publisher::command(&published.programs, &config);
        let output = command.args(["--listen", "127.0.0.1:0"]).output().unwrap();
        (
            output.status.code(),
            String::from_utf8(output.stderr).unwrap(),
        )
    };
    let there = format!(
        "[publication]\ndirectory = \"{}\"\n",
        published.directory().display()
    );
    let two =
        "[issuer.a]\nurl = \"https://a.example/x\"\n[issuer.b]\nurl = \"https://b.example/x\"\n";
    for (text, code, part) in [
        (String::new(), 78, "no `directory` in [publication]"),
        (
            "[publication]\ndirectory = \"/no/such\"\n".to_owned(),
            69,
            "/no/such",
        ),
        (format!("{there}{two}"), 78, "[issuer.a] and [issuer.b]"),
        (
            format!("{there}[issuer.a]\nurl = \"http://a\"\n"),
            78,
            "no https URL",
        ),
        ("x".to_owned(), 78, "assertd.toml:1:"),
    ] {
        let (exit, said) = started(&text);
        assert_eq!(exit, Some(code), "{text}: {said}");
        assert!(said.contains(part), "{said}");
    }
}

/// An issuer whose key is in a token, its documents behind what a reverse proxy does, and clients that
/// fetch them and check what was signed.
#[test]
fn clients_that_nobody_here_wrote_find_the_keys_and_trust_what_they_sign() {
    let token = Token::new();
    let config = Config::new(&token)
        .with(&format!(
            "[issuer.prod]\nurl = \"{URL}\"\nkeystore = \"{}\"\ntrust_domain = \"example.org\"\n\
             subjects = [\"payments\", \"spiffe://example.org/payments\"]",
            harness::token::KEYSTORE
        ))
        .workload("ours", us(), "")
        .with(
            "[workload.ours.target.aws]\nprofile = \"aws-oidc\"\nissuer = \"prod\"\n\
             subject = \"payments\"\naudience = \"sts.amazonaws.com\"\n\
             [workload.ours.target.mesh]\nprofile = \"jwt-svid\"\nissuer = \"prod\"\n\
             subject = \"spiffe://example.org/payments\"\naudience = \"spiffe://example.org/ledger\"",
        );
    let daemon = Daemon::with_keys(config);
    let sets = daemon.jwks();
    let signs = key(1, &sets["keys"][0]);
    let another = key(
        2,
        &serde_json::json!({
            "kty": "OKP", "crv": "Ed25519", "alg": "EdDSA",
            "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
        }),
    );
    let published = Published::new(&KeySet::new(signs, [another]).unwrap());
    let publisher = published.serve();
    let mut client = daemon.client();
    let mut asked = |target: &str| client.assertion(target, None).unwrap().assertion;
    let (aws, mesh) = (asked("aws"), asked("mesh"));
    let flipped = |assertion: &str| peers::flipped(assertion, "signature");
    let judged = |aws: &str, mesh: &str| {
        let line = serde_json::json!({
            "assertion": aws, "aud": "sts.amazonaws.com",
            "svid": mesh, "svid_aud": "spiffe://example.org/ledger",
        });
        peers::published(publisher.address(), URL, "example.org", &line.to_string())
    };
    let verdict = judged(&aws, &mesh);
    let judges = ["pyjwt", "joserfc", "jwcrypto", "jose", "spiffe", "bundle"];
    for judge in judges {
        assert_eq!(verdict[judge], "ok", "{verdict}");
    }
    let verdict = judged(&flipped(&aws), &flipped(&mesh));
    for judge in ["pyjwt", "joserfc", "jwcrypto", "jose", "spiffe"] {
        assert_ne!(verdict[judge], "ok", "{verdict}");
    }
    // Of a set without a key nothing is trusted, and it is still a set.
    published.put(&KeySet::all_revoked());
    let verdict = judged(&aws, &mesh);
    for judge in ["pyjwt", "joserfc", "jwcrypto", "jose", "spiffe"] {
        assert_ne!(verdict[judge], "ok", "{verdict}");
    }
    assert_eq!(verdict["bundle"], "ok", "{verdict}");
}
