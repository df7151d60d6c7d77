//! What should be decided, from the words of the design alone (written before `policy` was read):
//! every section is looked at, each of its conditions one after the other. Slow and plain.

use super::model::{Caller, Conditions, Place, Profile, Rule};
use crate::peer::Proof;
use crate::workload::Session;
use std::collections::BTreeSet;

/// Whether something holds; nothing, if that could not be found out.
type Known = Option<bool>;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Granted {
        section: String,
        lifetime_s: u32,
        /// Keys of `shadow` that do not hold, or may not.
        shadowed: BTreeSet<&'static str>,
    },
    Denied {
        reason: &'static str,
        /// Who matches and owns the target.
        matching: Vec<String>,
    },
}

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    pub target: &'static str,
    pub lifetime_s: Option<u32>,
    pub now_s: u64,
}

pub fn decide(rules: &[Rule], caller: &Caller, request: Request) -> Outcome {
    let denied = |reason, matching: &[&Rule]| Outcome::Denied {
        reason,
        matching: matching.iter().map(|rule| rule.name.clone()).collect(),
    };
    let mut owners = Vec::new();
    let mut matching = Vec::new();
    for rule in rules {
        let target = rule
            .targets
            .iter()
            .find(|(name, ..)| *name == request.target);
        if let Some((_, profile, lifetime_s)) = target {
            owners.push(rule);
            if misses(rule, caller) == 0 {
                matching.push((rule, most(*profile, *lifetime_s)));
            }
        }
    }
    if owners.is_empty() {
        return denied("unknown_target", &[]);
    }
    if matching.is_empty() {
        return denied("not_yours", &[]);
    }
    if matching.len() > 1 {
        let all: Vec<&Rule> = matching.iter().map(|(rule, _)| *rule).collect();
        return denied("ambiguous", &all);
    }
    let (rule, most_s) = matching[0];
    if rule
        .expires
        .is_some_and(|(_, expires_s)| request.now_s >= expires_s)
    {
        return denied("expired", &[rule]);
    }
    if caller.proof == Proof::Pid && !rule.allow_pid_fallback {
        return denied("weak_proof", &[rule]);
    }
    // A request can only shorten; an assertion without any life would be of no use.
    let mut lifetime_s = most_s;
    if let Some(asked_s) = request.lifetime_s
        && asked_s < most_s
    {
        lifetime_s = asked_s;
    }
    if lifetime_s == 0 {
        lifetime_s = 1;
    }
    let shadow = rule
        .shadow
        .as_ref()
        .map(|shadow| conditions(shadow, caller));
    let not_held = shadow
        .into_iter()
        .flatten()
        .filter(|(_, known)| *known != Some(true));
    Outcome::Granted {
        section: rule.name.clone(),
        lifetime_s,
        shadowed: not_held.map(|(key, _)| key).collect(),
    }
}

/// assertd.toml(5): `lifetime`.
fn most(profile: Profile, lifetime_s: Option<u32>) -> u32 {
    match (lifetime_s, profile) {
        (Some(lifetime_s), _) => lifetime_s,
        (None, Profile::Rfc7523) => 60,
        (None, Profile::AwsOidc) => 600,
    }
}

/// How many conditions stand between a caller and a section: of `match` those that do not hold, and
/// each `unless` that excludes it.
pub fn misses(rule: &Rule, caller: &Caller) -> usize {
    let mut count = 0;
    let mut matches = rule.matches.clone();
    if matches.container.is_none() {
        matches.container = Some(false); // a host's process, if nothing else is said
    }
    for (_, known) in conditions(&matches, caller) {
        if known != Some(true) {
            count += 1;
        }
    }
    for unless in &rule.unless {
        // All of it holds, or may hold.
        if conditions(unless, caller)
            .iter()
            .all(|(_, known)| *known != Some(false))
        {
            count += 1;
        }
    }
    count
}

/// Each condition by its key, and whether it holds.
pub fn conditions(conditions: &Conditions, caller: &Caller) -> Vec<(&'static str, Known)> {
    let mut all = Vec::new();
    if let Some(wanted) = conditions.unit {
        all.push(("unit", Some(unit(wanted, caller.place))));
    }
    if let Some(wanted) = conditions.slice {
        let is_in = match caller.place {
            Place::Nowhere(_) => false,
            Place::Unit(slices, ..) => slices.contains(&wanted),
            Place::UserUnit(uid, _) => {
                wanted == "user.slice" || wanted == format!("user-{uid}.slice")
            }
        };
        all.push(("slice", Some(is_in)));
    }
    if let Some(wanted) = conditions.user_unit {
        let is = match caller.place {
            // Of its own manager: another user's unit is another's.
            Place::UserUnit(uid, unit) => uid == caller.uid && fits(wanted, unit),
            Place::Nowhere(_) | Place::Unit(..) => false,
        };
        all.push(("user_unit", Some(is)));
    }
    if let Some(wanted) = conditions.uid {
        all.push(("user", Some(wanted == caller.uid)));
    }
    if let Some(wanted) = conditions.gid {
        all.push(("group", Some(wanted == caller.gid)));
    }
    if let Some((_, wanted)) = &conditions.supplementary_group {
        all.push(("supplementary_group", Some(caller.groups.contains(wanted))));
    }
    if let Some(wanted) = conditions.exe {
        let known = match caller.program {
            Ok((Some(path), _)) => Some(path == wanted),
            Ok((None, _)) | Err(_) => None,
        };
        all.push(("exe", known));
    }
    if !conditions.exe_sha256.is_empty() {
        let known = match caller.program {
            Ok((_, text)) => Some(conditions.exe_sha256.contains(&text)),
            Err(_) => None,
        };
        all.push(("exe_sha256", known));
    }
    if let Some(wanted) = conditions.container {
        all.push(("container", Some(wanted == caller.container)));
    }
    if let Some(wanted) = conditions.interactive {
        let known = match caller.session {
            Session::Unread => None,
            Session::None => Some(!wanted),
            Session::Terminal | Session::Login(_) => Some(wanted),
        };
        all.push(("interactive", known));
    }
    all
}

/// Whether a system unit is the wanted one, which is a name or, from a `/`, a full path.
fn unit(wanted: &str, place: Place) -> bool {
    let (path, name) = match place {
        Place::Nowhere(_) => return false,
        Place::Unit(slices, unit, _) => (format!("/{}/{unit}", slices.join("/")), unit.to_owned()),
        // Whatever a user's manager starts is the manager's unit to the system.
        Place::UserUnit(uid, _) => (
            format!("/user.slice/user-{uid}.slice/user@{uid}.service"),
            format!("user@{uid}.service"),
        ),
    };
    if wanted.starts_with('/') {
        fits(wanted, &path)
    } else {
        fits(wanted, &name)
    }
}

/// Whether a text fits a pattern: by trying every text that the star could stand for.
pub fn fits(pattern: &str, text: &str) -> bool {
    if !pattern.contains('*') {
        return pattern == text;
    }
    // So long the star's text has to be; it is some part of the whole.
    let Some(length @ 1..) = (text.len() + 1).checked_sub(pattern.len()) else {
        return false;
    };
    for from in 0..=text.len() - length {
        let star = &text[from..from + length];
        if !star.contains('/') && pattern.replace('*', star) == text {
            return true;
        }
    }
    false
}
