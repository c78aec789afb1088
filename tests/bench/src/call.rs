//! The calls between the two phones, step by step; each step is begun by the arrival of what the one before sent:
//!
//! ```text
//! Invited --180--> Answered --200, ACK--> Leaving --200--> done
//!   UAC INVITE       UAS 200        |       UAC BYE
//!                                   +--> held
//! ```
//!
//! What is lost is sent again after [`RESEND_AFTER`] and counted. Nothing here touches a socket: messages leave through
//! [`Queues`].

use std::collections::VecDeque;
use std::net::SocketAddrV4;
use std::time::{Duration, Instant};

use crate::plan::Outcome;
use crate::refreshes::Refreshes;
use crate::sock::Outbox;
use crate::template::{Manners, Messages};
use crate::wire::{self, Kind};

/// How long a step waits before what it sent is sent again.
const RESEND_AFTER: Duration = Duration::from_millis(500);

/// Sends of one step before the call counts as failed.
const TRIES_MAX: u8 = 10;

/// Low bits of a serial that name the slot; the rest is the call's number.
const SLOT_BITS: u32 = 16;

/// Which phone something happened at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phone {
    Uac,
    Uas,
}

/// A session left standing.
#[derive(Clone, Copy)]
pub(crate) struct Held {
    /// When its 200 reached the caller.
    pub(crate) answered: Instant,
    /// Its session interval, seconds.
    pub(crate) interval_s: u32,
}

/// A BYE that neither phone sent.
pub(crate) struct Hangup {
    /// Number of the call it ends, see [`Calls::held`].
    pub(crate) number: u64,
    pub(crate) phone: Phone,
    pub(crate) at: Instant,
}

/// One outbox per kind of message, so that neighbours have one length.
#[derive(Default)]
pub(crate) struct Queues {
    pub(crate) uac: [Outbox; 4],
    pub(crate) uas: [Outbox; 4],
}

const INVITES: usize = 0;
const ACKS: usize = 1;
const BYES: usize = 2;
const TRYING: usize = 0;
const RINGING: usize = 1;
const ANSWERS: usize = 2;
/// Either phone's responses to what the process under test sends of its own.
const DONE: usize = 3;

/// Every call in progress, and what is left of those that stand.
pub(crate) struct Calls {
    messages: Messages,
    pub(crate) queues: Queues,
    slots: Vec<Call>,
    free: Vec<usize>,
    resends: VecDeque<Resend>,
    next_number: u64,
    held: Vec<Option<Held>>,
    hangups: Vec<Hangup>,
    refreshes: Refreshes,
}

#[derive(Default)]
struct Call {
    serial: u64,
    step: Step,
    tries: u8,
    hold: bool,
    interval_s: u32,
    sent: Option<Instant>,
    /// When its 200 first reached the caller.
    answered: Option<Instant>,
    head: Vec<u8>,
    ack: Vec<u8>,
    bye: Vec<u8>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Step {
    #[default]
    Free,
    Invited,
    Answered,
    Leaving,
}

struct Resend {
    at: Instant,
    serial: u64,
    step: Step,
}

impl Calls {
    /// No calls yet, between a caller at `uac` and a callee at `uas`.
    pub(crate) fn new(uac: SocketAddrV4, uas: SocketAddrV4, manners: Manners) -> Self {
        let slots = 1 << SLOT_BITS;
        Self {
            messages: Messages::new(uac, uas, manners),
            queues: Queues::default(),
            slots: std::iter::repeat_with(Call::default).take(slots).collect(),
            free: (0..slots).rev().collect(),
            resends: VecDeque::new(),
            next_number: 0,
            held: Vec::new(),
            hangups: Vec::new(),
            refreshes: Refreshes::default(),
        }
    }

    /// Calls in progress; held ones do not count.
    pub(crate) fn open(&self) -> u64 {
        (self.slots.len() - self.free.len()) as u64
    }

