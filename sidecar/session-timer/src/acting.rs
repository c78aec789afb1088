//! Standing in for an application without session timers: who is its RFC 4028 half, and what that half has to do next.

use sipwarden_sip::{HeaderName, Message};

use crate::media::Media;
use crate::negotiation::Offer;
use crate::session::{Pace, Ruling, Timer};
use crate::{ActForApp, Leg, Mode, Seconds, Time};

/// Who speaks RFC 4028 for the application.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Half {
    /// It does itself, or nobody does.
    App,
    /// Its first answer tells.
    Open,
    /// We do, as it says nothing of timers.
    Sidecar,
    /// We do, whatever it says: that is taken out.
    SidecarAlone,
}

/// What we know and do as the RFC 4028 half of one session.
#[derive(Debug)]
pub(crate) struct Acting {
    pub(crate) media: Media,
    /// The remote side knows timers: it would end a session that is not refreshed.
    pub(crate) peer_has_timers: bool,
    pub(crate) remote_update: UpdateSupport,
    pub(crate) app_update: UpdateSupport,
    /// Slot of our refresh or probe under way: never two on a leg, and one leads to the other.
    pub(crate) under_way: Option<u32>,
    pub(crate) next: Option<(Time, NextStep)>,
    /// A refresh has begun, if only with the question whether the application still has the call.
    pub(crate) refreshing: bool,
    /// The application answered since the last refresh.
    pub(crate) app_alive: bool,
    pub(crate) probes_failed: u8,
    /// Repetitions of this refresh that a 422, 401 or 407 asked for.
    pub(crate) tries: u8,
    /// The peer's last word on a refresh was a refusal that shows that it lives.
    pub(crate) refused: bool,
    pub(crate) last_refresh: Option<Time>,
    /// What our refresh under way offers, and by which policy.
    pub(crate) offered: Option<(Offer, Ruling)>,
}

/// What we will do of ourselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NextStep {
    /// Refresh the remote side, after a probe of the application where the policy wants one.
    Refresh,
    /// Ask the application whether it still has the call.
    Probe,
    /// End the session, unless it is refreshed.
    Expire,
}

/// Whether a side takes UPDATE (RFC 3311 §4), by its Allow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum UpdateSupport {
    /// It never sent an Allow.
    #[default]
    Unknown,
    Listed,
    NotListed,
    /// It answered one with 405 or 501, whatever it lists.
    Refused,
}

impl Half {
    /// In a call that begins with an INVITE from `from` that speaks of timers or not.
    pub(crate) fn of_call(mode: Mode, act: ActForApp, from: Leg, speaks: bool) -> Half {
        if mode == Mode::Observe {
            return Half::App;
        }
        match (act, from) {
            (ActForApp::Never, _) => Half::App,
            (ActForApp::Always, _) => Half::SidecarAlone,
            (ActForApp::Auto, Leg::Remote) => Half::Open,
            (ActForApp::Auto, Leg::Local) if speaks => Half::App,
            (ActForApp::Auto, Leg::Local) => Half::Sidecar,
        }
    }

    /// In a request from `from` inside a session. An application that begins to speak for itself is left to it, once that
    /// is answered. The other way round only the next call changes: what passed of this one was not followed.
    pub(crate) fn of_session(acting: bool, act: ActForApp, from: Leg, speaks: bool) -> Half {
        match (acting, act) {
            (false, _) => Half::App,
            (true, ActForApp::Always) => Half::SidecarAlone,
            (true, ActForApp::Auto) if from == Leg::Local && speaks => Half::App,
            (true, _) => Half::Sidecar,
        }
    }

    /// After the application's 2xx.
    pub(crate) fn settled(self, answer: &Message) -> Half {
        match self {
            Half::Open if speaks_of_timers(answer) || matches!(answer.session_expires(), Ok(Some(_)) | Err(_)) => {
                Half::App
            }
            Half::Open => Half::Sidecar,
            settled => settled,
        }
    }

    pub(crate) fn is_ours(self) -> bool {
        matches!(self, Half::Sidecar | Half::SidecarAlone)
    }
}

/// Does its sender support session timers (RFC 4028 §6)?
pub(crate) fn speaks_of_timers(message: &Message) -> bool {
    message.has_token(HeaderName::Supported, "timer") || message.has_token(HeaderName::Require, "timer")
}

impl UpdateSupport {
    /// What a message of the side says of it.
    pub(crate) fn learn(&mut self, message: &Message) {
        if *self != UpdateSupport::Refused && message.first(HeaderName::Allow).is_some() {
            let listed = message.has_token(HeaderName::Allow, "UPDATE");
            *self = if listed { UpdateSupport::Listed } else { UpdateSupport::NotListed };
        }
    }
}

impl Acting {
    pub(crate) fn new(media: Media, peer_has_timers: bool) -> Acting {
        Acting {
            media,
            peer_has_timers,
            remote_update: UpdateSupport::default(),
            app_update: UpdateSupport::default(),
            under_way: None,
            next: None,
            refreshing: false,
            app_alive: false,
            probes_failed: 0,
            tries: 0,
            refused: false,
            last_refresh: None,
            offered: None,
        }
    }

    /// A side said something in an INVITE, an UPDATE, or a 2xx to one.
    pub(crate) fn learn(&mut self, from: Leg, message: &Message) {
        match from {
            Leg::Local => self.app_update.learn(message),
            Leg::Remote => {
                self.remote_update.learn(message);
                self.peer_has_timers |= speaks_of_timers(message) || matches!(message.session_expires(), Ok(Some(_)));
            }
        }
    }

    /// The peer lives, refuses our refreshes, and would not end the call for want of one.
    pub(crate) fn is_only_refused(&self) -> bool {
        self.refused && !self.peer_has_timers
    }

    /// The timer was armed, changed or turned off: a refresh that waited is replaced.
    pub(crate) fn plan(&mut self, timer: Option<&Timer>, jitter_percent: u8, random: u64, pace: Pace) {
        self.refreshing = false;
        (self.tries, self.refused) = (0, false);
        self.next = timer.filter(|timer| timer.refresher == Leg::Local).map(|timer| {
            let after_ms = refresh_after_ms(timer.interval_s, jitter_percent, random);
            (timer.armed + pace.real(after_ms), NextStep::Refresh)
        });
    }
}

/// When to refresh, in milliseconds of session time after the timer was armed: half the interval (RFC 4028 §10) less a
/// guard, so that a second try fits, and less the share of `jitter_percent` that `random` draws.
fn refresh_after_ms(interval_s: Seconds, jitter_percent: u8, random: u64) -> u64 {
    let interval_ms = u64::from(interval_s) * 1000;
    let latest_ms = interval_ms / 2 - (interval_ms / 20).min(5000);
    let most_jitter_ms = latest_ms * u64::from(jitter_percent.min(50)) / 100;
    latest_ms - random % (most_jitter_ms + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refresh_comes_before_half_the_interval_and_neither_at_once_nor_at_its_end() {
        assert_eq!(refresh_after_ms(90, 0, 7), 40_500);
        assert_eq!(refresh_after_ms(1800, 0, 7), 895_000);
        for random in [0, 1, 12_345, u64::MAX] {
            assert!((36_450..=40_500).contains(&refresh_after_ms(90, 10, random)));
            assert!((20_250..=40_500).contains(&refresh_after_ms(90, 200, random)), "half is the most jitter");
        }
    }
}
