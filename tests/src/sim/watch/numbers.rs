//! CSeq numbers as they come and as they leave (RFC 3261 §12.2.1.1): strictly rising per direction of a dialog, whoever
//! makes the requests, with ACK, CANCEL, RAck and responses on the number of their request.

use std::collections::HashMap;

use super::super::message::Sip;

/// Call-ID, sender's tag, receiver's tag (none in an initial request).
type Direction = (String, String, Option<String>);

/// One direction of a dialog.
#[derive(Default)]
struct Space {
    /// The numbers a request left with, by its sender's number: one, and one more for each time it was sent once more.
    left: HashMap<u32, Vec<u32>>,
    highest_own: u32,
    highest_leaving: u32,
}

/// All directions.
#[derive(Default)]
pub(super) struct Numbers {
    spaces: HashMap<Direction, Space>,
}

/// What a number in a response is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// The requester's number of the request it answers.
    Own(u32),
    /// It answers an earlier try of the requester's request.
    Earlier(u32),
    Unknown,
}

fn direction(sip: &Sip, from: &str, to: &str) -> Direction {
    (sip.call_id().to_owned(), sip.tag(from).unwrap_or_default().to_owned(), sip.tag(to).map(str::to_owned))
}

impl Numbers {
    /// A request passed.
    pub(super) fn passed(&mut self, came: &Sip, left: &Sip) -> Result<(), String> {
        let ((own, method), (leaving, left_method)) = (came.cseq(), left.cseq());
        if method != left_method {
            return Err(format!("{method} left as {left_method}"));
        }
        let key = direction(came, "From", "To");
        if matches!(method, "ACK" | "CANCEL") {
            let expected = self.leaving(&key, own).unwrap_or(own);
            return if leaving == expected {
                Ok(())
            } else {
                Err(format!("{method} of {expected} left with {leaving}"))
            };
        }
        self.check_rack(came, left, &key)?;
        let opened = (key.0.clone(), key.1.clone(), None);
        let floor = self.spaces.get(&opened).map_or((0, 0), |space| (space.highest_own, space.highest_leaving));
        let space = self.spaces.entry(key).or_default();
        let (highest_own, highest) = (space.highest_own.max(floor.0), space.highest_leaving.max(floor.1));
        let known = space.left.entry(own).or_default();
        match known.last() {
            Some(last) if *last == leaving => return Ok(()),
            Some(last) => return Err(format!("{own} left as {last}, and now as {leaving}")),
            None if own > highest_own && leaving <= highest => {
                return Err(format!("{method} {own} left as {leaving}, and {highest} has left before"));
            }
            None => known.push(leaving),
        }
        (space.highest_own, space.highest_leaving) = (own.max(highest_own), leaving.max(highest));
        Ok(())
    }

    /// A request of the sidecar left, in the name of its From.
    pub(super) fn made(&mut self, own: &Sip) {
        let space = self.spaces.entry(direction(own, "From", "To")).or_default();
        space.highest_leaving = space.highest_leaving.max(own.cseq().0);
    }

    /// A request that had left as `before` left once more, as `again`.
    pub(super) fn retried(&mut self, before: u32, again: &Sip) -> Result<u32, String> {
        let key = direction(again, "From", "To");
        let space = self.spaces.get_mut(&key).ok_or("a request nobody sent is sent once more")?;
        let found = space.left.iter_mut().find(|(_, left)| left.last() == Some(&before));
        let (own, left) = found.ok_or_else(|| format!("nothing left as {before} that could be sent once more"))?;
        let number = again.cseq().0;
        if number <= space.highest_leaving {
            return Err(format!("sent once more as {number}, and {} has left before", space.highest_leaving));
        }
        left.push(number);
        space.highest_leaving = number;
        Ok(*own)
    }

    /// What the number of a response is that came.
    pub(super) fn origin(&self, response: &Sip) -> Origin {
        let key = direction(response, "From", "To");
        let number = response.cseq().0;
        for key in [key.clone(), (key.0, key.1, None)] {
            let Some(space) = self.spaces.get(&key) else { continue };
            let found = space.left.iter().find(|(_, left)| left.contains(&number));
            match found {
                Some((own, left)) if left.last() == Some(&number) => return Origin::Own(*own),
                Some((own, _)) => return Origin::Earlier(*own),
                None => {}
            }
        }
        Origin::Unknown
    }

    fn leaving(&self, key: &Direction, own: u32) -> Option<u32> {
        let of = |key: &Direction| self.spaces.get(key)?.left.get(&own)?.last().copied();
        of(key).or_else(|| of(&(key.0.clone(), key.1.clone(), None)))
    }

    fn check_rack(&self, came: &Sip, left: &Sip, key: &Direction) -> Result<(), String> {
        let parts = |sip: &Sip| -> Option<(String, u32)> {
            let rack = sip.get("RAck")?;
            let mut words = rack.split(' ');
            Some((words.next()?.to_owned(), words.next()?.parse().ok()?))
        };
        let Some((rseq, own)) = parts(came) else { return Ok(()) };
        let expected = Some((rseq, self.leaving(key, own).unwrap_or(own)));
        if parts(left) == expected { Ok(()) } else { Err(format!("RAck left as {:?}, not {expected:?}", parts(left))) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(method: &str, number: u32) -> Sip {
        let mut sip = Sip::request(method, "sip:b@192.0.2.1");
        sip.push("From", "<sip:a@x>;tag=a");
        sip.push("To", "<sip:b@x>;tag=b");
        sip.push("Call-ID", "c");
        sip.push("CSeq", &format!("{number} {method}"));
        sip
    }

    #[test]
    fn a_number_that_left_before_is_noticed() {
        let mut numbers = Numbers::default();
        numbers.passed(&request("INFO", 5), &request("INFO", 5)).expect("the first");
        numbers.made(&request("UPDATE", 6));
        assert!(numbers.passed(&request("BYE", 6), &request("BYE", 6)).is_err());
        numbers.passed(&request("BYE", 6), &request("BYE", 7)).expect("above ours");
        assert_eq!(numbers.origin(&request("BYE", 7)), Origin::Own(6));
    }

    #[test]
    fn an_ack_or_a_rack_of_another_invite_is_noticed() {
        let mut numbers = Numbers::default();
        numbers.made(&request("UPDATE", 8));
        numbers.passed(&request("INVITE", 8), &request("INVITE", 9)).expect("above ours");
        assert!(numbers.passed(&request("ACK", 8), &request("ACK", 8)).is_err());
        numbers.passed(&request("ACK", 8), &request("ACK", 9)).expect("its INVITE's");
        let prack = |own, acknowledged| {
            let mut prack = request("PRACK", own);
            prack.push("RAck", &format!("1 {acknowledged} INVITE"));
            prack
        };
        assert!(numbers.passed(&prack(9, 8), &prack(10, 8)).is_err());
        numbers.passed(&prack(9, 8), &prack(10, 9)).expect("both mapped");
    }
}
