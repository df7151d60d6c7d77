//! Requests that are none: whatever is sent, nothing is granted that was not asked for properly,
//! nothing crashes, and the next caller is served.

use crate::world::{BANK, code, serves, with_bank};
use harness::http::{Answer, End, Raw, post, post_target};
use harness::{DEADLINE, Daemon};
use std::time::Duration;

/// How long an answer may take before it is taken for granted that more is waited for.
const MOMENT: Duration = Duration::from_millis(300);

/// Every answer that comes before the connection ends.
fn answers(socket: &std::path::Path, bytes: &[u8]) -> Vec<Answer> {
    let mut raw = Raw::connect(socket);
    let _ = raw.send(bytes); // it may be cut off in the middle, which is an answer too
    let mut answers: Vec<Answer> = raw.answer(MOMENT).into_iter().collect();
    raw.end_sending();
    while let Some(answer) = raw.answer(DEADLINE) {
        answers.push(answer);
    }
    assert!(
        matches!(raw.to_end(DEADLINE), End::Closed(_)),
        "the connection was left open"
    );
    answers
}

/// A request for an assertion with these header lines, each ended by CR LF, and these bytes after.
fn with_head(lines: &str, rest: &[u8]) -> Vec<u8> {
    let head = format!("POST /v1/assertion HTTP/1.1\r\nhost: assertd\r\n{lines}\r\n");
    [head.as_bytes(), rest].concat()
}

fn refused(daemon: &Daemon, body: &[u8]) -> Answer {
    let mut raw = daemon.raw();
    raw.send(&post(body)).unwrap();
    raw.answer(DEADLINE)
        .unwrap_or_else(|| panic!("no answer to {:?}", String::from_utf8_lossy(body)))
}

