//! `assertctl audit`: reads the log's files; assertd need not run. Never writes there.

use super::args::{Args, Format};
use super::failure::{Exit, Failure};
use super::out::{Out, count, rfc3339};
use crate::audit::chain::records;
use crate::audit::record::Body;
use crate::audit::{Decision, Error, PeerProof, Record, Verdict, verify as verify_chain};
use serde::Serialize;
use std::collections::VecDeque;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// `audit verify --json`. `verdict` is `intact`, `torn`, `empty` or `bad`.
#[derive(Debug, Serialize)]
struct VerdictJson<'a> {
    format: u32,
    directory: &'a Path,
    verdict: &'static str,
    text: String,
}

/// Verifies the log in `dir`, or in the configuration's directory.
pub fn verify(args: &Args, dir: Option<&Path>, out: &mut Out) -> Result<Exit, Failure> {
    let dir = directory(args, dir)?;
    let verdict = verify_chain(&dir).map_err(|error| failed(&error))?;
    let (word, exit, text) = words(&verdict);
    if args.format == Format::Json {
        out.json(&VerdictJson {
            format: 1,
            directory: &dir,
            verdict: word,
            text,
        })?;
        return Ok(exit);
    }
    let text = format!("audit log {}: {text}", dir.display());
    match exit {
        Exit::Done => {
            let sign = if word == "intact" { "ok  " } else { "warn" };
            out.line(&format!("{sign}  {text}"));
            Ok(exit)
        }
        _ => Err(Failure::new(exit, text)),
    }
}

/// Prints the last `count` records.
pub fn show(args: &Args, dir: Option<&Path>, count: usize, out: &mut Out) -> Result<Exit, Failure> {
    let dir = directory(args, dir)?;
    let mut last = VecDeque::new();
    for entry in records(&dir).map_err(|error| failed(&error))? {
        last.push_back(entry.map_err(|error| failed(&error))?);
        if last.len() > count {
            last.pop_front();
        }
    }
    match args.format {
        Format::Json => last.iter().for_each(|entry| out.line(&entry.line)),
        Format::Text => {
            out.table(
                &last
                    .iter()
                    .map(|entry| row(&entry.record))
                    .collect::<Vec<_>>(),
            );
        }
    }
    Ok(Exit::Done)
}

/// What the log says of one request, by its id: the section that granted and what became of it, or
/// why it was denied. More is known only for as long as assertd remembers it.
pub fn explain(args: &Args, id: &str, out: &mut Out) -> Result<Exit, Failure> {
    let dir = directory(args, None)?;
    let mut found = Vec::new();
    for entry in records(&dir).map_err(|error| failed(&error))? {
        let entry = entry.map_err(|error| failed(&error))?;
        if id_of(&entry.record.body) == Some(id) {
            found.push(entry);
        }
    }
    if found.is_empty() {
        let text = format!(
            "nothing is known of {id}: assertd does not remember it and no record in {} has it; \
             denials that repeat are counted there under the id of the first. For a process that \
             runs now: assertctl explain --pid P --target T",
            dir.display()
        );
        return Err(Failure::new(Exit::Refused, text));
    }
    match args.format {
        Format::Json => found.iter().for_each(|entry| out.line(&entry.line)),
        Format::Text => {
            let rows: Vec<_> = found.iter().map(|entry| row(&entry.record)).collect();
            out.table(&rows);
        }
    }
    Ok(Exit::Done)
}

fn id_of(body: &Body) -> Option<&str> {
    match body {
        Body::Decision(it) => Some(it.id.as_str()),
        Body::Outcome(it) => Some(it.id.as_str()),
        Body::Denied(it) => Some(it.id.as_str()),
        _ => None,
    }
}

fn directory(args: &Args, dir: Option<&Path>) -> Result<PathBuf, Failure> {
    match dir {
        Some(dir) => Ok(dir.to_owned()),
        None => Ok(args.load_config()?.audit.dir),
    }
}

