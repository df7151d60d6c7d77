//! One mint that was asked for: by which key, for what, saying what; and the text it signs. The text
//! may be written before its time, while the token signs another. It is no permission: the
//! charter is asked when the token is free, and a text for a key that has changed is written anew.

use crate::charter::{PurposeKind, Refusal};
use crate::clock::Time;
use crate::jws::{Header, SigningInput};
use crate::livekey::LiveKey;
use crate::{Claims, KeyId};
use std::borrow::Cow;
use std::sync::Arc;

/// What was asked for.
pub struct Mint {
    /// Which key is to sign.
    pub key: KeyId,
    purpose: PurposeKind,
    claims: Claims,
    draft: Option<Draft>,
}

/// The text, as the key was when it was written.
struct Draft {
    live: Arc<LiveKey>,
    text: SigningInput,
}

impl Mint {
    /// As the request has it.
    pub fn new(key: KeyId, purpose: PurposeKind, claims: Claims) -> Mint {
        Mint {
            key,
            purpose,
            claims,
            draft: None,
        }
    }

    /// Writes the text for later.
    pub fn draft(&mut self, live: Arc<LiveKey>) {
        let text = self.write(&live);
        self.draft = Some(Draft { live, text });
    }

    /// The text, if the key's charter permits it now.
    ///
    /// # Errors
    /// What it does not permit.
    pub fn text(&self, live: &Arc<LiveKey>, now: Time) -> Result<Cow<'_, SigningInput>, Refusal> {
        live.charter
            .permits(self.purpose, &self.claims, &live.public_key, now)?;
        Ok(match &self.draft {
            Some(draft) if Arc::ptr_eq(&draft.live, live) => Cow::Borrowed(&draft.text),
            _ => Cow::Owned(self.write(live)),
        })
    }

    fn write(&self, live: &LiveKey) -> SigningInput {
        let header = Header::of(&live.charter, &live.kid, live.certificate.as_ref());
        SigningInput::new(&header, &self.claims)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::ObjectId;
    use crate::charter::{AccountIss, KidMember, Purpose};
    use crate::protocol::{Condition, Evidence, EvidenceLevel};
    use crate::{Alg, CertificateUse, Charter, PublicKey, Typ};
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};

    const NOW: u64 = 1_800_000_000;

    fn live(account: &str, kid: &str, lifetime_max_s: u32) -> LiveKey {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        let public_key = PublicKey::from_sec1(pair.public_key().as_ref()).unwrap();
        let purpose = Purpose::Account {
            iss: AccountIss::Is(account.into()),
            sub: None,
            aud: None,
            scope: None,
        };
        LiveKey {
            object: ObjectId([1; 16]),
            charter: Charter {
                purpose,
                alg: Alg::ES256,
                typ: Typ::Jwt,
                kid: KidMember::Assigned(kid.into()),
                lifetime_max_s,
                backdate_s: 0,
                certificate: CertificateUse::None,
            },
            kid: public_key.kid(),
            public_key,
            evidence: Evidence {
                level: EvidenceLevel::None,
                imported: false,
            },
            condition: Condition::Usable {},
            certificate: None,
            origin: Default::default(),
        }
    }

    fn mint() -> Mint {
        let claims = Claims {
            iss: "app".into(),
            sub: None,
            aud: None,
            scope: None,
            jti: None,
            iat: NOW,
            nbf: None,
            exp: NOW + 60,
        };
        Mint::new("a/b.1".parse().unwrap(), PurposeKind::Account, claims)
    }

    #[test]
    fn a_draft_is_what_would_be_written_later() {
        let (live, now) = (Arc::new(live("app", "one", 60)), Time::from_unix_s(NOW));
        let (mut drafted, not_drafted) = (mint(), mint());
        drafted.draft(live.clone());
        let text = drafted.text(&live, now).unwrap();
        assert!(matches!(text, Cow::Borrowed(_)), "it was written twice");
        assert!(text == not_drafted.text(&live, now).unwrap());
    }

    #[test]
    fn a_draft_permits_nothing() {
        let was = live("app", "one", 60);
        let mut drafted = mint();
        drafted.draft(Arc::new(was.clone()));
        let amended = |charter: Charter| {
            Arc::new(LiveKey {
                charter,
                ..was.clone()
            })
        };
        let (now, text) = (Time::from_unix_s(NOW), |live: &Arc<LiveKey>, now| {
            drafted.text(live, now).map(Cow::into_owned)
        });
        let narrowed = amended(live("other", "one", 60).charter);
        assert!(matches!(
            text(&narrowed, now),
            Err(Refusal::Claim { claim: "iss", .. })
        ));
        let shorter = amended(live("app", "one", 59).charter);
        assert!(matches!(text(&shorter, now), Err(Refusal::Lifetime { .. })));
        // What was in order when it was drafted is too late when the token is free.
        let same = Arc::new(was.clone());
        assert!(text(&same, now).is_ok());
        let later = Time::from_unix_s(NOW + 11);
        assert!(matches!(
            text(&same, later),
            Err(Refusal::Clock { claim: "iat", .. })
        ));
        // Another header is another text.
        let renamed = amended(live("app", "two", 60).charter);
        let anew = mint().text(&renamed, now).map(Cow::into_owned);
        assert!(text(&renamed, now) == anew);
        assert!(text(&renamed, now) != text(&same, now));
    }
}
