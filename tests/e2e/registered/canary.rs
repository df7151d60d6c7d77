//! A key whose next version waits for its canary: the server is told of it late, and until then the version
//! before goes on signing, so that nobody is refused.

use super::*;
use crate::served::Served;
use std::time::Instant;

/// TLS in front of an authorization server, or of nothing that answers.
struct Front(Served);

impl Front {
    fn start(server: &AuthorizationServer) -> Front {
        let (_, port) = server.issuer().rsplit_once(':').unwrap();
        Front::of(port)
    }

    fn of(port: &str) -> Front {
        Front(Served::start(include_str!("front.py"), &[port]))
    }

    /// What a target says of its canary, with the section that has the server believed.
    fn told(&self) -> (String, String) {
        let target = format!(
            "lifetime = 2\nrotation = {{ skew = \"0s\", leeway = \"5s\", rollback = \"0s\", activation = \
             \"canary\", canary = {{ token_endpoint = \"https://localhost:{}/token\", scope = \"api:read\", \
             span = \"2s\" }} }}\n",
            self.0.said()
        );
        let ca = self.0.ca();
        (target, format!("[courier]\nca = {ca:?}\n"))
    }
}

fn of_version(daemon: &Daemon, version: usize) -> assertd_client::api::KeyStatus {
    let id = format!("{KEY}.{version}");
    let key = daemon.keys().into_iter().find(|key| key.key == id);
    key.unwrap_or_else(|| panic!("{id}: {:?}", daemon.keys()))
}

fn canaries(daemon: &Daemon, version: usize) -> usize {
    let id = format!("{KEY}.{version}");
    let is_one = |it: &&Value| it["action"] == "canary" && it["key"] == *id;
    daemon.audit_records().iter().filter(is_one).count()
}

#[test]
fn a_version_signs_once_the_server_has_shown_that_it_knows_it_and_nobody_is_refused() {
    let (server, token) = (AuthorizationServer::start(), Token::new());
    let front = Front::start(&server);
    let (told, courier) = front.told();
    let config = Config::new(&token).workload("ours", us(), "rate = 100000\nburst = 100000");
    let config = config.target_at("ours", "bank", server.issuer(), &told);
    let daemon = Daemon::with_keys(config.with(&courier));
    push(&daemon, &server);
    let redeemer = Redeemer::start(&daemon, "bank", &server);
    let first = daemon.keys()[0].kid.clone();
    wait_accepted(&redeemer, &first, DEADLINE);
    assert_eq!(canaries(&daemon, 1), 0, "nothing signed before it");

    // Nobody has told the server.
    let second = rotate(&daemon, 2);
    let asks_for_it = || {
        let next = of_version(&daemon, 2).next.unwrap_or_default();
        next.starts_with("waits for its canary, 0 of 3 passed: ")
            && next.contains("401 invalid_client")
            && next.contains(&format!("register kid {second} there"))
    };
    let asked = wait_until(DEADLINE, asks_for_it);
    assert!(asked, "{:?}\n{}", daemon.keys(), daemon.stderr());
    let early = daemon.assertctl(&["keys", "activate", KEY]);
    let said = String::from_utf8_lossy(&early.stderr);
    assert!(
        !early.status.success() && said.contains("canary has not passed"),
        "{said}"
    );
    let refused = canaries(&daemon, 2);
    let goes_on = wait_until(DEADLINE, || canaries(&daemon, 2) > refused);
    assert!(goes_on, "it is tried again: {}", daemon.stderr());
    assert_eq!(of_version(&daemon, 2).phase, "published");
    let before = redeemer.accepted(&first);
    let signs = wait_until(DEADLINE, || redeemer.accepted(&first) >= before + 5);
    assert!(signs, "{:?}", redeemer.so_far().last());

    push(&daemon, &server);
    wait_accepted(&redeemer, &second, DEADLINE * 3);
    assert!(canaries(&daemon, 2) >= refused + 3);
    assert_eq!(of_version(&daemon, 2).canary, None);
    was_never_refused(redeemer, &server, &[first, second]);
    assert!(!daemon.stderr().contains("eyJ"), "{}", daemon.stderr());
}

#[test]
fn a_revoked_version_is_tried_no_more_and_a_held_key_neither() {
    let (server, token) = (AuthorizationServer::start(), Token::new());
    let front = Front::start(&server);
    let (told, courier) = front.told();
    let config = Config::new(&token).workload("ours", us(), "");
    let config = config.target_at("ours", "bank", server.issuer(), &told);
    let daemon = Daemon::with_keys(config.with(&courier));
    push(&daemon, &server);
    rotate(&daemon, 2); // of which nobody tells the server
    let is_tried = |least: usize| wait_until(DEADLINE, || canaries(&daemon, 2) > least);
    // One that was under way is over in the first second; refused it comes again after one and two.
    let rests = || {
        std::thread::sleep(Duration::from_secs(1));
        let before = canaries(&daemon, 2);
        std::thread::sleep(Duration::from_secs(4));
        canaries(&daemon, 2) == before
    };
    assert!(is_tried(0), "{}", daemon.stderr());
    done(&daemon, &["keys", "hold", KEY]);
    assert!(rests(), "nothing signs while it is held");
    let held = canaries(&daemon, 2);
    done(&daemon, &["keys", "resume", KEY]);
    assert!(is_tried(held), "{}", daemon.stderr());
    let id = format!("{KEY}.2");
    done(&daemon, &["keys", "revoke", &id, "--compromised", "--yes"]);
    assert!(rests(), "nothing of it is believed any more");
    assert_eq!(of_version(&daemon, 1).phase, "active");
}

/// The courier waits ten seconds for an answer; nobody here waits with it.
#[test]
fn an_endpoint_that_hangs_keeps_nobody_from_signing_or_from_stopping_a_key() {
    let token = Token::new();
    let front = Front::of("0");
    let (told, courier) = front.told();
    let config = Config::new(&token).workload("ours", us(), "rate = 100000\nburst = 100000");
    let config = config.target_at("ours", "bank", "https://as.example", &told);
    let config = config.target_at("ours", "other", "https://as.example", TOLD);
    let daemon = Daemon::with_keys(config.with(&courier));
    rotate(&daemon, 2);
    let is_tried = wait_until(DEADLINE, || canaries(&daemon, 2) > 0);
    assert!(is_tried, "{}", daemon.stderr());
    std::thread::sleep(Duration::from_secs(1)); // until it is asked there
    let started = Instant::now();
    assert_eq!(daemon.ask(crate::world::BANK).status, 200);
    done(&daemon, &["keys", "hold", "ours/other"]);
    done(&daemon, &["keys", "hold", KEY]);
    let took = started.elapsed();
    assert!(took < Duration::from_secs(5), "{took:?}");
    assert_eq!(canaries(&daemon, 2), 1, "it was under way all the time");
    done(&daemon, &["keys", "resume", KEY]);
    let says = || {
        let next = of_version(&daemon, 2).next.unwrap_or_default();
        next.starts_with("waits for its canary, 0 of 3 passed: ")
            && next.contains("no answer came in time")
    };
    assert!(wait_until(DEADLINE, says), "{:?}", daemon.keys());
    assert_eq!(of_version(&daemon, 1).phase, "active");
}
