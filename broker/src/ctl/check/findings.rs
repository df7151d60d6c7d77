//! What can be wrong with a configuration that loads. Pure: configuration and time in, findings
//! out. Each has an id that never changes its meaning, so that it can be looked up.

use crate::config::{Config, Section, Target};
use crate::selector::Selector;
use keystore::Time;
use keystore::charter::PurposeKind;
use serde::Serialize;
use std::ops::RangeInclusive;

/// Uids that systemd gives to DynamicUser= services and takes back when they stop (systemd's
/// UIDS-GIDS): the next service may get the same one.
const DYNAMIC_UIDS: RangeInclusive<u32> = 61_184..=65_519;

/// Lifetime in seconds that is enough for a federation token from the socket; longer ones are for
/// files, which SDKs cache for 10 minutes.
const FEDERATION_LIFETIME_S: u32 = 600;

/// How long before it expires a workload is warned about: two sprints.
const EXPIRY_NOTICE_S: u64 = 30 * 86_400;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// It can never work.
    Error,
    /// It works, and is unwise.
    Warning,
}

/// One thing to know about a configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// `E1`, `W1` …
    pub id: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// The section.
    pub object: String,
    /// What it means.
    pub text: String,
    /// What to write instead.
    pub remedy: String,
}

/// Everything there is to say, by workload.
pub fn findings(config: &Config, now: Time) -> Vec<Finding> {
    let mut found = Vec::new();
    if config.workloads.is_empty() {
        found.push(warning(
            "W1",
            "configuration".to_owned(),
            "there is no workload, so that every request is denied",
            "write a [workload.NAME] in conf.d/NAME.toml beside it",
        ));
    }
    for (index, section) in config.workloads.iter().enumerate() {
        of_section(section, now, &mut found);
        for other in &config.workloads[index + 1..] {
            of_pair(section, other, &mut found);
        }
        for target in section.targets.values() {
            of_target(target, &mut found);
        }
    }
    found
}

fn of_section(section: &Section, now: Time, found: &mut Vec<Finding>) {
    let object = || format!("[workload.{}]", section.name);
    let uid = section.matches.iter().find_map(|selector| match selector {
        Selector::User(uid) => Some(*uid),
        _ => None,
    });
    let names_unit =
        |selector: &Selector| matches!(selector, Selector::Unit(_) | Selector::UserUnit(_));
    if let (false, Some(uid)) = (section.matches.iter().any(names_unit), uid) {
        found.push(warning(
            "W2",
            object(),
            format!(
                "every process of uid {uid} gets it, also a shell, a cron job, a sandbox escape"
            ),
            "add the unit: match = { unit = \"NAME.service\", user = \"NAME\" }",
        ));
    }
    if let Some(uid) = uid.filter(|uid| DYNAMIC_UIDS.contains(uid)) {
        found.push(warning(
            "W3",
            object(),
            format!("uid {uid} is one that systemd hands to DynamicUser= services in turn"),
            "match the unit alone, or give the service a user of its own (User=)",
        ));
    }
    match section.expires {
        None => found.push(warning(
            "W4",
            object(),
            "it has no `expires`, so that nobody will ever ask whether it is still needed",
            "write expires = YYYY-MM-DD, a year from now at most",
        )),
        Some(expires) if expires <= now => found.push(warning(
            "W5",
            object(),
            "it has expired, so that every request of it is denied",
            "remove it, or ask its owner and write a new date",
        )),
        Some(expires) if expires.unix_s() - now.unix_s() < EXPIRY_NOTICE_S => {
            let days = (expires.unix_s() - now.unix_s()) / 86_400;
            found.push(warning(
                "W6",
                object(),
                format!("it expires in {days} days"),
                "ask its owner and write a new date",
            ));
        }
        Some(_) => {}
    }
    if section.owner.is_none() {
        found.push(warning(
            "W7",
            object(),
            "it has no `owner`, so that nobody knows whom to ask about it",
            "write owner = \"TEAM@example.com\"",
        ));
    }
    if section.targets.is_empty() {
        found.push(warning(
            "W8",
            object(),
            "it has no target, so that every request of it is denied",
            "write a [workload.NAME.target.NAME], or remove it",
        ));
    }
    if section.allow_pid_fallback {
        found.push(warning(
            "W9",
            object(),
            "on kernels before 6.5 it takes a caller by its pid, which another process could get \
             if the caller dies in the right moment",
            "remove `allow_pid_fallback` where the kernel has SO_PEERPIDFD (assertctl status)",
        ));
    }
}

fn of_pair(one: &Section, other: &Section, found: &mut Vec<Finding>) {
    if one.matches != other.matches {
        return;
    }
    let object = || format!("[workload.{}] and [workload.{}]", one.name, other.name);
    let shared: Vec<&str> = one
        .targets
        .keys()
        .filter(|target| other.targets.contains_key(*target))
        .map(String::as_str)
        .collect();
    if shared.is_empty() {
        found.push(warning(
            "W10",
            object(),
            "both match the same processes, which have the targets of both",
            "make them one section, or give each a unit of its own",
        ));
    } else {
        found.push(Finding {
            id: "E1",
            severity: Severity::Error,
            object: object(),
            text: format!(
                "both match the same processes and own target {}: exactly one owner may, so that \
                 every request for it is denied",
                shared.join(", ")
            ),
            remedy: "remove the target from one of them".to_owned(),
        });
    }
}

