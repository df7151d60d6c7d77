//! The files as they are written: serde types with spans, nothing resolved, nothing allowed that
//! is not named here.
//!
//! What stands above a key is shown to users: the JSON Schema of the file is made of these types
//! ([`super::schema`]), and editors show it beside the key. So it says unit and default, and links
//! to nothing. A limit that is written here too is one that loading enforces.

use super::many::{OneOrMany, Value};
use super::spanned::Spanned;
use super::table::table;
use keystore::Alg;
use keystore::config::Section as KeystoreSection;
use keystore::protocol::EvidenceLevel;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::PathBuf;
use toml::value::Datetime;
#[cfg(test)]
use {
    super::{WEIGHT_MAX, resolve::SEGMENT_BYTES, schema},
    keystore::charter::LIFETIME_MAX_S,
    schemars::JsonSchema,
};

/// Configuration of assertd: /etc/assertd/assertd.toml, and the files in conf.d beside it, one for
/// each team, which hold `[workload.NAME]` sections alone. Every key is explained in assertd.toml(5);
/// `assertctl config check` says what is wrong or unwise.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(test, derive(JsonSchema), schemars(rename = "assertd.toml"))]
pub struct MainFile {
    /// Sockets and state. Main file alone.
    #[serde(default, deserialize_with = "table")]
    pub server: ServerSection,
    /// The audit log. Main file alone.
    #[serde(default, deserialize_with = "table")]
    pub audit: AuditSection,
    /// Where documents with public keys are put, for others to fetch. Main file alone.
    #[serde(default, deserialize_with = "table")]
    pub publication: PublicationSection,
    /// How often workloads may ask whose sections do not say. Main file alone.
    #[serde(default, deserialize_with = "table")]
    pub limits: LimitsSection,
    /// Where keys are made and used: `[keystore.NAME]`, one for each PKCS#11 token or TPM. Main file
    /// alone.
    #[serde(default)]
    #[cfg_attr(test, schemars(transform = schema::named))]
    pub keystore: BTreeMap<Spanned<String>, Spanned<KeystoreSection>>,
    /// This host, or its fleet, as an OpenID Connect issuer for federation: `[issuer.NAME]`. Main file
    /// alone.
    #[serde(default)]
    #[cfg_attr(test, schemars(transform = schema::named))]
    pub issuer: BTreeMap<Spanned<String>, Spanned<IssuerSection>>,
    /// How published keys are read back. Main file alone.
    #[serde(default, deserialize_with = "table")]
    pub courier: CourierSection,
    /// What is said of this host to who asks for evidence of its keys. Main file alone.
    #[serde(default, deserialize_with = "table")]
    pub attest: AttestSection,
    /// A shipped profile, made narrower: `[profile.NAME]`, for targets to name. Main file alone.
    #[serde(default)]
    #[cfg_attr(test, schemars(transform = schema::named_anew))]
    pub profile: BTreeMap<Spanned<String>, Spanned<ProfileSection>>,
    /// Who may have what: `[workload.NAME]`, with a `[workload.NAME.target.NAME]` for each target.
    #[serde(default)]
    #[cfg_attr(test, schemars(transform = schema::named))]
    pub workload: BTreeMap<Spanned<String>, Spanned<WorkloadSection>>,
    /// Files of what gets nothing, whatever a section says. Main file alone.
    #[serde(default, deserialize_with = "table")]
    pub deny: DenySection,
    /// What the files of a team may do: `[bounds.NAME]`. Once there is one, every file in conf.d has to
    /// be named by exactly one. Main file alone.
    #[serde(default)]
    #[cfg_attr(test, schemars(transform = schema::named))]
    pub bounds: BTreeMap<Spanned<String>, Spanned<BoundsSection>>,
}

/// conf.d/NAME.toml: what a team may write.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DropIn {
    #[serde(default)]
    pub workload: BTreeMap<Spanned<String>, Spanned<WorkloadSection>>,
}

