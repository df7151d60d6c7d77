//! Each fault of a TPM seen from outside, and its remedy.

use super::super::finding::Severity;
use super::super::units::tests::unit;
use super::*;

/// The unit as it is shipped, as systemd shows it.
const SHIPPED: &str = "Id=assertd-keystore-tpm@tpm.service\nPrivateDevices=yes\n\
DevicePolicy=closed\nDeviceAllow=/dev/tpmrm0 rw\nPrivateNetwork=yes\n\
BindPaths=-/dev/tpmrm0:/dev/tpmrm0:rbind /var/lib/x:/var/lib/x:rbind\n";

fn node(path: &str, behind: Behind, mode: u32) -> Node {
    Node {
        path: path.into(),
        behind,
        uid: 0,
        gid: 4_294_967_000,
        mode,
    }
}

/// Of a TPM as it should be.
fn well() -> Facts {
    Facts {
        keystore: "tpm".into(),
        tcti: Tcti::parse(TCTI).unwrap(),
        node: Some(Ok(node("/dev/tpmrm0", Behind::Managed, 0o660))),
        opens: Some(true),
        program: Ok(()),
        unit: Some(unit(SHIPPED)),
    }
}

fn of(facts: &Facts) -> Vec<Finding> {
    let section = "backend = \"tpm\"\nsocket = \"/run/assertd/keystore-tpm.sock\"\n";
    let site = Site {
        runner: super::super::site::Runner::Units,
        keystores: [("tpm".to_owned(), toml::from_str(section).unwrap())].into(),
        ..Site::look(Some(Path::new("/nonexistent/assertd.toml")))
    };
    of_one(&site, facts, "assertd-tpm")
}

/// Its one finding.
#[track_caller]
fn one(facts: &Facts, id: &str, severity: Severity) -> Finding {
    let mut found = of(facts);
    assert_eq!(found.len(), 1, "{found:#?}");
    let one = found.remove(0);
    assert_eq!((one.id, one.severity), (id, severity), "{one:#?}");
    one
}

fn remedy(finding: Finding) -> String {
    finding.remedy.unwrap()
}

#[test]
fn one_as_it_should_be_is_one_line() {
    let fine = one(&well(), "D24", Severity::Ok);
    assert!(fine.text.contains("/dev/tpmrm0 of tpm"), "{}", fine.text);
}

#[test]
fn one_that_is_not_there_or_too_old_fails() {
    let missing = Facts {
        node: Some(Err(Missing::NoTpm)),
        opens: None,
        ..well()
    };
    let said = one(&missing, "D24", Severity::Fail);
    assert!(said.text.contains("the kernel has found no TPM"));
    for (behind, phrase) in [
        (Behind::Bare(Some(1)), "firmware's setup"),
        (Behind::NoDevice, "leave `tcti` out"),
    ] {
        let facts = Facts {
            node: Some(Ok(node("/dev/tpm0", behind, 0o660))),
            ..well()
        };
        let remedy = remedy(one(&facts, "D24", Severity::Fail));
        assert!(remedy.contains(phrase), "{remedy}");
    }
    let unable = Facts {
        program: Err(("it does not start".into(), "install tpm2-tss".into())),
        ..well()
    };
    let remedy = remedy(one(&unable, "D29", Severity::Fail));
    assert!(
        remedy.starts_with("install tpm2-tss, then run `systemctl restart"),
        "{remedy}"
    );
}

#[test]
fn one_that_its_user_may_not_open_fails_and_one_for_everybody_is_a_warning() {
    let closed = |mode| Facts {
        node: Some(Ok(node("/dev/tpmrm0", Behind::Managed, mode))),
        opens: Some(false),
        ..well()
    };
    let by_group = remedy(one(&closed(0o660), "D25", Severity::Fail));
    assert!(
        by_group.contains("usermod -aG 4294967000 assertd-tpm"),
        "{by_group}"
    );
    let by_rule = remedy(one(&closed(0o600), "D25", Severity::Fail));
    assert!(by_rule.contains("/etc/udev/rules.d/"), "{by_rule}");
    let open = Facts {
        node: Some(Ok(node("/dev/tpmrm0", Behind::Managed, 0o666))),
        ..well()
    };
    let open = one(&open, "D25", Severity::Warn);
    assert!(open.text.contains("open to everybody"), "{}", open.text);
}

#[test]
fn past_the_resource_manager_is_a_warning() {
    let path = "/dev/tpm0";
    let bare = Facts {
        tcti: Tcti::Device(path.into()),
        node: Some(Ok(node(path, Behind::Bare(Some(2)), 0o660))),
        unit: None,
        ..well()
    };
    let said = one(&bare, "D26", Severity::Warn);
    assert!(said.text.contains("no other program can use the TPM"));
    assert!(remedy(said).contains("leave `tcti` out of [keystore.tpm]"));
    let closed = Facts {
        opens: Some(false),
        ..bare
    };
    let found = of(&closed);
    let ids: Vec<&str> = found.iter().map(|it| it.id).collect();
    assert_eq!(ids, ["D26", "D25"]);
    let remedy = found[1].remedy.as_deref().unwrap();
    assert!(
        !remedy.contains("udev"),
        "no rule of ours opens it: {remedy}"
    );
}

#[test]
fn an_emulator_is_told_loudly() {
    let foreign = Facts {
        node: Some(Ok(node("/dev/tpmrm0", Behind::Foreign, 0o660))),
        ..well()
    };
    let by_tcp = Facts {
        tcti: Tcti::parse("swtpm:host=127.0.0.1,port=2321").unwrap(),
        node: None,
        opens: None,
        unit: None,
        ..well()
    };
    for facts in [&foreign, &by_tcp] {
        let said = one(facts, "D27", Severity::Warn);
        assert!(said.text.contains("AN EMULATOR PROTECTS NOTHING"));
    }
    let shut = Facts {
        unit: Some(unit(SHIPPED)),
        ..by_tcp
    };
    let ids: Vec<&str> = of(&shut).iter().map(|it| it.id).collect();
    assert_eq!(ids, ["D27", "D28"]);
}

#[test]
fn what_its_unit_does_not_let_in_is_found_with_the_lines_that_do() {
    let path = "/dev/tpmrm1";
    let other = |shown: &str| Facts {
        tcti: Tcti::Device(path.into()),
        node: Some(Ok(node(path, Behind::Managed, 0o660))),
        unit: Some(unit(shown)),
        ..well()
    };
    let said = remedy(one(&other(SHIPPED), "D28", Severity::Fail));
    let lines = "write `BindPaths=/dev/tpmrm1` and `DeviceAllow=/dev/tpmrm1 rw` below [Service]";
    assert!(said.starts_with(lines), "{said}");
    let added = SHIPPED.replace("BindPaths=", "BindPaths=/dev/tpmrm1:/dev/tpmrm1:rbind ");
    let said = remedy(one(&other(&added), "D28", Severity::Fail));
    assert!(
        said.starts_with("write `DeviceAllow=/dev/tpmrm1 rw` below"),
        "{said}"
    );
    let both = added.replace("DeviceAllow=", "DeviceAllow=/dev/tpmrm1 rw\nDeviceAllow=");
    one(&other(&both), "D24", Severity::Ok);
}
