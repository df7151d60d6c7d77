//! What init writes, word for word. Pure. Whatever comes from a token is escaped: its label may
//! hold anything.

use keystore::config::TokenSelector;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::modules::Reach;
use super::tokens::Environment;

/// A `[keystore.NAME]`, to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keystore {
    /// Its name.
    pub name: String,
    /// Its module.
    pub module: PathBuf,
    /// Its token.
    pub token: TokenSelector,
    /// What the token is, for people.
    pub about: String,
    /// Its PIN.
    pub pin: Pin,
    /// Who starts it.
    pub runs: Runs,
    /// Variables of the module.
    pub environment: Environment,
    /// Directories that the module writes to.
    pub module_state: Vec<PathBuf>,
    /// How the module reaches the token.
    pub reach: Reach,
}

/// Where the PIN is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pin {
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

/// assertd.toml.
pub fn configuration(keystore: &Keystore) -> String {
    let name = &keystore.name;
    format!(
        "# assertd's configuration; assertd.toml(5) explains every key. Written once by `assertctl \
         init`,\n\
         # yours from now on. `assertctl config check` finds mistakes before assertd does.\n\
         # Workloads are in conf.d/*.toml beside this file, one file for each team.\n\n\
         {}\n\
         # [limits]                          # of each workload, unless its section says another\n\
         # workload_rate  = 100              # requests per second\n\
         # workload_burst = 200              # requests at once\n\n\
         # Where keys are made and used; they never leave the token.\n\
         # {}\n\
         [keystore.{name}]\n\
         {}\n\
         # This host as an OpenID Connect issuer, for clouds that federate (AWS, …).\n\
         # [issuer.prod]\n\
         # url      = \"https://id.example.com/prod\"\n\
         # subjects = [\"payments\", \"reports-*\"] # what it may ever assert\n\
         # keystore = \"{name}\"\n\
         # alg      = \"RS256\"                # AWS and Entra take nothing else\n",
        server(&keystore.runs),
        one_line(&keystore.about),
        section(keystore),
    )
}

fn server(runs: &Runs) -> String {
    match runs {
        Runs::Unit(_) => "# [server]                          # systemd's units have them here\n\
             # runtime_dir = \"/run/assertd\"      # sockets\n\
             # state_dir   = \"/var/lib/assertd\"  # records of keys, and the audit log below\n"
            .to_owned(),
        Runs::Child(dir) => format!(
            "# Sockets; records of keys, and the audit log below.\n\
             [server]\n\
             runtime_dir = {}\n\
             state_dir   = {}\n",
            quoted_path(dir),
            quoted_path(&dir.join("state")),
        ),
    }
}

/// The lines below `[keystore.NAME]`.
fn section(keystore: &Keystore) -> String {
    let mut lines = vec![
        ("backend", quoted("pkcs11")),
        ("module", quoted_path(&keystore.module)),
        ("token", selector(&keystore.token)),
    ];
    match &keystore.pin {
        Pin::Credential(id, path) => {
            let place = one_line(&path.to_string_lossy());
            let value = format!("{{ credential = {} }}   # encrypted in {place}", quoted(id));
            lines.push(("pin", value));
        }
        Pin::File(path) => lines.push(("pin", format!("{{ file = {} }}", quoted_path(path)))),
    }
    if let Runs::Unit(socket) = &keystore.runs {
        lines.push(("socket", quoted_path(socket)));
    }
    if !keystore.environment.is_empty() {
        let pairs = keystore.environment.iter();
        let pairs: Vec<String> = pairs
            .map(|(name, value)| format!("{} = {}", quoted(name), quoted(value)))
            .collect();
        lines.push(("environment", format!("{{ {} }}", pairs.join(", "))));
    }
    if !keystore.module_state.is_empty() {
        let dirs = keystore.module_state.iter();
        let dirs: Vec<String> = dirs.map(|dir| quoted_path(dir)).collect();
        let value = format!("[{}]   # it may write here", dirs.join(", "));
        lines.push(("module_state", value));
    }
    if keystore.reach == Reach::Network {
        lines.push(("network", "true   # the HSM is reached over TCP".to_owned()));
    }
    let width = lines.iter().map(|(key, _)| key.len()).max().unwrap_or(0);
    let line = |(key, value): &(&str, String)| format!("{key:width$} = {value}\n");
    lines.iter().map(line).collect()
}

