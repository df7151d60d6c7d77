//! A keystore's process as a child of the broker, where no unit runs it: what it is started with, and
//! what its end means for the keystore. How it is kept running is [`crate::child`]'s.

use super::Keystore;
use crate::child::{self, beside_us};
use crate::config::Config;
use crate::listen;
use keystore::config::Section;
use keystore::{Error, Kind};
use std::io::PipeReader;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

/// What it takes to start one.
pub struct Recipe {
    subject: String,
    program: PathBuf,
    config: PathBuf,
    name: String,
    state_dir: PathBuf,
    listener: UnixListener,
    keystore: Arc<Keystore>,
}

impl Recipe {
    /// Finds the program and binds the socket. All sockets are bound before any child is started:
    /// binding sets the umask for a moment, and a child would inherit it.
    ///
    /// # Errors
    /// If the socket cannot be made or the program is not beside ours.
    pub fn prepare(
        config: &Config,
        section: &Section,
        keystore: &Arc<Keystore>,
    ) -> Result<Recipe, String> {
        let name = keystore.name().to_owned();
        let socket = config.keystore_socket(&name, section);
        Ok(Recipe {
            subject: format!("keystore {name}"),
            program: beside_us(section.program())?,
            config: config.path.clone(),
            state_dir: config.server.state_dir.join("keystore").join(&name),
            listener: listen::bind(&socket, listen::Access::Owner)?,
            name,
            keystore: keystore.clone(),
        })
    }
}

impl child::Recipe for Recipe {
    fn subject(&self) -> &str {
        &self.subject
    }

    fn program(&self) -> &Path {
        &self.program
    }

    fn listener(&self) -> &UnixListener {
        &self.listener
    }

    fn arguments(&self, command: &mut Command) {
        command.arg("--config").arg(&self.config);
        command.args(["--name", &self.name]);
        command.arg("--state-dir").arg(&self.state_dir);
    }

    /// At once: who asks is not to wait for its token to be opened.
    fn wanted(&self, _stopping: &PipeReader) {}

    fn uses(&self) -> u64 {
        self.keystore.minted()
    }

    fn has_ended(&self) {
        self.keystore.note_restart();
    }

    fn is_absent(&self, why: String) {
        let error = Error::new(Kind::Unavailable, why);
        self.keystore.unreachable(&error);
    }
}
