use super::super::finding::Severity;
use super::super::site::NoUnits;
use super::*;
use crate::config::Config;
use assertd_client::api::{AuditStatus, ConfigStatus, RequestCounts};

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

fn keystore_status(state: &str, why: Option<&str>) -> KeystoreStatus {
    KeystoreStatus {
        name: "hsm".into(),
        state: state.into(),
        why: why.map(str::to_owned),
        since_s: 60,
        token: "token \"edge\"".into(),
        algs: vec!["ES256".into()],
        strange: Vec::new(),
        socket: "/run/assertd/keystore-hsm.sock".into(),
        pid: Some(2),
        restarts: 0,
        signers: 2,
        queued: 0,
        in_flight: 0,
        minted: 0,
    }
}

fn key(id: &str, state: &str) -> KeyStatus {
    KeyStatus {
        key: id.into(),
        kid: "kid".into(),
        alg: "ES256".into(),
        keystore: "hsm".into(),
        state: state.into(),
        why: (state != "active").then(|| "unplugged".to_owned()),
        evidence: "asserted".into(),
        imported: false,
        made_at: 0,
        used: true,
        jwk: serde_json::Value::Null,
    }
}

/// An assertd without a fault.
fn healthy(site: &Site) -> Answers {
    Answers {
        status: Status {
            format: 1,
            version: env!("CARGO_PKG_VERSION").into(),
            pid: 7,
            uptime_s: 60,
            isolation: "units".into(),
            peer_proof: "pidfd".into(),
            config: ConfigStatus {
                path: crate::ctl::CONFIG.into(),
                sha256: site.config.as_ref().unwrap().sha256.clone(),
                workloads: 1,
                targets: 1,
            },
            keystores: vec![keystore_status("usable", None)],
            audit: AuditStatus {
                state: "ok".into(),
                why: None,
                directory: "/var/lib/assertd/audit".into(),
                seq: 1,
                bytes: 1,
                denials_counted: 0,
            },
            requests: RequestCounts::default(),
            connections: 0,
        },
        keys: vec![key("a/x.1", "active")],
        kinds: BTreeMap::new(),
        outdated: Vec::new(),
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
                "VENDOR_CONF='/etc/v.conf' pkcs11-tool",
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
            answers.status.keystores = vec![keystore_status("failed", Some(why))];
            answers.kinds.insert("hsm".into(), kind);
        });
        assert_eq!((got, severity), (id, Severity::Fail), "{why}");
        for phrase in phrases {
            assert!(remedy.contains(phrase), "{why}: {remedy}");
        }
    }
}

#[test]
fn a_keystore_that_opens_its_token_is_no_failure() {
    let (id, severity, _) = bad(|answers| {
        answers.status.keystores = vec![keystore_status("starting", None)];
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
fn an_assertd_that_does_not_run_is_a_fault_only_where_nothing_starts_it() {
    let of = |runner| findings(&site(runner), &Facts::Absent)[0].severity;
    assert_eq!(of(Runner::Units), Severity::Warn);
    assert_eq!(of(Runner::Somebody(NoUnits::NoSystemd)), Severity::Fail);
    let silent = Facts::Silent("no answer within 10 s".into());
    let found = findings(&site(Runner::Units), &silent);
    assert_eq!((found[0].id, found[0].severity), ("D60", Severity::Fail));
}
