//! The conditions of a policy, with the reasons of GEP-713, derived from one judgement so that they never contradict each
//! other.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// The longest message a condition may have, in bytes.
const MAX_MESSAGE: usize = 32 * 1024;

/// Whether a policy can be obeyed at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acceptance {
    /// It can.
    Accepted,
    /// It breaks a rule; what it said while it was last valid stays in force.
    Invalid,
    /// Every pod it selects obeys another policy of the same priority.
    Conflicted,
}

/// How much of what a policy asks for is so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Programming {
    /// Every pod it is in force for was given it, and no sidecar says that it obeys something else.
    Programmed,
    /// No pod is so far yet.
    Pending,
    /// Some pods are.
    PartiallyProgrammed,
    /// Every pod it selects obeys a policy of higher priority.
    Overridden,
    /// It is left as it is because someone said so.
    Paused,
}

/// What the operator makes of a policy, with a sentence for a person on each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judgement {
    /// Whether the policy can be obeyed.
    pub acceptance: (Acceptance, String),
    /// How far it is obeyed.
    pub programming: (Programming, String),
}

impl Judgement {
    /// The conditions Accepted, Programmed and Ready. One that had the same status `before` keeps the time of its last
    /// transition; for the others that is `now`.
    pub fn conditions(&self, generation: i64, before: &[Condition], now: &Time) -> Vec<Condition> {
        let (acceptance, accepted_message) = &self.acceptance;
        let (programming, programmed_message) = &self.programming;
        let accepted = *acceptance == Acceptance::Accepted;
        let programmed = *programming == Programming::Programmed;
        // Nothing more will happen to an overridden policy, and who waits for Ready shall not wait for ever.
        let settled = programmed || *programming == Programming::Overridden;
        let ready_reason = match (accepted, settled) {
            (false, _) => (acceptance.reason(), accepted_message.as_str()),
            (true, false) => (programming.reason(), programmed_message.as_str()),
            (true, true) => ("Ready", programmed_message.as_str()),
        };
        let programmed_reason = (programming.reason(), programmed_message.as_str());
        vec![
            acceptance.condition(accepted_message, generation, before, now),
            condition("Programmed", accepted && programmed, programmed_reason, generation, before, now),
            condition("Ready", accepted && settled, ready_reason, generation, before, now),
        ]
    }
}

impl Acceptance {
    /// The condition Accepted alone; see [`Judgement::conditions`].
    pub fn condition(self, message: &str, generation: i64, before: &[Condition], now: &Time) -> Condition {
        condition("Accepted", self == Self::Accepted, (self.reason(), message), generation, before, now)
    }

    /// The word in the condition.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Accepted => "Accepted",
            Self::Invalid => "Invalid",
            Self::Conflicted => "Conflicted",
        }
    }
}

impl Programming {
    /// The word in the condition.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Programmed => "Programmed",
            Self::Pending => "Pending",
            Self::PartiallyProgrammed => "PartiallyProgrammed",
            Self::Overridden => "Overridden",
            Self::Paused => "Paused",
        }
    }
}

fn condition(
    type_: &str,
    holds: bool,
    (reason, message): (&str, &str),
    generation: i64,
    before: &[Condition],
    now: &Time,
) -> Condition {
    let status = if holds { "True" } else { "False" };
    let same = before.iter().find(|condition| condition.type_ == type_ && condition.status == status);
    Condition {
        type_: type_.to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message: shortened(message).to_owned(),
        observed_generation: Some(generation),
        last_transition_time: same.map_or(now, |condition| &condition.last_transition_time).clone(),
    }
}

/// As much of the text as a condition takes, in whole characters.
fn shortened(text: &str) -> &str {
    let end = (0..=text.len().min(MAX_MESSAGE)).rev().find(|end| text.is_char_boundary(*end));
    &text[..end.unwrap_or(0)]
}

#[cfg(test)]
mod tests {
    use k8s_openapi::jiff::Timestamp;

    use super::*;

    fn at(second: i64) -> Time {
        Time(Timestamp::from_second(second).expect("a time"))
    }

    fn judged(acceptance: Acceptance, programming: Programming) -> Judgement {
        Judgement { acceptance: (acceptance, "a".to_owned()), programming: (programming, "p".to_owned()) }
    }

    #[test]
    fn ready_follows_from_the_other_two() {
        use {Acceptance as A, Programming as P};
        let cases = [
            (A::Accepted, P::Programmed, ["True Accepted a", "True Programmed p", "True Ready p"]),
            (A::Accepted, P::Pending, ["True Accepted a", "False Pending p", "False Pending p"]),
            (
                A::Accepted,
                P::PartiallyProgrammed,
                ["True Accepted a", "False PartiallyProgrammed p", "False PartiallyProgrammed p"],
            ),
            (A::Accepted, P::Overridden, ["True Accepted a", "False Overridden p", "True Ready p"]),
            (A::Accepted, P::Paused, ["True Accepted a", "False Paused p", "False Paused p"]),
            (A::Invalid, P::Pending, ["False Invalid a", "False Pending p", "False Invalid a"]),
            (A::Invalid, P::Programmed, ["False Invalid a", "False Programmed p", "False Invalid a"]),
            (A::Conflicted, P::Overridden, ["False Conflicted a", "False Overridden p", "False Conflicted a"]),
        ];
        for (acceptance, programming, expected) in cases {
            let conditions = judged(acceptance, programming).conditions(3, &[], &at(1));
            let told = conditions.iter().map(|c| format!("{} {} {}", c.status, c.reason, c.message));
            assert_eq!(told.collect::<Vec<_>>(), expected);
            let types: Vec<_> = conditions.iter().map(|condition| condition.type_.as_str()).collect();
            assert_eq!(types, ["Accepted", "Programmed", "Ready"]);
            assert!(conditions.iter().all(|condition| condition.observed_generation == Some(3)));
        }
    }

    #[test]
    fn only_a_change_of_status_is_a_transition() {
        let pending = judged(Acceptance::Accepted, Programming::Pending).conditions(1, &[], &at(1));
        let partial = judged(Acceptance::Accepted, Programming::PartiallyProgrammed).conditions(1, &pending, &at(2));
        assert!(partial.iter().all(|condition| condition.last_transition_time == at(1)));
        let done = judged(Acceptance::Accepted, Programming::Programmed).conditions(2, &partial, &at(3));
        let times: Vec<_> = done.iter().map(|condition| condition.last_transition_time.clone()).collect();
        assert_eq!(times, [at(1), at(3), at(3)]);
    }

    #[test]
    fn a_message_longer_than_kubernetes_takes_is_cut_between_characters() {
        let mut judgement = judged(Acceptance::Invalid, Programming::Pending);
        judgement.acceptance.1 = "é".repeat(MAX_MESSAGE).replacen('é', "e", 1);
        let conditions = judgement.conditions(1, &[], &at(1));
        assert_eq!(conditions[0].message.len(), MAX_MESSAGE - 1);
    }
}
