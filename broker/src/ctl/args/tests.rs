use super::*;
use keystore::evidence::bundle::Nonce;
use proptest::prelude::*;
use std::ffi::OsString;

fn understood(line: &str) -> Result<Args, String> {
    parse(line.split_whitespace().map(OsString::from)).map_err(|wrong| wrong.message)
}

fn command_of(line: &str) -> Command {
    understood(line).unwrap().command
}

#[test]
fn every_command_is_understood_by_its_name() {
    let nonce = "07".repeat(32);
    let attest = format!("attest --all --nonce {nonce}");
    let verify = format!("verify evidence.json --nonce {nonce} --policy policy.toml");
    for spec in &SPECS {
        let line = match spec.name {
            "assertion" => "assertion --target bank",
            "explain" => "explain 01JD8K",
            "env" => "env aws",
            "keys revoke" => "keys revoke a/b --compromised",
            "jwks merge" => "jwks merge a.json",
            "keys import" => "keys import a/b key.pem",
            "keys adopt" => "keys adopt a/b --label theirs",
            "attest" => &attest,
            "enroll respond" => "enroll respond challenge.json",
            "enroll challenge" => "enroll challenge requests --policy policy.toml",
            "enroll finish" => "enroll finish responses --policy policy.toml",
            "nonce" => "nonce --policy policy.toml",
            "verify" => &verify,
            "approve request" => "approve request -o new.json",
            "approve bytes" => "approve bytes new.json -o new.tbs",
            "approve finish" => "approve finish new.json new.sig",
            name => name,
        };
        let needs_key = spec.name.starts_with("keys ") && !line.contains("a/b");
        let line = &match needs_key {
            true => format!("{line} a/b"),
            false => line.to_owned(),
        };
        assert!(understood(line).is_ok(), "{line}");
    }
}

#[test]
fn values_of_pcrs_are_of_one_bank_and_of_pcrs_that_there_are() {
    let value = "0a".repeat(32);
    let with = |pcrs: &str| understood(&format!("approve request -o new.json {pcrs}"));
    let two = with(&format!("--pcr 7={value} --pcr=0={value}"))
        .unwrap()
        .command;
    let Command::Approve(crate::ctl::approve::Wish::Request { pcrs, .. }) = two else {
        panic!("{two:?}");
    };
    let indices: Vec<u8> = pcrs.keys().map(|index| index.number()).collect();
    assert_eq!(indices, [0, 7]);
    for wrong in ["7", "7=", "7=0a", "x=0a", "=0a"] {
        assert!(with(&format!("--pcr {wrong}")).is_err(), "{wrong}");
    }
    for (index, value) in [
        ("24", &value),
        ("07", &value),
        ("7", &value[..40].to_owned()),
    ] {
        assert!(with(&format!("--pcr {index}={value}")).is_err(), "{index}");
    }
    assert!(with(&format!("--pcr 7={value} --pcr 7={value}")).is_err());
    assert!(understood("approve request").is_err());
    assert!(understood("approve finish new.json").is_err());
    assert!(understood("approve bytes --authority new.pem").is_ok());
    assert!(understood("approve bytes").is_err());
    assert!(understood("approve bytes -o new.tbs --authority new.pem").is_err());
}

#[test]
fn options_may_stand_before_or_after_the_command() {
    let before = understood("-s /run/a.sock --json --target bank assertion").unwrap();
    assert_eq!(
        before,
        understood("assertion --target=bank --json -s/run/a.sock").unwrap()
    );
    assert_eq!(before.socket, Some("/run/a.sock".into()));
    assert_eq!(before.format, Format::Json);
    let target = "bank".to_owned();
    assert_eq!(
        before.command,
        Command::Assertion {
            target,
            lifetime_s: None,
            delivery: Delivery::Print,
        }
    );
}

#[test]
fn an_option_of_another_command_is_refused() {
    assert_eq!(
        understood("status --target bank"),
        Err("`assertctl status` takes no --target".into())
    );
    assert_eq!(
        understood("config diff --yes"),
        Err("`assertctl config diff` takes no --yes".into())
    );
}

#[test]
fn an_option_given_twice_is_refused() {
    for line in [
        "assertion --target a --target b",
        "-s a -s b status",
        "-c a --config b status",
        "apply -y --yes",
    ] {
        assert!(
            understood(line).unwrap_err().ends_with(" is given twice"),
            "{line}"
        );
    }
}

#[test]
fn a_mistyped_word_is_answered_with_the_nearest() {
    for (line, answer) in [
        ("statsu", "unknown command `statsu`; did you mean `status`?"),
        (
            "config dif",
            "unknown command `config dif`; did you mean `diff`?",
        ),
        ("config", "`assertctl config` what? check or diff or schema"),
        ("audit", "`assertctl audit` what? verify or show"),
        (
            "assertion --tagret x",
            "unknown option `--tagret`; did you mean `--target`?",
        ),
        (
            "status --targt",
            "unknown option `--targt`; known here: --socket, --config, --json, --help, --version",
        ),
        ("", "which command?"),
        ("status now", "`assertctl status`: `now` is too much"),
        (
            "assertion",
            "--target is missing: `assertctl targets` lists yours",
        ),
    ] {
        assert_eq!(understood(line), Err(answer.to_owned()), "{line}");
    }
}

