//! Names and ids of all users, or all groups: as the name service lists them, else as its file does.

use crate::ctl::doctor::host::{self, Output};
use std::collections::BTreeMap;

/// Of one database of nsswitch.conf(5), which is in `file` too. A directory (LDAP, AD) usually lists
/// nobody, though it knows all.
pub fn look(database: &str, file: &str) -> BTreeMap<String, u32> {
    let listed = host::command("getent", &[database], Output::Read);
    let listed = listed.ok().filter(|ended| ended.succeeded());
    parse(&listed.map_or_else(|| host::text(file), |ended| ended.stdout))
}

/// Lines of `name:…:id:…` (passwd(5), group(5)); the first of a name counts, as in a look-up.
fn parse(text: &str) -> BTreeMap<String, u32> {
    let mut ids = BTreeMap::new();
    for line in text.lines() {
        let fields: Vec<&str> = line.split(':').collect();
        if let [name, _, id, ..] = fields.as_slice()
            && let Ok(id) = id.parse()
            && !name.is_empty()
        {
            ids.entry((*name).to_owned()).or_insert(id);
        }
    }
    ids
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_host_has_a_root() {
        assert_eq!(look("passwd", "/etc/passwd").get("root"), Some(&0));
        assert_eq!(look("no-such-database", "/etc/group").get("root"), Some(&0));
    }

    #[test]
    fn a_line_that_is_none_is_no_user() {
        let ids = parse("a:x:7:7::/:/bin/sh\n+\n:x:1:1\nb:x:many:1\na:x:8:8\ng:x:9:\n");
        assert_eq!(ids, [("a".to_owned(), 7), ("g".to_owned(), 9)].into());
    }
}
