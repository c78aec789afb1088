//! What the operator tells of the objects it has seen. Counts, never a list with an entry for each pod.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use crate::bound::Clamp;

const MAX_CONDITIONS: usize = 8;

/// Status has room for this many of the settings that a ClusterSessionPolicy changed.
pub const MAX_CLAMPS: usize = 64;

/// What the operator has made of the policy.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct SessionPolicyStatus {
    /// The generation of the policy that this status is about.
    pub observed_generation: i64,

    /// Accepted: Accepted, Invalid or Conflicted. Programmed: Programmed, Pending, PartiallyProgrammed, Overridden or
    /// Paused. Ready: whether there is nothing left to do.
    #[schemars(schema_with = "conditions")]
    pub conditions: Vec<Condition>,

    /// How many pods there are.
    pub pods: PodCounts,

    /// Sessions that the policy's sidecars hold.
    pub sessions: i64,

    /// The hash of what these sidecars shall obey, ClusterSessionPolicies included; empty while the policy has never been
    /// valid.
    #[schemars(length(max = 16))]
    pub hash: String,

    /// Settings that a ClusterSessionPolicy changed, the first 64 of them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = MAX_CLAMPS))]
    pub clamped: Vec<Clamp>,
}

/// Of the pods that a policy selects, how far they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct PodCounts {
    /// Opted-in pods that the policy selects and for which no other policy is in force.
    pub matched: i32,

    /// Those of them that have a sidecar.
    pub injected: i32,

    /// Those whose sidecar said that it obeys this policy as it is now.
    pub in_step: i32,

    /// Those whose sidecar said that it obeys something else, or did not answer.
    pub stale: i32,
}

/// How far the sidecars are that the config is for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct SidecarConfigStatus {
    /// The generation of the config that this status is about.
    pub observed_generation: i64,

    /// The hash that in step means.
    #[schemars(length(max = 16))]
    pub observed_hash: String,

    /// Pods of the workload, or that the policy is in force for, that have a sidecar.
    pub pods: i32,

    /// Those whose sidecar said that it obeys this hash.
    pub in_step: i32,

    /// Sessions that these sidecars hold.
    pub sessions: i64,
}

/// What the operator has made of the bounds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ClusterSessionPolicyStatus {
    /// The generation of the policy that this status is about.
    pub observed_generation: i64,

    /// Accepted: Accepted or Invalid.
    #[schemars(schema_with = "conditions")]
    pub conditions: Vec<Condition>,

    /// Namespaces that the policy selects.
    pub namespaces: i32,

    /// SessionPolicies that it changed something of.
    pub clamped_policies: i32,
}

/// A list keyed by type, with the bounds that Kubernetes' own type leaves out.
fn conditions(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": MAX_CONDITIONS,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
        "items": {
            "type": "object",
            "required": ["type", "status", "reason", "message", "lastTransitionTime"],
            "properties": {
                "type": { "description": "What the condition is about.", "type": "string", "maxLength": 316 },
                "status": {
                    "description": "Whether it holds.",
                    "type": "string",
                    "enum": ["True", "False", "Unknown"],
                },
                "reason": { "description": "Why, in one word.", "type": "string", "minLength": 1, "maxLength": 1024 },
                "message": { "description": "Why, in a sentence.", "type": "string", "maxLength": 32768 },
                "observedGeneration": {
                    "description": "The generation of the object that was judged.",
                    "type": "integer",
                    "format": "int64",
                },
                "lastTransitionTime": {
                    "description": "When status last changed.",
                    "type": "string",
                    "format": "date-time",
                    "maxLength": 64,
                },
            },
        },
    })
}
