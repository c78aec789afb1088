//! Events of the core as people and programs read them: flat records, and log lines.

use serde::Serialize;
use sipwarden_otlp::opentelemetry::trace::TraceId;
use sipwarden_session_timer::{
    ByeOutcome, EndCause, Event, EventKind, HeaderKind, Leg, LimitKind, Mode, NoRefresh, SdpUnusable, SessionId,
};
use tracing::{Level, debug, info, warn};

use crate::record::About;
use crate::typed::shown_call_id;
use crate::words::Words;

/// An event as a flat record: its kind and those fields it has. Intervals in seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Record {
    /// The event's name.
    pub kind: &'static str,
    /// The side it is about: `Local` or `Remote`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub side: Option<&'static str>,
    /// The method of the request it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<&'static str>,
    /// The interval that somebody asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub asked_s: Option<u32>,
    /// The session interval.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interval_s: Option<u32>,
    /// The least interval.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_se_s: Option<u32>,
    /// The side that refreshes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refresher: Option<&'static str>,
    /// The status of a response.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// A header's, cause's, outcome's or limit's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'static str>,
    /// What is told was not done, because the policy only observes.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub observed: bool,
}

impl Record {
    /// What happened, whether it was done or only observed.
    pub fn of(kind: EventKind) -> Record {
        record(kind)
    }
}

impl From<&Event> for Record {
    fn from(event: &Event) -> Record {
        Record { observed: event.observed, ..record(event.kind) }
    }
}

/// `kind` with its fields: `Rejected side=Remote asked_s=60 min_se_s=90`.
impl std::fmt::Display for Record {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        let serde_json::Value::Object(fields) = serde_json::json!(self) else { return Err(std::fmt::Error) };
        f.write_str(self.kind)?;
        for (name, value) in fields.iter().filter(|(name, _)| *name != "kind") {
            match value {
                serde_json::Value::String(text) => write!(f, " {name}={text}")?,
                other => write!(f, " {name}={other}")?,
            }
        }
        Ok(())
    }
}

/// The names of all events.
pub const KINDS: [&str; 33] = [
    "Rejected",
    "RejectionSeen",
    "RejectionWithoutMinSe",
    "Inserted",
    "Lowered",
    "Raised",
    "MinSeRaised",
    "RefresherChosen",
    "Completed",
    "Malformed",
    "ShortInterval",
    "RefresherUnclear",
    "Established",
    "Refreshed",
    "TimerOff",
    "RefreshFailed",
    "Expired",
    "ByeSent",
    "ByeDone",
    "LateRequest",
    "Ended",
    "ActsForApp",
    "Retried",
    "RefreshSent",
    "NotRefreshed",
    "AnsweredForApp",
    "ProbeSent",
    "ProbeFailed",
    "Glare",
    "MediaChanged",
    "Challenged",
    "UnknownDialog",
    "LimitReached",
];

/// What a session is called outside its shard.
pub fn session_name(shard: usize, id: SessionId) -> String {
    format!("{shard}-{}", id.0)
}

/// The shard and the id in a name of [`session_name`].
pub fn parse_session_name(name: &str) -> Option<(usize, SessionId)> {
    let (shard, id) = name.split_once('-')?;
    Some((shard.parse().ok()?, SessionId(id.parse().ok()?)))
}

/// `Enforce` or `Observe`.
pub fn mode_name(mode: Mode) -> &'static str {
    match mode {
        Mode::Observe => "Observe",
        Mode::Enforce => "Enforce",
    }
}

/// The name of an end, for views.
pub fn cause_name(cause: EndCause) -> &'static str {
    match cause {
        EndCause::Bye(_) => "Bye",
        EndCause::Expired => "Expired",
        EndCause::Response(_) => "Response",
        EndCause::Forgotten => "Forgotten",
        EndCause::RefreshFailed(_) => "RefreshFailed",
        EndCause::AppGone => "AppGone",
        EndCause::Requested => "Requested",
    }
}

/// The name of what keeps SDP from being offered again.
pub fn sdp_name(unusable: SdpUnusable) -> &'static str {
    match unusable {
        SdpUnusable::Unknown => "UnknownSdp",
        SdpUnusable::OpenOffer => "OpenOffer",
        SdpUnusable::Bound => "BoundSdp",
    }
}

