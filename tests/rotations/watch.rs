//! When each key came into the published documents, by looking at the files all the time. It opens nothing for
//! writing and asks nobody.

use crate::board::{Board, boot_ms};
use crate::keys::KEYS;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

const EVERY: Duration = Duration::from_millis(10);

/// Looks until the runtime ends.
pub fn start(directory: &Path, board: Arc<Board>) {
    let files: Vec<PathBuf> = KEYS.iter().map(|key| directory.join(key.file())).collect();
    tokio::spawn(async move {
        let mut known = vec![None; files.len()];
        loop {
            for (file, known) in files.iter().zip(&mut known) {
                // A file is replaced whole: another one has another number, or was changed at another time.
                let now_ms = boot_ms();
                let Ok(found) = std::fs::metadata(file) else {
                    continue;
                };
                let which = (found.ino(), found.ctime(), found.ctime_nsec());
                if *known != Some(which)
                    && let Ok(text) = std::fs::read(file)
                {
                    board.published(&text, now_ms);
                    *known = Some(which);
                }
            }
            tokio::time::sleep(EVERY).await;
        }
    });
}
