//! The witness at work: who asks, is it the broker, answer. One blocking thread for each connection,
//! one question on it at a time. The kernel says which uid a peer has; everyone but the broker is hung
//! up on before a byte is read, and so is a broker that sends anything but questions.

use super::QUESTION;
use super::process::Reader;
use crate::sys;
use keystore::incoming::FRAME_DEADLINE;
use keystore::{Error, Kind, protocol};
use nix::errno::Errno;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, getsockopt, recvmsg, sockopt};
use std::io::IoSliceMut;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

/// Most connections at a time, twice what a broker has: one that was just replaced may leave some.
pub const CONNECTIONS_MAX: usize = 16;

/// Most descriptors that one message can bring (SCM_MAX_FD of unix(7)): with room for all of them none
/// arrives that is not seen, and closed.
const DESCRIPTORS_MAX: usize = 253;

struct Witness {
    broker_uid: u32,
    reader: Reader,
    connections: AtomicUsize,
}

/// What a connection brought.
#[derive(Debug)]
enum Received {
    /// The process that is asked about.
    Question(OwnedFd),
    /// The peer has closed it.
    End,
    /// Something that is no question.
    Broken(&'static str),
}

/// Serves until the process is ended.
///
/// # Errors
/// Only if the listener breaks.
pub fn run(listener: &UnixListener, broker_uid: u32) -> Result<(), Error> {
    let witness = Arc::new(Witness {
        broker_uid,
        reader: Reader::default(),
        connections: AtomicUsize::new(0),
    });
    for stream in listener.incoming() {
        match stream {
            Ok(stream) => accept(&witness, stream),
            Err(error) => {
                eprintln!("witness: accept: {error}");
                thread::sleep(Duration::from_millis(50)); // out of descriptors: do not spin
            }
        }
    }
    Err(Error::new(Kind::Internal, "the socket listens no more"))
}

fn accept(witness: &Arc<Witness>, stream: UnixStream) {
    let uid = getsockopt(&stream, sockopt::PeerCredentials).map(|peer| peer.uid());
    if uid != Ok(witness.broker_uid) {
        return;
    }
    if witness.connections.fetch_add(1, Ordering::Relaxed) >= CONNECTIONS_MAX {
        witness.connections.fetch_sub(1, Ordering::Relaxed);
        return;
    }
    let serving = witness.clone();
    let started = thread::Builder::new()
        .name("connection".to_owned())
        .spawn(move || {
            if let Err(why) = serving.serve(&stream) {
                eprintln!("witness: the broker was hung up on: {why}");
            }
            drop(stream); // before another is let in
            serving.connections.fetch_sub(1, Ordering::Relaxed);
        });
    if let Err(error) = started {
        witness.connections.fetch_sub(1, Ordering::Relaxed);
        eprintln!("witness: thread: {error}");
    }
}

impl Witness {
    /// Answers one question after the other. A broker that has stopped waiting is no fault.
    fn serve(&self, stream: &UnixStream) -> Result<(), &'static str> {
        if stream.set_write_timeout(Some(FRAME_DEADLINE)).is_err() {
            return Ok(());
        }
        loop {
            let pidfd = match receive(stream) {
                Received::Question(pidfd) => pidfd,
                Received::End => return Ok(()),
                Received::Broken(why) => return Err(why),
            };
            let answer = self.reader.attest(&pidfd);
            drop(pidfd); // who has the answer may count on that
            let answer = answer.map_err(|_| "its descriptor is no pidfd")?;
            if protocol::write(&mut &*stream, &answer).is_err() {
                return Ok(());
            }
        }
    }
}

