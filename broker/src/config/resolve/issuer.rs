//! `[issuer.NAME]`: its URL, what it may assert, and the charter of its key.

use super::super::file::{Activated, IssuerSection, RotationSection};
use super::super::url::Https;
use super::*;
use crate::lifecycle::Gate;
use crate::profile::spiffe;
use keystore::charter::{CertificateUse, KidMember, LIFETIME_MAX_S, SUBJECTS_MAX, Typ};

/// Default for an issuer's `lifetime_max`, in seconds: a token file's hour.
const ISSUER_LIFETIME_MAX_S: u32 = 3600;

pub fn issuers(
    file: &File,
    sections: BTreeMap<Spanned<String>, Spanned<IssuerSection>>,
    keystores: &BTreeMap<String, KeystoreSection>,
) -> Result<BTreeMap<String, Arc<Issuer>>> {
    let mut issuers = BTreeMap::new();
    for (name, section) in sections {
        file.name(&name)?;
        let issuer = issuer(file, name.as_ref(), section.into_inner(), keystores)?;
        issuers.insert(name.into_inner(), Arc::new(issuer));
    }
    Ok(issuers)
}

fn issuer(
    file: &File,
    name: &str,
    section: IssuerSection,
    keystores: &BTreeMap<String, KeystoreSection>,
) -> Result<Issuer> {
    let url = file.claim("url", &section.url)?;
    // OIDC Discovery §3: https, no query, no fragment; `iss` must equal it character by character.
    if !url.starts_with("https://") || url.contains(['?', '#', ' ']) || url.len() < 9 {
        let message = "`url` must be an https URL without query and fragment (OIDC Discovery §3), such as \
                       https://id.example.com/prod";
        return file.error(section.url.span(), message);
    }
    let subjects = subjects(file, name, &section.subjects)?;
    let trust_domain = trust_domain(file, &section)?;
    let keystore = known_keystore(file, &section.keystore, keystores)?;
    let alg = section.alg.map_or(Alg::ES256, Spanned::into_inner);
    let lifetime_max_s = match &section.lifetime_max {
        None => ISSUER_LIFETIME_MAX_S,
        Some(seconds) if *seconds.as_ref() > LIFETIME_MAX_S => {
            let message =
                format!("`lifetime_max` must be {LIFETIME_MAX_S} seconds (a day) at most");
            return file.error(seconds.span(), message);
        }
        Some(seconds) => file.positive("lifetime_max", seconds)?,
    };
    let purpose = Purpose::Federation {
        iss: url.clone(),
        subjects: subjects.clone(),
    };
    let charter = Charter {
        purpose,
        alg,
        typ: Typ::Jwt,
        kid: KidMember::Thumbprint,
        lifetime_max_s,
        backdate_s: 0,
        certificate: CertificateUse::None,
    };
    let key = KeyName::issuer(name).expect("the name was checked");
    let verify_url = verify_url(file, section.verify_url.as_ref())?;
    let gate = match verify_url {
        Some(_) => Gate::ReadBack,
        None => Gate::Written,
    };
    has_no_canary(file, section.rotation.as_ref())?;
    let told = rotation::Told::Fetches(gate);
    let schedule = rotation::schedule(file, section.rotation.as_ref(), told, lifetime_max_s)?;
    Ok(Issuer {
        name: name.to_owned(),
        url,
        trust_domain,
        subjects,
        keystore,
        alg,
        key,
        charter: Arc::new(charter),
        schedule,
        verify_url,
    })
}

/// Nobody gives an issuer an access token: who verifies fetches its set, and `verify_url` shows what it finds.
fn has_no_canary(file: &File, rotation: Option<&Spanned<RotationSection>>) -> Result<()> {
    let Some(rotation) = rotation.map(Spanned::as_ref) else {
        return Ok(());
    };
    let activation = rotation.activation.as_ref();
    let by_canary = activation.filter(|it| matches!(it.as_ref(), Activated::Canary));
    let canary = rotation.canary.as_ref().map(Spanned::span);
    match by_canary.map(Spanned::span).or(canary) {
        None => Ok(()),
        Some(at) => {
            let message = "an issuer's key has no canary: whoever verifies fetches its set; `verify_url` has \
                           assertd look at it first";
            file.error(at, message)
        }
    }
}

/// The broker only remembers it: assertd-courier reads the same files, and fetches what they say.
fn verify_url(file: &File, written: Option<&Spanned<String>>) -> Result<Option<String>> {
    let Some(written) = written else {
        return Ok(None);
    };
    match Https::parse(written.as_ref()) {
        Ok(_) => Ok(Some(written.as_ref().clone())),
        Err(why) => {
            let message = format!(
                "`verify_url` {why}; it is where the issuer's JWKS is published, such as \
                 https://id.example.com/prod/jwks.json"
            );
            file.error(written.span(), message)
        }
    }
}

fn subjects(
    file: &File,
    issuer: &str,
    written: &Spanned<Vec<Spanned<String>>>,
) -> Result<Vec<SubjectPattern>> {
    let count = written.as_ref().len();
    if count == 0 {
        let message = format!(
            "`subjects` is empty, so that issuer `{issuer}` could assert nothing; name what it may: \
             \"payments\", or \"reports-*\""
        );
        return file.error(written.span(), message);
    }
    if count > SUBJECTS_MAX {
        let message = format!(
            "{count} subjects are more than a key's charter holds ({SUBJECTS_MAX}); use prefixes \
             (\"reports-*\"), or a second issuer"
        );
        return file.error(written.span(), message);
    }
    let pattern = |subject: &Spanned<String>| {
        let pattern = SubjectPattern::try_from(subject.as_ref().clone());
        pattern.or_else(|error| file.error(subject.span(), error.to_string()))
    };
    written.as_ref().iter().map(pattern).collect()
}

/// The trust domain, of which are then all SPIFFE IDs that the key may ever assert: what its charter
/// holds is what bounds a broker.
fn trust_domain(file: &File, section: &IssuerSection) -> Result<Option<String>> {
    let Some(written) = &section.trust_domain else {
        return Ok(None);
    };
    let name = written.as_ref();
    if let Err(why) = spiffe::is_trust_domain(name) {
        return file.error(written.span(), format!("`trust_domain`: {why}"));
    }
    let inside = format!("spiffe://{name}/");
    for subject in section.subjects.as_ref() {
        let text = subject.as_ref();
        if text.starts_with("spiffe:") && !text.starts_with(&inside) {
            let message = format!(
                "subject `{text}` reaches beyond the issuer's trust domain: a SPIFFE ID of it begins with \
                 {inside}"
            );
            return file.error(subject.span(), message);
        }
    }
    Ok(Some(name.clone()))
}

pub fn known_keystore(
    file: &File,
    name: &Spanned<String>,
    keystores: &BTreeMap<String, KeystoreSection>,
) -> Result<String> {
    if keystores.contains_key(name.as_ref()) {
        return Ok(name.as_ref().clone());
    }
    let names: Vec<&str> = keystores.keys().map(String::as_str).collect();
    file.unknown("keystore", name, &names)
}
