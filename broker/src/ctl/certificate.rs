//! `assertctl keys certificate`: what is registered where a key is known by a certificate. The keystore has
//! it, and it is asked; nothing is made here but a request (PKCS #10), which leaves nothing behind.

use super::args::{Args, Format};
use super::bring;
use super::failure::{Exit, Failure};
use super::out::{Out, rfc3339};
use crate::config::Config;
use aws_lc_rs::digest::{self, Algorithm, SHA1_FOR_LEGACY_USE_ONLY, SHA256};
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use keystore::certificate::Der;
use keystore::client::unexpected;
use keystore::protocol::{CertificateForm, KeyEntry, Reply, Request};
use keystore::{Certificate, KeyId, KeyName};
use serde::Serialize;

/// What is wanted of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// The certificate that it has.
    Certificate,
    /// `--csr`: a request for one by an authority.
    Request,
}

/// `keys certificate --json`
#[derive(Serialize)]
struct CertificateJson<'a> {
    format: u32,
    key: &'a KeyId,
    kid: &'a str,
    der: String,
    pem: &'a str,
    #[serde(flatten)]
    facts: Option<Facts>,
}

/// How the other side and assertions name it, and how long it is good.
#[derive(Serialize)]
struct Facts {
    #[serde(rename = "x5t#S256")]
    x5t_s256: String,
    sha256: String,
    sha1: String,
    not_before: u64,
    not_after: u64,
}

/// Prints it as PEM, and what else is to be known of it to people on standard error.
pub fn show(args: &Args, key: &str, form: Form, out: &mut Out) -> Result<Exit, Failure> {
    let config = args.load_config()?;
    let (name, version) = match key.parse::<KeyId>() {
        Ok(id) => (id.name.clone(), Some(id.version)),
        Err(_) => {
            let wrong = |error| Failure::new(Exit::Usage, format!("`{key}`: {error}"));
            (key.parse::<KeyName>().map_err(wrong)?, None)
        }
    };
    let (keystore, entries) = shown(&config, &name)?;
    let mut versions = entries.into_iter().rev(); // the newest is the one to be registered
    let entry = versions.find(|entry| version.is_none_or(|it| entry.key.version == it));
    let entry = entry.ok_or_else(|| {
        let text = format!("keystore {keystore} shows no key {key}: `assertctl keys` lists them");
        Failure::new(Exit::Refused, text)
    })?;
    match form {
        Form::Certificate => {
            let certificate = entry.certificate.as_ref().ok_or_else(|| none(&entry))?;
            let facts = Facts::of(certificate);
            print(args, &entry, certificate.der(), Some(facts), out)?;
        }
        Form::Request => {
            let request = Request::Certify {
                key: entry.key.clone(),
                form: CertificateForm::Request {},
            };
            let Reply::CertificateRequest { der } = bring::ask(&config, &keystore, &request)?
            else {
                return Err(Failure::from_keystore(&unexpected()));
            };
            print(args, &entry, &der, None, out)?;
        }
    }
    Ok(Exit::Done)
}

/// What its keystore shows of a key, oldest first.
fn shown(config: &Config, name: &KeyName) -> Result<(String, Vec<KeyEntry>), Failure> {
    let wanted = bring::wanted(config, name)?;
    let mut client = bring::connect(config, &wanted.keystore)?;
    let mut entries = client
        .keys()
        .map_err(|error| Failure::from_keystore(&error))?;
    entries.retain(|entry| entry.key.name == *name);
    entries.sort_by(|one, other| one.key.cmp(&other.key));
    Ok((wanted.keystore, entries))
}

fn none(entry: &KeyEntry) -> Failure {
    let key = &entry.key;
    let text = format!(
        "key {key} has no certificate; if its profile has certificates (`assertctl profiles`), `assertctl \
         apply` gives it one"
    );
    Failure::new(Exit::Refused, text)
}

fn print(
    args: &Args,
    entry: &KeyEntry,
    der: &Der,
    facts: Option<Facts>,
    out: &mut Out,
) -> Result<(), Failure> {
    let label = match &facts {
        Some(_) => "CERTIFICATE",
        None => "CERTIFICATE REQUEST",
    };
    let pem = der.pem(label);
    if args.format == Format::Json {
        return out.json(&CertificateJson {
            format: 1,
            key: &entry.key,
            kid: entry.kid.as_str(),
            der: BASE64.encode(der.as_bytes()),
            pem: &pem,
            facts,
        });
    }
    out.line(pem.trim_end());
    out.flush();
    for line in facts
        .map(|facts| facts.lines(&entry.key))
        .unwrap_or_default()
    {
        eprintln!("{line}");
    }
    Ok(())
}

impl Facts {
    fn of(certificate: &Certificate) -> Facts {
        let der = certificate.der().as_bytes();
        let validity = certificate.validity();
        Facts {
            x5t_s256: certificate.thumbprint().to_owned(),
            sha256: hex(&SHA256, der),
            sha1: hex(&SHA1_FOR_LEGACY_USE_ONLY, der),
            not_before: validity.not_before,
            not_after: validity.not_after,
        }
    }

    fn lines(&self, key: &KeyId) -> [String; 4] {
        [
            format!(
                "{key}: valid from {} to {}",
                rfc3339(self.not_before),
                rfc3339(self.not_after)
            ),
            format!("x5t#S256: {}", self.x5t_s256),
            format!("SHA-256:  {}", self.sha256),
            format!("SHA-1:    {} (portals call it the thumbprint)", self.sha1),
        ]
    }
}

/// In upper case, as portals show it.
fn hex(algorithm: &'static Algorithm, der: &[u8]) -> String {
    let digest = digest::digest(algorithm, der);
    let digits = digest.as_ref().iter().map(|byte| format!("{byte:02X}"));
    digits.collect()
}
