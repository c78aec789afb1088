//! From the core's events to counters. The match has no wildcard, so that a new event cannot be forgotten.

use prometheus::{Histogram, Registry};
use sipwarden_session_timer::{
    ByeOutcome, EndCause, Event, EventKind, HeaderKind, Leg, LimitKind, NoRefresh, SdpUnusable, Seconds,
};
use sipwarden_sip::Method;

use super::grid::Grid;
use super::{SIDES, histogram};

const MODE: (&str, &[&str]) = ("mode", &["Enforce", "Observe"]);
const METHODS: &[&str] = &["INVITE", "UPDATE", "other"];
const FAILURES: &[&str] = &["408", "422", "481", "491", "3xx", "4xx", "5xx", "6xx"];
const OUTCOMES: &[&str] = &["Accepted", "NoSuchCall", "Refused", "TimedOut"];
const CAUSES: &[&str] =
    &["ByeLocal", "ByeRemote", "Expired", "Response", "Forgotten", "RefreshFailed", "AppGone", "Requested"];
const NO_REFRESH: &[&str] =
    &["UnknownSdp", "OpenOffer", "BoundSdp", "UpdateRefused", "Unauthorized", "CSeqSpace", "Refused"];

pub(super) struct EventMetrics {
    rejections: Grid<2>,
    rejections_seen: Grid<1>,
    rejections_without_min_se: Grid<1>,
    insertions: Grid<2>,
    lowers: Grid<2>,
    raises: Grid<3>,
    refresher_choices: Grid<2>,
    completions: Grid<2>,
    malformed: Grid<2>,
    short_intervals: Grid<0>,
    unclear_refreshers: Grid<1>,
    established: Grid<1>,
    refreshes: Grid<2>,
    timers_off: Grid<1>,
    refresh_failures: Grid<2>,
    expiries: Grid<2>,
    byes_sent: Grid<1>,
    byes: Grid<2>,
    late_requests: Grid<2>,
    ended: Grid<1>,
    unknown_dialogs: Grid<1>,
    acting: Grid<0>,
    retries: Grid<0>,
    refreshes_sent: Grid<1>,
    not_refreshed: Grid<1>,
    answered_for_app: Grid<0>,
    probes_sent: Grid<0>,
    probe_failures: Grid<1>,
    glares: Grid<1>,
    media_changes: Grid<0>,
    challenges: Grid<0>,
    intervals: Histogram,
}

