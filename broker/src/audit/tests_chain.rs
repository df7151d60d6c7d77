//! The chain over bytes: every change is found at the right record, and everything a crash can
//! leave is told apart from a change.
#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::record::{Body, Outcome, OutcomeRecord, Stamp, append_line};
use super::scan::{From, GROUP_BYTES_MAX, Link, Scan, scan};

/// `count` records, and where each begins; the last entry is the end.
fn a_log(count: u64) -> (Vec<u8>, Vec<usize>) {
    let (mut bytes, mut starts, mut link) = (Vec::new(), vec![0], Link::FIRST);
    for n in 0..count {
        let id = format!("{:>1$}", n, 10 + n as usize * 7 % 50);
        let outcome = Some(Outcome::Failed { reason: "deadline" });
        let body = Body::Outcome(OutcomeRecord::new(id.as_str().into(), outcome)).encode();
        link = append_line(
            &mut bytes,
            &link,
            Stamp {
                wall_ms: n,
                boot_ms: n,
            },
            &body,
        );
        starts.push(bytes.len());
    }
    (bytes, starts)
}

fn check(bytes: &[u8]) -> Scan {
    scan(bytes, From::Link(Link::FIRST), None)
}

fn record_at(starts: &[usize], at: usize) -> u64 {
    starts.partition_point(|&start| start <= at) as u64 - 1
}

#[test]
fn every_flipped_bit_is_found_at_its_record() {
    let (bytes, starts) = a_log(12);
    for at in 0..bytes.len() {
        for bit in 0..8 {
            let mut changed = bytes.clone();
            changed[at] ^= 1 << bit;
            let found = check(&changed);
            let expected = record_at(&starts, at);
            assert!(
                matches!(found, Scan::Bad { seq, .. } if seq == expected),
                "byte {at} bit {bit}: {found:?}"
            );
        }
    }
}

#[test]
fn every_prefix_is_torn_at_its_last_record() {
    let (bytes, starts) = a_log(12);
    for cut in 0..=bytes.len() {
        let mut torn = bytes[..cut].to_vec();
        torn.resize(bytes.len() + 4096, 0);
        let whole = *starts.iter().rfind(|&&start| start <= cut).unwrap();
        match check(&torn) {
            Scan::Whole { end, .. } => assert_eq!((end, whole), (cut, cut)),
            Scan::Torn { at, bytes, .. } => assert_eq!((at, bytes), (whole, cut - whole)),
            other => panic!("cut at {cut}: {other:?}"),
        }
    }
}

proptest! {
    /// Any other byte in any place. A zero that looks like a lost sector, or like a lost last
    /// newline, may be taken for a tear, but at the right record.
    #[test]
    fn any_changed_byte_is_found_at_its_record(
        count in 1u64..40, at in any::<prop::sample::Index>(), value in any::<u8>(),
    ) {
        let (mut bytes, starts) = a_log(count);
        let at = at.index(bytes.len());
        prop_assume!(bytes[at] != value);
        bytes[at] = value;
        let expected = record_at(&starts, at);
        match check(&bytes) {
            Scan::Bad { seq, .. } => prop_assert_eq!(seq, expected),
            Scan::Torn { next, .. } => {
                prop_assert_eq!(next.seq, expected);
                prop_assert!(value == 0 && ((at + 1) % 512 == 0 || at + 1 == bytes.len()));
            }
            other => prop_assert!(false, "{:?}", other),
        }
    }

    /// The last group, of whose sectors a crash kept only some, is torn where the first one is
    /// missing.
    #[test]
    fn lost_sectors_of_the_last_group_are_torn(
        before in 1u64..30, group in 1u64..30, lost in any::<u64>(),
    ) {
        let (mut bytes, starts) = a_log(before + group);
        let durable = starts[before as usize];
        let (first, last) = (durable / 512, (bytes.len() - 1) / 512);
        for sector in (first..=last).filter(|sector| lost >> (sector % 64) & 1 == 1) {
            let end = bytes.len().min((sector + 1) * 512);
            bytes[durable.max(sector * 512)..end].fill(0);
        }
        match check(&bytes) {
            Scan::Whole { next, .. } | Scan::Torn { next, .. } => prop_assert!(next.seq >= before),
            other => prop_assert!(false, "{:?}", other),
        }
    }

    /// A record taken out, or two exchanged, or one written anew with a right sum: the successor
    /// tells.
    #[test]
    fn a_removed_or_exchanged_record_is_found(count in 3u64..20, at in any::<prop::sample::Index>()) {
        let (bytes, starts) = a_log(count);
        let at = at.index(count as usize - 1);
        let line = |n: usize| &bytes[starts[n]..starts[n + 1]];
        let removed = [&bytes[..starts[at]], &bytes[starts[at + 1]..]].concat();
        let exchanged =
            [&bytes[..starts[at]], line(at + 1), line(at), &bytes[starts[at + 2]..]].concat();
        for changed in [removed, exchanged] {
            let found = check(&changed);
            prop_assert!(matches!(found, Scan::Bad { seq, .. } if seq == at as u64), "{:?}", found);
        }
    }

    #[test]
    fn no_bytes_make_it_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..2_000), until in any::<Option<u64>>(),
    ) {
        let _ = check(&bytes);
        let _ = scan(&bytes, From::Seq(u64::MAX - 1), until);
    }

    /// Bytes that look like a log, changed in a few places.
    #[test]
    fn no_damaged_log_makes_it_panic(
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..20),
    ) {
        let (mut bytes, _) = a_log(20);
        for (at, value) in damage {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        let _ = check(&bytes);
    }
}

#[test]
fn a_rewritten_record_is_told_by_its_successor() {
    let (bytes, starts) = a_log(5);
    let body = Body::Outcome(OutcomeRecord::new("forged".into(), None)).encode();
    let Scan::Whole { next, .. } = check(&bytes[..starts[2]]) else {
        panic!("two whole records")
    };
    let mut forged = bytes[..starts[2]].to_vec();
    append_line(
        &mut forged,
        &next,
        Stamp {
            wall_ms: 2,
            boot_ms: 2,
        },
        &body,
    );
    forged.extend_from_slice(&bytes[starts[3]..]);
    assert!(
        matches!(check(&forged), Scan::Bad { seq: 3, .. }),
        "{:?}",
        check(&forged)
    );
}

/// A hole far from the end cannot be a crash: later groups were durable only after it.
#[test]
fn a_hole_before_more_than_a_group_is_a_change() {
    let (mut bytes, starts) = a_log(2_000);
    assert!(bytes.len() as u64 > GROUP_BYTES_MAX + 2_048);
    bytes[512..1_024].fill(0);
    let expected = record_at(&starts, 512);
    assert!(matches!(check(&bytes), Scan::Bad { seq, .. } if seq == expected));
}
