//! The broker's side of the witness: asks what one process executes, and waits for the answer, but
//! not for long. Owns the connections and their deadline. An error is never an attestation, and what
//! is not attested matches no selector.
//!
//! One question is under way on a connection at a time, and a connection whose answer was not waited
//! for is dropped with it: no answer can be taken for another question's. Cancel-safe for that reason.

use super::{Attestation, QUESTION};
use keystore::protocol::frame_len;
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use std::collections::HashMap;
use std::fmt;
use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncReadExt, Interest};
use tokio::net::UnixStream;
use tokio::sync::Semaphore;
use tokio::time::timeout;

/// How long one question may take, waiting for its turn included. A known executable takes 50 µs,
/// an unknown one half a millisecond for each megabyte; a longer one is hashed to its end all the
/// same, and is known when it is asked for again, if it is one that can be remembered.
pub const DEADLINE: Duration = Duration::from_secs(1);

/// Questions under way at a time, each with a connection: half of what the witness serves, so that
/// those of a broker that was just replaced are in nobody's way. Of one uid so many: whose executables
/// are enormous, or lie where reading hangs, keeps nobody else waiting.
const UNDER_WAY_MAX: usize = 8;
const UNDER_WAY_OF_ONE_UID_MAX: usize = 2;

/// Questions that are under way or wait for their turn: half of all connections the broker has, and
/// of one uid as many as that has.
const ASKED_MAX: usize = 512;
const ASKED_OF_ONE_UID_MAX: usize = 64;

