use super::super::finding::Severity;
use super::*;
use crate::config::Config;

/// What systemd 252 shows of units that are as shipped.
const SERVICE_SHOWN: &str = "Id=assertd.service\nLoadState=loaded\nActiveState=active\n\
SubState=running\nResult=success\nUnitFileState=indirect\nDropInPaths=\nNeedDaemonReload=no\n\
ExecMainStatus=0\nUser=assertd\nNoNewPrivileges=yes\nProtectSystem=strict\n\
PrivateUsers=no\nProtectProc=default\nProtectControlGroups=yes\nLimitCORE=0\nPrivateNetwork=yes\n\
CapabilityBoundingSet=\nInaccessiblePaths=-/etc/credstore -/etc/credstore.encrypted \
-/var/lib/assertd-keystore\nNoExecPaths=/ /tmp\nIPAddressDeny=::/0 0.0.0.0/0\n\
RestrictAddressFamilies=AF_UNIX\nSystemCallFilter=accept accept4 landlock_create_ruleset\n";

const SOCKETS_SHOWN: &str = "\nId=assertd.socket\nLoadState=loaded\nActiveState=active\n\
Result=success\nUnitFileState=enabled\nNeedDaemonReload=no\nListen=/run/assertd/assertd.sock \
(Stream)\n\nId=assertd-admin.socket\nLoadState=loaded\nActiveState=active\nResult=success\n\
UnitFileState=enabled\nNeedDaemonReload=no\nListen=/run/assertd/admin.sock (Stream)\n";

const KEYSTORE_SHOWN: &str = "\nId=assertd-keystore-pkcs11@hsm.socket\nLoadState=loaded\n\
ActiveState=active\nResult=success\nUnitFileState=enabled\n\
Listen=/run/assertd/keystore-hsm.sock (Stream)\n\nId=assertd-keystore-pkcs11@hsm.service\n\
LoadState=loaded\nActiveState=active\nSubState=running\nResult=success\nUser=assertd-pkcs11\n\
NoNewPrivileges=yes\nLimitCORE=0\nProtectProc=invisible\nPrivateDevices=no\n\
RestrictAddressFamilies=AF_UNIX\n";

fn site(socket: &str) -> Site {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("assertd.toml");
    let text = format!(
        "[keystore.hsm]\nbackend = \"pkcs11\"\nmodule = \"/m.so\"\ntoken = {{ label = \"t\" }}\n\
         pin = {{ credential = \"hsm.pin\" }}\n{socket}\n"
    );
    let mut file = std::fs::File::options()
        .create_new(true)
        .write(true)
        .open(&path)
        .unwrap();
    std::io::Write::write_all(&mut file, text.as_bytes()).unwrap();
    let config = Config::load(&path).unwrap_or_else(|error| panic!("{error}"));
    Site {
        runner: Runner::Units,
        keystores: config.keystores.clone(),
        ..Site::look(Some(&path))
    }
}

const SOCKET: &str = "socket = \"/run/assertd/keystore-hsm.sock\"";

/// One unit as systemctl shows it.
pub fn unit(shown: &str) -> Unit {
    parse(shown).by_name.into_values().next().unwrap()
}

/// The findings about the units as shipped, with one thing changed.
fn found(from: &str, to: &str) -> Vec<Finding> {
    let shown = format!("{SERVICE_SHOWN}{SOCKETS_SHOWN}{KEYSTORE_SHOWN}");
    assert!(shown.contains(from), "{from}");
    findings(&site(SOCKET), &parse(&shown.replacen(from, to, 1)))
}

#[track_caller]
fn bad(found: &[Finding]) -> (&'static str, Severity, String) {
    let mut bad = found.iter().filter(|it| it.severity != Severity::Ok);
    let one = bad.next().expect("a finding");
    assert_eq!(bad.next(), None);
    (one.id, one.severity, one.remedy.clone().unwrap())
}

#[test]
fn units_as_shipped_have_nothing_but_ok() {
    let found = found("Id=", "Id=");
    assert!(
        found.iter().all(|it| it.severity == Severity::Ok),
        "{found:#?}"
    );
    assert_eq!(found.len(), 2);
}

/// What stands in what systemctl shows, what stands there instead, and what is found: the id, how
/// bad it is, a phrase of the remedy.
type Fault = (
    &'static str,
    &'static str,
    &'static str,
    Severity,
    &'static str,
);

