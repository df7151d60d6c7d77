//! `[profile.NAME]`: a shipped profile, made narrower by an administrator: a shorter life, fewer
//! algorithms, one audience. Whatever would widen it is refused with both numbers.

use super::super::file::ProfileSection;
use super::*;
use crate::profile::{Key, Of, Profile, ROWS, Row, Takes};

/// Every profile that targets may name: those that are shipped, and the configuration's own.
pub fn profiles(
    file: &File,
    sections: BTreeMap<Spanned<String>, Spanned<ProfileSection>>,
) -> Result<BTreeMap<String, Arc<Profile>>> {
    let shipped = ROWS
        .iter()
        .map(|row| (row.name.to_owned(), Profile::of(row)));
    let mut profiles: BTreeMap<String, Arc<Profile>> = shipped.collect();
    for (name, section) in sections {
        file.name(&name)?;
        if profiles.contains_key(name.as_ref()) {
            let message = format!(
                "`{}` is the name of a shipped profile: call this one otherwise",
                name.as_ref()
            );
            return file.error(name.span(), message);
        }
        let profile = narrowed(file, name.as_ref(), section.as_ref())?;
        profiles.insert(name.into_inner(), Arc::new(profile));
    }
    Ok(profiles)
}

fn narrowed(file: &File, name: &str, section: &ProfileSection) -> Result<Profile> {
    let Some(row) = Row::named(section.extends.as_ref()) else {
        return file.unknown("shipped profile", &section.extends, &Row::names());
    };
    let lifetime_max_s = match &section.lifetime_max {
        None => row.lifetime_max_s,
        Some(most) => at_most(file, "lifetime_max", most, row.lifetime_max_s, row.name)?,
    };
    let lifetime_default_s = match &section.lifetime {
        None => row.lifetime_default_s.min(lifetime_max_s),
        Some(seconds) => at_most(file, "lifetime", seconds, lifetime_max_s, name)?,
    };
    Ok(Profile {
        name: name.to_owned(),
        row,
        algs: algs(file, row, section)?,
        lifetime_default_s,
        lifetime_max_s,
        audience: audience(file, row, section)?,
    })
}

/// Seconds that are no more than the profile `of` allows.
fn at_most(file: &File, key: &str, seconds: &Spanned<u32>, most: u32, of: &str) -> Result<u32> {
    let wanted = file.positive(key, seconds)?;
    if wanted > most {
        let message = format!(
            "`{key}` is {wanted} s, {} s more than the {most} s of profile `{of}`: a profile may only narrow",
            wanted - most
        );
        return file.error(seconds.span(), message);
    }
    Ok(wanted)
}

fn algs(file: &File, row: &Row, section: &ProfileSection) -> Result<Vec<Alg>> {
    let Some(written) = &section.algs else {
        return Ok(row.algs.to_vec());
    };
    if written.as_ref().is_empty() {
        return file.error(written.span(), "`algs` is empty, so that no key would do");
    }
    for alg in written.as_ref() {
        if !row.algs.contains(alg.as_ref()) {
            let names: Vec<&str> = row.algs.iter().map(|alg| alg.name()).collect();
            let message = format!(
                "{} is not among the algorithms of profile `{}` ({}): a profile may only narrow",
                alg.as_ref(),
                row.name,
                names.join(", ")
            );
            return file.error(alg.span(), message);
        }
    }
    Ok(written.as_ref().iter().map(|alg| *alg.as_ref()).collect())
}

/// The one audience that its targets then have, by the vendor's rules.
fn audience(file: &File, row: &Row, section: &ProfileSection) -> Result<Option<String>> {
    let Some(written) = &section.audience else {
        return Ok(None);
    };
    let value = file.claim("audience", written)?;
    if row.takes(Key::Audience) == Takes::Not {
        let message = format!(
            "profile `{}` has no `audience` that could be fixed: remove it",
            row.name
        );
        return file.error(written.span(), message);
    }
    for (of, rule) in row.rules {
        if let (Of::Key(Key::Audience), Err(must)) = (of, rule.check(&value, None)) {
            let message = format!("profile `{}`: `audience` {must}", row.name);
            return file.error(written.span(), message);
        }
    }
    Ok(Some(value))
}
