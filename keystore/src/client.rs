//! A blocking client of the keystore's socket, for `assertctl` and for tests. The broker has its
//! own, which waits without blocking a thread.

use crate::protocol::{self, KeyEntry, Reply, Request, VERSION, Welcome};
use crate::{Error, Kind};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// One connection, past its handshake.
pub struct Client {
    stream: UnixStream,
    welcome: Welcome,
}

impl Client {
    /// Connects and says hello; each answer must come within `deadline`.
    ///
    /// # Errors
    /// `Unavailable` if nobody answers; `Protocol` for another version.
    pub fn connect(path: &Path, deadline: Duration) -> Result<Client, Error> {
        let failed = |e| {
            Error::new(
                Kind::Unavailable,
                format!("keystore socket {}: no answer", path.display()),
            )
            .because(e)
        };
        let mut stream = UnixStream::connect(path).map_err(failed)?;
        stream.set_read_timeout(Some(deadline)).map_err(failed)?;
        stream.set_write_timeout(Some(deadline)).map_err(failed)?;
        protocol::write(&mut stream, &Request::Hello { version: VERSION })?;
        let welcome = welcome(answer(protocol::read(&mut stream)?)?)?;
        Ok(Client { stream, welcome })
    }

    /// Gives each answer from here on this long.
    ///
    /// # Errors
    /// `Unavailable` if the system refuses; a deadline of zero is none.
    pub fn set_deadline(&mut self, deadline: Duration) -> Result<(), Error> {
        let set = self.stream.set_read_timeout(Some(deadline));
        set.map_err(|e| Error::new(Kind::Unavailable, "keystore socket: deadline").because(e))
    }

    /// Who answered.
    pub fn welcome(&self) -> &Welcome {
        &self.welcome
    }

    /// Asks one thing. A [`Reply::Refused`] comes back as the error it carries.
    pub fn call(&mut self, request: &Request) -> Result<Reply, Error> {
        protocol::write_request(&mut self.stream, request)?;
        answer(protocol::read(&mut self.stream)?)
    }

    /// All keys, page after page.
    pub fn keys(&mut self) -> Result<Vec<KeyEntry>, Error> {
        let mut pages = KeyPages::default();
        while let Some(request) = pages.next_request() {
            pages.take(self.call(&request)?)?;
        }
        Ok(pages.into_keys())
    }
}

/// All keys of a keystore, page after page, whoever carries the messages. A keystore whose pages
/// do not advance is an error, for it would go on for ever.
#[derive(Default)]
pub struct KeyPages {
    keys: Vec<KeyEntry>,
    complete: bool,
}

impl KeyPages {
    /// What to ask next; nothing once the last page is there.
    pub fn next_request(&self) -> Option<Request> {
        let after = self.keys.last().map(|entry| entry.key.clone());
        (!self.complete).then_some(Request::List { after })
    }

    /// Takes the answer to it.
    pub fn take(&mut self, reply: Reply) -> Result<(), Error> {
        let Reply::Keys { keys, more } = reply else {
            return Err(unexpected());
        };
        let last = self.keys.last().map(|entry| &entry.key);
        let moved = keys
            .first()
            .is_some_and(|first| last.is_none_or(|last| first.key > *last));
        if more && !moved {
            return Err(unexpected());
        }
        self.keys.extend(keys);
        self.complete = !more;
        Ok(())
    }

    /// The keys.
    pub fn into_keys(self) -> Vec<KeyEntry> {
        self.keys
    }
}

/// What a reply says, with a refusal as the error it is.
pub fn answer(reply: Option<Reply>) -> Result<Reply, Error> {
    match reply {
        Some(Reply::Refused { kind, message }) => Err(Error::new(kind, message)),
        Some(reply) => Ok(reply),
        None => Err(Error::new(
            Kind::Unavailable,
            "the keystore ended before it answered; do this again; if it ends again, see its log",
        )),
    }
}

/// The welcome in a reply, if it is one of our version.
pub fn welcome(reply: Reply) -> Result<Welcome, Error> {
    match reply {
        Reply::Welcome(welcome) if welcome.version == VERSION => Ok(welcome),
        Reply::Welcome(other) => Err(Error::new(
            Kind::Protocol,
            format!(
                "keystore speaks protocol {}, this program {VERSION}; finish the upgrade and \
                     restart both",
                other.version
            ),
        )),
        _ => Err(unexpected()),
    }
}

/// For a reply that does not belong to the request.
pub fn unexpected() -> Error {
    Error::new(
        Kind::Protocol,
        "keystore answered with another kind of reply than was asked for",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_end_with_the_last_one_and_must_advance() {
        let mut pages = KeyPages::default();
        let first = Some(Request::List { after: None });
        assert_eq!(pages.next_request(), first);
        let stuck = Reply::Keys {
            keys: Vec::new(),
            more: true,
        };
        assert_eq!(pages.take(stuck).unwrap_err().kind(), Kind::Protocol);
        let last = Reply::Keys {
            keys: Vec::new(),
            more: false,
        };
        pages.take(last).unwrap();
        assert_eq!(pages.next_request(), None);
    }
}