const FAULTS: &[Fault] = &[
    (
        "Id=assertd.socket\nLoadState=loaded",
        "Id=assertd.socket\nLoadState=not-found",
        "D31",
        Severity::Fail,
        "systemctl daemon-reload",
    ),
    (
        "Id=assertd.socket\nLoadState=loaded",
        "Id=assertd.socket\nLoadState=masked",
        "D32",
        Severity::Fail,
        "systemctl unmask assertd.socket && systemctl enable --now assertd.socket",
    ),
    (
        "UnitFileState=enabled",
        "UnitFileState=disabled",
        "D33",
        Severity::Fail,
        "systemctl enable --now assertd.socket",
    ),
    (
        "Id=assertd-admin.socket\nLoadState=loaded\nActiveState=active",
        "Id=assertd-admin.socket\nLoadState=loaded\nActiveState=failed",
        "D34",
        Severity::Fail,
        "systemctl restart assertd-admin.socket",
    ),
    (
        "ActiveState=active\nSubState=running\nResult=success\nUnitFileState=indirect\n\
         DropInPaths=\nNeedDaemonReload=no\nExecMainStatus=0",
        "ActiveState=failed\nSubState=failed\nResult=exit-code\nExecMainStatus=78",
        "D34",
        Severity::Fail,
        "assertctl config check",
    ),
    (
        "NeedDaemonReload=no",
        "NeedDaemonReload=yes",
        "D37",
        Severity::Warn,
        "systemctl daemon-reload",
    ),
    (
        "Listen=/run/assertd/keystore-hsm.sock",
        "Listen=/run/other.sock",
        "D39",
        Severity::Fail,
        "write `socket = \"/run/other.sock\"`",
    ),
];

const FAULTS_OF_SANDBOX: &[Fault] = &[
    (
        "PrivateUsers=no",
        "PrivateUsers=yes",
        "D35",
        Severity::Fail,
        "PrivateUsers=no",
    ),
    (
        "ProtectProc=default",
        "ProtectProc=invisible",
        "D35",
        Severity::Fail,
        "ProtectProc=default",
    ),
    (
        "ProtectControlGroups=yes",
        "ProtectControlGroups=strict",
        "D35",
        Severity::Fail,
        "ProtectControlGroups=yes",
    ),
    (
        "NoNewPrivileges=yes",
        "NoNewPrivileges=no",
        "D36",
        Severity::Fail,
        "NoNewPrivileges=yes",
    ),
    (
        "PrivateNetwork=yes",
        "PrivateNetwork=no",
        "D36",
        Severity::Warn,
        "PrivateNetwork=yes",
    ),
    (
        "User=assertd\n",
        "User=root\n",
        "D36",
        Severity::Fail,
        "install the unit",
    ),
    (
        "CapabilityBoundingSet=\n",
        "CapabilityBoundingSet=cap_dac_read_search cap_sys_ptrace\n",
        "D36",
        Severity::Fail,
        "daemon-reload",
    ),
    (
        " -/var/lib/assertd-keystore",
        "",
        "D36",
        Severity::Warn,
        "install the unit",
    ),
    (
        "NoExecPaths=/ /tmp",
        "NoExecPaths=/tmp",
        "D36",
        Severity::Warn,
        "install the unit",
    ),
    (
        "IPAddressDeny=::/0 0.0.0.0/0",
        "IPAddressDeny=0.0.0.0/0",
        "D36",
        Severity::Warn,
        "install the unit",
    ),
    (
        "RestrictAddressFamilies=AF_UNIX",
        "RestrictAddressFamilies=~",
        "D36",
        Severity::Warn,
        "install the unit",
    ),
    (
        "CapabilityBoundingSet=\n",
        "CapabilityBoundingSet=cap_sys_admin\n",
        "D36",
        Severity::Warn,
        "install the unit",
    ),
    (
        "SystemCallFilter=accept",
        "SystemCallFilter=ptrace accept",
        "D36",
        Severity::Warn,
        "install the unit",
    ),
    (
        "SystemCallFilter=accept accept4 landlock_create_ruleset",
        "SystemCallFilter=~reboot",
        "D36",
        Severity::Warn,
        "install the unit",
    ),
    // The keystore's.
    (
        "ProtectProc=invisible",
        "PrivateUsers=yes",
        "D35",
        Severity::Fail,
        "PrivateUsers=no",
    ),
    (
        "ProtectProc=invisible",
        "PrivateNetwork=no",
        "D36",
        Severity::Warn,
        "write `network = true` in [keystore.hsm]",
    ),
];

#[test]
fn each_fault_of_a_unit_has_its_finding_and_its_remedy() {
    for (from, to, id, severity, phrase) in [FAULTS, FAULTS_OF_SANDBOX].concat() {
        let found = found(from, to);
        let (got, how, remedy) = bad(&found);
        assert_eq!((got, how), (id, severity), "{to}: {found:#?}");
        assert!(remedy.contains(phrase), "{to}: {remedy}");
    }
}

#[test]
fn a_keystore_of_a_network_hsm_may_have_a_network() {
    let section = site(&format!("{SOCKET}\nnetwork = true"))
        .keystores
        .remove("hsm");
    let shown = KEYSTORE_SHOWN.replace(
        "RestrictAddressFamilies=AF_UNIX",
        "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6\nPrivateNetwork=no",
    );
    let units = parse(&shown);
    let keystore = units.any_keystore(BackendKind::Pkcs11).unwrap();
    assert_eq!(sandbox::findings(keystore, section.as_ref()), []);
    let (_, _, remedy) = bad(&sandbox::findings(keystore, None)[..1]);
    assert!(remedy.contains("network = true"), "{remedy}");
}

