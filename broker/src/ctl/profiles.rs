//! `assertctl profiles`: the table of profiles, for people who write a target.

use super::args::{Args, Format};
use super::failure::{Exit, Failure};
use super::out::Out;
use crate::profile::{PROFILES, Profile};
use keystore::Alg;
use keystore::charter::PurposeKind;
use keystore::config::suggest;
use serde::Serialize;

/// `profiles --json`
#[derive(Serialize)]
struct ProfilesJson {
    format: u32,
    profiles: Vec<ProfileJson>,
}

#[derive(Serialize)]
struct ProfileJson {
    name: &'static str,
    purpose: PurposeKind,
    typ: &'static str,
    algs: &'static [Alg],
    lifetime_default_s: u32,
    lifetime_max_s: u32,
    source: &'static str,
    tested: &'static str,
}

/// Prints all profiles, or one with where it comes from.
pub fn show(args: &Args, name: Option<&str>, out: &mut Out) -> Result<Exit, Failure> {
    let chosen: Vec<&Profile> = match name {
        None => PROFILES.iter().collect(),
        Some(name) => match Profile::named(name) {
            Some(profile) => vec![profile],
            None => {
                let help = suggest(name, &Profile::names());
                let text = format!("there is no profile `{name}`; {help}");
                return Err(Failure::new(Exit::Refused, text));
            }
        },
    };
    match (args.format, name) {
        (Format::Json, _) => {
            let profiles = chosen.into_iter().map(as_json).collect();
            out.json(&ProfilesJson {
                format: 1,
                profiles,
            })?;
        }
        (Format::Text, None) => out.table(&list(&chosen)),
        (Format::Text, Some(_)) => chosen.into_iter().for_each(|p| out.table(&details(p))),
    }
    Ok(Exit::Done)
}

fn as_json(profile: &Profile) -> ProfileJson {
    ProfileJson {
        name: profile.name,
        purpose: profile.purpose,
        typ: profile.typ.as_str(),
        algs: profile.algs,
        lifetime_default_s: profile.lifetime_default_s,
        lifetime_max_s: profile.lifetime_max_s,
        source: profile.source,
        tested: profile.tested,
    }
}

fn list(profiles: &[&Profile]) -> Vec<Vec<String>> {
    let head = ["PROFILE", "PURPOSE", "ALGORITHMS", "LIFETIME"]
        .map(str::to_owned)
        .to_vec();
    let row = |profile: &&Profile| {
        vec![
            profile.name.to_owned(),
            purpose(profile).to_owned(),
            algs(profile),
            lifetime(profile),
        ]
    };
    std::iter::once(head)
        .chain(profiles.iter().map(row))
        .collect()
}

fn details(profile: &Profile) -> Vec<Vec<String>> {
    let keys = match profile.purpose {
        PurposeKind::ClientAuthentication => {
            "authorization_server, client_id; optional: keystore, alg, lifetime"
        }
        PurposeKind::Federation => "issuer, subject, audience; optional: lifetime, reuse, shared",
    };
    [
        ("profile", profile.name.to_owned()),
        ("purpose", purpose(profile).to_owned()),
        ("target needs", keys.to_owned()),
        ("header typ", profile.typ.as_str().to_owned()),
        (
            "algorithms",
            format!("{} (the first is the default)", algs(profile)),
        ),
        ("lifetime", lifetime(profile)),
        ("source", profile.source.to_owned()),
        ("tested with", profile.tested.to_owned()),
    ]
    .map(|(name, value)| vec![name.to_owned(), value])
    .to_vec()
}

fn purpose(profile: &Profile) -> &'static str {
    match profile.purpose {
        PurposeKind::ClientAuthentication => "client authentication",
        PurposeKind::Federation => "federation",
    }
}

fn algs(profile: &Profile) -> String {
    profile
        .algs
        .iter()
        .map(|alg| alg.name())
        .collect::<Vec<_>>()
        .join(" ")
}

fn lifetime(profile: &Profile) -> String {
    format!(
        "{} s, at most {} s",
        profile.lifetime_default_s, profile.lifetime_max_s
    )
}
