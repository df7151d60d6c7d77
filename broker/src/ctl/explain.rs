//! `assertctl explain`: why a request was denied, or what a process would get: which section decided,
//! and which selector fails, with what is there instead. assertd knows; what it has forgotten the
//! audit log may still have.

use super::account;
use super::args::{Args, Format};
use super::audit;
use super::failure::{Asker, Exit, Failure};
use super::out::{Out, count, rfc3339};
use assertd_client::api::{Explained, ExplainedSection, ExplainedSelector};
use assertd_client::{Client, Error};

/// Of a denial, by the id that its caller was told.
pub fn id(args: &Args, id: &str, out: &mut Out) -> Result<Exit, Failure> {
    let asked = Client::connect(&args.admin_socket()?).and_then(|mut client| client.explain_id(id));
    match asked {
        Ok(explained) => print(args, &explained, out),
        Err(Error::Refused { problem, .. }) if problem.code() == "not_remembered" => {
            audit::explain(args, id, out)
        }
        Err(error) => Err(Failure::from_client(&error, Asker::Administrator)),
    }
}

/// Of a process that runs now.
pub fn process(args: &Args, pid: u32, target: &str, out: &mut Out) -> Result<Exit, Failure> {
    let explained = Client::connect(&args.admin_socket()?)
        .and_then(|mut client| client.explain_process(pid, target))
        .map_err(|error| Failure::from_client(&error, Asker::Administrator))?;
    print(args, &explained, out)
}

fn print(args: &Args, explained: &Explained, out: &mut Out) -> Result<Exit, Failure> {
    match args.format {
        Format::Json => out.json(explained)?,
        Format::Text => text(explained, out),
    }
    Ok(Exit::Done)
}

fn text(explained: &Explained, out: &mut Out) {
    out.line(&verdict(explained));
    let unit = explained.unit.as_deref().unwrap_or("no unit");
    let (uid, gid, pid) = (explained.uid, explained.gid, explained.pid);
    out.line(&format!(
        "      who asked: pid {pid}, uid {uid}, gid {gid}, {unit}"
    ));
    for section in &explained.sections {
        out.line("");
        of_section(section, out);
    }
    if explained.more > 0 {
        out.line("");
        out.line(&format!(
            "and {} that own the target and are further away",
            count(explained.more, "section")
        ));
    }
}

/// The first line.
fn verdict(explained: &Explained) -> String {
    let target = &explained.target;
    let now = match &explained.reason {
        None => "granted".to_owned(),
        Some(reason) => format!("denied ({})", in_words(reason)),
    };
    match (explained.denied_at, &explained.recorded_reason) {
        (Some(at), Some(recorded)) if explained.reason.as_ref() != Some(recorded) => format!(
            "target {target}: was denied at {} ({}); now it is {now}: the rules have changed \
             since",
            rfc3339(at),
            in_words(recorded)
        ),
        (Some(at), _) => format!("target {target}: {now} at {}", rfc3339(at)),
        (None, _) => format!("target {target}: {now}"),
    }
}

/// A record's reason as a sentence.
pub fn in_words(reason: &str) -> String {
    match reason {
        "unknown_target" => "no section has a target of this name",
        "not_yours" => "no section that has this target matches",
        "ambiguous" => "two sections match: exactly one may own a target",
        "expired" => "the section that matches has expired",
        "weak_proof" => {
            "this kernel tells callers by their pid alone, which the section does not allow \
             (allow_pid_fallback)"
        }
        "listed_user" => "its user is on the deny list",
        "listed_unit" => "its unit is on the deny list",
        "listed_executable" => "what it runs is on the deny list",
        "program_not_attestable" => {
            "executables are on a deny list, and what it runs could not be found out"
        }
        "peer_gone" => "the caller had ended",
        "peer_changed_user" => "the caller had changed its user or group since it connected",
        "peer_changed_program" => "the caller ran another program than before on its connection",
        "peer_unreadable" => "the caller could not be read in /proc",
        other => other,
    }
    .to_owned()
}

fn of_section(section: &ExplainedSection, out: &mut Out) {
    let standing = match section.standing.as_str() {
        "matches" => "matches",
        "excluded" => "would match, and its `unless` excludes it",
        _ => "does not match",
    };
    out.line(&format!(
        "[workload.{}] {standing}  ({})",
        section.workload, section.place
    ));
    let mut rows: Vec<Vec<String>> = section.matches.iter().map(|it| row("", it)).collect();
    rows.extend(section.unless.iter().map(|it| row("unless ", it)));
    rows.extend(section.shadow.iter().map(|it| row("shadow ", it)));
    out.table(&rows);
}

/// A number of a user or group with the name that this host has for it: files say names, the kernel
/// numbers.
fn with_name(selector: &str, value: &str) -> String {
    let name = |id: u32| match selector {
        "user" => Some(account::of_uid(id).name),
        "group" | "supplementary_group" => Some(account::group_name(id)),
        _ => None,
    };
    let name = value.parse().ok().and_then(name);
    match name.filter(|name| name != value) {
        Some(name) => format!("{value} ({name})"),
        None => value.to_owned(),
    }
}

fn row(role: &str, selector: &ExplainedSelector) -> Vec<String> {
    let named = |value: &str| with_name(&selector.selector, value);
    let found = named(&selector.found);
    let (sign, found) = match (role, selector.verdict.as_str()) {
        ("", "holds") => ("ok", String::new()),
        ("", _) => ("FAIL", format!("it is {found}")),
        ("unless ", "holds") => ("FAIL", "it is".to_owned()),
        ("unless ", _) => ("FAIL", format!("it may be: {found}")),
        (_, "holds") => ("ok", String::new()),
        (_, _) => ("note", format!("it is {found}")),
    };
    vec![
        format!("  {sign}"),
        format!("{role}{}", selector.selector),
        named(&selector.wanted),
        found,
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_the_names_that_this_host_knows() {
        assert_eq!(with_name("user", "0"), "0 (root)");
        assert_eq!(with_name("group", "0"), "0 (root)");
        assert_eq!(with_name("user", "4294967000"), "4294967000");
        assert_eq!(with_name("user", "none"), "none");
        assert_eq!(with_name("unit", "0"), "0");
    }
}
