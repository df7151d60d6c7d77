//! The courier as a child of the broker, where no unit runs it. It reads the same configuration, and is
//! started by the first question: without a `verify_url` or a canary none is ever asked.

use super::SOCKET;
use crate::child::{self, beside_us};
use crate::config::Config;
use crate::listen;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::io::PipeReader;
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;

const PROGRAM: &str = "assertd-courier";

/// What it takes to start it.
pub struct Recipe {
    program: PathBuf,
    config: PathBuf,
    listener: UnixListener,
}

impl Recipe {
    /// Finds the program and binds the socket, before any child is started.
    ///
    /// # Errors
    /// If the socket cannot be made or the program is not beside ours.
    pub fn prepare(config: &Config) -> Result<Recipe, String> {
        let socket = config.server.runtime_dir.join(SOCKET);
        Ok(Recipe {
            program: beside_us(PROGRAM)?,
            config: config.path.clone(),
            listener: listen::bind(&socket, listen::Access::Owner)?,
        })
    }
}

impl child::Recipe for Recipe {
    fn subject(&self) -> &str {
        "courier"
    }

    fn program(&self) -> &Path {
        &self.program
    }

    fn listener(&self) -> &UnixListener {
        &self.listener
    }

    fn arguments(&self, command: &mut Command) {
        command.arg("--config").arg(&self.config);
    }

    fn wanted(&self, stopping: &PipeReader) {
        let readable = |fd| PollFd::new(fd, PollFlags::POLLIN);
        let mut fds = [
            readable(self.listener.as_fd()),
            readable(stopping.as_fd()), // at its end it hangs up
        ];
        // An error, such as a signal's, starts it early, which harms nobody.
        let _ = poll(&mut fds, PollTimeout::NONE);
    }

    /// Nobody is counted: one that ends is started again when it is asked again.
    fn uses(&self) -> u64 {
        0
    }

    fn has_ended(&self) {}

    /// Who asks meanwhile waits in vain, and is told so.
    fn is_absent(&self, _why: String) {}
}
