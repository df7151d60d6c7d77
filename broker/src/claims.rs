//! From a grant, or a trial, to the claims of one assertion. Pure: the time and the random bytes come in.
//! Everything in the claims is the operator's but the times and the `jti` (B-AUD-1, B-AUD-5).

use crate::config::Target;
use crate::lifecycle::Trial;
use crate::policy::Grant;
use crate::profile::{Jti, Nbf};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL};
use keystore::charter::Purpose;
use keystore::{PublicKey, Time};

/// Random bytes of a `jti`: 128 bits make collisions negligible (WIMSE WPT §2).
pub const JTI_BYTES: usize = 16;

/// The claims of one assertion, made from a grant, or for a trial: a job for a keystore takes
/// these, so that there is one road to a signature.
///
/// ```compile_fail
/// // There are no claims without a grant, and no grant without a decision.
/// let _ = broker::claims::Claims(keystore::Claims {
///     iss: "me".into(), sub: None, aud: None, scope: None, jti: None, iat: 1, nbf: None, exp: 2,
/// });
/// ```
pub struct Claims(keystore::Claims);

impl Claims {
    /// The claims for this grant under this key, now. Takes the grant: one grant, one assertion.
    pub fn from_grant(grant: Grant, key: &PublicKey, now: Time, jti: [u8; JTI_BYTES]) -> Claims {
        Claims::of(grant.target(), grant.lifetime_s(), key, now, jti)
    }

    fn of(
        target: &Target,
        lifetime_s: u32,
        key: &PublicKey,
        now: Time,
        jti: [u8; JTI_BYTES],
    ) -> Claims {
        let row = target.profile.row;
        let iss = match &target.charter.purpose {
            Purpose::Account { iss, .. } => iss.value(key),
            Purpose::ClientAuthentication { .. } | Purpose::Federation { .. } => target.iss.clone(),
        };
        let backdate_s = u64::from(target.charter.backdate_s);
        let iat = now.unix_s().saturating_sub(backdate_s);
        Claims(keystore::Claims {
            iss,
            sub: target.sub.clone(),
            aud: target.aud.clone(),
            scope: target.scope.clone(),
            jti: match row.jti {
                Jti::Absent => None,
                Jti::Short => Some(BASE64URL.encode(jti)),
                Jti::Uuid => Some(uuid(jti)),
            },
            iat,
            nbf: match row.nbf {
                Nbf::Absent => None,
                Nbf::AsIat => Some(iat),
            },
            exp: now.unix_s() + u64::from(lifetime_s),
        })
    }

    /// The claims of the canary of a version that is not active. Takes the trial: one trial, one assertion,
    /// which goes to the target's token endpoint and to no caller.
    pub fn for_trial(
        _trial: Trial,
        target: &Target,
        key: &PublicKey,
        now: Time,
        jti: [u8; JTI_BYTES],
    ) -> Claims {
        Claims::of(target, target.lifetime_s, key, now, jti)
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

/// RFC 9562 §5.4: six of the bits say what it is, and the others are random.
fn uuid(random: [u8; JTI_BYTES]) -> String {
    let version_4 = u128::from_be_bytes(random) & !(0xf << 76) | 4 << 76;
    let bits = version_4 & !(0b11 << 62) | 0b10 << 62;
    let hex = format!("{bits:032x}");
    let parts = [
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..],
    ];
    parts.join("-")
}

#[cfg(test)]
mod tests;
