//! What a host would answer, in a file: its users and groups, its units, its kernel. With it a
//! configuration is checked where it is written, without the host it is for.
//!
//! Only what is there is known: a table that a file leaves out says nothing, and nothing is found
//! wrong because of it. Users and groups alone decide whether a configuration loads.

use keystore::config::{Diagnostic, read_text};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The version of the file that is read and written.
pub const FORMAT: u32 = 1;

/// A host's answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Facts {
    /// [`FORMAT`]
    pub format: u32,
    /// Whose they are, for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Whether the kernel has SO_PEERPIDFD.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer_pidfd: Option<bool>,
    /// Whether assertd can have executables read: its witness is there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub witness: Option<bool>,
    /// PKCS#11 modules that are there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub modules: Option<Vec<PathBuf>>,
    /// Keystores' sockets that are there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sockets: Option<Vec<PathBuf>>,
    /// User ids by name.
    #[serde(default)]
    pub users: BTreeMap<String, u32>,
    /// Group ids by name.
    #[serde(default)]
    pub groups: BTreeMap<String, u32>,
    /// Services by name; of a template too (`app@.service`). Without the table nothing is known.
    #[serde(skip_serializing_if = "Option::is_none", rename = "unit")]
    pub units: Option<BTreeMap<String, UnitFacts>>,
}

/// How a service is started. What is left out is not known.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UnitFacts {
    /// `User=`, a name or a number; `root` if the unit does not say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// `Slice=`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slice: Option<String>,
    /// `DynamicUser=`
    #[serde(default, skip_serializing_if = "is_false")]
    pub dynamic_user: bool,
    /// The programs of its `ExecStart=`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exec: Vec<PathBuf>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_false(value: &bool) -> bool {
    !value
}

impl Default for Facts {
    /// Nothing is known.
    fn default() -> Facts {
        Facts {
            format: FORMAT,
            host: None,
            peer_pidfd: None,
            witness: None,
            modules: None,
            sockets: None,
            users: BTreeMap::new(),
            groups: BTreeMap::new(),
            units: None,
        }
    }
}

impl Facts {
    /// Reads a file of them.
    ///
    /// # Errors
    /// It cannot be read, is no such file, or is of a newer assertd.
    pub fn load(path: &Path) -> Result<Facts, Diagnostic> {
        let text = read_text(path)?;
        Facts::parse(path, &text)
    }

    fn parse(path: &Path, text: &str) -> Result<Facts, Diagnostic> {
        // The format first: a newer one may have keys that are unknown here.
        let table: toml::Table =
            toml::from_str(text).map_err(|error| Diagnostic::from_toml(path, text, &error))?;
        let wrong = match table.get("format").and_then(toml::Value::as_integer) {
            Some(format) if format == i64::from(FORMAT) => None,
            Some(format) => Some(format!(
                "is of format {format}, and this assertctl reads {FORMAT}; print it anew by the \
                 `assertctl host-facts` of this version"
            )),
            None => Some(format!(
                "says no `format`: write `format = {FORMAT}`, or print the file by `assertctl \
                 host-facts` on the host"
            )),
        };
        match wrong {
            Some(message) => Err(Diagnostic::file(path, message)),
            None => toml::from_str(text).map_err(|error| Diagnostic::from_toml(path, text, &error)),
        }
    }

    /// The id of a user as a unit names it.
    pub fn uid(&self, user: &str) -> Option<u32> {
        match user.parse() {
            Ok(uid) => Some(uid),
            Err(_) if user == "root" => Some(0),
            Err(_) => self.users.get(user).copied(),
        }
    }

    /// A unit, or the template of which it is an instance.
    pub fn unit(&self, name: &str) -> Option<&UnitFacts> {
        let units = self.units.as_ref()?;
        units.get(name).or_else(|| units.get(&template(name)?))
    }
}

/// `app@.service` of `app@1.service`.
pub fn template(unit: &str) -> Option<String> {
    let (before, after) = unit.split_once('@')?;
    let (_, suffix) = after.rsplit_once('.')?;
    Some(format!("{before}@.{suffix}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<Facts, String> {
        Facts::parse(Path::new("facts.toml"), text).map_err(|error| error.to_string())
    }

    #[test]
    fn a_unit_is_found_by_its_name_or_by_its_template() {
        let text = "format = 1\nusers = { payments = 991 }\n[unit]\n\"app@.service\" = {}\n";
        let facts = parsed(text).unwrap();
        assert!(facts.unit("app@7.service").is_some());
        assert!(facts.unit("app.service").is_none());
        let ids = ["payments", "17", "root", "who"].map(|user| facts.uid(user));
        assert_eq!(ids, [Some(991), Some(17), Some(0), None]);
        assert_eq!(parsed("format = 1"), Ok(Facts::default()));
    }

    #[test]
    fn a_file_of_another_format_is_refused_with_what_to_do() {
        let newer = parsed("format = 2\nmoons = 1").unwrap_err();
        assert!(
            newer.contains("is of format 2, and this assertctl reads 1"),
            "{newer}"
        );
        let none = parsed("[users]\na = 1").unwrap_err();
        assert!(none.contains("write `format = 1`"), "{none}");
        let unknown = parsed("format = 1\nuser = 1").unwrap_err();
        assert!(
            unknown.contains("facts.toml:2:1: unknown key `user`"),
            "{unknown}"
        );
    }
}
