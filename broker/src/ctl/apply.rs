//! `config diff` shows what a reload would grant and revoke, and a plan for the keys; `apply` does the
//! plan. Steps are done one after the other and each is
//! printed when it is done; after a crash or a fault the next run does the rest, since a plan
//! follows from what is there and never from what was meant to be.
//!
//! Never destroys, never amends a charter without consent, never makes more keys than allowed.

use super::args::{Args, Changes, Consent, Format};
use super::failure::{Asker, Exit, Failure};
use super::grants::{self, GrantChange};
use super::look::{Sight, look};
use super::out::{Out, clean, count, rfc3339};
use super::plan::{Effect, Step, plan};
use crate::audit::Sha256;
use crate::config::Config;
use crate::profile::{Birth, Row};
use crate::terms;
use assertd_client::api::{KeyStatus, Status};
use keystore::CertificateUse;
use keystore::charter::PurposeKind;
use serde::Serialize;
use std::io::{self, IsTerminal, Write};

pub(super) mod work;

use work::{Done, Work};

/// For so many keys it is said what to do next; the rest is the same.
const NEXT_SHOWN: usize = 4;

/// `config diff --json`
#[derive(Serialize)]
struct DiffJson<'a> {
    format: u32,
    config_sha256: Sha256,
    running_config_sha256: &'a str,
    grants: &'a [GrantChange<'a>],
    steps: &'a [Step],
}

/// `apply --json`
#[derive(Serialize)]
struct ApplyJson<'a> {
    format: u32,
    config_sha256: Sha256,
    running_config_sha256: &'a str,
    done: &'a [Done],
    not_done: &'a [String],
}

/// Prints what `apply` would do.
pub fn diff(args: &Args, changes: Changes, out: &mut Out) -> Result<Exit, Failure> {
    let Sight {
        config,
        mut client,
        status,
        world,
        ..
    } = look(args)?;
    let failed = |error| Failure::from_client(&error, Asker::Administrator);
    let (running, files) = (client.grants().map_err(failed)?, terms::grants(&config));
    let grants = grants::changes(&running, &files);
    let steps = plan(&world);
    match args.format {
        Format::Json => out.json(&DiffJson {
            format: 1,
            config_sha256: config.sha256,
            running_config_sha256: &status.config.sha256,
            grants: &grants,
            steps: &steps,
        })?,
        Format::Text => {
            if !grants.is_empty() {
                out.line("what assertd grants, once it reloads:");
                out.table(&grants.iter().map(GrantChange::row).collect::<Vec<_>>());
                out.line("keys, once `assertctl apply` is run:");
            }
            print(&steps, world.wanted.len(), out);
            configuration_note(&config, &status, out);
        }
    }
    let to_do = !grants.is_empty() || steps.iter().any(|step| step.effect() != Effect::Note);
    match changes {
        Changes::AreOne if to_do => Ok(Exit::Refused),
        Changes::AreOne | Changes::AreFine => Ok(Exit::Done),
    }
}

/// Does what `config diff` shows.
pub fn apply(
    args: &Args,
    consent: Consent,
    creations_max: usize,
    out: &mut Out,
) -> Result<Exit, Failure> {
    let Sight {
        config,
        client,
        status,
        world,
        ..
    } = look(args)?;
    let steps = plan(&world);
    within(&steps, creations_max)?;
    agreed(&steps, consent)?;
    let (mut done, mut not_done, mut exit) = (Vec::new(), Vec::new(), Exit::Done);
    let mut work = Work::new(&config, client);
    let watched = io::stderr().is_terminal();
    for step in steps.iter().filter(|step| step.effect() != Effect::Note) {
        if let (Format::Text, true, Some(doing)) = (args.format, watched, doing(step)) {
            eprintln!("{}", clean(&doing));
        }
        match work.step(step) {
            Ok(one) => {
                if args.format == Format::Text {
                    out.line(&one.line());
                    out.flush();
                }
                done.push(one);
            }
            Err(failure) => {
                let text = format!("{}: {}", step.subject(), failure.message);
                eprintln!("assertctl: {}", clean(&text));
                not_done.push(text);
                exit = if exit == Exit::Done {
                    failure.exit
                } else {
                    exit
                };
            }
        }
    }
    match args.format {
        Format::Json => out.json(&ApplyJson {
            format: 1,
            config_sha256: config.sha256,
            running_config_sha256: &status.config.sha256,
            done: &done,
            not_done: &not_done,
        })?,
        Format::Text => {
            if done.is_empty() && exit == Exit::Done {
                print(&steps, world.wanted.len(), out);
            }
            configuration_note(&config, &status, out);
            next(args, &config, &done, out);
        }
    }
    Ok(exit)
}

