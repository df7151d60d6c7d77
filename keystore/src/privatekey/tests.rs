use super::*;
use proptest::prelude::*;
use std::process::Command;

/// What `openssl` writes in DER.
fn openssl(arguments: &[&str]) -> Vec<u8> {
    let output = Command::new("openssl").args(arguments).output();
    let output = output.expect("openssl is installed by `make setup`");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{arguments:?}: {said}");
    output.stdout
}

struct Files(tempfile::TempDir);

impl Files {
    fn new() -> Files {
        Files(tempfile::tempdir().unwrap())
    }

    /// A new private key in PEM.
    fn key(&self, algorithm: &str, option: &str) -> String {
        let path = self.0.path().join(option.replace(':', "-"));
        let path = path.to_str().unwrap().to_owned();
        let made = ["genpkey", "-algorithm", algorithm, "-pkeyopt", option];
        openssl(&[&made[..], &["-out", &path]].concat());
        path
    }

    fn rsa(&self, bits: usize) -> String {
        self.key("RSA", &format!("rsa_keygen_bits:{bits}"))
    }

    fn ec(&self, curve: &str) -> String {
        self.key("EC", &format!("ec_paramgen_curve:{curve}"))
    }
}

fn pkcs8(path: &str) -> Vec<u8> {
    openssl(&[
        "pkcs8", "-topk8", "-nocrypt", "-in", path, "-outform", "DER",
    ])
}

/// As it was before PKCS #8.
fn traditional(path: &str) -> Vec<u8> {
    openssl(&["pkey", "-traditional", "-in", path, "-outform", "DER"])
}

fn spki(path: &str) -> Vec<u8> {
    openssl(&["pkey", "-in", path, "-pubout", "-outform", "DER"])
}

fn key(der: &[u8]) -> PrivateKey {
    PrivateKey::new(Zeroizing::new(der.to_vec())).unwrap()
}

/// `None` if it is refused, which says nothing of the key.
fn public(der: &[u8]) -> Option<PublicKey> {
    match key(der).read() {
        Ok((public_key, _)) => Some(public_key),
        Err(error) => {
            assert_eq!(error.kind(), Kind::Refused, "{error}");
            assert!(error.to_string().len() < 200, "{error}");
            None
        }
    }
}

#[test]
fn keys_are_read_in_every_form_they_come_in() {
    let files = Files::new();
    for path in [files.rsa(2048), files.rsa(3072), files.ec("P-256")] {
        let expected = spki(&path);
        for der in [pkcs8(&path), traditional(&path)] {
            let read = public(&der).expect("it is one of ours");
            assert_eq!(read.spki(), expected, "{path}");
            assert_eq!(public(&key(&der).pkcs8().unwrap()), Some(read.clone()));
            // An EC key may have its curve in it twice.
            if let PublicKey::Rsa { .. } = read {
                assert_eq!(&**key(&der).pkcs8().unwrap(), pkcs8(&path));
            }
        }
    }
}

#[test]
fn other_keys_are_refused() {
    let files = Files::new();
    let others = [files.rsa(1024), files.ec("P-384"), files.ec("secp256k1")];
    for path in others {
        for der in [pkcs8(&path), traditional(&path)] {
            assert_eq!(public(&der), None, "{path}");
        }
    }
    let ed25519 = openssl(&["genpkey", "-algorithm", "ED25519", "-outform", "DER"]);
    assert_eq!(public(&ed25519), None);
    for der in [&[0x30, 0][..], &[0x30, 3, 2, 1, 0], &[0]] {
        assert_eq!(public(der), None);
    }
}

#[test]
fn a_key_that_is_not_whole_is_refused() {
    let files = Files::new();
    for path in [files.rsa(2048), files.ec("P-256")] {
        for der in [pkcs8(&path), traditional(&path)] {
            for length in (1..der.len()).step_by(7) {
                assert_eq!(public(&der[..length]), None, "{length}");
            }
            assert_eq!(public(&[&der[..], &[0]].concat()), None);
            // One bit of a number: it belongs to none of the others any more.
            for at in [der.len() - 1, der.len() - 40, der.len() * 3 / 4] {
                let mut other = der.clone();
                other[at] ^= 1;
                assert_eq!(public(&other), None, "{at}");
            }
        }
    }
}

#[test]
fn a_key_is_shown_to_nobody() {
    let files = Files::new();
    let der = pkcs8(&files.ec("P-256"));
    let key = key(&der);
    assert_eq!(format!("{key:?}"), "PrivateKey");
}

#[test]
fn a_key_ends_at_its_limit() {
    for (length, fits) in [
        (0, false),
        (1, true),
        (PRIVATE_KEY_LEN_MAX, true),
        (PRIVATE_KEY_LEN_MAX + 1, false),
    ] {
        let der = Zeroizing::new(vec![0; length]);
        assert_eq!(PrivateKey::new(der).is_ok(), fits, "{length}");
    }
}

proptest! {
    #[test]
    fn no_bytes_panic_the_reader(bytes in proptest::collection::vec(any::<u8>(), 1..300)) {
        let _ = key(&bytes).read();
        let _ = key(&bytes).pkcs8();
    }
}
