//! The compact JWS (RFC 7515 §3.1). The header is built here from the key and its charter and
//! from nothing else: `alg`, `typ`, `kid` unless the charter leaves it out, and `x5t#S256` if the
//! charter says so, in this order. There is no `jku`, `jwk`, `x5u` or `crit`, and no way to ask for one.

use crate::certificate::Certificate;
use crate::charter::{Charter, KidMember};
use crate::claims::Claims;
use crate::publickey::{Kid, Verifier, WrongSignature};
use crate::{Alg, CertificateUse, Typ};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL};
use std::fmt;

/// Longest assertion we release, in bytes: proxies cut headers at 8 KiB.
pub const ASSERTION_LEN_MAX: usize = 8 * 1024;

/// What a header says: a key's, by its charter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// The key's one algorithm.
    pub alg: Alg,
    /// The charter's.
    pub typ: Typ,
    /// None where the charter leaves it out.
    pub kid: Option<String>,
    /// The thumbprint of the key's certificate, where the charter names that.
    pub x5t: Option<String>,
}

impl Header {
    /// The header of every assertion of a key under this charter, while it has this certificate. A key
    /// that is to name one and has none signs nothing.
    pub fn of(charter: &Charter, kid: &Kid, certificate: Option<&Certificate>) -> Header {
        Header {
            alg: charter.alg,
            typ: charter.typ,
            kid: match &charter.kid {
                KidMember::Thumbprint => Some(kid.to_string()),
                KidMember::Assigned(kid) => Some(kid.clone()),
                KidMember::Absent => None,
            },
            x5t: match charter.certificate {
                CertificateUse::Named => certificate.map(|it| it.thumbprint().to_owned()),
                CertificateUse::None | CertificateUse::Allowed => None,
            },
        }
    }

    /// Values that need JSON escaping cannot occur: `alg`, `typ` and a thumbprint are ours, and of a
    /// `kid` the charter's check says which characters it has.
    fn to_json(&self) -> String {
        let Header { alg, typ, kid, x5t } = self;
        let mut json = format!(r#"{{"alg":"{alg}","typ":"{}""#, typ.as_str());
        for (member, value) in [("kid", kid), ("x5t#S256", x5t)] {
            if let Some(value) = value {
                json.extend([",\"", member, "\":\"", value, "\""]);
            }
        }
        json.push('}');
        json
    }
}

/// `BASE64URL(header) . BASE64URL(payload)`: the bytes a key signs.
#[derive(Clone, PartialEq, Eq)]
pub struct SigningInput(String);

impl SigningInput {
    /// The signing input of these claims under this header.
    pub fn new(header: &Header, claims: &Claims) -> SigningInput {
        let header = header.to_json();
        let payload = claims.to_json();
        let mut text = String::with_capacity((header.len() + payload.len()) * 4 / 3 + 8);
        BASE64URL.encode_string(header, &mut text);
        text.push('.');
        BASE64URL.encode_string(payload, &mut text);
        SigningInput(text)
    }

