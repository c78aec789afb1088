//! The negotiation table of RFC 4028 as two pure functions: what a request offers when it leaves us, and what a 2xx to
//! it concludes. No state, no message, no side: `uac` and `uas` are those of the one transaction at hand.

use sipwarden_sip::value::{RefresherParam, SessionExpires};

use crate::policy::LEAST_INTERVAL_S;
use crate::{BelowMinSe, Seconds, Timers};

/// The timer headers of an INVITE or UPDATE: as they came, or as they leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Offer {
    pub(crate) interval: Option<Seconds>,
    pub(crate) refresher: Option<RefresherParam>,
    pub(crate) min_se: Option<Seconds>,
    /// The UAC lists `timer` in Supported.
    pub(crate) uac_supports_timer: bool,
}

/// The request must be answered 422 with this Min-SE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooSmall {
    pub(crate) asked: Seconds,
    pub(crate) min_se: Seconds,
}

/// What a request offers when it leaves (RFC 4028 §8.1, §9). `preferred`: the refresher the policy wants in this
/// transaction. `call_min_se`: the highest Min-SE somebody has asked for on this call; an interval of ours respects it.
pub(crate) fn offer(
    timers: &Timers,
    preferred: Option<RefresherParam>,
    call_min_se: Seconds,
    came: Offer,
) -> Result<Offer, TooSmall> {
    let least = timers.min_se_s();
    // What a 422 on this call has asked for would be asked for again.
    let known_min_se = call_min_se.min(timers.max_min_se_s());
    let most = timers.session_expires_s().max(came.min_se.unwrap_or(0)).max(known_min_se);
    let too_small = came.interval.filter(|&asked| asked < least);
    let interval = match (came.interval, too_small) {
        (None, _) => most,
        (Some(_), Some(asked)) => {
            if came.uac_supports_timer && timers.below_min_se == BelowMinSe::Reject {
                return Err(TooSmall { asked, min_se: least });
            }
            least.max(came.min_se.unwrap_or(0))
        }
        // Lowering must not become raising where a request offers less than its own Min-SE.
        (Some(asked), None) => asked.min(most),
    };
    let min_se = match came.min_se {
        Some(min_se) => Some(min_se.max(least)),
        // Without the header 90 s are meant (§5).
        None if least > LEAST_INTERVAL_S || too_small.is_some() => Some(least),
        None => None,
    };
    // Only a UAC that knows timers can be told to refresh (§9, table 2).
    let choosable = preferred.filter(|&side| side == RefresherParam::Uas || came.uac_supports_timer);
    Ok(Offer { interval: Some(interval), refresher: came.refresher.or(choosable), min_se, ..came })
}

/// What a 2xx means for the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Conclusion {
    /// There is a timer.
    Timer {
        interval: Seconds,
        refresher: RefresherParam,
        /// The 2xx says nothing: it must be completed for the UAC (§8.2).
        completed: bool,
        /// The interval it says is below this minimum of ours or of the RFC.
        short: bool,
        /// It named no refresher, or one that does not know timers.
        unclear: bool,
    },
    /// There is none (any more).
    Off,
}

/// What a 2xx with `answer` to a request that left us with `offer` concludes (§7.2, §8.2, §9).
pub(crate) fn conclude(offer: Offer, least: Seconds, answer: Option<SessionExpires>) -> Conclusion {
    match (answer, offer.interval) {
        (Some(answer), _) => {
            let assumed = if offer.uac_supports_timer { RefresherParam::Uac } else { RefresherParam::Uas };
            let refresher = answer.refresher.or(offer.refresher).unwrap_or(assumed);
            Conclusion::Timer {
                interval: answer.delta.max(LEAST_INTERVAL_S),
                refresher,
                completed: false,
                short: answer.delta < least,
                unclear: answer.refresher.is_none() || (refresher == RefresherParam::Uac && !offer.uac_supports_timer),
            }
        }
        (None, Some(interval)) if offer.uac_supports_timer => Conclusion::Timer {
            interval,
            refresher: RefresherParam::Uac,
            completed: true,
            short: false,
            unclear: false,
        },
        (None, _) => Conclusion::Off,
    }
}

