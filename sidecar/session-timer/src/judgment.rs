//! How a session refresh request is judged: a pure function of what it said, of its circumstances and of the policy. It
//! judges calls, and tells afterwards how another policy would have judged them.

use std::sync::Arc;

use sipwarden_sip::value::RefresherParam;
use sipwarden_sip::{HeaderName, Message};

use crate::acting::{Half, speaks_of_timers};
use crate::negotiation::{self, Offer, TooSmall};
use crate::policy::LEAST_INTERVAL_S;
use crate::session::Timer;
use crate::{Direction, EventKind, HeaderKind, Leg, Mode, Policy, RefresherPreference, Seconds, Timers};

/// A request as it was judged, and by what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judged {
    pub facts: RequestFacts,
    pub policy: Arc<Policy>,
    pub rule: Option<u16>,
}

/// All that the judgment of a request depends on, besides the policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestFacts {
    pub(crate) from: Leg,
    /// Of the whole call.
    pub(crate) caller: Leg,
    pub(crate) came: Came,
    /// It has `timer` in Supported or Require.
    pub(crate) speaks_of_timers: bool,
    pub(crate) place: Place,
    /// The highest Min-SE there was on this call: of a 422, or to who stands in for the application.
    pub(crate) call_min_se: Seconds,
    /// The timer that runs.
    pub(crate) timer: Option<Timer>,
}

/// Where in its call a request stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// It begins it.
    Initial,
    /// It is inside a session, in which we may stand in for the application.
    Session { acting: bool },
}

/// The timer headers of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Came {
    Readable(Offer),
    /// One of them cannot be read; what can be said of the request without them.
    Malformed(HeaderKind, Offer),
}

/// What becomes of a request, in a mode that acts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Judgment {
    /// It goes on offering this.
    Goes(Offer),
    /// It is answered 422.
    TooSmall { min_se: Seconds },
    /// What the policy does with such headers.
    Malformed(HeaderKind),
}

impl RequestFacts {
    /// Those of `message`, from `from`. The rest is not in it.
    pub(crate) fn of(message: &Message, from: Leg, caller: Leg, place: Place) -> RequestFacts {
        let came = Came::of(message);
        let speaks_of_timers = speaks_of_timers(message);
        RequestFacts { from, caller, came, speaks_of_timers, place, call_min_se: 0, timer: None }
    }

    /// What is decided about it under a rule of `policy`, or under none, in the order in which it is told. Whether it is
    /// also done is the policy's mode.
    pub fn judged_by(&self, policy: &Policy, rule: Option<u16>) -> Vec<EventKind> {
        let mut notes = Vec::new();
        self.judge(policy.mode, policy.timers(rule), &mut notes);
        notes
    }

    /// Which way its call goes.
    pub fn direction(&self) -> Direction {
        Direction::of_caller(self.caller)
    }

    /// It is of the side that began the call.
    pub fn is_of_caller(&self) -> bool {
        self.from == self.caller
    }

    /// It begins its call: what rules match on is in it.
    pub fn is_initial(&self) -> bool {
        self.place == Place::Initial
    }

    pub(crate) fn judge(&self, mode: Mode, timers: &Timers, notes: &mut Vec<EventKind>) -> Judgment {
        let from = self.from;
        let came = match self.came {
            Came::Readable(came) => came,
            Came::Malformed(header, _) => {
                notes.push(EventKind::Malformed { from, header });
                return Judgment::Malformed(header);
            }
        };
        let half = self.half(mode, timers);
        let asked = self.by_whoever_speaks(half, came, timers);
        let preferred = self.preferred(half, timers).map(|side| role(side, from));
        match negotiation::offer(timers, preferred, self.call_min_se, asked) {
            Err(TooSmall { asked, min_se }) => {
                notes.push(EventKind::Rejected { to: from, asked, min_se });
                Judgment::TooSmall { min_se }
            }
            Ok(left) => {
                note_changes(from, came, left, notes);
                Judgment::Goes(left)
            }
        }
    }

