//! `assertctl enroll challenge` and `enroll finish`: the verifier's side of enrolment, of one host or of a batch.
//! Each file is answered by itself; one that is refused does not keep the others back.

use super::args::{Args, Format};
use super::failure::{Exit, Failure};
use super::given::read;
use super::out::Out;
use super::place::put;
use super::relying::{Held, JSON, Named, PENDING_MAX, Relying, batch};
use keystore::Clock;
use keystore::evidence::bundle::Host;
use keystore::evidence::enrolment::approval::{Approved, LIST_LEN_MAX};
use keystore::evidence::enrolment::registry::Replacing;
use keystore::evidence::enrolment::vetting::{Rules, vet};
use keystore::evidence::enrolment::{
    EXPIRES_S, EnrolmentId, FILE_LEN_MAX, File as _, Request, Response, challenge,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// How the files of an enrolment say what they are.
const ENROLMENT: &str = "assertd-enrolment-";
const REQUEST: &str = "assertd-enrolment-request";
const RESPONSE: &str = "assertd-enrolment-response";

/// What was asked for.
#[derive(Debug, PartialEq, Eq)]
pub enum Wish {
    /// `enroll challenge`
    Challenge {
        /// Requests, or directories of such.
        requests: Vec<PathBuf>,
        /// `--policy`
        policy: PathBuf,
        /// `--approved`
        approved: Option<PathBuf>,
        /// `--output`
        output: PathBuf,
        /// `--expires`
        expires_s: Option<u32>,
        /// `--replace`
        replaced: BTreeSet<Host>,
    },
    /// `enroll finish`
    Finish {
        /// Responses, or directories of such.
        responses: Vec<PathBuf>,
        /// `--policy`
        policy: PathBuf,
        /// `--replace`
        replaced: BTreeSet<Host>,
    },
}

/// `--json`
#[derive(Serialize)]
struct BatchJson<'a> {
    format: u32,
    files: &'a [Row],
}

/// What came of one file.
#[derive(Serialize)]
struct Row {
    file: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    host: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    keystore: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ek: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    challenge: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    refused: Option<String>,
}

/// Does it.
pub fn run(args: &Args, wish: &Wish, out: &mut Out) -> Result<Exit, Failure> {
    let rows = match wish {
        Wish::Challenge { .. } => challenges(wish)?,
        Wish::Finish {
            responses,
            policy,
            replaced,
        } => finish(responses, policy, replaced)?,
    };
    match args.format {
        Format::Json => out.json(&BatchJson {
            format: 1,
            files: &rows,
        })?,
        Format::Text => out.table(&rows.iter().map(Row::cells).collect::<Vec<_>>()),
    }
    match rows.iter().any(|row| row.refused.is_some()) {
        false => Ok(Exit::Done),
        true => Ok(Exit::Refused),
    }
}

fn challenges(wish: &Wish) -> Result<Vec<Row>, Failure> {
    let Wish::Challenge {
        requests,
        policy,
        approved,
        output,
        expires_s,
        replaced,
    } = wish
    else {
        return Ok(Vec::new());
    };
    let relying = Relying::load(policy)?;
    let approved = approved.as_deref().map(read_approved).transpose()?;
    let held = relying.hold_registry()?;
    let now = Clock::new().read().unix_s();
    let rules = Rules {
        policy: &relying.policy,
        roots: &relying.roots,
        approved: approved.as_ref(),
        registry: &held.registry,
        replaced,
        now,
    };
    let mut desk = Desk {
        rules,
        expires_at: now.saturating_add(expires_s.map_or(EXPIRES_S, u64::from)),
        output,
        room: PENDING_MAX.saturating_sub(held.beside.forget_expired(now)?),
        held: &held,
        written: BTreeSet::new(),
    };
    let mut rows = Vec::new();
    for named in batch(requests, JSON)? {
        if is_another(&named, REQUEST) {
            continue;
        }
        let path = named.path;
        let mut row = Row::of(&path);
        match desk.challenge(&path, &mut row) {
            Ok(()) => {}
            Err(failure) if failure.exit == Exit::Refused => row.refused = Some(failure.message),
            Err(failure) => return Err(failure),
        }
        rows.push(row);
    }
    Ok(rows)
}

/// What requests of a batch are answered with.
struct Desk<'a> {
    rules: Rules<'a>,
    expires_at: u64,
    output: &'a Path,
    held: &'a Held,
    /// How many more can be pending.
    room: usize,
    written: BTreeSet<PathBuf>,
}

