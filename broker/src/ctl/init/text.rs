//! What init writes, word for word. Pure. Whatever comes from a token is escaped: its label may
//! hold anything.

use keystore::config::{BackendKind, TCTI, Tcti, TokenSelector};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::modules::Reach;
use super::tokens::Environment;

/// Column of the comments that stand behind a key.
const COMMENT_COLUMN: usize = 39;

/// Where an editor finds what a key may hold (assertd.toml(5), EDITORS).
const SCHEMA: &str = "/usr/share/assertd/assertd.schema.json";

/// A `[keystore.NAME]`, to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keystore {
    /// Its name.
    pub name: String,
    /// What it is, for people.
    pub about: String,
    /// Its PIN, or what the TPM's keys ask for.
    pub secret: Secret,
    /// Who starts it.
    pub runs: Runs,
    /// What kind of token.
    pub backend: Backend,
}

/// What kind of token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Backend {
    /// One of PKCS#11.
    Pkcs11(Token),
    /// A TPM, reached so.
    Tpm(Tcti),
}

/// What a section says of a PKCS#11 token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// Its module.
    pub module: PathBuf,
    /// Which it is.
    pub selector: TokenSelector,
    /// Variables of the module.
    pub environment: Environment,
    /// Directories that the module writes to.
    pub module_state: Vec<PathBuf>,
    /// How the module reaches the token.
    pub reach: Reach,
}

impl Keystore {
    /// Its kind.
    pub fn kind(&self) -> BackendKind {
        match self.backend {
            Backend::Pkcs11(_) => BackendKind::Pkcs11,
            Backend::Tpm(_) => BackendKind::Tpm,
        }
    }

    /// Its socket's unit.
    pub fn socket(&self) -> String {
        self.kind().unit(&self.name, "socket")
    }
}

/// Where its secret is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Secret {
    /// An encrypted credential: its id, and its file.
    Credential(String, PathBuf),
    /// A file that the keystore's user alone can read.
    File(PathBuf),
}

/// Who starts the keystore.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Runs {
    /// Its unit, which listens there.
    Unit(PathBuf),
    /// assertd itself, with everything below this directory.
    Child(PathBuf),
}

/// assertd.toml, with these keystores, of which there is at least one. `spare` is one that could be
/// another: it is written as a comment.
pub fn configuration(keystores: &[&Keystore], spare: Option<&Keystore>) -> String {
    let sections: Vec<String> = keystores
        .iter()
        .map(|keystore| format!("# {}\n{}", one_line(&keystore.about), section(keystore)))
        .collect();
    let name = keystores.first().map_or("", |keystore| &keystore.name);
    format!(
        "#:schema {SCHEMA}\n\
         # assertd's configuration; assertd.toml(5) explains every key. Written once by `assertctl \
         init`,\n\
         # yours from now on. `assertctl config check` finds mistakes before assertd does.\n\
         # Workloads are in conf.d/*.toml beside this file, one file for each team.\n\n\
         {}\n\
         # [limits]                          # of each workload, unless its section says another\n\
         # workload_rate  = 100              # requests per second\n\
         # workload_burst = 200              # requests at once\n\n\
         # Where keys are made and used; they never leave it.\n\
         {}\n\
         {}\
         # This host as an OpenID Connect issuer, for clouds that federate (AWS, …).\n\
         # [issuer.prod]\n\
         # url      = \"https://id.example.com/prod\"\n\
         # subjects = [\"payments\", \"reports-*\"] # what it may ever assert\n\
         # keystore = \"{name}\"\n\
         # alg      = \"RS256\"                # every cloud takes it, Entra nothing else\n",
        server(keystores.first().map(|keystore| &keystore.runs)),
        sections.join("\n"),
        spare.map_or_else(String::new, |spare| commented(spare, name)),
    )
}