impl EventMetrics {
    pub(super) fn new(registry: &Registry) -> EventMetrics {
        let r = registry;
        let by = ("by", SIDES.1);
        let to = ("to", SIDES.1);
        let refresher = ("refresher", SIDES.1);
        let header = ("header", &["Session-Expires", "Min-SE"][..]);
        EventMetrics {
            rejections: Grid::new(
                r,
                "sipwarden_rejections_total",
                "422 sent because of a session interval below the minimum, by the side that asked.",
                [SIDES, MODE],
            ),
            rejections_seen: Grid::new(
                r,
                "sipwarden_rejections_seen_total",
                "422 of others that passed, by the side they went to.",
                [SIDES],
            ),
            rejections_without_min_se: Grid::new(
                r,
                "sipwarden_rejections_without_min_se_total",
                "422 of others without a Min-SE, by the side they went to.",
                [SIDES],
            ),
            insertions: Grid::new(
                r,
                "sipwarden_insertions_total",
                "Session-Expires put into requests that had none, by the side that sent them.",
                [SIDES, MODE],
            ),
            lowers: Grid::new(
                r,
                "sipwarden_lowers_total",
                "Session-Expires of requests lowered to the policy's, by the side that sent them.",
                [SIDES, MODE],
            ),
            raises: Grid::new(
                r,
                "sipwarden_raises_total",
                "Session-Expires or Min-SE of requests raised to the minimum, by the side that sent them.",
                [SIDES, header, MODE],
            ),
            refresher_choices: Grid::new(
                r,
                "sipwarden_refresher_choices_total",
                "Refreshers named in requests that named none.",
                [refresher, MODE],
            ),
            completions: Grid::new(
                r,
                "sipwarden_completions_total",
                "2xx without Session-Expires completed for a UAC with session timers, by the side of the UAC.",
                [SIDES, MODE],
            ),
            malformed: Grid::new(
                r,
                "sipwarden_malformed_headers_total",
                "Session timer headers that cannot be read, by the side that sent them.",
                [SIDES, header],
            ),
            short_intervals: Grid::new(
                r,
                "sipwarden_short_intervals_total",
                "2xx with an interval below our minimum; it is used, but not below 90 s.",
                [],
            ),
            unclear_refreshers: Grid::new(
                r,
                "sipwarden_unclear_refreshers_total",
                "2xx with Session-Expires that name no possible refresher, by the side taken to be it.",
                [refresher],
            ),
            established: Grid::new(
                r,
                "sipwarden_sessions_established_total",
                "Sessions established, with and without a timer.",
                [("timer", &["yes", "no"])],
            ),
            refreshes: Grid::new(
                r,
                "sipwarden_refreshes_total",
                "2xx to a re-INVITE or UPDATE that armed a session timer anew.",
                [("method", METHODS), by],
            ),
            timers_off: Grid::new(
                r,
                "sipwarden_timers_off_total",
                "2xx to a re-INVITE or UPDATE that turned a session timer off.",
                [by],
            ),
            refresh_failures: Grid::new(
                r,
                "sipwarden_refresh_failures_total",
                "re-INVITEs and UPDATEs that failed, by the side that sent them.",
                [by, ("status", FAILURES)],
            ),
            expiries: Grid::new(
                r,
                "sipwarden_expiries_total",
                "Sessions that were not refreshed in time, by the side that should have.",
                [refresher, MODE],
            ),
            byes_sent: Grid::new(r, "sipwarden_byes_sent_total", "BYEs sent to end sessions.", [to]),
            byes: Grid::new(
                r,
                "sipwarden_byes_total",
                "BYEs of ours by their end: 2xx, 481, another final response, or none.",
                [to, ("outcome", OUTCOMES)],
            ),
            late_requests: Grid::new(
                r,
                "sipwarden_late_requests_total",
                "Requests of expired sessions answered 481.",
                [SIDES, ("method", METHODS)],
            ),
            ended: Grid::new(
                r,
                "sipwarden_sessions_ended_total",
                "Sessions that are over, by cause.",
                [("cause", CAUSES)],
            ),
            unknown_dialogs: Grid::new(
                r,
                "sipwarden_unknown_dialogs_total",
                "re-INVITEs and UPDATEs of dialogs nobody saw start; they pass untouched.",
                [SIDES],
            ),
            acting: Grid::new(
                r,
                "sipwarden_acting_sessions_total",
                "Sessions in which the sidecar is the session-timer half of an application that has none.",
                [],
            ),
            retries: Grid::new(
                r,
                "sipwarden_retries_total",
                "422 to requests of the application answered with another try it knows nothing of.",
                [],
            ),
            refreshes_sent: Grid::new(
                r,
                "sipwarden_refreshes_sent_total",
                "Refreshes sent for the application.",
                [("method", METHODS)],
            ),
            not_refreshed: Grid::new(
                r,
                "sipwarden_not_refreshed_total",
                "Refreshes that were due for the application but could not be sent.",
                [("reason", NO_REFRESH)],
            ),
            answered_for_app: Grid::new(
                r,
                "sipwarden_refreshes_answered_total",
                "Refreshes of the other party answered in the application's place.",
                [],
            ),
            probes_sent: Grid::new(
                r,
                "sipwarden_probes_sent_total",
                "Questions to the application whether it still has a call.",
                [],
            ),
            probe_failures: Grid::new(
                r,
                "sipwarden_probe_failures_total",
                "Such questions that the application denied or did not answer.",
                [("outcome", &["NoSuchCall", "TimedOut"])],
            ),
            glares: Grid::new(
                r,
                "sipwarden_glares_total",
                "Requests answered 491 because a refresh of ours was under way.",
                [SIDES],
            ),
            media_changes: Grid::new(
                r,
                "sipwarden_media_changes_total",
                "Answers to refreshes of ours that describe other media than the application knows.",
                [],
            ),
            challenges: Grid::new(
                r,
                "sipwarden_challenges_total",
                "Refreshes and BYEs of ours answered with 401 or 407.",
                [],
            ),
            intervals: histogram(
                r,
                "sipwarden_negotiated_interval_seconds",
                "Session intervals of 2xx that armed a timer.",
                vec![90.0, 120.0, 180.0, 300.0, 600.0, 900.0, 1200.0, 1800.0, 3600.0, 7200.0],
            ),
        }
    }

