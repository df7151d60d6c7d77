//! The wire: paths, limits, requests, answers and problems. `docs/protocol.md` is the reference.

use serde::{Deserialize, Serialize};

/// `POST`: [`AssertionRequest`] → [`AssertionResponse`].
pub const ASSERTION_PATH: &str = "/v1/assertion";
/// `GET` → [`Whoami`].
pub const WHOAMI_PATH: &str = "/v1/whoami";
/// `GET` → [`Targets`].
pub const TARGETS_PATH: &str = "/v1/targets";
/// Admin, `GET` → [`Status`].
pub const STATUS_PATH: &str = "/v1/status";
/// Admin, `GET` → [`Keys`]; `POST` [`AdoptRequest`] → [`KeyStatus`].
pub const KEYS_PATH: &str = "/v1/keys";
/// Admin, `POST` [`KeyVerbRequest`] → [`Keys`]: all versions of that key.
pub const KEY_VERB_PATH: &str = "/v1/keys/verb";

/// Admin, `POST` [`AttestRequest`] → evidence of keys, or how far it is: the same request again.
pub const ATTEST_PATH: &str = "/v1/attest";

/// Admin, `POST` → [`ConfigStatus`]: reads the configuration again; the answer is the verdict.
pub const RELOAD_PATH: &str = "/v1/reload";

/// Admin, `POST` [`ExplainRequest`] → [`Explained`].
pub const EXPLAIN_PATH: &str = "/v1/explain";
/// Administrators: what the configuration in force grants.
pub const GRANTS_PATH: &str = "/v1/grants";

/// Longest request head in bytes; hyper's own minimum, and no client of ours sends a tenth.
pub const HEAD_LEN_MAX: usize = 8 * 1024;
/// Most header fields; an SDK sends about ten.
pub const HEADERS_MAX: usize = 32;
/// Longest request body in bytes: a target's name and a number. B-API-1 allows 64 KiB.
pub const BODY_LEN_MAX: usize = 16 * 1024;
/// Longest answer a client reads, in bytes; 10,000 keys at 1.5 KiB fit.
pub const ANSWER_LEN_MAX: usize = 16 * 1024 * 1024;

/// What a workload may say: a target, and that a shorter lifetime is enough. It never names an
/// audience, a claim, a header or a key (B-AUD-1); an unknown member is refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AssertionRequest {
    /// Which target.
    pub target: String,
    /// Seconds; the target's and the profile's maximum hold all the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lifetime: Option<u32>,
}

/// A released assertion. No `Debug`: it is a credential.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AssertionResponse {
    /// The compact JWS.
    pub assertion: String,
    /// Its `exp`, seconds since 1970.
    pub expires_at: u64,
    /// The key that signed it.
    pub kid: String,
    /// As asked.
    pub target: String,
    /// The audit record's id.
    pub id: String,
}

/// A refusal (RFC 9457). The same for every denial but for the id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// `urn:assertd:problem:CODE`
    pub r#type: String,
    /// The code in words.
    pub title: String,
    /// The HTTP status again.
    pub status: u16,
    /// What to do about it.
    pub detail: String,
    /// The audit record's id, to be shown to an administrator.
    pub id: String,
}

/// The code of the one problem that a new connection cures, at once: on a kernel without SO_PEERPIDFD
/// the caller was too young when it connected. `docs/protocol.md` says more.
pub const CONNECT_AGAIN: &str = "connect_again";

impl Problem {
    /// The fixed word of it.
    pub fn code(&self) -> &str {
        let code = self.r#type.strip_prefix("urn:assertd:problem:");
        code.unwrap_or(&self.r#type)
    }

    /// Whether a new connection cures it.
    pub fn wants_new_connection(&self) -> bool {
        self.code() == CONNECT_AGAIN
    }
}

/// What the kernel says about the caller.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Whoami {
    /// Effective user id.
    pub uid: u32,
    /// Effective group id.
    pub gid: u32,
    /// Process id.
    pub pid: u32,
    /// The systemd unit, if it runs in one.
    pub unit: Option<String>,
    /// The unit's invocation id.
    pub invocation: Option<String>,
    /// Whether it runs in a cgroup below its unit's.
    pub nested: bool,
    /// Whether it runs in a container.
    pub container: bool,
    /// `pidfd` or `pid`: how well it is known that this is the process that connected.
    pub peer_proof: String,
    /// Workload sections that match it.
    pub workloads: Vec<String>,
}

