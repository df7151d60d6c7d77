//! Whom the courier answers, and what it makes of bytes that are no question.

use super::*;
use harness::user::{ALICE, BROKER, KEYSTORE, STRANGER, python_as};

/// Asks over the socket that is given, and prints how many bytes came back.
const ASKS: &str = "
import socket, struct, sys
s = socket.socket(socket.AF_UNIX)
s.settimeout(20)
s.connect(sys.argv[1])
q = b'{\"version\":2,\"issuer\":\"new\"}'
try:
    s.sendall(struct.pack('>I', len(q)) + q)
    print(len(s.recv(65536)))
except (BrokenPipeError, ConnectionResetError):
    print(0)
";

fn bytes_for(uid: u32, socket: &Path) -> usize {
    let output = python_as(uid, ASKS).arg(socket).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    said.parse().unwrap_or_else(|_| panic!("{output:?}"))
}

#[test]
fn the_broker_and_root_are_answered_and_everybody_else_is_hung_up_on() {
    let publisher = Publisher::start();
    let ca = format!("ca = {:?}", publisher.ca());
    let urls = [("new", publisher.url("right", "new"))];
    let courier = Courier::start_as(KEYSTORE, BROKER, &configured(&ca, urls), &[]);
    for (uid, answered) in [
        (ALICE, false),
        (STRANGER, false),
        (KEYSTORE, false), // its own user
        (BROKER, true),
        (0, true),
    ] {
        let bytes = bytes_for(uid, &courier.socket());
        assert_eq!(bytes > 4, answered, "uid {uid}: {bytes} bytes");
    }
    assert_eq!(
        publisher.requests().len(),
        2,
        "for nobody else anything was fetched"
    );
}

#[test]
fn what_is_no_question_is_hung_up_on_and_fetches_nothing() {
    let publisher = Publisher::start();
    let ca = format!("ca = {:?}", publisher.ca());
    let url = publisher.url("right", "new");
    let courier = Courier::start(&configured(&ca, [("new", url.clone())]));
    let socket = courier.socket();
    for text in [
        "{}",
        "null",
        "GET / HTTP/1.1",
        r#"{"version":2}"#,
        r#"{"version":2,"issuer":5}"#,
        r#"{"issuer":"new"}"#,
        &format!(r#"{{"version":2,"url":"{url}"}}"#),
        &format!(r#"{{"version":2,"issuer":"new","url":"{url}"}}"#),
        r#"{"version":2,"issuer":"new","canary":{"workload":"w","target":"t","assertion":"a"}}"#,
        r#"{"version":2,"canary":{"workload":"w","target":"t"}}"#,
        r#"{"version":2,"canary":{"workload":"w","target":"t","assertion":"a&scope=b"}}"#,
        &format!(
            r#"{{"version":2,"canary":{{"workload":"w","target":"t","assertion":"a","url":"{url}"}}}}"#
        ),
        &" ".repeat(9 * 1024 + 1),
    ] {
        assert_eq!(exchange(&socket, text), None, "{text}");
    }
    for bytes in [&b"\0\0\0\0"[..], b"\xff\xff\xff\xff", b"\0", b""] {
        let mut stream = UnixStream::connect(&socket).unwrap();
        stream.write_all(bytes).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        let read = stream.read(&mut [0; 16]);
        assert!(!matches!(read, Ok(1..)), "{bytes:?}");
    }
    let answer = exchange(&socket, r#"{"version":1,"issuer":"new"}"#).unwrap();
    assert_eq!(answer["failed"]["kind"], "version", "{answer}");
    for name in ["", "../new", &url, "https://127.0.0.1/", "a\nb"] {
        let answer = ask(&socket, name);
        assert_eq!(answer["failed"]["kind"], "issuer", "{answer}");
    }
    assert_eq!(publisher.requests(), [""; 0]);
    assert_eq!(courier.fetch("new"), publisher.document("new"));
}

/// Sixteen connections are served; who is silent has five seconds.
#[test]
fn silent_connections_keep_nobody_out_for_long() {
    let publisher = Publisher::start();
    let ca = format!("ca = {:?}", publisher.ca());
    let courier = Courier::start(&configured(&ca, [("new", publisher.url("right", "new"))]));
    let connect = |_| UnixStream::connect(courier.socket()).unwrap();
    let silent: Vec<UnixStream> = (0..16).map(connect).collect();
    let question = r#"{"version":2,"issuer":"new"}"#;
    let served = harness::wait_until(Duration::from_secs(10), || {
        exchange(&courier.socket(), question).is_some()
    });
    assert!(served, "{}", courier.process.stderr());
    drop(silent);
}

/// A fetch that nobody waits for any more ends, and with it its connection to the publisher.
#[test]
fn who_hangs_up_has_its_fetch_ended() {
    let publisher = Publisher::start();
    let ca = format!("ca = {:?}", publisher.ca());
    let urls = [("slow", publisher.url("right", "hang-answer"))];
    let courier = Courier::start(&configured(&ca, urls));
    let question = br#"{"version":2,"issuer":"slow"}"#;
    let sockets = || {
        let open = std::fs::read_dir(format!("/proc/{}/fd", courier.process.pid())).unwrap();
        let links = open.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
        links
            .filter(|link| link.to_string_lossy().starts_with("socket:"))
            .count()
    };
    // It is connected to before its runtime is there, so what it holds is counted once it has answered
    // and has seen that connection end.
    assert!(exchange(&courier.socket(), r#"{"version":2,"issuer":"unknown"}"#).is_some());
    let mut before = usize::MAX;
    assert!(harness::wait_until(DEADLINE, || {
        std::thread::sleep(Duration::from_millis(200));
        std::mem::replace(&mut before, sockets()) == before
    }));
    let mut stream = UnixStream::connect(courier.socket()).unwrap();
    stream
        .write_all(&[&[0, 0, 0, 29], &question[..]].concat())
        .unwrap();
    assert_eq!(question.len(), 29);
    assert!(harness::wait_until(DEADLINE, || !publisher
        .requests()
        .is_empty()));
    assert_eq!(sockets(), before + 2);
    drop(stream);
    let ended = harness::wait_until(Duration::from_secs(3), || sockets() == before);
    assert!(ended, "{} sockets, {before} before", sockets());
}
