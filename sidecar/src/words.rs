//! Events in plain words, with the section to read and the policy field that decides. The matches have no wildcard: an
//! event without words does not compile.

use serde::Serialize;
use sipwarden_session_timer::{ByeOutcome, EndCause, EventKind, Leg, NoRefresh, SdpUnusable};

use crate::report::{header_name, limit_name};

/// An event explained to a person.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Words {
    /// One sentence, or two.
    pub text: String,
    /// Where to read about it: `RFC 4028 §10`.
    pub rfc: Option<&'static str>,
    /// The field of a SessionPolicy that decides it; a rule may have its own.
    pub field: Option<&'static str>,
}

impl Words {
    /// Of an event, which with `observed` was only told.
    pub fn of(kind: EventKind, observed: bool) -> Words {
        let (text, rfc, field) = explained(kind);
        let text = if observed { format!("Observed only, not done: {text}") } else { text };
        Words {
            text,
            rfc: Some(rfc).filter(|rfc| !rfc.is_empty()),
            field: Some(field).filter(|field| !field.is_empty()),
        }
    }
}

const INTERVAL: &str = "spec.timers.sessionExpires";
const MIN_SE: &str = "spec.timers.minSE";
const MAX_MIN_SE: &str = "spec.timers.maxMinSE";
const BELOW_MIN_SE: &str = "spec.timers.belowMinSE";
const MALFORMED: &str = "spec.timers.malformed";
const REFRESHER: &str = "spec.timers.refresher";
const METHOD: &str = "spec.timers.refreshMethod";
const ACT: &str = "spec.timers.actForApp";
const PROBE: &str = "spec.timers.appProbe";
const EXPIRY: &str = "spec.timers.expiry.action";
const MARGIN: &str = "spec.timers.expiry.margin";
const CREDENTIALS: &str = "spec.timers.credentials";
const WITHOUT_PEER: &str = "spec.timers.withoutPeerSupport";

/// A side, as the subject or object of a sentence.
pub fn side(leg: Leg) -> &'static str {
    match leg {
        Leg::Local => "the application",
        Leg::Remote => "the remote side",
    }
}

fn capital(text: &str) -> String {
    let (first, rest) = text.split_at(text.chars().next().map_or(0, char::len_utf8));
    first.to_uppercase() + rest
}

/// Text, section, field; what there is none of is empty.
type Explained = (String, &'static str, &'static str);

