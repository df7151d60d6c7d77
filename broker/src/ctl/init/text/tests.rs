//! What is written is what assertd reads, whatever a token is called.

use super::*;
use crate::config::Config;
use keystore::config::PinSource;
use std::fs::OpenOptions;

fn keystore(label: &str) -> Keystore {
    Keystore {
        name: "hsm".into(),
        about: format!("Token {label}."),
        secret: Secret::Credential("hsm.pin".into(), "/etc/x/assertd.hsm.pin".into()),
        runs: Runs::Unit("/run/assertd/keystore-hsm.sock".into()),
        backend: Backend::Pkcs11(token(label)),
    }
}

fn token(label: &str) -> Token {
    Token {
        module: "/usr/lib/m.so".into(),
        selector: TokenSelector {
            label: Some(label.into()),
            serial: Some("4\"2".into()),
        },
        environment: Environment::from([("A_B".into(), "/c d".into())]),
        module_state: vec!["/var/lib/m/tokens".into()],
        reach: Reach::Files,
    }
}

fn chip(tcti: &str) -> Keystore {
    let secret = "/etc/credstore.encrypted/assertd.tpm.auth";
    Keystore {
        name: "tpm".into(),
        about: "/dev/tpmrm0: a TPM 2.0".into(),
        secret: Secret::Credential("tpm.auth".into(), secret.into()),
        runs: Runs::Unit("/run/assertd/keystore-tpm.sock".into()),
        backend: Backend::Tpm(Tcti::parse(tcti).unwrap()),
    }
}

/// Written to a directory with its example enabled, and loaded as assertd does.
fn loaded(keystore: &Keystore) -> Config {
    loaded_text(keystore, configuration(&[keystore], None))
}

fn loaded_text(keystore: &Keystore, text: String) -> Config {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("conf.d")).unwrap();
    // The example's user need not exist here.
    let example = example(&keystore.name).replace(", user = \"payments\"", "");
    for (name, text) in [("assertd.toml", text), ("conf.d/example.toml", example)] {
        let mut options = OpenOptions::new();
        let mut file = options
            .create_new(true)
            .write(true)
            .open(dir.path().join(name))
            .unwrap();
        std::io::Write::write_all(&mut file, text.as_bytes()).unwrap();
    }
    Config::load(&dir.path().join("assertd.toml")).unwrap_or_else(|e| panic!("{e}"))
}

#[test]
fn what_is_written_is_what_assertd_reads() {
    for label in [
        "workloads",
        "",
        "a \"b\" \\ c",
        "tab\there",
        "line\nbreak\r\n[keystore.evil]",
        "\u{7f}\u{85}\0",
        "Schlüssel 🔑",
    ] {
        let (written, config) = (token(label), loaded(&keystore(label)));
        assert_eq!(config.keystores.len(), 1, "{label:?}");
        let read = &config.keystores["hsm"];
        assert_eq!(read.module.as_ref(), Some(&written.module));
        assert_eq!(read.token.as_ref(), Some(&written.selector));
        assert_eq!(read.pin, Some(PinSource::Credential("hsm.pin".into())));
        let socket = "/run/assertd/keystore-hsm.sock";
        assert_eq!(read.socket.as_deref(), Some(Path::new(socket)));
        assert_eq!(read.environment, written.environment);
        assert_eq!(read.module_state, written.module_state);
        assert!(!read.network);
        assert_eq!(config.workloads[0].targets["bank"].keystore, "hsm");
    }
}

#[test]
fn one_that_assertd_starts_itself_has_everything_in_one_place() {
    let written = Keystore {
        secret: Secret::File("/run/try/hsm.pin".into()),
        runs: Runs::Child("/run/try".into()),
        backend: Backend::Pkcs11(Token {
            environment: Environment::new(),
            module_state: Vec::new(),
            reach: Reach::Network,
            ..token("try")
        }),
        ..keystore("try")
    };
    let config = loaded(&written);
    assert_eq!(config.server.runtime_dir, Path::new("/run/try"));
    assert_eq!(config.server.state_dir, Path::new("/run/try/state"));
    let read = &config.keystores["hsm"];
    assert_eq!(read.pin, Some(PinSource::File("/run/try/hsm.pin".into())));
    assert_eq!(read.socket, None);
    assert!(read.network);
}

