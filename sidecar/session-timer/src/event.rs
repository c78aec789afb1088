//! What the core tells: facts with closed sets of values, from which the owner makes metrics, log lines and views.

use sipwarden_sip::Method;

use crate::media::SdpUnusable;
use crate::{Leg, Seconds, SessionId};

/// Something that happened. `session` is `None` while there is no session yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    pub session: Option<SessionId>,
    /// The mode was Observe: what is told was not done.
    pub observed: bool,
    /// The rule that decided; its name is in the policy in force at that moment.
    pub rule: Option<u16>,
    pub kind: EventKind,
}

/// A header of RFC 4028.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HeaderKind {
    SessionExpires,
    MinSe,
}

/// A table that was full.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LimitKind {
    /// No new call is tracked; it is forwarded without a timer.
    Calls,
    /// A call has more open INVITEs or forks than are tracked.
    Forks,
    /// An identity (URIs, tags, route set) is too large to keep.
    IdentitySize,
}

/// How a BYE of ours ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ByeOutcome {
    /// A final response.
    Answered(u16),
    /// Nothing within 64 × T1 (RFC 3261 §17.1.2.2).
    TimedOut,
}

/// Why a session is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EndCause {
    /// A BYE from that side.
    Bye(Leg),
    /// No refresh in time.
    Expired,
    /// A response that ends the usage (RFC 5057).
    Response(u16),
    /// Nothing was heard of it for so long that it is no longer tracked; nothing was sent.
    Forgotten,
    /// A refresh of ours was answered with this status, 408 when with nothing (RFC 3261 §12.2.1.2).
    RefreshFailed(u16),
    /// The application no longer has the call.
    AppGone,
    /// It was asked for.
    Requested,
}

impl EndCause {
    /// Did we end it, by BYE to both sides?
    pub(crate) fn is_ours(self) -> bool {
        matches!(self, EndCause::Expired | EndCause::RefreshFailed(_) | EndCause::AppGone | EndCause::Requested)
    }
}

/// Why we do not refresh a session although it is ours to refresh.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NoRefresh {
    /// It takes a re-INVITE, and there is no SDP for it.
    Sdp(SdpUnusable),
    /// The policy wants UPDATE, and the peer takes none.
    UpdateRefused,
    /// The peer wants credentials that the policy does not name, or refuses those it names.
    Unauthorized,
    /// The CSeq space has ended.
    CSeqSpace,
    /// The peer, which lives and has no timer, refused it until the deadline.
    Refused,
}

/// What happened. Intervals in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// 422 sent to that side.
    Rejected { to: Leg, asked: Seconds, min_se: Seconds },
    /// Somebody else's 422 passed on its way to that side.
    RejectionSeen { to: Leg, min_se: Option<Seconds> },
    /// A 422 without Min-SE passed: the UAC cannot know what to offer.
    RejectionWithoutMinSe { to: Leg },
    /// Session-Expires inserted into a request of that side.
    Inserted { from: Leg, interval: Seconds },
    /// Session-Expires of a request lowered to the policy's.
    Lowered { from: Leg, asked: Seconds, interval: Seconds },
    /// Session-Expires of a request raised to the minimum.
    Raised { from: Leg, asked: Seconds, interval: Seconds },
    /// Min-SE of a request raised or added.
    MinSeRaised { from: Leg, min_se: Seconds },
    /// `refresher` added to a request, naming that side.
    RefresherChosen { side: Leg },
    /// A 2xx without Session-Expires was completed for the UAC on that side.
    Completed { to: Leg, interval: Seconds },
    /// A malformed header was seen from that side.
    Malformed { from: Leg, header: HeaderKind },
    /// A 2xx carried an interval below our minimum; used as it is, but not below 90.
    ShortInterval { interval: Seconds },
    /// A 2xx with Session-Expires named no refresher, or one that cannot be.
    RefresherUnclear { taken: Leg },
    /// A session is established; no interval: it has no timer.
    Established { interval: Option<Seconds>, refresher: Option<Leg> },
    /// A 2xx to a re-INVITE or UPDATE of that side armed the timer anew.
    Refreshed { by: Leg, method: Method, interval: Seconds, refresher: Leg },
    /// A 2xx to a re-INVITE or UPDATE turned the timer off.
    TimerOff { by: Leg },
    /// A re-INVITE or UPDATE of that side failed; the timer runs on.
    RefreshFailed { by: Leg, status: u16 },
    /// No refresh came in time.
    Expired { interval: Seconds, refresher: Leg },
    /// BYE sent to that side.
    ByeSent { to: Leg },
    /// A BYE of ours is done.
    ByeDone { to: Leg, outcome: ByeOutcome },
    /// A request of an expired session was answered here.
    LateRequest { from: Leg, method: Method },
    /// The session is over.
    Ended { cause: EndCause },
    /// From now on we are the application's half of RFC 4028.
    ActsForApp,
    /// A 422 to the application's request was answered with another try, offering this interval.
    Retried { interval: Seconds },
    /// A refresh of ours was sent to that side.
    RefreshSent { to: Leg, method: Method },
    /// We cannot refresh; the timer runs on, or is off where only we had one.
    NotRefreshed { reason: NoRefresh },
    /// A refresh of that side was answered in the application's place.
    AnsweredForApp { from: Leg, method: Method },
    /// The application was asked whether it still has the call.
    ProbeSent,
    /// It was not heard of, or denied it.
    ProbeFailed { status: u16 },
    /// A request of that side met one of ours and was answered 491.
    Glare { from: Leg, method: Method },
    /// The answer to a re-INVITE of ours describes other media than the application knows.
    MediaChanged,
    /// A refresh or BYE of ours was challenged with this status.
    Challenged { status: u16 },
    /// A re-INVITE or UPDATE of a dialog nobody saw start passed untouched.
    UnknownDialog { from: Leg },
    /// A limit was reached.
    LimitReached { limit: LimitKind },
}
