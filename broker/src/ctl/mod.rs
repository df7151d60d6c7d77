//! `assertctl`: what workloads and administrators type. It turns arguments into one
//! [`args::Command`], asks assertd (and, for `config diff` and `apply`, the keystores), and prints
//! the answer.
//!
//! It owns no state and decides nothing: assertd decides, keystores keep charters. Which socket is
//! asked is seen in the command line or the configuration; no environment variable says so (the one
//! that is read is the contract of Kubernetes' exec plugins).
//! Answers go to stdout, sentences for people to stderr; the exit code says which kind it is.

pub mod args;
pub mod plan;

mod account;
mod admin;
mod apply;
mod approve;
mod assertion;
mod attest;
mod audit;
mod bring;
mod certificate;
mod check;
mod doctor;
mod enroll;
mod env;
mod explain;
mod failure;
#[cfg(test)]
mod fixtures;
mod given;
mod grants;
mod help;
mod host_facts;
mod init;
mod jwks;
mod keystore;
mod keyverb;
mod look;
mod nonce;
pub(crate) mod out;
mod place;
mod profiles;
mod reload;
mod relying;
mod respond;
mod run;
mod state;
mod tpm;
mod verify;
mod workload;

use self::args::{Args, Command};
use self::failure::{Exit, Failure};
use self::out::Out;
use crate::config::Config;
use ::keystore::config::Diagnostic;
use assertd_client::api::KeyVerbRequest;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// The configuration that is read when `-c` names no other.
pub const CONFIG: &str = "/etc/assertd/assertd.toml";

/// The JSON Schema of the configuration, which `config::schema` makes of its types.
const SCHEMA: &str = include_str!("../../../docs/assertd.schema.json");

/// Runs one command. `arguments` are without the program's name.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let mut out = Out::new(io::stdout().lock());
    let done = args::parse(arguments)
        .map_err(|wrong| Failure::new(Exit::Usage, wrong.to_string()))
        .and_then(|args| command(&args, &mut out))
        .and_then(|exit| out.finish().map(|()| exit));
    match done {
        Ok(exit) => exit.into(),
        Err(failure) => {
            eprintln!("assertctl: {}", out::clean(&failure.message));
            failure.exit.into()
        }
    }
}