/// Asks the witness at one socket.
pub struct Client {
    socket: PathBuf,
    /// The connection of the last answer; others are closed after theirs.
    kept: Mutex<Option<UnixStream>>,
    asked: Semaphore,
    under_way: Semaphore,
    /// Each uid's share of what may be under way, for as long as one of its questions is asked.
    shares: Mutex<HashMap<u32, Arc<Semaphore>>>,
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
            shares: Mutex::default(),
        }
    }

    /// Where it connects.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// What the process executes now. `uid` is its user, for whose share of the work it counts; the
    /// pidfd is to be polled again afterwards, by whoever believes the answer: the process may have
    /// ended since.
    ///
    /// # Errors
    /// If there is no answer within [`DEADLINE`], which is not the same as an answer that there is
    /// nothing to attest.
    pub async fn executable(
        &self,
        uid: u32,
        pidfd: BorrowedFd<'_>,
    ) -> Result<Attestation, Unanswered> {
        let share = self.share(uid);
        let Ok(_asked) = self.asked.try_acquire() else {
            return Err(Unanswered::Busy);
        };
        if Arc::strong_count(&share) > ASKED_OF_ONE_UID_MAX + 1 {
            return Err(Unanswered::Busy); // one is the table's
        }
        let answer = timeout(DEADLINE, self.ask(&share, pidfd)).await;
        answer.unwrap_or(Err(Unanswered::Late))
    }

    fn share(&self, uid: u32) -> Arc<Semaphore> {
        let mut shares = self.shares.lock().unwrap_or_else(PoisonError::into_inner);
        shares.retain(|_, share| Arc::strong_count(share) > 1);
        let share = shares
            .entry(uid)
            .or_insert_with(|| Arc::new(Semaphore::new(UNDER_WAY_OF_ONE_UID_MAX)));
        share.clone()
    }

    async fn ask(
        &self,
        share: &Semaphore,
        pidfd: BorrowedFd<'_>,
    ) -> Result<Attestation, Unanswered> {
        const OPEN: &str = "the semaphores are never closed";
        let _of_the_uid = share.acquire().await.expect(OPEN);
        let _of_all = self.under_way.acquire().await.expect(OPEN);
        let kept = self.kept().take();
        // A witness that was restarted has closed it, which is no answer to this question.
        if let Some(kept) = kept
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

    fn kept(&self) -> MutexGuard<'_, Option<UnixStream>> {
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
                 asked for again, if root alone may write it and it lies on ext4, XFS or Btrfs",
                DEADLINE.as_secs()
            ),
            Unanswered::Lost(why) => write!(f, "the witness did not answer: {why}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::serve;
    use super::*;
    use crate::sys::pidfd_open;
    use std::io::{Read, Write};
    use std::os::fd::{AsFd, OwnedFd};
    use std::os::unix::net::UnixListener;
    use std::path::Path;
    use std::thread;

    fn ourselves() -> OwnedFd {
        pidfd_open(std::process::id()).unwrap()
    }

    /// A witness in a thread, which ends with the test's process.
    fn serving(socket: &Path) {
        let listener = UnixListener::bind(socket).unwrap();
        let us = nix::unistd::geteuid().as_raw();
        thread::spawn(move || serve::run(&listener, us));
    }

    async fn ask(client: &Client) -> Result<Attestation, Unanswered> {
        client.executable(0, ourselves().as_fd()).await
    }

    #[tokio::test]
    async fn a_question_is_answered_and_its_connection_kept() {
        let dir = tempfile::tempdir().unwrap();
        let client = Client::new(dir.path().join("witness.sock"));
        let absent = ask(&client).await.unwrap_err();
        assert!(matches!(absent, Unanswered::Absent(..)), "{absent}");
        serving(client.socket());
        let path = std::env::current_exe().unwrap();
        for _ in 0..3 {
            match ask(&client).await.unwrap() {
                Attestation::Executable(ours) => assert_eq!(ours.path(), path.to_str()),
                other => panic!("{other:?}"),
            }
            assert!(client.kept().is_some());
        }
        assert_eq!(
            client.share(1).available_permits(),
            UNDER_WAY_OF_ONE_UID_MAX
        );
        assert!(!client.shares.lock().unwrap().contains_key(&0), "forgotten");
    }

    #[tokio::test]
    async fn a_witness_that_was_restarted_is_asked_over_a_new_connection() {
        let dir = tempfile::tempdir().unwrap();
        let client = Client::new(dir.path().join("witness.sock"));
        serving(client.socket());
        let (ours, theirs) = UnixStream::pair().unwrap();
        drop(theirs);
        *client.kept() = Some(ours);
        assert!(matches!(ask(&client).await, Ok(Attestation::Executable(_))));
    }

    #[tokio::test]
    async fn a_witness_that_is_silent_or_answers_nonsense_is_no_answer() {
        let dir = tempfile::tempdir().unwrap();
        let client = Client::new(dir.path().join("witness.sock"));
        let listener = UnixListener::bind(client.socket()).unwrap();
        let fakes = thread::spawn(move || {
            let answers: [&[u8]; 5] = [
                b"",
                b"\0\0",
                b"\0\0\0\x02{}",
                b"\xff\xff\xff\xff",
                b"\0\0\0\0",
            ];
            for answer in answers {
                let (mut stream, _) = listener.accept().unwrap();
                stream.read_exact(&mut QUESTION.clone()).unwrap();
                stream.write_all(answer).unwrap();
            }
            listener.accept() // and is silent
        });
        for _ in 0..5 {
            let lost = ask(&client).await.unwrap_err();
            assert!(matches!(lost, Unanswered::Lost(_)), "{lost}");
            assert!(client.kept().is_none());
        }
        let late = ask(&client).await.unwrap_err();
        assert!(matches!(late, Unanswered::Late), "{late}");
        assert!(client.kept().is_none(), "an answer to come is nobody's");
        drop(fakes.join());
    }

    #[tokio::test]
    async fn one_uid_cannot_take_all_turns_and_too_many_questions_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let client = Client::new(dir.path().join("witness.sock"));
        serving(client.socket());
        let (share, pidfd) = (client.share(1), ourselves());
        let _slow = share.acquire_many(2).await.unwrap();
        let others = client.executable(2, pidfd.as_fd()).await;
        assert!(matches!(others, Ok(Attestation::Executable(_))));
        let own = client.executable(1, pidfd.as_fd()).await;
        assert!(matches!(own, Err(Unanswered::Late)));
        let asked: Vec<_> = (0..ASKED_OF_ONE_UID_MAX).map(|_| client.share(3)).collect();
        let refused = client.executable(3, pidfd.as_fd()).await;
        assert!(matches!(refused, Err(Unanswered::Busy)));
        drop(asked);
        assert!(client.executable(3, pidfd.as_fd()).await.is_ok());
        let _all = client.asked.try_acquire_many(512).unwrap();
        assert!(matches!(ask(&client).await, Err(Unanswered::Busy)));
    }
}
