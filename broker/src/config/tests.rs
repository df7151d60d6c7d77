//! Each test takes a configuration that is right and changes one thing; what is shown is tested
//! word for word where users will read it.

use super::*;
use keystore::charter::{PurposeKind, SUBJECTS_MAX};

mod bounds;

const GOOD: &str = r#"
[keystore.hsm]
backend = "pkcs11"
module = "/usr/lib/softhsm/libsofthsm2.so"
token = { label = "workloads" }
pin = { credential = "hsm.pin" }

[issuer.prod]
url = "https://id.example.com/prod"
subjects = ["payments", "reports-*"]
keystore = "hsm"
alg = "RS256"

[workload.payments]
owner = "payments@example.com"
expires = 2027-06-30
match = { unit = "payments.service", uid = 990 }

[workload.payments.target.bank]
profile = "rfc7523"
authorization_server = "https://as.bank.example"
client_id = "payments-prod"
keystore = "hsm"

[workload.payments.target.aws]
profile = "aws-oidc"
issuer = "prod"
subject = "payments"
audience = "sts.amazonaws.com"
"#;

fn load(main: &str, drop_ins: &[(&str, &str)]) -> std::result::Result<Config, String> {
    let dir = tempfile::tempdir().unwrap();
    let write = |path: &Path, text: &str| {
        use std::io::Write;
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::OpenOptions::new()
            .create_new(true)
            .write(true)
            .open(path)
            .unwrap()
            .write_all(text.as_bytes())
            .unwrap();
    };
    write(&dir.path().join("assertd.toml"), main);
    for (name, text) in drop_ins {
        write(&dir.path().join("conf.d").join(name), text);
    }
    let prefix = format!("{}/", dir.path().display());
    Config::load(&dir.path().join("assertd.toml"))
        .map_err(|error| error.to_string().replace(&prefix, ""))
}

/// Loads GOOD with one text replaced and gives the error.
fn broken(from: &str, to: &str) -> String {
    assert!(GOOD.contains(from), "{from}");
    load(&GOOD.replacen(from, to, 1), &[]).expect_err(to)
}

#[test]
fn a_good_configuration_is_resolved() {
    let config = load(GOOD, &[]).unwrap();
    let section = &config.workloads[0];
    let matches: Vec<String> = section.matches.iter().map(ToString::to_string).collect();
    let wanted = [
        "unit = \"payments.service\"",
        "uid = 990",
        "container = false",
    ];
    assert_eq!(matches, wanted);
    assert_eq!(section.place.line, 14);
    assert_eq!(section.expires, Some(Time::from_unix_s(1_814_313_600)));
    let bank = &section.targets["bank"];
    assert_eq!(
        (bank.aud.as_deref(), bank.lifetime_s),
        (Some("https://as.bank.example"), 60)
    );
    assert_eq!(
        bank.charter.purpose.kind(),
        PurposeKind::ClientAuthentication
    );
    let aws = &section.targets["aws"];
    assert_eq!(
        (aws.iss.as_str(), aws.sub.as_deref()),
        ("https://id.example.com/prod", Some("payments"))
    );
    assert_eq!(aws.lifetime_s, 600);
    let wanted: Vec<String> = config
        .wanted_keys()
        .keys()
        .map(ToString::to_string)
        .collect();
    assert_eq!(wanted, ["issuer/prod", "payments/bank"]);
}

#[test]
fn an_unknown_key_anywhere_is_shown_with_a_suggestion() {
    assert_eq!(
        broken("audience = \"sts", "audiance = \"sts"),
        "assertd.toml:29:1: unknown key `audiance`\n   29 | audiance = \"sts.amazonaws.com\"\n      \
         | ^~~~~~~~ did you mean `audience`?"
    );
    for (from, to) in [
        ("owner = ", "woner = "),
        ("[issuer.prod]", "[issuers.prod]"),
        ("backend = ", "back_end = "),
        ("uid = 990", "userid = 990"),
        ("url = ", "urls = "),
    ] {
        assert!(broken(from, to).contains("unknown key"), "{to}");
    }
}

