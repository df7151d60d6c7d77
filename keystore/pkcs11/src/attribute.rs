//! What we ask of a private key and what we accept: the templates for C_GenerateKeyPair and the
//! judgement of the attributes read back. Mandatory ones are never dropped; optional ones (which
//! many tokens refuse by name) are dropped in a fixed order until the token takes the rest.
//! Attributes prove nothing to an outsider; they support evidence level `asserted` at most
//! (standards §4.6).

use crate::ecpoint::{Curve, EDWARDS25519_NAME};
use crate::mechanism::Scheme;
use cryptoki::error::{Error as Pkcs11Error, RvError};
use cryptoki::object::{Attribute, AttributeType};
use keystore::Alg;
use keystore::backend::ObjectId;
use keystore::protocol::{Evidence, EvidenceLevel};

/// Bits of a new RSA key: what every vendor that wants RS256 takes, and half the time of 3072.
const RSA_BITS: u64 = 2048;

/// 65537.
const RSA_EXPONENT: [u8; 3] = [0x01, 0x00, 0x01];

/// How much of the optional part is left out, from nothing to all of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Leaving {
    /// Ask for everything.
    Nothing,
    /// CKA_ALLOWED_MECHANISMS: the one tokens know least.
    AllowedMechanisms,
    /// CKA_MODIFIABLE and CKA_COPYABLE too.
    Freeze,
    /// The explicit `false` of CKA_DECRYPT, CKA_UNWRAP, CKA_DERIVE, CKA_SIGN_RECOVER and the
    /// public key's counterparts too; reading back still refuses a `true`.
    OtherUses,
}

impl Leaving {
    /// In the order they are tried.
    pub const LADDER: [Leaving; 4] = [
        Leaving::Nothing,
        Leaving::AllowedMechanisms,
        Leaving::Freeze,
        Leaving::OtherUses,
    ];
}

/// Whether the token refused the template rather than the request, so that a smaller template or
/// another spelling of the curve may do.
pub fn template_refused(error: &Pkcs11Error) -> bool {
    matches!(
        error,
        Pkcs11Error::Pkcs11(
            RvError::AttributeTypeInvalid
                | RvError::AttributeValueInvalid
                | RvError::AttributeReadOnly
                | RvError::TemplateInconsistent
                | RvError::TemplateIncomplete
                | RvError::ArgumentsBad
                | RvError::CurveNotSupported
                | RvError::DomainParamsInvalid
                | RvError::GeneralError, // NSS softokn's answer to what it does not know
            _
        )
    )
}

/// The spellings of what kind of key is wanted, the usual one first.
pub fn parameters(alg: Alg) -> Vec<Vec<Attribute>> {
    let curve = |curve: Curve| vec![Attribute::EcParams(curve.oid().to_vec())];
    match alg {
        Alg::ES256 => vec![curve(Curve::P256)],
        Alg::ES384 => vec![curve(Curve::P384)],
        Alg::EdDSA => {
            vec![
                curve(Curve::Ed25519),
                vec![Attribute::EcParams(EDWARDS25519_NAME.to_vec())],
            ]
        }
        Alg::RS256 | Alg::PS256 => vec![vec![
            Attribute::ModulusBits(RSA_BITS.into()),
            Attribute::PublicExponent(RSA_EXPONENT.to_vec()),
        ]],
    }
}

/// How long the token keeps a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifetime {
    /// For good: CKA_TOKEN is true.
    Token,
    /// As long as the session it was made in.
    Session,
}

/// What a new key pair is called and how long it stays.
#[derive(Clone, Copy)]
pub struct Template<'a> {
    /// CKA_ID of both halves.
    pub object: ObjectId,
    /// CKA_LABEL of both.
    pub label: &'a str,
    /// CKA_TOKEN of both.
    pub lifetime: Lifetime,
}

impl Template<'_> {
    fn common(&self) -> [Attribute; 3] {
        [
            Attribute::Token(self.lifetime == Lifetime::Token),
            Attribute::Label(self.label.as_bytes().to_vec()),
            Attribute::Id(self.object.0.to_vec()),
        ]
    }

    /// Of the public half; `parameters` say what kind of key.
    pub fn public(&self, parameters: &[Attribute], leaving: Leaving) -> Vec<Attribute> {
        let mut template = self.common().to_vec();
        template.extend([Attribute::Private(false), Attribute::Verify(true)]);
        template.extend_from_slice(parameters);
        if leaving < Leaving::Freeze {
            template.push(Attribute::Modifiable(false));
        }
        if leaving < Leaving::OtherUses {
            template.extend([
                Attribute::Encrypt(false),
                Attribute::Wrap(false),
                Attribute::VerifyRecover(false),
            ]);
        }
        template
    }

    /// Of the private half.
    pub fn private(&self, scheme: Scheme, leaving: Leaving) -> Vec<Attribute> {
        let mut template = self.common().to_vec();
        template.extend([
            Attribute::Private(true),
            Attribute::Sensitive(true),
            Attribute::Extractable(false),
            Attribute::Sign(true),
        ]);
        if leaving < Leaving::AllowedMechanisms {
            // B-SIG-3: one key, one algorithm, also below us.
            template.push(Attribute::AllowedMechanisms(vec![scheme.mechanism_type()]));
        }
        if leaving < Leaving::Freeze {
            // Without these a copy could relax what the original forbids.
            template.extend([Attribute::Modifiable(false), Attribute::Copyable(false)]);
        }
        if leaving < Leaving::OtherUses {
            // RSA decryption is raw signing; unwrapping lets foreign keys in; deriving is an oracle.
            template.extend([
                Attribute::Decrypt(false),
                Attribute::Unwrap(false),
                Attribute::Derive(false),
                Attribute::SignRecover(false),
            ]);
        }
        template
    }
}

