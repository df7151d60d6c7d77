//! What is said on one connection: requests come in, answers go out in their order. Owns the two
//! streams and their deadlines; what an answer is, and who may ask, is the server's.
//!
//! A mint whose signature takes long may be left to a [`Hand`]: while the token signs, the next
//! request is read and its text written, so that the token waits for no socket and for no peer
//! that was woken by an answer. One is prepared at most.

use crate::hand::Hand;
use crate::incoming::{FRAME_DEADLINE, Incoming, next_request};
use crate::mint::Mint;
use crate::protocol::{self, Reply, Request};
use crate::stop::Pass;
use crate::{Error, Kind};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// From here on a mint takes long: leaving it to the hand wakes a thread, which costs tens of microseconds
/// and pays where it saves a hundred of a signature that takes many times that.
const LONG: Duration = Duration::from_micros(500);

/// Mints that are left to the hand at a time: one that is signed, one that is prepared.
const LEFT_MAX: usize = 2;

/// Room for requests that have arrived: a mint is about 600 bytes.
const BUFFER_LEN: usize = 16 * 1024;

/// A mint that is left to the hand, until it is answered.
pub struct Left {
    /// What was asked for.
    pub mint: Mint,
    /// Keeps the process until the answer has gone out.
    pub pass: Pass,
}

/// What the hand has done with it.
pub struct Done {
    /// The answer.
    pub reply: Reply,
    /// How long it took.
    pub took: Duration,
    /// [`Left::pass`]
    pub pass: Pass,
}

/// One connection.
pub struct Conversation {
    reader: Incoming,
    writer: UnixStream,
    idle: Option<Duration>,
    hand: Option<Hand<Left, Done>>,
    left: usize,
    /// How long a mint takes, smoothed; none before the first.
    usual: Option<Duration>,
    press: Press,
}

/// Whether mints take long, and the next request waited when one had ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Press {
    None,
    Some,
}

/// What ended a wait.
enum Heard {
    /// The hand has done something.
    Bell,
    /// The peer has said something, if only that it says no more.
    Peer,
    /// The peer has gone and takes no answers.
    Gone,
}

/// What a wait is for, besides the hand.
#[derive(Clone, Copy, PartialEq, Eq)]
enum For {
    Requests,
    NoRequests,
}

impl Conversation {
    /// The conversation on `stream`, whose peer may be silent for `idle`.
    ///
    /// # Errors
    /// `Unavailable` if the system refuses the deadlines.
    pub fn on(stream: UnixStream, idle: Option<Duration>) -> Result<Conversation, Error> {
        let deadline = Some(FRAME_DEADLINE);
        stream.set_write_timeout(deadline).map_err(lost)?;
        stream.set_read_timeout(idle).map_err(lost)?;
        Ok(Conversation {
            writer: stream.try_clone().map_err(lost)?,
            reader: Incoming::new(stream, BUFFER_LEN),
            idle,
            hand: None,
            left: 0,
            usual: None,
            press: Press::None,
        })
    }

    /// The next request; `None` when there will be none. Answers go out meanwhile.
    ///
    /// # Errors
    /// `Protocol` for what is no request, `Unavailable` if something did not come, or was not taken,
    /// in time.
    pub fn next(&mut self) -> Result<Option<Request>, Error> {
        while self.left > 0 {
            if self.write_done()? {
                continue;
            }
            // Without press the next is minted by who reads it, when nobody else mints.
            let wait = match self.left < LEFT_MAX && self.press == Press::Some {
                true => For::Requests,
                false => For::NoRequests,
            };
            match self.wait(wait)? {
                Heard::Bell => {}
                Heard::Peer => break,
                Heard::Gone => return Ok(None),
            }
        }
        let next = next_request(&mut self.reader, self.idle);
        if next.is_err() {
            self.catch_up()?; // what was asked before is answered
        }
        next
    }

