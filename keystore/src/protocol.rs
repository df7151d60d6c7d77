//! What crosses the keystore's socket: typed messages of JSON in length-prefixed frames.
//!
//! A frame is a 4-byte big-endian length and that many bytes of JSON. The first request on a
//! connection is [`Request::Hello`]; requests are answered in order. There is one signing verb,
//! [`Request::Mint`], and it takes claims, never bytes. `docs/protocol.md` is the reference.

use crate::backend::Existing;
use crate::certificate::{Der, Validity};
use crate::charter::PurposeKind;
use crate::claims::Claims;
use crate::evidence::bundle::{AssertedKey, Bytes, CertifiedKey, Host, Module, Nonce};
use crate::evidence::bundle::{Quote, Selection, Tpm};
use crate::evidence::enrolment::{BLOB_LEN_MAX, SECRET_LEN};
use crate::evidence::healthy::State;
use crate::shown::unread;
use crate::survey::Line;
use crate::{Alg, Certificate, Charter, Error, KeyFile, KeyId, KeyName, Kid, Kind, PublicKey};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::fmt;
use std::io::{Read, Write};
use zeroize::Zeroizing;

/// The version both sides must speak. There is no negotiation: broker and keystores are installed
/// together, and a mismatch is an upgrade that has not been finished.
pub const VERSION: u32 = 3;

/// Longest frame in bytes, either way. A mint is about 600 bytes; a charter with many subjects is
/// the longest thing sent.
pub const FRAME_LEN_MAX: usize = 64 * 1024;

/// Longest charter as JSON, in bytes, so that it fits a frame with everything around it.
pub const CHARTER_LEN_MAX: usize = 32 * 1024;

/// What a peer may ask. It is not copied: one of them carries a private key.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// First on every connection.
    Hello {
        /// [`VERSION`]
        version: u32,
    },
    /// Broker: a JWS over these claims by this key, if its charter permits them.
    Mint {
        /// Which key.
        key: KeyId,
        /// What the broker takes the key for; must be the charter's own purpose.
        purpose: PurposeKind,
        /// What it shall say.
        claims: Claims,
    },
    /// Broker, root: the keys after `after`, as many as fit a frame.
    List {
        /// The last key of the page before, or none for the first page.
        after: Option<KeyId>,
    },
    /// Broker, root: how the keystore is.
    Health {},
    /// Broker, root: a look at token and keys, with a trial of how fast it signs. Takes seconds,
    /// and is done for one caller at a time.
    Check {},
    /// Root: a new key under a new charter. The same charter again answers with the same key.
    Make {
        /// Its id. No other version of it is recorded, for later ones come by rotation.
        key: KeyId,
        /// What it may ever say.
        charter: Charter,
    },
    /// Root: brings in a private key that was made elsewhere, as the first version of a key or its
    /// next. It is said of it for ever that it was. The same again answers with the same key.
    Import {
        /// Its id.
        key: KeyId,
        /// What it may ever say.
        charter: Charter,
        /// It, in the file that it came in.
        private_key: KeyFile,
    },
    /// Root: uses a key that is in the token already, as the first version of a key or its next. The
    /// token is not changed. The same again answers with the same key.
    Adopt {
        /// Its id from then on.
        key: KeyId,
        /// What it may ever say.
        charter: Charter,
        /// Which one.
        object: Existing,
    },
    /// Broker, root: the next version of a key, under the charter that its newest one has. The same
    /// number again answers with the same key.
    Next {
        /// Its id; a number after the newest one's.
        key: KeyId,
    },
    /// Broker, root: a certificate of a key by itself, or a request for one, if its charter allows it.
    Certify {
        /// Which key.
        key: KeyId,
        /// Which of the two.
        form: CertificateForm,
    },
    /// Root: another charter for all versions of a key.
    Amend {
        /// Which key.
        name: KeyName,
        /// Its new charter; purpose kind and algorithm stay.
        charter: Charter,
    },
    /// Broker, root: how far the keystore's counter has come.
    Counter {},
    /// Broker: has it come to `to`, or some steps nearer; one that is not there yet begins. It never
    /// goes back.
    Advance {
        /// How far.
        to: u64,
    },
    /// Broker: what the token says of one key, for who gave the nonce. What a TPM signs is made here, of
    /// the key's own charter.
    Attest {
        /// Theirs, new each time.
        nonce: Nonce,
        /// What the operator calls this host.
        host: Host,
        /// Which key.
        key: KeyId,
    },
    /// Broker: the state of the host, bound to what was said of keys on this connection for the same nonce
    /// and host, in that order.
    Quote {
        /// Theirs.
        nonce: Nonce,
        /// What the operator calls this host.
        host: Host,
        /// Which PCRs.
        selection: Selection,
    },
    /// Broker, root: what the token is.
    Identity {},
    /// Broker, root: the state of the host that keys are bound to from now on, as it is.
    State {},
    /// Root: opens what a verifier encrypted for this TPM and its attestation key alone.
    Activate {
        /// It.
        credential: Credential,
    },
    /// Root: destroys one version of a key, in the token too. The broker: one that a newer one has
    /// taken the place of.
    Destroy {
        /// Which one.
        key: KeyId,
    },
}