/// Waits for one message. Whatever descriptors it brings are owned at once, so that all but the one
/// that is asked for are closed.
fn receive(stream: &UnixStream) -> Received {
    let mut bytes = [0; QUESTION.len()];
    let mut control = nix::cmsg_space!([RawFd; DESCRIPTORS_MAX]);
    let mut descriptors = Vec::new();
    let length = loop {
        let mut into = [IoSliceMut::new(&mut bytes)];
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        match recvmsg::<()>(stream.as_raw_fd(), &mut into, Some(&mut control), flags) {
            Ok(message) => {
                match message.cmsgs() {
                    Ok(controls) => descriptors.extend(controls.flat_map(received)),
                    Err(_) => truncated(),
                }
                break message.bytes;
            }
            Err(Errno::EINTR) => {}
            Err(_) => return Received::End,
        }
    };
    match (length, descriptors.pop(), descriptors.is_empty()) {
        (0, None, true) => Received::End,
        (_, Some(pidfd), true) if bytes[..length] == QUESTION => Received::Question(pidfd),
        (_, Some(_), false) => Received::Broken("it sent more than one descriptor"),
        (_, None, _) => Received::Broken("it sent no descriptor"),
        (_, Some(_), true) => Received::Broken("it sent what is no question; restart both"),
    }
}

fn received(control: ControlMessageOwned) -> Vec<OwnedFd> {
    match control {
        ControlMessageOwned::ScmRights(numbers) => {
            numbers.into_iter().map(sys::take_received_fd).collect()
        }
        _ => Vec::new(), // we have asked for nothing else
    }
}

/// MSG_CTRUNC: there was room for all, so the kernel could not make them, and which of them it made
/// nobody can say. A new process has none of them.
fn truncated() -> ! {
    eprintln!("witness: out of descriptors; ending");
    std::process::exit(69)
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::socket::{ControlMessage, sendmsg};
    use std::io::{IoSlice, Read, Write};
    use std::os::fd::AsFd;

    fn send(stream: &UnixStream, bytes: &[u8], descriptors: &[RawFd]) {
        let control = [ControlMessage::ScmRights(descriptors)];
        let control: &[ControlMessage] = match descriptors {
            [] => &[],
            _ => &control,
        };
        let bytes = [IoSlice::new(bytes)];
        sendmsg::<()>(stream.as_raw_fd(), &bytes, control, MsgFlags::empty(), None).unwrap();
    }

    fn open_descriptors() -> usize {
        std::fs::read_dir("/proc/self/fd").unwrap().count()
    }

    #[test]
    fn a_question_is_exactly_that_with_one_descriptor() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let number = theirs.as_fd().as_raw_fd();
        let before = open_descriptors();
        send(&ours, &QUESTION, &[number]);
        assert!(matches!(receive(&theirs), Received::Question(_)));
        let all = vec![number; DESCRIPTORS_MAX];
        for (bytes, descriptors, part) in [
            (&QUESTION[..], &[][..], "no descriptor"),
            (&QUESTION, &[number, number], "more than one"),
            (&QUESTION, &all, "more than one"),
            (&QUESTION[..7], &[number], "no question"),
            (b"exe? v2\n", &[number], "no question"),
            (&[0; 8], &[number], "no question"),
            (b"{", &[number, number, number], "more than one"),
            (b"GET / HTTP/1.1\r\n", &[], "no descriptor"),
        ] {
            send(&ours, bytes, descriptors);
            match receive(&theirs) {
                Received::Broken(why) => assert!(why.contains(part), "{why}"),
                other => panic!("{bytes:?} {}: {other:?}", descriptors.len()),
            }
            while bytes.len() > QUESTION.len() && theirs.set_nonblocking(true).is_ok() {
                if (&theirs).read(&mut [0; 64]).is_err() {
                    theirs.set_nonblocking(false).unwrap();
                    break; // what was left of it
                }
            }
            assert_eq!(open_descriptors(), before, "all were closed");
        }
        drop(ours);
        assert!(matches!(receive(&theirs), Received::End));
    }

    #[test]
    fn two_questions_at_once_are_two() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let number = theirs.as_fd().as_raw_fd();
        send(&ours, &QUESTION, &[number]);
        send(&ours, &QUESTION, &[number]);
        for _ in 0..2 {
            assert!(matches!(receive(&theirs), Received::Question(_)));
        }
        // What comes in pieces is not put together: the broker sends none.
        (&ours).write_all(&QUESTION[..4]).unwrap();
        assert!(matches!(receive(&theirs), Received::Broken(_)));
    }
}
