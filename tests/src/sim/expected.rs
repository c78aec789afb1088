//! One dialog and the session it must have, as the reference model sees it.

use sipwarden_session_timer::{EndCause, ExpiryAction, Leg, SessionState, SessionView, Timers};

use super::message::param;

/// Wheel granularity: so much later than its time an expiry may be noticed.
const TICK_MS: u64 = 16;

/// A dialog and the session it must have.
#[derive(Clone, Debug)]
pub struct Expected {
    pub call_id: String,
    /// Local's, Remote's.
    pub tags: [String; 2],
    pub caller: Leg,
    pub interval: Option<u32>,
    pub refresher: Option<Leg>,
    /// Milliseconds.
    pub expires_at: Option<u64>,
    pub end: Option<EndCause>,
    pub timers: Timers,
    pub enforces: bool,
    pub(super) heard_at: u64,
    pub(super) ended_at: u64,
    pub(super) highest_min_se: u32,
}

impl Expected {
    pub(super) fn finish(&mut self, now: u64, cause: EndCause) {
        (self.end, self.ended_at, self.expires_at) = (Some(cause), now, None);
    }

    /// How long it answers late requests once it has expired.
    pub(super) fn remembered_ms(&self) -> u64 {
        (u64::from(self.interval.unwrap_or(0)) * 1000).max(32_000)
    }

    /// Is expiry acted upon?
    pub fn acts(&self) -> bool {
        self.enforces && self.timers.expiry == ExpiryAction::Bye
    }

    /// True when the session has just expired.
    pub(super) fn agree(&mut self, now: u64, view: &SessionView) -> Result<bool, String> {
        let fail = |what: String| Err(format!("{} {:?}: {what}", self.call_id, self.tags));
        match (self.end, view.state) {
            (Some(mine), SessionState::Ended(theirs)) if mine == theirs => return Ok(false),
            (None, SessionState::Active) => {}
            (None, SessionState::Ended(EndCause::Expired)) if self.acts() => {
                return match self.expires_at {
                    Some(at) if at <= now => {
                        self.finish(now, EndCause::Expired);
                        Ok(true)
                    }
                    at => fail(format!("expired at {now}, and should at {at:?}")),
                };
            }
            (mine, theirs) => return fail(format!("it is {theirs:?}, and should be {mine:?} (None: active)")),
        }
        if view.expires_at.is_none() && !self.acts() && self.expires_at.is_some_and(|at| at <= now) {
            (self.interval, self.refresher, self.expires_at) = (None, None, None);
        }
        if self.expires_at.is_some_and(|at| at + TICK_MS < now) {
            return fail(format!("it should have expired at {:?}", self.expires_at));
        }
        let theirs = (view.interval, view.refresher, view.expires_at.map(|at| at.as_millis()));
        let mine = (self.interval, self.refresher, self.expires_at);
        if theirs == mine { Ok(false) } else { fail(format!("its timer is {theirs:?}, and should be {mine:?}")) }
    }
}

/// The tag in a From or To value of the view.
pub(super) fn tag_of(party: &[u8]) -> String {
    let party = String::from_utf8_lossy(party);
    let params = party.rsplit_once('>').map_or("", |(_, params)| params);
    param(params, "tag").unwrap_or_default().to_owned()
}
