//! What the backend tells of its TPM, and that a trial of it leaves nothing behind.

use crate::world::{How, World, make, object, sign};
use keystore::Alg;
use keystore::backend::Backend;
use keystore::config::Sessions;
use keystore::survey::{Line, Subject, Verdict};
use keystore_tpm::TpmBackend;

/// What it says of one thing, all lines of it.
fn about(backend: &TpmBackend, subject: Subject) -> Vec<Line> {
    let lines = backend.survey().into_iter();
    lines.filter(|line| line.subject == subject).collect()
}

/// The only line about one thing.
fn line(backend: &TpmBackend, subject: Subject) -> Line {
    let mut lines = about(backend, subject);
    assert_eq!(lines.len(), 1, "{lines:#?}");
    lines.remove(0)
}

fn assert_says(line: &Line, verdict: Verdict, phrases: &[&str]) {
    assert_eq!(line.verdict, verdict, "{line:#?}");
    for phrase in phrases {
        assert!(line.text.contains(phrase), "{phrase}: {line:#?}");
    }
}

#[test]
fn it_tells_chip_primary_sessions_slots_and_algorithms() {
    let world = World::new();
    let backend = world.open();
    make(&backend, 1, Alg::ES256);
    let chip = line(&backend, Subject::Tpm);
    let phrases = ["IBM", "firmware", "at swtpm:host=127.", "revision 1."];
    assert_says(&chip, Verdict::Ok, &phrases);

    world.tool("tpm2_createprimary", &["-C", "o", "-G", "ecc", "-c", "p"]);
    world.tool("tpm2_flushcontext", &["-t"]); // our primary, too: the backend finds it again
    let primary = line(&backend, Subject::Primary);
    let phrases = ["standard template in the owner hierarchy", "000b"];
    assert_says(&primary, Verdict::Ok, &phrases);
    let sessions = line(&backend, Subject::Sessions);
    assert_says(
        &sessions,
        Verdict::Ok,
        &["password sessions by default", "no bus"],
    );
    let slots = about(&backend, Subject::Slots);
    assert_says(&slots[0], Verdict::Ok, &["room for 2 of our keys"]);
    assert_says(
        &slots[1],
        Verdict::Ok,
        &["sessions in the TPM now: 0 of ours"],
    );
    let algs = line(&backend, Subject::Algs);
    assert_eq!(algs.text, "ES256 ES384 RS256 PS256; not EdDSA");
}

#[test]
fn another_programs_lockout_is_a_warning_and_is_told_as_it_is_now() {
    let world = World::new();
    world.tool("tpm2_createprimary", &["-C", "o", "-G", "ecc", "-c", "p"]);
    let key = ["-C", "p", "-G", "ecc", "-p", "right", "-c", "key.ctx"];
    world.tool("tpm2_create", &key);
    world.tool("tpm2_flushcontext", &["-t"]);
    let backend = world.open();
    let ours = make(&backend, 1, Alg::ES256);
    let before = line(&backend, Subject::Lockout);
    assert_says(
        &before,
        Verdict::Ok,
        &["not locked: wrong auth values counted: 0 of 3", "noDA"],
    );

    let wrong = ["-c", "key.ctx", "-p", "wrong", "-o", "x", "state/lock"];
    for _ in 0..10 {
        if world.property("inLockout") == 1 {
            break;
        }
        assert!(!world.run("tpm2_sign", &wrong).status.success());
        world.tool("tpm2_flushcontext", &["-t"]); // what the tool left, and our keys too
    }
    let locked = line(&backend, Subject::Lockout);
    let phrases = ["locked: wrong auth values counted: 3 of 3", "go on signing"];
    assert_says(&locked, Verdict::Warn, &phrases);
    let remedy = locked.remedy.unwrap();
    assert!(remedy.contains("tpm2_dictionarylockout"), "{remedy}");
    sign(&backend, 1, &ours, Alg::ES256);
    let mut trial = backend.trial(Alg::ES256).unwrap();
    trial
        .sign(b"the trial's key is not subject to it either")
        .unwrap();
    trial.end().unwrap();

    world.tool("tpm2_dictionarylockout", &["--clear-lockout"]);
    let after = line(&backend, Subject::Lockout);
    assert_says(
        &after,
        Verdict::Ok,
        &["not locked: wrong auth values counted: 0 of 3"],
    );
}

