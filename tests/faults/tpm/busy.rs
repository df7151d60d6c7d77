//! The TPM says that it is busy: row 17. What it answers then (TPM 2.0 Part 2 §6.6.3) means that it
//! has not begun, and that the same command may be sent again. tpm2-tss does that by itself for three
//! of the four, four times and at once, which is over in milliseconds.

use super::scene::{Allowance, BOTH, MANY, PASSWORD, Scene};
use harness::token::KEYSTORE;
use harness::{DEADLINE, wait_until};
use std::time::Instant;

/// TPM_RC_RETRY, _YIELDED, _TESTING, _NV_RATE, and how many such answers are a short spell: more than
/// the library hides by itself (the first of one request's in a row are five, of NV_RATE one).
const BUSY: [(&str, u64); 4] = [("0x922", 12), ("0x908", 12), ("0x90a", 12), ("0x920", 4)];

/// Commands that one request may cost while the TPM stays busy: a dozen tries of ours with five of the
/// library's each, for the signature and for the look at what is wrong.
const COMMANDS_MAX: u64 = 250;

/// Requests while it stays busy, and the commands that the first of them may cost, and the ladder,
/// which is all that asks once it is known: five of the library's for each of ours, at most twelve of
/// ours a second.
const REQUESTS: usize = 100;
const COMMANDS_OF_ALL: Allowance = Allowance {
    at_once: 2 * COMMANDS_MAX,
    each_second: 100,
};

#[test]
fn row_17_a_short_busy_spell_is_not_seen_by_clients() {
    for sessions in BOTH {
        let scene = Scene::new(MANY, sessions);
        let pid = scene.daemon.keystore_pid();
        for (code, spell) in BUSY {
            for command in ["TPM2_Sign", "TPM2_ContextLoad", "TPM2_FlushContext"] {
                let fired = scene.tpm.proxy.fired(command);
                let rule = |n| format!("{command} {n} rc:{code}\n");
                scene
                    .tpm
                    .proxy
                    .rules(&(1..=spell).map(rule).collect::<String>());
                for n in 1..=MANY {
                    let answer = scene.ask(n);
                    let log = scene.daemon.stderr();
                    assert_eq!(answer.0, 200, "{command} {code}: {answer:?}\n{log}");
                }
                let fired = scene.tpm.proxy.fired(command) - fired;
                assert_eq!(fired, spell, "{command} {code}");
            }
        }
        scene.is_as_before(pid);
        let changes = scene.daemon.logged("degraded");
        assert!(changes.is_empty(), "{changes:?}");
    }
}

#[test]
fn row_17_a_tpm_that_stays_busy_is_a_503_in_time_after_a_bounded_number_of_tries() {
    for (code, commands) in [
        ("0x922", &["TPM2_Sign", "*"][..]),
        ("0x908", &["TPM2_Sign"]),
        ("0x90a", &["*"]),
        ("0x920", &["TPM2_Sign"]),
    ] {
        for command in commands {
            let scene = Scene::new(1, PASSWORD);
            let pid = scene.daemon.keystore_pid();
            let (signed, begun) = (scene.tpm.proxy.seen("*"), Instant::now());
            scene.tpm.proxy.rules(&format!("{command} * rc:{code}\n"));
            let refusal = (503, "keystore_unavailable".to_owned());
            assert_eq!(scene.ask(1), refusal, "{code}");
            let fired = scene.tpm.proxy.fired(command);
            assert!(
                (2..=COMMANDS_MAX).contains(&fired),
                "{command} {code}: {fired} commands"
            );
            let shown = scene.daemon.wait_keystore(KEYSTORE, "degraded");
            let why = shown.why.unwrap_or_default();
            assert!(why.contains(code), "{why}");
            assert!(why.contains("the TPM is busy"), "{why}");
            for _ in 0..REQUESTS {
                assert_eq!(scene.ask(1).0, 503, "{code}");
            }
            let seen = scene.tpm.proxy.seen("*") - signed;
            let allowed = COMMANDS_OF_ALL.since(begun);
            assert!(seen <= allowed, "{command} {code}: {seen} of {allowed}");

            scene.tpm.proxy.rules("");
            scene.serves_again(1);
            scene.daemon.wait_keystore(KEYSTORE, "usable");
            // The ladder may have ended the process: what it opens may have been the matter.
            let log = scene.daemon.stderr();
            let replaced = scene.daemon.keystore_pid() != pid;
            assert!(!replaced || log.contains("times in a row"), "{log}");
            scene.witness.knows_all(&scene.daemon);
        }
    }
}

#[test]
fn row_17_a_busy_tpm_at_the_start_is_waited_for() {
    for code in ["0x90a", "0x920"] {
        let Scene {
            mut daemon,
            tpm,
            witness,
        } = Scene::new(1, PASSWORD);
        assert_eq!(daemon.stop(), Some(0), "{}", daemon.stderr());
        tpm.proxy.rules(&format!("* * rc:{code}\n"));
        let daemon = harness::Daemon::start_at(daemon.into_site());
        let shown = daemon.wait_keystore(KEYSTORE, "degraded");
        let why = shown.why.unwrap_or_default();
        assert!(why.contains("the TPM is busy"), "{why}");
        let fired = tpm.proxy.fired("*");
        assert!(fired > 0);
        let tried_again = wait_until(DEADLINE, || tpm.proxy.fired("*") > fired);
        assert!(tried_again);
        tpm.proxy.rules("");
        witness.serves_again(&daemon, 1);
    }
}
