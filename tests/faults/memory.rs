//! No memory is left. A process that gets none ends at once (abort is allowed, going on with half a
//! thought is not); the next one serves from what is on the disk, where nothing is half written.

use crate::generator::{self, Next};
use crate::observed::{self, TARGET};
use harness::process::{Process, runs, send};
use harness::user::{ALICE, BOB, BROKER, STRANGER, python_as};
use harness::{DEADLINE, Daemon, SoftHsm, wait_until};
use keystore::client::Client as KeystoreClient;
use nix::sys::signal::Signal;
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Connections that ask without pause, and their answers.
const ASKING: usize = 32;

/// Who wants memory: each user has as many connections as one may have, and on each a body of 16 KiB
/// that is not whole, which is kept for the two seconds that it may take.
const WANTING: [u32; 4] = [ALICE, BOB, STRANGER, BROKER];

/// Goes on until nobody listens any more.
const WANT: &str = "
import socket, sys
path = sys.argv[1]
request = b'POST /v1/assertion HTTP/1.1\\r\\nhost: a\\r\\ncontent-length: 16384\\r\\n\\r\\n' + b' ' * 16383
while True:
    held = []
    try:
        for _ in range(250):
            s = socket.socket(socket.AF_UNIX)
            s.settimeout(5)
            s.connect(path)
            held.append(s)
            s.sendall(request)
        held[0].recv(1)
    except OSError:
        pass
    if not held:
        break
";

/// What is left of it, in KiB above what is taken: none, and a little.
const LEFT_KIB: [u64; 2] = [0, 512];

/// What was released to whom, by the ids of their records.
struct Asked {
    released: Vec<String>,
    other: usize,
}

/// Asks until the other side ends.
fn ask_until_the_end(socket: &Path, first: impl FnOnce() + Send) -> Asked {
    let asked = Mutex::new(Asked {
        released: Vec::new(),
        other: 0,
    });
    let first = Mutex::new(Some(first));
    let ended = generator::ask(socket, ASKING, &generator::request(TARGET), |answer| {
        let mut asked = asked.lock().unwrap();
        match answer.status {
            200 => {
                let body: serde_json::Value = serde_json::from_slice(answer.body).unwrap();
                asked.released.push(body["id"].as_str().unwrap().to_owned());
            }
            503 => asked.other += 1,
            other => panic!("{other}: {}", String::from_utf8_lossy(answer.body)),
        }
        if asked.released.len() == 2 * ASKING {
            // Under way, all of them.
            first.lock().unwrap().take().expect("once")();
        }
        Next::Ask
    });
    let ended = ended.expect_err("it ends for want of memory");
    println!("to those who ask: {ended}");
    asked.into_inner().unwrap()
}

/// Leaves this process so much memory of its own (RLIMIT_DATA, which since Linux 4.7 counts all private
/// writable mappings): what it asks for beyond is refused to it, as by a host that has none.
fn take_memory(pid: u32, left_kib: u64) {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let mut lines = status.lines();
    let line = lines.find_map(|line| line.strip_prefix("VmData:")).unwrap();
    let taken_kib: u64 = line.trim().trim_end_matches(" kB").parse().unwrap();
    limit(pid, &((taken_kib + left_kib) * 1024).to_string());
}

fn limit(pid: u32, bytes: &str) {
    let mut prlimit = Command::new("prlimit");
    prlimit.arg(format!("--pid={pid}"));
    prlimit.arg(format!("--data={bytes}:unlimited"));
    assert!(prlimit.status().unwrap().success(), "prlimit");
}

/// Has the process want memory, until it has ended.
fn want_memory(socket: &Path) -> Vec<Process> {
    let wanting = WANTING.map(|uid| Process::start(python_as(uid, WANT).arg(socket)));
    wanting.into()
}

#[test]
fn row_43_assertd_without_memory_ends_and_the_next_one_serves_with_an_unbroken_log() {
    let token = SoftHsm::new();
    let mut daemon = Daemon::with_keys(observed::config(&token));
    for left in LEFT_KIB {
        daemon.wait_served(TARGET);
        let (pid, socket) = (daemon.pid(), daemon.socket());
        let taken = AtomicBool::new(false);
        let asked = std::thread::scope(|scope| {
            let asking = scope.spawn(|| {
                ask_until_the_end(&socket, || {
                    take_memory(pid, left);
                    taken.store(true, Ordering::SeqCst);
                })
            });
            assert!(wait_until(DEADLINE, || taken.load(Ordering::SeqCst)));
            let wanting = want_memory(&socket);
            let over = wait_until(3 * DEADLINE, || asking.is_finished());
            drop(wanting);
            if !over {
                send(pid, Signal::SIGKILL); // ends those who ask, and the test
            }
            let asked = asking.join().unwrap();
            assert!(over, "it did without:\n{}", daemon.stderr());
            asked
        });
        assert_eq!(
            daemon.exit_code(),
            None,
            "not by a signal:\n{}",
            daemon.stderr()
        );
        let said = daemon.stderr();
        let why = ["memory allocation of", "panicked at", "failed to allocate"];
        assert!(
            why.iter().any(|why| said.contains(why)),
            "it ended for another reason:\n{said}"
        );
        println!(
            "{left} KiB left: {} released, {} not",
            asked.released.len(),
            asked.other
        );

        daemon = Daemon::start_at(daemon.into_site());
        daemon.wait_served(TARGET);
        let records = daemon.audit_records();
        let decided: std::collections::BTreeSet<&str> = observed::of_kind(&records, "decision")
            .into_iter()
            .map(|record| record["id"].as_str().unwrap())
            .collect();
        for id in &asked.released {
            assert!(
                decided.contains(id.as_str()),
                "released without a record: {id}"
            );
        }
        observed::chain_verifies(&daemon);
    }
}

/// assertd is another process, and starts the keystore again.
#[test]
fn row_43_a_keystore_without_memory_ends_and_is_started_again() {
    let token = SoftHsm::new();
    let mut daemon = Daemon::with_keys(observed::config(&token));
    daemon.wait_served(TARGET);
    let verifier = observed::verifier(&daemon);
    let load = observed::Load::start(&daemon.socket(), ASKING);
    load.wait_released(50);
    let keystore = daemon.keystore_pid();
    take_memory(keystore, 0);
    // Each connection wants a thread, and a thread its stack: one that cannot be had is refused.
    let socket = daemon.keystore_socket(harness::token::KEYSTORE);
    let mut held = Vec::new();
    let felt = wait_until(DEADLINE, || {
        let connected = KeystoreClient::connect(&socket, Duration::from_secs(5));
        let refused = connected.is_err();
        held.extend(connected);
        refused || !runs(keystore)
    });
    assert!(felt, "it did without:\n{}", daemon.stderr());
    drop(held);
    match runs(keystore) {
        true => {
            println!("the keystore turned a connection away, and goes on");
            limit(keystore, "unlimited");
        }
        false => println!("the keystore has ended"),
    }
    load.wait_released(50);
    let seen = load.stop();
    let (released, refused) = observed::only_assertions_and_503(&seen, &verifier);
    println!("{released} assertions, {refused} 503s");
    observed::every_release_is_recorded(&seen, &daemon.audit_records());
    assert!(daemon.lives());
    observed::chain_verifies(&daemon);
}
