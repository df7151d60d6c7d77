//! Nothing is used up: what a signature takes of the TPM it gives back.

use super::scene::{BOTH, MANY, Scene, handles};

const SIGNATURES: usize = 1_000;

/// With more keys than places: each signature brings its key back and saves another.
#[test]
#[ignore = "long: 1,000 signatures through the whole daemon, twice (2026-11-22)"]
fn a_thousand_signatures_on_bare_slots_leave_none_taken() {
    for sessions in BOTH {
        let scene = Scene::new(MANY, sessions);
        let pid = scene.daemon.keystore_pid();
        let used = || {
            ["transient", "loaded-session", "saved-session", "persistent"]
                .map(|kind| handles(&scene.tcti(), kind).len())
        };
        let (before, signed) = (used(), scene.tpm.proxy.seen("TPM2_Sign"));
        let brought = scene.tpm.proxy.seen("TPM2_ContextLoad");
        for n in 0..SIGNATURES {
            assert_eq!(scene.ask(n % MANY + 1).0, 200, "{n}");
        }
        assert_eq!(used(), before, "objects, sessions, saved ones, persistent");
        let signed = scene.tpm.proxy.seen("TPM2_Sign") - signed;
        assert_eq!(signed, SIGNATURES as u64);
        let brought = scene.tpm.proxy.seen("TPM2_ContextLoad") - brought;
        assert!(brought > SIGNATURES as u64 / 2, "{brought}");
        scene.is_as_before(pid);
    }
}
