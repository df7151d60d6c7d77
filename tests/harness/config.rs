//! The text of an assertd.toml, put together. [`crate::Daemon`] adds where sockets and state are.

use crate::token::{self, Keystore};
use std::fmt::{self, Write};

/// Text of a configuration, without its `[server]` section.
#[derive(Clone, Debug, Default)]
pub struct Config {
    text: String,
}

impl Config {
    /// With one keystore, [`token::KEYSTORE`], on this token or TPM.
    pub fn new(token: &impl Keystore) -> Config {
        Config::default().keystore(token::KEYSTORE, token, "")
    }

    /// Adds a keystore; `extra` is more lines of its section.
    pub fn keystore(mut self, name: &str, token: &impl Keystore, extra: &str) -> Config {
        let section = token.section();
        write!(self.text, "[keystore.{name}]\n{section}{extra}\n").unwrap();
        self
    }

    /// Adds a workload of this uid without targets; `extra` is more lines of its section.
    pub fn workload(mut self, name: &str, uid: u32, extra: &str) -> Config {
        write!(
            self.text,
            "[workload.{name}]\nmatch = {{ uid = {uid} }}\n{extra}\n"
        )
        .unwrap();
        self
    }

    /// Adds an `rfc7523` target whose client id is `WORKLOAD-TARGET`; `extra` is more lines.
    pub fn target(self, workload: &str, target: &str, extra: &str) -> Config {
        self.target_at(workload, target, "https://as.bank.example", extra)
    }

    /// Adds an `rfc7523` target at this authorization server.
    pub fn target_at(mut self, workload: &str, target: &str, server: &str, extra: &str) -> Config {
        write!(
            self.text,
            "[workload.{workload}.target.{target}]\nprofile = \"rfc7523\"\n\
             authorization_server = \"{server}\"\nclient_id = \"{workload}-{target}\"\n{extra}\n"
        )
        .unwrap();
        self
    }

    /// Adds whatever else.
    pub fn with(mut self, text: &str) -> Config {
        self.text.push_str(text);
        self.text.push('\n');
        self
    }

    /// The text so far.
    pub fn text(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl AsRef<str> for Config {
    fn as_ref(&self) -> &str {
        &self.text
    }
}
