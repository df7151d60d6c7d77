//! What a keystore's process can still reach once it is in its sandbox. The module is a vendor's:
//! it reads files of its own that we do not know, so programs, libraries and configuration of the
//! machine can be read. What others keep cannot: homes, /var, /srv, /tmp, the broker's state and
//! audit log. It writes to its state directory, to `module_state` and to devices, and nowhere else.

use super::sandbox::{AbstractSockets, Network, Sandbox};
use crate::config::{BackendKind, PinSource, STATE_DIR, Section, TCTI, Tcti};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

/// Programs, libraries and configuration of the machine (hier(7), and NixOS's store), the kernel's
/// tables, and what libudev reads.
const READ: [&str; 10] = [
    "/usr",
    "/lib",
    "/lib32",
    "/lib64",
    "/etc",
    "/opt",
    "/nix/store",
    "/proc",
    "/sys",
    "/run/udev",
];

/// Where */etc/resolv.conf* leads with systemd-resolved: for those that use the network.
const RESOLVER: &str = "/run/systemd/resolve";

/// Nodes that programs read and write, and what tokens hang on. A vendor's own node is named in
/// `module_state`; disks, which hold everybody's files, are never among them.
const DEVICES: [&str; 7] = [
    "/dev/null",
    "/dev/zero",
    "/dev/full",
    "/dev/random",
    "/dev/urandom",
    "/dev/bus/usb",
    "/dev/tpmrm0",
];

/// USB tokens without a driver are `/dev/hidraw0` and up.
const HIDRAW: &str = "hidraw";

/// Where one keystore has what is its own.
#[derive(Clone, Debug)]
pub struct Places {
    /// Its state directory, which is there.
    pub state_dir: PathBuf,
    /// `$CREDENTIALS_DIRECTORY`.
    pub credentials: Option<PathBuf>,
    /// What the broker keeps for itself ([`crate::config::Loaded`]).
    pub broker: Vec<PathBuf>,
}

/// The sandbox of a keystore's process. Looks at the file system for what is a directory.
pub fn of_keystore(section: &Section, places: &Places) -> Sandbox {
    let (nodes, state): (Vec<_>, Vec<_>) =
        (section.module_state.iter().cloned()).partition(|path| is_node(path));
    let tcti = tcti(section);
    let node = tcti.as_ref().and_then(Tcti::device).map(Path::to_owned);
    let network = match (section.network, tcti) {
        (true, _) | (_, Some(Tcti::Swtpm { .. })) => Network::Open,
        (false, _) => Network::None,
    };
    let mut read = readable(network);
    read.extend(places.credentials.clone());
    for path in named_files(section) {
        read.extend(around(&path, &places.broker));
    }
    Sandbox {
        read,
        write: [vec![places.state_dir.clone()], state].concat(),
        devices: devices().into_iter().chain(nodes).chain(node).collect(),
        network,
        abstract_sockets: match crate::notify::has_abstract_socket() {
            true => AbstractSockets::Open,
            false => AbstractSockets::None,
        },
    }
}

/// How the section reaches its TPM, if it has one.
fn tcti(section: &Section) -> Option<Tcti> {
    match section.backend {
        BackendKind::Tpm => Tcti::parse(section.tcti.as_deref().unwrap_or(TCTI)).ok(),
        BackendKind::Pkcs11 => None,
    }
}

/// The sandbox of a process that only looks which tokens a module shows: as a keystore's, but it
/// has no state, and writes to nothing but devices. `read` are directories that the module reads
/// besides, or files in them.
pub fn of_look(module: &Path, read: &[PathBuf], network: Network) -> Sandbox {
    let broker = [PathBuf::from(STATE_DIR)];
    let real = module.canonicalize().ok();
    let named = [module.to_owned()].into_iter().chain(real);
    let named = named.chain(read.iter().cloned());
    Sandbox {
        read: readable(network)
            .into_iter()
            .chain(named.filter_map(|path| around(&path, &broker)))
            .collect(),
        write: Vec::new(),
        devices: devices(),
        network,
        abstract_sockets: AbstractSockets::None,
    }
}

/// What every module may read.
fn readable(network: Network) -> Vec<PathBuf> {
    let resolver = (network == Network::Open).then_some(RESOLVER);
    READ.into_iter()
        .chain(resolver)
        .map(PathBuf::from)
        .collect()
}

