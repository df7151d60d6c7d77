//! `assertctl approve request` and `approve finish`: a state of the host that keys are to sign in is written
//! down for who approves it, and comes back signed. The authority's private key is never here: what it
//! signs is a file of 64 bytes, for openssl or an HSM. Its public key is in the configuration.

use super::args::{Args, Format};
use super::bring;
use super::failure::{Exit, Failure};
use super::given::{read, refused};
use super::out::Out;
use super::place::put;
use crate::config::Config;
use keystore::client::unexpected;
use keystore::config::{Healthy, reason};
use keystore::evidence::bundle::{PcrIndex, PcrValue};
use keystore::evidence::healthy::{
    APPROVAL_LEN_MAX, AUTHORITY_LEN_MAX, Approval, Authority, State, selection,
};
use keystore::protocol::{Reply, Request};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fs::DirBuilder;
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// Longest signature in DER: ECDSA on P-256 has 72 bytes.
const SIGNATURE_LEN_MAX: usize = 1024;

/// What was asked for.
#[derive(Debug, PartialEq, Eq)]
pub enum Wish {
    /// `approve request`
    Request {
        /// `--keystore`
        keystore: Option<String>,
        /// `--pcr`: in place of what the TPM shows.
        pcrs: BTreeMap<PcrIndex, PcrValue>,
        /// `--output`
        output: PathBuf,
    },
    /// `approve finish`
    Finish {
        /// What `approve request` wrote.
        request: PathBuf,
        /// What the authority made of it.
        signature: PathBuf,
        /// `--keystore`
        keystore: Option<String>,
    },
}

/// `--json`
#[derive(Serialize)]
struct ApproveJson<'a> {
    format: u32,
    keystore: &'a str,
    authority: String,
    generation: u32,
    pcrs: &'a State,
    file: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    to_be_signed: Option<String>,
}

/// Does it.
pub fn run(args: &Args, wish: &Wish, out: &mut Out) -> Result<Exit, Failure> {
    let config = args.load_config()?;
    match wish {
        Wish::Request {
            keystore,
            pcrs,
            output,
        } => {
            let bound = Bound::find(&config, keystore.as_deref())?;
            request(args, &config, &bound, pcrs, output, out)
        }
        Wish::Finish {
            request,
            signature,
            keystore,
        } => {
            let bound = Bound::find(&config, keystore.as_deref())?;
            finish(args, &bound, (request, signature), out)
        }
    }
}

/// A keystore whose keys sign in states that somebody approves.
struct Bound<'a> {
    keystore: &'a str,
    healthy: &'a Healthy,
    authority: Authority,
    approvals: &'a Path,
}

