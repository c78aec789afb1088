//! What is to be done about the CAs: a pure decision.

use super::{authority::Timing, store::CaSet};

/// One change of the Secret, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// All is well, or time must pass.
    Keep,
    /// There is no CA: make one.
    Create,
    /// The CA is of no use to anybody: another takes its place at once.
    Replace(Why),
    /// A next CA is made, to be trusted first.
    Prepare(Why),
    /// The next CA becomes the current one.
    Promote,
    /// No leaf of the old CAs is left.
    Retire,
}

/// Why a CA is followed by another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// It gets old.
    Age,
    /// Someone asked for it.
    Asked,
    /// It has expired.
    Expired,
    /// It is not valid yet: it was made by a clock that was ahead.
    NotYetValid,
    /// It cannot be read.
    Unreadable,
}

/// Decides. `trusted_for_s` tells how long the next CA has been seen in every bundle; None if it is missing in one.
pub fn plan(set: Option<&CaSet>, now_s: i64, trusted_for_s: Option<i64>, timing: &Timing) -> Step {
    let Some(set) = set else { return Step::Create };
    let current = &set.current.certificate;
    let next = set.next.as_ref().map(|ca| &ca.certificate).filter(|next| next.is_valid_at(now_s));
    if !current.is_valid_at(now_s) {
        return match (next, trusted_for_s) {
            (Some(_), Some(_)) => Step::Promote,
            _ if now_s < current.not_before_s => Step::Replace(Why::NotYetValid),
            _ => Step::Replace(Why::Expired),
        };
    }
    if next.is_some() {
        let trusted = trusted_for_s.is_some_and(|trusted_for_s| trusted_for_s >= timing.propagation_s);
        return if trusted { Step::Promote } else { Step::Keep };
    }
    if set.rotation_wanted {
        return Step::Prepare(Why::Asked);
    }
    if current.not_after_s - now_s < timing.ca_renewal_s {
        return Step::Prepare(Why::Age);
    }
    if !set.old.is_empty() && now_s >= set.old_until_s {
        return Step::Retire;
    }
    Step::Keep
}

impl Why {
    /// As in logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Age => "age",
            Self::Asked => "asked",
            Self::Expired => "expired",
            Self::NotYetValid => "not-yet-valid",
            Self::Unreadable => "unreadable",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certs::authority::Ca;

    const NOW_S: i64 = 1_800_000_000;
    const DAY_S: i64 = 86_400;

    fn set_made_at(made_s: i64) -> CaSet {
        CaSet::new(Ca::generate("default", made_s, &Timing::default()).expect("a CA"))
    }

    fn step(set: &CaSet, now_s: i64, trusted_for_s: Option<i64>) -> Step {
        plan(Some(set), now_s, trusted_for_s, &Timing::default())
    }

    #[test]
    fn without_a_ca_one_is_made() {
        assert_eq!(plan(None, NOW_S, None, &Timing::default()), Step::Create);
    }

    #[test]
    fn a_ca_is_kept_until_its_renewal_is_due() {
        let set = set_made_at(NOW_S);
        assert_eq!(step(&set, NOW_S, None), Step::Keep);
        assert_eq!(step(&set, NOW_S + 245 * DAY_S, None), Step::Keep);
        assert_eq!(step(&set, NOW_S + 245 * DAY_S + 1, None), Step::Prepare(Why::Age));
    }

    #[test]
    fn the_next_ca_signs_only_after_it_was_trusted_long_enough() {
        let mut set = set_made_at(NOW_S);
        set.prepare(Ca::generate("default", NOW_S, &Timing::default()).expect("a CA"));
        assert_eq!(step(&set, NOW_S + 3600, None), Step::Keep);
        assert_eq!(step(&set, NOW_S + 3600, Some(59)), Step::Keep);
        assert_eq!(step(&set, NOW_S + 3600, Some(60)), Step::Promote);
    }

    #[test]
    fn old_cas_stay_until_their_leaves_have_expired() {
        let mut set = set_made_at(NOW_S);
        set.prepare(Ca::generate("default", NOW_S, &Timing::default()).expect("a CA"));
        set.promote(NOW_S, &Timing::default());
        assert_eq!(step(&set, NOW_S + DAY_S, None), Step::Keep);
        assert_eq!(step(&set, NOW_S + DAY_S + 600, None), Step::Retire);
        set.retire();
        assert_eq!(step(&set, NOW_S + DAY_S + 600, None), Step::Keep);
    }

    #[test]
    fn a_ca_that_nobody_can_use_is_replaced_at_once() {
        let set = set_made_at(NOW_S);
        assert_eq!(step(&set, NOW_S + 365 * DAY_S, None), Step::Replace(Why::Expired));
        assert_eq!(step(&set, NOW_S - 3600, None), Step::Keep);
        assert_eq!(step(&set, NOW_S - 3601, None), Step::Replace(Why::NotYetValid));
    }

    #[test]
    fn an_expired_ca_gives_way_to_a_next_one_that_is_trusted_already() {
        let mut set = set_made_at(NOW_S);
        let expired_s = NOW_S + 365 * DAY_S;
        set.prepare(Ca::generate("default", expired_s - DAY_S, &Timing::default()).expect("a CA"));
        assert_eq!(step(&set, expired_s, Some(0)), Step::Promote);
        assert_eq!(step(&set, expired_s, None), Step::Replace(Why::Expired));
    }

    #[test]
    fn a_rotation_that_was_asked_for_begins_and_is_not_asked_for_again() {
        let mut set = set_made_at(NOW_S);
        set.rotation_wanted = true;
        assert_eq!(step(&set, NOW_S, None), Step::Prepare(Why::Asked));
        set.prepare(Ca::generate("default", NOW_S, &Timing::default()).expect("a CA"));
        set.promote(NOW_S, &Timing::default());
        assert_eq!(step(&set, NOW_S, None), Step::Keep);
    }
}
