//! A step as people read it: `+ payments → bank    new ES256 key in hsm, lifetime 60 s`.

use super::{Change, Conflict, Effect, Record, Step};
use crate::lifecycle::Span;
use keystore::KeyName;

impl Step {
    /// One line, as cells of a table: sign and key, then what happens.
    pub fn row(&self) -> Vec<String> {
        vec![format!("{} {}", self.sign(), self.subject()), self.what()]
    }

    fn sign(&self) -> char {
        match (self, self.effect()) {
            (Step::Amend { .. }, _) => '~',
            (_, Effect::Change) => '+',
            (_, Effect::Blocked) => '!',
            (_, Effect::Note) => '?',
        }
    }

    /// The key or keystore it is about.
    pub fn subject(&self) -> String {
        match self {
            Step::Create { key, .. }
            | Step::Adopt { key, .. }
            | Step::Certify { key, .. }
            | Step::Failed { key, .. }
            | Step::Orphan { key, .. } => key_words(&key.name),
            Step::Amend { name, .. } | Step::Import { name, .. } | Step::Conflict { name, .. } => {
                key_words(name)
            }
            Step::Unreachable { keystore, .. } => format!("keystore {keystore}"),
        }
    }

    /// What happens to it, or why nothing can.
    pub fn what(&self) -> String {
        match self {
            Step::Create {
                keystore,
                charter,
                certificate_s,
                ..
            } => {
                let certificate =
                    certificate_s.map(|it| format!(", with a certificate for {}", Span(it)));
                format!(
                    "new {} key in {keystore}, lifetime {} s{}",
                    charter.alg,
                    charter.lifetime_max_s,
                    certificate.unwrap_or_default()
                )
            }
            Step::Amend { changes: list, .. } => {
                let changes: Vec<String> = list
                    .iter()
                    .map(|change| format!("{}: {} → {}", change.member, change.from, change.to))
                    .collect();
                let is_kid = |change: &Change| change.member == "kid";
                let of_whom = match list.iter().any(is_kid) {
                    true => {
                        " (of the newest version there is; another key comes by `assertctl keys import`)"
                    }
                    false => "",
                };
                changes.join("; ") + of_whom
            }
            Step::Adopt { key, keystore, kid } => format!(
                "record version {} that {keystore} has already, kid {kid}",
                key.version.number()
            ),
            Step::Certify {
                key,
                keystore,
                certificate_s,
            } => format!(
                "a certificate of version {} in {keystore}, valid for {}",
                key.version.number(),
                Span(*certificate_s)
            ),
            Step::Import { name, keystore } => format!(
                "its key is not made in {keystore} but brought in: `assertctl keys import {name} FILE`, or \
                 `assertctl keys adopt`"
            ),
            Step::Conflict { name, conflict } => conflict_words(name, conflict),
            // A keystore's sentence names the key already.
            Step::Failed { key, why, .. } if why.starts_with(&format!("key {key}")) => why.clone(),
            Step::Failed { key, keystore, why } => {
                format!("version {} in {keystore}: {why}", key.version.number())
            }
            Step::Unreachable { why, keys, .. } => {
                let plural = if *keys == 1 { "" } else { "s" };
                format!("nothing can be said about {keys} key{plural}: {why}")
            }
            Step::Orphan {
                key,
                keystore,
                record,
            } => {
                let record = match record {
                    Record::Recorded => "",
                    Record::Unrecorded => " and is not recorded",
                };
                let version = key.version.number();
                format!("version {version} in {keystore} is not asked for{record}; it is kept")
            }
        }
    }
}

/// `payments → bank` for a client key, `issuer prod` for an issuer's.
fn key_words(name: &KeyName) -> String {
    match name.as_str().split_once('/') {
        Some(("issuer", issuer)) => format!("issuer {issuer}"),
        Some((workload, target)) => format!("{workload} → {target}"),
        None => name.to_string(),
    }
}

fn conflict_words(name: &KeyName, conflict: &Conflict) -> String {
    let what = match name.as_str().starts_with("issuer/") {
        true => "issuer",
        false => "target",
    };
    match conflict {
        Conflict::Alg { has, wanted } => format!(
            "the key is for {has} and cannot become one for {wanted}; write alg = \"{has}\", or \
             give the {what} another name, which makes another key"
        ),
        Conflict::Purpose { has, wanted } => format!(
            "the key is for {has} and cannot become one for {wanted}; give the {what} another \
             name, which makes another key"
        ),
        Conflict::Keystore { has, wanted } => format!(
            "the key is in keystore {has} and cannot move to {wanted}; write keystore = \
             \"{has}\", or give the {what} another name, which makes another key"
        ),
    }
}
