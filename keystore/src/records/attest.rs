//! What is said of keys to somebody far away. What a TPM signs is built here, of the nonce, the host and
//! the key's own charter, so that no caller has anything attested but a key as what it is for; and a
//! quote is bound to the statements that were made before it on the same connection.

use super::Keys;
use crate::backend::{Backend, Likeness, Testimony};
use crate::evidence::bundle::{AssertedKey, CertifiedKey, Host, Nonce, Quote, Selection};
use crate::evidence::context::{self, Sha256};
use crate::protocol::{Attested, Condition, Identity};
use crate::{Error, KeyId, Kind};
use aws_lc_rs::digest::{self, SHA256, digest};

/// Statements that were made on one connection for one nonce and host, in their order.
#[derive(Default)]
pub struct Linked(Option<Row>);

struct Row {
    nonce: Nonce,
    host: Host,
    digests: digest::Context,
}

impl Linked {
    /// One more.
    fn push(&mut self, nonce: Nonce, host: &Host, attest: &[u8]) {
        let row = match self.0.take() {
            Some(row) if row.nonce == nonce && row.host == *host => row,
            _ => Row::new(nonce, host),
        };
        let Row { digests, .. } = self.0.insert(row);
        digests.update(digest(&SHA256, attest).as_ref());
    }

    /// What a quote is bound to; the next row begins.
    fn take(&mut self, nonce: Nonce, host: &Host) -> Sha256 {
        let row = self.0.take();
        let row = row.filter(|row| row.nonce == nonce && row.host == *host);
        let digests = row.map_or_else(|| digest::Context::new(&SHA256), |row| row.digests);
        let digest = digests.finish();
        digest.as_ref().try_into().expect("SHA-256 has 32 bytes")
    }
}

impl Row {
    fn new(nonce: Nonce, host: &Host) -> Row {
        Row {
            nonce,
            host: host.clone(),
            digests: digest::Context::new(&SHA256),
        }
    }
}

impl<B: Backend> Keys<B> {
    /// What the token says of a key that signs.
    ///
    /// # Errors
    /// Why there is nothing to say of it.
    pub fn attest(
        &self,
        key: &KeyId,
        nonce: Nonce,
        host: &Host,
        linked: &mut Linked,
    ) -> Result<Attested, Error> {
        let live = self.find(key)?;
        // What a key that waits for another state of the host is, its TPM says in any.
        if let Condition::Failed { kind, why } = &live.condition
            && !live.is_unhealthy()
        {
            return Err(Error::new(*kind, why.clone()));
        }
        let purpose = live.charter.purpose.kind();
        let about = context::certify(&nonce, host, key, purpose, &live.public_key.spki());
        let testimony = self.backend.attest(live.object, &live.public_key, &about);
        let (key, kid) = (key.clone(), live.kid.clone());
        let (alg, jwk, imported) = (
            live.charter.alg,
            live.public_key.clone(),
            live.evidence.imported,
        );
        Ok(match testimony? {
            Testimony::Certified {
                public,
                attest,
                signature,
                policy,
            } => {
                linked.push(nonce, host, attest.as_slice());
                Attested::Certified(CertifiedKey {
                    key,
                    target: None,
                    kid,
                    purpose,
                    alg,
                    jwk,
                    public,
                    attest,
                    signature,
                    imported,
                    policy,
                })
            }
            Testimony::Asserted(attributes) => Attested::Asserted(AssertedKey {
                key,
                target: None,
                kid,
                purpose,
                alg,
                jwk,
                attributes,
                imported,
            }),
        })
    }

    /// The state of the host, bound to what was said of keys.
    ///
    /// # Errors
    /// `Refused` if not one bank is meant, or no PCR; `Unsupported` where there are none.
    pub fn quote(
        &self,
        nonce: Nonce,
        host: &Host,
        selection: &Selection,
        linked: &mut Linked,
    ) -> Result<Quote, Error> {
        if selection.len() != 1 || selection.values().any(|indices| indices.is_empty()) {
            let text = "a quote is over one PCR at least, and over one bank";
            return Err(Error::new(Kind::Refused, text));
        }
        let statements = linked.take(nonce, host);
        let about = context::quote(&nonce, host, &statements);
        self.backend.quote(selection, &about)
    }

    /// What the token is.
    ///
    /// # Errors
    /// Why it does not say.
    pub fn identity(&self) -> Result<Identity, Error> {
        Ok(match self.backend.likeness()? {
            Likeness::Tpm(tpm) => Identity::Tpm(*tpm),
            Likeness::Token(module) => Identity::Pkcs11(module),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quote_is_bound_to_the_statements_of_one_nonce_and_host_in_their_order() {
        let (one, other) = (Nonce([1; 32]), Nonce([2; 32]));
        let (host, elsewhere): (Host, Host) = ("a".parse().unwrap(), "b".parse().unwrap());
        let bound = |statements: &[(Nonce, &Host, &[u8])]| {
            let mut linked = Linked::default();
            for (nonce, host, attest) in statements {
                linked.push(*nonce, host, attest);
            }
            let first = linked.take(one, &host);
            let empty = linked.take(one, &host);
            assert_eq!(empty, context::statements([]), "a row is used once");
            first
        };
        let (first, second) = (&b"first"[..], &b"second"[..]);
        assert_eq!(
            bound(&[(one, &host, first), (one, &host, second)]),
            context::statements([first, second])
        );
        for cut in [(other, &host), (one, &elsewhere)] {
            assert_eq!(
                bound(&[(one, &host, first), (cut.0, cut.1, second)]),
                context::statements([]),
                "what was asked for somebody else between them ends the row"
            );
            assert_eq!(
                bound(&[(cut.0, cut.1, first), (one, &host, second)]),
                context::statements([second])
            );
        }
    }
}
