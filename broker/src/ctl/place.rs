//! A file that a command was told to write: whole or not at all.

use super::failure::{Exit, Failure};
use crate::publication::tree::Dir;
use std::path::Path;

/// Writes it, in place of one that is there.
///
/// # Errors
/// `Usage` if the path names no file; `Refused` with what the file system says.
pub fn put(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let wrong = |why: &str| Failure::new(Exit::Usage, format!("{}: {why}", path.display()));
    let name = path.file_name().and_then(|name| name.to_str());
    let name = name.ok_or_else(|| wrong("names no file"))?;
    let parent = path.parent().filter(|it| !it.as_os_str().is_empty());
    let dir = Dir::open(parent.unwrap_or(Path::new(".")));
    let written = dir.and_then(|dir| dir.replace(name, bytes));
    written.map_err(|error| Failure::new(Exit::Refused, error.to_string()))
}
