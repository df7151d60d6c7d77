//! Stands between the keystore and swtpm and spoils what a test asks for. A TPM command is
//! `tag(2) size(4) code(4) …`; the TCTI makes a connection for each.

use harness::swtpm::Swtpm;
use keystore::tcti::Tcti;
use std::collections::{HashMap, VecDeque};
use std::io::{Read, Write};
use std::net::{IpAddr, Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

/// What happens to the next command of a kind.
#[derive(Clone, Copy, Debug)]
pub enum Fault {
    /// The TPM carries it out, and its reply is lost.
    DropReply,
    /// The TPM does not get it, and this is the answer.
    Answer(u32),
    /// The TPM carries it out, and one bit of what it gives is another.
    FlipBit,
}

/// Bytes behind what a reply gives: the session's, for password sessions.
const SESSION_LEN: usize = 5;

#[derive(Default)]
struct Rules {
    next: HashMap<u32, VecDeque<Fault>>,
    counts: HashMap<u32, u32>,
    seen: Vec<u8>,
}

/// A running proxy; its threads end with the test's process.
pub struct Proxy {
    host: IpAddr,
    port: u16,
    rules: Arc<Mutex<Rules>>,
}

impl Proxy {
    /// In front of that TPM.
    pub fn start(swtpm: &Swtpm) -> Proxy {
        let (host, behind) = swtpm.address();
        let (data, control) = listeners(host);
        let port = data.local_addr().unwrap().port();
        let rules = Arc::new(Mutex::new(Rules::default()));
        let shared = rules.clone();
        thread::spawn(move || {
            for stream in data.incoming().flatten() {
                let (shared, target) = (shared.clone(), (host, behind));
                thread::spawn(move || drop(commands(stream, target, &shared)));
            }
        });
        thread::spawn(move || {
            for stream in control.incoming().flatten() {
                thread::spawn(move || drop(pass(stream, (host, behind + 1))));
            }
        });
        Proxy { host, port, rules }
    }

    /// How the keystore reaches the TPM through it.
    pub fn tcti(&self) -> Tcti {
        Tcti::Swtpm {
            host: self.host,
            port: self.port,
        }
    }

    /// Spoils the next command with this code; said twice, the one after it too.
    pub fn inject(&self, command: u32, fault: Fault) {
        let mut rules = self.rules.lock().unwrap();
        rules.next.entry(command).or_default().push_back(fault);
    }

    /// Whether everything was spoilt that was to be.
    pub fn is_done(&self) -> bool {
        let rules = self.rules.lock().unwrap();
        rules.next.values().all(VecDeque::is_empty)
    }

    /// Whether these bytes were in a command, as somebody with a probe on the bus sees it.
    pub fn has_seen(&self, bytes: &[u8]) -> bool {
        let rules = self.rules.lock().unwrap();
        rules
            .seen
            .windows(bytes.len())
            .any(|window| window == bytes)
    }

    /// How often a command was sent.
    pub fn count(&self, command: u32) -> u32 {
        let rules = self.rules.lock().unwrap();
        rules.counts.get(&command).copied().unwrap_or_default()
    }
}

/// Two ports one after the other, on an address that is ours alone.
fn listeners(host: IpAddr) -> (TcpListener, TcpListener) {
    (3000..4000)
        .step_by(2)
        .find_map(|port| {
            let data = TcpListener::bind((host, port)).ok()?;
            Some((data, TcpListener::bind((host, port + 1)).ok()?))
        })
        .expect("of a thousand ports two are free")
}

fn commands(
    mut client: TcpStream,
    target: (IpAddr, u16),
    rules: &Mutex<Rules>,
) -> std::io::Result<()> {
    let mut server = TcpStream::connect(target)?;
    loop {
        let command = message(&mut client)?;
        let code = u32::from_be_bytes(command[6..10].try_into().unwrap());
        let fault = {
            let mut rules = rules.lock().unwrap();
            *rules.counts.entry(code).or_default() += 1;
            rules.seen.extend(&command);
            rules.next.get_mut(&code).and_then(VecDeque::pop_front)
        };
        if let Some(Fault::Answer(answer)) = fault {
            let head = [0x80, 0x01, 0, 0, 0, 10];
            client.write_all(&[&head[..], &answer.to_be_bytes()].concat())?;
            continue;
        }
        server.write_all(&command)?;
        let mut reply = message(&mut server)?;
        match fault {
            Some(Fault::DropReply) => return client.shutdown(Shutdown::Both),
            Some(Fault::FlipBit) => {
                let last = reply.len() - SESSION_LEN - 1;
                reply[last] ^= 1;
            }
            Some(Fault::Answer(_)) | None => {}
        }
        client.write_all(&reply)?;
    }
}

fn message(stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut bytes = vec![0; 10];
    stream.read_exact(&mut bytes)?;
    let size = u32::from_be_bytes(bytes[2..6].try_into().unwrap());
    bytes.resize(usize::try_from(size).unwrap().max(10), 0);
    stream.read_exact(&mut bytes[10..])?;
    Ok(bytes)
}

fn pass(client: TcpStream, target: (IpAddr, u16)) -> std::io::Result<()> {
    let server = TcpStream::connect(target)?;
    let (mut from, mut to) = (client.try_clone()?, server.try_clone()?);
    thread::spawn(move || {
        let _ = std::io::copy(&mut from, &mut to);
        let _ = to.shutdown(Shutdown::Write);
    });
    let (mut from, mut to) = (server, client);
    std::io::copy(&mut from, &mut to)?;
    to.shutdown(Shutdown::Write)
}