/// Sockets and state.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(test, derive(JsonSchema))]
pub struct ServerSection {
    /// Directory in which the sockets are made. Default: /run/assertd
    #[cfg_attr(test, schemars(regex(pattern = "^/")))]
    pub runtime_dir: Option<Spanned<PathBuf>>,
    /// Directory of assertd's state, which belongs to its user alone (mode 0700). Default:
    /// /var/lib/assertd
    #[cfg_attr(test, schemars(regex(pattern = "^/")))]
    pub state_dir: Option<Spanned<PathBuf>>,
}

/// A main file of which only that section counts.
#[derive(Deserialize)]
pub struct ServerAlone {
    #[serde(default)]
    pub server: SocketsSection,
}

/// Where sockets are; the rest of the section is not looked at.
#[derive(Default, Deserialize)]
pub struct SocketsSection {
    pub runtime_dir: Option<PathBuf>,
}

/// A main file of which only what is published counts.
#[derive(Deserialize)]
pub struct PublishedAlone {
    #[serde(default, deserialize_with = "table")]
    pub publication: PublicationSection,
    #[serde(default)]
    pub issuer: BTreeMap<String, UrlAlone>,
}

/// An issuer's URL; the rest of the section is not looked at.
#[derive(Deserialize)]
pub struct UrlAlone {
    pub url: String,
}

/// The audit log.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(test, derive(JsonSchema))]
pub struct AuditSection {
    /// Its directory. Default: `audit` below `state_dir`.
    #[cfg_attr(test, schemars(regex(pattern = "^/")))]
    pub dir: Option<Spanned<PathBuf>>,
    /// Bytes of one segment, of which two are allocated at any time. Default: 33554432 (32 MiB)
    #[cfg_attr(
        test,
        schemars(range(min = *SEGMENT_BYTES.start(), max = *SEGMENT_BYTES.end()))
    )]
    pub segment_bytes: Option<Spanned<u64>>,
}

/// Where documents with public keys are put: discovery documents, JWK sets, SPIFFE bundles.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(test, derive(JsonSchema))]
pub struct PublicationSection {
    /// Directory that everybody may read and assertd's user alone may change, outside of `state_dir`. The
    /// packages make /var/lib/assertd-published. Default: none, and nothing is written
    #[cfg_attr(test, schemars(regex(pattern = "^/")))]
    pub directory: Option<Spanned<PathBuf>>,
}

/// How often workloads may ask, each counted over all of its processes.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(test, derive(JsonSchema))]
pub struct LimitsSection {
    /// Requests per second of a workload whose section has no `rate`. Default: 100
    #[cfg_attr(test, schemars(range(min = 1)))]
    pub workload_rate: Option<Spanned<u32>>,
    /// Requests at once, before the rate holds, of a workload whose section has no `burst`. Default:
    /// 200
    #[cfg_attr(test, schemars(range(min = 1)))]
    pub workload_burst: Option<Spanned<u32>>,
}

/// This host, or its fleet, as an OpenID Connect issuer for federation.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(test, derive(JsonSchema))]
pub struct IssuerSection {
    /// The issuer: an https URL without query and fragment, character by character the `issuer` of its
    /// discovery document. Becomes `iss`.
    #[cfg_attr(test, schemars(regex(pattern = "^https://[^?# ]+$")))]
    pub url: Spanned<String>,
    /// What it may ever assert as `sub`: exact subjects, or prefixes with one `*` at the end. They are
    /// written into the key's charter: `assertctl apply` after a change.
    #[cfg_attr(test, schemars(length(min = 1), inner(regex(pattern = r"^[^*]+\*?$"))))]
    pub subjects: Spanned<Vec<Spanned<String>>>,
    /// The `[keystore.NAME]` that holds its key.
    pub keystore: Spanned<String>,
    /// The SPIFFE trust domain whose workloads it names, such as "example.org". Each subject that is a
    /// SPIFFE ID is then of it. Profile jwt-svid needs one.
    #[cfg_attr(test, schemars(regex(pattern = "^[a-z0-9._-]{1,255}$")))]
    pub trust_domain: Option<Spanned<String>>,
    /// The algorithm of its key. Default: ES256. Some clouds take RS256 alone.
    pub alg: Option<Spanned<Alg>>,
    /// Longest life in seconds of anything it signs. Default: 3600
    #[cfg_attr(test, schemars(range(min = 1, max = LIFETIME_MAX_S)))]
    pub lifetime_max: Option<Spanned<u32>>,
    /// Where its JWKS is published, an https URL, to be read back by assertd-courier: a new key signs
    /// only after it was seen there. Default: none, and then it signs after the time that publishing takes
    #[cfg_attr(test, schemars(regex(pattern = r"^https://[^#\s]+$")))]
    pub verify_url: Option<Spanned<String>>,
    /// When the versions of its key follow each other.
    pub rotation: Option<Spanned<RotationSection>>,
}

