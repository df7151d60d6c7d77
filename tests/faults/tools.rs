//! The fault tools themselves, between a real daemon and its keystore: what they are told to do is
//! what happens, and their counters say so. What assertd makes of it is what the row tests are for.

use crate::observed::{self, TARGET};
use harness::fault::{Function, Proxied, Shimmed};
use harness::token::Keystore;
use harness::{DEADLINE, Daemon, process, wait_until};

const RELEASED: u16 = 200;
const UNAVAILABLE: u16 = 503;

fn serving(keystore: &impl Keystore) -> Daemon {
    let daemon = Daemon::with_keys(observed::config(keystore));
    daemon.wait_served(TARGET);
    daemon
}

#[test]
fn a_crash_that_is_ordered_for_all_processes_comes_once() {
    let token = Shimmed::new();
    let daemon = serving(&token);
    for (times, action) in (1..).zip(["segfault", "abort", "exit"]) {
        let pid = daemon.keystore_pid();
        token.rules(&format!("C_Sign 1! {action}\n"));
        assert_eq!(daemon.outcome(TARGET).0, UNAVAILABLE, "{action}");
        assert_eq!(token.fired(Function::C_Sign), times, "{action}");
        let gone = wait_until(DEADLINE, || !process::runs(pid));
        assert!(gone, "{action}: {pid} still runs\n{}", daemon.stderr());
        daemon.wait_served(TARGET);
        for _ in 0..5 {
            assert_eq!(daemon.outcome(TARGET).0, RELEASED, "{action}");
        }
        // The rule still stands; the process that was started anew has signed in spite of it.
        assert_eq!(token.fired(Function::C_Sign), times, "{action}");
    }
}

#[test]
fn a_spoilt_signature_is_counted_and_not_released() {
    for action in ["random", "zeros", "short"] {
        let token = Shimmed::new();
        let daemon = serving(&token);
        let changes = token.changes();
        token.rules(&format!("C_Sign 1 {action}\n"));
        let (status, code) = daemon.outcome(TARGET);
        assert_eq!(token.fired(Function::C_Sign), 1, "{action}");
        assert_ne!((status, code.as_str()), (RELEASED, ""), "{action}");
        assert_eq!(token.changes(), changes, "{action}");
    }
}

#[test]
fn a_device_that_fails_fails_in_every_function_until_the_rules_are_gone() {
    let token = Shimmed::new();
    let daemon = serving(&token);
    token.rules("* * ckr:0x30\n"); // CKR_DEVICE_ERROR
    assert_eq!(daemon.outcome(TARGET).0, UNAVAILABLE);
    assert!(token.fired_any() > 0);
    token.rules("");
    daemon.wait_served(TARGET);
}

#[test]
fn a_tpm_behind_the_proxy_serves_and_its_faults_are_counted() {
    let tpm = Proxied::new();
    let daemon = serving(&tpm);
    let signed = tpm.proxy.seen("TPM2_Sign");
    assert!(signed > 0);
    tpm.proxy.rules("TPM2_Sign 1 rc:0x922\n"); // TPM_RC_RETRY: the library asks again
    assert_eq!(daemon.outcome(TARGET).0, RELEASED);
    assert_eq!(tpm.proxy.fired("TPM2_Sign"), 1);
    assert_eq!(tpm.proxy.seen("TPM2_Sign"), signed + 2);
}

#[test]
fn a_device_that_is_dead_lives_again_when_the_module_was_finalised() {
    let token = Shimmed::new();
    let daemon = serving(&token);
    let (pid, finalised) = (daemon.keystore_pid(), token.calls(Function::C_Finalize));
    token.rules("C_Sign 1! dead:0x30\n"); // CKR_DEVICE_ERROR
    assert_eq!(daemon.outcome(TARGET).0, UNAVAILABLE);
    assert_eq!(token.fired(Function::C_Sign), 1);
    daemon.wait_served(TARGET);
    let more = token.fired(Function::C_OpenSession);
    assert!(more > 0, "no other function was dead");
    let again = token.calls(Function::C_Finalize) > finalised || daemon.keystore_pid() != pid;
    assert!(again, "it lives, and nobody began anew");
}
