//! The keystore against its own broker: a process of the broker's uid that speaks the protocol gets
//! what the charter allows and nothing else. Root makes keys and cannot use them.

use crate::world::{decode, now_s};
use harness::keystore::{Keystore, Peer, frame};
use harness::user::{ALICE, BROKER, STRANGER};
use serde_json::{Value, json};

const KEY: &str = "payments/bank.1";
const JTI: &str = "AAAAAAAAAAAAAAAAAAAAAA";

fn charter() -> Value {
    json!({
        "purpose": { "client_authentication": { "iss": "c1", "sub": "c1", "aud": "https://as" } },
        "alg": "ES256", "typ": "client-authentication+jwt", "lifetime_max_s": 60,
    })
}

fn make(key: &str, charter: &Value) -> String {
    json!({ "make": { "key": key, "charter": charter } }).to_string()
}

/// Exactly what the charter allows, with `change` made to the claims.
fn mint(change: impl FnOnce(&mut Value)) -> String {
    let now = now_s();
    let mut claims = json!({
        "iss": "c1", "sub": "c1", "aud": "https://as", "jti": JTI, "iat": now, "exp": now + 60,
    });
    change(&mut claims);
    let purpose = "client_authentication";
    json!({ "mint": { "key": KEY, "purpose": purpose, "claims": claims } }).to_string()
}

/// A keystore with one key under [`charter`].
fn with_key() -> Keystore {
    let keystore = Keystore::start();
    let made = keystore.greeted_as(0).ask(&make(KEY, &charter())).unwrap();
    assert_eq!(made["made"]["created"], true, "{made}");
    keystore
}

/// The control: the broker's uid gets exactly what the charter allows.
fn mints(peer: &mut Peer) {
    let minted = peer.ask(&mint(|_| ())).expect("a reply");
    let (header, claims) = decode(
        minted["minted"]["jws"]
            .as_str()
            .unwrap_or_else(|| panic!("{minted}")),
    );
    assert_eq!(header["typ"], "client-authentication+jwt");
    assert_eq!(header["alg"], "ES256");
    assert_eq!(
        (&claims["iss"], &claims["aud"]),
        (&json!("c1"), &json!("https://as"))
    );
}

fn refused(peer: &mut Peer, request: &str) -> String {
    let reply = peer
        .ask(request)
        .unwrap_or_else(|| panic!("hung up on {request}"));
    assert_eq!(reply["refused"]["kind"], "refused", "{request}: {reply}");
    reply["refused"]["message"].as_str().unwrap().to_owned()
}

#[test]
fn a_broker_that_was_taken_over_cannot_leave_the_charter() {
    let keystore = with_key();
    let mut broker = keystore.greeted_as(BROKER);
    mints(&mut broker);
    let set = |name: &'static str, value: Value| move |claims: &mut Value| claims[name] = value;
    let now = now_s();
    let both = |iat: u64, exp: u64| {
        mint(|claims| {
            claims["iat"] = json!(iat);
            claims["exp"] = json!(exp);
        })
    };
    for (named, request) in [
        ("iss", mint(set("iss", json!("c2")))),
        ("iss", mint(set("iss", json!("")))),
        ("iss", mint(set("iss", json!("c1 ")))),
        ("sub", mint(set("sub", json!("c2")))),
        ("sub", mint(set("sub", json!("C1")))),
        ("aud", mint(set("aud", json!("https://evil")))),
        ("aud", mint(set("aud", json!("https://as/")))),
        ("jti", mint(set("jti", json!("")))),
        ("jti", mint(set("jti", json!("short")))),
        ("", both(now, now + 62)),
        ("", both(now, now + 86_400)),
        ("", both(now, u64::MAX)),
        ("", both(now, now)),
        ("", both(now, now - 1)),
        ("", both(now, 0)),
        ("iat", both(now - 60, now)),
        ("iat", both(now - 3600, now - 3540)),
        ("iat", both(now + 30, now + 90)),
        ("iat", both(now + 86_400, now + 86_460)),
        ("iat", both(0, 60)),
        ("iat", both(u64::MAX - 60, u64::MAX)),
        ("nbf", mint(set("nbf", json!(now + 1000)))),
    ] {
        let why = refused(&mut broker, &request);
        assert!(why.contains(named), "{request}: {why}");
    }
    mints(&mut broker);
}

