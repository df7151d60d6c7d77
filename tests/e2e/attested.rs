//! docs/attestation.md, followed to the letter: what it has a relying party and a host's administrator type is
//! taken from the page and typed, in its order, and what the page shows of an answer is what comes. So a command
//! that is added to the page is run, and a block that is neither commands nor a policy fails.

use crate::world::us;
use harness::programs::Programs;
use harness::swtpm::Authority;
use harness::{Config, Daemon, Tpm, public_dir};
use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::SystemTime;
use tempfile::TempDir;

/// What stands before a command: who types it. Behind one that is meant to fail stands how.
const PROMPTS: [&str; 2] = ["host#", "verifier$"];
const EXIT: &str = "# exits with ";

/// In the place of what is different each time; alone on a line, of lines.
const ANYTHING: &str = "…";

/// What is fenced in.
#[derive(Debug)]
enum Block {
    Commands(Vec<Step>),
    /// To be written at the end of policy.toml.
    Policy(String),
}

/// One command.
#[derive(Debug)]
struct Step {
    who: &'static str,
    command: String,
    exit: i32,
    /// What the page shows of what it prints; nothing if that is of no interest.
    shown: Vec<String>,
}

fn blocks(page: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        let Some(language) = line.trim_start().strip_prefix("```") else {
            let is_command = PROMPTS.iter().any(|it| line.trim_start().starts_with(it));
            assert!(!is_command, "not fenced in: {line}");
            continue;
        };
        let inside: Vec<&str> = lines.by_ref().take_while(|it| *it != "```").collect();
        blocks.push(match language {
            "console" => Block::Commands(steps(&inside)),
            "toml" => Block::Policy(inside.join("\n") + "\n"),
            _ => panic!("what is to be done with a block of {language:?}? {inside:#?}"),
        });
    }
    blocks
}

fn steps(lines: &[&str]) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    for line in lines {
        let prompt = PROMPTS.into_iter().find(|prompt| line.starts_with(prompt));
        match (prompt, steps.last_mut()) {
            (Some(who), _) => {
                let typed = line[who.len()..].trim();
                let (command, exit) = match typed.split_once(EXIT) {
                    Some((command, exit)) => (command.trim_end(), exit[..1].parse().unwrap()),
                    None => (typed, 0),
                };
                steps.push(Step {
                    who,
                    command: command.to_owned(),
                    exit,
                    shown: Vec::new(),
                });
            }
            (None, Some(step)) => step.shown.push(words(line)),
            (None, None) => panic!("who says {line:?}?"),
        }
    }
    steps
}

