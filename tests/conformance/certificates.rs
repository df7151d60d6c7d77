//! Certificates over every backend: what a key signs of itself is read and verified by OpenSSL, is
//! kept, is named in assertions where the charter says so, and is made for no other key.

use crate::cut::Severed;
use crate::promises::check;
use crate::site::Site;
use crate::subject::Subject;
use crate::token::{Module, SHIM_RULES, with_token};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL};
use keystore::certificate::{Certificate, Der, Validity};
use keystore::charter::PurposeKind;
use keystore::mint::Mint;
use keystore::protocol::{Condition, KeyEntry};
use keystore::records::{Keys, Reach};
use keystore::statefile::StateDir;
use keystore::{
    Alg, CertificateUse, Charter, Claims, Clock, Error, KeyId, KidMember, Kind, Purpose, Typ,
};
use std::path::Path;
use std::process::Command;

fn now_s() -> u64 {
    Clock::new().trusted().unwrap().unix_s()
}

fn id(alg: Alg) -> KeyId {
    let name = alg.name().to_lowercase();
    format!("conformance/certificate-{name}.1").parse().unwrap()
}

/// As a key is known to Entra.
fn charter(alg: Alg, certificate: CertificateUse) -> Charter {
    Charter {
        purpose: Purpose::ClientAuthentication {
            iss: "a".into(),
            sub: "a".into(),
            aud: "https://as".into(),
        },
        alg,
        typ: Typ::Jwt,
        kid: match certificate {
            CertificateUse::Named => KidMember::Absent,
            _ => KidMember::Thumbprint,
        },
        lifetime_max_s: 60,
        backdate_s: 0,
        certificate,
    }
}

fn year() -> Validity {
    let not_before = now_s();
    Validity {
        not_before,
        not_after: not_before + 365 * 86_400,
    }
}

/// What it says; it must succeed.
pub fn openssl(arguments: &[&str]) -> String {
    let output = Command::new("openssl").args(arguments).output();
    let output = output.expect("openssl is installed by `make setup`");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(
        output.status.success(),
        "{arguments:?}: {}{}",
        text(&output.stdout),
        text(&output.stderr)
    );
    text(&output.stdout) + &text(&output.stderr)
}

/// As a file that OpenSSL reads.
fn file(dir: &Path, der: &Der) -> String {
    let path = dir.join("der");
    std::fs::write(&path, der.as_bytes()).unwrap();
    path.to_str().unwrap().to_owned()
}

fn public_key(keys: &[&str]) -> String {
    let text = openssl(keys);
    let begin = text.find("-----BEGIN PUBLIC KEY-----").unwrap();
    let end = "-----END PUBLIC KEY-----";
    text[begin..text.find(end).unwrap() + end.len()].to_owned()
}

/// Between its lines.
fn spki(entry: &KeyEntry) -> String {
    let base64 = |bytes| base64::engine::general_purpose::STANDARD.encode(bytes);
    let body = base64(entry.public_key.spki());
    let lines: Vec<&str> = (body.as_bytes().chunks(64))
        .map(|line| std::str::from_utf8(line).unwrap())
        .collect();
    let lines = lines.join("\n");
    format!("-----BEGIN PUBLIC KEY-----\n{lines}\n-----END PUBLIC KEY-----")
}

fn certificate(entry: &KeyEntry) -> Certificate {
    entry.certificate.clone().expect("it was certified")
}

/// An assertion of a key, now.
fn mint(keys: &Keys<Severed>, key: &KeyId) -> Result<String, Error> {
    let now = now_s();
    let claims = Claims {
        iss: "a".into(),
        sub: Some("a".into()),
        aud: Some("https://as".into()),
        scope: None,
        jti: Some("AAAAAAAAAAAAAAAAAAAAAA".into()),
        iat: now,
        nbf: Some(now),
        exp: now + 60,
    };
    let mint = Mint::new(key.clone(), PurposeKind::ClientAuthentication, claims);
    keys.mint(&mint).map_err(Error::from)
}

