//! Profiles: what each kind of relying party wants to see, as closed data. A row fixes the
//! purpose, the header, where each claim comes from, the algorithms and the lifetimes, and which
//! values its vendor takes; a target fills in names and may only narrow. Nothing a caller says
//! reaches a header or a claim.
//!
//! Pure. Adding a profile is adding a row ([`rows`]), its source, its golden test, its verifier by
//! the vendor's rules (tests/peers/vendors.py) and its section in docs/profiles.md.

use keystore::Alg;
use keystore::charter::{PurposeKind, Typ};
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
    /// Where `sub` comes from.
    pub sub: Origin,
    /// Where `aud` comes from.
    pub aud: Origin,
    /// Algorithms the vendor accepts; the first is the default.
    pub algs: &'static [Alg],
    /// Lifetime in seconds when neither target nor request says one.
    pub lifetime_default_s: u32,
    /// Longest lifetime in seconds that a target may set.
    pub lifetime_max_s: u32,
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
    /// A key of the target, which has to be there.
    Key(Key),
    /// A key of the target; left out, it is this.
    KeyOr(Key, &'static str),
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
    /// `subject`
    Subject,
    /// `audience`
    Audience,
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
        for origin in [self.sub, self.aud] {
            match origin {
                Origin::Key(needed) if needed == key => return Takes::Needs,
                Origin::KeyOr(optional, _) if optional == key => return Takes::May,
                Origin::Key(_) | Origin::KeyOr(..) => {}
            }
        }
        Takes::Not
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
    pub const ALL: [Key; 5] = [
        Key::AuthorizationServer,
        Key::TokenEndpoint,
        Key::ClientId,
        Key::Subject,
        Key::Audience,
    ];

    /// As it is written in a target.
    pub fn as_str(self) -> &'static str {
        match self {
            Key::AuthorizationServer => "authorization_server",
            Key::TokenEndpoint => "token_endpoint",
            Key::ClientId => "client_id",
            Key::Subject => "subject",
            Key::Audience => "audience",
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
        })
    }
}

#[cfg(test)]
mod tests;
