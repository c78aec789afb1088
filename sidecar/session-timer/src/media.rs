//! The SDP in force: what a refresh by re-INVITE may carry, followed through offers and answers (RFC 3264) as they pass in
//! INVITE, UPDATE, PRACK, their responses and ACK (RFC 3261 §13.2.1, RFC 3262 §5, RFC 3311).
//!
//! Of the application the text is kept, since we may have to say it again; of the remote side only a fingerprint, which
//! tells whether its answer to that is still what the application knows.

use std::hash::{DefaultHasher, Hasher};

use sipwarden_sip::{HeaderName, Message, Method};

use crate::Leg;

/// Session descriptions of a dialog.
#[derive(Clone, Debug, Default)]
pub(crate) struct Media {
    /// The application's, last accepted in an offer/answer round.
    local: Option<Box<[u8]>>,
    /// The fingerprint of the remote side's.
    remote: Option<u64>,
    round: Round,
    /// The INVITE, and the other request, whose round was completed last: SDP that comes again with them says nothing new.
    completed: [Option<Carrier>; 2],
}

/// What a message carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Content<'a> {
    Nothing,
    Sdp(&'a [u8]),
    /// A body that is, or may hide, a description that cannot be followed: encoded, multipart, or of another type.
    Other,
}

/// The request of a round, by the number its sender gave it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Carrier {
    pub(crate) from: Leg,
    pub(crate) method: Method,
    pub(crate) cseq: u32,
}

/// Why the application's SDP cannot be offered again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SdpUnusable {
    /// None has been seen in a completed round, or something was missed.
    Unknown,
    /// An offer waits for its answer.
    OpenOffer,
    /// Its DTLS or ICE attributes belong to one round: saying them again would begin another (RFC 8842, RFC 8839).
    Bound,
}

#[derive(Clone, Debug, Default)]
enum Round {
    #[default]
    Idle,
    /// An INVITE without offer: the other side offers.
    Wanted(Carrier),
    Offered {
        by: Leg,
        carrier: Carrier,
        sdp: Described,
    },
}

#[derive(Clone, Debug)]
enum Described {
    Local(Box<[u8]>),
    Remote(u64),
    Unknown,
}

impl<'a> Content<'a> {
    pub(crate) fn of(message: &Message<'a>) -> Content<'a> {
        let body = message.body();
        if body.is_empty() {
            return Content::Nothing;
        }
        let is_sdp = message.first(HeaderName::ContentType).is_some_and(|header| {
            let kind = header.value.split(|byte| *byte == b';').next().unwrap_or_default();
            kind.trim_ascii().eq_ignore_ascii_case(b"application/sdp")
        });
        if is_sdp && message.first(HeaderName::ContentEncoding).is_none() { Content::Sdp(body) } else { Content::Other }
    }
}

impl Media {
    /// An INVITE, UPDATE or PRACK passed.
    pub(crate) fn request(&mut self, carrier: Carrier, content: Content) {
        if self.is_of(carrier) || self.completed.contains(&Some(carrier)) {
            return;
        }
        match (&self.round, content) {
            (Round::Offered { by, .. }, Content::Sdp(_) | Content::Other)
                if carrier.method == Method::Prack && *by != carrier.from =>
            {
                self.conclude(carrier.from, content);
                self.completed[1] = Some(carrier);
            }
            (_, Content::Nothing) if carrier.method == Method::Invite => self.round = Round::Wanted(carrier),
            (_, Content::Nothing) => {}
            // Whatever was open before is dead: two rounds at once are forbidden, and whoever answers knows it.
            (..) => {
                let sdp = Described::of(carrier.from, content);
                self.round = Round::Offered { by: carrier.from, carrier, sdp };
            }
        }
    }

