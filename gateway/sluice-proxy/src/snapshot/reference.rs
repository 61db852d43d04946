//! The reference of `routes.yaml` as Markdown, made from the schema and so from the types: a section
//! for each of them, under the path where it stands in the file. What a key means is the doc comment
//! of its field; a poor sentence here is mended there.

use std::collections::HashMap;
use std::fmt::Write as _;

use serde_json::{Map, Value};

/// `docs/reference/config.md`.
pub fn markdown() -> String {
    let schema = super::schema::json();
    let mut pages = Pages::new(&schema);
    pages.name_all(&schema, "");
    pages.text(&schema)
}

/// Types of the schema, and the sections they have.
struct Pages<'s> {
    types: Option<&'s Map<String, Value>>,
    /// Headings by type, and their order.
    headings: HashMap<&'s str, String>,
    order: Vec<&'s str>,
}

impl<'s> Pages<'s> {
    fn new(schema: &'s Value) -> Self {
        let types = schema.get("$defs").and_then(Value::as_object);
        Self { types, headings: HashMap::new(), order: Vec::new() }
    }

    /// Gives every type below `schema` the path of its first use as heading.
    fn name_all(&mut self, schema: &'s Value, path: &str) {
        for (key, below) in properties(schema) {
            let path = if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
            for name in references(below) {
                self.name(name, &path);
            }
        }
        for choice in choices(schema) {
            if let Some(name) = reference(choice) {
                self.name(name, path);
            }
            self.name_all(choice, path);
        }
    }

    fn name(&mut self, name: &'s str, path: &str) {
        let Some(schema) = self.types.and_then(|types| types.get(name)) else { return };
        if self.headings.contains_key(name) {
            return;
        }
        // Quantities stand everywhere; their own name says more than a path.
        let own = if is_quantity(schema) { Some(name) } else { None };
        let title = schema.get("title").and_then(Value::as_str).or(own);
        self.headings.insert(name, title.unwrap_or(path).to_owned());
        self.order.push(name);
        self.name_all(schema, path);
    }

    fn text(&self, schema: &Value) -> String {
        let mut out = String::from(
            "# Configuration reference\n\nGenerated from the types that read `routes.yaml`; a test \
             keeps it in step. `sluice schema` prints the\nsame as JSON Schema for editors. \
             Headings are places in the file: `listeners.tls` is the key `tls` of an item\nof \
             `listeners`.\n\n## The file\n\n",
        );
        self.section(schema, &mut out);
        let typed = |name: &&'s str| Some((*name, self.types?.get(*name)?));
        let (quantities, others): (Vec<_>, Vec<_>) =
            self.order.iter().filter_map(typed).partition(|(_, schema)| is_quantity(schema));
        for (name, schema) in others.into_iter().chain(quantities) {
            let heading = self.headings.get(name).map_or("", String::as_str);
            let _ = write!(out, "\n## {heading}\n\n");
            self.section(schema, &mut out);
        }
        out
    }

    fn section(&self, schema: &Value, out: &mut String) {
        if let Some(about) = schema.get("description").and_then(Value::as_str) {
            let _ = writeln!(out, "{about}");
        }
        let choices = choices(schema);
        if schema.get("properties").is_some() {
            out.push_str("\n| key | type | default | meaning |\n|---|---|---|---|\n");
            for (key, value) in properties(schema) {
                let default = if is_required(schema, key) {
                    "**required**".to_owned()
                } else {
                    default(value)
                };
                let kind = self.kind(value);
                let _ = writeln!(out, "| `{key}` | {kind} | {default} | {} |", meaning(value));
            }
        } else if choices.iter().any(|choice| choice.get("const").is_some()) {
            out.push_str("\n| word | meaning |\n|---|---|\n");
            for choice in choices {
                let word = choice.get("const").and_then(Value::as_str).unwrap_or_default();
                let _ = writeln!(out, "| `{word}` | {} |", meaning(choice));
            }
        } else if choices.iter().any(|choice| choice.get("properties").is_some()) {
            out.push_str("\n| key | type | meaning |\n|---|---|---|\n");
            for choice in choices {
                for (key, value) in properties(choice) {
                    let about = if meaning(choice).is_empty() {
                        self.about(value)
                    } else {
                        meaning(choice)
                    };
                    let _ = writeln!(out, "| `{key}` | {} | {about} |", self.kind(value));
                }
            }
        } else {
            let examples = schema.get("examples").map(code);
            let written = examples.unwrap_or_else(|| self.kind(schema));
            let _ = writeln!(out, "\nWritten as: {written}.");
        }
    }

    /// The first sentence about the type a value refers to.
    fn about(&self, value: &Value) -> String {
        let named = reference(value).and_then(|name| self.types?.get(name)).map(meaning);
        let about = named.unwrap_or_default();
        about.split_once(". ").map_or_else(|| about.clone(), |(first, _)| format!("{first}."))
    }

