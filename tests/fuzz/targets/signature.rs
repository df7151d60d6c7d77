//! Signatures, as a token or a TPM gives them and as a JWS carries them.
//!
//! Asserted: what our verifier says of an ES256 signature p256 says too, for right ones, changed
//! ones and any other bytes (DER among them, which is never right); under the other algorithms one
//! right signature is right, and nothing else; r and s of a TPM, however long it gives them, become
//! 64 bytes that verify exactly if the numbers do; an assertion is accepted only as it was asked for
//! and in one spelling; nothing that a TPM calls a signature panics.

use super::input::Input;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL};
use keystore::jws::{Assertion, Bad, SigningInput};
use keystore::publickey::Verifier;
use keystore::{Alg, PublicKey};
use keystore_tpm::fuzzed::jws_signature;
use p256::ecdsa::signature::{Signer, Verifier as _};
use p256::ecdsa::{self, SigningKey, VerifyingKey};
use serde_json::Value;
use std::sync::OnceLock;
use tss_esapi::interface_types::algorithm::HashingAlgorithm;
use tss_esapi::structures::{EccParameter, EccSignature, Signature};
use tss_esapi::traits::UnMarshall;

/// Longest signature tried: four times the longest of an EC key, and more than one of RSA-2048.
const SIGNATURE_LEN_MAX: usize = 300;

/// What the signatures of [`known`] are over.
const MESSAGE: &[u8] = b"assertd: a message";

/// Runs one input.
pub fn check(data: &[u8]) {
    let mut input = Input::of(data);
    match input.choice(6) {
        0 => es256(&mut input),
        1 => tpm_numbers(&mut input),
        2 => tpm_structure(input.rest()),
        3 => assertion(&mut input),
        _ => other_algorithms(&mut input),
    }
}

/// A key, a message and its signature. Signing for each input would take most of the time, and what
/// is tried is verifying: there are a few, made once.
struct Signed {
    secret: SigningKey,
    public: PublicKey,
    verifier: Verifier,
    /// What is asked to be signed, as a JWS has it.
    asked: SigningInput,
    signature: ecdsa::Signature,
}

