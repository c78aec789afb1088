//! Users with rights of their own.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::cluster::{Cluster, write_kubeconfig};
use crate::wait::eventually;

const RBAC: &str = "rbac.authorization.k8s.io";
/// Until the API server obeys a role it has stored.
const LIMIT: Duration = Duration::from_secs(30);

impl Cluster {
    /// A kubeconfig of a new ServiceAccount of `namespace`, to which a role of this kind (`Role`, `ClusterRole`) with these
    /// RBAC rules is bound.
    pub fn account(&self, namespace: &str, name: &str, role: &str, rules: &Value) -> Result<PathBuf> {
        let metadata = |kind: &str| match kind.starts_with("Cluster") {
            true => json!({ "name": name }),
            false => json!({ "name": name, "namespace": namespace }),
        };
        let of = |version: &str, kind: &str| json!({ "apiVersion": version, "kind": kind, "metadata": metadata(kind) });
        let rbac = format!("{RBAC}/v1");
        let mut rights = of(&rbac, role);
        rights["rules"] = rules.clone();
        let mut binding = of(&rbac, &format!("{role}Binding"));
        binding["roleRef"] = json!({ "apiGroup": RBAC, "kind": role, "name": name });
        binding["subjects"] = json!([{ "kind": "ServiceAccount", "name": name, "namespace": namespace }]);
        let objects = [of("v1", "ServiceAccount"), rights, binding].map(|object| object.to_string());
        self.apply(&objects.join("\n---\n"))?;

        let token = self.kubectl(&["-n", namespace, "create", "token", name])?;
        let file = format!("{namespace}-{name}.kubeconfig");
        write_kubeconfig(self.layout(), &file, &json!({ "token": token.trim() }))?;
        let kubeconfig = self.layout().file(&file);
        if let Some(question) = question(&rules[0]) {
            let path = kubeconfig.to_str().context("a path is text")?;
            let question: Vec<&str> = question.iter().map(String::as_str).collect();
            let ask = [&["-n", namespace, "--kubeconfig", path], &question[..]].concat();
            eventually(&format!("the rights of {name}"), LIMIT, || self.kubectl(&ask).ok())?;
        }
        Ok(kubeconfig)
    }
}

/// kubectl's question whether the first thing that a rule allows is allowed. All of a role is obeyed from one moment on.
fn question(rule: &Value) -> Option<[String; 5]> {
    let first = |field: &str| Some(rule[field][0].as_str()?.to_owned());
    let (group, resource) = (first("apiGroups")?, first("resources")?);
    let (resource, sub) = resource.split_once('/').unwrap_or((&resource, ""));
    let resource = if group.is_empty() { resource.to_owned() } else { format!("{resource}.{group}") };
    Some(["auth".to_owned(), "can-i".to_owned(), first("verbs")?, resource, format!("--subresource={sub}")])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_is_asked_for_in_kubectls_words() {
        let asked = |rule: Value| question(&rule).map(|words| words.join(" "));
        let rule =
            |group: &str, resource: &str| json!({ "apiGroups": [group], "resources": [resource], "verbs": ["get"] });
        assert_eq!(asked(rule("", "pods/log")).unwrap(), "auth can-i get pods --subresource=log");
        assert_eq!(asked(rule("apps", "deployments")).unwrap(), "auth can-i get deployments.apps --subresource=");
        assert_eq!(asked(Value::Null), None);
    }
}
