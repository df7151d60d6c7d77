//! A bundle of evidence, verified. The input is the document; the relying party knows one host, the one of the
//! verifier's own tests, and asks it one challenge.
//!
//! Asserted: a document that is read comes back as it was written; no key is `tpm-certified` that the host's TPM
//! has not certified, and nothing passes that does not answer the challenge; every reason is short, and no check
//! is looked at twice.

use super::fixture::{NOW, World, public};
use keystore::evidence::Bundle;
use keystore::evidence::healthy::Approval;
use keystore::evidence::nonces::NonceUse;
use keystore::evidence::policy::Policy;
use keystore::evidence::verdict::Overall;
use keystore::evidence::verify::{CertificateDer, Question, verify};
use keystore::protocol::EvidenceLevel;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::LazyLock;

static WORLD: LazyLock<World> = LazyLock::new(World::new);

/// Runs one input.
pub fn check(data: &[u8]) {
    if let Ok(bundle) = Bundle::parse(data) {
        let again = bundle.to_json();
        assert_eq!(Bundle::parse(again.as_bytes()), Ok(bundle));
    }
    // The other document in JSON about PCRs, which lies in a directory of the host.
    match Approval::parse(data) {
        Ok(approval) => {
            let again = approval.to_json();
            assert_eq!(Approval::parse(again.as_bytes()), Ok(approval));
        }
        Err(why) => assert!(why.len() < 4000, "{why}"),
    }
    let world = &*WORLD;
    let policy = Policy::parse(Path::new("policy.toml"), &world.policy()).expect("it is one");
    let report = verify(&Question {
        evidence: data,
        nonce: &world.nonce,
        nonce_use: NonceUse::Open { made_at: NOW },
        policy: &policy,
        roots: &[CertificateDer::from(world.root.certificate())],
        registry: &world.registry(),
        now: NOW,
    });
    let known: Vec<_> = world.keys.iter().map(|key| public(&key.secret)).collect();
    for key in &report.keys {
        let certified = key.level == EvidenceLevel::TpmCertified;
        assert!(!certified || known.contains(&key.jwk), "{key:?}");
    }
    if report.overall() == Overall::Passed {
        let bundle = Bundle::parse(data).expect("it passed");
        assert_eq!((bundle.nonce, &bundle.host), (world.nonce, &world.host));
    }
    let mut seen = BTreeSet::new();
    for verdict in &report.verdicts {
        assert!(seen.insert((verdict.check, &verdict.about)), "{verdict:?}");
        let reason = verdict.outcome.reason().unwrap_or_default();
        assert!(reason.len() < 4000, "{reason}");
    }
}