    /// The probe of B-SIG-1: a JWS no verifier may accept (`typ` probe+jwt, audience
    /// `urn:invalid`, expired in 1970), signed only to learn whether the token signs rightly.
    pub fn probe(alg: Alg, nonce: &str) -> SigningInput {
        let header = format!(r#"{{"alg":"{alg}","typ":"probe+jwt"}}"#);
        let payload = serde_json::json!({ "aud": "urn:invalid", "exp": 1, "jti": nonce });
        let (header, payload) = (
            BASE64URL.encode(header),
            BASE64URL.encode(payload.to_string()),
        );
        SigningInput(format!("{header}.{payload}"))
    }

    /// The bytes to sign.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    /// The compact serialisation with this signature.
    pub fn with_signature(&self, signature: &[u8]) -> String {
        let mut text = String::with_capacity(self.0.len() + 1 + signature.len() * 4 / 3 + 4);
        text.push_str(&self.0);
        text.push('.');
        BASE64URL.encode_string(signature, &mut text);
        text
    }
}

/// A signed JWT that has been checked: it says exactly what was granted, and its signature
/// verifies under the published key (B-SIG-2, P3). Made by [`Assertion::check`] alone.
#[derive(Clone, PartialEq, Eq)]
pub struct Assertion(String);

/// Why a JWS is not the assertion that was asked for. A wrong signature suspends the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bad {
    /// Header or claims are not the granted ones.
    Content,
    /// The signature does not verify.
    Signature,
}

impl Assertion {
    /// Accepts `compact` only if it is `expected` with a signature that verifies.
    pub fn check(
        compact: String,
        expected: &SigningInput,
        verifier: &Verifier,
    ) -> Result<Assertion, Bad> {
        let signature = compact
            .strip_prefix(&expected.0)
            .and_then(|rest| rest.strip_prefix('.'))
            .filter(|_| compact.len() <= ASSERTION_LEN_MAX)
            .ok_or(Bad::Content)?;
        let signature = BASE64URL.decode(signature).map_err(|_| Bad::Signature)?;
        let _valid = verifier
            .verify(expected.as_bytes(), &signature)
            .map_err(|WrongSignature| Bad::Signature)?;
        Ok(Assertion(compact))
    }

    /// The compact serialisation, to be sent to the workload it was granted to and nowhere else.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// An assertion is a bearer credential: it is never printed whole.
impl fmt::Debug for Assertion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Assertion({} bytes)", self.0.len())
    }
}

