//! The broker's side of the witness: asks what one process executes, and waits for the answer, but
//! not for long. Owns the connections and their deadline. An error is never an attestation, and what
//! is not attested matches no selector.
//!
//! One question is under way on a connection at a time, and a connection whose answer was not waited
//! for is dropped with it: no answer can be taken for another question's. Cancel-safe for that reason.

use super::{Attestation, QUESTION};
use keystore::protocol::frame_len;
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use std::fmt;
use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncReadExt, Interest};
use tokio::net::UnixStream;
use tokio::sync::Semaphore;
use tokio::time::timeout;

/// How long one question may take, waiting for its turn included. A known executable takes 50 µs,
/// an unknown one half a millisecond for each megabyte; a longer one is hashed to its end all the
/// same, and is known when it is asked for again.
pub const DEADLINE: Duration = Duration::from_secs(1);

/// Questions under way at a time, each with a connection: half of what the witness serves, so that
/// those of a broker that was just replaced are in nobody's way.
const UNDER_WAY_MAX: usize = 8;

/// Questions that are under way or wait for their turn. More would not be answered within the
/// deadline where it matters, which is where each takes long.
const ASKED_MAX: usize = 64;

/// Asks the witness at one socket.
pub struct Client {
    socket: PathBuf,
    /// The connection of the last answer; others are closed after theirs.
    kept: Mutex<Option<UnixStream>>,
    asked: Semaphore,
    under_way: Semaphore,
}

/// Why there is no answer.
#[derive(Debug)]
pub enum Unanswered {
    /// Nobody listens.
    Absent(PathBuf, io::Error),
    /// Too many questions wait already.
    Busy,
    /// It did not answer within [`DEADLINE`].
    Late,
    /// It hung up, or answered what is no answer.
    Lost(String),
}

impl Client {
    /// A client that connects when it is first asked.
    pub fn new(socket: PathBuf) -> Client {
        Client {
            socket,
            kept: Mutex::new(None),
            asked: Semaphore::new(ASKED_MAX),
            under_way: Semaphore::new(UNDER_WAY_MAX),
        }
    }

    /// Where it connects.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// What the process executes now. The pidfd is to be polled again afterwards, by whoever
    /// believes the answer: the process may have ended since.
    ///
    /// # Errors
    /// If there is no answer within [`DEADLINE`], which is not the same as an answer that there is
    /// nothing to attest.
    pub async fn executable(&self, pidfd: BorrowedFd<'_>) -> Result<Attestation, Unanswered> {
        let Ok(_asked) = self.asked.try_acquire() else {
            return Err(Unanswered::Busy);
        };
        let answer = timeout(DEADLINE, self.ask(pidfd)).await;
        answer.unwrap_or(Err(Unanswered::Late))
    }

    async fn ask(&self, pidfd: BorrowedFd<'_>) -> Result<Attestation, Unanswered> {
        let turn = self.under_way.acquire().await;
        let _turn = turn.expect("the semaphore is never closed");
        // A witness that was restarted has closed it, which is no answer to this question.
        if let Some(kept) = self.kept().take()
            && let Ok(attestation) = self.over(kept, pidfd).await
        {
            return Ok(attestation);
        }
        let connected = UnixStream::connect(&self.socket).await;
        let stream = connected.map_err(|error| Unanswered::Absent(self.socket.clone(), error))?;
        self.over(stream, pidfd).await
    }

    async fn over(
        &self,
        mut stream: UnixStream,
        pidfd: BorrowedFd<'_>,
    ) -> Result<Attestation, Unanswered> {
        let lost = |error: io::Error| match error.kind() {
            io::ErrorKind::UnexpectedEof => Unanswered::Lost("it hung up".to_owned()),
            _ => Unanswered::Lost(error.to_string()),
        };
        let unclear = |error: keystore::Error| Unanswered::Lost(error.to_string());
        send(&stream, pidfd).await.map_err(lost)?;
        let mut header = [0; 4];
        stream.read_exact(&mut header).await.map_err(lost)?;
        let mut frame = vec![0; frame_len(header).map_err(unclear)?];
        stream.read_exact(&mut frame).await.map_err(lost)?;
        let attestation = Attestation::decode(&frame).map_err(unclear)?;
        *self.kept() = Some(stream);
        Ok(attestation)
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, Option<UnixStream>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The question and the pidfd in one message. A message of eight bytes is taken whole or not at all
/// (one buffer of unix(7)), so that nothing is left to be sent without its descriptor.
async fn send(stream: &UnixStream, pidfd: BorrowedFd<'_>) -> io::Result<()> {
    let descriptors = [pidfd.as_raw_fd()];
    let sent = stream
        .async_io(Interest::WRITABLE, || {
            let control = [ControlMessage::ScmRights(&descriptors)];
            let question = [IoSlice::new(&QUESTION)];
            let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
            sendmsg::<()>(stream.as_raw_fd(), &question, &control, flags, None)
                .map_err(io::Error::from)
        })
        .await?;
    match sent {
        sent if sent == QUESTION.len() => Ok(()),
        _ => Err(io::ErrorKind::WriteZero.into()),
    }
}

impl fmt::Display for Unanswered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unanswered::Absent(socket, error) => write!(
                f,
                "no witness at {}: {error}; run `systemctl enable --now assertd-witness.socket`, or \
                 without systemd install assertd-witness beside assertd",
                socket.display()
            ),
            Unanswered::Busy => f.write_str("too many questions wait for the witness already"),
            Unanswered::Late => write!(
                f,
                "the witness did not answer within {} s; a large executable is known when it is \
                 asked for again",
                DEADLINE.as_secs()
            ),
            Unanswered::Lost(why) => write!(f, "the witness did not answer: {why}"),
        }
    }
}
