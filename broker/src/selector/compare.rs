//! Selectors against each other, without a workload: whether one process can have two of them, and
//! whether having some means having another. For what is said about configurations; no decision is
//! made by it.
//!
//! Says nothing that is not certain: two selectors that are not known to exclude each other may hold
//! together, and one that is not known to follow may fail.

use super::{Pattern, Selector, unescaped};

/// What every user's service manager is called.
const MANAGERS: &str = "user@*.service";

/// Scopes of login sessions, which make a process interactive.
const LOGINS: &str = "session-*.scope";

impl Selector {
    /// Whether no process has both.
    pub fn excludes(&self, other: &Selector) -> bool {
        use Selector::{
            Container, Digest, Executable, Group, Interactive, Slice, Unit, User, UserUnit,
        };
        match (self, other) {
            (Unit(one), Unit(other)) => !units_meet(one, other),
            (Unit(unit), Slice(slice)) | (Slice(slice), Unit(unit)) => is_outside(unit, slice),
            (Unit(unit), UserUnit(_)) | (UserUnit(_), Unit(unit)) => {
                !units_meet(unit, &known(MANAGERS))
            }
            (Unit(unit), Interactive(false)) | (Interactive(false), Unit(unit)) => is_login(unit),
            (UserUnit(one), UserUnit(other)) => !one.meets(other),
            (Slice(one), Slice(other)) => !(is_within(one, other) || is_within(other, one)),
            (User(one), User(other)) | (Group(one), Group(other)) => one != other,
            (Executable(one), Executable(other)) => one != other,
            (Digest(one), Digest(other)) => !one.iter().any(|digest| other.contains(digest)),
            (Container(one), Container(other)) => one != other,
            (Interactive(one), Interactive(other)) => one != other,
            _ => false,
        }
    }

    /// Whether every process that has this one has the other too.
    pub fn implies(&self, other: &Selector) -> bool {
        use Selector::{Digest, Interactive, Slice, Unit, UserUnit};
        match (self, other) {
            (Unit(one), Unit(other)) => covers(other, one),
            (Unit(unit), Slice(slice)) => {
                let has = |component: &str| component == slice.as_str();
                unit.is_path() && components(unit).iter().any(|component| has(component))
            }
            (Unit(unit), Interactive(true)) => is_login(unit),
            (UserUnit(one), UserUnit(other)) => other.covers(one),
            (Slice(one), Slice(other)) => is_within(one, other),
            (Digest(one), Digest(other)) => one.iter().all(|digest| other.contains(digest)),
            _ => self == other,
        }
    }
}

/// Whether a process that has all of these has this one too.
pub fn imply(all: &[&Selector], wanted: &Selector) -> bool {
    if all.iter().any(|selector| selector.implies(wanted)) {
        return true;
    }
    let manager = manager(all);
    manager.is_some_and(|manager| manager.implies(wanted))
}

/// Two of these that no process has both of.
pub fn contradiction<'a>(all: &[&'a Selector]) -> Option<(&'a Selector, &'a Selector)> {
    let pairs = all.iter().enumerate().flat_map(|(i, one)| {
        let rest = &all[i + 1..];
        rest.iter().map(move |other| (*one, *other))
    });
    let found = pairs.into_iter().find(|(one, other)| one.excludes(other));
    let Some(manager) = manager(all) else {
        return found;
    };
    // A user's unit is in that user's manager, which is a unit by itself.
    let is_user_unit = |selector: &&&Selector| matches!(selector, Selector::UserUnit(_));
    let user_unit = *all.iter().find(is_user_unit)?;
    let other = all.iter().find(|selector| selector.excludes(&manager));
    found.or(other.map(|other| (user_unit, *other)))
}

/// The unit that a user's unit of these is in: its user's manager.
fn manager(all: &[&Selector]) -> Option<Selector> {
    let has_user_unit = all
        .iter()
        .any(|selector| matches!(selector, Selector::UserUnit(_)));
    let uid = all.iter().find_map(|selector| match selector {
        Selector::User(uid) => Some(*uid),
        _ => None,
    });
    let name = format!("user@{}.service", uid.filter(|_| has_user_unit)?);
    Pattern::new(&name).ok().map(Selector::Unit)
}

fn known(pattern: &str) -> Pattern {
    Pattern::new(pattern).expect("a constant of this file with one star, not at its beginning")
}

/// Whether some unit fits both; of a path and a name the path's last part says.
fn units_meet(one: &Pattern, other: &Pattern) -> bool {
    match (one.is_path(), other.is_path()) {
        (true, false) => name_of(one).is_none_or(|name| name.meets(other)),
        (false, true) => name_of(other).is_none_or(|name| name.meets(one)),
        _ => one.meets(other),
    }
}

fn covers(wide: &Pattern, narrow: &Pattern) -> bool {
    match (wide.is_path(), narrow.is_path()) {
        (false, true) => name_of(narrow).is_some_and(|name| wide.covers(&name)),
        (true, false) => false,
        _ => wide.covers(narrow),
    }
}

/// The name in a path; none if that is no pattern, as in `/system.slice/*.service`.
fn name_of(path: &Pattern) -> Option<Pattern> {
    let components = components(path);
    Pattern::new(components.last()?).ok()
}

