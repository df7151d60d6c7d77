//! Everything that is read about a peer for one request: by this process, and where a section asks
//! what the peer runs, by the witness. Each request has it read anew; nothing is kept but which file
//! a connection's peer was seen to run, which may not change.

use crate::app::App;
use crate::denylist::DenyLists;
use crate::peer::{Life, Peer};
use crate::policy::Policy;
use crate::sys;
use crate::witness::{Attestation, Client};
use crate::workload::{Program, Unattested, Workload};
use std::os::fd::AsFd;

/// Why nothing is known about a peer.
#[derive(Debug)]
pub enum Unknown {
    /// It is no workload.
    Unattested(Unattested),
    /// The witness is needed and does not answer; the sentence is for administrators.
    NoWitness(String),
}

impl From<Unattested> for Unknown {
    fn from(unattested: Unattested) -> Unknown {
        Unknown::Unattested(unattested)
    }
}

/// What a policy needs to know about a peer that asks for this target, or for none.
pub async fn attest(
    app: &App,
    policy: &Policy,
    peer: &Peer,
    target: Option<&str>,
) -> Result<Workload, Unknown> {
    let mut workload = Workload::attest(peer, policy.extent())?;
    let listed = app.denied.now().asks_for_program();
    if policy.asks_for_program(&workload, target) || listed && policy.may_match(&workload, target) {
        workload.set_program(program(app, peer).await?);
    }
    Ok(workload)
}

/// Whether a policy can be enforced: a section that asks what a workload runs needs a witness that
/// answers. It is asked about ourselves.
///
/// # Errors
/// A sentence that names the section and what to do.
pub async fn enforceable(
    witness: &Client,
    policy: &Policy,
    denied: &DenyLists,
) -> Result<(), String> {
    let what = match policy.needs_witness() {
        Some(section) => format!(
            "{}: workload `{}` selects by its executable (`exe`, `exe_sha256`)",
            section.place, section.name
        ),
        None if denied.asks_for_program() => {
            "`executables` in [deny] holds against what workloads run".to_owned()
        }
        None => return Ok(()),
    };
    let us = nix::unistd::Uid::effective().as_raw();
    let own =
        sys::pidfd_open(std::process::id()).map_err(|errno| format!("pidfd_open: {errno}"))?;
    // Whatever it says of us: a package that is being installed changes our own file.
    match witness.executable(us, own.as_fd()).await {
        Ok(_) => Ok(()),
        Err(why) => Err(format!("{what}, which only the witness can read: {why}")),
    }
}

/// What a peer runs. It must be the same file on all of its connection's requests: who executes
/// another program keeps the connection, and is somebody else.
async fn program(app: &App, peer: &Peer) -> Result<Program, Unknown> {
    let answer = app.witness.executable(peer.uid(), peer.pidfd()).await;
    let attestation = answer.map_err(|error| Unknown::NoWitness(error.to_string()))?;
    if peer.life() == Life::Over {
        return Err(Unattested::Gone.into()); // what was read may be about another process
    }
    let executable = match attestation {
        Attestation::NotAttestable(why) => return Ok(Program::NotAttestable(why)),
        Attestation::Executable(executable) => executable,
    };
    if *peer.first_executable(executable.identity) != executable.identity {
        return Err(Unattested::ChangedProgram.into());
    }
    Ok(Program::Is {
        path: executable.path().map(str::to_owned),
        sha256: executable.sha256,
    })
}
