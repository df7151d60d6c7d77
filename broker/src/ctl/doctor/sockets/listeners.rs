//! Who listens under a path: the kernel's table of sockets says which, `/proc/PID/fd` whose.

use super::host;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// A process that holds a socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Its number.
    pub pid: u32,
    /// Its name (`comm`).
    pub name: String,
}

/// Who listens under these paths (proc_net(5), unix).
pub fn at(paths: &BTreeSet<&Path>) -> BTreeMap<PathBuf, Vec<Vec<Holder>>> {
    // Longer than what host::text reads on a host with many sockets.
    let table = fs::read_to_string("/proc/net/unix").unwrap_or_default();
    let sockets = listening(&table, paths);
    let inodes: BTreeSet<u64> = sockets.iter().map(|(inode, _)| *inode).collect();
    let mut holders = holders(&inodes);
    let mut by_path: BTreeMap<PathBuf, Vec<Vec<Holder>>> = BTreeMap::new();
    for (inode, path) in sockets {
        let held = holders.remove(&inode).unwrap_or_default();
        by_path.entry(path).or_default().push(held);
    }
    by_path
}

/// The inodes of the sockets that listen under these paths. `Flags` has __SO_ACCEPTCON (1 << 16).
fn listening(table: &str, paths: &BTreeSet<&Path>) -> Vec<(u64, PathBuf)> {
    let of_line = |line: &str| {
        let mut words = line.split_ascii_whitespace();
        let flags = words.nth(3)?;
        let inode = words.nth(2)?.parse().ok()?;
        // The rest of the line is the path, spaces and all.
        let path = Path::new(
            line.split_once(" /")
                .map(|(head, _)| &line[head.len() + 1..])?,
        );
        (flags == "00010000" && paths.contains(path)).then(|| (inode, path.to_owned()))
    };
    table.lines().skip(1).filter_map(of_line).collect()
}

/// The processes that have these sockets open.
fn holders(inodes: &BTreeSet<u64>) -> BTreeMap<u64, Vec<Holder>> {
    let mut found: BTreeMap<u64, Vec<Holder>> = BTreeMap::new();
    if inodes.is_empty() {
        return found;
    }
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    for pid in pids {
        // A process may end at any moment, and its directory with it.
        let descriptors = fs::read_dir(format!("/proc/{pid}/fd"))
            .into_iter()
            .flatten()
            .flatten();
        let held: BTreeSet<u64> = descriptors
            .filter_map(|descriptor| fs::read_link(descriptor.path()).ok())
            .filter_map(|link| inode_of(link.to_str()?))
            .filter(|inode| inodes.contains(inode))
            .collect();
        for inode in held {
            let name = host::text(format!("/proc/{pid}/comm")).trim().to_owned();
            found.entry(inode).or_default().push(Holder { pid, name });
        }
    }
    found
}

/// `socket:[123]`
fn inode_of(link: &str) -> Option<u64> {
    link.strip_prefix("socket:[")?
        .strip_suffix(']')?
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listening_sockets_are_found_by_their_path() {
        let table = "Num       RefCount Protocol Flags    Type St Inode Path\n\
                     0000000000000000: 00000002 00000000 00010000 0001 01 4711 /run/a b.sock\n\
                     0000000000000000: 00000003 00000000 00000000 0001 03 4712 /run/a b.sock\n\
                     0000000000000000: 00000002 00000000 00010000 0001 01 4713 /run/other\n\
                     0000000000000000: 00000002 00000000 00010000 0001 01 4714 @/run/a b.sock\n";
        let paths = [Path::new("/run/a b.sock")].into();
        assert_eq!(listening(table, &paths), [(4711, "/run/a b.sock".into())]);
        assert_eq!(inode_of("socket:[4711]"), Some(4711));
        assert_eq!(inode_of("pipe:[4711]"), None);
    }

    #[test]
    fn a_socket_of_this_process_is_held_by_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let _listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let found = at(&[path.as_path()].into());
        let pids: Vec<u32> = found[&path][0].iter().map(|holder| holder.pid).collect();
        assert_eq!(pids, [std::process::id()]);
    }
}
