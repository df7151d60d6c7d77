//! The threads of the proxy: one that accepts for each port, one for each connection. They end with
//! their connections, and with the process.

use super::commands::Scope;
use super::rules::{Action, Order, Rules, Spoil};
use pkcs11_shim::which::Stamp;
use std::collections::HashMap;
use std::io::{Error, ErrorKind, Read, Result, Write};
use std::net::{IpAddr, Shutdown, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// `tag(2) size(4) code(4)`
const HEAD_LEN: usize = 10;

/// Larger than any command or answer of a TPM.
const MESSAGE_LEN_MAX: usize = 64 * 1024;

/// What `huge` gives: tpm2-tss has room for 4,096.
const HUGE_LEN: usize = 5_000;

/// How many bytes `truncate` and `short` take away.
const CUT_LEN: usize = 4;

/// Bytes behind what an answer gives: the session's, for password sessions (TPM 2.0 part 1, §18.7).
const SESSION_LEN: usize = 5;
const TAG_SESSIONS: [u8; 2] = [0x80, 0x02];

/// What is kept of commands for [`Shared::has_seen`]; a test that looks sends less.
const RECORD_LEN_MAX: usize = 4 << 20;

/// How often somebody who stalls looks whether to go on.
const STALL_LOOK: Duration = Duration::from_millis(20);

/// What all threads know.
pub struct Shared {
    target: (IpAddr, u16),
    rules_file: PathBuf,
    rules: Mutex<Rules>,
    tally: Mutex<Tally>,
    /// swtpm serves one connection at a time.
    tpm: Mutex<()>,
    pub closed: AtomicBool,
}

#[derive(Default)]
pub struct Tally {
    pub seen: HashMap<u32, u64>,
    pub fired: HashMap<u32, u64>,
    record: Vec<u8>,
}

/// Whether a connection goes on.
enum Next {
    Command,
    Close,
}

/// Serves every connection of a port on a thread of its own.
pub fn accept(
    listener: TcpListener,
    shared: Arc<Shared>,
    serve: fn(TcpStream, &Shared) -> Result<()>,
) -> JoinHandle<()> {
    thread::spawn(move || {
        for stream in listener.incoming() {
            if shared.closed.load(Ordering::SeqCst) {
                return;
            }
            let shared = shared.clone();
            // An error is a connection that has ended, at one end or the other.
            thread::spawn(move || stream.and_then(|stream| serve(stream, &shared)));
        }
    })
}

/// The data port.
pub fn commands(mut client: TcpStream, shared: &Shared) -> Result<()> {
    loop {
        let command = message(&mut client)?;
        let code = code(&command);
        shared.note(code, &command);
        let (order, stamp) = shared.order(code);
        let next = match order {
            Some(order) => spoilt(&mut client, shared, &command, order, stamp)?,
            None => {
                client.write_all(&shared.ask(&command)?)?;
                Next::Command
            }
        };
        if let Next::Close = next {
            return client.shutdown(Shutdown::Both);
        }
    }
}

/// The control port.
pub fn control(client: TcpStream, shared: &Shared) -> Result<()> {
    let (host, port) = shared.target;
    let server = TcpStream::connect((host, port + 1))?;
    let (mut from, mut to) = (client.try_clone()?, server.try_clone()?);
    thread::spawn(move || {
        let _ = std::io::copy(&mut from, &mut to); // either may go at any time
        let _ = to.shutdown(Shutdown::Write);
    });
    let (mut from, mut to) = (server, client);
    std::io::copy(&mut from, &mut to)?;
    to.shutdown(Shutdown::Write)
}

/// Carries an order out. What fired is counted before anybody can see it.
fn spoilt(
    client: &mut TcpStream,
    shared: &Shared,
    command: &[u8],
    order: Order,
    stamp: Option<Stamp>,
) -> Result<Next> {
    let code = code(command);
    thread::sleep(order.delay);
    match order.action {
        None => {
            shared.fire(code);
            client.write_all(&shared.ask(command)?)?;
        }
        Some(Action::Answer(rc)) => {
            shared.fire(code);
            client.write_all(&answer(rc))?;
        }
        Some(Action::Lie(rc)) => {
            shared.ask(command)?;
            shared.fire(code);
            client.write_all(&answer(rc))?;
        }
        Some(Action::Drop) => {
            shared.fire(code);
            return Ok(Next::Close);
        }
        Some(Action::DropAfter) => {
            shared.ask(command)?;
            shared.fire(code);
            return Ok(Next::Close);
        }
        Some(Action::Stall) => {
            shared.fire(code);
            shared.wait_for_other_rules(client, stamp)?;
            client.write_all(&shared.ask(command)?)?;
        }
        Some(Action::Spoil(how)) => {
            let true_reply = shared.ask(command)?;
            let Some((reply, next)) = how.spoil(&true_reply) else {
                client.write_all(&true_reply)?; // there is nothing to spoil
                return Ok(Next::Command);
            };
            shared.fire(code);
            client.write_all(&reply)?;
            return Ok(next);
        }
        Some(Action::Delay(_)) => unreachable!("delays are not an order's action"),
    }
    Ok(Next::Command)
}

impl Shared {
    /// For the TPM with this data port.
    pub fn new(target: (IpAddr, u16), rules_file: PathBuf) -> Shared {
        Shared {
            target,
            rules: Mutex::new(Rules::new(rules_file.clone())),
            rules_file,
            tally: Mutex::default(),
            tpm: Mutex::new(()),
            closed: AtomicBool::new(false),
        }
    }

    /// One of the counters.
    pub fn tally(&self, which: fn(&Tally) -> &HashMap<u32, u64>, scope: Scope) -> u64 {
        let tally = self.tally.lock().unwrap();
        match scope {
            Scope::All => which(&tally).values().sum(),
            Scope::Code(code) => which(&tally).get(&code).copied().unwrap_or_default(),
        }
    }

    /// Whether these bytes were in a command.
    pub fn has_seen(&self, bytes: &[u8]) -> bool {
        let record = &self.tally.lock().unwrap().record;
        assert!(record.len() < RECORD_LEN_MAX, "not all commands were kept");
        record.windows(bytes.len()).any(|window| window == bytes)
    }

    fn note(&self, code: u32, command: &[u8]) {
        let mut tally = self.tally.lock().unwrap();
        *tally.seen.entry(code).or_default() += 1;
        let room = RECORD_LEN_MAX - tally.record.len();
        tally.record.extend(command.iter().take(room));
    }

    fn fire(&self, code: u32) {
        *self.tally.lock().unwrap().fired.entry(code).or_default() += 1;
    }

    /// What applies to a command, and the rules it is by.
    fn order(&self, code: u32) -> (Option<Order>, Option<Stamp>) {
        let mut rules = self.rules.lock().unwrap();
        match rules.next(code) {
            Ok(order) => (order, rules.stamp()),
            Err(line) => {
                // A panic would end this thread alone, and the test could pass.
                eprintln!(
                    "tpmproxy: {}: not a rule: {line}",
                    self.rules_file.display()
                );
                std::process::abort();
            }
        }
    }

    /// Has the TPM carry it out.
    fn ask(&self, command: &[u8]) -> Result<Vec<u8>> {
        let _alone = self.tpm.lock().unwrap();
        let mut tpm = TcpStream::connect(self.target)?;
        tpm.write_all(command)?;
        message(&mut tpm)
    }

    /// Returns when there are other rules, fails when the client goes.
    fn wait_for_other_rules(&self, client: &mut TcpStream, stamp: Option<Stamp>) -> Result<()> {
        client.set_read_timeout(Some(STALL_LOOK))?;
        while Stamp::of(&self.rules_file) == stamp {
            match client.peek(&mut [0]) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(_) => thread::sleep(STALL_LOOK), // it talks on, which no TCTI does
                Err(error) if is_timeout(&error) => {}
                Err(error) => return Err(error),
            }
        }
        client.set_read_timeout(None)
    }
}

