//! `assertctl reload`: has assertd read its configuration again and waits for the verdict, so that
//! `systemctl reload` fails when the new configuration is not in force.

use super::args::{Args, Format};
use super::failure::{Asker, Exit, Failure};
use super::out::{Out, count};
use assertd_client::Client;

/// Reloads.
pub fn run(args: &Args, out: &mut Out) -> Result<Exit, Failure> {
    let failed = |error| Failure::from_client(&error, Asker::Administrator);
    let config = Client::connect(&args.admin_socket()?)
        .and_then(|mut client| client.reload())
        .map_err(failed)?;
    match args.format {
        Format::Json => out.json(&config)?,
        Format::Text => out.line(&format!(
            "in force: {} ({}, {}), sha256 {}",
            config.path,
            count(config.workloads, "workload"),
            count(config.targets, "target"),
            config.sha256
        )),
    }
    Ok(Exit::Done)
}
