//! What a 2xx concludes, written into it, told, and turned into a timer.

use std::collections::VecDeque;

use sipwarden_sip::value::{RefresherParam, SessionExpires, ValueError};
use sipwarden_sip::{Edits, HeaderName, Message};

use super::Action;
use super::judging::Digits;
use crate::negotiation::{self, Conclusion, Offer};
use crate::session::{Session, Timer};
use crate::{EventKind, HeaderKind, Leg, Time};

/// `Err`: the 2xx carries a Session-Expires nobody can read.
pub(super) type Concluded = Result<Conclusion, ValueError>;

pub(super) fn conclude(offer: Offer, least: u32, answer: Result<Option<SessionExpires>, ValueError>) -> Concluded {
    answer.map(|answer| negotiation::conclude(offer, least, answer))
}

/// In Observe nothing is completed, so what only a completion would have armed is not armed.
pub(super) fn timer_of(conclusion: Concluded, uac: Leg, now: Time, acts: bool) -> Option<Timer> {
    match conclusion {
        Ok(Conclusion::Timer { interval, refresher, completed, .. }) if acts || !completed => {
            let refresher = if refresher == RefresherParam::Uac { uac } else { uac.other() };
            Some(Timer { interval_s: interval, refresher, armed: now })
        }
        _ => None,
    }
}

/// Write into a 2xx what §8.2 asks of a proxy.
pub(super) fn complete(message: &Message, conclusion: Concluded, edits: &mut Edits) {
    if let Ok(Conclusion::Timer { interval, refresher, completed: true, .. }) = conclusion {
        let digits = Digits::new(interval);
        let value: [&[u8]; 3] = [digits.text(), b";refresher=", refresher.as_str().as_bytes()];
        edits.append_header(message, HeaderName::SessionExpires, &value);
        edits.add_token(message, HeaderName::Require, "timer");
    }
}

pub(super) fn note_conclusion(
    session: &mut Session,
    now: Time,
    uac: Leg,
    conclusion: Concluded,
    actions: &mut VecDeque<Action>,
) {
    match conclusion {
        Err(_) => {
            let kind = EventKind::Malformed { from: uac.other(), header: HeaderKind::SessionExpires };
            session.tell(now, kind, actions);
        }
        Ok(Conclusion::Timer { interval, refresher, completed, short, unclear }) => {
            if completed {
                session.tell(now, EventKind::Completed { to: uac, interval }, actions);
            }
            if short {
                session.tell(now, EventKind::ShortInterval { interval }, actions);
            }
            if unclear {
                let taken = if refresher == RefresherParam::Uac { uac } else { uac.other() };
                session.tell(now, EventKind::RefresherUnclear { taken }, actions);
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