/// What TPM2_ActivateCredential opens, made by who enrols a TPM (TPM 2.0 Part 1, credential protection).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Credential {
    /// What stands in TPM2B_ID_OBJECT.
    pub blob: Bytes<BLOB_LEN_MAX>,
    /// What stands in TPM2B_ENCRYPTED_SECRET.
    pub secret: Bytes<BLOB_LEN_MAX>,
}

/// What is made for a key that is to be known by a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum CertificateForm {
    /// A certificate by itself for this time, in place of the one it has. The same time again answers
    /// with the same certificate.
    SelfSigned(Validity),
    /// A certificate signing request (RFC 2986), which is not kept.
    Request {},
}

/// What it answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Reply {
    /// To Hello.
    Welcome(Welcome),
    /// To Mint: the compact JWS.
    Minted {
        /// Header, claims and signature.
        jws: String,
    },
    /// To List.
    Keys {
        /// In the order of their ids.
        keys: Vec<KeyEntry>,
        /// Whether another page follows.
        more: bool,
    },
    /// To Health.
    Health(Health),
    /// To Check.
    Checked {
        /// A line for each thing that was looked at.
        lines: Vec<Line>,
    },
    /// To Make, Next, Import and Adopt.
    Made {
        /// The key.
        key: KeyEntry,
        /// False if it was there already, under the same charter.
        created: bool,
    },
    /// To Certify, self-signed.
    Certified {
        /// The key, with its certificate.
        key: KeyEntry,
    },
    /// To Certify, as a request.
    CertificateRequest {
        /// It.
        der: Der,
    },
    /// To Counter and Advance.
    Counter(Counter),
    /// To Attest.
    Attested(Box<Attested>),
    /// To Quote.
    Quoted(Box<Quote>),
    /// To Identity.
    Identity(Box<Identity>),
    /// To State.
    State(State),
    /// To Activate.
    Activated {
        /// What was in it, which proves to who made it that both keys are in one TPM.
        secret: Bytes<SECRET_LEN>,
    },
    /// To Amend and Destroy.
    Done {},
    /// To anything.
    Refused {
        /// What can be done about it.
        kind: Kind,
        /// The sentence for people.
        message: String,
    },
}

/// A number that only goes up, by which the broker tells a state directory of its own that is older than
/// the one it last wrote (standards §5.4, I7).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Counter {
    /// How far it has come; none before it was first advanced.
    pub value: Option<u64>,
    /// Where it is.
    pub place: CounterPlace,
}

/// Where a counter is, and so what it tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CounterPlace {
    /// In the TPM: no copy of any disk takes it back (TPM 2.0 Part 1, NV counters).
    Tpm,
    /// In a file of the keystore's state: a copy that holds that too takes it back.
    File,
}

/// What a token says of one of its keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Attested {
    /// A TPM signed it.
    Certified(CertifiedKey),
    /// It is what a module said.
    Asserted(AssertedKey),
}

/// What a token is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Identity {
    /// A TPM, with the keys by which others know it.
    Tpm(Tpm),
    /// A PKCS#11 token, in the words of its module.
    Pkcs11(Module),
}

/// The other side introduces itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Welcome {
    /// [`VERSION`]
    pub version: u32,
    /// Name of the keystore in the configuration.
    pub keystore: String,
    /// How many mints it works on at a time; connections beyond this wait inside.
    pub parallelism: usize,
    /// Process id, to be shown.
    pub pid: u32,
}

impl Welcome {
    /// Before anybody has answered.
    pub fn nobody() -> Welcome {
        Welcome {
            version: VERSION,
            keystore: String::new(),
            parallelism: 1,
            pid: 0,
        }
    }
}

/// One version of one key as the keystore knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyEntry {
    /// Its id.
    pub key: KeyId,
    /// RFC 7638 thumbprint.
    pub kid: Kid,
    /// The public half.
    pub public_key: PublicKey,
    /// What it may say.
    pub charter: Charter,
    /// What is known about where the private half lives.
    pub evidence: Evidence,
    /// Whether it can sign.
    pub condition: Condition,
    /// The certificate it was given last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<Certificate>,
}

/// Whether a key can sign now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Condition {
    /// Found in the token, and the start-up probe verified (B-SIG-1).
    Usable {},
    /// It cannot; nothing is made in its place.
    Failed {
        /// What can be done.
        kind: Kind,
        /// Why, and the remedy.
        why: String,
    },
}

