//! Patterns against a matcher that tries every text, and the verdict of each selector.

use super::*;
use crate::peer::Proof;
use proptest::prelude::*;

fn pattern(text: &str) -> Pattern {
    Pattern::new(text).unwrap()
}

#[test]
fn a_star_stands_for_something_that_is_no_slash() {
    let instances = pattern("app@*.service");
    assert!(instances.matches("app@1.service"));
    for other in [
        "app@.service",
        "app@a/b.service",
        "app@1.scope",
        "xapp@1.service",
        "app@",
    ] {
        assert!(!instances.matches(other), "{other}");
    }
    assert_eq!(
        (instances.before(), instances.after()),
        ("app@", ".service")
    );
    assert_eq!(
        (pattern("a.service").before(), pattern("a.service").after()),
        ("a.service", "")
    );
    assert!(pattern("a.service").matches("a.service"));
    assert!(!pattern("a.service").matches("aa.service"));
    let path = pattern("/system.slice/system-app.slice/app@*.service");
    assert!(path.is_path() && path.matches("/system.slice/system-app.slice/app@x.service"));
    assert!(!path.matches("/system.slice/system-app.slice/app@x.service/app@y.service"));
    assert!(!path.matches("/other.slice/system-app.slice/app@x.service"));
}

#[test]
fn a_pattern_that_fits_nearly_everything_is_none() {
    assert_eq!(Pattern::new("*.service"), Err(NotAPattern::NothingBefore));
    assert_eq!(Pattern::new(""), Err(NotAPattern::Empty));
    assert_eq!(Pattern::new("a*b*"), Err(NotAPattern::TwoStars));
}

#[test]
fn what_no_unit_can_be_called_is_no_pattern_of_units() {
    for (text, odd) in [
        ("pay?.service", '?'),
        ("pay@[ab].service", '['),
        ("pay\u{2013}x.service", '\u{2013}'),
        ("/system.slice/pay ments.service", ' '),
        ("{a,b}.service", '{'),
    ] {
        assert_eq!(Pattern::of_units(text), Err(NotAPattern::OddLetter(odd)));
    }
    for text in [
        "dev-disk-by\\x2duuid:1_a.b@c.service",
        "/system.slice/_io.service",
        "Pay@*.scope",
    ] {
        assert!(Pattern::of_units(text).is_ok(), "{text}");
    }
}

/// Every text of up to so many of these letters.
fn texts(most: usize) -> Vec<String> {
    let mut all = vec![String::new()];
    let mut last = all.clone();
    for _ in 0..most {
        let longer = |text: &String| ['a', 'b', '/'].map(|letter| format!("{text}{letter}"));
        last = last.iter().flat_map(longer).collect();
        all.extend(last.iter().cloned());
    }
    all
}

/// Short enough that each text that distinguishes two of them is among [`texts`].
fn any_pattern() -> impl Strategy<Value = Pattern> {
    ("[ab/]{1,2}", prop::option::of("[ab/]{0,2}")).prop_map(|(before, after)| {
        let star = after.map_or(String::new(), |after| format!("*{after}"));
        pattern(&format!("{before}{star}"))
    })
}

proptest! {
    #[test]
    fn covering_and_meeting_are_what_trying_every_text_says(
        one in any_pattern(), two in any_pattern(),
    ) {
        let texts = texts(6);
        let of = |pattern: &Pattern| -> Vec<&String> {
            texts.iter().filter(|text| pattern.matches(text)).collect()
        };
        let (ones, twos) = (of(&one), of(&two));
        prop_assert_eq!(one.meets(&two), ones.iter().any(|text| twos.contains(text)));
        let common = one.common(&two);
        prop_assert_eq!(common.is_some(), one.meets(&two));
        prop_assert!(common.is_none_or(|text| one.matches(&text) && two.matches(&text)));
        prop_assert_eq!(one.covers(&two), twos.iter().all(|text| ones.contains(text)));
    }
}

fn workload() -> Workload {
    let path = "/system.slice/team.slice/app@1.service/inner";
    let mut workload = Workload::for_test(7, 8, Some(path), false, Proof::Pidfd);
    workload.set_groups(Groups::Are(vec![20, 30]));
    workload
}

#[test]
fn each_selector_holds_for_what_it_names_and_for_nothing_else() {
    let workload = workload();
    let unit = |text| Selector::Unit(pattern(text));
    let holds = [
        unit("app@1.service"),
        unit("app@*.service"),
        unit("/system.slice/team.slice/app@1.service"),
        Selector::Slice("team.slice".to_owned()),
        Selector::Slice("system.slice".to_owned()),
        Selector::User(7),
        Selector::Group(8),
        Selector::SupplementaryGroup(30),
        Selector::Container(false),
    ];
    let fails = [
        unit("inner"),
        unit("app@2.service"),
        unit("/system.slice/app@1.service"),
        Selector::Slice("app@1.service".to_owned()),
        Selector::Slice("m.slice".to_owned()),
        Selector::UserUnit(pattern("app@1.service")),
        Selector::User(8),
        Selector::Group(7),
        Selector::SupplementaryGroup(8),
        Selector::Container(true),
    ];
    for selector in &holds {
        assert_eq!(selector.verdict(&workload), Verdict::Holds, "{selector}");
    }
    for selector in &fails {
        assert_eq!(selector.verdict(&workload), Verdict::Fails, "{selector}");
    }
}

#[test]
fn a_users_unit_is_no_system_unit_and_the_other_way_round() {
    let path = "/user.slice/user-7.slice/user@7.service/app.slice/payments.service";
    let workload = Workload::for_test(7, 7, Some(path), false, Proof::Pidfd);
    let verdict = |selector: Selector| selector.verdict(&workload);
    let name = || pattern("payments.service");
    assert_eq!(verdict(Selector::Unit(name())), Verdict::Fails);
    assert_eq!(verdict(Selector::UserUnit(name())), Verdict::Holds);
    // What a user's manager calls a slice is the user's word.
    assert_eq!(
        verdict(Selector::Slice("app.slice".to_owned())),
        Verdict::Fails
    );
    assert_eq!(
        verdict(Selector::Slice("user-7.slice".to_owned())),
        Verdict::Holds
    );
}

#[test]
fn what_was_not_read_is_unknown() {
    let mut workload = workload();
    let digest = Sha256::from_digest(&aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, b"x"));
    let program = [
        Selector::Executable("/bin/x".to_owned()),
        Selector::Digest(vec![digest]),
    ];
    for selector in &program {
        assert_eq!(selector.verdict(&workload), Verdict::Unknown);
    }
    assert_eq!(
        Selector::Interactive(false).verdict(&workload),
        Verdict::Unknown
    );
    workload.set_program(Program::Is {
        path: Some("/bin/x".to_owned()),
        sha256: digest,
    });
    for selector in &program {
        assert_eq!(selector.verdict(&workload), Verdict::Holds);
    }
    workload.set_program(Program::Is {
        path: None,
        sha256: digest,
    });
    assert_eq!(program[0].verdict(&workload), Verdict::Unknown);
    assert_eq!(program[1].verdict(&workload), Verdict::Holds);
    workload.set_program(Program::NotAttestable("it may not be read".to_owned()));
    assert_eq!(program[1].verdict(&workload), Verdict::Unknown);
}
