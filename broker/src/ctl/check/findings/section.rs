//! What one `[workload.NAME]` says of itself: whom it fits, until when, whom to ask.

use super::super::finding::{
    CONTAINER_SCOPE, DYNAMIC_USER, EXPIRED, EXPIRES_SOON, Finding, INTERACTIVE_SERVICE,
    NEEDS_WITNESS, NO_EXPIRY, NO_OWNER, NO_TARGET, OVERFLOW_USER, PID_FALLBACK, SLICE_ALONE,
    USER_ALONE, USER_UNIT, WIDE_PATTERN,
};
use super::{named, slice_of, unit_of, user_of};
use crate::config::Section;
use crate::selector::{Pattern, Selector, Source};
use keystore::Time;
use std::ops::RangeInclusive;

/// Uids that systemd gives to DynamicUser= services and takes back when they stop (systemd's
/// UIDS-GIDS): the next service may get the same one.
pub const DYNAMIC_UIDS: RangeInclusive<u32> = 61_184..=65_519;

/// What every uid looks like that a user namespace does not map (user_namespaces(7)).
const OVERFLOW_UID: u32 = 65_534;

/// How long before it expires a workload is warned about: two sprints.
const EXPIRY_NOTICE_S: u64 = 30 * 86_400;

/// Fewer letters before a star are hardly a name that somebody chose: `web*.service` fits
/// `webmin.service` too.
const SHORT_PREFIX_LEN: usize = 4;

/// What helps where it is not known whether there is a witness.
pub const ENABLE_WITNESS: &str = "run `systemctl enable --now assertd-witness.socket` on every host that \
    has this configuration; check with --host-facts to be told where it does not run";

/// Scopes that container runtimes make for the processes of a container, by how they begin.
const CONTAINER_SCOPES: [&str; 5] = ["libpod-", "docker-", "crio-", "cri-containerd-", "machine-"];

pub fn findings(section: &Section, now: Time, found: &mut Vec<Finding>) {
    strength(section, found);
    users(section, found);
    units(section, found);
    programs(section, found);
    expiry(section, now, found);
    if section.owner.is_none() {
        found.push(NO_OWNER.at(
            named(section),
            &section.place,
            "it has no `owner`, so that nobody knows whom to ask about it",
            "write owner = \"TEAM@example.com\"",
        ));
    }
    if section.targets.is_empty() {
        found.push(NO_TARGET.at(
            named(section),
            &section.place,
            "it has no target, so that every request of it is denied",
            "write a [workload.NAME.target.NAME], or remove it",
        ));
    }
    if section.allow_pid_fallback {
        found.push(PID_FALLBACK.at(
            named(section),
            &section.place,
            "on kernels before 6.5 it takes a caller by its pid: a process that is younger than its \
             connection is asked to connect again (503), and the record says peer_proof \"pid\"",
            "remove `allow_pid_fallback` where the kernel has SO_PEERPIDFD (assertctl status)",
        ));
    }
}

/// Whether a unit is demanded at all.
fn strength(section: &Section, found: &mut Vec<Finding>) {
    if unit_of(section).is_some() {
        return;
    }
    let user_unit = section.matches.iter().find_map(|selector| match selector {
        Selector::UserUnit(pattern) => Some(pattern),
        _ => None,
    });
    let finding = match (user_unit, slice_of(section), user_of(section)) {
        (Some(unit), _, Some(uid)) => USER_UNIT.at(
            named(section),
            &section.place,
            format!(
                "whatever runs as uid {uid} can start a unit of its own and call it `{unit}`: it says \
                 no more than the user does"
            ),
            "make it a system unit with a user of its own: match = { unit = \"NAME.service\", user = \
             \"NAME\" }; or keep it, if everything of that user may have these targets",
        ),
        (_, Some(slice), user) => {
            let user = user.map_or(String::new(), |uid| format!(" that runs as uid {uid}"));
            SLICE_ALONE.at(
                named(section),
                &section.place,
                format!("every process in {slice}{user} gets it, and whatever is put there later"),
                "add the unit: match = { unit = \"NAME.service\", slice = \"NAME.slice\" }",
            )
        }
        (_, None, Some(uid)) => USER_ALONE.at(
            named(section),
            &section.place,
            format!(
                "every process of uid {uid} gets it, also a shell, a cron job, a sandbox escape"
            ),
            "add the unit: match = { unit = \"NAME.service\", user = \"NAME\" }",
        ),
        (_, None, None) => return,
    };
    found.push(finding);
}

