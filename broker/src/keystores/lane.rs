//! A lane: one connection to a keystore, for one of its signers. It takes jobs from the queue
//! while it is connected, and connects again whenever the connection ends.
//!
//! While the token is fast a lane has two jobs under way: the second waits in the socket while
//! the first is signed, so that the signer never waits for us. While it is slow there is one, so
//! that waiting happens in the queue, where the order is decided (architecture.md, step 8).

use super::Keystore;
use super::connection::Connection;
use crate::queue::{Job, Mint, Turn, Work};
use keystore::protocol::{Reply, Request};
use keystore::{Error, Kind, client};
use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// How long an answer may take before the connection is given up. The keystore ends itself when a
/// call outlives its `hang_limit` (60 s by default); this is for when even that fails.
const ANSWER_DEADLINE: Duration = Duration::from_secs(75);

/// How long somebody else may have its turn: as long as it has one, no workload has.
const TURN_MAX: Duration = Duration::from_secs(10);

/// First and longest wait between attempts to connect.
const RECONNECT_WAIT: (Duration, Duration) = (Duration::from_millis(5), Duration::from_secs(1));

/// Somebody has a turn.
struct Away {
    end: Instant,
    over: oneshot::Receiver<Infallible>,
}

/// What becomes of a job.
enum Taken {
    Sent(Flight),
    Turn(Away),
    /// Who had asked for it is not there any more.
    Nothing,
}

/// A job that was sent and is not answered.
struct Flight {
    sent: Instant,
    reply: oneshot::Sender<Result<String, Error>>,
}

/// Runs a lane for ever.
pub async fn run(keystore: Arc<Keystore>) {
    let (mut wait, longest) = RECONNECT_WAIT;
    loop {
        match Connection::open(&keystore.socket).await {
            Ok(connection) => {
                wait = RECONNECT_WAIT.0;
                serve(&keystore, connection).await;
                keystore.look_soon();
            }
            Err(_) => {
                // The watch says why; a lane only tries again.
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(longest);
            }
        }
    }
}

/// Serves on one connection until it ends. What was under way then is answered: whether the token
/// has signed it is unknown, so that it is not tried again.
async fn serve(keystore: &Keystore, mut connection: Connection) {
    let mut flights: VecDeque<Flight> = VecDeque::new();
    let mut away: Option<Away> = None;
    let error = loop {
        let oldest = flights
            .front()
            .map_or_else(Instant::now, |flight| flight.sent);
        let overdue = tokio::time::sleep_until((oldest + ANSWER_DEADLINE).into());
        tokio::select! {
            biased;
            reply = connection.reply() => match land(keystore, reply, flights.pop_front()) {
                Ok(()) => {}
                Err(error) => break error,
            },
            job = keystore.queue.next(|deadline| keystore.is_in_time(deadline)),
                if away.is_none() && flights.len() < keystore.jobs_per_lane() =>
            {
                match take_off(&mut connection, job).await {
                    Ok(Taken::Sent(flight)) => {
                        keystore.in_flight.fetch_add(1, Ordering::Relaxed);
                        flights.push_back(flight);
                    }
                    Ok(Taken::Turn(turn)) => away = Some(turn),
                    Ok(Taken::Nothing) => {}
                    Err(error) => break error,
                }
            }
            () = back(&mut away) => away = None,
            () = overdue, if !flights.is_empty() => {
                break Error::new(Kind::Unavailable, "keystore does not answer");
            }
        }
    };
    let lost = flights.len();
    keystore.in_flight.fetch_sub(lost, Ordering::Relaxed);
    for flight in flights {
        let error = Error::new(error.kind(), error.to_string());
        let _ = flight.reply.send(Err(error)); // the asker may have gone
    }
}

/// Returns when the turn of who has one is over, which is never if nobody has.
async fn back(away: &mut Option<Away>) {
    match away {
        None => pending().await,
        Some(Away { end, over }) => {
            let _ = tokio::time::timeout_at((*end).into(), over).await; // it ends by being dropped
        }
    }
}

