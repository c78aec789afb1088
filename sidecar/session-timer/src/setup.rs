//! A call before and between its sessions: the INVITEs that wait for a 2xx, one per transaction, and the sessions that
//! came of them, one per fork.

use std::ops::Range;
use std::time::Duration;

use siphasher::sip::SipHasher13;
use sipwarden_sip::value::{NameAddr, ValueError};
use sipwarden_sip::{HeaderName, Message};

use crate::acting::{Half, UpdateSupport};
use crate::media::Media;
use crate::negotiation::Offer;
use crate::numbering::Numbering;
use crate::session::{EventLog, Retry, Ruling};
use crate::{Flow, Leg, Seconds, Time};

/// An INVITE nobody answers is forgotten after this: longer than Timer C of any proxy (RFC 3261 §16.6 item 11), and
/// every provisional counts anew.
const UNANSWERED: Duration = Duration::from_secs(300);
/// After its first 2xx, forks may still answer for 64 × T1 (RFC 3261 §13.2.2.4).
const ANSWERED: Duration = Duration::from_secs(32);

/// With the key, what [`BranchKey`] is for.
const BRANCH: u64 = u64::from_le_bytes(*b"branch:\0");

/// Everything that shares a Call-ID.
pub(crate) struct Call {
    pub(crate) call_id: Box<[u8]>,
    pub(crate) setups: Vec<Setup>,
    /// Slots of its sessions, ended ones included until they are dropped.
    pub(crate) sessions: Vec<u32>,
    /// The earliest entry in the wheel.
    pub(crate) wheel_at: Option<Time>,
}

/// An initial INVITE.
pub(crate) struct Setup {
    /// The side that called.
    pub(crate) from: Leg,
    pub(crate) cseq: u32,
    /// Under which branches of whoever sent them its copies wait for an answer: a proxy before us may fork it.
    pub(crate) branches: Vec<BranchKey>,
    /// What left us; nothing, when its headers were malformed and it passed unjudged.
    pub(crate) offer: Offer,
    pub(crate) half: Half,
    pub(crate) ruling: Ruling,
    pub(crate) caller: Caller,
    /// The caller's CSeq space outside any dialog.
    pub(crate) numbers: Numbering,
    /// What the INVITE says of media, where we may have to say it again.
    pub(crate) media: Option<Box<Media>>,
    /// Whether the caller takes UPDATE.
    pub(crate) update: UpdateSupport,
    pub(crate) early: Vec<Early>,
    /// The highest Min-SE of a 422 to it.
    pub(crate) min_se: Seconds,
    /// Its own Min-SE, as it came.
    pub(crate) own_min_se: Seconds,
    /// Where a 422 to it would be answered here.
    pub(crate) retry: Option<Retry>,
    /// The caller has given up.
    pub(crate) cancelled: bool,
    pub(crate) flow: Flow,
    pub(crate) started: Time,
    pub(crate) until: Time,
    pub(crate) answered: bool,
    pub(crate) log: EventLog,
}

/// An early dialog in which more happened than ringing.
pub(crate) struct Early {
    /// The callee's.
    pub(crate) tag: Box<[u8]>,
    /// The callee's CSeq space.
    pub(crate) numbers: Numbering,
    /// The caller's in this dialog: what it sends in another fork does not count here.
    pub(crate) caller_numbers: Numbering,
    pub(crate) media: Option<Box<Media>>,
}

/// A keyed hash of the branch that the sender of a request gave it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BranchKey(u64);

/// What the INVITE says of its sender, in one allocation: From value, Contact URI, Record-Route values.
pub(crate) struct Caller {
    bytes: Box<[u8]>,
    /// Where From value and Contact URI end. A message has less than 2^32 bytes.
    ends: [u32; 2],
    tag: Range<u32>,
    /// Record-Route values that stood in the INVITE when it came to us.
    pub(crate) route_count: usize,
}

impl BranchKey {
    /// Of the topmost Via of a request that came.
    pub(crate) fn of_request(key: u64, request: &Message) -> BranchKey {
        BranchKey::of(key, request.top_via().ok().and_then(|via| via.branch))
    }

    /// Of the request that a response answers: below our Via stands the sender's.
    pub(crate) fn of_response(key: u64, response: &Message) -> BranchKey {
        BranchKey::of(key, response.second_via().ok().and_then(|via| via.branch))
    }

    fn of(key: u64, branch: Option<&[u8]>) -> BranchKey {
        BranchKey(SipHasher13::new_with_keys(key, BRANCH).hash(branch.unwrap_or_default()))
    }
}

impl Caller {
    /// `None` when longer than `limit` bytes or without a From tag.
    pub(crate) fn of(invite: &Message, limit: usize) -> Option<Caller> {
        let party = invite.first(HeaderName::From)?.value;
        // A parameter without a value is no part of `party`, and no tag.
        let tag = invite.from_tag().filter(|tag| !tag.is_empty())?;
        let tag_start = tag.as_ptr() as usize - party.as_ptr() as usize;
        let target = target_of(invite, invite.from());
        let mut bytes = Vec::with_capacity(256);
        bytes.extend_from_slice(party);
        let party_end = bytes.len();
        bytes.extend_from_slice(target);
        let target_end = bytes.len();
        let route_count = join_routes(invite.elements(HeaderName::RecordRoute).map(|(_, route)| route), &mut bytes);
        let ends = [party_end as u32, target_end as u32];
        let tag = tag_start as u32..(tag_start + tag.len()) as u32;
        (bytes.len() <= limit).then(|| Caller { bytes: bytes.into_boxed_slice(), ends, tag, route_count })
    }