impl Spoil {
    /// What to say in place of a reply; `None` if it has nothing that could be spoilt so.
    fn spoil(self, reply: &[u8]) -> Option<(Vec<u8>, Next)> {
        let mut bytes = reply.to_vec();
        let next = match self {
            Spoil::Truncate => {
                bytes.truncate(reply.len() - CUT_LEN);
                Next::Close
            }
            Spoil::Short => {
                if reply.len() < HEAD_LEN + CUT_LEN {
                    return None;
                }
                bytes.truncate(reply.len() - CUT_LEN);
                set_size(&mut bytes);
                Next::Command
            }
            Spoil::Oversize => {
                bytes[2..6].fill(0xff);
                Next::Close
            }
            Spoil::Huge => {
                bytes.resize(HUGE_LEN, 0);
                noise(&mut bytes[reply.len()..]);
                set_size(&mut bytes);
                Next::Command
            }
            Spoil::Garbage => {
                noise(&mut bytes);
                Next::Close
            }
            Spoil::Scramble => {
                if reply.len() == HEAD_LEN {
                    return None;
                }
                noise(&mut bytes[HEAD_LEN..]);
                Next::Command
            }
            Spoil::Flip => {
                let behind = if reply.starts_with(&TAG_SESSIONS) {
                    SESSION_LEN
                } else {
                    0
                };
                if reply.len() <= HEAD_LEN + behind {
                    return None;
                }
                let last = reply.len() - behind - 1;
                bytes[last] ^= 1;
                Next::Command
            }
        };
        Some((bytes, next))
    }
}

/// Bytes that look random, the same each time.
fn noise(bytes: &mut [u8]) {
    let mut next = 0x9d_u8;
    for byte in bytes {
        next = next.wrapping_mul(167).wrapping_add(91);
        *byte = next;
    }
}

fn set_size(message: &mut [u8]) {
    let size = u32::try_from(message.len()).expect("no message has 4 GiB");
    message[2..6].copy_from_slice(&size.to_be_bytes());
}

/// An answer that is only a response code.
fn answer(rc: u32) -> Vec<u8> {
    let head = [0x80, 0x01, 0, 0, 0, 10];
    [&head[..], &rc.to_be_bytes()].concat()
}

fn code(message: &[u8]) -> u32 {
    u32::from_be_bytes(message[6..10].try_into().expect("four bytes"))
}

/// One whole command or answer.
fn message(stream: &mut TcpStream) -> Result<Vec<u8>> {
    let mut bytes = vec![0; HEAD_LEN];
    stream.read_exact(&mut bytes)?;
    let size = u32::from_be_bytes(bytes[2..6].try_into().expect("four bytes"));
    let size = usize::try_from(size).expect("a usize has 32 bits");
    if !(HEAD_LEN..=MESSAGE_LEN_MAX).contains(&size) {
        return Err(Error::new(ErrorKind::InvalidData, "no TPM message"));
    }
    bytes.resize(size, 0);
    stream.read_exact(&mut bytes[HEAD_LEN..])?;
    Ok(bytes)
}

fn is_timeout(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}
