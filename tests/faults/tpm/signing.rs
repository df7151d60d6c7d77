//! One signature goes wrong: it verifies wrong (row 13), its answer is lost (row 20), it takes too
//! long (row 11). What those rows promise of PKCS#11 tokens they promise of a TPM.

use super::scene::{BOTH, MANY, PASSWORD, Scene, handles, name};
use harness::{DEADLINE, process, wait_until};

/// How long one signature is delayed: within what a request may take (5 s) and a call (4 s).
const SLOW: &str = "TPM2_Sign 1 delay:1000\n";

#[test]
fn row_13_a_wrong_signature_of_a_tpm_stops_its_key_after_one_and_no_other() {
    let scene = Scene::new(MANY, PASSWORD);
    let pid = scene.daemon.keystore_pid();
    scene.tpm.proxy.rules("TPM2_Sign 1 flip\n");
    let refused = scene.ask(1);
    assert_eq!(scene.tpm.proxy.fired("TPM2_Sign"), 1);
    assert_eq!(refused.0, 503, "{refused:?}");
    let alerts = scene.daemon.wait_logged("ALERT: key payments/bank-1", 1);
    assert_eq!(alerts.len(), 1, "{alerts:?}");
    let state = |n| {
        let keys = scene.daemon.keys().into_iter();
        let key = keys.into_iter().find(|key| key.key.contains(&name(n)));
        key.expect("it is listed").state
    };
    assert_eq!(state(1), "suspended");
    // It signs nothing any more, although it could.
    scene.tpm.proxy.rules("");
    let signed = scene.tpm.proxy.seen("TPM2_Sign");
    for _ in 0..10 {
        assert_eq!(scene.ask(1).0, 503);
    }
    assert_eq!(scene.tpm.proxy.seen("TPM2_Sign"), signed);
    for n in 2..=MANY {
        assert_eq!(state(n), "active");
        assert_eq!(scene.ask(n).0, 200);
    }
    let released = scene.daemon.audit_records();
    let released = released.iter().filter(|it| it["target"] == name(1));
    assert!(released.count() > 0);
    scene.is_as_before(pid);
}

/// What others see of the TPM, and what the keystore says is its own.
fn nothing_is_left(scene: &Scene) {
    let checked = scene.daemon.assertctl(&["keystore", "check"]);
    let checked = String::from_utf8(checked.stdout).unwrap();
    assert!(checked.contains("objects in the TPM now"), "{checked}");
    assert!(!checked.contains("not ours"), "{checked}");
}

#[test]
fn row_20_a_lost_answer_to_a_signature_is_replaced_and_leaves_nothing_in_the_tpm() {
    for sessions in BOTH {
        let scene = Scene::new(MANY, sessions);
        let pid = scene.daemon.keystore_pid();
        // More often than there are places.
        for round in 1..=5 {
            for (action, times) in (1..).zip(["drop", "drop-after"]).map(|(n, a)| (a, n)) {
                let connected = scene.tpm.proxy.seen("TPM2_CreatePrimary");
                scene.tpm.proxy.rules(&format!("TPM2_Sign 1 {action}\n"));
                for n in 1..=MANY {
                    assert_eq!(scene.ask(n).0, 200, "{action}\n{}", scene.daemon.stderr());
                }
                assert!(scene.tpm.proxy.seen("TPM2_CreatePrimary") > connected);
                assert_eq!(scene.tpm.proxy.fired("TPM2_Sign"), 2 * (round - 1) + times);
                assert!(handles(&scene.tcti(), "transient").len() <= 3);
            }
        }
        nothing_is_left(&scene);
        scene.is_as_before(pid);
    }
}

#[test]
fn row_11_a_tpm_that_stalls_in_a_signature_gets_a_new_keystore_process_and_keeps_no_place() {
    for sessions in BOTH {
        let scene = Scene::new(MANY, sessions);
        let pid = scene.daemon.keystore_pid();
        scene.tpm.proxy.rules("TPM2_Sign 1 stall\n");
        let refused = scene.ask(1); // within its time
        assert_eq!(refused.0, 503, "{refused:?}");
        scene.tpm.proxy.wait_fired("TPM2_Sign", 1);
        let gone = wait_until(DEADLINE, || !process::runs(pid));
        assert!(gone, "{}", scene.daemon.stderr());
        for n in 1..=MANY {
            scene.serves_again(n);
        }
        assert_eq!(scene.tpm.proxy.fired("TPM2_Sign"), 1);
        assert!(!scene.daemon.logged("hang_limit_s").is_empty());
        nothing_is_left(&scene);
        scene.witness.knows_all(&scene.daemon);
    }
}

#[test]
fn row_11_a_slow_signature_is_waited_for() {
    let scene = Scene::new(1, PASSWORD);
    let pid = scene.daemon.keystore_pid();
    scene.tpm.proxy.rules(SLOW);
    assert_eq!(scene.ask(1).0, 200);
    assert_eq!(scene.tpm.proxy.fired("TPM2_Sign"), 1);
    scene.is_as_before(pid);
}
