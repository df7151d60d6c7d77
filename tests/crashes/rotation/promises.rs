//! What holds when a rotation has come to its end, however often it was cut off.

use super::disk;
use super::world::{OTHER, ROTATED, TARGETS, World};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use harness::token::KEYSTORE;
use harness::{DEADLINE, Token, wait_for, wait_until};
use keystore::{Alg, PublicKey};
use serde_json::Value;
use std::collections::BTreeSet;

/// Where verifiers find the sets, in the order of [`TARGETS`].
pub const SETS: [&str; 2] = ["issuer/prod/jwks.json", "client/ours/own/jwks.json"];

/// What is in the token that no record knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// Nothing.
    Nothing,
    /// Something that `assertctl status` names.
    Reported,
}

/// Everything.
pub fn hold(world: &World) -> Left {
    world.daemon().wait_usable();
    disk::is_whole(world);
    one_version_is_left(world);
    for (target, set) in TARGETS.into_iter().zip(SETS) {
        signs(world, target, set);
    }
    let left = left_over(world);
    let verified = world.daemon().assertctl(&["audit", "verify"]);
    let said = String::from_utf8_lossy(&verified.stderr).into_owned();
    assert!(verified.status.success(), "audit verify: {said}");
    left
}

/// The state, the keystore and the documents agree on it.
fn one_version_is_left(world: &World) {
    let records = disk::keyring(world);
    let versions = records["lineages"][ROTATED]["versions"]
        .as_object()
        .unwrap();
    let id = format!("{ROTATED}.{}", world.version);
    for (number, version) in versions {
        let phase = version["phase"].as_object().unwrap().keys().next().unwrap();
        let wanted = match *number == world.version.to_string() {
            true => "active",
            false => "destroyed",
        };
        assert_eq!(phase, wanted, "{ROTATED}.{number}");
    }
    let kids: BTreeSet<String> = world
        .daemon()
        .keys()
        .into_iter()
        .map(|key| key.kid)
        .collect();
    assert_eq!(
        kids.len(),
        world.daemon().keys().len(),
        "a kid is there twice"
    );
    let usable = wait_until(DEADLINE, || {
        let keys = world.daemon().keys();
        let of_ours = keys
            .iter()
            .filter(|key| key.key == id || key.key == format!("{OTHER}.1"));
        of_ours.filter(|key| key.state == "active").count() == 2
    });
    assert!(
        usable,
        "{:#?}\n{}",
        world.daemon().keys(),
        world.daemon().stderr()
    );
    let kid = world
        .daemon()
        .keys()
        .into_iter()
        .find(|key| key.key == id)
        .unwrap()
        .kid;
    let listed = || -> Vec<Value> {
        let keys = disk::published(world, SETS[0]);
        keys.iter().map(|key| key["kid"].clone()).collect()
    };
    assert_eq!(listed(), [Value::String(kid)], "published");
}

/// There is an assertion, which verifies by the set that is published, under its first key.
pub fn signs(world: &World, target: &str, set: &str) {
    let mut last = String::new();
    let answer = wait_for(DEADLINE, || {
        let answer = world.daemon().ask(&format!("{{\"target\":\"{target}\"}}"));
        last = format!("{} {}", answer.status, answer.body());
        (answer.status == 200).then_some(answer)
    });
    let answer = answer.unwrap_or_else(|| panic!("{target}: {last}\n{}", world.daemon().stderr()));
    let assertion = answer.member("assertion");
    let (message, signature) = assertion.rsplit_once('.').expect("a JWS");
    let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).expect("base64url");
    let header: Value =
        serde_json::from_slice(&decode(message.split('.').next().unwrap())).unwrap();
    let keys = disk::published(world, set);
    let key = keys.iter().find(|key| key["kid"] == header["kid"]);
    let key = key.unwrap_or_else(|| panic!("{target}: {} is not published", header["kid"]));
    let coordinate = |name: &str| decode(key[name].as_str().expect("a coordinate"));
    let point = [vec![4], coordinate("x"), coordinate("y")].concat();
    let key = PublicKey::from_sec1(&point).expect("a point");
    let verifier = key.verifier(Alg::ES256).expect("P-256");
    let verified = verifier.verify(message.as_bytes(), &decode(signature));
    assert!(verified.is_ok(), "{target}: {assertion}");
}

/// For each target by its own set.
pub fn all_sign(world: &World) {
    for (target, set) in TARGETS.into_iter().zip(SETS) {
        signs(world, target, set);
    }
}

/// Nothing in the token or among its files that no record knows, unless `assertctl status` names it;
/// no file half written.
fn left_over(world: &World) -> Left {
    let half = disk::half_written(world);
    assert!(half.is_empty(), "left behind: {half:?}");
    let (objects, known, listed) = match &world.token {
        // Public and private half of each key.
        Token::Pkcs11(token) => {
            let listed = token.pkcs11_tool().arg("--list-objects").output().unwrap();
            assert!(listed.status.success(), "pkcs11-tool: {listed:?}");
            let text = String::from_utf8_lossy(&listed.stdout).into_owned();
            let keys = text.lines().filter(|line| line.contains(" Key Object;"));
            (keys.count(), 4, text)
        }
        Token::Tpm(_) => {
            let files = disk::files(&world.keystore_state().join("keys"));
            (files.len(), 2, format!("{files:?}"))
        }
    };
    assert!(
        objects >= known,
        "{objects} objects for {known} that are known: {listed}"
    );
    if objects == known {
        return Left::Nothing;
    }
    // The keystore counts them when it opens its token, and the broker asks now and then.
    let named = wait_until(DEADLINE, || {
        let keystore = world.daemon().keystore(KEYSTORE);
        keystore.is_some_and(|keystore| !keystore.strange.is_empty())
    });
    assert!(
        named,
        "{objects} objects for {known} that are known, and status names none: {listed}"
    );
    Left::Reported
}
