//! The charter of a key: what it may ever say, fixed when the key is made and kept by the
//! keystore. A broker that has been taken over can misuse a key only for what the key is for, at
//! the party it is registered with.
//!
//! Pure: [`Charter::permits`] takes the claims and the time and returns a verdict.

use crate::claims::{CLAIM_LEN_MAX, Claims, JTI_LEN, is_claim};
use crate::clock::Time;
use crate::{Alg, Error, Kind};
use serde::{Deserialize, Serialize};
use std::fmt;

/// Longest lifetime any charter may allow: one day. A token file lives an hour; nothing we mint
/// needs more.
pub const LIFETIME_MAX_S: u32 = 86_400;

/// How old `iat` may be when the keystore sees it: the longest a request may wait in the broker's
/// queue (5 s) and as much again for a host under load.
pub const IAT_AGE_MAX_S: u64 = 10;

/// How far `iat` may be ahead: both processes read the same host's clock, so only rounding.
pub const IAT_AHEAD_MAX_S: u64 = 1;

/// Most subjects one issuer's charter may list; a fleet-wide issuer has tens.
pub const SUBJECTS_MAX: usize = 1024;

/// What a key is for. Each purpose is a different kind of statement; a key never changes its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Purpose {
    /// RFC 7523 §2.2 client authentication at one authorization server: everything is pinned.
    ClientAuthentication {
        /// The client id (RFC 7523 §3 item 1).
        iss: String,
        /// The client id (RFC 7523 §3 item 2).
        sub: String,
        /// The authorization server's issuer identifier, or what its vendor demands instead.
        aud: String,
    },
    /// An issuer of federation tokens: issuer pinned, subjects limited, audience free.
    Federation {
        /// The issuer URL, string-equal to the discovery document's.
        iss: String,
        /// What it may ever assert.
        subjects: Vec<SubjectPattern>,
    },
}

/// The kind of a [`Purpose`], as a mint request names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PurposeKind {
    /// [`Purpose::ClientAuthentication`]
    ClientAuthentication,
    /// [`Purpose::Federation`]
    Federation,
}

/// The `typ` header a key's assertions carry: explicit typing keeps one kind of JWT from passing
/// as another (rfc8725bis §3.11).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Typ {
    /// rfc7523bis.
    #[serde(rename = "client-authentication+jwt")]
    ClientAuthentication,
    /// RFC 7519 §5.1; what federation verifiers expect.
    #[serde(rename = "JWT")]
    Jwt,
}

/// An exact subject, or a prefix written `reports-*`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SubjectPattern(String);

/// What a key may ever say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Charter {
    /// What it is for, and the claims that follow from it.
    pub purpose: Purpose,
    /// The one algorithm.
    pub alg: Alg,
    /// The one `typ`.
    pub typ: Typ,
    /// Longest `exp − iat` in seconds, 1 to [`LIFETIME_MAX_S`].
    pub lifetime_max_s: u32,
}