fn explained(kind: EventKind) -> Explained {
    match kind {
        EventKind::Rejected { to, asked, min_se } => {
            let to = capital(side(to));
            let text =
                format!("{to} was answered 422: it asked for {asked} s, the least allowed is {min_se} s (Min-SE).");
            (text, "RFC 4028 §6, §8.1", MIN_SE)
        }
        EventKind::RejectionSeen { to, min_se } => {
            let value = min_se.map_or("that cannot be read".to_owned(), |min_se| format!("{min_se} s"));
            let text = format!("A 422 of somebody else went to {}, with Min-SE {value}.", side(to));
            (text, "RFC 4028 §6, §7.3", MAX_MIN_SE)
        }
        EventKind::RejectionWithoutMinSe { to } => {
            let to = side(to);
            let text = format!("A 422 of somebody else without Min-SE went to {to}, which cannot know what to offer.");
            (text, "RFC 4028 §6", "")
        }
        EventKind::Inserted { from, interval } => {
            let text = format!("Session-Expires: {interval} was put into a request of {}, which had none.", side(from));
            (text, "RFC 4028 §8.1", INTERVAL)
        }
        EventKind::Lowered { from, asked, interval } => {
            let text = format!("Session-Expires of {} was lowered from {asked} s to {interval} s.", side(from));
            (text, "RFC 4028 §8.1", INTERVAL)
        }
        EventKind::Raised { from, asked, interval } => {
            let from = side(from);
            let text =
                format!("Session-Expires of {from} was raised from {asked} s to {interval} s, instead of a 422.");
            (text, "RFC 4028 §8.1", BELOW_MIN_SE)
        }
        EventKind::MinSeRaised { from, min_se } => {
            (format!("Min-SE of {} was raised to {min_se} s.", side(from)), "RFC 4028 §8.1", MIN_SE)
        }
        EventKind::RefresherChosen { side: chosen } => {
            let text = format!("The request named no refresher; {} was named.", side(chosen));
            (text, "RFC 4028 §7.1", REFRESHER)
        }
        EventKind::Completed { to, interval } => {
            let text = format!("The 2xx to {} had no Session-Expires; the sidecar added {interval} s.", side(to));
            (text, "RFC 4028 §8.2", INTERVAL)
        }
        EventKind::Malformed { from, header } => {
            (format!("{} of {} cannot be read.", header_name(header), side(from)), "RFC 4028 §4, §5", MALFORMED)
        }
        EventKind::ShortInterval { interval } => {
            let text = format!("The 2xx has an interval below the policy's minimum; {interval} s are used.");
            (text, "RFC 4028 §5", MIN_SE)
        }
        EventKind::RefresherUnclear { taken } => {
            let text = format!("The 2xx names no refresher, or one that cannot be; {} is taken for it.", side(taken));
            (text, "RFC 4028 §7.2, §9", "")
        }
        EventKind::Established { interval, refresher } => {
            let timer = interval.map_or(". It has no session timer.".to_owned(), |interval| {
                format!(": session interval {interval} s, refreshed by {}.", refresher.map_or("nobody", side))
            });
            (format!("The call was answered (2xx){timer}"), "RFC 4028 §7.2, §9", INTERVAL)
        }
        EventKind::Refreshed { by, method, interval, refresher } => {
            let (by, method, next) = (side(by), method.as_str(), side(refresher));
            let text = format!("Refreshed by {by} with {method}: {interval} s more, next by {next}.");
            (text, "RFC 4028 §7.4, §10", INTERVAL)
        }
        EventKind::TimerOff { by } => {
            let text = format!("A 2xx to {} without Session-Expires turned the timer off.", side(by));
            (text, "RFC 4028 §7.2", "")
        }
        EventKind::RefreshFailed { by, status } => {
            let text = format!("A refresh of {} was answered {status}; the timer runs on.", side(by));
            (text, "RFC 4028 §7.4, §10", "")
        }
        EventKind::Expired { interval, refresher } => {
            let refresher = side(refresher);
            let text = format!(
                "No refresh came within the session interval of {interval} s; {refresher} should have sent one."
            );
            (text, "RFC 4028 §10", MARGIN)
        }
        EventKind::ByeSent { to } => (format!("BYE sent to {}.", side(to)), "RFC 4028 §10, RFC 3326", EXPIRY),
        EventKind::ByeDone { to, outcome: ByeOutcome::Answered(status) } => {
            (format!("{} answered the BYE with {status}.", capital(side(to))), "RFC 3261 §15.1", "")
        }
        EventKind::ByeDone { to, outcome: ByeOutcome::TimedOut } => {
            (format!("The BYE to {} got no answer within 32 s.", side(to)), "RFC 3261 §15.1", "")
        }
        EventKind::LateRequest { from, method } => {
            let text = format!("{} of {} came after the end and was answered here.", method.as_str(), side(from));
            (text, "RFC 3261 §12.2.2", "")
        }
        EventKind::Ended { cause } => ended(cause),
        EventKind::UnknownDialog { from } => {
            let text = format!("A request of {} in a dialog that nobody here saw begin passed untouched.", side(from));
            (text, "RFC 3261 §12.2", "")
        }
        EventKind::LimitReached { limit } => {
            let text =
                format!("The limit {} was reached; what is beyond it goes on without a timer.", limit_name(limit));
            (text, "", "")
        }
        EventKind::ActsForApp => {
            let text = "From here on the sidecar keeps the session timer in the application's place.";
            (text.into(), "RFC 4028 §7, §9", ACT)
        }
        EventKind::Retried { interval } => {
            let text =
                format!("The 422 to the application's request was answered with another try, offering {interval} s.");
            (text, "RFC 4028 §7.3", MAX_MIN_SE)
        }
        EventKind::RefreshSent { to, method } => {
            let text = format!("The sidecar sent a refresh to {} with {}.", side(to), method.as_str());
            (text, "RFC 4028 §7.4", METHOD)
        }
        EventKind::NotRefreshed { reason } => not_refreshed(reason),
        EventKind::AnsweredForApp { from, method } => {
            let text = format!("{} of {} was answered 200 in the application's place.", method.as_str(), side(from));
            (text, "RFC 4028 §9", ACT)
        }
        EventKind::ProbeSent => {
            let text = "The application was asked (OPTIONS) whether it still has the call.";
            (text.into(), "RFC 3261 §11", PROBE)
        }
        EventKind::ProbeFailed { status: 408 } => {
            let text = "The application did not answer whether it still has the call.";
            (text.into(), "RFC 3261 §12.2.1.2", PROBE)
        }
        EventKind::ProbeFailed { status } => {
            (format!("The application answered {status} when asked for the call."), "RFC 3261 §12.2.1.2", PROBE)
        }
        EventKind::Glare { from, method } => {
            let text = format!("{} of {} met one of the sidecar's and was answered 491.", method.as_str(), side(from));
            (text, "RFC 3261 §14.2", "")
        }
        EventKind::MediaChanged => {
            let text = "The answer to a refresh of the sidecar describes other media than the application knows.";
            (text.into(), "RFC 3264 §8", "")
        }
        EventKind::Challenged { status } => {
            (format!("A request of the sidecar was challenged with {status}."), "RFC 3261 §22", CREDENTIALS)
        }
    }
}

