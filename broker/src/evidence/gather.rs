//! The asking itself, keystore by keystore.

use super::{Gathered, LeftOut, Progress};
use crate::app::App;
use crate::audit::{self, Sha256};
use crate::keystores::{Keystore, Talk};
use crate::queue::{Share, Turn};
use keystore::client::unexpected;
use keystore::evidence::bundle::{
    AssertedKey, CertifiedKey, Host, KeystoreEvidence, Module, Nonce, Pkcs11Evidence, Quote,
    Selection, Text, Tpm, TpmEvidence,
};
use keystore::evidence::context;
use keystore::protocol::{Attested, Identity, Reply, Request};
use keystore::{Error, KeyId, Kind};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long its turn is waited for: behind every workload that asks all the time it comes in a second.
const TURN_WAIT: Duration = Duration::from_secs(60);

/// After a statement nothing is asked for so many times as long as it took.
const REST: u32 = 3;

/// While workloads ask, until so many signatures were made for each of them that had to wait for it: fewer than
/// one in two hundred has then. Little more than a hundred would do for the 99th percentile, had it no tail of its
/// own: what waited for us takes the places above it, and it moves up to what was one in a thousand.
const SPARED: u64 = 250;

/// And for so long at most, or a slow TPM would need hours: there a statement takes what a signature does.
const REST_MAX: Duration = Duration::from_secs(2);

/// Whose share of a keystore it uses; no section of the configuration can be called so.
const SHARE: &str = "(attest)";

/// What somebody wants a bundle of.
pub struct Asked {
    /// Theirs.
    pub nonce: Nonce,
    /// What this host is called.
    pub host: Host,
    /// Which PCRs are quoted.
    pub selection: Selection,
    /// By the keystore that has it.
    pub keys: BTreeMap<String, Vec<Wanted>>,
    /// Who asks, by its uid.
    pub uid: u32,
}

/// A key that somebody asks about.
pub struct Wanted {
    /// Its id.
    pub key: KeyId,
    /// The target that it is asked about for.
    pub target: Option<Text>,
}

/// Asks all of them, and has it recorded.
///
/// # Errors
/// `Unavailable` if it could not be recorded. A keystore or key that says nothing is left out.
pub async fn gather(app: &App, asked: &Asked, progress: &Progress) -> Result<Gathered, Error> {
    progress.begin(asked.keys.values().map(Vec::len).sum());
    let mut gathered = Gathered {
        host: asked.host.clone(),
        keystores: Vec::new(),
        left_out: Vec::new(),
    };
    for (name, keys) in &asked.keys {
        let before = gathered.left_out.len();
        match of_keystore(app, asked, name, keys, progress, &mut gathered.left_out).await {
            Ok(Some(evidence)) => {
                recorded(app, asked, &evidence).await?;
                gathered.keystores.push(evidence);
            }
            Ok(None) => {}
            Err(error) => {
                gathered.left_out.truncate(before);
                gathered.left_out.extend(keys.iter().map(|wanted| LeftOut {
                    what: wanted.key.to_string(),
                    why: error.to_string(),
                }));
            }
        }
    }
    Ok(gathered)
}

/// One keystore in conversation.
struct Desk<'a> {
    keystore: &'a Arc<Keystore>,
    talk: Talk<'a>,
    share: Share,
}

async fn of_keystore(
    app: &App,
    asked: &Asked,
    name: &str,
    keys: &[Wanted],
    progress: &Progress,
    left_out: &mut Vec<LeftOut>,
) -> Result<Option<KeystoreEvidence>, Error> {
    let keystore = app.keystores.get(name).ok_or_else(|| {
        let text = format!("keystore {name} is not in the running configuration; put it back");
        Error::new(Kind::Unavailable, text)
    })?;
    let mut desk = Desk {
        keystore,
        talk: keystore.talk().await?,
        share: Share {
            workload: SHARE.into(),
            weight: 1,
        },
    };
    let identity = match desk.ask(&Request::Identity {}).await? {
        Reply::Identity(identity) => *identity,
        _ => return Err(unexpected()),
    };
    let mut rows = Rows::default();
    for wanted in keys {
        let request = Request::Attest {
            nonce: asked.nonce,
            host: asked.host.clone(),
            key: wanted.key.clone(),
        };
        let reply = desk.ask(&request).await;
        progress.step();
        match reply {
            Ok(Reply::Attested(attested)) => rows.push(wanted, *attested)?,
            Ok(_) => return Err(unexpected()),
            Err(error) if breaks_off(&error) => return Err(error),
            Err(error) => left_out.push(LeftOut {
                what: wanted.key.to_string(),
                why: error.to_string(),
            }),
        }
    }
    Ok(match identity {
        _ if rows.is_empty() => None,
        Identity::Tpm(tpm) => {
            let quote = desk.quote(asked, left_out).await?;
            Some(rows.of_tpm(name, tpm, quote))
        }
        Identity::Pkcs11(module) => Some(rows.of_token(name, module)),
    })
}

/// After these the connection, or the whole keystore, is of no more use for this bundle.
fn breaks_off(error: &Error) -> bool {
    matches!(
        error.kind(),
        Kind::Unavailable | Kind::Absent | Kind::Protocol
    )
}

