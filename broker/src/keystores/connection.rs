//! One connection to a keystore: frames out, frames in, in order. Reading can be given up at any
//! await and taken up again; nothing that has arrived is lost.

use keystore::protocol::{self, FRAME_LEN_MAX, Reply, Request, VERSION, Welcome, frame_len};
use keystore::{Error, Kind, client};
use std::path::Path;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::timeout;

/// How long connecting and the handshake may take.
const HELLO_DEADLINE: Duration = Duration::from_secs(5);

/// How long the keystore may take to make room for a frame: it reads before it signs.
const SEND_DEADLINE: Duration = Duration::from_secs(5);

/// Room for two answers to a mint, which are about 700 bytes each, so that one read takes both.
const BUFFER_LEN: usize = 4096;

/// One connection past its handshake.
pub struct Connection {
    stream: UnixStream,
    buffer: Vec<u8>,
    filled: usize,
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
                buffer: vec![0; BUFFER_LEN],
                filled: 0,
                welcome: Welcome::nobody(),
            };
            let hello = Request::Hello { version: VERSION };
            connection.welcome = client::welcome(connection.call(&hello).await?)?;
            Ok(connection)
        };
        timeout(HELLO_DEADLINE, open).await.unwrap_or_else(|_| {
            let text = format!("socket {}: no answer", socket.display());
            Err(Error::new(Kind::Unavailable, text))
        })
    }

    /// One request and its answer, with a refusal as the error it carries.
    pub async fn call(&mut self, request: &Request) -> Result<Reply, Error> {
        self.send(request).await?;
        client::answer(Some(self.reply().await?))
    }

    /// Sends one request. Not cancel-safe: half a frame ends the connection.
    pub async fn send(&mut self, request: &Request) -> Result<(), Error> {
        let frame = protocol::encode(request)?;
        match timeout(SEND_DEADLINE, self.stream.write_all(&frame)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(lost().because(error)),
            Err(_) => Err(Error::new(Kind::Unavailable, "keystore does not read")),
        }
    }

    /// The next reply. Cancel-safe. An error means that the connection is of no more use.
    pub async fn reply(&mut self) -> Result<Reply, Error> {
        loop {
            if let Some(reply) = self.buffered()? {
                return Ok(reply);
            }
            let room = &mut self.buffer[self.filled..];
            match self.stream.read(room).await {
                Ok(0) => return Err(Error::new(Kind::Unavailable, "keystore hung up")),
                Ok(n) => self.filled += n,
                Err(error) => return Err(lost().because(error)),
            }
        }
    }

    /// A reply that has arrived whole; else there is room to read more of it.
    fn buffered(&mut self) -> Result<Option<Reply>, Error> {
        let Some((header, rest)) = self.buffer[..self.filled].split_first_chunk::<4>() else {
            return Ok(None);
        };
        let length = frame_len(*header)?;
        let Some(frame) = rest.get(..length) else {
            let whole = 4 + length;
            if self.buffer.len() < whole {
                self.buffer.resize(whole.min(4 + FRAME_LEN_MAX), 0);
            }
            return Ok(None);
        };
        let reply = protocol::decode(frame)?;
        self.buffer.copy_within(4 + length..self.filled, 0);
        self.filled -= 4 + length;
        Ok(Some(reply))
    }
}

fn lost() -> Error {
    Error::new(Kind::Unavailable, "connection lost")
}