    pub(crate) fn party(&self) -> &[u8] {
        &self.bytes[..self.ends[0] as usize]
    }

    pub(crate) fn tag(&self) -> &[u8] {
        &self.bytes[self.tag.start as usize..self.tag.end as usize]
    }

    pub(crate) fn target(&self) -> &[u8] {
        &self.bytes[self.ends[0] as usize..self.ends[1] as usize]
    }

    /// The Record-Route values below ours: the route set towards the caller (RFC 3261 §12.1.1).
    pub(crate) fn routes(&self) -> &[u8] {
        &self.bytes[self.ends[1] as usize..]
    }
}

/// The URI of the Contact, when it is one.
pub(crate) fn contact_uri<'b>(message: &Message<'b>) -> Option<&'b [u8]> {
    message.contact().filter(|contact| contact.parse_uri().is_ok()).map(|contact| contact.uri)
}

/// Where requests to a party go: its Contact, or its own address where it gave none, against RFC 3261 §12.1.
pub(crate) fn target_of<'b>(message: &Message<'b>, party: Result<&NameAddr<'b>, ValueError>) -> &'b [u8] {
    contact_uri(message).or(party.ok().map(|party| party.uri)).unwrap_or_default()
}

/// Append routes as a comma list; returns how many.
pub(crate) fn join_routes<'a>(routes: impl Iterator<Item = &'a [u8]>, out: &mut Vec<u8>) -> usize {
    let mut count = 0;
    for route in routes {
        if count > 0 {
            out.push(b',');
        }
        out.extend_from_slice(route);
        count += 1;
    }
    count
}

impl Setup {
    /// Is it the INVITE of that transaction?
    pub(crate) fn is_of(&self, from: Leg, from_tag: &[u8], cseq: u32) -> bool {
        self.from == from && self.cseq == cseq && self.caller.tag() == from_tag
    }

    /// Did an earlier try of it leave with that number?
    pub(crate) fn retried_from(&self, from: Leg, from_tag: &[u8], leaving: u32) -> bool {
        self.is_of(from, from_tag, self.cseq)
            && self.retry.as_ref().is_some_and(|retry| retry.was_left_behind(&self.numbers, leaving, self.cseq))
    }

    /// The early dialog with the callee of that tag; `None` beyond `most` of them.
    pub(crate) fn early(&mut self, tag: &[u8], most: usize) -> Option<&mut Early> {
        if self.early.len() < most && !self.early.iter().any(|early| &*early.tag == tag) {
            let (caller_numbers, media) = (self.numbers, self.media.clone());
            self.early.push(Early { tag: tag.into(), numbers: Numbering::default(), caller_numbers, media });
        }
        self.early.iter_mut().find(|early| &*early.tag == tag)
    }

    /// What the INVITE says of UPDATE on that leg.
    pub(crate) fn caller_update(&self, leg: Leg) -> UpdateSupport {
        if leg == self.from { self.update } else { UpdateSupport::default() }
    }

    /// A copy goes on under that branch, perhaps again; `most` of them are waited for.
    pub(crate) fn passes_under(&mut self, branch: BranchKey, most: usize) {
        if self.branches.len() < most && !self.branches.contains(&branch) {
            self.branches.push(branch);
        }
    }

    /// The copy of that branch has failed; true when none is left that waits.
    pub(crate) fn fails_under(&mut self, branch: BranchKey) -> bool {
        self.branches.retain(|waiting| *waiting != branch);
        self.branches.is_empty()
    }

    /// Lives on: something was heard of it.
    pub(crate) fn touch(&mut self, now: Time) {
        if !self.answered {
            self.until = now + UNANSWERED;
        }
    }

    /// The first 2xx came.
    pub(crate) fn answer(&mut self, now: Time) {
        self.answered = true;
        self.until = now + ANSWERED;
    }
}

impl Call {
    pub(crate) fn new(call_id: &[u8]) -> Call {
        Call { call_id: call_id.into(), setups: Vec::new(), sessions: Vec::new(), wheel_at: None }
    }

    /// The INVITE of that transaction, retransmitted or answered.
    pub(crate) fn setup(&mut self, from: Leg, from_tag: &[u8], cseq: u32) -> Option<&mut Setup> {
        self.setups.iter_mut().find(|setup| setup.is_of(from, from_tag, cseq))
    }

    /// The setup whose caller has that tag, for what happens in its early dialogs.
    pub(crate) fn setup_of_caller(&mut self, caller: Leg, tag: &[u8]) -> Option<&mut Setup> {
        // The newest: an earlier INVITE of the same caller was refused.
        self.setups.iter_mut().rev().find(|setup| setup.from == caller && setup.caller.tag() == tag)
    }

    /// When something must be done about its setups.
    pub(crate) fn due(&self) -> Option<Time> {
        self.setups.iter().map(|setup| setup.until).min()
    }

    pub(crate) fn is_over(&self) -> bool {
        self.setups.is_empty() && self.sessions.is_empty()
    }
}
