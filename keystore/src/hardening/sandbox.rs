//! The in-process sandbox: Landlock (landlock(7)), which needs no privilege, no unit and no file.
//! Owns how a set of rules is entered and how what came of it is said; what the rules are is each
//! program's ([`super::reach`], the broker's `sandbox`). Must never fail a start: an old kernel
//! enforces less, and the journal says so.
//!
//! It binds the calling thread and those it starts later, for good. It is an allow list: nothing
//! that is not named is left. No file may be executed, wherever it is.

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, LandlockStatus,
    RestrictionStatus, Ruleset, RulesetAttr, RulesetCreated, RulesetCreatedAttr, RulesetError,
    RulesetStatus, Scope, make_bitflags, path_beneath_rules,
};
use std::fmt;
use std::path::PathBuf;

/// The newest rules that are used and tested. The ninth generation would restrict connecting to
/// sockets by path too.
const GENERATION: ABI = ABI::V7;

const READ: BitFlags<AccessFs> = make_bitflags!(AccessFs::{ReadFile | ReadDir});

/// All but making device nodes.
const WRITE: BitFlags<AccessFs> = make_bitflags!(AccessFs::{
    ReadFile | ReadDir | WriteFile | Truncate | RemoveDir | RemoveFile
        | MakeDir | MakeReg | MakeSock | MakeFifo | MakeSym | Refer
});

const DEVICE: BitFlags<AccessFs> =
    make_bitflags!(AccessFs::{ReadFile | ReadDir | WriteFile | IoctlDev});

/// What is left of the machine. Paths that are not there are no error, and not there later either:
/// rules are made of inodes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sandbox {
    /// Trees or files that may be read.
    pub read: Vec<PathBuf>,
    /// Trees in which files may be read, made, changed and removed.
    pub write: Vec<PathBuf>,
    /// Device nodes, or trees of them.
    pub devices: Vec<PathBuf>,
    /// TCP.
    pub network: Network,
    /// Sockets in the abstract namespace.
    pub abstract_sockets: AbstractSockets,
}

/// Whether TCP is left. What is inherited or handed over stays usable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Network {
    /// No TCP port can be connected to or bound.
    #[default]
    None,
    /// Ports can be connected to, and none can be bound.
    Outbound,
    /// As before.
    Open,
}

/// Whether sockets of the abstract namespace can be connected to that somebody outside has made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AbstractSockets {
    /// No.
    #[default]
    None,
    /// As before: the service manager's is one.
    Open,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Enforced {
    /// Everything that was asked for.
    Fully,
    /// The kernel's Landlock is too old for some of it.
    Partly {
        /// Its generation.
        abi: u32,
        /// What it does not restrict.
        missing: Vec<&'static str>,
    },
    /// Nothing, and why.
    Not(String),
}

impl Sandbox {
    /// Restricts this thread and all it starts from now on. What is open stays open.
    pub fn enter(&self) -> Enforced {
        match self.restrict() {
            Ok(status) => self.judge(&status),
            Err(error) => Enforced::Not(error.to_string()),
        }
    }

    fn restrict(&self) -> Result<RestrictionStatus, RulesetError> {
        let mut ruleset = Ruleset::default()
            .set_compatibility(CompatLevel::BestEffort)
            .handle_access(AccessFs::from_all(GENERATION))?
            .scope(Scope::Signal)?;
        ruleset = match self.network {
            Network::None => ruleset.handle_access(AccessNet::from_all(GENERATION))?,
            Network::Outbound => ruleset.handle_access(AccessNet::BindTcp)?,
            Network::Open => ruleset,
        };
        if self.abstract_sockets == AbstractSockets::None {
            ruleset = ruleset.scope(Scope::AbstractUnixSocket)?;
        }
        let mut ruleset = ruleset.create()?;
        allow(&mut ruleset, &self.read, READ);
        allow(&mut ruleset, &self.write, WRITE);
        allow(&mut ruleset, &self.devices, DEVICE);
        ruleset.restrict_self()
    }

    fn judge(&self, status: &RestrictionStatus) -> Enforced {
        let abi = match status.landlock {
            LandlockStatus::Available { effective_abi, .. } => effective_abi,
            LandlockStatus::NotEnabled => {
                let text =
                    "Landlock is not enabled; add landlock to lsm= on the kernel's command line";
                return Enforced::Not(text.to_owned());
            }
            LandlockStatus::NotImplemented => {
                let text = "this kernel has no Landlock, or a system call filter forbids it";
                return Enforced::Not(text.to_owned());
            }
        };
        let missing = self.missing(abi);
        match status.ruleset {
            RulesetStatus::NotEnforced => Enforced::Not("the kernel enforces nothing".to_owned()),
            _ if missing.is_empty() => Enforced::Fully,
            _ => Enforced::Partly {
                abi: abi as u32,
                missing,
            },
        }
    }

    /// What a kernel of this generation does not restrict (landlock(7), "Compatibility").
    fn missing(&self, abi: ABI) -> Vec<&'static str> {
        let tcp = (self.network != Network::Open).then_some((ABI::V4, "TCP"));
        let of = [
            Some((ABI::V3, "truncating files")),
            tcp,
            Some((ABI::V5, "commands to devices")),
            Some((ABI::V6, "signals and abstract sockets")),
        ];
        let of = of.into_iter().flatten();
        of.filter(|(since, _)| abi < *since)
            .map(|(_, what)| what)
            .collect()
    }
}

/// Adds rules. One that the kernel refuses (a path in a file system that has no names) is left out:
/// that restricts more, not less.
fn allow(mut ruleset: &mut RulesetCreated, paths: &[PathBuf], access: BitFlags<AccessFs>) {
    for rule in path_beneath_rules(paths, access).flatten() {
        let _ = (&mut ruleset).add_rule(rule); // see above
    }
}

impl fmt::Display for Enforced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Enforced::Fully => f.write_str("fully enforced by Landlock"),
            Enforced::Partly { abi, missing } => write!(
                f,
                "partly enforced: Landlock {abi} of this kernel does not restrict {}",
                missing.join(", ")
            ),
            Enforced::Not(why) => write!(f, "warning: not enforced: {why}"),
        }
    }
}
