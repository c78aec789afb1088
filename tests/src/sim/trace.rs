//! What crossed the sidecar's border, for tests to look at and for people to read.

use std::fmt;

use sipwarden_session_timer::{Flow, Leg};

use super::message::Sip;

/// One message that arrived at the sidecar, or left it.
#[derive(Clone, Debug)]
pub struct Crossing {
    /// Milliseconds.
    pub at: u64,
    /// Which sidecar.
    pub sidecar: usize,
    pub leg: Leg,
    pub arrives: bool,
    pub flow: Flow,
    pub sip: Sip,
}

impl Crossing {
    /// Did it leave towards `leg` as this kind of message: a method, or `200 INVITE`?
    pub fn is(&self, leg: Leg, kind: &str) -> bool {
        !self.arrives && self.leg == leg && self.kind() == kind
    }

    /// The method, or status and method.
    pub fn kind(&self) -> String {
        match self.sip.status() {
            Some(status) => format!("{status} {}", self.sip.cseq().1),
            None => self.sip.cseq().1.to_owned(),
        }
    }
}

impl fmt::Display for Crossing {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let arrow = match (self.leg, self.arrives) {
            (Leg::Local, true) => "app → sidecar",
            (Leg::Local, false) => "app ← sidecar",
            (Leg::Remote, true) => "              sidecar ← peer",
            (Leg::Remote, false) => "              sidecar → peer",
        };
        let (seconds, ms) = (self.at / 1000, self.at % 1000);
        let number = if self.sidecar > 0 { "B " } else { "" };
        write!(f, "{seconds:>6}.{ms:03} {number}{arrow:<28} {:<12} {}", self.kind(), self.sip.call_id())?;
        write!(f, " {} {:?}→{:?}", self.sip.cseq().0, self.sip.tag("From"), self.sip.tag("To"))?;
        for name in ["Session-Expires", "Min-SE", "Require", "Supported"] {
            if let Some(value) = self.sip.get(name) {
                write!(f, " [{name}: {value}]")?;
            }
        }
        Ok(())
    }
}

/// The log as text; of one call, when `about` names it.
pub fn text(log: &[Crossing], about: &str) -> String {
    let named =
        log.iter().find(|crossing| about.contains(crossing.sip.call_id())).map(|crossing| crossing.sip.call_id());
    let of_call = |crossing: &&Crossing| named.is_none_or(|named| crossing.sip.call_id() == named);
    log.iter().filter(of_call).map(|crossing| format!("{crossing}\n")).collect()
}
