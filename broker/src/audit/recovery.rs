//! What a start does with the files it finds: verify the newest ones, name a segment that a crash
//! left unnamed, clear a torn tail, and refuse what was changed.

use std::path::Path;

use super::chain::{self, Listing, PREPARED, Verdict};
use super::error::{Error, io_error};
use super::record::{RepairCause, Repaired};
use super::scan::{Link, content_end};
use super::segment::{self, Segment};
use super::text::Sha256;

/// What a start finds in the directory.
pub(super) struct Found {
    pub(super) link: Link,
    pub(super) current: Option<Segment>,
    pub(super) repaired: Option<Repaired>,
    pub(super) segments: u64,
    pub(super) disk_bytes: u64,
    /// `iat` of the last decision in the two newest segments.
    pub(super) last_iat: Option<u64>,
}

/// Verifies the two newest segments (the older one says what the newer must link to), names one
/// that a crash left unnamed, and clears a torn tail.
pub(super) fn recover(dir: &Path) -> Result<Found, Error> {
    let listing = Listing::read(dir)?;
    let newest = &listing.segments[listing.segments.len().saturating_sub(2)..];
    let verdict = chain::verify_segments(newest)?;
    let (link, torn) = match verdict {
        Verdict::Intact { next, .. } => (next, None),
        Verdict::Torn {
            next, at, bytes, ..
        } => (next, Some((at, bytes))),
        Verdict::Bad {
            file: path,
            line,
            seq,
            what,
        } => {
            return Err(Error::Tampered {
                path,
                line,
                seq,
                what,
            });
        }
    };
    let mut disk_bytes = 0;
    for segment in &listing.segments {
        let metadata = std::fs::metadata(&segment.path);
        disk_bytes += metadata.map_err(io_error("read", &segment.path))?.len();
    }
    let segments = listing.segments.len() as u64;
    let Some(last) = listing.segments.last() else {
        return Ok(Found {
            link,
            current: None,
            repaired: None,
            segments,
            disk_bytes,
            last_iat: None,
        });
    };
    let unnamed = last.path == dir.join(PREPARED);
    let file = if unnamed {
        PREPARED.to_owned()
    } else {
        chain::segment_name(last.first_seq)
    };
    let bytes = last.read()?;
    let repaired = torn.map(|(at, torn)| Repaired {
        file: file.as_str().into(),
        at,
        bytes: torn,
        sha256: Some(Sha256::of(&bytes[at as usize..(at + torn) as usize])),
        cause: RepairCause::TornTail,
    });
    let end = torn.map_or(content_end(&bytes) as u64, |(at, _)| at);
    let before = listing.segments.iter().rev().nth(1);
    let last_iat = match (last_iat(&bytes[..end as usize]), before) {
        (None, Some(before)) => last_iat(&before.read()?),
        (found, _) => found,
    };
    if unnamed && end == 0 {
        // Its first group never was durable. The preparer makes a new one; the log ends in the
        // segment before.
        let current = match before {
            Some(before) => {
                let end = content_end(&before.read()?) as u64;
                Some(Segment::reopen(&before.path, end)?)
            }
            None => None,
        };
        segment::discard_prepared(dir)?;
        disk_bytes -= bytes.len() as u64;
        return Ok(Found {
            link,
            current,
            repaired,
            segments: segments - 1,
            disk_bytes,
            last_iat,
        });
    }
    if end == 0 {
        let what = "it holds no record although it bears a number";
        return Err(Error::Unreadable {
            path: last.path.clone(),
            what,
        });
    }
    let path = if unnamed {
        segment::name_segment(dir, last.first_seq)?
    } else {
        last.path.clone()
    };
    let current = Segment::reopen(&path, end)?;
    if let Some((_, bytes)) = torn {
        current.clear_tail(bytes)?;
    }
    Ok(Found {
        link,
        current: Some(current),
        repaired,
        segments,
        disk_bytes,
        last_iat,
    })
}

/// The time of the last decision: a clock was trusted then, which goes for no other record.
fn last_iat(bytes: &[u8]) -> Option<u64> {
    #[derive(serde::Deserialize)]
    struct Decision {
        kind: String,
        iat: u64,
        reuse: Option<Reuse>,
    }
    #[derive(serde::Deserialize)]
    struct Reuse {
        at: u64,
    }
    let decision = |line| serde_json::from_slice::<Decision>(line).ok();
    let decisions = bytes.rsplit(|byte| *byte == b'\n').filter_map(decision);
    decisions
        .filter(|it| it.kind == "decision")
        .map(|it| it.reuse.map_or(it.iat, |reuse| reuse.at))
        .next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_decision_is_found_behind_what_is_none() {
        let log = b"{\"kind\":\"decision\",\"iat\":7}\n{\"kind\":\"decision\",\"iat\":8}\n\
            {\"kind\":\"other\",\"iat\":9}\n{\"kind\":\"denied\",\"unit\":\"decision\"}\n\0\0";
        assert_eq!(last_iat(log), Some(8));
        let again = b"{\"kind\":\"decision\",\"iat\":7,\"reuse\":{\"of\":\"x\",\"at\":9}}\n";
        assert_eq!(last_iat(again), Some(9));
        assert_eq!(last_iat(b""), None);
        assert_eq!(last_iat(b"{\"kind\":\"closed\"}\n"), None);
    }
}
