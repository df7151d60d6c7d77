//! What goes wrong: the TPM goes away and comes back, others leave things in it, replies are lost.
//! Service goes on without a new start of ours, and nothing of ours stays behind.

use crate::world::{How, SECRET, World, make, object, refusal, sign};
use aws_lc_rs::hmac;
use harness::DEADLINE;
use harness::tpmproxy::TpmProxy;
use keystore::backend::Backend;
use keystore::config::Sessions;
use keystore::{Alg, Kind};
use std::str::FromStr;
use std::time::{Duration, Instant};
use tss_esapi::Context;
use tss_esapi::constants::SessionType;
use tss_esapi::interface_types::algorithm::HashingAlgorithm;
use tss_esapi::interface_types::resource_handles::Hierarchy;
use tss_esapi::interface_types::session_handles::AuthSession;
use tss_esapi::structures::SymmetricDefinition;
use tss_esapi::tcti_ldr::TctiNameConf;
use tss_esapi::utils::create_restricted_decryption_rsa_public;

const BOTH: [Sessions; 2] = [Sessions::Password, Sessions::Encrypted];

fn with(sessions: Sessions) -> How {
    How {
        sessions: Some(sessions),
        ..How::default()
    }
}

fn through(proxy: &TpmProxy, sessions: Sessions) -> How {
    How {
        tcti: Some(proxy.tcti()),
        ..with(sessions)
    }
}

#[test]
fn a_restart_that_nobody_noticed_costs_no_signature() {
    for sessions in BOTH {
        let mut world = World::new();
        let backend = world.open_as(&with(sessions)).unwrap();
        let (first, second) = (make(&backend, 1, Alg::ES256), make(&backend, 2, Alg::ES256));
        for _ in 0..3 {
            sign(&backend, 1, &first, Alg::ES256);
            world.swtpm.restart();
            sign(&backend, 1, &first, Alg::ES256);
            sign(&backend, 2, &second, Alg::ES256);
        }
    }
}

#[test]
fn a_tpm_that_is_away_is_absent_and_used_again_when_it_is_back() {
    for sessions in BOTH {
        let mut world = World::new();
        let backend = world.open_as(&with(sessions)).unwrap();
        let key = make(&backend, 1, Alg::ES256);
        world.swtpm.power_off();
        for _ in 0..3 {
            let away = refusal(&backend, 1, &key, Alg::ES256);
            assert_eq!(away.kind(), Kind::Absent, "{away}");
            assert!(away.to_string().contains("0xa000a"), "{away}");
        }
        let closed = world.open_as(&How {
            state: "other",
            ..with(sessions)
        });
        assert_eq!(closed.err().unwrap().kind(), Kind::Absent);
        world.swtpm.power_on();
        sign(&backend, 1, &key, Alg::ES256);
        let made = make(&backend, 2, Alg::ES256);
        sign(&backend, 2, &made, Alg::ES256);
    }
}

/// A context of somebody who goes without tidying up.
fn leaker(world: &World) -> Context {
    Context::new(TctiNameConf::from_str(&world.swtpm.tcti().to_string()).unwrap()).unwrap()
}

fn leak_object(context: &mut Context) -> bool {
    let public = create_restricted_decryption_rsa_public(
        tss_esapi::structures::SymmetricDefinitionObject::AES_128_CFB,
        tss_esapi::interface_types::key_bits::RsaKeyBits::Rsa2048,
        Default::default(),
    );
    let public = public.unwrap();
    let made = context.execute_with_session(Some(AuthSession::Password), |c| {
        c.create_primary(Hierarchy::Null, public, None, None, None, None)
    });
    made.is_ok()
}

fn leak_session(context: &mut Context) -> bool {
    let started = context.start_auth_session(
        None,
        None,
        None,
        SessionType::Hmac,
        SymmetricDefinition::AES_128_CFB,
        HashingAlgorithm::Sha256,
    );
    started.is_ok()
}

#[test]
fn what_others_leave_in_the_tpm_stops_nothing() {
    for sessions in BOTH {
        let world = World::new();
        let mut context = leaker(&world);
        while leak_object(&mut context) {}
        while leak_session(&mut context) {}
        assert_eq!(world.handles("transient"), 3);
        assert_eq!(world.handles("loaded-session"), 3);
        std::mem::forget(context);
        let backend = world.open_as(&with(sessions)).unwrap();
        let keys = [1, 2, 3].map(|n| make(&backend, n, Alg::ES256));
        // And once more while we are at work: every slot that is free for a moment is taken.
        let mut context = leaker(&world);
        for _ in 0..3 {
            while leak_object(&mut context) {}
            while leak_session(&mut context) {}
            for (n, key) in (1..).zip(&keys) {
                sign(&backend, n, key, Alg::ES256);
            }
        }
        std::mem::forget(context);
    }
}

#[test]
fn a_lost_reply_costs_no_slot_and_no_signature() {
    for sessions in BOTH {
        let world = World::new();
        let proxy = TpmProxy::before(&world.swtpm);
        let how = through(&proxy, sessions);
        let backend = world.open_as(&how).unwrap();
        let keys = [1, 2, 3].map(|n| make(&backend, n, Alg::ES256));
        // More often than there are slots.
        for command in [
            "TPM2_Sign",
            "TPM2_Load",
            "TPM2_ContextLoad",
            "TPM2_ContextSave",
            "TPM2_FlushContext",
        ] {
            for round in 0..5 {
                let lost = proxy.fired(command);
                proxy.rules(&format!("{command} 1 drop-after\n"));
                for (n, key) in (1..).zip(&keys) {
                    let looked = backend.inspect(object(n)); // which loads it
                    assert!(looked.is_ok(), "{command} {round}: {looked:?}");
                    sign(&backend, n, key, Alg::ES256);
                }
                for (n, key) in (1..).zip(&keys) {
                    sign(&backend, n, key, Alg::ES256);
                }
                assert_eq!(proxy.fired(command), lost + 1, "{command} {round}");
                assert!(world.handles("transient") <= 3);
            }
        }
        for (n, key) in (1..).zip(&keys) {
            sign(&backend, n, key, Alg::ES256);
        }
    }
}

