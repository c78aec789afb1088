//! What the sidecar decided and what it changed, as far back as an hour or as there is room: three rings beside each shard,
//! under that shard's lock. Writing copies a few lines and allocates nothing; everything else happens when somebody reads.
//!
//! Decisions are the core's events, with whom they are about. Messages are those of calls: start line, timer headers as
//! they came and as they left, never a body. Requests are the facts a judgment depends on, to judge them by another policy.

mod decisions;
mod filter;
mod messages;
mod reader;
mod ring;
mod routes;
mod stream;
mod what_if;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use sipwarden_session_timer::{Direction, Event, Flow, Judged, Leg, Policy, Time};
use sipwarden_shard::{Outbox, Outcome, Packet, Shard};
use sipwarden_sip::{HeaderName, Message, Method, Slots};

use crate::metrics::{Metrics, RecordKind};
use crate::transport::Endpoint;

pub use self::reader::Reader;
pub use self::ring::{KEPT, Ring};
pub use self::routes::router;

/// The headers that are kept of a message: those of session timers, and what names its transaction.
const WATCHED: [HeaderName; 6] = [
    HeaderName::CSeq,
    HeaderName::SessionExpires,
    HeaderName::MinSe,
    HeaderName::Supported,
    HeaderName::Require,
    HeaderName::RAck,
];
/// And of a request of our own.
const WATCHED_OF_OURS: [HeaderName; 1] = [HeaderName::Reason];
/// About what a text is long, for how many entries there is room.
const DECISION_TEXT: usize = 48;
const MESSAGE_TEXT: usize = 256;
const REQUEST_TEXT: usize = 128;

/// What one shard remembers.
pub struct Recorder {
    /// What was decided.
    pub decisions: Ring<Decision>,
    /// The messages of calls.
    pub messages: Ring<Passage>,
    /// The requests that were judged.
    pub requests: Ring<Asked>,
    numbers: Arc<AtomicU64>,
    metrics: Arc<Metrics>,
    /// Of the message at hand, before it goes into its ring in one piece.
    text: Vec<u8>,
    /// Its lines as they leave.
    after: Vec<u8>,
    /// For messages of our own; taken while one is read.
    slots: Option<Box<Slots>>,
}

/// An event, and whom it is about; its text is the Call-ID.
#[derive(Clone, Debug)]
pub struct Decision {
    /// What happened.
    pub event: Event,
    /// By which it was decided.
    pub policy: Arc<Policy>,
    /// Of the call.
    pub direction: Option<Direction>,
    /// The remote side.
    pub peer: Option<SocketAddr>,
    /// The number of the message that caused it; none for a timer, or when messages are not kept.
    pub cause: Option<u64>,
    /// The Call-ID has a user of the call in it.
    pub names_user: bool,
}

/// A message of a call. Its text is Call-ID, start line, the watched lines as it came, and as it left where they were changed.
#[derive(Clone, Copy, Debug)]
pub struct Passage {
    /// Who sent it; none is the sidecar itself.
    pub from: Option<Leg>,
    /// Where it went.
    pub to: Option<Leg>,
    /// What became of it.
    pub outcome: PassageOutcome,
    /// The status it was answered with here.
    pub status: Option<u16>,
    /// It begins a call.
    pub initial: bool,
    /// The watched lines were changed: those it left with stand last.
    pub edited: bool,
    /// Of the Call-ID, the start line and the lines as it came.
    lens: [u32; 3],
}

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PassageOutcome {
    /// Sent on.
    Forwarded,
    /// Answered here.
    Answered,
    /// It answers something of ours.
    Absorbed,
    /// It is of the sidecar's own making.
    Sent,
    /// It went nowhere.
    Dropped,
}

/// A request that was judged. Its text is Call-ID, From URI, To URI and User-Agent.
#[derive(Clone, Debug)]
pub struct Asked {
    /// What it was judged on, and by what.
    pub judged: Judged,
    /// The remote side.
    pub peer: Option<SocketAddr>,
    /// Of the Call-ID, the From URI and the To URI.
    lens: [u32; 3],
}

