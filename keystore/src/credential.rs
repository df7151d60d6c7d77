//! Reads a secret from where the configuration says: a systemd credential, or a file that our user
//! alone can read. Never from an argument or the environment. What the bytes mean is the caller's.

use crate::config::PinSource;
use crate::{Error, Kind};
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use zeroize::Zeroizing;

/// Mode bits that a secret's file may not have: nobody but its owner touches it.
const FILE_FORBIDDEN: u32 = 0o077;

/// The same for a credential. systemd makes them root's with mode 0440 where it gives the unit's
/// user an ACL, and the group bits then show the ACL's mask, not a group (acl(5)).
const CREDENTIAL_FORBIDDEN: u32 = 0o027;

/// What is wanted, and how that is said when it is not there.
pub struct Wanted<'a> {
    /// What it is called: `PIN`.
    pub noun: &'a str,
    /// The key of the section that says where it is: `pin`.
    pub key: &'a str,
    /// The program's unit without the keystore's name: `assertd-keystore-pkcs11`.
    pub unit: &'a str,
    /// The keystore's name.
    pub keystore: &'a str,
    /// Longest secret in bytes; reading ends after one byte more.
    pub len_max: usize,
    /// How root makes the credential, given its name; followed by a restart.
    pub remedy: &'a dyn Fn(&str) -> String,
    /// Keeps a buffer out of swap, as far as that can be; whether it can was said at the start.
    pub lock: fn(&[u8]),
}

/// The bytes, as they are: at most one more than `len_max`. `credentials` is
/// `$CREDENTIALS_DIRECTORY`.
///
/// # Errors
/// `Unavailable` if a file is not there (yet), `Refused` if a credential is not there or others
/// could read either.
pub fn read(
    source: &PinSource,
    credentials: Option<&Path>,
    wanted: &Wanted<'_>,
) -> Result<Secret, Error> {
    let (path, forbidden) = match (source, credentials) {
        (PinSource::File(path), _) => (path.clone(), FILE_FORBIDDEN),
        (PinSource::Credential(name), Some(directory)) => match directory.join(name) {
            path if path.exists() => (path, CREDENTIAL_FORBIDDEN),
            _ => return Err(not_handed_over(name, wanted)),
        },
        (PinSource::Credential(name), None) => {
            let Wanted {
                noun,
                key,
                unit,
                keystore,
                ..
            } = wanted;
            let text = format!(
                "no {noun}: credential `{name}`: CREDENTIALS_DIRECTORY is not set; let systemd run \
                 the keystore ({unit}@{keystore}.socket), or write {key} = {{ file = \"…\" }}"
            );
            return Err(Error::new(Kind::Refused, text));
        }
    };
    let place = format!("{} file {}", wanted.noun, path.display());
    let bytes = read_file(&path, &place, forbidden, wanted)?;
    Ok(Secret { bytes, place })
}

/// A secret, and how to name where it came from in an error.
pub struct Secret {
    /// The bytes.
    pub bytes: Zeroizing<Vec<u8>>,
    /// Such as `PIN file /etc/assertd/pin`.
    pub place: String,
}

/// Waiting is no use: credentials are handed over at the start of a unit alone.
fn not_handed_over(name: &str, wanted: &Wanted<'_>) -> Error {
    let Wanted {
        noun,
        unit,
        keystore,
        ..
    } = wanted;
    let remedy = (wanted.remedy)(name);
    let text = format!(
        "no {noun}: credential `{name}` was not handed over; {remedy}, then `systemctl restart \
         {unit}@{keystore}`"
    );
    Error::new(Kind::Refused, text)
}

fn read_file(
    path: &Path,
    place: &str,
    forbidden: u32,
    wanted: &Wanted<'_>,
) -> Result<Zeroizing<Vec<u8>>, Error> {
    let unreadable = |error: std::io::Error| {
        Error::new(Kind::Unavailable, format!("{place}: cannot be read")).because(error)
    };
    let mut file = File::open(path).map_err(unreadable)?;
    check_file(&file, place, forbidden)?;
    // Full size at once, and cut where it lies: a buffer that grows would leave copies behind.
    let mut buffer = Zeroizing::new(vec![0; wanted.len_max + 1]);
    (wanted.lock)(&buffer);
    let mut len = 0;
    while len < buffer.len() {
        match file.read(&mut buffer[len..]).map_err(unreadable)? {
            0 => break,
            n => len += n,
        }
    }
    buffer.truncate(len);
    Ok(buffer)
}

/// Root's files are ours too, as are systemd's credentials.
fn check_file(file: &File, place: &str, forbidden: u32) -> Result<(), Error> {
    let refuse = |text: &str| Err(Error::new(Kind::Refused, format!("{place}: {text}")));
    let metadata = file.metadata().map_err(|error| {
        Error::new(Kind::Unavailable, format!("{place}: cannot be read")).because(error)
    })?;
    let own = nix::unistd::geteuid().as_raw();
    if !metadata.is_file() {
        refuse("is no regular file")
    } else if metadata.uid() != 0 && metadata.uid() != own {
        refuse("belongs to another user; chown it to root")
    } else if metadata.mode() & forbidden != 0 {
        refuse("can be read or changed by others; chmod it to 0400")
    } else {
        Ok(())
    }
}
