//! Random sections, callers and requests from small pools, so that they meet. A caller is moved
//! towards a section until it fits, or until one condition alone is missing: these two are what a
//! decision gets wrong. Every run is the same: a failure comes back.

use super::model::{Caller, Conditions, Place, Profile, Rule};
use super::oracle::{Request, misses};
use crate::peer::Proof;
use crate::workload::Session;

/// When requests are made: 2027-01-15T08:00:00Z.
pub const NOW_S: u64 = 1_800_000_000;

/// Just over, just not over, and in other words.
const EXPIRIES: [(&str, u64); 6] = [
    ("2027-01-15T08:00:00Z", NOW_S),
    ("2027-01-15T08:00:01Z", NOW_S + 1),
    ("2027-01-15T09:00:01+01:00", NOW_S + 1),
    ("2027-01-15", 1_799_971_200),
    ("2027-01-16", 1_800_057_600),
    ("2027-06-30", 1_814_313_600),
];
const UNITS: [&str; 10] = [
    "pay.service",
    "app@1.service",
    "app@*.service",
    "pay*.service",
    "user@7.service",
    "session-3.scope",
    "/system.slice/pay.service",
    "/system.slice/team.slice/app@*.service",
    "/system.slice/*.service",
    "/sys*.slice/app@1.service",
];
const SLICES: [&str; 4] = ["system.slice", "team.slice", "user.slice", "user-7.slice"];
const USER_UNITS: [&str; 3] = ["pay.service", "sync@*.service", "sync@1.service"];
const SYSTEM: &[&str] = &["system.slice"];
const TEAM: &[&str] = &["system.slice", "team.slice"];
const LOGIN: &[&str] = &["user.slice", "user-7.slice"];
const PLACES: [Place; 17] = [
    Place::Nowhere(None),
    Place::Nowhere(Some("/docker/pay.service")),
    Place::Nowhere(Some("/team.slice")),
    Place::Unit(SYSTEM, "pay.service", ""),
    Place::Unit(SYSTEM, "pay.service", "/app@1.service"),
    Place::Unit(SYSTEM, "payment.service", ""),
    Place::Unit(SYSTEM, "app@1.service", ""),
    Place::Unit(SYSTEM, "app@2.service", "/team.slice/pay.service"),
    Place::Unit(TEAM, "pay.service", ""),
    Place::Unit(TEAM, "app@1.service", ""),
    Place::Unit(TEAM, "app@22.service", "/inner"),
    Place::Unit(TEAM, "web.service", "/pay.service"),
    Place::Unit(LOGIN, "session-3.scope", ""),
    Place::UserUnit(7, "pay.service"),
    Place::UserUnit(7, "sync@1.service"),
    Place::UserUnit(8, "sync@1.service"),
    Place::UserUnit(8, "sync@2.service"),
];
const IDS: [u32; 3] = [7, 8, 9];
const EXECUTABLES: [&str; 2] = ["/usr/bin/pay", "/usr/bin/app"];
const PROGRAMS: [Result<(Option<&str>, &str), &str>; 7] = [
    Err(""),
    Err("it may not be read"),
    Ok((None, "pay")),
    Ok((Some("/usr/bin/pay"), "pay")),
    Ok((Some("/usr/bin/pay"), "other")),
    Ok((Some("/usr/bin/app"), "app")),
    Ok((Some("/usr/bin/app"), "pay")),
];
const DIGESTS: [&str; 3] = ["pay", "app", "other"];
const TARGETS: [&str; 4] = ["bank", "aws", "vault", "ledger"];