    /// A type in words, with links.
    fn kind(&self, schema: &Value) -> String {
        if let Some(name) = reference(schema) {
            let heading = self.headings.get(name).map_or(name, String::as_str);
            return format!("[{heading}](#{})", slug(heading));
        }
        let choices = choices(schema);
        if !choices.is_empty() {
            let shown: Vec<String> =
                choices.into_iter().filter(|c| !is_null(c)).map(|c| self.kind(c)).collect();
            return shown.join(" or ");
        }
        if let Some(words) = schema.get("enum").and_then(Value::as_array) {
            let words: Vec<String> = words.iter().map(code).collect();
            return words.join(", ");
        }
        match word(schema) {
            "array" => {
                let items = schema.get("items").map(|items| self.kind(items));
                format!("list of {}", items.unwrap_or_default())
            }
            "object" => {
                let values = schema.get("additionalProperties").map(|values| self.kind(values));
                format!("mapping to {}", values.unwrap_or_default())
            }
            "integer" | "number" => range(schema),
            "boolean" => "`true` or `false`".to_owned(),
            _ => "text".to_owned(),
        }
    }
}

// === Reading the schema ===

fn properties(schema: &Value) -> impl Iterator<Item = (&str, &Value)> {
    let properties = schema.get("properties").and_then(Value::as_object);
    properties.into_iter().flatten().map(|(key, value)| (key.as_str(), value))
}

fn choices(schema: &Value) -> Vec<&Value> {
    let either = schema.get("oneOf").or_else(|| schema.get("anyOf"));
    either.and_then(Value::as_array).into_iter().flatten().collect()
}

fn reference(schema: &Value) -> Option<&str> {
    schema.get("$ref")?.as_str()?.strip_prefix("#/$defs/")
}

/// Types a value is made of: itself, or the items and values in it.
fn references(value: &Value) -> Vec<&str> {
    let mut found: Vec<&str> = reference(value).into_iter().collect();
    for inner in ["items", "additionalProperties"].iter().filter_map(|key| value.get(*key)) {
        found.extend(references(inner));
    }
    choices(value).into_iter().for_each(|choice| found.extend(references(choice)));
    found
}

fn is_quantity(schema: &Value) -> bool {
    schema.get("pattern").is_some() || schema.get("format").is_some_and(|f| f == "password")
}

fn is_null(schema: &Value) -> bool {
    word(schema) == "null"
}

fn is_required(schema: &Value, key: &str) -> bool {
    let required = schema.get("required").and_then(Value::as_array);
    required.is_some_and(|keys| keys.iter().any(|known| known == key))
}

/// The JSON type; of `["string", "null"]` the first.
fn word(schema: &Value) -> &str {
    let kind = schema.get("type");
    let first = kind.and_then(Value::as_array).and_then(|kinds| kinds.first());
    first.or(kind).and_then(Value::as_str).unwrap_or_default()
}

fn range(schema: &Value) -> String {
    match (schema.get("minimum"), schema.get("maximum")) {
        (Some(least), Some(most)) if least == most => format!("the number {least}"),
        // What merely fits the field's type limits nobody.
        (Some(least), Some(most)) if most.as_u64() < Some(u16::MAX.into()) => {
            format!("number, {least} to {most}")
        }
        _ => "number".to_owned(),
    }
}

fn default(value: &Value) -> String {
    match value.get("default") {
        None | Some(Value::Null) => String::new(),
        Some(Value::Array(items)) if items.is_empty() => "none".to_owned(),
        Some(Value::Object(entries)) if entries.is_empty() => "none".to_owned(),
        Some(Value::String(text)) if text.is_empty() => "empty".to_owned(),
        Some(value) => code(value),
    }
}

fn code(value: &Value) -> String {
    match value {
        Value::String(text) => format!("`{text}`"),
        Value::Array(items) => items.iter().map(code).collect::<Vec<_>>().join(", "),
        other => format!("`{other}`"),
    }
}

/// A description in one line, fit for a table.
fn meaning(value: &Value) -> String {
    let text = value.get("description").and_then(Value::as_str).unwrap_or_default();
    text.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|")
}

/// How GitHub names the anchor of a heading.
fn slug(heading: &str) -> String {
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c.to_ascii_lowercase() }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_link_has_its_heading() {
        let text = markdown();
        let headings: Vec<String> =
            text.lines().filter_map(|line| line.strip_prefix("## ")).map(slug).collect();
        for link in text.split("](#").skip(1).filter_map(|rest| rest.split(')').next()) {
            assert_eq!(headings.iter().filter(|known| *known == link).count(), 1, "{link}");
        }
    }

    #[test]
    fn keys_show_type_default_and_meaning() {
        let text = markdown();
        assert!(text.contains("| `connect` | [Span](#span) | `1s` | TCP connect"), "{text}");
        assert!(text.contains("| `cert_file` | text | **required** | The chain"), "{text}");
    }
}