/// For somebody who waits: an RSA key takes a chip up to a minute. What is quick says nothing before.
fn doing(step: &Step) -> Option<String> {
    match step {
        Step::Create { key, keystore, .. } => Some(format!("making {} in {keystore} …", key.name)),
        _ => None,
    }
}

/// A typo in git times 800 hosts must not fill an HSM.
fn within(steps: &[Step], creations_max: usize) -> Result<(), Failure> {
    let creations = steps
        .iter()
        .filter(|step| matches!(step, Step::Create { .. }))
        .count();
    if creations <= creations_max {
        return Ok(());
    }
    let text = format!(
        "{} would be made, more than {creations_max} at once; nothing was done. If `assertctl \
         config diff` shows what you mean, say `--max {creations}`",
        count(creations, "key")
    );
    Err(Failure::new(Exit::Refused, text))
}

/// An amended charter changes what existing keys may say, so somebody must agree to it.
fn agreed(steps: &[Step], consent: Consent) -> Result<(), Failure> {
    let amends: Vec<&Step> = steps
        .iter()
        .filter(|step| matches!(step, Step::Amend { .. }))
        .collect();
    if amends.is_empty() || consent == Consent::Given {
        return Ok(());
    }
    let charters = count(amends.len(), "charter");
    if !io::stdin().is_terminal() {
        let text = format!(
            "{charters} would be amended (`assertctl config diff` shows how); nothing was done. \
             Say `--yes` to agree"
        );
        return Err(Failure::new(Exit::Refused, text));
    }
    for step in amends {
        eprintln!("{}", clean(&step.row().join("    ")));
    }
    eprint!("amend {charters}? [y/N] ");
    let _ = io::stderr().flush();
    let mut answer = String::new();
    let read = io::stdin().read_line(&mut answer);
    match (read, answer.trim()) {
        (Ok(_), "y" | "Y" | "yes") => Ok(()),
        _ => Err(Failure::new(Exit::Refused, "not agreed; nothing was done")),
    }
}

impl Done {
    fn line(&self) -> String {
        match self {
            Done::Created(key) => format!("created {}", key_line(key)),
            Done::Adopted(key) => format!("recorded {}", key_line(key)),
            Done::Amended { name, keystore } => format!("amended {name}  in {keystore}"),
            Done::Certified {
                key,
                x5t_s256,
                until,
            } => format!(
                "certified {key}  x5t#S256 {x5t_s256}  until {}",
                rfc3339(*until)
            ),
        }
    }
}

pub(super) fn key_line(key: &KeyStatus) -> String {
    let imported = if key.imported { " (imported)" } else { "" };
    format!(
        "{}  kid {}  evidence {}{imported}  in {}",
        name_of(key),
        key.kid,
        key.evidence,
        key.keystore
    )
}

/// `payments/bank` of `payments/bank.1`.
pub(super) fn name_of(key: &KeyStatus) -> &str {
    key.key
        .rsplit_once('.')
        .map_or(key.key.as_str(), |(name, _)| name)
}

fn print(steps: &[Step], wanted: usize, out: &mut Out) {
    out.table(&steps.iter().map(Step::row).collect::<Vec<_>>());
    if steps.iter().all(|step| step.effect() == Effect::Note) {
        out.line(&format!(
            "nothing to do: {} as configured",
            count(wanted, "key")
        ));
    }
}

/// Keys alone grant nothing: assertd must also run this configuration.
fn configuration_note(config: &Config, status: &Status, out: &mut Out) {
    if config.sha256.to_string() == status.config.sha256 {
        return;
    }
    let targets: usize = config
        .workloads
        .iter()
        .map(|section| section.targets.len())
        .sum();
    out.line(&format!(
        "note: assertd still runs another configuration ({}, {}; these files have {}, {}). To \
         have it run these: assertctl reload",
        count(status.config.workloads, "workload"),
        count(status.config.targets, "target"),
        count(config.workloads.len(), "workload"),
        count(targets, "target"),
    ));
}

/// What the administrator does now: the other side must know the new keys.
fn next(args: &Args, config: &Config, done: &[Done], out: &mut Out) {
    let names: Vec<&str> = done
        .iter()
        .filter_map(|done| match done {
            Done::Created(key) | Done::Adopted(key) => Some(name_of(key)),
            Done::Amended { .. } | Done::Certified { .. } => None,
        })
        .collect();
    let place = args.same_place();
    for name in names.iter().take(NEXT_SHOWN) {
        let row = row_of(config, name);
        out.line(&format!("next: {}", register(name, row, &place)));
    }
    if names.len() > NEXT_SHOWN {
        let rest = count(names.len() - NEXT_SHOWN, "more key");
        out.line(&format!(
            "next: the same for {rest}: `assertctl{place} jwks` prints all sets"
        ));
    }
}

