//! Names that relying parties know: a subject of an issuer, a client of an authorization server. Two
//! workloads with one of them are one and the same to the other side.

use super::super::finding::{Finding, SHARED_CLIENT, SHARED_SUBJECT};
use crate::config::{Config, Target, url};
use keystore::charter::PurposeKind;
use std::collections::BTreeMap;

pub fn findings(config: &Config, found: &mut Vec<Finding>) {
    let targets = config
        .workloads
        .iter()
        .flat_map(|section| section.targets.values());
    // Two spellings of one URL are one party.
    let mut subjects: BTreeMap<(String, &str), Vec<&Target>> = BTreeMap::new();
    let mut clients: BTreeMap<(String, &str), Vec<&Target>> = BTreeMap::new();
    for target in targets {
        let sub = target.sub.as_deref().unwrap_or_default();
        match target.charter.purpose.kind() {
            PurposeKind::Federation => {
                let same = subjects.entry((url::normal(&target.iss), sub)).or_default();
                // One workload may present its subject to many audiences.
                if same.iter().all(|other| other.workload != target.workload) {
                    same.push(target);
                }
            }
            PurposeKind::ClientAuthentication => {
                let aud = target.aud.as_deref().unwrap_or_default();
                clients
                    .entry((url::normal(aud), sub))
                    .or_default()
                    .push(target);
            }
            PurposeKind::Account => {
                let party = target.profile.row.party;
                clients
                    .entry((party.to_owned(), &target.iss))
                    .or_default()
                    .push(target);
            }
        }
    }
    for ((_, subject), same) in subjects {
        let [first, others @ ..] = same.as_slice() else {
            continue;
        };
        if !others.is_empty() {
            found.push(SHARED_SUBJECT.at(
                object(first),
                &first.place,
                format!(
                    "subject `{subject}` of {} is that of {} too: nobody outside of this host can tell \
                     them apart, and what one may do the other may",
                    first.iss,
                    places(others)
                ),
                "give each a subject of its own; keep `shared = true` only where they are one \
                 service in two units",
            ));
        }
    }
    for ((_, client), same) in clients {
        let [first, others @ ..] = same.as_slice() else {
            continue;
        };
        if !others.is_empty() {
            found.push(SHARED_CLIENT.at(
                object(first),
                &first.place,
                format!(
                    "client `{client}` of {} is that of {} too: each has a key of its own, and the \
                     server must accept all of them for one client",
                    first.aud.as_deref().unwrap_or(first.profile.row.party),
                    places(others)
                ),
                "register a client for each workload, and name it in `client_id`",
            ));
        }
    }
}

fn object(target: &Target) -> String {
    format!("[workload.{}.target.{}]", target.workload, target.name)
}

/// Others and where they are; of many the first.
fn places(others: &[&Target]) -> String {
    /// More are counted.
    const SHOWN: usize = 3;
    let one = |target: &&Target| format!("[workload.{}] ({})", target.workload, target.place);
    let shown: Vec<String> = others.iter().take(SHOWN).map(one).collect();
    match others.len() - shown.len() {
        0 => shown.join(" and "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}
