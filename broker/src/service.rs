//! assertd at work: both doors open, the watchdog fed, reload by signal, and the drain at the end. What
//! is asked is `server`'s; what is made at start is `daemon`'s.

use crate::app::App;
use crate::listen::Listeners;
use crate::notify::notify;
use crate::rules;
use crate::server::{self, Door};
use sd_notify::NotifyState;
use std::io;
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

/// How long READY waits for keystores to answer; one that does not is failed, the others serve.
const READY_WAIT: Duration = Duration::from_secs(3);

/// The audit writer is taken to hang when it makes no progress for so long, however short the
/// watchdog's time is: without work it shows itself once a second, and may miss that twice.
const WRITER_SILENCE: Duration = Duration::from_secs(3);

/// Serves until told to stop, then drains.
///
/// # Errors
/// If a signal or a socket cannot be listened to.
pub async fn serve(app: Arc<App>, listeners: Listeners) -> io::Result<()> {
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
    for keystore in app.keystores.values() {
        keystore.start();
    }
    let admin = server::serve(app.clone(), admin, Door::Admin, stopping.clone());
    let doors = [
        tokio::spawn(admin), // answers from the first moment
        tokio::spawn(serve_when_ready(app.clone(), workload, stopping)),
    ];
    tokio::spawn(reload_by_signal(app.clone(), hangup));
    tokio::spawn(feed_watchdog(app));

    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    notify(&[NotifyState::Stopping, NotifyState::Status("draining")]).await;
    let _ = stop.send(true); // nobody listening would mean that nothing is left to stop
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

/// Serves workloads once every keystore has answered or had its time. Until then their connections
/// wait in the backlog: over a restart a request takes longer, and none is refused.
async fn serve_when_ready(
    app: Arc<App>,
    listener: tokio::net::UnixListener,
    mut stopping: watch::Receiver<bool>,
) {
    tokio::select! {
        () = keystores_answered(&app) => {}
        _ = stopping.wait_for(|stopping| *stopping) => return,
    }
    tokio::spawn(say_ready(app.clone()));
    server::serve(app, listener, Door::Workload, stopping).await;
}

async fn keystores_answered(app: &App) {
    let deadline = Instant::now() + READY_WAIT;
    while app.keystores_in("starting") > 0 && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn say_ready(app: Arc<App>) {
    let status = app.in_a_line();
    let socket = app.rules.now().config.socket();
    eprintln!("assertd: ready: {status}; socket {}", socket.display());
    notify(&[NotifyState::Ready, NotifyState::Status(&status)]).await;
}

/// One reload after the other; signals that come during one are one more. The verdict is in the log;
/// whoever wants to wait for it runs `assertctl reload`.
async fn reload_by_signal(app: Arc<App>, mut hangup: Signal) {
    while let Some(()) = hangup.recv().await {
        let _said_by_itself = rules::reload(&app).await;
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
