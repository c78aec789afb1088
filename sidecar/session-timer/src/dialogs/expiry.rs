//! What time does: sessions take their next step, expire and are ended; what is over is dropped.

use std::time::Duration;

use super::Dialogs;
use crate::{EndCause, EventKind, NoRefresh, Time};

/// How long an ended session is known: 64 × T1 for the last copy of a request that crossed its end, and T4 for its way.
const KNOWN: Duration = Duration::from_secs(37);

impl Dialogs {
    /// The session is over, for `cause`. It is kept a while: requests that crossed the end still find it.
    pub(super) fn end(&mut self, now: Time, slot: u32, cause: EndCause) {
        let session = &mut self.sessions[slot as usize];
        let interval_ms = session.timer.take().map_or(0, |timer| u64::from(timer.interval_s) * 1000);
        // A refresher that was only late may try for one more interval.
        let late = if cause == EndCause::Expired { self.pace.real(interval_ms) } else { KNOWN };
        session.ended = Some(cause);
        session.dropped_at = now + late.max(KNOWN);
        session.refreshes = Vec::new();
        session.acting = None;
        session.tell(now, EventKind::Ended { cause }, &mut self.actions);
        self.active -= 1;
        self.schedule_session(slot);
    }

    /// We end it: BYE to both legs.
    pub(super) fn terminate(&mut self, now: Time, slot: u32, cause: EndCause) {
        self.send_byes(now, slot, cause);
        self.end(now, slot, cause);
    }

    pub(super) fn session_due(&mut self, now: Time, slot: u32) {
        let Some(session) = self.sessions.get_mut(slot as usize) else { return };
        if session.wheel_at.is_some_and(|at| at <= now) {
            session.wheel_at = None;
        }
        if session.due(self.pace) > now {
            return self.schedule_session(slot);
        }
        if session.ended.is_some() {
            return self.drop_session(slot);
        }
        if session.to_end.is_some() {
            return self.terminate(now, slot, EndCause::Requested);
        }
        // Expiry goes before a step that would come too late.
        let over = session.expires_at(self.pace).is_none_or(|at| at <= now);
        if !over || (session.timer.is_none() && session.next_step().is_some_and(|(at, _)| at <= now)) {
            return self.take_step(now, slot);
        }
        match session.timer {
            None => {
                self.end(now, slot, EndCause::Forgotten);
                self.drop_session(slot);
            }
            Some(_) if session.acting.as_ref().is_some_and(|acting| acting.is_only_refused()) => {
                self.cannot_refresh(now, slot, NoRefresh::Refused);
            }
            Some(timer) => {
                let kind = EventKind::Expired { interval: timer.interval_s, refresher: timer.refresher };
                session.tell(now, kind, &mut self.actions);
                if session.expiry_acts() {
                    self.terminate(now, slot, EndCause::Expired);
                } else {
                    session.timer = None;
                    self.plan(slot);
                    self.schedule_session(slot);
                }
            }
        }
    }

    fn drop_session(&mut self, slot: u32) {
        let call = self.sessions.remove(slot as usize).call;
        self.calls[call as usize].sessions.retain(|&other| other != slot);
        self.drop_call_if_over(call);
    }

    pub(super) fn call_due(&mut self, now: Time, slot: u32) {
        let Some(call) = self.calls.get_mut(slot as usize) else { return };
        if call.wheel_at.is_some_and(|at| at <= now) {
            call.wheel_at = None;
        }
        call.setups.retain(|setup| setup.until > now);
        if call.setups.is_empty() {
            call.setups = Vec::new();
        }
        self.schedule_call(slot);
        self.drop_call_if_over(slot);
    }
}
