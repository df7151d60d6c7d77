//! A whole TPM backend before a TPM that lies. A conversation with swtpm was recorded
//! (tests/corpus/seeds/tpm.rs); it is played back over a socket to the backend and the real
//! tpm2-tss, and the input says what the backend is asked and which answers are spoilt: another
//! response code, flipped bits, another body, any bytes, cut off, another size, none at all, or what
//! another TPM would have said.
//!
//! Asserted: nothing panics or hangs; a key that is shown has the recorded public key; a signature
//! has the length of its algorithm; what lies in the state directory is the same afterwards, byte for
//! byte, whatever was answered (nothing made, nothing deleted); and once the TPM tells the truth
//! again, every key signs rightly, without anybody's help.

use super::input::Input;
use keystore::backend::{Backend, ObjectId};
use keystore::config::Sessions;
use keystore::statefile::StateDir;
use keystore::tcti::Tcti;
use keystore::{Alg, PublicKey};
use keystore_tpm::fuzzed::{name, unmarshalled};
use keystore_tpm::{Secrets, Settings, TpmBackend};
use nix::sys::signal::{SigSet, Signal};
use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use tempfile::TempDir;

/// As in tests/corpus/seeds/tpm.rs.
const SECRET: [u8; 32] = *b"thirty-two bytes that are random";
const MESSAGE: &[u8] = b"assertd: a message";
const KEYS: [(u8, Alg); 3] = [(1, Alg::ES256), (2, Alg::RS256), (3, Alg::ES384)];
const MADE: ObjectId = ObjectId([4; 16]);

/// Most verbs in an input: each is a dozen commands.
const VERBS_MAX: u8 = 6;

/// Longest answer made up, in bytes: more than the library's buffer of 4 KiB.
const ANSWER_LEN_MAX: usize = 5000;

/// Runs one input.
pub fn check(data: &[u8]) {
    STAGE.with(|stage| play(stage, data));
}

thread_local! {
    /// Its directory goes with the thread, which a static would never do.
    static STAGE: Stage = Stage::set();
}

fn play(stage: &Stage, data: &[u8]) {
    let mut input = Input::of(data);
    let verbs: Vec<u8> = (0..input.choice(VERBS_MAX + 1))
        .map(|_| input.choice(8))
        .collect();
    stage.lies(input.rest());
    let opened = stage.open();
    if let Ok(backend) = &opened {
        for verb in verbs {
            stage.does(backend, verb);
        }
    }
    stage.lies(&[]);
    let _undisturbed = Undisturbed::begin();
    assert!(
        stage.files() == stage.before,
        "the state directory has changed"
    );
    let backend = match opened {
        Ok(backend) => backend,
        Err(_) => stage
            .open()
            .unwrap_or_else(|error| panic!("honestly: {error}")),
    };
    for (n, alg) in KEYS {
        // A lie may have left the connection useless: another one is opened within the same verb.
        let signature = stage.signature(&backend, n, alg);
        let signature = signature.unwrap_or_else(|error| panic!("for {alg}, honestly: {error}"));
        let verifier = stage.keys[&n].verifier(alg).expect("it is a key for it");
        assert!(verifier.verify(MESSAGE, &signature).is_ok(), "{alg}");
    }
    drop(backend);
    assert!(
        stage.files() == stage.before,
        "the state directory has changed"
    );
}

/// libFuzzer's clock is a signal that breaks system calls off (it sets no SA_RESTART), among them a
/// connect(2) of tpm2-tss, which is an error then. A keystore has no such signal, so an honest TPM is
/// not asked while one may come.
struct Undisturbed(SigSet);

impl Undisturbed {
    fn begin() -> Undisturbed {
        let clock: SigSet = std::iter::once(Signal::SIGALRM).collect();
        clock.thread_block().expect("a thread's own signals");
        Undisturbed(clock)
    }
}

impl Drop for Undisturbed {
    fn drop(&mut self) {
        self.0.thread_unblock().expect("a thread's own signals");
    }
}

/// What stays from input to input: a state directory with three keys, and their TPM. One for each
/// process, since its TPM has an address made of the process id.
struct Stage {
    dir: TempDir,
    state: StateDir,
    tcti: Tcti,
    play: Arc<Mutex<Play>>,
    keys: HashMap<u8, PublicKey>,
    before: BTreeMap<String, Vec<u8>>,
}

impl Stage {
    fn set() -> Stage {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("state");
        let state = StateDir::lock(&path).expect("it is new");
        fs::create_dir(path.join("keys")).expect("it is new");
        for (name, content) in RECORDED_STATE {
            fs::write(path.join(name), content).expect("there is room");
        }
        let play = Arc::new(Mutex::new(Play::recorded()));
        let tcti = serve(&play);
        let mut stage = Stage {
            dir,
            state,
            tcti,
            play,
            keys: HashMap::new(),
            before: BTreeMap::new(),
        };
        let backend = stage.open().expect("as it was recorded");
        for (n, _) in KEYS {
            let key = backend
                .inspect(ObjectId([n; 16]))
                .expect("as it was recorded");
            stage.keys.insert(n, key.public_key);
        }
        stage.before = stage.files();
        stage
    }

