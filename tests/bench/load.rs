//! The load generator: keep-alive HTTP/1.1 on Unix sockets, many connections on one thread.
//!
//! Closed loop: every connection asks, waits for its answer, asks again. It shares the cores with
//! what it measures, so that it does nothing but copy, find two line ends and read a number. It
//! must never judge an answer: whoever runs it says what is right.
#![allow(
    dead_code,
    reason = "the benchmark and the fault tests use different parts of it"
)]

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long an answer may take: the broker gives up on a request after 8 s at the latest.
const ANSWER_DEADLINE: Duration = Duration::from_secs(15);

/// Longest answer; an assertion is about 900 bytes.
const ANSWER_LEN_MAX: usize = 64 * 1024;

/// One whole answer and when it was asked for.
pub struct Answer<'a> {
    /// Which connection, from 0.
    pub connection: usize,
    /// When the first byte of the request was about to be written.
    pub asked: Instant,
    /// When the last byte of the answer was there.
    pub answered: Instant,
    /// HTTP status.
    pub status: u16,
    /// Status line and header fields.
    pub head: &'a str,
    /// The body.
    pub body: &'a [u8],
}

/// Whether a connection asks again.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// It does, at once.
    Ask,
    /// It has done its part.
    Stop,
}

/// `POST` of a target's name, as any client would send it.
pub fn request(target: &str) -> Vec<u8> {
    let body = format!("{{\"target\":\"{target}\"}}");
    format!(
        "POST {} HTTP/1.1\r\nhost: assertd\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{body}",
        assertd_client::api::ASSERTION_PATH,
        body.len()
    )
    .into_bytes()
}

/// Asks on `connections` connections until `each` has stopped all of them.
///
/// # Errors
/// If a connection cannot be made, breaks, or gives something other than an HTTP/1.1 answer with a
/// length, within the deadline.
pub fn ask(
    socket: &Path,
    connections: usize,
    request: &[u8],
    mut each: impl FnMut(&Answer) -> Next,
) -> io::Result<()> {
    let mut open = (0..connections)
        .map(|number| Connection::open(socket, number))
        .collect::<io::Result<Vec<_>>>()?;
    if let [connection] = open.as_mut_slice() {
        return connection.ask_alone(request, &mut each);
    }
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    for connection in &mut open {
        connection.stream.set_nonblocking(true)?;
        let event = EpollEvent::new(EpollFlags::EPOLLIN, connection.number as u64);
        epoll.add(connection.stream.as_fd(), event)?;
        connection.send(request)?;
    }
    let timeout = EpollTimeout::try_from(ANSWER_DEADLINE).map_err(io::Error::other)?;
    let mut events = vec![EpollEvent::empty(); connections];
    let mut asking = connections;
    while asking > 0 {
        let ready = epoll.wait(&mut events, timeout)?;
        if ready == 0 {
            return Err(ErrorKind::TimedOut.into());
        }
        for event in &events[..ready] {
            let connection = &mut open[event.data() as usize];
            if connection.receive()? == Received::Whole {
                match connection.hand_over(&mut each)? {
                    Next::Ask => connection.send(request)?,
                    Next::Stop => {
                        epoll.delete(connection.stream.as_fd())?;
                        asking -= 1;
                    }
                }
            }
        }
    }
    Ok(())
}

/// One connection, one request on it at a time.
pub struct Connection {
    stream: UnixStream,
    number: usize,
    buffer: Vec<u8>,
    got: usize,
    asked: Instant,
    /// Length of the head with its empty line and of the whole answer, once the head is there.
    parts: Option<(usize, usize)>,
}

#[derive(PartialEq, Eq)]
enum Received {
    Part,
    Whole,
}

impl Connection {
    /// Connects; `number` is handed back with each answer.
    pub fn open(socket: &Path, number: usize) -> io::Result<Connection> {
        let stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(ANSWER_DEADLINE))?;
        stream.set_write_timeout(Some(ANSWER_DEADLINE))?;
        Ok(Connection {
            stream,
            number,
            buffer: vec![0; 4096],
            got: 0,
            asked: Instant::now(),
            parts: None,
        })
    }

    fn ask_alone(
        &mut self,
        request: &[u8],
        each: &mut impl FnMut(&Answer) -> Next,
    ) -> io::Result<()> {
        loop {
            self.send(request)?;
            while self.receive()? == Received::Part {}
            if self.hand_over(each)? == Next::Stop {
                return Ok(());
            }
        }
    }

    /// A request is far smaller than a socket's buffer, and the last one has been answered.
    fn send(&mut self, request: &[u8]) -> io::Result<()> {
        (self.got, self.parts) = (0, None);
        self.asked = Instant::now();
        self.stream.write_all(request)
    }

    fn receive(&mut self) -> io::Result<Received> {
        if self.got == self.buffer.len() {
            if self.got >= ANSWER_LEN_MAX {
                return Err(strange("the answer is too long"));
            }
            self.buffer.resize(self.got * 2, 0);
        }
        match self.stream.read(&mut self.buffer[self.got..]) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(n) => self.got += n,
            Err(error) if error.kind() == ErrorKind::Interrupted => return Ok(Received::Part),
            Err(error) => return Err(error),
        }
        if self.parts.is_none() {
            self.parts = parts(&self.buffer[..self.got])?;
        }
        match self.parts {
            Some((_, whole)) if self.got > whole => Err(strange("more than was asked for")),
            Some((_, whole)) if self.got == whole => Ok(Received::Whole),
            _ => Ok(Received::Part),
        }
    }

    fn hand_over(&mut self, each: &mut impl FnMut(&Answer) -> Next) -> io::Result<Next> {
        let (head_len, whole) = self.parts.ok_or_else(|| strange("no answer"))?;
        let head = str::from_utf8(&self.buffer[..head_len]).map_err(io::Error::other)?;
        let status = head
            .get(9..12)
            .and_then(|status| status.parse().ok())
            .ok_or_else(|| strange("no status"))?;
        Ok(each(&Answer {
            connection: self.number,
            asked: self.asked,
            answered: Instant::now(),
            status,
            head,
            body: &self.buffer[head_len..whole],
        }))
    }
}

/// Where the head ends and where the answer does.
fn parts(bytes: &[u8]) -> io::Result<Option<(usize, usize)>> {
    let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else {
        return Ok(None);
    };
    let head = str::from_utf8(&bytes[..end]).map_err(io::Error::other)?;
    let length: usize = header(head, "content-length")
        .and_then(|value| value.parse().ok())
        .ok_or_else(|| strange("no content-length"))?;
    Ok(Some((end + 4, end + 4 + length)))
}

/// A header field's value.
pub fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().skip(1).find_map(|line| {
        let (key, value) = line.split_once(':')?;
        key.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

fn strange(what: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, what)
}

/// Times in ascending order and what can be said of them.
pub struct Times(Vec<Duration>);

impl Times {
    /// Sorts.
    pub fn new(mut times: Vec<Duration>) -> Times {
        times.sort_unstable();
        Times(times)
    }

    /// How many.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// The time that `percent` of all do not exceed, in microseconds; 0 if there are none.
    pub fn percentile_us(&self, percent: f64) -> f64 {
        let rank = (self.0.len() as f64 * percent / 100.0).ceil() as usize;
        let time = self.0.get(rank.saturating_sub(1)).or(self.0.last());
        time.map_or(0.0, |time| time.as_secs_f64() * 1e6)
    }
}
