//! From words on a command line to one [`Command`]. Pure; every mistake is a [`Usage`] sentence
//! that names the word, and the nearest one that would have been understood.
//!
//! Options may stand before or after the command. One that the command does not know is refused,
//! never ignored, and so is one that is given twice.

use super::attest::Wish;
use super::certificate::Form;
use super::env::{Part, Sdk};
use super::help;
use assertd_client::api::KeyVerb;
use keystore::KeyName;
use keystore::backend::Existing;
use keystore::config::Tcti;
use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

mod parse;
#[cfg(test)]
mod tests;

pub use parse::parse;

/// Default of `apply --max`: a typo in git times 800 hosts must not fill an HSM.
pub const CREATIONS_MAX: usize = 50;

/// Default of `audit show -n`: what fits on one screen.
pub const RECORDS_SHOWN: usize = 20;

/// Most files of `jwks merge`: each host's set has a key at least, and that many keys are the most.
const SETS_MAX: usize = crate::publication::merge::MERGED_MAX;

/// Most files of one enrolment that are named; of directories all are taken.
const FILES_MAX: usize = 10_000;

/// A command line, understood.
#[derive(Debug, PartialEq, Eq)]
pub struct Args {
    /// `-s`
    pub socket: Option<PathBuf>,
    /// `-c`
    pub config: Option<PathBuf>,
    /// `--json`
    pub format: Format,
    /// What to do.
    pub command: Command,
}

/// For whom the answer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// People.
    Text,
    /// Programs.
    Json,
}

/// What to do.
#[derive(Debug, PartialEq, Eq)]
pub enum Command {
    Assertion {
        target: String,
        lifetime_s: Option<u32>,
        delivery: Delivery,
    },
    Env {
        /// `TARGET` or `WORKLOAD/TARGET`
        target: String,
        sdk: Option<Sdk>,
        part: Option<Part>,
        settings: BTreeMap<String, String>,
        host_facts: Option<PathBuf>,
    },
    Whoami,
    Targets,
    Status,
    Check,
    KeystoreCheck {
        name: Option<String>,
    },
    Reload,
    Init {
        consent: Consent,
        backends: Option<Backends>,
        module: Option<PathBuf>,
        token: Option<String>,
        tcti: Option<Tcti>,
        name: Option<String>,
        environment: BTreeMap<String, String>,
    },
    Keys {
        name: Option<KeyName>,
    },
    /// `keys VERB NAME`
    KeyVerb {
        verb: KeyVerb,
        /// A name, or a version's id.
        key: String,
        now: bool,
        consent: Consent,
    },
    /// `keys certificate KEY`
    KeyCertificate {
        /// A name, or a version's id.
        key: String,
        form: Form,
    },
    /// `keys import KEY FILE`
    KeyImport {
        name: KeyName,
        /// `-` is standard input.
        file: PathBuf,
    },
    /// `keys adopt KEY`
    KeyAdopt {
        name: KeyName,
        object: Existing,
    },
    StateAcceptRollback {
        consent: Consent,
    },
    Attest(Wish),
    EnrollRequest {
        keystore: Option<String>,
        output: Option<PathBuf>,
    },
    /// `enroll challenge` and `enroll finish`
    Enroll(super::enroll::Wish),
    Nonce {
        policy: PathBuf,
    },
    Verify(super::verify::Wish),
    /// `approve request`, `approve bytes` and `approve finish`
    Approve(super::approve::Wish),
    EnrollRespond {
        challenge: PathBuf,
        output: Option<PathBuf>,
    },
    Jwks {
        key: Option<KeyName>,
        with_evidence: bool,
    },
    JwksMerge {
        files: Vec<PathBuf>,
        output: Option<PathBuf>,
    },
    ConfigCheck {
        host_facts: Option<PathBuf>,
        strictness: Strictness,
    },
    /// `config check --explain`
    ExplainFinding {
        id: String,
    },
    ConfigSchema,
    HostFacts,
    ConfigDiff {
        changes: Changes,
    },
    Apply {
        consent: Consent,
        creations_max: usize,
    },
    AuditVerify {
        dir: Option<PathBuf>,
    },
    AuditShow {
        dir: Option<PathBuf>,
        count: usize,
    },
    ExplainId {
        id: String,
    },
    ExplainProcess {
        pid: u32,
        target: String,
    },
    Profiles {
        name: Option<String>,
    },
    Help {
        topic: Option<String>,
    },
    Version,
}