impl Desk<'_> {
    fn challenge(&mut self, path: &Path, row: &mut Row) -> Result<(), Failure> {
        let refused = |why: String| Failure::new(Exit::Refused, why);
        let request = Request::parse(&read(path, FILE_LEN_MAX)?).map_err(refused)?;
        row.host = Some(request.host.to_string());
        row.keystore = Some(request.keystore.to_string());
        let (enrolled, ek) = vet(&request, &self.rules).map_err(refused)?;
        row.ek = Some(enrolled.ek.to_string());
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        let name = name.strip_suffix(JSON).unwrap_or(name);
        let name = name.strip_suffix(".request").unwrap_or(name);
        let to = self.output.join(format!("{name}.challenge.json"));
        if !self.written.insert(to.clone()) {
            let text = format!(
                "{}: is another request's challenge of this batch",
                to.display()
            );
            return Err(refused(text));
        }
        if self.room == 0 {
            let text =
                format!("{PENDING_MAX} challenges are open, which is the most: finish them first");
            return Err(refused(text));
        }
        let made = challenge(&request, enrolled, &ek, self.expires_at);
        let (challenge, pending) = made.map_err(refused)?;
        self.held.beside.keep(&pending)?;
        self.room -= 1;
        put(&to, challenge.to_json().as_bytes())?;
        row.challenge = Some(to.display().to_string());
        Ok(())
    }
}

fn finish(
    responses: &[PathBuf],
    policy: &Path,
    replaced: &BTreeSet<Host>,
) -> Result<Vec<Row>, Failure> {
    let relying = Relying::load(policy)?;
    let mut held = relying.hold_registry()?;
    let now = Clock::new().read().unix_s();
    let (mut rows, mut used) = (Vec::new(), Vec::new());
    for named in batch(responses, JSON)? {
        if is_another(&named, RESPONSE) {
            continue;
        }
        let path = named.path;
        let mut row = Row::of(&path);
        match one_response(&path, now, replaced, &mut held, &mut used, &mut row) {
            Ok(()) => {}
            Err(failure) if failure.exit == Exit::Refused => row.refused = Some(failure.message),
            Err(failure) => return Err(failure),
        }
        rows.push(row);
    }
    // Once for all: what a crash has left out is answered again in the same way.
    if !used.is_empty() {
        held.write()?;
        used.into_iter().try_for_each(|id| held.beside.forget(id))?;
    }
    Ok(rows)
}

fn one_response(
    path: &Path,
    now: u64,
    replaced: &BTreeSet<Host>,
    held: &mut Held,
    used: &mut Vec<EnrolmentId>,
    row: &mut Row,
) -> Result<(), Failure> {
    let refused = |why: String| Failure::new(Exit::Refused, why);
    let response = Response::parse(&read(path, FILE_LEN_MAX)?).map_err(refused)?;
    row.host = Some(response.host.to_string());
    let Some(pending) = held.beside.pending(response.id)? else {
        let text = "no challenge is open for it: it was answered already, or is another verifier's";
        return Err(refused(text.into()));
    };
    row.keystore = Some(pending.enrolled.keystore.to_string());
    row.ek = Some(pending.enrolled.ek.to_string());
    match pending.proven(&response, now) {
        Ok(enrolled) => {
            let replacing = match replaced.contains(&enrolled.host) {
                true => Replacing::Meant,
                false => Replacing::Refused,
            };
            // Before the challenge is used up: who forgot --replace need not go the whole way again.
            let recorded = held.registry.record(enrolled.clone(), replacing);
            recorded.map_err(|conflict| refused(conflict.to_string()))?;
            used.push(response.id);
            Ok(())
        }
        // A challenge is good for one answer, be it right or wrong.
        Err(why) => {
            held.beside.forget(response.id)?;
            Err(refused(why.to_string()))
        }
    }
}

/// Whether it is one of the other files of an enrolment, which may lie in the same directory.
fn is_another(named: &Named, wanted: &str) -> bool {
    #[derive(Deserialize)]
    struct Typed {
        r#type: String,
    }
    let read = || -> Option<Typed> {
        let bytes = read(&named.path, FILE_LEN_MAX).ok()?;
        serde_json::from_slice(&bytes).ok()
    };
    let is_ours = |it: &Typed| it.r#type.starts_with(ENROLMENT) && it.r#type != wanted;
    named.is_one_of_many && read().is_some_and(|it| is_ours(&it))
}

fn read_approved(path: &Path) -> Result<Approved, Failure> {
    let wrong = |text: String| Failure::new(Exit::Configuration, text);
    let shown = path.display();
    let text = String::from_utf8(read(path, LIST_LEN_MAX)?);
    let text = text.map_err(|_| wrong(format!("{shown}: is no UTF-8")))?;
    Approved::parse(&text).map_err(|(line, why)| wrong(format!("{shown}:{line}: {why}")))
}

impl Row {
    fn of(path: &Path) -> Row {
        Row {
            file: path.display().to_string(),
            host: None,
            keystore: None,
            ek: None,
            challenge: None,
            refused: None,
        }
    }

    fn cells(&self) -> Vec<String> {
        let place = match (&self.host, &self.keystore) {
            (Some(host), Some(keystore)) => format!("{host}/{keystore}"),
            (Some(host), None) => host.clone(),
            (None, _) => self.file.clone(),
        };
        let end = match (&self.refused, &self.challenge) {
            (Some(why), _) => return vec!["refused".into(), place, why.clone()],
            (None, Some(challenge)) => challenge.clone(),
            (None, None) => format!("ek {}", self.ek.as_deref().unwrap_or_default()),
        };
        let done = match self.challenge {
            Some(_) => "challenge",
            None => "enrolled",
        };
        vec![done.into(), place, end]
    }
}