/// The attributes of a private key that are judged.
pub const JUDGED: [AttributeType; 12] = [
    AttributeType::Token,
    AttributeType::Sensitive,
    AttributeType::Extractable,
    AttributeType::Sign,
    AttributeType::Private,
    AttributeType::Decrypt,
    AttributeType::Unwrap,
    AttributeType::Derive,
    AttributeType::SignRecover,
    AttributeType::Local,
    AttributeType::AlwaysSensitive,
    AttributeType::NeverExtractable,
];

/// What the token said about [`JUDGED`], in that order; `None`: it does not know the attribute.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Facts(pub [Option<bool>; JUDGED.len()]);

/// A mandatory attribute that is not as it must be, by its name in the standard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wrong(pub &'static str);

impl Facts {
    /// The evidence the attributes support.
    ///
    /// # Errors
    /// The first mandatory attribute that is wrong. An attribute the token does not know counts
    /// as wrong if it must be there, and as right if it must be false.
    pub fn judge(&self) -> Result<Evidence, Wrong> {
        let [
            token,
            sensitive,
            extractable,
            sign,
            private,
            decrypt,
            unwrap,
            derive,
            sign_recover,
            local,
            always_sensitive,
            never_extractable,
        ] = self.0;
        let demands = [
            (token == Some(true), "CKA_TOKEN is not true"),
            (sensitive == Some(true), "CKA_SENSITIVE is not true"),
            (extractable == Some(false), "CKA_EXTRACTABLE is not false"),
            (sign == Some(true), "CKA_SIGN is not true"),
            // PKCS#11 3.2 §4.4: whoever opens a session sees such an object, and signs with it, without a PIN.
            (private != Some(false), "CKA_PRIVATE is false"),
            (decrypt != Some(true), "CKA_DECRYPT is true"),
            (unwrap != Some(true), "CKA_UNWRAP is true"),
            (derive != Some(true), "CKA_DERIVE is true"),
            (sign_recover != Some(true), "CKA_SIGN_RECOVER is true"),
        ];
        if let Some((_, wrong)) = demands.into_iter().find(|(met, _)| !met) {
            return Err(Wrong(wrong));
        }
        let born_here = [local, always_sensitive, never_extractable] == [Some(true); 3];
        Ok(match born_here {
            true => Evidence {
                level: EvidenceLevel::Asserted,
                imported: false,
            },
            // Said even of NSS, which shows CKA_LOCAL=false for keys it made: what cannot be told
            // from an imported key is called one.
            false => Evidence {
                level: EvidenceLevel::None,
                imported: true,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: [Option<bool>; JUDGED.len()] = [
        Some(true),
        Some(true),
        Some(false),
        Some(true),
        Some(true),
        Some(false),
        Some(false),
        Some(false),
        Some(false),
        Some(true),
        Some(true),
        Some(true),
    ];

    #[test]
    fn every_mandatory_attribute_is_demanded() {
        assert!(Facts(GOOD).judge().is_ok());
        for index in 0..9 {
            let mut facts = GOOD;
            facts[index] = facts[index].map(|value| !value);
            assert!(Facts(facts).judge().is_err(), "{:?}", JUDGED[index]);
        }
        for index in 0..4 {
            let mut facts = GOOD;
            facts[index] = None;
            assert!(Facts(facts).judge().is_err(), "{:?}", JUDGED[index]);
        }
    }

    #[test]
    fn a_key_that_may_have_been_elsewhere_is_marked() {
        let asserted = Evidence {
            level: EvidenceLevel::Asserted,
            imported: false,
        };
        assert_eq!(Facts(GOOD).judge(), Ok(asserted));
        for index in 9..12 {
            for value in [Some(false), None] {
                let mut facts = GOOD;
                facts[index] = value;
                let evidence = Facts(facts).judge().unwrap();
                assert_eq!(evidence.level, EvidenceLevel::None, "{:?}", JUDGED[index]);
                assert!(evidence.imported);
            }
        }
    }

    #[test]
    fn what_is_mandatory_is_on_every_rung() {
        let object = ObjectId([1; 16]);
        let template = Template {
            object,
            label: "assertd/x",
            lifetime: Lifetime::Token,
        };
        for leaving in Leaving::LADDER {
            let template = template.private(Scheme::Eddsa, leaving);
            for attribute in [
                Attribute::Token(true),
                Attribute::Private(true),
                Attribute::Sensitive(true),
                Attribute::Extractable(false),
                Attribute::Sign(true),
                Attribute::Id(object.0.to_vec()),
            ] {
                assert!(template.contains(&attribute), "{leaving:?} {attribute:?}");
            }
        }
    }
}
