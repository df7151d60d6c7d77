//! What a record says: the typed body of every kind, and how one line is made of it.
//!
//! A line is `{"seq":…,"time":…,"boot_ms":…,"prev":…,"kind":…,<body>,"sum":…}` and a newline.
//! `prev` is the SHA-256 of the line before (without its newline), `sum` the first eight bytes of
//! the SHA-256 of this line up to `,"sum"`: the chain finds a changed record by its successor, the
//! sum also finds it in the last one, and tells which of two neighbours was changed.
//!
//! Never formats with `Debug`, never holds a map, never lets text in but through `Text`, which
//! clips it, and JSON string encoding, which escapes every byte below 0x20.

use std::io::Write as _;

use aws_lc_rs::digest;
use keystore::KeyId;
use keystore::protocol::{EvidenceLevel, KeyEntry};
use serde::{Deserialize, Serialize};

use super::scan::Link;
use super::text::{LongText, Sha256, ShortText, hex, rfc3339};

/// Longest line without its newline, written or read: the longest decision that `Text` lets through
/// (three long and five short texts, each byte escaped as `\u00XX`) is under 12 KiB.
pub const LINE_BYTES_MAX: u64 = 16 * 1024;
/// What `append_line` adds to a body at most, newline included: two 20-digit numbers, the time, two
/// digests.
pub(super) const ENVELOPE_BYTES_MAX: u64 = 256;
/// A whole outcome line at most: id and reason escaped in full, and the envelope.
pub(super) const OUTCOME_BYTES_MAX: u64 = 1_536;
/// A whole `denied` or `denials` line at most: unit and target escaped in full.
pub(super) const DENIED_BYTES_MAX: u64 = 8 * 1024;
/// A whole `repaired` or `closed` line at most; room for both is kept in every segment.
pub(super) const OWN_BYTES_MAX: u64 = 1_024;
/// The time of a record: both clocks, in milliseconds (Unix epoch; since boot, suspend included).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    pub wall_ms: u64,
    pub boot_ms: u64,
}

/// One record as read back.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Record {
    pub seq: u64,
    /// RFC 3339, UTC, milliseconds.
    pub time: String,
    pub boot_ms: u64,
    pub prev: Sha256,
    #[serde(flatten)]
    pub body: Body,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Body {
    Decision(Box<Decision>),
    Outcome(OutcomeRecord),
    Denied(Denied),
    Denials(DenialCount),
    Opened(Opened),
    Closed(Closed),
    Repaired(Repaired),
    Key(KeyChange),
    Configured(Configured),
    Attested(Attested),
    /// A kind that a later version wrote; this one can still verify it.
    #[serde(other)]
    Unknown,
}

/// A grant, durable before the assertion it allows is released.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// The request id, which the answer carries too.
    pub id: ShortText,
    pub uid: u32,
    pub gid: u32,
    pub pid: u32,
    pub peer_proof: PeerProof,
    pub unit: Option<LongText>,
    pub nested: bool,
    pub invocation: Option<ShortText>,
    pub container: bool,
    /// Of the executable, where a section asks what runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exe_sha256: Option<Sha256>,
    /// Keys of shadow conditions that did not hold (a section's `shadow`).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shadow: Vec<ShortText>,
    /// The name of the workload section that owned the target.
    pub workload: LongText,
    pub target: LongText,
    pub profile: ShortText,
    pub kid: ShortText,
    pub jti_sha256: Sha256,
    /// Seconds since the Unix epoch.
    pub iat: u64,
    /// Seconds since the Unix epoch.
    pub exp: u64,
    pub claims_sha256: Sha256,
    /// What is known about where its key lives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evidence: Option<EvidenceLevel>,
    /// Where it was signed for an earlier request, or for one at the same time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reuse: Option<Reuse>,
}

/// Of what an assertion is handed out again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reuse {
    /// The request for which it was signed.
    pub of: ShortText,
    /// When this decision was made; `iat` is when that one was. Seconds since the Unix epoch.
    pub at: u64,
}

/// How the kernel vouched for the caller: by SO_PEERPIDFD, or by the pid of the opt-in fallback.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PeerProof {
    Pidfd,
    Pid,
}

