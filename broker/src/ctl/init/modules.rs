//! Where PKCS#11 modules are. A list of files that vendors document, in the directories that
//! distributions use, and what p11-kit's `*.module` files name. Only names: nothing is loaded here.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// How a module reaches its tokens, which decides what its unit must be allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Files of its own: a token in software.
    Files,
    /// Smart cards and USB keys through pcscd's socket.
    Pcscd,
    /// A network.
    Network,
    /// The TPM's device, and a database.
    Tpm,
    /// We do not know it.
    Unknown,
}

/// One product's module.
struct Known {
    /// The file's name, or its absolute path where a vendor has a directory of its own.
    files: &'static [&'static str],
    reach: Reach,
    /// The variable that names its configuration, and places where that may be.
    configuration: Option<(&'static str, &'static [&'static str])>,
}

/// From public documentation; beside each, whose.
const KNOWN: [Known; 11] = [
    Known {
        // Debian's and Fedora's package softhsm2; the variable: softhsm2.conf(5).
        files: &["libsofthsm2.so", "libsofthsm.so"],
        reach: Reach::Files,
        configuration: Some(("SOFTHSM2_CONF", &["/etc/assertd/softhsm2.conf"])),
    },
    Known {
        // github.com/OpenSC/OpenSC/wiki: smart cards, SmartCard-HSM, Nitrokey HSM 2.
        files: &["opensc-pkcs11.so"],
        reach: Reach::Pcscd,
        configuration: None,
    },
    Known {
        // developers.yubico.com/yubico-piv-tool/YKCS11
        files: &["libykcs11.so"],
        reach: Reach::Pcscd,
        configuration: None,
    },
    Known {
        // docs.yubico.com, YubiHSM 2, PKCS#11: without the variable it looks in the directory it
        // is started in. It asks a connector by HTTP, usually one on this host.
        files: &["yubihsm_pkcs11.so"],
        reach: Reach::Network,
        configuration: Some((
            "YUBIHSM_PKCS11_CONF",
            &[
                "/etc/assertd/yubihsm_pkcs11.conf",
                "/etc/yubihsm_pkcs11.conf",
            ],
        )),
    },
    Known {
        // docs.nitrokey.com/nethsm/pkcs11-setup: finds /etc/nitrokey/p11nethsm.conf by itself.
        files: &["libnethsm_pkcs11.so"],
        reach: Reach::Network,
        configuration: Some(("P11NETHSM_CONFIG_FILE", &["/etc/assertd/p11nethsm.conf"])),
    },
    Known {
        // thalesdocs.com, Luna Network HSM client: finds /etc/Chrystoki.conf by itself.
        files: &[
            "/usr/safenet/lunaclient/lib/libCryptoki2_64.so",
            "libCryptoki2_64.so",
        ],
        reach: Reach::Network,
        configuration: None,
    },
    Known {
        // Utimaco, CryptoServer PKCS#11 developer guide: finds /etc/utimaco/cs_pkcs11_R3.cfg.
        files: &[
            "/opt/utimaco/lib/libcs_pkcs11_R3.so",
            "/opt/utimaco/p11/libcs_pkcs11_R3.so",
            "libcs_pkcs11_R3.so",
            "libcs_pkcs11_R2.so",
        ],
        reach: Reach::Network,
        configuration: None,
    },
    Known {
        // docs.aws.amazon.com/cloudhsm, client SDK 5
        files: &["/opt/cloudhsm/lib/libcloudhsm_pkcs11.so"],
        reach: Reach::Network,
        configuration: None,
    },
    Known {
        // nshielddocs.entrust.com, PKCS #11 library
        files: &["/opt/nfast/toolkits/pkcs11/libcknfast.so"],
        reach: Reach::Unknown,
        configuration: None,
    },
    Known {
        // github.com/tpm2-software/tpm2-pkcs11, docs/INITIALIZING.md
        files: &["libtpm2_pkcs11.so", "libtpm2_pkcs11.so.1"],
        reach: Reach::Tpm,
        configuration: Some(("TPM2_PKCS11_STORE", &["/etc/tpm2_pkcs11"])),
    },
    Known {
        // github.com/opencryptoki/opencryptoki: IBM Z, EP11
        files: &["libopencryptoki.so"],
        reach: Reach::Unknown,
        configuration: None,
    },
];

/// Where libraries are; `*` is one directory's name that ends in what follows.
const LIBRARY_DIRS: [&str; 6] = [
    "/usr/lib/*-linux-gnu",
    "/usr/lib64",
    "/usr/lib",
    "/usr/local/lib/*-linux-gnu",
    "/usr/local/lib64",
    "/usr/local/lib",
];

/// Directories below, where packages put modules.
const SUBDIRS: [&str; 5] = ["pkcs11", "softhsm", "nitrokey", "opencryptoki", ""];

/// p11-kit's registry (pkcs11.conf(5)).
const P11_KIT_DIRS: [&str; 2] = ["/usr/share/p11-kit/modules", "/etc/pkcs11/modules"];

/// Modules that hold no key of a service: other modules' proxies, certificates, desktops.
const NOT_FOR_US: [&str; 5] = [
    "p11-kit-proxy.so",
    "p11-kit-client.so",
    "p11-kit-trust.so",
    "pkcs11-spy.so",
    "gnome-keyring-pkcs11.so",
];

/// The modules of this host, each once, by the first path that leads to it.
pub fn installed() -> Vec<PathBuf> {
    each_once(candidates())
}

/// Every path that leads to a module of this host.
pub fn paths() -> BTreeSet<PathBuf> {
    candidates()
        .into_iter()
        .filter(|path| path.is_file())
        .collect()
}

fn candidates() -> Vec<PathBuf> {
    let dirs = library_dirs();
    let mut paths: Vec<PathBuf> = Vec::new();
    for file in KNOWN.iter().flat_map(|known| known.files) {
        if file.starts_with('/') {
            paths.push(file.into());
            continue;
        }
        for dir in &dirs {
            paths.extend(SUBDIRS.iter().map(|sub| dir.join(sub).join(file)));
        }
    }
    for text in p11_kit_files() {
        paths.extend(p11_kit_module(&text).into_iter().flat_map(|name| {
            match Path::new(&name).is_absolute() {
                true => vec![PathBuf::from(&name)],
                false => dirs.iter().map(|d| d.join("pkcs11").join(&name)).collect(),
            }
        }));
    }
    paths
}

/// How it reaches its tokens.
pub fn reach(module: &Path) -> Reach {
    known(module).map_or(Reach::Unknown, |known| known.reach)
}

/// The variable that names the module's configuration, with each of its places that is there.
pub fn configurations(module: &Path) -> Vec<(&'static str, &'static str)> {
    let Some((variable, places)) = known(module).and_then(|known| known.configuration) else {
        return Vec::new();
    };
    let there = places.iter().filter(|place| Path::new(place).exists());
    there.map(|place| (variable, *place)).collect()
}

/// By its file's name, or by that of the file it is a link to.
fn known(module: &Path) -> Option<&'static Known> {
    let real = fs::canonicalize(module).unwrap_or_default();
    [module, &real].into_iter().find_map(|path| {
        let name = path.file_name()?.to_str()?;
        KNOWN.iter().find(|known| {
            known.files.iter().any(|file| {
                let file = file.rsplit('/').next().unwrap_or(file);
                name == file || name.strip_prefix(file).is_some_and(|v| v.starts_with('.'))
            })
        })
    })
}