/// Whether a keystore signs now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Standing {
    /// It does.
    Usable {},
    /// It does not, and tries by itself to do so again.
    Degraded {
        /// What can be done.
        kind: Kind,
        /// Why.
        why: String,
    },
    /// It does not, and a person has to act.
    Failed {
        /// What can be done.
        kind: Kind,
        /// Why, and the remedy.
        why: String,
    },
}

/// How well it is known that the private key lives in hardware.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum EvidenceLevel {
    /// Nothing is known.
    None,
    /// The token says so about attributes we read back.
    Asserted,
    /// A vendor's statement was verified.
    DeviceAttested,
    /// TPM2_Certify by an enrolled attestation key.
    TpmCertified,
}

impl fmt::Display for EvidenceLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            EvidenceLevel::None => "none",
            EvidenceLevel::Asserted => "asserted",
            EvidenceLevel::DeviceAttested => "device-attested",
            EvidenceLevel::TpmCertified => "tpm-certified",
        })
    }
}

/// Evidence level and the mark that never goes away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Evidence {
    /// How well.
    pub level: EvidenceLevel,
    /// Whether the key existed outside the token before.
    pub imported: bool,
}

/// How a keystore is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Health {
    /// Whether it signs now.
    pub standing: Standing,
    /// For how long, in seconds.
    pub for_s: u64,
    /// What it is, in words: module, token label, serial.
    pub token: String,
    /// What it passed the start-up probe for or offers by its mechanism list.
    pub algs: Vec<Alg>,
    /// Objects that carry our label and no record: reported, never touched (P6).
    pub strange: Vec<String>,
    /// Mints done since start.
    pub minted: u64,
    /// Mints refused or failed since start.
    pub failed: u64,
}

/// A message as one frame.
pub fn encode<M: Serialize>(message: &M) -> Result<Vec<u8>, Error> {
    encode_within(message, FRAME_LEN_MAX)
}

/// A message as one frame of a protocol with another limit.
///
/// # Errors
/// [`Kind::Protocol`] if it is longer.
pub fn encode_within<M: Serialize>(message: &M, len_max: usize) -> Result<Vec<u8>, Error> {
    let mut frame = vec![0; 4];
    serde_json::to_writer(&mut frame, message)
        .map_err(|e| Error::new(Kind::Internal, "message cannot be encoded").because(e))?;
    let length = frame.len() - 4;
    if length > len_max {
        return Err(Error::new(
            Kind::Protocol,
            format!("message of {length} bytes is longer than a frame ({len_max})"),
        ));
    }
    frame[..4].copy_from_slice(&(length as u32).to_be_bytes());
    Ok(frame)
}

/// The same, in memory that is wiped and was never moved: for a message with a private key in it.
pub fn encode_secret<M: Serialize>(message: &M) -> Result<Zeroizing<Vec<u8>>, Error> {
    let mut counted = Counted(0);
    let failed = |e| Error::new(Kind::Internal, "message cannot be encoded").because(e);
    serde_json::to_writer(&mut counted, message).map_err(failed)?;
    let mut frame = Zeroizing::new(Vec::with_capacity(4 + counted.0));
    let length = u32::try_from(counted.0).unwrap_or(u32::MAX);
    frame_len(length.to_be_bytes())?;
    frame.extend(length.to_be_bytes());
    serde_json::to_writer(&mut *frame, message).map_err(failed)?;
    Ok(frame)
}

/// Counts what is written.
struct Counted(usize);