pub fn a_certificate_of_every_algorithm_verifies(subject: &Subject<'_>) {
    let site = Site::new(subject);
    let (keys, dir) = (site.open(), tempfile::tempdir().unwrap());
    for alg in subject_algs(&keys) {
        let (key, charter) = (id(alg), charter(alg, CertificateUse::Allowed));
        let (entry, _) = keys.make(&key, &charter).unwrap();
        let validity = year();
        let certified = keys.certify(&key, validity).unwrap();
        let path = file(dir.path(), certificate(&certified).der());
        let x509 = ["x509", "-inform", "DER", "-in", &path, "-noout"];
        let text = openssl(&[&x509[..], &["-text"]].concat());
        let name = format!("Subject: CN = {key}");
        let signature = match alg {
            Alg::ES256 => "Signature Algorithm: ecdsa-with-SHA256",
            Alg::ES384 => "Signature Algorithm: ecdsa-with-SHA384",
            Alg::RS256 => "Signature Algorithm: sha256WithRSAEncryption",
            Alg::PS256 => "Salt Length: 0x20",
            Alg::EdDSA => "Signature Algorithm: ED25519",
        };
        for phrase in [&name, signature, "CA:FALSE"] {
            assert!(text.contains(phrase), "{phrase}\n{text}");
        }
        let its = public_key(&[&x509[..], &["-pubkey"]].concat());
        assert_eq!(its, spki(&entry), "{alg}");
        let pem = dir.path().join("pem");
        std::fs::write(&pem, certificate(&certified).der().pem("CERTIFICATE")).unwrap();
        let pem = pem.to_str().unwrap();
        let verify = [
            "verify",
            "-x509_strict",
            "-check_ss_sig",
            "-CAfile",
            pem,
            pem,
        ];
        assert!(openssl(&verify).contains("OK"), "{alg}");

        let request = keys.request_certificate(&key).unwrap();
        let path = file(dir.path(), &request);
        let req = ["req", "-inform", "DER", "-in", &path, "-noout"];
        let text = openssl(&[&req[..], &["-verify", "-text"]].concat());
        for phrase in ["self-signature verify OK", &name, signature] {
            assert!(text.contains(phrase), "{phrase}\n{text}");
        }
        let its = public_key(&[&req[..], &["-pubkey"]].concat());
        assert_eq!(its, spki(&entry), "{alg}");
    }
}

fn subject_algs(keys: &Keys<Severed>) -> Vec<Alg> {
    use keystore::backend::Backend as _;
    keys.backend().algs()
}

