//! This host's own accounts, read in one piece: passwd(5) and group(5). Asked one by one the name
//! service reads the file from its start for each of them, which takes seconds with ten thousand.
//!
//! Must never say anything else than the name service would: it speaks only where the file is asked
//! first (nsswitch.conf(5)), of names that it has, in lines that are as they should be. For everything
//! else the name service itself is asked.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

/// One of the databases of nsswitch.conf(5).
#[derive(Clone, Copy)]
pub enum Database {
    Users,
    Groups,
}

impl Database {
    fn name(self) -> &'static str {
        match self {
            Database::Users => "passwd",
            Database::Groups => "group",
        }
    }

    /// Fields of one line.
    fn fields(self) -> usize {
        match self {
            Database::Users => 7,
            Database::Groups => 4,
        }
    }
}

/// Ids by name, as the file has them; nothing if it is not asked first.
pub fn ids(database: Database) -> HashMap<String, u32> {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let switch = read("/etc/nsswitch.conf");
    match is_asked_first(&switch, database) {
        true => parse(&read(&format!("/etc/{}", database.name())), database),
        false => HashMap::new(),
    }
}

/// Whether what the file says is the answer, whatever comes after it.
fn is_asked_first(switch: &str, database: Database) -> bool {
    let mut lines = switch.lines().filter_map(|line| {
        let (name, sources) = line.split_once(':')?;
        (name.trim() == database.name()).then_some(sources)
    });
    let Some(sources) = lines.next() else {
        return false;
    };
    let mut words = sources.split_whitespace();
    // An action in brackets may send even an answer on to the next source.
    words.next() == Some("files") && words.next().is_none_or(|next| !next.starts_with('['))
}

/// The first line of a name counts, and if it is not as it should be, none does.
fn parse(text: &str, database: Database) -> HashMap<String, u32> {
    let mut ids = HashMap::new();
    for line in text.lines() {
        let name = line.split(':').next().unwrap_or_default().trim();
        if let Entry::Vacant(entry) = ids.entry(name.to_owned()) {
            entry.insert(id(line, database));
        }
    }
    let known = |(name, id): (String, Option<u32>)| Some((name, id?));
    ids.into_iter().filter_map(known).collect()
}

fn id(line: &str, database: Database) -> Option<u32> {
    let fields: Vec<&str> = line.split(':').collect();
    let (name, id) = (*fields.first()?, *fields.get(2)?);
    let is_name = !name.is_empty() && !name.starts_with(['+', '-', '#']) && name == name.trim();
    let is_number = !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_digit());
    (fields.len() == database.fields() && is_name && is_number).then(|| id.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::unistd::{Group, User};

    #[test]
    fn the_file_speaks_only_where_its_answer_is_the_last_word() {
        let first = |switch: &str| is_asked_first(switch, Database::Users);
        assert!(first(
            "# passwd: ldap\npasswd:\t files systemd\ngroup: ldap\n"
        ));
        assert!(first(" passwd : files\n"));
        for other in [
            "",
            "passwd:",
            "passwd: ldap files",
            "passwd: compat",
            "passwd: files [SUCCESS=continue] ldap",
            "passwd: ldap\npasswd: files",
            "group: files",
        ] {
            assert!(!first(other), "{other}");
        }
    }

    #[test]
    fn only_a_line_as_it_should_be_is_taken_and_only_the_first_of_a_name() {
        let text = "a:x:1:1::/:/bin/sh\nb:x:2:2::/\nb:x:3:3::/:\n+c:x:4:4::/:\nd:x:-5:5::/:\n\
                    e:x:+6:6::/:\n#f:x:7:7::/:\n g:x:8:8::/:\ng:x:9:9::/:\nh:x:4294967296:1::/:\n\
                    :x:10:10::/:\na:x:11:11::/:\ni:x:12:12::/:/bin/sh:\nj:x:4294967295:0::/:\n";
        let expected = [("a", 1), ("j", u32::MAX)].map(|(name, id)| (name.to_owned(), id));
        assert_eq!(parse(text, Database::Users), HashMap::from(expected));
        let groups = parse("a:x:1:\nb:x:2:a,c\nc:x:3\n", Database::Groups);
        let expected = [("a", 1), ("b", 2)].map(|(name, id)| (name.to_owned(), id));
        assert_eq!(groups, HashMap::from(expected));
    }

    #[test]
    fn this_hosts_name_service_says_the_same() {
        for (name, uid) in ids(Database::Users) {
            let user = User::from_name(&name).unwrap().unwrap();
            assert_eq!(user.uid.as_raw(), uid, "{name}");
        }
        for (name, gid) in ids(Database::Groups) {
            let group = Group::from_name(&name).unwrap().unwrap();
            assert_eq!(group.gid.as_raw(), gid, "{name}");
        }
    }
}