/// How an assertion is handed over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// On standard output.
    Print,
    /// `--output`
    File {
        /// Which.
        path: PathBuf,
        /// Whether it is kept fresh.
        upkeep: Upkeep,
    },
    /// `--as google`
    Google,
    /// `--as kubernetes`
    Kubernetes,
}

/// Who keeps a file fresh.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Upkeep {
    /// Nobody.
    None,
    /// A process that is started for it, by `--keep`.
    Beside,
    /// This process, by `--keep --foreground`.
    Here,
}

/// What `config diff` exits with when there is something to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Changes {
    /// 0, like `git diff`.
    AreFine,
    /// 1, by `--exit-code`.
    AreOne,
}

/// What a warning means for the exit code of `config check`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strictness {
    /// Nothing.
    WarningsAreFine,
    /// A failed check, by `--strict`.
    WarningsFail,
}

/// Which kinds of keystore `init --backend` sets up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backends {
    /// A PKCS#11 token.
    Pkcs11,
    /// A TPM 2.0.
    Tpm,
    /// One of each.
    Both,
}

/// Whether somebody has agreed to what a command asks about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consent {
    /// Ask at the terminal.
    Ask,
    /// `--yes`
    Given,
}

/// Why a command line is not understood, and how the command that was meant is used.
#[derive(Debug, PartialEq, Eq)]
pub struct Usage {
    message: String,
    usage: &'static str,
}

/// One command: its words, the options it takes, how many operands, and its help.
pub struct Spec {
    /// As typed, one or two words.
    pub name: &'static str,
    options: &'static [Opt],
    operands_max: usize,
    /// What `help` prints.
    pub help: &'static str,
}

