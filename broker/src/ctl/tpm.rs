//! A TPM as the kernel shows it: what stands behind a device node, and what there is if nothing
//! does; and whether the keystore's program runs. Looks at names, numbers and modes alone. No command
//! is ever sent to a TPM from here: that is the keystore's.

use super::run;
use crate::child::beside_us;
use keystore::config::BackendKind;
use nix::sys::stat::{major, minor};
use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// The group that udev's rules give `/dev/tpmrm*` to, and that the keystore's unit has.
pub const GROUP: &str = "tss";

/// The major number that TCG's second specification begins with.
const TPM_2: u8 = 2;

/// Where a keystore has its keys, below its state directory.
const KEYS: &str = "keys";

/// How long our program may take to say its version.
const VERSION_DEADLINE: Duration = Duration::from_secs(10);

/// Where sysfs is.
const SYS: &str = "/sys";

/// One device node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Its path.
    pub path: PathBuf,
    /// What stands behind it.
    pub behind: Behind,
    /// Its owner.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// Permission bits.
    pub mode: u32,
}

/// What stands behind a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Behind {
    /// A TPM 2.0 with the kernel's resource manager before it: many may use it at once.
    Managed,
    /// A TPM itself, and its version if the kernel says it: one process at a time.
    Bare(Option<u8>),
    /// A character device that is none of the kernel's TPMs, such as a terminal with an emulator at
    /// its other end.
    Foreign,
    /// No character device.
    NoDevice,
}

/// What there is where a node is missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Missing {
    /// The kernel has no TPM.
    NoTpm,
    /// It has one, of this version, without a resource manager.
    Unmanaged(PathBuf, Option<u8>),
    /// It has one with a resource manager, whose node is elsewhere, or nobody made it.
    Elsewhere(PathBuf),
}

/// Looks what stands behind a node.
///
/// # Errors
/// That of stat(2), usually that it is not there.
pub fn node(path: &Path) -> io::Result<Node> {
    node_in(Path::new(SYS), path)
}

fn node_in(sys: &Path, path: &Path) -> io::Result<Node> {
    let metadata = fs::metadata(path)?;
    let behind = match metadata.file_type().is_char_device() {
        true => behind(sys, metadata.rdev()),
        false => Behind::NoDevice,
    };
    Ok(Node {
        path: path.to_owned(),
        behind,
        uid: metadata.uid(),
        gid: metadata.gid(),
        mode: metadata.mode() & 0o7777,
    })
}

/// By its number, whatever its name (sysfs(5), /sys/dev/char; its `subsystem` is the class).
fn behind(sys: &Path, number: u64) -> Behind {
    let (major, minor) = (major(number), minor(number));
    let device = sys.join(format!("dev/char/{major}:{minor}"));
    let class = fs::read_link(device.join("subsystem")).unwrap_or_default();
    match class.file_name().and_then(|name| name.to_str()) {
        Some("tpmrm") => Behind::Managed, // the kernel makes these for a TPM 2.0 alone
        Some("tpm") => Behind::Bare(version(&device)),
        _ => Behind::Foreign,
    }
}

/// Since Linux 5.6 (Documentation/ABI/stable/sysfs-class-tpm).
fn version(device: &Path) -> Option<u8> {
    let text = fs::read_to_string(device.join("tpm_version_major")).ok()?;
    text.trim().parse().ok()
}

/// What there is, if a node is missing.
pub fn missing() -> Missing {
    missing_in(Path::new(SYS))
}

fn missing_in(sys: &Path) -> Missing {
    let dev = Path::new("/dev");
    if let Some(name) = first(&sys.join("class/tpmrm")) {
        return Missing::Elsewhere(dev.join(name));
    }
    match first(&sys.join("class/tpm")) {
        Some(name) => {
            let version = version(&sys.join("class/tpm").join(&name));
            Missing::Unmanaged(dev.join(name), version)
        }
        None => Missing::NoTpm,
    }
}

/// The first name in a directory, in their order.
fn first(dir: &Path) -> Option<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    names.min()
}

impl Missing {
    /// Why there is nothing at `path`, and what helps.
    pub fn text(&self, path: &Path) -> (String, String) {
        let path = path.display();
        match self {
            Missing::NoTpm => (
                format!("{path} is not there, and the kernel has found no TPM"),
                "switch it on in the firmware's setup (it may be called fTPM, PTT or security \
                 device); of a virtual machine, give it one; `dmesg | grep -i tpm` says what the \
                 kernel saw"
                    .to_owned(),
            ),
            Missing::Unmanaged(bare, Some(version)) if *version < TPM_2 => (
                format!("{path} is not there: {} is a TPM 1.2", bare.display()),
                "switch the TPM to 2.0 in the firmware's setup, if it can be; a TPM 1.2 cannot hold \
                 these keys"
                    .to_owned(),
            ),
            Missing::Unmanaged(bare, _) => (
                format!(
                    "{path} is not there, only {}: this kernel has no resource manager for it, or \
                     it is a TPM 1.2",
                    bare.display()
                ),
                "boot Linux 4.12 or later; a TPM 1.2 cannot hold these keys".to_owned(),
            ),
            Missing::Elsewhere(other) if other.to_str() != Some(&*path.to_string()) => (
                format!("{path} is not there; the kernel has {}", other.display()),
                format!("take that one: tcti = \"device:{}\"", other.display()),
            ),
            Missing::Elsewhere(other) => (
                format!("{path} is not there, though the kernel has this TPM"),
                format!(
                    "run `udevadm trigger --action=add --subsystem-match=tpmrm`; a container must \
                     be given {}",
                    other.display()
                ),
            ),
        }
    }
}