/// What the caller may ask for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Targets {
    /// In the order of their names.
    pub targets: Vec<TargetInfo>,
}

/// One of the caller's targets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetInfo {
    /// Its name, to be asked for.
    pub target: String,
    /// Its profile.
    pub profile: String,
    /// For whom the assertion is meant, where it says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audience: Option<String>,
    /// As whom the workload appears there, where it says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// Longest lifetime in seconds.
    pub lifetime: u32,
}

/// The daemon at a glance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// `1`; grows when a member changes its meaning.
    pub format: u32,
    /// Of assertd.
    pub version: String,
    /// Of assertd.
    pub pid: u32,
    /// Seconds since it started.
    pub uptime_s: u64,
    /// `none` if assertd started the keystores itself, `units` if they are separate.
    pub isolation: String,
    /// `pidfd`, or `pid` on a kernel without SO_PEERPIDFD.
    pub peer_proof: String,
    /// The wall clock.
    pub clock: ClockStatus,
    /// The configuration in force.
    pub config: ConfigStatus,
    /// One per keystore.
    pub keystores: Vec<KeystoreStatus>,
    /// The audit log.
    pub audit: AuditStatus,
    /// The deny lists.
    pub deny: DenyStatus,
    /// The witness, which reads what workloads run.
    pub witness: WitnessStatus,
    /// Since start.
    pub requests: RequestCounts,
    /// Open connections of workloads.
    pub connections: usize,
}

/// Whether assertd trusts the wall clock. Each keystore judges for itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClockStatus {
    /// `ok` or `suspect`: then nothing is minted.
    pub state: String,
    /// Why it is suspect, and the remedy.
    pub why: Option<String>,
}

/// Which configuration is in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigStatus {
    /// The main file.
    pub path: String,
    /// SHA-256 over all files, hex.
    pub sha256: String,
    /// How many sections.
    pub workloads: usize,
    /// How many targets.
    pub targets: usize,
}

/// One keystore as the broker sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeystoreStatus {
    /// Its name in the configuration.
    pub name: String,
    /// `usable`, `failed` or `starting`.
    pub state: String,
    /// Why it is not usable, and the remedy.
    pub why: Option<String>,
    /// Seconds since the state changed.
    pub since_s: u64,
    /// Module, token label, serial.
    pub token: String,
    /// Algorithms it offers.
    pub algs: Vec<String>,
    /// Objects that look like ours and have no record.
    pub strange: Vec<String>,
    /// By what it is noticed that the records of its keys are older than they were; none until it has
    /// answered once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counter: Option<CounterStatus>,
    /// Where its process listens.
    pub socket: String,
    /// Its process, if it answers.
    pub pid: Option<u32>,
    /// How often its process had to be started again.
    pub restarts: u64,
    /// Signatures at a time.
    pub signers: usize,
    /// Requests waiting.
    pub queued: usize,
    /// Milliseconds that the first of them has waited.
    #[serde(default)]
    pub oldest_ms: u64,
    /// Requests being signed.
    pub in_flight: usize,
    /// Mints done.
    pub minted: u64,
}

/// A keystore's counter, and what it says of the records.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CounterStatus {
    /// `tpm` or `file`.
    pub place: String,
    /// How far it has come.
    pub value: Option<u64>,
    /// Why the records may not be the newest, and the remedy; or why it does not count.
    pub why: Option<String>,
}

