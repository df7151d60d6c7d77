//! The keystore's protocol, both ways. The input is what a peer sends over one connection, in the
//! pieces that its first byte says.
//!
//! Asserted: nothing panics; no buffer is longer than a frame may be; what is no message is said to be
//! none on one short line; what is decoded is encoded and decoded to the same; the server's reader
//! over a socket sees what the plain one sees; no uid's role is allowed a verb that is not its own; a
//! lying keystore cannot keep its client asking.

use keystore::client::{KeyPages, answer, welcome};
use keystore::incoming::{Incoming, next_request};
use keystore::protocol::{self, FRAME_LEN_MAX, Reply, Request, VERSION};
use keystore::role::{Role, allowed};
use keystore::{Error, KeyId, Kind};
use std::fmt::Debug;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;

/// Fits a socket's buffer, so that nobody waits for a reader.
const INPUT_LEN_MAX: usize = 2 * (4 + FRAME_LEN_MAX);

/// Runs one input.
pub fn check(data: &[u8]) {
    let Some((pieces, stream)) = data.split_first() else {
        return;
    };
    let stream = &stream[..stream.len().min(INPUT_LEN_MAX)];
    let requests = messages::<Request>(*pieces, stream);
    for error in requests.iter().filter_map(|it| it.as_ref().err()) {
        let said = error.to_string();
        assert!(said.len() < 4000 && !said.contains('\n'), "{said}");
    }
    for request in requests.iter().flatten() {
        comes_back(request);
        has_its_roles(request);
    }
    assert_eq!(seen(&requests), seen(&through_a_socket(stream)));

    let replies = messages::<Reply>(*pieces, stream);
    for reply in replies.iter().flatten() {
        comes_back(reply);
    }
    a_client_comes_to_an_end(replies.into_iter().flatten().collect());

    // Without a frame, where most of the input is message.
    for message in [protocol::decode::<Request>(stream)].iter().flatten() {
        comes_back(message);
        has_its_roles(message);
    }
    protocol::decode::<Reply>(stream)
        .iter()
        .for_each(comes_back);
}

/// A stream that gives some bytes at a time, and says when it is asked for too many at once.
struct Pieces<'a> {
    left: &'a [u8],
    most: usize,
}

impl Read for Pieces<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        assert!(
            buffer.len() <= FRAME_LEN_MAX,
            "a buffer longer than a frame"
        );
        let length = buffer.len().min(self.most).min(self.left.len());
        let (given, left) = self.left.split_at(length);
        buffer[..length].copy_from_slice(given);
        self.left = left;
        Ok(length)
    }
}

/// Every message up to the end or the first that is none.
fn messages<M: serde::de::DeserializeOwned>(pieces: u8, stream: &[u8]) -> Vec<Result<M, Error>> {
    let mut stream = Pieces {
        left: stream,
        most: usize::from(pieces) + 1,
    };
    until_the_end(|| protocol::read(&mut stream))
}

fn until_the_end<M>(mut next: impl FnMut() -> Result<Option<M>, Error>) -> Vec<Result<M, Error>> {
    let mut messages = Vec::new();
    while let Some(message) = next().transpose() {
        let ends = message.is_err();
        messages.push(message);
        if ends {
            break;
        }
    }
    messages
}

/// The same as the server reads it.
fn through_a_socket(stream: &[u8]) -> Vec<Result<Request, Error>> {
    let (mut peer, ours) = UnixStream::pair().expect("two descriptors");
    peer.write_all(stream).expect("it fits the socket's buffer");
    peer.shutdown(Shutdown::Write).expect("it is open");
    let mut reader = Incoming::new(ours, 16 * 1024);
    until_the_end(|| next_request(&mut reader, None))
}

fn seen(requests: &[Result<Request, Error>]) -> Vec<Result<&Request, Kind>> {
    let seen = requests.iter().map(|it| it.as_ref().map_err(Error::kind));
    seen.collect()
}

/// What was decoded has an encoding that decodes to it, and no second one.
fn comes_back<M>(message: &M)
where
    M: serde::Serialize + serde::de::DeserializeOwned + PartialEq + Debug,
{
    let json = serde_json::to_vec(message).expect("messages are structs, strings and numbers");
    match protocol::encode(message) {
        Ok(frame) => {
            let (head, body) = frame
                .split_first_chunk::<4>()
                .expect("a frame has a header");
            assert_eq!(protocol::frame_len(*head).ok(), Some(body.len()));
            assert_eq!(body, json);
            let again: M = protocol::decode(body).expect("what is encoded is decoded");
            assert_eq!(again, *message);
        }
        Err(error) => {
            assert_eq!(error.kind(), Kind::Protocol);
            assert!(json.len() > FRAME_LEN_MAX, "refused, and fits: {error}");
        }
    }
}

/// Who may ask what, written once more. A verb that nobody has thought about does not compile.
fn has_its_roles(request: &Request) {
    use Request::{
        Activate, Adopt, Advance, Amend, Attest, Certify, Check, Counter, Destroy, Health, Hello,
        Identity, Import, List, Make, Mint, Next, Quote, State,
    };
    for role in [Role::Broker, Role::Root, Role::Own] {
        let may = match request {
            _ if role == Role::Own => true,
            Hello { .. } | Health {} | List { .. } | Check {} => true,
            Counter {} | Identity {} | State {} => true,
            // Which versions, and what of them, is a matter of the records.
            Next { .. } | Certify { .. } | Destroy { .. } => true,
            Mint { .. } | Advance { .. } | Attest { .. } | Quote { .. } => role == Role::Broker,
            Make { .. } | Import { .. } | Adopt { .. } | Amend { .. } | Activate { .. } => {
                role == Role::Root
            }
        };
        let verdict = allowed(role, request);
        assert_eq!(verdict.is_ok(), may, "{request:?} {role:?}");
    }
}

/// A client that gets these answers, whatever it asks.
fn a_client_comes_to_an_end(replies: Vec<Reply>) {
    let mut pages = KeyPages::default();
    let mut last: Option<KeyId> = None;
    for reply in replies {
        let refused = matches!(reply, Reply::Refused { .. });
        let Ok(reply) = answer(Some(reply)) else {
            assert!(refused);
            continue;
        };
        assert!(!refused, "a refusal is an error");
        if let Ok(welcome) = welcome(reply.clone()) {
            assert_eq!(welcome.version, VERSION);
        }
        let Some(Request::List { after }) = pages.next_request() else {
            break;
        };
        assert_eq!(after, last, "the next page is asked for from the last key");
        if pages.take(reply).is_err() {
            break;
        }
        if let Some(Request::List { after }) = pages.next_request() {
            assert!(after > last, "pages that go on advance");
            last = after;
        }
    }
}
