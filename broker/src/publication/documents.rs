//! All documents of one moment, with the places they have in the directory. Pure: what is written,
//! and when, is [`super::files`]'.

use super::KeySet;
use super::render::{self, Bundle};
use crate::config::Issuer;
use keystore::KeyName;
use std::collections::BTreeMap;

/// The directory of issuers' documents, of client keys', and of copies by their content.
pub const ISSUERS: &str = "issuer";
pub const CLIENTS: &str = "client";
pub const COPIES: &str = "by-sha256";

/// Names of documents.
pub const JWKS: &str = "jwks.json";
pub const UPLOAD: &str = "jwks.upload.json";
pub const BUNDLE: &str = "bundle.json";
pub const WELL_KNOWN: &str = ".well-known";
pub const DISCOVERY: &str = "openid-configuration";

/// How often consumers should fetch a bundle again, in seconds, unless something else is known: as
/// long as what is served may be kept.
pub const REFRESH_HINT_S: u32 = 300;

/// What a bundle says beside its keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spiffe {
    /// A sequence that a changed bundle is not below; it is one above the old one at least. Something
    /// that grows also when the directory is lost: seconds since 1970, or a state's generation.
    pub sequence_min: u64,
    /// How often consumers should ask for it again, in seconds.
    pub refresh_hint_s: u32,
}

/// Everything that is to be published now, by key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Documents {
    of_keys: BTreeMap<KeyName, Vec<Document>>,
}

/// One document and its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Document {
    /// Below the key's directory, if not in it.
    pub below: Option<&'static str>,
    pub name: &'static str,
    pub content: Content,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Content {
    Fixed(Vec<u8>),
    /// What it says depends on what was there.
    Bundle(Bundle),
}

impl Documents {
    /// Adds an issuer's documents; a bundle too, if it has a trust domain.
    pub fn add_issuer(&mut self, issuer: &Issuer, set: &KeySet, spiffe: Spiffe) {
        let fixed = |name, bytes| Document {
            below: None,
            name,
            content: Content::Fixed(bytes),
        };
        // Whoever reads the discovery document finds what it speaks of: it comes last.
        let mut documents = vec![
            fixed(JWKS, render::jwks(set)),
            fixed(UPLOAD, render::upload(set)),
        ];
        if issuer.trust_domain.is_some() {
            documents.push(Document {
                below: None,
                name: BUNDLE,
                content: Content::Bundle(Bundle {
                    set: set.clone(),
                    sequence_min: spiffe.sequence_min,
                    refresh_hint_s: spiffe.refresh_hint_s,
                }),
            });
        }
        documents.push(Document {
            below: Some(WELL_KNOWN),
            ..fixed(DISCOVERY, render::discovery(&issuer.url, set))
        });
        self.of_keys.insert(issuer.key.clone(), documents);
    }

    /// Adds a client key's set.
    pub fn add_client(&mut self, key: &KeyName, set: &KeySet) {
        let document = Document {
            below: None,
            name: JWKS,
            content: Content::Fixed(render::jwks(set)),
        };
        self.of_keys.insert(key.clone(), vec![document]);
    }

    /// By key: an issuer's is named `issuer/NAME`, as its directory is.
    pub(super) fn of_keys(&self) -> impl Iterator<Item = (&KeyName, &[Document])> {
        self.of_keys.iter().map(|(key, all)| (key, all.as_slice()))
    }

    /// Whether anything is published of a key.
    pub fn is_of(&self, key: &KeyName) -> bool {
        self.of_keys.contains_key(key)
    }

    /// Whether a key has a document of this name.
    pub(super) fn has(&self, key: &KeyName, name: &str) -> bool {
        let documents = self.of_keys.get(key);
        documents.is_some_and(|all| all.iter().any(|document| document.name == name))
    }
}

/// The directories from the root to a key's: `issuer/NAME` or `client/WORKLOAD/TARGET`.
pub fn directory_of(key: &KeyName) -> Vec<&str> {
    let mut parts: Vec<&str> = key.as_str().split('/').collect();
    // No workload has the name `issuer` (see [`KeyName::issuer`]).
    if parts.first() != Some(&ISSUERS) {
        parts.insert(0, CLIENTS);
    }
    parts
}
