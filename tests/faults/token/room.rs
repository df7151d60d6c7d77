//! Row 10: the token is full when a key is to be made.

use super::place::{OTHER, Place, two_keys};
use crate::observed::TARGET;
use harness::fault::Function;

/// A place with one key whose configuration asks for a second one since a moment ago.
pub fn with_a_key_to_make() -> Place {
    let place = Place::new();
    let config = two_keys(&place.token, "");
    place.daemon.site().configure(config.text());
    let reloaded = place.daemon.assertctl(&["reload"]);
    let said = String::from_utf8_lossy(&reloaded.stderr).into_owned();
    assert!(reloaded.status.success(), "{said}");
    place
}

/// `assertctl apply` fails; what it says of it.
pub fn apply_fails(place: &Place) -> String {
    let applied = place.daemon.assertctl(&["apply", "--yes"]);
    let said = String::from_utf8_lossy(&applied.stderr).into_owned();
    assert!(!applied.status.success(), "{said}");
    assert!(said.contains("payments → other"), "{said}");
    said
}

/// assertd knows the first key alone, and it signs.
pub fn only_the_first_signs(place: &Place) {
    place.served(TARGET);
    place.refused(OTHER, "key_unavailable");
    assert_eq!(place.daemon.keys().len(), 1);
}

/// Each target has its one key, and nothing is left over.
pub fn both_sign_and_nothing_is_left_over(place: &Place) {
    place.daemon.apply();
    place.daemon.wait_served(OTHER);
    place.served(TARGET);
    assert_eq!(place.token.token().private_keys(), 2);
    place.restart_keystore(); // which looks through the token as it starts
    place.daemon.wait_served(OTHER);
    place.served(TARGET);
    let status = place.daemon.status();
    assert_eq!(status.keystores[0].strange, Vec::<String>::new());
    assert_eq!(place.daemon.keys().len(), 2);
}

#[test]
fn row_10_a_full_token_makes_no_key_and_keeps_signing() {
    // CKR_DEVICE_MEMORY, from a token without room, and from one that made the key all the same.
    for (how, made) in [("ckr", 0), ("lie", 1)] {
        let place = with_a_key_to_make();
        let (before, token) = (place.before(), place.token.token());
        place
            .token
            .rules(&format!("C_GenerateKeyPair * {how}:0x31\n"));
        for times in 1..=2 {
            let said = apply_fails(&place);
            assert!(
                said.contains("the token is full; destroy objects"),
                "{said}"
            );
            assert_eq!(before.fired(&place, Function::C_GenerateKeyPair), times);
            only_the_first_signs(&place);
            assert_eq!(token.private_keys(), 1 + made, "{how}");
            if how == "lie" {
                break; // asked again it would be found, and not made
            }
        }
        before.in_the_same_process(&place);
        before.said(&place, "keystore hsm: ", 0);
        place.restart_keystore();
        place.daemon.wait_served(TARGET);
        only_the_first_signs(&place);
        place.token.rules("");
        let calls = before.calls(&place, Function::C_GenerateKeyPair);
        both_sign_and_nothing_is_left_over(&place);
        let calls = before.calls(&place, Function::C_GenerateKeyPair) - calls;
        assert_eq!(calls + made as u64, 1, "{how}: a key made twice, or never");
        assert_eq!(before.calls(&place, Function::C_DestroyObject), 0);
    }
}
