//! The certificate of an endorsement key. The input is a certificate as it comes; or what is in one (TBSCertificate),
//! signed here as the maker would sign it, of an endorsement key or of an authority below the maker: what is read
//! after the chain was verified is reached so.
//!
//! Asserted: nothing that the maker has not signed is believed, and nothing that stands behind a certificate counts;
//! the key that is found stands in it byte by byte; every text is short.

use super::fixture::{Authority, NOW, World, public};
use super::input::Input;
use keystore::PublicKey;
use keystore::evidence::ekcert::{EkCertificate, verify};
use keystore::evidence::verify::CertificateDer;
use std::sync::LazyLock;

/// tcg-kp-EKCertificate
const USAGE: [u8; 5] = [0x67, 0x81, 0x05, 0x08, 0x01];

const TEXT_LEN_MAX: usize = 256;

struct Maker {
    world: World,
    root: CertificateDer<'static>,
    issuer: Authority,
    /// The world's key, by the issuer.
    issued: Vec<u8>,
}

static MAKER: LazyLock<Maker> = LazyLock::new(|| {
    let world = World::new();
    let issuer = Authority::new(10, "Issuer");
    Maker {
        root: CertificateDer::from(world.root.certificate()),
        issued: issuer.ek_certificate(&public(&world.ek).spki(), &USAGE, NOW),
        issuer,
        world,
    }
});

/// Runs one input.
pub fn check(data: &[u8]) {
    let maker = &*MAKER;
    let mut input = Input::of(data);
    let kind = input.choice(3);
    let content = input.rest();
    match kind {
        0 => {
            if let Some(found) = verified(content, &[]) {
                assert_eq!(found.key, public(&maker.world.ek), "it is another's");
            }
        }
        1 => {
            let signed = maker.world.root.sign(content);
            verified(&signed, &[]);
            let forged = maker.issuer.sign(content);
            assert_eq!(verified(&forged, &[]), None, "the maker has not signed it");
        }
        _ => {
            let above = maker.world.root.sign(content);
            if let Some(found) = verified(&maker.issued, &[&above]) {
                assert_eq!(found.key, public(&maker.world.ek));
            }
        }
    }
}

/// What is found in it, which has to be there.
fn verified(certificate: &[u8], chain: &[&[u8]]) -> Option<EkCertificate> {
    let roots = [MAKER.root.clone()];
    let found = verify(certificate, chain, &roots, NOW);
    if let Err(wrong) = &found {
        assert!(wrong.len() < 1000, "{wrong}");
    }
    let found = found.ok()?;
    let padded = [certificate, &[0xff; 9]].concat();
    assert_eq!(verify(&padded, chain, &roots, NOW), Ok(found.clone()));
    let spki = found.key.spki();
    let known = match &found.key {
        PublicKey::Rsa { n, .. } => &n[..],
        _ => &spki[..],
    };
    let mut places = certificate.windows(known.len());
    assert!(places.any(|it| it == known), "{found:?}");
    for text in [&found.manufacturer, &found.model] {
        assert!(text.as_str().len() <= TEXT_LEN_MAX);
    }
    Some(found)
}
