use super::super::finding::Severity;
use super::super::site::NoUnits;
use super::*;
use crate::config::Config;
use crate::ctl::fixtures::{self, key, keystore};
use assertd_client::api::CertificateStatus;
use keystore::Kind;

const CONFIG: &str = "[keystore.hsm]\nbackend = \"pkcs11\"\nmodule = \"/m.so\"\n\
token = { label = \"edge\" }\npin = { credential = \"hsm.pin\" }\n\
environment = { VENDOR_CONF = \"/etc/v.conf\" }\n\
[workload.a]\nmatch = { uid = 1 }\n[workload.a.target.x]\nprofile = \"rfc7523\"\n\
authorization_server = \"https://as.example\"\nclient_id = \"a\"\n";

fn site(runner: Runner) -> Site {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("assertd.toml");
    let mut file = std::fs::File::options()
        .create_new(true)
        .write(true)
        .open(&path)
        .unwrap();
    std::io::Write::write_all(&mut file, CONFIG.as_bytes()).unwrap();
    let config = Config::load(&path).unwrap_or_else(|error| panic!("{error}"));
    Site {
        keystores: config.keystores.clone(),
        config: Ok(config),
        config_path: crate::ctl::CONFIG.into(),
        runner,
        ..Site::look(Some(&path))
    }
}

/// An assertd without a fault.
fn healthy(site: &Site) -> Answers {
    let mut status = fixtures::status();
    status.config.sha256 = site.config.as_ref().unwrap().sha256.to_string();
    Answers {
        status,
        keys: vec![key("a/x.1", "active")],
        words: BTreeMap::new(),
        outdated: Vec::new(),
        now_s: 1_000_000,
    }
}

/// The one finding that is not ok, of an assertd with one fault.
#[track_caller]
fn bad(change: impl FnOnce(&mut Answers)) -> (&'static str, Severity, String) {
    let site = site(Runner::Units);
    let mut answers = healthy(&site);
    change(&mut answers);
    let found = of_answers(&site, &answers);
    let mut bad = found.iter().filter(|it| it.severity != Severity::Ok);
    let one = bad.next().expect("a finding");
    assert_eq!(bad.next(), None, "{found:#?}");
    (one.id, one.severity, one.remedy.clone().unwrap())
}

#[test]
fn a_tpm_has_no_remedy_that_is_a_modules() {
    let mut site = site(Runner::Units);
    let section = "backend = \"tpm\"\nsocket = \"/run/assertd/keystore-hsm.sock\"\n";
    site.keystores
        .insert("hsm".into(), toml::from_str(section).unwrap());
    for (kind, why) in [
        (
            Kind::Refused,
            "no auth secret: credential `hsm.auth` was not handed over",
        ),
        (Kind::BadPin, "device /dev/tpmrm0: the auth value is wrong"),
        (Kind::Locked, "device /dev/tpmrm0: is locked out"),
        (Kind::Mismatch, "device /dev/tpmrm0: is another TPM"),
    ] {
        let mut answers = healthy(&site);
        answers.status.keystores = vec![keystore("failed", Some(why))];
        answers.words.insert("hsm".into(), Word::NeedsPerson(kind));
        let found = of_answers(&site, &answers);
        let one = found.iter().find(|it| it.text.contains(why)).unwrap();
        let remedy = one.remedy.as_deref().unwrap();
        assert_eq!((one.id, one.severity), ("D70", Severity::Fail));
        assert!(
            !remedy.contains("pkcs11") && !remedy.contains("PIN"),
            "{remedy}"
        );
        let unit = "journalctl -u assertd-keystore-tpm@hsm -n";
        assert!(remedy.contains(unit), "{remedy}");
        let again = "systemctl restart assertd-keystore-tpm@hsm`";
        assert!(remedy.ends_with(again), "{remedy}");
    }
    let mut answers = healthy(&site);
    answers.status.keystores[0].strange = vec!["key a/x.7".into()];
    let found = strange(&site, &answers.status.keystores[0]).unwrap();
    let remedy = found.remedy.unwrap();
    assert!(
        remedy.ends_with("from /var/lib/assertd-keystore/hsm/keys"),
        "{remedy}"
    );
}

#[test]
fn a_healthy_assertd_has_nothing_but_ok() {
    let site = site(Runner::Units);
    let found = of_answers(&site, &healthy(&site));
    assert!(
        found.iter().all(|it| it.severity == Severity::Ok),
        "{found:#?}"
    );
    let areas: BTreeSet<&str> = found.iter().map(|it| it.area).collect();
    assert_eq!(areas, BTreeSet::from(["assertd", "keystore", "keys"]));
}

