//! Each text is about its finding: the example has it, and the fix has it not.

use super::super::findings;
use super::super::findings::tests::{HEAD, NOW, Site};
use super::*;
use crate::config::Facts;
use keystore::Time;

/// The users of the examples.
const USERS: &str = "format = 1\nusers = { payments = 991, reports = 992 }\n";

/// What is found in an example, which is the main file and, below a line that names them, drop-ins.
fn ids(text: &str, facts: Option<&str>) -> Vec<&'static str> {
    let parts: Vec<&str> = text.split("\n# conf.d/").collect();
    let head: Vec<&str> = HEAD
        .split_inclusive("\n\n")
        .filter(|section| !text.contains(section.lines().next().unwrap_or_default()))
        .collect();
    let main = format!("{}\n{}", head.concat(), parts[0]);
    let mut site = Site::new(&main);
    for part in &parts[1..] {
        let (name, text) = part.split_once('\n').unwrap();
        site.put(&format!("conf.d/{name}"), text);
    }
    let facts = Facts::load(&site.put("facts", facts.unwrap_or(USERS))).unwrap();
    let config = site.load(&facts);
    let found = findings(&config, Some(&facts), Time::from_unix_s(NOW));
    found.iter().map(|finding| finding.id).collect()
}

#[test]
fn each_example_has_its_finding_and_its_fix_has_not() {
    let all = all();
    for check in ALL.iter().filter(|check| check.id != "I3") {
        let Explanation {
            example,
            fix,
            facts,
            facts_fix,
            ..
        } = &all[check.id];
        let facts = facts.as_deref();
        let found = ids(example, facts);
        assert!(
            found.contains(&check.id),
            "{}: the example has {found:?}",
            check.id
        );
        let found = ids(fix, facts_fix.as_deref().or(facts));
        assert!(!found.contains(&check.id), "{}: so has the fix", check.id);
        let errors = found.iter().filter(|id| id.starts_with('E')).count();
        assert_eq!(errors, 0, "{}: the fix has {found:?}", check.id);
    }
}

#[test]
fn every_check_is_explained_and_nothing_else_in_lines_that_fit_a_terminal() {
    let all = all();
    for check in ALL {
        let Explanation { title, means, .. } = &all[check.id];
        assert!(
            !title.ends_with('.') && means.trim_end().ends_with('.'),
            "{}",
            check.id
        );
    }
    assert!(all.keys().all(|id| Check::named(id).is_some()));
    for line in TEXTS.lines() {
        assert!(
            line.chars().count() <= 100 && line.trim_end() == line,
            "{line:?}"
        );
    }
}