impl<'a> Bound<'a> {
    /// The one that is meant, or the only one.
    fn find(config: &'a Config, keystore: Option<&str>) -> Result<Bound<'a>, Failure> {
        let has = |(name, section): (&'a String, &'a keystore::config::Section)| {
            let healthy = section.healthy.as_ref()?;
            let (authority, approvals) = (healthy.authority.as_ref()?, healthy.approvals.as_ref()?);
            Some((name.as_str(), healthy, authority, approvals))
        };
        let all: Vec<_> = config.keystores.iter().filter_map(has).collect();
        let names: Vec<&str> = all.iter().map(|(name, ..)| *name).collect();
        let found = match (keystore, &all[..]) {
            (Some(wanted), all) => all.iter().find(|(name, ..)| *name == wanted),
            (None, [only]) => Some(only),
            (None, _) => None,
        };
        let Some((keystore, healthy, path, approvals)) = found else {
            let text = match (keystore, &names[..]) {
                (_, []) => {
                    "no keystore has an `authority` in its [healthy]: no state of this host is \
                            approved by anybody"
                        .to_owned()
                }
                (None, names) => format!("which keystore? --keystore {}", names.join(" or ")),
                (Some(wanted), names) => format!(
                    "keystore {wanted} has no `authority` in [healthy]; those that have one: {}",
                    names.join(", ")
                ),
            };
            return Err(Failure::new(Exit::Refused, text));
        };
        let text = read(path, AUTHORITY_LEN_MAX)?;
        let wrong = |why| Failure::new(Exit::Configuration, format!("{}: {why}", path.display()));
        let text = String::from_utf8(text).map_err(|_| wrong("is no text".to_owned()))?;
        Ok(Bound {
            keystore,
            healthy,
            authority: Authority::from_pem(&text).map_err(wrong)?,
            approvals,
        })
    }
}

fn request(
    args: &Args,
    config: &Config,
    bound: &Bound<'_>,
    given: &BTreeMap<PcrIndex, PcrValue>,
    output: &Path,
    out: &mut Out,
) -> Result<Exit, Failure> {
    let wanted = bound.healthy.indices();
    if let Some(other) = given.keys().find(|index| !wanted.contains(index)) {
        let text = format!(
            "--pcr {other}: is not among `pcrs` in [keystore.{}.healthy], and says nothing of its keys",
            bound.keystore
        );
        return Err(Failure::new(Exit::Refused, text));
    }
    let mut values = match given.len() == wanted.len() {
        true => BTreeMap::new(), // nothing to be asked, so that another machine does as well
        false => match bring::ask(config, bound.keystore, &Request::State {})? {
            Reply::State(state) => state.values().clone(),
            _ => return Err(Failure::from_keystore(&unexpected())),
        },
    };
    values.extend(given.iter().map(|(index, value)| (*index, value.clone())));
    let state = State::new(values).map_err(|why| Failure::new(Exit::Refused, why))?;
    let approval = Approval::draft(state, bound.healthy.generation());
    let to_be_signed = beside(output, ".tbs");
    put(output, approval.to_json().as_bytes())?;
    put(&to_be_signed, &approval.to_be_signed())?;
    let (file, signed) = (
        output.display().to_string(),
        to_be_signed.display().to_string(),
    );
    if args.format == Format::Json {
        show(bound, &approval, file, Some(signed), out)?;
        return Ok(Exit::Done);
    }
    for (index, value) in approval.pcrs.values() {
        let whose = match given.contains_key(index) {
            true => "as given",
            false => "as it is now",
        };
        out.line(&format!("PCR {index} {value} {whose}"));
    }
    out.line(&format!("{file}, {signed}: written"));
    out.line(&format!(
        "next: whoever has the private key of {} looks at the values, and signs the second file:",
        bound.authority
    ));
    out.line(&format!(
        "  openssl dgst -sha256 -sign KEY -out {file}.sig {signed}"
    ));
    out.line(&format!("then: assertctl approve finish {file} {file}.sig"));
    Ok(Exit::Done)
}

fn finish(
    args: &Args,
    bound: &Bound<'_>,
    (request, signature): (&Path, &Path),
    out: &mut Out,
) -> Result<Exit, Failure> {
    let draft = read(request, APPROVAL_LEN_MAX)?;
    let draft = Approval::parse(&draft).map_err(|why| refused(request, &why))?;
    let (found, wanted) = (draft.generation, bound.healthy.generation());
    if found != wanted {
        let text = format!("is of generation {found}, and [healthy] says {wanted}");
        return Err(refused(request, &text));
    }
    if draft.pcrs.selection() != selection(bound.healthy.indices()) {
        return Err(refused(
            request,
            &"is about other PCRs than [healthy] names",
        ));
    }
    let der = read(signature, SIGNATURE_LEN_MAX)?;
    let approval = draft.signed(&der, &bound.authority);
    let approval = approval.map_err(|why| refused(signature, &why))?;
    let name = request.file_name().unwrap_or_default();
    let name = Path::new(name).with_extension("json");
    let place = bound.approvals.join(name);
    // The keystore has a user of its own.
    match DirBuilder::new().mode(0o755).create(bound.approvals) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => {
            return Err(refused(bound.approvals, &reason(&error)));
        }
        _ => {}
    }
    put(&place, approval.to_json().as_bytes())?;
    let shown = place.display().to_string();
    match args.format {
        Format::Json => show(bound, &approval, shown, None, out)?,
        Format::Text => out.line(&format!(
            "{shown}: written; keys of keystore {} that take approvals of {} sign in this state: PCR {}",
            bound.keystore, bound.authority, approval.pcrs
        )),
    }
    Ok(Exit::Done)
}

fn show(
    bound: &Bound<'_>,
    approval: &Approval,
    file: String,
    to_be_signed: Option<String>,
    out: &mut Out,
) -> Result<(), Failure> {
    out.json(&ApproveJson {
        format: 1,
        keystore: bound.keystore,
        authority: bound.authority.to_string(),
        generation: approval.generation.0,
        pcrs: &approval.pcrs,
        file,
        to_be_signed,
    })
}

/// The same path with more behind it.
fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut path = path.as_os_str().to_owned();
    path.push(suffix);
    path.into()
}
