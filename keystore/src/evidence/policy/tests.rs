use super::*;
use crate::evidence::bundle::{Bank, PcrIndex};

const WHOLE: &str = r#"
minimum = "tpm-certified"
imported = "refuse"
max_age_s = 600
registry = "registry.json"

[ek]
roots = ["roots/infineon.pem"]

[host.web-1]
ek = ["0101010101010101010101010101010101010101010101010101010101010101"]
counters = { reset = 12, restart = 0 }

[[firmware.deny]]
manufacturer = "STM"
to = "0047000000000000"
reason = "CVE-2019-16863"

[quote]
select = { sha256 = [0, 4, 7] }
[quote.values.sha256]
7 = ["0000000000000000000000000000000000000000000000000000000000000000"]

[event_log]
required = true
secure_boot = true

[[event_log.rule]]
pcr = 4
none = ["0000000000000000000000000000000000000000000000000000000000000000"]
"#;

fn parse(text: &str) -> Result<Policy, String> {
    Policy::parse(Path::new("policy.toml"), text).map_err(|wrong| wrong.to_string())
}

#[test]
fn a_policy_is_read() {
    let policy = parse(WHOLE).unwrap();
    let pcr = |index| PcrIndex::new(index).unwrap();
    let quote = policy.quote.unwrap();
    assert_eq!(
        quote.select[&Bank::Sha256],
        BTreeSet::from([pcr(0), pcr(4), pcr(7)])
    );
    assert!(quote.values[&Bank::Sha256].contains_key(&pcr(7)));
    assert_eq!(policy.event_log.rule[0].pcr, pcr(4));
    assert!(policy.firmware.deny[0].contains(Some("STM"), Firmware(0x0046_0000_0000_0000)));
    assert!(!policy.firmware.deny[0].contains(Some("STM"), Firmware(0x0047_0000_0000_0001)));
    assert!(!policy.firmware.deny[0].contains(Some("IFX"), Firmware(0)));
    assert!(
        policy.firmware.deny[0].contains(None, Firmware(0)),
        "it may be theirs"
    );
    assert_eq!(policy.ek.enroll, Enroll::Approved);
}

#[test]
fn a_rule_that_would_not_be_enforced_is_a_mistake() {
    for (from, to, said) in [
        ("max_age_s", "max_age", "unknown key `max_age`"),
        (
            "roots = [\"roots/infineon.pem\"]",
            "",
            "[ek] roots is missing",
        ),
        ("roots =", "enroll = \"any\"\nroots =", "any-certified"),
        (
            "roots = [\"roots/infineon.pem\"]",
            "certificate = \"optional\"\nenroll = \"any-certified\"",
            "needs roots",
        ),
        (
            "[host.web-1]",
            "[host.web-9]\nek = [\"0101010101010101010101010101010101010101010101010101010101010101\"]\n[host.web-1]",
            "web-1 and web-9 have one TPM",
        ),
        ("sha256 = [0, 4, 7]", "sha1 = [0, 7]", "SHA-1 bank"),
        ("sha256 = [0, 4, 7]", "sha256 = []", "names no PCR"),
        (
            "sha256 = [0, 4, 7]",
            "sha256 = [0]",
            "[quote] values: PCR 7 of sha256 is not selected",
        ),
        ("sha256 = [0, 4, 7]", "sha256 = [0, 24]", "0 to 23"),
        (
            "[quote]\nselect = { sha256 = [0, 4, 7] }\n[quote.values.sha256]\n7 =",
            "[host.a]\nek =",
            "[quote] select is missing",
        ),
        ("7 = [\"00", "7 = [\"0", "hexadecimal"),
        (
            "7 = [\"000000000000000000000000",
            "7 = [\"",
            "of PCR 7 is not as long as a digest of sha256",
        ),
        ("secure_boot = true", "secure_boot = \"yes\"", "secure_boot"),
    ] {
        let text = WHOLE.replacen(from, to, 1);
        let wrong = parse(&text).unwrap_err();
        assert!(wrong.contains(said), "{said}: {wrong}");
    }
}

/// What holds for every log, and what holds for none.
#[test]
fn a_rule_that_no_log_breaks_or_none_meets_is_a_mistake() {
    const BEGIN: &str = "minimum = \"none\"\n[quote]\nselect = ";
    let parse = |select: &str, rest: &str| parse(&format!("{BEGIN}{select}\n{rest}\n"));
    let (short, long) = ("00".repeat(32), "00".repeat(48));
    let rule = |pcr: u8, wants: &str| format!("[[event_log.rule]]\npcr = {pcr}\n{wants}");
    let one = "{ sha256 = [4, 7, 9, 10], sha384 = [] }";
    let two = "{ sha256 = [4, 7], sha384 = [4] }";
    for (select, rest) in [
        (one, "any = true".to_owned()),
        (
            one,
            "[quote.values.sha256]\n".to_owned() + &format!("10 = [\"{short}\"]"),
        ),
        (one, "[event_log]\nsecure_boot = false".to_owned()),
        (one, rule(9, "only = []")),
        (one, rule(4, &format!("none = [\"{short}\"]"))),
        (
            two,
            rule(4, &format!("only = [\"{short}\", \"{long}\"]\nnone = []")),
        ),
    ] {
        assert_eq!(parse(select, &rest).err(), None, "{rest}");
    }
    let nothing = "[quote] selects PCRs and wants nothing of them";
    for (select, rest, said) in [
        (one, String::new(), nothing),
        (one, "[quote.values.sha256]".to_owned(), nothing),
        (one, "[event_log]\nrequired = true".to_owned(), nothing),
        (one, "[ima]\nrequired = true".to_owned(), nothing),
        (
            one,
            rule(4, ""),
            "[[event_log.rule]] of PCR 4: it wants nothing",
        ),
        (one, rule(4, "none = []"), "it wants nothing"),
        (
            one,
            rule(4, &format!("some = [\"{short}\"]")),
            "unknown key `some`",
        ),
        (
            one,
            rule(10, "only = []"),
            "of PCR 10: the log explains PCRs 0 to 9",
        ),
        (
            one,
            rule(0, "only = []"),
            "of PCR 0: PCR 0 of sha256 is not selected",
        ),
        (two, rule(7, "only = []"), "PCR 7 of sha384 is not selected"),
        (
            one,
            rule(4, &format!("none = [\"{long}\"]")),
            "which is as long as no digest of a bank",
        ),
        (
            one,
            rule(4, &format!("none = [\"{}\", \"{short}\"]", "00".repeat(20))),
            "which is as long as no digest of a bank",
        ),
        (
            two,
            rule(4, &format!("only = []\nnone = [\"{short}\"]")),
            "`none` has no digest of sha384",
        ),
        (
            two,
            "[event_log]\nsecure_boot = true".to_owned(),
            "[event_log] secure_boot: PCR 7 of sha384 is not selected",
        ),
    ] {
        let wrong = parse(select, &rest).unwrap_err();
        assert!(wrong.contains(said), "{said}: {wrong}");
    }
}