/// A keystore that there could be, and how it comes to be.
fn commented(spare: &Keystore, other: &str) -> String {
    let name = &spare.name;
    let lines: String = section(spare)
        .lines()
        .map(|line| format!("# {}\n", line.strip_prefix("# ").unwrap_or(line)))
        .collect();
    format!(
        "# A second keystore, if you take the # from the first three of these lines and run\n\
         # `assertctl init --name {name}`, which makes its secret. Every target then says which one\n\
         # its key is in: keystore = \"{other}\", or \"{name}\".\n\
         # {}\n\
         {lines}\n",
        one_line(&spare.about),
    )
}

fn server(runs: Option<&Runs>) -> String {
    match runs {
        Some(Runs::Unit(_)) | None => {
            "# [server]                          # systemd's units have them here\n\
             # runtime_dir = \"/run/assertd\"      # sockets\n\
             # state_dir   = \"/var/lib/assertd\"  # records of keys, and the audit log below\n"
                .to_owned()
        }
        Some(Runs::Child(dir)) => format!(
            "# Sockets; records of keys, and the audit log below.\n\
             [server]\n\
             runtime_dir = {}\n\
             state_dir   = {}\n",
            quoted_path(dir),
            quoted_path(&dir.join("state")),
        ),
    }
}

/// `[keystore.NAME]` and the lines below it.
pub fn section(keystore: &Keystore) -> String {
    let name = &keystore.name;
    let lines = match &keystore.backend {
        Backend::Pkcs11(token) => aligned(&of_token(keystore, token)),
        Backend::Tpm(tcti) => of_tpm(keystore, tcti),
    };
    format!("[keystore.{name}]\n{lines}")
}

fn of_token(keystore: &Keystore, token: &Token) -> Vec<(&'static str, String)> {
    let mut lines = vec![
        ("backend", quoted("pkcs11")),
        ("module", quoted_path(&token.module)),
        ("token", selector(&token.selector)),
    ];
    match &keystore.secret {
        Secret::Credential(id, path) => {
            let place = one_line(&path.to_string_lossy());
            let value = format!("{{ credential = {} }}   # encrypted in {place}", quoted(id));
            lines.push(("pin", value));
        }
        Secret::File(path) => lines.push(("pin", format!("{{ file = {} }}", quoted_path(path)))),
    }
    if let Runs::Unit(socket) = &keystore.runs {
        lines.push(("socket", quoted_path(socket)));
    }
    if !token.environment.is_empty() {
        let pairs = token.environment.iter();
        let pairs: Vec<String> = pairs
            .map(|(name, value)| format!("{} = {}", quoted(name), quoted(value)))
            .collect();
        lines.push(("environment", format!("{{ {} }}", pairs.join(", "))));
    }
    if !token.module_state.is_empty() {
        let dirs = token.module_state.iter();
        let dirs: Vec<String> = dirs.map(|dir| quoted_path(dir)).collect();
        let value = format!("[{}]   # it may write here", dirs.join(", "));
        lines.push(("module_state", value));
    }
    if token.reach == Reach::Network {
        lines.push(("network", "true   # the HSM is reached over TCP".to_owned()));
    }
    lines
}

/// What is set, then what would be the same if it were.
fn of_tpm(keystore: &Keystore, tcti: &Tcti) -> String {
    let mut set = vec![("backend", quoted("tpm"))];
    let mut defaults = Vec::new();
    if let Runs::Unit(socket) = &keystore.runs {
        set.push(("socket", quoted_path(socket)));
    }
    let reached = ("tcti", quoted(&tcti.to_string()));
    if tcti.to_string() == TCTI {
        defaults.push((reached, "others may use this TPM too"));
    } else {
        set.push(reached);
    }
    match &keystore.secret {
        Secret::Credential(id, _) => {
            let value = format!("{{ credential = {} }}", quoted(id));
            defaults.push((("auth", value), "without it the keys are lost"));
        }
        Secret::File(path) => set.push(("auth", format!("{{ file = {} }}", quoted_path(path)))),
    }
    let sessions = ("sessions", quoted("encrypted"));
    defaults.push((sessions, "or \"password\"; by the kind of TPM"));
    let mut text = aligned(&set);
    for ((key, value), comment) in defaults {
        let line = format!("# {key:8} = {value}");
        text += &format!("{line:COMMENT_COLUMN$} # {comment}\n");
    }
    text
}

