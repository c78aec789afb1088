//! What leaves the user's machine: of objects only the fields that are named here, of texts no user of a SIP URI.
//!
//! A list of what is let through can forget something useful; a list of what is taken out can forget a secret.

use serde_json::{Map, Value, json};

/// Annotations of ours; others may hold anything, such as a whole object as it was applied.
const OUR_PREFIX: &str = "sipwarden.dev/";
/// The schemes whose URIs name users.
const SCHEMES: [&str; 3] = ["sips:", "sip:", "tel:"];

/// Of the metadata, what tells objects apart.
fn metadata(object: &Value) -> Value {
    let meta = &object["metadata"];
    let mut kept = pick(
        meta,
        &[
            "name",
            "namespace",
            "uid",
            "generation",
            "creationTimestamp",
            "deletionTimestamp",
            "labels",
            "ownerReferences",
        ],
    );
    if let Some(annotations) = meta["annotations"].as_object() {
        let ours: Map<String, Value> = annotations
            .iter()
            .filter(|(name, _)| name.starts_with(OUR_PREFIX))
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect();
        kept["annotations"] = ours.into();
    }
    kept
}

/// An object of a kind of ours: nothing secret can be in it, since credentials are named and never written there.
pub(super) fn own(object: &Value) -> Value {
    json!({ "metadata": metadata(object), "spec": object["spec"], "status": object["status"] })
}

/// A pod: containers by name and image, without their variables and commands, except those of sipwarden's own.
pub(super) fn pod(object: &Value) -> Value {
    let containers = |list: &str| -> Vec<Value> {
        object["spec"][list]
            .as_array()
            .into_iter()
            .flatten()
            .map(|container| {
                let is_ours = container["name"] == "sipwarden" || container["name"] == "operator";
                let fields = ["name", "image", "imagePullPolicy", "restartPolicy", "ports", "resources"];
                let more: &[&str] = if is_ours { &["args", "securityContext", "readinessProbe"] } else { &[] };
                pick(container, &[&fields, more].concat())
            })
            .collect()
    };
    let status = pick(&object["status"], &["phase", "podIP", "qosClass", "startTime", "conditions"]);
    let statuses = |list: &str| -> Vec<Value> {
        let fields = ["name", "ready", "restartCount", "started", "state", "lastState"];
        object["status"][list].as_array().into_iter().flatten().map(|status| pick(status, &fields)).collect()
    };
    json!({
        "metadata": metadata(object),
        "spec": {
            "nodeName": object["spec"]["nodeName"], "hostNetwork": object["spec"]["hostNetwork"],
            "terminationGracePeriodSeconds": object["spec"]["terminationGracePeriodSeconds"],
            "containers": containers("containers"), "initContainers": containers("initContainers"),
        },
        "status": status,
        "containerStatuses": statuses("containerStatuses"), "initContainerStatuses": statuses("initContainerStatuses"),
    })
}

/// A namespace: whether it is opted in.
pub(super) fn namespace(object: &Value) -> Value {
    json!({ "metadata": metadata(object) })
}

/// A webhook configuration or admission policy of ours; the CAs in it are public.
pub(super) fn admission(object: &Value) -> Value {
    json!({ "metadata": metadata(object), "webhooks": object["webhooks"], "spec": pick(&object["spec"], &["failurePolicy", "reinvocationPolicy", "matchConstraints"]) })
}

/// An Event that sipwarden wrote; None for those of others, whose words are not ours.
pub(super) fn event(object: &Value) -> Option<Value> {
    let reporter = object["reportingController"].as_str().unwrap_or_default();
    let fields =
        ["type", "reason", "action", "note", "eventTime", "regarding", "related", "series", "reportingController"];
    reporter.contains("sipwarden").then(|| pick(object, &fields))
}