#[test]
fn a_tpm_is_written_as_assertd_reads_it() {
    let (usual, other) = (chip(TCTI), chip("device:/dev/tpmrm1"));
    let config = loaded(&usual);
    let read = &config.keystores["tpm"];
    assert_eq!(read.backend, BackendKind::Tpm);
    assert_eq!(
        (&read.tcti, &read.auth, read.sessions),
        (&None, &None, None)
    );
    assert_eq!(
        loaded(&other).keystores["tpm"].tcti.as_deref(),
        Some("device:/dev/tpmrm1")
    );
    let by_hand = Keystore {
        secret: Secret::File("/run/try/tpm.auth".into()),
        runs: Runs::Child("/run/try".into()),
        ..usual.clone()
    };
    let read = &loaded(&by_hand).keystores["tpm"];
    assert_eq!(read.auth, Some(PinSource::File("/run/try/tpm.auth".into())));
    assert_eq!(read.socket, None);
    // The defaults that are shown are what they say.
    let text = configuration(&[&usual], None);
    let shown = ["tcti", "auth", "sessions"];
    let uncommented = shown.iter().fold(text, |text, key| {
        let line = format!("# {key:8} = ");
        assert_eq!(text.matches(&line).count(), 1, "{key}");
        text.replace(&line, &format!("{key} = "))
    });
    let read = &loaded_text(&usual, uncommented).keystores["tpm"];
    assert_eq!(read.tcti.as_deref(), Some(TCTI));
    assert_eq!(read.auth, Some(PinSource::Credential("tpm.auth".into())));
}

#[test]
fn a_second_keystore_is_there_or_only_takes_the_marks_away() {
    let (first, second) = (keystore("workloads"), chip(TCTI));
    let both = configuration(&[&first, &second], None);
    let config = loaded_text(&first, both);
    assert_eq!(config.keystores.keys().collect::<Vec<_>>(), ["hsm", "tpm"]);
    let text = configuration(&[&first], Some(&second));
    assert_eq!(loaded_text(&first, text.clone()).keystores.len(), 1);
    let (before, after) = text.split_once("# [keystore.tpm]\n").unwrap();
    let after = after
        .replacen("# backend", "backend", 1)
        .replacen("# socket", "socket", 1);
    let config = loaded_text(&first, format!("{before}[keystore.tpm]\n{after}"));
    let socket = Path::new("/run/assertd/keystore-tpm.sock");
    assert_eq!(config.keystores["tpm"].socket.as_deref(), Some(socket));
}

#[test]
fn lines_fit_a_terminal() {
    let texts = [
        configuration(&[&keystore("workloads"), &chip(TCTI)], None),
        configuration(&[&keystore("workloads")], Some(&chip(TCTI))),
        device_drop_in("tpm", Some(Path::new("/dev/tpmrm1")), Some("tpm")),
        example("hsm"),
        drop_in(
            "hsm",
            &["/var/lib/softhsm/tokens".into()],
            &BTreeSet::from(["softhsm".to_owned()]),
        ),
    ];
    for line in texts.iter().flat_map(|text| text.lines()) {
        assert!(line.chars().count() <= 100, "{line}");
    }
}

#[test]
fn a_drop_in_names_directories_and_groups() {
    let dirs = ["/var/lib/softhsm/tokens".into()];
    let text = drop_in("hsm", &dirs, &BTreeSet::from(["softhsm".to_owned()]));
    assert!(text.ends_with(
        "[Service]\nReadWritePaths=/var/lib/softhsm/tokens\n\
         NoExecPaths=/var/lib/softhsm/tokens\nSupplementaryGroups=softhsm\n"
    ));
    assert!(!drop_in("hsm", &dirs, &BTreeSet::new()).contains("SupplementaryGroups"));
}
