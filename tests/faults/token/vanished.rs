//! A key that is destroyed while all keys are read. SoftHSM answers CKR_GENERAL_ERROR then (seen once in 26,000
//! requests through 106 rotations), which says nothing about the key that somebody wants to sign with: the
//! reading fails, and nobody's signature.

use super::place::{OTHER, Place, two_keys};
use crate::observed::TARGET;
use harness::Config;
use harness::fault::{Function, Shimmed};

/// Enough for two readings of all keys: after eight searches (keystore-pkcs11's finder), of which each key
/// takes two, there is one, and if it fails, after eight more another.
const TARGETS: usize = 12;

/// Which targets come first after eight searches, and after eight more.
const READS_ALL: usize = 4;
const READS_AGAIN: usize = 8;

/// Has the session die at the first signature, so that each key is looked for again.
const ALL_ANEW: &str = "C_Sign 1! ckr:0xb3\n";

/// The keystore's own look at the token, once a minute, calls the same function. So a pass that it falls
/// into is made again.
const PASSES_MAX: usize = 10;

#[test]
fn a_key_that_goes_while_all_are_read_costs_nobody_a_signature() {
    let token = Shimmed::new();
    let more: Vec<String> = (2..TARGETS).map(|n| format!("bank{n}")).collect();
    let with = |config: Config, target: &String| config.target("payments", target, "");
    let config = more.iter().fold(two_keys(&token, "signers = 1\n"), with);
    let targets: Vec<&str> = [TARGET, OTHER]
        .into_iter()
        .chain(more.iter().map(String::as_str))
        .collect();
    let place = Place::of(config, token);
    for target in &targets {
        place.daemon.wait_served(target);
    }

    let mut undisturbed = pass(&place, &targets, "");
    for _ in 0..PASSES_MAX {
        let again = pass(&place, &targets, "");
        if again == undisturbed {
            break;
        }
        undisturbed = again;
    }
    let (key, all) = (undisturbed[0].1, undisturbed[READS_ALL].1);
    assert!(all > key + 2 * TARGETS as u64, "{undisturbed:?}");
    let served =
        |reads_all: &dyn Fn(usize) -> u64| (0..TARGETS).map(|n| (200, reads_all(n))).collect();
    let once: Vec<(u16, u64)> = served(&|n| if n == READS_ALL { all } else { key });
    assert_eq!(undisturbed, once);

    let gone = format!(
        "C_GetAttributeValue {}! lie:0x5\n",
        READS_ALL as u64 * key + 1
    );
    let expected: Vec<(u16, u64)> = served(&|n| match n {
        READS_ALL => key + 1,
        READS_AGAIN => all,
        _ => key,
    });
    let mut seen = Vec::new();
    for _ in 0..3 {
        let fired = place.token.fired(Function::C_GetAttributeValue);
        seen = pass(&place, &targets, &gone);
        assert_eq!(place.token.fired(Function::C_GetAttributeValue), fired + 1);
        if seen == expected {
            break;
        }
    }
    assert_eq!(seen, expected);
    assert_eq!(place.daemon.status().keystores[0].restarts, 0);
}

/// For each target what its request was answered, and how many attributes were read for it, when each key
/// is looked for again.
fn pass(place: &Place, targets: &[&str], rule: &str) -> Vec<(u16, u64)> {
    place.token.rules(&(ALL_ANEW.to_owned() + rule));
    let asked = targets.iter().map(|target| {
        let before = place.token.calls(Function::C_GetAttributeValue);
        let (status, _) = place.daemon.outcome(target);
        let read = place.token.calls(Function::C_GetAttributeValue) - before;
        (status, read)
    });
    asked.collect()
}
