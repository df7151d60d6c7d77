//! Bytes that are no request of ours: refused or cut off, whatever they are, before more of them is
//! kept than a request may have. The long list of oddities is in `e2e::request`.

use crate::observed::{self, TARGET};
use harness::http::{Answer, End, Raw, post_target};
use harness::{DEADLINE, Daemon, SoftHsm, wait_until};
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

/// assertd_client::api has them.
const HEAD_LEN_MAX: usize = 8 * 1024;
const BODY_LEN_MAX: usize = 16 * 1024;
const HEADERS_MAX: usize = 32;

/// How long an answer may take before it is taken for granted that more is waited for.
const MOMENT: Duration = Duration::from_millis(300);

/// What is sent to somebody who should not take it, and how much of it the kernel may hold on the way
/// (net.core.wmem_default, 208 KiB, and what assertd has read).
const ENDLESS: usize = 32 << 20;
const TAKEN_MAX: usize = 1 << 20;

/// Sent one after the other; a deadline of 2 s cuts what no limit does.
const CUT_WITHIN: Duration = Duration::from_secs(8);

/// Kept of 6 × 32 MiB would be more.
const RSS_MORE_KIB: u64 = 4 * 1024;

fn with_head(lines: &str, rest: &[u8]) -> Vec<u8> {
    let head = format!("POST /v1/assertion HTTP/1.1\r\nhost: assertd\r\n{lines}\r\n");
    [head.as_bytes(), rest].concat()
}

fn body() -> String {
    format!("{{\"target\":\"{TARGET}\"}}")
}

fn chunked(bytes: &str) -> Vec<u8> {
    with_head("transfer-encoding: chunked\r\n", bytes.as_bytes())
}

/// The statuses that come before the connection ends, which it does.
fn statuses(socket: &Path, bytes: &[u8]) -> Vec<u16> {
    let mut raw = Raw::connect(socket);
    let _ = raw.send(bytes); // it may be cut off in the middle
    let mut answers: Vec<Answer> = raw.answer(MOMENT).into_iter().collect();
    raw.end_sending();
    while let Some(answer) = raw.answer(DEADLINE) {
        assert_eq!(answer.header("upgrade"), None, "{answer:?}");
        answers.push(answer);
    }
    let end = raw.to_end(DEADLINE);
    assert!(matches!(end, End::Closed(_)), "left open: {end:?}");
    answers.iter().map(|answer| answer.status).collect()
}

fn scene() -> (Daemon, SoftHsm) {
    let token = SoftHsm::new();
    let daemon = Daemon::with_keys(observed::config(&token));
    daemon.wait_served(TARGET);
    (daemon, token)
}

/// What is refused, and as what. No answer at all is a connection that was closed.
fn refused() -> Vec<(&'static str, Vec<u8>, &'static [u16])> {
    let (body, length) = (body(), body().len());
    let fields = |count: usize| -> String {
        let names = 0..count - 2; // host and content-length are two
        names.map(|n| format!("x-{n}: y\r\n")).collect()
    };
    let head = |lines: String| {
        let lines = format!("{lines}content-length: {length}\r\n");
        with_head(&lines, body.as_bytes())
    };
    let long = "y".repeat(BODY_LEN_MAX + 1);
    let both = format!("content-length: {length}\r\ntransfer-encoding: chunked\r\n");
    vec![
        (
            "a head that is too long",
            head(format!("x: {}\r\n", "y".repeat(HEAD_LEN_MAX))),
            &[431],
        ),
        (
            "a path that is too long",
            format!("POST /{} HTTP/1.1\r\n\r\n", "a".repeat(HEAD_LEN_MAX)).into_bytes(),
            &[431, 414],
        ),
        (
            "a field too many",
            head(fields(HEADERS_MAX + 1)),
            &[431, 400],
        ),
        (
            "a body that is too long",
            with_head(
                &format!("content-length: {}\r\n", long.len()),
                long.as_bytes(),
            ),
            &[413],
        ),
        (
            "a chunk that is too long",
            chunked(&format!("{:x}\r\n{long}\r\n0\r\n\r\n", long.len())),
            &[413],
        ),
        (
            "many chunks that are too long",
            chunked(&format!("{}0\r\n\r\n", "1\r\ny\r\n".repeat(long.len()))),
            &[413],
        ),
        (
            "a chunk size that is none",
            chunked("zz\r\nabc\r\n0\r\n\r\n"),
            &[400],
        ),
        (
            "a chunk size that is too large for a number",
            chunked("fffffffffffffffff\r\nabc\r\n0\r\n\r\n"),
            &[400],
        ),
        (
            "a chunk of less than it says",
            chunked(&format!("ff\r\n{body}")),
            &[400],
        ),
        (
            "an extension of a chunk that is too long",
            chunked(&format!("1;{}\r\n{{\r\n0\r\n\r\n", "x".repeat(1 << 16))),
            &[400],
        ),
        (
            "two lengths",
            with_head(
                &format!("content-length: {length}\r\ncontent-length: 2\r\n"),
                body.as_bytes(),
            ),
            &[400],
        ),
        (
            "a request that hides behind a length that is none (RFC 9112 §11.2)",
            with_head(
                &both,
                &[b"0\r\n\r\n".as_slice(), &post_target(TARGET)].concat(),
            ),
            &[400],
        ),
        (
            "the preface of HTTP/2",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\x12\x04\0\0\0\0\0".to_vec(),
            &[],
        ),
        (
            "a hello of TLS",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 hello hello".to_vec(),
            &[400],
        ),
    ]
}

