//! From a grant to the claims of one assertion. Pure: the time and the random bytes come in.
//! Everything in the claims is the operator's but the times and the `jti` (B-AUD-1, B-AUD-5).

use crate::policy::Grant;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL};
use keystore::Time;

/// Random bytes of a `jti`: 128 bits make collisions negligible (WIMSE WPT §2).
pub const JTI_BYTES: usize = 16;

/// The claims of one assertion, made from a grant and nothing else: a job for a keystore takes
/// these, so that there is one road to a signature.
///
/// ```compile_fail
/// // There are no claims without a grant, and no grant without a decision.
/// let _ = broker::claims::Claims(keystore::Claims {
///     iss: "me".into(), sub: "me".into(), aud: "you".into(), jti: "1".into(),
///     iat: 1, nbf: None, exp: 2,
/// });
/// ```
pub struct Claims(keystore::Claims);

impl Claims {
    /// The claims for this grant, now. Takes the grant: one grant, one assertion.
    pub fn from_grant(grant: Grant, now: Time, jti: [u8; JTI_BYTES]) -> Claims {
        let target = grant.target();
        let iat = now.unix_s();
        Claims(keystore::Claims {
            iss: target.iss.clone(),
            sub: target.sub.clone(),
            aud: target.aud.clone(),
            jti: BASE64URL.encode(jti),
            iat,
            nbf: None,
            exp: iat + u64::from(grant.lifetime_s()),
        })
    }

    /// As they are recorded and compared.
    pub fn wire(&self) -> &keystore::Claims {
        &self.0
    }

    /// As they go to the keystore.
    pub fn into_wire(self) -> keystore::Claims {
        self.0
    }
}

#[cfg(test)]
mod tests;