/// conf.d/example.toml.disabled.
pub fn example(keystore: &str) -> String {
    format!(
        "# An example of what a team writes. Copy it to NAME.toml: files of other names are not read.\n\
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
mod tests {
    use super::*;
    use crate::config::Config;
    use keystore::config::PinSource;
    use std::fs::OpenOptions;

    fn keystore(label: &str) -> Keystore {
        Keystore {
            name: "hsm".into(),
            module: "/usr/lib/m.so".into(),
            token: TokenSelector {
                label: Some(label.into()),
                serial: Some("4\"2".into()),
            },
            about: format!("Token {label}."),
            pin: Pin::Credential("hsm.pin".into(), "/etc/x/assertd.hsm.pin".into()),
            runs: Runs::Unit("/run/assertd/keystore-hsm.sock".into()),
            environment: Environment::from([("A_B".into(), "/c d".into())]),
            module_state: vec!["/var/lib/m/tokens".into()],
            reach: Reach::Files,
        }
    }

    /// Written to a directory with its example enabled, and loaded as assertd does.
    fn loaded(keystore: &Keystore) -> Config {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("conf.d")).unwrap();
        // The example's user need not exist here.
        let example = example(&keystore.name).replace(", user = \"payments\"", "");
        for (name, text) in [
            ("assertd.toml", configuration(keystore)),
            ("conf.d/example.toml", example),
        ] {
            let mut options = OpenOptions::new();
            let mut file = options
                .create_new(true)
                .write(true)
                .open(dir.path().join(name))
                .unwrap();
            std::io::Write::write_all(&mut file, text.as_bytes()).unwrap();
        }
        Config::load(&dir.path().join("assertd.toml")).unwrap_or_else(|e| panic!("{e}"))
    }

    #[test]
    fn what_is_written_is_what_assertd_reads() {
        for label in [
            "workloads",
            "",
            "a \"b\" \\ c",
            "tab\there",
            "line\nbreak\r\n[keystore.evil]",
            "\u{7f}\u{85}\0",
            "Schlüssel 🔑",
        ] {
            let written = keystore(label);
            let config = loaded(&written);
            assert_eq!(config.keystores.len(), 1, "{label:?}");
            let read = &config.keystores["hsm"];
            assert_eq!(read.module.as_ref(), Some(&written.module));
            assert_eq!(read.token.as_ref(), Some(&written.token));
            assert_eq!(read.pin, Some(PinSource::Credential("hsm.pin".into())));
            let socket = "/run/assertd/keystore-hsm.sock";
            assert_eq!(read.socket.as_deref(), Some(Path::new(socket)));
            assert_eq!(read.environment, written.environment);
            assert_eq!(read.module_state, written.module_state);
            assert!(!read.network);
            assert_eq!(config.workloads[0].targets["bank"].keystore, "hsm");
        }
    }

    #[test]
    fn one_that_assertd_starts_itself_has_everything_in_one_place() {
        let written = Keystore {
            pin: Pin::File("/run/try/hsm.pin".into()),
            runs: Runs::Child("/run/try".into()),
            environment: Environment::new(),
            module_state: Vec::new(),
            reach: Reach::Network,
            ..keystore("try")
        };
        let config = loaded(&written);
        assert_eq!(config.server.runtime_dir, Path::new("/run/try"));
        assert_eq!(config.server.state_dir, Path::new("/run/try/state"));
        let read = &config.keystores["hsm"];
        assert_eq!(read.pin, Some(PinSource::File("/run/try/hsm.pin".into())));
        assert_eq!(read.socket, None);
        assert!(read.network);
    }

    #[test]
    fn lines_fit_a_terminal() {
        let texts = [
            configuration(&keystore("workloads")),
            example("hsm"),
            drop_in(
                "hsm",
                &["/var/lib/softhsm/tokens".into()],
                &BTreeSet::from(["softhsm".to_owned()]),
            ),
        ];
        for line in texts.iter().flat_map(|text| text.lines()) {
            assert!(line.chars().count() <= 100, "{line}");
        }
    }

    #[test]
    fn a_drop_in_names_directories_and_groups() {
        let dirs = ["/var/lib/softhsm/tokens".into()];
        let text = drop_in("hsm", &dirs, &BTreeSet::from(["softhsm".to_owned()]));
        assert!(text.ends_with(
            "[Service]\nReadWritePaths=/var/lib/softhsm/tokens\n\
             NoExecPaths=/var/lib/softhsm/tokens\nSupplementaryGroups=softhsm\n"
        ));
        assert!(!drop_in("hsm", &dirs, &BTreeSet::new()).contains("SupplementaryGroups"));
    }
}
