//! `assertctl env`: what a workload needs so that an SDK uses a target. Made of the configuration, in
//! which audience and subject stand already, so that nothing is typed twice; asks nobody, and holds no
//! secret. What only the other side's administrator knows is given by `--set`, or stands as a
//! placeholder that the output names; a part that a script reads is never printed with one in it.

mod recipe;
mod sdk;
mod unit;
mod values;

pub use sdk::Sdk;

use super::CONFIG;
use super::args::{Args, Format};
use super::failure::{Exit, Failure};
use super::out::{Out, clean};
use crate::config::{Config, Facts, Section, Target};
use crate::selector::{Selector, Source};
use keystore::config::suggest;
use recipe::Recipe;
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::Path;
use values::{Missing, Values};

/// An assertion in a file lives at least so long, in seconds: SDKs go on using what they have read for
/// ten minutes (azure-identity, Go's too), and a new one comes at half of its life, if not later.
const FILE_LIFETIME_MIN_S: u32 = 1800;

/// What it should live in a file, in seconds.
const FILE_LIFETIME_S: u32 = 3600;

/// What is printed alone, by `--part`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// `NAME=VALUE`, for a shell and for EnvironmentFile=.
    Variables,
    /// What the SDK reads from a file of its own.
    File,
    /// The drop-in.
    Unit,
}

impl Part {
    /// All of them.
    pub const ALL: [Part; 3] = [Part::Variables, Part::File, Part::Unit];

    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Part::Variables => "variables",
            Part::File => "file",
            Part::Unit => "unit",
        }
    }
}

/// What was asked for.
pub struct Wishes<'a> {
    /// `TARGET` or `WORKLOAD/TARGET`.
    pub target: &'a str,
    /// `--for`
    pub sdk: Option<Sdk>,
    /// `--part`
    pub part: Option<Part>,
    /// `--set`
    pub settings: &'a BTreeMap<String, String>,
    /// `--host-facts`
    pub host_facts: Option<&'a Path>,
}

/// `env --json`
#[derive(Serialize)]
struct EnvJson<'a> {
    format: u32,
    target: String,
    profile: &'a str,
    sdk: &'a str,
    missing: &'a [Missing],
    notes: &'a [String],
    variables: &'a BTreeMap<&'static str, String>,
    file: Option<TextJson<'a>>,
    unit: Option<TextJson<'a>>,
}

#[derive(Serialize)]
struct TextJson<'a> {
    path: &'a str,
    text: &'a str,
}

/// Prints it.
pub fn run(args: &Args, wishes: &Wishes, out: &mut Out) -> Result<Exit, Failure> {
    let config = load(args, wishes.host_facts)?;
    let (section, target) = find(&config, wishes.target)?;
    let sdk = Sdk::of(&target.profile, wishes.sdk)?;
    let mut values = Values::new(section, sdk, wishes.settings)?;
    let place = recipe::Place {
        target,
        socket: config.socket(),
    };
    let recipe = recipe::of(sdk, &place, &mut values)?;
    let missing = values.missing();
    let notes = notes(section, target, sdk);
    match (args.format, wishes.part) {
        (Format::Json, _) => out.json(&EnvJson {
            format: 1,
            target: format!("{}/{}", target.workload, target.name),
            profile: &target.profile.name,
            sdk: sdk.name(),
            missing: &missing,
            notes: &notes,
            variables: &recipe.variables,
            file: json(recipe.file.as_ref()),
            unit: json(recipe.unit.as_ref()),
        })?,
        (Format::Text, Some(part)) => {
            for note in &notes {
                eprintln!("assertctl: note: {}", clean(note));
            }
            alone(&recipe, part, &missing, sdk, out)?;
        }
        (Format::Text, None) => {
            heading(target, sdk, &missing, &notes, out);
            all(&recipe, out);
        }
    }
    Ok(Exit::Done)
}

fn load(args: &Args, facts: Option<&Path>) -> Result<Config, Failure> {
    let path = args.config.as_deref().unwrap_or(Path::new(CONFIG));
    let loaded = match facts {
        None => Config::load(path),
        Some(facts) => Facts::load(facts).and_then(|facts| Config::load_with(path, &facts)),
    };
    loaded.map_err(|diagnostic| Failure::new(Exit::Configuration, diagnostic.to_string()))
}

