//! A second model of the sidecar, written from RFC 4028 and the policy's meaning alone. It watches what crosses the
//! sidecar, says what must become of each message, and which session each dialog must have.

use std::sync::Arc;

use sipwarden_session_timer::{
    BelowMinSe, Direction, EndCause, Leg, Malformed, Mode, Policy, RefresherPreference, SessionView, Timers,
};

use super::expected::{Expected, tag_of};
use super::message::Sip;
use super::timer::{LEAST, Role, SessionExpires, Unreadable, min_se_of};

/// For how long an answered INVITE may be answered again (64 × T1), with some room.
const ANSWERED_MS: u64 = 31_000;

/// What must become of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expect {
    /// It goes on; `None`: no header of RFC 4028 differs.
    Pass(Option<Headers>),
    /// It goes on, changed so or not at all: nobody can care any more.
    PassEither(Option<Headers>),
    /// It is answered with this status, and this Min-SE.
    Refuse(u16, Option<u32>),
    /// Nothing leaves.
    Absorb,
}

/// The headers of RFC 4028 as they must leave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Headers {
    pub session_expires: Option<SessionExpires>,
    pub min_se: Option<u32>,
    /// `timer` is added to Require.
    pub requires: bool,
}

/// An INVITE or UPDATE that passed.
struct Offer {
    call_id: String,
    from: Leg,
    from_tag: String,
    to_tag: Option<String>,
    method: String,
    cseq: u32,
    left: Option<Headers>,
    session_expires: Option<SessionExpires>,
    uac_knows: bool,
    timers: Timers,
    enforces: bool,
    /// To tags of the 2xx that came.
    concluded: Vec<String>,
    answered_at: Option<u64>,
    /// Its sender has gone on to another one.
    superseded: bool,
}

/// The model.
pub struct Reference {
    policy: Arc<Policy>,
    idle_ms: u64,
    pub dialogs: Vec<Expected>,
    offers: Vec<Offer>,
    /// INVITEs the sidecar answered: Call-ID, From tag, CSeq.
    refused: Vec<(String, String, u32)>,
    /// Branches of the sidecar's own requests.
    pub own: Vec<String>,
}

impl Reference {
    pub fn new(policy: Arc<Policy>, idle_ms: u64) -> Reference {
        let (dialogs, offers, refused, own) = Default::default();
        Reference { policy, idle_ms, dialogs, offers, refused, own }
    }

    /// From now on judges by `policy`.
    pub fn set_policy(&mut self, policy: Arc<Policy>) {
        self.policy = policy;
    }

    /// What must become of a message from `from`.
    pub fn expect(&mut self, now: u64, from: Leg, message: &Sip) -> Expect {
        match message.status() {
            Some(status) => self.response(now, from, message, status),
            None => self.request(now, from, message),
        }
    }

    fn dialog(&self, from: Leg, message: &Sip, sender: &str, receiver: &str) -> Option<usize> {
        let (sender, receiver) = (message.tag(sender)?, message.tag(receiver)?);
        self.dialogs.iter().position(|dialog| {
            dialog.call_id == message.call_id()
                && dialog.tags[from.index()] == sender
                && dialog.tags[from.other().index()] == receiver
        })
    }

    // Requests

    fn request(&mut self, now: u64, from: Leg, request: &Sip) -> Expect {
        let (number, method) = request.cseq();
        let dialog = self.dialog(from, request, "From", "To");
        if let Some(dialog) = dialog.map(|index| &mut self.dialogs[index]) {
            match dialog.end {
                Some(EndCause::Expired) if now > dialog.ended_at + dialog.remembered_ms() => {}
                Some(EndCause::Expired) => {
                    return match method {
                        "ACK" => Expect::Absorb,
                        "BYE" => Expect::Refuse(200, None),
                        _ => Expect::Refuse(481, None),
                    };
                }
                Some(_) => return Expect::Pass(None),
                None => {
                    dialog.heard_at = now;
                    if method == "BYE" {
                        dialog.finish(now, EndCause::Bye(from));
                    }
                }
            }
        }
        let refused = (request.call_id().to_owned(), request.tag("From").unwrap_or_default().to_owned(), number);
        match method {
            "ACK" if self.refused.contains(&refused) => Expect::Absorb,
            "INVITE" | "UPDATE" if request.tag("To").is_none() || dialog.is_some() => self.offer(from, request, dialog),
            _ => Expect::Pass(None),
        }
    }

