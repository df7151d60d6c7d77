//! Evidence for somebody far away, asked of the keystores: one statement after the other, each in its turn
//! among the workloads' signatures and with a rest after it, so that fifty keys are no load that anybody
//! feels. One bundle is made at a time, behind the request that wants it, which asks again until it is
//! there. Nothing is judged here: that is the verifier's.

mod gather;

use crate::app::App;
use assertd_client::api::AttestRequest;
pub use gather::{Asked, Wanted};
use keystore::Error;
use keystore::evidence::bundle::{Host, KeystoreEvidence};
use serde::{Serialize, Serializer};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// How long a request waits for its bundle before it is told to ask again: less than a request may take.
const WAIT: Duration = Duration::from_secs(3);

/// Who has not asked again for so long has gone, and another may have its own made.
const ABANDONED: Duration = Duration::from_secs(15);

/// What came of it.
#[derive(Clone, Debug, Serialize)]
pub struct Gathered {
    /// What this host is called in what was signed.
    pub host: Host,
    /// What its keystores say.
    pub keystores: Vec<KeystoreEvidence>,
    /// What is not among it.
    pub left_out: Vec<LeftOut>,
}

/// A key, or a keystore's quote, that is not in the bundle.
#[derive(Clone, Debug, Serialize)]
pub struct LeftOut {
    /// It.
    pub what: String,
    /// Why.
    pub why: String,
}

/// What a request is answered with.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// Ask again.
    Running {
        /// Keys that were asked about.
        done: usize,
        /// Of so many.
        of: usize,
    },
    /// It is there.
    Done(#[serde(serialize_with = "behind")] Arc<Gathered>),
}

fn behind<S: Serializer>(gathered: &Arc<Gathered>, serializer: S) -> Result<S::Ok, S::Error> {
    gathered.as_ref().serialize(serializer)
}

/// Why there is no answer.
pub enum NotNow {
    /// Another one is being made.
    Busy,
    /// It failed.
    Failed(Error),
}

/// Where bundles are made.
#[derive(Default)]
pub struct Workshop {
    work: Mutex<Option<Work>>,
}

/// One that is being made, or was, for who asked in these words.
struct Work {
    request: AttestRequest,
    progress: Arc<Progress>,
    result: watch::Receiver<Option<Result<Arc<Gathered>, Arc<Error>>>>,
    task: JoinHandle<()>,
    asked: Instant,
}

impl Drop for Work {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// How far it is.
#[derive(Default)]
pub struct Progress {
    done: AtomicUsize,
    of: AtomicUsize,
}

impl Progress {
    fn begin(&self, of: usize) {
        self.of.store(of, Ordering::Relaxed);
    }

    fn step(&self) {
        self.done.fetch_add(1, Ordering::Relaxed);
    }

    fn answer(&self) -> Answer {
        Answer::Running {
            done: self.done.load(Ordering::Relaxed),
            of: self.of.load(Ordering::Relaxed),
        }
    }
}

impl Workshop {
    /// The bundle that somebody asked for in these words; it is begun if it is not being made.
    pub async fn ask(
        &self,
        app: &Arc<App>,
        request: AttestRequest,
        asked: impl FnOnce() -> Asked,
    ) -> Result<Answer, NotNow> {
        let (progress, mut result) = {
            let mut place = self.lock();
            let is_over =
                |work: &Work| work.asked.elapsed() > ABANDONED || work.result.borrow().is_some();
            match &mut *place {
                Some(work) if work.request == request => {
                    work.asked = Instant::now();
                    (work.progress.clone(), work.result.clone())
                }
                Some(work) if !is_over(work) => return Err(NotNow::Busy),
                _ => {
                    let work = begin(app, request.clone(), asked());
                    let both = (work.progress.clone(), work.result.clone());
                    *place = Some(work); // what was there ends
                    both
                }
            }
        };
        let done = tokio::time::timeout(WAIT, result.wait_for(Option::is_some)).await;
        let done = match done {
            Err(_) => return Ok(progress.answer()),
            Ok(Ok(done)) => done.clone(),
            Ok(Err(_)) => None,
        };
        // Handed out once: the next to ask in these words gets it anew.
        self.lock().take_if(|work| work.request == request);
        match done {
            Some(Ok(gathered)) => Ok(Answer::Done(gathered)),
            Some(Err(error)) => Err(NotNow::Failed(Error::new(error.kind(), error.to_string()))),
            None => Err(NotNow::Busy), // another took its place a moment ago
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Work>> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn begin(app: &Arc<App>, request: AttestRequest, asked: Asked) -> Work {
    let progress = Arc::new(Progress::default());
    let (tell, result) = watch::channel(None);
    let (app, its_progress) = (app.clone(), progress.clone());
    let task = tokio::spawn(async move {
        let gathered = gather::gather(&app, &asked, &its_progress).await;
        let _ = tell.send(Some(gathered.map(Arc::new).map_err(Arc::new))); // who asked may have gone
    });
    Work {
        request,
        progress,
        result,
        task,
        asked: Instant::now(),
    }
}
