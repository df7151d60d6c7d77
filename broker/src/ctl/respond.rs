//! `assertctl enroll request` and `enroll respond`: the host's side of enrolment. What the TPM is goes
//! into a file, and what comes back for it is opened by the TPM, which proves that the attestation key and
//! the endorsement key are in it. Files, so that hands can carry them.

use super::args::{Args, Format};
use super::bring;
use super::failure::{Exit, Failure};
use super::given::{read, refused};
use super::out::Out;
use super::place::put;
use crate::config::Config;
use crate::sys;
use keystore::client::unexpected;
use keystore::config::BackendKind;
use keystore::evidence::bundle::{Host, Text};
use keystore::evidence::enrolment::{
    Challenge, FILE_LEN_MAX, File as _, Request as EnrolmentRequest, RequestType, Response,
    ResponseType, VERSION,
};
use keystore::protocol::{Credential, Identity, Reply, Request};
use std::path::{Path, PathBuf};

/// Writes what the TPM of a keystore is.
pub fn request(
    args: &Args,
    keystore: Option<&str>,
    output: Option<&Path>,
    out: &mut Out,
) -> Result<Exit, Failure> {
    let config = args.load_config()?;
    let keystore = choose(&config, keystore)?;
    let Reply::Identity(identity) = bring::ask(&config, keystore, &Request::Identity {})? else {
        return Err(Failure::from_keystore(&unexpected()));
    };
    let Identity::Tpm(tpm) = *identity else {
        let text =
            format!("keystore {keystore} has no TPM: its keys are asserted, and not enrolled");
        return Err(Failure::new(Exit::Refused, text));
    };
    let certified = tpm.ek.certificate.is_some();
    let file = EnrolmentRequest {
        r#type: RequestType::Request,
        version: VERSION,
        host: host(&config)?,
        keystore: Text::cut(keystore),
        tpm,
    };
    write(args, &file.to_json(), output, out)?;
    if !certified {
        eprintln!(
            "assertctl: warn: this TPM shows no certificate of its endorsement key: whoever enrols it has \
             to know the key by its fingerprint"
        );
    }
    Ok(Exit::Done)
}

/// Has a challenge opened, and writes what was in it.
pub fn respond(
    args: &Args,
    challenge: &Path,
    output: Option<&Path>,
    out: &mut Out,
) -> Result<Exit, Failure> {
    let config = args.load_config()?;
    let file = challenge;
    let challenge = Challenge::parse(&read(file, FILE_LEN_MAX)?);
    let challenge = challenge.map_err(|why| refused(file, &why))?;
    let ours = host(&config)?;
    if challenge.host != ours {
        let text = format!(
            "the challenge is for host {}, and this is {ours}",
            challenge.host
        );
        return Err(Failure::new(Exit::Refused, text));
    }
    let keystore = choose(&config, Some(challenge.keystore.as_str()))?;
    let request = Request::Activate {
        credential: Credential {
            blob: challenge.credential.clone(),
            secret: challenge.secret.clone(),
        },
    };
    let Reply::Activated { secret } = bring::ask(&config, keystore, &request)? else {
        return Err(Failure::from_keystore(&unexpected()));
    };
    let file = Response {
        r#type: ResponseType::Response,
        version: VERSION,
        id: challenge.id,
        host: ours,
        secret,
    };
    write(args, &file.to_json(), output, out)?;
    Ok(Exit::Done)
}

/// The keystore that is meant, or the only one with a TPM.
fn choose<'a>(config: &'a Config, keystore: Option<&'a str>) -> Result<&'a str, Failure> {
    let tpms = config.keystores.iter();
    let tpms = tpms.filter(|(_, section)| section.backend == BackendKind::Tpm);
    let names: Vec<&str> = tpms.map(|(name, _)| name.as_str()).collect();
    let text = match (keystore, &names[..]) {
        (Some(name), names) if names.contains(&name) => return Ok(name),
        (None, [only]) => return Ok(only),
        (_, []) => "the configuration has no keystore with a TPM".to_owned(),
        (None, names) => format!("which keystore? --keystore {}", names.join(" or ")),
        (Some(name), names) => format!(
            "there is no keystore {name} with a TPM; there are: {}",
            names.join(", ")
        ),
    };
    Err(Failure::new(Exit::Refused, text))
}

/// What verifiers call this host: what assertd says in evidence.
fn host(config: &Config) -> Result<Host, Failure> {
    let host = config.attest.host_of(&sys::hostname());
    host.map_err(|why| Failure::new(Exit::Configuration, why))
}

fn write(args: &Args, json: &str, output: Option<&Path>, out: &mut Out) -> Result<(), Failure> {
    match (output, args.format) {
        (None, _) => {
            out.line(json);
            Ok(())
        }
        (Some(path), format) => {
            put(path, json.as_bytes())?;
            if format == Format::Text {
                out.line(&format!("{}: written", PathBuf::from(path).display()));
            }
            Ok(())
        }
    }
}
