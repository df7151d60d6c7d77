//! The charter of a key: what it may ever say, fixed when the key is made and kept by the
//! keystore. A broker that has been taken over can misuse a key only for what the key is for, at
//! the party it is registered with.
//!
//! Pure: [`Charter::permits`] takes the claims and the time and returns a verdict.

use crate::claims::{CLAIM_LEN_MAX, Claims, is_claim, is_jti};
use crate::clock::Time;
use crate::publickey::FINGERPRINT_LEN;
use crate::{Alg, Error, Kind, PublicKey};
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

/// How far before now an `iat` may lie by a charter, in seconds: GitHub advises 60.
pub const BACKDATE_MAX_S: u32 = 60;

/// Longest `kid` that a vendor has assigned, in bytes: Google's have 40, Auth0's 43.
pub const ASSIGNED_KID_LEN_MAX: usize = 128;

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
    /// An account at a vendor's, who knows it by its key: everything is pinned, and nothing is said
    /// that the vendor does not document (a `jti` is not).
    Account {
        /// The account, as the vendor has it in `iss`.
        iss: AccountIss,
        /// The account, or the user as whom it acts, where the vendor wants one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        sub: Option<String>,
        /// The API or token endpoint, where the vendor wants one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        aud: Option<String>,
        /// What is asked for, where the vendor wants that here.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        scope: Option<String>,
    },
}

/// The `iss` of an account.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AccountIss {
    /// This text.
    Is(String),
    /// This text, `.SHA256:` and the fingerprint of the key that signs (Snowflake).
    WithFingerprint(String),
}

/// The kind of a [`Purpose`], as a mint request names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PurposeKind {
    /// [`Purpose::ClientAuthentication`]
    ClientAuthentication,
    /// [`Purpose::Federation`]
    Federation,
    /// [`Purpose::Account`]
    Account,
}

impl PurposeKind {
    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            PurposeKind::ClientAuthentication => "client_authentication",
            PurposeKind::Federation => "federation",
            PurposeKind::Account => "account",
        }
    }
}

/// The `kid` header a key's assertions carry.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KidMember {
    /// The key's RFC 7638 thumbprint.
    #[default]
    Thumbprint,
    /// None: the vendor finds the key by the account, or by its certificate.
    Absent,
    /// What the vendor has named the key when it was registered.
    Assigned(String),
}

