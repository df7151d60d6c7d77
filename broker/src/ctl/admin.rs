//! What an administrator asks assertd: its keys. `status` has a file of its own, and so has what of the
//! keys is to be published ([`super::jwks`]).

mod status;

pub use status::status;

use super::args::{Args, Format};
use super::failure::{Asker, Exit, Failure};
use super::out::{Out, rfc3339};
use assertd_client::api::KeyStatus;
use assertd_client::{Client, Error};

/// Lists every key that assertd has recorded.
pub fn keys(args: &Args, out: &mut Out) -> Result<Exit, Failure> {
    let answer = connect(args)?.keys().map_err(|error| failed(&error))?;
    match args.format {
        Format::Json => out.json(&answer)?,
        Format::Text if answer.keys.is_empty() => {
            out.line(&format!(
                "no keys yet: `assertctl{} apply` makes them",
                args.same_place()
            ));
        }
        Format::Text => out.table(&key_rows(&answer.keys)),
    }
    Ok(Exit::Done)
}

pub(super) fn connect(args: &Args) -> Result<Client, Failure> {
    Client::connect(&args.admin_socket()?).map_err(|error| failed(&error))
}

pub(super) fn failed(error: &Error) -> Failure {
    Failure::from_client(error, Asker::Administrator)
}

pub fn key_rows(keys: &[KeyStatus]) -> Vec<Vec<String>> {
    let head = [
        "KEY", "STATE", "ALG", "KEYSTORE", "KID", "EVIDENCE", "RECORDED",
    ];
    let row = |key: &KeyStatus| {
        let imported = if key.imported { " imported" } else { "" };
        vec![
            key.key.clone(),
            key.state.clone(),
            key.alg.clone(),
            key.keystore.clone(),
            key.kid.clone(),
            format!("{}{imported}", key.evidence),
            rfc3339(key.made_at),
        ]
    };
    let mut rows: Vec<Vec<String>> = vec![head.map(str::to_owned).to_vec()];
    let shown = || keys.iter().filter(|key| key.state != "destroyed");
    rows.extend(shown().map(row));
    let mut remarks: Vec<Vec<String>> = shown().flat_map(remarks).collect();
    if !remarks.is_empty() {
        rows.push(Vec::new());
        rows.append(&mut remarks);
    }
    rows
}

/// Lines of one cell, which widen no column.
fn remarks(key: &KeyStatus) -> Vec<Vec<String>> {
    let mut remarks = Vec::new();
    if let Some(why) = &key.why {
        let text = match names_key(why, key) {
            true => format!("{}: {why}", sign(key)),
            false => format!("{}: {} is {}: {why}", sign(key), key.key, key.state),
        };
        remarks.push(vec![text]);
    }
    if let Some(why) = &key.blocked {
        remarks.push(vec![format!("warn: {}: does not go on: {why}", key.key)]);
    }
    if let Some(next) = &key.next {
        let when = key.next_at.map(|at| format!(", {}", rfc3339(at)));
        let text = format!("next: {}: {next}{}", key.key, when.unwrap_or_default());
        remarks.push(vec![text]);
    }
    if !key.used {
        let text = "the configuration in force does not use it; it is kept";
        remarks.push(vec![format!("note: {}: {text}", key.key)]);
    }
    remarks
}

/// A keystore's sentence names the key already.
pub(super) fn names_key(why: &str, key: &KeyStatus) -> bool {
    why.strip_prefix("key ")
        .is_some_and(|rest| rest.starts_with(&key.key))
}

fn sign(key: &KeyStatus) -> &'static str {
    if key.state == "unknown" {
        "warn"
    } else {
        "FAIL"
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ctl::fixtures::key;

    #[test]
    fn a_key_that_is_not_active_says_why() {
        let rows = key_rows(&[key("a/x.1", "failed"), key("a/y.1", "active")]);
        assert_eq!(rows.last().unwrap(), &["FAIL: a/x.1 is failed: unplugged"]);
    }
}
