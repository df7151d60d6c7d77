//! Each carelessness has its id, and nothing else has it.

use super::super::finding::{Finding, Severity};
use super::*;
use crate::config::UnitFacts;
use std::path::PathBuf;
use std::time::Duration;

/// 2026-11-21
pub const NOW: u64 = 1_795_219_200;

/// What every configuration needs.
pub const HEAD: &str = r#"[keystore.hsm]
backend = "pkcs11"
module = "/usr/lib/softhsm/libsofthsm2.so"
token = { label = "workloads" }
pin = { credential = "hsm.pin" }

[issuer.prod]
url = "https://id.example.com/prod"
subjects = ["payments", "reports-*"]
keystore = "hsm"
alg = "RS256"

"#;

const GOOD: &str = r#"
    [workload.a]
    owner = "a@example.com"
    purpose = "a test"
    expires = 2027-06-30
    match = { unit = "a.service" }
    [workload.a.target.bank]
    profile = "rfc7523"
    authorization_server = "https://as.example"
    client_id = "a"
"#;

/// A directory with a configuration.
pub struct Site(tempfile::TempDir);

impl Site {
    pub fn new(main: &str) -> Site {
        let mut site = Site(tempfile::tempdir().unwrap());
        site.put("assertd.toml", main);
        site
    }

    pub fn put(&mut self, name: &str, text: &str) -> PathBuf {
        use std::io::Write;
        let path = self.0.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let mut options = std::fs::OpenOptions::new();
        let mut file = options.write(true).create_new(true).open(&path).unwrap();
        file.write_all(text.as_bytes()).unwrap();
        path
    }

    pub fn load(&self, facts: &Facts) -> Config {
        let path = self.0.path().join("assertd.toml");
        Config::load_with(&path, facts).unwrap_or_else(|error| panic!("{error}"))
    }
}

fn load(text: &str) -> Config {
    Site::new(&format!("{HEAD}{text}")).load(&Facts::default())
}

fn found(text: &str) -> Vec<Finding> {
    findings(&load(text), None, Time::from_unix_s(NOW))
}

fn ids(text: &str) -> Vec<&'static str> {
    found(text).iter().map(|finding| finding.id).collect()
}

/// The good configuration with something else in it.
fn with(from: &str, to: &str) -> String {
    assert!(GOOD.contains(from), "{from}");
    GOOD.replace(from, to)
}

