//! What differs between two charters of one kind, member by member, as people read it.

use keystore::charter::{AccountIss, KidMember, Purpose, SubjectPattern};
use keystore::{CertificateUse, Charter};
use serde::Serialize;

/// One member of a charter and its two values.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    /// As in the charter: `aud`, `iss`, `sub`, `scope`, `subjects`, `lifetime_max_s`, `typ`, `kid`,
    /// `backdate_s`, `certificate`.
    pub member: &'static str,
    /// What the key may say now.
    pub from: String,
    /// What it would be allowed to say.
    pub to: String,
}

/// The members whose values differ. Algorithm and kind of purpose are not among them: they never
/// change.
pub fn changes(has: &Charter, wanted: &Charter) -> Vec<Change> {
    let pairs = members(has).into_iter().zip(members(wanted));
    pairs
        .filter(|(from, to)| from != to)
        .map(|((member, from), (_, to))| Change { member, from, to })
        .collect()
}

/// The same members in the same order for all charters of one kind of purpose.
fn members(charter: &Charter) -> Vec<(&'static str, String)> {
    let mut members = match &charter.purpose {
        Purpose::ClientAuthentication { iss, sub, aud } => {
            vec![
                ("aud", aud.clone()),
                ("iss", iss.clone()),
                ("sub", sub.clone()),
            ]
        }
        Purpose::Account {
            iss,
            sub,
            aud,
            scope,
        } => {
            let iss = match iss {
                AccountIss::Is(iss) => iss.clone(),
                AccountIss::WithFingerprint(account) => format!("{account}.SHA256:…"),
            };
            let member = |value: &Option<String>| value.clone().unwrap_or_else(none);
            vec![
                ("aud", member(aud)),
                ("iss", iss),
                ("sub", member(sub)),
                ("scope", member(scope)),
            ]
        }
        Purpose::Federation { iss, subjects } => {
            let subjects: Vec<&str> = subjects.iter().map(SubjectPattern::as_str).collect();
            vec![("iss", iss.clone()), ("subjects", subjects.join(", "))]
        }
    };
    members.push(("lifetime_max_s", charter.lifetime_max_s.to_string()));
    members.push(("typ", charter.typ.as_str().to_owned()));
    let kid = match &charter.kid {
        KidMember::Thumbprint => "the thumbprint".to_owned(),
        KidMember::Absent => none(),
        KidMember::Assigned(kid) => kid.clone(),
    };
    members.push(("kid", kid));
    members.push(("backdate_s", charter.backdate_s.to_string()));
    let certificate = match charter.certificate {
        CertificateUse::None => "none",
        CertificateUse::Allowed => "allowed",
        CertificateUse::Named => "named in the header",
    };
    members.push(("certificate", certificate.to_owned()));
    members
}

/// Of a member that is not there.
fn none() -> String {
    "none".to_owned()
}