#[test]
fn a_broker_cannot_use_a_key_for_anything_else() {
    let mut keystore = with_key();
    let mut broker = keystore.greeted_as(BROKER);
    let other = mint(|_| ()).replace("client_authentication", "federation");
    let why = refused(&mut broker, &other);
    assert!(why.to_lowercase().contains("federation"), "{why}");
    let missing = mint(|_| ()).replace(KEY, "payments/other.1");
    let reply = broker.ask(&missing).unwrap();
    assert_eq!(reply["refused"]["kind"], "not_found", "{reply}");
    mints(&mut broker);
    // What the protocol has no words for ends the connection.
    let mint = mint(|_| ());
    for request in [
        mint.replace("client_authentication", "tls"),
        mint.replace("client_authentication", "certificate"),
        mint.replace("client_authentication", ""),
        mint.replace(r#""claims""#, r#""header":{"alg":"none"},"claims""#),
        mint.replace(r#""claims""#, r#""alg":"none","claims""#),
        mint.replace(r#""iss""#, r#""azp":"x","iss""#),
        mint.replace(r#""https://as""#, r#"["https://as"]"#),
        r#"{"sign":{"key":"payments/bank.1","bytes":"AAAA"}}"#.to_owned(),
        r#"{"sign":{"key":"payments/bank.1","digest":"AAAA"}}"#.to_owned(),
        r#"{"mint":{"key":"payments/bank.1","purpose":"client_authentication","bytes":"AA"}}"#
            .to_owned(),
        r#"{"mint":{"key":"payments/bank.1","purpose":"client_authentication","payload":"e30"}}"#
            .to_owned(),
        r#"{"decrypt":{"key":"payments/bank.1","bytes":"AAAA"}}"#.to_owned(),
        r#"{"export":{"key":"payments/bank.1"}}"#.to_owned(),
        r#"{"wrap":{"key":"payments/bank.1","by":"payments/bank.1"}}"#.to_owned(),
    ] {
        let reply = keystore.greeted_as(BROKER).ask(&request);
        let nothing = reply
            .as_ref()
            .is_none_or(|reply| reply["refused"].is_object());
        assert!(nothing, "{request}: {reply:?}");
    }
    assert!(keystore.process().ended().is_none());
    mints(&mut broker);
}

#[test]
fn a_broker_cannot_make_amend_or_destroy() {
    let keystore = with_key();
    let mut broker = keystore.greeted_as(BROKER);
    let wider = charter().to_string().replace("https://as", "https://evil");
    let wider: Value = serde_json::from_str(&wider).unwrap();
    for request in [
        make("payments/new.1", &charter()),
        make("payments/bank.2", &wider),
        make(KEY, &wider),
        make(KEY, &charter()),
        json!({ "amend": { "name": "payments/bank", "charter": wider } }).to_string(),
        json!({ "amend": { "name": "payments/bank", "charter": charter() } }).to_string(),
        json!({ "destroy": { "key": KEY } }).to_string(),
        json!({ "import": { "key": "payments/new.1", "charter": charter(), "private_key": "MAA=" } })
            .to_string(),
        json!({ "adopt": { "key": "payments/new.1", "charter": charter(), "object": { "id": "00" } } })
            .to_string(),
    ] {
        assert!(refused(&mut broker, &request).contains("root"));
    }
    mints(&mut broker);
    assert_eq!(
        keystore.token().private_keys(&keystore.state()),
        1,
        "nothing was made or destroyed"
    );
}

#[test]
fn a_broker_rotates_a_key_under_its_charter_and_fills_no_token() {
    let keystore = with_key();
    let mut broker = keystore.greeted_as(BROKER);
    let on = |verb: &str, version: u32| {
        json!({ verb: { "key": format!("payments/bank.{version}") } }).to_string()
    };
    let keys = || keystore.token().private_keys(&keystore.state());
    let missing = broker.ask(&json!({ "next": { "key": "payments/new.2" } }).to_string());
    assert_eq!(missing.unwrap()["refused"]["kind"], "not_found");
    for version in 2..=8 {
        let made = broker.ask(&on("next", version)).unwrap();
        assert_eq!(made["made"]["created"], true, "{made}");
        assert_eq!(made["made"]["key"]["charter"], charter());
    }
    for version in [9, 10, 1000] {
        refused(&mut broker, &on("next", version));
    }
    assert_eq!(keys(), 8);
    let why = refused(&mut broker, &on("destroy", 8));
    assert!(why.contains("root"), "{why}");
    for version in 1..=7 {
        let done = broker.ask(&on("destroy", version)).unwrap();
        assert!(done["done"].is_object(), "{done}");
    }
    assert_eq!(keys(), 1);
    let certify = json!({ "certify": { "key": "payments/bank.8", "form": { "request": {} } } });
    let why = refused(&mut broker, &certify.to_string());
    assert!(why.contains("its charter has no certificate"), "{why}");
}

#[test]
fn root_makes_keys_and_cannot_use_them() {
    let keystore = with_key();
    let mut root = keystore.greeted_as(0);
    assert!(refused(&mut root, &mint(|_| ())).contains("broker"));
    let again = root.ask(&make(KEY, &charter())).unwrap();
    assert_eq!(again["made"]["created"], false, "{again}");
    let mut other = charter();
    other["lifetime_max_s"] = json!(300);
    let reply = root.ask(&make(KEY, &other)).unwrap();
    assert!(
        reply["refused"].is_object(),
        "the same id under another charter: {reply}"
    );
    assert_eq!(keystore.token().private_keys(&keystore.state()), 1);
    let done = root
        .ask(&json!({ "destroy": { "key": KEY } }).to_string())
        .unwrap();
    assert!(done["done"].is_object(), "{done}");
    assert_eq!(keystore.token().private_keys(&keystore.state()), 0);
    let gone = keystore.greeted_as(BROKER).ask(&mint(|_| ())).unwrap();
    assert_eq!(gone["refused"]["kind"], "not_found", "{gone}");
}

#[test]
fn a_stranger_is_hung_up_on() {
    let keystore = with_key();
    for uid in [STRANGER, ALICE, 65_534] {
        for request in [r#"{"hello":{"version":3}}"#, r#"{"health":{}}"#] {
            assert_eq!(
                keystore.connect_as(uid).ask(request),
                None,
                "uid {uid}: {request}"
            );
        }
    }
    mints(&mut keystore.greeted_as(BROKER));
}

#[test]
fn a_connection_begins_with_one_hello_of_this_version() {
    let keystore = with_key();
    for request in [
        mint(|_| ()),
        make("payments/new.1", &charter()),
        r#"{"health":{}}"#.to_owned(),
        r#"{"list":{"after":null}}"#.to_owned(),
        r#"{"hello":{"version":0}}"#.to_owned(),
        r#"{"hello":{"version":2}}"#.to_owned(),
        r#"{"hello":{"version":4}}"#.to_owned(),
    ] {
        let mut peer = keystore.connect_as(BROKER);
        let reply = peer.ask(&request).unwrap();
        assert_eq!(reply["refused"]["kind"], "protocol", "{request}: {reply}");
        assert_eq!(peer.reply(), None, "{request}: the connection goes on");
    }
    let mut twice = keystore.greeted_as(BROKER);
    let reply = twice.ask(r#"{"hello":{"version":3}}"#).unwrap();
    assert_eq!(reply["refused"]["kind"], "protocol", "{reply}");
    mints(&mut keystore.greeted_as(BROKER));
}

#[test]
fn no_malformed_frame_gets_anything_or_stops_the_keystore() {
    let mut keystore = with_key();
    let raw = |length: u32, rest: &[u8]| [&length.to_be_bytes()[..], rest].concat();
    let deep = |open: &str| frame(open.repeat(65_000 / open.len()).as_bytes());
    let frames: Vec<(&str, Vec<u8>)> = vec![
        ("length 0", raw(0, b"")),
        ("64 KiB and 1", raw(64 * 1024 + 1, &[b' '; 64 * 1024 + 1])),
        ("2 GiB", raw(1 << 31, b"{}")),
        ("4 GiB", raw(u32::MAX, b"{}")),
        ("cut in the length", vec![0, 0]),
        ("cut in the message", raw(100, b"{\"hello\"")),
        ("not JSON", frame(b"hello")),
        ("not UTF-8", frame(b"{\"hello\":\"\xff\xfe\"}")),
        ("zeros", frame(&[0; 100])),
        ("an empty object", frame(b"{}")),
        ("null", frame(b"null")),
        ("an array", frame(b"[{\"health\":{}}]")),
        (
            "two verbs",
            frame(br#"{"health":{},"list":{"after":null}}"#),
        ),
        ("a verb of no protocol", frame(br#"{"fly":{}}"#)),
        ("a member too many", frame(br#"{"health":{"x":1}}"#)),
        (
            "a member twice",
            frame(br#"{"list":{"after":null,"after":null}}"#),
        ),
        (
            "a key that is none",
            frame(br#"{"list":{"after":"../../etc/passwd"}}"#),
        ),
        ("more after the message", frame(br#"{"health":{}} {}"#)),
        (
            "a huge number",
            frame(format!(r#"{{"hello":{{"version":{}}}}}"#, "9".repeat(60_000)).as_bytes()),
        ),
        ("deep arrays", deep("[")),
        ("deep objects", deep(r#"{"mint":"#)),
        (
            "an HTTP request",
            harness::http::post(r#"{"target":"bank"}"#),
        ),
    ];
    for (name, bytes) in frames {
        for uid in [BROKER, 0] {
            let mut peer = keystore.greeted_as(uid);
            peer.send(&bytes);
            peer.end_sending();
            let reply = peer.reply();
            let nothing = reply
                .as_ref()
                .is_none_or(|reply| reply["refused"].is_object());
            assert!(nothing, "{name}: {reply:?}");
        }
        assert!(
            keystore.process().ended().is_none(),
            "{name}: {}",
            keystore.process().stderr()
        );
    }
    mints(&mut keystore.greeted_as(BROKER));
}

#[test]
fn a_frame_in_many_pieces_is_one_request() {
    let keystore = with_key();
    let mut broker = keystore.greeted_as(BROKER);
    for byte in frame(mint(|_| ()).as_bytes()) {
        broker.send(&[byte]);
    }
    assert!(broker.reply().unwrap()["minted"].is_object());
    let two = [frame(br#"{"health":{}}"#), frame(mint(|_| ()).as_bytes())].concat();
    broker.send(&two);
    assert!(broker.reply().unwrap()["health"].is_object());
    assert!(broker.reply().unwrap()["minted"].is_object());
}
