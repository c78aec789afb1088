//! A 422 to a request of an application that knows no timers is ours to answer: with the request once more, its CSeq one
//! higher, and the interval that was asked for (RFC 4028 §7.3). The application sees none of it.

use sipwarden_sip::{Edits, HeaderName, Message, Method, Slots};

use super::judging::repeat_request;
use super::requests::write_cseq;
use super::responses::Answer;
use super::{Action, Dialogs, Resend, Verdict};
use crate::acting::Half;
use crate::negotiation::Offer;
use crate::session::{Retry, Ruling};
use crate::{EventKind, Flow, Leg, Seconds, Time};

/// Several hops may each ask for more than the one before.
pub(super) const MOST_TRIES: u8 = 5;

/// What there is to send once more.
struct Again<'a> {
    half: Half,
    ruling: &'a Ruling,
    retry: &'a Retry,
    offer: Offer,
    leaving: u32,
    flow: Flow,
}

impl Dialogs {
    /// Answers a 422 to the application's INVITE with another try; false when there shall be none.
    pub(super) fn retry_setup(&mut self, now: Time, call: u32, answer: Answer, rejection: &Message) -> bool {
        let Some(setup) = self.calls[call as usize].setup(answer.by.other(), answer.from_tag, answer.cseq) else {
            return false;
        };
        let (limits, flow) = (Limits::of(&setup.ruling, setup.min_se), setup.flow);
        let Some(retry) = setup.retry.as_mut().filter(|_| !setup.cancelled && !setup.answered) else { return false };
        let Some(min_se) = limits.follow(retry.tries, setup.offer, rejection) else { return false };
        let before = setup.numbers.leaves_as(setup.cseq);
        let Some(leaving) = setup.numbers.renumber(setup.cseq) else { return false };
        retry.tries += 1;
        setup.min_se = min_se;
        setup.offer = raised(setup.offer, min_se);
        let again = Again { half: setup.half, ruling: &setup.ruling, retry, offer: setup.offer, leaving, flow };
        let interval = setup.offer.interval.unwrap_or(min_se);
        let sent = [again.ack(before, rejection, answer.flow), again.request(answer.flow)];
        setup.touch(now);
        setup.tell(now, EventKind::Retried { interval }, &mut self.actions);
        self.actions.extend(sent.into_iter().flatten().map(Action::Resend));
        true
    }

    /// Answers a 422 to the application's re-INVITE or UPDATE with another try; false when there shall be none.
    pub(super) fn retry_refresh(
        &mut self,
        now: Time,
        slot: u32,
        position: usize,
        answer: Answer,
        rejection: &Message,
    ) -> bool {
        let session = &mut self.sessions[slot as usize];
        let leg = &mut session.legs[answer.by.other().index()];
        let refresh = &mut session.refreshes[position];
        let Some(retry) = refresh.retry.as_mut() else { return false };
        let limits = Limits::of(&refresh.ruling, 0);
        let Some(min_se) = limits.follow(retry.tries, refresh.offer, rejection) else { return false };
        let before = leg.numbers.leaves_as(refresh.cseq);
        let Some(leaving) = leg.numbers.renumber(refresh.cseq) else { return false };
        retry.tries += 1;
        refresh.offer = raised(refresh.offer, min_se);
        let again =
            Again { half: refresh.half, ruling: &refresh.ruling, retry, offer: refresh.offer, leaving, flow: leg.flow };
        let interval = refresh.offer.interval.unwrap_or(min_se);
        let ack = if answer.method == Method::Invite { again.ack(before, rejection, answer.flow) } else { None };
        let sent = [ack, again.request(answer.flow)];
        session.tell(now, EventKind::Retried { interval }, &mut self.actions);
        self.actions.extend(sent.into_iter().flatten().map(Action::Resend));
        true
    }

