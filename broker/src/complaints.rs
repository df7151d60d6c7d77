//! What goes wrong because of whoever asks, said in the log once a second at most: nobody fills it.

use std::fmt::Display;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Between two of one kind.
const PAUSE: Duration = Duration::from_secs(1);

/// Those of one kind.
#[derive(Debug, Default)]
pub struct Complaints {
    last: Mutex<Option<Instant>>,
}

impl Complaints {
    /// Says it, unless another was said just before.
    pub fn say(&self, what: &impl Display) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.is_none_or(|last| last.elapsed() > PAUSE) {
            eprintln!("assertd: {what}");
            *last = Some(Instant::now());
        }
    }
}
