//! Profiles: what each kind of relying party wants to see, as closed data. A row fixes the
//! purpose, the header, where each claim comes from, the algorithms and the lifetimes, and which
//! values its vendor takes; a target fills in names and may only narrow. Nothing a caller says
//! reaches a header or a claim.
//!
//! Pure. Adding a profile is adding a row ([`rows`]), its source, its golden test, its verifier by
//! the vendor's rules (tests/peers/vendors.py) and its section in docs/profiles.md.

use keystore::Alg;
use keystore::charter::{CertificateUse, PurposeKind, Typ};
use std::sync::Arc;

mod rows;
pub mod rule;
pub mod spiffe;

pub use rows::ROWS;
pub use rule::{Of, Rule};

/// One row of the table.
#[derive(Debug, PartialEq, Eq)]
pub struct Row {
    /// Its name in the configuration.
    pub name: &'static str,
    /// Whom it is for, in a few words.
    pub party: &'static str,
    /// What kind of statement its assertions are.
    pub purpose: PurposeKind,
    /// The header's `typ`.
    pub typ: Typ,
    /// The header's `kid`.
    pub kid: KidRule,
    /// Where `iss` comes from.
    pub iss: Origin,
    /// Where `sub` comes from.
    pub sub: Origin,
    /// Where `aud` comes from.
    pub aud: Origin,
    /// Where `scope` comes from.
    pub scope: Origin,
    /// Algorithms the vendor accepts; the first is the default.
    pub algs: &'static [Alg],
    /// Lifetime in seconds, from minting on, when neither target nor request says one.
    pub lifetime_default_s: u32,
    /// Longest lifetime in seconds that a target may set.
    pub lifetime_max_s: u32,
    /// How each assertion is told from all others.
    pub jti: Jti,
    /// By how many seconds `iat` lies before minting.
    pub backdate_s: u32,
    /// Whether there is an `nbf`.
    pub nbf: Nbf,
    /// Whether its keys have certificates, and the header says by which.
    pub certificate: CertificateUse,
    /// Who makes the key.
    pub birth: Birth,
    /// What the vendor documents about the values, checked when the configuration is loaded.
    pub rules: &'static [(Of, Rule)],
    /// How the public key, or where it is published, is told to the other side.
    pub registration: &'static str,
    /// Where the row comes from.
    pub source: &'static str,
    /// What it was really run against.
    pub tested: &'static str,
}

/// Where the value of a claim comes from. None of these is the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Nowhere: there is no such claim.
    Nothing,
    /// The `url` of the `[issuer.NAME]` that the target names.
    IssuerUrl,
    /// A key of the target, which has to be there.
    Key(Key),
    /// A key of the target, or no such claim.
    IfThere(Key),
    /// A key of the target; left out, it is this.
    KeyOr(Key, &'static str),
    /// A key of the target, which has to be there; no such claim if the second key is.
    KeyUnless(Key, Key),
    /// `ACCOUNT.USER`
    AccountUser,
    /// `ACCOUNT.USER`, `.SHA256:` and the fingerprint of the key that signs
    AccountUserKey,
}

/// The `kid` of a row's assertions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KidRule {
    /// The key's thumbprint.
    Thumbprint,
    /// There is none.
    Absent,
    /// The key's thumbprint, unless the target has the one that the vendor assigned.
    MayBeAssigned,
}

/// The `jti` of a row's assertions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Jti {
    /// There is none.
    Absent,
    /// 128 random bits in base64url.
    Short,
    /// A random UUID (RFC 9562 §5.4), where the vendor documents one.
    Uuid,
}

/// The `nbf` of a row's assertions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nbf {
    /// There is none: servers in use refuse a fresh one.
    Absent,
    /// That of `iat`, where the vendor documents one.
    AsIat,
}

/// Who makes a row's keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Birth {
    /// The keystore; the vendor is told the public half.
    Here,
    /// The vendor alone: it has to be imported, and is never known to be in hardware only.
    AtTheVendor,
}

