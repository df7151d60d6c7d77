//! The lists in force, and the task that reads their files again when they have changed.

use super::{DenyLists, Files};
use crate::app::App;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

/// How often the files are looked at. Somebody waits for an entry to hold.
const LOOK: Duration = Duration::from_secs(1);

/// What the files hold, as last read.
#[derive(Debug, Default)]
pub struct InForce {
    lists: RwLock<Arc<DenyLists>>,
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    files: Files,
    stamps: Vec<Stamp>,
    /// What is wrong with them now.
    fault: Option<String>,
}

/// What changes with a file's content; nothing, if it is not there.
type Stamp = Option<(u64, u64, u64, i64, i64)>;

impl InForce {
    /// These, of these files.
    pub fn new(files: Files, lists: DenyLists) -> InForce {
        let in_force = InForce::default();
        in_force.replace(files, lists);
        in_force
    }

    /// The lists now.
    pub fn now(&self) -> Arc<DenyLists> {
        let lists = self.lists.read().unwrap_or_else(PoisonError::into_inner);
        lists.clone()
    }

    /// Others, of a configuration that comes into force.
    pub fn replace(&self, files: Files, lists: DenyLists) {
        let stamps = stamps(&files);
        let fault = None;
        *self.seen() = Seen {
            files,
            stamps,
            fault,
        };
        *self.lists.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(lists);
    }

    /// What is wrong with the files now: the lists are those of before.
    pub fn fault(&self) -> Option<String> {
        self.seen().fault.clone()
    }

    /// Reads the files again if one has changed. What came of it, if that is news.
    pub fn look(&self) -> Option<String> {
        let (files, before) = {
            let seen = self.seen();
            (seen.files.clone(), seen.stamps.clone())
        };
        let stamps = stamps(&files); // before reading: what changes meanwhile is seen next time
        if stamps == before {
            return None;
        }
        let read = files.read();
        let mut seen = self.seen();
        if seen.files != files {
            return None; // a reload has replaced them
        }
        seen.stamps = stamps;
        match read {
            Ok(lists) => {
                let text = format!("deny lists: read again, {} entries", lists.len());
                seen.fault = None;
                *self.lists.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(lists);
                Some(text)
            }
            Err(diagnostic) => {
                let text = format!("deny lists: the old ones stay in force: {diagnostic}");
                seen.fault = Some(text.clone());
                Some(text)
            }
        }
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Looks for ever.
pub async fn watch(app: Arc<App>) {
    loop {
        tokio::time::sleep(LOOK).await;
        let app = app.clone();
        // Files and name services may be slow.
        let looked = tokio::task::spawn_blocking(move || app.denied.look()).await;
        if let Ok(Some(news)) = looked {
            eprintln!("assertd: {news}");
        }
    }
}

fn stamps(files: &Files) -> Vec<Stamp> {
    files.paths().map(|path| stamp(path)).collect()
}

fn stamp(path: &Path) -> Stamp {
    let it = std::fs::metadata(path).ok()?;
    let nanoseconds = it.ctime() * 1_000_000_000 + it.ctime_nsec();
    Some((it.dev(), it.ino(), it.len(), it.mtime(), nanoseconds))
}
