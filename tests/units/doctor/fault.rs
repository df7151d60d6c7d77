//! A fault that is planted, and what is done with it. A fault needs no other to have been there
//! before it, and leaves nothing to the next.

use super::SETTLED;
use super::report::examine;
use crate::boxed::SysBox;
use crate::installed::{PIN, TOKEN};
use harness::wait_until;

/// What the remedies ask of a person; here the PIN is typed by the test.
const ASK_PIN: &str = "systemd-ask-password -n 'user PIN:'";

/// A fault, how it is found, and how it goes away.
pub struct Fault {
    pub name: &'static str,
    /// A script that plants it.
    pub plant: &'static str,
    pub id: &'static str,
    pub severity: &'static str,
    /// What its remedy must say.
    pub phrase: &'static str,
    pub mend: Mend,
    /// A script that takes away what the fault and its remedy have left.
    pub restore: &'static str,
}

pub enum Mend {
    /// The commands of the remedy, as they stand there.
    Remedy,
    /// What the remedy tells a person to write, by this script; then its commands.
    WriteThenRemedy(&'static str),
    /// This script, where the remedy leaves the choice to a person.
    Person(&'static str),
}

/// Plants it, looks for it, does what its remedy says, looks again.
pub fn find_and_mend(boxed: &SysBox, fault: &Fault) -> Result<(), String> {
    let planted = boxed.sh(&spelled(fault.plant)).success();
    planted.map_err(|why| format!("planting: {why}"))?;
    let mut last = String::new();
    let mut found = None;
    let seen = wait_until(SETTLED, || {
        match examine(boxed) {
            Ok(report) => {
                found = report.find(fault.id, fault.severity).cloned();
                last = report.bad();
            }
            Err(why) => last = why,
        }
        found.is_some()
    });
    let Some(found) = found.filter(|_| seen) else {
        return Err(format!("{} not found; but: {last}", fault.id));
    };
    let remedy = found["remedy"].as_str().ok_or("no remedy")?;
    if !remedy.contains(fault.phrase) {
        return Err(format!("another remedy: {found}"));
    }
    let script = match fault.mend {
        Mend::Remedy => commands(remedy),
        Mend::WriteThenRemedy(write) => format!("{write}\n{}", commands(remedy)),
        Mend::Person(script) => script.to_owned(),
    };
    let mended = boxed.sh(&spelled(&script)).success();
    mended.map_err(|why| format!("mending by\n{script}\n{why}"))?;
    let gone = wait_until(SETTLED, || match examine(boxed) {
        Ok(report) => {
            last = report.bad();
            report.find(fault.id, fault.severity).is_none()
        }
        Err(why) => {
            last = why;
            false
        }
    });
    if gone {
        Ok(())
    } else {
        Err(format!("still there after\n{script}\n{last}"))
    }
}

/// The commands of a remedy: what stands between backticks and is no line of a configuration.
fn commands(remedy: &str) -> String {
    let quoted = remedy.split('`').skip(1).step_by(2);
    let commands: Vec<&str> = quoted.filter(|text| !text.contains(" = ")).collect();
    commands.join("\n")
}

/// A script with the PIN typed and the token's label.
pub fn spelled(script: &str) -> String {
    let typed = format!("printf %s {PIN}");
    script.replace(ASK_PIN, &typed).replace("TOKEN", TOKEN)
}
