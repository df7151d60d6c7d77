//! assertd at work: both doors open, the watchdog fed, reload by signal, and the drain at the end. What
//! is asked is `server`'s; what is made at start is `daemon`'s.

use crate::app::App;
use crate::denylist;
use crate::id::random;
use crate::keeper;
use crate::listen::Listeners;
use crate::notify::notify;
use crate::rules;
use crate::server::{self, Door};
use sd_notify::NotifyState;
use std::io;
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

/// The audit writer is taken to hang when it makes no progress for so long, however short the
/// watchdog's time is: without work it shows itself once a second, and may miss that twice.
const WRITER_SILENCE: Duration = Duration::from_secs(3);

/// How often the clock is looked at: what it shows for less is seen by those who mint meanwhile.
const CLOCK_LOOK: Duration = Duration::from_secs(1);

/// Why assertd ends by itself.
pub enum Ended {
    /// A signal or a socket cannot be listened to.
    NoListener(io::Error),
    /// Its records are older than it has once written them.
    OldRecords(String),
}

impl From<io::Error> for Ended {
    fn from(error: io::Error) -> Ended {
        Ended::NoListener(error)
    }
}

/// Serves until told to stop, then drains.
///
/// # Errors
/// If it has to end before it is told to.
pub async fn serve(app: Arc<App>, listeners: Listeners) -> Result<(), Ended> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let hangup = signal(SignalKind::hangup())?;
    let tokio_listener = |listener: UnixListener| {
        listener.set_nonblocking(true)?;
        tokio::net::UnixListener::from_std(listener)
    };
    let (stop, stopping) = watch::channel(false);
    let workload = tokio_listener(listeners.workload)?;
    let admin = tokio_listener(listeners.admin)?;
    // The first random number of a process takes aws-lc a tenth of a second (it times the processor for
    // entropy): made while keystores are waited for, and not while the first caller is.
    drop(tokio::task::spawn_blocking(random::<1>));
    for keystore in app.keystores.values() {
        keystore.start();
    }
    for name in app.keystores.keys() {
        tokio::spawn(keeper::run(app.clone(), name.clone()));
    }
    tokio::spawn(keeper::gate::run(app.clone()));
    tokio::spawn(keeper::canary::run(app.clone()));
    // Both answer from the first moment. A request for a keystore that has not answered yet waits for
    // it, so that over a restart it takes longer and is not refused; others do not wait.
    let admin = server::serve(app.clone(), admin, Door::Admin, stopping.clone());
    let workload = server::serve(app.clone(), workload, Door::Workload, stopping.clone());
    let doors = [tokio::spawn(admin), tokio::spawn(workload)];
    tokio::spawn(say_when_ready(app.clone(), stopping.clone()));
    tokio::spawn(reload_by_signal(app.clone(), hangup, stopping));
    tokio::spawn(watch_clock(app.clone()));
    tokio::spawn(denylist::watch(app.clone()));
    let keyring = app.keyring.clone();
    tokio::spawn(feed_watchdog(app));

    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        why = keyring.refused() => return Err(Ended::OldRecords(why)),
    }
    // First, so that who hears that it ends finds it ending: no reload begins any more. Nobody listening
    // would mean that nothing is left to stop.
    let _ = stop.send(true);
    notify(&[NotifyState::Stopping, NotifyState::Status("draining")]).await;
    let drained = async {
        for door in doors {
            let _ = door.await; // a door that has ended is drained
        }
    };
    tokio::select! {
        () = drained => {}
        _ = terminate.recv() => eprintln!("assertd: told to stop twice; not draining"),
        _ = interrupt.recv() => eprintln!("assertd: told to stop twice; not draining"),
    }
    Ok(())
}

/// Says that assertd is ready once every keystore has answered or had its time for it, and the documents
/// are written.
async fn say_when_ready(app: Arc<App>, mut stopping: watch::Receiver<bool>) {
    let answered = async {
        for keystore in app.keystores.values() {
            keystore.answered().await; // their times run side by side
        }
        // Then the documents are what the records say, which keystores have found to be the newest; a disk
        // that is full keeps nobody from signing with what is published already.
        if let Err(error) = keeper::publish_all(&app).await {
            eprintln!("assertd: {error}");
        }
    };
    tokio::select! {
        () = answered => {}
        _ = stopping.wait_for(|stopping| *stopping) => return,
    }
    let status = app.in_a_line();
    let socket = app.rules.now().config.socket();
    eprintln!("assertd: ready: {status}; socket {}", socket.display());
    app.ready.store(true, Ordering::SeqCst);
    notify(&[NotifyState::Ready, NotifyState::Status(&status)]).await;
}

/// One reload after the other; signals that come during one are one more. The verdict is in the log;
/// whoever wants to wait for it runs `assertctl reload`. Who drains grants nothing new, so that there is
/// nothing to reload for.
async fn reload_by_signal(app: Arc<App>, mut hangup: Signal, mut stopping: watch::Receiver<bool>) {
    loop {
        tokio::select! {
            biased;
            _ = stopping.wait_for(|stopping| *stopping) => return,
            _ = hangup.recv() => {}
        }
        let _said_by_itself = rules::reload(&app).await;
    }
}

/// Looks at the clock whether or not anything is minted, for a step that nobody saw is none; says once
/// that it is suspect, and once that it is not any more.
async fn watch_clock(app: Arc<App>) {
    let mut suspect = None;
    loop {
        let doubt = app.clock.doubt();
        let what = doubt.map(|doubt| std::mem::discriminant(&doubt));
        if what != suspect {
            match doubt {
                Some(doubt) => eprintln!("assertd: {doubt}"),
                None => eprintln!("assertd: clock: trusted again"),
            }
            suspect = what;
        }
        tokio::time::sleep(CLOCK_LOOK).await;
    }
}

/// Tells systemd that we live, only while the audit writer makes progress too; that this runs at
/// all shows that the event loop does.
async fn feed_watchdog(app: Arc<App>) {
    let Some(timeout) = sd_notify::watchdog_enabled() else {
        return;
    };
    let every = (timeout / 3).max(Duration::from_millis(100));
    let hung_after = timeout.max(WRITER_SILENCE);
    let (mut last, mut changed) = (app.audit.progress(), Instant::now());
    loop {
        tokio::time::sleep(every).await;
        let progress = app.audit.progress();
        if progress != last {
            (last, changed) = (progress, Instant::now());
        }
        if changed.elapsed() < hung_after {
            notify(&[NotifyState::Watchdog]).await;
        }
    }
}
