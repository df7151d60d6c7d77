//! The TPM of this host, as far as a keystore needs it: whether there is a TPM 2.0 behind the node,
//! whether our program can run here, and what its unit must be allowed. It is looked at from
//! outside; no command is sent to it, and nothing in it changes.

use super::Setup;
use super::files::{Planned, printable_path};
use super::host;
use super::work;
use crate::ctl::failure::{Exit, Failure};
use crate::ctl::run;
use crate::ctl::tpm::{self, Behind, GROUP, Node};
use keystore::config::{BackendKind, TCTI, Tcti};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long test(1) may take.
const DEADLINE: Duration = Duration::from_secs(30);

/// Where the units' keystores have their state.
pub const STATE_DIR: &str = "/var/lib/assertd-keystore";

/// A TPM that keys can be made in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chip {
    /// How it is reached.
    pub tcti: Tcti,
    /// What it is, for people.
    pub about: String,
    /// Its node, if it has one.
    pub node: Option<Node>,
}

/// Looks for the one that `wanted` names, or the kernel's first.
///
/// # Errors
/// Why it cannot be used, and what helps, in a sentence without `TPM` before it.
pub fn look(setup: Setup, wanted: Option<&Tcti>) -> Result<Chip, String> {
    let standard = || Tcti::parse(TCTI).map_err(|wrong| format!("{TCTI}: {wrong}"));
    let tcti = match wanted {
        Some(tcti) => tcti.clone(),
        None => standard()?,
    };
    let node = match tcti.device() {
        Some(path) => Some(tpm::node(path).map_err(|_| {
            let (why, remedy) = tpm::missing().text(path);
            format!("{why}; {remedy}")
        })?),
        None => None,
    };
    let about = judge(setup, &tcti, node.as_ref())?;
    tpm::program().map_err(|(why, remedy)| format!("{why}; {remedy}"))?;
    Ok(Chip { tcti, about, node })
}

/// What it is, or why it cannot be used.
fn judge(setup: Setup, tcti: &Tcti, node: Option<&Node>) -> Result<String, String> {
    let Some(node) = node else {
        return match setup {
            Setup::ByHand => Ok(format!("{tcti}: an emulator, which protects nothing")),
            Setup::Host => Err(format!(
                "{tcti} is an emulator, which protects nothing; for a try-out run init with \
                 -c FILE, or write the section by hand: assertd.toml(5)"
            )),
        };
    };
    let path = node.path.display();
    match node.behind {
        Behind::Managed => Ok(format!("{path}: a TPM 2.0")),
        Behind::Bare(Some(1)) => Err(format!(
            "{path} is a TPM 1.2, which cannot hold these keys; switch it to 2.0 in the firmware's \
             setup, if it can be"
        )),
        Behind::Bare(_) => Ok(format!(
            "{path}: a TPM, without the kernel's resource manager: no other program can use it"
        )),
        Behind::Foreign => Ok(format!(
            "{path}: a device that the kernel does not show as a TPM 2.0"
        )),
        Behind::NoDevice => Err(format!(
            "{path} is no character device; `ls -l {path}` shows what it is"
        )),
    }
}

/// The one that a configuration has, whatever it is.
pub fn configured(tcti: &Tcti) -> Chip {
    Chip {
        tcti: tcti.clone(),
        about: String::new(),
        node: tcti.device().and_then(|path| tpm::node(path).ok()),
    }
}

impl Chip {
    /// The drop-in of its keystore's unit, which lets in the usual node and group as it is.
    pub fn drop_in(&self, keystore: &str) -> Result<Option<Planned>, Failure> {
        let Some(node) = &self.node else {
            return Ok(None);
        };
        let other = Some(node.path.as_path()) != usual().as_deref();
        if other {
            printable_path(&node.path)?;
        }
        let path = other.then_some(node.path.as_path());
        let groups = group_needed(node);
        let needed = path.is_some() || groups.is_some();
        Ok(needed.then(|| work::device_drop_in(keystore, path, groups.as_deref())))
    }

