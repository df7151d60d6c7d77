//! Reading a file that others wrote: whole, within a limit, and nothing but a file. A pipe would have whoever
//! reads wait for its writer, and a device is as long as it likes.

use crate::config::reason;
use nix::libc::O_NONBLOCK;
use std::fs::{Metadata, OpenOptions};
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// What is in it, and what it was when it was read.
///
/// # Errors
/// Why not, as the end of a sentence that begins with the file.
pub fn read(path: &Path, most: usize) -> Result<(Vec<u8>, Metadata), String> {
    let failed = |error: std::io::Error| format!("cannot be read: {}", reason(&error));
    let mut options = OpenOptions::new();
    let file = options.read(true).custom_flags(O_NONBLOCK).open(path);
    let file = file.map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    if !metadata.is_file() {
        return Err("is no file".to_owned());
    }
    // At once, so that of a secret no copy is left where it has grown out of.
    let length = usize::try_from(metadata.len()).unwrap_or(most).min(most);
    let mut bytes = Vec::with_capacity(length + 1);
    let limited = file.take(most as u64 + 1).read_to_end(&mut bytes);
    limited.map_err(failed)?;
    match bytes.len() <= most {
        true => Ok((bytes, metadata)),
        false => Err(format!("is longer than {most} bytes")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_up_to_its_limit_and_nothing_else_is() {
        let tmp = tempfile::tempdir().unwrap();
        let (file, pipe) = (tmp.path().join("file"), tmp.path().join("pipe"));
        let mut options = OpenOptions::new();
        let mut written = options.create_new(true).write(true).open(&file).unwrap();
        std::io::Write::write_all(&mut written, b"12345").unwrap();
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert_eq!(read(&file, 5).unwrap().0, b"12345");
        let wrong = |path: &Path, most| read(path, most).unwrap_err();
        assert_eq!(wrong(&file, 4), "is longer than 4 bytes");
        assert_eq!(wrong(&pipe, 5), "is no file");
        assert_eq!(wrong(tmp.path(), 5), "is no file");
        assert!(wrong(&tmp.path().join("none"), 5).starts_with("cannot be read: No such file"));
    }
}
