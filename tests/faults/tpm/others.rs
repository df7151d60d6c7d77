//! Others use the same TPM: they clear it, lock it, fill it. Rows 15, 16 and 18.

use super::neighbour::{Neighbour, RIGHT};
use super::node::Shared;
use super::scene::{
    Allowance, BOTH, ENCRYPTED, MANY, PASSWORD, Scene, Witness, config, files, handles, name,
    number, tool,
};
use harness::process;
use harness::token::KEYSTORE;
use harness::{DEADLINE, Daemon, wait_until};
use nix::sys::signal::Signal;
use std::time::Instant;
use tss_esapi::handles::KeyHandle;
use tss_esapi::interface_types::session_handles::AuthSession;
use tss_esapi::structures::{Auth, Digest, HashcheckTicket, SignatureScheme};
use tss_esapi::tss2_esys::TPMT_TK_HASHCHECK;

#[test]
fn row_15_after_a_clear_the_keystore_is_failed_and_nothing_is_made_or_deleted() {
    for sessions in BOTH {
        let Scene {
            mut daemon,
            tpm,
            witness,
        } = Scene::new(MANY, sessions);
        let (tcti, state) = (tpm.tpm.tcti(), daemon.site().keystore_state(KEYSTORE));
        let (pid, before) = (daemon.keystore_pid(), files(&state));
        let created = tpm.proxy.seen("TPM2_Create");
        tool(&tcti, "tpm2_clear", &[]);
        let gone = handles(&tcti, "transient").is_empty(); // TPM2_Clear flushes the owner's objects
        assert!(gone, "it was not cleared");

        for n in 1..=MANY {
            assert_eq!(witness.ask(&daemon, n).0, 503, "{}", daemon.stderr());
        }
        let failed = |daemon: &Daemon| {
            let shown = daemon.wait_keystore(KEYSTORE, "failed");
            let why = shown.why.unwrap_or_default();
            for part in [
                "it was cleared",
                "bring the first one back",
                "`assertctl apply`",
            ] {
                assert!(why.contains(part), "{part}: {why}");
            }
        };
        failed(&daemon);
        let asked = tpm.proxy.seen("*");
        for n in 1..=MANY {
            let refusal = (503, "keystore_unavailable".to_owned());
            assert_eq!(witness.ask(&daemon, n), refusal);
        }
        assert_eq!(tpm.proxy.seen("*"), asked, "it is never tried again");
        assert_eq!(daemon.keystore_pid(), pid);
        // `apply` makes nothing in the place of what is lost.
        let applied = daemon.assertctl(&["apply", "--yes"]);
        assert!(!applied.status.success(), "{applied:?}");

        // Nor does a new start, after which every key still stands in the records.
        assert_eq!(daemon.stop(), Some(0), "{}", daemon.stderr());
        let mut daemon = Daemon::start_at(daemon.into_site());
        failed(&daemon);
        assert_eq!(witness.ask(&daemon, 1).0, 503);
        witness.knows_all(&daemon);
        assert_eq!(tpm.proxy.seen("TPM2_Create"), created);
        assert_eq!(daemon.stop(), Some(0), "{}", daemon.stderr());
        assert_eq!(
            files(&state),
            before,
            "its state is the same, byte for byte"
        );
    }
}

/// A ticket that says of a digest that the TPM has not made it.
fn no_ticket() -> HashcheckTicket {
    let ticket = TPMT_TK_HASHCHECK {
        tag: tss_esapi::constants::tss::TPM2_ST_HASHCHECK,
        hierarchy: tss_esapi::constants::tss::TPM2_RH_NULL,
        digest: Default::default(),
    };
    HashcheckTicket::try_from(ticket).unwrap()
}

/// Signs with a key of somebody else, with this auth value.
fn signs(neighbour: &mut Neighbour, key: KeyHandle, auth: &[u8]) -> bool {
    let context = &mut neighbour.context;
    let auth = Auth::try_from(auth.to_vec()).unwrap();
    context.tr_set_auth(key.into(), auth).unwrap();
    let signed = context.execute_with_session(Some(AuthSession::Password), |c| {
        let digest = Digest::try_from(vec![7; 32]).unwrap();
        c.sign(key, digest, SignatureScheme::Null, no_ticket())
    });
    signed.is_ok()
}