fn failed(error: &Error) -> Failure {
    let exit = match error {
        Error::Io { source, .. } if source.kind() == ErrorKind::PermissionDenied => {
            Exit::NotPermitted
        }
        _ => Exit::Refused,
    };
    Failure::new(exit, error.to_string())
}

fn words(verdict: &Verdict) -> (&'static str, Exit, String) {
    match verdict {
        Verdict::Intact { segments: 0, .. } => {
            let text =
                "there is no record at all; assertd writes one when it starts, so either it \
                        never did or somebody has removed the log"
                    .to_owned();
            ("empty", Exit::Refused, text)
        }
        Verdict::Intact {
            first_seq,
            next,
            segments,
        } => {
            let missing = match first_seq {
                0 => String::new(),
                first => format!("; the records before {first} are kept elsewhere, or lost"),
            };
            let text = format!(
                "records {first_seq} to {} in {} follow from each other{missing}",
                next.seq.saturating_sub(1),
                count(*segments, "segment")
            );
            ("intact", Exit::Done, text)
        }
        Verdict::Torn {
            file,
            line,
            next,
            at,
            bytes,
        } => {
            let text = format!(
                "the records before {} follow from each other; {} line {line}: {bytes} bytes at \
                 offset {at} are cut short, by a crash or by a write that goes on right now; \
                 assertd repairs and records that when it starts",
                next.seq,
                file.display()
            );
            ("torn", Exit::Done, text)
        }
        Verdict::Bad {
            file,
            line,
            seq,
            what,
        } => {
            let text = format!(
                "{} line {line} (record {seq}): {what}; the records before it follow from each \
                 other. Keep the directory as evidence",
                file.display()
            );
            ("bad", Exit::Refused, text)
        }
    }
}

/// One record as people read it: number, time, kind, then what it says.
fn row(record: &Record) -> Vec<String> {
    let (kind, what) = says(&record.body);
    vec![
        record.seq.to_string(),
        record.time.clone(),
        kind.to_owned(),
        what,
    ]
}

fn says(body: &Body) -> (&'static str, String) {
    let unit = |unit: &Option<crate::audit::LongText>| {
        unit.as_ref()
            .map_or("no unit".to_owned(), |unit| unit.as_str().to_owned())
    };
    match body {
        Body::Decision(it) => (
            "decision",
            format!(
                "{} → {}, uid {}, pid {}, {}{}, kid {}, until {}, id {}",
                it.workload.as_str(),
                it.target.as_str(),
                it.uid,
                it.pid,
                unit(&it.unit),
                remarks(it),
                it.kid.as_str(),
                rfc3339(it.exp),
                it.id.as_str()
            ),
        ),
        Body::Outcome(it) => {
            let reason = it
                .reason
                .as_ref()
                .map_or(String::new(), |r| format!(" ({})", r.as_str()));
            (
                "outcome",
                format!("{}{reason}, id {}", word(&it.result), it.id.as_str()),
            )
        }
        Body::Denied(it) => (
            "denied",
            format!(
                "{} for {}, uid {}, pid {}, {}, id {}",
                it.reason.as_str(),
                it.target
                    .as_ref()
                    .map_or("a target nobody has", |target| target.as_str()),
                it.uid,
                it.pid,
                unit(&it.unit),
                it.id.as_str()
            ),
        ),
        Body::Denials(it) => {
            let uid = it
                .uid
                .map_or("several uids".to_owned(), |uid| format!("uid {uid}"));
            let text = format!(
                "{} more: {}, {uid}, from {} to {}",
                it.count,
                it.reason.as_str(),
                it.first,
                it.last
            );
            ("denials", text)
        }
        Body::Opened(it) => (
            "opened",
            format!("assertd {} on {}", it.version.as_str(), it.host.as_str()),
        ),
        Body::Closed(it) => (
            "closed",
            format!("{} denials unrecorded", it.denials_unrecorded),
        ),
        Body::Repaired(it) => (
            "repaired",
            format!(
                "{}: {} bytes at {} are no part of the log ({})",
                it.file.as_str(),
                it.bytes,
                it.at,
                word(&it.cause)
            ),
        ),
        Body::Key(it) => (
            "key",
            format!(
                "{} {}, kid {}{}{}",
                it.key.as_str(),
                word(&it.action),
                it.kid.as_str(),
                it.claims_sha256
                    .as_ref()
                    .map(|it| format!(", claims sha256 {}", word(it)))
                    .unwrap_or_default(),
                it.x5t_s256
                    .as_ref()
                    .map(|it| format!(", x5t#S256 {}", it.as_str()))
                    .unwrap_or_default()
            ),
        ),
        Body::Attested(it) => (
            "attested",
            format!(
                "{} of keystore {} as host {}, {}, for nonce {}, uid {}",
                count(usize::try_from(it.keys).unwrap_or(usize::MAX), "key"),
                it.keystore.as_str(),
                it.host.as_str(),
                word(&it.evidence),
                it.nonce.as_str(),
                it.uid
            ),
        ),
        Body::Configured(it) => (
            "configured",
            match &it.deny_sha256 {
                None => format!("configuration sha256 {}", word(&it.config_sha256)),
                Some(deny) => format!(
                    "configuration sha256 {}, deny lists {}",
                    word(&it.config_sha256),
                    word(deny)
                ),
            },
        ),
        Body::Unknown => (
            "unknown",
            "a later version wrote this; see --json".to_owned(),
        ),
    }
}

