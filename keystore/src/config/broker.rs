//! The directories that are the broker's alone, as a keystore reads them out of the configuration
//! that both share: none of them may become readable for its module. Knows no other key of the
//! broker's.

use super::read_text;
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// Where the broker keeps its state and its audit log: nothing of that is a keystore's to read. A
/// file that cannot be read or understood has the defaults.
pub fn broker_directories(path: &Path) -> Vec<PathBuf> {
    let text = read_text(path).unwrap_or_default();
    let view: BrokerView = toml::from_str(&text).unwrap_or_default();
    let state = view.server.state_dir.unwrap_or(STATE_DIR.into());
    let audit = view.audit.dir;
    std::iter::once(state).chain(audit).collect()
}

/// Where the broker's state is if the configuration does not say.
pub const STATE_DIR: &str = "/var/lib/assertd";

/// The directories that are the broker's alone.
#[derive(Default, Deserialize)]
struct BrokerView {
    #[serde(default)]
    server: ServerView,
    #[serde(default)]
    audit: AuditView,
}

#[derive(Default, Deserialize)]
struct ServerView {
    state_dir: Option<PathBuf>,
}

#[derive(Default, Deserialize)]
struct AuditView {
    dir: Option<PathBuf>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_brokers_directories_are_those_it_uses() {
        let tmp = tempfile::tempdir().unwrap();
        let path = tmp.path().join("assertd.toml");
        assert_eq!(broker_directories(&path), [Path::new(STATE_DIR)]);
        let text = "[server]\nstate_dir = \"/srv/state\"\n\
                    [audit]\ndir = \"/srv/log\"\nsegment_bytes = 1\n";
        let file = std::fs::OpenOptions::new()
            .create_new(true)
            .write(true)
            .open(&path);
        std::io::Write::write_all(&mut file.unwrap(), text.as_bytes()).unwrap();
        let expected = [Path::new("/srv/state"), Path::new("/srv/log")];
        assert_eq!(broker_directories(&path), expected);
    }
}
