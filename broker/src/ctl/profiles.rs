//! `assertctl profiles`: the table of profiles, for people who write a target.

use super::args::{Args, Format};
use super::failure::{Exit, Failure};
use super::out::Out;
use crate::profile::{Key, Origin, ROWS, Row, Takes};
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
    party: &'static str,
    purpose: PurposeKind,
    typ: &'static str,
    algs: &'static [Alg],
    lifetime_default_s: u32,
    lifetime_max_s: u32,
    registration: &'static str,
    source: &'static str,
    tested: &'static str,
}

/// Prints all profiles, or one with where it comes from.
pub fn show(args: &Args, name: Option<&str>, out: &mut Out) -> Result<Exit, Failure> {
    let chosen: Vec<&Row> = match name {
        None => ROWS.iter().collect(),
        Some(name) => match Row::named(name) {
            Some(row) => vec![row],
            None => {
                let help = suggest(name, &Row::names());
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
        (Format::Text, Some(_)) => chosen.into_iter().for_each(|row| out.table(&details(row))),
    }
    Ok(Exit::Done)
}

fn as_json(row: &Row) -> ProfileJson {
    ProfileJson {
        name: row.name,
        party: row.party,
        purpose: row.purpose,
        typ: row.typ.as_str(),
        algs: row.algs,
        lifetime_default_s: row.lifetime_default_s,
        lifetime_max_s: row.lifetime_max_s,
        registration: row.registration,
        source: row.source,
        tested: row.tested,
    }
}

fn list(rows: &[&Row]) -> Vec<Vec<String>> {
    let head = ["PROFILE", "PURPOSE", "ALGORITHMS", "LIFETIME"]
        .map(str::to_owned)
        .to_vec();
    let line = |row: &&Row| {
        vec![
            row.name.to_owned(),
            purpose(row).to_owned(),
            algs(row),
            lifetime(row),
        ]
    };
    std::iter::once(head).chain(rows.iter().map(line)).collect()
}

fn details(row: &Row) -> Vec<Vec<String>> {
    [
        ("profile", row.name.to_owned()),
        ("for", row.party.to_owned()),
        ("purpose", purpose(row).to_owned()),
        ("target needs", keys(row)),
        (
            "header",
            format!("alg, typ {}, kid (the key's thumbprint)", row.typ.as_str()),
        ),
        ("iss", iss(row)),
        ("sub", origin(row.sub)),
        ("aud", origin(row.aud)),
        ("also", "jti (16 random bytes), iat (now), exp".to_owned()),
        (
            "algorithms",
            format!("{} (the first is the default)", algs(row)),
        ),
        ("lifetime", lifetime(row)),
        ("register there", row.registration.to_owned()),
        ("source", row.source.to_owned()),
        ("tested with", row.tested.to_owned()),
    ]
    .map(|(name, value)| vec![name.to_owned(), value])
    .to_vec()
}

/// The keys of a target, those that may be left out behind the others.
fn keys(row: &Row) -> String {
    let those = |takes: Takes| {
        let keys = Key::ALL
            .into_iter()
            .filter(move |key| row.takes(*key) == takes);
        keys.map(Key::as_str)
    };
    let (first, last): (&[&str], &[&str]) = match row.purpose {
        PurposeKind::ClientAuthentication => (&[], &["keystore", "alg", "lifetime"]),
        PurposeKind::Federation => (&["issuer"], &["lifetime", "reuse", "shared"]),
    };
    let needed: Vec<&str> = first.iter().copied().chain(those(Takes::Needs)).collect();
    let optional: Vec<&str> = those(Takes::May).chain(last.iter().copied()).collect();
    format!("{}; optional: {}", needed.join(", "), optional.join(", "))
}

fn iss(row: &Row) -> String {
    match row.purpose {
        PurposeKind::ClientAuthentication => origin(row.sub),
        PurposeKind::Federation => "the `url` of the issuer".to_owned(),
    }
}

fn origin(origin: Origin) -> String {
    match origin {
        Origin::Key(key) => format!("`{}`", key.as_str()),
        Origin::KeyOr(key, constant) => format!("`{}`; left out, {constant}", key.as_str()),
    }
}

fn purpose(row: &Row) -> &'static str {
    match row.purpose {
        PurposeKind::ClientAuthentication => "client authentication",
        PurposeKind::Federation => "federation",
    }
}

fn algs(row: &Row) -> String {
    let names: Vec<&str> = row.algs.iter().map(|alg| alg.name()).collect();
    names.join(" ")
}

fn lifetime(row: &Row) -> String {
    format!(
        "{} s, at most {} s",
        row.lifetime_default_s, row.lifetime_max_s
    )
}
