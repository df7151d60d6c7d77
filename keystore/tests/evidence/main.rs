//! The verifier, asked as a relying party asks it. What a real TPM says is asked by the end-to-end tests.

mod attacks;
mod damage;
mod fixture;

use fixture::{NOW, World};
use keystore::evidence::bundle::{Bundle, Nonce};
use keystore::evidence::enrolment::registry::Registry;
use keystore::evidence::policy::Policy;
use keystore::evidence::verdict::{Outcome, Overall, Report};
use keystore::evidence::verify::{Question, verify};
use rustls_pki_types::CertificateDer;
use std::collections::BTreeSet;
use std::path::Path;

/// A relying party.
struct Party {
    nonce: Nonce,
    policy: String,
    roots: Vec<CertificateDer<'static>>,
    registry: Registry,
    now: u64,
}

impl Party {
    /// That knows this host.
    fn of(world: &World) -> Party {
        Party {
            nonce: world.nonce,
            policy: world.policy(),
            roots: vec![CertificateDer::from(world.root.certificate())],
            registry: world.registry(),
            now: NOW,
        }
    }

    fn asks(&self, evidence: &[u8]) -> Report {
        let policy = Policy::parse(Path::new("policy.toml"), &self.policy);
        verify(&Question {
            evidence,
            nonce: &self.nonce,
            policy: &policy.unwrap_or_else(|wrong| panic!("{wrong}")),
            roots: &self.roots,
            registry: &self.registry,
            now: self.now,
        })
    }

    /// The names of the checks that failed.
    fn finds(&self, bundle: &Bundle) -> BTreeSet<&'static str> {
        failed(&self.asks(bundle.to_json().as_bytes()))
    }
}

fn failed(report: &Report) -> BTreeSet<&'static str> {
    let failed =
        |it: &&keystore::evidence::verdict::Verdict| matches!(it.outcome, Outcome::Failed { .. });
    let names = report
        .verdicts
        .iter()
        .filter(failed)
        .map(|it| it.check.name());
    let names: BTreeSet<&str> = names.collect();
    assert_eq!(
        names.is_empty(),
        report.overall() == Overall::Passed,
        "{report:#?}"
    );
    names
}

#[test]
fn a_healthy_host_passes_every_check() {
    let world = World::new();
    let report = Party::of(&world).asks(world.bundle().to_json().as_bytes());
    for verdict in &report.verdicts {
        assert_eq!(verdict.outcome, Outcome::Passed, "{verdict:?}");
    }
    assert_eq!(report.overall(), Overall::Passed);
    assert_eq!(report.host, Some(world.host.clone()));
    let keys: Vec<(String, String)> = report
        .keys
        .iter()
        .map(|it| (it.key.to_string(), it.level.to_string()))
        .collect();
    let certified = |id: &str| (id.to_owned(), "tpm-certified".to_owned());
    assert_eq!(keys, [certified("ours/bank.1"), certified("issuer/prod.2")]);
    assert_eq!(report.counted[0].counters.reset, world.reset);
}