/// The units in a path: slices, and one that has processes.
fn components(path: &Pattern) -> Vec<String> {
    let text = path.to_string();
    let components = text.split('/').filter(|component| !component.is_empty());
    components.map(|it| unescaped(it).to_owned()).collect()
}

/// Whether a unit's path says that it is not in the slice.
fn is_outside(unit: &Pattern, slice: &str) -> bool {
    let components = components(unit);
    let names = |component: &String| component.contains('*') || component == slice;
    unit.is_path() && !components.iter().any(names)
}

fn is_login(unit: &Pattern) -> bool {
    covers(&known(LOGINS), unit)
}

/// Whether a slice is the other or below it: `a-b.slice` is in `a.slice` (systemd.slice(5)).
fn is_within(slice: &str, other: &str) -> bool {
    let (Some(slice), Some(other)) = (slice.strip_suffix(".slice"), other.strip_suffix(".slice"))
    else {
        return false;
    };
    let below = slice.strip_prefix(other);
    below.is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::Sha256;

    fn unit(text: &str) -> Selector {
        Selector::Unit(Pattern::new(text).unwrap())
    }

    fn slice(text: &str) -> Selector {
        Selector::Slice(text.to_owned())
    }

    fn user_unit(text: &str) -> Selector {
        Selector::UserUnit(Pattern::new(text).unwrap())
    }

    fn digests(texts: &[&str]) -> Selector {
        let digests = texts.iter().map(|text| Sha256::of(text.as_bytes()));
        Selector::Digest(digests.collect())
    }

    #[test]
    fn what_no_process_has_both_of_is_known_in_either_order() {
        for (one, other) in [
            (unit("a.service"), unit("b.service")),
            (unit("a@*.service"), unit("/system.slice/b@*.service")),
            (
                unit("/system.slice/a.service"),
                unit("/app.slice/a.service"),
            ),
            (unit("/system.slice/a.service"), slice("app.slice")),
            (unit("a.service"), user_unit("a.service")),
            (user_unit("a.service"), user_unit("b@*.service")),
            (digests(&["a", "b"]), digests(&["c"])),
            (Selector::Interactive(true), Selector::Interactive(false)),
            (unit("session-4.scope"), Selector::Interactive(false)),
            (slice("a.slice"), slice("ab.slice")),
            (Selector::User(1), Selector::User(2)),
            (Selector::Group(1), Selector::Group(2)),
            (
                Selector::Executable("/a".into()),
                Selector::Executable("/b".into()),
            ),
            (Selector::Container(true), Selector::Container(false)),
        ] {
            assert!(
                one.excludes(&other) && other.excludes(&one),
                "{one} {other}"
            );
            assert!(!one.implies(&other), "{one} {other}");
        }
    }

    #[test]
    fn what_follows_does_not_exclude_and_the_other_way_it_does_not_follow() {
        for (narrow, wide) in [
            (unit("a@1.service"), unit("a@*.service")),
            (unit("/system.slice/a@1.service"), unit("a@*.service")),
            (unit("/system.slice/a.service"), slice("system.slice")),
            (unit("/system.slice/_io.service"), unit("io.service")),
            (unit("/_io.slice/a.service"), slice("io.slice")),
            (unit("session-4.scope"), Selector::Interactive(true)),
            (slice("a-b.slice"), slice("a.slice")),
            (user_unit("b@1.service"), user_unit("b@*.service")),
            (digests(&["a", "b"]), digests(&["b", "c", "a"])),
        ] {
            assert!(narrow.implies(&wide), "{narrow} {wide}");
            assert!(!wide.implies(&narrow), "{narrow} {wide}");
            assert!(
                !narrow.excludes(&wide) && !wide.excludes(&narrow),
                "{narrow} {wide}"
            );
        }
    }

    #[test]
    fn what_is_not_certain_is_not_said() {
        for (one, other) in [
            (unit("a.service"), Selector::User(1)),
            (unit("a.service"), Selector::Interactive(true)),
            (unit("a.service"), Selector::Interactive(false)),
            (digests(&["a", "b"]), digests(&["b", "c"])),
            (unit("a.service"), slice("a.slice")),
            (unit("a.service"), unit("/system.slice/*.service")),
            (
                Selector::SupplementaryGroup(1),
                Selector::SupplementaryGroup(2),
            ),
            (Selector::SupplementaryGroup(1), Selector::Group(2)),
        ] {
            assert!(
                !one.excludes(&other) && !one.implies(&other),
                "{one} {other}"
            );
        }
    }

    #[test]
    fn a_users_unit_is_in_that_users_manager() {
        let user_unit = user_unit("a.service");
        let (seven, eight) = (unit("user@7.service"), unit("user@8.service"));
        let user = Selector::User(7);
        assert!(imply(&[&user_unit, &user], &seven));
        assert!(!imply(&[&user_unit, &user], &eight));
        assert_eq!(contradiction(&[&user_unit, &user, &seven]), None);
        let wrong = contradiction(&[&user_unit, &user, &eight]);
        assert_eq!(wrong, Some((&user_unit, &eight)));
    }
}
