//! The files as they are written: serde types with spans, nothing resolved, nothing allowed that
//! is not named here.

use super::many::OneOrMany;
use keystore::Alg;
use keystore::config::Section as KeystoreSection;
use keystore::protocol::EvidenceLevel;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::PathBuf;
use toml::Spanned;
use toml::value::Datetime;

/// assertd.toml.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MainFile {
    #[serde(default)]
    pub server: ServerSection,
    #[serde(default)]
    pub audit: AuditSection,
    #[serde(default)]
    pub limits: LimitsSection,
    #[serde(default)]
    pub keystore: BTreeMap<Spanned<String>, Spanned<KeystoreSection>>,
    #[serde(default)]
    pub issuer: BTreeMap<Spanned<String>, Spanned<IssuerSection>>,
    #[serde(default)]
    pub workload: BTreeMap<Spanned<String>, Spanned<WorkloadSection>>,
    #[serde(default)]
    pub deny: DenySection,
    #[serde(default)]
    pub bounds: BTreeMap<Spanned<String>, Spanned<BoundsSection>>,
}

/// conf.d/NAME.toml: what a team may write.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DropIn {
    #[serde(default)]
    pub workload: BTreeMap<Spanned<String>, Spanned<WorkloadSection>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServerSection {
    pub runtime_dir: Option<PathBuf>,
    pub state_dir: Option<PathBuf>,
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

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuditSection {
    pub dir: Option<PathBuf>,
    pub segment_bytes: Option<Spanned<u64>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LimitsSection {
    pub workload_rate: Option<Spanned<u32>>,
    pub workload_burst: Option<Spanned<u32>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IssuerSection {
    pub url: Spanned<String>,
    pub subjects: Vec<Spanned<String>>,
    pub keystore: Spanned<String>,
    pub alg: Option<Spanned<Alg>>,
    pub lifetime_max: Option<Spanned<u32>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WorkloadSection {
    pub owner: Option<Spanned<String>>,
    pub purpose: Option<Spanned<String>>,
    pub expires: Option<Spanned<Datetime>>,
    pub r#match: Spanned<MatchSection>,
    #[serde(default)]
    pub unless: OneOrMany<MatchSection>,
    pub shadow: Option<Spanned<MatchSection>>,
    #[serde(default)]
    pub allow_pid_fallback: bool,
    pub rate: Option<Spanned<u32>>,
    pub burst: Option<Spanned<u32>>,
    #[serde(default)]
    pub target: BTreeMap<Spanned<String>, Spanned<TargetSection>>,
}

/// Of `match`, `unless` and `shadow`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MatchSection {
    pub unit: Option<Spanned<String>>,
    pub slice: Option<Spanned<String>>,
    pub user_unit: Option<Spanned<String>>,
    pub uid: Option<Spanned<u32>>,
    pub user: Option<Spanned<String>>,
    pub gid: Option<Spanned<u32>>,
    pub group: Option<Spanned<String>>,
    pub supplementary_group: Option<Spanned<String>>,
    pub exe: Option<Spanned<String>>,
    #[serde(default)]
    pub exe_sha256: Option<OneOrMany<String>>,
    pub container: Option<Spanned<bool>>,
    pub interactive: Option<Spanned<bool>>,
}

/// `[deny]`: files of what gets nothing.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DenySection {
    pub executables: Option<Spanned<PathBuf>>,
    pub units: Option<Spanned<PathBuf>>,
    pub users: Option<Spanned<PathBuf>>,
}

/// `[bounds.NAME]`: what the drop-in files it names may do.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BoundsSection {
    pub files: OneOrMany<String>,
    #[serde(default)]
    pub workloads: OneOrMany<String>,
    pub units: Option<OneOrMany<String>>,
    pub users: Option<OneOrMany<String>>,
    #[serde(default)]
    pub issuers: OneOrMany<String>,
    #[serde(default)]
    pub subjects: OneOrMany<String>,
    #[serde(default)]
    pub keystores: OneOrMany<String>,
}

/// Which of these a target needs depends on its profile's purpose.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TargetSection {
    pub profile: Spanned<String>,
    pub lifetime: Option<Spanned<u32>>,
    pub rate: Option<Spanned<u32>>,
    pub burst: Option<Spanned<u32>>,
    pub evidence: Option<Spanned<EvidenceLevel>>,
    // client authentication
    pub authorization_server: Option<Spanned<String>>,
    pub client_id: Option<Spanned<String>>,
    pub keystore: Option<Spanned<String>>,
    pub alg: Option<Spanned<Alg>>,
    // federation
    pub issuer: Option<Spanned<String>>,
    pub subject: Option<Spanned<String>>,
    pub audience: Option<Spanned<String>>,
    #[serde(default)]
    pub shared: bool,
}
