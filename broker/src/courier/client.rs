//! The broker's side of the courier: asks for what is published of one issuer, or whether an assertion is
//! accepted, and waits for it, but not for ever. A connection carries one question, so that no answer can be taken for another's.

use super::{ANSWER_LEN_MAX, Answer, Canary, Failed, QUESTION_LEN_MAX, Question, Subject, VERSION};
use keystore::protocol::{encode_within, frame_len_within};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::timeout;

/// Asks the courier at one socket.
#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
}

/// Why there is no document, or no access token.
#[derive(Debug)]
pub enum Why {
    /// Nobody listens.
    Absent(PathBuf, io::Error),
    /// The courier did not answer in time.
    Late(Duration),
    /// It hung up twice: it ends, or does not know us.
    HungUp,
    /// It answered what is no answer.
    Lost(String),
    /// It was at another URL, because it reads another configuration than is in force here.
    Elsewhere(String),
    /// It could not.
    Failed(Failed),
}

impl Client {
    /// A client that connects whenever it is asked.
    pub fn new(socket: PathBuf) -> Client {
        Client { socket }
    }

    /// Where it connects.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// What is published of this issuer now. `url` is the `verify_url` that is in force; it is never
    /// sent, and what was found at another is not handed out. Of the bytes nothing is known but their
    /// number ([`super::BODY_LEN_MAX`] at most): [`super::readback::judge`] reads them. Cancel-safe.
    ///
    /// # Errors
    /// If there is nothing, with a sentence for people.
    pub async fn fetch(&self, issuer: &str, url: &str, deadline: Duration) -> Result<Vec<u8>, Why> {
        let question = asking(Subject::Issuer(issuer.to_owned()));
        let answer = timeout(deadline, self.ask(&question)).await;
        match answer.unwrap_or(Err(Why::Late(deadline)))? {
            Answer::Document(document) if document.url == url => Ok(document.body),
            Answer::Document(document) => Err(Why::Elsewhere(document.url)),
            Answer::Accepted(_) => Err(unasked()),
            Answer::Failed(failed) => Err(Why::Failed(failed)),
        }
    }

    /// Has an assertion redeemed. `url` is the token endpoint that is in force; it is never sent, and what another
    /// has accepted counts for nothing. Asked once: an assertion is good for one time.
    ///
    /// # Errors
    /// If there is no access token, with a sentence for people.
    pub async fn redeem(&self, canary: Canary, url: &str, deadline: Duration) -> Result<(), Why> {
        let question = asking(Subject::Canary(canary));
        let answer = timeout(deadline, self.ask_once(&question)).await;
        match answer.unwrap_or(Err(Why::Late(deadline)))? {
            Answer::Accepted(accepted) if accepted.url == url => Ok(()),
            Answer::Accepted(accepted) => Err(Why::Elsewhere(accepted.url)),
            Answer::Document(_) => Err(unasked()),
            Answer::Failed(failed) => Err(Why::Failed(failed)),
        }
    }

    /// A courier that ended is asked again once: another one takes its place, for instance because the
    /// configuration has changed.
    async fn ask(&self, question: &Question) -> Result<Answer, Why> {
        match self.ask_once(question).await {
            Err(Why::HungUp) => self.ask_once(question).await,
            answer => answer,
        }
    }

    async fn ask_once(&self, question: &Question) -> Result<Answer, Why> {
        let lost = |error: io::Error| match error.kind() {
            io::ErrorKind::UnexpectedEof
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::ConnectionReset => Why::HungUp,
            _ => Why::Lost(error.to_string()),
        };
        let unclear = |error: keystore::Error| Why::Lost(error.to_string());
        let question = encode_within(question, QUESTION_LEN_MAX).map_err(unclear)?;
        let connected = UnixStream::connect(&self.socket).await;
        let mut stream = connected.map_err(|error| Why::Absent(self.socket.clone(), error))?;
        stream.write_all(&question).await.map_err(lost)?;
        let mut header = [0; 4];
        stream.read_exact(&mut header).await.map_err(lost)?;
        let length = frame_len_within(header, ANSWER_LEN_MAX).map_err(unclear)?;
        let mut frame = vec![0; length];
        stream.read_exact(&mut frame).await.map_err(lost)?;
        Answer::decode(&frame).map_err(unclear)
    }
}

fn asking(subject: Subject) -> Question {
    Question {
        version: VERSION,
        subject,
    }
}

