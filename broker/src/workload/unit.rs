//! The unit in a cgroup v2 path. What systemd names and nobody below it can: slices from the top, then
//! the outermost service or scope. Below that the unit's owner names things, and of that only a
//! user's own service manager is looked at, for what its user says of itself.

use super::proc;
use crate::selector::{Pattern, unescaped};

/// The systemd unit a process runs in: the outermost service or scope below its slices. Whatever
/// a delegated service builds below itself is still that unit, and is marked nested.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unit {
    name: String,
    path: String,
    nested: bool,
    /// The unit of the user's own manager, with the user.
    user: Option<(u32, String)>,
    invocation: Option<String>,
}

impl Unit {
    /// The unit in a cgroup v2 path. Slices are skipped from the top; the first other component
    /// is the unit if systemd names units so. Nothing below it matters: a user manager is
    /// `user@1000.service`, so its units never equal a system unit of the same name.
    pub fn of_cgroup(path: &str) -> Option<Unit> {
        let (name, end) = outermost(path)?;
        let user = name
            .strip_prefix("user@")
            .and_then(|name| name.strip_suffix(".service"))
            .and_then(|uid| uid.parse().ok())
            .and_then(|uid| outermost(&path[end..]).map(|(unit, _)| (uid, unit.to_owned())));
        Some(Unit {
            name: name.to_owned(),
            path: path[..end].to_owned(),
            nested: end < path.len(),
            user,
            invocation: None,
        })
    }

    pub(super) fn with_invocation(mut self) -> Unit {
        self.invocation = proc::invocation(&self.name);
        self
    }

    /// `payments.service`
    pub fn name(&self) -> &str {
        &self.name
    }

    /// `/system.slice/payments.service`
    pub fn path(&self) -> &str {
        &self.path
    }

    /// What it is called where a pattern names it: by its path or by its name.
    pub fn as_in(&self, pattern: &Pattern) -> &str {
        match pattern.is_path() {
            true => self.path(),
            false => self.name(),
        }
    }

    /// Whether a pattern is of it.
    pub fn fits(&self, pattern: &Pattern) -> bool {
        pattern.matches(self.as_in(pattern))
    }

    /// The slices above it, from the outermost.
    pub fn slices(&self) -> impl Iterator<Item = &str> {
        let components = self
            .path
            .split('/')
            .filter(|component| !component.is_empty());
        let slices = components.take_while(|component| component.ends_with(".slice"));
        slices.map(unescaped)
    }

    /// Whether the process is in a cgroup below the unit's.
    pub fn nested(&self) -> bool {
        self.nested
    }

    /// If it is a user's service manager: the user, and the unit of it.
    pub(super) fn of_user(&self) -> Option<(u32, &str)> {
        let (uid, unit) = self.user.as_ref()?;
        Some((*uid, unit))
    }

    /// systemd's id of this start of the unit, 32 hexadecimal digits.
    pub fn invocation(&self) -> Option<&str> {
        self.invocation.as_deref()
    }
}

/// The unit of the first component below slices, if systemd names units so, and where that ends.
fn outermost(path: &str) -> Option<(&str, usize)> {
    let mut end = 0;
    for component in path.strip_prefix('/')?.split('/') {
        end += 1 + component.len();
        if component.ends_with(".slice") {
            continue;
        }
        let name = unescaped(component);
        let stem = [".service", ".scope"]
            .iter()
            .find_map(|suffix| name.strip_suffix(suffix))?;
        return (!stem.is_empty()).then_some((name, end));
    }
    None
}