    fn open(&self) -> Result<TpmBackend, keystore::Error> {
        TpmBackend::open(Settings {
            tcti: self.tcti.clone(),
            secrets: Secrets::new(&SECRET),
            sessions: Some(Sessions::Password),
            healthy: None,
            state: self.state.clone(),
        })
    }

    /// What becomes of the answers from here on.
    fn lies(&self, script: &[u8]) {
        lock(&self.play).script = script.to_vec();
    }

    /// One verb; a failure is an error with a sentence.
    fn does(&self, backend: &TpmBackend, verb: u8) {
        let error = match verb {
            0..=2 => {
                let (n, alg) = KEYS[usize::from(verb)];
                let signed = self.signature(backend, n, alg);
                let length = |jws: &Vec<u8>| match alg {
                    Alg::ES256 => jws.len() == 64,
                    Alg::ES384 => jws.len() == 96,
                    _ => jws.len() <= 512,
                };
                assert!(signed.as_ref().map_or(true, length), "{signed:?}");
                signed.err()
            }
            3 | 4 => {
                let n = verb - 2;
                match backend.inspect(ObjectId([n; 16])) {
                    Ok(shown) => {
                        assert_eq!(shown.public_key, self.keys[&n]);
                        None
                    }
                    Err(error) => Some(error),
                }
            }
            5 => self.makes(backend),
            6 => {
                for line in backend.survey() {
                    assert!(!line.text.contains(char::is_control), "{line:?}");
                }
                None
            }
            _ => {
                let known: Vec<ObjectId> = KEYS.iter().map(|(n, _)| ObjectId([*n; 16])).collect();
                let strange = backend.strange(&known).expect("it reads a directory");
                assert_eq!(strange, Vec::<String>::new());
                None
            }
        };
        if let Some(error) = error {
            let text = error.to_string();
            assert!(
                !text.contains(char::is_control) && text.len() < 800,
                "{text:?}"
            );
        }
    }

    /// Makes a key and destroys it. Whatever happens in between, nothing is left.
    fn makes(&self, backend: &TpmBackend) -> Option<keystore::Error> {
        let file = self.state.path().join(format!("keys/{MADE}.pem"));
        let made = backend.generate(MADE, "assertd/test/made/1", Alg::ES256);
        assert_eq!(made.is_ok(), file.exists(), "a key is there or it is not");
        let inspection = match made {
            Ok(inspection) => inspection,
            Err(error) => return Some(error),
        };
        assert!(inspection.public_key.fits(Alg::ES256));
        backend
            .destroy(MADE, &inspection.public_key)
            .expect("its file is there");
        assert!(!file.exists());
        None
    }

    fn signature(&self, backend: &TpmBackend, n: u8, alg: Alg) -> Result<Vec<u8>, keystore::Error> {
        backend.sign(ObjectId([n; 16]), &self.keys[&n], alg, MESSAGE)
    }

    fn files(&self) -> BTreeMap<String, Vec<u8>> {
        let mut files = BTreeMap::new();
        collect(self.dir.path(), &mut files);
        files
    }
}

fn collect(dir: &Path, files: &mut BTreeMap<String, Vec<u8>>) {
    for entry in fs::read_dir(dir).expect("it is ours") {
        let path = entry.expect("it is ours").path();
        if path.is_dir() {
            collect(&path, files);
        } else {
            let content = fs::read(&path).expect("it is ours");
            files.insert(path.display().to_string(), content);
        }
    }
}

fn lock(play: &Mutex<Play>) -> MutexGuard<'_, Play> {
    play.lock().unwrap_or_else(PoisonError::into_inner)
}

const RECORDED: &[u8] = include_bytes!("../recorded/conversation");

const RECORDED_STATE: [(&str, &[u8]); 5] = [
    ("tpm.v1", include_bytes!("../recorded/state/tpm.v1")),
    ("ak.pem", include_bytes!("../recorded/state/ak.pem")),
    (
        "keys/01010101010101010101010101010101.pem",
        include_bytes!("../recorded/state/keys/01010101010101010101010101010101.pem"),
    ),
    (
        "keys/02020202020202020202020202020202.pem",
        include_bytes!("../recorded/state/keys/02020202020202020202020202020202.pem"),
    ),
    (
        "keys/03030303030303030303030303030303.pem",
        include_bytes!("../recorded/state/keys/03030303030303030303030303030303.pem"),
    ),
];

/// TPM_RC_HANDLE for the first handle: what a TPM says to a command about an object it does not have.
const NO_SUCH_HANDLE: [u8; 10] = [0x80, 0x01, 0, 0, 0, 10, 0, 0, 0x01, 0x8b];

/// TPM2_GetCapability of handles up to their kind; and its answer that there is none of that kind.
const HANDLES: [u8; 14] = *b"\x80\x01\0\0\0\x16\0\0\x01\x7a\0\0\0\x01";
const NO_HANDLES: [u8; 19] = *b"\x80\x01\0\0\0\x13\0\0\0\0\0\0\0\0\x01\0\0\0\0";