#[test]
fn what_others_left_in_a_tpm_that_is_ours_alone_is_seen_and_left_alone() {
    let world = World::new();
    let backend = world.open();
    let ours = make(&backend, 1, Alg::ES256);
    sign(&backend, 1, &ours, Alg::ES256);
    world.tool("tpm2_createprimary", &["-C", "n", "-G", "ecc"]); // the tool flushes nothing
    let slots = about(&backend, Subject::Slots);
    assert_says(&slots[0], Verdict::Warn, &["; not ours: 1, and each"]);
    assert_eq!(world.handles("transient"), 3);
    sign(&backend, 1, &ours, Alg::ES256);
}

#[test]
fn a_trial_beside_keys_that_sign_leaves_no_object_in_three_slots() {
    for sessions in [Sessions::Password, Sessions::Encrypted] {
        let world = World::new();
        let how = How {
            sessions: Some(sessions),
            ..How::default()
        };
        let backend = world.open_as(&how).unwrap();
        let keys: Vec<_> = (1..=3)
            .map(|n| (n, make(&backend, n, Alg::ES256)))
            .collect();
        let sign_all = || {
            for (n, key) in &keys {
                sign(&backend, *n, key, Alg::ES256);
            }
        };
        sign_all();
        let open_sessions = world.handles("loaded-session");
        for round in 0..4 {
            let mut trial = backend.trial(Alg::ES256).unwrap();
            std::thread::scope(|scope| {
                scope.spawn(sign_all);
                let verifier = trial.public_key().verifier(Alg::ES256).unwrap();
                for _ in 0..5 {
                    let signature = trial.sign(b"message").unwrap();
                    assert!(verifier.verify(b"message", &signature).is_ok());
                }
            });
            match round {
                0 | 1 => trial.end().unwrap(),
                _ => drop(trial), // somebody gave up
            }
            // The primary and those of our keys that are in now; the trial's key would be one more.
            let slots = about(&backend, Subject::Slots);
            assert_says(&slots[0], Verdict::Ok, &[]);
            assert_says(&slots[1], Verdict::Ok, &[]);
            assert!(world.handles("transient") <= 3);
        }
        sign_all();
        assert_eq!(
            world.handles("loaded-session"),
            open_sessions,
            "{sessions:?}"
        );
        let files = std::fs::read_dir(world.dir.path().join("state/keys")).unwrap();
        assert_eq!(files.count(), 3, "a trial's key has no file");
        let known: Vec<_> = (1..=3).map(object).collect();
        assert_eq!(backend.strange(&known).unwrap(), [] as [String; 0]);
    }
}

#[test]
fn a_trial_survives_a_reset_of_the_tpm() {
    let mut world = World::new();
    let backend = world.open();
    let mut trial = backend.trial(Alg::ES384).unwrap();
    trial.sign(b"before").unwrap();
    world.swtpm.restart();
    trial.sign(b"after").unwrap();
    trial.end().unwrap();
    assert_says(&about(&backend, Subject::Slots)[0], Verdict::Ok, &[]);
    assert!(world.handles("transient") <= 1, "the primary alone");
}

#[test]
fn the_salt_of_pss_is_told_once_a_key_has_shown_it_and_after_a_new_start() {
    let world = World::new();
    let backend = world.open();
    let before = line(&backend, Subject::Salt);
    assert_says(&before, Verdict::Ok, &["has not been tried"]);
    make(&backend, 1, Alg::PS256);
    drop(backend);
    let after = line(&world.open(), Subject::Salt);
    assert_says(&after, Verdict::Ok, &["32 bytes", "tried"]);
}

#[test]
fn a_tpm_that_is_away_is_said_once_and_there_is_no_trial() {
    let mut world = World::new();
    let backend = world.open();
    world.swtpm.power_off();
    let lines = backend.survey();
    // Once, not for each thing that could be asked.
    let mut fails = lines.iter().filter(|line| line.verdict == Verdict::Fail);
    assert_says(fails.next().unwrap(), Verdict::Fail, &["cannot be reached"]);
    assert_eq!(fails.next(), None, "{lines:#?}");
    assert!(backend.trial(Alg::ES256).is_err());
}