    fn offer(&mut self, from: Leg, request: &Sip, dialog: Option<usize>) -> Expect {
        let (cseq, method) = request.cseq();
        let from_tag = request.tag("From").unwrap_or_default();
        let again = self.offers.iter().find(|offer| {
            offer.call_id == request.call_id()
                && offer.from_tag == from_tag
                && (offer.cseq, offer.method.as_str()) == (cseq, method)
                && offer.to_tag.as_deref() == request.tag("To")
        });
        if let Some(offer) = again {
            return Expect::Pass(offer.left.clone());
        }
        let caller = dialog.map_or(from, |index| self.dialogs[index].caller);
        let highest = dialog.map_or(0, |index| self.dialogs[index].highest_min_se);
        let timers = self.timers_for(caller);
        let enforces = self.policy.mode == Mode::Enforce;
        let session_expires = SessionExpires::of(request).unwrap_or(None);
        let left = match (SessionExpires::of(request), enforces) {
            (_, false) => Ok(None),
            (Err(Unreadable), true) if timers.malformed == Malformed::Reject => Err((400, None)),
            (Err(Unreadable), true) => Ok(None),
            (Ok(asked), true) => judge(&timers, from, caller, highest, asked, request).map(Some),
        };
        match left {
            Err((status, min_se)) => {
                if method == "INVITE" {
                    self.refused.push((request.call_id().to_owned(), from_tag.to_owned(), cseq));
                }
                Expect::Refuse(status, min_se)
            }
            Ok(left) => {
                let earlier = |offer: &&mut Offer| {
                    offer.call_id == request.call_id() && offer.from_tag == from_tag && offer.cseq < cseq
                };
                if request.tag("To").is_some() {
                    self.refused.retain(|refused| *refused != (request.call_id().into(), from_tag.into(), cseq));
                    self.offers.iter_mut().filter(earlier).for_each(|offer| offer.superseded = true);
                }
                self.offers.push(Offer {
                    call_id: request.call_id().to_owned(),
                    from,
                    from_tag: from_tag.to_owned(),
                    to_tag: request.tag("To").map(str::to_owned),
                    method: method.to_owned(),
                    cseq,
                    session_expires: left.as_ref().map_or(session_expires, |left| left.session_expires),
                    left: left.clone(),
                    uac_knows: request.lists("Supported", "timer"),
                    timers,
                    enforces,
                    concluded: Vec::new(),
                    answered_at: None,
                    superseded: false,
                });
                Expect::Pass(left)
            }
        }
    }

    /// The simulated policies match on nothing but the direction.
    fn timers_for(&self, caller: Leg) -> Timers {
        let direction = if caller == Leg::Local { Direction::Outbound } else { Direction::Inbound };
        let fits = |wanted: Option<Direction>| wanted.is_none_or(|wanted| wanted == direction);
        let rule = self.policy.rules.iter().find(|rule| fits(rule.matches.direction));
        rule.map_or_else(|| self.policy.timers.clone(), |rule| rule.timers.clone())
    }

    // Responses