/// What is not so with most grants: that is what somebody looks for.
fn remarks(decision: &Decision) -> String {
    let mut text = String::new();
    if !decision.shadow.is_empty() {
        let failed: Vec<&str> = decision.shadow.iter().map(|key| key.as_str()).collect();
        text += &format!(", its shadow would refuse ({})", failed.join(", "));
    }
    if let Some(sha256) = &decision.exe_sha256 {
        text += &format!(", executable sha256 {}", word(sha256));
    }
    if let Some(evidence) = &decision.evidence {
        text += &format!(", evidence {}", word(evidence));
    }
    if decision.peer_proof == PeerProof::Pid {
        text += ", by its pid alone";
    }
    text
}

/// An enum's or a digest's word, as it stands in the log.
fn word(value: &impl Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        _ => "?".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::chain::Link;

    #[test]
    fn a_log_that_is_gone_does_not_verify() {
        let verdict = Verdict::Intact {
            first_seq: 0,
            next: Link::FIRST,
            segments: 0,
        };
        assert_eq!(words(&verdict).1, Exit::Refused);
        let empty = tempfile::tempdir().unwrap();
        let verdict = verify_chain(empty.path()).unwrap();
        assert_eq!(words(&verdict).0, "empty");
    }

    #[test]
    fn a_changed_record_is_named_with_file_and_line() {
        let file = PathBuf::from("/a/audit-0.log");
        let verdict = Verdict::Bad {
            file,
            line: 7,
            seq: 6,
            what: "its digest is another",
        };
        let (word, exit, text) = words(&verdict);
        assert_eq!((word, exit), ("bad", Exit::Refused));
        assert!(
            text.starts_with("/a/audit-0.log line 7 (record 6): its digest"),
            "{text}"
        );
    }

    #[test]
    fn a_torn_tail_is_no_change() {
        let (file, next) = (PathBuf::from("/a/audit-0.log"), Link::FIRST);
        let verdict = Verdict::Torn {
            file,
            line: 7,
            next,
            at: 5,
            bytes: 3,
        };
        assert_eq!(words(&verdict).1, Exit::Done);
    }

    #[test]
    fn missing_older_segments_are_told() {
        let verdict = Verdict::Intact {
            first_seq: 40,
            next: Link::FIRST,
            segments: 1,
        };
        assert!(
            words(&verdict)
                .2
                .contains("the records before 40 are kept elsewhere")
        );
    }
}