fn unasked() -> Why {
    Why::Lost("it answers what was not asked".to_owned())
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Why::Absent(socket, error) => write!(
                f,
                "no courier at {}: {error}; run `systemctl enable --now assertd-courier.socket`, or \
                 without systemd install assertd-courier beside assertd",
                socket.display()
            ),
            Why::Late(deadline) => write!(
                f,
                "the courier did not answer within {} s; see its log",
                deadline.as_secs()
            ),
            Why::HungUp => f.write_str("the courier hung up; see its log"),
            Why::Lost(why) => write!(f, "the courier did not answer: {why}"),
            Why::Elsewhere(url) => write!(
                f,
                "the courier was at {url:?}, and the configuration in force names another URL; run \
                 `assertctl reload`"
            ),
            Why::Failed(failed) => failed.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{BODY_LEN_MAX, Document, Failure};
    use super::*;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixListener;
    use std::thread;

    const URL: &str = "https://id.example/jwks.json";

    /// A courier that gives each connection the next of these, and then is silent.
    fn answering(answers: Vec<Vec<u8>>) -> (tempfile::TempDir, Client) {
        let dir = tempfile::tempdir().unwrap();
        let client = Client::new(dir.path().join("courier.sock"));
        let listener = UnixListener::bind(client.socket()).unwrap();
        thread::spawn(move || {
            for answer in answers {
                let (mut stream, _) = listener.accept().unwrap();
                let mut header = [0; 4];
                stream.read_exact(&mut header).unwrap();
                let mut question = vec![0; u32::from_be_bytes(header) as usize];
                stream.read_exact(&mut question).unwrap();
                assert_eq!(question, br#"{"version":2,"issuer":"prod"}"#);
                let _ = stream.write_all(&answer); // one too long is not waited for
            }
            let _silent = listener.accept();
            thread::park();
        });
        (dir, client)
    }

    fn framed(answer: &Answer) -> Vec<u8> {
        encode_within(answer, 2 * ANSWER_LEN_MAX).unwrap()
    }

    fn document(url: &str, len: usize) -> Vec<u8> {
        framed(&Answer::Document(Document {
            url: url.to_owned(),
            body: vec![7; len],
        }))
    }

    async fn fetch(client: &Client) -> Result<Vec<u8>, Why> {
        client.fetch("prod", URL, Duration::from_millis(500)).await
    }

    #[tokio::test]
    async fn a_document_is_brought_and_so_is_the_reason_why_there_is_none() {
        let failed = Failed::new(Failure::Status(500), "https://id.example/: 500");
        let (_dir, client) = answering(vec![
            document(URL, BODY_LEN_MAX),
            framed(&Answer::Failed(failed.clone())),
            document("https://id.example/other", 1),
        ]);
        assert_eq!(fetch(&client).await.unwrap(), vec![7; BODY_LEN_MAX]);
        match fetch(&client).await.unwrap_err() {
            Why::Failed(found) => assert_eq!(found, failed),
            other => panic!("{other}"),
        }
        let elsewhere = fetch(&client).await.unwrap_err();
        assert!(matches!(elsewhere, Why::Elsewhere(_)), "{elsewhere}");
        let late = fetch(&client).await.unwrap_err();
        assert!(matches!(late, Why::Late(_)), "{late}");
    }

    #[tokio::test]
    async fn a_courier_that_answers_nonsense_has_brought_nothing() {
        let answers: [&[u8]; 3] = [b"\0\0\0\0", b"\0\0\0\x02{}", b"\xff\xff\xff\xff"];
        let mut answers: Vec<Vec<u8>> = answers.map(<[u8]>::to_vec).to_vec();
        answers.push(document(URL, BODY_LEN_MAX + 1));
        let count = answers.len();
        let (_dir, client) = answering(answers);
        for _ in 0..count {
            let lost = fetch(&client).await.unwrap_err();
            assert!(matches!(lost, Why::Lost(_)), "{lost}");
        }
    }

    #[tokio::test]
    async fn a_courier_that_ends_is_asked_once_more() {
        let begun: &[u8] = b"\0\0\0\x10{\"document\":";
        for ends in [&b""[..], b"\0\0", begun] {
            let (_dir, client) = answering(vec![ends.to_vec(), document(URL, 1)]);
            assert_eq!(fetch(&client).await.unwrap(), [7]);
            let (_dir, client) = answering(vec![ends.to_vec(), ends.to_vec()]);
            let hung_up = fetch(&client).await.unwrap_err();
            assert!(matches!(hung_up, Why::HungUp), "{hung_up}");
        }
    }

    #[tokio::test]
    async fn nobody_there_is_said_with_what_to_do() {
        let client = Client::new("/nowhere/courier.sock".into());
        let absent = fetch(&client).await.unwrap_err().to_string();
        assert!(absent.contains("assertd-courier.socket"), "{absent}");
        let long = "a".repeat(QUESTION_LEN_MAX);
        let refused = client.fetch(&long, URL, Duration::from_secs(1)).await;
        assert!(matches!(refused, Err(Why::Lost(_))));
    }
}
