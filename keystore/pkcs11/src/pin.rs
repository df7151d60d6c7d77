//! Reads the PIN from where the configuration says: a systemd credential, or a file that our user
//! alone can read. Never from an argument or the environment. One line ending is cut off.

use keystore::config::PinSource;
use keystore::{Error, Kind};
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// Longest PIN in bytes; the largest tokens we know of allow 255.
const PIN_LEN_MAX: usize = 1024;

/// Mode bits that a PIN file may not have: nobody but its owner touches it.
const FILE_FORBIDDEN: u32 = 0o077;

/// The same for a credential. systemd makes them root's with mode 0440 where it gives the unit's
/// user an ACL, and the group bits then show the ACL's mask, not a group (acl(5)).
const CREDENTIAL_FORBIDDEN: u32 = 0o027;

/// The PIN of a keystore. `credentials` is `$CREDENTIALS_DIRECTORY`.
///
/// # Errors
/// `Unavailable` if a file is not there (yet), `Refused` if a credential is not there or others
/// could read either, `BadPin` if it is empty or too long.
pub fn read(
    source: &PinSource,
    credentials: Option<&Path>,
    keystore: &str,
) -> Result<Zeroizing<Vec<u8>>, Error> {
    let (path, forbidden) = match (source, credentials) {
        (PinSource::File(path), _) => (path.clone(), FILE_FORBIDDEN),
        (PinSource::Credential(name), Some(directory)) => match directory.join(name) {
            path if path.exists() => (path, CREDENTIAL_FORBIDDEN),
            _ => return Err(no_credential(name, keystore)),
        },
        (PinSource::Credential(name), None) => {
            let text = format!(
                "no PIN: credential `{name}`: CREDENTIALS_DIRECTORY is not set; let systemd run \
                 the keystore (assertd-keystore-pkcs11@{keystore}.socket), or write \
                 pin = {{ file = \"…\" }}"
            );
            return Err(Error::new(Kind::Refused, text));
        }
    };
    let pin = read_file(&path, forbidden)?;
    match pin.len() {
        0 => Err(error(Kind::BadPin, &path, "is empty")),
        1..=PIN_LEN_MAX => Ok(pin),
        _ => Err(error(Kind::BadPin, &path, "is longer than any PIN")),
    }
}

/// Waiting is no use: credentials are handed over at the start of a unit alone.
fn no_credential(name: &str, keystore: &str) -> Error {
    let unit = format!("assertd-keystore-pkcs11@{keystore}");
    let text = format!(
        "no PIN: credential `{name}` was not handed over; as root run `assertctl init \
         --name {keystore}`, which asks for it (or `systemd-creds encrypt --with-key=host \
         --name={name} - /etc/credstore.encrypted/assertd.{name}`), then `systemctl restart {unit}`"
    );
    Error::new(Kind::Refused, text)
}

fn read_file(path: &Path, forbidden: u32) -> Result<Zeroizing<Vec<u8>>, Error> {
    let unreadable =
        |e: std::io::Error| error(Kind::Unavailable, path, "cannot be read").because(e);
    let mut file = File::open(path).map_err(unreadable)?;
    check_file(&file, path, forbidden)?;
    // Full size at once, and cut where it lies: a buffer that grows would leave copies behind.
    let mut buffer = Zeroizing::new(vec![0; PIN_LEN_MAX + 2]);
    let _ = keystore_pkcs11::lock_pages(&buffer); // whether that can be was said at the start
    let mut len = 0;
    while len < buffer.len() {
        match file.read(&mut buffer[len..]).map_err(unreadable)? {
            0 => break,
            n => len += n,
        }
    }
    let text = &buffer[..len];
    let text = text.strip_suffix(b"\n").unwrap_or(text);
    let text = text.strip_suffix(b"\r").unwrap_or(text);
    let len = text.len();
    buffer.truncate(len);
    Ok(buffer)
}

