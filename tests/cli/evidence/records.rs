//! What is kept beside a registry: challenges for hosts, each for one answer, and enrolments that wait for theirs.

use super::fixture::{World, public};
use super::{Desk, host, now, plain, request, stderr, stdout};
use keystore::evidence::bundle::{Bundle, Nonce};
use keystore::evidence::enrolment::registry::EkFingerprint;
use keystore::evidence::enrolment::{File as _, Pending};
use keystore::evidence::nonces::Nonces;
use std::fs;

/// One that was made here.
fn made(desk: &Desk) -> Nonce {
    let made = desk.run(&["nonce", "--policy", "policy.toml"]);
    assert_eq!(made.status.code(), Some(0), "{}", stderr(&made));
    let nonce = stdout(&made);
    assert_eq!(nonce.trim_end().len(), 64, "{nonce}");
    nonce.trim_end().parse().unwrap()
}

/// What a host answers it.
fn answer(world: &World, nonce: Nonce) -> String {
    let world = World {
        nonce,
        ..world.clone()
    };
    let bundle = Bundle {
        made_at: now(),
        ..world.bundle()
    };
    bundle.to_json()
}

fn verify(desk: &Desk, nonce: Nonce, more: &[&str]) -> (Option<i32>, String) {
    let nonce = nonce.to_base64url();
    let nonce = format!("--nonce={nonce}");
    let arguments = ["verify", "evidence.json", &nonce, "--policy", "policy.toml"];
    let output = desk.run(&[&arguments[..], more].concat());
    (output.status.code(), plain(&output))
}

fn open(desk: &Desk) -> Nonces {
    Nonces::parse(desk.read("registry.nonces").as_bytes()).unwrap()
}

#[test]
fn a_nonce_is_answered_once_and_only_where_it_was_made() {
    let desk = Desk::new();
    let failed = "failed nonce-use - this nonce is not open";
    // One that was made elsewhere.
    let (status, text) = verify(&desk, desk.world.nonce, &["--record"]);
    assert_eq!(status, Some(1), "{text}");
    assert!(text.contains(failed), "{text}");
    assert!(text.contains("web-1: failed: 1 of "), "{text}");
    assert!(!desk.at("registry.nonces").exists());

    let (nonce, other) = (made(&desk), made(&desk));
    assert_ne!(nonce, other);
    assert!(!desk.read("registry.nonces").contains(&nonce.to_base64url()));
    // An answer that does not pass uses nothing up.
    let older = World {
        firmware: 1 << 48,
        ..desk.world.clone()
    };
    let policy = desk.world.policy();
    let denied =
        format!("{policy}[[firmware.deny]]\nmanufacturer = \"IBM\"\nto = \"0001000000000000\"\n");
    desk.put("policy.toml", &denied);
    desk.put("evidence.json", &answer(&older, nonce));
    let (status, text) = verify(&desk, nonce, &["--record"]);
    assert_eq!(status, Some(1), "{text}");
    assert!(
        text.contains("failed firmware tpm") && text.contains("passed nonce-use -"),
        "{text}"
    );
    assert_eq!(open(&desk).open.len(), 2);

    desk.put("evidence.json", &answer(&desk.world, nonce));
    // Without --record nothing is kept, and that is said.
    for _ in 0..2 {
        let (status, text) = verify(&desk, nonce, &[]);
        assert_eq!(status, Some(0), "{text}");
        assert!(
            text.contains("skipped nonce-use - no nonces are kept here"),
            "{text}"
        );
    }
    let (status, text) = verify(&desk, nonce, &["--record"]);
    assert_eq!(status, Some(0), "{text}");
    let (status, text) = verify(&desk, nonce, &["--record"]);
    assert_eq!(status, Some(1), "{text}");
    assert!(
        text.contains(failed) && text.contains("web-1: failed: 1 of "),
        "{text}"
    );
    // The other one is open still.
    desk.put("evidence.json", &answer(&desk.world, other));
    assert_eq!(verify(&desk, other, &["--record"]).0, Some(0));
    assert_eq!(open(&desk), Nonces::new());
}

#[test]
fn a_nonce_that_has_grown_old_is_answered_by_nobody_and_forgotten() {
    let desk = Desk::new();
    let mut nonces = Nonces::new();
    nonces.keep(&desk.world.nonce, now() - 302);
    desk.put("registry.nonces", &nonces.to_json());
    let (status, text) = verify(&desk, desk.world.nonce, &["--record"]);
    assert_eq!(status, Some(1), "{text}");
    assert!(
        text.contains("failed nonce-use - the nonce was made 30"),
        "{text}"
    );
    assert!(text.contains("and the policy allows 300"), "{text}");
    let policy = desk.world.policy();
    desk.put("policy.toml", &format!("max_age_s = 600\n{policy}"));
    assert_eq!(verify(&desk, desk.world.nonce, &["--record"]).0, Some(0));
    desk.put("policy.toml", &policy);
    desk.put("registry.nonces", &nonces.to_json());
    made(&desk);
    assert_eq!(open(&desk).open.len(), 1);
    assert_ne!(open(&desk).open, nonces.open);

    // A file that cannot be read is no empty one.
    desk.put("registry.nonces", "{}");
    let refused = desk.run(&["nonce", "--policy", "policy.toml"]);
    assert_eq!(
        (refused.status.code(), stdout(&refused).as_str()),
        (Some(1), "")
    );
    assert!(
        stderr(&refused).contains("registry.nonces: missing field"),
        "{}",
        stderr(&refused)
    );
    assert_eq!(verify(&desk, desk.world.nonce, &["--record"]).0, Some(1));
    desk.put(
        "policy.toml",
        &policy.replace("registry = \"registry.json\"\n", ""),
    );
    let refused = desk.run(&["nonce", "--policy", "policy.toml"]);
    assert_eq!(
        (refused.status.code(), stdout(&refused).as_str()),
        (Some(78), "")
    );
    assert!(
        stderr(&refused).contains("the policy names no registry"),
        "{}",
        stderr(&refused)
    );
}

#[test]
fn enrolments_that_expired_are_forgotten_and_strange_files_are_not() {
    let desk = Desk::new();
    let worlds = [host("web-2", 50, 51), host("web-3", 52, 53)];
    let lines = worlds.each_ref().map(|world| {
        let ek = EkFingerprint::of_spki(&public(&world.ek).spki());
        format!("{ek} {}\n", world.host)
    });
    desk.put("approved", &lines.concat());
    let challenge = |world: &World| {
        desk.put("r.json", &request(world));
        let arguments = ["enroll", "challenge", "r.json", "--policy", "policy.toml"];
        let output = desk.run(&[&arguments[..], &["--approved", "approved"]].concat());
        assert_eq!(output.status.code(), Some(0), "{}", stdout(&output));
    };
    let pending = || {
        let entries = fs::read_dir(desk.at("registry.pending")).unwrap();
        let mut paths: Vec<_> = entries.map(|it| it.unwrap().path()).collect();
        paths.sort();
        paths
    };
    challenge(&worlds[0]);
    let [first] = &pending()[..] else {
        panic!("{:?}", pending());
    };
    desk.put("registry.pending/strange.json", "{}");
    challenge(&worlds[1]);
    assert_eq!(pending().len(), 3, "it can be answered still");
    let mut over = Pending::parse(&fs::read(first).unwrap()).unwrap();
    over.expires_at = now() - 1;
    fs::write(first, over.to_json()).unwrap();
    challenge(&worlds[1]);
    assert!(!first.exists());
    assert!(desk.at("registry.pending/strange.json").exists());
    assert_eq!(pending().len(), 3);
}