fn no_refresh_name(reason: NoRefresh) -> &'static str {
    match reason {
        NoRefresh::Sdp(unusable) => sdp_name(unusable),
        NoRefresh::UpdateRefused => "UpdateRefused",
        NoRefresh::Unauthorized => "Unauthorized",
        NoRefresh::CSeqSpace => "CSeqSpace",
        NoRefresh::Refused => "Refused",
    }
}

/// Writes an event to the log: what it is, whom it is about, why, and the trace it is part of. `about` is only asked when the
/// line is wanted; with `reveal` the Call-ID stands there whole.
pub fn log<'a>(shard: usize, event: &Event, reveal: bool, trace: Option<TraceId>, about: impl FnOnce() -> About<'a>) {
    macro_rules! line {
        ($log:ident, $level:expr) => {
            if tracing::enabled!(target: "sipwarden::session", $level) {
                let about = about();
                let Record { kind, side, method, asked_s, interval_s, min_se_s, refresher, status, reason, observed } =
                    event.into();
                $log!(
                    target: "sipwarden::session",
                    session = event.session.map(|id| session_name(shard, id)),
                    call_id = shown_call_id(about.call_id, !reveal && about.names_user()),
                    peer = about.peer.map(tracing::field::display),
                    policy = about.policy.name,
                    rule = about.policy.rule_name(event.rule),
                    trace_id = trace.map(tracing::field::display),
                    side, method, asked_s, interval_s, min_se_s, refresher, status, reason, observed,
                    why = Words::of(event.kind, event.observed).text,
                    "{kind}"
                );
            }
        };
    }
    match level(event.kind) {
        Level::WARN => line!(warn, Level::WARN),
        Level::INFO => line!(info, Level::INFO),
        _ => line!(debug, Level::DEBUG),
    }
}

/// What an operator asks about later is INFO, what somebody should look into WARN, the rest of a dialog DEBUG.
fn level(kind: EventKind) -> Level {
    match kind {
        EventKind::Rejected { .. }
        | EventKind::Expired { .. }
        | EventKind::RejectionWithoutMinSe { .. }
        | EventKind::ProbeFailed { .. }
        | EventKind::Challenged { .. }
        | EventKind::RefresherUnclear { .. } => Level::INFO,
        EventKind::ByeDone { outcome: ByeOutcome::TimedOut, .. }
        | EventKind::NotRefreshed { .. }
        | EventKind::MediaChanged
        | EventKind::LimitReached { .. } => Level::WARN,
        _ => Level::DEBUG,
    }
}