/// When the versions of a key follow each other. Each length of time is a number and one of s, m, h, d:
/// "90d".
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(test, derive(JsonSchema))]
pub struct RotationSection {
    /// How long a version signs before the next takes its place. Default: 90d for an issuer with
    /// `verify_url`; else until `assertctl keys rotate`
    #[cfg_attr(test, schemars(regex(pattern = "^[0-9]+[smhd]$")))]
    pub period: Option<Spanned<String>>,
    /// From writing the documents until they are seen everywhere. Default: 5m, or 0s with activation =
    /// "hand" or "canary"
    #[cfg_attr(test, schemars(regex(pattern = "^[0-9]+[smhd]$")))]
    pub publish_latency: Option<Spanned<String>>,
    /// The longest that whoever verifies keeps a set before fetching it again. Default: 24h, or 0s with
    /// activation = "hand" or "canary"
    #[cfg_attr(test, schemars(regex(pattern = "^[0-9]+[smhd]$")))]
    pub verifier_cache: Option<Spanned<String>>,
    /// By how much clocks may differ. Default: 2m
    #[cfg_attr(test, schemars(regex(pattern = "^[0-9]+[smhd]$")))]
    pub skew: Option<Spanned<String>>,
    /// For how long whoever verifies accepts what has expired. Default: 5m
    #[cfg_attr(test, schemars(regex(pattern = "^[0-9]+[smhd]$")))]
    pub leeway: Option<Spanned<String>>,
    /// How long a version that was replaced is kept, so that it can be taken back. Default: 24h
    #[cfg_attr(test, schemars(regex(pattern = "^[0-9]+[smhd]$")))]
    pub rollback: Option<Spanned<String>>,
    /// Who says that a published version signs: "time", once everybody who fetches the set must have it;
    /// "hand", by `assertctl keys activate`; or "canary", once it has got access tokens from a server that is
    /// told of keys. Default: "time" for an issuer, else "hand"
    pub activation: Option<Spanned<Activated>>,
    /// The access tokens that a version has to get with activation = "canary". Targets of profiles that
    /// authenticate clients alone.
    pub canary: Option<Spanned<CanarySection>>,
}

/// Who says that a published version signs.
#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(test, derive(JsonSchema))]
pub enum Activated {
    /// Its time has come.
    Time,
    /// An operator.
    Hand,
    /// The other side, by what it answers.
    Canary,
}

/// What is asked for with a version before it signs: access tokens for the client itself (client credentials), which
/// nobody gets. assertd-courier asks.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(test, derive(JsonSchema))]
pub struct CanarySection {
    /// The token endpoint, an https URL without user and fragment. Default: the target's `token_endpoint`,
    /// if its profile has one
    #[cfg_attr(test, schemars(regex(pattern = r"^https://[^#\s]+$")))]
    pub token_endpoint: Option<Spanned<String>>,
    /// The request's `scope`, with blanks between. Default: none
    #[cfg_attr(test, schemars(length(min = 1, max = 1024)))]
    pub scope: Option<Spanned<String>>,
    /// The request's `audience`, where a server wants one, as Auth0 does. Default: none
    #[cfg_attr(test, schemars(length(min = 1, max = 1024)))]
    pub audience: Option<Spanned<String>>,
    /// Over how long three tokens in a row have to be got: a number and one of s, m, h, 1h at most.
    /// Default: 60s
    #[cfg_attr(test, schemars(regex(pattern = "^[0-9]+[smhd]$")))]
    pub span: Option<Spanned<String>>,
}

