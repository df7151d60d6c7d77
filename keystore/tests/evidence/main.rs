//! The verifier, asked as a relying party asks it. What a real TPM says is asked by the end-to-end tests.

mod attacks;
mod damage;
mod fixture;

use fixture::{NOW, World};
use keystore::evidence::bundle::{Bundle, KeystoreEvidence, Nonce};
use keystore::evidence::enrolment::registry::Registry;
use keystore::evidence::nonces::NonceUse;
use keystore::evidence::policy::Policy;
use keystore::evidence::verdict::{Check, Outcome, Overall, Report};
use keystore::evidence::verify::{Question, verify};
use rustls_pki_types::CertificateDer;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::LazyLock;

/// A relying party.
#[derive(Clone)]
struct Party {
    nonce: Nonce,
    nonce_use: NonceUse,
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
            nonce_use: NonceUse::Open { made_at: NOW },
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
            nonce_use: self.nonce_use,
            policy: &policy.unwrap_or_else(|wrong| panic!("{wrong}")),
            roots: &self.roots,
            registry: &self.registry,
            now: self.now,
        })
    }

    /// The names of the checks that failed, where the policy and the bundle want all that there is.
    fn finds(&self, bundle: &Bundle) -> BTreeSet<&'static str> {
        self.finds_but(bundle, &[])
    }

    /// The same, where some checks are left out, and said to be: every other one was looked at, and has passed, or
    /// rests on one that failed.
    fn finds_but(&self, bundle: &Bundle, left_out: &[&str]) -> BTreeSet<&'static str> {
        let report = self.asks(bundle.to_json().as_bytes());
        let failed = failed(&report);
        for verdict in &report.verdicts {
            match &verdict.outcome {
                Outcome::Skipped { .. } => {
                    assert!(left_out.contains(&verdict.check.name()), "{verdict:?}");
                }
                Outcome::Unreachable { after } => {
                    assert!(failed.contains(after.name()), "{verdict:?}: {failed:?}");
                }
                Outcome::Passed | Outcome::Failed { .. } => {}
            }
        }
        let seen: BTreeSet<&str> = report.verdicts.iter().map(|it| it.check.name()).collect();
        for check in expected(bundle, &report, &failed) {
            assert!(seen.contains(check), "{check} was not looked at");
        }
        failed
    }
}

/// The checks of a healthy host.
static HEALTHY: LazyLock<BTreeSet<Check>> = LazyLock::new(|| {
    let world = World::new();
    let report = Party::of(&world).asks(world.bundle().to_json().as_bytes());
    report.verdicts.iter().map(|it| it.check).collect()
});

/// The checks that a report on this bundle has to have, whatever came of them: those of a healthy host, without
/// those about what is not in it.
fn expected(
    bundle: &Bundle,
    report: &Report,
    failed: &BTreeSet<&'static str>,
) -> Vec<&'static str> {
    let is_read = !failed.contains("bundle");
    let tpms = || {
        bundle.keystores.iter().filter_map(|it| match it {
            KeystoreEvidence::Tpm(tpm) => Some(tpm),
            KeystoreEvidence::Pkcs11(_) => None,
        })
    };
    let has_keys = tpms().any(|it| !it.keys.is_empty());
    let is_quote_left_out = report
        .verdicts
        .iter()
        .any(|it| it.check == Check::Quote && matches!(it.outcome, Outcome::Skipped { .. }));
    let is_of_whole = |check: Check| {
        matches!(
            check,
            Check::Bundle | Check::Nonce | Check::NonceUse | Check::Age | Check::Proof
        )
    };
    let is_of_key = |check: Check| {
        (Check::CertifySignature..=Check::KeyPolicy).contains(&check) || check == Check::Level
    };
    let is_of_quote = |check: Check| (Check::QuoteSignature..=Check::Ima).contains(&check);
    HEALTHY
        .iter()
        .copied()
        .filter(|it| is_of_whole(*it) || is_read && tpms().next().is_some())
        .filter(|it| has_keys || !is_of_key(*it))
        .filter(|it| !is_quote_left_out || !is_of_quote(*it))
        .map(Check::name)
        .collect()
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

/// RFC 9711, RFC 7515: what another JWT library would look at.
#[test]
fn a_result_says_by_which_policy_and_names_keys_only_if_all_passed() {
    use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL};
    use keystore::evidence::eat::{VerifierKey, claims};
    use keystore::privatekey::PrivateKey;
    use p256::pkcs8::EncodePrivateKey as _;
    use serde_json::Value;

    let world = World::new();
    let mut party = Party::of(&world);
    let secret = p256::SecretKey::from_slice(&[9; 32]).unwrap();
    let der = secret.to_pkcs8_der().unwrap().as_bytes().to_vec();
    let key = VerifierKey::new(&PrivateKey::new(der.into()).unwrap()).unwrap();
    let result = |party: &Party| {
        let evidence = world.bundle().to_json().into_bytes();
        let policy = Policy::parse(Path::new("policy.toml"), &party.policy).unwrap();
        let question = Question {
            evidence: &evidence,
            nonce: &party.nonce,
            nonce_use: party.nonce_use,
            policy: &policy,
            roots: &party.roots,
            registry: &party.registry,
            now: party.now,
        };
        let report = verify(&question);
        let token = key
            .sign(&claims(&question, &party.policy, &report))
            .unwrap();
        let (input, signature) = token.rsplit_once('.').unwrap();
        let verifier = key.public().verifier(keystore::Alg::ES256).unwrap();
        let signature = BASE64URL.decode(signature).unwrap();
        assert!(verifier.verify(input.as_bytes(), &signature).is_ok());
        let (header, payload) = input.split_once('.').unwrap();
        let read =
            |part| serde_json::from_slice::<Value>(&BASE64URL.decode(part).unwrap()).unwrap();
        (read(header), read(payload))
    };
    let (header, passed) = result(&party);
    assert_eq!(header["typ"], "eat+jwt");
    assert_eq!(passed["eat_nonce"], world.nonce.to_base64url());
    assert_eq!(
        (&passed["iat"], &passed["exp"]),
        (&NOW.into(), &(NOW + 300).into())
    );
    assert_eq!(passed["assertd_result"], "passed");
    let key = &passed["submods"]["ours/bank.1"];
    assert_eq!(key["assertd_level"], "tpm-certified");
    assert_eq!(key["cnf"]["jwk"]["alg"], "ES256");
    // A weaker policy is another one, and a bundle that fails proves no key.
    party.policy = "minimum = \"none\"\n".into();
    let (_, weaker) = result(&party);
    assert_ne!(weaker["assertd_policy"], passed["assertd_policy"]);
    party.now += 10_000;
    let (_, failed) = result(&party);
    assert_eq!(
        (&failed["assertd_result"], &failed["submods"]),
        (&"failed".into(), &Value::Null)
    );
}