    /// A final response to `carrier` passed, or a provisional one that is `reliable`.
    pub(crate) fn response(&mut self, carrier: Carrier, status: u16, content: Content) {
        if status >= 300 {
            return self.rejected(carrier);
        }
        match (&self.round, content) {
            (Round::Offered { by, .. }, Content::Nothing) if self.is_of(carrier) => {
                // A 2xx without the answer ends the round; a provisional leaves it open.
                if status >= 200 && *by == carrier.from {
                    self.round = Round::Idle;
                }
            }
            (Round::Offered { by, .. }, _) if self.is_of(carrier) && *by == carrier.from => {
                self.conclude(carrier.from.other(), content);
                self.completed[usize::from(carrier.method != Method::Invite)] = Some(carrier);
            }
            (Round::Wanted(_), Content::Nothing) if self.is_of(carrier) && status >= 200 => self.round = Round::Idle,
            (Round::Wanted(_), Content::Sdp(_) | Content::Other) if self.is_of(carrier) => {
                let by = carrier.from.other();
                self.round = Round::Offered { by, carrier, sdp: Described::of(by, content) };
            }
            (_, Content::Nothing) => {}
            // The 2xx may say again what a reliable provisional offered or answered.
            (..) if self.is_of(carrier) || self.completed.contains(&Some(carrier)) => {}
            // Of a round that was missed.
            (..) => self.forget(),
        }
    }

    /// The ACK to a 2xx passed; `carrier` is its INVITE.
    pub(crate) fn ack(&mut self, carrier: Carrier, content: Content) {
        if !matches!(&self.round, Round::Offered { by, .. } if *by != carrier.from) || !self.is_of(carrier) {
            return;
        }
        match content {
            Content::Nothing => self.round = Round::Idle,
            _ => {
                self.conclude(carrier.from, content);
                self.completed[0] = Some(carrier);
            }
        }
    }

    /// The remote side answered our repetition of the SDP in force. False when it answers otherwise than before, of
    /// which the application knows nothing.
    pub(crate) fn repeated(&mut self, content: Content) -> bool {
        let Content::Sdp(sdp) = content else { return content == Content::Nothing };
        let known = self.remote.replace(fingerprint(sdp));
        known.is_none() || known == self.remote
    }

    /// The application's SDP, as it may be offered again.
    pub(crate) fn in_force(&self) -> Result<&[u8], SdpUnusable> {
        if !matches!(self.round, Round::Idle) {
            return Err(SdpUnusable::OpenOffer);
        }
        let sdp = self.local.as_deref().ok_or(SdpUnusable::Unknown)?;
        if is_bound(sdp) { Err(SdpUnusable::Bound) } else { Ok(sdp) }
    }

    fn is_of(&self, carrier: Carrier) -> bool {
        match &self.round {
            Round::Idle => false,
            Round::Wanted(open) => *open == carrier,
            Round::Offered { carrier: open, .. } => *open == carrier,
        }
    }

    /// `by` answered what is offered.
    fn conclude(&mut self, by: Leg, answer: Content) {
        let Round::Offered { sdp: offer, .. } = std::mem::take(&mut self.round) else { return };
        for sdp in [offer, Described::of(by, answer)] {
            match sdp {
                Described::Local(text) => self.local = Some(text),
                Described::Remote(print) => self.remote = Some(print),
                Described::Unknown => self.forget(),
            }
        }
    }

    /// What was offered is not in force. A re-INVITE that fails after its round was completed undoes it for some and not
    /// for others (RFC 6141): nobody knows what is in force then.
    fn rejected(&mut self, carrier: Carrier) {
        if self.is_of(carrier) {
            self.round = Round::Idle;
        }
        if self.completed[0] == Some(carrier) {
            self.forget();
        }
    }

