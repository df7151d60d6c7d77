//! Accepts connections and carries them: permits, deadlines, drain. What is asked is `http`'s and
//! `admin`'s business.
//!
//! Limits hold before trust: a connection over the limit is answered with a constant and closed,
//! the peer is asked of the kernel before a byte is read, and every connection has a deadline of
//! its own, because a header timeout never fires for a peer that says nothing (hyper 2457).

use crate::app::App;
use crate::complaints::Complaints;
use crate::peer::{NoPeer, Peer, Proof, Ticks, kernel_proof, nobody_waits};
use crate::reply::{Answer, TOO_MANY_CONNECTIONS};
use crate::{admin, http};
use activity::{Activity, Phase};
use assertd_client::api::{HEAD_LEN_MAX, HEADERS_MAX};
use hyper::body::Incoming;
use hyper::header::{CONNECTION, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit};
use std::collections::HashMap;
use std::convert::Infallible;
use std::future::{pending, poll_fn};
use std::os::fd::AsRawFd;
use std::pin::pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{Interval, MissedTickBehavior};
use watched::Watched;

mod activity;
mod watched;

/// Most connections of workloads: 1,024 of 40 KiB each stay below 64 MiB (reliability §11).
pub const CONNECTIONS_MAX: usize = 1024;

/// Most of them for one uid, so that one user cannot take them all.
pub const CONNECTIONS_PER_UID_MAX: usize = 256;

/// Connections of administrators have their own permits: status answers under any flood.
pub const ADMIN_CONNECTIONS_MAX: usize = 16;

/// How long connections may go on after the daemon was told to stop: a request's deadline and a
/// half.
const DRAIN: Duration = Duration::from_secs(8);

/// Out of descriptors: accept again after this, do not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Where the kernel does not vouch for peers: how often we look whether nobody waits. Whoever is
/// older than this when it connects is told apart at once, for ten wake-ups a second.
const LOOK: Duration = Duration::from_millis(100);

/// How long one who is younger is kept, at most, until a new connection of its would be told apart: ten
/// looks. While others keep connecting none may find the socket quiet.
const YOUNG_WAIT: Duration = Duration::from_secs(1);

/// Descriptors that workloads leave alone: five administrators take 15, reading the configuration two,
/// the audit log and a state file one each while they are exchanged, and a connection that was let in
/// two more.
const DESCRIPTORS_KEPT: u64 = 24;

/// Which socket a connection came in by.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Door {
    /// `assertd.sock`
    Workload,
    /// `admin.sock`
    Admin,
}

/// Serves a listener until `stop` says so, then drains.
pub async fn serve(
    app: Arc<App>,
    listener: UnixListener,
    door: Door,
    mut stop: watch::Receiver<bool>,
) {
    let permits = Arc::new(Semaphore::new(match door {
        Door::Workload => CONNECTIONS_MAX,
        Door::Admin => ADMIN_CONNECTIONS_MAX,
    }));
    let per_uid = Arc::new(PerUid::default());
    let mut connections = JoinSet::new();
    let complaints = Complaints::default();
    let mut quiet = Quiet::new(door);
    if quiet.next_look.is_some() {
        eprintln!(
            "assertd: this kernel has no SO_PEERPIDFD (Linux 6.5): only workloads that say \
             allow_pid_fallback = true are served, the others denied as weak_proof; see \
             `assertctl check`"
        );
    }
    loop {
        quiet.look(&listener);
        let accepted = tokio::select! {
            _ = stop.wait_for(|stop| *stop) => break,
            accepted = listener.accept() => accepted,
            () = quiet.time_to_look() => continue,
        };
        while connections.try_join_next().is_some() {}
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                complaints.say(&not_accepted(&error));
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        if door == Door::Workload && leaves_too_few(&stream) {
            complaints.say(&not_accepted(&"descriptors are short (LimitNOFILE=)"));
            turn_away(&stream, TOO_MANY_CONNECTIONS);
            continue;
        }
        let Ok(permit) = permits.clone().try_acquire_owned() else {
            turn_away(&stream, TOO_MANY_CONNECTIONS);
            continue;
        };
        let caller = match Peer::of(&stream, quiet.since()) {
            Ok(peer) => Caller::Known(Arc::new(peer)),
            Err(NoPeer::Young { uid, started }) => quiet.young(uid, started),
            Err(NoPeer::Gone) => continue,
            Err(error) => {
                complaints.say(&not_accepted(&error));
                if let NoPeer::Failed(_, Errno::EMFILE | Errno::ENFILE) = error {
                    turn_away(&stream, TOO_MANY_CONNECTIONS);
                    tokio::time::sleep(ACCEPT_PAUSE).await; // nothing a caller can bring about alone
                    continue;
                }
                // An answer that comes before the request is no answer to most clients.
                let uid = stream.peer_cred().map_or(NO_UID, |peer| peer.uid());
                Caller::Unknown { uid }
            }
        };
        let Some(share) = per_uid.clone().take(caller.uid()) else {
            turn_away(&stream, TOO_MANY_CONNECTIONS);
            continue;
        };
        let (app, stop) = (app.clone(), stop.clone());
        connections.spawn(async move {
            let _held = (permit, share);
            if door == Door::Workload {
                app.connections.fetch_add(1, Ordering::Relaxed);
            }
            connection(app.clone(), stream, caller, door, stop).await;
            if door == Door::Workload {
                app.connections.fetch_sub(1, Ordering::Relaxed);
            }
        });
    }
    drop(listener);
    let drained = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(DRAIN, drained).await.is_err() {
        eprintln!(
            "assertd: connections did not end within {} s and were cut",
            DRAIN.as_secs()
        );
    }
}

