//! Holds a document to a schema, as far as types of our own would not: they stop at their first fault and take a list
//! for a struct, and Kubernetes' types ignore fields they do not know.

use serde_json::{Map, Value};

use super::{Faults, tree::join};

/// Adds a fault for every unknown or missing field, every word that is none of a choice, every value that is not made of
/// fields or a list where the schema says so, and all that is more or longer than it allows. The rest of scalars is left
/// to the types. What they could not read is taken out of `value`, so that they find the faults of the rest; false when it
/// is the whole of it.
pub(super) fn check(value: &mut Value, schema: &Value, path: &str, faults: &mut Faults) -> bool {
    if let Some(choice) = schema["enum"].as_array() {
        let chosen = choice.contains(value);
        if !chosen {
            let words = choice.iter().filter_map(Value::as_str);
            faults.add(path, format!("expected {}", one_of(words)));
        }
        return chosen;
    }
    match (schema["type"].as_str(), value) {
        (Some("object"), Value::Object(fields)) => check_fields(fields, schema, path, faults),
        (Some("object"), _) => {
            faults.add(path, "expected fields, each with a name and a value");
            return false;
        }
        (Some("array"), Value::Array(items)) => {
            check_count(items.len(), &schema["maxItems"], "entries", path, faults);
            for (i, item) in items.iter_mut().enumerate() {
                // Without it those behind it would be told by other numbers.
                faults.unreadable |= !check(item, &schema["items"], &format!("{path}[{i}]"), faults);
            }
        }
        (Some("array"), _) => {
            faults.add(path, "expected a list");
            return false;
        }
        (Some("string"), Value::String(text)) => {
            check_count(text.chars().count(), &schema["maxLength"], "characters", path, faults);
        }
        _ => {}
    }
    true
}

/// As the API server counts.
fn check_count(count: usize, most: &Value, what: &str, path: &str, faults: &mut Faults) {
    if let Some(most) = most.as_u64().filter(|most| count as u64 > *most) {
        faults.add(path, format!("{count} {what}, of at most {most}"));
        // What is compiled has the same bounds.
        faults.unreadable = true;
    }
}

fn check_fields(fields: &mut Map<String, Value>, schema: &Value, path: &str, faults: &mut Faults) {
    check_count(fields.len(), &schema["maxProperties"], "entries", path, faults);
    if let Some(schema) = schema.get("additionalProperties") {
        fields.retain(|name, value| check(value, schema, &join(path, name), faults));
    }
    let Some(properties) = schema["properties"].as_object() else { return };
    let required: Vec<_> = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let missing: Vec<_> = required.iter().filter(|name| !fields.contains_key(**name)).collect();
    fields.retain(|name, value| {
        let path = join(path, name);
        match properties.get(name) {
            Some(schema) => check(value, schema, &path, faults),
            None => {
                let known = one_of(properties.keys().map(String::as_str));
                faults.add(path, format!("unknown field; expected {known}"));
                false
            }
        }
    });
    for name in missing {
        faults.add(join(path, name), "missing");
    }
    faults.unreadable |= required.iter().any(|name| !fields.contains_key(*name));
}

/// The words as a person lists alternatives.
pub(super) fn one_of<'a>(words: impl Iterator<Item = &'a str>) -> String {
    let words: Vec<_> = words.collect();
    match words.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        _ => words.concat(),
    }
}