#[test]
fn a_name_that_does_not_exist_is_shown_with_a_suggestion() {
    assert_eq!(
        broken("profile = \"rfc7523\"", "profile = \"rfc7532\""),
        "assertd.toml:20:11: there is no profile `rfc7532`\n   20 | profile = \"rfc7532\"\n      \
         |           ^~~~~~~~~ did you mean `rfc7523`?"
    );
    assert!(broken("issuer = \"prod\"", "issuer = \"prd\"").contains("did you mean `prod`?"));
    let text = GOOD.replace(
        "client_id = \"payments-prod\"\nkeystore = \"hsm\"",
        "client_id = \"p\"\nkeystore = \"hms\"",
    );
    assert!(
        load(&text, &[])
            .unwrap_err()
            .contains("there is no keystore `hms`")
    );
}

#[test]
fn a_target_has_what_its_profile_needs_and_nothing_else() {
    let shown = broken("client_id = \"payments-prod\"\n", "");
    assert!(
        shown.contains("`client_id` is missing: profile `rfc7523` needs it"),
        "{shown}"
    );
    assert!(shown.starts_with("assertd.toml:19:27:"), "{shown}");
    let shown = broken("client_id = ", "audience = \"x\"\nclient_id = ");
    assert!(
        shown.contains("profile `rfc7523` has no `audience`"),
        "{shown}"
    );
    let shown = broken(
        "issuer = \"prod\"\n",
        "issuer = \"prod\"\nalg = \"RS256\"\n",
    );
    assert!(shown.contains("profile `aws-oidc` has no `alg`"), "{shown}");
}

#[test]
fn a_lifetime_ends_at_the_profiles_limit() {
    let with = |seconds: u32| {
        let to = format!("client_id = \"payments-prod\"\nlifetime = {seconds}\n");
        load(
            &GOOD.replacen("client_id = \"payments-prod\"\n", &to, 1),
            &[],
        )
    };
    assert!(with(1).is_ok() && with(300).is_ok());
    assert!(with(0).unwrap_err().contains("at least 1"));
    assert!(
        with(301)
            .unwrap_err()
            .contains("must be 300 seconds at most")
    );
}

#[test]
fn a_subject_outside_its_issuer_is_refused() {
    let shown = broken("subject = \"payments\"", "subject = \"billing\"");
    assert!(
        shown.contains("issuer `prod` may not assert `billing`"),
        "{shown}"
    );
}

#[test]
fn an_issuer_has_no_more_subjects_than_its_keys_charter_holds() {
    let with = |count: usize| {
        let subjects = format!("subjects = [\"payments\"{}]", ", \"a\"".repeat(count - 1));
        let from = "subjects = [\"payments\", \"reports-*\"]";
        load(&GOOD.replacen(from, &subjects, 1), &[])
    };
    assert!(with(SUBJECTS_MAX).is_ok());
    let shown = with(SUBJECTS_MAX + 1).unwrap_err();
    assert!(
        shown.starts_with("assertd.toml:10:12: 1025 subjects are more than"),
        "{shown}"
    );
}

#[test]
fn an_algorithm_the_vendor_does_not_take_is_refused() {
    let shown = broken("alg = \"RS256\"", "alg = \"PS256\"");
    assert!(
        shown.contains("profile `aws-oidc` does not take PS256, the algorithm of issuer `prod`"),
        "{shown}"
    );
    assert!(broken("alg = \"RS256\"", "alg = \"HS256\"").contains("unknown value `HS256`"));
}

#[test]
fn an_issuer_is_an_https_url() {
    for url in [
        "http://id.example.com",
        "https://id.example.com?x",
        "https://a#b",
        "id.example.com",
        "",
    ] {
        let to = format!("url = \"{url}\"");
        broken("url = \"https://id.example.com/prod\"", &to);
    }
}

