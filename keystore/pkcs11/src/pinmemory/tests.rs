use super::*;

const NOW_S: Seconds = 2_000_000_000;

/// The state directory of one keystore, and the process that uses it.
struct World {
    dir: tempfile::TempDir,
    process: &'static Accepted,
}

impl World {
    fn new() -> World {
        World {
            dir: tempfile::tempdir().unwrap(),
            process: process(),
        }
    }

    fn memory(&self) -> PinMemory {
        let dir = StateDir::lock(&self.dir.path().join("state")).unwrap();
        PinMemory::beside(&dir, self.process).unwrap()
    }

    /// Another process goes on where this one was.
    fn restarted(self, memory: PinMemory) -> (World, PinMemory) {
        drop(memory);
        let world = World {
            process: process(),
            ..self
        };
        let memory = world.memory();
        (world, memory)
    }
}

fn process() -> &'static Accepted {
    Box::leak(Box::new(Accepted::new()))
}

fn shown(pin: &str, now_s: Seconds) -> Shown<'_> {
    Shown {
        place: "token",
        serial: "1",
        count: Count::Clear,
        pin: pin.as_bytes(),
        now: Time::from_unix_s(now_s),
    }
}

fn kind(begun: Result<Before, Error>) -> Option<Kind> {
    begun.err().map(|error| error.kind())
}

/// A try that ends without a clear answer, or in the death of the process.
fn unclear(memory: &mut PinMemory, pin: &str, now_s: Seconds) -> Option<Kind> {
    let shown = shown(pin, now_s);
    match memory.begin(&shown) {
        Ok(before) => {
            memory.unclear(&shown, &before).unwrap();
            None
        }
        Err(error) => Some(error.kind()),
    }
}

fn accept(memory: &mut PinMemory, pin: &str) {
    let _before = memory.begin(&shown(pin, NOW_S)).unwrap();
    memory.accepted(&shown(pin, NOW_S)).unwrap();
}

#[test]
fn a_refused_pin_is_known_after_a_restart_and_another_is_not() {
    let world = World::new();
    let mut memory = world.memory();
    let _before = memory.begin(&shown("1234", NOW_S)).unwrap();
    memory.refused(&shown("1234", NOW_S)).unwrap();
    let (_world, mut memory) = world.restarted(memory);
    let years = NOW_S + 1_000_000_000;
    for now_s in [NOW_S, years, 0] {
        let begun = memory.begin(&shown("1234", now_s));
        assert_eq!(kind(begun), Some(Kind::BadPin));
    }
    let elsewhere = Shown {
        serial: "2",
        ..shown("1234", NOW_S)
    };
    assert_eq!(kind(memory.begin(&elsewhere)), None, "another token");
    // One in 4,096 may be taken for it; of eight at most one, or the test has found a defect.
    let pins: Vec<String> = (0..8).map(|n| n.to_string()).collect();
    let refused = |pin: &&String| memory.begin(&shown(pin, NOW_S)).is_err();
    assert!(pins.iter().filter(refused).count() <= 1);
}

#[test]
fn tries_without_a_clear_answer_become_rare_over_restarts() {
    let mut world = World::new();
    let mut memory = world.memory();
    // Nobody says what came of a try: each process died of it.
    let (mut now_s, mut tries) = (NOW_S, Vec::new());
    while now_s < NOW_S + 12_000 {
        match memory.begin(&shown("1234", now_s)) {
            Ok(_died) => tries.push(now_s - NOW_S),
            Err(error) => assert_eq!(error.kind(), Kind::Unavailable, "{error}"),
        }
        (world, memory) = world.restarted(memory);
        now_s += 1 + u64::from(now_s > NOW_S + 100) * 9;
    }
    assert_eq!(tries[..4], [0, 1, 2, 12], "{tries:?}");
    assert!((72..80).contains(&tries[4]), "{tries:?}");
    assert!((672..690).contains(&tries[5]), "{tries:?}");
    assert!((4_272..4_300).contains(&tries[6]), "{tries:?}");
    assert_eq!(tries.len(), 9, "then one an hour: {tries:?}");
}

#[test]
fn the_wait_is_told_with_what_ends_it() {
    let world = World::new();
    let mut memory = world.memory();
    for _ in 0..QUICK_MAX {
        assert_eq!(unclear(&mut memory, "1234", NOW_S), None);
    }
    let error = memory.begin(&shown("1234", NOW_S + 3)).err().unwrap();
    assert_eq!(error.kind(), Kind::Unavailable);
    let text = error.to_string();
    for part in ["3 times", "in 7 s", "pin.v1", "at once"] {
        assert!(text.contains(part), "{text}");
    }
    assert!(!text.contains("1234"), "{text}");
    std::fs::remove_file(&memory.path).unwrap();
    drop(memory);
    assert_eq!(unclear(&mut world.memory(), "1234", NOW_S + 3), None);
    assert_eq!(spoken(119), "119 s");
    assert_eq!(spoken(121), "3 min");
}

