//! Sections and callers as the oracle and the generator see them: plain words. Sections become the
//! text an administrator would write, callers what would have been attested. Nothing here decides.

use super::super::*;
use crate::config::Config;
use crate::peer::Proof;
use crate::workload::{Groups, Program, Session};

/// One table of `match`, `unless` or `shadow`.
#[derive(Clone, Debug, Default)]
pub struct Conditions {
    pub unit: Option<&'static str>,
    pub slice: Option<&'static str>,
    pub user_unit: Option<&'static str>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    /// With its number.
    pub supplementary_group: Option<(String, u32)>,
    pub exe: Option<&'static str>,
    /// The texts whose digests are allowed.
    pub exe_sha256: Vec<&'static str>,
    pub container: Option<bool>,
    pub interactive: Option<bool>,
}

#[derive(Clone, Debug, Default)]
pub struct Rule {
    pub name: String,
    pub matches: Conditions,
    pub unless: Vec<Conditions>,
    pub shadow: Option<Conditions>,
    /// As written, and in seconds since 1970.
    pub expires: Option<(&'static str, u64)>,
    pub allow_pid_fallback: bool,
    /// With its profile and lifetime, if one is written.
    pub targets: Vec<(&'static str, Profile, Option<u32>)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    Rfc7523,
    AwsOidc,
}

/// A process, as an administrator would describe it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    pub place: Place,
    pub uid: u32,
    pub gid: u32,
    pub groups: Vec<u32>,
    pub container: bool,
    pub session: Session,
    /// Where it lies, if that is known, and its text; or nothing, if nobody could read it.
    pub program: Result<(Option<&'static str>, &'static str), &'static str>,
    pub proof: Proof,
}

/// Where it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In no unit, and in no slice of systemd's.
    Nowhere(Option<&'static str>),
    /// In a unit below these slices, with cgroups of the unit's own below.
    Unit(&'static [&'static str], &'static str, &'static str),
    /// In a unit of this user's own manager.
    UserUnit(u32, &'static str),
}

impl Place {
    pub fn cgroup(&self) -> Option<String> {
        match self {
            Place::Nowhere(path) => path.map(str::to_owned),
            Place::Unit(slices, unit, below) => {
                Some(format!("/{}/{unit}{below}", slices.join("/")))
            }
            Place::UserUnit(uid, unit) => Some(format!(
                "/user.slice/user-{uid}.slice/user@{uid}.service/app.slice/{unit}"
            )),
        }
    }
}

impl Caller {
    pub fn workload(&self) -> Workload {
        let (uid, gid) = (self.uid, self.gid);
        let cgroup = self.place.cgroup();
        let mut workload =
            Workload::for_test(uid, gid, cgroup.as_deref(), self.container, self.proof);
        workload.set_groups(Groups::Are(self.groups.clone()));
        workload.set_session(self.session.clone());
        workload.set_program(match self.program {
            Ok((path, text)) => Program::Is {
                path: path.map(str::to_owned),
                sha256: digest(text),
            },
            Err("") => Program::Unread,
            Err(why) => Program::NotAttestable(why.to_owned()),
        });
        workload
    }
}

pub fn digest(text: &str) -> crate::audit::Sha256 {
    crate::audit::Sha256::of(text.as_bytes())
}

const HEAD: &str = r#"
[keystore.hsm]
backend = "pkcs11"
module = "/m.so"
token = { label = "t" }
pin = { credential = "p" }

[issuer.prod]
url = "https://id.example"
subjects = ["s"]
keystore = "hsm"
alg = "RS256"
"#;

/// A configuration of these sections.
pub fn text(rules: &[Rule]) -> String {
    let mut text = HEAD.to_owned();
    for rule in rules {
        text += &rule.text();
    }
    text
}

/// What the product makes of that text.
pub fn policy(rules: &[Rule]) -> Policy {
    use std::io::Write;
    let text = text(rules);
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    let config = Config::load(file.path()).unwrap_or_else(|error| panic!("{error}\n{text}"));
    Policy::new(config.workloads)
}

impl Rule {
    fn text(&self) -> String {
        let name = &self.name;
        let mut text = format!("[workload.{name}]\nmatch = {}\n", self.matches.text());
        let unless: Vec<String> = self.unless.iter().map(Conditions::text).collect();
        match &unless[..] {
            [] => {}
            [one] => text += &format!("unless = {one}\n"),
            many => text += &format!("unless = [{}]\n", many.join(", ")),
        }
        if let Some(shadow) = &self.shadow {
            text += &format!("shadow = {}\n", shadow.text());
        }
        if let Some((expires, _)) = self.expires {
            text += &format!("expires = {expires}\n");
        }
        if self.allow_pid_fallback {
            text += "allow_pid_fallback = true\n";
        }
        for (target, profile, lifetime) in &self.targets {
            text += &format!("[workload.{name}.target.{target}]\n");
            text += match profile {
                Profile::Rfc7523 => {
                    "profile = \"rfc7523\"\nauthorization_server = \"a\"\nclient_id = \"c\"\n"
                }
                Profile::AwsOidc => {
                    "profile = \"aws-oidc\"\nissuer = \"prod\"\nsubject = \"s\"\nshared = true\n\
                     audience = \"sts.amazonaws.com\"\n"
                }
            };
            if let Some(lifetime) = lifetime {
                text += &format!("lifetime = {lifetime}\n");
            }
        }
        text
    }
}

impl Conditions {
    fn text(&self) -> String {
        let mut parts = Vec::new();
        let group = self.supplementary_group.as_ref();
        let texts = [
            ("unit", self.unit),
            ("slice", self.slice),
            ("user_unit", self.user_unit),
            ("supplementary_group", group.map(|(name, _)| name.as_str())),
            ("exe", self.exe),
        ];
        for (key, text) in texts {
            parts.extend(text.map(|text| format!("{key} = \"{text}\"")));
        }
        parts.extend(self.uid.map(|uid| format!("uid = {uid}")));
        parts.extend(self.gid.map(|gid| format!("gid = {gid}")));
        let digests: Vec<_> = self.exe_sha256.iter().map(|text| digest(text)).collect();
        match &digests[..] {
            [] => {}
            [one] => parts.push(format!("exe_sha256 = \"{one}\"")),
            many => {
                let many: Vec<String> = many.iter().map(|one| format!("\"{one}\"")).collect();
                parts.push(format!("exe_sha256 = [{}]", many.join(", ")));
            }
        }
        parts.extend(self.container.map(|is| format!("container = {is}")));
        parts.extend(self.interactive.map(|is| format!("interactive = {is}")));
        format!("{{ {} }}", parts.join(", "))
    }
}