#[test]
fn row_40_what_is_too_long_or_no_http_is_refused_and_grants_nothing() {
    let (mut daemon, _token) = scene();
    let before = daemon.status().requests.released;
    for (name, bytes, allowed) in refused() {
        let got = statuses(&daemon.socket(), &bytes);
        let ours = got.iter().all(|status| allowed.contains(status));
        let count = allowed.len().min(1);
        assert!(
            ours && got.len() == count,
            "{name}: {got:?}, not {allowed:?}"
        );
        assert!(daemon.lives(), "{name}:\n{}", daemon.stderr());
    }
    assert_eq!(
        daemon.status().requests.released,
        before,
        "something was granted"
    );
    // At the limits all is well, or none of this was refused for what it is.
    let filler = "y".repeat(BODY_LEN_MAX - 100);
    let longest = format!("{{\"target\":\"{TARGET}\"{}}}", " ".repeat(filler.len()));
    let lines = format!("content-length: {}\r\n", longest.len());
    let got = statuses(&daemon.socket(), &with_head(&lines, longest.as_bytes()));
    assert_eq!(got, [200]);
    daemon.wait_served(TARGET);
}

#[test]
fn row_40_an_upgrade_is_not_taken_and_requests_in_one_packet_are_answered_in_their_order() {
    let (daemon, _token) = scene();
    let (body, none) = (body(), post_target("none"));
    for protocol in ["h2c", "websocket", "TLS/1.3"] {
        let lines = format!(
            "connection: upgrade, HTTP2-Settings\r\nupgrade: {protocol}\r\n\
             http2-settings: AAMAAABk\r\ncontent-length: {}\r\n",
            body.len()
        );
        // What is sent behind it in the other protocol's name is HTTP/1.1, or nothing.
        let bytes = [with_head(&lines, body.as_bytes()), none.clone()].concat();
        let got = statuses(&daemon.socket(), &bytes);
        assert_eq!(got, [200, 403], "{protocol}");
    }
    let packet: Vec<u8> = (0..25)
        .flat_map(|_| [post_target(TARGET), none.clone()].concat())
        .collect();
    let got = statuses(&daemon.socket(), &packet);
    let (granted, denied): (Vec<_>, Vec<_>) = got.iter().enumerate().partition(|(n, _)| n % 2 == 0);
    assert_eq!(got.len(), 50);
    assert!(granted.iter().all(|(_, status)| **status == 200), "{got:?}");
    assert!(denied.iter().all(|(_, status)| **status == 403), "{got:?}");
}

/// Sends `first` and then `rest` again and again; how much of it was taken before the other side
/// closed.
fn taken(socket: &Path, first: &[u8], rest: &[u8]) -> usize {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.set_write_timeout(Some(CUT_WITHIN)).unwrap();
    let (mut taken, block) = (0, rest.repeat(4096 / rest.len() + 1));
    let mut bytes = first;
    while taken < ENDLESS {
        match stream.write(bytes) {
            Ok(0) | Err(_) => return taken,
            Ok(length) => taken += length,
        }
        bytes = &block;
    }
    taken
}

#[test]
fn row_40_what_never_ends_is_cut_off_and_not_kept() {
    let (mut daemon, _token) = scene();
    let rss = rss_kib(&daemon);
    let start = with_head("x: y\r\n", b"");
    let start = start.strip_suffix(b"\r\n").expect("the head's end");
    for (name, first, rest) in [
        ("a line", b"GET /".to_vec(), "a"),
        ("a field", [start, b"x: "].concat(), "a"),
        ("fields", start.to_vec(), "x: y\r\n"),
        ("an extension of a chunk", chunked("1;"), "a"),
        ("chunks", chunked(""), "1\r\na\r\n"),
        ("trailers", chunked("0\r\n"), "x: y\r\n"),
    ] {
        let began = Instant::now();
        let taken = taken(&daemon.socket(), &first, rest.as_bytes());
        let took = began.elapsed();
        println!("{name} that never ends: {taken} bytes were taken, cut off after {took:?}");
        assert!(
            taken > 0 && taken < TAKEN_MAX,
            "{name}: {taken} bytes were taken"
        );
        assert!(took < CUT_WITHIN, "{name}: cut off after {took:?}");
        assert!(daemon.lives(), "{name}:\n{}", daemon.stderr());
    }
    let after = rss_kib(&daemon);
    assert!(after < rss + RSS_MORE_KIB, "{after} KiB, {rss} before");
    assert!(wait_until(DEADLINE, || daemon.status().connections == 0));
    daemon.wait_served(TARGET);
}

fn rss_kib(daemon: &Daemon) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
    let mut lines = status.lines();
    let line = lines.find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}
