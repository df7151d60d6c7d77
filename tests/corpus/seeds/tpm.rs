//! What a TPM gives: key files, public areas, and a whole conversation with a keystore. swtpm
//! answers, and everything that passes is written down.

use super::Corpus;
use harness::swtpm::Swtpm;
use keystore::Alg;
use keystore::backend::{Backend, ObjectId};
use keystore::config::Sessions;
use keystore::statefile::StateDir;
use keystore::tcti::Tcti;
use keystore_tpm::fuzzed::{marshalled, signing_key, storage_primary};
use keystore_tpm::{Secrets, Settings, TpmBackend};
use std::collections::HashSet;
use std::io::{Read, Write};
use std::net::{IpAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread;

/// As in tests/fuzz/targets/tpm_response.rs.
const SECRET: [u8; 32] = *b"thirty-two bytes that are random";
const MESSAGE: &[u8] = b"assertd: a message";
const KEYS: [(u8, Alg); 3] = [(1, Alg::ES256), (2, Alg::RS256), (3, Alg::ES384)];
const MADE: u8 = 4;

pub fn write(corpus: &Corpus) {
    let dir = tempfile::tempdir().unwrap();
    let mut swtpm = Swtpm::start(dir.path());
    let state = StateDir::lock(&dir.path().join("state")).unwrap();
    let backend = open(swtpm.tcti(), &state);
    for (n, alg) in KEYS {
        let label = format!("assertd/test/key{n}/1");
        backend.generate(ObjectId([n; 16]), &label, alg).unwrap();
    }
    drop(backend);
    let recorded = corpus.fuzz.join("recorded");
    let _ = std::fs::remove_dir_all(&recorded);
    copy(state.path(), &recorded.join("state"));
    swtpm.restart();
    let conversation = converse(&swtpm, &state);
    std::fs::write(recorded.join("conversation"), &conversation).unwrap();
    inputs(corpus, &recorded.join("state/keys"));
    responses(corpus);
}

fn open(tcti: Tcti, state: &StateDir) -> TpmBackend {
    TpmBackend::open(Settings {
        tcti,
        secrets: Secrets::new(&SECRET),
        sessions: Some(Sessions::Password),
        healthy: None,
        state: state.clone(),
    })
    .unwrap()
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name();
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to.join(name));
        } else if !matches!(name.to_str(), Some("lock" | "tpm.v1.prev")) {
            std::fs::copy(entry.path(), to.join(name)).unwrap();
        }
    }
}

/// Everything that the target lets a backend do, over a recorder.
fn converse(swtpm: &Swtpm, state: &StateDir) -> Vec<u8> {
    let (tcti, heard) = record(swtpm);
    let backend = open(tcti, state);
    let sign = |n: u8, alg| {
        let object = ObjectId([n; 16]);
        let key = backend.inspect(object).unwrap().public_key;
        let signature = backend.sign(object, &key, alg, MESSAGE).unwrap();
        let verifier = key.verifier(alg).unwrap();
        assert!(verifier.verify(MESSAGE, &signature).is_ok());
    };
    for (n, alg) in KEYS.into_iter().chain(KEYS) {
        sign(n, alg); // the third has no slot of its own: contexts are saved and loaded
    }
    for (n, alg) in KEYS {
        let key = backend.inspect(ObjectId([n; 16])).unwrap().public_key;
        for (other, _) in KEYS {
            backend.inspect(ObjectId([other; 16])).unwrap();
        }
        backend.sign(ObjectId([n; 16]), &key, alg, MESSAGE).unwrap();
    }
    backend.survey();
    let object = ObjectId([MADE; 16]);
    let made = backend
        .generate(object, "assertd/test/made/1", Alg::ES256)
        .unwrap();
    sign(MADE, Alg::ES256);
    backend.destroy(object, &made.public_key).unwrap();
    drop(backend);
    let mut seen = HashSet::new();
    let mut bytes = Vec::new();
    for (command, answer) in heard.lock().unwrap().iter() {
        if seen.insert(command.clone()) {
            for message in [command, answer] {
                bytes.extend((message.len() as u16).to_be_bytes());
                bytes.extend(message);
            }
        }
    }
    bytes
}

type Heard = Arc<Mutex<Vec<(Vec<u8>, Vec<u8>)>>>;

/// Stands before a TPM and listens.
fn record(swtpm: &Swtpm) -> (Tcti, Heard) {
    let (host, behind) = swtpm.address();
    let port = 4001;
    let heard = Heard::default();
    for (ours, theirs) in [(port, behind), (port + 1, behind + 1)] {
        let listener = TcpListener::bind((host, ours)).unwrap();
        let heard = heard.clone();
        let is_data = ours == port;
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let heard = heard.clone();
                thread::spawn(move || match is_data {
                    true => drop(commands(stream, (host, theirs), &heard)),
                    false => drop(control(stream, (host, theirs))),
                });
            }
        });
    }
    (Tcti::Swtpm { host, port }, heard)
}

fn commands(mut client: TcpStream, to: (IpAddr, u16), heard: &Heard) -> std::io::Result<()> {
    let mut tpm = TcpStream::connect(to)?;
    loop {
        let command = message(&mut client)?;
        tpm.write_all(&command)?;
        let answer = message(&mut tpm)?;
        heard.lock().unwrap().push((command, answer.clone()));
        client.write_all(&answer)?;
    }
}