/// The audit log's state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditStatus {
    /// `ok` or `failed`.
    pub state: String,
    /// Why, and the remedy.
    pub why: Option<String>,
    /// Where it is.
    pub directory: String,
    /// Sequence number of the last record.
    pub seq: u64,
    /// Bytes on disk.
    pub bytes: u64,
    /// Denials counted instead of recorded one by one.
    pub denials_counted: u64,
}

/// The deny lists' state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DenyStatus {
    /// `ok`; `failed` while a file is not what it should be: then the lists of before hold.
    pub state: String,
    /// Why, with the place.
    pub why: Option<String>,
    /// Entries in force, of all lists.
    pub entries: usize,
}

/// The witness's state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WitnessStatus {
    /// `unused` where nothing depends on it, `ok`, or `failed`: who needs it is refused then.
    pub state: String,
    /// Why, and what needs it.
    pub why: Option<String>,
}

/// Answers since start, by what they were.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestCounts {
    /// Assertions released.
    pub released: u64,
    /// Of these, how many had been signed for an earlier request, or for one at the same time.
    #[serde(default)]
    pub reused: u64,
    /// Denied by policy.
    pub denied: u64,
    /// Not understood.
    pub invalid: u64,
    /// Too many, too fast, or something is down: 429 and 503.
    pub unavailable: u64,
    /// The caller died before its answer.
    pub peer_gone: u64,
}

/// What `assertctl state accept-rollback` has accepted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AcceptedRecords {
    /// How often the records had been replaced.
    pub generation: u64,
    /// Id, kid and state of each version in them that is not destroyed.
    pub keys: Vec<[String; 3]>,
}

/// All keys.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Keys {
    /// In the order of their ids.
    pub keys: Vec<KeyStatus>,
    /// Versions that are being made and are not recorded yet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub making: Vec<String>,
    /// What was asked for is done, and this is not as it should be.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// One version of one key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct KeyStatus {
    /// `workload/target.VERSION` or `issuer/NAME.VERSION`.
    pub key: String,
    /// RFC 7638 thumbprint.
    pub kid: String,
    /// Algorithm.
    pub alg: String,
    /// The keystore that holds it.
    pub keystore: String,
    /// Its phase; `suspended` or `failed` if it cannot sign, `unknown` while the keystore does not answer.
    pub state: String,
    /// Why it is not what its phase says, and the remedy.
    pub why: Option<String>,
    /// `none`, `asserted`, `device-attested` or `tpm-certified`.
    pub evidence: String,
    /// Whether it existed outside a token before.
    pub imported: bool,
    /// When it was recorded, seconds since 1970.
    pub made_at: u64,
    /// Whether the configuration in force uses it.
    pub used: bool,
    /// How far it has come: `making`, `made`, `published`, `active`, `held`, `retiring`, `retired`,
    /// `revoked`, `destroying`, `destroyed`.
    #[serde(default)]
    pub phase: String,
    /// What comes next for it.
    #[serde(default)]
    pub next: Option<String>,
    /// When, seconds since 1970, if that is known.
    #[serde(default)]
    pub next_at: Option<u64>,
    /// Since when it is as `phase` says, seconds since 1970, if that is known.
    #[serde(default)]
    pub since: Option<u64>,
    /// When it last signed, seconds since 1970, if that is known: to the hour after a restart.
    #[serde(default)]
    pub used_at: Option<u64>,
    /// Its certificate, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<CertificateStatus>,
    /// How far its canary has come, while it waits for that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canary: Option<CanaryStatus>,
    /// Why its key does not go on, while something could not be done or written down: it is tried again,
    /// and what signs goes on signing.
    #[serde(default)]
    pub blocked: Option<String>,
    /// The public key as it is to be published.
    pub jwk: serde_json::Value,
}

/// The certificate of one version.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CertificateStatus {
    /// SHA-256 of its DER in base64url, as assertions name it.
    #[serde(rename = "x5t#S256")]
    pub x5t_s256: String,
    /// Its end, seconds since 1970.
    pub not_after: u64,
    /// What is to be done about it, if something is.
    pub warning: Option<String>,
}