/// What became of a decision. Reasons are our own words, never a caller's or a library's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The assertion was handed to the peer.
    Released,
    /// The keystore, the verification or a deadline failed it.
    Failed { reason: &'static str },
    /// The peer did not live to take the answer.
    PeerGone,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutcomeRecord {
    pub id: ShortText,
    pub result: OutcomeResult,
    pub reason: Option<ShortText>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OutcomeResult {
    Released,
    Failed,
    PeerGone,
    /// The request's task ended without saying what became of it.
    Abandoned,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Denied {
    pub id: ShortText,
    pub uid: u32,
    pub gid: u32,
    pub pid: u32,
    pub unit: Option<LongText>,
    pub target: Option<LongText>,
    pub reason: ShortText,
}

/// Denials that were counted, not recorded one by one. `uid` and `target` are null where they were
/// added up over several.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DenialCount {
    pub uid: Option<u32>,
    pub target: Option<LongText>,
    pub reason: ShortText,
    pub count: u64,
    /// RFC 3339, UTC, milliseconds.
    pub first: String,
    pub last: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Opened {
    pub version: ShortText,
    pub boot_id: ShortText,
    pub host: ShortText,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Closed {
    /// Denials that were counted and could not be recorded any more.
    pub denials_unrecorded: u64,
}

/// `bytes` from offset `at` of `file` are no part of the log: a crash or a failed write left them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Repaired {
    pub file: ShortText,
    pub at: u64,
    pub bytes: u64,
    /// The bytes that were discarded, where they could be read.
    pub sha256: Option<Sha256>,
    pub cause: RepairCause,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RepairCause {
    TornTail,
    WriteFailed,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyChange {
    /// The key id: name and version.
    pub key: LongText,
    pub kid: ShortText,
    pub action: KeyAction,
    /// The thumbprint of its certificate, where that is what the record is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub x5t_s256: Option<ShortText>,
    /// The digest of the claims that it is to sign, where that is what the record is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claims_sha256: Option<Sha256>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyAction {
    /// A keystore has made it and the broker has recorded it.
    Adopted,
    /// It has signed wrongly.
    Suspended,
    /// A keystore has made it as the next version of a key.
    Made,
    /// It has this certificate. Said again where it is not certain that it was said.
    Certified,
    /// It belongs to the published set from here on.
    Published,
    /// It is not active, and signs one assertion for the other side's token endpoint, to see whether it is
    /// known there.
    Canary,
    /// It signs from here on.
    Activated,
    /// It belongs to the published set no more.
    Withdrawn,
    /// It is to be destroyed.
    Condemned,
    /// Its keystore has destroyed it.
    Destroyed,
    /// Somebody may have misused it.
    Revoked,
    /// Its token is said to be gone.
    Lost,
    /// It was given up before it had signed.
    Abandoned,
    /// What is recorded of it is from an older copy, which somebody has accepted.
    Restored,
    /// An operator has stopped the key.
    Held,
    /// An operator lets it go on.
    Resumed,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Configured {
    pub config_sha256: Sha256,
    /// Of the deny lists, where there are some.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deny_sha256: Option<Sha256>,
}

/// Evidence of keys that was made for somebody who asked by a nonce.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attested {
    /// Who asked us for it.
    pub uid: u32,
    /// What the host is called in it.
    pub host: LongText,
    pub keystore: LongText,
    /// What can be concluded from it at most.
    pub evidence: EvidenceLevel,
    /// How many keys.
    pub keys: u64,
    pub nonce: ShortText,
    /// What the TPM's quote is bound to: all that it said of keys.
    pub statements_sha256: Option<Sha256>,
}

impl KeyChange {
    /// What became of a key.
    pub fn new(key: &KeyId, kid: &str, action: KeyAction) -> KeyChange {
        KeyChange {
            key: key.to_string().as_str().into(),
            kid: kid.into(),
            action,
            x5t_s256: None,
            claims_sha256: None,
        }
    }

    /// Its canary is about to be signed.
    pub fn canary(key: &KeyId, kid: &str, claims_sha256: Sha256) -> KeyChange {
        KeyChange {
            claims_sha256: Some(claims_sha256),
            ..KeyChange::new(key, kid, KeyAction::Canary)
        }
    }

    /// Which certificate it has, if it has one.
    pub fn certified(entry: &KeyEntry) -> Option<KeyChange> {
        let certificate = entry.certificate.as_ref()?;
        Some(KeyChange {
            x5t_s256: Some(certificate.thumbprint().into()),
            ..KeyChange::new(&entry.key, entry.kid.as_str(), KeyAction::Certified)
        })
    }
}

impl OutcomeRecord {
    pub(super) fn new(id: ShortText, outcome: Option<Outcome>) -> OutcomeRecord {
        let (result, reason) = match outcome {
            Some(Outcome::Released) => (OutcomeResult::Released, None),
            Some(Outcome::PeerGone) => (OutcomeResult::PeerGone, None),
            Some(Outcome::Failed { reason }) => (OutcomeResult::Failed, Some(reason.into())),
            None => (OutcomeResult::Abandoned, None),
        };
        OutcomeRecord { id, result, reason }
    }
}

impl Body {
    /// The body's JSON object, made once, in the thread that has the record.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut json = Vec::with_capacity(768);
        serde_json::to_writer(&mut json, self)
            .expect("typed fields and string keys always encode, and a Vec takes every write");
        json
    }
}

/// Appends the line of `body` at `link` to `out` and answers the link after it.
pub(super) fn append_line(out: &mut Vec<u8>, link: &Link, stamp: Stamp, body: &[u8]) -> Link {
    let start = out.len();
    let _ = write!(
        out,
        r#"{{"seq":{},"time":"{}","boot_ms":{},"prev":"{}","#,
        link.seq,
        rfc3339(stamp.wall_ms),
        stamp.boot_ms,
        hex(&link.prev.0),
    );
    out.extend_from_slice(&body[1..body.len() - 1]);
    let mut whole = digest::Context::new(&digest::SHA256);
    whole.update(&out[start..]);
    let sum = whole.clone().finish();
    let tail = out.len();
    let _ = write!(out, r#","sum":"{}"}}"#, hex(&sum.as_ref()[..SUM_BYTES]));
    whole.update(&out[tail..]);
    out.push(b'\n');
    Link {
        seq: link.seq + 1,
        prev: Sha256::from_digest(&whole.finish()),
    }
}

pub(super) const SUM_BYTES: usize = 8;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::audit::text::Text;

    fn worst<const N: usize>() -> Text<N> {
        Text::from("\u{1}".repeat(N).as_str())
    }

    fn line_len(body: &Body) -> u64 {
        let mut out = Vec::new();
        let link = Link {
            seq: u64::MAX - 1,
            prev: Sha256::ZERO,
        };
        append_line(
            &mut out,
            &link,
            Stamp {
                wall_ms: u64::MAX,
                boot_ms: u64::MAX,
            },
            &body.encode(),
        );
        assert!(out[..out.len() - 1].iter().all(|&byte| byte >= 0x20));
        assert!(out.len() as u64 <= body.encode().len() as u64 + ENVELOPE_BYTES_MAX);
        out.len() as u64
    }

    #[test]
    fn the_longest_record_of_each_kind_fits_its_limit() {
        let decision = Decision {
            id: worst(),
            uid: u32::MAX,
            gid: u32::MAX,
            pid: u32::MAX,
            peer_proof: PeerProof::Pidfd,
            unit: Some(worst()),
            nested: false,
            invocation: Some(worst()),
            container: false,
            exe_sha256: Some(Sha256::ZERO),
            shadow: ["slice", "group", "supplementary_group", "exe", "exe_sha256"]
                .into_iter()
                .chain(["container", "interactive"])
                .map(Into::into)
                .collect(),
            workload: worst(),
            target: worst(),
            profile: worst(),
            kid: worst(),
            jti_sha256: Sha256::ZERO,
            iat: u64::MAX,
            exp: u64::MAX,
            claims_sha256: Sha256::ZERO,
            evidence: Some(EvidenceLevel::DeviceAttested),
            reuse: Some(Reuse {
                of: worst(),
                at: u64::MAX,
            }),
        };
        assert!(line_len(&Body::Decision(Box::new(decision))) <= LINE_BYTES_MAX);
        let outcome = OutcomeRecord {
            id: worst(),
            result: OutcomeResult::Abandoned,
            reason: Some(worst()),
        };
        assert!(line_len(&Body::Outcome(outcome)) <= OUTCOME_BYTES_MAX);
        let denied = Denied {
            id: worst(),
            uid: u32::MAX,
            gid: u32::MAX,
            pid: u32::MAX,
            unit: Some(worst()),
            target: Some(worst()),
            reason: worst(),
        };
        assert!(line_len(&Body::Denied(denied)) <= DENIED_BYTES_MAX);
        let count = DenialCount {
            uid: Some(u32::MAX),
            target: Some(worst()),
            reason: worst(),
            count: u64::MAX,
            first: rfc3339(u64::MAX),
            last: rfc3339(u64::MAX),
        };
        assert!(line_len(&Body::Denials(count)) <= DENIED_BYTES_MAX);
        let repaired = Repaired {
            file: worst(),
            at: u64::MAX,
            bytes: u64::MAX,
            sha256: Some(Sha256::ZERO),
            cause: RepairCause::WriteFailed,
        };
        assert!(line_len(&Body::Repaired(repaired)) <= OWN_BYTES_MAX);
        let attested = Attested {
            uid: u32::MAX,
            host: worst(),
            keystore: worst(),
            evidence: EvidenceLevel::DeviceAttested,
            keys: u64::MAX,
            nonce: worst(),
            statements_sha256: Some(Sha256::ZERO),
        };
        assert!(line_len(&Body::Attested(attested)) <= LINE_BYTES_MAX);
    }

    #[test]
    fn a_kind_from_a_later_version_can_be_read() {
        let mut out = Vec::new();
        let link = Link::FIRST;
        let stamp = Stamp {
            wall_ms: 0,
            boot_ms: 7,
        };
        append_line(&mut out, &link, stamp, br#"{"kind":"anchor","counter":3}"#);
        let record: Record = serde_json::from_slice(&out).unwrap();
        assert_eq!(
            (record.seq, record.boot_ms, record.body),
            (0, 7, Body::Unknown)
        );
    }
}
