//! Bytes on a Unix socket, as a client with bad manners sends them, and answers as bytes.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

/// A connection that says what it is told and nothing else.
pub struct Raw {
    stream: UnixStream,
    buffer: Vec<u8>,
}

/// One answer.
#[derive(Clone, PartialEq, Eq)]
pub struct Answer {
    /// Its status.
    pub status: u16,
    /// Head and body as they came.
    pub bytes: Vec<u8>,
    head_len: usize,
}

/// How a connection ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// Closed by the other side, after these bytes.
    Closed(Vec<u8>),
    /// Still open when time was up, after these bytes.
    Open(Vec<u8>),
}

/// A well-formed request for an assertion with this body.
pub fn post(body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    let mut request = format!(
        "POST /v1/assertion HTTP/1.1\r\nhost: assertd\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    request.extend_from_slice(body);
    request
}

/// A request for an assertion for a target.
pub fn post_target(target: &str) -> Vec<u8> {
    post(format!("{{\"target\":\"{target}\"}}"))
}

impl Raw {
    /// Connects.
    pub fn connect(socket: &Path) -> Raw {
        let stream = UnixStream::connect(socket)
            .unwrap_or_else(|error| panic!("{}: {error}", socket.display()));
        Raw::over(stream)
    }

    /// Over a connection that somebody made, who can do something about it if there is none.
    pub fn over(stream: UnixStream) -> Raw {
        Raw {
            stream,
            buffer: Vec::new(),
        }
    }

    /// Sends bytes; an error if the other side has closed.
    pub fn send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.set_write_timeout(Some(crate::DEADLINE))?;
        self.stream.write_all(bytes)
    }

    /// Says that no more will come.
    pub fn end_sending(&self) {
        let _ = self.stream.shutdown(std::net::Shutdown::Write); // it may be closed already
    }

    /// The next whole answer; `None` if the connection ends, or time does, before it is whole.
    pub fn answer(&mut self, deadline: Duration) -> Option<Answer> {
        let end = Instant::now() + deadline;
        loop {
            if let Some(length) = whole(&self.buffer) {
                let rest = self.buffer.split_off(length);
                return Answer::parse(std::mem::replace(&mut self.buffer, rest));
            }
            self.read_some(end).then_some(())?;
        }
    }

    /// Reads to the end of the connection, or of time.
    pub fn to_end(mut self, deadline: Duration) -> End {
        let end = Instant::now() + deadline;
        while self.read_some(end) {}
        if Instant::now() < end {
            End::Closed(self.buffer)
        } else {
            End::Open(self.buffer)
        }
    }

    /// False at the end of the connection or of time.
    fn read_some(&mut self, end: Instant) -> bool {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return false;
        }
        self.stream.set_read_timeout(Some(left)).unwrap();
        let mut bytes = [0; 4096];
        loop {
            match self.stream.read(&mut bytes) {
                Ok(0) => return false,
                Ok(length) => {
                    self.buffer.extend_from_slice(&bytes[..length]);
                    return true;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return false, // reset, or time is up: the caller looks at the clock
            }
        }
    }
}

impl Answer {
    /// From the bytes of exactly one answer.
    pub fn parse(bytes: Vec<u8>) -> Option<Answer> {
        let head_len = head_len(&bytes)?;
        let status = std::str::from_utf8(bytes.get(9..12)?).ok()?.parse().ok()?;
        bytes.starts_with(b"HTTP/1.").then_some(Answer {
            status,
            bytes,
            head_len,
        })
    }

    /// A header's value; names are compared without case.
    pub fn header(&self, name: &str) -> Option<&str> {
        header(&self.bytes[..self.head_len], name)
    }

    /// The body as text.
    pub fn body(&self) -> &str {
        std::str::from_utf8(&self.bytes[self.head_len..]).expect("every answer is UTF-8")
    }

    /// The body as JSON.
    pub fn json(&self) -> serde_json::Value {
        let body = self.body();
        serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {body:?}"))
    }

    /// The problem's code, the last word of its `type`; empty for an answer that is none.
    pub fn problem(&self) -> String {
        match self.status {
            200 => String::new(),
            _ => {
                let kind = self.member("type");
                let code = kind.strip_prefix("urn:assertd:problem:");
                code.unwrap_or_default().to_owned()
            }
        }
    }

    /// A text member of the body; empty if there is none.
    pub fn member(&self, name: &str) -> String {
        self.json()[name].as_str().unwrap_or_default().to_owned()
    }
}

impl std::fmt::Debug for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", String::from_utf8_lossy(&self.bytes))
    }
}

fn head_len(bytes: &[u8]) -> Option<usize> {
    bytes
        .windows(4)
        .position(|window| window == b"\r\n\r\n")
        .map(|at| at + 4)
}

/// Length of the first answer, if it is all there. assertd's answers have a content-length; one
/// without a body has it too.
fn whole(bytes: &[u8]) -> Option<usize> {
    let head_len = head_len(bytes)?;
    let body_len: usize = header(&bytes[..head_len], "content-length")?.parse().ok()?;
    (bytes.len() >= head_len + body_len).then_some(head_len + body_len)
}

fn header<'a>(head: &'a [u8], name: &str) -> Option<&'a str> {
    let text = std::str::from_utf8(head).ok()?;
    let fields = text.split("\r\n").filter_map(|line| line.split_once(':'));
    let mut values = fields.filter(|field| field.0.eq_ignore_ascii_case(name));
    values.next().map(|field| field.1.trim())
}