pub fn a_certificate_is_kept_and_named_in_assertions(subject: &Subject<'_>) {
    let site = Site::new(subject);
    let (keys, dir) = (site.open(), tempfile::tempdir().unwrap());
    let (key, alg) = (id(Alg::ES256), Alg::ES256);
    keys.make(&key, &charter(alg, CertificateUse::Named))
        .unwrap();
    let refused = mint(&keys, &key).unwrap_err();
    assert_eq!(refused.kind(), Kind::Refused, "{refused}");
    assert!(refused.to_string().contains("it has none yet"), "{refused}");

    let validity = year();
    let first = keys.certify(&key, validity).unwrap();
    let names = |keys: &Keys<Severed>, entry: &KeyEntry| {
        let jws = mint(keys, &key).unwrap();
        let parts: Vec<&str> = jws.split('.').collect();
        let decode = |part: &str| BASE64URL.decode(part).unwrap();
        let path = file(dir.path(), certificate(entry).der());
        let x509 = ["x509", "-inform", "DER", "-in", &path, "-noout"];
        let shown = openssl(&[&x509[..], &["-fingerprint", "-sha256"]].concat());
        let hex = shown.trim().split('=').nth(1).unwrap();
        let bytes: Vec<u8> = hex
            .split(':')
            .map(|byte| u8::from_str_radix(byte, 16).unwrap())
            .collect();
        let thumbprint = BASE64URL.encode(bytes);
        let header = format!(r#"{{"alg":"ES256","typ":"JWT","x5t#S256":"{thumbprint}"}}"#);
        assert_eq!(String::from_utf8(decode(parts[0])).unwrap(), header);
        let (input, signature) = jws.rsplit_once('.').unwrap();
        check(&entry.public_key, alg, input.as_bytes(), &decode(signature));
    };
    names(&keys, &first);
    assert_eq!(keys.certify(&key, validity).unwrap(), first, "asked again");
    drop(keys);
    let keys = site.open();
    assert_eq!(keys.list(None).0, std::slice::from_ref(&first));
    assert_eq!(keys.certify(&key, validity).unwrap(), first);
    names(&keys, &first);

    let longer = Validity {
        not_after: validity.not_after + 1,
        ..validity
    };
    let second = keys.certify(&key, longer).unwrap();
    assert_ne!(second.certificate, first.certificate);
    names(&keys, &second);
    assert_eq!(certificate(&second).validity(), longer);
    // Another version has none of it.
    let next: KeyId = key.to_string().replace(".1", ".2").parse().unwrap();
    assert_eq!(keys.next(&next).unwrap().0.certificate, None);
    assert_eq!(mint(&keys, &next).unwrap_err().kind(), Kind::Refused);
}

pub fn a_key_is_certified_only_as_its_charter_says(subject: &Subject<'_>) {
    let site = Site::new(subject);
    let keys = site.open();
    let key = id(Alg::ES256);
    let missing = keys.certify(&key, year()).unwrap_err();
    assert_eq!(missing.kind(), Kind::NotFound, "{missing}");
    keys.make(&key, &charter(Alg::ES256, CertificateUse::None))
        .unwrap();
    let refused = keys.certify(&key, year()).unwrap_err();
    assert_eq!(refused.kind(), Kind::Refused, "{refused}");
    let refused = keys.request_certificate(&key).unwrap_err();
    assert_eq!(refused.kind(), Kind::Refused, "{refused}");

    let allowed = charter(Alg::ES256, CertificateUse::Allowed);
    keys.amend(&key.name, &allowed).unwrap();
    let now = now_s();
    for (not_before, not_after) in [
        (now - 3600, now + 3600),
        (now + 3600, now + 7200),
        (now, now + 3 * 365 * 86_400),
    ] {
        let validity = Validity {
            not_before,
            not_after,
        };
        let refused = keys.certify(&key, validity).unwrap_err();
        assert_eq!(refused.kind(), Kind::Refused, "{refused}");
        assert!(refused.to_string().contains("validity"), "{refused}");
    }
    assert_eq!(keys.list(None).0[0].certificate, None);
    keys.certify(&key, year()).unwrap();
    let header = mint(&keys, &key).unwrap();
    let header = BASE64URL.decode(header.split('.').next().unwrap()).unwrap();
    assert!(!String::from_utf8(header).unwrap().contains("x5t"));
}

/// Nobody is given one that does not verify, and the key signs nothing from then on.
#[test]
fn a_certificate_that_is_signed_wrongly_stops_its_key() {
    let test = concat!(
        module_path!(),
        "::a_certificate_that_is_signed_wrongly_stops_its_key"
    );
    with_token(test, Module::Shim, |token| {
        let state = StateDir::lock(&token.directory.join("records")).unwrap();
        let keys = Keys::open(token.open().unwrap(), &state, std::sync::Arc::default()).unwrap();
        let (key, validity) = (id(Alg::ES256), year());
        let charter = charter(Alg::ES256, CertificateUse::Allowed);
        for (rule, form) in [("zeros", "certificate"), ("short", "request")] {
            keys.make(&key, &charter).unwrap();
            let new = token.directory.join("rules.new");
            std::fs::write(&new, format!("C_Sign * {rule}\n")).unwrap();
            std::fs::rename(&new, token.directory.join(SHIM_RULES)).unwrap();
            let wrong = match form {
                "certificate" => keys.certify(&key, validity).map(drop),
                _ => keys.request_certificate(&key).map(drop),
            };
            let wrong = wrong.unwrap_err();
            assert_eq!(wrong.kind(), Kind::Mismatch, "{wrong}");
            assert!(
                wrong.to_string().contains("signed a certificate wrongly"),
                "{wrong}"
            );
            std::fs::write(&new, "").unwrap();
            std::fs::rename(&new, token.directory.join(SHIM_RULES)).unwrap();
            let entry = &keys.list(None).0[0];
            assert_eq!(entry.certificate, None);
            assert!(
                matches!(entry.condition, Condition::Failed { .. }),
                "{entry:?}"
            );
            let stopped = keys.certify(&key, validity).unwrap_err();
            assert_eq!(stopped.kind(), Kind::Mismatch, "{stopped}");
            keys.destroy(&key, Reach::Any).unwrap();
        }
    });
}
