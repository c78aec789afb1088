//! The generated definition: what the API server takes, bounds, defaults and documentation.

use std::{fs, path::Path, process::Command};

use kube::CustomResourceExt;
use serde_json::{Value, json};
use sipwarden_crds::{ClusterSessionPolicy, Duration, SessionPolicy, SessionPolicySpec, SidecarConfigObject};

use crate::common::schema_of;

fn spec_schema() -> Value {
    schema_of::<SessionPolicy>()["properties"]["spec"].clone()
}

/// The spec and the status of every kind, by their paths.
fn all_schemas() -> Vec<(&'static str, Value)> {
    let kinds = [schema_of::<SessionPolicy>(), schema_of::<ClusterSessionPolicy>(), schema_of::<SidecarConfigObject>()];
    kinds.iter().flat_map(|s| ["spec", "status"].map(|part| (part, s["properties"][part].clone()))).collect()
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
    let mut strings = 0;
    for (part, schema) in all_schemas() {
        walk(&schema, part, &mut |path, schema| match schema["type"].as_str() {
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
    }
    assert!(strings > 60, "the walk saw {strings} strings");
}

#[test]
fn formats_are_some_that_kubernetes_knows() {
    for (part, schema) in all_schemas() {
        walk(&schema, part, &mut |path, schema| match (schema["type"].as_str(), schema["format"].as_str()) {
            (Some("integer"), format) => assert!(matches!(format, Some("int32" | "int64")), "{path}"),
            (_, format) => assert!(matches!(format, None | Some("date-time")), "{path}"),
        });
    }
}

#[test]
fn nothing_in_a_spec_may_be_null_so_cel_never_meets_it() {
    for (part, schema) in all_schemas().into_iter().filter(|(part, _)| *part == "spec") {
        walk(&schema, part, &mut |path, schema| assert!(schema["nullable"].is_null(), "{path}"));
    }
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
    for (part, schema) in all_schemas() {
        walk(&schema, part, &mut |path, schema| {
            if !path.ends_with("[]") && !path.ends_with("{}") {
                assert!(schema["description"].as_str().is_some_and(|text| text.len() > 10), "{path}");
            }
        });
    }
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
            "spec.rules[].timers.credentials",
            "spec.rules[].timers.credentials.file",
            "spec.rules[].timers.credentials.secretName",
            "spec.timers.minSE",
            "spec.timers.sessionExpires",
            "spec.timers.maxMinSE",
            "spec.timers.expiry.margin",
            "spec.timers.credentials",
            "spec.timers.credentials.file",
            "spec.timers.credentials.secretName",
        ]
    );
}

#[test]
fn columns_and_selectable_fields_are_of_fields_that_exist() {
    for crd in [SessionPolicy::crd(), ClusterSessionPolicy::crd(), SidecarConfigObject::crd()] {
        let crd = serde_json::to_value(crd).expect("a definition is JSON");
        let version = &crd["spec"]["versions"][0];
        // Of the metadata, which the schema leaves to Kubernetes.
        let of_metadata = [".metadata.creationTimestamp", r".metadata.labels['sipwarden\.dev/config-for']"];
        let mut paths = of_metadata.map(str::to_owned).to_vec();
        let schema = &version["schema"]["openAPIV3Schema"];
        walk(schema, "", &mut |path, _| paths.push(path.to_owned()));
        for list in ["additionalPrinterColumns", "selectableFields"] {
            for field in version[list].as_array().into_iter().flatten() {
                let path = field["jsonPath"].as_str().expect("each has one");
                let exists = match path.split_once("[?(@.type=='") {
                    Some((path, rest)) => {
                        let (type_, rest) = rest.split_once("')]").expect("it ends");
                        paths.iter().any(|known| *known == format!("{path}[]{rest}"))
                            && ["Accepted", "Programmed", "Ready"].contains(&type_)
                    }
                    None => paths.iter().any(|known| known == path),
                };
                assert!(exists, "{path}");
            }
        }
        assert!(version["subresources"]["status"].is_object());
        assert_eq!(crd["spec"]["names"]["categories"], json!(["sipwarden"]));
    }
}

fn crdgen(path: &Path, arguments: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_crdgen")).args(arguments).arg(path).output().expect("it runs");
    (output.status.code(), String::from_utf8(output.stderr).expect("it writes text"))
}

#[test]
fn the_committed_yaml_is_the_generated_one() {
    let committed = Path::new(env!("CARGO_MANIFEST_DIR")).join("yaml");
    assert_eq!(crdgen(&committed, &["--check"]), (Some(0), String::new()));

    let scratch = Path::new(env!("CARGO_TARGET_TMPDIR")).join("crdgen");
    assert_eq!(crdgen(&scratch, &[]).0, Some(0));
    for kind in ["sessionpolicies", "clustersessionpolicies", "sidecarconfigs"] {
        let name = format!("{kind}.sipwarden.dev.yaml");
        assert_eq!(
            fs::read_to_string(scratch.join(&name)).unwrap(),
            fs::read_to_string(committed.join(&name)).unwrap()
        );
    }
    let file = scratch.join("sessionpolicies.sipwarden.dev.yaml");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replace("default: 90s", "default: 60s")).unwrap();
    let (code, told) = crdgen(&scratch, &["--check"]);
    assert_eq!(code, Some(1));
    assert!(told.contains("default: 60s") && told.contains("default: 90s"), "{told}");
    assert_eq!(crdgen(&scratch, &["--cheek"]).0, Some(2));
}

#[test]
fn the_committed_reference_is_the_generated_one_and_has_every_field() {
    let committed = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/policy.md");
    assert_eq!(crdgen(&committed, &["--markdown", "--check"]), (Some(0), String::new()));
    let text = fs::read_to_string(&committed).unwrap();
    for (part, schema) in all_schemas() {
        walk(&schema, part, &mut |path, _| {
            let in_a_row = path == part || path.ends_with("[]") || path.ends_with("{}");
            assert!(in_a_row || text.contains(&format!("| `{path}` | ")), "{path}");
        });
    }

    let scratch = Path::new(env!("CARGO_TARGET_TMPDIR")).join("policy.md");
    fs::write(&scratch, text.replace("`90s`", "`60s`")).unwrap();
    assert_eq!(crdgen(&scratch, &["--markdown", "--check"]).0, Some(1));
}
