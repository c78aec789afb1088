//! Specs of SessionPolicies that tests apply.

use serde_json::{Value, json};

/// Refuses intervals below `seconds`.
pub fn least(seconds: u32) -> Value {
    json!({ "timers": { "sessionExpires": "30m", "minSE": format!("{seconds}s") } })
}

/// Only the operator refuses it: the API server adds up no lengths, compiling does.
pub fn too_long() -> Value {
    let agents: Vec<String> = (0..64).map(|number| format!("{number:0>120}")).collect();
    let rule = |number| json!({ "name": format!("r{number}"), "match": { "userAgents": agents } });
    json!({ "rules": (0..20).map(rule).collect::<Vec<_>>() })
}
