//! Who may do what with policies: what the chart adds to Kubernetes' own roles view, edit and admin.

use serde_json::json;
use sipwarden_cluster::wait::{SOON, eventually};
use sipwarden_cluster::{Cluster, Component};

use crate::{create_namespace, installed_definitions};

const POLICIES: &str = "sessionpolicies.sipwarden.dev";
const CONFIGS: &str = "sidecarconfigs.sipwarden.dev";
const BOUNDS: &str = "clustersessionpolicies.sipwarden.dev";
const READING: &[&str] = &["get", "list", "watch"];
const WRITING: &[&str] = &["create", "update", "patch", "delete", "deletecollection"];

/// A role, whom it is bound to, and the namespace it is for; all of them if none.
const BINDINGS: [(&str, &str, Option<&str>); 5] = [
    ("view", "viewer", Some("voice")),
    ("edit", "editor", Some("voice")),
    ("admin", "admin-of-voice", Some("voice")),
    ("view", "viewer-of-all", None),
    ("edit", "editor-of-all", None),
];

/// Roles are aggregated by a controller.
fn with_controllers() -> Cluster {
    let api = Cluster::api_only().expect("an API server");
    installed_definitions(&api);
    crate::install(&api, "shared", &[]);
    ["voice", "fax"].iter().for_each(|namespace| create_namespace(&api, namespace, json!({})));
    for (role, user, namespace) in BINDINGS {
        let (role, user, name) = (format!("--clusterrole={role}"), format!("--user={user}"), format!("of-{user}"));
        let bound = match namespace {
            Some(namespace) => api.kubectl(&["create", "rolebinding", &name, &role, &user, "--namespace", namespace]),
            None => api.kubectl(&["create", "clusterrolebinding", &name, &role, &user]),
        };
        bound.unwrap_or_else(|error| panic!("{error:#}"));
    }
    api.start(Component::ControllerManager).unwrap_or_else(|error| panic!("{error:#}"));
    api
}

/// `place` is a namespace, or `*` for what is in none.
fn may(api: &Cluster, user: &str, verb: &str, resource: &str, place: &str) -> bool {
    let (resource, sub) = resource.split_once('/').unwrap_or((resource, ""));
    let subresource = format!("--subresource={sub}");
    let place = if place == "*" { "--all-namespaces".to_owned() } else { format!("--namespace={place}") };
    api.kubectl(&["auth", "can-i", "--quiet", "--as", user, verb, resource, &subresource, &place]).is_ok()
}

#[test]
fn who_views_or_edits_a_namespace_views_or_edits_its_policies_and_nothing_else_of_ours() {
    let api = with_controllers();
    let aggregated = || {
        let views = ["viewer", "editor", "admin-of-voice"].iter().all(|user| may(&api, user, "get", POLICIES, "voice"));
        let edits = ["editor", "admin-of-voice"].iter().all(|user| may(&api, user, "create", POLICIES, "voice"));
        (views && edits).then_some(())
    };
    eventually("the roles to be aggregated", SOON, aggregated).unwrap_or_else(|error| panic!("{error:#}"));

    let status = format!("{POLICIES}/status");
    // Who, what and where, and what of reading and writing is allowed.
    let cases = [
        ("viewer", POLICIES, "voice", READING),
        ("viewer", CONFIGS, "voice", READING),
        ("viewer", BOUNDS, "*", &[]),
        ("viewer", POLICIES, "fax", &[]),
        ("editor", POLICIES, "voice", &[READING, WRITING].concat()),
        ("editor", &status, "voice", &[]),
        ("editor", CONFIGS, "voice", READING),
        ("editor", POLICIES, "fax", &[]),
        ("admin-of-voice", POLICIES, "voice", &[READING, WRITING].concat()),
        ("admin-of-voice", CONFIGS, "voice", READING),
        ("admin-of-voice", BOUNDS, "*", &[]),
        ("viewer-of-all", POLICIES, "fax", READING),
        ("viewer-of-all", BOUNDS, "*", READING),
        ("editor-of-all", POLICIES, "fax", &[READING, WRITING].concat()),
        ("editor-of-all", BOUNDS, "*", READING),
        ("stranger", POLICIES, "voice", &[]),
    ];
    for (user, resource, place, allowed) in cases {
        for verb in READING.iter().chain(WRITING) {
            let is_allowed = may(&api, user, verb, resource, place);
            assert_eq!(is_allowed, allowed.contains(verb), "{user}: {verb} {resource} in {place}");
        }
    }
}