/// What every module may open.
fn devices() -> Vec<PathBuf> {
    let fixed = DEVICES.into_iter().map(PathBuf::from);
    fixed.chain(hidraw()).collect()
}

/// Files that the section names: the module, the PIN, and what the module is told of.
fn named_files(section: &Section) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = section.module.iter().cloned().collect();
    files.extend(
        section
            .module
            .iter()
            .filter_map(|path| path.canonicalize().ok()),
    );
    if let Some(healthy) = &section.healthy {
        files.extend(healthy.authority.iter().chain(&healthy.approvals).cloned());
    }
    for source in [&section.pin, &section.auth] {
        if let Some(PinSource::File(path)) = source {
            files.push(path.clone());
        }
    }
    let texts = section.environment.values().chain(&section.init_args);
    files.extend(texts.flat_map(|text| paths_in(text)));
    files
}

/// Absolute paths in a text such as `/a:/b` or `configdir='sql:/etc/pki'`.
pub fn paths_in(text: &str) -> Vec<PathBuf> {
    let separates = |c: char| c.is_whitespace() || ":;,='\"".contains(c);
    let words = text.split(separates).filter(|word| word.starts_with('/'));
    words.map(PathBuf::from).collect()
}

/// What to grant for a path that is to be read: the directory it is, or the one it lies in, because
/// files are replaced by renaming and rules are made of inodes; a module's neighbours are the
/// libraries it needs. The path alone where that directory holds what is the broker's, as in a
/// quickstart that has everything in one place; nothing of a directory that is the root.
fn around(path: &Path, broker: &[PathBuf]) -> Option<PathBuf> {
    let directory = match path.is_dir() {
        true => path,
        false => path.parent()?,
    };
    let real = directory.canonicalize().ok()?;
    let holds = |hidden: &PathBuf| match hidden.canonicalize() {
        Ok(hidden) => hidden.starts_with(&real),
        Err(_) => false, // not there, so nothing is in it
    };
    let is_root = real.parent().is_none();
    match (is_root || broker.iter().any(holds), path.is_dir()) {
        (false, _) => Some(real),
        (true, false) => Some(path.to_owned()),
        (true, true) => None,
    }
}

/// Whether it is a device: a section may name one among its `module_state`.
pub fn is_node(path: &Path) -> bool {
    let kind = path.metadata().map(|metadata| metadata.file_type());
    kind.is_ok_and(|kind| kind.is_char_device() || kind.is_block_device())
}