/// What the answer of a UAS to `offer` concludes when we are the RFC 4028 half of that UAS (§9, table 2). `preferred`: who
/// shall refresh where the request leaves it open. `alone`: a timer is wanted even if the UAC knows none.
pub(crate) fn answer(offer: Offer, preferred: Option<RefresherParam>, alone: bool) -> Conclusion {
    let refresher = if offer.uac_supports_timer {
        offer.refresher.or(preferred).unwrap_or(RefresherParam::Uac)
    } else {
        RefresherParam::Uas
    };
    match offer.interval {
        Some(interval) if offer.uac_supports_timer || alone => {
            Conclusion::Timer { interval, refresher, completed: true, short: false, unclear: false }
        }
        _ => Conclusion::Off,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOTHING: Offer = Offer { interval: None, refresher: None, min_se: None, uac_supports_timer: true };

    fn timers(interval: Seconds, least: Seconds) -> Timers {
        Timers::new(interval, least, 7200).expect("a valid policy")
    }

    fn asks(interval: Seconds) -> Offer {
        Offer { interval: Some(interval), ..NOTHING }
    }

    fn without_timer(offer: Offer) -> Offer {
        Offer { uac_supports_timer: false, ..offer }
    }

    #[test]
    fn below_minimum_with_timer_is_rejected_with_our_min_se() {
        let result = offer(&timers(1800, 120), None, 0, asks(100));
        assert_eq!(result, Err(TooSmall { asked: 100, min_se: 120 }));
    }

    #[test]
    fn below_90_is_below_any_minimum() {
        assert_eq!(offer(&timers(1800, 90), None, 0, asks(0)), Err(TooSmall { asked: 0, min_se: 90 }));
    }

    #[test]
    fn below_minimum_without_timer_raises_both_min_se_and_interval() {
        let raised = offer(&timers(1800, 120), None, 0, without_timer(asks(60))).expect("no 422 to who has no timer");
        assert_eq!((raised.interval, raised.min_se), (Some(120), Some(120)));
    }

    #[test]
    fn raise_instead_of_reject_where_the_policy_says_so() {
        let mut raise = timers(1800, 120);
        raise.below_min_se = BelowMinSe::Raise;
        let raised = offer(&raise, None, 0, asks(60)).expect("raised");
        assert_eq!((raised.interval, raised.min_se), (Some(120), Some(120)));
    }

    #[test]
    fn an_interval_is_inserted_but_never_below_the_min_se_present() {
        assert_eq!(offer(&timers(1800, 90), None, 0, NOTHING).expect("inserted").interval, Some(1800));
        let demanding = Offer { min_se: Some(3600), ..NOTHING };
        assert_eq!(offer(&timers(1800, 90), None, 0, demanding).expect("inserted").interval, Some(3600));
    }

    #[test]
    fn an_inserted_interval_respects_an_earlier_422_up_to_max_min_se() {
        assert_eq!(offer(&timers(1800, 90), None, 3600, NOTHING).expect("inserted").interval, Some(3600));
        assert_eq!(offer(&timers(1800, 90), None, 99_999, NOTHING).expect("inserted").interval, Some(7200));
    }

    #[test]
    fn an_interval_is_not_lowered_below_what_an_earlier_422_asked_for() {
        assert_eq!(offer(&timers(1800, 90), None, 2400, asks(3600)).expect("lowered").interval, Some(2400));
    }

    #[test]
    fn an_interval_above_the_policy_is_lowered_to_policy_or_min_se() {
        assert_eq!(offer(&timers(1800, 90), None, 0, asks(3600)).expect("lowered").interval, Some(1800));
        let demanding = Offer { min_se: Some(2400), ..asks(3600) };
        assert_eq!(offer(&timers(1800, 90), None, 0, demanding).expect("lowered").interval, Some(2400));
    }

    #[test]
    fn min_se_is_raised_and_never_lowered() {
        let at = |min_se| Offer { min_se, ..asks(1800) };
        assert_eq!(offer(&timers(1800, 120), None, 0, at(Some(90))).expect("kept").min_se, Some(120));
        assert_eq!(offer(&timers(1800, 120), None, 0, at(Some(600))).expect("kept").min_se, Some(600));
        assert_eq!(offer(&timers(1800, 120), None, 0, at(None)).expect("kept").min_se, Some(120));
        assert_eq!(offer(&timers(1800, 90), None, 0, at(None)).expect("kept").min_se, None);
    }

    #[test]
    fn a_refresher_present_is_never_changed() {
        let says = Offer { refresher: Some(RefresherParam::Uac), ..asks(1800) };
        let left = offer(&timers(1800, 90), Some(RefresherParam::Uas), 0, says).expect("kept");
        assert_eq!(left.refresher, Some(RefresherParam::Uac));
    }

    #[test]
    fn a_preferred_refresher_is_added_unless_it_is_a_uac_without_timer() {
        let policy = timers(1800, 90);
        let added = |preferred, came| offer(&policy, Some(preferred), 0, came).expect("kept").refresher;
        assert_eq!(added(RefresherParam::Uac, asks(1800)), Some(RefresherParam::Uac));
        assert_eq!(added(RefresherParam::Uas, asks(1800)), Some(RefresherParam::Uas));
        assert_eq!(added(RefresherParam::Uac, without_timer(asks(1800))), None);
        assert_eq!(added(RefresherParam::Uas, without_timer(asks(1800))), Some(RefresherParam::Uas));
    }

    fn answer(delta: Seconds, refresher: Option<RefresherParam>) -> Option<SessionExpires> {
        Some(SessionExpires { delta, refresher })
    }

    #[test]
    fn what_the_2xx_says_wins_over_what_was_asked() {
        let conclusion = conclude(asks(1800), 90, answer(600, Some(RefresherParam::Uas)));
        let expected = Conclusion::Timer {
            interval: 600,
            refresher: RefresherParam::Uas,
            completed: false,
            short: false,
            unclear: false,
        };
        assert_eq!(conclusion, expected);
    }

    #[test]
    fn a_2xx_without_interval_is_completed_only_for_a_uac_with_timer() {
        assert!(matches!(
            conclude(asks(1800), 90, None),
            Conclusion::Timer { interval: 1800, refresher: RefresherParam::Uac, completed: true, .. }
        ));
        assert_eq!(conclude(without_timer(asks(1800)), 90, None), Conclusion::Off);
        assert_eq!(conclude(NOTHING, 90, None), Conclusion::Off);
    }

    #[test]
    fn our_own_answer_follows_the_response_table() {
        let refresher = |offer, preferred, alone| match super::answer(offer, preferred, alone) {
            Conclusion::Timer { interval: 1800, refresher, completed: true, .. } => Some(refresher),
            Conclusion::Timer { .. } => panic!("another timer"),
            Conclusion::Off => None,
        };
        let (uac, uas) = (Some(RefresherParam::Uac), Some(RefresherParam::Uas));
        let asked = |refresher| Offer { refresher, ..asks(1800) };
        assert_eq!(refresher(asked(uas), uac, true), uas, "what the request says stands");
        assert_eq!(refresher(asked(uac), uas, true), uac);
        assert_eq!(refresher(asked(None), uas, true), uas);
        assert_eq!(refresher(asked(None), None, true), uac);
        assert_eq!(refresher(without_timer(asked(None)), uac, true), uas, "it cannot be told to");
        assert_eq!(refresher(without_timer(asked(None)), uac, false), None);
        assert_eq!(refresher(NOTHING, uac, true), None);
    }

    #[test]
    fn a_short_2xx_is_used_but_not_below_90() {
        let short = |delta| match conclude(asks(1800), 120, answer(delta, Some(RefresherParam::Uac))) {
            Conclusion::Timer { interval, short, .. } => (interval, short),
            Conclusion::Off => panic!("it has a timer"),
        };
        assert_eq!(short(100), (100, true));
        assert_eq!(short(30), (90, true));
        assert_eq!(short(120), (120, false));
    }

    #[test]
    fn a_2xx_without_refresher_takes_the_one_asked_for() {
        let asked = Offer { refresher: Some(RefresherParam::Uas), ..asks(1800) };
        assert!(matches!(
            conclude(asked, 90, answer(1800, None)),
            Conclusion::Timer { refresher: RefresherParam::Uas, unclear: true, .. }
        ));
        assert!(matches!(
            conclude(without_timer(asks(1800)), 90, answer(1800, None)),
            Conclusion::Timer { refresher: RefresherParam::Uas, unclear: true, .. }
        ));
    }

    proptest! {
        #[test]
        fn whatever_leaves_is_within_the_policy_and_the_rfc(
            least in 90u32..4000, above in 0u32..4000, interval in prop::option::of(0u32..10_000),
            min_se in prop::option::of(90u32..5000), timer: bool, reject: bool, call_min_se in 0u32..9000,
        ) {
            let mut policy = Timers::new(least + above, least, 8000).expect("valid by construction");
            if !reject { policy.below_min_se = BelowMinSe::Raise; }
            let came = Offer { interval, refresher: None, min_se, uac_supports_timer: timer };
            match offer(&policy, None, call_min_se, came) {
                Err(TooSmall { asked, min_se }) => {
                    prop_assert!(timer && reject && asked < least && min_se == least);
                }
                Ok(left) => {
                    let leaves = left.interval.expect("the policy wants timers");
                    prop_assert!(leaves >= least);
                    prop_assert!(left.min_se >= came.min_se, "never lowered");
                    prop_assert!(left.min_se.unwrap_or(90) >= least);
                    if let Some(asked) = interval && asked >= least {
                        prop_assert!(leaves <= asked, "an acceptable interval is never raised");
                        let most = policy.session_expires_s().max(min_se.unwrap_or(0)).max(call_min_se.min(8000));
                        prop_assert!(leaves == asked.min(most));
                    }
                }
            }
        }
    }
}
