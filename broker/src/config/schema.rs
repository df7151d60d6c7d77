//! The JSON Schema (draft 2020-12) of assertd.toml, made of the types that it is read into, and kept
//! in docs/assertd.schema.json, which is installed and which `assertctl config schema` prints. Only
//! tests have this module: no program carries what makes the file.
//!
//! It must never refuse what loading takes. What only loading can know (names, users, what belongs
//! together across sections) it leaves to `assertctl config check`.

use super::file::MainFile;
use super::many::OneOrMany;
use super::spanned::Spanned;
use crate::profile::{Birth, Key, ROWS, Row, Takes};
use keystore::CertificateUse;
use keystore::charter::PurposeKind;
use keystore::keyid::NAME_PART_LEN_MAX;
use schemars::generate::SchemaSettings;
use schemars::transform::{Transform, transform_subschemas};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::{Map, Value, json};
use std::borrow::Cow;
use std::path::Path;

/// What says it how this file is made anew.
const REMEDY: &str = "UPDATE=1 cargo test -p broker the_shipped_schema";

/// The schema's text.
fn text() -> String {
    let settings = SchemaSettings::draft2020_12().with_transform(Tidy);
    let schema = settings.into_generator().into_root_schema_for::<MainFile>();
    serde_json::to_string_pretty(&schema).expect("a tree of JSON values is JSON") + "\n"
}

#[test]
#[expect(
    clippy::disallowed_methods,
    reason = "whoever changes a type has the file written anew"
)]
fn the_shipped_schema_is_that_of_the_types() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/assertd.schema.json");
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, text()).unwrap();
    }
    let shipped = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        shipped == text(),
        "{}: is of other types; run {REMEDY}",
        path.display()
    );
}

impl<T: JsonSchema> JsonSchema for Spanned<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        T::schema_name()
    }

    fn schema_id() -> Cow<'static, str> {
        T::schema_id()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        generator.subschema_for::<T>()
    }
}

impl<T: JsonSchema> JsonSchema for OneOrMany<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("OneOrMany{}", T::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let one = generator.subschema_for::<T>();
        json_schema!({ "anyOf": [one, { "type": "array", "items": one }] })
    }
}

/// A date, or a date and time with its offset. Tools that hold TOML against a schema turn both into
/// text; that the file may hold no quotation marks there is beyond a schema.
pub struct Moment;

impl JsonSchema for Moment {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Moment".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let time = r"[Tt ]\d{2}:\d{2}(:\d{2}(\.\d+)?)?([Zz]|[+-]\d{2}:\d{2})";
        json_schema!({
            "type": "string",
            "pattern": format!(r"^\d{{4}}-\d{{2}}-\d{{2}}({time})?$"),
        })
    }
}

/// One of the profiles that are shipped.
pub struct RowName;

impl JsonSchema for RowName {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "RowName".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "enum": Row::names() })
    }
}

/// One of the profiles that are shipped, or one of the configuration's own: editors offer the former.
pub struct ProfileName;

impl JsonSchema for ProfileName {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "ProfileName".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "anyOf": [
                { "description": "A shipped profile.", "enum": Row::names() },
                { "description": "A `[profile.NAME]` of assertd.toml. That there is one `assertctl config check` \
                                  sees, and an editor does not.", "pattern": name() },
            ],
        })
    }
}

/// What [`keystore::keyid::check_part`] takes.
fn name() -> String {
    format!("^[A-Za-z0-9][A-Za-z0-9_-]{{0,{}}}$", NAME_PART_LEN_MAX - 1)
}

/// Names of sections.
pub fn named(schema: &mut Schema) {
    schema.insert("propertyNames".to_owned(), json!({ "pattern": name() }));
}

/// Names of profiles: no shipped one is written anew.
pub fn named_anew(schema: &mut Schema) {
    let names = json!({ "pattern": name(), "not": { "enum": Row::names() } });
    schema.insert("propertyNames".to_owned(), names);
}

/// A profile may only narrow.
pub fn by_extended(schema: &mut Schema) {
    let rows = ROWS.iter().map(|row| {
        let algs: Vec<&str> = row.algs.iter().map(|alg| alg.name()).collect();
        let seconds = json!({ "maximum": row.lifetime_max_s });
        let mut keys = json!({
            "algs": { "items": { "enum": algs } },
            "lifetime": seconds,
            "lifetime_max": seconds,
        });
        if row.takes(Key::Audience) == Takes::Not {
            keys["audience"] = json!(false);
        }
        json!({
            "if": { "properties": { "extends": { "const": row.name } }, "required": ["extends"] },
            "then": { "properties": keys },
        })
    });
    let rows: Value = rows.collect();
    schema.insert("allOf".to_owned(), rows);
}

/// A user by name or by number, and so for a group.
pub fn selectors(schema: &mut Schema) {
    let both = |one: &str, other: &str| json!({ "not": { "required": [one, other] } });
    schema.insert(
        "allOf".to_owned(),
        json!([both("uid", "user"), both("gid", "group")]),
    );
}

/// A `match` says enough.
pub fn of_match(schema: &mut Schema) {
    schema.insert(
        "anyOf".to_owned(),
        one_of(&["unit", "slice", "user", "uid"]),
    );
    let whose = json!({ "anyOf": one_of(&["user", "uid"]) });
    schema.insert("dependentSchemas".to_owned(), json!({ "user_unit": whose }));
}

/// An `unless` says something.
pub fn of_unless(schema: &mut Schema) {
    says_something(schema);
    if let Some(Value::Array(forms)) = schema.get_mut("anyOf") {
        for form in forms {
            if let Some(items) = form.get_mut("items").and_then(Value::as_object_mut) {
                items.insert("minProperties".to_owned(), json!(1));
            }
        }
    }
}

