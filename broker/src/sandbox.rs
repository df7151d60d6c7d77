//! What the broker can still reach once it serves: its configuration, its state, its audit log, its
//! sockets, what libc looks users up in, and what the kernel says about callers. No other file, no
//! program, no TCP, no process to signal. Owns that list; how it is entered is
//! [`keystore::hardening::sandbox`]'s.
//!
//! Threads that start keystore programs (`isolation: none`) are started before, and stay outside:
//! what they start closes itself in. So in that mode the list holds against mistakes, and not
//! against somebody who runs code in this process (docs/decisions/0007).

use crate::config::{self, Config};
use keystore::hardening::sandbox::{AbstractSockets, Enforced, Network, Sandbox};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// Libraries and tables of libc and its name services (nsswitch.conf(5): files, systemd, sss,
/// extrausers, db), and what the kernel says about processes and processors.
const READ: [&str; 13] = [
    "/usr",
    "/lib",
    "/lib32",
    "/lib64",
    "/etc",
    "/nix/store",
    "/proc",
    "/sys/fs/cgroup",
    "/sys/devices/system/cpu",
    "/run/systemd/userdb",
    "/run/userdb",
    "/var/lib/sss",
    "/var/lib/extrausers",
];

const DEVICES: [&str; 3] = ["/dev/null", "/dev/urandom", "/dev/random"];

/// Enters it: this thread and all that it starts from now on. Makes the audit log's directory if it
/// is missing, since a rule needs something to hold on to.
pub fn enter(config: &Config) -> Enforced {
    let mut made = std::fs::DirBuilder::new();
    let _ = made.mode(0o700).create(&config.audit.dir); // opening the log says what is wrong
    of_broker(config).enter()
}

fn of_broker(config: &Config) -> Sandbox {
    let mut read: Vec<PathBuf> = READ.map(PathBuf::from).to_vec();
    read.extend(configuration(&config.path));
    Sandbox {
        read,
        write: vec![
            config.server.state_dir.clone(),
            config.server.runtime_dir.clone(),
            config.audit.dir.clone(),
        ],
        devices: DEVICES.map(PathBuf::from).to_vec(),
        network: Network::None,
        abstract_sockets: match keystore::notify::has_abstract_socket() {
            true => AbstractSockets::Open,
            false => AbstractSockets::None,
        },
    }
}

/// The directories a reload reads: the main file's, with `conf.d`, and those that links in them
/// lead to now. Never the root.
fn configuration(path: &Path) -> Vec<PathBuf> {
    let files = config::files(path).unwrap_or_default();
    let drop_ins = path.with_file_name("conf.d");
    let real = files.iter().filter_map(|file| file.canonicalize().ok());
    let holding = real.filter_map(|file| Some(file.parent()?.to_owned()));
    let mut directories: Vec<PathBuf> = path.parent().map(Path::to_owned).into_iter().collect();
    directories.push(drop_ins);
    directories.extend(holding);
    directories.retain(|directory| directory.parent().is_some());
    directories
}
