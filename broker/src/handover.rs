//! Answers on their way to a socket. A key that is stopped has signed some of them a moment before, and
//! whoever stops it is answered when the last of those is with the kernel or was cut off with its
//! connection: from then on nothing that the key signed leaves us.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::oneshot;

/// One answer that carries an assertion. It has been handed over when the last copy of this is dropped.
#[derive(Clone)]
pub struct Handover {
    _until_handed_over: Arc<oneshot::Sender<()>>,
}

/// All of them.
pub struct Handovers {
    /// Those that have begun since somebody last waited.
    current: Mutex<Batch>,
    /// Earlier ones that are not over. One waits at a time: whoever comes later waits for these as well,
    /// also where somebody who waited for them went away.
    earlier: tokio::sync::Mutex<Vec<oneshot::Receiver<()>>>,
}

/// Handovers that end together, for whoever waits for them.
struct Batch {
    handover: Handover,
    over: oneshot::Receiver<()>,
}

impl Batch {
    fn new() -> Batch {
        let (until_handed_over, over) = oneshot::channel();
        let _until_handed_over = Arc::new(until_handed_over);
        let handover = Handover { _until_handed_over };
        Batch { handover, over }
    }
}

impl Default for Handovers {
    fn default() -> Handovers {
        Handovers {
            current: Mutex::new(Batch::new()),
            earlier: tokio::sync::Mutex::default(),
        }
    }
}

impl Handovers {
    /// One begins. To be called before it is looked whether the key may sign: whoever stops the key
    /// after that look waits for this.
    pub fn begin(&self) -> Handover {
        self.lock().handover.clone()
    }

    /// Waits until all that have begun are over. A connection's deadline bounds it.
    pub async fn over(&self) {
        let mut earlier = self.earlier.lock().await;
        let Batch { handover, over } = std::mem::replace(&mut *self.lock(), Batch::new());
        drop(handover);
        earlier.push(over);
        while let Some(over) = earlier.last_mut() {
            let _ = over.await; // it is never sent to: its sender goes with the last handover
            drop(earlier.pop());
        }
    }

    fn lock(&self) -> MutexGuard<'_, Batch> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use tokio::time::timeout;

    const SOON: Duration = Duration::from_millis(50);

    #[tokio::test]
    async fn whoever_waits_waits_for_what_began_before_and_not_after() {
        let handovers = Arc::new(Handovers::default());
        handovers.over().await;
        let first = handovers.begin();
        let copy = first.clone();
        let waits = tokio::spawn({
            let handovers = handovers.clone();
            async move { handovers.over().await }
        });
        tokio::time::sleep(SOON).await;
        let later = handovers.begin();
        drop(first);
        tokio::time::sleep(SOON).await;
        assert!(!waits.is_finished(), "a copy of it is not handed over");
        drop(copy);
        timeout(SOON * 100, waits).await.expect("it ends").unwrap();
        drop(later);
    }

    #[tokio::test]
    async fn what_somebody_stopped_waiting_for_is_waited_for_by_the_next() {
        let handovers = Handovers::default();
        let first = handovers.begin();
        assert!(timeout(SOON, handovers.over()).await.is_err());
        let later = handovers.begin();
        for handover in [later, first] {
            assert!(timeout(SOON, handovers.over()).await.is_err());
            drop(handover);
        }
        timeout(SOON * 100, handovers.over())
            .await
            .expect("it ends");
    }

    #[tokio::test]
    async fn the_second_who_waits_waits_for_what_the_first_waits_for() {
        let handovers = Arc::new(Handovers::default());
        let first = handovers.begin();
        let wait = || {
            let handovers = handovers.clone();
            tokio::spawn(async move { handovers.over().await })
        };
        let one = wait();
        tokio::time::sleep(SOON).await;
        let two = wait();
        tokio::time::sleep(SOON).await;
        assert!(!one.is_finished() && !two.is_finished());
        drop(first);
        for wait in [one, two] {
            timeout(SOON * 100, wait).await.expect("it ends").unwrap();
        }
    }
}
