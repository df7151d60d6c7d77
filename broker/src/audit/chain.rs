//! Reads and verifies the log: which record is the first that does not fit, and whether that is the torn
//! tail of a crash or a change. Pure over bytes but for `Listing`, `verify` and `records`, which read files;
//! never writes, never panics on any bytes.
//!
//! **Torn or changed.** The writer writes a group of at most `GROUP_BYTES_MAX` bytes into zeros and begins the next
//! group only when that one is durable. A crash therefore leaves, in the last segment only and within that
//! length of its end, either a line cut short or whole disk sectors that still hold zeros. Everything else that
//! does not match is a change.
//!
//! **Overlap.** After a failed write the log goes on in a fresh segment from the last durable record. What the
//! abandoned segment holds beyond is no part of the log; the fresh segment's first record is a `repaired` record
//! that names file and offset, and only such a record excuses it.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use aws_lc_rs::digest;
use serde::Deserialize;

use super::error::{Error, io_error};
use super::record::{Body, LINE_BYTES_MAX, Record, RepairCause, Repaired, SUM_BYTES, Sha256, hex};

/// The most that is written before it is made durable; bounds what a crash can tear.
pub const GROUP_BYTES_MAX: u64 = 256 * 1024;
/// The smallest unit in which a disk holds either the old bytes or the new ones.
const SECTOR_BYTES: usize = 512;
/// No segment is longer: it is read into memory to be verified.
pub const SEGMENT_BYTES_MAX: u64 = 1 << 30;
/// The segment prepared ahead, or just begun, before it bears its first sequence number.
pub(super) const PREPARED: &str = "audit-next.prepared";

/// Where the chain goes on: the next sequence number, and the digest of the line before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    pub seq: u64,
    pub prev: Sha256,
}

impl Link {
    pub const FIRST: Link = Link {
        seq: 0,
        prev: Sha256::ZERO,
    };
}

/// What a verification found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Every record follows from the one before. `first_seq` is above 0 when older segments were taken away.
    Intact {
        first_seq: u64,
        next: Link,
        segments: usize,
    },
    /// Intact up to the end of `file`, where a crash, or a write going on at this moment, left `bytes` at `at`.
    Torn {
        file: PathBuf,
        line: u64,
        next: Link,
        at: u64,
        bytes: u64,
    },
    /// The first record that does not fit.
    Bad {
        file: PathBuf,
        line: u64,
        seq: u64,
        what: &'static str,
    },
}

/// What one segment's bytes hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Scan {
    Whole {
        next: Link,
        end: usize,
    },
    /// The records before `until` end at `end`, and `bytes` more follow.
    Overlap {
        next: Link,
        end: usize,
        bytes: usize,
    },
    Torn {
        next: Link,
        line: u64,
        at: usize,
        bytes: usize,
    },
    Bad {
        seq: u64,
        line: u64,
        what: &'static str,
    },
}

/// Where a segment's first record must link to.
#[derive(Clone, Copy)]
pub(super) enum From {
    Link(Link),
    /// The segment before is not there to say what `prev` must be.
    Seq(u64),
}

/// Verifies all segments in `dir`.
pub fn verify(dir: &Path) -> Result<Verdict, Error> {
    let listing = Listing::read(dir)?;
    verify_segments(&listing.segments)
}

/// All records of the intact part of the log in `dir`, oldest first; ends with the error that ended reading.
pub fn records(dir: &Path) -> Result<Records, Error> {
    let listing = Listing::read(dir)?;
    Ok(Records {
        segments: listing.segments,
        index: 0,
        lines: Vec::new().into_iter(),
    })
}

pub struct Records {
    segments: Vec<SegmentFile>,
    index: usize,
    lines: std::vec::IntoIter<Vec<u8>>,
}

/// A record with the line it was read from.
#[derive(Clone, Debug)]
pub struct Entry {
    pub record: Record,
    pub line: String,
}

impl Iterator for Records {
    type Item = Result<Entry, Error>;

    fn next(&mut self) -> Option<Result<Entry, Error>> {
        loop {
            if let Some(line) = self.lines.next() {
                return Some(self.entry(line));
            }
            let segment = self.segments.get(self.index)?;
            let until = self.segments.get(self.index + 1).map(|next| next.first_seq);
            self.index += 1;
            match segment.read() {
                Ok(bytes) => {
                    self.lines = lines_before(&bytes, segment.first_seq, until).into_iter()
                }
                Err(error) => {
                    self.index = self.segments.len();
                    return Some(Err(error));
                }
            }
        }
    }
}