fn users(section: &Section, found: &mut Vec<Finding>) {
    let Some(uid) = user_of(section) else { return };
    if DYNAMIC_UIDS.contains(&uid) {
        found.push(DYNAMIC_USER.at(
            named(section),
            &section.place,
            format!("uid {uid} is one that systemd hands to DynamicUser= services in turn"),
            "match the unit alone, or give the service a user of its own (User=)",
        ));
    }
    if uid == OVERFLOW_UID {
        found.push(OVERFLOW_USER.at(
            named(section),
            &section.place,
            format!(
                "uid {uid} (nobody) is what the kernel shows of every user that a user namespace does \
                 not know, and many services share it"
            ),
            "give the service a user of its own (User=) and name that",
        ));
    }
}

fn units(section: &Section, found: &mut Vec<Finding>) {
    let Some(unit) = unit_of(section) else { return };
    if let Some(why) = wide(unit) {
        found.push(WIDE_PATTERN.at(
            named(section),
            &section.place,
            format!("`{unit}` {why}: whoever may install a unit of a fitting name gets it"),
            "name one unit, or the instances of one template: unit = \"NAME@*.service\"",
        ));
    }
    let has = |wanted: Selector| section.matches.contains(&wanted);
    let name = unit.to_string();
    if name.ends_with(".service") && has(Selector::Interactive(true)) {
        found.push(INTERACTIVE_SERVICE.at(
            named(section),
            &section.place,
            format!(
                "`interactive = true` of a service: `{unit}` has no login session, and a terminal \
                 only with TTYPath=, so that most likely nothing ever matches"
            ),
            "remove `interactive`; or write `interactive = false`, if a terminal is to be refused",
        ));
    }
    let name = name.rsplit('/').next().unwrap_or_default();
    let runtime = CONTAINER_SCOPES
        .iter()
        .find(|begin| name.starts_with(**begin));
    if runtime.is_some() && name.ends_with(".scope") && has(Selector::Container(false)) {
        found.push(CONTAINER_SCOPE.at(
            named(section),
            &section.place,
            format!(
                "`{unit}` is a scope that a container runtime makes for a container, and without \
                 `container = true` it matches a process of the host alone"
            ),
            "write container = true; better, run it as a Quadlet and match that unit with container \
             = true: the runtime's own names change with every container",
        ));
    }
}

/// What is wide about a pattern, if it is.
fn wide(unit: &Pattern) -> Option<String> {
    if unit.exact().is_some() {
        return None;
    }
    let before = unit.before().rsplit('/').next().unwrap_or_default();
    if unit.after().contains('/') {
        return Some("leaves open which slice the unit is in".to_owned());
    }
    if before.len() > 1 && before.ends_with('@') {
        return None; // the instances of one template
    }
    if before.is_empty() {
        return Some("fits every unit of that slice".to_owned());
    }
    let short = if before.len() < SHORT_PREFIX_LEN {
        ", which is short"
    } else {
        ""
    };
    Some(format!(
        "fits every unit whose name begins with `{before}`{short}"
    ))
}

fn programs(section: &Section, found: &mut Vec<Finding>) {
    let mut keys = section
        .selectors()
        .filter(|selector| selector.source() == Source::Program);
    if let Some(selector) = keys.next() {
        found.push(NEEDS_WITNESS.at(
            named(section),
            &section.place,
            format!(
                "`{}` needs assertd's witness, which reads executables; where it does not run, this \
                 whole configuration does not come into force",
                selector.key()
            ),
            ENABLE_WITNESS,
        ));
    }
}

fn expiry(section: &Section, now: Time, found: &mut Vec<Finding>) {
    let (object, place) = (named(section), &section.place);
    let Some(expires) = section.expires else {
        found.push(NO_EXPIRY.at(
            object,
            place,
            "it has no `expires`, so that nobody will ever ask whether it is still needed",
            "write expires = YYYY-MM-DD, a year from now at most",
        ));
        return;
    };
    if expires <= now {
        found.push(EXPIRED.at(
            object,
            place,
            "it has expired, so that every request of it is denied",
            "remove it, or ask its owner and write a new date",
        ));
    } else if expires.unix_s() - now.unix_s() < EXPIRY_NOTICE_S {
        let days = (expires.unix_s() - now.unix_s()) / 86_400;
        found.push(EXPIRES_SOON.at(
            object,
            place,
            format!(
                "it expires in {}",
                crate::ctl::out::count(days as usize, "day")
            ),
            "ask its owner and write a new date",
        ));
    }
}