/// Nobody's uid (chown(2)).
const NO_UID: u32 = u32::MAX;

/// Who is at the other end of a connection.
#[derive(Clone)]
enum Caller {
    /// The kernel has said so.
    Known(Arc<Peer>),
    /// One process or another whose number it has. It is told to connect again.
    Young {
        uid: u32,
        started: Ticks,
        quiet: watch::Receiver<Ticks>,
    },
    /// Somebody of this uid whom the kernel does not let us know. It is told that, whatever it asks.
    Unknown { uid: u32 },
}

impl Caller {
    fn uid(&self) -> u32 {
        match self {
            Caller::Known(peer) => peer.uid(),
            Caller::Young { uid, .. } | Caller::Unknown { uid } => *uid,
        }
    }
}

/// When nobody waited to be accepted, for kernels that do not vouch for peers.
struct Quiet {
    since: watch::Sender<Ticks>,
    next_look: Option<Interval>,
}

impl Quiet {
    /// Administrators are told by their uid, which comes with the connection: nobody is too young.
    fn new(door: Door) -> Quiet {
        let (since, next_look) = match (door, kernel_proof()) {
            (Door::Workload, Proof::Pid) => {
                let mut next_look = tokio::time::interval(LOOK);
                next_look.set_missed_tick_behavior(MissedTickBehavior::Delay);
                (Ticks::NEVER, Some(next_look))
            }
            (Door::Workload, Proof::Pidfd) => (Ticks::NEVER, None),
            (Door::Admin, _) => (Ticks::ALWAYS, None),
        };
        let since = watch::Sender::new(since);
        Quiet { since, next_look }
    }

    fn look(&self, listener: &UnixListener) {
        if self.next_look.is_some()
            && let Some(now) = nobody_waits(listener)
        {
            self.since.send_replace(now);
        }
    }

    /// Returns when it is time, which is never where nobody has to look.
    async fn time_to_look(&mut self) {
        match &mut self.next_look {
            Some(interval) => drop(interval.tick().await),
            None => pending().await,
        }
    }

    fn since(&self) -> Ticks {
        *self.since.borrow()
    }

    fn young(&self, uid: u32, started: Ticks) -> Caller {
        Caller::Young {
            uid,
            started,
            quiet: self.since.subscribe(),
        }
    }
}

/// Whether a workload's connection takes what administrators would need. A new descriptor has the lowest
/// number that is free (open(2)), so that all below it are taken.
fn leaves_too_few(stream: &UnixStream) -> bool {
    let taken = u64::try_from(stream.as_raw_fd()).unwrap_or(u64::MAX);
    // Asked each time: prlimit(1) may change it while we run.
    let allowed = getrlimit(Resource::RLIMIT_NOFILE).map_or(u64::MAX, |(soft, _)| soft);
    taken.saturating_add(DESCRIPTORS_KEPT) >= allowed
}

/// What went wrong with accepting, for the log.
fn not_accepted(error: &impl std::fmt::Display) -> String {
    format!("accept: {error}; connections wait or are turned away")
}

/// A constant answer, if the socket takes it at once.
fn turn_away(stream: &UnixStream, answer: &[u8]) {
    let _ = stream.try_write(answer); // a full buffer means nobody reads it
}

