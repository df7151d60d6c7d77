//! Peers that take their time: each connection ends within its limit, and nobody else waits.

use crate::world::{BANK, serves, with_bank};
use harness::http::{End, Raw, post};
use std::time::{Duration, Instant};

/// A head may take 2 s, a body 2 s; the rest is for two busy cores.
const BRISK: Duration = Duration::from_secs(8);

/// A peer that says nothing is given 30 s.
const PATIENT: Duration = Duration::from_secs(45);

/// Sends a byte of `bytes` every 200 ms until the other side closes; how long that took.
fn trickle(raw: &mut Raw, bytes: &[u8]) -> Duration {
    let start = Instant::now();
    for byte in bytes.iter().cycle() {
        if raw.send(std::slice::from_ref(byte)).is_err() || start.elapsed() > BRISK {
            break;
        }
        if raw.answer(Duration::from_millis(200)).is_some() {
            break;
        }
    }
    start.elapsed()
}

#[test]
fn a_head_that_trickles_is_cut_off() {
    let (mut daemon, _token) = with_bank();
    std::thread::scope(|scope| {
        let socket = daemon.socket();
        let slow: Vec<_> = (0..50)
            .map(|_| {
                let mut raw = Raw::connect(&socket);
                scope.spawn(move || {
                    raw.send(b"POST /v1/assertion HTTP/1.1\r\n").unwrap();
                    trickle(&mut raw, b"x-header: y\r\n")
                })
            })
            .collect();
        while slow.iter().any(|thread| !thread.is_finished()) {
            let before = Instant::now();
            serves(&mut daemon);
            assert!(before.elapsed() < Duration::from_secs(2), "others wait");
            std::thread::sleep(Duration::from_millis(50)); // paces the control below its rate
        }
        for thread in slow {
            let took = thread.join().unwrap();
            assert!(took < BRISK, "cut off after {took:?}");
            assert!(
                took > Duration::from_secs(1),
                "nobody was given time: {took:?}"
            );
        }
    });
    assert_eq!(daemon.status().connections, 0, "permits are not given back");
}

#[test]
fn a_body_that_trickles_is_cut_off() {
    let (mut daemon, _token) = with_bank();
    let mut raw = daemon.raw();
    raw.send(b"POST /v1/assertion HTTP/1.1\r\nhost: a\r\ncontent-length: 1000\r\n\r\n")
        .unwrap();
    let took = trickle(&mut raw, b" ");
    assert!(
        took > Duration::from_secs(1) && took < BRISK,
        "cut off after {took:?}"
    );
    serves(&mut daemon);
}

#[test]
fn a_silent_peer_and_one_that_never_reads_are_cut_off_in_the_end() {
    let (mut daemon, _token) = with_bank();
    let silent = daemon.raw();
    let mut deaf = daemon.raw();
    let start = Instant::now();
    // More answers than the socket's buffers hold.
    let refused = post("{}").repeat(20_000);
    let deaf = std::thread::spawn(move || {
        let _cut = deaf.send(&refused); // it is cut off somewhere in the middle
        deaf
    });
    let silent = std::thread::spawn(move || silent.to_end(PATIENT));
    while !silent.is_finished() {
        serves(&mut daemon);
        std::thread::sleep(Duration::from_millis(100)); // paces the control below its rate
    }
    let took = start.elapsed();
    assert_eq!(silent.join().unwrap(), End::Closed(Vec::new()));
    assert!(
        took > Duration::from_secs(20),
        "a peer may think for a while: {took:?}"
    );
    let ended = harness::wait_until(PATIENT, || daemon.status().connections == 0);
    assert!(
        ended,
        "the peer that never reads is still served after {:?}",
        start.elapsed()
    );
    drop(deaf.join().unwrap());
    serves(&mut daemon);
}

#[test]
fn one_user_cannot_take_every_connection() {
    use harness::user::{ALICE, exchange_as};
    let (mut daemon, _token) = with_bank();
    let held: Vec<Raw> = (0..256).map(|_| daemon.raw()).collect();
    assert!(harness::wait_until(harness::DEADLINE, || daemon
        .status()
        .connections
        == 256));
    let start = Instant::now();
    let mut one_more = daemon.raw();
    let answer = one_more
        .answer(Duration::from_secs(2))
        .expect("an answer at once, unasked");
    assert_eq!(
        (answer.status, answer.header("retry-after")),
        (503, Some("1"))
    );
    assert!(
        start.elapsed() < Duration::from_secs(1),
        "{:?}",
        start.elapsed()
    );
    assert_eq!(one_more.to_end(harness::DEADLINE), End::Closed(Vec::new()));
    // Others, and administrators, are served meanwhile.
    assert_eq!(
        exchange_as(ALICE, &daemon.socket(), &post(BANK)).status,
        403
    );
    let start = Instant::now();
    let _answer = daemon.status();
    assert!(
        start.elapsed() < Duration::from_secs(1),
        "status took {:?}",
        start.elapsed()
    );
    // Theirs has been answered, and is counted until its end has been seen.
    let counted = harness::wait_until(harness::DEADLINE, || daemon.status().connections == 256);
    assert!(counted, "{}", daemon.status().connections);
    drop(held);
    assert!(harness::wait_until(harness::DEADLINE, || daemon
        .status()
        .connections
        == 0));
    serves(&mut daemon);
}