    /// Counts an event. A limit of the core is handed back, to be counted among all limits.
    pub(super) fn record(&self, event: &Event) -> Option<LimitKind> {
        let mode = usize::from(event.observed);
        match event.kind {
            EventKind::Rejected { to, asked: _, min_se: _ } => self.rejections.inc([to.index(), mode]),
            EventKind::RejectionSeen { to, min_se: _ } => self.rejections_seen.inc([to.index()]),
            EventKind::RejectionWithoutMinSe { to } => self.rejections_without_min_se.inc([to.index()]),
            EventKind::Inserted { from, interval: _ } => self.insertions.inc([from.index(), mode]),
            EventKind::Lowered { from, asked: _, interval: _ } => self.lowers.inc([from.index(), mode]),
            EventKind::Raised { from, asked: _, interval: _ } => {
                self.raises.inc([from.index(), header_index(HeaderKind::SessionExpires), mode]);
            }
            EventKind::MinSeRaised { from, min_se: _ } => {
                self.raises.inc([from.index(), header_index(HeaderKind::MinSe), mode]);
            }
            EventKind::RefresherChosen { side } => self.refresher_choices.inc([side.index(), mode]),
            EventKind::Completed { to, interval: _ } => self.completions.inc([to.index(), mode]),
            EventKind::Malformed { from, header } => self.malformed.inc([from.index(), header_index(header)]),
            EventKind::ShortInterval { interval: _ } => self.short_intervals.inc([]),
            EventKind::RefresherUnclear { taken } => self.unclear_refreshers.inc([taken.index()]),
            EventKind::Established { interval, refresher: _ } => {
                self.established.inc([usize::from(interval.is_none())]);
                interval.into_iter().for_each(|interval| self.armed(interval));
            }
            EventKind::Refreshed { by, method, interval, refresher: _ } => {
                self.refreshes.inc([method_index(method), by.index()]);
                self.armed(interval);
            }
            EventKind::TimerOff { by } => self.timers_off.inc([by.index()]),
            EventKind::RefreshFailed { by, status } => self.refresh_failures.inc([by.index(), failure_index(status)]),
            EventKind::Expired { interval: _, refresher } => self.expiries.inc([refresher.index(), mode]),
            EventKind::ByeSent { to } => self.byes_sent.inc([to.index()]),
            EventKind::ByeDone { to, outcome } => self.byes.inc([to.index(), outcome_index(outcome)]),
            EventKind::LateRequest { from, method } => self.late_requests.inc([from.index(), method_index(method)]),
            EventKind::Ended { cause } => self.ended.inc([cause_index(cause)]),
            EventKind::UnknownDialog { from } => self.unknown_dialogs.inc([from.index()]),
            EventKind::LimitReached { limit } => return Some(limit),
            EventKind::ActsForApp => self.acting.inc([]),
            EventKind::Retried { interval: _ } => self.retries.inc([]),
            EventKind::RefreshSent { to: _, method } => self.refreshes_sent.inc([method_index(method)]),
            EventKind::NotRefreshed { reason } => self.not_refreshed.inc([no_refresh_index(reason)]),
            EventKind::AnsweredForApp { from: _, method: _ } => self.answered_for_app.inc([]),
            EventKind::ProbeSent => self.probes_sent.inc([]),
            EventKind::ProbeFailed { status } => self.probe_failures.inc([usize::from(status != 481)]),
            EventKind::Glare { from, method: _ } => self.glares.inc([from.index()]),
            EventKind::MediaChanged => self.media_changes.inc([]),
            EventKind::Challenged { status: _ } => self.challenges.inc([]),
        }
        None
    }

    fn armed(&self, interval: Seconds) {
        self.intervals.observe(f64::from(interval));
    }
}

