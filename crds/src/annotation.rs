//! The config as a pod carries it: one annotation, which a downward API volume shows to the sidecar as a file.

use serde_json::{Value, json};

use crate::{
    API_VERSION,
    config::SidecarConfig,
    file::{self, Loaded, Problem},
    timers::Timers,
};

/// The annotation of a pod that holds its config.
pub const CONFIG_ANNOTATION: &str = "sipwarden.dev/config";

/// No annotation of ours is longer than this many bytes; Kubernetes has room for 256 KiB of all annotations of a pod.
pub const MAX_ANNOTATION: usize = 64 * 1024;

/// Left free in an annotation for what compiling does not know: the workload's name, the digits of a generation, and in each
/// of 65 timers up to three that were the default and four of up to 12 characters where ClusterSessionPolicies bind.
const RESERVE: usize = 8 * 1024;

/// The config of the workload `name` as compact JSON: an object of kind SidecarConfig. Timers that have their default value
/// are left out, so that a sidecar of an older version understands whatever does not use newer settings.
pub fn to_annotation(name: &str, config: &SidecarConfig) -> String {
    let mut spec = serde_json::to_value(config).expect("a config has string keys only");
    let defaults = serde_json::to_value(Timers::default()).expect("timers have string keys only");
    prune(&mut spec["timers"], &defaults);
    for rule in spec["rules"].as_array_mut().into_iter().flatten() {
        prune(&mut rule["timers"], &defaults);
    }
    json!({ "apiVersion": API_VERSION, "kind": "SidecarConfig", "metadata": { "name": name }, "spec": spec })
        .to_string()
}

/// What [`to_annotation`] wrote.
///
/// # Errors
/// What [`file::load`] finds, or that it is something else than a config.
pub fn from_annotation(text: &str) -> Result<SidecarConfig, Vec<Problem>> {
    match file::load(text)? {
        Loaded::Config(config) => Ok(config),
        Loaded::Policy(..) => Err(vec![Problem::of_document("expected a SidecarConfig; this is a SessionPolicy")]),
    }
}

/// How many bytes over what an annotation holds for sure the config is, if it is.
pub(crate) fn excess(config: &SidecarConfig) -> Option<usize> {
    to_annotation("", config).len().checked_sub(MAX_ANNOTATION - RESERVE).filter(|excess| *excess > 0)
}

/// Takes out what is as in `defaults`, field by field.
fn prune(value: &mut Value, defaults: &Value) {
    let (Some(fields), Some(defaults)) = (value.as_object_mut(), defaults.as_object()) else { return };
    fields.retain(|name, value| {
        let Some(default) = defaults.get(name) else { return true };
        prune(value, default);
        value.as_object().map_or(value != default, |left| !left.is_empty())
    });
}