impl Signed {
    fn one_of(input: &mut Input<'_>) -> &'static Signed {
        static ALL: OnceLock<Vec<Signed>> = OnceLock::new();
        let all = ALL.get_or_init(|| (1..=8).map(Signed::make).collect());
        &all[usize::from(input.choice(8))]
    }

    fn make(byte: u8) -> Signed {
        let secret = SigningKey::from_slice(&[byte; 32]).expect("a number below the order");
        let point = super::ecpoint::point_of(&[byte; 32]).expect("the same number");
        let public = PublicKey::from_sec1(&point).expect("a point of p256");
        let verifier = public.verifier(Alg::ES256).expect("a P-256 key");
        let asked = SigningInput::probe(Alg::ES256, &format!("nonce {byte}"));
        let message = asked.as_bytes();
        let signature: ecdsa::Signature = secret.sign(message);
        let der = signature.to_der();
        assert!(
            verifier.verify(message, der.as_bytes()).is_err(),
            "DER is not what JWS has"
        );
        let right = signature.to_bytes();
        assert!(verifier.verify(message, &right).is_ok());
        let high = ecdsa::Signature::from_scalars(signature.r(), -*signature.s());
        let high = high.expect("neither is 0").to_bytes();
        let says = verifier.verify(message, &high).is_ok();
        assert_eq!(says, p256_says(&secret, message, &high));
        for alg in [Alg::ES384, Alg::RS256, Alg::PS256, Alg::EdDSA] {
            assert!(public.verifier(alg).is_err(), "one key, one algorithm");
        }
        Signed {
            secret,
            public,
            verifier,
            asked,
            signature,
        }
    }

    /// Whether p256 and we take this for a signature; both say the same.
    fn says(&self, signature: &[u8]) -> bool {
        let message = self.asked.as_bytes();
        let ours = self.verifier.verify(message, signature).is_ok();
        assert_eq!(
            ours,
            p256_says(&self.secret, message, signature),
            "{signature:02x?}"
        );
        ours
    }
}

fn p256_says(key: &SigningKey, message: &[u8], signature: &[u8]) -> bool {
    let read = ecdsa::Signature::from_slice(signature);
    read.is_ok_and(|it| VerifyingKey::from(key).verify(message, &it).is_ok())
}

/// A right signature and what the input makes of it; or bytes that were never one.
fn changed(input: &mut Input<'_>, right: &[u8]) -> Vec<u8> {
    let mut bytes = right.to_vec();
    match input.choice(6) {
        0 => return input.bytes(SIGNATURE_LEN_MAX).to_vec(),
        1 => bytes.truncate(usize::from(input.byte())),
        2 => bytes.extend(input.bytes(SIGNATURE_LEN_MAX)),
        3 => drop(bytes.splice(0..0, input.bytes(SIGNATURE_LEN_MAX).iter().copied())),
        _ => {}
    }
    while !input.is_over() && !bytes.is_empty() {
        let at = usize::from(input.byte()) | usize::from(input.byte()) << 8;
        let at = at % bytes.len();
        bytes[at] ^= input.byte();
    }
    bytes
}

fn es256(input: &mut Input<'_>) {
    let signed = Signed::one_of(input);
    let changed = changed(input, &signed.signature.to_bytes());
    assert!(!signed.says(&changed) || changed.len() == 64);
    assert!(signed.public.fits(Alg::ES256));
}

/// r and s as a TPM gives them: zeros before them left out, or too many.
fn tpm_numbers(input: &mut Input<'_>) {
    let signed = Signed::one_of(input);
    let right = signed.signature.to_bytes();
    let mut number = |own: &[u8]| -> Vec<u8> {
        match input.choice(4) {
            0 => input.bytes(70).to_vec(),
            1 => own.iter().copied().skip_while(|byte| *byte == 0).collect(),
            2 => [&vec![0; usize::from(input.choice(40))], own].concat(),
            _ => own[usize::from(input.choice(32))..].to_vec(),
        }
    };
    let (r, s) = (number(&right[..32]), number(&right[32..]));
    let parameters = EccParameter::try_from(&r[..]).and_then(|r| {
        let s = EccParameter::try_from(&s[..])?;
        EccSignature::create(HashingAlgorithm::Sha256, r, s)
    });
    let Ok(pair) = parameters else {
        return;
    };
    let given = Signature::EcDsa(pair);
    let full = |number: &[u8], width: usize| -> Option<Vec<u8>> {
        let zeros = number.iter().take_while(|byte| **byte == 0).count();
        let digits = &number[zeros..];
        (digits.len() <= width).then(|| [&vec![0; width - digits.len()], digits].concat())
    };
    for (alg, width) in [(Alg::ES256, 32), (Alg::ES384, 48)] {
        let expected = full(&r, width)
            .zip(full(&s, width))
            .map(|(r, s)| [r, s].concat());
        assert_eq!(jws_signature(alg, &given), expected, "{alg}");
    }
    for alg in [Alg::RS256, Alg::PS256, Alg::EdDSA] {
        assert_eq!(jws_signature(alg, &given), None, "{alg}");
    }
    if let Some(jws) = jws_signature(Alg::ES256, &given) {
        let says = signed.says(&jws);
        assert!(says || jws != right[..], "the numbers are right");
    }
}

/// TPMT_SIGNATURE.
fn tpm_structure(bytes: &[u8]) {
    let Ok(signature) = Signature::unmarshall(bytes) else {
        return;
    };
    for alg in Alg::ALL {
        let Some(jws) = jws_signature(alg, &signature) else {
            continue;
        };
        match alg {
            Alg::ES256 => assert_eq!(jws.len(), 64),
            Alg::ES384 => assert_eq!(jws.len(), 96),
            Alg::RS256 | Alg::PS256 => assert!(jws.len() <= 512),
            Alg::EdDSA => panic!("no TPM has EdDSA"),
        }
        for (known, verifier, _) in known() {
            if *known == alg {
                assert!(verifier.verify(b"another message", &jws).is_err());
            }
        }
    }
}

/// What the broker does with what a keystore gave for a JWS.
fn assertion(input: &mut Input<'_>) {
    let signed = Signed::one_of(input);
    let Signed {
        asked, verifier, ..
    } = signed;
    let right = signed.signature.to_bytes();
    let good = asked.with_signature(&right);
    let given = match input.choice(3) {
        0 => asked.with_signature(&changed(input, &right)),
        _ => String::from_utf8_lossy(&changed(input, good.as_bytes())).into_owned(),
    };
    let expected = match given.as_bytes().strip_prefix(asked.as_bytes()) {
        Some([b'.', signature @ ..]) if given.len() <= 8192 => {
            let bytes = BASE64URL.decode(signature).ok();
            let right = bytes.filter(|bytes| signed.says(bytes));
            match right {
                Some(bytes) => {
                    assert_eq!(given, asked.with_signature(&bytes), "in one spelling");
                    Ok(())
                }
                None => Err(Bad::Signature),
            }
        }
        _ => Err(Bad::Content),
    };
    let verdict = Assertion::check(given.clone(), asked, verifier);
    assert_eq!(
        verdict.as_ref().map(|_| ()),
        expected.as_ref().map(|_| ()),
        "{given}"
    );
    if let Ok(assertion) = verdict {
        assert_eq!(assertion.as_str(), given);
        let shown = format!("{assertion:?}");
        assert!(
            !shown.contains(&given[..20]),
            "an assertion is never printed"
        );
    }
}

/// An algorithm, a verifier and the one signature over [`MESSAGE`] that we know to be right.
type Known = (Alg, Verifier, Vec<u8>);

fn known() -> &'static [Known] {
    static KNOWN: OnceLock<Vec<Known>> = OnceLock::new();
    KNOWN.get_or_init(|| {
        let text = include_str!("signatures.json");
        let all: Vec<Value> = serde_json::from_str(text).expect("it is ours");
        let read = |one: Value| {
            let key: PublicKey = serde_json::from_value(one["key"].clone()).expect("a key");
            let alg: Alg = serde_json::from_value(one["alg"].clone()).expect("an algorithm");
            let signature = BASE64URL.decode(one["signature"].as_str().unwrap_or_default());
            let verifier = key.verifier(alg).expect("the key fits");
            (alg, verifier, signature.expect("base64url"))
        };
        all.into_iter().map(read).collect()
    })
}

fn other_algorithms(input: &mut Input<'_>) {
    let (alg, verifier, right) = &known()[usize::from(input.choice(4)) % known().len()];
    assert!(verifier.verify(MESSAGE, right).is_ok(), "{alg}");
    let other = changed(input, right);
    let message = match input.choice(2) {
        0 => MESSAGE.to_vec(),
        _ => [MESSAGE, b"."].concat(),
    };
    let is_right = other == *right && message == MESSAGE;
    assert_eq!(verifier.verify(&message, &other).is_ok(), is_right, "{alg}");
}
