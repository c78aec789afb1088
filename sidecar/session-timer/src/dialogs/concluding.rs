//! What a 2xx concludes, written into it, told, and turned into a timer.

use std::collections::VecDeque;

use sipwarden_sip::value::{RefresherParam, ValueError};
use sipwarden_sip::{Decimal, Edits, HeaderName, Message};

use super::Action;
use crate::acting::Half;
use crate::judgment::{preferred_side, role};
use crate::negotiation::{self, Conclusion, Offer};
use crate::session::{Refresh, Ruling, Session, Timer};
use crate::{EventKind, HeaderKind, Leg, Time, WithoutPeerSupport};

/// `Err`: the 2xx carries a Session-Expires nobody can read.
pub(super) type Concluded = Result<Conclusion, ValueError>;

/// The request that a 2xx answers.
#[derive(Clone, Copy)]
pub(super) struct Asked<'a> {
    pub(super) uac: Leg,
    pub(super) offer: Offer,
    pub(super) half: Half,
    pub(super) ruling: &'a Ruling,
    /// Of the whole call.
    pub(super) caller: Leg,
    /// The timer that runs.
    pub(super) timer: Option<Timer>,
}

impl<'a> Asked<'a> {
    /// A re-INVITE or UPDATE inside a session.
    pub(super) fn of(refresh: &'a Refresh, caller: Leg, timer: Option<Timer>) -> Asked<'a> {
        let Refresh { from: uac, offer, half, ref ruling, .. } = *refresh;
        Asked { uac, offer, half, ruling, caller, timer }
    }

    /// What `answer`, a 2xx, means; where the application is the UAS and we its half, it is we who answer.
    pub(super) fn conclude(&self, answer: &Message) -> Concluded {
        if self.half.is_ours() && self.uac == Leg::Remote {
            return Ok(self.own_answer());
        }
        let timers = self.ruling.timers();
        let concluded = negotiation::conclude(self.offer, timers.min_se_s(), answer.session_expires()?);
        let alone = matches!(concluded, Conclusion::Timer { completed: true, .. });
        let skipped = self.half.is_ours() && alone && timers.without_peer_support == WithoutPeerSupport::Skip;
        Ok(if skipped { Conclusion::Off } else { concluded })
    }

    /// What we answer as the application's half.
    pub(super) fn own_answer(&self) -> Conclusion {
        let timers = self.ruling.timers();
        let there_is = self.timer.map(|timer| timer.refresher);
        let preferred = preferred_side(timers.refresher, self.caller).or(there_is).map(|side| role(side, self.uac));
        negotiation::answer(self.offer, preferred, timers.without_peer_support == WithoutPeerSupport::Refresh)
    }

    /// Writes the conclusion into the 2xx: what §8.2 asks of a proxy, or what the application's half has to say or to keep.
    pub(super) fn write(&self, answer: &Message, concluded: Concluded, edits: &mut Edits) {
        if self.ruling.observes() {
            return;
        }
        match (self.half.is_ours(), self.uac) {
            (true, Leg::Local) => {
                edits.remove_header(answer, HeaderName::SessionExpires);
                edits.remove_token(answer, HeaderName::Require, "timer");
            }
            (true, Leg::Remote) => self.write_own(answer, concluded, edits),
            (false, _) => {
                if let Ok(Conclusion::Timer { interval, refresher, completed: true, .. }) = concluded {
                    append_timer(answer, interval, refresher, edits);
                    edits.add_token(answer, HeaderName::Require, "timer");
                }
            }
        }
    }

    fn write_own(&self, answer: &Message, concluded: Concluded, edits: &mut Edits) {
        edits.remove_header(answer, HeaderName::SessionExpires);
        let Ok(Conclusion::Timer { interval, refresher, .. }) = concluded else {
            return edits.remove_token(answer, HeaderName::Require, "timer");
        };
        append_timer(answer, interval, refresher, edits);
        // §9: whoever knows timers is told that this one holds; nobody else may be required to.
        if self.offer.uac_supports_timer {
            edits.add_token(answer, HeaderName::Require, "timer");
        } else {
            edits.remove_token(answer, HeaderName::Require, "timer");
        }
    }

    /// In Observe nothing is completed, so what only a completion would have armed is not armed.
    pub(super) fn timer_of(&self, concluded: Concluded, now: Time) -> Option<Timer> {
        match concluded {
            Ok(Conclusion::Timer { interval, refresher, completed, .. }) if !self.ruling.observes() || !completed => {
                Some(Timer { interval_s: interval, refresher: side(refresher, self.uac), armed: now })
            }
            _ => None,
        }
    }
}

fn append_timer(answer: &Message, interval: u32, refresher: RefresherParam, edits: &mut Edits) {
    let digits = Decimal::new(interval);
    let value: [&[u8]; 3] = [digits.text(), b";refresher=", refresher.as_str().as_bytes()];
    edits.append_header(answer, HeaderName::SessionExpires, &value);
}

/// Who a role is in a transaction of `uac`.
fn side(refresher: RefresherParam, uac: Leg) -> Leg {
    if refresher == RefresherParam::Uac { uac } else { uac.other() }
}

pub(super) fn note_conclusion(
    session: &mut Session,
    now: Time,
    uac: Leg,
    concluded: Concluded,
    actions: &mut VecDeque<Action>,
) {
    match concluded {
        Err(_) => {
            let kind = EventKind::Malformed { from: uac.other(), header: HeaderKind::SessionExpires };
            session.tell(now, kind, actions);
        }
        Ok(Conclusion::Timer { interval, refresher, completed, short, unclear }) => {
            // What nobody was told was not completed for him.
            if completed && (uac == Leg::Remote || session.acting.is_none()) {
                session.tell(now, EventKind::Completed { to: uac, interval }, actions);
            }
            if short {
                session.tell(now, EventKind::ShortInterval { interval }, actions);
            }
            if unclear {
                session.tell(now, EventKind::RefresherUnclear { taken: side(refresher, uac) }, actions);
            }
        }
        Ok(Conclusion::Off) => {}
    }
}

pub(super) fn rejection_seen(message: &Message, to: Leg) -> EventKind {
    match message.min_se() {
        Ok(Some(min_se)) => EventKind::RejectionSeen { to, min_se: Some(min_se) },
        Ok(None) => EventKind::RejectionWithoutMinSe { to },
        Err(_) => EventKind::RejectionSeen { to, min_se: None },
    }
}
