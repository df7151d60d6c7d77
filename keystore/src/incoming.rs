//! How a keystore waits for requests. Between two of them a peer may be silent; inside one it has
//! [`FRAME_DEADLINE`], over all reads together, so that a byte now and then keeps no thread.

use crate::protocol::{self, Request, frame_len};
use crate::{Error, Kind};
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// How long the rest of a frame may take once its first byte is there, and an answer to be taken.
pub const FRAME_DEADLINE: Duration = Duration::from_secs(5);

/// Waits for the next request; `None` at a clean end. A frame that is whole in the buffer costs no
/// system call.
///
/// # Errors
/// `Protocol` for what is no request, `Unavailable` if it did not come in time.
pub fn next_request(
    reader: &mut BufReader<UnixStream>,
    idle: Option<Duration>,
) -> Result<Option<Request>, Error> {
    let lost = |e| Error::new(Kind::Unavailable, "connection lost").because(e);
    let buffered = reader.fill_buf().map_err(lost)?;
    if buffered.is_empty() {
        return Ok(None);
    }
    if let Some((header, rest)) = buffered.split_first_chunk::<4>()
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
    reader.get_ref().set_read_timeout(idle).map_err(lost)?;
    request
}

/// A reader with one deadline over all its reads.
struct Until<'a> {
    reader: &'a mut BufReader<UnixStream>,
    deadline: Instant,
}

impl Read for Until<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        self.reader.get_ref().set_read_timeout(Some(left))?;
        self.reader.read(buffer)
    }
}