/// A small generator of its own (SplitMix64): the same numbers everywhere and for ever.
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Dice {
        Dice(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    pub fn percent(&mut self, chance: usize) -> bool {
        self.below(100) < chance
    }

    pub fn one_of<T: Clone>(&mut self, pool: &[T]) -> T {
        pool[self.below(pool.len())].clone()
    }

    fn maybe<T: Clone>(&mut self, chance: usize, pool: &[T]) -> Option<T> {
        self.percent(chance).then(|| self.one_of(pool))
    }
}

/// Groups every system has the first of; the others are this one's.
pub fn groups() -> Vec<(String, u32)> {
    let text = std::fs::read_to_string("/etc/group").unwrap();
    let group = |line: &str| {
        let fields: Vec<&str> = line.split(':').collect();
        Some((fields.first()?.to_string(), fields.get(2)?.parse().ok()?))
    };
    text.lines().filter_map(group).take(3).collect()
}

pub fn rules(dice: &mut Dice, groups: &[(String, u32)]) -> Vec<Rule> {
    let count = dice.one_of(&[1, 1, 2, 2, 3, 4, 5]);
    (0..count)
        .map(|number| rule(dice, groups, number))
        .collect()
}

fn rule(dice: &mut Dice, groups: &[(String, u32)], number: usize) -> Rule {
    let mut matches = conditions(dice, groups, 30);
    if matches.user_unit.is_some() && matches.uid.is_none() {
        matches.uid = Some(dice.one_of(&IDS)); // it has to be said whose unit
    }
    if matches.unit.is_none() && matches.slice.is_none() && matches.uid.is_none() {
        matches.unit = Some(dice.one_of(&UNITS)); // the least a match needs
    }
    let mut unless = Vec::new();
    for _ in 0..dice.one_of(&[0, 0, 0, 1, 2]) {
        unless.push(conditions(dice, groups, 15));
    }
    unless.retain(|unless| !is_empty(unless));
    let shadow = Conditions {
        unit: None, // unit and user are always enforced
        user_unit: None,
        uid: None,
        ..conditions(dice, groups, 35)
    };
    let has_shadow = dice.percent(40) && !is_empty(&shadow);
    Rule {
        name: format!("w{number}"),
        matches,
        unless,
        shadow: has_shadow.then_some(shadow),
        expires: dice.maybe(20, &EXPIRIES),
        allow_pid_fallback: dice.percent(40),
        targets: targets(dice),
    }
}

fn targets(dice: &mut Dice) -> Vec<(&'static str, Profile, Option<u32>)> {
    let mut targets = Vec::new();
    for name in TARGETS {
        if dice.percent(45) {
            let profile = dice.one_of(&[Profile::Rfc7523, Profile::AwsOidc]);
            targets.push((name, profile, dice.maybe(50, &[1, 59, 60, 61, 300])));
        }
    }
    targets
}

fn conditions(dice: &mut Dice, groups: &[(String, u32)], chance: usize) -> Conditions {
    let mut digests = Vec::new();
    while dice.percent(chance / 2) && digests.len() < 3 {
        digests.push(dice.one_of(&DIGESTS));
    }
    Conditions {
        unit: dice.maybe(2 * chance, &UNITS),
        slice: dice.maybe(chance / 2, &SLICES),
        user_unit: dice.maybe(chance / 4, &USER_UNITS),
        uid: dice.maybe(chance, &IDS),
        gid: dice.maybe(chance, &IDS),
        supplementary_group: dice.maybe(chance, groups),
        exe: dice.maybe(chance / 2, &EXECUTABLES),
        exe_sha256: digests,
        container: dice.maybe(chance, &[true, false]),
        interactive: dice.maybe(chance, &[true, false, false]),
    }
}

fn is_empty(conditions: &Conditions) -> bool {
    format!("{conditions:?}") == format!("{:?}", Conditions::default())
}

/// A caller that fits one of the sections, misses one condition of it, or is anybody.
pub fn caller(dice: &mut Dice, rules: &[Rule], groups: &[(String, u32)]) -> Caller {
    let anybody = Caller {
        place: dice.one_of(&PLACES),
        uid: dice.one_of(&IDS),
        gid: dice.one_of(&IDS),
        groups: some_of(dice, groups),
        container: dice.percent(20),
        session: dice.one_of(&sessions()),
        program: dice.one_of(&PROGRAMS),
        proof: if dice.percent(10) {
            Proof::Pid
        } else {
            Proof::Pidfd
        },
    };
    if rules.is_empty() || dice.percent(10) {
        return anybody;
    }
    let rule = dice.one_of(rules);
    let wanted = usize::from(dice.percent(36));
    moved(dice, anybody, &rule, wanted, groups)
}

fn some_of(dice: &mut Dice, groups: &[(String, u32)]) -> Vec<u32> {
    groups
        .iter()
        .filter(|_| dice.percent(50))
        .map(|(_, gid)| *gid)
        .collect()
}

fn sessions() -> [Session; 4] {
    let login = Session::Login("session-3.scope".to_owned());
    [Session::Unread, Session::None, Session::Terminal, login]
}

/// Changes one thing of a caller after the other, as long as that brings it nearer to so many
/// misses.
fn moved(
    dice: &mut Dice,
    mut caller: Caller,
    rule: &Rule,
    wanted: usize,
    groups: &[(String, u32)],
) -> Caller {
    const TRIES_MAX: usize = 120; // mostly more than it takes; some sections nobody can fit
    for _ in 0..TRIES_MAX {
        let now = misses(rule, &caller).abs_diff(wanted);
        if now == 0 {
            break;
        }
        let mut other = caller.clone();
        match dice.below(7) {
            0 => other.place = dice.one_of(&PLACES),
            1 => other.uid = dice.one_of(&IDS),
            2 => other.gid = dice.one_of(&IDS),
            3 => other.groups = some_of(dice, groups),
            4 => other.container = !other.container,
            5 => other.session = dice.one_of(&sessions()),
            _ => other.program = dice.one_of(&PROGRAMS),
        }
        if misses(rule, &other).abs_diff(wanted) <= now {
            caller = other;
        }
    }
    caller
}

/// A request for something one of the sections owns, or for anything.
pub fn request(dice: &mut Dice, rules: &[Rule], caller: &Caller) -> Request {
    let near = rules.iter().filter(|rule| misses(rule, caller) <= 1);
    let owned: Vec<_> = near
        .flat_map(|rule| rule.targets.iter().map(|(name, ..)| *name))
        .collect();
    let target = match owned.is_empty() || dice.percent(10) {
        true => dice.one_of(&TARGETS),
        false => dice.one_of(&owned),
    };
    Request {
        target,
        lifetime_s: dice.maybe(60, &[0, 1, 59, 60, 61, 600, u32::MAX]),
        now_s: NOW_S,
    }
}
