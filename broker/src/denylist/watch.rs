//! The task that reads the lists' files again when they have changed.
//!
//! A change counts once the files have been the same for two looks: a list that is being written line
//! by line, or was emptied to be written anew, lets nobody in meanwhile. What comes into force is
//! recorded first, as a configuration is.

use super::{DenyLists, Files};
use crate::app::App;
use crate::rules;
use keystore::config::Diagnostic;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::timeout;

/// How often the files are looked at. Somebody waits for an entry to hold.
const LOOK: Duration = Duration::from_secs(1);

/// After so many looks a change counts even if the files still change: who keeps writing one keeps no
/// entry from holding.
const UNSETTLED_MAX: u32 = 5;

/// The files, and how they looked when what is in force was read. The lists are among the rules
/// ([`crate::rules`]), for a request goes by both.
#[derive(Debug, Default)]
pub struct Watched {
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    /// When the lists in force were read.
    sight: Sight,
    /// How the files looked the last time, if that is another way, and how often in a row it was.
    changing: Option<(Sight, u32)>,
    /// What is wrong with them now.
    fault: Option<String>,
}

/// Lists as they were read, and how their files looked before that.
#[derive(Debug)]
pub struct Reading {
    /// What they hold.
    pub lists: DenyLists,
    /// As they looked.
    pub sight: Sight,
}

/// Files, and how they look.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sight {
    files: Files,
    stamps: Vec<Stamp>,
}

/// What a look at the files found that is new.
#[derive(Debug)]
pub enum News {
    /// They hold something else. It is not in force yet.
    Changed(Box<Reading>),
    /// They are not what they should be; the lists of before hold.
    Broken(String),
}

/// What changes with a file's content; nothing, if it is not there.
type Stamp = Option<(u64, u64, u64, i64, i64)>;

impl Reading {
    /// Reads these files. Their stamps first: what changes meanwhile is seen by the next look.
    ///
    /// # Errors
    /// As [`Files::read`].
    pub fn of(files: &Files) -> Result<Reading, Diagnostic> {
        let sight = Sight::of(files);
        Ok(Reading {
            lists: files.read()?,
            sight,
        })
    }
}

impl Watched {
    /// What was read at this sight is in force.
    pub fn saw(&self, sight: Sight) {
        *self.seen() = Seen {
            sight,
            ..Seen::default()
        };
    }

    /// What is wrong with the files now: the lists are those of before.
    pub fn fault(&self) -> Option<String> {
        self.seen().fault.clone()
    }

    /// Looks at the files, and reads them if they have changed and settled. What is wrong is said once,
    /// and tried again each time: the name of a user may be found later.
    pub fn look(&self) -> Option<News> {
        let files = self.settled()?;
        let diagnostic = match Reading::of(&files) {
            Ok(reading) => return Some(News::Changed(Box::new(reading))),
            Err(diagnostic) => diagnostic,
        };
        let text = format!("deny lists: the old ones stay in force: {diagnostic}");
        let mut seen = self.seen();
        if seen.sight.files != files || seen.fault.as_ref() == Some(&text) {
            return None; // a reload has replaced them; or it is no news
        }
        seen.fault = Some(text.clone());
        Some(News::Broken(text))
    }

    /// The files, if they have changed and are not being changed.
    fn settled(&self) -> Option<Files> {
        let files = self.seen().sight.files.clone();
        let now = Sight::of(&files); // may be slow, and so without the lock
        let mut seen = self.seen();
        if seen.sight.files != files {
            return None;
        }
        if now == seen.sight {
            (seen.changing, seen.fault) = (None, None); // as they were, or put back
            return None;
        }
        let (before, looks) = seen.changing.take().unwrap_or_default();
        let settled = now == before || looks >= UNSETTLED_MAX;
        let looks = if settled { UNSETTLED_MAX } else { looks + 1 };
        seen.changing = Some((now, looks));
        settled.then_some(files)
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Looks for ever.
pub async fn watch(app: Arc<App>) {
    loop {
        tokio::time::sleep(LOOK).await;
        let looking = app.clone();
        // Files and name services may be slow.
        let looked = tokio::task::spawn_blocking(move || looking.denied.look()).await;
        match looked {
            Ok(Some(News::Changed(reading))) => recorded(&app, *reading).await,
            Ok(Some(News::Broken(text))) => eprintln!("assertd: {text}"),
            Ok(None) | Err(_) => {}
        }
    }
}

/// Puts lists in force once the record of them is durable, in turn with reloads. If it cannot be, the
/// next look tries again; nothing is granted meanwhile, for lack of a record too.
async fn recorded(app: &App, reading: Reading) {
    let Ok(_turn) = timeout(LOOK, app.rules.turn()).await else {
        return; // a reload, which reads them itself
    };
    if app.rules.now().config.deny != reading.sight.files {
        return;
    }
    let record = rules::record(&app.rules.now().config, &reading.lists);
    let durable = match app.audit.configured(record) {
        Ok(durable) => durable.await.is_ok(),
        Err(_unavailable) => false,
    };
    if durable {
        app.denied.saw(reading.sight);
        eprintln!(
            "assertd: deny lists: read again, entries in force: {}",
            reading.lists.len()
        );
        app.rules.replace_lists(reading.lists);
    }
}

impl Sight {
    fn of(files: &Files) -> Sight {
        Sight {
            stamps: files.paths().map(|path| stamp(path)).collect(),
            files: files.clone(),
        }
    }
}

fn stamp(path: &Path) -> Stamp {
    let it = std::fs::metadata(path).ok()?;
    let nanoseconds = it.ctime() * 1_000_000_000 + it.ctime_nsec();
    Some((it.dev(), it.ino(), it.len(), it.mtime(), nanoseconds))
}
