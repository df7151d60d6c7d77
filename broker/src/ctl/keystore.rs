//! `assertctl keystore check`: everything about one keystore, from the host's side (program, unit,
//! device or module, credential) and from the keystore's own. What the host shows needs no token and
//! is said also where the keystore is dead; what the keystore says, it says on its own socket, which
//! is asked here as `apply` asks it. Changes nothing.

use super::args::{Args, Format};
use super::doctor::finding::{CONFIG_LOADS, Finding, Severity};
use super::doctor::site::{NotLoaded, Site};
use super::doctor::{lines, only_root};
use super::failure::{Exit, Failure};
use super::out::Out;
use serde::Serialize;

mod ask;
mod local;

/// `keystore check --json`
#[derive(Serialize)]
struct KeystoreCheckJson<'a> {
    format: u32,
    keystore: &'a str,
    ok: bool,
    findings: &'a [Finding],
}

/// Looks at the keystore of that name, or at the only one. Warnings alone are no failure.
pub fn run(args: &Args, name: Option<&str>, out: &mut Out) -> Result<Exit, Failure> {
    only_root("keystore check")?;
    let mut site = Site::look(args.config.as_deref());
    let name = choose(&site, name)?;
    // Whatever is looked at from here on is about this one.
    site.keystores.retain(|other, _| *other == name);
    let section = site.keystores[&name].clone();
    let socket = args.socket.clone();
    let socket = socket.unwrap_or_else(|| site.keystore_socket(&name, &section));

    let mut found = Vec::new();
    if let Err(NotLoaded::Mistake(mistake)) = &site.config {
        let remedy =
            "correct it (`assertctl config check`); the keystore reads its own section alone";
        found.push(CONFIG_LOADS.fail(mistake.to_string(), remedy));
    }
    found.extend(local::findings(&site, &name, &section));
    found.extend(ask::findings(&site, &name, &section, &socket));

    let bad = found.iter().any(|it| it.severity == Severity::Fail);
    match args.format {
        Format::Json => out.json(&KeystoreCheckJson {
            format: 1,
            keystore: &name,
            ok: !bad,
            findings: &found,
        })?,
        Format::Text => lines(&found).iter().for_each(|line| out.line(line)),
    }
    Ok(if bad { Exit::Refused } else { Exit::Done })
}

/// The one that is meant.
fn choose(site: &Site, name: Option<&str>) -> Result<String, Failure> {
    let names: Vec<&str> = site.keystores.keys().map(String::as_str).collect();
    let config = site.config_path.display();
    match (name, &names[..], &site.config) {
        (Some(name), _, _) if names.contains(&name) => Ok(name.to_owned()),
        (_, [], Err(NotLoaded::Mistake(mistake))) => {
            Err(Failure::new(Exit::Configuration, mistake.to_string()))
        }
        (_, [], Err(NotLoaded::NoAnswer)) => {
            let text = format!("{config}: cannot be read in time; is its disk there?");
            Err(Failure::new(Exit::Configuration, text))
        }
        (_, [], Ok(_)) => {
            let text = format!("{config}: has no [keystore.…]; `assertctl init` makes one");
            Err(Failure::new(Exit::Configuration, text))
        }
        (Some(name), some, _) => {
            let text = format!(
                "{config}: no [keystore.{name}]; there are: {}",
                some.join(", ")
            );
            Err(Failure::new(Exit::Usage, text))
        }
        (None, [only], _) => Ok((*only).to_owned()),
        (None, some, _) => {
            let text = format!("which keystore? {}", some.join(" or "));
            Err(Failure::new(Exit::Usage, text))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::doctor::site::{NoUnits, Runner};
    use super::*;
    use std::path::Path;

    fn site(names: &[&str]) -> Site {
        let section: keystore::config::Section = toml::from_str("backend = \"tpm\"").unwrap();
        let sections = names
            .iter()
            .map(|name| ((*name).to_owned(), section.clone()));
        Site {
            keystores: sections.collect(),
            runner: Runner::Somebody(NoUnits::NoSystemd),
            ..Site::look(Some(Path::new("/nonexistent/assertd.toml")))
        }
    }

    #[test]
    fn the_only_keystore_needs_no_name_and_one_of_two_does() {
        assert_eq!(choose(&site(&["hsm"]), None).unwrap(), "hsm");
        assert_eq!(choose(&site(&["hsm", "tpm"]), Some("tpm")).unwrap(), "tpm");
        let which = choose(&site(&["hsm", "tpm"]), None).unwrap_err();
        assert_eq!(which.exit, Exit::Usage);
        assert_eq!(which.message, "which keystore? hsm or tpm");
        let other = choose(&site(&["hsm"]), Some("hms")).unwrap_err();
        assert_eq!(other.exit, Exit::Usage);
        assert!(other.message.ends_with("no [keystore.hms]; there are: hsm"));
    }

    #[test]
    fn without_a_configuration_there_is_nothing_to_look_at() {
        let none = choose(&site(&[]), Some("hsm")).unwrap_err();
        assert_eq!(none.exit, Exit::Configuration);
        assert!(none.message.contains("/nonexistent"), "{}", none.message);
    }
}
