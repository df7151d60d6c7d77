//! Whose certificates are accepted: of the authorities that the host trusts, or of a file's alone. Owns
//! how a TLS client is made of them; never weakens it. TLS 1.2 and 1.3 as rustls has them, no client
//! certificate, HTTP/1.1. Revocation is not looked at: what is fetched is public, and is compared with
//! what should be there.

use std::path::Path;
use std::sync::Arc;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

/// Longest `ca` file in bytes: all that a distribution trusts is a quarter of it.
const CA_LEN_MAX: u64 = 1024 * 1024;

/// A TLS client that trusts these.
///
/// # Errors
/// A sentence that names what cannot be read, and the remedy. Nothing is trusted in its place.
pub fn client(ca: Option<&Path>) -> Result<Arc<ClientConfig>, String> {
    let roots = match ca {
        Some(path) => pinned(path)?,
        None => of_host()?,
    };
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13, &TLS12])
        .map_err(|error| format!("TLS: {error}"))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// Every certificate of the file must be of use: one that is passed over would be missed later.
fn pinned(path: &Path) -> Result<RootCertStore, String> {
    let failed = |why: String| format!("[courier] ca = {:?}: {why}", path.display().to_string());
    let unreadable = |error: std::io::Error| failed(format!("cannot be read: {error}"));
    if path.metadata().map_err(unreadable)?.len() > CA_LEN_MAX {
        return Err(failed("is longer than 1 MiB".to_owned()));
    }
    let text = std::fs::read(path).map_err(unreadable)?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&text) {
        let certificate = certificate.map_err(|error| failed(format!("is no PEM: {error}")))?;
        let added = roots.add(certificate);
        added.map_err(|error| failed(format!("has a certificate of no use: {error}")))?;
    }
    match roots.is_empty() {
        true => Err(failed("has no certificate (PEM) in it".to_owned())),
        false => Ok(roots),
    }
}

/// Distributions have some that no library reads any more; those are passed over, as others do.
fn of_host() -> Result<RootCertStore, String> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    let (added, _passed_over) = roots.add_parsable_certificates(found.certs);
    if added > 0 {
        return Ok(roots);
    }
    let why = found.errors.first().map(|error| format!(" ({error})"));
    Err(format!(
        "this host trusts no certificate authority{}; install ca-certificates, or set `ca` in [courier]",
        why.unwrap_or_default()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_does_not_say_whom_to_trust_trusts_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ca.pem");
        let said = client(Some(&path)).unwrap_err();
        assert!(said.contains("cannot be read"), "{said}");
        let begin = "-----BEGIN CERTIFICATE-----";
        for (text, part) in [
            ("".to_owned(), "no certificate"),
            ("hello".to_owned(), "no certificate"),
            (format!("{begin}\n!\n-----END CERTIFICATE-----\n"), "PEM"),
            (
                format!("{begin}\nAAAA\n-----END CERTIFICATE-----\n"),
                "of no use",
            ),
            ("a".repeat(1024 * 1024 + 1), "longer"),
        ] {
            #[expect(clippy::disallowed_methods, reason = "a test's own file")]
            std::fs::write(&path, text).unwrap();
            let said = client(Some(&path)).unwrap_err();
            assert!(said.contains(part), "{part}: {said}");
        }
    }
}
