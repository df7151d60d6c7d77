//! Who can change a file, and who can read it, by owner, group and mode bits alone. An ACL's group
//! bits are the most that it grants (acl(5)), so that nobody writes whom they do not show. Whom it
//! lets read they do not show: where the bits say no, the kernel has the last word (`host::allows`).

use super::host::{Entry, EntryKind};
use crate::ctl::account::Account;
use std::path::Path;

/// Why something must not be believed: others than its trusted owners can change it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Untrusted {
    /// It belongs to somebody else.
    Owner,
    /// Its mode lets others write.
    Writable,
    /// Its mode lets others add files, though not replace those that are there.
    Shared,
}

/// A file, or a directory that something with a name is taken from. In one with the sticky bit
/// others can add files, but not replace ours (inode(7)).
pub fn untrusted(entry: &Entry, owners: &[u32]) -> Option<Untrusted> {
    let harmless = match entry.kind {
        EntryKind::Directory => entry.mode & 0o1000 != 0,
        EntryKind::Link => true,
        EntryKind::File | EntryKind::Socket | EntryKind::Other => false,
    };
    if !owners.contains(&entry.uid) {
        Some(Untrusted::Owner)
    } else if entry.mode & 0o022 != 0 && !harmless {
        Some(Untrusted::Writable)
    } else {
        None
    }
}

/// A directory of which everything is taken that lies there: whoever can add a file has his way, so
/// that the sticky bit is no help.
pub fn untrusted_list(entry: &Entry, owners: &[u32]) -> Option<Untrusted> {
    let shared = (entry.mode & 0o022 != 0).then_some(Untrusted::Shared);
    untrusted(entry, owners).or(shared)
}

impl Untrusted {
    /// What it means.
    pub fn text(self, entry: &Entry) -> String {
        let path = entry.path.display();
        match self {
            Untrusted::Owner => format!("{path} belongs to uid {}", entry.uid),
            Untrusted::Writable => {
                format!("{path} can be written by others (mode {:04o})", entry.mode)
            }
            Untrusted::Shared => {
                format!("others can add files to {path} (mode {:04o})", entry.mode)
            }
        }
    }

    /// What to run.
    pub fn remedy(self, entry: &Entry) -> String {
        let path = quoted(&entry.path);
        match self {
            Untrusted::Owner if entry.kind == EntryKind::Link => {
                format!("run `chown -h root {path}`")
            }
            Untrusted::Owner if entry.mode & 0o022 != 0 => {
                format!("run `chown root {path} && chmod go-w {path}`")
            }
            Untrusted::Owner => format!("run `chown root {path}`"),
            Untrusted::Writable => format!("run `chmod go-w {path}`"),
            Untrusted::Shared => format!(
                "run `chmod go-w {path}`; if it is meant for others too, use another directory"
            ),
        }
    }
}

/// What somebody wants to do with a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Want {
    /// Read it; of a directory, its names.
    Read = 0o4,
    /// Make and remove files in a directory.
    Change = 0o3,
    /// Go through a directory.
    Enter = 0o1,
    /// Read and write it, as one does with a device.
    Use = 0o6,
}

/// Whether the mode bits let a user do it (path_resolution(7)).
pub fn may(account: &Account, entry: &Entry, want: Want) -> bool {
    let shift = match entry {
        _ if account.uid == 0 => return true,
        _ if entry.uid == account.uid => 6,
        _ if account.has_group(entry.gid) => 3,
        _ => 0,
    };
    entry.mode >> shift & want as u32 == want as u32
}

/// The first thing on the way to a file that keeps a user from reading it.
pub fn obstacle<'a>(account: &Account, way: &'a [Entry]) -> Option<&'a Entry> {
    way.iter().find(|entry| match entry.kind {
        EntryKind::Directory => !may(account, entry, Want::Enter),
        EntryKind::Link => false,
        _ => !may(account, entry, Want::Read),
    })
}

/// A path as a shell takes it: quoted where it has to be.
pub fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+@:,=".contains(c);
    match text.chars().all(plain) {
        true => text,
        false => format!("'{}'", text.replace('\'', r"'\''")),
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    pub fn entry(path: &str, kind: EntryKind, uid: u32, gid: u32, mode: u32) -> Entry {
        Entry {
            path: path.into(),
            kind,
            uid,
            gid,
            mode,
        }
    }

    #[test]
    fn only_trusted_owners_may_be_able_to_write() {
        let file = |uid, mode| entry("/f", EntryKind::File, uid, 0, mode);
        let dir = |uid, mode| entry("/d", EntryKind::Directory, uid, 0, mode);
        assert_eq!(untrusted(&file(0, 0o644), &[0]), None);
        assert_eq!(untrusted(&dir(0, 0o1777), &[0]), None);
        assert_eq!(untrusted(&file(990, 0o644), &[0, 990]), None);
        assert_eq!(untrusted(&file(990, 0o644), &[0]), Some(Untrusted::Owner));
        assert_eq!(untrusted(&file(0, 0o664), &[0]), Some(Untrusted::Writable));
        assert_eq!(untrusted(&dir(0, 0o757), &[0]), Some(Untrusted::Writable));
        let link = |uid| entry("/l", EntryKind::Link, uid, 0, 0o777);
        assert_eq!(untrusted(&link(0), &[0]), None);
        assert_eq!(untrusted(&link(990), &[0]), Some(Untrusted::Owner));
        let remedy = Untrusted::Owner.remedy(&link(990));
        assert_eq!(remedy, "run `chown -h root /l`");
        for (mode, why) in [
            (0o755, None),
            (0o1755, None),
            (0o1777, Some(Untrusted::Shared)),
            (0o1775, Some(Untrusted::Shared)),
            (0o777, Some(Untrusted::Writable)),
        ] {
            assert_eq!(untrusted_list(&dir(0, mode), &[0]), why, "{mode:o}");
        }
        // The sticky bit of a file means nothing.
        assert_eq!(untrusted(&file(0, 0o1646), &[0]), Some(Untrusted::Writable));
    }

    #[test]
    fn the_owner_bits_hold_for_the_owner_even_where_the_others_would_allow_more() {
        let account = Account {
            name: "a".into(),
            uid: 990,
            gid: 990,
            groups: vec![990, 995],
            added: Vec::new(),
        };
        let file = |uid, gid, mode| entry("/f", EntryKind::File, uid, gid, mode);
        for (file, reads) in [
            (file(990, 0, 0o400), true),
            (file(990, 0, 0o044), false),
            (file(0, 995, 0o640), true),
            (file(0, 995, 0o604), false),
            (file(0, 0, 0o640), false),
            (file(0, 0, 0o644), true),
        ] {
            assert_eq!(may(&account, &file, Want::Read), reads, "{file:?}");
        }
        let way = [
            entry("/", EntryKind::Directory, 0, 0, 0o755),
            entry("/l", EntryKind::Link, 0, 0, 0o700),
            entry("/d", EntryKind::Directory, 0, 0, 0o750),
            file(0, 0, 0o644),
        ];
        assert_eq!(obstacle(&account, &way), Some(&way[2]));
    }

    #[test]
    fn a_path_is_quoted_where_a_shell_would_change_it() {
        assert_eq!(quoted(Path::new("/etc/a-b_c.toml")), "/etc/a-b_c.toml");
        assert_eq!(quoted(Path::new("/a b/it's")), r"'/a b/it'\''s'");
    }
}
