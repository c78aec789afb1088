//! A dialog as it stands on the wire, and the session it must have.

use sipwarden_session_timer::{
    EndCause, Event, EventKind, ExpiryAction, Leg, Margin, NoRefresh, SessionState, SessionView, Timers,
};

use super::super::expected::tag_of;
use super::super::message::Sip;
use super::super::timer::{SessionExpires, min_se_of};
use super::{TICK_MS, Watch};

/// A dialog with a 2xx.
pub struct Held {
    pub call_id: String,
    /// Local's, Remote's.
    pub tags: [String; 2],
    pub caller: Leg,
    pub timers: Timers,
    /// The sidecar is the application's half.
    pub acts: bool,
    /// Seconds, and who refreshes.
    pub timer: Option<(u32, Leg)>,
    pub armed_at: u64,
    pub end: Option<EndCause>,
    pub ended_at: u64,
    pub heard_at: u64,
    /// The remote side spoke of timers.
    pub peer_knows: bool,
    /// The application lists UPDATE.
    pub app_updates: bool,
    /// The application answered since the last refresh.
    pub app_alive: bool,
    pub probes_failed: u8,
    /// The highest Min-SE there was: of a 422, and of the remote side's requests.
    pub highest_min_se: u32,
    /// The remote side's last word on a refresh of the sidecar refuses it, and could only come from a side that lives.
    pub refused: bool,
    /// A refresh, or the question before it, has gone out since the timer was armed.
    pub stepped: bool,
    /// Somebody asked for a refresh now.
    pub stepped_by_request: bool,
    /// The sidecar said it cannot refresh.
    pub excused: bool,
    /// And at any time.
    pub was_excused: bool,
}

impl Held {
    pub fn finish(&mut self, now: u64, cause: EndCause) {
        (self.end, self.ended_at) = (Some(cause), now);
    }

    pub fn arm(&mut self, now: u64, timer: Option<(u32, Leg)>) {
        (self.timer, self.armed_at) = (timer, now);
        (self.stepped, self.excused, self.refused) = (false, false, false);
    }

    pub fn learn_peer(&mut self, message: &Sip) {
        let speaks = message.lists("Supported", "timer") || message.lists("Require", "timer");
        self.peer_knows |= speaks || SessionExpires::of(message) != Ok(None);
        self.highest_min_se = self.highest_min_se.max(min_se_of(message).unwrap_or(0));
    }

    pub fn learn_app(&mut self, message: &Sip) {
        if message.get("Allow").is_some() {
            self.app_updates = message.lists("Allow", "UPDATE");
        }
    }

    pub fn ended_by_sidecar(&self) -> bool {
        use EndCause::{AppGone, Expired, RefreshFailed, Requested};
        matches!(self.end, Some(Expired | RefreshFailed(_) | AppGone | Requested))
    }

    /// Until when it must still be known, for what comes late.
    pub fn remembered_until(&self) -> u64 {
        let interval_ms = self.timer.map_or(0, |(interval, _)| u64::from(interval) * 1000);
        let late_ms = if self.end == Some(EndCause::Expired) { interval_ms } else { 0 };
        self.ended_at + late_ms.max(32_000)
    }

    /// At the deadline where the sidecar refreshes, the margin before it where another does.
    fn expires_at(&self) -> Option<u64> {
        let (interval, refresher) = self.timer?;
        let interval_ms = u64::from(interval) * 1000;
        let most_ms = match self.timers.margin {
            Margin::Rfc4028 => 32_000,
            Margin::Fixed(seconds) => u64::from(seconds) * 1000,
        };
        let margin_ms = if self.acts && refresher == Leg::Local { 0 } else { most_ms.min(interval_ms / 3) };
        Some(self.armed_at + interval_ms - margin_ms)
    }
}

impl Watch {
    /// Does the sidecar hold the sessions it should, and say goodbye in those it ends?
    pub fn compare(
        &mut self,
        now: u64,
        views: &[SessionView],
        left: &[(Leg, Sip)],
        events: &[Event],
    ) -> Result<(), String> {
        self.run_out(now);
        for view in views {
            let (call_id, tags) =
                (String::from_utf8_lossy(&view.call_id), view.legs.each_ref().map(|leg| tag_of(&leg.party)));
            let found = self.dialogs.iter().position(|dialog| dialog.call_id == call_id && dialog.tags == tags);
            let index = found.ok_or_else(|| format!("a session of {call_id} {tags:?} nobody expects"))?;
            let of_it = events.iter().filter(|event| event.session == Some(view.id)).map(|event| event.kind);
            self.agree(now, index, view, of_it.collect())?;
        }
        self.check_gone(now, views)?;
        self.check_byes(now, left)
    }

