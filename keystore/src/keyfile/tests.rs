use super::*;
use crate::Kind;
use proptest::prelude::*;
use std::process::Command;

/// What `openssl` writes.
fn openssl(arguments: &[&str]) -> Vec<u8> {
    let output = Command::new("openssl").args(arguments).output();
    let output = output.expect("openssl is installed by `make setup`");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{arguments:?}: {said}");
    output.stdout
}

fn file(bytes: &[u8]) -> KeyFile {
    KeyFile::new(Zeroizing::new(bytes.to_vec())).unwrap()
}

/// The public key's DER.
fn public(bytes: &[u8]) -> Vec<u8> {
    file(bytes).private_key().unwrap().read().unwrap().0.spki()
}

#[track_caller]
fn refused_for(bytes: &[u8], phrase: &str) {
    let error = file(bytes).private_key().unwrap_err();
    assert_eq!(error.kind(), Kind::Refused, "{error}");
    let text = error.to_string();
    assert!(text.contains(phrase) && text.len() < 300, "{text}");
}

/// A new key as PEM: PKCS #8, as it was before, and as DER.
fn key(dir: &tempfile::TempDir, algorithm: &str, option: &str) -> [Vec<u8>; 3] {
    let path = dir.path().join(algorithm);
    let path = path.to_str().unwrap();
    openssl(&[
        "genpkey",
        "-algorithm",
        algorithm,
        "-pkeyopt",
        option,
        "-out",
        path,
    ]);
    let pem = std::fs::read(path).unwrap();
    let traditional = openssl(&["pkey", "-traditional", "-in", path]);
    let der = openssl(&[
        "pkcs8", "-topk8", "-nocrypt", "-in", path, "-outform", "DER",
    ]);
    [pem, traditional, der]
}

#[test]
fn a_key_is_found_in_every_file_it_comes_in() {
    let dir = tempfile::tempdir().unwrap();
    for (algorithm, option) in [
        ("RSA", "rsa_keygen_bits:2048"),
        ("EC", "ec_paramgen_curve:P-256"),
    ] {
        let [pem, traditional, der] = key(&dir, algorithm, option);
        assert_ne!(pem, traditional);
        let expected = public(&der);
        let parameters =
            b"-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n";
        let remark = b"0 what somebody wrote above it: a remark\r\n";
        let text = String::from_utf8(pem.clone()).unwrap();
        for bytes in [
            pem.clone(),
            traditional,
            [&parameters[..], &pem].concat(),
            [&remark[..], &pem, b"\n\n"].concat(),
            text.replace('\n', "\r\n").into_bytes(),
            text.trim_end().as_bytes().to_vec(),
        ] {
            assert_eq!(public(&bytes), expected, "{algorithm}");
        }
        refused_for(&[&pem[..], &pem].concat(), "is one of two in the file");
        let cut = text.replace("-----END", "-----FIN");
        refused_for(cut.as_bytes(), "none that ends it");
        let at = text.find('\n').unwrap() + 9;
        let odd = [&text[..at], "*", &text[at + 1..]].concat();
        refused_for(odd.as_bytes(), "is not base64");
    }
}

#[test]
fn what_is_encrypted_is_refused_with_the_remedy() {
    let dir = tempfile::tempdir().unwrap();
    key(&dir, "RSA", "rsa_keygen_bits:2048");
    let path = dir.path().join("RSA");
    let path = path.to_str().unwrap();
    let password = ["-aes256", "-passout", "pass:x", "-in", path];
    for form in [&["pkey"][..], &["pkey", "-traditional"], &["rsa"]] {
        refused_for(&openssl(&[form, &password].concat()), "decrypt it first");
    }
}

#[test]
fn a_file_without_a_key_is_refused() {
    let certificate = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    refused_for(certificate, "is not in the file");
    let ssh = b"-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n";
    refused_for(ssh, "is not in the file");
    assert!(file(b"nothing").private_key().unwrap().read().is_err());
}

#[test]
fn a_key_is_shown_to_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let [pem, ..] = key(&dir, "EC", "ec_paramgen_curve:P-256");
    let file = file(&pem);
    assert_eq!(format!("{file:?}"), "KeyFile");
    let json = serde_json::to_string(&file).unwrap();
    let again: KeyFile = serde_json::from_str(&json).unwrap();
    assert!(again == file);
    // What is wrong with it is said without it.
    let escaped = json.replacen('L', "\\u004c", 1);
    let cut = format!("\"{}", &json[2..]);
    for wrong in [&escaped, &cut, "\"\"", "\"A\"", "7"] {
        let error = serde_json::from_str::<KeyFile>(wrong).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("base64 without escapes"), "{text}");
        assert!(text.len() < 120 && !text.contains("LS0"), "{text}");
    }
}

#[test]
fn a_file_ends_at_its_limit() {
    for (length, fits) in [
        (0, false),
        (1, true),
        (KEY_FILE_LEN_MAX, true),
        (KEY_FILE_LEN_MAX + 1, false),
    ] {
        let bytes = Zeroizing::new(vec![0; length]);
        assert_eq!(KeyFile::new(bytes).is_ok(), fits, "{length}");
    }
}

proptest! {
    #[test]
    fn no_file_panics_the_reader(bytes in proptest::collection::vec(any::<u8>(), 1..300)) {
        let _ = file(&bytes).private_key();
        let pem = [b"-----BEGIN PRIVATE KEY-----\n", &bytes[..], b"\n-----END PRIVATE KEY-----"].concat();
        let _ = file(&pem).private_key();
    }
}