/// The target of this name, with the section that has it.
fn find<'a>(config: &'a Config, asked: &str) -> Result<(&'a Section, &'a Target), Failure> {
    let refused = |text: String| Failure::new(Exit::Refused, text);
    let (workload, name) = match asked.split_once('/') {
        Some((workload, name)) => (Some(workload), name),
        None => (None, asked),
    };
    let sections = config.workloads.iter();
    let found: Vec<(&Section, &Target)> = sections
        .filter(|section| workload.is_none_or(|it| *section.name == *it))
        .filter_map(|section| Some((&**section, &**section.targets.get(name)?)))
        .collect();
    match found[..] {
        [one] => Ok(one),
        [] => {
            let sections = config.workloads.iter();
            let names: Vec<String> = sections
                .flat_map(|section| section.targets.values())
                .map(|target| format!("{}/{}", target.workload, target.name))
                .collect();
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            let help = suggest(asked, &names);
            let path = config.path.display();
            Err(refused(format!(
                "there is no target `{asked}` in {path}; {help}"
            )))
        }
        [(first, _), (second, _), ..] => Err(refused(format!(
            "`{asked}` is a target of {} workloads: write {}/{name} or {}/{name}, say",
            found.len(),
            first.name,
            second.name
        ))),
    }
}

/// What does not show in what is printed, and would make it fail.
fn notes(section: &Section, target: &Target, sdk: Sdk) -> Vec<String> {
    let mut notes = Vec::new();
    if sdk.reads_a_file() && target.lifetime_s < FILE_LIFETIME_MIN_S {
        let profile = target.profile.lifetime_max_s;
        let most = FILE_LIFETIME_S
            .min(profile)
            .min(target.charter.lifetime_max_s);
        let remedy = match most > target.lifetime_s {
            true => format!("write lifetime = {most} at {}", target.place),
            false => "its profile or its issuer allows no more".to_owned(),
        };
        notes.push(format!(
            "an assertion for this target lives {} s, and who reads one from a file may use it for ten \
             minutes and more: {remedy}",
            target.lifetime_s
        ));
    }
    let programs = section.matches.iter();
    let programs: Vec<&str> = programs
        .filter(|it| it.source() == Source::Program)
        .map(Selector::key)
        .collect();
    if let [key, ..] = programs[..] {
        notes.push(format!(
            "the workload section {} ({}) is matched by `{key}`, which assertctl is not: it will be \
             denied. Match by unit and user alone, or have the service ask on the socket itself",
            section.name, section.place
        ));
    }
    notes
}

fn json(text: Option<&recipe::Text>) -> Option<TextJson<'_>> {
    text.map(|it| TextJson {
        path: &it.path,
        text: &it.text,
    })
}

fn heading(target: &Target, sdk: Sdk, missing: &[Missing], notes: &[String], out: &mut Out) {
    out.line(&format!(
        "# {}/{} (profile {}) for {}",
        target.workload,
        target.name,
        target.profile.name,
        sdk.party()
    ));
    for it in missing {
        out.line(&format!(
            "# to be filled in: {} by --set {}=…: {}",
            it.placeholder, it.name, it.about
        ));
    }
    for note in notes {
        out.line(&format!("# note: {note}"));
    }
}

fn all(recipe: &Recipe, out: &mut Out) {
    if !recipe.variables.is_empty() {
        out.line("\n# ---- variables");
        out.line(lines(recipe).trim_end());
    }
    for (what, text) in [("file", &recipe.file), ("unit drop-in", &recipe.unit)] {
        if let Some(text) = text {
            out.line(&format!("\n# ---- {what} {}", text.path));
            out.line(text.text.trim_end());
        }
    }
}

fn alone(
    recipe: &Recipe,
    part: Part,
    missing: &[Missing],
    sdk: Sdk,
    out: &mut Out,
) -> Result<(), Failure> {
    let text = match part {
        Part::Variables if recipe.variables.is_empty() => None,
        Part::Variables => Some(lines(recipe)),
        Part::File => recipe.file.as_ref().map(|it| it.text.clone()),
        Part::Unit => recipe.unit.as_ref().map(|it| it.text.clone()),
    };
    let Some(text) = text else {
        let text = format!(
            "{} needs no {}: there is nothing to print",
            sdk.party(),
            part.name()
        );
        return Err(Failure::new(Exit::Refused, text));
    };
    let left: Vec<String> = missing
        .iter()
        .filter(|it| text.contains(&it.placeholder))
        .map(|it| format!("--set {}=… ({})", it.name, it.about))
        .collect();
    if !left.is_empty() {
        let text = format!("something is to be filled in: {}", left.join(", "));
        return Err(Failure::new(Exit::Refused, text));
    }
    out.line(text.trim_end());
    Ok(())
}

/// The variables as sh and EnvironmentFile= both read them.
fn lines(recipe: &Recipe) -> String {
    let line = |(name, value): (&&str, &String)| format!("{name}={}\n", unit::shell(value));
    recipe.variables.iter().map(line).collect()
}
