use super::*;

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
select = { sha256 = [0, 7] }
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
        BTreeSet::from([pcr(0), pcr(7)])
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
        ("sha256 = [0, 7]", "sha1 = [0, 7]", "SHA-1 bank"),
        ("sha256 = [0, 7]", "sha256 = []", "names no PCR"),
        (
            "sha256 = [0, 7]",
            "sha256 = [0]",
            "PCR 7 of sha256 is not selected",
        ),
        ("sha256 = [0, 7]", "sha256 = [0, 24]", "0 to 23"),
        (
            "[quote]\nselect = { sha256 = [0, 7] }\n[quote.values.sha256]\n7 =",
            "[host.a]\nek =",
            "[quote] select is missing",
        ),
        ("7 = [\"00", "7 = [\"0", "hexadecimal"),
        ("secure_boot = true", "secure_boot = \"yes\"", "secure_boot"),
    ] {
        let text = WHOLE.replacen(from, to, 1);
        let wrong = parse(&text).unwrap_err();
        assert!(wrong.contains(said), "{said}: {wrong}");
    }
}
