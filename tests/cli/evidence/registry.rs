//! The registry that a policy names: not there, held by another, and with a host in it that has another TPM now.

use super::fixture::{World, bytes};
use super::{Desk, host, now, plain, stderr, stdout};
use keystore::evidence::enrolment::{
    EnrolmentId, File as _, Pending, PendingType, Response, ResponseType, VERSION,
};
use keystore::evidence::hash::Hash;
use nix::fcntl::{Flock, FlockArg};
use std::fs;
use std::time::{Duration, Instant};

#[test]
fn a_registry_that_is_not_there_is_said() {
    let desk = Desk::new();
    let there = desk.verify(&[]);
    assert_eq!(
        (there.status.code(), stderr(&there).as_str()),
        (Some(0), "")
    );
    fs::rename(desk.at("registry.json"), desk.at("registry.old")).unwrap();
    let said =
        "assertctl: warn: registry.json, which the policy names, is not there: nobody is enrolled";
    for more in [&[][..], &["--record"], &["--json"]] {
        let absent = desk.verify(more);
        assert_eq!(absent.status.code(), Some(1));
        let text = stderr(&absent);
        assert!(text.starts_with(said), "{text}");
    }
    let absent = plain(&desk.verify(&[]));
    assert!(
        absent.contains("failed host tpm nothing is known of a host web-1"),
        "{absent}"
    );
    // What cannot be looked at is no registry without hosts.
    fs::create_dir(desk.at("registry.json")).unwrap();
    let refused = desk.verify(&[]);
    assert_eq!(
        (refused.status.code(), stdout(&refused).as_str()),
        (Some(1), "")
    );
    assert!(
        stderr(&refused).contains("registry.json: is no file"),
        "{}",
        stderr(&refused)
    );
}

#[test]
fn a_registry_that_another_holds_is_waited_for_and_not_for_ever() {
    let desk = Desk::new();
    let dir = fs::File::open(desk.dir.path()).unwrap();
    let held = Flock::lock(dir, FlockArg::LockExclusive).unwrap();
    let begun = Instant::now();
    let refused = desk.run(&["nonce", "--policy", "policy.toml"]);
    assert_eq!(
        (refused.status.code(), stdout(&refused).as_str()),
        (Some(1), "")
    );
    let said = stderr(&refused);
    assert!(
        said.contains("another assertctl has held the registry for long"),
        "{said}"
    );
    assert!(
        begun.elapsed() >= Duration::from_secs(9),
        "{:?}",
        begun.elapsed()
    );
    assert!(!desk.at("registry.nonces").exists());
    let other = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_secs(1));
        drop(held);
    });
    let made = desk.run(&["nonce", "--policy", "policy.toml"]);
    other.join().unwrap();
    assert_eq!(made.status.code(), Some(0), "{}", stderr(&made));
}

/// A host has answered its challenge, with another TPM than it had; nobody has said yet that this is meant.
#[test]
fn a_response_is_good_for_a_second_finish_that_says_what_was_meant() {
    let desk = Desk::new();
    let new: World = host("web-1", 60, 61);
    let secret = [9; 32];
    let pending = Pending {
        r#type: PendingType::Pending,
        version: VERSION,
        id: EnrolmentId([5; 16]),
        expires_at: now() + 300,
        enrolled: new.enrolled(),
        secret_digest: bytes(&Hash::Sha256.of(&[&secret])),
    };
    let kept = format!("registry.pending/{}.json", "05".repeat(16));
    desk.put(&kept, &pending.to_json());
    let response = Response {
        r#type: ResponseType::Response,
        version: VERSION,
        id: pending.id,
        host: new.host.clone(),
        secret: bytes(&secret),
    };
    desk.put("r.json", &response.to_json());
    let finish = |more: &[&str]| {
        let arguments = ["enroll", "finish", "r.json", "--policy", "policy.toml"];
        let output = desk.run(&[&arguments[..], more].concat());
        (output.status.code(), plain(&output))
    };
    let before = desk.registry();
    let (status, text) = finish(&[]);
    assert_eq!(status, Some(1), "{text}");
    assert!(text.contains("--replace web-1"), "{text}");
    assert_eq!(desk.registry(), before);
    let (status, text) = finish(&["--replace", "web-2"]);
    assert_eq!(status, Some(1), "{text}");
    let (status, text) = finish(&["--replace", "web-1"]);
    assert_eq!(status, Some(0), "{text}");
    assert_eq!(desk.registry().enrolled, [new.enrolled()]);
    assert!(!desk.at(&kept).exists());
    let (status, text) = finish(&["--replace", "web-1"]);
    assert_eq!(status, Some(1), "{text}");
    assert!(text.contains("no challenge is open for it"), "{text}");
}
