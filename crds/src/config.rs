//! SidecarConfig: what a sidecar obeys, compiled from a policy.

use std::collections::BTreeSet;

use ipnet::IpNet;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{
    is_default,
    policy::{Direction, Mode, Privacy},
    status::SidecarConfigStatus,
    timers::{Credentials, Timers},
};

/// A policy with everything resolved: no inheritance is left, and all of it was found valid.
///
/// In a file and in Kubernetes it is the `spec` of an object of kind `SidecarConfig`, for which operators have the type
/// [`SidecarConfigObject`]. Its short name is not sc: that is a StorageClass.
#[derive(Clone, Debug, PartialEq, Eq, Hash, CustomResource, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "sipwarden.dev",
    version = "v1alpha1",
    kind = "SidecarConfig",
    root = "SidecarConfigObject",
    plural = "sidecarconfigs",
    namespaced,
    shortname = "scfg",
    category = "sipwarden",
    derive = "PartialEq",
    doc = "What sidecars obey, written by the operator from a SessionPolicy: one for each workload, and one for each policy, \
           for the pods it is in force for.",
    status = "SidecarConfigStatus",
    selectable = ".spec.policy",
    selectable = ".spec.mode",
    selectable = ".spec.hash",
    printcolumn = r#"{"name":"For","type":"string","jsonPath":".metadata.labels['sipwarden\\.dev/config-for']"}"#,
    printcolumn = r#"{"name":"Policy","type":"string","jsonPath":".spec.policy"}"#,
    printcolumn = r#"{"name":"Mode","type":"string","jsonPath":".spec.mode"}"#,
    printcolumn = r#"{"name":"Hash","type":"string","jsonPath":".spec.hash"}"#,
    printcolumn = r#"{"name":"Pods","type":"integer","jsonPath":".status.pods"}"#,
    printcolumn = r#"{"name":"In Step","type":"integer","jsonPath":".status.inStep"}"#,
    printcolumn = r#"{"name":"Sessions","type":"integer","jsonPath":".status.sessions","priority":1}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[schemars(description = "A policy with everything resolved: no inheritance is left, and all of it was found valid.")]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SidecarConfig {
    /// The name of the policy this was compiled from.
    #[schemars(length(max = 253))]
    pub policy: String,

    /// The generation of that policy; 0 where no API server counts them.
    pub generation: i64,

    /// Of what the sidecar obeys (mode, privacy, timers and rules): 16 hexadecimal digits that are equal when it behaves equally.
    #[schemars(length(max = 16))]
    pub hash: String,

    /// Whether the policy acts or only tells.
    pub mode: Mode,

    /// What is shown of who calls whom. Left out at its default, which older sidecars do not know.
    #[serde(default, skip_serializing_if = "is_default")]
    pub privacy: Privacy,

    /// The timers of the calls that no rule matches.
    pub timers: Timers,

    /// In order; the first rule that matches a call wins.
    #[schemars(length(max = crate::policy::MAX_RULES))]
    pub rules: Vec<CompiledRule>,
}

/// A rule with the timers it inherits filled in.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CompiledRule {
    /// The rule's name, unique in the config and fit to be a label value.
    #[schemars(length(max = crate::policy::MAX_NAME))]
    pub name: String,

    /// Which calls the rule is for.
    #[serde(rename = "match")]
    pub when: CompiledMatch,

    /// All the timers of those calls.
    pub timers: Timers,
}

/// Conditions that must all hold; an empty list or no direction is no condition.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct CompiledMatch {
    /// Which way the call goes.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Direction")]
    pub direction: Option<Direction>,

    /// Networks of the other party, without the bits beyond their prefix.
    #[serde(rename = "peerCIDRs", skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<String>", length(max = crate::policy::MAX_MATCH_ITEMS))]
    #[schemars(inner(length(max = crate::policy::MAX_CIDR)))]
    pub peer_cidrs: Vec<IpNet>,

    /// Hosts of the From URI, in lower case.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = crate::policy::MAX_MATCH_ITEMS), inner(length(max = crate::policy::MAX_DOMAIN)))]
    pub from_domains: Vec<String>,

    /// Hosts of the To URI, in lower case.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = crate::policy::MAX_MATCH_ITEMS), inner(length(max = crate::policy::MAX_DOMAIN)))]
    pub to_domains: Vec<String>,

    /// Globs with `*` and `?` over the whole User-Agent, in lower case; to be compared without regard to case.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = crate::policy::MAX_MATCH_ITEMS), inner(length(max = crate::policy::MAX_USER_AGENT)))]
    pub user_agents: Vec<String>,
}

impl SidecarConfig {
    pub(crate) fn new(
        policy: &str,
        generation: i64,
        mode: Mode,
        privacy: Privacy,
        timers: Timers,
        rules: Vec<CompiledRule>,
    ) -> Self {
        let hash = hash(mode, privacy, &timers, &rules);
        Self { policy: policy.to_owned(), generation, hash, mode, privacy, timers, rules }
    }

    /// The Secrets that its credentials name, which have to be mounted beside the sidecar.
    pub fn secret_names(&self) -> BTreeSet<&str> {
        let timers = self.rules.iter().map(|rule| &rule.timers).chain([&self.timers]);
        let names = timers.filter_map(|timers| match timers.credentials.as_ref()? {
            Credentials::SecretName(name) => Some(name.as_str()),
            Credentials::File(_) => None,
        });
        names.collect()
    }
}

/// The fields are written in the order they are declared in and hold no maps, so equal values give equal text.
/// Privacy is part of it where it says something, so that a version which does not know it gives the same hash.
fn hash(mode: Mode, privacy: Privacy, timers: &Timers, rules: &[CompiledRule]) -> String {
    let text = match is_default(&privacy) {
        true => serde_json::to_vec(&(mode, timers, rules)),
        false => serde_json::to_vec(&(mode, privacy, timers, rules)),
    };
    let text = text.expect("these types have string keys only");
    Sha256::digest(text).iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}