/// A message as it was handled.
pub struct Handled<'a, 'b> {
    /// Where it came from.
    pub flow: Flow,
    /// Which side that is.
    pub leg: Leg,
    /// The message.
    pub message: &'a Message<'b>,
    /// What became of it.
    pub outcome: Outcome,
}

/// Whom an event is about.
#[derive(Clone, Copy, Debug)]
pub struct About<'a> {
    /// The call.
    pub call_id: &'a [u8],
    /// By which it was decided.
    pub policy: &'a Arc<Policy>,
    /// Of the call.
    pub direction: Option<Direction>,
    /// The remote side.
    pub peer: Option<SocketAddr>,
    /// From and To values of the call.
    pub parties: [Option<&'a [u8]>; 2],
}

impl Recorder {
    /// Takes `bytes`, most of them for messages. `numbers` counts the entries of all shards.
    pub fn new(bytes: usize, numbers: Arc<AtomicU64>, metrics: Arc<Metrics>) -> Recorder {
        let eighth = bytes / 8;
        Recorder {
            decisions: Ring::new(eighth * 3, DECISION_TEXT),
            messages: Ring::new(eighth * 4, MESSAGE_TEXT),
            requests: Ring::new(eighth, REQUEST_TEXT),
            numbers,
            metrics,
            text: Vec::new(),
            after: Vec::new(),
            slots: Some(Box::new(Slots::new())),
        }
    }

    /// Keeps a message that `shard` has just handled, and the request that was judged in it. Returns its number, for the
    /// decisions it caused.
    pub fn handled(&mut self, now: Time, handled: &Handled, shard: &Shard, remote: Option<SocketAddr>) -> Option<u64> {
        let Handled { leg, message, outcome, .. } = *handled;
        if let Some(judged) = shard.dialogs().judged() {
            self.asked(now, judged, message, remote);
        }
        let edited = matches!(outcome, Outcome::Forwarded { edited: true });
        let (outcome, status) = match outcome {
            Outcome::Forwarded { .. } => (PassageOutcome::Forwarded, None),
            Outcome::Answered(status) => (PassageOutcome::Answered, Some(status)),
            Outcome::Absorbed => (PassageOutcome::Absorbed, None),
            Outcome::Dropped(_) => (PassageOutcome::Dropped, None),
            // It comes again once its name is known.
            Outcome::Parked => return None,
        };
        let call_id = message.call_id().filter(|_| is_of_call(message, outcome))?;
        let lens = self.begin_text(call_id, message);
        self.after.clear();
        for name in WATCHED {
            for header in message.all(name) {
                let line = header.line_start..header.line_end;
                if edited {
                    shard.edits().render_range(message, line.clone(), &mut self.after);
                }
                self.text.extend_from_slice(&message.bytes()[line]);
            }
        }
        let lens = self.with_lines(lens);
        if edited {
            let end = message.headers_end();
            shard.edits().render_range(message, end..end, &mut self.after);
            self.text.extend_from_slice(&self.after);
        }
        let passage = Passage {
            from: Some(leg),
            to: (outcome == PassageOutcome::Forwarded).then(|| leg.other()),
            outcome,
            status,
            initial: message.method() == Some(Method::Invite) && message.to_tag().is_none(),
            edited,
            lens,
        };
        Some(self.keep_passage(now, passage))
    }

    /// Keeps what the dialogs sent of themselves.
    pub fn sent(&mut self, now: Time, packets: &[Packet], out: &Outbox, endpoints: &[Endpoint]) {
        for packet in packets.iter().filter(|packet| packet.own) {
            let Some(mut slots) = self.slots.take() else { return };
            if let Ok(message) = Message::parse(out.packet(packet), &mut slots)
                && let Some(call_id) = message.call_id()
            {
                let lens = self.begin_text(call_id, &message);
                let ours = WATCHED_OF_OURS.into_iter().filter(|_| message.method() == Some(Method::Bye));
                for header in WATCHED.into_iter().chain(ours).flat_map(|name| message.all(name)) {
                    self.text.extend_from_slice(&message.bytes()[header.line_start..header.line_end]);
                }
                let passage = Passage {
                    from: None,
                    to: Some(endpoints[usize::from(packet.flow.endpoint)].leg),
                    outcome: PassageOutcome::Sent,
                    status: None,
                    initial: false,
                    edited: false,
                    lens: self.with_lines(lens),
                };
                self.keep_passage(now, passage);
            }
            self.slots = Some(slots);
        }
    }

