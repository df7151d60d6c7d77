//! What the JSON Schema of the configuration says of a `[keystore.NAME]` beyond its types: which keys
//! are for which backend. Only for making that file; no program has it.

use schemars::Schema;
use serde_json::json;

/// The other backend's keys are refused, and this one's demanded, as [`super::Section::check`] does.
pub(super) fn by_backend(schema: &mut Schema) {
    let of = |backend: &str, needed: &[&str], refused: &[&str]| {
        let refused: serde_json::Map<_, _> = refused
            .iter()
            .map(|key| ((*key).to_owned(), json!(false)))
            .collect();
        json!({
            "if": { "properties": { "backend": { "const": backend } }, "required": ["backend"] },
            "then": { "properties": refused, "required": needed },
        })
    };
    let pkcs11 = of(
        "pkcs11",
        &["module", "token", "pin"],
        &["tcti", "auth", "sessions"],
    );
    let tpm = of(
        "tpm",
        &[],
        &["module", "token", "pin", "init_args", "signers"],
    );
    schema.insert("allOf".to_owned(), json!([pkcs11, tpm]));
}
