//! Bytes to a message, and a message to its shard. Needs no shard, so a worker does it without a lock.

use std::hash::Hasher;

use siphasher::sip::SipHasher13;
use sipwarden_sip::{Message, ParseError, Slots};

/// The room one worker indexes its messages in.
pub struct Intake {
    slots: Slots,
    /// For a second look at a message whose Content-Length is wrong.
    head_slots: Slots,
}

impl Intake {
    /// Room for one message at a time.
    pub fn new() -> Intake {
        Intake { slots: Slots::new(), head_slots: Slots::new() }
    }

    /// Index one datagram or stream frame. One whose Content-Length is wrong passes here with all that follows as its
    /// body: the shard must see it to answer 400 (RFC 3261 §18.3).
    pub fn receive<'b>(&'b mut self, bytes: &'b [u8]) -> Result<Message<'b>, ParseError> {
        match Message::parse(bytes, &mut self.slots) {
            Err(ParseError::Truncated | ParseError::ContentLength) => Message::parse_head(bytes, &mut self.head_slots),
            result => result,
        }
    }
}

impl Default for Intake {
    fn default() -> Intake {
        Intake::new()
    }
}

/// The shard, below `shards`, that owns a message's call: a keyed hash of Call-ID, so that both directions meet and no
/// sender can aim at one shard. A message without Call-ID belongs to shard 0.
pub fn shard_of(message: &Message, key: u64, shards: usize) -> usize {
    message.call_id().map_or(0, |call_id| shard_of_call(call_id, key, shards))
}

/// The shard, below `shards`, that owns the call of that Call-ID.
pub fn shard_of_call(call_id: &[u8], key: u64, shards: usize) -> usize {
    if shards == 1 {
        return 0;
    }
    let mut hasher = Purpose::Shard.hasher(key);
    hasher.write(call_id);
    usize::try_from(hasher.finish() % shards as u64).expect("below `shards`, a usize")
}

/// What a keyed hash is for: none of them tells about another.
#[derive(Clone, Copy)]
pub(super) enum Purpose {
    Shard,
    Branch,
    Seal,
    Seed,
}

impl Purpose {
    pub(super) fn hasher(self, key: u64) -> SipHasher13 {
        SipHasher13::new_with_keys(key, self as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::message;
    use super::*;

    fn call(call_id: usize, start_line: &str) -> Message<'static> {
        message(&format!("{start_line}\nCall-ID: {call_id}@host\n\n"))
    }

    #[test]
    fn both_directions_of_a_call_meet_in_one_shard() {
        let request = call(7, "BYE sip:a@b SIP/2.0");
        let response = call(7, "SIP/2.0 200 OK");
        assert_eq!(shard_of(&request, 1, 64), shard_of(&response, 1, 64));
        assert_eq!(shard_of(&message("BYE sip:a@b SIP/2.0\n\n"), 1, 64), 0, "no Call-ID");
    }

    #[test]
    fn calls_spread_over_shards_differently_for_each_key() {
        let shards = |key| (0..400).map(|id| shard_of(&call(id, "BYE sip:a@b SIP/2.0"), key, 4)).collect::<Vec<_>>();
        let one = shards(1);
        for shard in 0..4 {
            assert!(one.iter().filter(|got| **got == shard).count() > 50);
        }
        assert_ne!(one, shards(2));
    }

    #[test]
    fn a_wrong_content_length_is_left_to_the_shard_and_garbage_is_not() {
        let mut intake = Intake::new();
        assert!(intake.receive(b"BYE sip:a@b SIP/2.0\r\nContent-Length: 9\r\n\r\nbody").is_ok());
        assert!(intake.receive(b"BYE sip:a@b SIP/2.0\r\nContent-Length: -1\r\n\r\nbody").is_ok());
        assert!(matches!(intake.receive(b"GET / HTTP/1.1\r\n\r\n"), Err(ParseError::StartLine)));
        assert!(matches!(intake.receive(b""), Err(ParseError::Unterminated)));
    }
}