fn library_dirs() -> Vec<PathBuf> {
    let mut dirs = Vec::new();
    for pattern in LIBRARY_DIRS {
        match pattern.split_once("/*") {
            None => dirs.push(PathBuf::from(pattern)),
            Some((parent, suffix)) => {
                let entries = fs::read_dir(parent).into_iter().flatten().flatten();
                let mut found: Vec<PathBuf> = entries
                    .filter(|entry| entry.file_name().to_string_lossy().ends_with(suffix))
                    .map(|entry| entry.path())
                    .collect();
                found.sort();
                dirs.append(&mut found);
            }
        }
    }
    dirs
}

fn p11_kit_files() -> Vec<String> {
    let entries = P11_KIT_DIRS.iter().flat_map(fs::read_dir).flatten();
    let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    files.retain(|path| path.extension().is_some_and(|e| e == "module"));
    files.sort();
    files.iter().flat_map(fs::read_to_string).collect()
}

/// The value of `module:` in a `*.module` file (pkcs11.conf(5)).
fn p11_kit_module(text: &str) -> Option<String> {
    let value = |line: &str| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == "module" && !value.trim().is_empty()).then(|| value.trim().to_owned())
    };
    text.lines()
        .filter(|line| !line.trim_start().starts_with('#'))
        .find_map(value)
}

fn each_once(paths: Vec<PathBuf>) -> Vec<PathBuf> {
    let mut seen = BTreeSet::new();
    let mut modules = Vec::new();
    for path in paths {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if NOT_FOR_US.contains(&&*name) {
            continue;
        }
        if let Ok(real) = fs::canonicalize(&path)
            && real.is_file()
            && seen.insert(real)
        {
            modules.push(path);
        }
    }
    modules
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_p11_kit_file_names_its_module() {
        let text = "# about it\n module : libx.so \ncritical: no\n";
        assert_eq!(p11_kit_module(text).as_deref(), Some("libx.so"));
        assert_eq!(p11_kit_module("# module: a.so\nmodule:\n"), None);
    }

    #[test]
    fn a_module_is_listed_once_whatever_leads_to_it() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for name in ["m.so.1.2", "p11-kit-proxy.so"] {
            fs::OpenOptions::new()
                .create_new(true)
                .write(true)
                .open(at(name))
                .unwrap();
        }
        symlink("m.so.1.2", at("m.so")).unwrap();
        let paths = ["m.so", "p11-kit-proxy.so", "none.so", "m.so.1.2"].map(at);
        assert_eq!(each_once(paths.to_vec()), [at("m.so")]);
    }

    #[test]
    fn a_module_is_known_by_its_name_with_or_without_a_version() {
        let reach = |path| reach(Path::new(path));
        assert_eq!(reach("/nonexistent/libsofthsm2.so"), Reach::Files);
        assert_eq!(reach("/nonexistent/libtpm2_pkcs11.so.1.9.0"), Reach::Tpm);
        assert_eq!(reach("/nonexistent/libsofthsm2.sox"), Reach::Unknown);
        assert_eq!(
            reach("/opt/elsewhere/libcloudhsm_pkcs11.so"),
            Reach::Network
        );
    }
}
