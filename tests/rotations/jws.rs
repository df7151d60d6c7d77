//! Assertions and keys as strangers read them: nothing of assertd's, the signature by the p256 crate, with which it
//! shares no code.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use p256::ecdsa::signature::Verifier;
use p256::ecdsa::{Signature, VerifyingKey};
use serde::Deserialize;
use serde_json::Value;
use std::collections::HashMap;

#[derive(Deserialize)]
pub struct Header {
    pub alg: String,
    pub kid: String,
}

#[derive(Deserialize)]
pub struct Claims {
    pub iat: u64,
    pub exp: u64,
}

/// What it says, whoever signed it.
pub fn read(text: &str) -> Result<(Header, Claims), String> {
    let [header, claims, _] = parts(text)?;
    let wrong = |error: serde_json::Error| error.to_string();
    let header: Header = serde_json::from_slice(&decoded(header)?).map_err(wrong)?;
    let claims: Claims = serde_json::from_slice(&decoded(claims)?).map_err(wrong)?;
    match header.alg == "ES256" {
        true => Ok((header, claims)),
        false => Err(format!("alg is {}", header.alg)),
    }
}

/// Whether this key has signed it.
pub fn verify(text: &str, jwk: &Value) -> Result<(), String> {
    let [_, _, signature] = parts(text)?;
    let (signed, _) = text.rsplit_once('.').ok_or("no signature")?;
    let signature =
        Signature::from_slice(&decoded(signature)?).map_err(|error| error.to_string())?;
    let key = key(jwk)?;
    key.verify(signed.as_bytes(), &signature)
        .map_err(|_| "the signature is of another key or text".to_owned())
}

/// The keys of a set, by kid. Two of one kid, or one that is not as it has to be, and it is no set.
pub fn set(document: &[u8]) -> Result<HashMap<String, Value>, String> {
    let document: Value = serde_json::from_slice(document).map_err(|error| error.to_string())?;
    let mut set = HashMap::new();
    for jwk in document["keys"].as_array().ok_or("no keys")? {
        let kid = jwk["kid"].as_str().ok_or("a key without kid")?;
        if jwk["alg"] != "ES256" || jwk["use"] != "sig" {
            return Err(format!("{kid}: alg {}, use {}", jwk["alg"], jwk["use"]));
        }
        if set.insert(kid.to_owned(), jwk.clone()).is_some() {
            return Err(format!("{kid} twice"));
        }
    }
    Ok(set)
}

fn key(jwk: &Value) -> Result<VerifyingKey, String> {
    if jwk["kty"] != "EC" || jwk["crv"] != "P-256" {
        return Err(format!("kty {}, crv {}", jwk["kty"], jwk["crv"]));
    }
    let member = |name: &str| decoded(jwk[name].as_str().unwrap_or_default());
    let point = [vec![4], member("x")?, member("y")?].concat();
    VerifyingKey::from_sec1_bytes(&point).map_err(|error| error.to_string())
}

fn parts(text: &str) -> Result<[&str; 3], String> {
    let parts: Vec<&str> = text.split('.').collect();
    parts.try_into().map_err(|_| "not three parts".to_owned())
}

fn decoded(part: &str) -> Result<Vec<u8>, String> {
    URL_SAFE_NO_PAD
        .decode(part)
        .map_err(|error| error.to_string())
}
