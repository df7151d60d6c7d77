//! `assertctl state accept-rollback`: shows what restored records say, and leaves the word that they are
//! meant beside them. Asks no assertd: it may be one that refuses to start with them.

use super::args::{Args, Consent, Format};
use super::failure::{Exit, Failure};
use super::keyverb::agree;
use super::out::Out;
use crate::keyring::{Copied, accepted};
use assertd_client::api::AcceptedRecords;
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Does it.
pub fn accept_rollback(args: &Args, consent: Consent, out: &mut Out) -> Result<Exit, Failure> {
    let dir = args.load_config()?.server.state_dir;
    let failed = |error: keystore::Error| match error.kind() {
        keystore::Kind::Corrupt => Failure::new(Exit::Refused, error.to_string()),
        _ => Failure::new(Exit::NotPermitted, format!("{error}; run this as root")),
    };
    let copied = Copied::read(&dir).map_err(failed)?;
    let text = accepted::text_for(&dir).map_err(failed)?;
    let (Some(copied), Some(text)) = (copied, text) else {
        let text = format!(
            "{}: holds no records of keys; there is nothing to accept",
            dir.display()
        );
        return Err(Failure::new(Exit::Refused, text));
    };
    let Copied { generation, keys } = copied;
    if args.format == Format::Text {
        out.line(&format!(
            "{}: records of keys, replaced {generation} times. What was revoked, retired or destroyed since \
             is not in them:",
            dir.display()
        ));
        out.table(&keys.iter().map(|row| row.to_vec()).collect::<Vec<_>>());
    }
    agree("take these records for the newest", consent)?;
    let path = dir.join(accepted::FILE);
    write(&path, &text).map_err(|error| {
        let text = format!("{}: {error}; run this as root", path.display());
        Failure::new(Exit::NotPermitted, text)
    })?;
    match args.format {
        Format::Json => out.json(&AcceptedRecords { generation, keys })?,
        Format::Text => out.line(
            "accepted, as they are now; start assertd (or restart it), and revoke again what was revoked",
        ),
    }
    Ok(Exit::Done)
}

/// Replaces what was there; the user of the state directory reads it.
fn write(path: &Path, text: &str) -> std::io::Result<()> {
    let mut file = OpenOptions::new()
        .create(true)
        .write(true)
        .truncate(true)
        .mode(0o644)
        .custom_flags(nix::libc::O_NOFOLLOW)
        .open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}