fn record(kind: EventKind) -> Record {
    let none = Record::default();
    let of = |kind, leg: Leg| Record { kind, side: Some(leg.as_str()), ..none };
    match kind {
        EventKind::Rejected { to, asked, min_se } => {
            Record { asked_s: Some(asked), min_se_s: Some(min_se), status: Some(422), ..of("Rejected", to) }
        }
        EventKind::RejectionSeen { to, min_se } => Record { min_se_s: min_se, ..of("RejectionSeen", to) },
        EventKind::RejectionWithoutMinSe { to } => of("RejectionWithoutMinSe", to),
        EventKind::Inserted { from, interval } => Record { interval_s: Some(interval), ..of("Inserted", from) },
        EventKind::Lowered { from, asked, interval } => {
            Record { asked_s: Some(asked), interval_s: Some(interval), ..of("Lowered", from) }
        }
        EventKind::Raised { from, asked, interval } => {
            Record { asked_s: Some(asked), interval_s: Some(interval), ..of("Raised", from) }
        }
        EventKind::MinSeRaised { from, min_se } => Record { min_se_s: Some(min_se), ..of("MinSeRaised", from) },
        EventKind::RefresherChosen { side } => {
            Record { kind: "RefresherChosen", refresher: Some(side.as_str()), ..none }
        }
        EventKind::Completed { to, interval } => Record { interval_s: Some(interval), ..of("Completed", to) },
        EventKind::Malformed { from, header } => Record { reason: Some(header_name(header)), ..of("Malformed", from) },
        EventKind::ShortInterval { interval } => Record { kind: "ShortInterval", interval_s: Some(interval), ..none },
        EventKind::RefresherUnclear { taken } => {
            Record { kind: "RefresherUnclear", refresher: Some(taken.as_str()), ..none }
        }
        EventKind::Established { interval, refresher } => {
            Record { kind: "Established", interval_s: interval, refresher: refresher.map(Leg::as_str), ..none }
        }
        EventKind::Refreshed { by, method, interval, refresher } => Record {
            method: Some(method.as_str()),
            interval_s: Some(interval),
            refresher: Some(refresher.as_str()),
            ..of("Refreshed", by)
        },
        EventKind::TimerOff { by } => of("TimerOff", by),
        EventKind::RefreshFailed { by, status } => Record { status: Some(status), ..of("RefreshFailed", by) },
        EventKind::Expired { interval, refresher } => {
            Record { kind: "Expired", interval_s: Some(interval), refresher: Some(refresher.as_str()), ..none }
        }
        EventKind::ByeSent { to } => of("ByeSent", to),
        EventKind::ByeDone { to, outcome: ByeOutcome::Answered(status) } => {
            Record { status: Some(status), ..of("ByeDone", to) }
        }
        EventKind::ByeDone { to, outcome: ByeOutcome::TimedOut } => {
            Record { reason: Some("TimedOut"), ..of("ByeDone", to) }
        }
        EventKind::LateRequest { from, method } => {
            Record { method: Some(method.as_str()), status: Some(481), ..of("LateRequest", from) }
        }
        EventKind::Ended { cause } => ended(cause),
        EventKind::UnknownDialog { from } => of("UnknownDialog", from),
        EventKind::LimitReached { limit } => Record { kind: "LimitReached", reason: Some(limit_name(limit)), ..none },
        EventKind::ActsForApp => Record { kind: "ActsForApp", ..none },
        EventKind::Retried { interval } => Record { interval_s: Some(interval), kind: "Retried", ..none },
        EventKind::RefreshSent { to, method } => Record { method: Some(method.as_str()), ..of("RefreshSent", to) },
        EventKind::NotRefreshed { reason } => {
            Record { kind: "NotRefreshed", reason: Some(no_refresh_name(reason)), ..none }
        }
        EventKind::AnsweredForApp { from, method } => {
            Record { method: Some(method.as_str()), status: Some(200), ..of("AnsweredForApp", from) }
        }
        EventKind::ProbeSent => of("ProbeSent", Leg::Local),
        EventKind::ProbeFailed { status } => Record { status: Some(status), ..of("ProbeFailed", Leg::Local) },
        EventKind::Glare { from, method } => {
            Record { method: Some(method.as_str()), status: Some(491), ..of("Glare", from) }
        }
        EventKind::MediaChanged => of("MediaChanged", Leg::Remote),
        EventKind::Challenged { status } => Record { status: Some(status), ..of("Challenged", Leg::Remote) },
    }
}

fn ended(cause: EndCause) -> Record {
    let record = Record { kind: "Ended", reason: Some(cause_name(cause)), ..Record::default() };
    match cause {
        EndCause::Bye(by) => Record { side: Some(by.as_str()), ..record },
        EndCause::Response(status) | EndCause::RefreshFailed(status) => Record { status: Some(status), ..record },
        EndCause::Expired | EndCause::Forgotten | EndCause::AppGone | EndCause::Requested => record,
    }
}

/// The name of a header, for views.
pub fn header_name(header: HeaderKind) -> &'static str {
    match header {
        HeaderKind::SessionExpires => "Session-Expires",
        HeaderKind::MinSe => "Min-SE",
    }
}

/// The name of a limit, for views.
pub fn limit_name(limit: LimitKind) -> &'static str {
    match limit {
        LimitKind::Calls => "Calls",
        LimitKind::Forks => "Forks",
        LimitKind::IdentitySize => "IdentitySize",
    }
}

