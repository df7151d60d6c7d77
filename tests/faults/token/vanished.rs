//! A key that is destroyed while all keys are read. SoftHSM answers CKR_GENERAL_ERROR then (seen once in 26,000
//! requests through 106 rotations), which says nothing about the key that somebody wants to sign with.

use super::place::Place;
use harness::Config;
use harness::fault::{Function, Shimmed};
use harness::token::KEYSTORE;

/// More than the searches after which a session reads all keys at once (keystore-pkcs11's finder), with
/// two for each.
const TARGETS: usize = 8;

/// Has the session die at the first signature, so that each key is looked for again.
const ALL_ANEW: &str = "C_Sign 1! ckr:0xb3\n";

#[test]
fn a_key_that_goes_while_all_are_read_costs_nobody_a_signature() {
    let token = Shimmed::new();
    let uid = nix::unistd::geteuid().as_raw();
    let config = Config::default().keystore(KEYSTORE, &token, "signers = 1\n");
    let config = config.workload("payments", uid, "rate = 1000000\nburst = 1000000");
    let targets: Vec<String> = (0..TARGETS).map(|n| format!("bank{n}")).collect();
    let with = |config: Config, target: &String| config.target("payments", target, "");
    let place = Place::of(targets.iter().fold(config, with), token);
    for target in &targets {
        place.daemon.wait_served(target);
    }

    place.token.rules(ALL_ANEW);
    let mut read = Vec::new();
    for target in &targets {
        let before = place.token.calls(Function::C_GetAttributeValue);
        place.served(target);
        read.push(place.token.calls(Function::C_GetAttributeValue) - before);
    }
    let (at, most) = read
        .iter()
        .enumerate()
        .max_by_key(|(_, read)| **read)
        .unwrap();
    assert!(*most > 2 * TARGETS as u64, "nobody read all keys: {read:?}");
    assert!(at > 0, "{read:?}");
    let first_of_all = read[..at].iter().sum::<u64>() + 1;

    let fired = place.token.fired(Function::C_GetAttributeValue);
    let gone = format!("C_GetAttributeValue {first_of_all}! lie:0x5\n");
    place.token.rules(&(ALL_ANEW.to_owned() + &gone));
    for target in &targets {
        place.served(target);
    }
    let fired = place.token.fired(Function::C_GetAttributeValue) - fired;
    assert_eq!(fired, 1, "of {read:?}");
    assert_eq!(place.daemon.status().keystores[0].restarts, 0);
}
