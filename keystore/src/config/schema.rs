//! What the JSON Schema of the configuration says of a `[keystore.NAME]` beyond its types: which keys
//! are for which backend. Only for making that file; no program has it.

use crate::evidence::healthy::UNFIT;
use schemars::Schema;
use serde_json::json;

/// The other backend's keys are refused, and this one's demanded, as [`super::Section::check`] does.
pub(super) fn by_backend(schema: &mut Schema) {
    let pkcs11 = json!({
        "if": { "properties": { "backend": { "const": "pkcs11" } }, "required": ["backend"] },
        "then": {
            "properties": { "tcti": false, "auth": false, "sessions": false, "healthy": false },
            "required": ["module", "token", "pin"],
        },
    });
    let tpm = json!({
        "if": { "properties": { "backend": { "const": "tpm" } }, "required": ["backend"] },
        "then": {
            "properties": {
                "module": false,
                "token": false,
                "pin": false,
                "init_args": false,
                "signers": false,
                "environment": { "maxProperties": 0 },
                "module_state": { "maxItems": 0 },
                "network": { "const": false },
            },
        },
    });
    schema.insert("allOf".to_owned(), json!([pkcs11, tpm]));
}

/// Approvals are an authority's, and a PCR that says nothing is none.
pub(super) fn of_healthy(schema: &mut Schema) {
    let both = json!({
        "authority": ["approvals"],
        "approvals": ["authority"],
        "generation": ["authority"],
    });
    schema.insert("dependentRequired".to_owned(), both);
    if let Some(pcrs) = schema
        .pointer_mut("/properties/pcrs")
        .and_then(|it| it.as_object_mut())
    {
        pcrs.insert("uniqueItems".to_owned(), json!(true));
        if let Some(items) = pcrs.get_mut("items").and_then(|it| it.as_object_mut()) {
            items.insert("not".to_owned(), json!({ "enum": UNFIT }));
        }
    }
}
