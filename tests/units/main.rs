//! `make test-systemd`: boots a real systemd, installs the built programs and units into it, and
//! checks there what only a systemd can show: units, users, sandboxes, callers by unit.
//!
//! Prints one line for each check and at the end `N passed, M failed`. It changes nothing outside:
//! the box is a copy-on-write view of this machine's own `/` (or of another Debian's tree), in
//! namespaces that end with this process however it ends.

mod behaviour;
mod boxed;
mod chip;
mod doctor;
mod exposure;
mod init;
mod installation;
mod installed;
mod namespace;
mod podman;
mod sandbox;
mod settings;

use boxed::SysBox;
use harness::suite::{self, Suite};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

const USAGE: &str = "usage: units [--tree DIR] [--group NAME] [--only SUBSTRING]

  --tree DIR        boot over this Debian instead of the machine's own /
  --group NAME      only this group: sandbox, init, behaviour, doctor or podman; without it,
                    podman is left out if the tree has none
  --only SUBSTRING  only checks whose name holds this

UNITS_BUDGET_S=SECONDS in the environment makes a run fail that takes longer";

/// Checks that share a box. Each group has its own, and all boxes run at once: what one group leaves
/// behind cannot disturb another, and most of the time of each is waiting.
const GROUPS: [Group; 5] = [
    Group {
        name: "sandbox",
        site: Site::Standard,
        run: |suite, boxed| {
            exposure::run(suite, boxed);
            settings::run(suite, boxed);
            installation::run(suite, boxed);
            sandbox::run(suite, boxed);
            installation::run_last(suite, boxed);
        },
    },
    Group {
        name: "init",
        site: Site::Programs,
        run: init::run,
    },
    Group {
        name: "behaviour",
        site: Site::Standard,
        run: behaviour::run,
    },
    Group {
        name: "doctor",
        site: Site::Standard,
        run: doctor::run,
    },
    Group {
        name: "podman",
        site: Site::Standard,
        run: podman::run,
    },
];

struct Group {
    name: &'static str,
    site: Site,
    run: fn(&mut Suite<'_>, &SysBox),
}

/// What is there before the first check.
enum Site {
    /// What `make install` installs.
    Programs,
    /// That, and everything that [`installed::standard`] makes.
    Standard,
}

struct Arguments {
    tree: PathBuf,
    group: Option<&'static Group>,
    only: Option<String>,
    inside: bool,
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if words == [chip::ARGUMENT] {
        return chip::serve();
    }
    let Some(arguments) = parse(&words) else {
        eprintln!("{USAGE}");
        return ExitCode::from(64);
    };
    match (arguments.inside, arguments.group) {
        (true, Some(group)) => inside(group, arguments.only),
        (true, None) => ExitCode::from(64),
        (false, Some(group)) => namespace::run_inside(&arguments.tree, &[group.name], &words),
        (false, None) => {
            let there = |group: &&Group| {
                group.name != "podman" || arguments.tree.join(podman::PROGRAM).exists()
            };
            let groups = GROUPS.iter().filter(there).map(|group| group.name);
            let groups: Vec<&str> = groups.collect();
            namespace::run_inside(&arguments.tree, &groups, &words)
        }
    }
}

/// One group in its box. The last line is how many of its checks held.
fn inside(group: &Group, only: Option<String>) -> ExitCode {
    let started = Instant::now();
    let boxed = match SysBox::boot() {
        Ok(boxed) => boxed,
        Err(why) => {
            eprintln!("units: the box of {} does not boot: {why}", group.name);
            return ExitCode::FAILURE;
        }
    };
    let mut suite = Suite::new(&boxed, only);
    let site = installed::programs_and_units(&boxed).and_then(|_| match group.site {
        Site::Programs => Ok(()),
        Site::Standard => installed::standard(&boxed),
    });
    match site {
        Ok(()) => (group.run)(&mut suite, &boxed),
        Err(why) => suite.require(&format!("{}: its site is installed", group.name), why),
    }
    let (name, counts) = (group.name, suite.counts());
    let took = started.elapsed().as_secs_f32();
    println!("     {name}: {counts} in {took:.1} s, {}", suite.slowest());
    println!("{counts}");
    match counts.failed {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

/// `--inside` is for ourselves alone.
fn parse(words: &[String]) -> Option<Arguments> {
    let mut arguments = Arguments {
        tree: PathBuf::from("/"),
        group: None,
        only: None,
        inside: false,
    };
    let mut words = words.iter();
    while let Some(word) = words.next() {
        match word.as_str() {
            "--tree" => arguments.tree = PathBuf::from(words.next()?),
            "--group" => {
                let name = words.next()?;
                arguments.group = Some(GROUPS.iter().find(|group| group.name == name)?);
            }
            "--only" => arguments.only = Some(words.next()?.clone()),
            "--inside" => arguments.inside = true,
            _ => return None,
        }
    }
    Some(arguments)
}
