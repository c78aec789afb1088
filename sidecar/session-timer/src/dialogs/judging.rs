//! How a session refresh request is judged: the policy that applies, its RFC 4028 headers as they came, and as they leave.

use std::net::IpAddr;
use std::sync::Arc;

use sipwarden_sip::value::{NameAddr, RefresherParam, Uri};
use sipwarden_sip::{Edits, HeaderName, Message};

use super::Dialogs;
use crate::acting::Half;
use crate::negotiation::{self, Offer, TooSmall};
use crate::session::{Ruling, Session, Timer};
use crate::{ActForApp, Direction, EventKind, HeaderKind, Leg, Malformed, PeerFacts, RefresherPreference, Seconds};

/// How a request was judged.
pub(super) enum Judged {
    /// It goes on offering this.
    Goes(Offer),
    /// It is answered with this status, reason and header lines.
    Refused(u16, &'static str, String),
}

/// The circumstances of a request.
#[derive(Clone, Copy)]
pub(super) struct Asking {
    pub(super) from: Leg,
    pub(super) half: Half,
    /// Of the whole call.
    pub(super) caller: Leg,
    /// The highest Min-SE of a 422 on this call.
    pub(super) call_min_se: Seconds,
    /// The timer that runs.
    pub(super) timer: Option<Timer>,
}

impl Dialogs {
    pub(super) fn ruling_for(&self, from: Leg, peer: Option<IpAddr>, invite: &Message) -> Ruling {
        let facts = PeerFacts {
            direction: if from == Leg::Local { Direction::Outbound } else { Direction::Inbound },
            peer,
            from_domain: invite.from().map_or(b"", |party| domain(party.uri)),
            to_domain: invite.to().map_or(b"", |party| domain(party.uri)),
            user_agent: invite.first(HeaderName::UserAgent).map_or(b"", |header| header.value),
        };
        Ruling { policy: Arc::clone(&self.policy), rule: self.policy.rule_for(&facts) }
    }

    /// The policy in force now, for a session that began under this or an older one. A rule of the same name goes on
    /// holding: what it matched, the caller's User-Agent above all, is not in every message.
    pub(super) fn ruling_now(&self, slot: u32, from: Leg, message: Option<&Message>) -> Ruling {
        let session = &self.sessions[slot as usize];
        if Arc::ptr_eq(&session.ruling.policy, &self.policy) {
            return session.ruling.clone();
        }
        let ruling = self.ruling_anew(session, from, message);
        // Who stands in for an application goes on until the call ends: the peer relies on it.
        let deserts = ruling.observes() || ruling.timers().act_for_app == ActForApp::Never;
        if session.acting.is_some() && deserts { session.ruling.clone() } else { ruling }
    }

    fn ruling_anew(&self, session: &Session, from: Leg, message: Option<&Message>) -> Ruling {
        let same_name =
            session.ruling.policy.rule_name(session.ruling.rule).and_then(|name| self.policy.rule_named(name));
        if same_name.is_some() {
            return Ruling { policy: Arc::clone(&self.policy), rule: same_name };
        }
        let party = |leg: Leg| NameAddr::parse(session.identity.leg(leg).party);
        let sender_is_caller = from == session.caller;
        let facts = PeerFacts {
            direction: session.direction(),
            peer: Some(session.legs[Leg::Remote.index()].flow.peer.ip()),
            from_domain: party(session.caller).map_or(b"", |party| domain(party.uri)),
            to_domain: party(session.caller.other()).map_or(b"", |party| domain(party.uri)),
            user_agent: message
                .filter(|_| sender_is_caller)
                .and_then(|message| message.first(HeaderName::UserAgent))
                .map_or(b"", |header| header.value),
        };
        Ruling { policy: Arc::clone(&self.policy), rule: self.policy.rule_for(&facts) }
    }

    /// Judge an INVITE or UPDATE; adds edits in Enforce, notes in both modes.
    pub(super) fn judge(&mut self, ruling: &Ruling, asking: Asking, message: &Message, edits: &mut Edits) -> Judged {
        let Asking { from, half, .. } = asking;
        let (timers, acts) = (ruling.timers(), !ruling.observes());
        let came = match read_offer(message) {
            Ok(came) => came,
            Err((header, passed)) => {
                self.notes.push(EventKind::Malformed { from, header });
                return match (timers.malformed, acts) {
                    (Malformed::Reject, true) => Judged::Refused(400, malformed_reason(header), String::new()),
                    _ => Judged::Goes(passed),
                };
            }
        };
        let asked = asking.by_whoever_speaks(came, timers.min_se_s());
        let preferred = asking.preferred(ruling).map(|side| role(side, from));
        match negotiation::offer(timers, preferred, asking.call_min_se, asked) {
            Err(TooSmall { asked, min_se }) => {
                self.notes.push(EventKind::Rejected { to: from, asked, min_se });
                if acts {
                    Judged::Refused(422, "Session Interval Too Small", format!("Min-SE: {min_se}\r\n"))
                } else {
                    Judged::Goes(came)
                }
            }
            Ok(left) => {
                note_changes(from, came, left, &mut self.notes);
                if acts {
                    write_request(message, half, from, came, left, edits);
                    Judged::Goes(left)
                } else {
                    Judged::Goes(came)
                }
            }
        }
    }
}

impl Asking {
    /// What the request asks for, once we add what the application does not know how to say.
    fn by_whoever_speaks(&self, came: Offer, least: Seconds) -> Offer {
        if !self.speaks_for_app() {
            return came;
        }
        // A refresh names the interval there is (RFC 4028 §7.4). The application must not hear of a 422.
        let interval = came.interval.or(self.timer.map(|timer| timer.interval_s)).map(|interval| interval.max(least));
        Offer { interval, uac_supports_timer: true, ..came }
    }

