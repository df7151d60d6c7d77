//! A client of an unmodified oidc-provider that redeems assertions several times a second all the way through three
//! rotations of its key, and is not refused once: with a key that is registered there by hand, and with one that
//! the server fetches and keeps for a minute, whatever the client would like.

use crate::world::us;
use harness::peers::AuthorizationServer;
use harness::redeemer::Redeemer;
use harness::webserver::WebServer;
use harness::{Config, DEADLINE, Daemon, Token, public_dir, wait_until};
use serde_json::Value;
use std::time::Duration;

mod canary;

const KEY: &str = "ours/bank";

/// The server accepts for five seconds what has expired.
const TOLD: &str =
    "lifetime = 2\nrotation = { skew = \"0s\", leeway = \"5s\", rollback = \"0s\" }\n";

/// It keeps a set for a minute and asks for it again then.
const FETCHED: &str = "lifetime = 5\nrotation = { publish_latency = \"1s\", verifier_cache = \"60s\", \
                       skew = \"1s\", leeway = \"5s\", rollback = \"0s\", activation = \"time\" }\n";

fn done(daemon: &Daemon, arguments: &[&str]) -> String {
    let output = daemon.assertctl(arguments);
    let why = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{arguments:?}: {why}");
    String::from_utf8(output.stdout).unwrap()
}

fn set(daemon: &Daemon) -> Value {
    serde_json::from_str(&done(daemon, &["jwks", "--key", KEY])).unwrap()
}

/// What somebody who is told of a key does at the server.
fn push(daemon: &Daemon, server: &AuthorizationServer) {
    server.register("ours-bank", "ES256", &set(daemon));
}

/// Begins the next version, and waits until it is published; its kid.
fn rotate(daemon: &Daemon, version: usize) -> String {
    done(daemon, &["keys", "rotate", KEY]);
    let id = format!("{KEY}.{version}");
    let published = harness::wait_for(DEADLINE, || {
        let key = daemon.keys().into_iter().find(|key| key.key == id)?;
        (key.phase == "published").then_some(key.kid)
    });
    published.unwrap_or_else(|| panic!("{:?}\n{}", daemon.keys(), daemon.stderr()))
}

#[track_caller]
fn wait_accepted(redeemer: &Redeemer, kid: &str, patience: Duration) {
    let accepted = wait_until(patience, || redeemer.accepted(kid) >= 5);
    assert!(accepted, "{kid}: {:?}", redeemer.so_far().last());
}

/// Waits until what is replaced is in the set no more.
fn wait_alone(daemon: &Daemon, kid: &str) {
    let is_alone = || {
        let set = set(daemon);
        let keys = set["keys"].as_array().unwrap();
        keys.len() == 1 && keys[0]["kid"] == *kid
    };
    assert!(wait_until(DEADLINE * 3, is_alone), "{:?}", daemon.keys());
}

/// Demands that nothing was refused, and that these have signed, one after the other.
#[track_caller]
fn was_never_refused(redeemer: Redeemer, server: &AuthorizationServer, kids: &[String]) {
    let redeemed = redeemer.stop();
    let refused: Vec<_> = redeemed.iter().filter(|it| it.refusal.is_some()).collect();
    assert!(
        refused.is_empty(),
        "{} of {}, first {:?}, last {:?}\n{}",
        refused.len(),
        redeemed.len(),
        refused.first(),
        refused.last(),
        server.reasons()
    );
    let mut signed: Vec<String> = redeemed.into_iter().map(|it| it.kid).collect();
    signed.dedup();
    assert_eq!(signed, kids);
}

#[test]
fn a_server_that_is_told_accepts_through_three_rotations_and_nothing_that_it_was_not_told() {
    let (server, token) = (AuthorizationServer::start(), Token::new());
    let config = Config::new(&token).workload("ours", us(), "rate = 100000\nburst = 100000");
    let daemon = Daemon::with_keys(config.target_at("ours", "bank", server.issuer(), TOLD));
    push(&daemon, &server);
    let redeemer = Redeemer::start(&daemon, "bank", &server);
    let mut kids = vec![daemon.keys()[0].kid.clone()];
    wait_accepted(&redeemer, &kids[0], DEADLINE);
    for version in 2..=4 {
        let kid = rotate(&daemon, version);
        push(&daemon, &server);
        done(&daemon, &["keys", "activate", KEY]);
        wait_accepted(&redeemer, &kid, DEADLINE);
        kids.push(kid);
    }
    wait_alone(&daemon, &kids[3]);
    push(&daemon, &server);
    let before = redeemer.accepted(&kids[3]);
    let goes_on = wait_until(DEADLINE, || redeemer.accepted(&kids[3]) >= before + 5);
    assert!(goes_on, "{:?}", redeemer.so_far().last());
    was_never_refused(redeemer, &server, &kids);

    // A server that refuses nothing would have accepted all of that too.
    rotate(&daemon, 5);
    done(&daemon, &["keys", "activate", KEY]);
    let redeem = || {
        let answer = daemon.ask(crate::world::BANK);
        let redeemed = server.redeem(&[answer.member("assertion")]).remove(0);
        redeemed["status"].as_u64().unwrap()
    };
    assert_eq!(redeem(), 401, "nobody has told it");
    push(&daemon, &server);
    assert_eq!(redeem(), 200, "{}", server.reasons());
}

#[test]
#[ignore = "long: the server keeps what it has fetched for a minute, three times (2026-11-23)"]
fn a_server_that_fetches_accepts_through_three_rotations() {
    let (server, token) = (AuthorizationServer::start(), Token::new());
    let published = public_dir();
    let web = WebServer::start(published.path());
    let publication = format!("[publication]\ndirectory = {:?}\n", published.path());
    let config = Config::new(&token).with(&publication);
    let config = config.workload("ours", us(), "rate = 100000\nburst = 100000");
    let daemon = Daemon::with_keys(config.target_at("ours", "bank", server.issuer(), FETCHED));
    server.register_at("ours-bank", "ES256", &web.url("client/ours/bank/jwks.json"));
    let redeemer = Redeemer::start(&daemon, "bank", &server);
    let mut kids = vec![daemon.keys()[0].kid.clone()];
    wait_accepted(&redeemer, &kids[0], DEADLINE);
    for version in 2..=4 {
        let kid = rotate(&daemon, version);
        wait_accepted(&redeemer, &kid, DEADLINE * 5);
        kids.push(kid);
    }
    wait_alone(&daemon, &kids[3]);
    // And until it has fetched once more, which is when it forgets the others.
    let before = redeemer.so_far().last().unwrap().at;
    let goes_on = || redeemer.so_far().last().unwrap().at > before + Duration::from_secs(65);
    assert!(wait_until(DEADLINE * 5, goes_on));
    was_never_refused(redeemer, &server, &kids);
}