    /// Who is the application's half in it.
    pub(crate) fn half(&self, mode: Mode, timers: &Timers) -> Half {
        match self.place {
            Place::Initial => Half::of_call(mode, timers.act_for_app, self.from, self.speaks_of_timers),
            Place::Session { acting } => Half::of_session(acting, timers.act_for_app, self.from, self.speaks_of_timers),
        }
    }

    /// What the request asks for, once we add what the application does not know how to say.
    fn by_whoever_speaks(&self, half: Half, came: Offer, timers: &Timers) -> Offer {
        if !(half.is_ours() && self.from == Leg::Local) {
            return came;
        }
        // A refresh names the interval there is, and the highest Min-SE there was (RFC 4028 §7.4). The application must not
        // hear of a 422.
        let known = Some(self.call_min_se.min(timers.max_min_se_s())).filter(|known| *known > LEAST_INTERVAL_S);
        let least = timers.min_se_s().max(known.unwrap_or(0));
        let interval = came.interval.or(self.timer.map(|timer| timer.interval_s)).map(|interval| interval.max(least));
        Offer { interval, min_se: came.min_se.max(known), uac_supports_timer: true, ..came }
    }

    /// The refresher to ask for: the policy's, else the one there is, where we speak for the application.
    fn preferred(&self, half: Half, timers: &Timers) -> Option<Leg> {
        let there_is = self.timer.filter(|_| half.is_ours()).map(|timer| timer.refresher);
        preferred_side(timers.refresher, self.caller).or(there_is)
    }
}

impl Came {
    pub(crate) fn of(message: &Message) -> Came {
        Came::from(message, message.has_token(HeaderName::Supported, "timer"))
    }

    /// Of one whose Supported is known already.
    pub(crate) fn from(message: &Message, uac_supports_timer: bool) -> Came {
        let nothing = Offer { interval: None, refresher: None, min_se: None, uac_supports_timer };
        let Ok(session_expires) = message.session_expires() else {
            return Came::Malformed(HeaderKind::SessionExpires, nothing);
        };
        let Ok(min_se) = message.min_se() else { return Came::Malformed(HeaderKind::MinSe, nothing) };
        Came::Readable(Offer {
            interval: session_expires.map(|header| header.delta),
            refresher: session_expires.and_then(|header| header.refresher),
            min_se,
            uac_supports_timer,
        })
    }

    /// What the request offers, as far as it can be read.
    pub(crate) fn offer(self) -> Offer {
        match self {
            Came::Readable(offer) | Came::Malformed(_, offer) => offer,
        }
    }
}

/// What `side` is in a transaction of `uac`.
pub(crate) fn role(side: Leg, uac: Leg) -> RefresherParam {
    if side == uac { RefresherParam::Uac } else { RefresherParam::Uas }
}

pub(crate) fn preferred_side(preference: RefresherPreference, caller: Leg) -> Option<Leg> {
    match preference {
        RefresherPreference::PeerChoice => None,
        RefresherPreference::Local => Some(Leg::Local),
        RefresherPreference::Remote => Some(Leg::Remote),
        RefresherPreference::Caller => Some(caller),
        RefresherPreference::Callee => Some(caller.other()),
    }
}

fn note_changes(from: Leg, came: Offer, left: Offer, notes: &mut Vec<EventKind>) {
    match (came.interval, left.interval) {
        (None, Some(interval)) => notes.push(EventKind::Inserted { from, interval }),
        (Some(asked), Some(interval)) if asked < interval => notes.push(EventKind::Raised { from, asked, interval }),
        (Some(asked), Some(interval)) if asked > interval => notes.push(EventKind::Lowered { from, asked, interval }),
        _ => {}
    }
    if came.min_se != left.min_se
        && let Some(min_se) = left.min_se
    {
        notes.push(EventKind::MinSeRaised { from, min_se });
    }
    if let (None, Some(refresher)) = (came.refresher, left.refresher) {
        let side = if refresher == RefresherParam::Uac { from } else { from.other() };
        notes.push(EventKind::RefresherChosen { side });
    }
}
