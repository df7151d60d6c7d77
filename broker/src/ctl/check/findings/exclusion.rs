//! Sections that no process can match, and conditions that change nothing: a contradiction within
//! `match`, an `unless` that excludes everything or nothing, a `shadow` that always holds.

use super::super::finding::{Finding, IDLE_SHADOW, IDLE_UNLESS, NEVER_MATCHES};
use super::named;
use crate::config::Section;
use crate::selector::{Pattern, Selector, contradiction, imply};

/// The slice above all others, which no cgroup path shows (systemd.special(7)).
const ROOT_SLICE: &str = "-.slice";

/// (uid_t) -1, which no process has: system calls take it for "leave it as it is" (setresuid(2)).
const NO_ID: u32 = u32::MAX;

pub fn findings(section: &Section, found: &mut Vec<Finding>) {
    let matches: Vec<&Selector> = section.matches.iter().collect();
    if let Some((why, remedy)) = never(section, &matches) {
        found.push(NEVER_MATCHES.at(
            named(section),
            &section.place,
            format!("no process can ever match it: {why}"),
            remedy,
        ));
        return; // what it excludes or shadows says nothing then
    }
    for unless in &section.unless {
        let exclude = |selector: &&Selector| {
            let both = [matches.as_slice(), &[selector]].concat();
            contradiction(&both).is_some()
        };
        if let Some(selector) = unless.iter().find(exclude) {
            found.push(IDLE_UNLESS.at(
                named(section),
                &section.place,
                format!(
                    "an `unless` excludes nobody: no process that `match` fits has `{selector}`, and \
                     all of an `unless` must hold"
                ),
                "remove it, or correct what it names; to exclude by either of two, write two: unless \
                 = [{ … }, { … }]",
            ));
        }
    }
    let holds = |selector: &&Selector| imply(&matches, selector);
    for selector in section.shadow.iter().filter(holds) {
        found.push(IDLE_SHADOW.at(
            named(section),
            &section.place,
            format!("`shadow` has `{selector}`, which `match` demands already: it always holds"),
            "remove it from `shadow`; to tighten in two steps, write there what `match` does not say",
        ));
    }
}

/// Why nothing matches, and what to do.
fn never(section: &Section, matches: &[&Selector]) -> Option<(String, String)> {
    if let Some((one, other)) = contradiction(matches) {
        let remedy = match (one, other) {
            (Selector::Unit(_), Selector::UserUnit(_))
            | (Selector::UserUnit(_), Selector::Unit(_)) => {
                "remove `unit`: the unit of a user's unit is that user's manager"
            }
            _ => "correct one of them: all of `match` must hold",
        };
        let why = format!("nothing has both `{one}` and `{other}`");
        return Some((why, remedy.to_owned()));
    }
    for selector in matches {
        let why = match selector {
            Selector::Unit(unit) => below_a_unit(unit).map(|outer| {
                (
                    format!("in path `{unit}`, {outer} is the unit, whatever it has below itself"),
                    format!("write unit = \"{outer}\""),
                )
            }),
            Selector::Slice(slice) if slice == ROOT_SLICE => Some((
                format!("{ROOT_SLICE} stands in no process's path"),
                "remove `slice`: everything is in it".to_owned(),
            )),
            Selector::User(NO_ID) | Selector::Group(NO_ID) => Some((
                format!("no process has `{selector}`, which means \"no id\" to the kernel"),
                "write the user's name".to_owned(),
            )),
            _ => None,
        };
        if why.is_some() {
            return why;
        }
    }
    let covered = |unless: &&Vec<Selector>| unless.iter().all(|selector| imply(matches, selector));
    let unless = section.unless.iter().find(covered)?;
    let shown: Vec<String> = unless.iter().map(ToString::to_string).collect();
    let why = format!(
        "`unless` excludes `{}`, which `match` demands",
        shown.join(", ")
    );
    let remedy = "make `unless` narrower than `match`: name what is to be excluded, not what is \
                  wanted";
    Some((why, remedy.to_owned()))
}

/// The unit that a path goes below, if it does: what is below a unit is not told apart.
fn below_a_unit(unit: &Pattern) -> Option<String> {
    let text = unit.to_string();
    let mut components = text.split('/').filter(|component| !component.is_empty());
    let _name = components.next_back().filter(|_| unit.is_path())?;
    let is_unit = |component: &&str| !component.contains('*') && !component.ends_with(".slice");
    components.find(is_unit).map(str::to_owned)
}
