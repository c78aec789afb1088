//! `/validate`: the checks of the compile step, told while the policy is being applied.

use kube::core::{
    DynamicObject,
    admission::{AdmissionRequest, AdmissionResponse},
};
use serde::de::DeserializeOwned;
use sipwarden_crds::{ClusterSessionPolicy, SessionPolicy, Violation, compile};

/// More are not read by anybody.
const MAX_TOLD: usize = 10;

/// Denies what the compile step refuses. What it cannot read may be meant for a newer revision: that is only warned of.
pub(super) fn answer(review: &AdmissionRequest<DynamicObject>, revision: &str) -> AdmissionResponse {
    let mut response = AdmissionResponse::from(review);
    let Some(object) = review.object.as_ref().filter(|object| changes_spec(object, review.old_object.as_ref())) else {
        return response;
    };
    let violations = match review.kind.kind.as_str() {
        "SessionPolicy" => judge(object, |policy: &SessionPolicy| compile(policy).err().unwrap_or_default()),
        "ClusterSessionPolicy" => judge(object, ClusterSessionPolicy::violations),
        _ => None,
    };
    match violations {
        Some(violations) if violations.is_empty() => response,
        Some(violations) => response.deny(told(&violations)),
        None => {
            let text = format!(
                "sipwarden revision {revision} cannot read this {}; is it of another version?",
                review.kind.kind
            );
            response.warnings = Some(vec![text]);
            response
        }
    }
}

/// Labels, finalizers and status of a policy that became invalid must still be changeable, or it could not be deleted.
fn changes_spec(object: &DynamicObject, old: Option<&DynamicObject>) -> bool {
    old.is_none_or(|old| old.data.get("spec") != object.data.get("spec"))
}

/// None if it cannot be read.
fn judge<T: DeserializeOwned>(object: &DynamicObject, check: impl Fn(&T) -> Vec<Violation>) -> Option<Vec<Violation>> {
    let value = serde_json::to_value(object).ok()?;
    let typed = serde_json::from_value(value).ok()?;
    Some(check(&typed))
}

fn told(violations: &[Violation]) -> String {
    let mut lines: Vec<String> = violations.iter().take(MAX_TOLD).map(ToString::to_string).collect();
    if violations.len() > MAX_TOLD {
        lines.push(format!("and {} more", violations.len() - MAX_TOLD));
    }
    lines.join("; ")
}
