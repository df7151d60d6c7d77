//! A set-uid program of root's: with it a user gets root's effective and saved uid by execve(2).

use crate::public_dir;
use crate::user::need_root;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use tempfile::TempDir;

/// A Python of root's with the set-uid bit, which every user may run; it is gone when dropped.
pub struct SetuidPython {
    dir: TempDir,
}

impl SetuidPython {
    /// Makes one. On a file system that is mounted `nosuid` it has no effect, which its user sees.
    pub fn new() -> SetuidPython {
        need_root();
        let python = SetuidPython { dir: public_dir() };
        std::fs::copy("/usr/bin/python3", python.path()).unwrap();
        let mode = std::fs::Permissions::from_mode(0o4755);
        std::fs::set_permissions(python.path(), mode).unwrap();
        python
    }

    /// Its path.
    pub fn path(&self) -> PathBuf {
        self.dir.path().join("python3")
    }
}

impl Default for SetuidPython {
    fn default() -> SetuidPython {
        SetuidPython::new()
    }
}
