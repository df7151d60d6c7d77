//! `assertctl keys VERB`: asks assertd, and says what is to be done at the other side.

use super::admin::key_rows;
use super::args::{Args, Consent, Format};
use super::failure::{Asker, Exit, Failure};
use super::out::{Out, clean};
use assertd_client::Client;
use assertd_client::api::{KeyStatus, KeyVerb, KeyVerbRequest, Keys};
use std::io::{self, IsTerminal, Write};

mod runbook;

/// Does it.
pub fn run(
    args: &Args,
    request: &KeyVerbRequest,
    consent: Consent,
    out: &mut Out,
) -> Result<Exit, Failure> {
    agreed(request, consent)?;
    let failed = |error| Failure::from_client(&error, Asker::Administrator);
    let mut client = Client::connect(&args.admin_socket()?).map_err(failed)?;
    let before = client.keys().map_err(failed)?.keys;
    let answer = client.key_verb(request).map_err(failed)?;
    match args.format {
        Format::Json => out.json(&answer)?,
        Format::Text => {
            let Keys { keys, warnings, .. } = answer;
            for line in said(request, &before, &keys) {
                out.line(&line);
            }
            out.table(&key_rows(&keys));
            for warning in warnings {
                out.line(&format!("warn  {warning}"));
            }
        }
    }
    Ok(Exit::Done)
}

/// What cannot be taken back is asked about.
fn agreed(request: &KeyVerbRequest, consent: Consent) -> Result<(), Failure> {
    let question = match request.verb {
        KeyVerb::Revoke => format!(
            "revoke {} for ever, and stop what it signs for",
            request.key
        ),
        KeyVerb::Destroy => format!("destroy {} in its token", request.key),
        KeyVerb::ReplaceLost => format!("give {} up and make another", request.key),
        _ => return Ok(()),
    };
    agree(&question, consent)
}

/// Asks, unless it was agreed already.
pub(super) fn agree(question: &str, consent: Consent) -> Result<(), Failure> {
    if consent == Consent::Given {
        return Ok(());
    }
    if !io::stdin().is_terminal() {
        let text = format!("{question}? Nothing was done; say `--yes` to agree");
        return Err(Failure::new(Exit::Refused, text));
    }
    eprint!("{}? [y/N] ", clean(question));
    let _ = io::stderr().flush();
    let mut answer = String::new();
    let read = io::stdin().read_line(&mut answer);
    match (read, answer.trim()) {
        (Ok(_), "y" | "Y" | "yes") => Ok(()),
        _ => Err(Failure::new(Exit::Refused, "not agreed; nothing was done")),
    }
}

fn said(request: &KeyVerbRequest, before: &[KeyStatus], keys: &[KeyStatus]) -> Vec<String> {
    let name = keys.first().map_or(request.key.as_str(), name_of);
    match request.verb {
        KeyVerb::Rotate => vec![format!("the next version of {name} is being made")],
        KeyVerb::Activate => match keys.iter().find(|key| key.phase == "active") {
            Some(key) => vec![format!("{} signs now", key.key)],
            None => vec![format!("{name}: is being published again")],
        },
        KeyVerb::Hold => vec![format!(
            "{name} signs nothing until `assertctl keys resume {name}`"
        )],
        KeyVerb::Resume => vec![format!("{name} goes on")],
        KeyVerb::Abandon => vec![format!("{name}: the version on its way was given up")],
        KeyVerb::Destroy => vec![format!("{} is being destroyed", request.key)],
        KeyVerb::ReplaceLost => {
            vec![format!(
                "{name}: the next version is being made; register it as the first one was"
            )]
        }
        KeyVerb::Revoke => runbook::lines(name, before, keys),
    }
}

fn name_of(key: &KeyStatus) -> &str {
    key.key
        .rsplit_once('.')
        .map_or(key.key.as_str(), |(name, _)| name)
}
