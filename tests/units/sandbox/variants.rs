//! Copies of an installed unit with the probe as its program: as installed, with single directives
//! only, with none. They are oneshot services whose output is the probe's verdicts; all of them are
//! started in one go.

use super::Who;
use super::fixtures::PROBE;
use crate::boxed::SysBox;
use serde::Deserialize;
use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

/// Where the variants write their verdicts.
const VERDICTS: &str = "/srv/assertd-probe/verdicts";

/// Some forty services at once, on a machine that may have other things to do.
const START_DEADLINE: Duration = Duration::from_secs(150);

/// Keys of [Service] that say how the program runs, not what it may do.
const NOT_SANDBOX: [&str; 13] = [
    "ExecStart",
    "ExecReload",
    "Type",
    "NotifyAccess",
    "StandardInput",
    "StandardOutput",
    "StandardError",
    "TimeoutStartSec",
    "WatchdogSec",
    "Restart",
    "RestartSec",
    "RestartPreventExitStatus",
    "RestartForceExitStatus",
];

/// What a unit sets and no probe tries, and why.
const WITHOUT_PROBE: [(&str, &str); 12] = [
    (
        "AmbientCapabilities",
        "empty, written down to be seen; the witness's one shows in what is left to it",
    ),
    (
        "BindPaths",
        "gives back what TemporaryFileSystem= took; that the state can be written is tried",
    ),
    (
        "ExecPaths",
        "gives back what NoExecPaths= took; that the program runs shows it",
    ),
    ("KeyringMode", "keyctl is refused"),
    (
        "LimitMEMLOCK",
        "a limit of the program's own; the keystore's start shows it",
    ),
    (
        "LimitNOFILE",
        "a limit of the program's own, not one against it",
    ),
    ("LoadCredentialEncrypted", "that it can be read is tried"),
    (
        "ReadWritePaths",
        "gives back what ProtectSystem= took; that it can be written, and nothing beside it, is tried in behaviour/publish.rs",
    ),
    ("RemoveIPC", "tidies up after the last process"),
    ("StateDirectory", "that it can be written is tried"),
    (
        "StateDirectoryMode",
        "the modes of what is installed are looked at",
    ),
    ("TimeoutStopSec", "how long it may take to stop"),
];

/// The lines of an installed unit's [Service] section, as key and line.
pub struct Unit(Vec<(String, String)>);

impl Unit {
    /// Reads it where it was installed.
    pub fn installed(boxed: &SysBox, name: &str) -> Result<Unit, String> {
        let path = boxed.root().join("usr/lib/systemd/system").join(name);
        let text = std::fs::read_to_string(&path).map_err(|e| format!("{name}: {e}"))?;
        let service = text
            .lines()
            .skip_while(|line| line.trim() != "[Service]")
            .skip(1)
            .take_while(|line| !line.starts_with('['));
        let lines = service
            .filter(|line| !line.starts_with('#'))
            .filter_map(|line| {
                let (key, _) = line.split_once('=')?;
                Some((key.to_string(), line.to_string()))
            });
        Ok(Unit(lines.collect()))
    }

    /// The lines with these keys, in their order.
    fn only(&self, keys: &[&str]) -> String {
        self.lines(|key| keys.contains(&key))
    }

    fn lines(&self, wanted: impl Fn(&str) -> bool) -> String {
        let lines = self.0.iter().filter(|(key, _)| wanted(key));
        lines.map(|(_, line)| format!("{line}\n")).collect()
    }

    /// What it sets that neither a probe tries nor a reason leaves out.
    pub fn untried(&self, tried: &[&str]) -> Vec<&str> {
        let left_out = |key: &str| {
            NOT_SANDBOX.contains(&key) || WITHOUT_PROBE.iter().any(|(name, _)| *name == key)
        };
        let keys = self.0.iter().map(|(key, _)| key.as_str());
        keys.filter(|key| !tried.contains(key) && !left_out(key))
            .collect()
    }

    fn has(&self, key: &str) -> bool {
        self.0.iter().any(|(have, _)| have == key)
    }
}

/// Which variant: its unit's name without `.service`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(String);

/// The variants of one unit, and the probes each is to run.
pub struct Variants<'b> {
    boxed: &'b SysBox,
    /// What their names begin with, so that another unit's have others.
    prefix: &'static str,
    unit: &'b Unit,
    /// Lines of [Service] and probes.
    wanted: BTreeMap<String, (Name, Vec<String>)>,
    missing: Vec<String>,
}

