//! What the application offers and is answered by the sidecar that stands in for it.

use sipwarden_session_timer::{Leg, Timers, WithoutPeerSupport};

use super::super::message::Sip;
use super::super::timer::{LEAST, Role, SessionExpires, min_se_of};
use super::Watch;

impl Watch {
    /// What the sidecar answers in the application's place follows RFC 4028 §9, table 2.
    pub(super) fn check_own_answer(&self, position: usize, answer: &Sip) -> Result<(), String> {
        let asked = &self.asked[position];
        let alone = asked.timers.without_peer_support == WithoutPeerSupport::Refresh;
        let header = SessionExpires::of(answer).map_err(|_| "an unreadable Session-Expires")?;
        let Some(header) = header else {
            let silent = !asked.knows && !alone && !answer.lists("Require", "timer");
            return if silent { Ok(()) } else { Err("an answer without Session-Expires".into()) };
        };
        let most = asked.header.map_or(u32::MAX, |header| header.delta.max(asked.timers.min_se_s()));
        // Never raised: a request may offer less than its own Min-SE.
        let least = asked.min_se.unwrap_or(LEAST).min(asked.header.map_or(u32::MAX, |header| header.delta));
        let within = (least..=most).contains(&header.delta);
        let refresher = match (asked.knows, asked.header.and_then(|header| header.refresher)) {
            (false, _) => Some(Role::Uas),
            (true, Some(said)) => Some(said),
            (true, None) => header.refresher,
        };
        let told = header.refresher.is_some() && header.refresher == refresher;
        let uac_refreshes = header.refresher == Some(Role::Uac);
        let required = answer.lists("Require", "timer");
        let require_fits = if asked.knows { required || !uac_refreshes } else { !required };
        if within && told && require_fits {
            return Ok(());
        }
        Err(format!("{:?}, knows: {}, was answered {header:?}, Require: {required}", asked.header, asked.knows))
    }
}

/// What an INVITE or UPDATE asks for when it leaves. `known`: the highest Min-SE there was in its dialog.
pub(super) fn check_offer(
    timers: &Timers,
    from: Leg,
    acts: Option<bool>,
    known: u32,
    came: &Sip,
    left: &Sip,
) -> Result<(), String> {
    let without = |sip: &Sip, name: &str| -> Vec<String> {
        sip.list(name).into_iter().filter(|token| !token.eq_ignore_ascii_case("timer")).collect()
    };
    if ["Supported", "Require"].iter().any(|name| without(came, name) != without(left, name)) {
        return Err(format!("Supported or Require changed: {left:?}"));
    }
    if from == Leg::Remote || acts != Some(true) {
        return Ok(());
    }
    let header = SessionExpires::of(left).ok().flatten().ok_or("no Session-Expires for the application")?;
    let most = timers.session_expires_s().max(min_se_of(left).unwrap_or(0)).max(timers.max_min_se_s());
    if !left.lists("Supported", "timer") || header.delta < timers.min_se_s() || header.delta > most {
        return Err(format!("the application offers {header:?}"));
    }
    if min_se_of(left).unwrap_or(LEAST) < known.min(timers.max_min_se_s()) {
        return Err(format!("the application asks for less than {known}: {left:?}"));
    }
    Ok(())
}
