//! The verifier: a bundle, a nonce, a policy and what was enrolled in, a report out. Each part of it is
//! one of the algorithms of standards §4: [`ak`] is V-AK, [`certify`] V-CERTIFY, [`quote`] V-QUOTE.

mod ak;
mod asserted;
mod certify;
mod logs;
mod quote;
mod state;

pub use ak::{
    attributes as ak_attributes, certificate as ek_certificate, hierarchy as ak_hierarchy,
};
pub use rustls_pki_types::CertificateDer;

use super::bundle::{Bundle, KeystoreEvidence, Nonce, TpmEvidence};
use super::enrolment::registry::Registry;
use super::nonces::{Age, NonceUse};
use super::policy::Policy;
use super::verdict::{Check, Done, Finding, Report};

/// All that a verdict depends on.
#[derive(Clone, Copy)]
pub struct Question<'a> {
    /// What the host has handed out.
    pub evidence: &'a [u8],
    /// The nonce that it is to answer.
    pub nonce: &'a Nonce,
    /// Whether it may still be answered.
    pub nonce_use: NonceUse,
    /// What is wanted.
    pub policy: &'a Policy,
    /// The roots that the policy names.
    pub roots: &'a [CertificateDer<'static>],
    /// What was enrolled.
    pub registry: &'a Registry,
    /// In seconds since 1970.
    pub now: u64,
}

/// Answers it.
pub fn verify(question: &Question<'_>) -> Report {
    let mut report = Report::default();
    let bundle = report.look(Check::Bundle, "", Ok(()), |()| {
        Finding::of(Bundle::parse(question.evidence))
    });
    let nonce = report.look(
        Check::Nonce,
        "",
        bundle.as_ref().map_err(|it| *it),
        |bundle| match bundle.nonce == *question.nonce {
            true => Finding::Passed(()),
            false => Finding::Failed("it answers another nonce".into()),
        },
    );
    let _ = report.look(Check::NonceUse, "", nonce, |()| nonce_use(question));
    let _ = report.look(
        Check::Age,
        "",
        bundle.as_ref().map_err(|it| *it),
        |bundle| age(bundle.made_at, question),
    );
    let Ok(bundle) = bundle else {
        let _ = report.look(
            Check::Proof,
            "",
            Err::<(), _>(Check::Bundle),
            Finding::Passed,
        );
        return report;
    };
    report.host = Some(bundle.host.clone());
    for keystore in &bundle.keystores {
        match keystore {
            KeystoreEvidence::Tpm(tpm) => tpm_keystore(question, &bundle, tpm, nonce, &mut report),
            KeystoreEvidence::Pkcs11(it) => asserted::keys(question.policy, it, &mut report),
        }
    }
    let proves = proves(question, &bundle, &report);
    let _ = report.look(Check::Proof, "", Ok(()), |()| Finding::of(proves));
    report
}

/// Whether there is something that the other checks were about: none of them fails over what is not there.
fn proves(question: &Question<'_>, bundle: &Bundle, report: &Report) -> Result<(), &'static str> {
    let is_tpm = |it: &KeystoreEvidence| matches!(it, KeystoreEvidence::Tpm(_));
    if report.keys.is_empty() {
        return Err("there is no key in it: it proves nothing");
    }
    match question.policy.quote.is_some() && !bundle.keystores.iter().any(is_tpm) {
        true => Err("the policy wants the state of the host, and no TPM is in it"),
        false => Ok(()),
    }
}

fn tpm_keystore(
    question: &Question<'_>,
    bundle: &Bundle,
    tpm: &TpmEvidence,
    nonce: Done<()>,
    report: &mut Report,
) {
    let session = Session {
        question,
        bundle,
        tpm,
        nonce,
    };
    let vetted = ak::vet(&session, report);
    let vetted = vetted.as_ref().map_err(|check| *check);
    let mut statements = Vec::new();
    for key in &tpm.keys {
        statements.push(certify::key(&session, key, vetted, report));
    }
    quote::state(&session, vetted, statements, report);
}

/// What the parts look at.
struct Session<'a> {
    question: &'a Question<'a>,
    bundle: &'a Bundle,
    tpm: &'a TpmEvidence,
    nonce: Done<()>,
}

fn nonce_use(question: &Question<'_>) -> Finding<()> {
    let most = question.policy.max_age_s;
    let made_at = match question.nonce_use {
        NonceUse::NotKept => {
            let reason = "no nonces are kept here: that each is answered once, and soon, is up to who calls \
                          (`assertctl nonce`, and `verify --record`)";
            return Finding::Skipped((), reason.into());
        }
        NonceUse::NotOpen => {
            let reason = "this nonce is not open: it was answered already, has grown too old, or was not \
                          made here (`assertctl nonce` makes one)";
            return Finding::Failed(reason.into());
        }
        NonceUse::Open { made_at } => made_at,
    };
    match Age::of(made_at, question.now, most) {
        Age::Young => Finding::Passed(()),
        Age::Old(age) => Finding::Failed(format!(
            "the nonce was made {age} s ago, and the policy allows {most}"
        )),
        Age::Ahead(ahead) => Finding::Failed(format!(
            "the nonce was made {ahead} s from now: the clock of this machine was set"
        )),
    }
}

fn age(made_at: u64, question: &Question<'_>) -> Finding<()> {
    let most = question.policy.max_age_s;
    match Age::of(made_at, question.now, most) {
        Age::Young => Finding::Passed(()),
        Age::Old(age) => {
            Finding::Failed(format!("it is {age} s old, and the policy allows {most}"))
        }
        Age::Ahead(ahead) => Finding::Failed(format!(
            "by the host's clock it was made {ahead} s from now"
        )),
    }
}
