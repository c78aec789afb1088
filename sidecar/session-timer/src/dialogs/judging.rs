//! How a session refresh request is judged: the policy that applies, and its RFC 4028 headers as they leave.

use std::net::IpAddr;
use std::sync::Arc;

use sipwarden_sip::value::{NameAddr, RefresherParam};
use sipwarden_sip::{Decimal, Edits, HeaderName, Message};

use super::Dialogs;
use crate::acting::Half;
use crate::judgment::{Came, Judged, Judgment, RequestFacts};
use crate::negotiation::Offer;
use crate::session::{Ruling, Session};
use crate::{ActForApp, Direction, HeaderKind, Leg, Malformed, PeerFacts, Seconds};

/// What becomes of a request that was judged.
pub(super) enum Fate {
    /// It goes on offering this.
    Goes(Offer),
    /// It is answered with this status, reason and header lines.
    Refused(u16, &'static str, String),
}

impl Dialogs {
    pub(super) fn ruling_for(&self, from: Leg, peer: Option<IpAddr>, invite: &Message) -> Ruling {
        let facts = PeerFacts::of(
            Direction::of_caller(from),
            peer,
            invite.from().map_or(b"", |party| party.uri),
            invite.to().map_or(b"", |party| party.uri),
            invite.first(HeaderName::UserAgent).map_or(b"", |header| header.value),
        );
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
        let facts = PeerFacts::of(
            session.direction(),
            Some(session.legs[Leg::Remote.index()].flow.peer.ip()),
            party(session.caller).map_or(b"", |party| party.uri),
            party(session.caller.other()).map_or(b"", |party| party.uri),
            message
                .filter(|_| sender_is_caller)
                .and_then(|message| message.first(HeaderName::UserAgent))
                .map_or(b"", |header| header.value),
        );
        Ruling { policy: Arc::clone(&self.policy), rule: self.policy.rule_for(&facts) }
    }

    /// Judge an INVITE or UPDATE, in which `half` is the application's; adds edits in Enforce, notes in both modes.
    pub(super) fn judge(
        &mut self,
        ruling: &Ruling,
        half: Half,
        facts: RequestFacts,
        message: &Message,
        edits: &mut Edits,
    ) -> Fate {
        let (came, acts) = (facts.came.offer(), !ruling.observes());
        let judgment = facts.judge(ruling.policy.mode, ruling.timers(), &mut self.notes);
        self.judged = Some(Judged { facts, policy: Arc::clone(&ruling.policy), rule: ruling.rule });
        match judgment {
            Judgment::TooSmall { min_se } if acts => {
                Fate::Refused(422, "Session Interval Too Small", format!("Min-SE: {min_se}\r\n"))
            }
            Judgment::Malformed(header) if acts && ruling.timers().malformed == Malformed::Reject => {
                Fate::Refused(400, malformed_reason(header), String::new())
            }
            Judgment::Goes(left) if acts => {
                write_request(message, half, facts.from, came, left, edits);
                Fate::Goes(left)
            }
            Judgment::TooSmall { .. } | Judgment::Malformed(_) | Judgment::Goes(_) => Fate::Goes(came),
        }
    }
}

fn malformed_reason(header: HeaderKind) -> &'static str {
    match header {
        HeaderKind::SessionExpires => "Malformed Session-Expires",
        HeaderKind::MinSe => "Malformed Min-SE",
    }
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
        && let Came::Readable(came) = Came::from(message, left.uac_supports_timer)
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
    let digits = Decimal::new(leaves);
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