/// The TPM: what it answered to which command, and the lies to come.
struct Play {
    recorded: HashMap<Vec<u8>, Vec<u8>>,
    script: Vec<u8>,
}

impl Play {
    fn recorded() -> Play {
        let mut input = Input::of(RECORDED);
        let mut recorded = HashMap::new();
        while !input.is_over() {
            let mut message = || {
                let length = input.number(2) as usize;
                input.take(length).to_vec()
            };
            let (command, answer) = (message(), message());
            recorded.insert(command, answer);
        }
        let script = Vec::new();
        Play { recorded, script }
    }

    /// The answer to a command; none: the connection breaks. One byte of the script says what
    /// becomes of it, and for a script that is over nothing does.
    fn answer(&mut self, command: &[u8]) -> Option<Vec<u8>> {
        let mut answer = match self.recorded.get(command) {
            Some(answer) => answer.clone(),
            None if command.starts_with(&HANDLES) => NO_HANDLES.to_vec(),
            None => NO_SUCH_HANDLE.to_vec(),
        };
        let script = std::mem::take(&mut self.script);
        let mut input = Input::of(&script);
        match input.byte() {
            0x81 => {
                answer = NO_SUCH_HANDLE.to_vec();
                answer[6..].copy_from_slice(&(input.number(4) as u32).to_be_bytes());
            }
            0x82 => {
                let (at, flip) = (input.number(2) as usize % answer.len(), input.byte());
                answer[at] ^= flip;
            }
            0x83 => {
                let body = input.bytes(ANSWER_LEN_MAX);
                let tag = [answer[0], answer[1]];
                let size = (10 + body.len() as u32).to_be_bytes();
                answer = [&tag, &size[..], &[0; 4], body].concat();
            }
            0x84 => answer = input.bytes(ANSWER_LEN_MAX).to_vec(),
            0x85 => answer.clear(),
            0x86 => answer.truncate(input.number(2) as usize),
            0x87 => answer[2..6].copy_from_slice(&(input.number(4) as u32).to_be_bytes()),
            0x88 => {
                // Of the right size, and some of it another.
                let at = input.number(2) as usize % answer.len();
                let other = input.bytes(ANSWER_LEN_MAX);
                let length = other.len().min(answer.len() - at);
                answer[at..at + length].copy_from_slice(&other[..length]);
            }
            0x89 => {
                let (at, flip) = (input.byte(), input.byte());
                answer = with_another_primary(&answer, at, flip).unwrap_or(answer);
            }
            _ => {}
        }
        self.script = input.rest().to_vec();
        (!answer.is_empty()).then_some(answer)
    }
}

/// The answer to TPM2_CreatePrimary as another TPM gives it: another public area, with its right name.
fn with_another_primary(answer: &[u8], at: u8, flip: u8) -> Option<Vec<u8>> {
    // Header, handle, size of the parameters; then TPM2B_PUBLIC.
    let (size, rest) = answer.get(18..)?.split_first_chunk::<2>()?;
    let own = rest.get(..usize::from(u16::from_be_bytes(*size)))?;
    let named = |bytes: &[u8]| name(&unmarshalled(bytes).ok()?).ok();
    let mut other = own.to_vec();
    *other.get_mut(usize::from(at))? ^= flip;
    let (own_name, other_name) = (named(own)?, named(&other)?);
    let mut changed = answer.to_vec();
    changed[20..20 + other.len()].copy_from_slice(&other);
    let mut windows = answer.windows(own_name.len());
    let place = windows.position(|window| window == own_name)?;
    changed[place..place + other_name.len()].copy_from_slice(&other_name);
    Some(changed)
}

/// Answers as swtpm does: commands on one port, on the next what a mainboard would say.
fn serve(play: &Arc<Mutex<Play>>) -> Tcti {
    // An address of this process alone, so that ports need not be looked for.
    let [_, a, b, c] = std::process::id().to_be_bytes();
    let host = IpAddr::V4(Ipv4Addr::new(127, 64 | a, b, c));
    let port = 2321;
    let commands = TcpListener::bind((host, port)).expect("nobody else has this address");
    let control = TcpListener::bind((host, port + 1)).expect("nobody else has this address");
    let play = play.clone();
    thread::spawn(move || {
        for stream in commands.incoming().flatten() {
            let _ = command(stream, &play); // who hung up needs no answer
        }
    });
    thread::spawn(move || {
        for mut stream in control.incoming().flatten() {
            let mut request = [0; 64];
            while stream.read(&mut request).is_ok_and(|length| length > 0) {
                let _ = stream.write_all(&[0; 4]); // success
            }
        }
    });
    Tcti::Swtpm { host, port }
}

/// One command and its answer: tpm2-tss makes a connection for each.
fn command(mut stream: TcpStream, play: &Mutex<Play>) -> std::io::Result<()> {
    let mut command = vec![0; 10];
    stream.read_exact(&mut command)?;
    let size = u32::from_be_bytes([command[2], command[3], command[4], command[5]]);
    command.resize((size as usize).clamp(10, 4096), 0);
    stream.read_exact(&mut command[10..])?;
    let answer = lock(play).answer(&command);
    stream.write_all(&answer.unwrap_or_default())
}
