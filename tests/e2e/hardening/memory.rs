//! What stays out of swap: all memory of a keystore where no limit can be reached, the PIN alone
//! where one can, nothing where nothing may be locked. It serves in each case, and says which it is.

use harness::keystore::Keystore;
use harness::user::BROKER;
use std::path::PathBuf;

/// Locked memory of a process in KiB.
fn locked_kib(keystore: &mut Keystore) -> u64 {
    let path = PathBuf::from(format!("/proc/{}/status", keystore.process().pid()));
    let value = super::status(&path, "VmLck");
    let number = value.strip_suffix(" kB").unwrap();
    number.parse().unwrap()
}

fn said_of_memory(keystore: &mut Keystore) -> String {
    let said = keystore.process().stderr();
    let mut lines = said
        .lines()
        .filter_map(|line| line.strip_prefix("keystore hsm: memory: "));
    let line = lines.next().unwrap_or_else(|| panic!("{said}")).to_owned();
    assert_eq!(lines.next(), None, "{said}");
    line
}

/// The capability stands for a limit of infinity, which is judged alike: to raise a hard limit takes
/// another one, and where these tests run root may lack it.
#[test]
fn without_a_limit_all_memory_is_locked() {
    let privileges = ["--inh-caps=+ipc_lock", "--ambient-caps=+ipc_lock"];
    let mut keystore = Keystore::start_with(&["--memlock=65536:65536"], &privileges);
    let said = said_of_memory(&mut keystore);
    assert!(said.starts_with("all of it is locked"), "{said}");
    // Its code, its libraries and its threads' stacks are some MiB.
    let locked = locked_kib(&mut keystore);
    assert!(locked > 2048, "{locked} KiB");
    drop(keystore.greeted_as(BROKER));
}

#[test]
fn pkcs11_a_soft_limit_is_raised_first() {
    let mut keystore = Keystore::start_with(&["--memlock=0:65536"], &[]);
    let said = said_of_memory(&mut keystore);
    assert!(said.starts_with("only the PIN is locked"), "{said}");
    assert!(locked_kib(&mut keystore) > 0);
}

#[test]
fn pkcs11_with_a_limit_the_pin_is_locked_and_what_goes_on_never_fails_for_it() {
    let mut keystore = Keystore::start_with(&["--memlock=65536:65536"], &[]);
    let said = said_of_memory(&mut keystore);
    assert!(said.starts_with("only the PIN is locked"), "{said}");
    assert!(
        said.contains("65536") && said.contains("LimitMEMLOCK=infinity"),
        "{said}"
    );
    let locked = locked_kib(&mut keystore);
    assert!((4..=64).contains(&locked), "{locked} KiB");
    // Each connection is a thread with a stack far above the limit.
    let peers: Vec<_> = (0..4).map(|_| keystore.greeted_as(BROKER)).collect();
    drop(peers);
}

#[test]
fn where_nothing_may_be_locked_that_is_said_and_it_serves() {
    let mut keystore = Keystore::start_with(&["--memlock=0:0"], &[]);
    let said = said_of_memory(&mut keystore);
    assert!(said.starts_with("warning: nothing is locked"), "{said}");
    assert!(said.contains("LimitMEMLOCK=infinity"), "{said}");
    assert_eq!(locked_kib(&mut keystore), 0);
    drop(keystore.greeted_as(BROKER));
}