#[test]
fn the_lists_are_those_of_the_units_as_shipped() {
    let broker = include_str!("../../../../../systemd/units/assertd.service");
    let keystore = include_str!("../../../../../systemd/units/assertd-keystore-pkcs11@.service");
    let tpm = include_str!("../../../../../systemd/units/assertd-keystore-tpm@.service");
    for (name, text) in [
        (SERVICE, broker),
        ("assertd-keystore-pkcs11@x.service", keystore),
        ("assertd-keystore-tpm@x.service", tpm),
    ] {
        let mut shown = format!("Id={name}\nUser=assertd\n");
        for directive in [
            "InaccessiblePaths",
            "NoExecPaths",
            "RestrictAddressFamilies",
        ] {
            let values: Vec<&str> = text
                .lines()
                .filter_map(|line| assigned(line, directive))
                .collect();
            assert!(!values.is_empty(), "{name}: {directive}");
            shown += &format!("{directive}={}\n", values.join(" "));
        }
        assert_eq!(sandbox::findings(&unit(&shown), None), [], "{shown}");
    }
}

#[test]
fn a_service_that_waits_for_its_first_request_is_as_it_should_be() {
    let found = found(
        "ActiveState=active\nSubState=running",
        "ActiveState=inactive\nSubState=dead",
    );
    assert!(found.iter().all(|it| it.severity == Severity::Ok));
}

#[test]
fn the_drop_in_that_takes_protection_away_is_named_with_its_line() {
    let mut units = parse(&SERVICE_SHOWN.replace("NoNewPrivileges=yes", "NoNewPrivileges=no"));
    let unit = units.by_name.get_mut(SERVICE).unwrap();
    let first = "[Service]\nNoNewPrivileges=yes\n".to_owned();
    let last = "[Service]\n  NoNewPrivileges = no\n".to_owned();
    unit.files = vec![("/etc/a.conf".into(), first), ("/etc/b.conf".into(), last)];
    let (_, _, remedy) = bad(&sandbox::findings(unit, None));
    assert!(
        remedy.starts_with("remove `NoNewPrivileges = no` from /etc/b.conf"),
        "{remedy}"
    );
}

#[test]
fn a_keystore_with_a_tpm_has_units_of_its_own_kind() {
    let mut site = site(SOCKET);
    let section = format!("backend = \"tpm\"\n{SOCKET}\n");
    site.keystores
        .insert("hsm".into(), toml::from_str(&section).unwrap());
    let shown = KEYSTORE_SHOWN.replace("pkcs11", "tpm");
    let units = parse(&format!("{SERVICE_SHOWN}{SOCKETS_SHOWN}{shown}"));
    let found = findings(&site, &units);
    assert!(
        found.iter().all(|it| it.severity == Severity::Ok),
        "{found:#?}"
    );
    assert!(found[0].text.contains("assertd-keystore-tpm@hsm.service"));
    assert!(!found[0].text.contains("pkcs11"), "{}", found[0].text);
    let user = |kind| units.any_keystore(kind)?.property("User");
    assert_eq!(user(BackendKind::Tpm), Some("assertd-tpm"));
    assert_eq!(user(BackendKind::Pkcs11), None);
}

#[test]
fn a_keystore_without_a_unit_of_its_own_is_warned_about_and_its_unit_is_not_asked_for() {
    let shown = format!("{SERVICE_SHOWN}{SOCKETS_SHOWN}");
    let (id, severity, remedy) = bad(&findings(&site(""), &parse(&shown)));
    assert_eq!((id, severity), ("D38", Severity::Warn));
    assert!(
        remedy.contains("write `socket = \"/run/assertd/keystore-hsm.sock\"`"),
        "{remedy}"
    );
}

#[test]
fn without_systemd_there_is_one_line_and_no_flood() {
    let site = Site {
        runner: Runner::Somebody(NoUnits::NoSystemd),
        ..site(SOCKET)
    };
    let (id, severity, _) = bad(&findings(&site, &Units::default()));
    assert_eq!((id, severity), ("D30", Severity::Warn));
}

#[test]
fn credentials_are_found_in_the_files_that_systemd_reads() {
    let mut units = parse(KEYSTORE_SHOWN);
    let keystore = units.any_keystore(BackendKind::Pkcs11).unwrap();
    assert_eq!(keystore.property("User"), Some("assertd-pkcs11"));
    let unit = units
        .by_name
        .get_mut("assertd-keystore-pkcs11@hsm.service")
        .unwrap();
    let shipped = include_str!("../../../../../systemd/units/assertd-keystore-pkcs11@.service");
    unit.files = vec![("/usr/lib/u.service".into(), shipped.to_owned())];
    let pin = |unit: &Unit| unit.credential("LoadCredentialEncrypted", "hsm.pin");
    assert_eq!(pin(unit).as_deref(), Some("assertd.hsm.pin"));
    let other = unit.credential("LoadCredentialEncrypted", "other.pin");
    assert_eq!(other, None);
    let drop_in = "[Service]\nLoadCredentialEncrypted=\nLoadCredential=hsm.pin:/plain\n";
    unit.files.push(("/etc/d.conf".into(), drop_in.to_owned()));
    assert_eq!(pin(unit), None);
    let plain = unit.credential("LoadCredential", "hsm.pin");
    assert_eq!(plain.as_deref(), Some("/plain"));
}
