//! Documents as bytes: JWK Sets (RFC 7517 §5), the SPIFFE bundle and the discovery document. Pure,
//! and the same bytes for the same keys, so that a document that did not change is not shipped.
//!
//! The members of one key are [`keystore::publickey`]'s; what stands around them is decided here, and
//! nowhere else.

use super::KeySet;
use keystore::Alg;
use keystore::publickey::PublishedKey;
use serde::{Deserialize, Serialize};

/// Longest document in bytes: eight RSA keys of 8192 bits take 13 KiB.
pub const DOCUMENT_LEN_MAX: usize = 64 * 1024;

/// A JWK Set (RFC 7517 §5).
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct JwkSet {
    keys: Vec<PublishedKey>,
}

impl JwkSet {
    /// Of these keys, in their order.
    pub fn of(set: &KeySet) -> JwkSet {
        let published = |key: &super::Key| key.public_key.published(key.alg);
        JwkSet {
            keys: set.keys.iter().map(published).collect(),
        }
    }
}

/// SPIFFE Trust Domain and Bundle §4.1.
#[derive(Serialize)]
struct BundleDocument {
    keys: Vec<PublishedKey>,
    spiffe_sequence: u64,
    spiffe_refresh_hint: u32,
}

/// What of an older bundle counts for the next.
#[derive(Deserialize)]
struct Sequence {
    spiffe_sequence: u64,
}

/// OpenID Connect Discovery 1.0 §3, for an issuer that signs and has no user and no endpoint.
#[derive(Serialize)]
struct Discovery<'a> {
    issuer: &'a str,
    jwks_uri: String,
    authorization_endpoint: &'static str,
    response_types_supported: [&'static str; 1],
    subject_types_supported: [&'static str; 1],
    id_token_signing_alg_values_supported: Vec<Alg>,
    claims_supported: [&'static str; 7],
}

/// `jwks.json`: what an issuer serves at its `jwks_uri`, and what a client registers.
pub fn jwks(set: &KeySet) -> Vec<u8> {
    document(&JwkSet::of(set))
}

/// `jwks.upload.json`: for parties to whom a set is uploaded, which take `kty`, `alg`, `use`, `kid`
/// and the key's own members, and refuse a set with any other (Google's `jwksJson`). What else
/// `jwks.json` may once have, such as a certificate, must not get in here.
pub fn upload(set: &KeySet) -> Vec<u8> {
    jwks(set) // nothing else is there yet; a test holds this to the list
}

/// A SPIFFE bundle of JWT-SVID keys, whose sequence is not yet decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bundle {
    /// Its keys.
    pub set: KeySet,
    /// A sequence that it is not below, if it has to have a new one.
    pub sequence_min: u64,
    /// How often consumers should ask for it again, in seconds.
    pub refresh_hint_s: u32,
}

impl Bundle {
    /// `bundle.json`, with this sequence.
    pub fn render(&self, sequence: u64) -> Vec<u8> {
        let keys = self.set.keys.iter();
        document(&BundleDocument {
            keys: keys
                .map(|key| key.public_key.published_in_bundle())
                .collect(),
            spiffe_sequence: sequence,
            spiffe_refresh_hint: self.refresh_hint_s,
        })
    }

    /// `bundle.json` after the one that was there: the same bytes if nothing changed, else a higher
    /// sequence, which has to grow with every change (§4.1.1).
    pub fn after(&self, old: Option<&[u8]>) -> Vec<u8> {
        let old_sequence = old.and_then(|bytes| {
            let read: Sequence = serde_json::from_slice(bytes).ok()?;
            Some(read.spiffe_sequence)
        });
        let (Some(old), Some(sequence)) = (old, old_sequence) else {
            return self.render(self.sequence_min);
        };
        let same = self.render(sequence);
        match same == old {
            true => same,
            false => self.render(sequence.saturating_add(1).max(self.sequence_min)),
        }
    }
}

/// `openid-configuration` of the issuer of this URL.
pub fn discovery(issuer: &str, set: &KeySet) -> Vec<u8> {
    // §3: RS256 must be in the list, whatever the keys are. Which algorithm a key is for stands with
    // the key.
    let mut algs: Vec<Alg> = set.keys.iter().map(super::Key::alg).collect();
    algs.push(Alg::RS256);
    algs.sort_unstable();
    algs.dedup();
    document(&Discovery {
        issuer,
        jwks_uri: jwks_uri(issuer),
        authorization_endpoint: "",
        response_types_supported: ["id_token"],
        subject_types_supported: ["public"],
        id_token_signing_alg_values_supported: algs,
        claims_supported: ["iss", "sub", "aud", "exp", "iat", "nbf", "jti"],
    })
}

/// Where an issuer's keys are: below its URL, without the `/` that may be at its end (Discovery §4.1
/// has it so for the discovery document).
pub fn jwks_uri(issuer: &str) -> String {
    format!("{}/jwks.json", issuer.trim_end_matches('/'))
}

/// Indented, because people read and compare them; with a line's end, because tools do.
pub(super) fn document(of: &impl Serialize) -> Vec<u8> {
    let mut bytes = serde_json::to_vec_pretty(of).expect("structs of strings and numbers");
    bytes.push(b'\n');
    bytes
}