/// Every command.
pub static SPECS: [Spec; 44] = [
    spec(
        "assertion",
        &[
            Opt::Target,
            Opt::Lifetime,
            Opt::Output,
            Opt::Keep,
            Opt::Foreground,
            Opt::As,
        ],
        0,
        help::ASSERTION,
    ),
    spec("whoami", &[], 0, help::WHOAMI),
    spec("targets", &[], 0, help::TARGETS),
    spec("status", &[], 0, help::STATUS),
    spec("keys", &[], 1, help::KEYS),
    spec("keys rotate", &[], 1, help::KEYS_ROTATE),
    spec("keys activate", &[Opt::Now], 1, help::KEYS_ACTIVATE),
    spec("keys hold", &[], 1, help::KEYS_HOLD),
    spec("keys resume", &[], 1, help::KEYS_RESUME),
    spec(
        "keys revoke",
        &[Opt::Compromised, Opt::Yes],
        1,
        help::KEYS_REVOKE,
    ),
    spec("keys abandon", &[], 1, help::KEYS_ABANDON),
    spec("keys destroy", &[Opt::Yes], 1, help::KEYS_DESTROY),
    spec("keys replace-lost", &[Opt::Yes], 1, help::KEYS_REPLACE_LOST),
    spec("keys certificate", &[Opt::Csr], 1, help::KEYS_CERTIFICATE),
    spec("keys import", &[], 2, help::KEYS_IMPORT),
    spec("keys adopt", &[Opt::Id, Opt::Label], 1, help::KEYS_ADOPT),
    spec(
        "state accept-rollback",
        &[Opt::Yes],
        0,
        help::STATE_ACCEPT_ROLLBACK,
    ),
    spec("check", &[], 0, help::CHECK),
    spec("keystore check", &[], 1, help::KEYSTORE_CHECK),
    spec("reload", &[], 0, help::RELOAD),
    spec(
        "init",
        &[
            Opt::Yes,
            Opt::Backend,
            Opt::Module,
            Opt::Token,
            Opt::Tcti,
            Opt::Name,
            Opt::Environment,
        ],
        0,
        help::INIT,
    ),
    spec(
        "jwks",
        &[Opt::Key, Opt::Target, Opt::Issuer, Opt::WithEvidence],
        0,
        help::JWKS,
    ),
    spec("jwks merge", &[Opt::Output], SETS_MAX, help::JWKS_MERGE),
    spec(
        "attest",
        &[Opt::Nonce, Opt::Target, Opt::All, Opt::Purpose, Opt::Output],
        0,
        help::ATTEST,
    ),
    spec(
        "enroll request",
        &[Opt::Keystore, Opt::Output],
        0,
        help::ENROLL_REQUEST,
    ),
    spec("enroll respond", &[Opt::Output], 1, help::ENROLL_RESPOND),
    spec(
        "enroll challenge",
        &[
            Opt::Policy,
            Opt::Approved,
            Opt::Output,
            Opt::Expires,
            Opt::Replace,
        ],
        FILES_MAX,
        help::ENROLL_CHALLENGE,
    ),
    spec(
        "enroll finish",
        &[Opt::Policy, Opt::Replace],
        FILES_MAX,
        help::ENROLL_FINISH,
    ),
    spec("nonce", &[Opt::Policy], 0, help::NONCE),
    spec(
        "approve request",
        &[Opt::Keystore, Opt::Pcr, Opt::Output],
        0,
        help::APPROVE_REQUEST,
    ),
    spec(
        "approve bytes",
        &[Opt::Output, Opt::Authority],
        1,
        help::APPROVE_BYTES,
    ),
    spec("approve finish", &[Opt::Keystore], 2, help::APPROVE_FINISH),
    spec(
        "verify",
        &[Opt::Nonce, Opt::Policy, Opt::Record, Opt::Eat, Opt::EatKey],
        1,
        help::VERIFY,
    ),
    spec(
        "config check",
        &[Opt::HostFacts, Opt::Strict, Opt::Explain],
        0,
        help::CONFIG_CHECK,
    ),
    spec("config diff", &[Opt::ExitCode], 0, help::CONFIG_DIFF),
    spec("config schema", &[], 0, help::CONFIG_SCHEMA),
    spec("host-facts", &[], 0, help::HOST_FACTS),
    spec("apply", &[Opt::Yes, Opt::Max], 0, help::APPLY),
    spec("audit verify", &[], 1, help::AUDIT_VERIFY),
    spec("audit show", &[Opt::Number], 1, help::AUDIT_SHOW),
    spec("explain", &[Opt::Pid, Opt::Target], 1, help::EXPLAIN),
    spec("profiles", &[], 1, help::PROFILES),
    spec(
        "env",
        &[Opt::For, Opt::Set, Opt::Part, Opt::HostFacts],
        1,
        help::ENV,
    ),
    spec("help", &[], 2, help::HELP),
];

const fn spec(
    name: &'static str,
    options: &'static [Opt],
    operands_max: usize,
    help: &'static str,
) -> Spec {
    Spec {
        name,
        options,
        operands_max,
        help,
    }
}

/// An option that some commands take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Opt {
    Target,
    Lifetime,
    Key,
    Issuer,
    Yes,
    Max,
    ExitCode,
    Number,
    Backend,
    Module,
    Token,
    Tcti,
    Name,
    Environment,
    Pid,
    HostFacts,
    Strict,
    Explain,
    Output,
    Keep,
    Foreground,
    As,
    For,
    Set,
    Part,
    Now,
    Compromised,
    Csr,
    Id,
    Label,
    Nonce,
    All,
    Purpose,
    Keystore,
    WithEvidence,
    Policy,
    Approved,
    Expires,
    Replace,
    Record,
    Eat,
    EatKey,
    Pcr,
    Authority,
}

/// Options that every command takes, as they are suggested.
const GLOBAL: [&str; 5] = ["--socket", "--config", "--json", "--help", "--version"];