    fn forget(&mut self) {
        *self = Media { completed: self.completed, ..Media::default() };
    }
}

impl Described {
    fn of(by: Leg, content: Content) -> Described {
        match (content, by) {
            (Content::Sdp(sdp), Leg::Local) => Described::Local(sdp.into()),
            (Content::Sdp(sdp), Leg::Remote) => Described::Remote(fingerprint(sdp)),
            (Content::Nothing | Content::Other, _) => Described::Unknown,
        }
    }
}

fn lines(sdp: &[u8]) -> impl Iterator<Item = &[u8]> {
    sdp.split(|byte| *byte == b'\n').map(|line| line.trim_ascii_end())
}

/// Of where and which way media flow: addresses, ports, directions. Formats are no part of it: an answer lists those of the
/// offer it answers (RFC 3264 §6), and some raise the version of their origin line with every answer.
fn fingerprint(sdp: &[u8]) -> u64 {
    const ONE_WAY: [&[u8]; 3] = [b"a=sendonly", b"a=recvonly", b"a=inactive"];
    let mut hasher = DefaultHasher::new();
    let mut feed = |text: &[u8]| {
        hasher.write(text);
        hasher.write_u8(b'\n');
    };
    for line in lines(sdp) {
        if line.starts_with(b"c=") || ONE_WAY.contains(&line) {
            feed(line);
        } else if line.starts_with(b"m=") {
            line.split(|byte| *byte == b' ').take(2).for_each(&mut feed);
        }
    }
    hasher.finish()
}

fn is_bound(sdp: &[u8]) -> bool {
    const PREFIXES: [&[u8]; 4] = [b"a=setup:", b"a=fingerprint:", b"a=ice-", b"a=candidate:"];
    lines(sdp).any(|line| PREFIXES.iter().any(|prefix| line.starts_with(prefix)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Content = Content::Sdp(b"v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\nm=audio 4000 RTP/AVP 0\r\n");
    const A_HELD: Content =
        Content::Sdp(b"v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\nm=audio 4000 RTP/AVP 0\r\na=sendonly\r\n");
    const B: Content = Content::Sdp(b"v=0\r\no=- 7 1 IN IP4 192.0.2.7\r\nm=audio 6000 RTP/AVP 0\r\n");
    const B_NEWER: Content = Content::Sdp(b"v=0\r\no=- 7 2 IN IP4 192.0.2.7\r\nm=audio 6000 RTP/AVP 0\r\n");
    const B_NARROWED: Content =
        Content::Sdp(b"v=0\r\no=- 7 3 IN IP4 192.0.2.7\r\nm=audio 6000 RTP/AVP 0 101\r\na=sendrecv\r\n");
    const B_MOVED: Content = Content::Sdp(b"v=0\r\no=- 7 2 IN IP4 192.0.2.7\r\nm=audio 7000 RTP/AVP 0\r\n");
    const DTLS: Content = Content::Sdp(b"v=0\r\nm=audio 9 UDP/TLS/RTP/SAVPF 0\r\na=setup:actpass\r\n");

    fn carrier(from: Leg, method: Method, cseq: u32) -> Carrier {
        Carrier { from, method, cseq }
    }

    fn invite(from: Leg, cseq: u32) -> Carrier {
        carrier(from, Method::Invite, cseq)
    }

    fn text(content: Content<'static>) -> Result<&'static [u8], SdpUnusable> {
        let Content::Sdp(sdp) = content else { panic!("a description") };
        Ok(sdp)
    }

    /// After an INVITE of the application with offer A, answered B.
    fn established() -> Media {
        let mut media = Media::default();
        media.request(invite(Leg::Local, 1), A);
        media.response(invite(Leg::Local, 1), 200, B);
        media.ack(invite(Leg::Local, 1), Content::Nothing);
        media
    }

    #[test]
    fn an_offer_is_in_force_once_it_is_answered() {
        let mut media = Media::default();
        assert_eq!(media.in_force(), Err(SdpUnusable::Unknown));
        media.request(invite(Leg::Local, 1), A);
        assert_eq!(media.in_force(), Err(SdpUnusable::OpenOffer));
        media.response(invite(Leg::Local, 1), 200, B);
        assert_eq!(media.in_force(), text(A));
        media.response(invite(Leg::Local, 1), 200, B);
        assert_eq!(media.in_force(), text(A), "the 2xx comes again");
    }

    #[test]
    fn an_answer_of_the_application_is_in_force_too() {
        let mut media = Media::default();
        media.request(invite(Leg::Remote, 1), B);
        media.response(invite(Leg::Remote, 1), 200, A);
        assert_eq!(media.in_force(), text(A));
    }

    #[test]
    fn a_late_offer_is_answered_in_ack() {
        let mut media = Media::default();
        media.request(invite(Leg::Remote, 1), Content::Nothing);
        media.response(invite(Leg::Remote, 1), 200, A);
        assert_eq!(media.in_force(), Err(SdpUnusable::OpenOffer));
        media.ack(invite(Leg::Remote, 1), B);
        assert_eq!(media.in_force(), text(A));
        let mut unanswered = Media::default();
        unanswered.request(invite(Leg::Remote, 1), Content::Nothing);
        unanswered.response(invite(Leg::Remote, 1), 200, A);
        unanswered.ack(invite(Leg::Remote, 1), Content::Nothing);
        assert_eq!(unanswered.in_force(), Err(SdpUnusable::Unknown));
    }

    #[test]
    fn a_reliable_provisional_answers_and_the_2xx_may_say_it_again() {
        let mut media = Media::default();
        media.request(invite(Leg::Local, 1), A);
        media.response(invite(Leg::Local, 1), 183, B);
        assert_eq!(media.in_force(), text(A));
        media.request(carrier(Leg::Local, Method::Prack, 2), Content::Nothing);
        media.response(carrier(Leg::Local, Method::Prack, 2), 200, Content::Nothing);
        media.response(invite(Leg::Local, 1), 200, B);
        assert_eq!(media.in_force(), text(A));
    }

    #[test]
    fn an_offer_in_a_reliable_provisional_is_answered_in_prack() {
        let mut media = Media::default();
        media.request(invite(Leg::Local, 1), Content::Nothing);
        media.response(invite(Leg::Local, 1), 183, B);
        media.request(carrier(Leg::Local, Method::Prack, 2), A);
        media.response(carrier(Leg::Local, Method::Prack, 2), 200, Content::Nothing);
        media.response(invite(Leg::Local, 1), 200, Content::Nothing);
        assert_eq!(media.in_force(), text(A));
    }

    #[test]
    fn hold_and_resume_are_followed_and_not_one_round_behind() {
        let mut media = established();
        media.request(invite(Leg::Local, 2), A_HELD);
        media.response(invite(Leg::Local, 2), 200, B);
        media.ack(invite(Leg::Local, 2), Content::Nothing);
        assert_eq!(media.in_force(), text(A_HELD));
        media.request(carrier(Leg::Local, Method::Update, 3), A);
        assert_eq!(media.in_force(), Err(SdpUnusable::OpenOffer));
        media.response(carrier(Leg::Local, Method::Update, 3), 200, B);
        assert_eq!(media.in_force(), text(A));
        media.request(invite(Leg::Remote, 9), B_MOVED);
        media.response(invite(Leg::Remote, 9), 200, A_HELD);
        assert_eq!(media.in_force(), text(A_HELD));
    }

    #[test]
    fn a_rejected_offer_was_never_in_force() {
        for status in [488, 491, 500] {
            let mut media = established();
            media.request(invite(Leg::Local, 2), A_HELD);
            media.response(invite(Leg::Local, 2), status, Content::Nothing);
            assert_eq!(media.in_force(), text(A));
        }
    }

    #[test]
    fn a_re_invite_that_fails_after_its_answer_leaves_nothing_certain() {
        let mut media = established();
        media.request(invite(Leg::Local, 2), A_HELD);
        media.response(invite(Leg::Local, 2), 183, B);
        media.response(invite(Leg::Local, 2), 500, Content::Nothing);
        assert_eq!(media.in_force(), Err(SdpUnusable::Unknown));
    }

    #[test]
    fn a_retransmitted_offer_does_not_open_a_round_again() {
        let mut media = established();
        media.request(invite(Leg::Local, 1), A);
        assert_eq!(media.in_force(), text(A));
    }

    #[test]
    fn what_cannot_be_followed_is_unknown() {
        let mut media = established();
        media.request(invite(Leg::Local, 2), Content::Other);
        media.response(invite(Leg::Local, 2), 200, B);
        assert_eq!(media.in_force(), Err(SdpUnusable::Unknown));
        let mut missed = established();
        missed.response(invite(Leg::Local, 5), 200, B_MOVED);
        assert_eq!(missed.in_force(), Err(SdpUnusable::Unknown));
    }

    #[test]
    fn dtls_and_ice_are_never_offered_again() {
        let mut media = Media::default();
        media.request(invite(Leg::Local, 1), DTLS);
        media.response(invite(Leg::Local, 1), 200, B);
        assert_eq!(media.in_force(), Err(SdpUnusable::Bound));
    }

    #[test]
    fn an_answer_to_our_repetition_is_compared_by_where_media_flow() {
        let mut media = established();
        assert!(media.repeated(B) && media.repeated(B_NEWER) && media.repeated(B_NARROWED));
        assert!(!media.repeated(B_MOVED));
        assert!(media.repeated(B_MOVED), "told once");
    }
}