/// An event of every kind, and of each reason that has words of its own.
#[cfg(test)]
pub(crate) fn samples() -> Vec<EventKind> {
    use sipwarden_sip::Method::{Invite, Update};
    let (local, remote) = (Leg::Local, Leg::Remote);
    let causes = [
        EndCause::Bye(local),
        EndCause::Expired,
        EndCause::Response(481),
        EndCause::Forgotten,
        EndCause::RefreshFailed(408),
        EndCause::RefreshFailed(481),
        EndCause::AppGone,
        EndCause::Requested,
    ];
    let unusable = [SdpUnusable::Unknown, SdpUnusable::OpenOffer, SdpUnusable::Bound].map(NoRefresh::Sdp);
    let reasons = [NoRefresh::UpdateRefused, NoRefresh::Unauthorized, NoRefresh::CSeqSpace, NoRefresh::Refused];
    let reasons = unusable.into_iter().chain(reasons);
    let limits = [LimitKind::Calls, LimitKind::Forks, LimitKind::IdentitySize];
    let mut all = vec![
        EventKind::Rejected { to: remote, asked: 60, min_se: 90 },
        EventKind::RejectionSeen { to: local, min_se: Some(120) },
        EventKind::RejectionSeen { to: local, min_se: None },
        EventKind::RejectionWithoutMinSe { to: local },
        EventKind::Inserted { from: remote, interval: 1800 },
        EventKind::Lowered { from: remote, asked: 3600, interval: 1800 },
        EventKind::Raised { from: remote, asked: 60, interval: 90 },
        EventKind::MinSeRaised { from: remote, min_se: 120 },
        EventKind::RefresherChosen { side: local },
        EventKind::Completed { to: remote, interval: 1800 },
        EventKind::Malformed { from: remote, header: HeaderKind::SessionExpires },
        EventKind::Malformed { from: remote, header: HeaderKind::MinSe },
        EventKind::ShortInterval { interval: 90 },
        EventKind::RefresherUnclear { taken: remote },
        EventKind::Established { interval: Some(1800), refresher: Some(local) },
        EventKind::Established { interval: None, refresher: None },
        EventKind::Refreshed { by: remote, method: Update, interval: 1800, refresher: remote },
        EventKind::TimerOff { by: remote },
        EventKind::RefreshFailed { by: remote, status: 500 },
        EventKind::Expired { interval: 1800, refresher: remote },
        EventKind::ByeSent { to: remote },
        EventKind::ByeDone { to: remote, outcome: ByeOutcome::Answered(200) },
        EventKind::ByeDone { to: remote, outcome: ByeOutcome::TimedOut },
        EventKind::LateRequest { from: remote, method: Invite },
        EventKind::ActsForApp,
        EventKind::Retried { interval: 120 },
        EventKind::RefreshSent { to: remote, method: Update },
        EventKind::AnsweredForApp { from: remote, method: Update },
        EventKind::ProbeSent,
        EventKind::ProbeFailed { status: 408 },
        EventKind::ProbeFailed { status: 481 },
        EventKind::Glare { from: remote, method: Invite },
        EventKind::MediaChanged,
        EventKind::Challenged { status: 401 },
        EventKind::UnknownDialog { from: remote },
    ];
    all.extend(causes.map(|cause| EventKind::Ended { cause }));
    all.extend(reasons.map(|reason| EventKind::NotRefreshed { reason }));
    all.extend(limits.map(|limit| EventKind::LimitReached { limit }));
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_listed_and_sampled() {
        let sampled: std::collections::BTreeSet<_> = samples().into_iter().map(|kind| Record::of(kind).kind).collect();
        assert_eq!(sampled, KINDS.into_iter().collect());
    }

    fn event(kind: EventKind) -> Event {
        Event { session: Some(SessionId(7)), observed: false, rule: None, kind }
    }

    #[test]
    fn a_record_says_only_what_the_event_has() {
        let rejected = event(EventKind::Rejected { to: Leg::Remote, asked: 60, min_se: 90 });
        let json = serde_json::to_value(Record::from(&rejected)).expect("JSON");
        let expected =
            serde_json::json!({"kind": "Rejected", "side": "Remote", "asked_s": 60, "min_se_s": 90, "status": 422});
        assert_eq!(json, expected);
    }

    #[test]
    fn a_record_reads_as_one_line() {
        let ended = Event { observed: true, ..event(EventKind::Ended { cause: EndCause::Bye(Leg::Local) }) };
        assert_eq!(Record::from(&ended).to_string(), "Ended observed=true reason=Bye side=Local");
    }

    #[test]
    fn session_names_are_unique_over_shards_and_readable_again() {
        assert_eq!(session_name(3, SessionId(41)), "3-41");
        assert_eq!(parse_session_name("3-41"), Some((3, SessionId(41))));
        for bad in ["", "3", "3-", "-41", "a-b", "3-41-1"] {
            assert_eq!(parse_session_name(bad), None, "{bad}");
        }
    }
}