#[test]
fn whoever_names_more_than_a_target_is_refused() {
    let (mut daemon, _token) = with_bank();
    let members = [
        "aud",
        "iss",
        "sub",
        "exp",
        "iat",
        "nbf",
        "jti",
        "azp",
        "scope",
        "kid",
        "alg",
        "typ",
        "jku",
        "jwk",
        "x5u",
        "x5c",
        "crit",
        "header",
        "claims",
        "payload",
        "key",
        "keystore",
        "nonce",
        "cnf",
        "purpose",
        "profile",
        "audience",
        "subject",
        "issuer",
        "workload",
        "client_id",
        "digest",
        "lifetime_s",
        "Target",
        "target ",
        "",
        "__proto__",
        "$ref",
        "target\\u0000",
    ];
    let values = [
        r#""https://evil.example""#,
        "0",
        "null",
        "true",
        "[]",
        "{}",
        r#"["bank"]"#,
    ];
    for member in members {
        for value in values {
            for body in [
                format!(r#"{{"target":"bank","{member}":{value}}}"#),
                format!(r#"{{"{member}":{value},"target":"bank"}}"#),
            ] {
                let answer = refused(&daemon, body.as_bytes());
                assert_eq!(
                    (answer.status, code(&answer).as_str()),
                    (400, "invalid_request"),
                    "{body}"
                );
            }
        }
    }
    serves(&mut daemon);
    let granted = daemon
        .audit_records()
        .into_iter()
        .filter(|record| record["kind"] == "decision");
    assert_eq!(granted.count(), 1, "only the control was granted");
}

#[test]
fn a_query_is_refused_like_an_unknown_member() {
    let (mut daemon, _token) = with_bank();
    for query in [
        "?",
        "?aud=https://evil.example",
        "?target=bank",
        "?target=bank#x",
    ] {
        let path = format!("/v1/assertion{query}");
        let request = String::from_utf8(post(BANK))
            .unwrap()
            .replace("/v1/assertion", &path);
        let answers = answers(&daemon.socket(), request.as_bytes());
        assert_eq!(answers[0].status, 400, "{query}: {answers:?}");
    }
    serves(&mut daemon);
}

#[test]
fn a_body_that_is_not_one_request_is_refused() {
    let (mut daemon, _token) = with_bank();
    let deep = |open: &str, depth: usize| open.repeat(depth).into_bytes();
    let mut bodies: Vec<Vec<u8>> = [
        "",
        " ",
        "null",
        "true",
        "1",
        "\"bank\"",
        "[]",
        "{}",
        "[\"bank\"]",
        r#"[{"target":"bank"}]"#,
        r#"{"target":null}"#,
        r#"{"target":1}"#,
        r#"{"target":true}"#,
        r#"{"target":["bank"]}"#,
        r#"{"target":{"name":"bank"}}"#,
        r#"{"target":""}"#,
        r#"{"lifetime":60}"#,
        r#"{"target":"bank","target":"bank"}"#,
        r#"{"target":"bank","target":"other"}"#,
        r#"{"target":"bank","lifetime":30,"lifetime":60}"#,
        r#"{"target":"bank","lifetime":0}"#,
        r#"{"target":"bank","lifetime":-1}"#,
        r#"{"target":"bank","lifetime":1.5}"#,
        r#"{"target":"bank","lifetime":"60"}"#,
        r#"{"target":"bank","lifetime":[60]}"#,
        r#"{"target":"bank","lifetime":true}"#,
        r#"{"target":"bank","lifetime":4294967296}"#,
        r#"{"target":"bank","lifetime":1e999}"#,
        r#"{"target":"bank","lifetime":NaN}"#,
        r#"{"target":"bank"} {}"#,
        r#"{"target":"bank"}x"#,
        r#"{"target":"bank""#,
        r#"{"target":"ba"#,
        r#"{"target":"bank",}"#,
        r#"{'target':'bank'}"#,
        r#"{target:"bank"}"#,
        r#"{"target":"bank"/*x*/}"#,
        r#"{"target":"../bank"}"#,
        r#"{"target":"bank/"}"#,
        r#"{"target":"bank.1"}"#,
        r#"{"target":"ours/bank"}"#,
        r#"{"target":"bank\u0000"}"#,
        r#"{"target":"bank\n"}"#,
        r#"{"target":" bank"}"#,
        r#"{"target":"-bank"}"#,
        r#"{"target":"b\u0430nk"}"#,
        r#"{"target":"\ud800"}"#,
        r#"{"target":"\udc00\ud800"}"#,
        "target=bank",
        "<target>bank</target>",
        "\u{feff}{\"target\":\"bank\"}",
    ]
    .iter()
    .map(|body| body.as_bytes().to_vec())
    .collect();
    bodies.push(format!(r#"{{"target":"{}"}}"#, "a".repeat(65)).into_bytes());
    bodies.push(format!(r#"{{"target":"bank","lifetime":{}}}"#, "9".repeat(10_000)).into_bytes());
    bodies.push(
        format!(
            r#"{{"target":"bank","lifetime":0.{}1}}"#,
            "0".repeat(10_000)
        )
        .into_bytes(),
    );
    bodies.extend([
        deep("[", 16_000),
        deep(r#"{"target":"#, 1_500),
        deep(r#"{"a":["#, 2_500),
    ]);
    bodies.push(b"{\"target\":\"b\xffnk\"}".to_vec());
    bodies.push(b"{\"target\":\"bank\0\"}".to_vec());
    bodies.push(b"\xff\xfe{\0\"\0".to_vec());
    bodies.push(vec![0; 64]);
    for body in &bodies {
        let answer = refused(&daemon, body);
        let shown = String::from_utf8_lossy(body)
            .chars()
            .take(60)
            .collect::<String>();
        assert_eq!(
            (answer.status, code(&answer).as_str()),
            (400, "invalid_request"),
            "{shown}"
        );
        assert!(
            answer.bytes.len() < 1024,
            "a refusal quotes no more than a little: {shown}"
        );
    }
    serves(&mut daemon);
}

#[test]
fn a_body_ends_at_sixteen_kibibytes() {
    let (mut daemon, _token) = with_bank();
    let padded = |length: usize| format!("{BANK}{}", " ".repeat(length - BANK.len()));
    for (length, status) in [(16_383, 200), (16_384, 200), (16_385, 413), (1 << 20, 413)] {
        let answer = answers(&daemon.socket(), &post(padded(length)));
        assert_eq!(answer[0].status, status, "content-length {length}");
        let chunk = format!("{length:x}\r\n{}\r\n0\r\n\r\n", padded(length));
        let request = with_head("transfer-encoding: chunked\r\n", chunk.as_bytes());
        assert_eq!(
            answers(&daemon.socket(), &request)[0].status,
            status,
            "a chunk of {length}"
        );
    }
    serves(&mut daemon);
}

#[test]
fn a_head_ends_at_thirty_two_fields_and_eight_kibibytes() {
    let (mut daemon, _token) = with_bank();
    let with_fields = |count: usize| {
        let more: String = (0..count - 2).map(|n| format!("x-{n}: y\r\n")).collect();
        with_head(
            &format!("{more}content-length: {}\r\n", BANK.len()),
            BANK.as_bytes(),
        )
    };
    assert_eq!(answers(&daemon.socket(), &with_fields(32))[0].status, 200);
    for count in [33, 34, 100, 1000] {
        let refused = answers(&daemon.socket(), &with_fields(count));
        assert!(
            refused.iter().all(|a| a.status == 431 || a.status == 400),
            "{count}: {refused:?}"
        );
    }
    let with_length = |length: usize| {
        let rest = format!("content-length: {}\r\n", BANK.len());
        let fixed = with_head(&format!("x: \r\n{rest}"), b"").len();
        let filler = "y".repeat(length - fixed);
        with_head(&format!("x: {filler}\r\n{rest}"), BANK.as_bytes())
    };
    assert_eq!(answers(&daemon.socket(), &with_length(4096))[0].status, 200);
    for length in [8 * 1024 + 1, 16 * 1024, 1 << 20] {
        let refused = answers(&daemon.socket(), &with_length(length));
        assert!(
            refused.iter().all(|a| a.status == 431),
            "{length}: {refused:?}"
        );
    }
    serves(&mut daemon);
}

/// Things that are not a request for an assertion, as somebody hostile or confused sends them.
fn hostile() -> Vec<(&'static str, Vec<u8>)> {
    let length = BANK.len();
    let chunked = |body: &str| with_head("transfer-encoding: chunked\r\n", body.as_bytes());
    let line = |line: &str| {
        let rest = format!("host: a\r\ncontent-length: {length}\r\n\r\n{BANK}");
        format!("{line}\r\n{rest}").into_bytes()
    };
    let head = |lines: &str| with_head(lines, BANK.as_bytes());
    vec![
        ("nothing", Vec::new()),
        ("one newline", b"\r\n".to_vec()),
        ("zeros", vec![0; 512]),
        (
            "HTTP/2 preface",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\x12\x04\0\0\0\0\0".to_vec(),
        ),
        (
            "TLS",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 hello hello hello".to_vec(),
        ),
        (
            "a keystore frame",
            harness::keystore::frame(br#"{"hello":{"version":3}}"#),
        ),
        ("HTTP/0.9", b"GET /v1/whoami\r\n".to_vec()),
        ("HTTP/2.0", line("POST /v1/assertion HTTP/2.0")),
        ("HTTP/9.9", line("POST /v1/assertion HTTP/9.9")),
        ("no version", line("POST /v1/assertion")),
        ("no path", line("POST  HTTP/1.1")),
        ("TRACE", line("TRACE /v1/assertion HTTP/1.1")),
        ("CONNECT", line("CONNECT bank:443 HTTP/1.1")),
        ("PUT", line("PUT /v1/assertion HTTP/1.1")),
        ("DELETE", line("DELETE /v1/assertion HTTP/1.1")),
        ("OPTIONS *", line("OPTIONS * HTTP/1.1")),
        ("lower-case method", line("post /v1/assertion HTTP/1.1")),
        (
            "GET",
            b"GET /v1/assertion HTTP/1.1\r\nhost: a\r\n\r\n".to_vec(),
        ),
        ("POST whoami", line("POST /v1/whoami HTTP/1.1")),
        ("POST root", line("POST / HTTP/1.1")),
        ("slash at the end", line("POST /v1/assertion/ HTTP/1.1")),
        ("two slashes", line("POST //v1/assertion HTTP/1.1")),
        ("dots", line("POST /v1/../v1/assertion HTTP/1.1")),
        ("escaped", line("POST /v1/%61ssertion HTTP/1.1")),
        ("admin paths", line("POST /v1/keys HTTP/1.1")),
        (
            "status",
            b"GET /v1/status HTTP/1.1\r\nhost: a\r\n\r\n".to_vec(),
        ),
        ("keys", b"GET /v1/keys HTTP/1.1\r\nhost: a\r\n\r\n".to_vec()),
        (
            "a space before the colon",
            head(&format!("content-length : {length}\r\n")),
        ),
        (
            "a folded line",
            head(&format!("x: a\r\n b\r\ncontent-length: {length}\r\n")),
        ),
        (
            "NUL in a header",
            head(&format!("x: a\0b\r\ncontent-length: {length}\r\n")),
        ),
        (
            "a header without a name",
            head(&format!(": a\r\ncontent-length: {length}\r\n")),
        ),
        (
            "a header without a colon",
            head(&format!("nonsense\r\ncontent-length: {length}\r\n")),
        ),
        ("no length", head("")),
        (
            "two lengths",
            head(&format!(
                "content-length: {length}\r\ncontent-length: 2\r\n"
            )),
        ),
        (
            "a list of lengths",
            head(&format!("content-length: {length}, 2\r\n")),
        ),
        ("a negative length", head("content-length: -1\r\n")),
        (
            "a signed length",
            head(&format!("content-length: +{length}\r\n")),
        ),
        ("a hexadecimal length", head("content-length: 0x11\r\n")),
        (
            "an endless length",
            head("content-length: 18446744073709551616\r\n"),
        ),
        (
            "a length that never comes",
            head("content-length: 1000000000000\r\n"),
        ),
        ("a short length", head("content-length: 3\r\n")),
        (
            "gzip, chunked",
            head("transfer-encoding: gzip, chunked\r\n"),
        ),
        (
            "chunked, gzip",
            head("transfer-encoding: chunked, gzip\r\n"),
        ),
        ("identity", head("transfer-encoding: identity\r\n")),
        ("xchunked", head("transfer-encoding: xchunked\r\n")),
        (
            "a chunk size that is none",
            chunked("zz\r\nabc\r\n0\r\n\r\n"),
        ),
        (
            "an endless chunk size",
            chunked("fffffffffffffffff\r\nabc\r\n0\r\n\r\n"),
        ),
        ("a huge chunk", chunked("7fffffffffffffff\r\nabc")),
        ("a negative chunk", chunked("-1\r\nabc\r\n0\r\n\r\n")),
        (
            "a chunk too short",
            chunked(&format!("3\r\n{BANK}\r\n0\r\n\r\n")),
        ),
        (
            "a chunk without its end",
            chunked(&format!("{length:x}\r\n{BANK}")),
        ),
        (
            "an endless chunk extension",
            chunked(&format!("1;{}\r\n", "x".repeat(1 << 16))),
        ),
        (
            "endless trailers",
            chunked(&format!("0\r\n{}\r\n", "x: y\r\n".repeat(10_000))),
        ),
        (
            "cut in the head",
            b"POST /v1/assertion HTTP/1.1\r\nhost: a\r\ncont".to_vec(),
        ),
        (
            "cut in the body",
            with_head("content-length: 17\r\n", b"{\"target\":\"ba"),
        ),
        ("an endless line", vec![b'a'; 1 << 20]),
        (
            "an endless path",
            line(&format!("POST /{} HTTP/1.1", "a".repeat(1 << 16))),
        ),
    ]
}

#[test]
fn nothing_hostile_gets_anything_or_stops_anything() {
    let (mut daemon, _token) = with_bank();
    for (name, bytes) in hostile() {
        for socket in [daemon.socket(), daemon.admin_socket()] {
            // Root may ask for status and keys on the administrators' socket: that is no attack.
            if socket == daemon.admin_socket() && ["status", "keys"].contains(&name) {
                continue;
            }
            for answer in answers(&socket, &bytes) {
                let ours = (400..500).contains(&answer.status) || answer.status == 501;
                assert!(
                    ours,
                    "{name}: {} {}",
                    answer.status,
                    String::from_utf8_lossy(&answer.bytes)
                );
            }
            assert!(daemon.lives(), "{name} ended assertd:\n{}", daemon.stderr());
        }
    }
    serves(&mut daemon);
    assert_eq!(
        daemon.status().requests.released,
        1,
        "only the control was released"
    );
}

#[test]
fn no_noise_gets_anything_or_stops_anything() {
    let (mut daemon, _token) = with_bank();
    let valid = post(BANK);
    let mut noise = 0x9e37_79b9_7f4a_7c15_u64; // xorshift: the same noise in every run
    let mut next = || {
        noise ^= noise << 13;
        noise ^= noise >> 7;
        noise ^= noise << 17;
        noise
    };
    for round in 0..300 {
        let mut bytes: Vec<u8> = if round % 3 == 0 {
            (0..next() % 2048)
                .map(|_| next().to_le_bytes()[0])
                .collect()
        } else {
            valid.clone()
        };
        for _ in 0..round % 3 * 4 {
            let at = usize::try_from(next()).unwrap_or_default() % bytes.len();
            bytes[at] = next().to_le_bytes()[0];
        }
        for answer in answers(&daemon.socket(), &bytes) {
            assert!(
                answer.status < 500 || answer.status == 501,
                "{round}: {answer:?}"
            );
            assert!(
                answer.status != 200 || round % 3 != 0,
                "noise was answered: {answer:?}"
            );
        }
    }
    serves(&mut daemon);
}

#[test]
fn requests_in_one_packet_are_answered_in_their_order() {
    let (daemon, _token) = with_bank();
    let mut bytes = Vec::new();
    let asked = [
        (BANK, 200),
        ("{}", 400),
        (BANK, 200),
        (r#"{"target":"none"}"#, 403),
        (BANK, 200),
    ];
    for (body, _) in asked {
        bytes.extend(post(body));
    }
    let mut raw = daemon.raw();
    raw.send(&bytes).unwrap();
    let statuses = asked.map(|_| raw.answer(DEADLINE).unwrap().status);
    assert_eq!(statuses, asked.map(|(_, status)| status));
    raw.end_sending();
    assert_eq!(raw.to_end(DEADLINE), End::Closed(Vec::new()));
}

#[test]
fn a_body_may_come_in_chunks_and_a_uri_may_be_absolute() {
    let (daemon, _token) = with_bank();
    // RFC 9112 §3.2.2 and §7.1: a server must take both. The host in the URI means nothing here.
    let chunks: String = BANK.chars().map(|c| format!("1;x=y\r\n{c}\r\n")).collect();
    let chunked = with_head(
        "transfer-encoding: chunked\r\n",
        format!("{chunks}0\r\n\r\n").as_bytes(),
    );
    assert_eq!(answers(&daemon.socket(), &chunked)[0].status, 200);
    let absolute = String::from_utf8(post(BANK)).unwrap();
    let absolute = absolute.replace("POST /v1", "POST http://evil.example/v1");
    assert_eq!(
        answers(&daemon.socket(), absolute.as_bytes())[0].status,
        200
    );
    let absolute = absolute.replace("/v1/assertion", "/v1/status");
    assert_eq!(
        answers(&daemon.socket(), absolute.as_bytes())[0].status,
        404
    );
}

#[test]
fn an_upgrade_is_not_taken() {
    let (mut daemon, _token) = with_bank();
    for protocol in ["h2c", "websocket", "TLS/1.3"] {
        let lines = format!(
            "connection: upgrade, HTTP2-Settings\r\nupgrade: {protocol}\r\nhttp2-settings: AAMAAABk\r\n\
             content-length: {}\r\n",
            BANK.len()
        );
        let mut raw = daemon.raw();
        raw.send(&with_head(&lines, BANK.as_bytes())).unwrap();
        let answer = raw.answer(DEADLINE).unwrap();
        assert_eq!(answer.status, 200, "{protocol}: {answer:?}");
        assert_eq!(answer.header("upgrade"), None);
        // The connection still speaks HTTP/1.1.
        raw.send(&post(BANK)).unwrap();
        assert_eq!(raw.answer(DEADLINE).unwrap().status, 200);
    }
    serves(&mut daemon);
}

#[test]
fn a_body_that_was_promised_and_does_not_come_is_given_up() {
    let (mut daemon, _token) = with_bank();
    let mut raw = daemon.raw();
    raw.send(&with_head("content-length: 17\r\n", b"{"))
        .unwrap();
    let answer = raw
        .answer(Duration::from_secs(5))
        .expect("an answer within the body's deadline");
    assert_eq!(
        (answer.status, code(&answer).as_str()),
        (408, "body_timeout")
    );
    serves(&mut daemon);
}

#[test]
fn half_a_connection_is_enough_for_an_answer() {
    // socat and others say that they are done as soon as they have asked.
    let (daemon, _token) = with_bank();
    for (target, expected) in [("bank", 200), ("none", 403)] {
        let mut raw = daemon.raw();
        raw.send(&post_target(target)).unwrap();
        raw.end_sending();
        assert_eq!(raw.answer(DEADLINE).expect("an answer").status, expected);
    }
}