/// The profile of the target whose key this is; none of an issuer's.
fn row_of(config: &Config, name: &str) -> Option<&'static Row> {
    let (workload, target) = name.split_once('/')?;
    let mut sections = config.workloads.iter();
    let section = sections.find(|section| *section.name == *workload)?;
    Some(section.targets.get(target)?.profile.row)
}

fn register(name: &str, row: Option<&Row>, place: &str) -> String {
    if let Some(issuer) = name.strip_prefix("issuer/") {
        return format!(
            "serve what `assertctl{place} jwks --issuer {issuer}` prints at the issuer's jwks_uri"
        );
    }
    match row {
        // Whoever made it knows it.
        Some(row) if row.birth == Birth::AtTheVendor => {
            format!("`assertctl{place} keys` says when {name} signs; destroy what it came from")
        }
        Some(row) if row.certificate != CertificateUse::None => format!(
            "register the certificate that `assertctl{place} keys certificate {name}` prints, as \
             `assertctl profiles {}` says",
            row.name
        ),
        Some(row) if row.purpose == PurposeKind::Account => format!(
            "register the key that `assertctl{place} jwks --target {name}` prints, as `assertctl \
             profiles {}` says",
            row.name
        ),
        Some(_) | None => format!(
            "register what `assertctl{place} jwks --target {name}` prints at the authorization \
             server"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use keystore::charter::{KidMember, Purpose, Typ};
    use keystore::{Alg, Charter, KeyName, KeyVersion};

    fn create(target: usize) -> Step {
        let text = "a".to_owned();
        let purpose = Purpose::ClientAuthentication {
            iss: text.clone(),
            sub: text.clone(),
            aud: text,
        };
        let (alg, typ) = (Alg::ES256, Typ::ClientAuthentication);
        let name = KeyName::client("w", &format!("t{target}")).unwrap();
        Step::Create {
            key: name.version(KeyVersion::FIRST),
            keystore: "hsm".into(),
            charter: Charter {
                purpose,
                alg,
                typ,
                kid: KidMember::Thumbprint,
                lifetime_max_s: 60,
                backdate_s: 0,
                certificate: CertificateUse::None,
            },
            certificate_s: None,
        }
    }

    fn amend() -> Step {
        let Step::Create {
            key,
            keystore,
            charter,
            ..
        } = create(0)
        else {
            unreachable!()
        };
        Step::Amend {
            name: key.name,
            keystore,
            changes: Vec::new(),
            charter,
        }
    }

    #[test]
    fn a_typo_cannot_fill_an_hsm() {
        let steps: Vec<Step> = (0..51).map(create).collect();
        assert!(within(&steps[..50], 50).is_ok());
        let failure = within(&steps, 50).unwrap_err();
        assert_eq!(failure.exit, Exit::Refused);
        assert!(
            failure.message.contains("say `--max 51`"),
            "{}",
            failure.message
        );
        assert!(within(&steps, 51).is_ok());
    }

    #[test]
    fn who_waits_for_a_key_is_told_which() {
        let said = doing(&create(3)).unwrap();
        assert_eq!(said, "making w/t3 in hsm …");
        assert_eq!(doing(&amend()), None);
    }

    #[test]
    fn new_keys_need_no_consent_and_amended_charters_may_be_agreed_to_beforehand() {
        assert!(agreed(&[create(0)], Consent::Ask).is_ok());
        assert!(agreed(&[create(0), amend()], Consent::Given).is_ok());
    }

    #[test]
    fn what_to_register_is_asked_at_the_same_assertd() {
        assert_eq!(
            register("payments/bank", Row::named("okta"), " -c /tmp/a.toml"),
            "register what `assertctl -c /tmp/a.toml jwks --target payments/bank` prints at the \
             authorization server"
        );
        assert!(register("issuer/prod", None, "").contains("`assertctl jwks --issuer prod`"));
    }

    #[test]
    fn what_is_registered_is_what_the_other_side_takes() {
        let said = |profile| register("payments/x", Row::named(profile), "");
        assert_eq!(
            said("snowflake"),
            "register the key that `assertctl jwks --target payments/x` prints, as `assertctl profiles \
             snowflake` says"
        );
        assert_eq!(
            said("github-app"),
            "`assertctl keys` says when payments/x signs; destroy what it came from"
        );
        assert_eq!(
            said("entra-cert"),
            "register the certificate that `assertctl keys certificate payments/x` prints, as `assertctl \
             profiles entra-cert` says"
        );
    }
}
