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
        let seen = report
            .verdicts
            .iter()
            .map(|it| (it.check, it.about.clone()));
        let seen: BTreeSet<(Check, String)> = seen.collect();
        assert_eq!(seen, expected(bundle, &report), "what was looked at");
        failed
    }
}

/// The checks of a healthy host.
static HEALTHY: LazyLock<BTreeSet<Check>> = LazyLock::new(|| {
    let world = World::new();
    let report = Party::of(&world).asks(world.bundle().to_json().as_bytes());
    report.verdicts.iter().map(|it| it.check).collect()
});

/// Those of a key in a token.
const ASSERTED: [Check; 5] = [
    Check::KeyScheme,
    Check::KeyJwk,
    Check::AssertedAttributes,
    Check::KeyOrigin,
    Check::Level,
];

/// What a report on this bundle has to have a verdict on, whatever came of it: each check of a healthy host, of every TPM
/// and every key that is in it.
fn expected(bundle: &Bundle, report: &Report) -> BTreeSet<(Check, String)> {
    let is_of_whole = |it: &Check| {
        matches!(
            it,
            Check::Bundle | Check::Nonce | Check::NonceUse | Check::Age | Check::Proof
        )
    };
    let is_of_key = |it: &Check| {
        (Check::CertifySignature..=Check::KeyPolicy).contains(it) || *it == Check::Level
    };
    let is_of_quote = |it: &Check| (Check::QuoteSignature..=Check::Ima).contains(it);
    let of = |checks: Vec<Check>, about: &str| -> Vec<(Check, String)> {
        let about = |check| (check, about.to_owned());
        checks.into_iter().map(about).collect()
    };
    let healthy = |is: &dyn Fn(&Check) -> bool| HEALTHY.iter().copied().filter(is).collect();
    let mut all = of(healthy(&is_of_whole), "");
    let is_read = report.host.is_some();
    for keystore in bundle.keystores.iter().filter(|_| is_read) {
        let tpm = match keystore {
            KeystoreEvidence::Tpm(tpm) => tpm,
            KeystoreEvidence::Pkcs11(token) => {
                let keys = token.keys.iter();
                all.extend(keys.flat_map(|key| of(ASSERTED.to_vec(), &key.key.to_string())));
                continue;
            }
        };
        let name = tpm.name.as_str();
        let is_left_out = report.verdicts.iter().any(|it| {
            (it.check, it.about.as_str()) == (Check::Quote, name)
                && matches!(it.outcome, Outcome::Skipped { .. })
        });
        let is_of_tpm = |it: &Check| !is_of_whole(it) && !is_of_key(it);
        let is_its = |it: &Check| is_of_tpm(it) && !(is_left_out && is_of_quote(it));
        all.extend(of(healthy(&is_its), name));
        for key in &tpm.keys {
            all.extend(of(healthy(&is_of_key), &key.key.to_string()));
        }
    }
    let number = all.len();
    let all: BTreeSet<(Check, String)> = all.into_iter().collect();
    assert_eq!((number, number), (all.len(), report.verdicts.len()));
    all
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
    let answer = |party: &Party, world: &World| {
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
    let result = |party: &Party| answer(party, &world);
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
    // Which roots and which TPM stand in files that the policy names, and may be others.
    let digest = |bytes: &[u8]| keystore::evidence::hash::Hash::Sha256.of(&[bytes]);
    let enrolled = world.enrolled();
    let tpm = serde_json::json!([{
        "keystore": "tpm",
        "ek": enrolled.ek.to_string(),
        "ak_name": BASE64URL.encode(enrolled.ak_name.as_slice()),
    }]);
    assert_eq!(passed["assertd_tpms"], tpm);
    let roots = BASE64URL.encode(digest(&digest(&world.root.certificate())));
    assert_eq!(passed["assertd_roots"], roots);
    let elsewhere = World {
        ak: fixture::secret(30),
        ek: fixture::secret(31),
        ..world.clone()
    };
    let mut other = Party::of(&elsewhere);
    let more = fixture::Authority::new(32, "More");
    other.roots.push(CertificateDer::from(more.certificate()));
    let (_, other) = answer(&other, &elsewhere);
    assert_eq!(
        (&other["assertd_host"], &other["assertd_result"]),
        (&passed["assertd_host"], &passed["assertd_result"])
    );
    assert_eq!(other["assertd_policy"], passed["assertd_policy"]);
    let ek = elsewhere.enrolled().ek.to_string();
    assert_eq!(other["assertd_tpms"][0]["ek"], ek);
    assert_ne!(other["assertd_tpms"][0]["ak_name"], tpm[0]["ak_name"]);
    let both = [
        digest(&world.root.certificate()),
        digest(&more.certificate()),
    ];
    let both = BASE64URL.encode(digest(&both.concat()));
    assert_eq!(other["assertd_roots"], both);
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
    assert_eq!(failed["assertd_tpms"], Value::Null);
}