/// Why a charter does not permit some claims. Each names the claim, what was asked and what the
/// charter allows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The request names another purpose than the key's.
    Purpose {
        asked: PurposeKind,
        allowed: PurposeKind,
    },
    /// `iss`, `sub` or `aud` is another than the charter's.
    Claim { claim: &'static str, asked: String },
    /// `exp` is not after `iat`, or too long after it, or too far from now.
    Lifetime { asked_s: u64, allowed_s: u32 },
    /// `iat` or `nbf` is not now.
    Clock {
        claim: &'static str,
        asked: u64,
        now: u64,
    },
    /// A value that no assertion may carry: empty, too long, control characters.
    Malformed { claim: &'static str },
}

impl Charter {
    /// Whether a key with this charter may say `claims` now.
    pub fn permits(&self, kind: PurposeKind, claims: &Claims, now: Time) -> Result<(), Refusal> {
        if kind != self.purpose.kind() {
            return Err(Refusal::Purpose {
                asked: kind,
                allowed: self.purpose.kind(),
            });
        }
        well_formed(claims)?;
        let equal = |claim: &'static str, asked: &str, allowed: &str| {
            if asked == allowed {
                Ok(())
            } else {
                Err(Refusal::Claim {
                    claim,
                    asked: asked.to_owned(),
                })
            }
        };
        match &self.purpose {
            Purpose::ClientAuthentication { iss, sub, aud } => {
                equal("iss", &claims.iss, iss)?;
                equal("sub", &claims.sub, sub)?;
                equal("aud", &claims.aud, aud)?;
            }
            Purpose::Federation { iss, subjects } => {
                equal("iss", &claims.iss, iss)?;
                if !subjects.iter().any(|subject| subject.matches(&claims.sub)) {
                    return Err(Refusal::Claim {
                        claim: "sub",
                        asked: claims.sub.clone(),
                    });
                }
            }
        }
        self.permits_times(claims, now.unix_s())
    }

    fn permits_times(&self, claims: &Claims, now: u64) -> Result<(), Refusal> {
        let allowed_s = self.lifetime_max_s;
        let asked_s = claims.exp.saturating_sub(claims.iat);
        if asked_s == 0 || asked_s > u64::from(allowed_s) {
            return Err(Refusal::Lifetime { asked_s, allowed_s });
        }
        let clock = |claim, asked| Err(Refusal::Clock { claim, asked, now });
        if claims.iat > now.saturating_add(IAT_AHEAD_MAX_S)
            || claims.iat < now.saturating_sub(IAT_AGE_MAX_S)
        {
            return clock("iat", claims.iat);
        }
        match claims.nbf {
            Some(nbf) if nbf != claims.iat => clock("nbf", nbf),
            _ => Ok(()),
        }
    }

    /// Checks the charter itself before a key is made under it.
    ///
    /// # Errors
    /// [`Kind::Refused`] naming the member.
    pub fn check(&self) -> Result<(), Error> {
        let refuse = |text: String| Err(Error::new(Kind::Refused, format!("charter: {text}")));
        if self.lifetime_max_s == 0 || self.lifetime_max_s > LIFETIME_MAX_S {
            return refuse(format!("lifetime_max_s must be 1 to {LIFETIME_MAX_S}"));
        }
        let members: Vec<(&str, &str)> = match &self.purpose {
            Purpose::ClientAuthentication { iss, sub, aud } => {
                vec![("iss", iss), ("sub", sub), ("aud", aud)]
            }
            Purpose::Federation { iss, subjects } => {
                if subjects.is_empty() || subjects.len() > SUBJECTS_MAX {
                    return refuse(format!("subjects must be 1 to {SUBJECTS_MAX}"));
                }
                vec![("iss", iss)]
            }
        };
        for (member, value) in members {
            if !is_claim(value) {
                return refuse(format!(
                    "{member} must be 1 to {CLAIM_LEN_MAX} bytes of JSON without control characters"
                ));
            }
        }
        Ok(())
    }
}

impl Purpose {
    /// The kind of this purpose.
    pub fn kind(&self) -> PurposeKind {
        match self {
            Purpose::ClientAuthentication { .. } => PurposeKind::ClientAuthentication,
            Purpose::Federation { .. } => PurposeKind::Federation,
        }
    }
}

impl Typ {
    /// The header's value, without the `application/` prefix (RFC 7515 §4.1.9).
    pub fn as_str(self) -> &'static str {
        match self {
            Typ::ClientAuthentication => "client-authentication+jwt",
            Typ::Jwt => "JWT",
        }
    }
}

impl SubjectPattern {
    /// Whether the pattern covers this subject.
    pub fn matches(&self, subject: &str) -> bool {
        match self.0.strip_suffix('*') {
            Some(prefix) => subject.len() > prefix.len() && subject.starts_with(prefix),
            None => subject == self.0,
        }
    }

    /// The pattern as written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for SubjectPattern {
    type Error = Error;
    fn try_from(text: String) -> Result<SubjectPattern, Error> {
        let stem = text.strip_suffix('*').unwrap_or(&text);
        if !is_claim(stem) || stem.contains('*') {
            return Err(Error::new(
                Kind::Refused,
                format!(
                    "subject `{text}`: write an exact subject, or a prefix and one `*` at the end"
                ),
            ));
        }
        Ok(SubjectPattern(text))
    }
}

impl From<SubjectPattern> for String {
    fn from(pattern: SubjectPattern) -> String {
        pattern.0
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::Purpose { asked, allowed } => {
                write!(f, "the key is for {allowed:?}, not for {asked:?}")
            }
            Refusal::Claim { claim, asked } => {
                let shown: String = asked.chars().take(80).collect();
                write!(
                    f,
                    "`{claim}` may not be {shown:?}; root can amend the charter by `assertctl apply`"
                )
            }
            Refusal::Lifetime { asked_s, allowed_s } => {
                write!(f, "a lifetime of {asked_s} s is outside 1 to {allowed_s} s")
            }
            Refusal::Clock { claim, asked, now } => {
                write!(
                    f,
                    "`{claim}` {asked} is not now ({now} on the keystore's clock)"
                )
            }
            Refusal::Malformed { claim } => write!(f, "`{claim}` is not a value we mint"),
        }
    }
}

fn well_formed(claims: &Claims) -> Result<(), Refusal> {
    for (claim, value) in [
        ("iss", &claims.iss),
        ("sub", &claims.sub),
        ("aud", &claims.aud),
    ] {
        if !is_claim(value) {
            return Err(Refusal::Malformed { claim });
        }
    }
    let base64url = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if claims.jti.len() != JTI_LEN || !claims.jti.chars().all(base64url) {
        return Err(Refusal::Malformed { claim: "jti" });
    }
    Ok(())
}

#[cfg(test)]
mod tests;
