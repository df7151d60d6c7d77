//! Loads the vendor's module and initialises it. Whoever can write the file, or any directory on
//! the way to it, runs code where the PIN is: such a path is refused (CVE-2016-10009 and its
//! children: the library was the attacker's). The path comes from the configuration alone.

use crate::errors::explain;
use crate::sys;
use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::{Error as Pkcs11Error, RvError};
use keystore::trail::{self, Step};
use keystore::{Error, Kind};
use std::ffi::CString;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Whether this call initialised the module, and so may finalise it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Initialized {
    /// We did.
    Now,
    /// Somebody in this process had before.
    Before,
}

/// A module that is loaded and initialised.
pub struct Module {
    /// The binding's handle; clones share it.
    pub context: Pkcs11,
    /// Where it was loaded from, links resolved.
    pub path: PathBuf,
    initialized: Initialized,
}

impl Module {
    /// Loads and initialises the module at `path`, with `init_args` behind pReserved.
    ///
    /// # Errors
    /// `Refused` for a path that others can write, `Absent` if the module is not there,
    /// `Unavailable` if it does not start, `Unsupported` if it is no PKCS#11 module or cannot be called from threads.
    pub fn load(path: &Path, init_args: Option<&str>) -> Result<Module, Error> {
        let path = trusted_path(path, nix::unistd::geteuid().as_raw())?;
        let place = format!("module {}", path.display());
        let context = Pkcs11::new(&path).map_err(|error| not_loaded(&place, &error))?;
        let flags = CInitializeFlags::OS_LOCKING_OK;
        let args = match init_args {
            None => CInitializeArgs::new(flags),
            Some(text) => sys::initialize_args(
                flags,
                CString::new(text).map_err(|_| {
                    let text = format!("{place}: `init_args` has a NUL character; remove it");
                    Error::new(Kind::Refused, text)
                })?,
            ),
        };
        let initialized = match context.initialize(args) {
            Ok(()) => Initialized::Now,
            Err(Pkcs11Error::Pkcs11(RvError::CryptokiAlreadyInitialized, _)) => Initialized::Before,
            Err(error @ Pkcs11Error::Pkcs11(RvError::GeneralError, _)) => {
                let doing = "initialising (a missing or wrong configuration file of the module \
                             looks like this, or a directory it writes to that `module_state` \
                             does not name; see also `environment` and `init_args`)";
                return Err(explain(&place, doing, &error));
            }
            Err(error) => return Err(explain(&place, "initialising", &error)),
        };
        Ok(Module {
            context,
            path,
            initialized,
        })
    }

    /// Undoes the initialisation after a failed start, because modules look for tokens when they
    /// are initialised: without this a token that is plugged in later stays unseen.
    pub fn give_up(self) {
        if self.initialized == Initialized::Now {
            let _ = self.context.finalize(); // nothing is left that could depend on it
        }
    }
}

fn not_loaded(place: &str, error: &Pkcs11Error) -> Error {
    let (kind, remedy) = match error {
        Pkcs11Error::MissingSymbol(_) => (Kind::Unsupported, "this is no PKCS#11 module"),
        _ => (
            Kind::Unavailable,
            "check that it and the libraries it needs are installed",
        ),
    };
    Error::new(
        kind,
        format!("{place}: cannot be loaded ({error}); {remedy}"),
    )
}

/// The path with links resolved, if nobody but root and `own_uid` can change what is there.
fn trusted_path(path: &Path, own_uid: u32) -> Result<PathBuf, Error> {
    let refuse = |kind, text: &str| {
        Err(Error::new(
            kind,
            format!("module {}: {text}", path.display()),
        ))
    };
    if !path.is_absolute() {
        return refuse(Kind::Refused, "write its absolute path");
    }
    let trail = match trail::follow(path) {
        Ok(trail) => trail,
        Err(error) => {
            return refuse(
                Kind::Absent,
                &format!("not found ({error}); install it or correct the path"),
            );
        }
    };
    // Every directory and every link on the way decides what is loaded.
    for Step { path, metadata } in &trail.steps {
        let what = What::of(metadata);
        let verdict = judge(what, metadata.uid(), metadata.mode(), own_uid);
        if let Trust::Refused(why) = verdict {
            let step = path.display();
            let remedy = match what {
                What::Link => format!("chown -h root {step}"),
                What::Directory | What::File => format!("chown root {step} && chmod go-w {step}"),
            };
            return refuse(Kind::Refused, &format!("{step} {why}; run: {remedy}"));
        }
    }
    if !trail.real.is_file() {
        return refuse(Kind::Refused, "is no regular file");
    }
    Ok(trail.real)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Directory,
    Link,
    File,
}

