//! The read-back gate: a version signs once it was seen at `verify_url` for as long as verifiers keep what
//! they have read, and not before, whatever is served there; meanwhile the one before goes on signing.

use super::*;
use crate::world::{BANK, decode, us};
use harness::{Daemon, Token, wait_until};

fn configuration(token: &Token, publisher: &Publisher, path: &str) -> String {
    let extra = format!(
        "[workload.ours]\nmatch = {{ uid = {} }}\nallow_pid_fallback = true\nrate = 100000\nburst = 100000\n\
         [workload.ours.target.bank]\nprofile = \"vault-jwt\"\nissuer = \"prod\"\nsubject = \"a\"\n\
         audience = \"https://vault.example\"\n\
         [issuer.prod]\nurl = \"https://id.example/prod\"\nsubjects = [\"a\"]\nverify_url = {:?}\n\
         keystore = {:?}\nrotation = {{ publish_latency = \"1s\", verifier_cache = \"1s\", skew = \"0s\" }}\n\
         [publication]\ndirectory = {:?}\n[courier]\nca = {:?}\n",
        us(),
        publisher.url("right", path),
        harness::token::KEYSTORE,
        publisher.dir().join("published"),
        publisher.ca(),
    );
    harness::Config::new(token).with(&extra).text().to_owned()
}

/// What the site's own command would do.
fn ship(publisher: &Publisher) {
    let dir = publisher.dir();
    let (from, to) = (
        dir.join("published/issuer/prod/jwks.json"),
        dir.join("live.json"),
    );
    std::fs::copy(from, dir.join("shipped")).unwrap();
    std::fs::rename(dir.join("shipped"), to).unwrap();
}

fn state(daemon: &Daemon, id: &str) -> (String, String) {
    let keys = daemon.keys();
    let key = keys.iter().find(|key| key.key == id);
    key.map_or_else(Default::default, |key| {
        (key.state.clone(), key.next.clone().unwrap_or_default())
    })
}

fn kid(daemon: &Daemon) -> String {
    let answer = daemon.ask(BANK);
    assert_eq!(answer.status, 200, "{}\n{}", answer.body(), daemon.stderr());
    let (header, _) = decode(answer.json()["assertion"].as_str().unwrap());
    header["kid"].as_str().unwrap().to_owned()
}

#[test]
fn a_version_signs_once_it_was_seen_and_whatever_else_is_served_it_does_not() {
    let (publisher, token) = (Publisher::start(), Token::new());
    std::fs::create_dir(publisher.dir().join("published")).unwrap();
    let daemon = Daemon::start(configuration(&token, &publisher, "live"));
    daemon.apply();
    assert_eq!(state(&daemon, "issuer/prod.1").0, "published");
    assert_eq!(daemon.ask(BANK).status, 503, "nobody could verify it");
    ship(&publisher);
    let is_active = |id: &str| state(&daemon, id).0 == "active";
    assert!(
        wait_until(DEADLINE, || is_active("issuer/prod.1")),
        "{:?}",
        daemon.keys()
    );
    let first = kid(&daemon);

    let rotated = daemon.assertctl(&["keys", "rotate", "issuer/prod"]);
    assert!(rotated.status.success(), "{rotated:?}");
    let is_published = || state(&daemon, "issuer/prod.2").0 == "published";
    assert!(wait_until(DEADLINE, is_published), "{:?}", daemon.keys());
    // Served are: the set of before, an error page, an error, nothing for long, a redirect, a document
    // without an end, another issuer's set.
    let mut said = String::new();
    for path in [
        "live",
        "page-as-json",
        "500",
        "hang-answer",
        "redirect",
        "endless",
        "other",
    ] {
        daemon
            .site()
            .configure(&configuration(&token, &publisher, path));
        assert!(
            daemon.assertctl(&["reload"]).status.success(),
            "{}",
            daemon.stderr()
        );
        let next = || state(&daemon, "issuer/prod.2").1;
        let is_other = || next() != said && next().contains("verify_url: ");
        assert!(
            wait_until(DEADLINE, is_other),
            "{path}: {:?}",
            daemon.keys()
        );
        said = next();
        assert!(
            next().starts_with("waits to be seen at verify_url"),
            "{}",
            next()
        );
        assert!(is_published(), "{path}: {:?}", daemon.keys());
        assert_eq!(kid(&daemon), first, "{path}");
    }
    daemon
        .site()
        .configure(&configuration(&token, &publisher, "live"));
    assert!(daemon.assertctl(&["reload"]).status.success());
    ship(&publisher);
    assert!(
        wait_until(DEADLINE, || is_active("issuer/prod.2")),
        "{:?}",
        daemon.keys()
    );
    assert_ne!(kid(&daemon), first);
}
