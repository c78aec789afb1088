//! What one agent says and hears of media in a dialog (RFC 3264): its own description and the other side's, as last
//! agreed, and the offer that waits for its answer.

/// What an offer asks for beyond what is agreed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    Nothing,
    /// Hold, or resume what is held.
    Hold,
    /// Fax instead of voice (T.38).
    Fax,
}

/// The descriptions of one dialog.
#[derive(Clone, Debug)]
pub struct Media {
    owner: String,
    version: u32,
    /// Speaks DTLS-SRTP.
    secured: bool,
    /// Raises its version with every answer, changed or not.
    pub restless: bool,
    /// Ours, as last agreed.
    pub mine: Option<String>,
    /// The other side's.
    pub theirs: Option<String>,
    /// Ours, waiting for its answer.
    pub offered: Option<String>,
}

impl Media {
    pub fn new(owner: &str, secured: bool) -> Media {
        let (mine, theirs, offered) = (None, None, None);
        Media { owner: owner.into(), version: 1, secured, restless: false, mine, theirs, offered }
    }

    /// The next offer.
    pub fn offer(&mut self, change: Change) -> String {
        let held = self.mine.as_deref().is_some_and(|sdp| sdp.contains("a=sendonly"));
        let said = match (change, &self.mine) {
            (Change::Nothing, Some(mine)) => mine.clone(),
            (Change::Nothing, None) => self.text("audio 4000 RTP/AVP 0", "sendrecv"),
            (Change::Hold, _) => self.newer("audio 4000 RTP/AVP 0", if held { "sendrecv" } else { "sendonly" }),
            (Change::Fax, _) => self.newer("image 4002 udptl t38", "sendrecv"),
        };
        self.offered = Some(said.clone());
        said
    }

    /// Accepts an offer; gives the answer.
    pub fn answer(&mut self, offer: &str) -> String {
        let direction = match offer {
            offer if offer.contains("a=sendonly") => "recvonly",
            offer if offer.contains("a=recvonly") => "sendonly",
            _ => "sendrecv",
        };
        let kind = if offer.contains("m=image") { "image 4002 udptl t38" } else { "audio 4000 RTP/AVP 0" };
        let same = self.text(kind, direction);
        let answer =
            if self.mine.as_ref() == Some(&same) && !self.restless { same } else { self.newer(kind, direction) };
        (self.mine, self.theirs, self.offered) = (Some(answer.clone()), Some(offer.to_owned()), None);
        answer
    }

    /// The other side answered our offer; with nothing: it did not.
    pub fn answered(&mut self, answer: &str) {
        if let Some(offer) = self.offered.take().filter(|_| !answer.is_empty()) {
            (self.mine, self.theirs) = (Some(offer), Some(answer.to_owned()));
        }
    }

    fn newer(&mut self, kind: &str, direction: &str) -> String {
        self.version += u32::from(self.mine.is_some());
        self.text(kind, direction)
    }

    fn text(&self, kind: &str, direction: &str) -> String {
        let (owner, version) = (&self.owner, self.version);
        let security = if self.secured { "a=setup:actpass\r\na=fingerprint:sha-256 AB:CD\r\n" } else { "" };
        let session =
            format!("v=0\r\no={owner} 1 {version} IN IP4 192.0.2.99\r\ns=-\r\nc=IN IP4 192.0.2.99\r\nt=0 0\r\n");
        format!("{session}m={kind}\r\n{security}a={direction}\r\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_says_nothing_new_keeps_its_version() {
        let (mut caller, mut callee) = (Media::new("a", false), Media::new("b", false));
        let opening = caller.offer(Change::Nothing);
        let answer = callee.answer(&opening);
        caller.answered(&answer);
        assert_eq!(caller.offer(Change::Nothing), opening);
        assert_eq!(callee.answer(&opening), answer);
        let held = caller.offer(Change::Hold);
        assert_ne!(callee.answer(&held), answer);
    }

    #[test]
    fn a_refused_offer_leaves_what_was_agreed() {
        let mut caller = Media::new("a", false);
        let opening = caller.offer(Change::Nothing);
        caller.answered("v=0\r\n");
        caller.offer(Change::Fax);
        caller.answered("");
        assert_eq!(caller.mine, Some(opening));
    }
}
