//! `assertctl nonce`: a nonce for one answer. It is kept beside the policy's registry until `assertctl verify
//! --record` has accepted what answers it, or it is too old.

use super::args::{Args, Format};
use super::failure::{Exit, Failure};
use super::out::Out;
use super::relying::Relying;
use keystore::Clock;
use keystore::evidence::bundle::to_hex;
use serde::Serialize;
use std::path::Path;

/// `--json`
#[derive(Serialize)]
struct NonceJson<'a> {
    format: u32,
    nonce: &'a str,
    expires_at: u64,
}

/// Makes one.
pub fn run(args: &Args, policy: &Path, out: &mut Out) -> Result<Exit, Failure> {
    let relying = Relying::load(policy)?;
    let beside = relying.hold()?;
    let mut nonces = beside.nonces()?;
    let now = Clock::new().read().unix_s();
    let age_max_s = relying.policy.max_age_s;
    let nonce = nonces.make(now, age_max_s);
    let nonce = nonce.map_err(|why| Failure::new(Exit::Refused, why))?;
    // Before anybody learns of it.
    beside.write_nonces(&nonces)?;
    // Base64url may begin with `-`.
    let nonce = to_hex(&nonce.0);
    match args.format {
        Format::Text => out.line(&nonce),
        Format::Json => out.json(&NonceJson {
            format: 1,
            nonce: &nonce,
            expires_at: now.saturating_add(age_max_s),
        })?,
    }
    Ok(Exit::Done)
}
