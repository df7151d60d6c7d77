//! `assertctl approve request`, `bytes` and `finish`: a state of the host that keys are to sign in is written
//! down for who approves it, and comes back signed. The authority's private key is never here: what it
//! signs is a file of 64 bytes, for openssl or an HSM. They are made by `approve bytes` where they are signed,
//! of the values that it shows there: a host that made them could have anything signed. The host has the
//! public key in its configuration.

use super::args::{Args, Format};
use super::bring;
use super::failure::{Exit, Failure};
use super::given::{is_absent, read, refused};
use super::out::Out;
use super::place::put;
use crate::config::Config;
use crate::publication::tree::Dir;
use keystore::client::unexpected;
use keystore::config::Healthy;
use keystore::evidence::bundle::{PcrIndex, PcrValue};
use keystore::evidence::healthy::{
    APPROVAL_LEN_MAX, AUTHORITY_LEN_MAX, Approval, Authority, State, selection,
};
use keystore::protocol::{Reply, Request};
use serde::Serialize;
use std::collections::BTreeMap;
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
    /// `approve bytes`
    Bytes {
        /// What `approve request` wrote; none if only the authority's Name is wanted.
        request: Option<PathBuf>,
        /// `--output`
        output: Option<PathBuf>,
        /// `--authority`
        authority: Option<PathBuf>,
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
}

/// `--json` of `approve bytes`
#[derive(Serialize)]
struct BytesJson<'a> {
    format: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    authority: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    generation: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pcrs: Option<&'a State>,
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<String>,
}

/// Does it.
pub fn run(args: &Args, wish: &Wish, out: &mut Out) -> Result<Exit, Failure> {
    match wish {
        Wish::Bytes {
            request,
            output,
            authority,
        } => bytes(
            args.format,
            (request.as_deref(), output.as_deref(), authority.as_deref()),
            out,
        ),
        Wish::Request {
            keystore,
            pcrs,
            output,
        } => {
            let config = args.load_config()?;
            let bound = Bound::find(&config, keystore.as_deref())?;
            request(args, &config, &bound, pcrs, output, out)
        }
        Wish::Finish {
            request,
            signature,
            keystore,
        } => {
            let config = args.load_config()?;
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
        Ok(Bound {
            keystore,
            healthy,
            authority: authority_in(path, Exit::Configuration)?,
            approvals,
        })
    }
}

/// Whose public key is in a file.
fn authority_in(path: &Path, exit: Exit) -> Result<Authority, Failure> {
    let text = read(path, AUTHORITY_LEN_MAX)?;
    let wrong = |why| Failure::new(exit, format!("{}: {why}", path.display()));
    let text = String::from_utf8(text).map_err(|_| wrong("is no text".to_owned()))?;
    Authority::from_pem(&text).map_err(wrong)
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
    put(output, approval.to_json().as_bytes())?;
    let file = output.display().to_string();
    if args.format == Format::Json {
        show(bound, &approval, file, out)?;
        return Ok(Exit::Done);
    }
    for (index, value) in approval.pcrs.values() {
        let whose = match given.contains_key(index) {
            true => "as given",
            false => "as it is now",
        };
        out.line(&format!("PCR {index} {value} {whose}"));
    }
    out.line(&format!("generation {}", approval.generation));
    out.line(&format!("{file}: written"));
    out.line(&format!(
        "next: whoever has the private key of {} compares the values, and signs, on a machine of theirs:",
        bound.authority
    ));
    out.line(&format!("  assertctl approve bytes {file} -o {file}.tbs"));
    out.line(&format!(
        "  {}",
        signing(&format!("{file}.tbs"), &format!("{file}.sig"))
    ));
    out.line(&format!(
        "then, here: assertctl approve finish {file} {file}.sig"
    ));
    Ok(Exit::Done)
}

/// What openssl is to be told.
fn signing(bytes: &str, signature: &str) -> String {
    format!("openssl dgst -sha256 -sign KEY -out {signature} {bytes}")
}

/// For who approves, on a machine that has no keystore and no configuration: what a request says, and the
/// bytes to be signed for that and nothing else.
fn bytes(
    format: Format,
    (request, output, authority): (Option<&Path>, Option<&Path>, Option<&Path>),
    out: &mut Out,
) -> Result<Exit, Failure> {
    let authority = authority.map(|path| authority_in(path, Exit::Refused));
    let authority = authority.transpose()?;
    let approval = match request {
        Some(path) => {
            let json = read(path, APPROVAL_LEN_MAX)?;
            Some(Approval::parse(&json).map_err(|why| refused(path, &why))?)
        }
        None => None,
    };
    if let (Some(approval), Some(output)) = (&approval, output) {
        put(output, &approval.to_be_signed())?;
    }
    let file = output.map(|path| path.display().to_string());
    if format == Format::Json {
        out.json(&BytesJson {
            format: 1,
            authority: authority.map(|it| it.to_string()),
            generation: approval.as_ref().map(|it| it.generation.0),
            pcrs: approval.as_ref().map(|it| &it.pcrs),
            file,
        })?;
        return Ok(Exit::Done);
    }
    if let Some(authority) = authority {
        out.line(&format!("authority {authority}"));
    }
    if let Some(approval) = approval {
        for (index, value) in approval.pcrs.values() {
            out.line(&format!("PCR {index} {value}"));
        }
        out.line(&format!("generation {}", approval.generation));
    }
    if let Some(file) = file {
        out.line(&format!("{file}: written; they approve these values"));
        out.line(
            "if you know them for those of a good state, and this key signs nothing but approvals:",
        );
        out.line(&format!("  {}", signing(&file, "SIGNATURE")));
    }
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
    // By what it says: a request may have the name of an earlier one, whose approval goes on.
    let place = bound.approvals.join(approval.file_name(&bound.authority));
    let is_new = make_dir(bound.approvals)?;
    put(&place, approval.to_json().as_bytes())?;
    let shown = place.display().to_string();
    match args.format {
        Format::Json => show(bound, &approval, shown, out)?,
        Format::Text => out.line(&format!(
            "{shown}: written; keys of keystore {} that take approvals of {} sign in this state: PCR {}",
            bound.keystore, bound.authority, approval.pcrs
        )),
    }
    if is_new {
        eprintln!(
            "assertctl: {} was not there, and is made; if keystore {} does not read it, restart the keystore",
            bound.approvals.display(),
            bound.keystore
        );
    }
    Ok(Exit::Done)
}

fn show(
    bound: &Bound<'_>,
    approval: &Approval,
    file: String,
    out: &mut Out,
) -> Result<(), Failure> {
    out.json(&ApproveJson {
        format: 1,
        keystore: bound.keystore,
        authority: bound.authority.to_string(),
        generation: approval.generation.0,
        pcrs: &approval.pcrs,
        file,
    })
}

/// Sees to it that the directory is there, and says whether it was not. The keystore has a user of its own, who
/// has to be able to read it, whatever the umask.
fn make_dir(path: &Path) -> Result<bool, Failure> {
    let is_new = is_absent(path);
    if is_new {
        let made = Dir::open_own(path);
        made.map_err(|error| Failure::new(Exit::Refused, error.to_string()))?;
    }
    Ok(is_new)
}
