//! `assertctl check`, the doctor: looks at everything assertd needs on this host, and names what
//! is wrong with the command or the line that mends it.
//!
//! Each area has a module with facts, a `look` that gathers them and pure findings about them. It
//! changes nothing and starts nothing, and whatever it waits for has a deadline.

pub mod access;
mod accounts;
mod configuration;
mod courier;
pub mod credentials;
pub mod daemon;
pub mod finding;
pub mod host;
mod kernel;
pub mod modules;
pub mod site;
mod sockets;
mod storage;
pub mod tpm;
pub mod units;

use super::account;
use super::args::{Args, Format};
use super::failure::{Exit, Failure};
use super::out::Out;
use finding::{Finding, Severity};
use serde::Serialize;
use site::{Runner, Site, Users};
use sockets::Listener;
use units::Units;

/// `check --json`
#[derive(Serialize)]
struct CheckJson<'a> {
    format: u32,
    ok: bool,
    findings: &'a [Finding],
}

/// Looks at everything. Warnings alone are no failure.
pub fn run(args: &Args, out: &mut Out) -> Result<Exit, Failure> {
    only_root("check")?;
    let found = examine(args);
    let bad = found.iter().any(|it| it.severity == Severity::Fail);
    match args.format {
        Format::Json => out.json(&CheckJson {
            format: 1,
            ok: !bad,
            findings: &found,
        })?,
        Format::Text => lines(&found).iter().for_each(|line| out.line(line)),
    }
    Ok(if bad { Exit::Refused } else { Exit::Done })
}

/// Whoever else ran it would be shown half of it.
///
/// # Errors
/// The user is not root.
pub fn only_root(command: &str) -> Result<(), Failure> {
    if nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    let text = format!(
        "{command} looks at files, sockets and processes that root alone may look at; run it by \
         sudo"
    );
    Err(Failure::new(Exit::NotPermitted, text))
}

/// All findings, from the ground up: a fault often explains those below it.
fn examine(args: &Args) -> Vec<Finding> {
    let site = Site::look(args.config.as_deref());
    let units = Units::look(&site);
    let users = Users::look(&site, &units);
    let admin_socket = args.socket.clone().unwrap_or_else(|| site.admin_socket());
    let daemon = daemon::look(&site, &units, admin_socket);
    let listener = match (&site.runner, daemon.pid()) {
        (Runner::Units, _) => Listener::Systemd,
        (Runner::Somebody(_), Some(pid)) => Listener::Assertd(pid),
        (Runner::Somebody(_), None) => Listener::Nobody,
    };
    let group = account::group(site::BROKER_USER).ok().flatten();
    let storage = storage::look(&site, &users);
    let mut found = kernel::findings(&kernel::look(daemon.pid(), &daemon.keystores()));
    found.extend(accounts::findings(&site.runner, &users, group));
    found.extend(configuration::findings(
        &site,
        &configuration::look(&site, &users),
        &users,
    ));
    found.extend(modules::findings(
        &site,
        &modules::look(&site, &units, &users),
        &users,
    ));
    found.extend(tpm::findings(
        &site,
        &tpm::look(&site, &units, &users),
        &users,
    ));
    found.extend(credentials::findings(
        &site,
        &credentials::look(&site, &units),
        &users,
    ));
    found.extend(units::findings(&site, &units));
    found.extend(sockets::findings(&sockets::look(&site, &users), listener));
    found.extend(storage::findings(&site, &storage));
    found.extend(daemon::findings(&site, &daemon));
    found.extend(courier::findings(&site, &courier::look(&site)));
    found.extend(storage::chain_findings(&site, &storage));
    found
}

/// For people: one line a finding, below it the remedy, at the end how many of which.
pub fn lines(found: &[Finding]) -> Vec<String> {
    let width = found.iter().map(|it| it.area.len()).max().unwrap_or(0);
    let indent = " ".repeat("FAIL  ".len() + width + 2);
    let mut lines = Vec::new();
    for finding in found {
        let sign = match finding.severity {
            Severity::Ok => "ok  ",
            Severity::Warn => "warn",
            Severity::Fail => "FAIL",
        };
        // A diagnostic has lines of its own.
        let text = finding.text.replace('\n', &format!("\n{indent}"));
        let head = format!("{sign}  {:width$}  {text}", finding.area);
        match &finding.remedy {
            None => lines.push(head),
            Some(remedy) => {
                lines.push(format!("{head}  [{}]", finding.id));
                lines.push(format!("{indent}→ {remedy}"));
            }
        }
    }
    let number = |severity| found.iter().filter(|it| it.severity == severity).count();
    lines.push(format!(
        "{} ok, {} warn, {} FAIL",
        number(Severity::Ok),
        number(Severity::Warn),
        number(Severity::Fail)
    ));
    lines
}

#[cfg(test)]
mod tests {
    use super::finding::{CONFIG_LOADS, PEER_PIDFD, SOCKET_MODE};
    use super::*;

    #[test]
    fn columns_line_up_and_a_remedy_stands_below_its_finding() {
        let found = [
            PEER_PIDFD.ok("SO_PEERPIDFD present"),
            SOCKET_MODE.warn("/s has mode 0600", "run `chmod 0666 /s`"),
            CONFIG_LOADS.fail("a.toml:1:2: no\n    1 | x\n      | ^", "correct it"),
        ];
        assert_eq!(
            lines(&found),
            [
                "ok    kernel  SO_PEERPIDFD present",
                "warn  socket  /s has mode 0600  [D42]",
                "              → run `chmod 0666 /s`",
                "FAIL  config  a.toml:1:2: no\n                  1 | x\n                    | ^  [D12]",
                "              → correct it",
                "1 ok, 1 warn, 1 FAIL",
            ]
        );
    }
}
