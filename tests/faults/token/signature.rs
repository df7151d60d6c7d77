//! Row 13: the module says CKR_OK and gives what is no signature.

use super::place::{OTHER, Place};
use crate::observed::{self, TARGET};
use harness::fault::Function;

/// Same length and content of nothing; one byte less; same length and other content.
const WRONG: [&str; 3] = ["zeros", "short", "random"];

/// What the audit log has on a request.
fn outcome_of(place: &Place, id: &str) -> String {
    let of_it = |record: &serde_json::Value| record["kind"] == "outcome" && record["id"] == id;
    let record = place.daemon.audit_record(of_it);
    record["result"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn row_13_one_wrong_signature_stops_its_key_and_is_not_released() {
    for action in WRONG {
        let place = Place::with_two_keys();
        let before = place.before();
        place.token.rules(&format!("C_Sign 1! {action}\n"));
        let answer = place.daemon.ask(&format!("{{\"target\":\"{TARGET}\"}}"));
        let wrong = (503, "wrong_signature".to_owned());
        assert_eq!((answer.status, answer.problem()), wrong, "{action}");
        assert_eq!(before.fired(&place, Function::C_Sign), 1, "{action}");
        assert_eq!(outcome_of(&place, &answer.member("id")), "failed");

        // After one, although the token would sign well again.
        let (state, why) = place.key(TARGET);
        assert_eq!(state, "suspended", "{why}");
        assert!(
            why.contains("check the token, then restart assertd"),
            "{why}"
        );
        let signed = before.calls(&place, Function::C_Sign);
        for _ in 0..20 {
            place.refused(TARGET, "key_unavailable");
        }
        assert_eq!(before.calls(&place, Function::C_Sign), signed, "{action}");
        place.served(OTHER);
        place.restart_keystore();
        place.daemon.wait_served(OTHER);
        place.refused(TARGET, "key_unavailable");
        assert_eq!(place.key(TARGET).0, "suspended");
        let alerts = before.said(&place, "assertd: ALERT: key payments/bank.1 ", 1);
        assert!(alerts[0].contains("is suspended"), "{alerts:?}");
        let recorded = |record: &serde_json::Value| record["action"] == "suspended";
        place.daemon.audit_record(recorded);
        before.nothing_changed(&place);

        // What helps is what was said.
        let place = Place::again(place.end());
        place.daemon.wait_served(TARGET);
        assert_eq!(place.key(TARGET).0, "active");
        observed::chain_verifies(&place.daemon);
    }
}

#[test]
fn row_13_a_key_that_signs_wrongly_in_the_start_up_probe_is_not_used() {
    let mut left = Place::with_two_keys().end();
    for action in WRONG {
        let fired = left.1.fired(Function::C_Sign);
        // Keys are looked at in the order of their ids: bank before other.
        left.1.rules(&format!("C_Sign 1! {action}\n"));
        let place = Place::again(left);
        place.daemon.wait_served(OTHER);
        assert_eq!(place.token.fired(Function::C_Sign), fired + 1, "{action}");
        let before = place.before();
        let why = place.wait_key(TARGET, "failed");
        assert!(why.contains("start-up probe"), "{why}");
        assert!(why.contains("check the module's version"), "{why}");
        place.refused(TARGET, "key_unavailable");
        place.served(OTHER);
        before.nothing_changed(&place);
        left = place.end();
    }
    let place = Place::again(left);
    place.daemon.wait_served(TARGET);
}