#[test]
fn a_number_has_its_range() {
    let lifetime = |text: &str| understood(&format!("assertion --target a --lifetime {text}"));
    for wrong in ["0", "-1", "1.5", "4294967296", "one"] {
        let answer = lifetime(wrong).unwrap_err();
        assert!(
            answer.contains("is no number from 1 to 4294967295"),
            "{wrong}: {answer}"
        );
    }
    let target = "a".to_owned();
    let most = Command::Assertion {
        target,
        lifetime_s: Some(u32::MAX),
        delivery: Delivery::Print,
    };
    assert_eq!(lifetime("4294967295").unwrap().command, most);
}

#[test]
fn a_key_is_named_in_one_of_three_ways() {
    let key = |text: &str| Command::Jwks {
        key: Some(text.parse().unwrap()),
        with_evidence: false,
    };
    assert_eq!(command_of("jwks --key payments/bank"), key("payments/bank"));
    assert_eq!(
        command_of("jwks --target payments/bank"),
        key("payments/bank")
    );
    assert_eq!(command_of("jwks --issuer prod"), key("issuer/prod"));
    for (line, with_evidence) in [("jwks", false), ("jwks --with-evidence", true)] {
        let key = None;
        assert_eq!(command_of(line), Command::Jwks { key, with_evidence });
    }
    for wrong in [
        "--key a/b --issuer c",
        "--target bank",
        "--target issuer/a",
        "--key a/b.1",
    ] {
        assert!(understood(&format!("jwks {wrong}")).is_err(), "{wrong}");
    }
}

#[test]
fn what_is_attested_is_said_and_for_which_nonce() {
    let nonce = "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc";
    let wish = |target: Option<&str>, purpose: Option<&str>, output: Option<&str>| {
        Command::Attest(Wish {
            nonce: Nonce([7; 32]),
            target: target.map(str::to_owned),
            purpose: purpose.map(str::to_owned),
            output: output.map(PathBuf::from),
        })
    };
    for nonce in [nonce, &"07".repeat(32)] {
        assert_eq!(
            command_of(&format!("attest --nonce {nonce} --all")),
            wish(None, None, None)
        );
    }
    assert_eq!(
        command_of(&format!(
            "attest --nonce {nonce} --target payments/bank --purpose federation -o b.json"
        )),
        wish(Some("payments/bank"), Some("federation"), Some("b.json"))
    );
    for wrong in [
        "--all",
        "--nonce AA --all",
        &format!("--nonce {nonce}"),
        &format!("--nonce {nonce} --all --target a/b"),
        &format!("--nonce {nonce} --target bank"),
    ] {
        assert!(understood(&format!("attest {wrong}")).is_err(), "{wrong}");
    }
    assert!(understood("enroll respond").is_err());
    assert!(understood("enroll").is_err());
}

#[test]
fn sets_to_merge_are_files_and_there_is_one() {
    let merge = |files: &[&str], output: Option<&str>| Command::JwksMerge {
        files: files.iter().map(PathBuf::from).collect(),
        output: output.map(PathBuf::from),
    };
    assert_eq!(command_of("jwks merge a"), merge(&["a"], None));
    assert_eq!(
        command_of("jwks merge a b -o c"),
        merge(&["a", "b"], Some("c"))
    );
    let most = "a ".repeat(SETS_MAX);
    assert!(understood(&format!("jwks merge {most}")).is_ok());
    for wrong in ["", "--key a/b c", &format!("{most} b")] {
        assert!(
            understood(&format!("jwks merge {wrong}")).is_err(),
            "{wrong}"
        );
    }
}

#[test]
fn what_changes_things_is_off_unless_it_is_said() {
    let cautious = Command::Apply {
        consent: Consent::Ask,
        creations_max: CREATIONS_MAX,
    };
    assert_eq!(command_of("apply"), cautious);
    let bold = Command::Apply {
        consent: Consent::Given,
        creations_max: 900,
    };
    assert_eq!(command_of("apply -y --max 900"), bold);
    assert_eq!(
        command_of("config diff"),
        Command::ConfigDiff {
            changes: Changes::AreFine
        }
    );
}

#[test]
fn help_is_found_by_command_and_by_group() {
    let topic = |line: &str| match command_of(line) {
        Command::Help { topic } => topic,
        other => panic!("{line}: {other:?}"),
    };
    assert_eq!(topic("-h"), None);
    assert_eq!(topic("help"), None);
    assert_eq!(topic("apply -h").as_deref(), Some("apply"));
    assert_eq!(topic("help config diff").as_deref(), Some("config diff"));
    assert_eq!(topic("config --help").as_deref(), Some("config"));
    assert!(
        understood("help aply")
            .unwrap_err()
            .contains("did you mean `apply`?")
    );
}