impl What {
    fn of(metadata: &Metadata) -> What {
        if metadata.is_dir() {
            What::Directory
        } else if metadata.is_symlink() {
            What::Link
        } else {
            What::File
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trust {
    Trusted,
    Refused(&'static str),
}

/// In a directory with the sticky bit others can add files, but not replace ours (inode(7)). A link
/// has no mode of its own (symlink(7)).
fn judge(what: What, owner: u32, mode: u32, own_uid: u32) -> Trust {
    let harmless = match what {
        What::Directory => mode & 0o1000 != 0,
        What::Link => true,
        What::File => false,
    };
    if owner != 0 && owner != own_uid {
        Trust::Refused("belongs to another user")
    } else if mode & 0o022 != 0 && !harmless {
        Trust::Refused("can be written by others")
    } else {
        Trust::Trusted
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn own() -> u32 {
        nix::unistd::geteuid().as_raw()
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "the test makes the files it is about"
    )]
    fn chmod(path: &Path, mode: u32) {
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    fn module_in(dir: &Path) -> PathBuf {
        let path = dir.join("module.so");
        fs::OpenOptions::new()
            .create(true)
            .write(true)
            .truncate(true)
            .open(&path)
            .unwrap();
        chmod(&path, 0o644);
        path
    }

    #[test]
    fn module_path_must_be_root_owned_and_not_writable() {
        assert_eq!(judge(What::File, 0, 0o100_644, 990), Trust::Trusted);
        assert_eq!(judge(What::File, 990, 0o100_644, 990), Trust::Trusted);
        assert_eq!(judge(What::Directory, 0, 0o041_777, 990), Trust::Trusted);
        assert_eq!(judge(What::Link, 0, 0o120_777, 990), Trust::Trusted);
        for (what, owner, mode) in [
            (What::File, 991, 0o100_644),
            (What::Directory, 991, 0o040_755),
            (What::Link, 991, 0o120_777),
            (What::File, 0, 0o100_664),
            (What::File, 0, 0o100_646),
            (What::Directory, 0, 0o040_775),
            (What::File, 0, 0o101_666), // the sticky bit of a file means nothing
        ] {
            assert_ne!(
                judge(what, owner, mode, 990),
                Trust::Trusted,
                "{owner} {mode:o}"
            );
        }
    }

    #[test]
    fn a_module_in_a_writable_directory_is_refused_with_the_remedy() {
        let dir = tempfile::tempdir().unwrap();
        let path = module_in(dir.path());
        assert_eq!(
            trusted_path(&path, own()).unwrap(),
            path.canonicalize().unwrap()
        );
        chmod(dir.path(), 0o777);
        let error = trusted_path(&path, own()).unwrap_err();
        assert_eq!(error.kind(), Kind::Refused);
        assert!(error.to_string().contains("chmod go-w"), "{error}");
    }

    #[test]
    fn a_link_is_judged_by_both_ends() {
        let (open, closed) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let path = module_in(closed.path());
        let link = open.path().join("link.so");
        symlink(&path, &link).unwrap();
        assert!(trusted_path(&link, own()).is_ok());
        chmod(open.path(), 0o777);
        assert_eq!(
            trusted_path(&link, own()).unwrap_err().kind(),
            Kind::Refused
        );
        chmod(open.path(), 0o755);
        chmod(&path, 0o666);
        assert_eq!(
            trusted_path(&link, own()).unwrap_err().kind(),
            Kind::Refused
        );
    }

    #[test]
    fn the_directory_of_a_link_in_the_middle_is_judged_too() {
        let dirs: Vec<_> = (0..3).map(|_| tempfile::tempdir().unwrap()).collect();
        let path = module_in(dirs[2].path());
        let (first, middle) = (dirs[0].path().join("first"), dirs[1].path().join("middle"));
        symlink(&middle, &first).unwrap();
        symlink(&path, &middle).unwrap();
        let real = path.canonicalize().unwrap();
        assert_eq!(trusted_path(&first, own()).unwrap(), real);
        chmod(dirs[1].path(), 0o777);
        let error = trusted_path(&first, own()).unwrap_err();
        assert_eq!(error.kind(), Kind::Refused);
        let named = dirs[1].path().display().to_string();
        assert!(error.to_string().contains(&named), "{error}");
    }

    #[test]
    fn a_relative_path_is_refused_and_a_missing_one_may_come_later() {
        let error = trusted_path(Path::new("libsofthsm2.so"), own()).unwrap_err();
        assert_eq!(error.kind(), Kind::Refused);
        let dir = tempfile::tempdir().unwrap();
        let error = trusted_path(&dir.path().join("none.so"), own()).unwrap_err();
        assert_eq!(error.kind(), Kind::Absent);
    }
}