    /// Keeps an event.
    pub fn decided(&mut self, now: Time, event: Event, about: &About, names_user: bool, cause: Option<u64>) {
        let About { call_id, policy, direction, peer, .. } = *about;
        let decision = Decision { event, policy: Arc::clone(policy), direction, peer, cause, names_user };
        let number = self.next_number();
        let lost = self.decisions.push(number, now, decision, &[call_id]);
        self.count(RecordKind::Decision, lost);
    }

    fn asked(&mut self, now: Time, judged: &Judged, message: &Message, peer: Option<SocketAddr>) {
        let Some(call_id) = message.call_id() else { return };
        let parties = [message.from(), message.to()].map(|party| party.map_or(b"" as &[u8], |party| party.uri));
        let user_agent = message.first(HeaderName::UserAgent).map_or(b"" as &[u8], |header| header.value);
        let asked = Asked {
            judged: judged.clone(),
            peer,
            lens: [call_id, parties[0], parties[1]].map(|part| part.len() as u32),
        };
        let number = self.next_number();
        let lost = self.requests.push(number, now, asked, &[call_id, parties[0], parties[1], user_agent]);
        self.count(RecordKind::Request, lost);
    }

    /// Puts Call-ID and start line into the empty text, and says how long they are.
    #[inline]
    fn begin_text(&mut self, call_id: &[u8], message: &Message) -> [u32; 2] {
        let start = start_line(message);
        self.text.clear();
        self.text.extend_from_slice(call_id);
        self.text.extend_from_slice(start);
        [call_id, start].map(|part| part.len() as u32)
    }

    /// The lengths with that of the lines, which are all that has come since.
    fn with_lines(&self, [call_id, start]: [u32; 2]) -> [u32; 3] {
        [call_id, start, self.text.len() as u32 - call_id - start]
    }

    fn keep_passage(&mut self, now: Time, passage: Passage) -> u64 {
        let number = self.next_number();
        let lost = self.messages.push(number, now, passage, &[&self.text]);
        self.count(RecordKind::Message, lost);
        number
    }

    /// From 1 on. The order between shards is that of the clock as far as anybody can tell.
    fn next_number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed) + 1
    }

    fn count(&self, kind: RecordKind, lost: u64) {
        if lost > 0 {
            self.metrics.records_lost(kind, lost);
        }
    }
}

impl Asked {
    /// Call-ID, From URI, To URI and User-Agent in `text`.
    fn parts<'t>(&self, text: &'t [u8]) -> [&'t [u8]; 4] {
        parts(self.lens, text)
    }
}

impl Passage {
    /// Call-ID, start line, the lines as it came, and as it left, in `text`.
    fn parts<'t>(&self, text: &'t [u8]) -> [&'t [u8]; 4] {
        parts(self.lens, text)
    }

    fn call_id_len(&self) -> usize {
        self.lens[0] as usize
    }
}

impl<'a> About<'a> {
    /// As far as the shard and the message at hand, if any, tell. `remote`: that of the message.
    pub fn of(event: &Event, shard: &'a Shard, handled: Option<&Handled<'a, '_>>, remote: Option<SocketAddr>) -> Self {
        let message = handled.map(|handled| handled.message);
        let call_id = message.and_then(Message::call_id);
        let context = shard.dialogs().context(event.session, call_id);
        let begun = handled.filter(|handled| handled.message.method().is_some() && handled.message.to_tag().is_none());
        About {
            call_id: call_id.or(context.call_id).unwrap_or_default(),
            policy: context.policy,
            direction: context.direction.or(begun.map(|handled| direction_of(handled.leg))),
            peer: remote.or(context.remote.map(|flow| flow.peer)),
            parties: message.map_or(context.parties, |message| {
                [HeaderName::From, HeaderName::To].map(|name| message.first(name).map(|header| header.value))
            }),
        }
    }