#[test]
fn a_busy_tpm_is_waited_for_and_a_failed_one_is_named() {
    let world = World::new();
    let proxy = TpmProxy::before(&world.swtpm);
    let how = through(&proxy, Sessions::Password);
    let backend = world.open_as(&how).unwrap();
    let key = make(&backend, 1, Alg::ES256);
    proxy.rules("TPM2_Sign 1 rc:0x922\n"); // TPM_RC_RETRY: the library sends it again
    sign(&backend, 1, &key, Alg::ES256);
    proxy.rules("TPM2_Sign 1 rc:0x101\n"); // TPM_RC_FAILURE
    let failed = refusal(&backend, 1, &key, Alg::ES256);
    assert_eq!(failed.kind(), Kind::Unavailable, "{failed}");
    assert!(failed.to_string().contains("failure mode"), "{failed}");
    sign(&backend, 1, &key, Alg::ES256);
    proxy.rules("TPM2_Sign 1 rc:0x9a2\n"); // TPM_RC_BAD_AUTH, session 1
    let before = proxy.seen("TPM2_Sign");
    assert_eq!(refusal(&backend, 1, &key, Alg::ES256).kind(), Kind::BadPin);
    assert_eq!(
        proxy.seen("TPM2_Sign"),
        before + 1,
        "a wrong auth value is tried once"
    );
    sign(&backend, 1, &key, Alg::ES256);
    assert_eq!(proxy.fired("TPM2_Sign"), 3);
}

#[test]
fn a_session_that_nobody_uses_is_given_back() {
    let world = World::new();
    let backend = world.open_as(&with(Sessions::Encrypted)).unwrap();
    let key = make(&backend, 1, Alg::ES256);
    sign(&backend, 1, &key, Alg::ES256);
    assert_eq!(world.handles("loaded-session"), 1);
    let deadline = Instant::now() + DEADLINE;
    while world.handles("loaded-session") > 0 {
        assert!(Instant::now() < deadline, "the session stays");
        std::thread::park_timeout(Duration::from_millis(200));
    }
    sign(&backend, 1, &key, Alg::ES256);
}

#[test]
fn a_tpm_whose_pss_is_not_ps256_is_found_out_once_and_keeps_no_key() {
    let world = World::new();
    let proxy = TpmProxy::before(&world.swtpm);
    let how = through(&proxy, Sessions::Password);
    let mut backend = world.open_as(&how).unwrap();
    assert!(backend.algs().contains(&Alg::PS256));
    // One wrong signature may have been an accident on the way.
    proxy.rules("TPM2_Sign 1 flip\n");
    let key = make(&backend, 3, Alg::PS256);
    assert_eq!(proxy.fired("TPM2_Sign"), 1);
    sign(&backend, 3, &key, Alg::PS256);
    backend.destroy(object(3), &key).unwrap();
    // The probe's signatures: to a strict verifier a salt of another length looks like this.
    proxy.rules("TPM2_Sign 1 flip\nTPM2_Sign 2 flip\n");
    let refused = backend.generate(object(1), "assertd/a/b/1", Alg::PS256);
    let refused = refused.unwrap_err();
    assert_eq!(refused.kind(), Kind::Unsupported, "{refused}");
    assert!(refused.to_string().contains("use RS256"), "{refused}");
    assert!(!world.key_file(object(1)).exists());
    assert_eq!(proxy.fired("TPM2_Sign"), 3);
    assert!(!backend.algs().contains(&Alg::PS256));
    for _ in 0..2 {
        drop(backend);
        backend = world.open_as(&how).unwrap();
        assert_eq!(backend.algs(), [Alg::ES256, Alg::ES384, Alg::RS256]);
        let created = proxy.seen("TPM2_Create");
        let refused = backend.generate(object(1), "assertd/a/b/1", Alg::PS256);
        assert_eq!(refused.unwrap_err().kind(), Kind::Unsupported);
        assert_eq!(
            proxy.seen("TPM2_Create"),
            created,
            "no key is made to be destroyed again"
        );
        let key = make(&backend, 2, Alg::RS256);
        sign(&backend, 2, &key, Alg::RS256);
        backend.destroy(object(2), &key).unwrap();
    }
}

#[test]
fn in_an_encrypted_session_no_auth_value_passes_to_the_tpm() {
    for sessions in BOTH {
        let world = World::new();
        let proxy = TpmProxy::before(&world.swtpm);
        let how = through(&proxy, sessions);
        let backend = world.open_as(&how).unwrap();
        let keys = [1, 2, 3].map(|n| make(&backend, n, Alg::ES256));
        for (n, key) in (1..).zip(&keys) {
            sign(&backend, n, key, Alg::ES256);
            let secret = hmac::Key::new(hmac::HMAC_SHA256, &SECRET);
            let auth = hmac::sign(&secret, &object(n).0);
            let seen = proxy.has_seen(auth.as_ref());
            assert_eq!(seen, sessions == Sessions::Password, "{sessions:?}");
        }
        assert!(!proxy.has_seen(&SECRET));
    }
}