/// Two sections with this in `match`, and what else they say; both own target bank.
fn two(one: (&str, &str), other: (&str, &str)) -> String {
    let section = |name: &str, (selectors, rest): (&str, &str)| {
        with(
            r#"match = { unit = "a.service" }"#,
            &format!("match = {{ {selectors} }}\n{rest}"),
        )
        .replace("workload.a", &format!("workload.{name}"))
        .replace(r#"client_id = "a""#, &format!("client_id = \"{name}\""))
    };
    section("a", one) + &section("b", other)
}

#[test]
fn a_careful_configuration_has_no_findings() {
    assert_eq!(ids(GOOD), [""; 0]);
}

#[test]
fn each_carelessness_has_its_id() {
    let matching =
        |selectors: &str| with(r#"{ unit = "a.service" }"#, &format!("{{ {selectors} }}"));
    let before_target = |line: &str| {
        with(
            "[workload.a.target.bank]",
            &format!("{line}\n[workload.a.target.bank]"),
        )
    };
    for (text, expected) in [
        (String::new(), &["W1"][..]),
        (matching("uid = 991"), &["W2"]),
        (matching("uid = 991, gid = 7"), &["W2"]),
        (matching("unit = \"a.service\", uid = 61183"), &[]),
        (matching("unit = \"a.service\", uid = 61184"), &["W3"]),
        (matching("unit = \"a.service\", uid = 65519"), &["W3"]),
        (matching("unit = \"a.service\", uid = 65520"), &[]),
        (matching("unit = \"a.service\", uid = 65534"), &["W24"]),
        (matching("slice = \"a.slice\""), &["W13"]),
        (matching("slice = \"a.slice\", uid = 7"), &["W13"]),
        (matching("user_unit = \"a.service\", uid = 7"), &["W14"]),
        (matching("unit = \"a*.service\""), &["W16"]),
        (matching("unit = \"/a.slice/*.service\""), &["W16"]),
        (matching("unit = \"/a*/a.service\""), &["W16"]),
        (matching("unit = \"app@*.service\""), &[]),
        (matching("unit = \"/a.slice/app@*.service\""), &[]),
        (
            matching("unit = \"a.service\", interactive = true"),
            &["W22"],
        ),
        (matching("unit = \"a.service\", interactive = false"), &[]),
        (matching("unit = \"libpod-x.scope\""), &["W23"]),
        (matching("unit = \"libpod-x.scope\", container = true"), &[]),
        (matching("unit = \"a.service\", exe = \"/a\""), &["I2"]),
        (with("expires = 2027-06-30", ""), &["W4"]),
        (with("2027-06-30", "2026-11-21"), &["W5"]),
        (with("2027-06-30", "2026-12-20"), &["W6"]),
        (with("2027-06-30", "2026-12-21"), &[]),
        (with("owner =", "#"), &["W7"]),
        (with("purpose =", "#"), &["I1"]),
        (before_target("allow_pid_fallback = true"), &["W9"]),
        (format!("{GOOD}lifetime = 60\n"), &[]),
        (format!("{GOOD}lifetime = 61\n"), &["W15"]),
        (before_target("shadow = { slice = \"a.slice\" }"), &[]),
        (before_target("shadow = { container = false }"), &["W21"]),
        (before_target("unless = { uid = 7 }"), &[]),
        (before_target("unless = { unit = \"b.service\" }"), &["W25"]),
    ] {
        assert_eq!(ids(&text), expected, "{text}");
    }
    let no_target = GOOD.split("[workload.a.target.bank]").next().unwrap();
    assert_eq!(ids(no_target), ["W8"]);
}

#[test]
fn a_section_that_nothing_matches_says_why() {
    for (selectors, rest, why) in [
        (
            "unit = \"a.service\"",
            "unless = { unit = \"a.service\" }",
            "`unless` excludes",
        ),
        (
            "unit = \"a@1.service\"",
            "unless = [{ uid = 1 }, { unit = \"a@*.service\" }]",
            "`unless`",
        ),
        (
            "unit = \"a.service\"",
            "unless = { container = false }",
            "`unless` excludes",
        ),
        (
            "unit = \"/x.slice/a.service\", slice = \"y.slice\"",
            "",
            "nothing has both",
        ),
        (
            "unit = \"a.service\", user_unit = \"b.service\", uid = 7",
            "",
            "nothing has both",
        ),
        (
            "unit = \"user@8.service\", user_unit = \"b.service\", uid = 7",
            "",
            "nothing has both",
        ),
        (
            "unit = \"session-1.scope\", interactive = false",
            "",
            "nothing has both",
        ),
        (
            "unit = \"/a.slice/a.service/b.service\"",
            "",
            "a.service is the unit",
        ),
        (
            "slice = \"-.slice\", uid = 7",
            "",
            "-.slice stands in no process's path",
        ),
        (
            "unit = \"a.service\", uid = 4294967295",
            "",
            "no process has `uid = 4294967295`",
        ),
    ] {
        let text = with(
            r#"match = { unit = "a.service" }"#,
            &format!("match = {{ {selectors} }}\n{rest}"),
        );
        let found = found(&text);
        let never = found
            .iter()
            .find(|it| it.id == "E2")
            .unwrap_or_else(|| panic!("{text}"));
        assert!(never.text.contains(why), "{}", never.text);
        assert_eq!(never.severity, Severity::Error);
    }
    let fits = "unit = \"user@7.service\", user_unit = \"b.service\", uid = 7";
    assert_eq!(ids(&two((fits, ""), ("unit = \"b.service\"", ""))), [""; 0]);
}

#[test]
fn two_owners_of_a_target_are_told_as_they_stand() {
    let a = ("unit = \"a.service\"", "");
    for (one, other, expected) in [
        (a, a, &["E1"][..]),
        (a, ("unit = \"b.service\"", ""), &[]),
        (a, ("unit = \"a.service\", container = true", ""), &[]),
        (a, ("unit = \"a.service\", uid = 7", ""), &["E3"]),
        (a, ("unit = \"/system.slice/a.service\"", ""), &["E3"]),
        (a, ("uid = 7", ""), &["W2", "W12"]),
        (a, ("uid = 7", "unless = { unit = \"a.service\" }"), &["W2"]),
        (a, ("slice = \"a.slice\"", ""), &["W13", "W12"]),
        (a, ("unit = \"a.service\"", "unless = { uid = 7 }"), &["E3"]),
        (("uid = 7", ""), ("uid = 8", ""), &["W2", "W2"]),
        (
            ("uid = 7", ""),
            ("uid = 7, gid = 8", ""),
            &["E3", "W2", "W2"],
        ),
        (
            ("uid = 7", ""),
            ("unit = \"a.service\", uid = 8", ""),
            &["W2"],
        ),
        (
            ("unit = \"a@*.service\"", ""),
            ("unit = \"a@1.service\"", ""),
            &["E3"],
        ),
        (
            ("unit = \"a@1*.service\"", ""),
            ("unit = \"a@*1.service\"", ""),
            &["W12"],
        ),
        (
            ("unit = \"a@*.service\"", ""),
            ("unit = \"b@*.service\"", ""),
            &[],
        ),
        (
            ("unit = \"a.service\", uid = 7", ""),
            ("unit = \"a.service\", gid = 7", ""),
            &["W12"],
        ),
        (
            ("unit = \"a.service\", uid = 7", ""),
            ("unit = \"a.service\", uid = 8", ""),
            &[],
        ),
        (("user_unit = \"a.service\", uid = 7", ""), a, &["W14"]),
        (
            ("user_unit = \"a.service\", uid = 7", ""),
            ("uid = 7", ""),
            &["E3", "W14", "W2"],
        ),
        (
            ("slice = \"a.slice\"", ""),
            ("slice = \"b.slice\"", ""),
            &["W13", "W13"],
        ),
        (
            ("slice = \"a.slice\"", ""),
            ("slice = \"a-b.slice\"", ""),
            &["E3", "W13", "W13"],
        ),
    ] {
        for text in [two(one, other), two(other, one)] {
            let mut found: Vec<&str> = ids(&text);
            // The order of sections changes the order of findings, not what is found.
            found.retain(|id| *id != "W16");
            found.sort_unstable();
            let mut expected = expected.to_vec();
            expected.sort_unstable();
            assert_eq!(found, expected, "{text}");
        }
    }
}

#[test]
fn an_overlap_says_which_process_it_would_be() {
    let text = two(
        ("unit = \"a@1*.service\", gid = 9", ""),
        ("unit = \"a@*1.service\", uid = 7", ""),
    );
    let found = found(&text);
    let overlap = found.iter().find(|finding| finding.id == "W12").unwrap();
    let process = "a process of a@111.service that runs as uid 7 with gid 9 would match both";
    assert!(overlap.text.starts_with(process), "{}", overlap.text);
}

#[test]
fn a_finding_has_the_line_of_its_section() {
    let found = found(&(GOOD.replace("owner", "#") + "lifetime = 300\n"));
    let line = |text: &str| {
        let lines = format!("{HEAD}{GOOD}");
        lines.lines().position(|line| line.contains(text)).unwrap() + 1
    };
    let places: Vec<&str> = found
        .iter()
        .map(|it| it.place.rsplit_once("assertd.toml:").unwrap().1)
        .collect();
    let expected = [line("[workload.a]"), line("[workload.a.target.bank]")];
    assert_eq!(places, expected.map(|line| line.to_string()));
}

#[test]
fn the_same_processes_without_a_common_target_are_told() {
    let other = GOOD
        .replace("workload.a", "workload.b")
        .replace("target.bank", "target.other");
    let other = other.replace(r#"client_id = "a""#, r#"client_id = "b""#);
    assert_eq!(ids(&format!("{GOOD}{other}")), ["W10"]);
}

#[test]
fn a_subject_and_a_client_with_two_owners_are_told() {
    let two = |text: &str| format!("{GOOD}{}", text.replace("workload.a", "workload.b"));
    assert_eq!(ids(&two(&GOOD.replace("a.service", "b.service"))), ["W18"]);
    let aws = |name: &str| {
        let text = GOOD.replace("workload.a", &format!("workload.{name}"));
        let text = text.replace("a.service", &format!("{name}.service"));
        let (section, _) = text.split_once("profile").unwrap();
        format!(
            "{section}profile = \"aws-oidc\"\nissuer = \"prod\"\nsubject = \"payments\"\n\
             audience = \"sts.amazonaws.com\"\nshared = true\n"
        )
    };
    let found = found(&(aws("a") + &aws("b")));
    assert_eq!(found.iter().map(|it| it.id).collect::<Vec<_>>(), ["W17"]);
    assert!(
        found[0].text.contains("is that of [workload.b] ("),
        "{}",
        found[0].text
    );
}

#[test]
fn a_long_federation_lifetime_is_told() {
    let aws = |lifetime: u32| {
        ids(&format!(
            "{GOOD}\n[workload.a.target.aws]\nprofile = \"aws-oidc\"\nissuer = \"prod\"\n\
             subject = \"payments\"\naudience = \"sts.amazonaws.com\"\nlifetime = {lifetime}\n"
        ))
    };
    assert_eq!(aws(600), [""; 0]);
    assert_eq!(aws(601), ["W11"]);
}

#[test]
fn what_is_known_of_a_units_user_decides_about_an_overlap() {
    let text = two(("unit = \"a.service\"", ""), ("uid = 7", ""));
    let config = load(&text);
    let with_user = |user: Option<&str>| {
        let unit = UnitFacts {
            user: user.map(str::to_owned),
            ..UnitFacts::default()
        };
        let facts = Facts {
            units: Some([("a.service".to_owned(), unit)].into()),
            ..Facts::default()
        };
        let found = findings(&config, Some(&facts), Time::from_unix_s(NOW));
        let mut ids: Vec<&str> = found.iter().map(|finding| finding.id).collect();
        ids.retain(|id| *id != "W2");
        ids
    };
    assert_eq!(with_user(None), ["W12"]);
    assert_eq!(with_user(Some("7")), ["E3"]);
    assert_eq!(with_user(Some("8")), [""; 0]);
    assert_eq!(with_user(Some("root")), ["W12"]);
}

#[test]
fn an_executable_alone_does_not_load() {
    let text = with(r#"unit = "a.service""#, r#"exe = "/usr/bin/a""#);
    let site = Site::new(&format!("{HEAD}{text}"));
    let error = Config::load(&site.0.path().join("assertd.toml"))
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("a match needs at least `unit`, `slice`, `user` or `uid`"),
        "{error}"
    );
}

/// Ten thousand sections, all of which own target bank.
fn many(selectors: impl Fn(usize) -> String) -> Config {
    let section = |number: usize| {
        format!(
            "[workload.w{number}]\nowner = \"a\"\npurpose = \"b\"\nexpires = 2027-06-30\n\
             match = {{ {} }}\n[workload.w{number}.target.bank]\nprofile = \"rfc7523\"\n\
             authorization_server = \"https://as.example\"\nclient_id = \"c{number}\"\n",
            selectors(number)
        )
    };
    load(&(0..4_000).map(section).collect::<String>())
}

/// Processor time that a debug build may take; in release it is a hundredth. Comparing all pairs takes
/// eight million comparisons.
const PATIENCE: Duration = Duration::from_secs(10);

/// What this thread has had of the processors: on a busy machine the clock says something else.
fn processor_time() -> Duration {
    let clock = nix::time::ClockId::CLOCK_THREAD_CPUTIME_ID;
    nix::time::clock_gettime(clock).unwrap().into()
}

#[test]
fn thousands_of_sections_are_looked_at_without_holding_each_against_each() {
    for (selectors, expected) in [
        (
            (|n| format!("unit = \"a{n}.service\"")) as fn(usize) -> String,
            &[][..],
        ),
        (|n| format!("unit = \"a{n}@*.service\""), &[]),
        (|n| format!("unit = \"one.service\", uid = {n}"), &[]),
        (|n| format!("unit = \"a@{n}*x.service\""), &[]),
        (
            |n| format!("uid = {n}, gid = 1, interactive = {}", n % 2 == 0),
            &["W2"],
        ),
        (
            |n| format!("slice = \"a.slice\", gid = {n}"),
            &["W13", "I3"],
        ),
    ] {
        let config = many(selectors);
        let start = processor_time();
        let found = findings(&config, None, Time::from_unix_s(NOW));
        let took = processor_time() - start;
        assert!(took < PATIENCE, "{took:?} for {}", selectors(1));
        let mut ids: Vec<&str> = found.iter().map(|finding| finding.id).collect();
        ids.retain(|id| !["W16", "W3", "W24", "E3"].contains(id));
        ids.dedup();
        assert_eq!(ids, expected, "{}", selectors(1));
    }
}
