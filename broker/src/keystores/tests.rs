//! Who is let in to wait for a keystore, by what is known of its pace.

use super::*;
use crate::queue::tests::{Answer, job, share};
use keystore::protocol;
use keystore::statefile::StateDir;
use std::os::unix::net::UnixListener;
use std::path::Path;

const SIGNATURE: Duration = Duration::from_millis(100);

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(5)
}

/// A keystore with one signer that nobody has reached, and which took so long for what it did.
pub(super) fn keystore(round_trip: Duration) -> Arc<Keystore> {
    keystore_in(tempfile::tempdir().unwrap().path(), round_trip)
}

fn keystore_in(tmp: &Path, round_trip: Duration) -> Arc<Keystore> {
    let dir = StateDir::lock(&tmp.join("state")).unwrap();
    let clocks = || crate::lifecycle::Reading {
        wall_s: 1,
        boot_s: 1,
        boot: crate::lifecycle::Boot::default(),
        sync: crate::lifecycle::Sync::Unknown,
    };
    let keyring = Arc::new(Keyring::open(&dir, Box::new(clocks)).unwrap());
    let keystore = Keystore::new("hsm", tmp.join("socket"), keyring);
    keystore.note_round_trip(round_trip);
    keystore
}

/// One that says hello there, and then nothing more.
pub(super) fn mute(tmp: &Path) -> Arc<Keystore> {
    let listener = UnixListener::bind(tmp.join("socket")).unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _hello: Request = protocol::read(&mut stream).unwrap().unwrap();
            protocol::write(&mut stream, &Reply::Welcome(Welcome::nobody())).unwrap();
            std::mem::forget(stream); // it stays open until the test's process ends
        }
    });
    keystore_in(tmp, SIGNATURE)
}

/// Runs with one thread until it is over. What waits for nothing has failed.
pub(super) fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let test = async { tokio::time::timeout(Duration::from_secs(20), test).await };
    runtime.block_on(test).expect("it ends")
}

/// Has so many jobs wait. While what is returned is kept somebody waits for them.
fn fill(keystore: &Keystore, jobs: usize) -> Vec<Answer> {
    let put = |_| {
        let (job, answer) = job("greedy", soon());
        keystore.enqueue(job);
        answer
    };
    (0..jobs).map(put).collect()
}

#[test]
fn what_would_come_too_late_is_refused_as_it_comes() {
    let keystore = keystore(SIGNATURE);
    let _waiting = fill(&keystore, 40);
    assert!(keystore.reserve(&share("greedy"), soon()).is_ok());
    let _more = fill(&keystore, 20);
    let Err(Busy::Late(wait)) = keystore.reserve(&share("greedy"), soon()) else {
        panic!("60 signatures take 6 s");
    };
    assert_eq!(wait, 62 * SIGNATURE);
    // Another waits for its turn, which is the next, and not for theirs.
    assert!(keystore.reserve(&share("quiet"), soon()).is_ok());
}

#[test]
fn who_has_given_up_is_ahead_of_nobody() {
    let keystore = keystore(SIGNATURE);
    drop(fill(&keystore, 60));
    assert!(keystore.reserve(&share("greedy"), soon()).is_ok());
}

/// Two are under way at a time, so that a round trip is two signatures.
#[test]
fn a_fast_token_is_not_taken_for_half_as_fast() {
    let keystore = keystore(Duration::from_millis(10));
    let _waiting = fill(&keystore, 900);
    assert!(keystore.reserve(&share("greedy"), soon()).is_ok());
    let _more = fill(&keystore, 200);
    let late = keystore.reserve(&share("greedy"), soon());
    assert!(matches!(late, Err(Busy::Late(_))));
}

/// What was measured may be of another time: it is measured anew by serving.
#[test]
fn a_token_that_was_slow_once_is_tried_again() {
    let keystore = keystore(Duration::from_secs(60));
    let _waiting = fill(&keystore, 1);
    assert!(keystore.reserve(&share("greedy"), soon()).is_ok());
    assert!(keystore.is_in_time(soon()));
    let half = Instant::now() + Duration::from_secs(2);
    assert!(!keystore.is_in_time(half));
    let _more = fill(&keystore, 1);
    let late = keystore.reserve(&share("greedy"), soon());
    assert!(matches!(late, Err(Busy::Late(_))));
}

/// A TPM that has hung itself up: its turn is over, and it is not waited for.
#[test]
fn what_is_asked_in_a_turn_is_waited_for_until_the_turn_ends() {
    let tmp = tempfile::tempdir().unwrap();
    let keystore = mute(tmp.path());
    run(async {
        let mut talk = keystore.talk().await.unwrap();
        let (turn, _over) = Turn::new(Instant::now() + SIGNATURE);
        let error = talk.ask(&Request::Identity {}, &turn).await.unwrap_err();
        assert!(turn.end() <= Instant::now());
        assert_eq!(error.kind(), Kind::Unavailable);
        assert!(
            error.to_string().contains("keystore hsm: no answer"),
            "{error}"
        );
    });
}

#[test]
fn one_that_took_far_longer_counts_as_four() {
    let keystore = keystore(SIGNATURE);
    keystore.note_round_trip(Duration::from_secs(60));
    let (old, new) = (SIGNATURE * 7 / 8, 4 * SIGNATURE / 8);
    assert_eq!(keystore.round_trip(), old + new);
}
