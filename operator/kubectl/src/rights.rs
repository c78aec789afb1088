//! What each command needs of the API server, for the documentation and for `check`.

use std::collections::BTreeMap;

use k8s_openapi::api::authorization::v1::{ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec};
use kube::{Api, api::PostParams};

use crate::connection::Connection;

/// Something to read or to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Right {
    /// API group, empty for the core.
    pub group: &'static str,
    /// Such as `pods` or `pods/portforward`.
    pub resource: &'static str,
    /// What is done.
    pub verbs: &'static [&'static str],
    /// In no namespace, or in all of them.
    pub is_cluster_wide: bool,
    /// Without it the command tells less.
    pub is_optional: bool,
}

const fn namespaced(group: &'static str, resource: &'static str, verbs: &'static [&'static str]) -> Right {
    Right { group, resource, verbs, is_cluster_wide: false, is_optional: false }
}

const fn optional(group: &'static str, resource: &'static str, verbs: &'static [&'static str]) -> Right {
    Right { is_optional: true, ..namespaced(group, resource, verbs) }
}

const fn cluster_wide(group: &'static str, resource: &'static str, verbs: &'static [&'static str]) -> Right {
    Right { is_cluster_wide: true, is_optional: true, ..namespaced(group, resource, verbs) }
}

const PODS: Right = namespaced("", "pods", &["list"]);
/// A WebSocket begins with a GET; later versions of Kubernetes ask for create too.
const FORWARD: Right = namespaced("", "pods/portforward", &["get", "create"]);
const CONFIGS: Right = namespaced(GROUP, "sidecarconfigs", &["list"]);
const NAMESPACES: Right = cluster_wide("", "namespaces", &["get", "list"]);
const GROUP: &str = "sipwarden.dev";
const ADMISSION: &str = "admissionregistration.k8s.io";

/// The rights of each command, as documented. Those in a namespace are needed in each one that is asked about.
pub const RIGHTS: [(&str, &[Right]); 11] = [
    ("lint", &[]),
    ("status", &[PODS, CONFIGS, NAMESPACES, optional("", "pods/portforward", &["get", "create"])]),
    ("sessions", &[PODS, FORWARD]),
    ("top", &[PODS, FORWARD]),
    ("explain", &[PODS, FORWARD]),
    ("tap", &[PODS, FORWARD]),
    (
        "diff",
        &[
            PODS,
            FORWARD,
            optional(GROUP, "sessionpolicies", &["list"]),
            cluster_wide(GROUP, "clustersessionpolicies", &["list"]),
            NAMESPACES,
        ],
    ),
    (
        "check",
        &[
            PODS,
            CONFIGS,
            NAMESPACES,
            optional(GROUP, "sessionpolicies", &["list"]),
            cluster_wide(GROUP, "clustersessionpolicies", &["list"]),
            optional("", "pods/portforward", &["get", "create"]),
            cluster_wide(ADMISSION, "mutatingwebhookconfigurations", &["list"]),
            cluster_wide(ADMISSION, "validatingwebhookconfigurations", &["list"]),
            cluster_wide(ADMISSION, "mutatingadmissionpolicies", &["list"]),
        ],
    ),
    (
        "call-test",
        &[
            namespaced("", "services", &["get"]),
            namespaced("", "pods", &["list", "get", "create", "delete"]),
            namespaced("", "pods/log", &["get"]),
        ],
    ),
    (
        "report",
        &[
            optional("", "pods", &["list"]),
            optional("", "pods/portforward", &["get", "create"]),
            optional(GROUP, "sidecarconfigs", &["list"]),
            optional(GROUP, "sessionpolicies", &["list"]),
            cluster_wide(GROUP, "clustersessionpolicies", &["list"]),
            optional("events.k8s.io", "events", &["list"]),
            NAMESPACES,
            cluster_wide(ADMISSION, "mutatingwebhookconfigurations", &["list"]),
            cluster_wide(ADMISSION, "validatingwebhookconfigurations", &["list"]),
        ],
    ),
    ("dashboard", &[PODS, FORWARD]),
];

/// As RBAC says it: `get, create pods/portforward`.
impl std::fmt::Display for Right {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        let group = if self.group.is_empty() { String::new() } else { format!(".{}", self.group) };
        // The group belongs to the resource, not to what is below it.
        match self.resource.split_once('/') {
            Some((resource, sub)) => write!(f, "{} {resource}{group}/{sub}", self.verbs.join(", ")),
            None => write!(f, "{} {}{group}", self.verbs.join(", "), self.resource),
        }
    }
}

/// Which commands lack what the user has no right to.
///
/// # Errors
/// The API server does not tell.
pub async fn missing(connection: &Connection) -> Result<Vec<(&'static str, Vec<String>)>, kube::Error> {
    let mut known: BTreeMap<(Right, &str), bool> = BTreeMap::new();
    let mut missing = Vec::new();
    for (command, rights) in RIGHTS {
        let mut lacking = Vec::new();
        for right in rights {
            for verb in right.verbs {
                let is_allowed = match known.get(&(*right, *verb)) {
                    Some(is_allowed) => *is_allowed,
                    None => is_allowed(connection, right, verb).await?,
                };
                known.insert((*right, *verb), is_allowed);
                if !is_allowed {
                    lacking.push(Right { verbs: &[], ..*right }.with(verb));
                }
            }
        }
        if !lacking.is_empty() {
            missing.push((command, lacking));
        }
    }
    Ok(missing)
}

impl Right {
    fn with(self, verb: &str) -> String {
        format!("{verb}{self}")
    }
}

async fn is_allowed(connection: &Connection, right: &Right, verb: &str) -> Result<bool, kube::Error> {
    let (resource, sub) = right.resource.split_once('/').map_or((right.resource, None), |(a, b)| (a, Some(b)));
    let namespace = if right.is_cluster_wide { None } else { connection.namespace.clone() };
    let attributes = ResourceAttributes {
        group: Some(right.group.to_owned()),
        resource: Some(resource.to_owned()),
        subresource: sub.map(str::to_owned),
        verb: Some(verb.to_owned()),
        namespace,
        ..ResourceAttributes::default()
    };
    let spec = SelfSubjectAccessReviewSpec { resource_attributes: Some(attributes), ..Default::default() };
    let review = SelfSubjectAccessReview { spec, ..Default::default() };
    let reviews: Api<SelfSubjectAccessReview> = Api::all(connection.client.clone());
    let answer = reviews.create(&PostParams::default(), &review).await?;
    Ok(answer.status.is_some_and(|status| status.allowed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rights_read_as_kubectl_auth_writes_them() {
        assert_eq!(FORWARD.to_string(), "get, create pods/portforward");
        assert_eq!(CONFIGS.to_string(), "list sidecarconfigs.sipwarden.dev");
        assert_eq!(Right { verbs: &[], ..FORWARD }.with("create"), "create pods/portforward");
    }
}
