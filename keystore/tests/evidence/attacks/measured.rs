//! What is written of what was measured: event logs and IMA lists, which anybody may write.

use super::only;
use crate::Party;
use crate::fixture::{World, bytes, logs, pcr};
use keystore::evidence::bundle::{Bank, PcrValue, to_hex};

/// A host that booted without Secure Boot, and whose root has made up for it since.
#[test]
fn events_under_other_names() {
    let world = World::new();
    let mut party = Party::of(&world);
    party.policy = without_values(&party.policy);
    let mut other = world.clone();
    other.event_log = logs::begun();
    other.event_log.extend(logs::event(0, 8, b"version"));
    // What the firmware measured, as something else; then what it should have.
    other
        .event_log
        .extend(logs::event(7, 5, &logs::variable(0)));
    for pcr in 0..8 {
        let kind = if pcr == 7 { 5 } else { 4 };
        other.event_log.extend(logs::event(pcr, kind, &[0; 4]));
    }
    other
        .event_log
        .extend(logs::event(7, 0x8000_0001, &logs::variable(1)));
    other.event_log.extend(logs::event(7, 4, &[0; 4]));
    other.boot();
    let left_out = ["pcr-reference"];
    assert_eq!(
        party.finds_but(&other.bundle(), &left_out),
        only("event-log")
    );
    // What a rule denies, said to be something else.
    let mut other = world.clone();
    other
        .event_log
        .extend(logs::event(4, 0xd, b"a loader with a hole"));
    other.boot();
    let denied = Bank::Sha256.of(&[b"a loader with a hole"]);
    let denied = to_hex(&denied);
    party.policy = party.policy.replace(&"00".repeat(32), &denied);
    assert!(party.finds_but(&world.bundle(), &left_out).is_empty());
    assert_eq!(
        party.finds_but(&other.bundle(), &left_out),
        only("event-rules")
    );
}

/// A list whose beginning is hidden in the event log, and none at all.
#[test]
fn a_list_that_does_not_begin_at_its_beginning() {
    let world = World::new();
    let party = Party::of(&world);
    let mut hidden = world.clone();
    let first = 4 + 20 + 4 + 6 + 4; // up to the data of the first entry
    let length = u32::from_le_bytes(world.ima[first - 4..first].try_into().unwrap()) as usize;
    let data = &world.ima[first..first + length];
    hidden.event_log.extend(logs::event(10, 0xd, data));
    hidden.ima = world.ima[first + length..].to_vec();
    assert_eq!(party.finds(&hidden.bundle()), only("ima"));
    let mut off = world.clone();
    off.ima = Vec::new();
    let values = off.pcrs.get_mut(&Bank::Sha256).unwrap();
    values.insert(pcr(10), PcrValue::new(&[0; 32]));
    assert_eq!(party.finds(&off.bundle()), only("ima"));
    // What nobody asks for fails nobody.
    let mut party = Party::of(&world);
    party.policy = party.policy.replace("[ima]\nrequired = true\n", "");
    assert!(party.finds_but(&off.bundle(), &["ima"]).is_empty());
}

#[test]
fn a_list_of_another_boot() {
    let world = World::new();
    let party = Party::of(&world);
    let mut bundle = world.bundle();
    bundle.ima = None;
    assert_eq!(party.finds(&bundle), only("ima"));
    let mut other = world.clone();
    let (list, value) = logs::ima(&[3; 32]);
    other.ima = list.clone();
    let values = other.pcrs.get_mut(&Bank::Sha256).unwrap();
    values.insert(pcr(10), PcrValue::new(&value));
    assert_eq!(
        party.finds(&other.bundle()),
        only("ima"),
        "its aggregate is another boot's"
    );
    let mut bundle = world.bundle();
    bundle.ima = Some(bytes(&list));
    assert_eq!(
        party.finds(&bundle),
        only("ima"),
        "it does not lead to the PCR"
    );
}

/// A policy that knows no values, so that it is events alone that fail.
fn without_values(policy: &str) -> String {
    between(policy, "[quote.values", "[event_log]", "")
}

fn between(policy: &str, from: &str, to: &str, with: &str) -> String {
    let (begin, rest) = policy.split_once(from).expect("it is there");
    let (_, rest) = rest.split_once(to).expect("it is there");
    format!("{begin}{with}{to}{rest}")
}

