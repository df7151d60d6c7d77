//! How a TPM is reached, as the configuration says it. Two ways of the many that tpm2-tss knows: a
//! device node, and swtpm for tests. What a path means for us stands here too: behind the kernel's
//! resource manager others use the TPM beside us, behind any other way it is ours alone.

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

/// One way to a TPM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tcti {
    /// A character device.
    Device(PathBuf),
    /// swtpm, by TCP.
    Swtpm {
        /// Its address.
        host: IpAddr,
        /// Its data port; the control port is the next one.
        port: u16,
    },
}

/// Who else may use the TPM at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Company {
    /// Nobody: what is loaded in it and not ours was left behind.
    Alone,
    /// Others, kept apart by the kernel's resource manager: it gives each its own objects, and
    /// takes ours away when we close the device.
    Shared,
}

impl Tcti {
    /// From `device:/dev/tpmrm0` or `swtpm:host=127.0.0.1,port=2321`.
    ///
    /// # Errors
    /// A sentence without a subject.
    pub fn parse(text: &str) -> Result<Tcti, String> {
        let known =
            "write \"device:/dev/tpmrm0\" or, for tests, \"swtpm:host=127.0.0.1,port=2321\"";
        match text.split_once(':') {
            Some(("device", path)) => {
                let bad = path.contains(char::is_control) || !Path::new(path).is_absolute();
                match bad {
                    true => Err(format!("the device must be an absolute path; {known}")),
                    false => Ok(Tcti::Device(path.into())),
                }
            }
            Some(("swtpm", rest)) => {
                let (mut host, mut port) = (None, None);
                for part in rest.split(',') {
                    match part.split_once('=') {
                        Some(("host", text)) if host.is_none() => host = text.parse().ok(),
                        Some(("port", text)) if port.is_none() => port = text.parse().ok(),
                        _ => return Err(format!("`{part}` is not understood; {known}")),
                    }
                }
                match (host, port) {
                    (Some(host), Some(port @ 1..)) => Ok(Tcti::Swtpm { host, port }),
                    _ => Err(format!("needs the address and the port of swtpm; {known}")),
                }
            }
            _ => Err(format!("`{text}` is not known; {known}")),
        }
    }

    /// Who else may use the TPM.
    pub fn company(&self) -> Company {
        let is_managed = |path: &Path| {
            let name = path.file_name().and_then(|name| name.to_str());
            name.is_some_and(|name| name.starts_with("tpmrm"))
        };
        match self {
            Tcti::Device(path) if is_managed(path) => Company::Shared,
            // A link or another name of the same device.
            Tcti::Device(path) if path.canonicalize().is_ok_and(|real| is_managed(&real)) => {
                Company::Shared
            }
            Tcti::Device(_) | Tcti::Swtpm { .. } => Company::Alone,
        }
    }

    /// Its device node.
    pub fn device(&self) -> Option<&Path> {
        match self {
            Tcti::Device(path) => Some(path),
            Tcti::Swtpm { .. } => None,
        }
    }
}

impl fmt::Display for Tcti {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Tcti::Device(path) => write!(f, "device:{}", path.display()),
            Tcti::Swtpm { host, port } => write!(f, "swtpm:host={host},port={port}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tcti_is_shown_as_it_is_written() {
        for text in [
            "device:/dev/tpmrm0",
            "device:/dev/pts/3",
            "swtpm:host=127.0.0.1,port=2321",
        ] {
            assert_eq!(Tcti::parse(text).unwrap().to_string(), text);
        }
        let swapped = Tcti::parse("swtpm:port=65535,host=::1").unwrap();
        assert_eq!(swapped.to_string(), "swtpm:host=::1,port=65535");
    }

    #[test]
    fn another_way_to_a_tpm_is_refused() {
        for text in [
            "",
            "device",
            "device:",
            "device:tpm0",
            "device:/dev/tpm0\n",
            "swtpm",
            "swtpm:",
            "swtpm:host=127.0.0.1",
            "swtpm:host=tpm.example,port=1",
            "swtpm:host=127.0.0.1,port=0",
            "swtpm:host=127.0.0.1,port=65536",
            "swtpm:host=127.0.0.1,port=1,port=2",
            "swtpm:host=127.0.0.1,port=1,",
            "tabrmd:",
            "cmd:/bin/sh",
            "libtpms:",
        ] {
            let error = Tcti::parse(text).unwrap_err();
            assert!(error.contains("device:/dev/tpmrm0"), "{text}: {error}");
        }
    }

    #[test]
    fn only_the_resource_manager_has_others_beside_us() {
        for (text, company) in [
            ("device:/dev/tpmrm0", Company::Shared),
            ("device:/dev/tpmrm1", Company::Shared),
            ("device:/dev/tpm0", Company::Alone),
            ("device:/dev/pts/1", Company::Alone),
            ("swtpm:host=127.0.0.1,port=1", Company::Alone),
        ] {
            assert_eq!(Tcti::parse(text).unwrap().company(), company, "{text}");
        }
        let tmp = tempfile::tempdir().unwrap();
        let (real, link) = (tmp.path().join("tpmrm7"), tmp.path().join("tpm"));
        std::fs::create_dir(&real).unwrap();
        std::os::unix::fs::symlink(&real, &link).unwrap();
        assert_eq!(Tcti::Device(link).company(), Company::Shared);
    }
}