/// The canary of one version: access tokens that it has to get before it signs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CanaryStatus {
    /// How many it has got in a row.
    pub passed: u32,
    /// How many it needs.
    pub needed: u32,
    /// Why the last one was not given, and the remedy.
    pub why: Option<String>,
}

/// What an operator does with one key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyVerbRequest {
    /// `workload/target` or `issuer/NAME`, with `.VERSION` where a version is meant.
    pub key: String,
    /// What.
    pub verb: KeyVerb,
    /// Whether to wait for nobody (`activate`).
    #[serde(default)]
    pub now: bool,
}

/// A verb.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KeyVerb {
    /// Begin the next version.
    Rotate,
    /// Let a version sign.
    Activate,
    /// Stop the key.
    Hold,
    /// Let it go on.
    Resume,
    /// A version may have been misused.
    Revoke,
    /// Give up a version that has not signed.
    Abandon,
    /// Destroy a version that signs no more.
    Destroy,
    /// A version's token is gone.
    ReplaceLost,
}

/// Root tells the broker that a key has been made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdoptRequest {
    /// The keystore that holds it.
    pub keystore: String,
    /// Its id.
    pub key: String,
}

/// An administrator wants evidence of keys, for somebody who verifies it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AttestRequest {
    /// Theirs: 32 bytes, base64url without padding.
    pub nonce: String,
    /// The key of this target (`WORKLOAD/TARGET`, `issuer/NAME`), or all keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Keys for this purpose alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub purpose: Option<String>,
}

/// What a configuration grants, sorted by workload and target.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grants {
    /// The deny lists' files.
    pub deny: Vec<Term>,
    /// What each workload may have.
    pub grants: Vec<Terms>,
}

/// Under which terms a workload may have assertions for a target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terms {
    /// The section's name.
    pub workload: String,
    /// The target's.
    pub target: String,
    /// One of a name each, but `unless`, of which there may be several.
    pub terms: Vec<Term>,
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Term {
    /// As in the configuration: `match`, `aud`, `lifetime`.
    pub member: String,
    /// Its value, for people.
    pub value: String,
}

/// What an administrator wants explained.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, deny_unknown_fields)]
pub enum ExplainRequest {
    /// A denial of the last while.
    Id {
        /// As the denied caller was told.
        id: String,
    },
    /// What a process would get now.
    Process {
        /// Its id.
        pid: u32,
        /// For this target.
        target: String,
    },
}

/// Why a workload gets an assertion, or none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explained {
    /// For which target.
    pub target: String,
    /// Who asks: user id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Process id.
    pub pid: u32,
    /// Full path of its unit.
    pub unit: Option<String>,
    /// Of the configuration that this is explained by: the one in force now.
    pub config_sha256: String,
    /// When it was denied, seconds since 1970; none for a process that runs now.
    pub denied_at: Option<u64>,
    /// The audit record's reason then.
    pub recorded_reason: Option<String>,
    /// The reason now; none if it is granted.
    pub reason: Option<String>,
    /// Sections that own the target, the nearest first.
    pub sections: Vec<ExplainedSection>,
    /// How many more there are.
    pub more: usize,
}

/// One section that owns the target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExplainedSection {
    /// Its name.
    pub workload: String,
    /// File and line.
    pub place: String,
    /// `matches`, `does_not_match`, `excluded`.
    pub standing: String,
    /// Its `match`.
    pub matches: Vec<ExplainedSelector>,
    /// Of each `unless` that excludes it.
    pub unless: Vec<ExplainedSelector>,
    /// Its `shadow`.
    pub shadow: Vec<ExplainedSelector>,
}

/// One selector.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExplainedSelector {
    /// Its key in the configuration.
    pub selector: String,
    /// What it demands.
    pub wanted: String,
    /// What the workload has.
    pub found: String,
    /// `holds`, `fails`, `unknown`.
    pub verdict: String,
}