fn message(stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut bytes = vec![0; 10];
    stream.read_exact(&mut bytes)?;
    let size = u32::from_be_bytes(bytes[2..6].try_into().unwrap());
    bytes.resize(size as usize, 0);
    stream.read_exact(&mut bytes[10..])?;
    Ok(bytes)
}

fn control(client: TcpStream, to: (IpAddr, u16)) -> std::io::Result<()> {
    let tpm = TcpStream::connect(to)?;
    let (mut from, mut into) = (client.try_clone()?, tpm.try_clone()?);
    thread::spawn(move || std::io::copy(&mut from, &mut into));
    let (mut from, mut into) = (tpm, client);
    std::io::copy(&mut from, &mut into).map(drop)
}

/// For the target that reads structures by themselves.
fn inputs(corpus: &Corpus, keys: &Path) {
    let put = |name: &str, mode: u8, rest: &[u8]| {
        corpus.put("tpm_structures", name, &[&[mode], rest].concat());
    };
    for (n, alg) in KEYS {
        let file = keys.join(format!("{}.pem", ObjectId([n; 16])));
        let text = std::fs::read_to_string(file).unwrap();
        put(&format!("file-{alg}"), 0, text.as_bytes());
        let (begin, end) = text.split_at(text.len() / 2);
        let wrapped = [begin, "\n", end].concat();
        put(&format!("file-{alg}-wrapped-again"), 0, wrapped.as_bytes());
        let file = keystore_tpm::fuzzed::KeyFile::parse(&text).unwrap();
        put(&format!("public-{alg}"), 3, &file.public);
        let longer = [&file.public[..], &[0]].concat();
        put(&format!("public-{alg}-longer"), 3, &longer);
        let (head, rest) = (&file.public[..8], &file.public[10..]);
        let with_policy = [head, &[0, 32], &[7; 32], rest].concat();
        put(&format!("public-{alg}-with-policy"), 3, &with_policy);
        let base64: String = text
            .lines()
            .filter(|line| !line.contains(['/', ' ']))
            .collect();
        if let Ok(der) = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, base64)
        {
            put(&format!("der-{alg}"), 1, &der);
        }
    }
    for alg in [Alg::ES256, Alg::ES384, Alg::RS256, Alg::PS256] {
        let template = marshalled(&signing_key(alg).unwrap()).unwrap();
        put(&format!("template-{alg}"), 3, &template);
    }
    put("storage", 3, &marshalled(&storage_primary()).unwrap());
    put(
        "made-up",
        2,
        b"\x05\x00label\x81\x00\x00\x01\x03\x00abc\x02\x00de",
    );
    for n in 0..5u8 {
        put(
            &format!("changed-{n}"),
            4,
            &[&[n][..], &[1; 32], &[0]].concat(),
        );
        put(
            &format!("changed-{n}-bit"),
            4,
            &[&[n][..], &[1; 32], &[1, 7, 4]].concat(),
        );
    }
    for raw in [
        0u32, 0x100, 0x101, 0x18b, 0x143, 0x901, 0x902, 0x921, 0x98e, 0x9a2, 0x1df,
    ] {
        put(&format!("code-{raw:x}"), 5, &raw.to_be_bytes());
        let of_library = raw | 0x0007_0000;
        put(
            &format!("code-{of_library:x}"),
            5,
            &of_library.to_be_bytes(),
        );
    }
}

/// For the target that plays the conversation back: what the backend does, then what becomes of each
/// answer, in order.
fn responses(corpus: &Corpus) {
    let put = |name: &str, script: &[u8]| corpus.put("tpm_response", name, script);
    for operation in 0..8u8 {
        put(&format!("honest-{operation}"), &[1, operation]);
    }
    put("all", &[6, 0, 1, 2, 3, 4, 5]);
    for (name, fault) in [
        ("handle", &[0x81, 0, 0, 1, 0x8b][..]),
        ("gap", &[0x81, 0, 0, 9, 1]),
        ("busy", &[0x81, 0, 0, 9, 0x22]),
        ("lockout", &[0x81, 0, 0, 9, 0x21]),
        ("bad-auth", &[0x81, 0, 0, 9, 0xa2]),
        ("flip", &[0x82, 0, 30, 1]),
        ("empty", &[0x83, 0, 0]),
        ("raw", &[0x84, 2, 0, 0x80, 0x01]),
        ("gone", &[0x85]),
        ("cut", &[0x86, 0, 20]),
        ("size", &[0x87, 0, 0, 0x10, 0]),
        ("another-primary", &[0x89, 70, 1]),
    ] {
        // Opening is a dozen commands, the primary the seventh of them; a signature after that two, a
        // new key three.
        for at in [0, 3, 6, 12, 13, 14] {
            put(&format!("{name}-at-{at}"), &spoilt(&[0, 1], at, fault));
        }
    }
    for at in 11..18 {
        put(
            &format!("make-spoilt-{at}"),
            &spoilt(&[5], at, &[0x81, 0, 0, 1, 0xdf]),
        );
    }
}

/// These verbs, with so many honest answers before one that is not.
fn spoilt(verbs: &[u8], honest: usize, fault: &[u8]) -> Vec<u8> {
    [&[verbs.len() as u8], verbs, &vec![0; honest], fault].concat()
}
