//! Finds, in the bytes of one segment, the first record that does not fit the chain, and tells the
//! torn tail of a crash from a change. Pure: no file, no panic on any bytes.
//!
//! **Torn or changed.** The writer writes a group of at most `GROUP_BYTES_MAX` bytes into zeros and
//! begins the next group only when that one is durable. A crash therefore leaves, in the last
//! segment only and within that length of its end, either a line cut short or whole disk sectors
//! that still hold zeros. Everything else that does not match is a change.

use aws_lc_rs::digest;
use serde::Deserialize;

use super::record::{Body, LINE_BYTES_MAX, Record, Repaired, SUM_BYTES};
use super::text::{Sha256, hex};

/// The most that is written before it is made durable; bounds what a crash can tear.
pub const GROUP_BYTES_MAX: u64 = 256 * 1024;
/// The smallest unit in which a disk holds either the old bytes or the new ones.
const SECTOR_BYTES: usize = 512;
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

/// Whether the bytes from `at` on, where `seq` should stand, can be what a crash left of the last
/// group.
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
        if (start != at && !start.is_multiple_of(SECTOR_BYTES)) || !end.is_multiple_of(SECTOR_BYTES)
        {
            return false;
        }
        from = end;
    }
    true
}

/// A line that lost its end is torn; one whose record is complete, but for a newline that is
/// something else, is changed, and so is one that cannot be the beginning of record `seq`.
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

/// The length of `bytes` without the zeros that follow the last record. Most of a segment is zeros,
/// and every start reads one whole: they are compared a page at a time.
pub(super) fn content_end(bytes: &[u8]) -> usize {
    static ZEROS: [u8; 4096] = [0; 4096];
    let mut end = bytes.len();
    while end > 0 {
        let start = end.saturating_sub(ZEROS.len());
        if bytes[start..end] != ZEROS[..end - start] {
            break;
        }
        end = start;
    }
    bytes[..end]
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

pub(super) fn first_line_seq(bytes: &[u8]) -> Option<u64> {
    Some(
        serde_json::from_slice::<Envelope>(first_line(bytes)?)
            .ok()?
            .seq,
    )
}

pub(super) fn first_repair(bytes: &[u8]) -> Option<Repaired> {
    match serde_json::from_slice::<Record>(first_line(bytes)?)
        .ok()?
        .body
    {
        Body::Repaired(repaired) => Some(repaired),
        _ => None,
    }
}