/// The certificates of a target's key: each version has one of its own, by itself, which is made with it.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(test, derive(JsonSchema))]
pub struct CertificateSection {
    /// For how long each is valid: a number and one of s, m, h, d, 731d at most. It has to outlive the use of
    /// its version. Default: 365d
    #[cfg_attr(test, schemars(regex(pattern = "^[0-9]+[smhd]$")))]
    pub validity: Option<Spanned<String>>,
}

/// Where the first version of a key comes from.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(test, derive(JsonSchema))]
pub enum KeyFrom {
    /// Its keystore makes it.
    Make,
    /// An operator brings it in.
    Import,
}

/// How published keys are read back.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(test, derive(JsonSchema))]
pub struct CourierSection {
    /// Absolute path of a file with the certificates (PEM) of the authorities that the servers of all
    /// `verify_url` must have theirs from. Default: those that the host trusts
    #[cfg_attr(test, schemars(regex(pattern = "^/")))]
    pub ca: Option<Spanned<PathBuf>>,
}

/// What is said of this host to who asks for evidence of its keys (`assertctl attest`).
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(test, derive(JsonSchema))]
pub struct AttestSection {
    /// What verifiers call this host. Default: its host name
    #[cfg_attr(test, schemars(length(min = 1, max = 253)))]
    pub host: Option<Spanned<String>>,
    /// The PCRs of a TPM that are quoted, which verifiers must expect to be these. Default: 0 to 7, what
    /// the firmware and the boot loader have measured
    #[cfg_attr(test, schemars(length(min = 1), inner(range(min = 0, max = 23))))]
    pub pcrs: Option<Spanned<Vec<Spanned<u8>>>>,
    /// The bank they are of. Default: sha256
    pub bank: Option<PcrBank>,
}

/// A bank of PCRs. SHA-1 is none that anybody should believe.
#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(test, derive(JsonSchema))]
pub enum PcrBank {
    /// SHA-256
    Sha256,
    /// SHA-384
    Sha384,
    /// SHA-512
    Sha512,
}

/// A shipped profile, made narrower. What would widen it is refused.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(test, derive(JsonSchema), schemars(transform = schema::by_extended))]
pub struct ProfileSection {
    /// The shipped profile, such as "aws-oidc".
    #[cfg_attr(test, schemars(with = "schema::RowName"))]
    pub extends: Spanned<String>,
    /// Seconds that an assertion lives if its target does not say. Default: that of `extends`, or
    /// `lifetime_max` if that is less
    #[cfg_attr(test, schemars(range(min = 1)))]
    pub lifetime: Option<Spanned<u32>>,
    /// Longest life in seconds that a target may say. Default: that of `extends`
    #[cfg_attr(test, schemars(range(min = 1)))]
    pub lifetime_max: Option<Spanned<u32>>,
    /// Algorithms that it takes, of those of `extends`; the first is the default of a target that has a
    /// key of its own. Default: all of them
    #[cfg_attr(test, schemars(length(min = 1)))]
    pub algs: Option<Spanned<Vec<Spanned<Alg>>>>,
    /// The one audience of all its targets, which then have no `audience`.
    #[cfg_attr(test, schemars(length(min = 1)))]
    pub audience: Option<Spanned<String>>,
}