/// Those that are there now.
fn hidraw() -> Vec<PathBuf> {
    let entries = std::fs::read_dir("/dev").into_iter().flatten().flatten();
    let ours = |entry: &std::fs::DirEntry| {
        let name = entry.file_name();
        name.to_str().is_some_and(|name| name.starts_with(HIDRAW))
    };
    entries.filter(ours).map(|entry| entry.path()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn section(more: &str) -> Section {
        let text = format!(
            "backend = \"pkcs11\"\nmodule = \"/usr/lib/x.so\"\ntoken = {{ label = \"t\" }}\n\
             pin = {{ credential = \"t.pin\" }}\n{more}"
        );
        toml::from_str(&text).unwrap()
    }

    fn places(dir: &Path) -> Places {
        let state = dir.join("state");
        std::fs::create_dir_all(state.join("audit")).unwrap();
        std::fs::create_dir_all(state.join("keystore/hsm")).unwrap();
        Places {
            state_dir: state.join("keystore/hsm"),
            credentials: None,
            broker: vec![state.clone(), state.join("audit")],
        }
    }

    #[test]
    fn the_directory_of_a_file_that_is_named_can_be_read_but_not_with_the_brokers_state_in_it() {
        let tmp = tempfile::tempdir().unwrap();
        let dir = tmp.path().canonicalize().unwrap();
        let places = places(&dir);
        std::fs::create_dir(dir.join("module")).unwrap();
        let (beside, inside) = (dir.join("softhsm2.conf"), dir.join("module/softhsm2.conf"));
        for (path, granted) in [
            (&beside, beside.clone()),
            (&inside, dir.join("module")),
            (&dir.join("module"), dir.join("module")),
        ] {
            let text = format!("environment = {{ CONF = \"{}\" }}\n", path.display());
            let sandbox = of_keystore(&section(&text), &places);
            assert_eq!(sandbox.read.last(), Some(&granted), "{}", path.display());
        }
        let text = format!("environment = {{ HOME = \"{}\" }}\n", dir.display());
        let sandbox = of_keystore(&section(&text), &places);
        let leaks = |path: &PathBuf| places.broker[1].starts_with(path);
        assert!(!sandbox.read.iter().any(leaks), "{sandbox:?}");
        assert_eq!(sandbox.write, [places.state_dir]);
    }

    #[test]
    fn the_root_is_never_granted() {
        let tmp = tempfile::tempdir().unwrap();
        let places = places(tmp.path());
        for value in ["/", "//127.0.0.1:12345", "/.", "/vmlinuz", "/tmp/.."] {
            let text = format!("environment = {{ X = \"{value}\" }}\n");
            let sandbox = of_keystore(&section(&text), &places);
            let root = |path: &PathBuf| path.canonicalize().is_ok_and(|p| p == Path::new("/"));
            assert!(!sandbox.read.iter().any(root), "{value}: {sandbox:?}");
        }
    }

    #[test]
    fn paths_are_found_in_what_modules_are_told() {
        let paths = |text| paths_in(text);
        assert_eq!(
            paths("/etc/softhsm2.conf"),
            [Path::new("/etc/softhsm2.conf")]
        );
        assert_eq!(
            paths("/a/lib:/b/lib"),
            [Path::new("/a/lib"), Path::new("/b/lib")]
        );
        assert_eq!(
            paths("configdir='sql:/etc/pki/nssdb' certPrefix='' flags=readOnly"),
            [Path::new("/etc/pki/nssdb")]
        );
        assert!(paths("relative/path 12345").is_empty());
    }

    #[test]
    fn a_tpm_is_reached_by_its_device_or_by_tcp_alone() {
        let tmp = tempfile::tempdir().unwrap();
        let places = places(tmp.path());
        let sandbox = |more: &str| {
            let section = toml::from_str(&format!("backend = \"tpm\"\n{more}")).unwrap();
            of_keystore(&section, &places)
        };
        let standard = sandbox("");
        assert_eq!(standard.network, Network::None);
        assert_eq!(standard.devices.last(), Some(&"/dev/tpmrm0".into()));
        let other = sandbox("tcti = \"device:/dev/tpm1\"\n");
        assert_eq!(other.network, Network::None);
        assert_eq!(other.devices.last(), Some(&"/dev/tpm1".into()));
        let swtpm = sandbox("tcti = \"swtpm:host=127.0.0.1,port=2321\"\n");
        assert_eq!(swtpm.network, Network::Open);
        assert_eq!(swtpm.write, [places.state_dir]);
    }

    #[test]
    fn a_device_that_is_named_is_one_and_the_rest_is_state() {
        let tmp = tempfile::tempdir().unwrap();
        let places = places(tmp.path());
        let text = "module_state = [\"/dev/tty\", \"/srv/tokens\"]\nnetwork = true\n";
        let sandbox = of_keystore(&section(text), &places);
        assert_eq!(sandbox.devices.last(), Some(&PathBuf::from("/dev/tty")));
        assert_eq!(
            sandbox.write,
            [places.state_dir.clone(), "/srv/tokens".into()]
        );
    }

    #[test]
    fn the_resolver_is_for_those_that_use_the_network() {
        let tmp = tempfile::tempdir().unwrap();
        let places = places(tmp.path());
        for (text, network, resolver) in [
            ("network = true\n", Network::Open, true),
            ("", Network::None, false),
        ] {
            let sandbox = of_keystore(&section(text), &places);
            assert_eq!(sandbox.network, network);
            let look = of_look(Path::new("/usr/lib/x.so"), &[], network);
            for sandbox in [sandbox, look] {
                let read = sandbox.read.contains(&PathBuf::from(RESOLVER));
                assert_eq!(read, resolver, "{sandbox:?}");
            }
        }
    }

    #[test]
    fn a_look_writes_to_nothing_but_devices_and_reads_what_is_named() {
        let tmp = tempfile::tempdir().unwrap();
        let dir = tmp.path().canonicalize().unwrap();
        let look = of_look(
            Path::new("/usr/lib/x.so"),
            std::slice::from_ref(&dir),
            Network::None,
        );
        assert!(look.write.is_empty());
        assert!(look.read.contains(&dir));
        let keystore = of_keystore(&section(""), &places(&dir));
        assert_eq!(look.devices, keystore.devices);
        let root = of_look(Path::new("/x.so"), &["/".into()], Network::None);
        assert!(!root.read.contains(&PathBuf::from("/")));
    }
}
