//! The auth value of each key. Owns the 32 secret bytes of `tpm.auth` and what is made of them:
//! HMAC-SHA-256 over the key's object id, so that nothing about it is stored beside the key, no two
//! keys share one, and a key file alone signs nothing. Never shown, never stored.

use aws_lc_rs::hmac;
use keystore::backend::ObjectId;
use keystore::config::PinSource;
use keystore::credential::{self, Secret, Wanted};
use keystore::{Error, Kind};
use std::path::Path;
use tss_esapi::structures::Auth;
use zeroize::Zeroizing;

/// Bytes of `tpm.auth`: as many as SHA-256 gives, so that guessing it is no easier than guessing an
/// auth value.
pub const LEN: usize = 32;

/// Of the counter.
pub struct CounterSecret {
    /// A number that picks its handle.
    pub place: u32,
    /// Its auth value.
    pub auth: Auth,
}

/// The key of the HMAC.
pub struct Secrets(hmac::Key);

impl Secrets {
    /// From the 32 bytes, which the caller wipes.
    pub fn new(bytes: &[u8; LEN]) -> Secrets {
        Secrets(hmac::Key::new(hmac::HMAC_SHA256, bytes))
    }

    /// Reads them. `credentials` is `$CREDENTIALS_DIRECTORY`; without a source in the configuration
    /// it is the credential `NAME.auth`.
    ///
    /// # Errors
    /// As [`credential::read`]; `BadPin` if it does not have 32 bytes.
    pub fn read(
        source: Option<&PinSource>,
        credentials: Option<&Path>,
        keystore: &str,
    ) -> Result<Secrets, Error> {
        let standard = PinSource::Credential(format!("{keystore}.auth"));
        let wanted = Wanted {
            noun: "auth secret",
            key: "auth",
            unit: "assertd-keystore-tpm",
            keystore,
            len_max: LEN,
            // Init sees whether keys depend on one that was there; a command pasted from here could not.
            remedy: &|name| {
                format!(
                    "bring /etc/credstore.encrypted/assertd.{name} back from a backup of this host \
                     if keys were made with it; if there are none yet, run `assertctl init --name \
                     {keystore}` as root, which makes one"
                )
            },
            lock: |_| {}, // all memory is locked, or none: no unsafe code here
        };
        let Secret { bytes, place } =
            credential::read(source.unwrap_or(&standard), credentials, &wanted)?;
        let bytes: Zeroizing<Vec<u8>> = bytes;
        match <&[u8; LEN]>::try_from(bytes.as_slice()) {
            Ok(bytes) => Ok(Secrets::new(bytes)),
            Err(_) => {
                let text = format!(
                    "{place}: must have exactly {LEN} random bytes; bring back the one the keys \
                     were made with from a backup of this host; if there are none yet, move it away \
                     and run `assertctl init --name {keystore}` as root, which makes one or says how"
                );
                Err(Error::new(Kind::BadPin, text))
            }
        }
    }

    /// Where the counter is, and its auth value. No key has either: an object id has 16 bytes.
    pub fn counter(&self) -> CounterSecret {
        let place = hmac::sign(&self.0, b"assertd counter index");
        let place = place.as_ref().first_chunk().copied();
        let auth = hmac::sign(&self.0, b"assertd counter auth");
        CounterSecret {
            place: u32::from_be_bytes(place.expect("SHA-256 has 32 bytes")),
            auth: Auth::try_from(auth.as_ref())
                .expect("32 bytes are fewer than the largest digest has"),
        }
    }

    /// The auth value of the attestation key.
    pub fn attestation(&self) -> Auth {
        let tag = hmac::sign(&self.0, b"assertd attestation key auth");
        Auth::try_from(tag.as_ref()).expect("32 bytes are fewer than the largest digest has")
    }

    /// The auth value of one key.
    pub fn of(&self, object: ObjectId) -> Auth {
        let tag = hmac::sign(&self.0, &object.0);
        Auth::try_from(tag.as_ref()).expect("32 bytes are fewer than the largest digest has")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::OpenOptions;
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    use std::path::PathBuf;

    fn file(dir: &Path, name: &str, bytes: &[u8], mode: u32) -> PathBuf {
        let path = dir.join(name);
        let mut options = OpenOptions::new();
        let mut file = options
            .create_new(true)
            .write(true)
            .mode(mode)
            .open(&path)
            .unwrap();
        file.write_all(bytes).unwrap();
        path
    }

    #[test]
    fn a_value_belongs_to_one_key_and_one_secret() {
        // RFC 2104 with SHA-256, computed with Python's hmac.
        let secrets = Secrets::new(&[0x0b; LEN]);
        let value = secrets.of(ObjectId([1; 16]));
        let hex: String = value.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(
            hex,
            "b5e567a337f5f660fbfebece287d962ab426150204cc0f48a632ae048c18e175"
        );
        assert_ne!(value, secrets.of(ObjectId([2; 16])));
        assert_ne!(value, Secrets::new(&[0x0c; LEN]).of(ObjectId([1; 16])));
    }

    #[test]
    fn the_bytes_are_taken_as_they_are_and_counted() {
        let tmp = tempfile::tempdir().unwrap();
        let mut bytes = [7; LEN + 1];
        bytes[LEN - 1] = b'\n'; // one random secret in 256 ends so
        for (len, kind) in [
            (0, Some(Kind::BadPin)),
            (LEN - 1, Some(Kind::BadPin)),
            (LEN, None),
            (LEN + 1, Some(Kind::BadPin)),
        ] {
            let path = file(tmp.path(), &len.to_string(), &bytes[..len], 0o600);
            let read = Secrets::read(Some(&PinSource::File(path)), None, "tpm");
            assert_eq!(read.as_ref().err().map(Error::kind), kind, "{len}");
            if let Err(wrong) = &read {
                let text = wrong.to_string();
                assert!(text.contains("bring back the one"), "{text}");
                assert!(!text.contains("urandom"), "{text}");
            }
            if let Ok(secrets) = read {
                let all: [u8; LEN] = bytes[..LEN].try_into().unwrap();
                let object = ObjectId([3; 16]);
                assert_eq!(secrets.of(object), Secrets::new(&all).of(object));
            }
        }
    }

    #[test]
    fn without_a_setting_it_is_the_credential_of_the_keystores_name() {
        let tmp = tempfile::tempdir().unwrap();
        let missing = Secrets::read(None, Some(tmp.path()), "tpm").err().unwrap();
        assert_eq!(missing.kind(), Kind::Refused);
        let text = missing.to_string();
        assert!(text.contains("credential `tpm.auth`"), "{text}");
        let (back, anew) = text.split_once("if there are none yet").unwrap();
        let place = "bring /etc/credstore.encrypted/assertd.tpm.auth back";
        assert!(back.contains(place), "{text}");
        assert!(anew.contains("`assertctl init --name tpm`"), "{text}");
        assert!(!text.contains("urandom"), "{text}");
        assert!(text.contains("restart assertd-keystore-tpm@tpm`"), "{text}");
        file(tmp.path(), "tpm.auth", &[1; LEN], 0o400);
        assert!(Secrets::read(None, Some(tmp.path()), "tpm").is_ok());
        let open = file(tmp.path(), "open", &[1; LEN], 0o604);
        let refused = Secrets::read(Some(&PinSource::File(open)), None, "tpm");
        assert_eq!(refused.err().unwrap().kind(), Kind::Refused);
    }
}
