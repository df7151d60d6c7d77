//! How a keystore waits for requests. Between two of them a peer may be silent; inside one it has
//! [`FRAME_DEADLINE`], over all reads together, so that a byte now and then keeps no thread. What has
//! been read is wiped: one request carries a private key.

use crate::protocol::{self, Request, frame_len};
use crate::{Error, Kind};
use std::io::{self, Read};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};
use zeroize::{Zeroize, Zeroizing};

/// How long the rest of a frame may take once its first byte is there, and an answer to be taken.
pub const FRAME_DEADLINE: Duration = Duration::from_secs(5);

/// Waits for the next request; `None` at a clean end. A frame that is whole in the buffer costs no
/// system call.
///
/// # Errors
/// `Protocol` for what is no request, `Unavailable` if it did not come in time.
pub fn next_request(
    reader: &mut Incoming,
    idle: Option<Duration>,
) -> Result<Option<Request>, Error> {
    let lost = |e| Error::new(Kind::Unavailable, "connection lost").because(e);
    reader.fill().map_err(lost)?;
    if reader.buffer().is_empty() {
        return Ok(None);
    }
    if let Some((header, rest)) = reader.buffer().split_first_chunk::<4>()
        && rest.len() >= frame_len(*header)?
    {
        let length = frame_len(*header)?;
        let request = protocol::decode(&rest[..length]);
        reader.consume(4 + length);
        return request.map(Some);
    }
    let mut rest = Until {
        reader,
        deadline: Instant::now() + FRAME_DEADLINE,
    };
    let request = protocol::read(&mut rest);
    reader.stream().set_read_timeout(idle).map_err(lost)?;
    request
}

/// What a peer sends, read ahead.
pub struct Incoming {
    stream: UnixStream,
    bytes: Zeroizing<Vec<u8>>,
    /// What of them has arrived and was not taken yet.
    begin: usize,
    end: usize,
}

impl Incoming {
    /// With room for so many bytes.
    pub fn new(stream: UnixStream, room: usize) -> Incoming {
        Incoming {
            stream,
            bytes: Zeroizing::new(vec![0; room]),
            begin: 0,
            end: 0,
        }
    }

    /// Where it comes from.
    pub fn stream(&self) -> &UnixStream {
        &self.stream
    }

    /// What has arrived.
    pub fn buffer(&self) -> &[u8] {
        &self.bytes[self.begin..self.end]
    }

    /// Waits for something, if nothing has arrived; nothing comes at the end.
    fn fill(&mut self) -> io::Result<()> {
        if self.buffer().is_empty() {
            (self.begin, self.end) = (0, 0);
            self.end = self.stream.read(&mut self.bytes)?;
        }
        Ok(())
    }

    /// Takes and wipes so many bytes.
    fn consume(&mut self, length: usize) {
        let taken = self.begin..self.begin + length;
        self.bytes[taken].zeroize();
        self.begin += length;
    }
}

impl Read for Incoming {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.fill()?;
        let length = self.buffer().len().min(buffer.len());
        buffer[..length].copy_from_slice(&self.buffer()[..length]);
        self.consume(length);
        Ok(length)
    }
}

/// A reader with one deadline over all its reads.
struct Until<'a> {
    reader: &'a mut Incoming,
    deadline: Instant,
}

impl Read for Until<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        self.reader.stream().set_read_timeout(Some(left))?;
        self.reader.read(buffer)
    }
}
