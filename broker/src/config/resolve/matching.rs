//! `match`, `unless` and `shadow`: from what is written to selectors, users and groups as numbers.

use super::super::file::MatchSection;
use super::local::{self, Database};
use super::*;
use crate::selector::{Pattern, Selector};
use nix::errno::Errno;
use nix::unistd::{Group, User};

/// What selectors are for, which decides what they may be.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// All must hold.
    Match,
    /// Together they exclude.
    Unless,
    /// Recorded alone.
    Shadow,
}

/// Who says which number a user or a group has.
#[derive(Clone, Copy)]
pub enum NameService<'a> {
    /// This host's, which may be a server far away.
    Host,
    /// A file, of a host that this one need not be.
    Given(&'a Facts),
}

/// A number, that there is none, or why nobody can say.
type Found = std::result::Result<Option<u32>, Errno>;

/// Users and groups that were looked up: ten thousand sections may name the same few.
pub struct Accounts<'a> {
    names: NameService<'a>,
    /// What this host's own files say, once somebody has asked.
    local_users: OnceCell<HashMap<String, u32>>,
    local_groups: OnceCell<HashMap<String, u32>>,
    users: HashMap<String, Found>,
    groups: HashMap<String, Found>,
}

impl<'a> Accounts<'a> {
    pub fn of(names: NameService<'a>) -> Accounts<'a> {
        Accounts {
            names,
            local_users: OnceCell::new(),
            local_groups: OnceCell::new(),
            users: HashMap::new(),
            groups: HashMap::new(),
        }
    }

    pub fn user(&mut self, file: &File, name: &Spanned<String>) -> Result<u32> {
        let (text, names) = (name.as_ref(), self.names);
        let look_up = || match names {
            NameService::Host => {
                let local = self.local_users.get_or_init(|| local::ids(Database::Users));
                if let Some(uid) = local.get(text) {
                    return Ok(Some(*uid));
                }
                let user = User::from_name(text).or_else(nothing_there)?;
                Ok(user.map(|user| user.uid.as_raw()))
            }
            NameService::Given(facts) => Ok(facts.users.get(text).copied()),
        };
        let found = *self.users.entry(text.clone()).or_insert_with(look_up);
        match (found, names) {
            (Ok(Some(uid)), _) => Ok(uid),
            (Ok(None), NameService::Host) => not_here(file, "user", name),
            (Ok(None), NameService::Given(facts)) => not_given(file, "user", name, &facts.users),
            (Err(errno), _) => not_known(file, "user", name, errno),
        }
    }

    fn group(&mut self, file: &File, name: &Spanned<String>) -> Result<u32> {
        let (text, names) = (name.as_ref(), self.names);
        let look_up = || match names {
            NameService::Host => {
                let local = self
                    .local_groups
                    .get_or_init(|| local::ids(Database::Groups));
                if let Some(gid) = local.get(text) {
                    return Ok(Some(*gid));
                }
                let group = Group::from_name(text).or_else(nothing_there)?;
                Ok(group.map(|group| group.gid.as_raw()))
            }
            NameService::Given(facts) => Ok(facts.groups.get(text).copied()),
        };
        let found = *self.groups.entry(text.clone()).or_insert_with(look_up);
        match (found, names) {
            (Ok(Some(gid)), _) => Ok(gid),
            (Ok(None), NameService::Host) => not_here(file, "group", name),
            (Ok(None), NameService::Given(facts)) => not_given(file, "group", name, &facts.groups),
            (Err(errno), _) => not_known(file, "group", name, errno),
        }
    }
}

/// What a name service may say of a name that it does not have (getpwnam(3), ERRORS).
fn nothing_there<T>(errno: Errno) -> std::result::Result<Option<T>, Errno> {
    match errno {
        Errno::ENOENT | Errno::ESRCH | Errno::EBADF | Errno::EPERM => Ok(None),
        other => Err(other),
    }
}

/// A name that nobody can look up now: nothing is wrong with the file.
fn not_known<T>(file: &File, what: &str, name: &Spanned<String>, errno: Errno) -> Result<T> {
    let (text, why) = (name.as_ref(), errno.desc());
    let message = format!("whether there is a {what} `{text}` cannot be asked now ({why})");
    let help = Some("`getent` must find it; try again then".to_owned());
    Err(Diagnostic::at(
        file.path,
        file.text,
        name.span(),
        message,
        help,
    ))
}

/// A name that this host does not know.
fn not_here<T>(file: &File, what: &str, name: &Spanned<String>) -> Result<T> {
    let message = format!("this host has no {what} `{}`", name.as_ref());
    let help = format!("correct it, or make the {what} first (sysusers.d, {what}add)");
    Err(Diagnostic::at(
        file.path,
        file.text,
        name.span(),
        message,
        Some(help),
    ))
}

/// A name that the host's facts do not have, with the nearest one that they have.
fn not_given<T>(
    file: &File,
    what: &str,
    name: &Spanned<String>,
    known: &BTreeMap<String, u32>,
) -> Result<T> {
    let text = name.as_ref();
    let names: Vec<&str> = known.keys().map(String::as_str).collect();
    // A host has dozens of them, so that a list would be no help.
    let nearest = Some(suggest(text, &names)).filter(|help| help.starts_with("did you mean"));
    let add = format!("add it to [{what}s] of the host facts");
    let help = nearest.map_or(add, |nearest| nearest);
    let message = format!("the host facts have no {what} `{text}`");
    Err(Diagnostic::at(
        file.path,
        file.text,
        name.span(),
        message,
        Some(help),
    ))
}

/// The selectors of one table.
pub fn selectors(
    file: &File,
    accounts: &mut Accounts<'_>,
    section: &Spanned<MatchSection>,
    role: Role,
) -> Result<Vec<Selector>> {
    let given = section.as_ref();
    let mut selectors = Vec::new();
    if let Some(unit) = &given.unit {
        selectors.push(Selector::Unit(unit_pattern(file, unit)?));
    }
    if let Some(slice) = &given.slice {
        if !slice.as_ref().ends_with(".slice") {
            let message = "a slice's name ends in .slice, such as payments.slice";
            return file.error(slice.span(), message);
        }
        selectors.push(Selector::Slice(slice.as_ref().clone()));
    }
    if let Some(unit) = &given.user_unit {
        let pattern = unit_pattern(file, unit)?;
        if pattern.is_path() {
            let message = "name a user's unit by its name: its path is chosen by the user";
            return file.error(unit.span(), message);
        }
        selectors.push(Selector::UserUnit(pattern));
    }
    selectors.extend(user(file, accounts, given)?.map(Selector::User));
    selectors.extend(group(file, accounts, given)?.map(Selector::Group));
    if let Some(name) = &given.supplementary_group {
        selectors.push(Selector::SupplementaryGroup(accounts.group(file, name)?));
    }
    selectors.extend(program(file, given)?);
    if let Some(container) = &given.container {
        selectors.push(Selector::Container(*container.as_ref()));
    } else if role == Role::Match {
        selectors.push(Selector::Container(false)); // a host's process, if nothing else is said
    }
    if let Some(interactive) = &given.interactive {
        selectors.push(Selector::Interactive(*interactive.as_ref()));
    }
    enough(file, section, role)?;
    Ok(selectors)
}

/// Whether what is given says enough for what it is for.
fn enough(file: &File, section: &Spanned<MatchSection>, role: Role) -> Result<()> {
    let given = section.as_ref();
    let has_user = given.uid.is_some() || given.user.is_some();
    let span = section.span();
    if let Some(unit) = given
        .user_unit
        .as_ref()
        .filter(|_| role == Role::Match && !has_user)
    {
        let message = "`user_unit` needs `user` or `uid` beside it: whose unit it is";
        return file.error(unit.span(), message);
    }
    if given.exe_sha256.as_ref().is_some_and(|it| it.0.is_empty()) {
        let message = "`exe_sha256` lists no digest, which would let every executable in: write one, \
                       or remove the key";
        return file.error(span, message);
    }
    let is_empty = given.is_empty();
    match role {
        Role::Match if given.unit.is_none() && given.slice.is_none() && !has_user => file.error(
            span,
            "a match needs at least `unit`, `slice`, `user` or `uid`: without, it is about processes of \
             anybody",
        ),
        Role::Unless | Role::Shadow if is_empty => {
            let word = match role {
                Role::Shadow => "shadow",
                Role::Match | Role::Unless => "unless",
            };
            let message = format!("`{word}` says nothing: give it a selector, or leave it out");
            file.error(span, message)
        }
        Role::Shadow => {
            let enforced = [
                ("unit", given.unit.as_ref().map(Spanned::span)),
                ("user_unit", given.user_unit.as_ref().map(Spanned::span)),
                ("uid", given.uid.as_ref().map(Spanned::span)),
                ("user", given.user.as_ref().map(Spanned::span)),
            ];
            for (key, span) in enforced {
                if let Some(span) = span {
                    let message = format!("`{key}` is always enforced: move it to `match`");
                    return file.error(span, message);
                }
            }
            Ok(())
        }
        Role::Match | Role::Unless => Ok(()),
    }
}

/// A pattern of units, by name or by path.
pub fn unit_pattern(file: &File, unit: &Spanned<String>) -> Result<Pattern> {
    Pattern::of_units(unit.as_ref()).or_else(|error| file.error(unit.span(), error.to_string()))
}

/// A name with one `*` at most.
pub fn pattern(file: &File, text: &Spanned<String>) -> Result<Pattern> {
    Pattern::new(text.as_ref()).or_else(|error| file.error(text.span(), error.to_string()))
}

fn user(file: &File, accounts: &mut Accounts<'_>, given: &MatchSection) -> Result<Option<u32>> {
    match (&given.uid, &given.user) {
        (Some(uid), None) => Ok(Some(*uid.as_ref())),
        (None, Some(user)) => accounts.user(file, user).map(Some),
        (None, None) => Ok(None),
        (Some(uid), Some(_)) => {
            file.error(uid.span(), "give `uid` or `user`, not both: remove one")
        }
    }
}

fn group(file: &File, accounts: &mut Accounts<'_>, given: &MatchSection) -> Result<Option<u32>> {
    match (&given.gid, &given.group) {
        (Some(gid), None) => Ok(Some(*gid.as_ref())),
        (None, Some(group)) => accounts.group(file, group).map(Some),
        (None, None) => Ok(None),
        (Some(gid), Some(_)) => {
            file.error(gid.span(), "give `gid` or `group`, not both: remove one")
        }
    }
}

fn program(file: &File, given: &MatchSection) -> Result<Vec<Selector>> {
    let mut selectors = Vec::new();
    if let Some(exe) = &given.exe {
        if !exe.as_ref().starts_with('/') {
            let message =
                "an executable's path begins with `/`, as `readlink /proc/PID/exe` shows it";
            return file.error(exe.span(), message);
        }
        let mut components = exe.as_ref()[1..].split('/');
        if components.any(|it| matches!(it, "" | "." | "..") || it.contains('*')) {
            let message = "is compared with the path that the kernel shows: write it without `*`, `//`, \
                           `.` and `..`";
            return file.error(exe.span(), message);
        }
        selectors.push(Selector::Executable(exe.as_ref().clone()));
    }
    let mut digests = Vec::new();
    for digest in given.exe_sha256.iter().flat_map(|given| &given.0) {
        match Sha256::from_hex(digest.as_ref()) {
            Some(sha256) => digests.push(sha256),
            None => {
                let message = "a SHA-256 is 64 hexadecimal digits, as sha256sum prints them";
                return file.error(digest.span(), message);
            }
        }
    }
    if !digests.is_empty() {
        selectors.push(Selector::Digest(digests));
    }
    Ok(selectors)
}

impl MatchSection {
    fn is_empty(&self) -> bool {
        let MatchSection {
            unit,
            slice,
            user_unit,
            uid,
            user,
            gid,
            group,
            supplementary_group,
            exe,
            exe_sha256,
            container,
            interactive,
        } = self;
        let texts = [
            unit,
            slice,
            user_unit,
            user,
            group,
            supplementary_group,
            exe,
        ];
        texts.iter().all(|text| text.is_none())
            && uid.is_none()
            && gid.is_none()
            && exe_sha256.is_none()
            && container.is_none()
            && interactive.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_service_that_does_not_answer_is_no_mistake_in_the_file() {
        for errno in [Errno::ENOENT, Errno::ESRCH, Errno::EBADF, Errno::EPERM] {
            assert_eq!(nothing_there::<u32>(errno), Ok(None), "{errno}");
        }
        let failed = nothing_there::<u32>(Errno::ECONNREFUSED);
        assert_eq!(failed, Err(Errno::ECONNREFUSED));
        let source = Source {
            path: "a.toml".into(),
            text: "user = \"bob\"\n".into(),
        };
        let name = Spanned::new(7..12, "bob".to_owned());
        let told = not_known::<u32>(&File::of(&source), "user", &name, Errno::ECONNREFUSED);
        assert_eq!(
            told.unwrap_err().to_string(),
            "a.toml:1:8: whether there is a user `bob` cannot be asked now (Connection refused)\n    \
             1 | user = \"bob\"\n      |        ^~~~~ `getent` must find it; try again then"
        );
    }
}
