//! Holds a document to a schema, as far as types of our own would not: they stop at their first fault and take a list
//! for a struct, and Kubernetes' types ignore fields they do not know.

use serde_json::{Map, Value};

use super::{Faults, tree::join};

/// Adds a fault for every unknown or missing field, every word that is none of a choice, every value that is not made of
/// fields or a list where the schema says so, and all that is more or longer than it allows. The rest of scalars is left
/// to the types.
pub(super) fn check(value: &Value, schema: &Value, path: &str, faults: &mut Faults) {
    if let Some(choice) = schema["enum"].as_array() {
        if !choice.contains(value) {
            let words = choice.iter().filter_map(Value::as_str);
            faults.add(path, format!("expected {}", one_of(words)));
        }
        return;
    }
    match (schema["type"].as_str(), value) {
        (Some("object"), Value::Object(fields)) => check_fields(fields, schema, path, faults),
        (Some("object"), _) => faults.add(path, "expected fields, each with a name and a value"),
        (Some("array"), Value::Array(items)) => {
            check_count(items.len(), &schema["maxItems"], "entries", path, faults);
            for (i, item) in items.iter().enumerate() {
                check(item, &schema["items"], &format!("{path}[{i}]"), faults);
            }
        }
        (Some("array"), _) => faults.add(path, "expected a list"),
        (Some("string"), Value::String(text)) => {
            check_count(text.chars().count(), &schema["maxLength"], "characters", path, faults);
        }
        _ => {}
    }
}

/// As the API server counts.
fn check_count(count: usize, most: &Value, what: &str, path: &str, faults: &mut Faults) {
    if let Some(most) = most.as_u64().filter(|most| count as u64 > *most) {
        faults.add(path, format!("{count} {what}, of at most {most}"));
    }
}

fn check_fields(fields: &Map<String, Value>, schema: &Value, path: &str, faults: &mut Faults) {
    check_count(fields.len(), &schema["maxProperties"], "entries", path, faults);
    if let Some(schema) = schema.get("additionalProperties") {
        fields.iter().for_each(|(name, value)| check(value, schema, &join(path, name), faults));
    }
    let Some(properties) = schema["properties"].as_object() else { return };
    for (name, value) in fields {
        let path = join(path, name);
        match properties.get(name) {
            Some(schema) => check(value, schema, &path, faults),
            None => {
                faults.add(path, format!("unknown field; expected {}", one_of(properties.keys().map(String::as_str))))
            }
        }
    }
    let required = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
    for name in required.filter(|name| !fields.contains_key(*name)) {
        faults.add(join(path, name), "missing");
    }
}

/// The words as a person lists alternatives.
pub(super) fn one_of<'a>(words: impl Iterator<Item = &'a str>) -> String {
    let words: Vec<_> = words.collect();
    match words.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        _ => words.concat(),
    }
}
