//! `make test-systemd`: boots a real systemd, installs the built programs and units into it, and
//! checks there what only a systemd can show: units, users, sandboxes, callers by unit.
//!
//! Prints one line for each check and at the end `N passed, M failed`. It changes nothing outside:
//! the box is a copy-on-write view of this machine's own `/` (or of another Debian's tree), in
//! namespaces that end with this process however it ends.

mod behaviour;
mod boxed;
mod doctor;
mod exposure;
mod init;
mod installed;
mod namespace;
mod sandbox;
mod suite;

use boxed::SysBox;
use std::path::PathBuf;
use std::process::ExitCode;
use suite::Suite;

const USAGE: &str = "usage: units [--tree DIR] [--only SUBSTRING]

  --tree DIR        boot over this Debian instead of the machine's own /
  --only SUBSTRING  only checks whose name holds this";

struct Arguments {
    tree: PathBuf,
    only: Option<String>,
    inside: bool,
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let Some(arguments) = parse(&words) else {
        eprintln!("{USAGE}");
        return ExitCode::from(64);
    };
    if !arguments.inside {
        return namespace::run_inside(&arguments.tree, &words);
    }
    let boxed = match SysBox::boot() {
        Ok(boxed) => boxed,
        Err(why) => {
            eprintln!("units: the box does not boot: {why}");
            return ExitCode::FAILURE;
        }
    };
    let mut suite = Suite::new(&boxed, arguments.only);
    if let Err(why) = installed::programs_and_units(&boxed) {
        eprintln!("units: cannot install into the box: {why}");
        return ExitCode::FAILURE;
    }
    exposure::run(&mut suite, &boxed);
    init::run(&mut suite, &boxed);
    if let Err(why) = installed::standard(&boxed) {
        println!("FAIL the standard site is installed: {why}");
        println!("{}", suite::journal(&boxed));
        println!("0 passed, 1 failed");
        return ExitCode::FAILURE;
    }
    sandbox::run(&mut suite, &boxed);
    behaviour::run(&mut suite, &boxed);
    doctor::run(&mut suite, &boxed);
    suite.total()
}

/// `--inside` is for ourselves alone.
fn parse(words: &[String]) -> Option<Arguments> {
    let mut arguments = Arguments {
        tree: PathBuf::from("/"),
        only: None,
        inside: false,
    };
    let mut words = words.iter();
    while let Some(word) = words.next() {
        match word.as_str() {
            "--tree" => arguments.tree = PathBuf::from(words.next()?).canonicalize().ok()?,
            "--only" => arguments.only = Some(words.next()?.clone()),
            "--inside" => arguments.inside = true,
            _ => return None,
        }
    }
    Some(arguments)
}