#[test]
fn each_fault_of_a_keystore_has_its_own_remedy() {
    let create = "--name=hsm.pin - /etc/credstore.encrypted/assertd.hsm.pin`";
    for (kind, why, id, phrases) in [
        (
            Kind::Refused,
            "no PIN: credential `hsm.pin` was not handed over",
            "D71",
            [create, "systemctl restart assertd-keystore-pkcs11@hsm"],
        ),
        (
            Kind::BadPin,
            "token \"edge\" (slot 3): logging in: C_Login answered CKR_PIN_INCORRECT",
            "D72",
            [create, "with the right PIN"],
        ),
        (
            Kind::Locked,
            "token \"edge\" (slot 3): the user PIN has one try left, which is not spent here",
            "D73",
            ["--login --list-objects", "clears the counter"],
        ),
        (
            Kind::Locked,
            "token \"edge\" (slot 3): the user PIN is locked and was not tried",
            "D73",
            [
                "--login-type so --init-pin",
                "VENDOR_CONF=/etc/v.conf pkcs11-tool",
            ],
        ),
        (
            Kind::Mismatch,
            "module /m.so: 2 tokens have label \"edge\": \"edge\" (serial 1), \"edge\" (serial 2)",
            "D74",
            [
                "write `token = { label = \"edge\", serial = \"1\" }` or \"2\" in [keystore.hsm]",
                "systemctl restart assertd-keystore-pkcs11@hsm assertd",
            ],
        ),
        (
            Kind::Unavailable,
            "module /m.so: no token has label \"edge\"; there are: none",
            "D75",
            ["correct `token` in [keystore.hsm]", "--list-token-slots"],
        ),
        (
            Kind::Unavailable,
            "module /m.so: cannot be loaded; check that the libraries it needs are installed",
            "D70",
            [
                "do what it says",
                "journalctl -u assertd-keystore-pkcs11@hsm",
            ],
        ),
    ] {
        let (got, severity, remedy) = bad(|answers| {
            answers.status.keystores = vec![keystore("failed", Some(why))];
            answers.words.insert("hsm".into(), Word::NeedsPerson(kind));
        });
        assert_eq!((got, severity), (id, Severity::Fail), "{why}");
        for phrase in phrases {
            assert!(remedy.contains(phrase), "{why}: {remedy}");
        }
    }
}

#[test]
fn a_keystore_that_comes_back_by_itself_is_to_be_left_alone() {
    for (kind, why, id, phrase) in [
        (
            Kind::Absent,
            "module /m.so: no token has label \"edge\"; there are: none",
            "D75",
            "put the token back, which it notices by itself",
        ),
        (
            Kind::Unavailable,
            "token \"edge\" (slot 3): opening a session: C_OpenSession answered CKR_DEVICE_ERROR",
            "D70",
            "without a restart",
        ),
    ] {
        let (got, severity, remedy) = bad(|answers| {
            answers.status.keystores = vec![keystore("degraded", Some(why))];
            answers.words.insert("hsm".into(), Word::Tries(kind));
        });
        assert_eq!((got, severity), (id, Severity::Fail), "{why}");
        assert!(remedy.contains(phrase), "{why}: {remedy}");
        assert!(!remedy.contains("; then run"), "{why}: {remedy}");
    }
    // Nobody answers; assertd goes on to start its process.
    let (_, severity, remedy) = bad(|answers| {
        let why = "keystore hsm: its process ended (signal: 11 (SIGSEGV)) (5 times in a row); it is \
                   started again by itself every few seconds";
        answers.status.keystores = vec![keystore("degraded", Some(why))];
    });
    assert_eq!(severity, Severity::Fail);
    assert!(remedy.contains("without a restart"), "{remedy}");
    // Nobody answers, and nobody knows why.
    let (_, _, remedy) = bad(|answers| {
        let why = "keystore hsm: no answer within 20 s";
        answers.status.keystores = vec![keystore("degraded", Some(why))];
    });
    assert!(remedy.contains("; then run `systemctl restart"), "{remedy}");
}

#[test]
fn what_assertd_says_becomes_no_command() {
    let hostile = "hsm; reboot";
    let (id, severity, remedy) = bad(|answers| {
        let why = "no PIN: credential was not handed over";
        let mut keystore = keystore("failed", Some(why));
        keystore.name = hostile.into();
        keystore.socket = "/run/somebody.sock".into();
        answers.status.keystores = vec![keystore];
    });
    assert_eq!((id, severity), ("D70", Severity::Warn));
    assert_eq!(remedy, "run `systemctl restart assertd`");
    let (id, _, remedy) = bad(|it| it.outdated = vec![format!("keystore {hostile}")]);
    assert_eq!(id, "D62");
    assert!(!remedy.contains("reboot"), "{remedy}");
    let (id, _, remedy) = bad(|answers| {
        let why =
            "2 tokens have label \"edge\": \"edge\" (serial 1\" }`; `reboot), \"e\" (serial 2)";
        answers.status.keystores = vec![keystore("failed", Some(why))];
    });
    assert_eq!(id, "D74");
    assert!(remedy.contains("serial = \"2\" }`"), "{remedy}");
    assert!(!remedy.contains("reboot"), "{remedy}");
}

