//! The config's JSON Schema, made from the types, and the reference made from the schema.

use schemars::generate::SchemaSettings;

use super::config::Config;

/// JSON Schema (2020-12) of `routes.yaml`.
pub fn json() -> serde_json::Value {
    let generator = SchemaSettings::draft2020_12().into_generator();
    let mut schema = generator.into_root_schema_for::<Config>();
    schema.insert("title".to_owned(), "Sluice route table".into());
    schema.insert(
        "patternProperties".to_owned(),
        serde_json::json!({ "^x-": { "description": "Free space for anchors." } }),
    );
    schema.insert("additionalProperties".to_owned(), false.into());
    schema.to_value()
}