    /// A response to an earlier try: its final one is acknowledged again, and the application hears of none.
    pub(super) fn left_behind(
        &mut self,
        call: u32,
        session: Option<u32>,
        answer: Answer,
        leaving: u32,
        response: &Message,
    ) -> Verdict {
        let from = answer.by.other();
        let of_session = session.and_then(|slot| {
            let session = &self.sessions[slot as usize];
            let leg = &session.legs[from.index()];
            session.refreshes.iter().filter(|refresh| refresh.from == from).find_map(|refresh| {
                let retry = refresh.retry.as_ref()?;
                let (half, ruling, offer, flow) = (refresh.half, &refresh.ruling, refresh.offer, leg.flow);
                let found = retry.was_left_behind(&leg.numbers, leaving, refresh.cseq);
                found.then_some(Again { half, ruling, retry, offer, leaving, flow })
            })
        });
        let again = of_session.or_else(|| {
            self.calls[call as usize].setups.iter().find_map(|setup| {
                let retry = setup.retry.as_ref().filter(|_| setup.retried_from(from, answer.from_tag, leaving))?;
                let (half, ruling, offer, flow) = (setup.half, &setup.ruling, setup.offer, setup.flow);
                Some(Again { half, ruling, retry, offer, leaving, flow })
            })
        });
        // One that is over already is not acknowledged again, and its requester waits for nothing of that number.
        if answer.status >= 300 && answer.method == Method::Invite {
            let ack = again.and_then(|again| again.ack(leaving, response, answer.flow));
            self.actions.extend(ack.map(Action::Resend));
        }
        Verdict::Absorb
    }
}

/// How far a 422 is followed.
struct Limits {
    least: Seconds,
    most: Seconds,
}

impl Limits {
    fn of(ruling: &Ruling, known: Seconds) -> Limits {
        Limits { least: known, most: ruling.timers().max_min_se_s() }
    }

    /// The Min-SE to offer now. Not for ever, not beyond the policy's bound, and never what was offered already: who asks for
    /// that again would not be content with anything.
    fn follow(&self, tries: u8, offered: Offer, rejection: &Message) -> Option<Seconds> {
        let asked = rejection.min_se().ok().flatten()?.max(self.least);
        let news =
            offered.interval.is_none_or(|interval| asked > interval) || offered.min_se.is_none_or(|min| asked > min);
        (tries < MOST_TRIES && asked <= self.most && news).then_some(asked)
    }
}

/// What is offered once somebody asked for `min_se`.
pub(super) fn raised(offer: Offer, min_se: Seconds) -> Offer {
    let interval = offer.interval.map(|interval| interval.max(min_se));
    Offer { interval, min_se: Some(offer.min_se.unwrap_or(0).max(min_se)), ..offer }
}

impl Again<'_> {
    /// The request, as it leaves now.
    fn request(&self, toward: Flow) -> Option<Resend> {
        let mut slots = Slots::new();
        let message = Message::parse(&self.retry.request, &mut slots).ok()?;
        let mut edits = Edits::new();
        repeat_request(self.ruling, self.half, Leg::Local, &message, self.offer, &mut edits);
        write_cseq(&message, self.leaving, &mut edits);
        let mut bytes = Vec::with_capacity(self.retry.request.len() + 64);
        edits.render(&message, &mut bytes);
        Some(Resend { flow: self.flow, toward, bytes })
    }

    /// The application's ACK to the failure of the try that left with `cseq`.
    fn ack(&self, cseq: u32, response: &Message, toward: Flow) -> Option<Resend> {
        let mut slots = Slots::new();
        let request = Message::parse(&self.retry.request, &mut slots).ok()?;
        let via = request.first_element(HeaderName::Via)?.1;
        let mut bytes = Vec::with_capacity(512);
        let mut put = |parts: &[&[u8]]| parts.iter().for_each(|part| bytes.extend_from_slice(part));
        put(&[b"ACK ", request.request_uri()?, b" SIP/2.0\r\nVia: ", via, b"\r\nMax-Forwards: 70\r\n"]);
        request.all(HeaderName::Route).for_each(|route| put(&[b"Route: ", route.value, b"\r\n"]));
        put(&[b"From: ", request.first(HeaderName::From)?.value, b"\r\nTo: ", response.first(HeaderName::To)?.value]);
        put(&[b"\r\nCall-ID: ", request.call_id()?, b"\r\nCSeq: ", cseq.to_string().as_bytes()]);
        put(&[b" ACK\r\nContent-Length: 0\r\n\r\n"]);
        Some(Resend { flow: self.flow, toward, bytes })
    }
}