/// Whether our program starts: it needs tpm2-tss, which a host with an HSM alone does not have.
///
/// # Errors
/// What it says, and what helps.
pub fn program() -> Result<(), (String, String)> {
    let name = BackendKind::Tpm.program();
    let again = || "install assertd's package again, as a whole".to_owned();
    let program = beside_us(name).map_err(|why| (why, again()))?;
    let ended = run::run(
        Command::new(program).arg("--version"),
        b"",
        VERSION_DEADLINE,
    );
    match ended {
        Ok(ended) if ended.succeeded() => Ok(()),
        Ok(ended) => Err((
            format!("{name} does not start: {}", ended.reason()),
            "install tpm2-tss (Debian 12: `apt-get install libtss2-esys-3.0.2-0 libtss2-tctildr0 \
             libtss2-tcti-device0`)"
                .to_owned(),
        )),
        Err(why) => Err((format!("{name} {why}"), again())),
    }
}

/// Whether there are key files in a TPM keystore's state: they sign with the secret that they were
/// made with and no other.
pub fn has_keys(state: &Path) -> bool {
    let entries = fs::read_dir(state.join(KEYS))
        .into_iter()
        .flatten()
        .flatten();
    let mut names = entries.map(|entry| entry.path());
    names.any(|path| path.extension().is_some_and(|extension| extension == "pem"))
}

/// A rule for udev that opens the TPM to [`GROUP`], where the distribution has none, and what brings
/// it into force; as one command.
pub fn udev_rule() -> String {
    format!(
        "`groupadd -rf {GROUP}; echo 'KERNEL==\"tpmrm[0-9]*\", GROUP=\"{GROUP}\", MODE=\"0660\"' \
         >/etc/udev/rules.d/60-assertd-tpm.rules && udevadm control --reload && udevadm trigger \
         --action=add --subsystem-match=tpmrm && udevadm settle`"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;
    use tempfile::TempDir;

    /// A sysfs in which /dev/null, of number 1:3, is a device of this class.
    fn sys(class: &str, version: Option<&str>) -> TempDir {
        let dir = tempfile::tempdir().unwrap();
        let device = dir.path().join("dev/char/1:3");
        fs::create_dir_all(&device).unwrap();
        symlink(format!("../../../class/{class}"), device.join("subsystem")).unwrap();
        put(&device, version);
        dir
    }

    fn put(device: &Path, version: Option<&str>) {
        use std::io::Write;
        if let Some(text) = version {
            let file = fs::File::create_new(device.join("tpm_version_major"));
            file.unwrap().write_all(text.as_bytes()).unwrap();
        }
    }

    #[test]
    fn a_node_is_known_by_its_number_and_not_by_its_name() {
        let null = Path::new("/dev/null");
        for (sys, behind) in [
            (sys("tpmrm", None), Behind::Managed),
            (sys("tpm", Some("2\n")), Behind::Bare(Some(2))),
            (sys("tpm", Some("1\n")), Behind::Bare(Some(1))),
            (sys("tpm", None), Behind::Bare(None)),
            (sys("mem", None), Behind::Foreign),
            (tempfile::tempdir().unwrap(), Behind::Foreign),
        ] {
            assert_eq!(node_in(sys.path(), null).unwrap().behind, behind);
        }
        let root = node(Path::new("/")).unwrap();
        assert_eq!(root.behind, Behind::NoDevice);
        let gone = node(Path::new("/dev/tpm-that-is-not-there")).unwrap_err();
        assert_eq!(gone.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn what_is_missing_has_its_reason_and_what_helps() {
        let with = |paths: &[&str], version: Option<&str>| {
            let dir = tempfile::tempdir().unwrap();
            for path in paths {
                fs::create_dir_all(dir.path().join(path)).unwrap();
            }
            put(&dir.path().join(paths.first().unwrap_or(&"")), version);
            let (why, remedy) = missing_in(dir.path()).text(Path::new("/dev/tpmrm0"));
            format!("{why}; {remedy}")
        };
        for (text, part) in [
            (with(&[], None), "the kernel has found no TPM"),
            (
                with(&["class/tpm/tpm0"], Some("1\n")),
                "/dev/tpm0 is a TPM 1.2",
            ),
            (with(&["class/tpm/tpm0"], Some("2\n")), "boot Linux 4.12"),
            (with(&["class/tpm/tpm0"], None), "only /dev/tpm0"),
            (
                with(&["class/tpmrm/tpmrm1"], None),
                "tcti = \"device:/dev/tpmrm1\"",
            ),
            (with(&["class/tpmrm/tpmrm0"], None), "udevadm trigger"),
        ] {
            assert!(text.contains(part), "{text}");
        }
    }
}