#[test]
fn a_match_that_says_nothing_is_refused() {
    for to in [
        "match = { }",
        "match = { container = true }",
        "match = { gid = 5 }",
    ] {
        let shown = broken("match = { unit = \"payments.service\", uid = 990 }", to);
        assert!(shown.contains("needs at least `unit`"), "{shown}");
    }
    assert!(broken("uid = 990", "user = \"no-such-user-here\"").contains("has no user"));
    assert!(broken("\"payments.service\"", "\"payments\"").contains("ends in .service or .scope"));
    assert!(broken("uid = 990", "uid = 990, user = \"root\"").contains("not both"));
}

const DROP_IN: &str = r#"
[workload.reports]
match = { uid = 991 }
[workload.reports.target.aws]
profile = "aws-oidc"
issuer = "prod"
subject = "reports-daily"
audience = "sts.amazonaws.com"
"#;

#[test]
fn a_drop_in_adds_workloads_and_nothing_else() {
    let config = load(GOOD, &[("reports.toml", DROP_IN), ("README", "not read")]).unwrap();
    assert_eq!(config.workloads.len(), 2);
    for section in [
        "[issuer.mine]\nurl = \"https://x\"",
        "[keystore.mine]",
        "[server]",
        "[audit]",
    ] {
        let shown = load(GOOD, &[("a.toml", section)]).unwrap_err();
        assert!(shown.starts_with("conf.d/a.toml:1:"), "{shown}");
        assert!(shown.contains("is for the main file alone"), "{shown}");
    }
    let shown = load(GOOD, &[("a.toml", DROP_IN), ("b.toml", DROP_IN)]).unwrap_err();
    assert!(shown.starts_with("conf.d/b.toml:2:"), "{shown}");
    assert!(
        shown.contains("`reports` is there already, at conf.d/a.toml:2"),
        "{shown}"
    );
}

#[test]
fn a_subject_has_one_owner_unless_both_share_it() {
    let same = DROP_IN.replace("reports-daily", "payments");
    let shown = load(GOOD, &[("a.toml", &same)]).unwrap_err();
    assert!(
        shown.contains("conf.d/a.toml:7:11: subject `payments` belongs to workload `payments`"),
        "{shown}"
    );
    // The issuer is who its URL says, with whatever keys.
    let twin = GOOD.split("[issuer.prod]").nth(1).unwrap();
    let twin = twin.split("\n[").next().unwrap();
    let twins = format!("{GOOD}\n[issuer.twin]{twin}\n");
    let of_twin = same.replace("\"prod\"", "\"twin\"");
    let shown = load(&twins, &[("a.toml", &of_twin)]).unwrap_err();
    assert!(
        shown.contains("conf.d/a.toml:7:11: subject `payments` belongs to workload `payments`"),
        "{shown}"
    );
    let shared = format!("{same}shared = true\n");
    assert!(load(GOOD, &[("a.toml", &shared)]).is_err());
    let both = GOOD.replace(
        "subject = \"payments\"",
        "subject = \"payments\"\nshared = true",
    );
    assert!(load(&both, &[("a.toml", &shared)]).is_ok());
}

#[test]
fn a_selector_that_could_never_hold_is_refused_with_what_is_meant() {
    for (selector, phrase) in [
        ("exe_sha256 = []", "lists no digest"),
        ("exe = \"/usr/bin/*\"", "without `*`"),
        (
            "exe = \"/usr/bin/../bin/x\"",
            "without `*`, `//`, `.` and `..`",
        ),
        ("unit = \"app@.service\"", "write `app@*.service`"),
        (
            "unit = \"system.slice/x.service\"",
            "its cgroup path begins with one",
        ),
    ] {
        let text = DROP_IN.replace("uid = 991", &format!("uid = 991, {selector}"));
        let shown = load(GOOD, &[("a.toml", &text)]).unwrap_err();
        assert!(shown.starts_with("conf.d/a.toml:3:"), "{shown}");
        assert!(shown.contains(phrase), "{shown}");
    }
}

