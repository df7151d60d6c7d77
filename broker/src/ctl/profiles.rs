//! `assertctl profiles`: the table of profiles, and those that the configuration has made of them,
//! for people who write a target and who register it at the other side.

use super::CONFIG;
use super::args::{Args, Format};
use super::failure::{Exit, Failure};
use super::out::Out;
use crate::config::Config;
use crate::profile::{Birth, Jti, Key, KidRule, Nbf, Origin, Profile, ROWS, Rule, Takes};
use keystore::charter::PurposeKind;
use keystore::config::suggest;
use keystore::{Alg, CertificateUse};
use serde::Serialize;
use std::path::Path;
use std::sync::Arc;

/// `profiles --json`
#[derive(Serialize)]
struct ProfilesJson<'a> {
    format: u32,
    profiles: Vec<ProfileJson<'a>>,
}

#[derive(Serialize)]
struct ProfileJson<'a> {
    name: &'a str,
    extends: Option<&'static str>,
    party: &'static str,
    purpose: PurposeKind,
    needs: Vec<&'static str>,
    may_have: Vec<&'static str>,
    typ: &'static str,
    header: Vec<Member>,
    claims: Vec<Member>,
    algs: &'a [Alg],
    lifetime_default_s: u32,
    lifetime_max_s: u32,
    key_made_by: &'static str,
    registration: &'static str,
    source: &'static str,
    tested: &'static str,
}

/// A member of header or claims, and where it comes from.
#[derive(Serialize)]
struct Member {
    name: &'static str,
    from: String,
}

/// Prints all profiles, or one with what is to be known of it.
pub fn show(args: &Args, name: Option<&str>, out: &mut Out) -> Result<Exit, Failure> {
    let mut profiles: Vec<Arc<Profile>> = ROWS.iter().map(Profile::of).collect();
    profiles.extend(own(args.config.as_deref())?);
    if let Some(name) = name {
        let names: Vec<String> = profiles.iter().map(|it| it.name.clone()).collect();
        profiles.retain(|profile| profile.name == name);
        if profiles.is_empty() {
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            let help = suggest(name, &names);
            let text = format!("there is no profile `{name}`; {help}");
            return Err(Failure::new(Exit::Refused, text));
        }
    }
    match (args.format, name) {
        (Format::Json, _) => {
            let profiles = profiles.iter().map(|profile| as_json(profile)).collect();
            out.json(&ProfilesJson {
                format: 1,
                profiles,
            })?;
        }
        (Format::Text, None) => out.table(&list(&profiles)),
        (Format::Text, Some(_)) => profiles.iter().for_each(|it| out.table(&details(it))),
    }
    Ok(Exit::Done)
}

/// The configuration's own. The shipped ones are of use without a configuration, so that only one
/// that was named has to be there and right.
fn own(path: Option<&Path>) -> Result<Vec<Arc<Profile>>, Failure> {
    let loaded = Config::load(path.unwrap_or(Path::new(CONFIG)));
    let config = match (loaded, path) {
        (Ok(config), _) => config,
        (Err(diagnostic), Some(_)) => {
            return Err(Failure::new(Exit::Configuration, diagnostic.to_string()));
        }
        (Err(_), None) => return Ok(Vec::new()),
    };
    let own = config.profiles.into_values();
    Ok(own.filter(|it| it.name != it.row.name).collect())
}

fn as_json(profile: &Profile) -> ProfileJson<'_> {
    let row = profile.row;
    let (needs, may_have) = keys(profile);
    ProfileJson {
        name: &profile.name,
        extends: (profile.name != row.name).then_some(row.name),
        party: row.party,
        purpose: row.purpose,
        needs,
        may_have,
        typ: row.typ.as_str(),
        header: header(profile),
        claims: claims(profile),
        algs: &profile.algs,
        lifetime_default_s: profile.lifetime_default_s,
        lifetime_max_s: profile.lifetime_max_s,
        key_made_by: match row.birth {
            Birth::Here => "keystore",
            Birth::AtTheVendor => "vendor",
        },
        registration: row.registration,
        source: row.source,
        tested: row.tested,
    }
}

fn list(profiles: &[Arc<Profile>]) -> Vec<Vec<String>> {
    let head = ["PROFILE", "PURPOSE", "ALGORITHMS", "LIFETIME"]
        .map(str::to_owned)
        .to_vec();
    let line = |profile: &Arc<Profile>| {
        vec![
            profile.name.clone(),
            purpose(profile).to_owned(),
            algs(profile),
            lifetime(profile),
        ]
    };
    std::iter::once(head)
        .chain(profiles.iter().map(line))
        .collect()
}

fn details(profile: &Profile) -> Vec<Vec<String>> {
    let row = profile.row;
    let mut lines = vec![("profile", profile.name.clone())];
    if profile.name != row.name {
        lines.push(("extends", row.name.to_owned()));
    }
    let (needs, may_have) = keys(profile);
    // Of these the target needs one, and not both (Rule::AudienceOrScope).
    let one_of = [Key::Audience.as_str(), Key::Scope.as_str()];
    let (either, may_have): (Vec<_>, Vec<_>) = may_have
        .into_iter()
        .partition(|key| has_choice(profile) && one_of.contains(key));
    let mut needs = needs.join(", ");
    if !either.is_empty() {
        needs += &format!(", {}", either.join(" or "));
    }
    let keys = format!("{needs}; optional: {}", may_have.join(", "));
    lines.extend([
        ("for", row.party.to_owned()),
        ("purpose", purpose(profile).to_owned()),
        ("target needs", keys),
    ]);
    let members = |title: &'static str, members: Vec<Member>| {
        let titles = std::iter::once(title).chain(std::iter::repeat(""));
        let texts = members
            .into_iter()
            .map(|Member { name, from }| format!("{name}: {from}"));
        titles.zip(texts).collect::<Vec<_>>()
    };
    lines.extend(members("header", header(profile)));
    lines.extend(members("claims", claims(profile)));
    lines.extend([
        ("lifetime", lifetime(profile)),
        ("register there", row.registration.to_owned()),
        ("source", row.source.to_owned()),
        ("tested with", row.tested.to_owned()),
    ]);
    lines
        .into_iter()
        .map(|(name, value)| vec![name.to_owned(), value])
        .collect()
}

