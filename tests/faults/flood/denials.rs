//! One user asks for what it may not have, as fast as it can.

use crate::generator::{self, Next, Times};
use crate::observed;
use harness::user::{STRANGER, python_as};
use harness::{Daemon, SoftHsm};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

/// Connections of the flooding user: half of what one uid may have open.
const CONNECTIONS: usize = 128;

const WINDOW: Duration = Duration::from_secs(3);

/// What denials may take of the audit log in a minute (docs/architecture.md).
const AUDIT_BYTES_MAX: usize = 64 * 1024;

/// A granted request may take this much longer in a flood, or so long at all: the flooder, the
/// broker and the keystore share two cores with whatever else runs. One that waited for a disk
/// that writes each denial, or for the flood's end, would take longer.
const SLOWER_MAX: f64 = 5.0;
const P99_MAX: Duration = Duration::from_millis(200);

/// Asks on many connections at once, for targets that change, so that nothing is alike but the
/// user; prints how many answers it got by status.
const FLOOD: &str = "
import collections, json, socket, sys, time
path, seconds, connections = sys.argv[1], float(sys.argv[2]), int(sys.argv[3])
sockets = []
for _ in range(connections):
    s = socket.socket(socket.AF_UNIX)
    s.settimeout(20)
    s.connect(path)
    sockets.append(s)
def answer(s):
    data = b''
    while True:
        head, gap, body = data.partition(b'\\r\\n\\r\\n')
        if gap and len(body) >= int(head.lower().split(b'content-length:')[1].split(b'\\r\\n')[0]):
            return int(data[9:12])
        part = s.recv(65536)
        if not part:
            raise EOFError
        data += part
counts, number, end = collections.Counter(), 0, time.monotonic() + seconds
while time.monotonic() < end:
    for s in sockets:
        number += 1
        target = 'bank' if number % 2 else 't%d' % number
        body = b'{\"target\":\"%s\"}' % target.encode()
        s.sendall(b'POST /v1/assertion HTTP/1.1\\r\\nhost: a\\r\\ncontent-length: %d\\r\\n\\r\\n' % len(body) + body)
    for s in sockets:
        counts[str(answer(s))] += 1
print(json.dumps(counts))
";

#[test]
fn denials_of_one_uid_neither_fill_the_disk_nor_delay_a_grant() {
    let token = SoftHsm::new();
    let mut daemon = Daemon::with_keys(observed::config(&token));
    let alone = grants(&daemon.socket());

    let flooder = flood(&daemon.socket());
    let flooded = grants(&daemon.socket());
    let denied = answers(flooder);
    print_p99(&alone, &flooded, &denied);

    // Every request of the flood was answered, and refused.
    assert!(
        denied
            .keys()
            .all(|status| ["403", "429"].contains(&status.as_str())),
        "{denied:?}"
    );
    let denials: u64 = denied.values().sum();
    // What 128 connections that ask without pause get out of a broker that holds them back.
    assert!(denials > 500, "{denials} denials are no flood");
    // Closing ends the window, so that what was only counted is written too.
    assert_eq!(daemon.stop(), Some(0), "{}", daemon.stderr());
    let records = daemon.audit_records();
    assert_eq!(
        denials_in(&records),
        denials,
        "each denial is recorded or counted"
    );
    let bytes: usize = of_denials(&records)
        .map(|record| record.to_string().len())
        .sum();
    println!("{denials} denials took {bytes} bytes of the audit log");
    let windows = 2; // the test may begin in one minute and end in the next
    assert!(
        bytes <= windows * AUDIT_BYTES_MAX,
        "{bytes} bytes for {denials} denials"
    );

    let most = (SLOWER_MAX * alone.percentile_us(99.0)).max(P99_MAX.as_secs_f64() * 1e6);
    let p99 = flooded.percentile_us(99.0);
    assert!(
        p99 <= most,
        "p99 of a grant: {p99:.0} us in the flood, at most {most:.0} us"
    );
}

/// Times of granted requests on four connections; a refusal fails the test.
fn grants(socket: &Path) -> Times {
    let (begin, mut times) = (Instant::now(), Vec::new());
    generator::ask(socket, 4, &generator::request(observed::TARGET), |answer| {
        assert_eq!(
            answer.status,
            200,
            "{}",
            String::from_utf8_lossy(answer.body)
        );
        times.push(answer.answered - answer.asked);
        if begin.elapsed() < WINDOW {
            Next::Ask
        } else {
            Next::Stop
        }
    })
    .unwrap();
    Times::new(times)
}

/// The flooding process; it goes on for longer than the grants.
fn flood(socket: &Path) -> Child {
    let mut python = python_as(STRANGER, FLOOD);
    let seconds = WINDOW.as_secs_f64() + 0.5;
    python
        .arg(socket)
        .arg(seconds.to_string())
        .arg(CONNECTIONS.to_string());
    python.stdout(Stdio::piped()).spawn().unwrap()
}

fn answers(flooder: Child) -> BTreeMap<String, u64> {
    let output = flooder.wait_with_output().unwrap();
    assert!(output.status.success(), "the flooding process failed");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn of_denials(records: &[Value]) -> impl Iterator<Item = &Value> {
    records
        .iter()
        .filter(|record| record["kind"] == "denied" || record["kind"] == "denials")
}

/// Denials the log knows of, one by one or counted.
fn denials_in(records: &[Value]) -> u64 {
    of_denials(records)
        .map(|record| {
            if record["kind"] == "denied" {
                1
            } else {
                record["count"].as_u64().unwrap()
            }
        })
        .sum()
}

fn print_p99(alone: &Times, flooded: &Times, denied: &BTreeMap<String, u64>) {
    println!("the flood was answered {denied:?}");
    for (name, times) in [("alone", alone), ("flooded", flooded)] {
        let (p50, p99) = (times.percentile_us(50.0), times.percentile_us(99.0));
        println!(
            "{name:<8} {:>6} grants  p50 {p50:>7.0} us  p99 {p99:>7.0} us",
            times.count()
        );
    }
}