/// A workload: who it is, and what it may have.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(test, derive(JsonSchema))]
pub struct WorkloadSection {
    /// Whom to ask about it, such as "payments@example.com".
    pub owner: Option<Spanned<String>>,
    /// What it is for, in a sentence.
    pub purpose: Option<Spanned<String>>,
    /// It gets nothing from this moment on: a date (its midnight in UTC), or a date and time with an
    /// offset. Without quotation marks: 2027-06-30
    #[cfg_attr(test, schemars(with = "Option<schema::Moment>"))]
    pub expires: Option<Spanned<Datetime>>,
    /// Whom the section is about: selectors, all of which must hold. At least `unit`, `slice`, `user`
    /// or `uid`. Exactly one section may match a caller and own the target it asks for; two are a
    /// denial.
    #[cfg_attr(test, schemars(transform = schema::of_match))]
    pub r#match: Spanned<MatchSection>,
    /// Whom it is not about all the same: who fits all selectors of one of these tables. What cannot be
    /// found out excludes.
    #[serde(default)]
    #[cfg_attr(test, schemars(transform = schema::of_unless))]
    pub unless: OneOrMany<MatchSection>,
    /// Selectors that are looked at and recorded, and change nothing, to tighten `match` in two steps. Not
    /// for `unit`, `user_unit`, `user` and `uid`, which are always enforced.
    #[cfg_attr(test, schemars(transform = schema::of_shadow))]
    pub shadow: Option<Spanned<MatchSection>>,
    /// Whether to serve it where the kernel proves a caller by its pid alone (before 6.5: Debian 12,
    /// RHEL 9).
    #[serde(default)]
    pub allow_pid_fallback: bool,
    /// Requests per second, over all its processes. Default: `workload_rate` of `[limits]`
    #[cfg_attr(test, schemars(range(min = 1)))]
    pub rate: Option<Spanned<u32>>,
    /// Requests at once, before the rate holds. Default: `workload_burst` of `[limits]`
    #[cfg_attr(test, schemars(range(min = 1)))]
    pub burst: Option<Spanned<u32>>,
    /// Its share of a keystore that others ask for at the same time, against theirs: 3 has three signatures
    /// where 1 has one. Default: 1
    #[cfg_attr(test, schemars(range(min = 1, max = WEIGHT_MAX)))]
    pub weight: Option<Spanned<u32>>,
    /// What it may ask for, by the name that it asks with.
    #[serde(default)]
    #[cfg_attr(test, schemars(transform = schema::named))]
    pub target: BTreeMap<Spanned<String>, Spanned<TargetSection>>,
}

/// Selectors, all of which must hold together.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(test, derive(JsonSchema), schemars(transform = schema::selectors))]
pub struct MatchSection {
    /// A system unit: its name, or its full cgroup path with a leading `/`. One `*` stands for something
    /// without a `/`: "app@*.service". What a service builds below itself, containers included, is that
    /// service.
    #[cfg_attr(test, schemars(regex(pattern = r"\.(service|scope)$")))]
    pub unit: Option<Spanned<String>>,
    /// A slice it is in, at any depth, such as "payments.slice".
    #[cfg_attr(test, schemars(regex(pattern = r"\.slice$")))]
    pub slice: Option<Spanned<String>>,
    /// A unit of the user's own service manager, by its name; `user` or `uid` say whose. Whoever is that
    /// user can start one of any name.
    #[cfg_attr(test, schemars(regex(pattern = r"\.(service|scope)$")))]
    pub user_unit: Option<Spanned<String>>,
    /// All of its user ids are this one.
    pub uid: Option<Spanned<u32>>,
    /// All of its user ids are this user's, who has to be on the host.
    pub user: Option<Spanned<String>>,
    /// All of its group ids are this one.
    pub gid: Option<Spanned<u32>>,
    /// All of its group ids are this group's, which has to be on the host.
    pub group: Option<Spanned<String>>,
    /// One of its other groups.
    pub supplementary_group: Option<Spanned<String>>,
    /// The path of the executable that runs, as `readlink /proc/PID/exe` shows it. Read by
    /// assertd-witness, without which the configuration does not come into force.
    #[cfg_attr(test, schemars(regex(pattern = "^/")))]
    pub exe: Option<Spanned<String>>,
    /// The SHA-256 of the executable that runs, or a list of them: 64 hexadecimal digits, as sha256sum
    /// prints them. Read by assertd-witness, without which the configuration does not come into force.
    #[serde(default)]
    #[cfg_attr(test, schemars(transform = schema::of_digests))]
    pub exe_sha256: Option<OneOrMany<String>>,
    /// Whether it is in a pid namespace of its own. Default in `match`: false
    pub container: Option<Spanned<bool>>,
    /// Whether it has a terminal or belongs to a login session. `false` keeps a person's shell out by
    /// mistake, not by intent.
    pub interactive: Option<Spanned<bool>>,
}

