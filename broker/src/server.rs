//! Accepts connections and carries them: permits, deadlines, drain. What is asked is `http`'s and
//! `admin`'s business.
//!
//! Limits hold before trust: a connection over the limit is answered with a constant and closed,
//! the peer is asked of the kernel before a byte is read, and every connection has a deadline of
//! its own, because a header timeout never fires for a peer that says nothing (hyper 2457).

use crate::app::App;
use crate::peer::{Life, NoPeer, Peer};
use crate::reply::{Answer, NOBODY_KNOWN, TOO_MANY_CONNECTIONS};
use crate::{admin, http};
use assertd_client::api::{HEAD_LEN_MAX, HEADERS_MAX};
use hyper::body::Incoming;
use hyper::header::{CONNECTION, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use nix::errno::Errno;
use std::collections::HashMap;
use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

/// Most connections of workloads: 1,024 of 40 KiB each stay below 64 MiB (reliability §11).
pub const CONNECTIONS_MAX: usize = 1024;

/// Most of them for one uid, so that one user cannot take them all.
pub const CONNECTIONS_PER_UID_MAX: usize = 256;

/// Connections of administrators have their own permits: status answers under any flood.
pub const ADMIN_CONNECTIONS_MAX: usize = 16;

/// How long a connection may be silent between requests.
const IDLE: Duration = Duration::from_secs(30);

/// How long a request's head may take from its first byte.
const HEAD_DEADLINE: Duration = Duration::from_secs(2);

/// How long a whole request may take, body, work and answer: what its parts may take and a second.
const BUSY_DEADLINE: Duration =
    Duration::from_secs(http::BODY_DEADLINE.as_secs() + http::REQUEST_DEADLINE.as_secs() + 1);

/// How long connections may go on after the daemon was told to stop: a request's deadline and a
/// half.
const DRAIN: Duration = Duration::from_secs(8);

/// How long a new connection may take to ask once the daemon was told to stop: it was accepted, so
/// its request is on its way or in the socket already. Who keeps a connection and is silent may have
/// sent one at the same moment, which takes no longer than a message between two processes.
const LAST_WORDS_NEW: Duration = Duration::from_secs(2);
const LAST_WORDS_IDLE: Duration = Duration::from_millis(100);

/// Out of descriptors: accept again after this, do not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

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
    let mut complaints = Complaints::default();
    loop {
        let accepted = tokio::select! {
            _ = stop.wait_for(|stop| *stop) => break,
            accepted = listener.accept() => accepted,
        };
        while connections.try_join_next().is_some() {}
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                complaints.say(&error);
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Ok(permit) = permits.clone().try_acquire_owned() else {
            turn_away(&stream, TOO_MANY_CONNECTIONS);
            continue;
        };
        let peer = match Peer::of(&stream) {
            Ok(peer) => peer,
            Err(NoPeer::Gone) => continue,
            Err(error) => {
                complaints.say(&error);
                if let NoPeer::Failed(_, Errno::EMFILE | Errno::ENFILE) = error {
                    turn_away(&stream, TOO_MANY_CONNECTIONS);
                    tokio::time::sleep(ACCEPT_PAUSE).await; // nothing a caller can bring about alone
                } else {
                    turn_away(&stream, NOBODY_KNOWN);
                }
                continue;
            }
        };
        let Some(share) = per_uid.clone().take(peer.uid()) else {
            turn_away(&stream, TOO_MANY_CONNECTIONS);
            continue;
        };
        let (app, stop) = (app.clone(), stop.clone());
        connections.spawn(async move {
            let _held = (permit, share);
            if door == Door::Workload {
                app.connections.fetch_add(1, Ordering::Relaxed);
            }
            connection(app.clone(), stream, Arc::new(peer), door, stop).await;
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

/// What went wrong with accepting, said once a second at most: whoever connects causes it.
#[derive(Default)]
struct Complaints {
    last: Option<Instant>,
}

impl Complaints {
    fn say(&mut self, error: &impl std::fmt::Display) {
        if self
            .last
            .is_none_or(|last| last.elapsed() > Duration::from_secs(1))
        {
            eprintln!("assertd: accept: {error}; connections wait or are turned away");
            self.last = Some(Instant::now());
        }
    }
}

/// A constant answer, if the socket takes it at once.
fn turn_away(stream: &UnixStream, answer: &[u8]) {
    let _ = stream.try_write(answer); // a full buffer means nobody reads it
}

/// One connection to its end or its deadline.
async fn connection(
    app: Arc<App>,
    stream: UnixStream,
    peer: Arc<Peer>,
    door: Door,
    mut stop: watch::Receiver<bool>,
) {
    let activity = Arc::new(Activity::new());
    let io = TokioIo::new(Watched {
        stream,
        peer: peer.clone(),
        activity: activity.clone(),
    });
    let (service_activity, service_stop) = (activity.clone(), stop.clone());
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let (app, peer, activity) = (app.clone(), peer.clone(), service_activity.clone());
        let stop = service_stop.clone();
        async move {
            activity.set(Phase::Busy);
            let mut answer: Answer = match door {
                Door::Workload => http::answer(app, peer, request).await,
                Door::Admin => admin::answer(app, peer, request).await,
            };
            if *stop.borrow() {
                let close = HeaderValue::from_static("close");
                answer.headers_mut().insert(CONNECTION, close);
            }
            activity.set(Phase::Idle);
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

/// What a connection is at, and since when.
struct Activity {
    at: Mutex<(Phase, Instant)>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    New,
    Idle,
    Head,
    Busy,
}

impl Activity {
    fn new() -> Activity {
        Activity {
            at: Mutex::new((Phase::New, Instant::now())),
        }
    }

    fn set(&self, phase: Phase) {
        *self.at.lock().unwrap_or_else(PoisonError::into_inner) = (phase, Instant::now());
    }

    /// The first byte of a head ends the silence.
    fn note_bytes(&self) {
        let mut at = self.at.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(at.0, Phase::New | Phase::Idle) {
            *at = (Phase::Head, Instant::now());
        }
    }

    fn deadline(&self) -> Instant {
        let (phase, since) = *self.at.lock().unwrap_or_else(PoisonError::into_inner);
        since
            + match phase {
                Phase::New | Phase::Idle => IDLE,
                Phase::Head => HEAD_DEADLINE,
                Phase::Busy => BUSY_DEADLINE,
            }
    }

    /// How long a request may still come when the daemon stops.
    fn last_words(&self) -> Duration {
        match self.at.lock().unwrap_or_else(PoisonError::into_inner).0 {
            Phase::New => LAST_WORDS_NEW,
            Phase::Idle => LAST_WORDS_IDLE,
            Phase::Head | Phase::Busy => Duration::ZERO,
        }
    }
}

/// A stream that notes when bytes arrive, and takes none for a peer that has died: whoever holds its
/// socket now, a child or somebody it was passed to, would read them. An answer may wait here for
/// long, for a peer that does not read.
struct Watched {
    stream: UnixStream,
    peer: Arc<Peer>,
    activity: Arc<Activity>,
}

impl Watched {
    fn for_the_living(&self) -> io::Result<()> {
        match self.peer.life() {
            Life::Running => Ok(()),
            Life::Over => Err(io::ErrorKind::BrokenPipe.into()), // ends the connection
        }
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if buffer.filled().len() > before {
            self.activity.note_bytes();
        }
        read
    }
}

impl AsyncWrite for Watched {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.for_the_living()?;
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.for_the_living()?;
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
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
