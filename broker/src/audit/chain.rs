//! Reads and verifies the files of the log: which segments there are, whether they follow each
//! other, and the records in them. Never writes; needs no running assertd.
//!
//! **Overlap.** After a failed write the log goes on in a fresh segment from the last durable
//! record. What the abandoned segment holds beyond is no part of the log; the fresh segment's first
//! record is a `repaired` record that names file and offset, and only such a record excuses it.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::error::{Error, io_error};
use super::record::{Record, RepairCause};
use super::scan::{From, Scan, content_end, first_line_seq, first_repair, scan};
use super::text::Sha256;

pub use super::scan::{GROUP_BYTES_MAX, Link};

/// No segment is longer: it is read into memory to be verified.
pub const SEGMENT_BYTES_MAX: u64 = 1 << 30;
/// The segment prepared ahead, or just begun, before it bears its first sequence number.
pub(super) const PREPARED: &str = "audit-next.prepared";

/// What a verification found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Every record follows from the one before. `first_seq` is above 0 when older segments were
    /// taken away.
    Intact {
        first_seq: u64,
        next: Link,
        segments: usize,
    },
    /// Intact up to the end of `file`, where a crash, or a write going on at this moment, left
    /// `bytes` at `at`.
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

/// Verifies all segments in `dir`.
pub fn verify(dir: &Path) -> Result<Verdict, Error> {
    let listing = Listing::read(dir)?;
    verify_segments(&listing.segments)
}

/// Verifies the newest two segments in `dir`: quick however long the log is. The last of them may
/// hold a single record, and what a lost segment left is excused only by its successor.
pub fn verify_newest(dir: &Path) -> Result<Verdict, Error> {
    let listing = Listing::read(dir)?;
    let older = listing.segments.len().saturating_sub(2);
    verify_segments(&listing.segments[older..])
}

/// All records of the intact part of the log in `dir`, oldest first; ends with the error that ended
/// reading.
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

/// Verifies `segments`, which follow each other; the first one's own `prev` is believed unless it
/// begins at 0.
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
