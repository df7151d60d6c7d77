//! Units as the kernel shows them: cgroups named as systemd names its own, below a slice that is this
//! test's alone. No systemd is needed; one that runs leaves alone what it has not made.

use crate::{DEADLINE, public_dir, wait_until};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A slice of the unified hierarchy (cgroups(7)); it is removed with its units when dropped.
pub struct Slice {
    dir: PathBuf,
    path: String,
    _hierarchy: Hierarchy,
}

/// Where the unified hierarchy is mounted: it was, or this test has done it.
enum Hierarchy {
    There(PathBuf),
    Ours(tempfile::TempDir),
}

/// A cgroup below it that a process can be put into.
#[derive(Clone, Debug)]
pub struct Unit {
    dir: PathBuf,
    path: String,
}

impl Slice {
    /// A slice of a name that nobody has.
    ///
    /// # Panics
    /// Without cgroup v2, or if it may not be written: there are no units then.
    pub fn new() -> Slice {
        let hierarchy = Hierarchy::find();
        // By chance: the hierarchy is the whole machine's, process ids are not.
        let mut builder = tempfile::Builder::new();
        let builder = builder.prefix("assertdtest").suffix(".slice");
        let made = builder.tempdir_in(hierarchy.root());
        let dir = made.unwrap_or_else(|error| panic!("{error}; run as root"));
        let dir = dir.keep();
        Slice {
            path: format!("/{}", dir.file_name().unwrap().display()),
            dir,
            _hierarchy: hierarchy,
        }
    }

    /// Makes the cgroup `below`, which may be several levels.
    pub fn unit(&self, below: &str) -> Unit {
        let dir = self.dir.join(below);
        std::fs::create_dir_all(&dir).unwrap();
        Unit {
            dir,
            path: format!("{}/{below}", self.path),
        }
    }

    /// Its path, as `/proc/PID/cgroup` has it.
    pub fn path(&self) -> &str {
        &self.path
    }
}

impl Default for Slice {
    fn default() -> Slice {
        Slice::new()
    }
}

impl Unit {
    /// The file to write a pid to, or 0 for the writer's own (cgroups(7), cgroup.procs).
    pub fn procs(&self) -> PathBuf {
        self.dir.join("cgroup.procs")
    }

    /// Puts a process into it.
    pub fn take(&self, pid: u32) {
        std::fs::write(self.procs(), pid.to_string())
            .unwrap_or_else(|error| panic!("{pid} into {}: {error}", self.path));
    }

    /// Its path, as `/proc/PID/cgroup` has it.
    pub fn path(&self) -> &str {
        &self.path
    }
}

/// The cgroup a process is in now, by the kernel.
pub fn of(pid: u32) -> String {
    let text = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let unified = text.lines().find_map(|line| line.strip_prefix("0::"));
    unified.expect("cgroup v2 is there").to_owned()
}

impl Hierarchy {
    fn find() -> Hierarchy {
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
        let of_v2 = mounts.lines().find_map(|line| {
            let mut fields = line.split(' ').skip(1);
            let at = fields.next()?;
            (fields.next()? == "cgroup2").then(|| PathBuf::from(at))
        });
        of_v2.map_or_else(Hierarchy::mount, Hierarchy::There)
    }

    fn mount() -> Hierarchy {
        let dir = public_dir();
        let mut mount = Command::new("mount");
        let mount = mount.args(["-t", "cgroup2", "cgroup2"]).arg(dir.path());
        assert!(mount.status().unwrap().success(), "there is no cgroup v2");
        Hierarchy::Ours(dir)
    }

    fn root(&self) -> &Path {
        match self {
            Hierarchy::There(dir) => dir,
            Hierarchy::Ours(dir) => dir.path(),
        }
    }
}

impl Drop for Hierarchy {
    fn drop(&mut self) {
        if let Hierarchy::Ours(dir) = self {
            let _ = Command::new("umount").arg(dir.path()).status(); // or the directory stays
        }
    }
}

impl Drop for Slice {
    /// Processes that are about to end keep their cgroups for a moment.
    fn drop(&mut self) {
        let removed = wait_until(DEADLINE, || remove(&self.dir).is_ok());
        if !removed && !std::thread::panicking() {
            panic!("{}: a process is still in it", self.dir.display());
        }
    }
}

fn remove(dir: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove(&entry.path())?;
        }
    }
    std::fs::remove_dir(dir)
}