/// Whether a target has an audience or a scope, and the profile has fixed neither.
fn has_choice(profile: &Profile) -> bool {
    let mut rules = profile.row.rules.iter();
    profile.audience.is_none() && rules.any(|(_, rule)| *rule == Rule::AudienceOrScope)
}

/// The keys of a target: those that it needs, and those that may be left out.
fn keys(profile: &Profile) -> (Vec<&'static str>, Vec<&'static str>) {
    let those = |takes: Takes| {
        let keys = Key::ALL
            .into_iter()
            .filter(move |key| profile.takes(*key) == takes);
        keys.map(Key::as_str)
    };
    let (first, last): (&[&str], &[&str]) = match profile.row.purpose {
        PurposeKind::ClientAuthentication | PurposeKind::Account => {
            let most: &[&str] = match profile.row.certificate {
                CertificateUse::None => &["keystore", "alg", "lifetime", "rotation", "key"],
                CertificateUse::Allowed | CertificateUse::Named => &[
                    "keystore",
                    "alg",
                    "lifetime",
                    "rotation",
                    "key",
                    "certificate",
                ],
            };
            (&[], most)
        }
        PurposeKind::Federation => (&["issuer"], &["lifetime", "reuse", "shared"]),
    };
    (
        first.iter().copied().chain(those(Takes::Needs)).collect(),
        those(Takes::May).chain(last.iter().copied()).collect(),
    )
}

fn header(profile: &Profile) -> Vec<Member> {
    let algs = match (profile.row.purpose, profile.algs.as_slice()) {
        (PurposeKind::Federation, _) => format!("the issuer's `alg`; of {}", algs(profile)),
        (_, [one]) => one.name().to_owned(),
        _ => format!("{} (the first is the default)", algs(profile)),
    };
    let mut members = vec![
        Member {
            name: "alg",
            from: algs,
        },
        Member {
            name: "typ",
            from: profile.row.typ.as_str().to_owned(),
        },
    ];
    let kid = match profile.row.kid {
        KidRule::Absent => None,
        KidRule::Thumbprint => Some("the key's RFC 7638 thumbprint"),
        KidRule::MayBeAssigned => Some("`kid`; left out, the key's RFC 7638 thumbprint"),
    };
    members.extend(kid.map(|from| Member {
        name: "kid",
        from: from.to_owned(),
    }));
    if profile.row.certificate == CertificateUse::Named {
        members.push(Member {
            name: "x5t#S256",
            from: "the SHA-256 of the key's certificate".to_owned(),
        });
    }
    members
}

fn claims(profile: &Profile) -> Vec<Member> {
    let row = profile.row;
    let mut members = Vec::new();
    for (name, origin) in [
        ("iss", row.iss),
        ("sub", row.sub),
        ("aud", row.aud),
        ("scope", row.scope),
    ] {
        let from = match (&profile.audience, name) {
            (Some(fixed), "aud") => Some(format!("{fixed}, fixed by the profile")),
            _ => from(origin),
        };
        members.extend(from.map(|from| Member { name, from }));
    }
    let iat = match row.backdate_s {
        0 => "now".to_owned(),
        seconds => format!("{seconds} s ago"),
    };
    let jti = match row.jti {
        Jti::Absent => None,
        Jti::Short => Some("16 random bytes".to_owned()),
        Jti::Uuid => Some("a random UUID".to_owned()),
    };
    let nbf = match row.nbf {
        Nbf::Absent => None,
        Nbf::AsIat => Some(iat.clone()),
    };
    let exp = "now and the lifetime".to_owned();
    for (name, from) in [
        ("jti", jti),
        ("iat", Some(iat)),
        ("nbf", nbf),
        ("exp", Some(exp)),
    ] {
        members.extend(from.map(|from| Member { name, from }));
    }
    members
}

/// Where a claim comes from; none if there is no such claim.
fn from(origin: Origin) -> Option<String> {
    let key = |key: Key| format!("`{}`", key.as_str());
    match origin {
        Origin::Nothing => None,
        Origin::IssuerUrl => Some("the `url` of the issuer".to_owned()),
        Origin::Key(it) => Some(key(it)),
        Origin::IfThere(it) => Some(format!("{}, if it is there", key(it))),
        Origin::KeyOr(it, constant) => Some(format!("{}; left out, {constant}", key(it))),
        Origin::KeyUnless(it, other) => Some(format!("{}; none with {}", key(it), key(other))),
        Origin::AccountUser => Some("`account`.`user`".to_owned()),
        Origin::AccountUserKey => {
            Some("`account`.`user`.SHA256:FINGERPRINT, of the key that signs".to_owned())
        }
    }
}

fn purpose(profile: &Profile) -> &'static str {
    match profile.row.purpose {
        PurposeKind::ClientAuthentication => "client authentication",
        PurposeKind::Federation => "federation",
        PurposeKind::Account => "an account",
    }
}

fn algs(profile: &Profile) -> String {
    let names: Vec<&str> = profile.algs.iter().map(|alg| alg.name()).collect();
    names.join(" ")
}

fn lifetime(profile: &Profile) -> String {
    format!(
        "{} s, at most {} s",
        profile.lifetime_default_s, profile.lifetime_max_s
    )
}