/// A `shadow` says something, and nothing that is always enforced.
pub fn of_shadow(schema: &mut Schema) {
    says_something(schema);
    let never = ["unit", "user_unit", "uid", "user"].map(|key| (key.to_owned(), json!(false)));
    let never: Map<String, Value> = never.into_iter().collect();
    schema.insert("properties".to_owned(), Value::Object(never));
}

fn says_something(schema: &mut Schema) {
    schema.insert("minProperties".to_owned(), json!(1));
}

/// SHA-256 in hexadecimal digits.
pub fn of_digests(schema: &mut Schema) {
    let one = json!({ "type": "string", "pattern": "^[0-9A-Fa-f]{64}$" });
    schema.insert(
        "anyOf".to_owned(),
        json!([one, { "type": "array", "items": one }]),
    );
}

/// Bounds say whom the files may match.
pub fn bounds(schema: &mut Schema) {
    schema.insert("anyOf".to_owned(), one_of(&["units", "users"]));
}

fn one_of(keys: &[&str]) -> Value {
    keys.iter()
        .map(|key| json!({ "required": [key] }))
        .collect()
}

/// What each profile needs, and what it has not.
pub fn by_profile(schema: &mut Schema) {
    let rows = ROWS.iter().map(|row| {
        let (own, others): (&[&str], &[&str]) = match row.purpose {
            PurposeKind::ClientAuthentication | PurposeKind::Account => {
                (&[], &["issuer", "shared", "reuse"])
            }
            PurposeKind::Federation => (&["issuer"], &["keystore", "alg", "rotation", "key"]),
        };
        let those = |takes: Takes| {
            let keys = Key::ALL
                .into_iter()
                .filter(move |key| row.takes(*key) == takes);
            keys.map(Key::as_str)
        };
        let needed: Vec<&str> = own.iter().copied().chain(those(Takes::Needs)).collect();
        let certificate = (row.certificate == CertificateUse::None).then_some("certificate");
        let refused = others
            .iter()
            .copied()
            .chain(those(Takes::Not))
            .chain(certificate);
        let mut keys: Map<String, Value> =
            refused.map(|key| (key.to_owned(), json!(false))).collect();
        keys.insert(
            "lifetime".to_owned(),
            json!({ "maximum": row.lifetime_max_s }),
        );
        if row.birth == Birth::AtTheVendor {
            keys.insert("key".to_owned(), json!({ "const": "import" }));
        }
        json!({
            "if": { "properties": { "profile": { "const": row.name } }, "required": ["profile"] },
            "then": { "properties": keys, "required": needed },
        })
    });
    let rows: Value = rows.chain([of_any_other()]).collect();
    schema.insert("allOf".to_owned(), rows);
    schema.insert("dependentRequired".to_owned(), json!({ "burst": ["rate"] }));
}

/// Of a profile of one's own nothing is known but what holds of each: either the key is an issuer's, or
/// the target's.
fn of_any_other() -> Value {
    let most = ROWS.iter().map(|row| row.lifetime_max_s).max();
    let with_issuer = json!({ "properties": {
            "keystore": false, "alg": false, "client_id": false, "rotation": false, "key": false, "certificate": false,
        } });
    let of_issuers = json!({ "required": ["issuer", "subject"] });
    json!({
        "if": { "properties": { "profile": { "enum": Row::names() } } },
        "else": {
            "properties": { "lifetime": { "maximum": most } },
            "dependentSchemas": {
                "issuer": with_issuer, "subject": of_issuers, "shared": of_issuers, "reuse": of_issuers,
            },
        },
    })
}

/// What is the same for all: TOML has no null, a description is lines of text that flow, and numbers
/// have limits instead of Rust's names for them.
#[derive(Clone)]
struct Tidy;

impl Transform for Tidy {
    fn transform(&mut self, schema: &mut Schema) {
        without_null(schema);
        flowing(schema);
        limited(schema);
        transform_subschemas(self, schema);
    }
}

/// A key that may be left out is one that is not `required`.
fn without_null(schema: &mut Schema) {
    if let Some(Value::Array(types)) = schema.get_mut("type") {
        types.retain(|kind| kind != "null");
        if let [one] = types.as_slice() {
            let one = one.clone();
            schema.insert("type".to_owned(), one);
        }
    }
    let Some(Value::Array(forms)) = schema.get_mut("anyOf") else {
        return;
    };
    forms.retain(|form| form.get("type") != Some(&json!("null")));
    if let [Value::Object(one)] = forms.as_slice() {
        let one = one.clone();
        schema.remove("anyOf");
        let schema = schema.ensure_object();
        for (key, value) in one {
            schema.entry(key).or_insert(value);
        }
    }
}

/// Line ends of the source are not paragraphs of the text.
fn flowing(schema: &mut Schema) {
    let Some(Value::String(text)) = schema.get("description") else {
        return;
    };
    let paragraphs: Vec<String> = text
        .split("\n\n")
        .map(|paragraph| paragraph.replace('\n', " "))
        .collect();
    schema.insert(
        "description".to_owned(),
        Value::String(paragraphs.join("\n\n")),
    );
}

fn limited(schema: &mut Schema) {
    let most = match schema.get("format").and_then(Value::as_str) {
        Some("uint32") => Some(u64::from(u32::MAX)),
        Some("uint" | "uint64") => None, // TOML's integers end before
        _ => return,
    };
    schema.remove("format");
    if let Some(most) = most
        && schema.get("maximum").is_none()
    {
        schema.insert("maximum".to_owned(), json!(most));
    }
}