fn aligned(lines: &[(&str, String)]) -> String {
    let width = lines.iter().map(|(key, _)| key.len()).max().unwrap_or(0);
    let line = |(key, value): &(&str, String)| format!("{key:width$} = {value}\n");
    lines.iter().map(line).collect()
}

/// conf.d/example.toml.disabled.
pub fn example(keystore: &str) -> String {
    format!(
        "#:schema {SCHEMA}\n\
         # An example of what a team writes. Copy it to NAME.toml: files of other names are not read.\n\
         #   assertctl config check    is it correct, and is it wise?\n\
         #   systemctl reload assertd  brings it into force; a mistake changes nothing\n\
         #   assertctl config diff     which keys would be made?\n\
         #   assertctl apply           makes them\n\
         #   assertctl jwks --target payments/bank     what to register at the authorization server\n\
         [workload.payments]\n\
         owner   = \"payments@example.com\"\n\
         expires = 2030-01-01                     # grants nothing from this day on\n\
         match   = {{ unit = \"payments.service\", user = \"payments\" }}   # all must hold\n\n\
         # The service asks: assertctl assertion --target bank\n\
         [workload.payments.target.bank]\n\
         profile              = \"rfc7523\"         # `assertctl profiles` lists them\n\
         authorization_server = \"https://as.bank.example\"\n\
         client_id            = \"payments-prod\"\n\
         keystore             = \"{keystore}\"\n"
    )
}

/// The keystore's unit lets its module write there.
pub fn drop_in(keystore: &str, dirs: &[PathBuf], groups: &BTreeSet<String>) -> String {
    let mut text = format!(
        "# Where the module keeps its tokens; the same as module_state in [keystore.{keystore}] of\n\
         # assertd.toml. Written by `assertctl init`.\n\
         [Service]\n"
    );
    for dir in dirs {
        // A mount of its own, which the first line makes it, is not below the NoExecPaths=/ of the
        // unit: without the second what the module writes there could be executed.
        let dir = dir.display();
        text += &format!("ReadWritePaths={dir}\nNoExecPaths={dir}\n");
    }
    if !groups.is_empty() {
        let groups: Vec<&str> = groups.iter().map(String::as_str).collect();
        text += &format!("SupplementaryGroups={}\n", groups.join(" "));
    }
    text
}

/// The keystore's unit lets in a node other than the usual one, or adds a group that opens it.
pub fn device_drop_in(keystore: &str, node: Option<&Path>, group: Option<&str>) -> String {
    let mut text = format!(
        "# The TPM of [keystore.{keystore}] in assertd.toml. Written by `assertctl init`.\n\
         [Service]\n"
    );
    if let Some(node) = node {
        let node = node.display();
        text += &format!("BindPaths={node}\nDeviceAllow={node} rw\n");
    }
    if let Some(group) = group {
        text += &format!("SupplementaryGroups={group}\n");
    }
    text
}

fn selector(token: &TokenSelector) -> String {
    let label = token.label.iter().map(|label| ("label", label));
    let serial = token.serial.iter().map(|serial| ("serial", serial));
    let both: Vec<String> = label
        .chain(serial)
        .map(|(key, value)| format!("{key} = {}", quoted(value)))
        .collect();
    format!("{{ {} }}", both.join(", "))
}

fn quoted_path(path: &Path) -> String {
    quoted(&path.to_string_lossy())
}

/// A TOML basic string (TOML v1.0.0, String).
fn quoted(text: &str) -> String {
    let escaped = |c: char| match c {
        '"' | '\\' => format!("\\{c}"),
        c if c.is_control() => format!("\\u{:04X}", u32::from(c)), // all are below U+00A0
        c => c.to_string(),
    };
    format!("\"{}\"", text.chars().map(escaped).collect::<String>())
}

/// Nothing of it can end a comment.
fn one_line(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

#[cfg(test)]
mod tests;