impl Write for Counted {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// The length a frame header announces.
///
/// # Errors
/// [`Kind::Protocol`] if it is 0 or above [`FRAME_LEN_MAX`]; nothing is allocated before.
pub fn frame_len(header: [u8; 4]) -> Result<usize, Error> {
    frame_len_within(header, FRAME_LEN_MAX)
}

/// The same in a protocol with another limit.
///
/// # Errors
/// [`Kind::Protocol`] if it is 0 or above that.
pub fn frame_len_within(header: [u8; 4], len_max: usize) -> Result<usize, Error> {
    let length = u32::from_be_bytes(header) as usize;
    if length == 0 || length > len_max {
        return Err(Error::new(
            Kind::Protocol,
            format!("frame of {length} bytes; a frame has 1 to {len_max}"),
        ));
    }
    Ok(length)
}

/// The message in a frame's bytes.
pub fn decode<M: DeserializeOwned>(bytes: &[u8]) -> Result<M, Error> {
    serde_json::from_slice(bytes).map_err(|error| {
        let why = unread(&error);
        Error::new(
            Kind::Protocol,
            format!("message is not one of this protocol: {why}"),
        )
    })
}

/// Reads one message; `None` at a clean end between frames.
pub fn read<M: DeserializeOwned>(stream: &mut impl Read) -> Result<Option<M>, Error> {
    let lost = |e| Error::new(Kind::Unavailable, "connection lost").because(e);
    let mut header = [0; 4];
    let mut got = 0;
    while got < header.len() {
        match stream.read(&mut header[got..]) {
            Ok(0) if got == 0 => return Ok(None),
            Ok(0) => {
                return Err(Error::new(
                    Kind::Protocol,
                    "connection ended inside a frame",
                ));
            }
            Ok(n) => got += n,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(lost(e)),
        }
    }
    let mut bytes = Zeroizing::new(vec![0; frame_len(header)?]);
    stream.read_exact(&mut bytes).map_err(lost)?;
    decode(&bytes).map(Some)
}

/// Writes one message.
pub fn write<M: Serialize>(stream: &mut impl Write, message: &M) -> Result<(), Error> {
    write_frame(stream, &encode(message)?)
}

/// Writes one request, and leaves nothing of a private key behind.
pub fn write_request(stream: &mut impl Write, request: &Request) -> Result<(), Error> {
    match request {
        Request::Import { .. } => write_frame(stream, &encode_secret(request)?),
        _ => write(stream, request),
    }
}

fn write_frame(stream: &mut impl Write, frame: &[u8]) -> Result<(), Error> {
    stream
        .write_all(frame)
        .map_err(|e| Error::new(Kind::Unavailable, "connection lost").because(e))
}

impl From<Error> for Reply {
    fn from(error: Error) -> Reply {
        Reply::Refused {
            kind: error.kind(),
            message: error.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_message_survives_its_frame() {
        let request = Request::Hello { version: VERSION };
        let frame = encode(&request).unwrap();
        assert_eq!(read::<Request>(&mut &frame[..]).unwrap(), Some(request));
        assert_eq!(read::<Request>(&mut &[][..]).unwrap(), None);
    }

    #[test]
    fn a_frame_ends_at_its_limit() {
        assert!(frame_len((FRAME_LEN_MAX as u32).to_be_bytes()).is_ok());
        for length in [0, FRAME_LEN_MAX as u32 + 1, u32::MAX] {
            assert_eq!(
                frame_len(length.to_be_bytes()).unwrap_err().kind(),
                Kind::Protocol
            );
        }
    }

    #[test]
    fn there_is_no_verb_that_signs_bytes() {
        for verb in [
            r#"{"sign":{"key":"a/b.1","bytes":"AA"}}"#,
            r#"{"sign":{"key":"a/b.1","digest":"AA"}}"#,
            r#"{"mint":{"key":"a/b.1","bytes":"AA"}}"#,
            r#"{"mint":{"key":"a/b.1","purpose":"client_authentication","header":{},"claims":{"iss":"a","sub":"a","aud":"b","jti":"c","iat":1,"exp":2}}}"#,
            r#"{"mint":{"key":"a/b.1","purpose":"tls","claims":{"iss":"a","sub":"a","aud":"b","jti":"c","iat":1,"exp":2}}}"#,
            r#"{"mint":{"key":"a/b.1","purpose":"client_authentication","claims":{"iss":"a","sub":"a","aud":["b"],"jti":"c","iat":1,"exp":2}}}"#,
            r#"{"mint":{"key":"a/b.1","purpose":"client_authentication","claims":{"iss":"a","sub":"a","aud":"b","jti":"c","iat":1.5,"exp":2}}}"#,
            r#"{"mint":{"key":"a/b.1","purpose":"client_authentication","claims":{"iss":"a","sub":"a","aud":"b","jti":"c","iat":1,"exp":2,"azp":"x"}}}"#,
            r#"{"mint":{"key":"a/b.1","purpose":"client_authentication","claims":{"iss":"a","iss":"b","sub":"a","aud":"b","jti":"c","iat":1,"exp":2}}}"#,
        ] {
            assert!(decode::<Request>(verb.as_bytes()).is_err(), "{verb}");
        }
    }

    /// The error goes into the log of whoever reads, which the peer does not write.
    #[test]
    fn a_message_that_is_none_is_one_short_line() {
        let verb = format!(r#""\n<0>keystore hsm: {}""#, "all is well; ".repeat(4000));
        let wrong = decode::<Request>(verb.as_bytes()).unwrap_err();
        assert_eq!(wrong.kind(), Kind::Protocol);
        let said = wrong.to_string();
        assert!(said.contains("unknown variant `\\n<0>keystore"), "{said}");
        assert!(said.len() < 1000, "{said}");
    }

    proptest! {
        #[test]
        fn no_bytes_panic_the_decoder(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
            let _ = read::<Request>(&mut &bytes[..]);
            let _ = decode::<Request>(&bytes);
            let _ = decode::<Reply>(&bytes);
        }
    }
}
