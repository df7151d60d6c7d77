//! Behind a slow token a keystore prepares the next mint while the token signs. What is said on such
//! a connection is what would be said without that: in order, under the charter of the moment of the
//! signature, and to the end. Each test sees that a mint was prepared, by the thread that signs then.

use crate::world::{decode, now_s};
use harness::fault::{Function, Shimmed};
use harness::token::KEYSTORE;
use harness::{Config, DEADLINE, Daemon, wait_until};
use keystore::protocol::{self, Reply, Request, VERSION};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use std::io::Write;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;

/// A signature takes this long: many times what a busy machine takes for everything else.
const SIGNATURE: &str = "C_Sign * delay:300\n";

const KEY: &str = "ahead/test";

/// A daemon's keystore with a key that no lane of assertd's uses, and one connection to it.
struct Scene {
    token: Shimmed,
    daemon: Daemon,
    keystore: u32,
    stream: UnixStream,
    /// Calls of C_Sign before anything was asked.
    before: u64,
}

fn charter(audience: &str) -> Value {
    json!({
        "purpose": { "client_authentication": { "iss": "c1", "sub": "c1", "aud": audience } },
        "alg": "ES256", "typ": "client-authentication+jwt", "lifetime_max_s": 60,
    })
}

fn mint(number: usize) -> Value {
    let now = now_s();
    let claims = json!({
        "iss": "c1", "sub": "c1", "aud": "https://as", "jti": jti(number), "iat": now, "exp": now + 60,
    });
    json!({ "mint": { "key": format!("{KEY}.1"), "purpose": "client_authentication", "claims": claims } })
}

fn jti(number: usize) -> String {
    format!("{number:022}")
}

fn ask(stream: &mut UnixStream, requests: &[Value]) {
    let frame = |request: &Value| {
        let request: Request = serde_json::from_value(request.clone()).unwrap();
        protocol::encode(&request).unwrap()
    };
    let frames: Vec<u8> = requests.iter().flat_map(frame).collect();
    stream.write_all(&frames).unwrap();
}

fn connect(daemon: &Daemon) -> UnixStream {
    let mut stream = UnixStream::connect(daemon.keystore_socket(KEYSTORE)).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    ask(&mut stream, &[json!({ "hello": { "version": VERSION } })]);
    assert!(matches!(reply(&mut stream), Some(Reply::Welcome(_))));
    stream
}

fn reply(stream: &mut UnixStream) -> Option<Reply> {
    protocol::read(stream).unwrap()
}

#[track_caller]
fn is_minted(reply: Option<Reply>, number: usize) {
    let Some(Reply::Minted { jws }) = reply else {
        panic!("mint {number}: {reply:?}");
    };
    assert_eq!(decode(&jws).1["jti"], json!(jti(number)));
}

impl Scene {
    /// With these rules from here on.
    fn new(rules: &str) -> Scene {
        let token = Shimmed::new();
        let daemon = Daemon::start(Config::default().keystore(KEYSTORE, &token, "signers = 1\n"));
        daemon.wait_usable();
        let mut stream = connect(&daemon);
        let key = format!("{KEY}.1");
        ask(
            &mut stream,
            &[json!({ "make": { "key": key, "charter": charter("https://as") } })],
        );
        let made = reply(&mut stream);
        assert!(
            matches!(made, Some(Reply::Made { created: true, .. })),
            "{made:?}"
        );
        token.rules(rules);
        Scene {
            keystore: daemon.keystore_pid(),
            before: token.calls(Function::C_Sign),
            token,
            daemon,
            stream,
        }
    }

    fn signatures(&self) -> u64 {
        self.token.calls(Function::C_Sign) - self.before
    }

    /// Asks for three at once, and returns while the second is signed by the thread that signs what
    /// was prepared. The first showed that the token is slow; the third is prepared then.
    fn with_three_asked(rules: &str) -> Scene {
        let mut scene = Scene::new(rules);
        ask(&mut scene.stream, &[mint(1), mint(2), mint(3)]);
        assert!(wait_until(DEADLINE, || scene.signatures() == 2));
        assert!(scene.has_hand(), "nothing was prepared");
        scene
    }

    /// Whether the keystore has a thread that mints what another prepares.
    fn has_hand(&self) -> bool {
        let Ok(tasks) = std::fs::read_dir(format!("/proc/{}/task", self.keystore)) else {
            return false;
        };
        let name = |task: std::io::Result<std::fs::DirEntry>| {
            std::fs::read_to_string(task.ok()?.path().join("comm")).ok()
        };
        tasks
            .filter_map(name)
            .any(|name| name.trim_end() == "mints")
    }
}