    /// The refresher to ask for: the policy's, else the one there is, where we speak for the application.
    fn preferred(&self, ruling: &Ruling) -> Option<Leg> {
        let there_is = self.timer.filter(|_| self.half.is_ours()).map(|timer| timer.refresher);
        preferred_side(ruling.timers().refresher, self.caller).or(there_is)
    }

    fn speaks_for_app(&self) -> bool {
        self.half.is_ours() && self.from == Leg::Local
    }
}

/// What `side` is in a transaction of `uac`.
pub(super) fn role(side: Leg, uac: Leg) -> RefresherParam {
    if side == uac { RefresherParam::Uac } else { RefresherParam::Uas }
}

pub(super) fn preferred_side(preference: RefresherPreference, caller: Leg) -> Option<Leg> {
    match preference {
        RefresherPreference::PeerChoice => None,
        RefresherPreference::Local => Some(Leg::Local),
        RefresherPreference::Remote => Some(Leg::Remote),
        RefresherPreference::Caller => Some(caller),
        RefresherPreference::Callee => Some(caller.other()),
    }
}

fn malformed_reason(header: HeaderKind) -> &'static str {
    match header {
        HeaderKind::SessionExpires => "Malformed Session-Expires",
        HeaderKind::MinSe => "Malformed Min-SE",
    }
}

fn domain(uri: &[u8]) -> &[u8] {
    Uri::parse(uri).map_or(b"", |uri| uri.host)
}

/// The timer headers of a request; on a malformed one also what can be said of the request without them.
fn read_offer(message: &Message) -> Result<Offer, (HeaderKind, Offer)> {
    let uac_supports_timer = message.has_token(HeaderName::Supported, "timer");
    let nothing = Offer { interval: None, refresher: None, min_se: None, uac_supports_timer };
    let session_expires = message.session_expires().map_err(|_| (HeaderKind::SessionExpires, nothing))?;
    let min_se = message.min_se().map_err(|_| (HeaderKind::MinSe, nothing))?;
    Ok(Offer {
        interval: session_expires.map(|header| header.delta),
        refresher: session_expires.and_then(|header| header.refresher),
        min_se,
        uac_supports_timer,
    })
}

/// A retransmission leaves as the first one did.
pub(super) fn repeat_request(
    ruling: &Ruling,
    half: Half,
    from: Leg,
    message: &Message,
    left: Offer,
    edits: &mut Edits,
) {
    if !ruling.observes()
        && let Ok(came) = read_offer(message)
    {
        write_request(message, half, from, came, left, edits);
    }
}

/// Writes what a request offers. What the application cannot say is added; what it cannot take is taken out: an extension
/// required of it would make it refuse the call (RFC 3261 §8.2.2.3).
fn write_request(message: &Message, half: Half, from: Leg, came: Offer, left: Offer, edits: &mut Edits) {
    match (half, from) {
        (Half::SidecarAlone, Leg::Remote) => {
            edits.remove_header(message, HeaderName::SessionExpires);
            edits.remove_header(message, HeaderName::MinSe);
            edits.remove_token(message, HeaderName::Supported, "timer");
            edits.remove_token(message, HeaderName::Require, "timer");
        }
        (Half::Sidecar | Half::Open, Leg::Remote) => {
            write_offer(message, came, left, edits);
            edits.remove_token(message, HeaderName::Require, "timer");
        }
        (Half::Sidecar | Half::SidecarAlone, Leg::Local) => {
            write_offer(message, came, left, edits);
            edits.add_token(message, HeaderName::Supported, "timer");
        }
        (Half::App, _) | (Half::Open, Leg::Local) => write_offer(message, came, left, edits),
    }
}

fn write_offer(message: &Message, came: Offer, left: Offer, edits: &mut Edits) {
    if let Some(interval) = left.interval {
        let added = left.refresher.filter(|_| came.refresher.is_none());
        write_delta(message, HeaderName::SessionExpires, (came.interval, interval), added, edits);
    }
    if let Some(min_se) = left.min_se {
        write_delta(message, HeaderName::MinSe, (came.min_se, min_se), None, edits);
    }
}

/// The number changes where it differs; the parameters that are there stay, unknown ones included (RFC 4028 §4, §5).
fn write_delta(
    message: &Message,
    name: HeaderName,
    (came, leaves): (Option<Seconds>, Seconds),
    added: Option<RefresherParam>,
    edits: &mut Edits,
) {
    if came == Some(leaves) && added.is_none() {
        return;
    }
    let digits = Digits::new(leaves);
    let param: [&[u8]; 2] = added.map_or([b"", b""], |added| [b";refresher=", added.as_str().as_bytes()]);
    let Some(header) = message.first(name) else {
        return edits.append_header(message, name, &[digits.text(), param[0], param[1]]);
    };
    if came != Some(leaves) {
        let written = header.value.iter().take_while(|byte| byte.is_ascii_digit()).count();
        edits.replace(header.value_start..header.value_start + written, &[digits.text()]);
    }
    if added.is_some() {
        edits.insert(header.value_start + header.value.len(), &param);
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

/// A number in decimal, on the stack.
pub(super) struct Digits {
    buffer: [u8; 10],
    start: usize,
}

impl Digits {
    pub(super) fn new(mut number: u32) -> Digits {
        let mut digits = Digits { buffer: [b'0'; 10], start: 10 };
        loop {
            digits.start -= 1;
            digits.buffer[digits.start] = b'0' + (number % 10) as u8;
            number /= 10;
            if number == 0 {
                return digits;
            }
        }
    }

    pub(super) fn text(&self) -> &[u8] {
        &self.buffer[self.start..]
    }
}