#[test]
fn a_clock_that_goes_back_neither_unlocks_a_pin_nor_blocks_it_for_ever() {
    let world = World::new();
    let mut memory = world.memory();
    for _ in 0..QUICK_MAX {
        unclear(&mut memory, "1234", NOW_S);
    }
    // A host without a clock begins in 1970.
    assert_eq!(unclear(&mut memory, "1234", 7), Some(Kind::Unavailable));
    let (_world, mut memory) = world.restarted(memory);
    assert_eq!(unclear(&mut memory, "1234", 16), Some(Kind::Unavailable));
    assert_eq!(unclear(&mut memory, "1234", 17), None);
}

#[test]
fn a_pin_that_was_accepted_before_is_tried_while_the_token_is_away() {
    let world = World::new();
    let mut memory = world.memory();
    accept(&mut memory, "1234");
    for _ in 0..50 {
        assert_eq!(unclear(&mut memory, "1234", NOW_S), None);
    }
    assert_eq!(unclear(&mut memory, "other", NOW_S), None);
    // As long as that lasts another process knows it too, but not that of another PIN.
    let (world, mut memory) = world.restarted(memory);
    for _ in 0..50 {
        assert_eq!(unclear(&mut memory, "1234", NOW_S), None);
    }
    for _ in 1..QUICK_MAX {
        assert_eq!(unclear(&mut memory, "other", NOW_S), None);
    }
    let other = unclear(&mut memory, "other", NOW_S);
    assert_eq!(other, Some(Kind::Unavailable));
    // A module that dies of it is another matter.
    for _ in 0..QUICK_MAX {
        assert_eq!(kind(memory.begin(&shown("1234", NOW_S))), None);
    }
    let (_world, mut memory) = world.restarted(memory);
    let dead = memory.begin(&shown("1234", NOW_S));
    assert_eq!(kind(dead), Some(Kind::Unavailable));
}

#[test]
fn a_token_that_counts_a_wrong_pin_ends_the_tries_without_a_clear_answer() {
    for accepted in [false, true] {
        let world = World::new();
        let mut memory = world.memory();
        if accepted {
            accept(&mut memory, "1234");
        }
        let counted = |now_s| Shown {
            count: Count::Low,
            ..shown("1234", now_s)
        };
        // The count of somebody else's wrong PIN does not keep ours from being tried.
        let before = memory.begin(&counted(NOW_S)).unwrap();
        memory.unclear(&counted(NOW_S), &before).unwrap();
        let begun = memory.begin(&counted(NOW_S + 100_000));
        assert_eq!(kind(begun), Some(Kind::BadPin));
    }
}

#[test]
fn a_pin_that_was_not_looked_at_is_as_it_was() {
    let world = World::new();
    let mut memory = world.memory();
    assert_eq!(unclear(&mut memory, "1234", NOW_S), None);
    for _ in 0..50 {
        let before = memory.begin(&shown("1234", NOW_S)).unwrap();
        memory.not_tried(&shown("1234", NOW_S), &before).unwrap();
    }
    for _ in 1..QUICK_MAX {
        assert_eq!(unclear(&mut memory, "1234", NOW_S), None);
    }
    let begun = memory.begin(&shown("1234", NOW_S));
    assert_eq!(kind(begun), Some(Kind::Unavailable));
}

#[test]
fn a_try_that_cannot_be_written_down_is_not_made() {
    let world = World::new();
    let mut memory = world.memory();
    // Opening the new file for writing fails.
    std::fs::create_dir(memory.path.with_file_name("pin.v1.new")).unwrap();
    let error = memory.begin(&shown("1234", NOW_S)).err().unwrap();
    assert_eq!(error.kind(), Kind::Unavailable);
    assert!(error.to_string().contains("was not tried"), "{error}");
}

#[test]
fn what_was_accepted_leaves_nothing_on_disk() {
    let world = World::new();
    let mut memory = world.memory();
    assert_eq!(unclear(&mut memory, "wrong", NOW_S), None);
    accept(&mut memory, "1234");
    assert!(memory.stored.pins.is_empty());
    let salt = memory.stored.salt;
    let (_world, mut memory) = world.restarted(memory);
    assert!(memory.stored.pins.is_empty());
    let entries = std::fs::read_dir(memory.path.parent().unwrap()).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["lock", "pin.v1"]);
    accept(&mut memory, "1234");
    assert_eq!(memory.stored.salt, salt, "each salt would tell more");
}

#[test]
fn what_is_kept_is_bounded_and_holds_no_pin() {
    let world = World::new();
    let mut memory = world.memory();
    for n in 0..REMEMBERED_MAX * 2 {
        let pin = format!("secret{n}");
        memory.refused(&shown(&pin, NOW_S)).unwrap();
    }
    assert!(memory.stored.pins.len() <= REMEMBERED_MAX);
    let text = std::fs::read_to_string(&memory.path).unwrap();
    assert!(!text.contains("secret"), "{text}");
    assert!(memory.stored.pins.iter().all(|pin| pin.print <= PRINT_MASK));
}
