//! `assertctl attest`: evidence of keys for a verifier's nonce, in one file. assertd has the keystores say
//! it; the logs of firmware and kernel are read here, since root may and assertd may not. They are bytes
//! that count only as far as they lead to what the TPM has signed.

use super::admin::{connect, failed};
use super::args::{Args, Format};
use super::failure::{Exit, Failure};
use super::given::{is_absent, read};
use super::out::{Out, count};
use super::place::put;
use assertd_client::api::AttestRequest;
use keystore::Clock;
use keystore::evidence::Bundle;
use keystore::evidence::bundle::{
    BUNDLE_LEN_MAX, BundleType, Bytes, Host, KeystoreEvidence, Nonce, VERSION,
};
use serde::{Deserialize, Serialize};
use std::io::IsTerminal;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long evidence may take: each key takes two seconds at most where workloads ask all the time.
const PATIENCE: Duration = Duration::from_secs(30 * 60);

/// Where the kernel shows what firmware and it itself have measured.
const EVENT_LOG: &str = "/sys/kernel/security/tpm0/binary_bios_measurements";
const IMA: &str = "/sys/kernel/security/ima/binary_runtime_measurements";

/// The PCRs that each of them leads to.
const FIRMWARE_PCRS: RangeInclusive<u8> = 0..=9;
const IMA_PCRS: RangeInclusive<u8> = 10..=10;

/// What evidence is asked of.
#[derive(Debug, PartialEq, Eq)]
pub struct Wish {
    /// The verifier's.
    pub nonce: Nonce,
    /// `WORKLOAD/TARGET`; all keys if none is named.
    pub target: Option<String>,
    /// Keys for this purpose alone.
    pub purpose: Option<String>,
    /// The file.
    pub output: Option<PathBuf>,
}

/// What assertd answers.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Answer {
    Running { done: usize, of: usize },
    Done(Gathered),
}

#[derive(Deserialize)]
struct Gathered {
    host: Host,
    keystores: Vec<KeystoreEvidence>,
    left_out: Vec<LeftOut>,
}

#[derive(Serialize, Deserialize)]
struct LeftOut {
    what: String,
    why: String,
}

/// `--json`, beside the file.
#[derive(Serialize)]
struct AttestJson<'a> {
    format: u32,
    host: &'a Host,
    keys: usize,
    left_out: &'a [LeftOut],
    file: Option<&'a Path>,
}

/// Asks, adds the logs, writes the file.
pub fn run(args: &Args, wish: &Wish, out: &mut Out) -> Result<Exit, Failure> {
    if wish.output.is_none() && args.format == Format::Json {
        let text = "--json says what is in the file: name one, by -o";
        return Err(Failure::new(Exit::Usage, text));
    }
    let Gathered {
        host,
        keystores,
        left_out,
    } = gathered(args, wish)?;
    let keys = keystores.iter().map(|it| it.keys().len()).sum();
    for LeftOut { what, why } in &left_out {
        eprintln!("assertctl: warn: {what} is not in it: {why}");
    }
    if keys == 0 {
        let text = "nothing is said of any key; see above";
        return Err(Failure::new(Exit::Refused, text));
    }
    let is_quoted = |pcrs: RangeInclusive<u8>| is_quoted(&keystores, pcrs);
    let (firmware, kernel) = (is_quoted(FIRMWARE_PCRS), is_quoted(IMA_PCRS));
    let bundle = Bundle {
        r#type: BundleType::AssertdEvidence,
        version: VERSION,
        made_at: Clock::new().read().unix_s(),
        host,
        nonce: wish.nonce,
        event_log: log(Path::new(EVENT_LOG), firmware),
        ima: log(Path::new(IMA), kernel),
        keystores,
    };
    let json = bundle.to_json();
    if json.len() > BUNDLE_LEN_MAX {
        let text = format!(
            "the bundle is longer than {BUNDLE_LEN_MAX} bytes, which no verifier takes: ask for each target"
        );
        return Err(Failure::new(Exit::Refused, text));
    }
    match &wish.output {
        None => out.line(&json),
        Some(path) => put(path, json.as_bytes())?,
    }
    match (&wish.output, args.format) {
        (path, Format::Json) => out.json(&AttestJson {
            format: 1,
            host: &bundle.host,
            keys,
            left_out: &left_out,
            file: path.as_deref(),
        })?,
        (Some(path), Format::Text) => out.line(&format!(
            "{}: evidence of {} for {}",
            path.display(),
            count(keys, "key"),
            bundle.host
        )),
        (None, Format::Text) => {}
    }
    Ok(match left_out.is_empty() {
        true => Exit::Done,
        false => Exit::Refused,
    })
}