impl fmt::Display for Bad {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Bad::Content => {
                "the keystore returned another header or other claims than were granted"
            }
            Bad::Signature => "the signature does not verify under the published key",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::PublicKey;
    use crate::charter::{AccountIss, Purpose};
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};

    fn key() -> (EcdsaKeyPair, PublicKey) {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        let public = PublicKey::from_sec1(pair.public_key().as_ref()).unwrap();
        (pair, public)
    }

    fn claims() -> Claims {
        Claims {
            iss: "client".into(),
            sub: Some("client".into()),
            aud: Some("https://as.example".into()),
            scope: None,
            jti: Some("jti0000000000000000000".into()),
            iat: 1_800_000_000,
            nbf: None,
            exp: 1_800_000_060,
        }
    }

    fn header(typ: Typ, public: &PublicKey) -> Header {
        Header {
            alg: Alg::ES256,
            typ,
            kid: Some(public.kid().to_string()),
            x5t: None,
        }
    }

    fn decode(part: &str) -> String {
        String::from_utf8(BASE64URL.decode(part).unwrap()).unwrap()
    }

    #[test]
    fn header_and_claims_are_golden() {
        let (_, public) = key();
        let input = SigningInput::new(&header(Typ::ClientAuthentication, &public), &claims());
        let (header, payload) = input.0.split_once('.').unwrap();
        assert_eq!(
            decode(header),
            format!(
                r#"{{"alg":"ES256","typ":"client-authentication+jwt","kid":"{}"}}"#,
                public.kid()
            )
        );
        assert_eq!(
            decode(payload),
            r#"{"iss":"client","sub":"client","aud":"https://as.example","jti":"jti0000000000000000000","iat":1800000000,"exp":1800000060}"#
        );
    }

    #[test]
    fn a_header_is_its_charters_and_nothing_else() {
        let (_, public) = key();
        let charter = |kid| Charter {
            purpose: Purpose::Account {
                iss: AccountIss::Is("app".into()),
                sub: None,
                aud: None,
                scope: None,
            },
            alg: Alg::RS256,
            typ: Typ::Jwt,
            kid,
            lifetime_max_s: 60,
            backdate_s: 0,
            certificate: CertificateUse::None,
        };
        let json = |kid| Header::of(&charter(kid), &public.kid(), None).to_json();
        assert_eq!(json(KidMember::Absent), r#"{"alg":"RS256","typ":"JWT"}"#);
        assert_eq!(
            json(KidMember::Assigned("370ab79b".into())),
            r#"{"alg":"RS256","typ":"JWT","kid":"370ab79b"}"#
        );
        let thumbprint = format!(r#"{{"alg":"RS256","typ":"JWT","kid":"{}"}}"#, public.kid());
        assert_eq!(json(KidMember::Thumbprint), thumbprint);
    }

    #[test]
    fn a_certificate_is_named_where_the_charter_says_so() {
        let (_, public) = key();
        // `printf x | openssl dgst -sha256 -binary | basenc --base64url`
        let stored = r#"{"der":"eA==","validity":{"not_before":1,"not_after":2}}"#;
        let certificate: Certificate = serde_json::from_str(stored).unwrap();
        let thumbprint = "LXEWQrcmsEQBYnyp-6wy9chTD7GQPMTbAiWHF5IaSIE";
        let json = |kid, certificate_use| {
            let charter = Charter {
                purpose: Purpose::ClientAuthentication {
                    iss: "app".into(),
                    sub: "app".into(),
                    aud: "https://as".into(),
                },
                alg: Alg::PS256,
                typ: Typ::Jwt,
                kid,
                lifetime_max_s: 60,
                backdate_s: 0,
                certificate: certificate_use,
            };
            Header::of(&charter, &public.kid(), Some(&certificate)).to_json()
        };
        assert_eq!(
            json(KidMember::Absent, CertificateUse::Named),
            format!(r#"{{"alg":"PS256","typ":"JWT","x5t#S256":"{thumbprint}"}}"#)
        );
        assert_eq!(
            json(KidMember::Assigned("a".into()), CertificateUse::Named),
            format!(r#"{{"alg":"PS256","typ":"JWT","kid":"a","x5t#S256":"{thumbprint}"}}"#)
        );
        let without = r#"{"alg":"PS256","typ":"JWT","kid":"a"}"#;
        for other in [CertificateUse::None, CertificateUse::Allowed] {
            assert_eq!(json(KidMember::Assigned("a".into()), other), without);
        }
    }

    #[test]
    fn only_what_was_granted_and_signed_is_an_assertion() {
        let (pair, public) = key();
        let verifier = public.verifier(Alg::ES256).unwrap();
        let input = SigningInput::new(&header(Typ::Jwt, &public), &claims());
        let rng = aws_lc_rs::rand::SystemRandom::new();
        let signature = pair.sign(&rng, input.as_bytes()).unwrap();
        let good = input.with_signature(signature.as_ref());
        assert!(Assertion::check(good.clone(), &input, &verifier).is_ok());

        let other = SigningInput::new(
            &header(Typ::Jwt, &public),
            &Claims {
                aud: Some("https://b.example".into()),
                ..claims()
            },
        );
        let signed_other =
            other.with_signature(pair.sign(&rng, other.as_bytes()).unwrap().as_ref());
        assert_eq!(
            Assertion::check(signed_other, &input, &verifier),
            Err(Bad::Content)
        );

        for bad in [
            input.with_signature(&[0; 64]), // r = s = 0 (CVE-2022-21449)
            input.with_signature(&signature.as_ref()[..63]),
            input.with_signature(&[]),
            format!("{good}A"),
            format!("{good}="),
            format!("{good}.x"),
        ] {
            assert_eq!(
                Assertion::check(bad, &input, &verifier),
                Err(Bad::Signature)
            );
        }
    }

    #[test]
    fn an_assertion_is_never_printed() {
        let (pair, public) = key();
        let input = SigningInput::new(&header(Typ::Jwt, &public), &claims());
        let signature = pair
            .sign(&aws_lc_rs::rand::SystemRandom::new(), input.as_bytes())
            .unwrap();
        let compact = input.with_signature(signature.as_ref());
        let verifier = public.verifier(Alg::ES256).unwrap();
        let assertion = Assertion::check(compact, &input, &verifier).unwrap();
        assert!(!format!("{assertion:?}").contains("ey"));
    }
}