/// The keys of a target that become claims.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// `authorization_server`
    AuthorizationServer,
    /// `token_endpoint`
    TokenEndpoint,
    /// `client_id`
    ClientId,
    /// `account`
    Account,
    /// `user`
    User,
    /// `service_account`
    ServiceAccount,
    /// `subject`
    Subject,
    /// `audience`
    Audience,
    /// `scope`
    Scope,
    /// `kid`
    Kid,
}

/// A profile as targets use it: a row, or what an operator has narrowed it to.
#[derive(Debug, PartialEq, Eq)]
pub struct Profile {
    /// Its name in the configuration.
    pub name: String,
    /// The row it is, or extends.
    pub row: &'static Row,
    /// Algorithms it takes: some of the row's; the first is the default.
    pub algs: Vec<Alg>,
    /// Lifetime in seconds when neither target nor request says one.
    pub lifetime_default_s: u32,
    /// Longest lifetime in seconds that a target may set: at most the row's.
    pub lifetime_max_s: u32,
    /// The one audience of its targets, if it is fixed.
    pub audience: Option<String>,
}

impl Row {
    /// The row of this name.
    pub fn named(name: &str) -> Option<&'static Row> {
        ROWS.iter().find(|row| row.name == name)
    }

    /// Every name, in the table's order.
    pub fn names() -> Vec<&'static str> {
        ROWS.iter().map(|row| row.name).collect()
    }

    /// Whether a target of this row may have that key, and whether it must.
    pub fn takes(&self, key: Key) -> Takes {
        if key == Key::Kid {
            return match self.kid {
                KidRule::MayBeAssigned => Takes::May,
                KidRule::Thumbprint | KidRule::Absent => Takes::Not,
            };
        }
        let of = |origin: Origin| match origin {
            Origin::Key(needed) | Origin::KeyUnless(needed, _) if needed == key => Takes::Needs,
            Origin::AccountUser | Origin::AccountUserKey
                if matches!(key, Key::Account | Key::User) =>
            {
                Takes::Needs
            }
            Origin::IfThere(optional) | Origin::KeyOr(optional, _) if optional == key => Takes::May,
            _ => Takes::Not,
        };
        let all = [self.iss, self.sub, self.aud, self.scope].map(of);
        [Takes::Needs, Takes::May]
            .into_iter()
            .find(|takes| all.contains(takes))
            .unwrap_or(Takes::Not)
    }
}

/// What a row makes of a key of a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Takes {
    /// It has to be there.
    Needs,
    /// It may be left out.
    May,
    /// It is refused.
    Not,
}

impl Key {
    /// All of them, in the order in which they are spoken of.
    pub const ALL: [Key; 10] = [
        Key::AuthorizationServer,
        Key::TokenEndpoint,
        Key::ClientId,
        Key::Account,
        Key::User,
        Key::ServiceAccount,
        Key::Subject,
        Key::Audience,
        Key::Scope,
        Key::Kid,
    ];

    /// As it is written in a target.
    pub fn as_str(self) -> &'static str {
        match self {
            Key::AuthorizationServer => "authorization_server",
            Key::TokenEndpoint => "token_endpoint",
            Key::ClientId => "client_id",
            Key::Account => "account",
            Key::User => "user",
            Key::ServiceAccount => "service_account",
            Key::Subject => "subject",
            Key::Audience => "audience",
            Key::Scope => "scope",
            Key::Kid => "kid",
        }
    }
}

impl Profile {
    /// A row as it is.
    pub fn of(row: &'static Row) -> Arc<Profile> {
        Arc::new(Profile {
            name: row.name.to_owned(),
            row,
            algs: row.algs.to_vec(),
            lifetime_default_s: row.lifetime_default_s,
            lifetime_max_s: row.lifetime_max_s,
            audience: None,
        })
    }

    /// Whether a target of this profile may have that key, and whether it must.
    pub fn takes(&self, key: Key) -> Takes {
        match (key, &self.audience) {
            (Key::Audience, Some(_)) => Takes::Not,
            _ => self.row.takes(key),
        }
    }
}

#[cfg(test)]
mod tests;
