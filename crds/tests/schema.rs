//! The generated definition: what the API server takes, bounds, defaults and documentation.

use std::{fs, path::Path, process::Command};

use kube::{CustomResourceExt, core::schema::StructuralSchemaRewriter};
use schemars::generate::SchemaSettings;
use serde_json::{Value, json};
use sipwarden_crds::{Duration, SessionPolicy, SessionPolicySpec, SidecarConfig};

fn spec_schema() -> Value {
    let crd = serde_json::to_value(SessionPolicy::crd()).expect("a definition is JSON");
    crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"].clone()
}

fn config_schema() -> Value {
    let settings = SchemaSettings::openapi3().with(|settings| settings.inline_subschemas = true);
    settings
        .with_transform(StructuralSchemaRewriter)
        .into_generator()
        .into_root_schema_for::<SidecarConfig>()
        .to_value()
}

/// Calls `visit` with every schema there is and the path of what it describes.
fn walk(schema: &Value, path: &str, visit: &mut impl FnMut(&str, &Value)) {
    visit(path, schema);
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        walk(property, &format!("{path}.{name}"), visit);
    }
    for (part, name) in [("items", "[]"), ("additionalProperties", "{}")] {
        if schema[part].is_object() {
            walk(&schema[part], &format!("{path}{name}"), visit);
        }
    }
}

#[test]
fn every_list_string_and_map_is_bounded() {
    for schema in [spec_schema(), config_schema()] {
        let mut strings = 0;
        walk(&schema, "spec", &mut |path, schema| match schema["type"].as_str() {
            Some("string") => {
                strings += 1;
                assert!(schema["maxLength"].is_u64() || schema["enum"].is_array(), "{path}");
            }
            Some("array") => assert!(schema["maxItems"].is_u64(), "{path}"),
            Some("object") if schema["additionalProperties"].is_object() => {
                assert!(schema["maxProperties"].is_u64(), "{path}");
            }
            Some("object" | "integer") => {}
            other => panic!("{path} has the type {other:?}"),
        });
        assert!(strings > 15, "the walk saw {strings} strings");
    }
}

#[test]
fn numbers_have_formats_that_kubernetes_knows() {
    for (schema, expected) in [(spec_schema(), "int32"), (config_schema(), "int64")] {
        let mut formats = Vec::new();
        walk(&schema, "spec", &mut |_, schema| formats.extend(schema["format"].as_str().map(str::to_owned)));
        assert_eq!(formats, [expected]);
    }
}

#[test]
fn nothing_may_be_null_so_cel_never_meets_it() {
    walk(&spec_schema(), "spec", &mut |path, schema| assert!(schema["nullable"].is_null(), "{path}"));
}

#[test]
fn bounds_are_those_that_compiling_holds_to() {
    let rules = &spec_schema()["properties"]["rules"];
    assert_eq!(rules["maxItems"], 64);
    assert_eq!(rules["items"]["properties"]["name"]["maxLength"], 63);
    let when = &rules["items"]["properties"]["match"]["properties"];
    for (list, length) in [("peerCIDRs", 43), ("fromDomains", 253), ("toDomains", 253), ("userAgents", 128)] {
        assert_eq!(
            (&when[list]["maxItems"], &when[list]["items"]["maxLength"]),
            (&json!(64), &json!(length)),
            "{list}"
        );
    }
    assert_eq!(Duration::MAX.to_string().len(), Duration::MAX_LENGTH as usize);
}

#[test]
fn every_field_is_documented() {
    walk(&spec_schema(), "spec", &mut |path, schema| {
        if !path.ends_with("[]") && !path.ends_with("{}") {
            assert!(schema["description"].as_str().is_some_and(|text| text.len() > 10), "{path}");
        }
    });
}

/// What the API server does to an object before it judges it.
fn fill_defaults(value: &mut Value, schema: &Value) {
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        if value.get(name).is_none() && !property["default"].is_null() {
            value[name] = property["default"].clone();
        }
        if let Some(field) = value.get_mut(name) {
            fill_defaults(field, property);
        }
    }
    for item in value.as_array_mut().into_iter().flatten() {
        fill_defaults(item, &schema["items"]);
    }
}

#[test]
fn schema_and_serde_fill_in_the_same_defaults() {
    let rule = json!({ "name": "r", "match": { "direction": "Inbound" }, "timers": { "minSE": "2m" } });
    for written in [
        json!({}),
        json!({ "mode": "Observe", "timers": { "minSE": "5m" } }),
        json!({ "timers": { "expiry": { "action": "Report" } }, "rules": [rule] }),
    ] {
        let mut by_schema = written.clone();
        fill_defaults(&mut by_schema, &spec_schema());
        let by_serde: SessionPolicySpec = serde_json::from_value(written).unwrap();
        assert_eq!(serde_json::to_value(by_serde).unwrap(), by_schema);
    }
}

#[test]
fn cel_rules_stand_where_they_belong() {
    let mut found = Vec::new();
    walk(&spec_schema(), "spec", &mut |path, schema| {
        for rule in schema["x-kubernetes-validations"].as_array().into_iter().flatten() {
            assert!(rule["message"].as_str().is_some_and(|message| !message.contains('\n')), "{path}");
            found.push(format!("{path}{}", rule["fieldPath"].as_str().unwrap_or_default()));
        }
    });
    assert_eq!(
        found,
        [
            "spec.rules",
            "spec.rules",
            "spec.rules",
            "spec.rules",
            "spec.rules[].match",
            "spec.rules[].match.peerCIDRs",
            "spec.rules[].timers.minSE",
            "spec.timers.minSE",
            "spec.timers.sessionExpires",
            "spec.timers.maxMinSE",
            "spec.timers.expiry.margin",
        ]
    );
}

#[test]
fn the_committed_yaml_is_the_generated_one() {
    let run = |directory: &Path, arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_crdgen")).args(arguments).arg(directory).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let committed = Path::new(env!("CARGO_MANIFEST_DIR")).join("yaml");
    assert_eq!(run(&committed, &["--check"]), (Some(0), String::new()));

    let scratch = Path::new(env!("CARGO_TARGET_TMPDIR")).join("crdgen");
    assert_eq!(run(&scratch, &[]).0, Some(0));
    let file = scratch.join("sessionpolicies.sipwarden.dev.yaml");
    let text = fs::read_to_string(&file).unwrap();
    assert_eq!(text, fs::read_to_string(committed.join("sessionpolicies.sipwarden.dev.yaml")).unwrap());

    fs::write(&file, text.replace("default: 90s", "default: 60s")).unwrap();
    let (code, told) = run(&scratch, &["--check"]);
    assert_eq!(code, Some(1));
    assert!(told.contains("default: 60s") && told.contains("default: 90s"), "{told}");
    assert_eq!(run(&scratch, &["--cheek"]).0, Some(2));
}