impl Records {
    fn entry(&mut self, line: Vec<u8>) -> Result<Entry, Error> {
        let path = self.segments[self.index - 1].path.clone();
        match (serde_json::from_slice(&line), String::from_utf8(line)) {
            (Ok(record), Ok(line)) => Ok(Entry { record, line }),
            _ => {
                self.index = self.segments.len();
                self.lines = Vec::new().into_iter();
                Err(Error::Unreadable {
                    path,
                    what: "a line is not a record of this format",
                })
            }
        }
    }
}

fn lines_before(bytes: &[u8], first_seq: u64, until: Option<u64>) -> Vec<Vec<u8>> {
    let count = until.map_or(usize::MAX, |until| until.saturating_sub(first_seq) as usize);
    let content = &bytes[..content_end(bytes)];
    let complete = content
        .iter()
        .rposition(|&byte| byte == b'\n')
        .map_or(0, |at| at + 1);
    content[..complete]
        .split_inclusive(|&byte| byte == b'\n')
        .take(count)
        .map(|line| line[..line.len() - 1].to_vec())
        .collect()
}

/// The segments of a directory in the order of their first records.
pub(super) struct Listing {
    pub(super) segments: Vec<SegmentFile>,
}

#[derive(Clone, Debug)]
pub(super) struct SegmentFile {
    pub(super) path: PathBuf,
    pub(super) first_seq: u64,
}

impl Listing {
    /// Reads the names in `dir`. The prepared segment is the last one if it holds anything.
    pub(super) fn read(dir: &Path) -> Result<Listing, Error> {
        let mut segments = Vec::new();
        for entry in fs::read_dir(dir).map_err(io_error("list", dir))? {
            let entry = entry.map_err(io_error("list", dir))?;
            if let Some(first_seq) = entry.file_name().to_str().and_then(first_seq_of) {
                segments.push(SegmentFile {
                    path: entry.path(),
                    first_seq,
                });
            }
        }
        segments.sort_by_key(|segment| segment.first_seq);
        let prepared = SegmentFile {
            path: dir.join(PREPARED),
            first_seq: 0,
        };
        match prepared.read() {
            Ok(bytes) if content_end(&bytes) > 0 => {
                let link = match segments.last() {
                    Some(last) => last.end_seq()?,
                    None => 0,
                };
                let first_seq = first_line_seq(&bytes).unwrap_or(link);
                segments.push(SegmentFile {
                    first_seq,
                    ..prepared
                });
            }
            Ok(_) => {}
            Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        Ok(Listing { segments })
    }
}

pub(super) fn segment_name(first_seq: u64) -> String {
    format!("audit-{first_seq:020}.log")
}

fn first_seq_of(name: &str) -> Option<u64> {
    let digits = name.strip_prefix("audit-")?.strip_suffix(".log")?;
    let all_digits = digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit());
    if all_digits {
        digits.parse().ok()
    } else {
        None
    }
}

impl SegmentFile {
    pub(super) fn read(&self) -> Result<Vec<u8>, Error> {
        let file = File::options()
            .read(true)
            .custom_flags(nix::libc::O_NOFOLLOW | nix::libc::O_CLOEXEC | nix::libc::O_NONBLOCK)
            .open(&self.path)
            .map_err(io_error("open", &self.path))?;
        let metadata = file.metadata().map_err(io_error("read", &self.path))?;
        if !metadata.is_file() || metadata.len() > SEGMENT_BYTES_MAX {
            let what = "it is not a regular file of at most 1 GiB";
            return Err(Error::Unreadable {
                path: self.path.clone(),
                what,
            });
        }
        let mut bytes = Vec::with_capacity(metadata.len() as usize);
        file.take(SEGMENT_BYTES_MAX)
            .read_to_end(&mut bytes)
            .map_err(io_error("read", &self.path))?;
        Ok(bytes)
    }

    /// The sequence number after the last complete line, by counting lines.
    fn end_seq(&self) -> Result<u64, Error> {
        let bytes = self.read()?;
        let lines = bytes.iter().filter(|&&byte| byte == b'\n').count() as u64;
        Ok(self.first_seq.saturating_add(lines))
    }
}

