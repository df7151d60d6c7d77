//! `assertctl host-facts`: what this host would answer when a configuration is checked, as a file.
//! Only looks; reads nothing secret, and needs no right. Where systemd runs it is asked beside its
//! units' files, else they are read alone.

mod accounts;
mod text;
mod units;

use super::CONFIG;
use super::args::{Args, Format};
use super::failure::{Exit, Failure};
use super::init::modules;
use super::out::Out;
use crate::config::{Config, FACTS_FORMAT, Facts};
use crate::peer::{self, Proof};
use crate::{sys, witness};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Where assertd's sockets are unless a configuration says otherwise.
const RUNTIME_DIR: &str = "/run/assertd";

/// Prints them.
pub fn run(args: &Args, out: &mut Out) -> Result<Exit, Failure> {
    let path = args.config.as_deref().unwrap_or(Path::new(CONFIG));
    let facts = look(Config::load(path).ok().as_ref());
    if args.format == Format::Json {
        out.json(&facts)?;
        return Ok(Exit::Done);
    }
    out.line(
        "# What this host says of itself, for `assertctl config check --host-facts FILE`: assertctl(1),\n\
         # HOST FACTS. Users of a directory (LDAP, AD) may be missing: add them below [users].",
    );
    out.line(&text::text(&facts));
    Ok(Exit::Done)
}

/// Looks. The configuration, if there is one that can be read, names places that nobody else does.
fn look(config: Option<&Config>) -> Facts {
    let runtime_dir = config.map_or(Path::new(RUNTIME_DIR), |config| &config.server.runtime_dir);
    let keystores = || {
        config
            .into_iter()
            .flat_map(|config| config.keystores.values())
    };
    let mut modules = modules::paths();
    modules.extend(
        keystores()
            .filter_map(|it| it.module.clone())
            .filter(|path| path.is_file()),
    );
    let mut sockets = sockets(runtime_dir);
    sockets.extend(
        keystores()
            .filter_map(|it| it.socket.clone())
            .filter(|path| path.exists()),
    );
    let name = sys::hostname();
    Facts {
        format: FACTS_FORMAT,
        host: (!name.is_empty()).then_some(name),
        peer_pidfd: Some(peer::kernel_proof() == Proof::Pidfd),
        witness: Some(runtime_dir.join(witness::SOCKET).exists()),
        modules: Some(modules.into_iter().collect()),
        sockets: Some(sockets.into_iter().collect()),
        users: accounts::look("passwd", "/etc/passwd"),
        groups: accounts::look("group", "/etc/group"),
        units: Some(units::look()),
    }
}

/// Sockets of keystores' units.
fn sockets(runtime_dir: &Path) -> BTreeSet<PathBuf> {
    let entries = std::fs::read_dir(runtime_dir)
        .into_iter()
        .flatten()
        .flatten();
    let is_keystore = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with("keystore-") && name.ends_with(".sock")
    };
    entries
        .map(|entry| entry.path())
        .filter(is_keystore)
        .collect()
}