proptest! {
    #[test]
    fn no_arguments_panic(words in prop::collection::vec("[a-z/.=-]{0,12}|--[a-z]{1,8}", 0..6)) {
        let _ = parse(words.into_iter().map(OsString::from));
    }

    #[test]
    fn no_bytes_panic(words in prop::collection::vec(prop::collection::vec(1u8.., 0..9), 0..5)) {
        use std::os::unix::ffi::OsStringExt;
        let _ = parse(words.into_iter().map(OsString::from_vec));
    }
}

#[test]
fn an_assertion_is_handed_over_one_way() {
    let delivery = |line: &str| match understood(&format!("assertion --target t {line}")) {
        Ok(Args {
            command: Command::Assertion { delivery, .. },
            ..
        }) => Ok(delivery),
        Ok(other) => panic!("{other:?}"),
        Err(wrong) => Err(wrong),
    };
    let file = |upkeep| Delivery::File {
        path: "/f".into(),
        upkeep,
    };
    for (line, meant) in [
        ("", Delivery::Print),
        ("--json", Delivery::Print),
        ("--as google", Delivery::Google),
        ("--as kubernetes", Delivery::Kubernetes),
        ("--output /f", file(Upkeep::None)),
        ("--output /f --keep", file(Upkeep::Beside)),
        ("--keep --foreground --output /f", file(Upkeep::Here)),
    ] {
        assert_eq!(delivery(line), Ok(meant), "{line}");
    }
    for line in [
        "--as aws",
        "--keep",
        "--foreground",
        "--output /f --foreground",
        "--output /f --as google",
        "--output /f --json",
        "--as google --json",
        "--as google --keep",
    ] {
        assert!(delivery(line).is_err(), "{line}");
    }
}

#[test]
fn a_verb_takes_one_key_and_a_key_is_revoked_for_one_reason() {
    let Command::KeyVerb { verb, key, now, .. } = understood("keys activate payments/bank.2 --now")
        .unwrap()
        .command
    else {
        panic!()
    };
    assert_eq!(
        (verb, key.as_str(), now),
        (KeyVerb::Activate, "payments/bank.2", true)
    );
    for (line, said) in [
        ("keys rotate", "which key?"),
        ("keys rotate bank", "write WORKLOAD/TARGET"),
        ("keys rotate a/b a/c", "is too much"),
        ("keys rotate a/b --now", "takes no --now"),
        ("keys revoke a/b", "say --compromised"),
        ("keys rotat a/b", "rotate"),
    ] {
        let refused = understood(line).unwrap_err().to_string();
        assert!(refused.contains(said), "{line}: {refused}");
    }
}

#[test]
fn what_is_verified_is_said_and_against_what() {
    use crate::ctl::verify::{Eat, Record, Wish};
    let nonce = "07".repeat(32);
    let line = |more: &str| format!("verify e.json --nonce {nonce} --policy p.toml{more}");
    let wish = |record, eat| {
        Command::Verify(Wish {
            evidence: "e.json".into(),
            nonce: Nonce([7; 32]),
            policy: "p.toml".into(),
            record,
            eat,
        })
    };
    assert_eq!(command_of(&line("")), wish(Record::No, None));
    let eat = Eat {
        path: "r.jwt".into(),
        key: "v.pem".into(),
    };
    assert_eq!(
        command_of(&line(" --record --eat r.jwt --eat-key v.pem")),
        wish(Record::Accepted, Some(eat))
    );
    for wrong in [" --eat r.jwt", " --eat-key v.pem", " f.json"] {
        assert!(understood(&line(wrong)).is_err(), "{wrong}");
    }
    for wrong in ["finish", "challenge", "finish r", "challenge r", "respond"] {
        assert!(understood(&format!("enroll {wrong}")).is_err(), "{wrong}");
    }
}

#[test]
fn whose_tpm_was_replaced_is_said_by_name() {
    use crate::ctl::enroll::Wish;
    let replaced = |line: &str| match command_of(line) {
        Command::Enroll(Wish::Challenge {
            replaced, requests, ..
        }) => (replaced, requests),
        Command::Enroll(Wish::Finish {
            replaced,
            responses,
            ..
        }) => (replaced, responses),
        other => panic!("{other:?}"),
    };
    for verb in ["challenge", "finish"] {
        let line = format!("enroll {verb} all --policy p.toml");
        let files = vec![PathBuf::from("all")];
        assert_eq!(replaced(&line), (Default::default(), files.clone()));
        let line = format!("{line} --replace web-1 --replace web-2");
        let hosts = ["web-1", "web-2"].map(|it| it.parse().unwrap());
        assert_eq!(replaced(&line), (hosts.into(), files));
        assert!(understood(&format!("enroll {verb} all --policy p --replace")).is_err());
        assert!(understood(&format!("enroll {verb} all --policy p --replace=")).is_err());
    }
    assert!(understood("nonce").is_err());
    assert!(understood("nonce --policy p.toml more").is_err());
}
