//! ClusterSessionPolicy: what no namespace may go below or above.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::{CustomResource, core::Selector};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    compile::{Violation, Violations, check_policy_name},
    duration::Duration,
    is_default,
    policy::Mode,
    selector::label_selector,
    status::ClusterSessionPolicyStatus,
    timers::LEAST_MIN_SE,
};

/// What the SessionPolicies of some namespaces may ask for.
#[derive(Clone, Debug, Default, PartialEq, CustomResource, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "sipwarden.dev",
    version = "v1alpha1",
    kind = "ClusterSessionPolicy",
    plural = "clustersessionpolicies",
    shortname = "csp",
    category = "sipwarden",
    derive = "PartialEq",
    doc = "Bounds for the SessionPolicies of all namespaces it selects. What goes beyond them is set to the bound, and the \
           SessionPolicy's status tells it. Of several that select a namespace, the strictest bound counts.",
    status = "ClusterSessionPolicyStatus",
    printcolumn = r#"{"name":"Mode At Most","type":"string","jsonPath":".spec.mode.atMost"}"#,
    printcolumn = r#"{"name":"Min-SE At Least","type":"string","jsonPath":".spec.timers.minSE.atLeast"}"#,
    printcolumn = r#"{"name":"Interval At Most","type":"string","jsonPath":".spec.timers.sessionExpires.atMost"}"#,
    printcolumn = r#"{"name":"Accepted","type":"string","jsonPath":".status.conditions[?(@.type=='Accepted')].status"}"#,
    printcolumn = r#"{"name":"Clamped","type":"integer","jsonPath":".status.clampedPolicies"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ClusterSessionPolicySpec {
    /// The namespaces whose SessionPolicies are bound; all of them if left out. Example: matchLabels: {team: voice}.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "label_selector")]
    pub namespace_selector: Option<LabelSelector>,

    /// How much a policy may act. Example: atMost: Observe, so that nothing is enforced yet.
    #[serde(skip_serializing_if = "is_default")]
    pub mode: ModeBounds,

    /// How short and how long session intervals may be.
    #[serde(skip_serializing_if = "is_default")]
    pub timers: TimerBounds,
}

/// Observe is less than Enforce.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "!has(self.atLeast) || !has(self.atMost) || self.atLeast == self.atMost || self.atLeast == 'Observe'",
    "message": "atLeast is above atMost: Observe is less than Enforce",
    "fieldPath": ".atLeast",
}]))]
pub struct ModeBounds {
    /// Enforce: every policy acts, one that says Observe as well. Observe bounds nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Mode")]
    pub at_least: Option<Mode>,

    /// Observe: no policy acts, one that says Enforce only tells what it would have done. Enforce bounds nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Mode")]
    pub at_most: Option<Mode>,
}

/// Bounds for the timers of a policy and of each of its rules.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "!has(self.minSE) || !has(self.minSE.atLeast) || !has(self.sessionExpires) || \
        !has(self.sessionExpires.atMost) || duration(self.minSE.atLeast) <= duration(self.sessionExpires.atMost)",
    "message": "minSE.atLeast is above sessionExpires.atMost, but no minSE may be above sessionExpires",
    "fieldPath": ".minSE",
}]))]
pub struct TimerBounds {
    /// Bounds for the shortest interval accepted. Example: {atLeast: 2m, atMost: 10m}.
    #[serde(rename = "minSE", skip_serializing_if = "is_default")]
    pub min_se: DurationBounds,

    /// Bounds for the interval offered, which is the longest accepted. Example: {atLeast: 10m, atMost: 1h}.
    #[serde(skip_serializing_if = "is_default")]
    pub session_expires: DurationBounds,
}

/// What a length of time may be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[schemars(extend("x-kubernetes-validations" = [
    {
        "rule": "!has(self.atLeast) || duration(self.atLeast) >= duration('90s')",
        "message": "atLeast is below 90s, the least RFC 4028 section 4 allows",
        "fieldPath": ".atLeast",
    },
    {
        "rule": "!has(self.atMost) || duration(self.atMost) >= duration('90s')",
        "message": "atMost is below 90s, the least RFC 4028 section 4 allows",
        "fieldPath": ".atMost",
    },
    {
        "rule": "!has(self.atLeast) || !has(self.atMost) || duration(self.atLeast) <= duration(self.atMost)",
        "message": "atLeast is above atMost",
        "fieldPath": ".atLeast",
    },
]))]
pub struct DurationBounds {
    /// A shorter one is raised to this. Example: 2m.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Duration")]
    pub at_least: Option<Duration>,

    /// A longer one is lowered to this. Example: 1h.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Duration")]
    pub at_most: Option<Duration>,
}

impl ClusterSessionPolicy {
    /// Everything in the policy that cannot stand; none if it is valid.
    pub fn violations(&self) -> Vec<Violation> {
        let mut found = Violations::default();
        check_policy_name(self.metadata.name.as_deref().unwrap_or_default(), &mut found);
        let ClusterSessionPolicySpec { namespace_selector, mode, timers } = &self.spec;
        if let Some(Err(error)) = namespace_selector.clone().map(Selector::try_from) {
            found.add("spec.namespaceSelector", format!("not a label selector: {error}"));
        }
        if (mode.at_least, mode.at_most) == (Some(Mode::Enforce), Some(Mode::Observe)) {
            found.add("spec.mode.atLeast", "Enforce is above atMost, which is Observe");
        }
        check_bounds("spec.timers.minSE", timers.min_se, &mut found);
        check_bounds("spec.timers.sessionExpires", timers.session_expires, &mut found);
        if let (Some(least), Some(most)) = (timers.min_se.at_least, timers.session_expires.at_most)
            && least > most
        {
            let message = format!("{least} is above sessionExpires.atMost, which is {most}; no minSE may be");
            found.add("spec.timers.minSE.atLeast", message);
        }
        found.into_vec()
    }
}

fn check_bounds(path: &str, bounds: DurationBounds, found: &mut Violations) {
    for (name, bound) in [("atLeast", bounds.at_least), ("atMost", bounds.at_most)] {
        if let Some(bound) = bound.filter(|bound| *bound < LEAST_MIN_SE) {
            let message = format!("{bound} is below {LEAST_MIN_SE}, the least RFC 4028 §4 allows");
            found.add(format!("{path}.{name}"), message);
        }
    }
    if let (Some(least), Some(most)) = (bounds.at_least, bounds.at_most)
        && least > most
    {
        found.add(format!("{path}.atLeast"), format!("{least} is above atMost, which is {most}"));
    }
}