    /// Sessions left standing, with their numbers.
    pub(crate) fn held(&self) -> impl Iterator<Item = (u64, Held)> {
        self.held.iter().enumerate().filter_map(|(number, held)| Some((number as u64, (*held)?)))
    }

    /// BYEs from outside so far, in the order they came, repeats included.
    pub(crate) fn hangups(&self) -> &[Hangup] {
        &self.hangups
    }

    /// Refreshes and probes from outside so far.
    pub(crate) fn refreshes(&self) -> &Refreshes {
        &self.refreshes
    }

    /// Begins a call; `false` when all slots are taken.
    pub(crate) fn launch(&mut self, interval_s: u32, hold: bool, now: Instant) -> bool {
        let Some(slot) = self.free.pop() else { return false };
        let serial = self.next_number << SLOT_BITS | slot as u64;
        self.next_number += 1;
        let call = &mut self.slots[slot];
        (call.serial, call.interval_s, call.hold, call.step) = (serial, interval_s, hold, Step::Free);
        self.advance(slot, Step::Invited, now);
        self.transmit(slot);
        true
    }

    /// Takes a message that came to `phone`.
    pub(crate) fn receive(&mut self, phone: Phone, message: &[u8], now: Instant, outcome: &mut Outcome) {
        let Some(serial) = wire::serial(message) else { return outcome.strays += 1 };
        let slot = (serial & ((1 << SLOT_BITS) - 1)) as usize;
        let step = if self.slots[slot].serial == serial { self.slots[slot].step } else { Step::Free };
        match (phone, wire::kind(message), step) {
            (Phone::Uas, Kind::Invite, Step::Invited) => self.ring(slot, message, now, outcome),
            (Phone::Uac, Kind::InviteResponse(180), Step::Invited) => {
                self.advance(slot, Step::Answered, now);
                self.transmit(slot);
            }
            (Phone::Uac, Kind::InviteResponse(200), Step::Answered) => self.acknowledge(slot, message, now, outcome),
            (Phone::Uas, Kind::Ack, Step::Answered) => self.established(slot, now, outcome),
            (Phone::Uac, Kind::ByeResponse(200), Step::Leaving) => {
                outcome.completed += 1;
                self.release(slot);
            }
            (_, Kind::Bye, _) => self.bye(phone, message, serial, step, now),
            (Phone::Uac, Kind::Update | Kind::Invite, _) => self.refresh(message, serial, now, outcome),
            (Phone::Uac, Kind::Ack, _) => {}
            (Phone::Uas, Kind::Options, _) => {
                self.refreshes.probed();
                self.queues.uas[DONE].push(|out| self.messages.done(out, message));
            }
            (Phone::Uac, Kind::InviteResponse(status @ 300..), Step::Invited | Step::Answered)
            | (Phone::Uac, Kind::ByeResponse(status @ 300..), Step::Leaving) => {
                outcome.refused(status);
                self.release(slot);
            }
            (Phone::Uac, Kind::InviteResponse(100..=199), _) => {}
            _ => outcome.strays += 1,
        }
    }

    /// Sends again what was sent [`RESEND_AFTER`] ago and had no effect.
    pub(crate) fn resend(&mut self, now: Instant, outcome: &mut Outcome) {
        while self.resends.front().is_some_and(|resend| resend.at <= now) {
            let Some(Resend { serial, step, .. }) = self.resends.pop_front() else { return };
            let slot = (serial & ((1 << SLOT_BITS) - 1)) as usize;
            let call = &mut self.slots[slot];
            if (call.serial, call.step) != (serial, step) {
                continue;
            }
            call.tries += 1;
            if call.tries == TRIES_MAX {
                outcome.failed += 1;
                self.release(slot);
                continue;
            }
            outcome.resent += 1;
            self.resends.push_back(Resend { at: now + RESEND_AFTER, serial, step });
            self.transmit(slot);
        }
    }