    /// The Call-ID has a user of the call in it.
    pub fn names_user(&self) -> bool {
        names_user(self.call_id, self.parties)
    }
}

fn direction_of(caller: Leg) -> Direction {
    match caller {
        Leg::Local => Direction::Outbound,
        Leg::Remote => Direction::Inbound,
    }
}

fn parts(lens: [u32; 3], text: &[u8]) -> [&[u8]; 4] {
    let mut rest = text;
    let mut take = |len: u32| {
        let (part, behind) = rest.split_at(rest.len().min(len as usize));
        rest = behind;
        part
    };
    let [first, second, third] = lens.map(&mut take);
    [first, second, third, rest]
}

/// Those that begin, refresh or end calls, and whatever we did not merely send on.
fn is_of_call(message: &Message, outcome: PassageOutcome) -> bool {
    use Method::{Ack, Bye, Cancel, Invite, Prack, Update};
    let method = message.method().or_else(|| message.cseq().ok().map(|cseq| cseq.method));
    match outcome {
        PassageOutcome::Forwarded | PassageOutcome::Dropped => {
            matches!(method, Some(Invite | Ack | Bye | Cancel | Prack | Update))
        }
        PassageOutcome::Answered | PassageOutcome::Absorbed | PassageOutcome::Sent => true,
    }
}

fn start_line<'b>(message: &Message<'b>) -> &'b [u8] {
    let bytes = message.bytes();
    let end = bytes.iter().position(|byte| matches!(byte, b'\r' | b'\n')).unwrap_or(bytes.len());
    &bytes[..end]
}

/// Does a Call-ID hold the user of one of these From and To values, or URIs? One of two letters is found by chance.
pub fn names_user(call_id: &[u8], parties: [Option<&[u8]>; 2]) -> bool {
    parties.into_iter().flatten().map(user_of).any(|user| user.len() > 2 && holds(call_id, user))
}

/// Is `part` in `text`, in any case of letters? First letters are compared first: this is on the way of messages.
fn holds(text: &[u8], part: &[u8]) -> bool {
    let (Some(first), Some(last)) = (part.first(), text.len().checked_sub(part.len())) else { return false };
    let starts = text[..=last].iter().enumerate().filter(|(_, byte)| *byte | 0x20 == first | 0x20);
    starts.map(|(at, _)| &text[at..at + part.len()]).any(|found| found.eq_ignore_ascii_case(part))
}

/// What stands before the `@` of a From or To value or of a URI; coarse, for this is on the way of messages.
fn user_of(party: &[u8]) -> &[u8] {
    let uri = party.iter().rposition(|byte| *byte == b'<').map_or(party, |open| &party[open + 1..]);
    let Some(at) = uri.iter().position(|byte| *byte == b'@') else { return b"" };
    let before = &uri[..at];
    let user = before.iter().position(|byte| *byte == b':').map_or(before, |colon| &before[colon + 1..]);
    user.split(|byte| matches!(byte, b':' | b';')).next().unwrap_or_default()
}

/// The address that rules look at.
fn peer_ip(peer: Option<SocketAddr>) -> Option<IpAddr> {
    peer.map(|peer| peer.ip().to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_id_names_a_user_when_it_holds_one_of_the_call() {
        let holds = |call_id: &str, from: &str, to: &str| {
            names_user(call_id.as_bytes(), [Some(from.as_bytes()), Some(to.as_bytes())])
        };
        let bob = "<sip:bob@example.com>";
        assert!(holds("Alice-17@host", "\"A <@> B\" <sips:alice:secret@example.com>;tag=1", bob));
        assert!(holds("call-of-alice", bob, "sip:alice;phone-context=x@example.com"));
        assert!(!holds("a84b4c76e66710", "<sip:alice@example.com>", bob));
        assert!(!holds("alice", "<sip:example.com>", "tel:+15551234"));
        assert!(!holds("al-17", "<sip:al@example.com>", bob), "two letters stand in many a random Call-ID");
        assert!(holds("+15551234@gw", "<sip:+15551234@example.com;user=phone>", bob));
    }
}