fn pick(value: &Value, fields: &[&str]) -> Value {
    let kept: Map<String, Value> =
        fields.iter().filter_map(|field| Some(((*field).to_owned(), value.get(field)?.clone()))).collect();
    kept.into()
}

/// With `…` in place of the users of SIP URIs: sidecars hide them already, unless a policy has them shown.
pub(super) fn text(text: &str) -> String {
    let mut whole = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((start, scheme)) = first_scheme(rest) {
        let (before, after) = rest.split_at(start + scheme.len());
        whole.push_str(before);
        let end = after.find(|c: char| c.is_whitespace() || "<>\"',\\)}]".contains(c)).unwrap_or(after.len());
        let uri = &after[..end];
        let user_end = if scheme == "tel:" { uri.len() } else { uri.rfind('@').unwrap_or(0) };
        if user_end > 0 {
            whole.push('…');
        }
        rest = &after[user_end..];
    }
    whole.push_str(rest);
    whole
}

/// Where the first of the schemes begins, and which it is; not inside of another word.
fn first_scheme(text: &str) -> Option<(usize, &'static str)> {
    let places = SCHEMES.iter().flat_map(|scheme| text.match_indices(scheme));
    let starts_word = |at: usize| !text[..at].ends_with(|c: char| c.is_ascii_alphanumeric());
    let (at, _) = places.filter(|(at, _)| starts_word(*at)).min_by_key(|(at, _)| *at)?;
    SCHEMES.iter().find(|scheme| text[at..].starts_with(**scheme)).map(|scheme| (at, *scheme))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_of_uris_are_hidden_and_nothing_else() {
        for (given, expected) in [
            ("sip:alice@example.com;x=y", "sip:…@example.com;x=y"),
            ("\"Bob\" <sips:bob:secret@h:5061>, <sip:h>", "\"Bob\" <sips:…@h:5061>, <sip:h>"),
            ("tel:+4930123", "tel:…"),
            ("INVITE sip:+49%40x@h SIP/2.0", "INVITE sip:…@h SIP/2.0"),
            ("gossip:a@b", "gossip:a@b"),
            ("sip:…@h a@b", "sip:…@h a@b"),
            ("{\"party\": \"sip:a@b\", \"sipwarden\": 1}", "{\"party\": \"sip:…@b\", \"sipwarden\": 1}"),
            ("", ""),
        ] {
            assert_eq!(text(given), expected);
        }
    }

    #[test]
    fn of_a_pod_neither_variables_nor_commands_nor_foreign_annotations_are_kept() {
        let secret = "hunter2";
        let container = json!({
            "name": "app", "image": "pbx:1", "env": [{ "name": "PASSWORD", "value": secret }], "command": [secret], "args": [secret],
            "volumeMounts": [{ "name": secret }], "livenessProbe": { "exec": { "command": [secret] } },
        });
        let object = json!({
            "metadata": {
                "name": "pbx-0", "labels": { "app": "pbx" }, "managedFields": [secret],
                "annotations": { "kubectl.kubernetes.io/last-applied-configuration": secret, "sipwarden.dev/injected": "default" },
            },
            "spec": { "containers": [container], "initContainers": [{ "name": "sipwarden", "args": ["run"] }], "volumes": [secret] },
            "status": { "phase": "Running", "message": secret },
        });
        let kept = pod(&object);
        assert!(!kept.to_string().contains(secret), "{kept}");
        assert_eq!(kept["metadata"]["annotations"], json!({ "sipwarden.dev/injected": "default" }));
        assert_eq!(kept["spec"]["initContainers"][0]["args"], json!(["run"]));
    }

    #[test]
    fn only_sipwardens_own_events_are_kept() {
        let event_of = |reporter: &str| event(&json!({ "reportingController": reporter, "note": "n", "reason": "r" }));
        assert!(event_of("kubelet").is_none() && event_of("").is_none());
        assert_eq!(event_of("sipwarden.dev/operator").unwrap()["note"], "n");
    }
}
