//! Thousands of workloads of one issuer as a company would write them: a drop-in file for each team,
//! bounds that keep each team to its own names, units, users and paths, templates and containers.
//! Only text is made here; nothing is started.

use std::fmt::Write;

/// Sections of one team's file.
const TEAM: usize = 400;

/// Uids of the workloads, one each, that no account has.
const UIDS_FROM: u32 = 200_000;

/// All own a target of this name.
pub const TARGET: &str = "aws";

/// What the caller that measures is called; all the others are teams'.
pub const OURS: &str = "bench";

/// How many shapes of sections there are. They come in turns, so that nine sections have each once.
const SHAPES: usize = 9;

/// How a section tells its workload.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shape {
    /// By a unit's name and a uid.
    Unit,
    /// By a unit's name and an account's name.
    Account,
    /// By a unit's path and a uid.
    Path,
    /// By the instances of a template alone.
    Instances,
    /// By a container's unit and a uid.
    Container,
    /// By unit and uid, with exceptions and something to come.
    Excluding,
}

/// A configuration of that many workloads, the caller that measures among them.
pub struct Sections {
    count: usize,
    /// The slice that units named by their path are in.
    slice: String,
    accounts: Vec<(String, u32)>,
}

/// A process that a section is about.
pub struct Caller {
    /// The section.
    pub section: String,
    pub unit: String,
    pub uid: u32,
    /// Whether the section wants it to be in a container.
    pub container: bool,
}

impl Sections {
    pub fn new(count: usize, slice: &str) -> Sections {
        Sections {
            count,
            slice: slice.to_owned(),
            accounts: accounts(),
        }
    }

    /// How many the teams have: all but ours.
    pub fn teams_own(&self) -> usize {
        self.count.saturating_sub(1)
    }

    /// What the main file has beside its keystore: the issuer, bounds, and the caller that measures.
    pub fn main(&self, keystore: &str) -> String {
        let teams = self.teams_own().div_ceil(TEAM);
        let subjects: Vec<String> = (0..teams)
            .map(|team| format!("\"{}-*\"", team_name(team)))
            .collect();
        let mut text = format!(
            "[issuer.prod]\nurl = \"https://id.bench.example/prod\"\nkeystore = \"{keystore}\"\n\
             subjects = [\"{OURS}\", {}]\n\n",
            subjects.join(", ")
        );
        for team in (0..teams).map(team_name) {
            writeln!(
                text,
                "[bounds.{team}]\nfiles = \"{team}.toml\"\nworkloads = \"{team}-*\"\n\
                 units = \"{team}-*\"\nissuers = \"prod\"\nsubjects = \"{team}-*\"\n"
            )
            .expect("a String takes everything");
        }
        if self.count > 0 {
            let uid = nix::unistd::geteuid();
            let matches = format!("{{ uid = {uid} }}\nrate = 1000000\nburst = 1000000");
            text.push_str(&section(OURS, OURS, &matches));
        }
        text
    }

    /// The teams' files by name.
    pub fn drop_ins(&self) -> Vec<(String, String)> {
        let numbers: Vec<usize> = (0..self.teams_own()).collect();
        let file = |(team, numbers): (usize, &[usize])| {
            let sections = numbers.iter().map(|number| self.section(*number));
            (format!("{}.toml", team_name(team)), sections.collect())
        };
        numbers.chunks(TEAM).enumerate().map(file).collect()
    }

    fn section(&self, number: usize) -> String {
        let Caller {
            section: name, uid, ..
        } = self.caller(number);
        let matches = match shape(number) {
            Shape::Unit => format!("{{ unit = \"{name}.service\", uid = {uid} }}"),
            Shape::Account => {
                let (user, _) = self.account(number);
                format!("{{ unit = \"{name}.service\", user = \"{user}\" }}")
            }
            Shape::Path => {
                format!(
                    "{{ unit = \"{}/{name}.service\", uid = {uid} }}",
                    self.slice
                )
            }
            Shape::Instances => format!("{{ unit = \"{name}@*.service\" }}"),
            Shape::Container => {
                format!("{{ unit = \"{name}.service\", uid = {uid}, container = true }}")
            }
            Shape::Excluding => format!(
                "{{ unit = \"{name}.service\", uid = {uid} }}\n\
                 unless = [{{ slice = \"debug.slice\" }}, {{ supplementary_group = \"root\" }}]\n\
                 shadow = {{ interactive = false }}"
            ),
        };
        section(&name, &team_name(number / TEAM), &matches)
    }

    /// Who a team's section is about.
    pub fn caller(&self, number: usize) -> Caller {
        let team = team_name(number / TEAM);
        let name = format!("{team}-reports-{number:05}");
        let shape = shape(number);
        let instance = if shape == Shape::Instances { "@7" } else { "" };
        Caller {
            unit: format!("{name}{instance}.service"),
            uid: match shape {
                Shape::Account => self.account(number).1,
                _ => UIDS_FROM + u32::try_from(number).expect("a few thousand"),
            },
            container: shape == Shape::Container,
            section: name,
        }
    }

    fn account(&self, number: usize) -> &(String, u32) {
        &self.accounts[number % self.accounts.len()]
    }
}

fn team_name(team: usize) -> String {
    format!("team-{team:02}")
}

fn shape(number: usize) -> Shape {
    match number % SHAPES {
        4 => Shape::Account,
        5 => Shape::Path,
        6 => Shape::Instances,
        7 => Shape::Container,
        8 => Shape::Excluding,
        _ => Shape::Unit,
    }
}

fn section(name: &str, team: &str, matches: &str) -> String {
    format!(
        "[workload.{name}]\nowner = \"{team}@example.com\"\n\
         purpose = \"brings the day's figures to the reports' bucket\"\nexpires = 2099-01-01\n\
         match = {matches}\n\n\
         [workload.{name}.target.{TARGET}]\nprofile = \"aws-oidc\"\nissuer = \"prod\"\n\
         subject = \"{name}\"\naudience = \"sts.amazonaws.com\"\n\n"
    )
}

/// Accounts of this host, but for ours: what fits us would be told twice that we may.
fn accounts() -> Vec<(String, u32)> {
    let text = std::fs::read_to_string("/etc/passwd").expect("every host has it");
    let account = |line: &str| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let uid = fields.nth(1)?.parse().ok()?;
        let is_plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric());
        // nobody is nobody's peer.
        let others = nix::unistd::geteuid().as_raw() != uid && uid != 65_534;
        (is_plain && others).then(|| (name.to_owned(), uid))
    };
    text.lines().filter_map(account).collect()
}
