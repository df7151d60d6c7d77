//! Everything that is read about a peer for one request: by this process, and where a section asks
//! what the peer runs, by the witness. Each request has it read anew; of a connection's peer nothing is
//! kept but which file it was seen to run, which may not change, and the path of the cgroup that the
//! kernel says it is in still.

use crate::app::App;
use crate::config::Config;
use crate::peer::{Life, Peer};
use crate::rules::Rules;
use crate::selector::Source;
use crate::sys;
use crate::witness::{Attestation, Client, Unanswered};
use crate::workload::{Program, Unattested, Workload};
use std::fmt;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

/// Between two questions to a witness that does not answer yet.
const PAUSE: Duration = Duration::from_millis(100);

/// Why nothing is known about a peer.
#[derive(Debug)]
pub enum Unknown {
    /// It is no workload.
    Unattested(Unattested),
    /// The witness is needed and does not answer, or cannot tell now; the sentence is for administrators.
    NoWitness(String),
}

impl From<Unattested> for Unknown {
    fn from(unattested: Unattested) -> Unknown {
        Unknown::Unattested(unattested)
    }
}

/// What the rules need to know about a peer that asks for this target, or for none.
pub async fn attest(
    app: &App,
    rules: &Rules,
    peer: &Peer,
    target: Option<&str>,
) -> Result<Workload, Unknown> {
    let policy = &rules.policy;
    let mut workload = Workload::attest(peer, policy.extent())?;
    let listed = rules.denied.asks_for_program();
    if policy.asks_for_program(&workload, target) || listed && policy.may_match(&workload, target) {
        workload.set_program(program(app, peer).await?);
    }
    Ok(workload)
}

/// Why rules cannot be enforced: a sentence that names what asks for a witness, and what to do.
#[derive(Debug)]
pub enum Unenforceable {
    /// There is none: somebody has to mend it.
    NoWitness(String),
    /// There is one, and it does not answer now.
    NotNow(String),
}

impl fmt::Display for Unenforceable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Unenforceable::NoWitness(text) | Unenforceable::NotNow(text)) = self;
        f.write_str(text)
    }
}

/// Whether rules can be enforced: a section that asks what a workload runs needs a witness that answers,
/// and so does a deny list of executables, be it empty. It is asked about ourselves, again and again for
/// as long as `patience`: it may start only now.
///
/// # Errors
/// Why not, by what can be done.
pub async fn enforceable(
    witness: &Client,
    rules: &Rules,
    patience: Duration,
) -> Result<(), Unenforceable> {
    let Some(what) = needs_witness(&rules.config) else {
        return Ok(());
    };
    let us = nix::unistd::Uid::effective().as_raw();
    let own = sys::pidfd_open(std::process::id())
        .map_err(|errno| Unenforceable::NotNow(format!("pidfd_open: {errno}")))?;
    let end = Instant::now() + patience;
    loop {
        // Whatever it says of us: a package that is being installed changes our own file.
        match witness.executable(us, own.as_fd()).await {
            Ok(_) => return Ok(()),
            Err(why) if Instant::now() >= end => {
                let text = format!("{what}, which only the witness can read: {why}");
                return Err(match why {
                    Unanswered::Absent(..) => Unenforceable::NoWitness(text),
                    _ => Unenforceable::NotNow(text),
                });
            }
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}

/// What asks what workloads run, if anything does: a section, or a deny list, for one that is empty today
/// may not be tomorrow.
pub fn needs_witness(config: &Config) -> Option<String> {
    let mut sections = config.workloads.iter();
    let Some(section) = sections.find(|section| section.asks(Source::Program)) else {
        let text = "`executables` in [deny] holds against what workloads run";
        return config.deny.executables.as_ref().map(|_| text.to_owned());
    };
    let (place, name) = (&section.place, &section.name);
    Some(format!(
        "{place}: workload `{name}` selects by its executable (`exe`, `exe_sha256`)"
    ))
}

/// What a peer runs. It must be the same file, with the same content, on all of its connection's
/// requests: who executes another program keeps the connection, and is somebody else. What happens to
/// the file's name or metadata meanwhile means nothing.
async fn program(app: &App, peer: &Peer) -> Result<Program, Unknown> {
    let answer = app.witness.executable(peer.uid(), peer.pidfd()).await;
    let attestation = answer.map_err(|error| Unknown::NoWitness(error.to_string()))?;
    if peer.life() == Life::Over {
        return Err(Unattested::Gone.into()); // what was read may be about another process
    }
    let executable = match attestation {
        Attestation::NotAttestable(why) => return Ok(Program::NotAttestable(why)),
        Attestation::NotNow(why) => {
            let pid = peer.pid();
            return Err(Unknown::NoWitness(format!(
                "what process {pid} runs cannot be told now: {why}"
            )));
        }
        Attestation::Executable(executable) => executable,
    };
    if !peer.still_runs(executable.running()) {
        return Err(Unattested::ChangedProgram.into());
    }
    Ok(Program::Is {
        path: executable.path().map(str::to_owned),
        sha256: executable.sha256,
    })
}