/// Verifies `segments`, which follow each other; the first one's own `prev` is believed unless it begins at 0.
pub(super) fn verify_segments(segments: &[SegmentFile]) -> Result<Verdict, Error> {
    let Some(first) = segments.first() else {
        return Ok(Verdict::Intact {
            first_seq: 0,
            next: Link::FIRST,
            segments: 0,
        });
    };
    let mut from = match first.first_seq {
        0 => From::Link(Link::FIRST),
        seq => From::Seq(seq),
    };
    let mut next = Link {
        seq: first.first_seq,
        prev: Sha256::ZERO,
    };
    let mut bytes = first.read()?;
    for (index, segment) in segments.iter().enumerate() {
        let successor = segments.get(index + 1);
        let bad = |seq, line, what| Verdict::Bad {
            file: segment.path.clone(),
            line,
            seq,
            what,
        };
        let successor_bytes = successor.map(SegmentFile::read).transpose()?;
        match scan(&bytes, from, successor.map(|next| next.first_seq)) {
            Scan::Whole { next: end, .. } => {
                if let Some(successor) = successor.filter(|next| next.first_seq != end.seq) {
                    let file = successor.path.clone();
                    let what = "records before this segment are missing";
                    return Ok(Verdict::Bad {
                        file,
                        line: 1,
                        seq: end.seq,
                        what,
                    });
                }
                next = end;
            }
            Scan::Overlap {
                next: end,
                end: at,
                bytes: left,
            } => {
                let repaired = successor_bytes.as_deref().and_then(first_repair);
                let excused = repaired.is_some_and(|repaired| {
                    Some(repaired.file.as_str())
                        == segment.path.file_name().and_then(|n| n.to_str())
                        && repaired.cause == RepairCause::WriteFailed
                        && repaired.at == at as u64
                        && repaired.bytes >= left as u64
                });
                if !excused {
                    let line = end.seq - segment.first_seq + 1;
                    return Ok(bad(end.seq, line, "two segments hold this record"));
                }
                next = end;
            }
            Scan::Torn {
                next: end,
                line,
                at,
                bytes,
            } if successor.is_none() => {
                let (file, at, bytes) = (segment.path.clone(), at as u64, bytes as u64);
                return Ok(Verdict::Torn {
                    file,
                    line,
                    next: end,
                    at,
                    bytes,
                });
            }
            Scan::Torn {
                next: end, line, ..
            } => {
                return Ok(bad(end.seq, line, "the record is cut short"));
            }
            Scan::Bad { seq, line, what } => return Ok(bad(seq, line, what)),
        }
        from = From::Link(next);
        bytes = successor_bytes.unwrap_or_default();
    }
    Ok(Verdict::Intact {
        first_seq: first.first_seq,
        next,
        segments: segments.len(),
    })
}

/// Walks the records in `bytes`, up to the record `until` where the next segment takes over.
pub(super) fn scan(bytes: &[u8], from: From, until: Option<u64>) -> Scan {
    let content = &bytes[..content_end(bytes)];
    let (mut seq, mut prev) = match from {
        From::Link(link) => (link.seq, Some(link.prev)),
        From::Seq(seq) => (seq, None),
    };
    let (first_seq, mut at) = (seq, 0);
    loop {
        let next = Link {
            seq,
            prev: prev.unwrap_or(Sha256::ZERO),
        };
        if at == content.len() {
            return Scan::Whole { next, end: at };
        }
        if until == Some(seq) {
            return Scan::Overlap {
                next,
                end: at,
                bytes: content.len() - at,
            };
        }
        let line = seq - first_seq + 1;
        match check_line(&content[at..], seq, prev) {
            Line::Good { len, digest } => {
                at += len;
                seq += 1;
                prev = Some(digest);
            }
            Line::Bad(what) => {
                return match tear(content, at, seq) {
                    Tear::Torn => Scan::Torn {
                        next,
                        line,
                        at,
                        bytes: content.len() - at,
                    },
                    Tear::Changed => Scan::Bad { seq, line, what },
                };
            }
        }
    }
}