fn command(args: &Args, out: &mut Out) -> Result<Exit, Failure> {
    match &args.command {
        Command::Help { topic } => help::show(topic.as_deref(), out),
        Command::Version => {
            out.line(&format!("assertctl {}", env!("CARGO_PKG_VERSION")));
            Ok(Exit::Done)
        }
        Command::Assertion {
            target,
            lifetime_s,
            delivery,
        } => assertion::run(args, target, *lifetime_s, delivery, out),
        Command::Env {
            target,
            sdk,
            part,
            settings,
            host_facts,
        } => env::run(
            args,
            &env::Wishes {
                target,
                sdk: *sdk,
                part: *part,
                settings,
                host_facts: host_facts.as_deref(),
            },
            out,
        ),
        Command::Whoami => workload::whoami(args, out),
        Command::Targets => workload::targets(args, out),
        Command::Status => admin::status(args, out),
        Command::Check => doctor::run(args, out),
        Command::KeystoreCheck { name } => keystore::run(args, name.as_deref(), out),
        Command::Reload => reload::run(args, out),
        Command::Init {
            consent,
            backends,
            module,
            token,
            tcti,
            name,
            environment,
        } => init::run(
            args,
            &init::Wishes {
                consent: *consent,
                backends: *backends,
                module: module.as_deref(),
                token: token.as_deref(),
                tcti: tcti.as_ref(),
                name: name.as_deref(),
                environment,
            },
            out,
        ),
        Command::Keys { name } => admin::keys(args, name.as_ref(), out),
        Command::StateAcceptRollback { consent } => state::accept_rollback(args, *consent, out),
        Command::KeyVerb {
            verb,
            key,
            now,
            consent,
        } => keyverb::run(
            args,
            &KeyVerbRequest {
                key: key.clone(),
                verb: *verb,
                now: *now,
            },
            *consent,
            out,
        ),
        Command::KeyCertificate { key, form } => certificate::show(args, key, *form, out),
        Command::KeyImport { name, file } => bring::import(args, name, file, out),
        Command::KeyAdopt { name, object } => bring::adopt(args, name, object, out),
        Command::Jwks {
            key,
            with_evidence: false,
        } => jwks::print(args, key.as_ref(), out),
        Command::Jwks {
            key,
            with_evidence: true,
        } => jwks::print_with_evidence(args, key.as_ref(), out),
        Command::Attest(wish) => attest::run(args, wish, out),
        Command::EnrollRequest { keystore, output } => {
            respond::request(args, keystore.as_deref(), output.as_deref(), out)
        }
        Command::Enroll(wish) => enroll::run(args, wish, out),
        Command::Approve(wish) => approve::run(args, wish, out),
        Command::Nonce { policy } => nonce::run(args, policy, out),
        Command::Verify(wish) => verify::run(args, wish, out),
        Command::EnrollRespond { challenge, output } => {
            respond::respond(args, challenge, output.as_deref(), out)
        }
        Command::JwksMerge { files, output } => jwks::merge::run(files, output.as_deref(), out),
        Command::ConfigCheck {
            host_facts,
            strictness,
        } => check::run(args, host_facts.as_deref(), *strictness, out),
        Command::ExplainFinding { id } => check::explain::run(args, id, out),
        Command::ConfigSchema => {
            out.line(SCHEMA.trim_end());
            Ok(Exit::Done)
        }
        Command::HostFacts => host_facts::run(args, out),
        Command::ConfigDiff { changes } => apply::diff(args, *changes, out),
        Command::Apply {
            consent,
            creations_max,
        } => apply::apply(args, *consent, *creations_max, out),
        Command::AuditVerify { dir } => audit::verify(args, dir.as_deref(), out),
        Command::AuditShow { dir, count } => audit::show(args, dir.as_deref(), *count, out),
        Command::ExplainId { id } => explain::id(args, id, out),
        Command::ExplainProcess { pid, target } => explain::process(args, *pid, target, out),
        Command::Profiles { name } => profiles::show(args, name.as_deref(), out),
    }
}

impl Args {
    /// The configuration, which was named or is the host's.
    fn load_config(&self) -> Result<Config, Failure> {
        let path = self.config.as_deref().unwrap_or(Path::new(CONFIG));
        Config::load(path)
            .map_err(|diagnostic| Failure::new(Exit::Configuration, diagnostic.to_string()))
    }

    /// Where sockets are by the configuration that was named, be the rest of it as wrong as it may:
    /// who runs already can be asked all the same, and says what it thinks of it.
    fn runtime_dir(&self, path: &Path) -> Result<PathBuf, Failure> {
        let wrong = |diagnostic: Diagnostic| {
            let text = format!("{diagnostic}\nnobody was asked: say at which socket, by -s");
            Failure::new(Exit::Configuration, text)
        };
        crate::config::runtime_dir(path).map_err(wrong)
    }

    /// Where to ask as a workload. The configuration is read only if it was named: workloads need
    /// no right to read it.
    fn workload_socket(&self) -> Result<PathBuf, Failure> {
        match (&self.socket, &self.config) {
            (Some(socket), _) => Ok(socket.clone()),
            (None, Some(path)) => Ok(self.runtime_dir(path)?.join(crate::config::SOCKET)),
            (None, None) => Ok(assertd_client::SOCKET.into()),
        }
    }

    /// Where to ask as an administrator.
    fn admin_socket(&self) -> Result<PathBuf, Failure> {
        match (&self.socket, &self.config) {
            (Some(socket), _) => Ok(socket.clone()),
            (None, Some(path)) => Ok(self.runtime_dir(path)?.join(crate::config::ADMIN_SOCKET)),
            (None, None) => Ok(assertd_client::ADMIN_SOCKET.into()),
        }
    }

    /// The options a suggested command needs to ask the same assertd.
    fn same_place(&self) -> String {
        let mut options = String::new();
        if let Some(socket) = &self.socket {
            options += &format!(" -s {}", socket.display());
        }
        if let Some(config) = &self.config {
            options += &format!(" -c {}", config.display());
        }
        options
    }
}
