//! Keys that were made elsewhere: what a vendor gave away once, what a client had before it had assertd, what
//! is in the token already. assertctl carries the file, the keystore alone looks into it.

use crate::world::{BANK, bank, decode, us};
use harness::token::KEYSTORE;
use harness::{Config, DEADLINE, Daemon, Token, replace_file, wait_until};
use keystore::KeyFile;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use tempfile::TempDir;
use zeroize::Zeroizing;

/// Files with private keys, as their owners have them.
struct Files(TempDir);

impl Files {
    fn new() -> Files {
        Files(tempfile::tempdir().unwrap())
    }

    /// A new one, which its owner alone can open.
    fn key(&self, name: &str, algorithm: &str, option: &str) -> PathBuf {
        let path = self.0.path().join(name);
        let made = Command::new("openssl")
            .args([
                "genpkey",
                "-algorithm",
                algorithm,
                "-pkeyopt",
                option,
                "-out",
            ])
            .arg(&path)
            .output();
        assert!(made.unwrap().status.success());
        permit(&path, 0o600);
        path
    }

    fn rsa(&self, name: &str) -> PathBuf {
        self.key(name, "RSA", "rsa_keygen_bits:2048")
    }

    fn ec(&self, name: &str) -> PathBuf {
        self.key(name, "EC", "ec_paramgen_curve:P-256")
    }
}

