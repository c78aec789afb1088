//! What a person may ask of one session. It is done by the next [`Dialogs::handle_timeout`], which is due at once: whoever
//! asks need not be whoever sends.

use super::{Dialogs, slot_of};
use crate::{NextStep, SessionId, Time};

/// Why it is not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VerbError {
    #[error("there is no such session, or it has ended")]
    NoSuchSession,
    #[error("the application refreshes this session itself, or it has no timer")]
    NotActing,
    #[error("a request of ours in this session waits for its answer")]
    Busy,
}

impl Dialogs {
    /// Refresh a session for the application now.
    ///
    /// # Errors
    /// Nothing will be sent.
    pub fn refresh_now(&mut self, now: Time, id: SessionId) -> Result<(), VerbError> {
        let slot = self.active_slot(id)?;
        let session = &mut self.sessions[slot as usize];
        let acting = session.acting.as_mut().filter(|_| session.timer.is_some()).ok_or(VerbError::NotActing)?;
        if acting.under_way.is_some() {
            return Err(VerbError::Busy);
        }
        acting.next = Some((now, NextStep::Refresh));
        self.schedule_session(slot);
        Ok(())
    }

    /// End a session now, by BYE to both sides.
    ///
    /// # Errors
    /// Nothing will be sent.
    pub fn end_now(&mut self, now: Time, id: SessionId) -> Result<(), VerbError> {
        let slot = self.active_slot(id)?;
        self.sessions[slot as usize].to_end = Some(now);
        self.schedule_session(slot);
        Ok(())
    }

    fn active_slot(&self, id: SessionId) -> Result<u32, VerbError> {
        let session = self.sessions.get(slot_of(id)).filter(|session| session.id == id && session.ended.is_none());
        session.map(|_| slot_of(id) as u32).ok_or(VerbError::NoSuchSession)
    }
}
