//! Profiles: what each kind of relying party wants to see, as closed data. A profile fixes the
//! purpose, the `typ`, the algorithms and the lifetimes; a target fills in names and may only
//! narrow. Nothing a caller says reaches a header or a claim.
//!
//! Pure. Adding a profile is adding a row, its source, and its golden test.

use keystore::Alg;
use keystore::charter::{PurposeKind, Typ};

/// One row of the table.
#[derive(Debug, PartialEq, Eq)]
pub struct Profile {
    /// Its name in the configuration.
    pub name: &'static str,
    /// What kind of statement its assertions are.
    pub purpose: PurposeKind,
    /// The header's `typ`.
    pub typ: Typ,
    /// Algorithms the vendor accepts; the first is the default.
    pub algs: &'static [Alg],
    /// Lifetime in seconds when neither target nor request says one.
    pub lifetime_default_s: u32,
    /// Longest lifetime in seconds that a target may set.
    pub lifetime_max_s: u32,
    /// Where the row comes from.
    pub source: &'static str,
    /// What it was really run against.
    pub tested: &'static str,
}

/// Every profile we ship.
pub static PROFILES: [Profile; 2] = [
    Profile {
        name: "rfc7523",
        purpose: PurposeKind::ClientAuthentication,
        typ: Typ::ClientAuthentication,
        algs: &[Alg::ES256, Alg::ES384, Alg::PS256, Alg::RS256, Alg::EdDSA],
        lifetime_default_s: 60, // safe at every server tried; Keycloak caps at 60
        lifetime_max_s: 300,
        source: "RFC 7523 §3 as updated by draft-ietf-oauth-rfc7523bis-11: sole issuer identifier \
                 as `aud`, `typ` client-authentication+jwt; no `nbf` (a server in use refuses it)",
        tested: "oidc-provider 9 (private_key_jwt)",
    },
    Profile {
        name: "aws-oidc",
        purpose: PurposeKind::Federation,
        typ: Typ::Jwt,
        algs: &[Alg::RS256, Alg::ES256, Alg::ES384], // AWS STS takes no PS* and no EdDSA
        lifetime_default_s: 600,
        lifetime_max_s: 3600, // a token delivered as a file: SDKs cache it for 10 minutes
        source: "AWS IAM user guide, OIDC federation: integer times, `aud` in the client-id list",
        tested: "PyJWT, joserfc and jwcrypto configured by the documented rules; untested against \
                 the vendor",
    },
];

impl Profile {
    /// The profile of this name.
    pub fn named(name: &str) -> Option<&'static Profile> {
        PROFILES.iter().find(|profile| profile.name == name)
    }

    /// Every name, in the table's order.
    pub fn names() -> Vec<&'static str> {
        PROFILES.iter().map(|profile| profile.name).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_sound() {
        for profile in &PROFILES {
            assert_eq!(Profile::named(profile.name), Some(profile));
            assert!(!profile.algs.is_empty(), "{}", profile.name);
            assert!(
                profile.lifetime_default_s <= profile.lifetime_max_s,
                "{}",
                profile.name
            );
            assert!(profile.lifetime_default_s > 0, "{}", profile.name);
            assert!(!profile.source.is_empty() && !profile.tested.is_empty());
        }
    }

    #[test]
    fn client_assertions_live_five_minutes_at_most() {
        for profile in PROFILES
            .iter()
            .filter(|p| p.purpose == PurposeKind::ClientAuthentication)
        {
            assert!(profile.lifetime_max_s <= 300, "{}", profile.name);
        }
    }
}