fn permit(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

/// The thumbprint of what is in a file.
fn thumbprint(path: &Path) -> String {
    let file = KeyFile::new(Zeroizing::new(std::fs::read(path).unwrap())).unwrap();
    let private_key = file.private_key().unwrap();
    let (public_key, _) = private_key.read().unwrap();
    public_key.kid().to_string()
}

fn said(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    text(&output.stdout) + &text(&output.stderr)
}

#[track_caller]
fn done(daemon: &Daemon, arguments: &[&str]) -> String {
    let output = daemon.assertctl(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", said(&output));
    said(&output)
}

#[track_caller]
fn refused(daemon: &Daemon, arguments: &[&str]) -> String {
    let output = daemon.assertctl(arguments);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    said(&output)
}

fn states(daemon: &Daemon) -> Vec<String> {
    let keys = daemon.keys().into_iter();
    keys.map(|key| format!("{} {}", key.key, key.state))
        .collect()
}

fn wait_states(daemon: &Daemon, wanted: &[&str]) {
    let there = wait_until(DEADLINE, || states(daemon) == wanted);
    assert!(there, "{:?}\n{}", daemon.keys(), daemon.stderr());
}

/// Header and claims of what is asked for now.
fn signed(daemon: &Daemon, request: &str) -> (serde_json::Value, serde_json::Value) {
    // A charter that was amended a moment ago is seen by the next request.
    let mut answer = daemon.ask(request);
    let is_signed = wait_until(DEADLINE, || {
        answer = daemon.ask(request);
        answer.status == 200
    });
    assert!(is_signed, "{}", answer.body());
    decode(answer.json()["assertion"].as_str().unwrap())
}

#[test]
fn a_key_that_the_vendor_made_is_imported_and_never_made() {
    let (token, files) = (Token::new(), Files::new());
    let github = "[workload.ours.target.github]\nprofile = \"github-app\"\nclient_id = \"Iv23\"\n";
    let daemon = Daemon::start(Config::new(&token).workload("ours", us(), "").with(github));
    daemon.wait_usable();
    let state = daemon.site().keystore_state(KEYSTORE);
    let why = refused(&daemon, &["apply", "--yes"]);
    assert!(
        why.contains("`assertctl keys import ours/github FILE`"),
        "{why}"
    );
    assert_eq!(token.private_keys(&state), 0, "apply made one");
    let planned = done(&daemon, &["config", "diff"]);
    assert!(planned.contains("! ours → github"), "{planned}");

    let (first, second) = (files.rsa("first.pem"), files.rsa("second.pem"));
    let path = first.to_str().unwrap();
    let text = done(&daemon, &["keys", "import", "ours/github", path]);
    assert!(text.contains("imported version 1 of ours/github"), "{text}");
    assert!(
        text.contains("(imported)") && text.contains(&thumbprint(&first)),
        "{text}"
    );
    assert!(
        text.contains("next: destroy ") && text.contains(path),
        "{text}"
    );
    assert!(!text.contains("by others"), "{text}");
    let (header, claims) = signed(&daemon, r#"{"target":"github"}"#);
    assert_eq!(
        (header["alg"].as_str(), claims["iss"].as_str()),
        (Some("RS256"), Some("Iv23"))
    );
    // Again is the same, and apply has nothing to say.
    done(&daemon, &["apply", "--yes"]);

    // No next one is made here; the vendor's is brought in beside it.
    let why = refused(&daemon, &["keys", "rotate", "ours/github"]);
    assert!(why.contains("`assertctl keys import`"), "{why}");
    permit(&second, 0o640);
    let text = done(
        &daemon,
        &["keys", "import", "ours/github", second.to_str().unwrap()],
    );
    assert!(
        text.contains("can be opened by others (mode 0640)"),
        "{text}"
    );
    wait_states(
        &daemon,
        &["ours/github.1 active", "ours/github.2 published"],
    );
    let why = refused(&daemon, &["keys", "import", "ours/github", path]);
    assert!(
        why.contains("ours/github.2: is on its way already"),
        "{why}"
    );
    done(&daemon, &["keys", "activate", "ours/github"]);
    wait_states(&daemon, &["ours/github.1 retiring", "ours/github.2 active"]);
    let daemon = daemon.restart();
    daemon.wait_usable();
    let listed = done(&daemon, &["keys"]);
    let marked = |line: &&str| line.starts_with("ours/github.") && line.contains(" imported");
    assert_eq!(listed.lines().filter(marked).count(), 2, "{listed}");
    let retired = daemon.keys().remove(0);
    assert!(
        retired.imported && retired.kid == thumbprint(&first),
        "{retired:?}"
    );
}

#[test]
fn an_old_secret_and_its_successor_in_the_token_stand_side_by_side() {
    let (token, files) = (Token::new(), Files::new());
    let daemon = Daemon::start(bank(&token));
    daemon.wait_usable();
    let old = files.ec("old.pem");
    let pem = std::fs::File::open(&old).unwrap();
    // From standard input, as a program would.
    let mut command = Command::new(daemon.site().programs().assertctl());
    command.arg("--config").arg(daemon.site().config());
    command.args(["keys", "import", "ours/bank", "-"]);
    let output = command.stdin(Stdio::from(pem)).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    let kid = |daemon: &Daemon| signed(daemon, BANK).0["kid"].as_str().unwrap().to_owned();
    assert_eq!(kid(&daemon), thumbprint(&old));
    done(&daemon, &["keys", "rotate", "ours/bank"]);
    wait_states(&daemon, &["ours/bank.1 active", "ours/bank.2 published"]);
    done(&daemon, &["keys", "activate", "ours/bank"]);
    assert_ne!(kid(&daemon), thumbprint(&old));
    let imported: Vec<bool> = daemon.keys().iter().map(|key| key.imported).collect();
    assert_eq!(imported, [true, false]);
}

#[test]
fn a_kid_that_was_assigned_goes_with_the_version_it_was_assigned_to() {
    let (token, files) = (Token::new(), Files::new());
    let of_kid = |kid: &str| {
        format!(
            "[workload.ours.target.google]\nprofile = \"google-sa-jwt\"\nkey = \"import\"\n\
             service_account = \"p@a.iam.gserviceaccount.com\"\nkid = \"{kid}\"\n\
             audience = \"https://storage.googleapis.com/\"\n"
        )
    };
    let config = Config::new(&token).workload("ours", us(), "");
    let text = |kid: &str| config.text().to_owned() + &of_kid(kid);
    let daemon = Daemon::start(text("first-id"));
    daemon.wait_usable();
    let import = |name: &str| {
        let path = files.rsa(name);
        done(
            &daemon,
            &["keys", "import", "ours/google", path.to_str().unwrap()],
        )
    };
    let kid = || signed(&daemon, r#"{"target":"google"}"#).0["kid"].take();
    import("first.pem");
    assert_eq!(kid(), "first-id");
    let why = refused(&daemon, &["keys", "rotate", "ours/google"]);
    assert!(
        why.contains("write the new one as the target's `kid`"),
        "{why}"
    );

    daemon.site().configure(&text("second-id"));
    done(&daemon, &["reload"]);
    import("second.pem");
    wait_states(
        &daemon,
        &["ours/google.1 active", "ours/google.2 published"],
    );
    assert_eq!(kid(), "first-id");
    let planned = done(&daemon, &["config", "diff"]);
    assert!(planned.contains("nothing to do"), "{planned}");
    done(&daemon, &["keys", "activate", "ours/google"]);
    assert_eq!(kid(), "second-id");
    // A mistake in it is mended, and the version before keeps its own.
    daemon.site().configure(&text("second-id-corrected"));
    done(&daemon, &["apply", "--yes"]);
    done(&daemon, &["reload"]);
    assert!(wait_until(DEADLINE, || kid() == "second-id-corrected"));
    done(&daemon, &["keys", "activate", "ours/google.1"]);
    assert_eq!(kid(), "first-id");
}

#[test]
fn what_is_no_key_for_the_target_is_refused_and_nothing_is_left() {
    let (token, files) = (Token::new(), Files::new());
    let daemon = Daemon::start(bank(&token));
    daemon.wait_usable();
    let state = daemon.site().keystore_state(KEYSTORE);
    let rsa = files.rsa("rsa.pem");
    let path = rsa.to_str().unwrap();
    for (arguments, why) in [
        (["ours/bank", path], "is not one for ES256"),
        (["ours/other", path], "asks for no key ours/other"),
        (["ours/bank", "/nonexistent/key.pem"], "No such file"),
        (["ours/bank", "/dev/null"], "is no file"),
    ] {
        let said = refused(&daemon, &[&["keys", "import"][..], &arguments].concat());
        assert!(said.contains(why), "{arguments:?}: {said}");
    }
    let locked = files.0.path().join("locked.pem");
    let made = Command::new("openssl")
        .args(["pkey", "-aes256", "-passout", "pass:x", "-in", path, "-out"])
        .arg(&locked)
        .output();
    assert!(made.unwrap().status.success());
    for (name, content, why) in [
        ("locked.pem", None, "decrypt it first"),
        ("empty.pem", Some(String::new()), "empty or too long"),
        (
            "text.pem",
            Some("not a key\n".to_owned()),
            "the private key",
        ),
        (
            "long.pem",
            Some("x".repeat(16 * 1024 + 1)),
            "is longer than 16384 bytes",
        ),
    ] {
        let path = files.0.path().join(name);
        if let Some(content) = content {
            replace_file(&path, &content);
        }
        let said = refused(
            &daemon,
            &["keys", "import", "ours/bank", path.to_str().unwrap()],
        );
        assert!(said.contains(why), "{name}: {said}");
    }
    assert_eq!((token.private_keys(&state), daemon.keys().len()), (0, 0));
    // What failed stands in nobody's way.
    let ec = files.ec("ec.pem");
    done(
        &daemon,
        &["keys", "import", "ours/bank", ec.to_str().unwrap()],
    );
    assert_eq!(signed(&daemon, BANK).0["kid"], thumbprint(&ec).as_str());
}

#[test]
fn a_key_in_the_token_is_adopted_by_its_label_as_it_is() {
    let token = Token::new();
    let config = bank(&token).target("ours", "other", "");
    let daemon = Daemon::with_keys(bank(&token));
    let made = daemon.keys().remove(0);
    // A keystore that has lost its records shows its own keys as somebody else's.
    let site = {
        let mut daemon = daemon;
        assert_eq!(daemon.stop(), Some(0));
        daemon.into_site()
    };
    let state = site.keystore_state(KEYSTORE);
    for file in ["keys.v1", "keys.v1.prev"] {
        let _ = std::fs::remove_file(state.join(file));
    }
    for entry in std::fs::read_dir(site.state_dir()).unwrap().flatten() {
        if entry
            .file_name()
            .to_string_lossy()
            .starts_with("keyring.v1")
        {
            std::fs::remove_file(entry.path()).unwrap();
        }
    }
    site.configure(config.text());
    let daemon = Daemon::start_at(site);
    daemon.wait_usable();
    let label = format!("assertd/{}/{}", "ours/bank", 1);
    let why = refused(
        &daemon,
        &["keys", "adopt", "ours/bank", "--label", "nobody's"],
    );
    assert!(why.contains("nobody's"), "{why}");
    let text = done(&daemon, &["keys", "adopt", "ours/bank", "--label", &label]);
    assert!(text.contains("adopted version 1 of ours/bank"), "{text}");
    let adopted = daemon.keys().remove(0);
    assert_eq!((&adopted.kid, adopted.imported), (&made.kid, false));
    assert_eq!(signed(&daemon, BANK).0["kid"], made.kid.as_str());
    let why = refused(&daemon, &["keys", "adopt", "ours/other", "--label", &label]);
    assert!(why.contains("is key ours/bank.1 already"), "{why}");
}
