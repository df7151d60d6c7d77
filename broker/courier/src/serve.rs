//! The courier at work: who asks, is it the broker or root, answer. The kernel says which uid a peer has;
//! everyone else is hung up on before a byte is read. A connection carries one question.

use crate::desk::Desk;
use broker::courier::{ANSWER_LEN_MAX, QUESTION_LEN_MAX, Question};
use keystore::incoming::FRAME_DEADLINE;
use keystore::protocol::{decode, encode_within, frame_len_within};
use keystore::{Error, Kind};
use std::os::unix::net::UnixListener as StdListener;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

/// Fetches under way at a time, of different issuers.
pub const UNDER_WAY_MAX: usize = 4;

/// Most connections at a time: those that are served, and a few that wait for their turn.
pub const CONNECTIONS_MAX: usize = 16;

/// Serves until the process is ended.
///
/// # Errors
/// Only if the listener or a signal cannot be waited for.
pub async fn run(listener: StdListener, broker_uid: u32, desk: Desk) -> Result<(), Error> {
    let failed = |error| Error::new(Kind::Internal, "socket").because(error);
    listener.set_nonblocking(true).map_err(failed)?;
    let listener = UnixListener::from_std(listener).map_err(failed)?;
    let mut hangup = signal(SignalKind::hangup()).map_err(failed)?;
    let desk = Arc::new(desk);
    let reading = desk.clone();
    tokio::spawn(async move {
        while hangup.recv().await.is_some() {
            reading.read_again().await;
        }
    });
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                eprintln!("courier: accept: {error}");
                sleep(Duration::from_millis(50)).await; // out of descriptors: do not spin
                continue;
            }
        };
        let uid = stream.peer_cred().map(|peer| peer.uid());
        if !uid.is_ok_and(|uid| uid == broker_uid || uid == 0) {
            continue;
        }
        let Ok(place) = places.clone().try_acquire_owned() else {
            continue;
        };
        let desk = desk.clone();
        tokio::spawn(async move {
            if let Err(why) = serve(stream, &desk).await {
                eprintln!("courier: a peer was hung up on: {why}");
            }
            drop(place);
        });
    }
}

/// Answers one question. A peer that has stopped waiting is no fault, and nothing is fetched for it any
/// more.
async fn serve(mut stream: UnixStream, desk: &Desk) -> Result<(), Error> {
    let asked = timeout(FRAME_DEADLINE, question(&mut stream)).await;
    let late = |_| Error::new(Kind::Unavailable, "it asked nothing in time");
    let Some(question) = asked.map_err(late)?? else {
        return Ok(());
    };
    let mut more = [0];
    let answer = tokio::select! {
        answer = desk.answer(&question) => answer,
        _ = stream.read(&mut more) => return Ok(()), // its end, or what nobody has asked for
    };
    let frame = encode_within(&answer, ANSWER_LEN_MAX)?;
    let _ = timeout(FRAME_DEADLINE, stream.write_all(&frame)).await;
    Ok(())
}

/// The question; none from a peer that has gone.
async fn question(stream: &mut UnixStream) -> Result<Option<Question>, Error> {
    let mut header = [0; 4];
    if stream.read_exact(&mut header).await.is_err() {
        return Ok(None);
    }
    let mut frame = vec![0; frame_len_within(header, QUESTION_LEN_MAX)?];
    match stream.read_exact(&mut frame).await {
        Ok(_) => decode(&frame).map(Some),
        Err(_) => Ok(None),
    }
}