impl Desk<'_> {
    /// Asks in its turn, and rests.
    async fn ask(&mut self, request: &Request) -> Result<Reply, Error> {
        let deadline = Instant::now() + TURN_WAIT;
        let turn: Turn = self.keystore.turn(&self.share, deadline).await?;
        let began = Instant::now();
        let reply = self.talk.ask(request, &turn).await;
        let took = began.elapsed();
        let waiting = self.keystore.waiting();
        drop(turn);
        let (rest, minted) = ((took * REST).min(REST_MAX), self.keystore.minted());
        tokio::time::sleep(rest).await;
        let served = self.keystore.minted() - minted;
        tokio::time::sleep(longer(rest, served, waiting)).await;
        reply
    }

    /// A quote that is not to be had leaves the statements what they are.
    async fn quote(
        &mut self,
        asked: &Asked,
        left_out: &mut Vec<LeftOut>,
    ) -> Result<Option<Quote>, Error> {
        let request = Request::Quote {
            nonce: asked.nonce,
            host: asked.host.clone(),
            selection: asked.selection.clone(),
        };
        match self.ask(&request).await {
            Ok(Reply::Quoted(quote)) => Ok(Some(*quote)),
            Ok(_) => Err(unexpected()),
            Err(error) if breaks_off(&error) => Err(error),
            Err(error) => {
                left_out.push(LeftOut {
                    what: format!("the quote of keystore {}", self.keystore.name()),
                    why: error.to_string(),
                });
                Ok(None)
            }
        }
    }
}

/// How much longer is rested, if in `rest` so many were served, and so many had to wait before.
fn longer(rest: Duration, served: u64, waiting: usize) -> Duration {
    if served == 0 {
        return Duration::ZERO; // nobody asks
    }
    let wanted = SPARED.saturating_mul(waiting.max(1) as u64);
    let rests = wanted.saturating_sub(served) as f64 / served as f64;
    let longest = REST_MAX.saturating_sub(rest);
    match Duration::try_from_secs_f64(rest.as_secs_f64() * rests) {
        Ok(longer) => longer.min(longest),
        Err(_too_long) => longest,
    }
}

/// What was said of keys, in the order in which it was.
#[derive(Default)]
struct Rows {
    certified: Vec<CertifiedKey>,
    asserted: Vec<AssertedKey>,
}

impl Rows {
    fn push(&mut self, wanted: &Wanted, attested: Attested) -> Result<(), Error> {
        let target = wanted.target.clone();
        match attested {
            Attested::Certified(key) if key.key == wanted.key => {
                self.certified.push(CertifiedKey { target, ..key });
            }
            Attested::Asserted(key) if key.key == wanted.key => {
                self.asserted.push(AssertedKey { target, ..key });
            }
            Attested::Certified(_) | Attested::Asserted(_) => return Err(unexpected()),
        }
        Ok(())
    }

    fn is_empty(&self) -> bool {
        self.certified.is_empty() && self.asserted.is_empty()
    }

    fn of_tpm(self, name: &str, tpm: Tpm, quote: Option<Quote>) -> KeystoreEvidence {
        KeystoreEvidence::Tpm(TpmEvidence {
            name: Text::cut(name),
            tpm,
            keys: self.certified,
            quote,
        })
    }

    fn of_token(self, name: &str, module: Module) -> KeystoreEvidence {
        KeystoreEvidence::Pkcs11(Pkcs11Evidence {
            name: Text::cut(name),
            module,
            keys: self.asserted,
        })
    }
}

/// What is handed out is on record first.
async fn recorded(app: &App, asked: &Asked, evidence: &KeystoreEvidence) -> Result<(), Error> {
    let statements = match evidence {
        KeystoreEvidence::Tpm(tpm) => {
            let attests = tpm.keys.iter().map(|key| key.attest.as_slice());
            Some(Sha256(context::statements(attests)))
        }
        KeystoreEvidence::Pkcs11(_) => None,
    };
    let record = audit::Attested {
        uid: asked.uid,
        host: asked.host.as_str().into(),
        keystore: evidence.name().into(),
        evidence: match evidence {
            KeystoreEvidence::Tpm(_) => keystore::protocol::EvidenceLevel::TpmCertified,
            KeystoreEvidence::Pkcs11(_) => keystore::protocol::EvidenceLevel::Asserted,
        },
        keys: evidence.keys().len() as u64,
        nonce: asked.nonce.to_base64url().as_str().into(),
        statements_sha256: statements,
    };
    let no_audit = |why: String| Error::new(Kind::Unavailable, format!("audit: {why}"));
    let durable = app.audit.attested(record);
    let durable = durable.map_err(|error| no_audit(error.to_string()))?;
    let written = durable.await;
    written.map_err(|_lost| no_audit("the record was not written for certain".to_owned()))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_rests_until_enough_were_served_for_each_that_had_to_wait() {
        let rest = Duration::from_millis(3);
        assert_eq!(longer(rest, 0, 8), Duration::ZERO, "nobody asks");
        let most = |waiting: u64| Duration::from_millis(waiting * SPARED) - rest;
        assert_eq!(longer(rest, 3, 1), most(1));
        assert_eq!(longer(rest, 3, 0), most(1), "one came a moment later");
        assert_eq!(longer(rest, 3, 8), most(8));
        assert_eq!(longer(rest, 500, 1), Duration::ZERO, "they were");
        for (served, waiting) in [(1, 1000), (1, usize::MAX), (u64::MAX, usize::MAX)] {
            assert!(rest + longer(rest, served, waiting) <= REST_MAX);
        }
        assert_eq!(longer(REST_MAX, 1, 1), Duration::ZERO);
    }
}