#[test]
fn answers_come_in_the_order_of_their_requests() {
    let mut scene = Scene::with_three_asked(SIGNATURE);
    let mut forbidden = mint(5);
    forbidden["mint"]["claims"]["aud"] = json!("https://evil");
    let health = json!({ "health": {} });
    ask(
        &mut scene.stream,
        &[mint(4), forbidden, health, mint(6), mint(7)],
    );
    for number in 1..=4 {
        is_minted(reply(&mut scene.stream), number);
    }
    let refused = reply(&mut scene.stream);
    assert!(
        matches!(&refused, Some(Reply::Refused { message, .. }) if message.contains("aud")),
        "{refused:?}"
    );
    let health = reply(&mut scene.stream);
    assert!(
        matches!(&health, Some(Reply::Health(health)) if health.minted >= 4),
        "{health:?}"
    );
    is_minted(reply(&mut scene.stream), 6);
    is_minted(reply(&mut scene.stream), 7);
    assert_eq!(scene.signatures(), 6);
}

#[test]
fn a_charter_that_is_narrowed_meanwhile_holds_for_what_was_prepared() {
    let mut scene = Scene::with_three_asked(SIGNATURE);
    let mut root = connect(&scene.daemon);
    let narrower = charter("https://other");
    ask(
        &mut root,
        &[json!({ "amend": { "name": KEY, "charter": narrower } })],
    );
    assert_eq!(reply(&mut root), Some(Reply::Done {}));
    assert_eq!(
        scene.signatures(),
        2,
        "the third was signed before the charter was amended"
    );
    is_minted(reply(&mut scene.stream), 1);
    is_minted(reply(&mut scene.stream), 2);
    let third = reply(&mut scene.stream);
    assert!(
        matches!(&third, Some(Reply::Refused { message, .. }) if message.contains("aud")),
        "{third:?}"
    );
    assert_eq!(scene.signatures(), 2);
}

#[test]
fn a_key_that_is_destroyed_meanwhile_signs_nothing_that_was_prepared() {
    let mut scene = Scene::with_three_asked(SIGNATURE);
    let mut root = connect(&scene.daemon);
    ask(
        &mut root,
        &[json!({ "destroy": { "key": format!("{KEY}.1") } })],
    );
    assert_eq!(reply(&mut root), Some(Reply::Done {}));
    assert_eq!(
        scene.signatures(),
        2,
        "the third was signed before the key was destroyed"
    );
    is_minted(reply(&mut scene.stream), 1);
    let (_second, third) = (reply(&mut scene.stream), reply(&mut scene.stream));
    assert!(matches!(&third, Some(Reply::Refused { .. })), "{third:?}");
    assert_eq!(scene.signatures(), 2);
}

#[test]
fn what_was_prepared_for_a_peer_that_has_gone_is_not_signed() {
    let scene = Scene::with_three_asked(SIGNATURE);
    scene.stream.shutdown(Shutdown::Both).unwrap();
    assert!(
        wait_until(DEADLINE, || !scene.has_hand()),
        "its threads are still there"
    );
    assert_eq!(scene.signatures(), 2);
    // And the keystore serves the next peer.
    let mut next = connect(&scene.daemon);
    ask(&mut next, &[mint(4)]);
    is_minted(reply(&mut next), 4);
}

#[test]
fn a_peer_that_says_no_more_gets_all_its_answers() {
    let mut scene = Scene::with_three_asked(SIGNATURE);
    scene.stream.shutdown(Shutdown::Write).unwrap();
    for number in 1..=3 {
        is_minted(reply(&mut scene.stream), number);
    }
    assert_eq!(reply(&mut scene.stream), None);
}

#[test]
fn a_keystore_that_is_told_to_end_answers_what_was_prepared() {
    let mut scene = Scene::with_three_asked(SIGNATURE);
    let pid = nix::unistd::Pid::from_raw(scene.keystore.cast_signed());
    nix::sys::signal::kill(pid, Signal::SIGTERM).unwrap();
    for number in 1..=3 {
        is_minted(reply(&mut scene.stream), number);
    }
    assert_eq!(reply(&mut scene.stream), None);
}

#[test]
fn a_token_that_hangs_under_a_prepared_mint_costs_the_process_and_no_more() {
    let mut scene = Scene::with_three_asked("C_Sign 1 delay:300\nC_Sign 2+ hang\n");
    is_minted(reply(&mut scene.stream), 1);
    // The process ends itself: no answer is made up, and none comes.
    let ended = protocol::read::<Reply>(&mut scene.stream);
    assert!(!matches!(ended, Ok(Some(_))), "{ended:?}");
    assert_eq!(scene.signatures(), 2);
    scene.token.rules("");
    let old = scene.keystore;
    let replaced = || {
        scene
            .daemon
            .keystore_process(KEYSTORE)
            .is_some_and(|pid| pid != old)
    };
    assert!(wait_until(DEADLINE, replaced), "{}", scene.daemon.stderr());
    scene.daemon.wait_usable();
    let mut next = connect(&scene.daemon);
    ask(&mut next, &[mint(4)]);
    is_minted(reply(&mut next), 4);
}