/// A host with these events after those of a good one.
fn with_events(world: &World, events: &[Vec<u8>]) -> World {
    let mut other = world.clone();
    other.event_log.extend(events.concat());
    other.boot();
    other
}

/// Root has booted a bad loader, and extends the PCR with what would have been a good one: the log leads to it.
#[test]
fn a_good_loader_that_was_measured_after_a_bad_one() {
    let world = World::new();
    let mut party = Party::of(&world);
    let digest = |data: &[u8]| to_hex(&Bank::Sha256.of(&[data]));
    let known = [digest(&[0; 4]), digest(b"kernel"), digest(b"a good loader")];
    let zero = format!("none = [\"{}\"]", "00".repeat(32));
    let only_known = format!("only = {known:?}");
    party.policy = party.policy.replace(&zero, &only_known);
    assert!(party.finds(&world.bundle()).is_empty());
    let loader = |data: &[u8]| logs::event(4, 0x8000_0003, data);
    let good = with_events(&world, &[loader(b"a good loader")]);
    assert!(party.finds(&good.bundle()).is_empty());
    let bad = with_events(&world, &[loader(b"a bad one"), loader(b"a good loader")]);
    assert_eq!(party.finds(&bad.bundle()), only("event-rules"));
}

/// A firmware that runs drivers before it closes PCR 7, one of which measures the variable as it should have been.
#[test]
fn a_variable_under_another_name() {
    let world = World::new();
    let mut party = Party::of(&world);
    party.policy = without_values(&party.policy);
    let finds = |first: &[u8], second: &[u8], late: &[u8]| {
        let separators = (0..8).map(|pcr| logs::event(pcr, 4, &[0; 4]));
        let separators: Vec<u8> = separators.flatten().collect();
        let mut other = world.clone();
        other.event_log = [&logs::begun(), first, second, &separators, late].concat();
        other.boot();
        party.finds_but(&other.bundle(), &["pcr-reference"])
    };
    let (off, on) = (logs::variable(0), logs::variable(1));
    let config = |variable: &[u8]| logs::event(7, 0x8000_0001, variable);
    assert!(finds(&config(&on), &[], &[]).is_empty());
    let renamed = logs::event(7, 5, &off);
    assert_eq!(finds(&renamed, &config(&on), &[]), only("event-rules"));
    assert_eq!(
        finds(&[], &[], &logs::event(7, 5, &on)),
        only("event-rules")
    );
    assert_eq!(finds(&[], &[], &config(&on)), only("event-log"));
}

/// What nobody asks for fails nobody.
#[test]
fn a_log_of_a_firmware_in_disorder() {
    let world = World::new();
    let mut party = Party::of(&world);
    let twice = with_events(&world, &[logs::event(3, 4, &[0; 4])]);
    assert_eq!(party.finds(&twice.bundle()), only("event-log"));
    party.policy = between(&party.policy, "[event_log]", "[ima]", "");
    let left_out = ["event-log", "event-rules"];
    assert!(party.finds_but(&twice.bundle(), &left_out).is_empty());
}

/// It leads to the PCR that was quoted, and nothing in it is of this boot's PCRs.
#[test]
fn a_list_that_is_of_no_boot() {
    let world = World::new();
    let party = Party::of(&world);
    let with = |files: &[(&str, &str, &[u8])]| {
        let mut other = world.clone();
        let (list, value) = logs::ima_of(files);
        other.ima = list;
        let values = other.pcrs.get_mut(&Bank::Sha256).unwrap();
        values.insert(pcr(10), PcrValue::new(&value));
        other.bundle()
    };
    let program = ("/usr/bin/assertd", "sha256", &[1; 32][..]);
    for files in [
        &[program][..],
        &[("boot_aggregate", "sha384", &[3; 48]), program],
        &[("boot_aggregate", "sha1", &[3; 20]), program],
        &[program, ("boot_aggregate", "sha256", &[3; 32])],
    ] {
        assert_eq!(party.finds(&with(files)), only("ima"), "{files:?}");
    }
    // A good one, of PCRs of which some were not quoted.
    let mut party = Party::of(&world);
    let all = "[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10]";
    party.policy = party.policy.replace(all, "[4, 7, 10]");
    let mut some = world.clone();
    let values = some.pcrs.get_mut(&Bank::Sha256).unwrap();
    values.retain(|index, _| [4, 7, 10].contains(&index.number()));
    assert_eq!(party.finds(&some.bundle()), only("ima"));
    assert_eq!(some.pcrs.len(), 1);
}