/// Root's files are ours too, as are systemd's credentials.
fn check_file(file: &File, path: &Path, forbidden: u32) -> Result<(), Error> {
    let metadata = file
        .metadata()
        .map_err(|e| error(Kind::Unavailable, path, "cannot be read").because(e))?;
    let own = nix::unistd::geteuid().as_raw();
    if !metadata.is_file() {
        Err(error(Kind::Refused, path, "is no regular file"))
    } else if metadata.uid() != 0 && metadata.uid() != own {
        Err(error(
            Kind::Refused,
            path,
            "belongs to another user; chown it to root",
        ))
    } else if metadata.mode() & forbidden != 0 {
        Err(error(
            Kind::Refused,
            path,
            "can be read or changed by others; chmod it to 0400",
        ))
    } else {
        Ok(())
    }
}

fn error(kind: Kind, path: &Path, text: &str) -> Error {
    Error::new(
        kind,
        format!("PIN file {}: {text}", PathBuf::from(path).display()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::OpenOptions;
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;

    fn pin_file(dir: &Path, text: &[u8], mode: u32) -> PathBuf {
        let path = dir.join("pin");
        let mut file = OpenOptions::new()
            .create_new(true)
            .write(true)
            .mode(mode)
            .open(&path)
            .unwrap();
        file.write_all(text).unwrap();
        // Once more, without the umask.
        let mode = nix::sys::stat::Mode::from_bits_truncate(mode);
        nix::sys::stat::fchmod(&file, mode).unwrap();
        path
    }

    #[test]
    fn one_line_ending_is_cut_and_nothing_else() {
        for (text, pin) in [
            (&b"1234"[..], &b"1234"[..]),
            (b"1234\n", b"1234"),
            (b"1234\r\n", b"1234"),
            (b" 12 34 \n\n", b" 12 34 \n"),
            (b"\xff\xfe\n", b"\xff\xfe"),
        ] {
            let dir = tempfile::tempdir().unwrap();
            let path = pin_file(dir.path(), text, 0o600);
            assert_eq!(
                read(&PinSource::File(path), None, "hsm")
                    .unwrap()
                    .as_slice(),
                pin
            );
        }
    }

    #[test]
    fn a_pin_that_others_can_read_is_refused() {
        let refused = Some(Kind::Refused);
        for (mode, as_file, as_credential) in [
            (0o400, None, None),
            (0o600, None, None),
            (0o440, refused, None),
            (0o640, refused, None),
            (0o604, refused, refused),
            (0o620, refused, refused),
            (0o410, refused, None),
            (0o401, refused, refused),
        ] {
            let dir = tempfile::tempdir().unwrap();
            let path = pin_file(dir.path(), b"1234", mode);
            let kind = |source| {
                read(&source, Some(dir.path()), "hsm")
                    .err()
                    .map(|e| e.kind())
            };
            assert_eq!(kind(PinSource::File(path)), as_file, "{mode:o}");
            let credential = PinSource::Credential("pin".into());
            assert_eq!(kind(credential), as_credential, "{mode:o}");
        }
    }

    #[test]
    fn no_pin_is_no_pin() {
        let dir = tempfile::tempdir().unwrap();
        let missing = read(
            &PinSource::Credential("hsm.pin".into()),
            Some(dir.path()),
            "hsm",
        )
        .unwrap_err();
        assert_eq!(missing.kind(), Kind::Refused);
        let text = missing.to_string();
        assert!(text.starts_with("no PIN: credential `hsm.pin`"), "{text}");
        assert!(text.contains("--name=hsm.pin"), "{text}");
        assert!(
            text.contains("restart assertd-keystore-pkcs11@hsm"),
            "{text}"
        );
        let nowhere = read(&PinSource::Credential("hsm.pin".into()), None, "hsm").unwrap_err();
        assert_eq!(nowhere.kind(), Kind::Refused);
        let path = pin_file(dir.path(), b"\n", 0o600);
        assert_eq!(
            read(&PinSource::File(path), None, "hsm")
                .unwrap_err()
                .kind(),
            Kind::BadPin
        );
    }

    #[test]
    fn a_pin_ends_at_its_limit() {
        for (len, verdict) in [(PIN_LEN_MAX, None), (PIN_LEN_MAX + 1, Some(Kind::BadPin))] {
            let dir = tempfile::tempdir().unwrap();
            let path = pin_file(dir.path(), &vec![b'7'; len], 0o600);
            assert_eq!(
                read(&PinSource::File(path), None, "hsm")
                    .err()
                    .map(|e| e.kind()),
                verdict
            );
        }
    }
}