impl<'b> Variants<'b> {
    pub fn new(boxed: &'b SysBox, prefix: &'static str, unit: &'b Unit) -> Variants<'b> {
        Variants {
            boxed,
            prefix,
            unit,
            wanted: BTreeMap::new(),
            missing: Vec::new(),
        }
    }

    /// Without any sandbox.
    pub fn open(&mut self, who: Who, probe: &str) -> Name {
        self.want(self.user(who), probe)
    }

    /// With the unit's own lines for these directives, and nothing else of it.
    pub fn alone(&mut self, directives: &[&str], who: Who, probe: &str) -> Name {
        for directive in directives {
            if !self.unit.has(directive) {
                self.missing.push((*directive).to_string());
            }
        }
        let lines = self.user(who) + &self.unit.only(directives);
        self.want(lines, probe)
    }

    /// As installed, with these lines added.
    pub fn sealed(&mut self, added: &[&str], probe: &str) -> Name {
        let mut lines = self.unit.lines(|key| !NOT_SANDBOX.contains(&key));
        for line in added {
            lines += &format!("{line}\n");
        }
        self.want(lines, probe)
    }

    fn user(&self, who: Who) -> String {
        match who {
            Who::Root => String::new(),
            Who::Own => self.unit.only(&["User", "Group", "SupplementaryGroups"]),
        }
    }

    fn want(&mut self, lines: String, probe: &str) -> Name {
        // Templates, so that %i means what it means in the unit.
        let (prefix, number) = (self.prefix, self.wanted.len());
        let (name, probes) = self
            .wanted
            .entry(lines)
            .or_insert_with(|| (Name(format!("probe-{prefix}-{number}@hsm")), Vec::new()));
        if !probes.iter().any(|have| have == probe) {
            probes.push(probe.to_string());
        }
        name.clone()
    }

    /// Runs them all.
    pub fn run(self) -> Result<Verdicts, String> {
        if !self.missing.is_empty() {
            let missing = self.missing.join(", ");
            return Err(format!("the unit as installed does not set {missing}"));
        }
        self.boxed
            .sh(&format!("rm -rf {VERDICTS}; install -d -m 700 {VERDICTS}"))
            .success()?;
        let mut start = vec!["systemctl".to_string(), "start".to_string()];
        for (lines, (Name(name), probes)) in &self.wanted {
            let probes = probes.join(" ");
            let text = format!(
                "[Unit]\nDefaultDependencies=no\n[Service]\nType=oneshot\nTimeoutStartSec=120s\n\
                 ExecStart={PROBE} {probes}\n\
                 StandardOutput=file:{VERDICTS}/{name}\n{lines}"
            );
            let template = name.replace("@hsm", "@");
            self.boxed
                .write(&format!("/run/systemd/system/{template}.service"), text)?;
            start.push(format!("{name}.service"));
        }
        self.boxed.run(&["systemctl", "daemon-reload"]).success()?;
        // One that does not start leaves no verdicts, but a reason.
        let started = self.boxed.run_within(START_DEADLINE, &start).code == Some(0);
        let mut verdicts = Verdicts::default();
        for (name, _) in self.wanted.into_values() {
            let path = self.boxed.root().join(&VERDICTS[1..]).join(&name.0);
            let text = std::fs::read_to_string(path).unwrap_or_default();
            let lines = text
                .lines()
                .filter_map(|line| serde_json::from_str(line).ok());
            if !started {
                let why = why_it_failed(self.boxed, &name);
                verdicts.reasons.insert(name.clone(), why);
            }
            verdicts.by_variant.insert(name, lines.collect());
        }
        Ok(verdicts)
    }
}

/// One line of the probe.
#[derive(Deserialize)]
struct Line {
    probe: String,
    verdict: Verdict,
    detail: String,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Allowed,
    Refused,
    /// It was not tried, and shows nothing.
    Failed,
}

/// What all variants said.
#[derive(Default)]
pub struct Verdicts {
    by_variant: HashMap<Name, Vec<Line>>,
    /// If some did not start: what each wrote.
    reasons: HashMap<Name, String>,
}

impl Verdicts {
    /// Or how it was refused, or why it could not be tried.
    pub fn allowed(&self, variant: &Name, probe: &str) -> Result<(), String> {
        self.is(Verdict::Allowed, variant, probe)
    }

    /// Or what was seen, or why it could not be tried.
    pub fn refused(&self, variant: &Name, probe: &str) -> Result<(), String> {
        self.is(Verdict::Refused, variant, probe)
    }

    fn is(&self, wanted: Verdict, variant: &Name, probe: &str) -> Result<(), String> {
        let line = self.find(variant, probe)?;
        let detail = &line.detail;
        match line.verdict {
            is if is == wanted => Ok(()),
            Verdict::Allowed => Err(format!("{probe} is allowed: {detail}")),
            Verdict::Refused => Err(format!("{probe} is refused: {detail}")),
            Verdict::Failed => Err(format!("{probe} could not be tried: {detail}")),
        }
    }

    fn find(&self, variant: &Name, probe: &str) -> Result<&Line, String> {
        let verdicts = self.by_variant.get(variant);
        let found = verdicts.and_then(|all| all.iter().find(|one| one.probe == probe));
        found.ok_or_else(|| {
            let name = &variant.0;
            let why = self.reasons.get(variant).map_or("", String::as_str);
            format!("{name}.service gave no verdict on {probe}: {why}")
        })
    }
}

fn why_it_failed(boxed: &SysBox, Name(name): &Name) -> String {
    let unit = format!("--unit={name}.service");
    let shown = boxed.run(&[
        "journalctl",
        "--no-pager",
        "--output=cat",
        "--lines=5",
        &unit,
    ]);
    shown.stdout.trim().replace('\n', "; ")
}