/// One connection to its end or its deadline.
async fn connection(
    app: Arc<App>,
    stream: UnixStream,
    caller: Caller,
    door: Door,
    mut stop: watch::Receiver<bool>,
) {
    let activity = Arc::new(Activity::new());
    let io = TokioIo::new(Watched {
        stream,
        caller: caller.clone(),
        activity: activity.clone(),
    });
    let (service_activity, service_stop) = (activity.clone(), stop.clone());
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let (app, caller, activity) = (app.clone(), caller.clone(), service_activity.clone());
        let stop = service_stop.clone();
        async move {
            activity.set(Phase::Busy);
            let (mut answer, is_last): (Answer, bool) = match (caller, door) {
                (Caller::Known(peer), Door::Workload) => {
                    let answer = http::answer(app, peer.clone(), request).await;
                    (answer, peer.is_another())
                }
                (Caller::Known(peer), Door::Admin) => {
                    (admin::answer(app, peer, request).await, false)
                }
                (
                    Caller::Young {
                        started, mut quiet, ..
                    },
                    _,
                ) => {
                    let told_apart = quiet.wait_for(|quiet| started < *quiet);
                    // Told to come back in any case.
                    let _ = tokio::time::timeout(YOUNG_WAIT, told_apart).await;
                    (http::connect_again(&app), true)
                }
                (Caller::Unknown { .. }, _) => (http::nobody_known(&app), true),
            };
            if is_last || *stop.borrow() {
                let close = HeaderValue::from_static("close");
                answer.headers_mut().insert(CONNECTION, close);
            }
            activity.set(Phase::Idle);
            activity.carry(answer.extensions_mut().remove());
            Ok::<_, Infallible>(answer)
        }
    });
    let served = http1::Builder::new()
        .auto_date_header(false) // denials are the same byte for byte
        // socat and others shut their half down once they have asked. And a request that was
        // granted runs to its end, so that the log says whether its caller was gone.
        .half_close(true)
        .header_read_timeout(None) // ours below covers it, and silence too
        .max_buf_size(HEAD_LEN_MAX)
        .max_headers(HEADERS_MAX)
        .serve_connection(io, service);
    let mut served = pin!(served);
    let mut timer = pin!(tokio::time::sleep_until(activity.deadline().into()));
    // Told to shut down, hyper closes a connection on which it has read nothing, though a request
    // may be in the socket: a restart would cut it.
    let mut last_words = pin!(async {
        let _ = stop.wait_for(|stop| *stop).await; // nobody left to tell us means the same
        tokio::time::sleep(activity.last_words()).await;
    });
    let mut stopping = false;
    loop {
        // Each step of a request moves the deadline, and happens while `served` runs: the timer is
        // set anew right after, so that a shorter deadline does not wait for a longer one.
        let expired = poll_fn(|context| {
            let deadline = activity.deadline().into();
            if timer.deadline() != deadline {
                timer.as_mut().reset(deadline);
            }
            timer.as_mut().poll(context)
        });
        tokio::select! {
            biased; // `served` before the deadline that it moves
            _ = &mut served => return, // broken or ended; either way nobody is left to tell
            () = expired => return,
            () = &mut last_words, if !stopping => {
                stopping = true;
                served.as_mut().graceful_shutdown();
            }
        }
    }
}

/// Connections by uid.
#[derive(Default)]
struct PerUid {
    counts: Mutex<HashMap<u32, usize>>,
}

/// One connection of a uid's share; given back when dropped.
struct Share {
    per_uid: Arc<PerUid>,
    uid: u32,
}

impl PerUid {
    fn take(self: Arc<Self>, uid: u32) -> Option<Share> {
        {
            let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
            let count = counts.entry(uid).or_insert(0);
            if *count >= CONNECTIONS_PER_UID_MAX {
                return None;
            }
            *count += 1;
        }
        Some(Share { per_uid: self, uid })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut counts = self
            .per_uid
            .counts
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        match counts.get_mut(&self.uid) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(counts.remove(&self.uid)), // no entry outlives its connections
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uid_has_its_share_and_no_more() {
        let per_uid = Arc::new(PerUid::default());
        let shares: Vec<Share> = (0..CONNECTIONS_PER_UID_MAX)
            .map(|_| per_uid.clone().take(7).unwrap())
            .collect();
        assert!(per_uid.clone().take(7).is_none());
        assert!(per_uid.clone().take(8).is_some());
        drop(shares);
        assert!(per_uid.clone().take(7).is_some());
        assert!(per_uid.counts.lock().unwrap().is_empty());
    }
}
