//! `[issuer.NAME]`: its URL, what it may assert, and the charter of its key.

use super::super::file::IssuerSection;
use super::*;
use keystore::charter::{LIFETIME_MAX_S, Typ};

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
    let url = file.claim(&section.url)?;
    // OIDC Discovery §3: https, no query, no fragment; `iss` must equal it character by character.
    if !url.starts_with("https://") || url.contains(['?', '#', ' ']) || url.len() < 9 {
        let message = "an issuer is an https URL without query and fragment (OIDC Discovery §3)";
        return file.error(section.url.span(), message);
    }
    if section.subjects.is_empty() {
        return file.error(
            section.url.span(),
            format!("issuer `{name}`: `subjects` is empty"),
        );
    }
    let mut subjects = Vec::new();
    for subject in &section.subjects {
        match SubjectPattern::try_from(subject.as_ref().clone()) {
            Ok(pattern) => subjects.push(pattern),
            Err(error) => return file.error(subject.span(), error.to_string()),
        }
    }
    let keystore = known_keystore(file, &section.keystore, keystores)?;
    let alg = section.alg.map_or(Alg::ES256, Spanned::into_inner);
    let lifetime_max_s = match &section.lifetime_max {
        None => ISSUER_LIFETIME_MAX_S,
        Some(seconds) if *seconds.as_ref() > LIFETIME_MAX_S => {
            return file.error(
                seconds.span(),
                format!("must be at most {LIFETIME_MAX_S} seconds"),
            );
        }
        Some(seconds) => file.positive(seconds)?,
    };
    let purpose = Purpose::Federation {
        iss: url.clone(),
        subjects: subjects.clone(),
    };
    let charter = Charter {
        purpose,
        alg,
        typ: Typ::Jwt,
        lifetime_max_s,
    };
    let key = KeyName::issuer(name).expect("the name was checked");
    Ok(Issuer {
        name: name.to_owned(),
        url,
        subjects,
        keystore,
        alg,
        key,
        charter: Arc::new(charter),
    })
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
