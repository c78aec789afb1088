//! Which policy is in force for a pod that several select.

use std::cmp::{Ordering, Reverse};

use crate::policy::SessionPolicy;

/// The one of `candidates`, all of which select the pod, that is in force.
pub fn choose<'a>(candidates: impl IntoIterator<Item = &'a SessionPolicy>) -> Option<&'a SessionPolicy> {
    candidates.into_iter().min_by(|a, b| precedence(a, b))
}

/// Less comes first: higher priority, then older, then the name that sorts first. One that no API server has created yet is
/// the youngest.
pub fn precedence(a: &SessionPolicy, b: &SessionPolicy) -> Ordering {
    let key = |policy: &SessionPolicy| {
        let created = policy.metadata.creation_timestamp.as_ref();
        (Reverse(policy.spec.priority), created.is_none(), created.map(|time| time.0))
    };
    key(a).cmp(&key(b)).then_with(|| a.metadata.name.cmp(&b.metadata.name))
}

#[cfg(test)]
mod tests {
    use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};

    use super::*;
    use crate::policy::SessionPolicySpec;

    fn policy(name: &str, priority: i32, created: Option<i64>) -> SessionPolicy {
        let mut policy = SessionPolicy::new(name, SessionPolicySpec { priority, ..SessionPolicySpec::default() });
        policy.metadata.creation_timestamp =
            created.map(|second| Time(Timestamp::from_second(second).expect("a time")));
        policy
    }

    fn chosen(candidates: &[SessionPolicy]) -> Option<&str> {
        choose(candidates).and_then(|policy| policy.metadata.name.as_deref())
    }

    #[test]
    fn priority_goes_before_age_and_age_before_name() {
        let ordered = [
            policy("z", 5, Some(9)),
            policy("y", 0, Some(1)),
            policy("a", 0, Some(2)),
            policy("b", 0, Some(2)),
            policy("0", 0, None),
            policy("1", 0, None),
            policy("c", -1, Some(0)),
        ];
        for (i, winner) in ordered.iter().enumerate() {
            let mut candidates = ordered[i..].to_vec();
            assert_eq!(chosen(&candidates), winner.metadata.name.as_deref());
            candidates.reverse();
            assert_eq!(chosen(&candidates), winner.metadata.name.as_deref(), "whatever the order they come in");
        }
    }

    #[test]
    fn of_none_none_is_chosen() {
        assert_eq!(chosen(&[]), None);
    }
}