/// With one space between them, whatever columns there are.
fn words(line: &str) -> String {
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Whether lines are as they are shown.
fn is_as_shown(lines: &[String], shown: &[String]) -> bool {
    let Some((first, others)) = shown.split_first() else {
        return lines.is_empty();
    };
    if first == ANYTHING {
        return (0..=lines.len()).any(|from| is_as_shown(&lines[from..], others));
    }
    let Some((line, lines)) = lines.split_first() else {
        return false;
    };
    fits(line, first) && is_as_shown(lines, others)
}

fn fits(line: &str, shown: &str) -> bool {
    let Some((begin, rest)) = shown.split_once(ANYTHING) else {
        return line == shown;
    };
    let Some(line) = line.strip_prefix(begin) else {
        return false;
    };
    let mut ends = (0..=line.len()).filter(|it| line.is_char_boundary(*it));
    ends.any(|from| fits(&line[from..], rest))
}

/// The two who follow the page, each with a directory of their own.
struct Place {
    dirs: BTreeMap<&'static str, TempDir>,
    /// What each calls `assertctl`.
    programs: BTreeMap<&'static str, TempDir>,
    tcti: String,
}

impl Place {
    fn new(daemon: &Daemon, programs: &Programs, tcti: String) -> Place {
        let called = |arguments: String| {
            let (dir, assertctl) = (public_dir(), programs.assertctl());
            let script = format!(
                "#!/bin/sh\nexec {} {arguments} \"$@\"\n",
                assertctl.display()
            );
            let path = dir.path().join("assertctl");
            fs::write(&path, script).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
            dir
        };
        let config = format!("-c {}", daemon.site().config().display());
        let [host, verifier] = PROMPTS;
        Place {
            dirs: PROMPTS.into_iter().map(|who| (who, public_dir())).collect(),
            programs: [(host, called(config)), (verifier, called(String::new()))].into(),
            tcti,
        }
    }

    fn at(&self, who: &str, name: &str) -> PathBuf {
        self.dirs[who].path().join(name)
    }

    /// What a command names and the other side has newer is carried over.
    fn carry(&self, step: &Step) {
        let other = PROMPTS.into_iter().find(|it| *it != step.who).unwrap();
        let is_of_name = |it: char| it.is_alphanumeric() || "._-".contains(it);
        let named = step.command.split(|it| !is_of_name(it));
        for name in named.filter(|it| !it.is_empty() && !it.starts_with('.')) {
            let (from, to) = (self.at(other, name), self.at(step.who, name));
            if changed(&from) > changed(&to) {
                fs::copy(from, to).unwrap();
            }
        }
    }

    #[track_caller]
    fn follow(&self, step: &Step) {
        self.carry(step);
        let path = format!("{}:/usr/bin:/bin", self.programs[step.who].path().display());
        let output = Command::new("/bin/bash")
            .args(["-o", "pipefail", "-c", &step.command])
            .current_dir(self.dirs[step.who].path())
            .env_clear()
            .env("PATH", path)
            .env("TPM2TOOLS_TCTI", &self.tcti)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let said = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let (stdout, stderr) = (said(&output.stdout), said(&output.stderr));
        let answer = format!("{}\n{stdout}{stderr}", step.command);
        assert_eq!(output.status.code(), Some(step.exit), "{answer}");
        let lines = stdout.lines().map(words).filter(|it| !it.is_empty());
        let is_shown =
            step.shown.is_empty() || is_as_shown(&lines.collect::<Vec<_>>(), &step.shown);
        assert!(
            is_shown,
            "the page shows {:#?}, and this came:\n{answer}",
            step.shown
        );
    }
}

fn changed(path: &Path) -> Option<SystemTime> {
    let metadata = fs::metadata(path).ok().filter(fs::Metadata::is_file);
    metadata.map(|it| it.modified().unwrap())
}

#[test]
fn the_page_for_relying_parties_does_what_it_says() {
    let tmp = public_dir();
    let maker = Authority::new(tmp.path());
    follow_the_page(&maker, &Tpm::with_certificates(&maker));
}

/// As most chips have: the page takes the fingerprint of the key that assertd shows.
#[test]
fn the_page_holds_for_a_tpm_with_certificates_of_both_its_endorsement_keys() {
    let tmp = public_dir();
    let maker = Authority::new(tmp.path());
    let tpm = Tpm::with_certificates(&maker);
    maker.certify_p256(&tpm.tcti());
    follow_the_page(&maker, &tpm);
}

fn follow_the_page(maker: &Authority, tpm: &Tpm) {
    let programs = Programs::installed();
    let config = Config::default()
        .keystore("tpm", tpm, "")
        .with("[attest]\nhost = \"web-1\"")
        .workload("payments", us(), "")
        .target("payments", "bank", "");
    let daemon = Daemon::with_keys(config);
    let place = Place::new(&daemon, &programs, tpm.tcti());
    let [_, verifier] = PROMPTS;
    // What comes from elsewhere: the maker's roots. swtpm leaves its issuer's certificate out of NV.
    let root = [maker.root(), maker.issuer()].map(|it| fs::read_to_string(it).unwrap());
    fs::write(place.at(verifier, "roots.pem"), root.concat()).unwrap();

    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/attestation.md");
    let blocks = blocks(&fs::read_to_string(page).unwrap());
    let policy = place.at(verifier, "policy.toml");
    let mut run = 0;
    for block in &blocks {
        match block {
            Block::Commands(steps) => {
                steps.iter().for_each(|step| place.follow(step));
                run += steps.len();
            }
            Block::Policy(text) => {
                let mut options = fs::File::options();
                let mut file = options.append(true).create(true).open(&policy).unwrap();
                file.write_all(text.as_bytes()).unwrap();
            }
        }
    }
    assert!(run >= 10, "there are {run} commands: {blocks:#?}");
    // What the page adds at its end cannot hold here, where no firmware has measured anything; it can be read.
    let Some(Block::Policy(_)) = blocks.last() else {
        panic!("{blocks:#?}");
    };
    let verify = "assertctl verify evidence.json --nonce $(cat nonce) --policy policy.toml";
    place.follow(&Step {
        who: verifier,
        command: verify.to_owned(),
        exit: 1,
        shown: vec![
            ANYTHING.into(),
            "failed event-log tpm …".into(),
            ANYTHING.into(),
        ],
    });
}

#[test]
fn what_a_page_shows_is_compared_with_what_comes() {
    let lines = |text: &str| text.lines().map(words).collect::<Vec<_>>();
    for (shown, came, is_so) in [
        ("a  b", "a b", true),
        ("a b", "a b\nc", false),
        ("a\n…", "a\nb\nc", true),
        ("…\nc", "a\nb\nc", true),
        ("…\nb\n…", "a\nb\nc", true),
        ("…\nd\n…", "a\nb\nc", false),
        ("a … c…", "a b c", true),
        ("a … c", "a b d", false),
        ("…é", "…é", true),
        ("a", "", false),
    ] {
        assert_eq!(
            is_as_shown(&lines(came), &lines(shown)),
            is_so,
            "{shown:?} {came:?}"
        );
    }
    let steps = steps(&[
        "host#     one | two   # exits with 1: so it is",
        "three",
        "verifier$ four",
    ]);
    let read: Vec<_> = steps
        .iter()
        .map(|it| (it.who, &*it.command, it.exit, it.shown.len()))
        .collect();
    assert_eq!(
        read,
        [("host#", "one | two", 1, 1), ("verifier$", "four", 0, 0)]
    );
}

#[test]
#[should_panic(expected = "not fenced in")]
fn a_command_outside_of_a_block_is_found() {
    blocks("verifier$ assertctl verify\n");
}

#[test]
#[should_panic(expected = "what is to be done with a block of \"sh\"")]
fn a_block_of_another_kind_is_found() {
    blocks("```sh\nassertctl verify\n```\n");
}
