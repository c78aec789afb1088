//! What a request of ours inside someone's dialog is made of, kept in one allocation per session.

use sipwarden_sip::value::NameAddr;

use crate::Leg;

/// Per leg: From/To value with tag, remote target URI, route set. Offsets are 16 bit: [`Identity::new`] refuses more.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    bytes: Box<[u8]>,
    /// Ends of the six fields in `bytes`, in the order of [`Part`] × leg.
    ends: [u16; 6],
    /// Where each leg's tag stands in `bytes`.
    tags: [(u16, u16); 2],
}

/// What one leg contributes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Party<'a> {
    /// The From or To value naming this leg, tag included.
    pub(crate) party: &'a [u8],
    /// The URI of its Contact.
    pub(crate) target: &'a [u8],
    /// Route values for requests to it, nearest first, as a comma list.
    pub(crate) routes: &'a [u8],
}

impl Identity {
    /// `None` when it is longer than `limit` bytes (at most 65,535), or a party has no tag.
    pub(crate) fn new(legs: [Party; 2], limit: usize) -> Option<Identity> {
        let [local, remote] = legs;
        let fields = [local.party, remote.party, local.target, remote.target, local.routes, remote.routes];
        let length: usize = fields.iter().map(|field| field.len()).sum();
        if length > limit.min(usize::from(u16::MAX)) {
            return None;
        }
        let mut bytes = Vec::with_capacity(length);
        let mut ends = [0; 6];
        for (end, field) in ends.iter_mut().zip(fields) {
            bytes.extend_from_slice(field);
            *end = bytes.len() as u16;
        }
        let tag = |party: &[u8], at: usize| {
            // A parameter without a value is no part of `party`, and no tag.
            let tag = NameAddr::parse(party).ok()?.param("tag").filter(|tag| !tag.is_empty())?;
            let offset = at + (tag.as_ptr() as usize - party.as_ptr() as usize);
            Some((offset as u16, (offset + tag.len()) as u16))
        };
        let tags = [tag(local.party, 0)?, tag(remote.party, local.party.len())?];
        Some(Identity { bytes: bytes.into_boxed_slice(), ends, tags })
    }

    pub(crate) fn leg(&self, leg: Leg) -> Party<'_> {
        let index = leg.index();
        Party { party: self.field(index), target: self.field(2 + index), routes: self.field(4 + index) }
    }

    pub(crate) fn tag(&self, leg: Leg) -> &[u8] {
        let (start, end) = self.tags[leg.index()];
        &self.bytes[usize::from(start)..usize::from(end)]
    }

    /// A target refresh (RFC 3261 §12.2): does nothing when the target is the same or would not fit.
    pub(crate) fn set_target(&mut self, leg: Leg, target: &[u8], limit: usize) {
        if self.leg(leg).target == target {
            return;
        }
        let mut legs = Leg::BOTH.map(|leg| self.leg(leg));
        legs[leg.index()].target = target;
        if let Some(changed) = Identity::new(legs, limit) {
            *self = changed;
        }
    }

    fn field(&self, index: usize) -> &[u8] {
        let start = if index == 0 { 0 } else { self.ends[index - 1] };
        &self.bytes[usize::from(start)..usize::from(self.ends[index])]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOCAL: Party = Party { party: b"<sip:pbx@pod>;tag=l1", target: b"sip:pbx@127.0.0.1", routes: b"" };
    const REMOTE: Party = Party {
        party: b"\"A;tag=no\" <sip:a@x;tag=no> ; tag = r1",
        target: b"sip:a@192.0.2.1",
        routes: b"<sip:p1;lr>",
    };

    #[test]
    fn fields_come_back_as_they_went_in() {
        let identity = Identity::new([LOCAL, REMOTE], 1000).expect("fits");
        assert_eq!(identity.leg(Leg::Local), LOCAL);
        assert_eq!(identity.leg(Leg::Remote), REMOTE);
        assert_eq!(identity.tag(Leg::Local), b"l1");
        assert_eq!(identity.tag(Leg::Remote), b"r1");
    }

    #[test]
    fn a_target_refresh_changes_only_that_target() {
        let mut identity = Identity::new([LOCAL, REMOTE], 1000).expect("fits");
        identity.set_target(Leg::Remote, b"sip:a@192.0.2.99:5080", 1000);
        assert_eq!(identity.leg(Leg::Local), LOCAL);
        assert_eq!(identity.leg(Leg::Remote), Party { target: b"sip:a@192.0.2.99:5080", ..REMOTE });
        assert_eq!(identity.tag(Leg::Remote), b"r1");
    }

    #[test]
    fn what_is_too_large_or_has_no_tag_is_refused() {
        assert!(Identity::new([LOCAL, REMOTE], 20).is_none());
        for party in [&b"<sip:x@y>"[..], b"<sip:x@y>;tag", b"<sip:x@y>;tag="] {
            assert!(Identity::new([Party { party, ..LOCAL }, REMOTE], 1000).is_none());
        }
        let mut identity = Identity::new([LOCAL, REMOTE], 110).expect("fits");
        identity.set_target(Leg::Local, &[b'x'; 200], 110);
        assert_eq!(identity.leg(Leg::Local), LOCAL, "kept as it was");
    }
}