    fn agree(&mut self, now: u64, index: usize, view: &SessionView, told: Vec<EventKind>) -> Result<(), String> {
        let overdue_but_open = self.is_held_back(now, index);
        let ends_on_request = self.ends_on_request;
        let held = &mut self.dialogs[index];
        let name = format!("{} {:?}", held.call_id, held.tags);
        held.excused |= told.iter().any(|kind| matches!(kind, EventKind::NotRefreshed { .. }));
        held.was_excused |= held.excused;
        let refused = held.refused && !held.peer_knows;
        if !refused && told.contains(&EventKind::NotRefreshed { reason: NoRefresh::Refused }) {
            return Err(format!("{name}: it gave up refreshing one that did not refuse it"));
        }
        let turned_off = told.contains(&EventKind::TimerOff { by: Leg::Local });
        if turned_off && view.interval.is_none() && held.acts && !held.peer_knows {
            held.arm(now, None);
        }
        let due = held.expires_at().filter(|at| *at <= now);
        let ends_here = held.timers.expiry == ExpiryAction::Bye;
        match (held.end, view.state) {
            (Some(mine), SessionState::Ended(theirs)) if mine == theirs => return Ok(()),
            (None, SessionState::Active) => {}
            (None, SessionState::Ended(EndCause::Expired)) if due.is_some() && ends_here && !refused => {
                held.finish(now, EndCause::Expired);
                return Ok(());
            }
            (None, SessionState::Ended(EndCause::Requested)) if ends_on_request => {
                held.finish(now, EndCause::Requested);
                return Ok(());
            }
            (mine, theirs) => return Err(format!("{name} is {theirs:?}, and should be {mine:?} (None: active)")),
        }
        if due.is_some() && !ends_here && view.expires_at.is_none() {
            held.arm(now, None);
        }
        if held.expires_at().is_some_and(|at| at + TICK_MS < now) {
            return Err(format!("{name} should have expired at {:?}", held.expires_at()));
        }
        let theirs = (view.interval, view.refresher, view.expires_at.map(|at| at.as_millis()));
        let (interval, refresher) = held.timer.unzip();
        let mine = (interval, refresher, held.expires_at());
        if theirs != mine {
            return Err(format!("{name}: its timer is {theirs:?}, and should be {mine:?}"));
        }
        if view.acting.is_some() != held.acts {
            return Err(format!("{name}: it acts: {:?}, and should: {}", view.acting, held.acts));
        }
        let half_ms = u64::from(interval.unwrap_or(0)) * 500;
        let refreshes = held.acts && refresher == Some(Leg::Local);
        if refreshes && now > held.armed_at + half_ms && !held.stepped && !held.excused && !overdue_but_open {
            return Err(format!("{name}: it was to be refreshed by {}", held.armed_at + half_ms));
        }
        Ok(())
    }

    /// Something of somebody is in the way of a refresh.
    fn is_held_back(&self, now: u64, index: usize) -> bool {
        let held = &self.dialogs[index];
        self.own.iter().any(|own| own.dialog == index && own.is_open(now))
            || self.asked.iter().any(|asked| asked.open && asked.is_of(held))
    }

    /// Sessions that are no longer there may be so.
    fn check_gone(&mut self, now: u64, views: &[SessionView]) -> Result<(), String> {
        let idle_ms = self.idle_ms;
        for held in self.dialogs.iter_mut().filter(|held| held.end.is_none() || held.remembered_until() > now) {
            let is_there = views.iter().any(|view| {
                held.call_id.as_bytes() == view.call_id
                    && held.tags == view.legs.each_ref().map(|leg| tag_of(&leg.party))
            });
            if is_there || held.end == Some(EndCause::Forgotten) {
                continue;
            }
            if held.end.is_some() || held.timer.is_some() || now < held.heard_at + idle_ms {
                return Err(format!("the session of {} {:?} is gone", held.call_id, held.tags));
            }
            held.finish(now, EndCause::Forgotten);
        }
        Ok(())
    }

    /// Each session that the sidecar ends now has one BYE for each leg, and nobody else has any.
    fn check_byes(&self, now: u64, left: &[(Leg, Sip)]) -> Result<(), String> {
        // A second one repeats the first.
        let fresh = |leg: Leg, dialog: usize| {
            let first = self.own.iter().find(|own| own.is_bye(dialog, leg));
            usize::from(first.is_some_and(|own| own.sent_at == now))
        };
        for (index, held) in self.dialogs.iter().enumerate() {
            let wanted = usize::from(held.ended_by_sidecar() && held.ended_at == now);
            let counts = Leg::BOTH.map(|leg| fresh(leg, index));
            let told = left.iter().any(|(_, sip)| sip.method() == Some("BYE")) || wanted > 0;
            if told && counts != [wanted; 2] {
                return Err(format!("{} {:?} is {:?}, and {counts:?} BYEs left", held.call_id, held.tags, held.end));
            }
        }
        Ok(())
    }

    /// The application of that call, by that name, is dead since then.
    pub fn check_dead(&self, now: u64, call_id: &str, name: &str, gone_at: u64) -> Result<(), String> {
        let its = |held: &&Held| held.call_id == call_id && held.tags[0].starts_with(&format!("{name}-"));
        let mut of_call = self.dialogs.iter().filter(its).filter(|held| held.end.is_none() && held.acts);
        let outlives = |held: &&Held| {
            let interval_ms = held.timer.map_or(u64::MAX / 2, |(interval, _)| u64::from(interval) * 1000);
            let asks = held.timers.app_probe == sipwarden_session_timer::AppProbe::Options;
            asks && now > gone_at + interval_ms + 40_000
        };
        match of_call.find(outlives) {
            Some(held) => Err(format!("{} {:?} outlives its application, dead at {gone_at}", held.call_id, held.tags)),
            None => Ok(()),
        }
    }
}