    /// Answers a request, behind those before it.
    ///
    /// # Errors
    /// `Unavailable` if the peer does not take the answer in time.
    pub fn answer(&mut self, reply: &Reply) -> Result<(), Error> {
        self.catch_up()?;
        protocol::write(&mut self.writer, reply)
    }

    /// Takes note of how long a mint took.
    pub fn note(&mut self, took: Duration) {
        let usual = smooth(self.usual, took);
        self.usual = Some(usual);
        self.press = match usual < LONG {
            true => Press::None,
            false if self.left > 0 || self.is_next_there() => Press::Some,
            false => Press::None,
        };
    }

    /// Whether a mint that has come is to be left to the hand, which `new` makes if there is none.
    pub fn leaves(&mut self, new: impl FnOnce() -> Result<Hand<Left, Done>, Error>) -> bool {
        if self.press == Press::None {
            return false;
        }
        if self.hand.is_none() {
            self.hand = new().ok(); // without one it only takes longer
        }
        self.hand.is_some()
    }

    /// Leaves a mint to the hand.
    pub fn leave(&mut self, mint: Left) {
        if let Some(hand) = &self.hand {
            hand.give(mint);
            self.left += 1;
        }
    }

    /// Returns when every mint that was left to the hand is answered.
    ///
    /// # Errors
    /// As [`Self::answer`].
    pub fn catch_up(&mut self) -> Result<(), Error> {
        while self.left > 0 {
            if !self.write_done()?
                && let Heard::Gone = self.wait(For::NoRequests)?
            {
                return Err(Error::new(Kind::Unavailable, "connection lost"));
            }
        }
        Ok(())
    }

    /// Writes one answer that the hand has, if it has one.
    fn write_done(&mut self) -> Result<bool, Error> {
        let Some(Done { reply, took, pass }) = self.hand.as_ref().and_then(Hand::take) else {
            return Ok(false);
        };
        self.left -= 1;
        self.note(took);
        protocol::write(&mut self.writer, &reply)?;
        drop(pass);
        Ok(true)
    }

    fn is_next_there(&self) -> bool {
        let mut stream = [PollFd::new(self.reader.stream().as_fd(), PollFlags::POLLIN)];
        !self.reader.buffer().is_empty()
            || poll(&mut stream, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
    }

    /// Waits for the hand, whose calls into the token have their own watch, and for the peer.
    fn wait(&self, what_for: For) -> Result<Heard, Error> {
        let Some(hand) = &self.hand else {
            return Ok(Heard::Bell); // nothing is left to nobody
        };
        let interest = match what_for {
            For::Requests if !self.reader.buffer().is_empty() => return Ok(Heard::Peer),
            For::Requests => PollFlags::POLLIN,
            For::NoRequests => PollFlags::empty(),
        };
        let mut both = [
            PollFd::new(hand.bell(), PollFlags::POLLIN),
            PollFd::new(self.reader.stream().as_fd(), interest),
        ];
        match poll(&mut both, PollTimeout::NONE) {
            Ok(_) => {}
            Err(Errno::EINTR) => return Ok(Heard::Bell), // looked again is not lost
            Err(errno) => return Err(lost(errno.into())),
        }
        let [bell, peer] = both.map(|one| one.revents().unwrap_or(PollFlags::empty()));
        if peer.intersects(PollFlags::POLLHUP | PollFlags::POLLERR) {
            return Ok(Heard::Gone);
        }
        if !bell.is_empty() {
            hand.silence();
            return Ok(Heard::Bell);
        }
        Ok(Heard::Peer)
    }
}

/// With 1/8 of the new value (as RFC 6298 §2 has it); one that took much longer than others counts as
/// four of them.
fn smooth(old: Option<Duration>, new: Duration) -> Duration {
    old.map_or(new, |old| old - old / 8 + new.min(4 * old) / 8)
}

fn lost(error: std::io::Error) -> Error {
    Error::new(Kind::Unavailable, "connection lost").because(error)
}