fn header_index(header: HeaderKind) -> usize {
    match header {
        HeaderKind::SessionExpires => 0,
        HeaderKind::MinSe => 1,
    }
}

fn method_index(method: Method) -> usize {
    match method {
        Method::Invite => 0,
        Method::Update => 1,
        _ => 2,
    }
}

fn failure_index(status: u16) -> usize {
    match status {
        408 => 0,
        422 => 1,
        481 => 2,
        491 => 3,
        ..400 => 4,
        400..500 => 5,
        500..600 => 6,
        600.. => 7,
    }
}

fn outcome_index(outcome: ByeOutcome) -> usize {
    match outcome {
        ByeOutcome::Answered(200..300) => 0,
        ByeOutcome::Answered(481) => 1,
        ByeOutcome::Answered(_) => 2,
        ByeOutcome::TimedOut => 3,
    }
}

fn cause_index(cause: EndCause) -> usize {
    match cause {
        EndCause::Bye(Leg::Local) => 0,
        EndCause::Bye(Leg::Remote) => 1,
        EndCause::Expired => 2,
        EndCause::Response(_) => 3,
        EndCause::Forgotten => 4,
        EndCause::RefreshFailed(_) => 5,
        EndCause::AppGone => 6,
        EndCause::Requested => 7,
    }
}

fn no_refresh_index(reason: NoRefresh) -> usize {
    match reason {
        NoRefresh::Sdp(SdpUnusable::Unknown) => 0,
        NoRefresh::Sdp(SdpUnusable::OpenOffer) => 1,
        NoRefresh::Sdp(SdpUnusable::Bound) => 2,
        NoRefresh::UpdateRefused => 3,
        NoRefresh::Unauthorized => 4,
        NoRefresh::CSeqSpace => 5,
        NoRefresh::Refused => 6,
    }
}

#[cfg(test)]
mod tests {
    use super::super::Metrics;
    use super::*;

    fn rendered(kinds: &[EventKind]) -> String {
        let metrics = Metrics::new();
        for (index, &kind) in kinds.iter().enumerate() {
            metrics.event(&Event { session: None, observed: index % 2 == 1, rule: None, kind });
        }
        metrics.render(0)
    }

    #[test]
    fn what_observe_would_have_done_is_counted_apart() {
        let rejected = EventKind::Rejected { to: Leg::Remote, asked: 60, min_se: 90 };
        let text = rendered(&[rejected, rejected, rejected]);
        assert!(text.contains(r#"sipwarden_rejections_total{mode="Enforce",side="Remote"} 2"#), "{text}");
        assert!(text.contains(r#"sipwarden_rejections_total{mode="Observe",side="Remote"} 1"#), "{text}");
    }

    #[test]
    fn intervals_of_new_and_refreshed_sessions_reach_the_histogram() {
        let text = rendered(&[
            EventKind::Established { interval: Some(1800), refresher: Some(Leg::Local) },
            EventKind::Refreshed { by: Leg::Local, method: Method::Update, interval: 90, refresher: Leg::Local },
            EventKind::Established { interval: None, refresher: None },
        ]);
        assert!(text.contains("sipwarden_negotiated_interval_seconds_count 2"), "{text}");
        assert!(text.contains("sipwarden_negotiated_interval_seconds_sum 1890"), "{text}");
        assert!(text.contains(r#"sipwarden_refreshes_total{by="Local",method="UPDATE"} 1"#), "{text}");
        assert!(text.contains(r#"sipwarden_sessions_established_total{timer="no"} 1"#), "{text}");
    }

    #[test]
    fn the_end_of_a_bye_is_told_by_its_response() {
        let done = |status| EventKind::ByeDone { to: Leg::Local, outcome: ByeOutcome::Answered(status) };
        let text = rendered(&[done(200), done(481), done(500), EventKind::LimitReached { limit: LimitKind::Forks }]);
        for outcome in ["Accepted", "NoSuchCall", "Refused"] {
            assert!(text.contains(&format!(r#"sipwarden_byes_total{{outcome="{outcome}",to="Local"}} 1"#)), "{text}");
        }
        assert!(text.contains(r#"sipwarden_limits_reached_total{limit="Forks"} 1"#), "{text}");
    }
}