impl Value for MatchSection {
    const NEEDED: &str = "a table of selectors, or a list of such tables,";
}

/// Files of what gets nothing: one entry a line, and what follows a `#` is a remark. Read again when
/// they change.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(test, derive(JsonSchema))]
pub struct DenySection {
    /// Absolute path of a file with the SHA-256 digests of executables, as sha256sum prints them. Needs
    /// assertd-witness.
    #[cfg_attr(test, schemars(regex(pattern = "^/")))]
    pub executables: Option<Spanned<PathBuf>>,
    /// Absolute path of a file with units, by name or by cgroup path, each with one `*` at most.
    #[cfg_attr(test, schemars(regex(pattern = "^/")))]
    pub units: Option<Spanned<PathBuf>>,
    /// Absolute path of a file with users, by name or by number.
    #[cfg_attr(test, schemars(regex(pattern = "^/")))]
    pub users: Option<Spanned<PathBuf>>,
}

/// What the files of a team may do. Everything may have one `*`, and "*" alone is everything; what is not
/// listed is not allowed.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(test, derive(JsonSchema), schemars(transform = schema::bounds))]
pub struct BoundsSection {
    /// Names of files in conf.d, such as "payments.toml".
    pub files: OneOrMany<String>,
    /// Names that their `[workload.NAME]` sections may have. Default: none
    #[serde(default)]
    pub workloads: OneOrMany<String>,
    /// Units that they may match. If it is given, each `match` needs a `unit` that is wholly inside.
    pub units: Option<OneOrMany<String>>,
    /// Users that they may match, by name. If it is given, each `match` needs a `user` or `uid` of them.
    pub users: Option<OneOrMany<String>>,
    /// The `[issuer.NAME]` sections that their targets may use. Default: none
    #[serde(default)]
    pub issuers: OneOrMany<String>,
    /// Subjects that their targets may have. Default: none
    #[serde(default)]
    pub subjects: OneOrMany<String>,
    /// The `[keystore.NAME]` sections that their targets may use. Default: none
    #[serde(default)]
    pub keystores: OneOrMany<String>,
    /// The largest `weight` that their sections may have. Default: 1
    #[cfg_attr(test, schemars(range(min = 1, max = WEIGHT_MAX)))]
    pub weight: Option<Spanned<u32>>,
}