    fn response(&mut self, now: u64, by: Leg, response: &Sip, status: u16) -> Expect {
        if self.own.contains(&response.branch()) {
            return Expect::Absorb;
        }
        let (cseq, method) = response.cseq();
        let dialog = self.dialog(by, response, "To", "From").filter(|index| self.dialogs[*index].end.is_none());
        if let Some(index) = dialog {
            self.dialogs[index].heard_at = now;
        }
        let offer = self.offers.iter().position(|offer| {
            offer.call_id == response.call_id()
                && offer.from == by.other()
                && Some(offer.from_tag.as_str()) == response.tag("From")
                && (offer.cseq, offer.method.as_str()) == (cseq, method)
                && (offer.to_tag.is_none() || offer.to_tag.as_deref() == response.tag("To"))
        });
        let ends = match method {
            "INVITE" | "UPDATE" => matches!(status, 404 | 408 | 410 | 416 | 480..=485 | 604),
            "INFO" | "PRACK" => matches!(status, 408 | 481),
            _ => false,
        };
        let initial = offer.is_some_and(|offer| self.offers[offer].to_tag.is_none());
        if let Some(dialog) = dialog.map(|index| &mut self.dialogs[index]) {
            if status == 422 && offer.is_some() && !initial {
                dialog.highest_min_se = dialog.highest_min_se.max(min_se_of(response).unwrap_or(0));
            }
            if ends && !initial {
                dialog.finish(now, EndCause::Response(status));
            }
        }
        match (offer, status) {
            (Some(offer), 200..300) => self.accepted(now, by, response, offer),
            (Some(offer), 300..) => {
                if self.offers[offer].answered_at.is_none() {
                    self.offers.swap_remove(offer);
                }
                Expect::Pass(None)
            }
            _ => Expect::Pass(None),
        }
    }

    fn accepted(&mut self, now: u64, by: Leg, response: &Sip, position: usize) -> Expect {
        let dialog = self.dialog(by, response, "To", "From");
        let ended = dialog.is_some_and(|index| self.dialogs[index].end.is_some());
        let over = ended || self.offers[position].superseded;
        let offer = &mut self.offers[position];
        let uac = by.other();
        let tag = response.tag("To").unwrap_or_default().to_owned();
        let came = SessionExpires::of(response);
        let completed = match (came, offer.session_expires) {
            (Ok(None), Some(asked)) if offer.enforces && offer.uac_knows => {
                Some(SessionExpires { delta: asked.delta, refresher: Some(Role::Uac) })
            }
            _ => None,
        };
        let headers = completed.map(|header| Headers {
            session_expires: Some(header),
            min_se: min_se_of(response),
            requires: true,
        });
        let late = offer.answered_at.is_some_and(|at| now > at + ANSWERED_MS);
        let first = !offer.concluded.contains(&tag);
        if first {
            offer.concluded.push(tag.clone());
            offer.answered_at = Some(now);
            let timer = completed.or(came.ok().flatten()).map(|header| {
                let assumed = if offer.uac_knows { Role::Uac } else { Role::Uas };
                let asked = offer.session_expires.and_then(|asked| asked.refresher);
                let refresher = header.refresher.or(asked).unwrap_or(assumed);
                (header.delta.max(LEAST), if refresher == Role::Uac { uac } else { uac.other() })
            });
            self.conclude(now, uac, tag, position, timer, came.is_err());
        }
        if over || late { Expect::PassEither(headers) } else { Expect::Pass(headers) }
    }

    fn conclude(&mut self, now: u64, uac: Leg, tag: String, position: usize, timer: Option<(u32, Leg)>, unread: bool) {
        let offer = &self.offers[position];
        let mut tags = [tag.clone(), tag];
        tags[uac.index()].clone_from(&offer.from_tag);
        let known = self.dialogs.iter().position(|dialog| dialog.call_id == offer.call_id && dialog.tags == tags);
        let dialog = match known {
            Some(index) if self.dialogs[index].end.is_some() || offer.to_tag.is_none() => return,
            Some(index) => &mut self.dialogs[index],
            None if offer.to_tag.is_some() => return,
            None => {
                self.dialogs.push(Expected {
                    call_id: offer.call_id.clone(),
                    tags,
                    caller: uac,
                    interval: None,
                    refresher: None,
                    expires_at: None,
                    end: None,
                    timers: offer.timers.clone(),
                    enforces: offer.enforces,
                    heard_at: now,
                    ended_at: 0,
                    highest_min_se: 0,
                });
                self.dialogs.last_mut().expect("just pushed")
            }
        };
        dialog.timers = offer.timers.clone();
        dialog.enforces = offer.enforces;
        if !unread {
            (dialog.interval, dialog.refresher) = timer.unzip();
        }
        dialog.expires_at = dialog.interval.map(|interval| {
            let interval = u64::from(interval) * 1000;
            let margin = match offer.timers.margin {
                sipwarden_session_timer::Margin::Rfc4028 => (interval / 3).min(32_000),
                sipwarden_session_timer::Margin::Fixed(seconds) => (u64::from(seconds) * 1000).min(interval / 3),
            };
            now + interval - margin
        });
    }