    /// Forgets the calls in progress and says how many there were.
    pub(crate) fn abandon(&mut self) -> u64 {
        let open = self.open();
        let busy: Vec<usize> = (0..self.slots.len()).filter(|&slot| self.slots[slot].step != Step::Free).collect();
        busy.into_iter().for_each(|slot| self.release(slot));
        self.resends.clear();
        open
    }

    fn advance(&mut self, slot: usize, step: Step, now: Instant) {
        let call = &mut self.slots[slot];
        (call.step, call.tries, call.sent) = (step, 0, Some(now));
        self.resends.push_back(Resend { at: now + RESEND_AFTER, serial: call.serial, step });
    }

    fn release(&mut self, slot: usize) {
        self.slots[slot].step = Step::Free;
        self.free.push(slot);
    }

    /// Sends the message that the call's step waits on.
    fn transmit(&mut self, slot: usize) {
        let Self { messages, queues, slots, .. } = self;
        let call = &slots[slot];
        match call.step {
            Step::Free => {}
            Step::Invited => queues.uac[INVITES].push(|out| messages.invite(out, call.serial, call.interval_s)),
            Step::Answered => {
                queues.uas[ANSWERS].push(|out| messages.answer(out, &call.head, call.serial, call.interval_s));
            }
            Step::Leaving => queues.uac[BYES].push(|out| out.extend_from_slice(&call.bye)),
        }
    }

    fn ring(&mut self, slot: usize, invite: &[u8], now: Instant, outcome: &mut Outcome) {
        let Self { messages, queues, slots, .. } = self;
        let call = &mut slots[slot];
        if let Some(sent) = call.sent.take() {
            outcome.trip(now - sent);
        }
        call.head.clear();
        wire::response_head(invite, &mut call.head);
        queues.uas[TRYING].push(|out| messages.trying(out, &call.head));
        queues.uas[RINGING].push(|out| messages.ringing(out, &call.head, call.serial));
    }

    fn acknowledge(&mut self, slot: usize, response: &[u8], now: Instant, outcome: &mut Outcome) {
        let Self { messages, queues, slots, .. } = self;
        let call = &mut slots[slot];
        if let Some(sent) = call.sent.take() {
            outcome.trip(now - sent);
            call.answered = Some(now);
            messages.ack_and_bye(&mut call.ack, &mut call.bye, call.serial, response);
        }
        queues.uac[ACKS].push(|out| out.extend_from_slice(&call.ack));
    }

    fn established(&mut self, slot: usize, now: Instant, outcome: &mut Outcome) {
        let call = &self.slots[slot];
        if call.hold {
            let number = (call.serial >> SLOT_BITS) as usize;
            self.held.resize(self.held.len().max(number + 1), None);
            self.held[number] = Some(Held { answered: call.answered.unwrap_or(now), interval_s: call.interval_s });
            outcome.completed += 1;
            self.release(slot);
        } else {
            self.advance(slot, Step::Leaving, now);
            self.transmit(slot);
        }
    }

    /// Answers a BYE, whoever sent it.
    fn bye(&mut self, phone: Phone, bye: &[u8], serial: u64, step: Step, now: Instant) {
        if (phone, step) != (Phone::Uas, Step::Leaving) {
            self.hangups.push(Hangup { number: serial >> SLOT_BITS, phone, at: now });
        }
        let queues = match phone {
            Phone::Uac => &mut self.queues.uac,
            Phone::Uas => &mut self.queues.uas,
        };
        queues[DONE].push(|out| self.messages.done(out, bye));
    }

    /// Answers a refresh of a held call.
    fn refresh(&mut self, refresh: &[u8], serial: u64, now: Instant, outcome: &mut Outcome) {
        let number = serial >> SLOT_BITS;
        let held = self.held.get(number as usize).copied().flatten();
        let (Some(held), Some(cseq)) = (held, wire::cseq(refresh)) else { return outcome.strays += 1 };
        self.refreshes.refreshed(number, cseq, held.answered, now);
        self.queues.uac[DONE].push(|out| self.messages.refreshed(out, refresh));
    }
}
