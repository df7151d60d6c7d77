//! assertd-keystore-tpm: the process that holds the keys of one TPM 2.0. It reads its section of the
//! configuration, opens the TPM and serves the keystore protocol ([`keystore::program`]).
#![forbid(unsafe_code)]

use keystore::config::{Section, TCTI, Tcti};
use keystore::program::options::{Asked, COMMON_USAGE, Own, read};
use keystore::program::{Opening, Program, close_off};
use keystore::{Error, Kind};
use keystore_tpm::{Secrets, Settings, TpmBackend};
use std::process::ExitCode;
use std::time::Duration;

const NAME: &str = "assertd-keystore-tpm";

/// How long one process waits for a TPM that is reached through the network.
const TPM_WAIT: Duration = Duration::from_secs(10 * 60);

/// How long one process waits for a device node. What is in `/dev` is fixed for it when it starts, by
/// its unit (PrivateDevices=, BindPaths=) and by Landlock, which knows files and not names: a node
/// that comes later, with the driver, is found by the next process.
const NODE_WAIT: Duration = Duration::from_secs(10);

fn main() -> ExitCode {
    if let Err(code) = close_off(NAME) {
        return code;
    }
    let program = Program {
        name: NAME,
        // tpm2-tss writes every failure to standard error by itself; ours say the same with a
        // remedy. Whoever wants to see them sets the variable.
        defaults: &[("TSS2_LOG", "all+NONE")],
        lock_memory: keystore::hardening::memory::lock_all,
        step_back: || {}, // no unsafe code here, and a TPM takes longer
        open,
        absence_max,
    };
    let asked = read(std::env::args_os().skip(1), |_, _| Ok(Own::Unknown));
    let options = asked.and_then(|asked| match asked {
        Asked::Rest(given) => given.check().map(Some),
        Asked::Help => {
            print!("{}", usage());
            Ok(None)
        }
        Asked::Version => {
            println!("{NAME} {}", env!("CARGO_PKG_VERSION"));
            Ok(None)
        }
    });
    match options {
        Ok(Some(options)) => program.run(options),
        Ok(None) => ExitCode::SUCCESS,
        Err(text) => {
            eprintln!("{NAME}: {text}\n\n{}", usage());
            ExitCode::from(2)
        }
    }
}

fn usage() -> String {
    format!(
        "\
usage: assertd-keystore-tpm --config FILE --name NAME (--socket PATH | --listen-stdin)
                            [--parent PID] [--broker-uid UID | --broker-user USER]
                            [--state-dir DIR]
       assertd-keystore-tpm -h | -V

Holds the private keys of one TPM 2.0 and mints assertions for assertd.

{COMMON_USAGE}  -h, --help        this text
  -V, --version     the version
"
    )
}

fn open(opening: &Opening) -> Result<TpmBackend, Error> {
    let section = &opening.section;
    let tcti = tcti(section)?;
    TpmBackend::open(Settings {
        tcti,
        secrets: Secrets::read(
            section.auth.as_ref(),
            opening.credentials.as_deref(),
            &opening.name,
        )?,
        sessions: section.sessions,
        healthy: section.healthy.clone(),
        state: opening.state.clone(),
    })
}

fn absence_max(section: &Section) -> Duration {
    match tcti(section) {
        Ok(tcti) if tcti.device().is_some() => NODE_WAIT,
        _ => TPM_WAIT,
    }
}

fn tcti(section: &Section) -> Result<Tcti, Error> {
    Tcti::parse(section.tcti.as_deref().unwrap_or(TCTI))
        .map_err(|text| Error::new(Kind::Internal, format!("`tcti`: {text}")))
}