fn is_locked(tcti: &str) -> bool {
    let shown = tool(tcti, "tpm2_getcap", &["properties-variable"]);
    number(&shown, "inLockout") == 1
}

#[test]
fn row_16_a_lockout_that_others_caused_stops_no_key_of_ours_and_check_warns() {
    for sessions in BOTH {
        let mut scene = Scene::new(1, sessions); // one key, so that there is a place for another's
        let (pid, tcti) = (scene.daemon.keystore_pid(), scene.tcti());
        let mut other = Neighbour::at(&tcti);
        let theirs = other.make(RIGHT).expect("a place for it");
        assert!(signs(&mut other, theirs, RIGHT));
        assert!(!is_locked(&tcti));
        let locked = wait_until(DEADLINE, || {
            assert!(!signs(&mut other, theirs, b"wrong"));
            is_locked(&tcti)
        });
        assert!(locked);
        // TPM_RC_LOCKOUT, for those who know the auth value too.
        assert!(!signs(&mut other, theirs, RIGHT));

        for _ in 0..10 {
            assert_eq!(scene.ask(1).0, 200, "{}", scene.daemon.stderr());
        }
        assert!(scene.tpm.proxy.seen("TPM2_Sign") > 10);
        other.context.flush_context(theirs.into()).unwrap();
        let checked = scene.daemon.assertctl(&["keystore", "check"]);
        let checked = String::from_utf8(checked.stdout).unwrap();
        let line = checked.lines().find(|line| line.contains("locked: wrong"));
        let line = line.unwrap_or_else(|| panic!("{checked}"));
        assert!(line.starts_with("warn"), "{line}");
        assert!(checked.contains("tpm2_dictionarylockout"), "{checked}");
        scene.is_as_before(pid);

        // It lasts over a new start of everything, and so do our keys; new ones can be made.
        let more = config(&scene.tpm, 2, sessions);
        scene.daemon.site().configure(more.text());
        scene.tpm.tpm.swtpm().restart();
        let daemon = scene.daemon.restart();
        assert!(is_locked(&tcti));
        scene.witness.serves_again(&daemon, 1);
        let said = daemon.apply();
        assert!(
            said.contains(&format!("created payments/{}", name(2))),
            "{said}"
        );
        daemon.wait_served(&name(2));
        assert!(is_locked(&tcti));
    }
}

/// How often a TPM without room may be asked for it while clients ask all the time.
const ATTEMPTS: Allowance = Allowance {
    at_once: 30,
    each_second: 10,
};
const REQUESTS: usize = 100;

/// A daemon whose keystore shares its TPM with others, and serves.
fn shared(sessions: &str) -> (Daemon, Shared, Witness) {
    let tpm = Shared::new();
    let daemon = Daemon::with_keys(config(&tpm, MANY, sessions));
    let witness = Witness::of(&daemon);
    for n in 1..=MANY {
        witness.serves_again(&daemon, n);
    }
    (daemon, tpm, witness)
}

#[test]
fn row_18_others_places_are_left_to_them_and_the_keystore_waits_for_one() {
    for (sessions, of_what, command) in [
        (PASSWORD, "object", "TPM2_CreatePrimary"),
        (ENCRYPTED, "session", "TPM2_StartAuthSession"),
    ] {
        let (mut daemon, tpm, witness) = shared(sessions);
        let tcti = tpm.tpm.tpm.tcti();
        assert_eq!(daemon.stop(), Some(0), "{}", daemon.stderr());
        tpm.flush_as_closed();
        let site = daemon.into_site();
        let mut other = Neighbour::at(&tcti);
        let kind = match of_what {
            "object" => {
                while other.take_object() {}
                "transient"
            }
            _ => {
                while other.take_session() {}
                "loaded-session"
            }
        };
        let theirs = handles(&tcti, kind);
        assert_eq!(theirs.len(), 3, "all places are taken");

        let daemon = Daemon::start_at(site);
        let pid = daemon.keystore_pid();
        let shown = daemon.wait_keystore(KEYSTORE, "degraded");
        let why = shown.why.unwrap_or_default();
        assert!(
            why.contains(&format!("no room for one more {of_what}")),
            "{why}"
        );
        let (asked, begun) = (tpm.tpm.proxy.seen(command), Instant::now());
        for _ in 0..REQUESTS {
            assert_eq!(witness.ask(&daemon, 1).0, 503);
        }
        let attempts = tpm.tpm.proxy.seen(command) - asked;
        let allowed = ATTEMPTS.since(begun);
        assert!(attempts <= allowed, "{attempts} attempts of {allowed}");
        assert_eq!(handles(&tcti, kind), theirs, "theirs are theirs");
        assert!(other.has_all());

        other.leave();
        for n in 1..=MANY {
            witness.serves_again(&daemon, n);
        }
        daemon.wait_keystore(KEYSTORE, "usable");
        assert_eq!(daemon.keystore_pid(), pid);
        witness.knows_all(&daemon);
    }
}

