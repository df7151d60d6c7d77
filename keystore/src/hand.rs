//! A second pair of hands: a thread that does one thing after the other, for one other thread that
//! prepares the next meanwhile. Owns the handing over; what is done, and how much may be given, is
//! its owner's. What was done comes back in the order it was given in.

use crate::{Error, Kind};
use nix::sys::eventfd::{EfdFlags, EventFd};
use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

/// The thread, and what lies between it and its owner. Dropped, it drops what was not begun, and
/// returns when what was begun has ended.
pub struct Hand<T, R> {
    table: Arc<Table<T, R>>,
    thread: Option<JoinHandle<()>>,
}

struct Table<T, R> {
    things: Mutex<Things<T, R>>,
    given: Condvar,
    /// Rung when something is done, for an owner that waits for other things too.
    bell: EventFd,
}

struct Things<T, R> {
    to_do: VecDeque<T>,
    done: VecDeque<R>,
    work: Work,
}

#[derive(PartialEq, Eq)]
enum Work {
    GoesOn,
    IsOver,
}

impl<T: Send + 'static, R: Send + 'static> Hand<T, R> {
    /// A thread of this name that does `work`.
    ///
    /// # Errors
    /// `Unavailable` if the system has no thread or no descriptor left.
    pub fn new(name: &str, work: impl FnMut(T) -> R + Send + 'static) -> Result<Hand<T, R>, Error> {
        let failed = || Error::new(Kind::Unavailable, format!("thread {name}"));
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        let bell = EventFd::from_flags(flags).map_err(|e| failed().because(e))?;
        let things = Things {
            to_do: VecDeque::new(),
            done: VecDeque::new(),
            work: Work::GoesOn,
        };
        let table = Arc::new(Table {
            things: Mutex::new(things),
            given: Condvar::new(),
            bell,
        });
        let its = table.clone();
        let thread = thread::Builder::new().name(name.to_owned());
        let thread = thread.spawn(move || its.clear(work));
        let thread = Some(thread.map_err(|e| failed().because(e))?);
        Ok(Hand { table, thread })
    }

    /// Gives it something to do.
    pub fn give(&self, thing: T) {
        self.table.lock().to_do.push_back(thing);
        self.table.given.notify_one();
    }

    /// What has been done and was not taken yet.
    pub fn take(&self) -> Option<R> {
        self.table.lock().done.pop_front()
    }

    /// Can be read from when something was done since it was last [silenced](Self::silence).
    pub fn bell(&self) -> BorrowedFd<'_> {
        self.table.bell.as_fd()
    }

    /// To be called before [`Self::take`], or what is done between the two is not heard of.
    pub fn silence(&self) {
        let _ = self.table.bell.read(); // it has not rung
    }
}

impl<T, R> Drop for Hand<T, R> {
    fn drop(&mut self) {
        let mut things = self.table.lock();
        things.work = Work::IsOver;
        let given_up = std::mem::take(&mut things.to_do);
        drop(things);
        drop(given_up);
        self.table.given.notify_one();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join(); // a panic has ended the process
        }
    }
}

impl<T, R> Table<T, R> {
    fn clear(&self, mut work: impl FnMut(T) -> R) {
        while let Some(thing) = self.next() {
            let done = work(thing);
            self.lock().done.push_back(done);
            let _ = self.bell.write(1); // refused at 2^64 - 2: then it rings
        }
    }

    fn next(&self) -> Option<T> {
        let idle =
            |things: &mut Things<T, R>| things.to_do.is_empty() && things.work == Work::GoesOn;
        let things = self.given.wait_while(self.lock(), idle);
        things
            .unwrap_or_else(PoisonError::into_inner)
            .to_do
            .pop_front()
    }

    fn lock(&self) -> MutexGuard<'_, Things<T, R>> {
        self.things.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    use std::sync::mpsc;
    use std::time::Duration;

    const DEADLINE: Duration = Duration::from_secs(30);

    /// The next that is done, after the bell.
    fn done<T: Send + 'static, R: Send + 'static>(hand: &Hand<T, R>) -> R {
        loop {
            if let Some(done) = hand.take() {
                return done;
            }
            let mut bell = [PollFd::new(hand.bell(), PollFlags::POLLIN)];
            let most = PollTimeout::try_from(DEADLINE).unwrap();
            assert_eq!(poll(&mut bell, most), Ok(1), "the bell does not ring");
            hand.silence();
        }
    }

    #[test]
    fn things_are_done_one_after_the_other_in_their_order() {
        let hand = Hand::new("test", |number: u32| number * 2).unwrap();
        (0..100).for_each(|number| hand.give(number));
        for number in 0..100 {
            assert_eq!(done(&hand), number * 2);
        }
        assert!(hand.take().is_none());
    }

    #[test]
    fn what_was_begun_is_ended_and_what_was_not_is_dropped() {
        struct Thing(mpsc::Sender<&'static str>);
        impl Drop for Thing {
            fn drop(&mut self) {
                self.0.send("dropped").unwrap();
            }
        }
        let (said, says) = mpsc::channel();
        let (go_on, may_go_on) = mpsc::channel::<()>();
        let began = said.clone();
        let work = move |thing: Thing| {
            began.send("began").unwrap();
            may_go_on.recv_timeout(DEADLINE).unwrap();
            began.send("ended").unwrap();
            drop(thing);
        };
        let hand = Hand::new("test", work).unwrap();
        hand.give(Thing(said.clone()));
        assert_eq!(says.recv_timeout(DEADLINE), Ok("began"));
        hand.give(Thing(said.clone()));
        let ending = thread::spawn(move || drop(hand));
        assert_eq!(says.recv_timeout(DEADLINE), Ok("dropped"), "the second");
        assert!(!ending.is_finished(), "the first is under way");
        go_on.send(()).unwrap();
        assert_eq!(says.recv_timeout(DEADLINE), Ok("ended"));
        assert_eq!(says.recv_timeout(DEADLINE), Ok("dropped"), "the first");
        ending.join().unwrap();
        drop(said);
        assert!(says.recv().is_err(), "nothing else was begun");
    }
}
