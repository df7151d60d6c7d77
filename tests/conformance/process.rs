//! A test in a process of its own, with the environment its token needs: a PKCS#11 module reads its
//! environment when it is initialised, and is initialised once per process.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Where the child finds its token, and so how it knows that it is the child.
const DIRECTORY: &str = "CONFORMANCE_DIRECTORY";

/// Variables of a process.
pub type Environment = Vec<(String, PathBuf)>;

/// What a child says, and when it is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown {
    /// If it fails.
    OnFailure,
    /// At once: somebody watches.
    Live,
}

/// Runs `body` in a process of its own. `test` is the path of the calling test: that is what is
/// started again. `prepare` fills the directory that `body` gets, and says which environment.
pub fn in_own_process(
    test: &str,
    shown: Shown,
    prepare: impl FnOnce(&Path) -> Environment,
    body: impl FnOnce(&Path),
) {
    let (_crate, test) = test.split_once("::").expect("a test is in a crate");
    let finished = |directory: &Path| directory.join("finished");
    if let Some(directory) = std::env::var_os(DIRECTORY).map(PathBuf::from) {
        body(&directory);
        std::fs::write(finished(&directory), test).unwrap();
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let environment = prepare(directory.path());
    let mut child = Command::new(std::env::current_exe().unwrap());
    child
        .args([test, "--exact", "--nocapture", "--include-ignored"])
        .arg("--test-threads=1")
        .env(DIRECTORY, directory.path())
        .envs(environment);
    if shown == Shown::Live {
        child.stdout(Stdio::inherit()).stderr(Stdio::inherit());
    }
    let output = child.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(
        output.status.success(),
        "{}\n{}{}",
        output.status,
        text(&output.stdout),
        text(&output.stderr)
    );
    // A misspelt name would run nothing, successfully.
    assert_eq!(
        std::fs::read_to_string(finished(directory.path())).unwrap_or_default(),
        test
    );
}