/// What a workload may ask for: one party, to which its assertions are addressed. Which keys it needs
/// depends on its profile.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(test, derive(JsonSchema), schemars(transform = schema::by_profile))]
pub struct TargetSection {
    /// What kind of party it is; `assertctl profiles` lists and explains them. Which of the keys below it
    /// needs, may have and has not is the profile's. May be a `[profile.NAME]`.
    #[cfg_attr(test, schemars(with = "schema::ProfileName"))]
    pub profile: Spanned<String>,
    /// Seconds that an assertion lives. Default and most are the profile's (rfc7523: 60, 300; aws-oidc:
    /// 600, 3600; `assertctl profiles` shows all).
    #[cfg_attr(test, schemars(range(min = 1)))]
    pub lifetime: Option<Spanned<u32>>,
    /// Requests per second for this target alone, within those of its workload. Default: no limit of its
    /// own
    #[cfg_attr(test, schemars(range(min = 1)))]
    pub rate: Option<Spanned<u32>>,
    /// Requests for this target at once, before its `rate` holds. Default: as `rate`
    #[cfg_attr(test, schemars(range(min = 1)))]
    pub burst: Option<Spanned<u32>>,
    /// How well it must be known that the key lives in hardware; with less it is not used. Default: none
    pub evidence: Option<Spanned<EvidenceLevel>>,
    /// Whether an assertion is handed out again to the same workload until half of its life is over, or
    /// each request has its own. Default: true. Federation alone.
    pub reuse: Option<Spanned<bool>>,
    // with a key of its own
    /// The issuer identifier of the authorization server; becomes `aud`. Profiles rfc7523, fapi2,
    /// keycloak, auth0.
    #[cfg_attr(test, schemars(length(min = 1)))]
    pub authorization_server: Option<Spanned<String>>,
    /// The full URL of the token endpoint; becomes `aud`. Profiles okta, entra-cert.
    #[cfg_attr(test, schemars(length(min = 1)))]
    pub token_endpoint: Option<Spanned<String>>,
    /// The client that the other side knows; becomes `iss`, and `sub` too for client authentication.
    /// For github-app the app's client id, for salesforce-jwt the consumer key.
    #[cfg_attr(test, schemars(length(min = 1)))]
    pub client_id: Option<Spanned<String>>,
    /// The account's identifier, ORGANIZATION-ACCOUNT in upper case. Profile snowflake.
    #[cfg_attr(test, schemars(length(min = 1)))]
    pub account: Option<Spanned<String>>,
    /// The user as whom it acts: its login name in upper case for snowflake, its username for
    /// salesforce-jwt.
    #[cfg_attr(test, schemars(length(min = 1)))]
    pub user: Option<Spanned<String>>,
    /// The service account's address; becomes `iss`. Profile google-sa-jwt.
    #[cfg_attr(test, schemars(length(min = 1)))]
    pub service_account: Option<Spanned<String>>,
    /// What is asked for at Google's token endpoint, with blanks between; in place of `audience`. Profile
    /// google-sa-jwt.
    #[cfg_attr(test, schemars(length(min = 1)))]
    pub scope: Option<Spanned<String>>,
    /// The key's id that the other side has given it when it was registered. Default: the key's
    /// thumbprint. Profiles auth0, google-sa-jwt.
    #[cfg_attr(test, schemars(regex(pattern = "^[A-Za-z0-9._~-]{1,128}$")))]
    pub kid: Option<Spanned<String>>,
    /// The `[keystore.NAME]` that holds the key. Default: the only one. Not for federation, where the key
    /// is the issuer's.
    pub keystore: Option<Spanned<String>>,
    /// The algorithm of the key. Default: the profile's first, mostly ES256. Not for federation.
    pub alg: Option<Spanned<Alg>>,
    /// Where the key comes from: "make", and `assertctl apply` has its keystore make it, or "import", and
    /// apply waits for `assertctl keys import` or `keys adopt`. Default: "import" where the vendor makes the
    /// key (github-app), else "make". Not for federation.
    pub key: Option<Spanned<KeyFrom>>,
    /// The certificates of the key. Profiles entra-cert, google-sa-jwt, salesforce-jwt.
    pub certificate: Option<Spanned<CertificateSection>>,
    /// When the versions of the key follow each other. Not for federation, where they are the issuer's.
    pub rotation: Option<Spanned<RotationSection>>,
    // federation
    /// The `[issuer.NAME]` that says it. Federation alone.
    pub issuer: Option<Spanned<String>>,
    /// Becomes `sub`; one of the issuer's `subjects`, of no other workload. Federation alone.
    #[cfg_attr(test, schemars(length(min = 1)))]
    pub subject: Option<Spanned<String>>,
    /// Becomes `aud`: for aws-oidc a client id of the IAM OIDC provider, usually "sts.amazonaws.com".
    /// for google-sa-jwt the API, "https://storage.googleapis.com/". Default for entra-fic:
    /// "api://AzureADTokenExchange"
    #[cfg_attr(test, schemars(length(min = 1)))]
    pub audience: Option<Spanned<String>>,
    /// Whether another workload may have the same subject, if it says so too. Default: false. Federation
    /// alone.
    pub shared: Option<Spanned<bool>>,
}