fn ended(cause: EndCause) -> Explained {
    match cause {
        EndCause::Bye(by) => (format!("{} hung up (BYE).", capital(side(by))), "RFC 3261 §15", ""),
        EndCause::Expired => ("The session is over: nobody refreshed it in time.".into(), "RFC 4028 §10", EXPIRY),
        EndCause::Response(status) => {
            let text = format!("The session is over: a request was answered {status}, which ends it.");
            (text, "RFC 5057 §5.1", "")
        }
        EndCause::Forgotten => {
            let text = "Nothing was heard of it for so long that it is no longer tracked. Nothing was sent.";
            (text.into(), "RFC 4028 §10", EXPIRY)
        }
        EndCause::RefreshFailed(408) => {
            let text = "The session is over: a refresh of the sidecar got no answer (408).";
            (text.into(), "RFC 4028 §10, RFC 3261 §12.2.1.2", ACT)
        }
        EndCause::RefreshFailed(status) => {
            let text = format!("The session is over: a refresh of the sidecar was answered {status}.");
            (text, "RFC 4028 §10, RFC 3261 §12.2.1.2", ACT)
        }
        EndCause::AppGone => {
            let text = "The session is over: the application no longer has the call.";
            (text.into(), "RFC 3261 §12.2.1.2", PROBE)
        }
        EndCause::Requested => ("The session was ended because somebody asked for it.".into(), "RFC 3261 §15", ""),
    }
}

fn not_refreshed(reason: NoRefresh) -> Explained {
    let (why, rfc, field) = match reason {
        NoRefresh::Sdp(SdpUnusable::Unknown) => {
            ("it takes a re-INVITE, and the session description in force is not known", "RFC 4028 §7.4", METHOD)
        }
        NoRefresh::Sdp(SdpUnusable::OpenOffer) => (
            "an offer is still open, and a re-INVITE would need one of its own",
            "RFC 4028 §7.4, RFC 3311 §5.1",
            METHOD,
        ),
        NoRefresh::Sdp(SdpUnusable::Bound) => {
            ("it takes a re-INVITE, and the session description is bound to DTLS or ICE", "RFC 4028 §7.4", METHOD)
        }
        NoRefresh::UpdateRefused => {
            ("the policy wants UPDATE, and the peer does not take it", "RFC 4028 §7.4, RFC 3311 §5.1", METHOD)
        }
        NoRefresh::Unauthorized => {
            let why = "the peer wants credentials that the policy does not name, or refuses them";
            (why, "RFC 3261 §22", CREDENTIALS)
        }
        NoRefresh::CSeqSpace => ("the CSeq numbers of this dialog are used up", "RFC 3261 §12.2.1.1", ""),
        NoRefresh::Refused => {
            ("the peer, which has no session timer, refused it until the deadline", "RFC 4028 §10", WITHOUT_PEER)
        }
    };
    (format!("The sidecar cannot refresh: {why}."), rfc, field)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{Record, samples};

    #[test]
    fn every_event_has_a_sentence_of_its_own() {
        let mut seen = std::collections::HashSet::new();
        for kind in samples() {
            let Words { text, rfc, field } = Words::of(kind, false);
            assert!(text.ends_with('.') && text.chars().next().is_some_and(char::is_uppercase), "{text}");
            assert!(seen.insert(text.clone()), "twice: {text}");
            let limit = Record::of(kind).kind == "LimitReached";
            assert!(rfc.map_or(limit, |rfc| rfc.starts_with("RFC ") && rfc.contains('§')), "{kind:?}: {rfc:?}");
            assert!(field.is_none_or(|field| field.starts_with("spec.timers.")), "{kind:?}: {field:?}");
        }
    }

    #[test]
    fn what_was_only_observed_says_so() {
        let kind = EventKind::Rejected { to: Leg::Remote, asked: 60, min_se: 90 };
        let done = "The remote side was answered 422: it asked for 60 s, the least allowed is 90 s (Min-SE).";
        assert_eq!(Words::of(kind, false).text, done);
        assert_eq!(Words::of(kind, true).text, format!("Observed only, not done: {done}"));
        assert_eq!(Words::of(kind, true).field, Some("spec.timers.minSE"));
    }

    #[test]
    fn the_fields_are_fields_of_the_policy() {
        let reference = include_str!("../../docs/policy.md");
        for field in samples().into_iter().filter_map(|kind| Words::of(kind, false).field) {
            assert!(reference.contains(field), "{field} is not in docs/policy.md");
        }
    }
}