#[test]
fn row_18_in_a_full_tpm_every_key_is_served_in_the_place_that_we_have() {
    for sessions in BOTH {
        let (mut daemon, tpm, witness) = shared(sessions);
        let tcti = tpm.tpm.tpm.tcti();
        assert_eq!(daemon.stop(), Some(0), "{}", daemon.stderr());
        tpm.flush_as_closed();
        let mut other = Neighbour::at(&tcti);
        assert!(other.take_object()); // of three places; our keys' parent has another
        let daemon = Daemon::start_at(daemon.into_site());
        let pid = daemon.keystore_pid();
        for _ in 0..3 {
            for n in 1..=MANY {
                witness.serves_again(&daemon, n);
                assert_eq!(handles(&tcti, "transient").len(), 3, "it is not full");
                assert!(!other.take_object());
            }
        }
        assert!(tpm.tpm.proxy.seen("TPM2_ContextLoad") > 0);
        assert!(other.has_all(), "what others have is left to them");
        assert_eq!(daemon.keystore_pid(), pid);
        witness.knows_all(&daemon);
    }
}

/// Keystores that assertd started itself are told to end when it does. This TPM has no resource
/// manager that would flush what they leave.
#[test]
fn nothing_of_ours_stays_in_the_tpm_when_assertd_ends() {
    for sessions in BOTH {
        let mut scene = Scene::new(MANY, sessions);
        let tcti = scene.tcti();
        assert!(!handles(&tcti, "transient").is_empty());
        assert_eq!(scene.daemon.stop(), Some(0), "{}", scene.daemon.stderr());
        for kind in ["transient", "loaded-session", "saved-session"] {
            let left = handles(&tcti, kind);
            assert!(left.is_empty(), "{sessions}: {left:?}");
        }
    }
}

/// Where the configuration says that the TPM is ours alone, what stands in the way was left behind: by
/// a program that has ended, or by a process of ours that was killed.
#[test]
fn row_18_in_a_tpm_of_ours_alone_what_was_left_behind_stops_nothing() {
    for sessions in BOTH {
        let Scene {
            mut daemon,
            tpm,
            witness,
        } = Scene::new(MANY, sessions);
        assert_eq!(daemon.stop(), Some(0), "{}", daemon.stderr());
        let tcti = tpm.tpm.tcti();
        let mut other = Neighbour::at(&tcti);
        while other.take_object() {}
        while other.take_session() {}
        std::mem::forget(other); // it ends without tidying up
        for kind in ["transient", "loaded-session"] {
            assert_eq!(handles(&tcti, kind).len(), 3, "{kind}");
        }
        let daemon = Daemon::start_at(daemon.into_site());
        for n in 1..=MANY {
            witness.serves_again(&daemon, n);
        }
        let killed = daemon.keystore_pid();
        process::send(killed, Signal::SIGKILL);
        let replaced = wait_until(DEADLINE, || {
            let now = daemon.keystore_process(KEYSTORE);
            now.is_some_and(|now| now != killed)
        });
        assert!(replaced, "{}", daemon.stderr());
        for n in 1..=MANY {
            witness.serves_again(&daemon, n);
        }
        assert_eq!(daemon.status().keystores[0].restarts, 1);
        witness.knows_all(&daemon);
    }
}
