//! A relying party's policy.
//!
//! Asserted: a mistake is shown in no more room than the policy has; a policy that is read has somebody to vouch for
//! what it wants certified, wants nothing of a SHA-1 bank, and no value that is not selected; it wants something of what is
//! selected, and each of its rules can be broken in every bank; a healthy host's evidence held against it yields a verdict for everything that it asks for, and passes only if what it wants was looked at.

use super::fixture::{NOW, World};
use keystore::evidence::bundle::{Bank, PcrIndex};
use keystore::evidence::enrolment::registry::Registry;
use keystore::evidence::nonces::NonceUse;
use keystore::evidence::policy::{Certificates, Enroll, EventRule, Imported, Policy, QuotePolicy};
use keystore::evidence::verdict::{Check, Outcome, Overall};
use keystore::evidence::verify::{CertificateDer, Question, verify};
use keystore::protocol::EvidenceLevel;
use std::path::Path;
use std::sync::LazyLock;

struct Host {
    world: World,
    evidence: Vec<u8>,
    roots: [CertificateDer<'static>; 1],
    registry: Registry,
}

static HOST: LazyLock<Host> = LazyLock::new(|| {
    let world = World::new();
    Host {
        evidence: world.bundle().to_json().into_bytes(),
        roots: [CertificateDer::from(world.root.certificate())],
        registry: world.registry(),
        world,
    }
});

/// Runs one input.
pub fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let policy = match Policy::parse(Path::new("policy.toml"), text) {
        Ok(policy) => policy,
        Err(mistake) => {
            let said = mistake.to_string();
            // A line of it, and as long a line that points at a place in it, each character escaped.
            assert!(said.len() < 1000 + 20 * text.len(), "{said}");
            return;
        }
    };
    let needs_roots = policy.ek.certificate == Certificates::Required
        && policy.minimum > EvidenceLevel::Asserted
        || policy.ek.enroll == Enroll::AnyCertified;
    assert!(!needs_roots || !policy.ek.roots.is_empty());
    if policy.healthy.is_some() {
        assert_eq!(policy.imported, Imported::Refuse);
    }
    let log = &policy.event_log;
    match &policy.quote {
        Some(quote) => {
            let knows = quote.values.values().any(|it| !it.is_empty());
            let wants = log.secure_boot.is_some() || !log.rule.is_empty();
            assert!(knows || wants || quote.any);
            for rule in &log.rule {
                can_be_broken(rule, quote);
            }
            if let (Some(_), Some(pcr)) = (log.secure_boot, PcrIndex::new(7)) {
                assert!(banks(quote).all(|bank| quote.select[&bank].contains(&pcr)));
            }
            assert!(!quote.select.contains_key(&Bank::Sha1));
            assert!(quote.select.values().any(|it| !it.is_empty()));
            for (bank, values) in &quote.values {
                for (pcr, known) in values {
                    assert!(quote.select[bank].contains(pcr));
                    assert!(
                        known
                            .iter()
                            .all(|it| it.as_slice().len() == bank.digest_len())
                    );
                }
            }
        }
        None => assert!(!log.required && log.rule.is_empty() && !policy.ima.required),
    }
    let host = &*HOST;
    let report = verify(&Question {
        evidence: &host.evidence,
        nonce: &host.world.nonce,
        nonce_use: NonceUse::Open { made_at: NOW },
        policy: &policy,
        roots: &host.roots,
        registry: &host.registry,
        now: NOW,
    });
    let passed = |check: Check| {
        let mut of = report.verdicts.iter().filter(|it| it.check == check);
        of.any(|it| it.outcome == Outcome::Passed)
    };
    if report.overall() == Overall::Passed {
        for (is_wanted, check) in [
            (policy.quote.is_some(), Check::QuoteSelection),
            (log.required, Check::EventLog),
            (
                log.secure_boot.is_some() || !log.rule.is_empty(),
                Check::EventRules,
            ),
            (policy.ima.required, Check::Ima),
            (policy.minimum > EvidenceLevel::None, Check::Level),
        ] {
            assert!(!is_wanted || passed(check), "{check}");
        }
    }
}

fn banks(quote: &QuotePolicy) -> impl Iterator<Item = Bank> {
    let selected = quote.select.iter().filter(|(_, of)| !of.is_empty());
    selected.map(|(bank, _)| *bank)
}

/// By some event, in every bank that is selected.
fn can_be_broken(rule: &EventRule, quote: &QuotePolicy) {
    let denied = rule.none.iter().flatten().count();
    assert!(rule.only.is_some() || denied > 0, "{rule:?}");
    assert!(rule.pcr.number() <= 9, "{rule:?}");
    for bank in banks(quote) {
        assert!(quote.select[&bank].contains(&rule.pcr), "{rule:?}");
        for digests in [&rule.only, &rule.none].into_iter().flatten() {
            let mut lengths = digests.iter().map(|it| it.as_slice().len());
            let is_its = lengths.any(|it| it == bank.digest_len());
            assert!(is_its || digests.is_empty(), "{bank}: {rule:?}");
        }
    }
    let is_known = |length: usize| banks(quote).any(|bank| bank.digest_len() == length);
    let digests = [&rule.only, &rule.none].into_iter().flatten().flatten();
    for digest in digests {
        assert!(is_known(digest.as_slice().len()), "{rule:?}");
    }
}