enum Line {
    Good { len: usize, digest: Sha256 },
    Bad(&'static str),
}

#[derive(Deserialize)]
struct Envelope {
    seq: u64,
    prev: Sha256,
}

fn check_line(rest: &[u8], seq: u64, prev: Option<Sha256>) -> Line {
    let window = &rest[..rest.len().min(LINE_BYTES_MAX as usize + 1)];
    let Some(len) = window.iter().position(|&byte| byte == b'\n') else {
        return Line::Bad("the line has no end");
    };
    let line = &rest[..len];
    if line.iter().any(|&byte| byte < 0x20) {
        return Line::Bad("the line holds a control character");
    }
    let Some(text) = sum_at(line) else {
        return Line::Bad("the line does not end in its sum");
    };
    let mut whole = digest::Context::new(&digest::SHA256);
    whole.update(&line[..text]);
    let sum = whole.clone().finish();
    if hex(&sum.as_ref()[..SUM_BYTES]).as_bytes() != &line[text + SUM_OPEN.len()..len - 2] {
        return Line::Bad("the record was changed: its sum does not match");
    }
    let Ok(envelope) = serde_json::from_slice::<Envelope>(line) else {
        return Line::Bad("the line is not a record");
    };
    if envelope.seq != seq || seq == u64::MAX {
        return Line::Bad("the sequence number does not follow");
    }
    if prev.is_some_and(|prev| prev != envelope.prev) {
        return Line::Bad("the record does not follow from the one before it");
    }
    whole.update(&line[text..]);
    Line::Good {
        len: len + 1,
        digest: Sha256::from_digest(&whole.finish()),
    }
}

const SUM_OPEN: &[u8] = br#","sum":""#;
const SUM_LEN: usize = SUM_OPEN.len() + 2 * SUM_BYTES + 2;

/// Where the sum begins, if `line` ends in one.
fn sum_at(line: &[u8]) -> Option<usize> {
    let at = line.len().checked_sub(SUM_LEN)?;
    (line[at..].starts_with(SUM_OPEN) && line.ends_with(br#""}"#)).then_some(at)
}

enum Tear {
    Torn,
    Changed,
}

/// Whether the bytes from `at` on, where `seq` should stand, can be what a crash left of the last group.
fn tear(content: &[u8], at: usize, seq: u64) -> Tear {
    let rest = &content[at..];
    if rest.len() as u64 > GROUP_BYTES_MAX {
        return Tear::Changed;
    }
    let line_end = rest.iter().position(|&byte| byte == b'\n');
    let hole = rest.iter().position(|&byte| byte == 0);
    match (line_end, hole) {
        // A complete line that does not match, before anything is missing.
        (Some(_), None) => Tear::Changed,
        (Some(line_end), Some(hole)) if line_end < hole => Tear::Changed,
        (_, Some(_)) if holes_are_sectors(content, at) => Tear::Torn,
        (_, Some(_)) => Tear::Changed,
        (None, None) => cut_short(rest, seq),
    }
}

/// Every run of zeros begins at `at` or at a sector, and ends at a sector.
fn holes_are_sectors(content: &[u8], at: usize) -> bool {
    let mut from = at;
    while let Some(start) = content[from..].iter().position(|&byte| byte == 0) {
        let start = from + start;
        let run = content[start..]
            .iter()
            .take_while(|&&byte| byte == 0)
            .count();
        let end = start + run;
        if (start != at && start % SECTOR_BYTES != 0) || end % SECTOR_BYTES != 0 {
            return false;
        }
        from = end;
    }
    true
}

/// A line that lost its end is torn; one whose record is complete, but for a newline that is something else, is
/// changed, and so is one that cannot be the beginning of record `seq`.
fn cut_short(rest: &[u8], seq: u64) -> Tear {
    let head = format!(r#"{{"seq":{seq},"time":""#);
    let begins = rest
        .iter()
        .zip(head.as_bytes())
        .all(|(found, expected)| found == expected);
    let complete = rest
        .split_last()
        .is_some_and(|(_, line)| sum_at(line).is_some());
    let printable = rest.iter().all(|&byte| byte >= 0x20);
    if begins && printable && !complete {
        Tear::Torn
    } else {
        Tear::Changed
    }
}

/// The length of `bytes` without the zeros that follow the last record.
pub(super) fn content_end(bytes: &[u8]) -> usize {
    bytes
        .iter()
        .rposition(|&byte| byte != 0)
        .map_or(0, |at| at + 1)
}

fn first_line(bytes: &[u8]) -> Option<&[u8]> {
    let window = &bytes[..bytes.len().min(LINE_BYTES_MAX as usize + 1)];
    window
        .iter()
        .position(|&byte| byte == b'\n')
        .map(|end| &bytes[..end])
}

fn first_line_seq(bytes: &[u8]) -> Option<u64> {
    Some(
        serde_json::from_slice::<Envelope>(first_line(bytes)?)
            .ok()?
            .seq,
    )
}

fn first_repair(bytes: &[u8]) -> Option<Repaired> {
    match serde_json::from_slice::<Record>(first_line(bytes)?)
        .ok()?
        .body
    {
        Body::Repaired(repaired) => Some(repaired),
        _ => None,
    }
}