    // Comparison

    /// Does the sidecar hold the sessions it should? Dialogs that expired are marked so, and named.
    pub fn compare(&mut self, now: u64, views: &[SessionView]) -> Result<Vec<usize>, String> {
        let mut expired = Vec::new();
        for view in views {
            let tags = view.legs.each_ref().map(|leg| tag_of(&leg.party));
            let call_id = String::from_utf8_lossy(&view.call_id);
            let found = self.dialogs.iter().position(|dialog| dialog.call_id == call_id && dialog.tags == tags);
            let index = found.ok_or_else(|| format!("a session of {call_id} {tags:?} nobody expects"))?;
            if self.dialogs[index].agree(now, view)? {
                expired.push(index);
            }
        }
        let idle_ms = self.idle_ms;
        for dialog in self.dialogs.iter_mut().filter(|dialog| dialog.end.is_none()) {
            let is_there = views.iter().any(|view| {
                dialog.call_id.as_bytes() == view.call_id
                    && dialog.tags == view.legs.each_ref().map(|leg| tag_of(&leg.party))
            });
            if !is_there {
                if dialog.interval.is_some() || now < dialog.heard_at + idle_ms {
                    return Err(format!("the session of {} {:?} is gone", dialog.call_id, dialog.tags));
                }
                dialog.finish(now, EndCause::Forgotten);
            }
        }
        Ok(expired)
    }
}

/// RFC 4028 §8.1 for one request: the headers it must leave with, or status and Min-SE of its answer.
fn judge(
    timers: &Timers,
    from: Leg,
    caller: Leg,
    highest_min_se: u32,
    asked: Option<SessionExpires>,
    request: &Sip,
) -> Result<Headers, (u16, Option<u32>)> {
    let floor = timers.min_se_s();
    let own = min_se_of(request);
    let uac_knows = request.lists("Supported", "timer");
    // What a 422 in this dialog asked for would be asked for again.
    let known = highest_min_se.min(timers.max_min_se_s());
    let most = timers.session_expires_s().max(own.unwrap_or(0)).max(known);
    let small = asked.is_some_and(|asked| asked.delta < floor);
    if small && uac_knows && timers.below_min_se == BelowMinSe::Reject {
        return Err((422, Some(floor)));
    }
    let delta = match asked {
        None => most,
        Some(_) if small => floor.max(own.unwrap_or(0)),
        Some(asked) => asked.delta.min(most),
    };
    let wanted = match timers.refresher {
        RefresherPreference::PeerChoice => None,
        RefresherPreference::Local => Some(Leg::Local),
        RefresherPreference::Remote => Some(Leg::Remote),
        RefresherPreference::Caller => Some(caller),
        RefresherPreference::Callee => Some(caller.other()),
    };
    let wanted = wanted.map(|side| if side == from { Role::Uac } else { Role::Uas });
    // A UAC that knows no timers cannot refresh.
    let wanted = wanted.filter(|role| uac_knows || *role == Role::Uas);
    let refresher = asked.and_then(|asked| asked.refresher).or(wanted);
    // No Min-SE means 90 (§5).
    let raised = own.unwrap_or(LEAST) < floor || (own.is_none() && small);
    let min_se = if raised { Some(floor) } else { own };
    Ok(Headers { session_expires: Some(SessionExpires { delta, refresher }), min_se, requires: false })
}