/// The same question until there is an answer.
fn gathered(args: &Args, wish: &Wish) -> Result<Gathered, Failure> {
    let request = AttestRequest {
        nonce: wish.nonce.to_base64url(),
        target: wish.target.clone(),
        purpose: wish.purpose.clone(),
    };
    let (began, mut client) = (Instant::now(), connect(args)?);
    let shows = std::io::stderr().is_terminal() && args.format == Format::Text;
    while began.elapsed() < PATIENCE {
        match client.attest(&request).map_err(|error| failed(&error))? {
            Answer::Done(gathered) => return Ok(gathered),
            Answer::Running { done, of } if shows => eprintln!("{done} of {}", count(of, "key")),
            Answer::Running { .. } => {}
        }
    }
    let text = format!("no evidence within {} min", PATIENCE.as_secs() / 60);
    Err(Failure::new(Exit::Unavailable, text))
}

/// Whether a TPM has signed one of these: a log that leads to no value proves nothing.
fn is_quoted(keystores: &[KeystoreEvidence], pcrs: RangeInclusive<u8>) -> bool {
    let quotes = keystores.iter().filter_map(|it| match it {
        KeystoreEvidence::Tpm(tpm) => tpm.quote.as_ref(),
        KeystoreEvidence::Pkcs11(_) => None,
    });
    let mut indices = quotes.flat_map(|quote| quote.pcrs.values().flat_map(|bank| bank.keys()));
    indices.any(|index| pcrs.contains(&index.number()))
}

/// A log, if it belongs into the bundle and there is one.
fn log<const MAX: usize>(path: &Path, is_quoted: bool) -> Option<Bytes<MAX>> {
    if !is_quoted || is_absent(path) {
        return None;
    }
    match read(path, MAX) {
        Ok(bytes) if bytes.is_empty() => None,
        Ok(bytes) => Bytes::new(bytes),
        Err(failure) => {
            eprintln!("assertctl: warn: a log is not in it: {}", failure.message);
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_log_is_in_it_only_if_a_tpm_has_signed_where_it_leads() {
        let quoting = |pcrs: &[u8]| -> Vec<KeystoreEvidence> {
            let values = pcrs
                .iter()
                .map(|it| (it.to_string(), "00".repeat(32).into()));
            let values: serde_json::Map<String, serde_json::Value> = values.collect();
            let tpm = json!([{
                "kind": "tpm", "name": "tpm", "keys": [],
                "tpm": {
                    "manufacturer": "IBM", "vendor": "SW", "firmware": "0000000000000000",
                    "family_revision": "1.64", "ek": { "public": "AQ" },
                    "ak": { "public": "AQ", "qualified_name": "Ag", "parent": "AQ" },
                },
                "quote": { "attest": "AQ", "signature": "Ag", "pcrs": { "sha256": values } },
            }]);
            serde_json::from_value(tpm).unwrap()
        };
        for (pcrs, firmware, kernel) in [
            (&[0, 1, 2, 3, 4, 5, 6, 7][..], true, false), // if nothing is configured
            (&[10], false, true),
            (&[0, 10], true, true),
            (&[11, 15, 23], false, false),
        ] {
            let keystores = quoting(pcrs);
            assert_eq!(is_quoted(&keystores, FIRMWARE_PCRS), firmware, "{pcrs:?}");
            assert_eq!(is_quoted(&keystores, IMA_PCRS), kernel, "{pcrs:?}");
        }
        assert!(!is_quoted(&[], FIRMWARE_PCRS));
    }
}
