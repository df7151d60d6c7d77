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
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::peer::Proof;
    use crate::policy::{Decision, Policy};
    use crate::workload::Workload;
    use keystore::PublicKey;
    use keystore::jws::SigningInput;
    use std::io::Write;

    const CONFIG: &str = r#"
[keystore.hsm]
backend = "pkcs11"
module = "/m.so"
token = { label = "t" }
pin = { credential = "p" }
[issuer.prod]
url = "https://id.example.com/prod"
subjects = ["payments"]
keystore = "hsm"
alg = "RS256"
[workload.payments]
match = { uid = 1 }
[workload.payments.target.rfc7523]
profile = "rfc7523"
authorization_server = "https://as.example"
client_id = "payments-prod"
[workload.payments.target.aws-oidc]
profile = "aws-oidc"
issuer = "prod"
subject = "payments"
audience = "sts.amazonaws.com"
"#;

    /// Header and claims of the profile's target, as JSON text.
    fn golden(target: &str, jwk: &str, lifetime: Option<u32>) -> (String, String) {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(CONFIG.as_bytes()).unwrap();
        let policy = Policy::new(Config::load(file.path()).unwrap().workloads);
        let workload = Workload::for_test(1, 1, None, false, Proof::Pidfd);
        let now = Time::from_unix_s(1_800_000_000);
        let Decision::Allow(grant) = policy.decide(&workload, target, lifetime, now) else {
            panic!("denied");
        };
        let charter = grant.target().charter.clone();
        let claims = Claims::from_grant(grant, now, [0xab; JTI_BYTES]);
        let key: PublicKey = serde_json::from_str(jwk).unwrap();
        let input = SigningInput::new(charter.alg, charter.typ, &key.kid(), claims.wire());
        let text = std::str::from_utf8(input.as_bytes()).unwrap();
        let (header, payload) = text.split_once('.').unwrap();
        let decode = |part| String::from_utf8(BASE64URL.decode(part).unwrap()).unwrap();
        (decode(header), decode(payload))
    }

    /// RFC 7515 appendix A.3.
    const P256: &str = r#"{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}"#;

    /// RFC 7638 §3.1.
    const RSA: &str = r#"{"kty":"RSA","n":"0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw","e":"AQAB"}"#;

    #[test]
    fn rfc7523_is_golden() {
        let (header, claims) = golden("rfc7523", P256, None);
        assert_eq!(
            header,
            r#"{"alg":"ES256","typ":"client-authentication+jwt","kid":"oKIywvGUpTVTyxMQ3bwIIeQUudfr_CkLMjCE19ECD-U"}"#
        );
        assert_eq!(
            claims,
            r#"{"iss":"payments-prod","sub":"payments-prod","aud":"https://as.example","jti":"q6urq6urq6urq6urq6urqw","iat":1800000000,"exp":1800000060}"#
        );
    }

    #[test]
    fn aws_oidc_is_golden() {
        let (header, claims) = golden("aws-oidc", RSA, Some(120));
        assert_eq!(
            header,
            r#"{"alg":"RS256","typ":"JWT","kid":"NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"}"#
        );
        assert_eq!(
            claims,
            r#"{"iss":"https://id.example.com/prod","sub":"payments","aud":"sts.amazonaws.com","jti":"q6urq6urq6urq6urq6urqw","iat":1800000000,"exp":1800000120}"#
        );
    }
}