/// Sends a job, or leaves the keystore to somebody.
async fn take_off(connection: &mut Connection, job: Job) -> Result<Taken, Error> {
    let Mint {
        key,
        purpose,
        claims,
        reply,
    } = match job.work {
        Work::Mint(mint) => mint,
        Work::Turn(taker) => {
            let end = Instant::now() + TURN_MAX;
            let (turn, over) = Turn::new(end);
            return Ok(match taker.send(turn) {
                Ok(()) => Taken::Turn(Away { end, over }),
                Err(_gone) => Taken::Nothing,
            });
        }
    };
    let sent = Instant::now();
    let request = Request::Mint {
        key,
        purpose,
        claims: claims.into_wire(),
    };
    match connection.send(&request).await {
        Ok(()) => Ok(Taken::Sent(Flight { sent, reply })),
        Err(error) => {
            let _ = reply.send(Err(Error::new(error.kind(), error.to_string()))); // the asker may have gone
            Err(error)
        }
    }
}

/// Answers the oldest job with the reply that came. A refusal leaves the connection whole.
fn land(
    keystore: &Keystore,
    reply: Result<Reply, Error>,
    flight: Option<Flight>,
) -> Result<(), Error> {
    let Some(Flight { sent, reply: asker }) = flight else {
        return Err(reply.err().unwrap_or_else(client::unexpected));
    };
    keystore.in_flight.fetch_sub(1, Ordering::Relaxed);
    if reply.is_ok() {
        keystore.presence.heard(); // a refusal is an answer; that the connection has ended is none
    }
    if !matches!(
        &reply,
        Ok(Reply::Refused {
            kind: Kind::Refused | Kind::Unhealthy,
            ..
        })
    ) {
        keystore.note_round_trip(sent.elapsed()); // by charter or policy: at once, and nothing was signed
    }
    let (result, verdict) = match reply {
        Ok(Reply::Minted { jws }) => {
            keystore.minted.fetch_add(1, Ordering::Relaxed);
            (Ok(jws), Ok(()))
        }
        Ok(Reply::Refused { kind, message }) => (Err(Error::new(kind, message)), Ok(())),
        Ok(_) => (Err(client::unexpected()), Err(client::unexpected())),
        Err(error) => (Err(Error::new(error.kind(), error.to_string())), Err(error)),
    };
    let _ = asker.send(result); // the asker may have gone; the record says what became of it
    verdict
}

#[cfg(test)]
mod tests {
    use super::super::tests::{keystore, mute, run};
    use super::*;
    use crate::queue::tests::share;

    /// What a reply makes of a token that took 100 ms for each before.
    fn round_trip_after(reply: Result<Reply, Error>) -> Duration {
        let keystore = keystore(Duration::from_millis(100));
        let (reply_to, _asker) = oneshot::channel();
        let flight = Flight {
            sent: Instant::now(),
            reply: reply_to,
        };
        keystore.in_flight.fetch_add(1, Ordering::Relaxed);
        let _ = land(&keystore, reply, Some(flight));
        keystore.round_trip()
    }

    #[test]
    fn what_a_charter_refuses_at_once_does_not_make_a_token_fast() {
        let refused = |kind| {
            let message = "no".to_owned();
            round_trip_after(Ok(Reply::Refused { kind, message }))
        };
        for at_once in [Kind::Refused, Kind::Unhealthy] {
            assert_eq!(refused(at_once), Duration::from_millis(100));
        }
        assert!(refused(Kind::Unavailable) < Duration::from_millis(100));
        let jws = String::new();
        assert!(round_trip_after(Ok(Reply::Minted { jws })) < Duration::from_millis(100));
    }

    /// Who has it knows when the workloads have the keystore again, and cannot keep it from them.
    #[test]
    fn a_turn_ends_when_it_was_said_to() {
        let tmp = tempfile::tempdir().unwrap();
        let keystore = mute(tmp.path());
        run(async {
            let mut connection = Connection::open(&keystore.socket).await.unwrap();
            let (taker, turn) = oneshot::channel();
            let now = Instant::now();
            let job = Job {
                work: Work::Turn(taker),
                share: share("(attest)"),
                since: now,
                deadline: now + TURN_MAX,
            };
            let taken = take_off(&mut connection, job).await;
            let Ok(Taken::Turn(away)) = taken else {
                panic!("somebody waits for it");
            };
            let kept = turn.await.unwrap();
            assert_eq!(kept.end(), away.end);
            assert!((now..=Instant::now()).contains(&(away.end - TURN_MAX)));
            let mut away = Some(Away {
                end: Instant::now() + Duration::from_millis(50),
                ..away
            });
            back(&mut away).await;
            drop(kept);
        });
    }
}
