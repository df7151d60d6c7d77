//! A lane: one connection to a keystore, one mint on it at a time. It takes jobs from the queue
//! while it is connected, and connects again whenever the connection ends.

use super::Keystore;
use crate::queue::Job;
use keystore::protocol::{self, FRAME_LEN_MAX, Reply, Request, VERSION, Welcome, frame_len};
use keystore::{Error, Kind, client};
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::timeout;

/// How long an answer may take before the connection is given up. The keystore ends itself when a
/// call outlives its `hang_limit` (60 s by default); this is for when even that fails.
const ANSWER_DEADLINE: Duration = Duration::from_secs(75);

/// How long connecting and the handshake may take.
const HELLO_DEADLINE: Duration = Duration::from_secs(5);

/// First and longest wait between attempts to connect.
const RECONNECT_WAIT: (Duration, Duration) = (Duration::from_millis(5), Duration::from_secs(1));

/// How often a resting lane looks whether it is wanted again.
const REST: Duration = Duration::from_millis(50);

/// One connection past its handshake.
pub struct Connection {
    stream: UnixStream,
    /// Who answered.
    pub welcome: Welcome,
}

impl Connection {
    /// Connects and says hello.
    pub async fn open(socket: &Path) -> Result<Connection, Error> {
        let open = async {
            let stream = UnixStream::connect(socket).await.map_err(|error| {
                Error::new(Kind::Unavailable, format!("socket {}", socket.display())).because(error)
            })?;
            let mut connection = Connection {
                stream,
                welcome: Welcome::nobody(),
            };
            let hello = Request::Hello { version: VERSION };
            connection.welcome = client::welcome(connection.call(&hello).await?)?;
            Ok(connection)
        };
        timeout(HELLO_DEADLINE, open).await.unwrap_or_else(|_| {
            Err(Error::new(
                Kind::Unavailable,
                format!("socket {}: no answer", socket.display()),
            ))
        })
    }

    /// One request and its answer, with a refusal as the error it carries.
    pub async fn call(&mut self, request: &Request) -> Result<Reply, Error> {
        client::answer(Some(self.exchange(request).await?))
    }

    /// One request and its reply; an error here means that the connection is of no more use. Not
    /// cancel-safe: a connection whose exchange was dropped is closed.
    async fn exchange(&mut self, request: &Request) -> Result<Reply, Error> {
        let lost = |e: std::io::Error| Error::new(Kind::Unavailable, "connection lost").because(e);
        self.stream
            .write_all(&protocol::encode(request)?)
            .await
            .map_err(lost)?;
        let mut bytes = vec![0; 2048]; // a mint's answer is about 700 bytes: one read
        let mut got = 0;
        loop {
            match self.stream.read(&mut bytes[got..]).await.map_err(lost)? {
                0 => {
                    return Err(Error::new(
                        Kind::Unavailable,
                        "keystore closed the connection",
                    ));
                }
                n => got += n,
            }
            let Some((header, rest)) = bytes[..got].split_first_chunk::<4>() else {
                continue;
            };
            let length = frame_len(*header)?;
            if rest.len() > length {
                return Err(Error::new(
                    Kind::Protocol,
                    "keystore sent more than was asked for",
                ));
            }
            if rest.len() == length {
                return protocol::decode(rest);
            }
            bytes.resize((4 + length).min(4 + FRAME_LEN_MAX), 0);
        }
    }

    /// Waits until the other side has gone. Nothing is sent unasked, so that any byte ends it too.
    /// Readiness alone proves nothing: it is asked for by a read.
    async fn ended(&self) {
        loop {
            let ready = self.stream.readable().await;
            match self.stream.try_read(&mut [0; 1]) {
                Err(error) if ready.is_ok() && error.kind() == ErrorKind::WouldBlock => {}
                _ => return,
            }
        }
    }
}

/// Runs a lane for ever. A second lane rests while the token is slow.
pub async fn run(keystore: Arc<Keystore>, second: bool) {
    let (mut wait, longest) = RECONNECT_WAIT;
    loop {
        match Connection::open(&keystore.socket).await {
            Ok(connection) => {
                wait = RECONNECT_WAIT.0;
                serve(&keystore, connection, second).await;
                keystore.lost.notify_one();
            }
            Err(_) => {
                // The watch says why; a lane only tries again.
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(longest);
            }
        }
    }
}

async fn serve(keystore: &Keystore, mut connection: Connection, second: bool) {
    loop {
        if second && keystore.second_lanes_rest() {
            tokio::select! {
                () = tokio::time::sleep(REST) => continue,
                () = connection.ended() => return,
            }
        }
        let job = tokio::select! {
            biased;
            () = connection.ended() => return,
            job = keystore.queue.next() => job,
        };
        keystore.in_flight.fetch_add(1, Ordering::Relaxed);
        let kept = mint(keystore, &mut connection, job).await;
        keystore.in_flight.fetch_sub(1, Ordering::Relaxed);
        if let Lane::Broken = kept {
            return;
        }
    }
}

enum Lane {
    Whole,
    Broken,
}

/// Has one job minted and answers it. A job nobody waits for any more is not signed.
async fn mint(keystore: &Keystore, connection: &mut Connection, job: Job) -> Lane {
    let Job {
        key,
        purpose,
        claims,
        deadline,
        reply,
        place: _place,
        target: _target,
    } = job;
    let started = Instant::now();
    if started >= deadline || reply.is_closed() {
        let late = Error::new(
            Kind::Unavailable,
            "the deadline passed while waiting in the queue",
        );
        let _ = reply.send(Err(late)); // the asker may have gone: that is why it is late
        return Lane::Whole;
    }
    let request = Request::Mint {
        key,
        purpose,
        claims: claims.into_wire(),
    };
    let answer = timeout(ANSWER_DEADLINE, connection.exchange(&request)).await;
    keystore.note_round_trip(started.elapsed());
    let (lane, result) = match answer {
        Ok(Ok(Reply::Minted { jws })) => {
            keystore.minted.fetch_add(1, Ordering::Relaxed);
            (Lane::Whole, Ok(jws))
        }
        Ok(Ok(Reply::Refused { kind, message })) => (Lane::Whole, Err(Error::new(kind, message))),
        Ok(Ok(_)) => (Lane::Broken, Err(client::unexpected())),
        Ok(Err(error)) => (Lane::Broken, Err(error)),
        Err(_) => (
            Lane::Broken,
            Err(Error::new(Kind::Unavailable, "keystore does not answer")),
        ),
    };
    let _ = reply.send(result); // the asker may have gone; the record says what became of it
    lane
}