impl Opt {
    const ALL: [Opt; 44] = [
        Opt::Target,
        Opt::Lifetime,
        Opt::Key,
        Opt::Issuer,
        Opt::Yes,
        Opt::Max,
        Opt::ExitCode,
        Opt::Number,
        Opt::Backend,
        Opt::Module,
        Opt::Token,
        Opt::Tcti,
        Opt::Name,
        Opt::Environment,
        Opt::Pid,
        Opt::HostFacts,
        Opt::Strict,
        Opt::Explain,
        Opt::Output,
        Opt::Keep,
        Opt::Foreground,
        Opt::As,
        Opt::For,
        Opt::Set,
        Opt::Part,
        Opt::Now,
        Opt::Compromised,
        Opt::Csr,
        Opt::Id,
        Opt::Label,
        Opt::Nonce,
        Opt::All,
        Opt::Purpose,
        Opt::Keystore,
        Opt::WithEvidence,
        Opt::Policy,
        Opt::Approved,
        Opt::Expires,
        Opt::Replace,
        Opt::Record,
        Opt::Eat,
        Opt::EatKey,
        Opt::Pcr,
        Opt::Authority,
    ];

    fn flag(self) -> &'static str {
        match self {
            Opt::Target => "--target",
            Opt::Lifetime => "--lifetime",
            Opt::Key => "--key",
            Opt::Issuer => "--issuer",
            Opt::Yes => "--yes",
            Opt::Max => "--max",
            Opt::ExitCode => "--exit-code",
            Opt::Number => "-n",
            Opt::Backend => "--backend",
            Opt::Module => "--module",
            Opt::Token => "--token",
            Opt::Tcti => "--tcti",
            Opt::Name => "--name",
            Opt::Environment => "--environment",
            Opt::Pid => "--pid",
            Opt::HostFacts => "--host-facts",
            Opt::Strict => "--strict",
            Opt::Explain => "--explain",
            Opt::Output => "--output",
            Opt::Keep => "--keep",
            Opt::Foreground => "--foreground",
            Opt::As => "--as",
            Opt::For => "--for",
            Opt::Set => "--set",
            Opt::Part => "--part",
            Opt::Now => "--now",
            Opt::Compromised => "--compromised",
            Opt::Csr => "--csr",
            Opt::Id => "--id",
            Opt::Label => "--label",
            Opt::Nonce => "--nonce",
            Opt::All => "--all",
            Opt::Purpose => "--purpose",
            Opt::Keystore => "--keystore",
            Opt::WithEvidence => "--with-evidence",
            Opt::Policy => "--policy",
            Opt::Approved => "--approved",
            Opt::Expires => "--expires",
            Opt::Replace => "--replace",
            Opt::Record => "--record",
            Opt::Eat => "--eat",
            Opt::EatKey => "--eat-key",
            Opt::Pcr => "--pcr",
            Opt::Authority => "--authority",
        }
    }

    /// Those that may be given more than once. No command has two of them.
    fn repeats(self) -> bool {
        matches!(self, Opt::Environment | Opt::Set | Opt::Pcr | Opt::Replace)
    }

    fn takes_value(self) -> bool {
        !matches!(
            self,
            Opt::Yes
                | Opt::ExitCode
                | Opt::Strict
                | Opt::Keep
                | Opt::Foreground
                | Opt::Now
                | Opt::Compromised
                | Opt::Csr
                | Opt::All
                | Opt::WithEvidence
                | Opt::Record
        )
    }
}

impl From<lexopt::Error> for Usage {
    fn from(error: lexopt::Error) -> Usage {
        Usage::new(error.to_string())
    }
}

impl Usage {
    fn new(message: impl Into<String>) -> Usage {
        Usage {
            message: message.into(),
            usage: help::USAGE,
        }
    }

    /// The first line of a command's help says how it is used.
    fn of(self, spec: &'static Spec) -> Usage {
        Usage {
            usage: spec.help.lines().next().unwrap_or(help::USAGE),
            ..self
        }
    }
}

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}\n{}\n`assertctl help` says more",
            self.message, self.usage
        )
    }
}
