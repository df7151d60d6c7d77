//! Facts as TOML, one user and one unit a line, so that a diff between two hosts can be read.

use crate::config::{Facts, UnitFacts};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// As `Facts::load` reads it.
pub fn text(facts: &Facts) -> String {
    let mut lines = vec![format!("format = {}", facts.format)];
    let mut put = |key: &str, value: Option<String>| {
        lines.extend(value.map(|value| format!("{key} = {value}")));
    };
    put("host", facts.host.as_deref().map(quoted));
    put("peer_pidfd", facts.peer_pidfd.map(|is| is.to_string()));
    put("witness", facts.witness.map(|is| is.to_string()));
    put("modules", facts.modules.as_deref().map(paths));
    put("sockets", facts.sockets.as_deref().map(paths));
    for (title, ids) in [("users", &facts.users), ("groups", &facts.groups)] {
        table(&mut lines, title, ids, u32::to_string);
    }
    if let Some(units) = &facts.units {
        table(&mut lines, "unit", units, unit);
    }
    lines.join("\n")
}

fn table<T>(
    lines: &mut Vec<String>,
    title: &str,
    values: &BTreeMap<String, T>,
    shown: impl Fn(&T) -> String,
) {
    lines.push(format!("\n[{title}]"));
    lines.extend(
        values
            .iter()
            .map(|(name, value)| format!("{} = {}", quoted(name), shown(value))),
    );
}

fn unit(unit: &UnitFacts) -> String {
    let mut parts = Vec::new();
    parts.extend(
        unit.user
            .as_deref()
            .map(|user| format!("user = {}", quoted(user))),
    );
    parts.extend(
        unit.slice
            .as_deref()
            .map(|slice| format!("slice = {}", quoted(slice))),
    );
    parts.extend(unit.dynamic_user.then(|| "dynamic_user = true".to_owned()));
    parts.extend((!unit.exec.is_empty()).then(|| format!("exec = {}", paths(&unit.exec))));
    format!("{{ {} }}", parts.join(", "))
}

fn paths(paths: &[PathBuf]) -> String {
    let one = |path: &PathBuf| quoted(&Path::to_string_lossy(path));
    format!(
        "[{}]",
        paths.iter().map(one).collect::<Vec<String>>().join(", ")
    )
}

/// A basic string of TOML.
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        let _ = match c {
            '"' | '\\' => write!(quoted, "\\{c}"),
            c if c.is_control() => write!(quoted, "\\u{:04X}", u32::from(c)),
            c => write!(quoted, "{c}"),
        }; // to a String, which takes everything
    }
    quoted + "\""
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(text: &str) -> Facts {
        toml::from_str(text).unwrap_or_else(|error| panic!("{error}\n{text}"))
    }

    #[test]
    fn what_is_written_is_what_is_read() {
        let unit = UnitFacts {
            user: Some("payments".into()),
            slice: Some("system-a\\x2db.slice".into()),
            dynamic_user: true,
            exec: vec!["/usr/bin/payments".into(), "/usr/bin/b".into()],
        };
        let facts = Facts {
            host: Some("web-1".into()),
            peer_pidfd: Some(true),
            witness: Some(false),
            modules: Some(vec!["/usr/lib/m.so".into()]),
            sockets: Some(Vec::new()),
            users: [("payments".to_owned(), 991)].into(),
            groups: [("payments".to_owned(), 992)].into(),
            units: Some([("a-b@.service".to_owned(), unit), Default::default()].into()),
            ..Facts::default()
        };
        assert_eq!(read(&text(&facts)), facts);
        assert_eq!(read(&text(&Facts::default())), Facts::default());
    }

    proptest! {
        #[test]
        fn no_name_breaks_the_file(name in "\\PC{0,20}|[\u{0}-\u{ff}]{0,9}", host in "[\\x00-\\x7f]{0,9}") {
            let facts = Facts {
                host: Some(host),
                users: [(name, 1)].into(),
                ..Facts::default()
            };
            prop_assert_eq!(read(&text(&facts)), facts);
        }
    }
}