#[test]
fn the_digest_names_the_whole_configuration() {
    let plain = load(GOOD, &[]).unwrap().sha256;
    assert_eq!(plain, load(GOOD, &[]).unwrap().sha256);
    assert_ne!(plain, load(GOOD, &[("a.toml", DROP_IN)]).unwrap().sha256);
    assert_ne!(
        plain,
        load(&GOOD.replace("990", "991"), &[]).unwrap().sha256
    );
    assert_eq!(plain.to_string().len(), 64);
}

proptest::proptest! {
    /// Whatever is written, loading answers; errors have a place or name the file.
    #[test]
    fn no_text_panics_the_loader(cut in 0usize..1000, insert in "\\PC{0,12}") {
        let cut = GOOD.floor_char_boundary_at(cut.min(GOOD.len()));
        let text = format!("{}{insert}{}", &GOOD[..cut], &GOOD[cut..]);
        if let Err(shown) = load(&text, &[]) {
            proptest::prop_assert!(shown.starts_with("assertd.toml:"), "{}", shown);
        }
    }
}

trait FloorCharBoundary {
    fn floor_char_boundary_at(&self, index: usize) -> usize;
}

impl FloorCharBoundary for str {
    fn floor_char_boundary_at(&self, index: usize) -> usize {
        (0..=index)
            .rev()
            .find(|at| self.is_char_boundary(*at))
            .unwrap_or(0)
    }
}

#[test]
fn a_profile_of_ones_own_is_the_shipped_one_and_narrower() {
    let own = "[profile.short]\nextends = \"aws-oidc\"\nlifetime_max = 300\nalgs = [\"RS256\"]\n\
               audience = \"sts.amazonaws.com\"\n";
    let aws = "profile = \"aws-oidc\"\nissuer = \"prod\"\nsubject = \"payments\"\n\
               audience = \"sts.amazonaws.com\"\n";
    let text = GOOD.replacen(
        aws,
        "profile = \"short\"\nissuer = \"prod\"\nsubject = \"payments\"\n",
        1,
    );
    assert_ne!(text, GOOD);
    let shipped = load(GOOD, &[]).unwrap();
    let narrowed = load(&format!("{text}\n{own}"), &[]).unwrap();
    let of = |config: &Config| config.workloads[0].targets["aws"].clone();
    let (shipped, narrowed) = (of(&shipped), of(&narrowed));
    assert_eq!(narrowed.profile.name, "short");
    assert_eq!(narrowed.profile.row.name, "aws-oidc");
    assert_eq!((shipped.lifetime_s, narrowed.lifetime_s), (600, 300));
    assert_eq!(narrowed.aud, shipped.aud);
    // The key is the issuer's either way, and its charter that of the issuer.
    assert_eq!(narrowed.charter, shipped.charter);
}

#[test]
fn a_key_of_an_account_has_a_charter_of_its_own() {
    let text = format!(
        "{GOOD}\n[workload.payments.target.github]\nprofile = \"github-app\"\n\
         client_id = \"Iv23li\"\n[workload.payments.target.warehouse]\n\
         profile = \"snowflake\"\naccount = \"ACME-PROD\"\nuser = \"PAYMENTS\"\n"
    );
    let config = load(&text, &[]).unwrap();
    let wanted = config.wanted_keys();
    let charter = |target: &str| {
        let name = KeyName::client("payments", target).unwrap();
        serde_json::to_value(&wanted[&name].charter).unwrap()
    };
    assert_eq!(
        charter("github"),
        serde_json::json!({
            "purpose": { "account": { "iss": { "is": "Iv23li" } } }, "alg": "RS256", "typ": "JWT",
            "kid": "absent", "lifetime_max_s": 480, "backdate_s": 60,
        })
    );
    assert_eq!(
        charter("warehouse"),
        serde_json::json!({
            "purpose": { "account": {
                "iss": { "with_fingerprint": "ACME-PROD.PAYMENTS" }, "sub": "ACME-PROD.PAYMENTS",
            } },
            "alg": "RS256", "typ": "JWT", "kid": "absent", "lifetime_max_s": 300,
        })
    );
}
