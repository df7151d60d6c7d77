//! What a workload asks about itself: who it is, what it may have. Needs no right to read the
//! configuration.

use super::args::{Args, Format};
use super::failure::{Asker, Exit, Failure};
use super::out::{Out, duration};
use assertd_client::api::{TargetInfo, Whoami};
use assertd_client::{Client, Error};

/// Prints what the kernel and assertd know about this process.
pub fn whoami(args: &Args, out: &mut Out) -> Result<Exit, Failure> {
    let answer = connect(args)?.whoami().map_err(|e| failed(&e))?;
    match args.format {
        Format::Json => out.json(&answer)?,
        Format::Text => out.table(&whoami_rows(&answer)),
    }
    Ok(Exit::Done)
}

/// Lists the targets of this process.
pub fn targets(args: &Args, out: &mut Out) -> Result<Exit, Failure> {
    let answer = connect(args)?.targets().map_err(|e| failed(&e))?;
    match args.format {
        Format::Json => out.json(&answer)?,
        Format::Text if answer.targets.is_empty() => {
            out.line("no targets: no workload section matches this process (`assertctl whoami`)");
        }
        Format::Text => out.table(&target_rows(&answer.targets)),
    }
    Ok(Exit::Done)
}

fn connect(args: &Args) -> Result<Client, Failure> {
    Client::connect(&args.workload_socket()?).map_err(|error| failed(&error))
}

fn failed(error: &Error) -> Failure {
    Failure::from_client(error, Asker::Workload)
}

fn whoami_rows(me: &Whoami) -> Vec<Vec<String>> {
    let none = || "none".to_owned();
    let nested = if me.nested {
        " (in a cgroup below it)"
    } else {
        ""
    };
    let proof = match me.peer_proof.as_str() {
        "pid" => "pid (this kernel has no SO_PEERPIDFD; a workload must say allow_pid_fallback)",
        other => other,
    };
    let workloads = match me.workloads.is_empty() {
        true => "none matches".to_owned(),
        false => me.workloads.join(", "),
    };
    let unit = me
        .unit
        .as_ref()
        .map_or_else(none, |unit| format!("{unit}{nested}"));
    [
        ("uid", me.uid.to_string()),
        ("gid", me.gid.to_string()),
        ("pid", me.pid.to_string()),
        ("unit", unit),
        ("invocation", me.invocation.clone().unwrap_or_else(none)),
        (
            "container",
            if me.container { "yes" } else { "no" }.to_owned(),
        ),
        ("peer proof", proof.to_owned()),
        ("workload", workloads),
    ]
    .map(|(name, value)| vec![name.to_owned(), value])
    .to_vec()
}

fn target_rows(targets: &[TargetInfo]) -> Vec<Vec<String>> {
    let head = ["TARGET", "PROFILE", "AUDIENCE", "SUBJECT", "LIFETIME"]
        .map(str::to_owned)
        .to_vec();
    let none = || "-".to_owned();
    let row = |target: &TargetInfo| {
        vec![
            target.target.clone(),
            target.profile.clone(),
            target.audience.clone().unwrap_or_else(none),
            target.subject.clone().unwrap_or_else(none),
            duration(target.lifetime.into()),
        ]
    };
    std::iter::once(head)
        .chain(targets.iter().map(row))
        .collect()
}
