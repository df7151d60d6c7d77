//! The way that the kernel goes from `/` to a file, step by step (path_resolution(7)): every
//! directory it goes through and every link it follows, also those in the middle of the path and
//! those that links lead to. Whoever can change one of them decides what is found at its end, so
//! that all of them are judged before a file is believed. Judges nothing itself.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs::{self, Metadata};
use std::io::{Error, ErrorKind, Result};
use std::path::{Component, Path, PathBuf};

/// Most links that are followed, as by the kernel (path_resolution(7), MAXSYMLINKS).
const LINKS_MAX: usize = 40;

/// A directory or link on the way, or the end.
#[derive(Clone, Debug)]
pub struct Step {
    /// Where it is; no part of this path is a link but, if this is one, the last.
    pub path: PathBuf,
    /// What it is itself: a link is not followed.
    pub metadata: Metadata,
}

/// The way to a file.
#[derive(Clone, Debug)]
pub struct Trail {
    /// In the order of going, each once; `/` is the first, what is found the last.
    pub steps: Vec<Step>,
    /// What is found, without links.
    pub real: PathBuf,
}

/// Goes from `/` to what is at `path`.
///
/// # Errors
/// `InvalidInput` for a relative path; as the kernel if there is no such file, something on the way
/// is no directory or may not be searched, or there are more than 40 links.
pub fn follow(path: &Path) -> Result<Trail> {
    if !path.is_absolute() {
        return Err(Error::new(ErrorKind::InvalidInput, "no absolute path"));
    }
    let root = Step::at(PathBuf::from("/"))?;
    let mut here = root.path.clone();
    let mut steps = vec![root];
    let mut ahead: VecDeque<OsString> = names(path).collect();
    let mut links = 0;
    while let Some(name) = ahead.pop_front() {
        if name == ".." {
            here.pop(); // no part of it is a link; above `/` there is `/`
            continue;
        }
        let step = Step::at(here.join(name))?;
        if step.metadata.is_symlink() {
            links += 1;
            if links > LINKS_MAX {
                return Err(Error::other("more than 40 links on the way"));
            }
            let target = fs::read_link(&step.path)?;
            if target.is_absolute() {
                here = PathBuf::from("/");
            }
            ahead = names(&target).chain(ahead).collect();
        } else if !step.metadata.is_dir() && !ahead.is_empty() {
            return Err(Error::from(ErrorKind::NotADirectory));
        } else {
            here.clone_from(&step.path);
        }
        if !steps.iter().any(|before| before.path == step.path) {
            steps.push(step);
        }
    }
    // What is found may have been gone through already, as by `/a/b/..`.
    let end = steps.iter().position(|step| step.path == here);
    if let Some(end) = end {
        let end = steps.remove(end);
        steps.push(end);
    }
    Ok(Trail { steps, real: here })
}

impl Step {
    fn at(path: PathBuf) -> Result<Step> {
        let metadata = fs::symlink_metadata(&path)?;
        Ok(Step { path, metadata })
    }
}