fn of_target(target: &Target, found: &mut Vec<Finding>) {
    let federation = target.charter.purpose.kind() == PurposeKind::Federation;
    if federation && target.lifetime_s > FEDERATION_LIFETIME_S {
        found.push(warning(
            "W11",
            format!("[workload.{}.target.{}]", target.workload, target.name),
            format!("a stolen assertion can be used for {} s", target.lifetime_s),
            "write lifetime = 600 or less, unless it is delivered as a file that an SDK caches",
        ));
    }
}

fn warning(
    id: &'static str,
    object: String,
    text: impl Into<String>,
    remedy: impl Into<String>,
) -> Finding {
    Finding {
        id,
        severity: Severity::Warning,
        object,
        text: text.into(),
        remedy: remedy.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-11-21
    const NOW: u64 = 1_795_219_200;

    const HEAD: &str = r#"
        [keystore.hsm]
        backend = "pkcs11"
        module = "/usr/lib/x.so"
        token = { label = "t" }
        pin = { file = "/pin" }
        [issuer.prod]
        url = "https://id.example"
        subjects = ["*"]
        keystore = "hsm"
        alg = "RS256"
    "#;

    const GOOD: &str = r#"
        [workload.a]
        owner = "a@example.com"
        expires = 2027-06-30
        match = { unit = "a.service" }
        [workload.a.target.bank]
        profile = "rfc7523"
        authorization_server = "https://as.example"
        client_id = "a"
    "#;

    fn ids(text: &str) -> Vec<&'static str> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("assertd.toml");
        let text = format!("{}\n{text}", HEAD.replace(r#"["*"]"#, r#"["a-*"]"#));
        std::io::Write::write_all(
            &mut std::fs::OpenOptions::new()
                .write(true)
                .create_new(true)
                .open(&path)
                .unwrap(),
            text.as_bytes(),
        )
        .unwrap();
        let config = Config::load(&path).unwrap_or_else(|error| panic!("{error}"));
        findings(&config, Time::from_unix_s(NOW))
            .iter()
            .map(|finding| finding.id)
            .collect()
    }

    #[test]
    fn a_careful_configuration_has_no_findings() {
        assert_eq!(ids(GOOD), [""; 0]);
    }

    #[test]
    fn each_carelessness_has_its_id() {
        let with = |from: &str, to: &str| {
            assert!(GOOD.contains(from), "{from}");
            GOOD.replace(from, to)
        };
        let unit = r#"{ unit = "a.service" }"#;
        for (text, expected) in [
            (String::new(), &["W1"][..]),
            (with(unit, "{ uid = 991 }"), &["W2"]),
            (with(unit, r#"{ unit = "a.service", uid = 61183 }"#), &[]),
            (
                with(unit, r#"{ unit = "a.service", uid = 61184 }"#),
                &["W3"],
            ),
            (
                with(unit, r#"{ unit = "a.service", uid = 65519 }"#),
                &["W3"],
            ),
            (with(unit, r#"{ unit = "a.service", uid = 65520 }"#), &[]),
            (with("expires = 2027-06-30", ""), &["W4"]),
            (with("2027-06-30", "2026-11-21"), &["W5"]),
            (with("2027-06-30", "2026-12-20"), &["W6"]),
            (with("2027-06-30", "2026-12-21"), &[]),
            (with("owner =", "#"), &["W7"]),
            (
                with(
                    "[workload.a.target.bank]",
                    "allow_pid_fallback = true\n[workload.a.target.bank]",
                ),
                &["W9"],
            ),
        ] {
            assert_eq!(ids(&text), expected, "{text}");
        }
        let no_target = GOOD.split("[workload.a.target.bank]").next().unwrap();
        assert_eq!(ids(no_target), ["W8"]);
    }

    #[test]
    fn two_sections_for_the_same_processes_are_told_and_a_common_target_is_an_error() {
        let twice = |target: &str| {
            let other = GOOD
                .replace("workload.a", "workload.b")
                .replace("target.bank", target);
            ids(&format!("{GOOD}{other}"))
        };
        assert_eq!(twice("target.other"), ["W10"]);
        assert_eq!(twice("target.bank"), ["E1"]);
    }

    #[test]
    fn a_long_federation_lifetime_is_told() {
        let aws = |lifetime: u32| {
            ids(&format!(
                "{GOOD}\n[workload.a.target.aws]\nprofile = \"aws-oidc\"\nissuer = \"prod\"\n\
                 subject = \"a-1\"\naudience = \"sts.amazonaws.com\"\nlifetime = {lifetime}\n"
            ))
        };
        assert_eq!(aws(600), [""; 0]);
        assert_eq!(aws(601), ["W11"]);
    }
}