#[test]
fn a_socket_that_assertd_alone_names_is_not_connected_to() {
    let site = site(Runner::Units);
    let mut status = healthy(&site).status;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("socket");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    listener.set_nonblocking(true).unwrap();
    for name in ["hsm", "other"] {
        let mut keystore = keystore("failed", None);
        keystore.name = name.into();
        keystore.socket = path.display().to_string();
        status.keystores.push(keystore);
    }
    assert!(words(&site, &status).is_empty());
    let nobody = listener.accept().unwrap_err();
    assert_eq!(nobody.kind(), std::io::ErrorKind::WouldBlock);
}

#[test]
fn a_keystore_that_opens_its_token_is_no_failure() {
    let (id, severity, _) = bad(|answers| {
        answers.status.keystores = vec![keystore("starting", None)];
    });
    assert_eq!((id, severity), ("D70", Severity::Warn));
}

#[test]
fn each_fault_of_a_running_assertd_has_its_finding() {
    let (id, severity, remedy) = bad(|it| it.status.config.sha256 = "ab".repeat(32));
    assert_eq!((id, severity), ("D61", Severity::Warn));
    assert!(remedy.contains("`assertctl reload`"), "{remedy}");

    let (id, severity, remedy) = bad(|it| it.outdated = vec!["keystore hsm".into()]);
    assert_eq!((id, severity), ("D62", Severity::Warn));
    let units = "systemctl restart assertd assertd-keystore-pkcs11@hsm.service";
    assert!(remedy.contains(units), "{remedy}");

    let (id, _, remedy) = bad(|it| it.status.version = "0.0.1".into());
    assert_eq!(id, "D62");
    assert!(remedy.contains("systemctl restart assertd"), "{remedy}");

    let (id, severity, remedy) = bad(|it| it.status.keystores[0].strange = vec!["0xab".into()]);
    assert_eq!((id, severity), ("D76", Severity::Warn));
    assert!(remedy.contains("--module /m.so"), "{remedy}");

    let (id, severity, remedy) = bad(|it| {
        it.status.audit.state = "failed".into();
        it.status.audit.why = Some("No space left on device".into());
    });
    assert_eq!((id, severity), ("D90", Severity::Fail));
    assert!(remedy.contains("df -h"), "{remedy}");
}

#[test]
fn each_fault_of_a_key_has_its_finding() {
    let (id, severity, remedy) = bad(|it| it.keys.clear());
    assert_eq!((id, severity), ("D80", Severity::Fail));
    assert_eq!(remedy, "run `assertctl apply`");
    for (state, severity, phrase) in [
        ("suspended", Severity::Fail, "vendor's tool"),
        ("failed", Severity::Fail, "config diff"),
        ("unknown", Severity::Warn, "mend keystore hsm"),
    ] {
        let (id, how, remedy) = bad(|it| it.keys = vec![key("a/x.1", state)]);
        assert_eq!((id, how), ("D81", severity));
        assert!(remedy.contains(phrase), "{remedy}");
    }
}

#[test]
fn a_certificate_that_ends_is_found_and_one_that_has_ended_fails() {
    let with = |not_after: u64, warning: Option<&'static str>| {
        move |it: &mut Answers| {
            it.keys[0].certificate = Some(CertificateStatus {
                x5t_s256: "x".into(),
                not_after,
                warning: warning.map(str::to_owned),
            });
        }
    };
    for (not_after, severity) in [
        (1_000_001, Severity::Warn),
        (1_000_000, Severity::Fail),
        (999_999, Severity::Fail),
    ] {
        let (id, how, remedy) = bad(with(not_after, Some("its certificate ends")));
        assert_eq!((id, how), ("D82", severity), "{not_after}");
        assert!(remedy.contains("keys rotate a/x`"), "{remedy}");
    }
    // One of which assertd has nothing to say, and one of a key that nobody uses.
    let site = site(Runner::Units);
    for (used, warning) in [(true, None), (false, Some("its certificate has ended"))] {
        let mut answers = healthy(&site);
        with(1, warning)(&mut answers);
        answers.keys[0].used = used;
        let found = of_answers(&site, &answers);
        assert!(!found.iter().any(|it| it.id == "D82"), "{found:#?}");
    }
}

#[test]
fn an_assertd_that_does_not_run_is_a_fault_only_where_nothing_starts_it() {
    let of = |runner| findings(&site(runner), &Facts::Absent)[0].severity;
    assert_eq!(of(Runner::Units), Severity::Warn);
    assert_eq!(of(Runner::Somebody(NoUnits::NoSystemd)), Severity::Fail);
    let silent = Facts::Silent("no answer within 10 s".into());
    let found = findings(&site(Runner::Units), &silent);
    assert_eq!((found[0].id, found[0].severity), ("D60", Severity::Fail));
}