/// The parts of a path that lead somewhere: names and `..`.
fn names(path: &Path) -> impl Iterator<Item = OsString> + use<> {
    let names: Vec<OsString> = path
        .components()
        .filter(|part| matches!(part, Component::Normal(_) | Component::ParentDir))
        .map(|part| part.as_os_str().to_owned())
        .collect();
    names.into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    /// A directory without links in its path, and in it `a`, `b` and `c`, in which there is `file`.
    fn site() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().canonicalize().unwrap();
        for name in ["a", "b", "c"] {
            fs::create_dir(path.join(name)).unwrap();
        }
        let mut file = fs::OpenOptions::new();
        file.create_new(true).write(true);
        file.open(path.join("c/file")).unwrap();
        (dir, path)
    }

    /// What is stepped on below the site, and what is found.
    fn below(site: &Path, path: &str) -> (Vec<String>, String) {
        let trail = follow(&site.join(path)).unwrap();
        let shown = |path: &Path| path.strip_prefix(site).unwrap().display().to_string();
        let steps = trail.steps.iter().map(|step| step.path.as_path());
        let steps = steps.filter(|path| path.starts_with(site) && *path != site);
        (steps.map(shown).collect(), shown(&trail.real))
    }

    #[test]
    fn every_directory_is_on_the_way_and_the_file_is_last() {
        let (_keep, dir) = site();
        let trail = follow(&dir.join("c/file")).unwrap();
        let paths: Vec<&Path> = trail.steps.iter().map(|step| step.path.as_path()).collect();
        let mut expected: Vec<&Path> = trail.real.ancestors().collect();
        expected.reverse();
        assert_eq!(paths, expected);
        assert_eq!(trail.real, dir.join("c/file"));
    }

    #[test]
    fn a_link_in_the_middle_of_a_chain_is_on_the_way_with_its_directory() {
        let (_keep, dir) = site();
        symlink(dir.join("b/middle"), dir.join("a/first")).unwrap();
        symlink("../c/file", dir.join("b/middle")).unwrap();
        let (steps, real) = below(&dir, "a/first");
        assert_eq!(steps, ["a", "a/first", "b", "b/middle", "c", "c/file"]);
        assert_eq!(real, "c/file");
    }

    #[test]
    fn a_directory_that_is_a_link_is_on_the_way_too() {
        let (_keep, dir) = site();
        symlink("b", dir.join("link")).unwrap();
        symlink(dir.join("c"), dir.join("b/dir")).unwrap();
        let (steps, real) = below(&dir, "link/dir/file");
        assert_eq!(steps, ["link", "b", "b/dir", "c", "c/file"]);
        assert_eq!(real, "c/file");
    }

    #[test]
    fn the_parent_of_a_link_is_where_it_leads() {
        let (_keep, dir) = site();
        fs::create_dir(dir.join("c/deep")).unwrap();
        symlink(dir.join("c/deep"), dir.join("a/link")).unwrap();
        let (steps, real) = below(&dir, "a/link/../file");
        assert_eq!(steps, ["a", "a/link", "c", "c/deep", "c/file"]);
        assert_eq!(real, "c/file");
        // The end stands last, though it was gone through.
        let (steps, real) = below(&dir, "c/deep/..");
        assert_eq!(steps, ["c/deep", "c"]);
        assert_eq!(real, "c");
    }

    #[test]
    fn what_the_kernel_finds_is_what_is_found() {
        let (_keep, dir) = site();
        symlink("../../../../../../../../../../../..", dir.join("a/top")).unwrap();
        symlink("../c", dir.join("a/c")).unwrap();
        for path in [
            "a/top",
            "a/top/etc",
            "a/c/./file",
            "a//c/../c/file",
            "a/../b/",
        ] {
            let path = dir.join(path);
            assert_eq!(follow(&path).unwrap().real, path.canonicalize().unwrap());
        }
    }

    #[test]
    fn a_trail_ends_at_forty_links_and_at_what_is_no_directory() {
        let (_keep, dir) = site();
        symlink(dir.join("c/file"), dir.join("0")).unwrap();
        for n in 1..=LINKS_MAX {
            symlink(dir.join(format!("{}", n - 1)), dir.join(format!("{n}"))).unwrap();
        }
        let last = follow(&dir.join(format!("{}", LINKS_MAX - 1))).unwrap();
        assert_eq!(last.real, dir.join("c/file"));
        assert!(follow(&dir.join(format!("{LINKS_MAX}"))).is_err());
        symlink("loop", dir.join("loop")).unwrap();
        assert!(follow(&dir.join("loop")).is_err());
        let kind = |path: &Path| follow(path).unwrap_err().kind();
        assert_eq!(kind(&dir.join("c/file/x")), ErrorKind::NotADirectory);
        assert_eq!(kind(&dir.join("none")), ErrorKind::NotFound);
        assert_eq!(kind(Path::new("c/file")), ErrorKind::InvalidInput);
    }
}
