//! Does one step: the keystore first, assertd's record then. Whatever breaks off in between is
//! found by the next plan.

use crate::config::Config;
use crate::ctl::failure::{Asker, Exit, Failure};
use crate::ctl::plan::Step;
use assertd_client::Client;
use assertd_client::api::{AdoptRequest, KeyStatus};
use keystore::certificate::Validity;
use keystore::client::{Client as KeystoreClient, unexpected};
use keystore::config::Section;
use keystore::protocol::{CertificateForm, Reply, Request};
use keystore::{Certificate, Charter, Clock, KeyId, KeyName};
use serde::Serialize;
use std::time::Duration;

/// Added to a keystore's hang limit, in which an RSA key is made, of the kind that its token is: its
/// answer that the call hung shall arrive.
const ANSWER_MARGIN: Duration = Duration::from_secs(5);

/// A step that was done.
#[derive(Serialize)]
#[serde(tag = "step", rename_all = "snake_case")]
pub enum Done {
    Created(Box<KeyStatus>),
    Adopted(Box<KeyStatus>),
    Amended {
        name: KeyName,
        keystore: String,
    },
    Certified {
        key: KeyId,
        x5t_s256: String,
        until: u64,
    },
}

/// What doing steps needs.
pub struct Work<'a> {
    config: &'a Config,
    client: Client,
}

impl<'a> Work<'a> {
    /// Nothing is connected yet but assertd.
    pub fn new(config: &'a Config, client: Client) -> Work<'a> {
        Work { config, client }
    }

    /// Does one step. One that nobody can do is a failure that says why.
    pub fn step(&mut self, step: &Step) -> Result<Done, Failure> {
        match step {
            Step::Create {
                key,
                keystore,
                charter,
                certificate_s,
            } => {
                let request = Request::Make {
                    key: key.clone(),
                    charter: charter.clone(),
                };
                let status = self.bring(key, keystore, &request, *certificate_s)?;
                Ok(Done::Created(Box::new(status)))
            }
            Step::Certify {
                key,
                keystore,
                certificate_s,
            } => {
                let certificate = self.certify(key, keystore, *certificate_s)?;
                // assertd puts it on record, and names it from here on.
                self.adopt(key, keystore).map_err(|failure| Failure {
                    message: format!(
                        "the certificate of {key} is made, and assertd has no record of it: {}",
                        failure.message
                    ),
                    ..failure
                })?;
                Ok(Done::Certified {
                    key: key.clone(),
                    x5t_s256: certificate.thumbprint().to_owned(),
                    until: certificate.validity().not_after,
                })
            }
            Step::Adopt { key, keystore, .. } => self
                .adopt(key, keystore)
                .map(|status| Done::Adopted(Box::new(status))),
            Step::Amend {
                name,
                keystore,
                charter,
                ..
            } => self.amend(name, keystore, charter),
            Step::Unreachable { .. } => Err(Failure::new(Exit::Unavailable, step.what())),
            Step::Import { .. }
            | Step::Conflict { .. }
            | Step::Failed { .. }
            | Step::Orphan { .. } => Err(Failure::new(Exit::Refused, step.what())),
        }
    }

    fn amend(&self, name: &KeyName, keystore: &str, charter: &Charter) -> Result<Done, Failure> {
        let request = Request::Amend {
            name: name.clone(),
            charter: charter.clone(),
        };
        match self.ask(keystore, &request)? {
            Reply::Done {} => Ok(Done::Amended {
                name: name.clone(),
                keystore: keystore.to_owned(),
            }),
            _ => Err(Failure::from_keystore(&unexpected())),
        }
    }

    /// Has a key made in its keystore, or brought into it, certified if it is to be, and recorded.
    pub fn bring(
        &mut self,
        key: &KeyId,
        keystore: &str,
        request: &Request,
        certificate_s: Option<u64>,
    ) -> Result<KeyStatus, Failure> {
        let Reply::Made { key: made, .. } = self.ask(keystore, request)? else {
            return Err(Failure::from_keystore(&unexpected()));
        };
        let certified = match (certificate_s, &made.certificate) {
            (Some(seconds), None) => self.certify(key, keystore, seconds).map(drop),
            _ => Ok(()),
        };
        let status = certified.and_then(|()| self.adopt(key, keystore));
        let status = status.map_err(|failure| Failure {
            message: format!(
                "the key is in {keystore}, but assertd did not record it: {}; run `assertctl apply` \
                 when that is mended",
                failure.message
            ),
            ..failure
        })?;
        if status.kid != made.kid.as_str() {
            let text = format!(
                "{keystore} has kid {}, but assertd recorded kid {}; is another keystore behind \
                 assertd's socket?",
                made.kid, status.kid
            );
            return Err(Failure::new(Exit::Internal, text));
        }
        Ok(status)
    }

    /// A certificate of a key that has none.
    fn certify(&self, key: &KeyId, keystore: &str, seconds: u64) -> Result<Certificate, Failure> {
        let form = CertificateForm::SelfSigned(Validity::from(Clock::new().read(), seconds));
        let key = key.clone();
        match self.ask(keystore, &Request::Certify { key, form })? {
            Reply::Certified { key } => key
                .certificate
                .ok_or_else(|| Failure::from_keystore(&unexpected())),
            _ => Err(Failure::from_keystore(&unexpected())),
        }
    }

    fn adopt(&mut self, key: &KeyId, keystore: &str) -> Result<KeyStatus, Failure> {
        let request = AdoptRequest {
            keystore: keystore.to_owned(),
            key: key.to_string(),
        };
        self.client
            .adopt(&request)
            .map_err(|error| Failure::from_client(&error, Asker::Administrator))
    }

    /// On a connection of its own: a keystore closes one that is silent while another makes an RSA key.
    fn ask(&self, keystore: &str, request: &Request) -> Result<Reply, Failure> {
        let section = &self.config.keystores[keystore];
        let socket = self.config.keystore_socket(keystore, section);
        let client = KeystoreClient::connect(&socket, answer_deadline(section));
        let answer = client.and_then(|mut client| client.call(request));
        answer.map_err(|error| Failure::from_keystore(&error))
    }
}

/// How long a keystore may take to make a key.
pub fn answer_deadline(section: &Section) -> Duration {
    section.hang_limit() + ANSWER_MARGIN
}

#[cfg(test)]
mod tests {
    use super::*;
    use keystore::config::TPM_HANG_LIMIT_S;

    #[test]
    fn a_key_is_waited_for_longer_than_its_keystore_takes_to_say_that_it_hangs() {
        let waited = |text: &str| {
            let section: Section = toml::from_str(text).unwrap();
            (answer_deadline(&section), section.hang_limit())
        };
        for text in [
            "backend = \"pkcs11\"",
            "backend = \"tpm\"",
            "backend = \"tpm\"\nhang_limit_s = 300",
        ] {
            let (deadline, limit) = waited(text);
            assert!(deadline > limit, "{text}: {deadline:?}");
        }
        let (deadline, _) = waited("backend = \"tpm\"");
        assert!(deadline > Duration::from_secs(TPM_HANG_LIMIT_S.into()));
    }
}