/// Whether a key has a certificate. Most have none: what it is told of a key by is then its JWK.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CertificateUse {
    /// It signs none and asks for none.
    #[default]
    None,
    /// The vendor is told the key by one.
    Allowed,
    /// And assertions say by which one, in `x5t#S256` (RFC 7515 §4.1.8).
    Named,
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
    /// The one `kid`. Charters from before there was a choice have the thumbprint.
    #[serde(default, skip_serializing_if = "KidMember::is_thumbprint")]
    pub kid: KidMember,
    /// Longest life from minting to `exp` in seconds, 1 to [`LIFETIME_MAX_S`].
    pub lifetime_max_s: u32,
    /// By how many seconds `iat` lies before minting, 0 to [`BACKDATE_MAX_S`].
    #[serde(default, skip_serializing_if = "is_zero")]
    pub backdate_s: u32,
    /// Whether it has a certificate, and says by which.
    #[serde(default, skip_serializing_if = "CertificateUse::is_none")]
    pub certificate: CertificateUse,
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
    /// A claim is another than the charter's, or one that it does not have.
    Claim { claim: &'static str, asked: String },
    /// A claim that the charter has is not there.
    Missing { claim: &'static str },
    /// `exp` is not after the minting, or too long after it, or too far from now.
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
    /// Whether `key`, which has this charter, may say `claims` now.
    pub fn permits(
        &self,
        kind: PurposeKind,
        claims: &Claims,
        key: &PublicKey,
        now: Time,
    ) -> Result<(), Refusal> {
        if kind != self.purpose.kind() {
            return Err(Refusal::Purpose {
                asked: kind,
                allowed: self.purpose.kind(),
            });
        }
        well_formed(claims)?;
        let asked_iss = Some(claims.iss.as_str());
        let asked_sub = claims.sub.as_deref();
        let asked_aud = claims.aud.as_deref();
        let asked_scope = claims.scope.as_deref();
        let jti = claims.jti.as_deref();
        match &self.purpose {
            Purpose::ClientAuthentication { iss, sub, aud } => {
                equal("iss", asked_iss, Some(iss))?;
                equal("sub", asked_sub, Some(sub))?;
                equal("aud", asked_aud, Some(aud))?;
                equal("scope", asked_scope, None)?;
                there("jti", jti)?;
            }
            Purpose::Federation { iss, subjects } => {
                equal("iss", asked_iss, Some(iss))?;
                let sub = there("sub", asked_sub)?;
                if !subjects.iter().any(|subject| subject.matches(sub)) {
                    return Err(Refusal::Claim {
                        claim: "sub",
                        asked: sub.to_owned(),
                    });
                }
                there("aud", asked_aud)?;
                equal("scope", asked_scope, None)?;
                there("jti", jti)?;
            }
            Purpose::Account {
                iss,
                sub,
                aud,
                scope,
            } => {
                equal("iss", asked_iss, Some(&iss.value(key)))?;
                equal("sub", asked_sub, sub.as_deref())?;
                equal("aud", asked_aud, aud.as_deref())?;
                equal("scope", asked_scope, scope.as_deref())?;
                equal("jti", jti, None)?;
            }
        }
        self.permits_times(claims, now.unix_s())
    }

    fn permits_times(&self, claims: &Claims, now: u64) -> Result<(), Refusal> {
        let allowed_s = self.lifetime_max_s;
        let minted_at = claims.iat.saturating_add(u64::from(self.backdate_s));
        let asked_s = claims.exp.saturating_sub(minted_at);
        if asked_s == 0 || asked_s > u64::from(allowed_s) {
            return Err(Refusal::Lifetime { asked_s, allowed_s });
        }
        let clock = |claim, asked| Err(Refusal::Clock { claim, asked, now });
        if minted_at > now.saturating_add(IAT_AHEAD_MAX_S)
            || minted_at < now.saturating_sub(IAT_AGE_MAX_S)
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
        self.check_header().or_else(refuse)?;
        let longest;
        let members: Vec<(&str, &str)> = match &self.purpose {
            Purpose::ClientAuthentication { iss, sub, aud } => {
                vec![("iss", iss), ("sub", sub), ("aud", aud)]
            }
            Purpose::Account {
                iss,
                sub,
                aud,
                scope,
            } => {
                longest = iss.longest();
                let optional = [("sub", sub), ("aud", aud), ("scope", scope)];
                let there = optional
                    .into_iter()
                    .filter_map(|(member, value)| Some((member, value.as_deref()?)));
                [("iss", longest.as_str())]
                    .into_iter()
                    .chain(there)
                    .collect()
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

    /// What of header and times only some purposes may have: verifiers of the others need a `kid`
    /// that tells keys apart and an `iat` that is now, and one kind of statement never looks like
    /// another.
    fn check_header(&self) -> Result<(), String> {
        let kind = self.purpose.kind();
        match (&self.kid, kind) {
            (KidMember::Absent, PurposeKind::Account) => {}
            (KidMember::Absent, _) if self.certificate == CertificateUse::Named => {}
            (KidMember::Absent, _) => {
                return Err(
                    "kid may be absent for an account, or where a certificate is named".into(),
                );
            }
            (KidMember::Assigned(_), PurposeKind::Federation) => {
                return Err("kid of an issuer's key must be its thumbprint".into());
            }
            (KidMember::Assigned(kid), _) if !is_kid(kid) => {
                return Err(format!(
                    "kid must be 1 to {ASSIGNED_KID_LEN_MAX} letters, digits, `-`, `.`, `_` and `~`"
                ));
            }
            (KidMember::Assigned(_) | KidMember::Thumbprint, _) => {}
        }
        match (self.backdate_s, kind) {
            (0, _) => {}
            (1..=BACKDATE_MAX_S, PurposeKind::Account) => {}
            _ => {
                return Err(format!(
                    "backdate_s must be 0, or at most {BACKDATE_MAX_S} for an account"
                ));
            }
        }
        match (self.certificate, kind) {
            (CertificateUse::None, _) => {}
            (CertificateUse::Allowed | CertificateUse::Named, PurposeKind::Federation) => {
                return Err("certificate of an issuer's key must be none".into());
            }
            (CertificateUse::Allowed | CertificateUse::Named, _) => {}
        }
        match (self.typ, kind) {
            (Typ::ClientAuthentication, PurposeKind::Account) => {
                Err("typ of an account's key must be JWT".into())
            }
            _ => Ok(()),
        }
    }
}

/// Whether a vendor's `kid` may stand in a header: the unreserved characters of RFC 3986 §2.3, none
/// of which JSON escapes.
pub fn is_kid(kid: &str) -> bool {
    let unreserved =
        |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~');
    (1..=ASSIGNED_KID_LEN_MAX).contains(&kid.len()) && kid.bytes().all(unreserved)
}

fn is_zero(seconds: &u32) -> bool {
    *seconds == 0
}

/// A claim that has to be as the charter has it, or not to be there if it has none.
fn equal(claim: &'static str, asked: Option<&str>, allowed: Option<&str>) -> Result<(), Refusal> {
    match (asked, allowed) {
        (asked, allowed) if asked == allowed => Ok(()),
        (Some(asked), _) => Err(Refusal::Claim {
            claim,
            asked: asked.to_owned(),
        }),
        (None, _) => Err(Refusal::Missing { claim }),
    }
}

/// A claim that has to be there.
fn there<'a>(claim: &'static str, asked: Option<&'a str>) -> Result<&'a str, Refusal> {
    asked.ok_or(Refusal::Missing { claim })
}

impl KidMember {
    fn is_thumbprint(&self) -> bool {
        *self == KidMember::Thumbprint
    }
}

impl CertificateUse {
    fn is_none(&self) -> bool {
        *self == CertificateUse::None
    }
}

impl AccountIss {
    /// The claim's value, of a key.
    pub fn value(&self, key: &PublicKey) -> String {
        match self {
            AccountIss::Is(iss) => iss.clone(),
            AccountIss::WithFingerprint(account) => {
                format!("{account}.SHA256:{}", key.fingerprint())
            }
        }
    }

    /// As it is written in a configuration.
    pub fn as_str(&self) -> &str {
        match self {
            AccountIss::Is(iss) | AccountIss::WithFingerprint(iss) => iss,
        }
    }

    /// A text as long as the value; nothing if there is no account.
    fn longest(&self) -> String {
        match self {
            AccountIss::WithFingerprint(account) if !account.is_empty() => {
                format!("{account}.SHA256:{}", "A".repeat(FINGERPRINT_LEN))
            }
            AccountIss::WithFingerprint(_) => String::new(),
            AccountIss::Is(iss) => iss.clone(),
        }
    }
}

impl Purpose {
    /// The kind of this purpose.
    pub fn kind(&self) -> PurposeKind {
        match self {
            Purpose::ClientAuthentication { .. } => PurposeKind::ClientAuthentication,
            Purpose::Federation { .. } => PurposeKind::Federation,
            Purpose::Account { .. } => PurposeKind::Account,
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
            Refusal::Missing { claim } => {
                write!(f, "`{claim}` may not be left out")
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
        ("iss", Some(&claims.iss)),
        ("sub", claims.sub.as_ref()),
        ("aud", claims.aud.as_ref()),
        ("scope", claims.scope.as_ref()),
    ] {
        if value.is_some_and(|value| !is_claim(value)) {
            return Err(Refusal::Malformed { claim });
        }
    }
    match &claims.jti {
        Some(jti) if !is_jti(jti) => Err(Refusal::Malformed { claim: "jti" }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
