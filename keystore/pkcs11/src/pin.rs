//! The PIN: read as every secret is ([`keystore::credential`]), one line ending cut off.

use keystore::config::PinSource;
use keystore::credential::{self, Secret, Wanted};
use keystore::{Error, Kind};
use std::path::Path;
use zeroize::Zeroizing;

/// Longest PIN in bytes; the largest tokens we know of allow 255.
const PIN_LEN_MAX: usize = 1024;

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
    let wanted = Wanted {
        noun: "PIN",
        key: "pin",
        unit: "assertd-keystore-pkcs11",
        keystore,
        len_max: PIN_LEN_MAX + 2, // the line ending
        remedy: &|name| {
            format!(
                "as root run `assertctl init --name {keystore}`, which asks for it (or \
                 `systemd-creds encrypt --with-key=host --name={name} - \
                 /etc/credstore.encrypted/assertd.{name}`)"
            )
        },
        lock: |bytes| {
            let _ = crate::sys::lock_pages(bytes);
        },
    };
    let Secret { mut bytes, place } = credential::read(source, credentials, &wanted)?;
    let text = &bytes[..];
    let text = text.strip_suffix(b"\n").unwrap_or(text);
    let len = text.strip_suffix(b"\r").unwrap_or(text).len();
    bytes.truncate(len);
    match len {
        0 => Err(Error::new(Kind::BadPin, format!("{place}: is empty"))),
        1..=PIN_LEN_MAX => Ok(bytes),
        _ => Err(Error::new(
            Kind::BadPin,
            format!("{place}: is longer than any PIN"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::OpenOptions;
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    use std::path::PathBuf;

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