    /// Whether the keystore's user can open it. Asked before a file is written: found here, it is one
    /// sentence with its remedy instead of a keystore that fails later.
    ///
    /// # Errors
    /// If it cannot.
    pub fn check_access(&self) -> Result<(), Failure> {
        let Some(node) = &self.node else {
            return Ok(());
        };
        let user = BackendKind::Tpm.user();
        let path = node.path.display();
        let mut groups = vec![GROUP.to_owned()];
        groups.extend(group_needed(node));
        let test = Path::new("/usr/bin/test");
        let asked = ["-r", "-w"].map(|flag| {
            let mut command = host::as_keystore(BackendKind::Tpm, &groups, test)?;
            run::run(command.arg(flag).arg(&node.path), b"", DEADLINE).ok()
        });
        // Where nobody can be asked, the keystore will say it.
        if asked.iter().flatten().all(run::Ended::succeeded) {
            return Ok(());
        }
        let owner = host::owner_words(node.uid, node.gid, node.mode);
        let remedy = match node.behind {
            Behind::Bare(_) => format!("take the one that is for many users: {TCTI}"),
            _ => format!(
                "udev has no rule that gives it to group {GROUP}; install the package that has one \
                 (Debian, Ubuntu: apt-get install tpm-udev; Fedora, RHEL: dnf install tpm2-tss), or \
                 run {}, then init again",
                tpm::udev_rule()
            ),
        };
        let text =
            format!("user {user} may not open {path} ({owner}): {remedy}. No file was written");
        Err(Failure::new(Exit::Refused, text))
    }
}

/// The node that the unit lets in.
fn usual() -> Option<PathBuf> {
    let tcti = Tcti::parse(TCTI).ok()?;
    tcti.device().map(Path::to_owned)
}

/// A group that opens the node, if that is another than the unit has already; root's is none.
fn group_needed(node: &Node) -> Option<String> {
    let wanted = 0o6;
    let open = |shift: u32| node.mode >> shift & wanted == wanted;
    if open(0) || !open(3) || node.gid == 0 {
        return None;
    }
    let name = crate::ctl::account::group_name(node.gid);
    (name != GROUP && name != host::BROKER_USER).then_some(name)
}

/// The state of a keystore, if it has keys.
pub fn state_with_keys(keystore: &str) -> Option<PathBuf> {
    let state = Path::new(STATE_DIR).join(keystore);
    tpm::has_keys(&state).then_some(state)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(path: &str, behind: Behind) -> Node {
        Node {
            path: path.into(),
            behind,
            uid: 0,
            gid: 0,
            mode: 0o600,
        }
    }

    #[test]
    fn only_what_can_hold_keys_is_offered() {
        let device = Tcti::parse(TCTI).unwrap();
        let of = |behind| judge(Setup::Host, &device, Some(&node("/dev/tpmrm0", behind)));
        for behind in [Behind::Managed, Behind::Bare(Some(2)), Behind::Bare(None)] {
            assert!(of(behind).is_ok(), "{behind:?}");
        }
        assert!(of(Behind::Foreign).unwrap().contains("does not show"));
        assert!(of(Behind::Bare(Some(1))).unwrap_err().contains("TPM 1.2"));
        assert!(of(Behind::NoDevice).is_err());
        let emulator = Tcti::parse("swtpm:host=127.0.0.1,port=2321").unwrap();
        assert!(judge(Setup::ByHand, &emulator, None).is_ok());
        let refused = judge(Setup::Host, &emulator, None).unwrap_err();
        assert!(refused.contains("protects nothing"), "{refused}");
    }

    #[test]
    fn a_unit_gets_a_drop_in_for_another_node_or_group_alone() {
        let chip = |path: &str, gid, mode| Chip {
            tcti: Tcti::Device(path.into()),
            about: String::new(),
            node: Some(Node {
                gid,
                mode,
                ..node(path, Behind::Managed)
            }),
        };
        let text = |chip: Chip| chip.drop_in("t").unwrap().map(|planned| planned.text);
        assert_eq!(text(chip("/dev/tpmrm0", 0, 0o600)), None);
        assert_eq!(text(chip("/dev/tpmrm0", 0, 0o660)), None); // root's group opens too much
        let other = text(chip("/dev/tpmrm1", 0, 0o600)).unwrap();
        let lines = "[Service]\nBindPaths=/dev/tpmrm1\nDeviceAllow=/dev/tpmrm1 rw\n";
        assert!(other.ends_with(lines), "{other}");
        let group = text(chip("/dev/tpmrm0", 54_321, 0o660)).unwrap();
        assert!(group.ends_with("[Service]\nSupplementaryGroups=54321\n"));
        assert_eq!(text(chip("/dev/tpmrm0", 54_321, 0o666)), None);
        let odd = chip("/dev/a b", 0, 0o600).drop_in("t").unwrap_err();
        assert_eq!(odd.exit, Exit::Refused);
    }

    #[test]
    fn one_without_a_node_is_opened_by_everybody() {
        let tcti = Tcti::parse("swtpm:host=127.0.0.1,port=2321").unwrap();
        configured(&tcti).check_access().unwrap();
    }
}
