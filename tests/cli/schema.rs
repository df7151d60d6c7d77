//! The JSON Schema of assertd.toml, judged by a validator that nobody here wrote: it takes whatever
//! loading takes, and refuses what it can of what loading refuses. The manual page has every key.

use crate::errors::{Verdict, cases};
use crate::{Suite, here};
use harness::peers;
use harness::programs::Programs;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn shipped() -> PathBuf {
    root().join("docs/assertd.schema.json")
}

#[test]
fn assertctl_prints_the_shipped_schema() {
    let programs = Programs::installed();
    let mut command = Command::new(programs.assertctl());
    let printed = command.args(["config", "schema"]).output().unwrap();
    assert_eq!(printed.status.code(), Some(0));
    assert_eq!(
        String::from_utf8(printed.stdout).unwrap(),
        fs::read_to_string(shipped()).unwrap()
    );
}

#[test]
fn it_refuses_the_mistakes_that_it_can_know() {
    let cases = cases();
    let texts: Vec<(String, String)> = cases
        .iter()
        .flat_map(|case| {
            let ours = case.files.iter().filter(|(path, _)| is_configuration(path));
            ours.map(|(path, text)| (format!("{} {path}", case.name), text.replace("{dir}", "/x")))
        })
        .collect();
    let verdicts = judge(&texts);
    let mut wrong = Vec::new();
    let mut counts = [0; 3];
    for case in &cases {
        let of_case = verdicts
            .iter()
            .filter(|(name, _)| name.split(' ').next() == Some(&case.name));
        let verdicts: Vec<&Value> = of_case.map(|(_, verdict)| verdict).collect();
        let has = |word: &str| verdicts.iter().any(|verdict| verdict["verdict"] == word);
        let is = match (has("no TOML"), has("refuses")) {
            (true, _) => Verdict::NoToml,
            (false, true) => Verdict::Refuses,
            (false, false) => Verdict::CannotKnow,
        };
        counts[is as usize] += 1;
        if is != case.schema {
            wrong.push(format!(
                "{}: {is:?}, not {:?}: {verdicts:?}",
                case.name, case.schema
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(counts.iter().all(|count| *count > 3), "{counts:?}");
}

fn is_configuration(path: &str) -> bool {
    path == "assertd.toml" || (path.starts_with("conf.d/") && path.ends_with(".toml"))
}

#[test]
fn it_takes_what_documents_show_and_what_loads() {
    let mut texts = Vec::new();
    for path in [
        "README.md",
        "systemd/README.md",
        "docs/man/assertd.toml.5.md",
        "docs/architecture.md",
        "docs/profiles.md",
        "docs/publication.md",
    ] {
        let text = fs::read_to_string(root().join(path)).unwrap();
        let blocks = blocks(&text);
        texts.extend(
            blocks
                .into_iter()
                .map(|block| (path.to_owned(), whole(block))),
        );
    }
    assert!(texts.len() >= 4, "{texts:?}");
    for suite in ["config.toml", "check.toml"] {
        texts.extend(loaded(suite));
    }
    texts.extend(explained());
    texts.extend(consts("broker/src/config/tests.rs"));
    texts.extend(consts("broker/src/config/tests/bounds.rs"));
    assert!(texts.len() > 100, "{} texts", texts.len());
    takes(&texts);
}

/// Holds texts against the schema that it must take.
#[track_caller]
pub fn takes(texts: &[(String, String)]) {
    let verdicts = judge(texts).into_iter();
    let refused = verdicts.filter(|(_, verdict)| verdict["verdict"] != "takes");
    let refused: Vec<String> = refused
        .map(|(name, verdict)| format!("{name}: {verdict}"))
        .collect();
    assert!(refused.is_empty(), "{}", refused.join("\n"));
}

/// A block that shows a target alone, with the section that it is in.
fn whole(block: String) -> String {
    let is_alone =
        block.contains("[workload.payments.target.") && !block.contains("[workload.payments]");
    let section = if is_alone {
        "\n[workload.payments]\nmatch = { uid = 991 }\n"
    } else {
        ""
    };
    block + section
}

/// Configurations in a document: marked as TOML, or a file that is written by a command.
fn blocks(text: &str) -> Vec<String> {
    let marked = text.split("```toml\n").skip(1);
    let marked = marked.map(|rest| rest.split("\n```").next().unwrap_or_default());
    let written = text.split(".toml <<'END'\n").skip(1);
    let written = written.map(|rest| rest.split("\nEND\n").next().unwrap_or_default());
    marked.chain(written).map(str::to_owned).collect()
}

/// The configurations of a suite of cases that load.
fn loaded(suite: &str) -> Vec<(String, String)> {
    let text = fs::read_to_string(here().join(suite)).unwrap();
    let Suite { files, case } = toml::from_str(&text).unwrap();
    let mut texts = Vec::new();
    for case in case.iter().filter(|case| case.exit < 2) {
        for (path, text) in files
            .iter()
            .chain(&case.files)
            .filter(|(path, _)| is_configuration(path))
        {
            texts.push((
                format!("{suite}: {}: {path}", case.name),
                text.replace("{dir}", "/x"),
            ));
        }
    }
    assert!(!texts.is_empty(), "{suite}");
    texts
}

/// The examples and the fixes of `config check --explain`, which another test loads.
fn explained() -> Vec<(String, String)> {
    let text = fs::read_to_string(root().join("broker/src/ctl/check/explain.toml")).unwrap();
    let all: toml::Table = toml::from_str(&text).unwrap();
    let mut texts = Vec::new();
    for (id, explanation) in &all {
        for key in ["example", "fix"] {
            let Some(text) = explanation.get(key).and_then(toml::Value::as_str) else {
                continue;
            };
            // A file's name stands above it, but for the first.
            let mut parts = text.split("\n# conf.d/");
            let first = parts.next().map(str::to_owned);
            let others = parts.map(|part| format!("# {part}"));
            texts.extend(
                first
                    .into_iter()
                    .chain(others)
                    .map(|part| (format!("{id} {key}"), part)),
            );
        }
    }
    texts
}

/// The configurations that the loader's own tests change in one place.
fn consts(path: &str) -> Vec<(String, String)> {
    let text = fs::read_to_string(root().join(path)).unwrap();
    let consts = text.split(": &str = r#\"").skip(1);
    let texts: Vec<(String, String)> = consts
        .map(|rest| {
            (
                path.to_owned(),
                rest.split("\"#;").next().unwrap_or_default().to_owned(),
            )
        })
        .collect();
    assert!(texts.len() >= 2, "{path}: {texts:?}");
    texts
}

/// Each with its verdict.
fn judge(texts: &[(String, String)]) -> Vec<(String, Value)> {
    let lines: Vec<String> = texts
        .iter()
        .map(|(_, text)| serde_json::json!({ "text": text }).to_string())
        .collect();
    let verdicts = peers::hold_against_schema(&shipped(), &lines);
    texts
        .iter()
        .map(|(name, _)| name.clone())
        .zip(verdicts)
        .collect()
}

/// Taking away and changing one thing at a time, of every key there is.
#[test]
fn it_takes_whatever_loads() {
    let file = root().join("tests/peers/every-key.toml");
    let variants = peers::variants(&file);
    let verdicts: BTreeMap<String, Value> = judge(&variants).into_iter().collect();
    let programs = Programs::installed();
    let program = programs.assertctl();
    let tried = |variants: &[(String, String)]| -> Vec<(String, bool)> {
        let each = |(what, text): &(String, String)| (what.clone(), loads(&program, text));
        variants.iter().map(each).collect()
    };
    // Each is a process that waits more than it computes.
    let tried: Vec<(String, bool)> = std::thread::scope(|scope| {
        let shares = variants.chunks(variants.len().div_ceil(8));
        let threads: Vec<_> = shares.map(|share| scope.spawn(|| tried(share))).collect();
        let threads = threads.into_iter();
        threads.flat_map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(tried[0], ("as it is".to_owned(), true));
    let (mut wrong, mut both) = (Vec::new(), 0);
    for (what, it_loads) in &tried {
        let verdict = &verdicts[what];
        match (it_loads, verdict["verdict"] == "takes") {
            (true, false) => wrong.push(format!("{what}: {verdict}")),
            (false, true) => {} // a name, a user: what a schema cannot know
            (true, true) => {}
            (false, false) => both += 1,
        }
    }
    assert!(
        wrong.is_empty(),
        "loads, and is refused by the schema:\n{}",
        wrong.join("\n")
    );
    let loaded = tried.iter().filter(|(_, it_loads)| *it_loads).count();
    assert!(
        loaded > 100 && both > 200,
        "{loaded} load, {both} are refused by both"
    );
    every_key_is_in(&variants[0].1);
}

/// Whether a configuration can be loaded on a host with its users.
fn loads(program: &Path, text: &str) -> bool {
    let dir = tempfile::tempdir().unwrap();
    let put = |name: &str, text: &str| {
        let path = dir.path().join(name);
        fs::write(&path, text).unwrap();
        path
    };
    let facts = "format = 1\n[users]\npayments = 991\n[groups]\npayments = 991\n";
    let (config, facts) = (put("assertd.toml", text), put("facts.toml", facts));
    let mut command = Command::new(program);
    command
        .arg("-c")
        .arg(config)
        .args(["config", "check", "--host-facts"])
        .arg(facts);
    let output = command.output().unwrap();
    match output.status.code() {
        Some(0 | 1) => true,
        Some(78) => false,
        code => panic!("{code:?} for {text}"),
    }
}

fn every_key_is_in(text: &str) {
    let schema: Value = serde_json::from_str(&fs::read_to_string(shipped()).unwrap()).unwrap();
    let definitions = schema["$defs"].as_object().unwrap();
    let keys = definitions
        .values()
        .filter_map(|it| it["properties"].as_object())
        .flat_map(|it| it.keys());
    let missing: Vec<&String> = keys
        .filter(|key| !text.contains(&format!("\"{key}\" = ")))
        .collect();
    assert!(
        missing.is_empty(),
        "tests/peers/every-key.toml has no {missing:?}"
    );
}

/// Whoever reads assertd.toml(5) finds every key there, in the part about its section, and no other.
#[test]
fn the_manual_page_has_every_key() {
    let schema: Value = serde_json::from_str(&fs::read_to_string(shipped()).unwrap()).unwrap();
    let page = fs::read_to_string(root().join("docs/man/assertd.toml.5.md")).unwrap();
    let mut missing = Vec::new();
    let mut count = 0;
    for (part, keys) in parts(&schema) {
        let text = page
            .split("\n## ")
            .find_map(|text| text.strip_prefix(&format!("{part}\n")));
        let Some(text) = text else {
            missing.push(format!("no part `## {part}`"));
            continue;
        };
        let terms: BTreeSet<&str> = text
            .lines()
            .filter(|line| line.starts_with("**"))
            .flat_map(|line| line.split("**").skip(1).step_by(2))
            .collect();
        count += keys.len();
        missing.extend(
            keys.iter()
                .filter(|key| !terms.contains(key.as_str()))
                .map(|key| format!("{part}: `{key}`")),
        );
        missing.extend(
            terms
                .iter()
                .filter(|term| !keys.contains(**term))
                .map(|term| format!("{part}: `{term}` is no key")),
        );
    }
    assert!(
        missing.is_empty(),
        "assertd.toml(5):\n{}",
        missing.join("\n")
    );
    assert!(count > 60, "{count} keys");
}

/// The parts of the manual page, and the keys that the schema has for each.
fn parts(schema: &Value) -> Vec<(&'static str, BTreeSet<String>)> {
    let of = |definition: &str| {
        let keys = schema["$defs"][definition]["properties"].as_object();
        let keys = keys.unwrap_or_else(|| panic!("no {definition}"));
        keys.keys().cloned().collect::<BTreeSet<String>>()
    };
    let mut workload = of("WorkloadSection");
    assert!(workload.remove("target"));
    vec![
        ("[server]", of("ServerSection")),
        ("[audit]", of("AuditSection")),
        ("[limits]", of("LimitsSection")),
        ("[keystore.NAME]", of("KeystoreSection")),
        ("[keystore.NAME.healthy]", of("Healthy")),
        ("[issuer.NAME]", of("IssuerSection")),
        ("[workload.NAME]", workload),
        ("Selectors", of("MatchSection")),
        ("[bounds.NAME]", of("BoundsSection")),
        ("[deny]", of("DenySection")),
        ("[workload.NAME.target.NAME]", of("TargetSection")),
    ]
}
