//! The directories that are the broker's alone, as a keystore reads them out of the configuration
//! that both share: none of them may become readable for its module. Knows no other key of the
//! broker's.

use serde::Deserialize;
use std::path::PathBuf;

/// Where the broker's state is if the configuration does not say.
pub const STATE_DIR: &str = "/var/lib/assertd";

/// `[server]`
#[derive(Default, Deserialize)]
pub(super) struct Server {
    state_dir: Option<PathBuf>,
}

/// `[audit]`
#[derive(Default, Deserialize)]
pub(super) struct Audit {
    dir: Option<PathBuf>,
}

/// State and audit log.
pub(super) fn directories(server: Server, audit: Audit) -> Vec<PathBuf> {
    let state = server.state_dir.unwrap_or(STATE_DIR.into());
    std::iter::once(state).chain(audit.dir).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn the_brokers_directories_are_those_it_uses() {
        let standard = directories(Server::default(), Audit::default());
        assert_eq!(standard, [Path::new(STATE_DIR)]);
        let server = toml::from_str("runtime_dir = \"/run/a\"\nstate_dir = \"/srv/state\"\n");
        let audit = toml::from_str("dir = \"/srv/log\"\nsegment_bytes = 1\n");
        let expected = [Path::new("/srv/state"), Path::new("/srv/log")];
        assert_eq!(directories(server.unwrap(), audit.unwrap()), expected);
    }
}
