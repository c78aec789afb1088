//! Requests the sidecar makes of itself: what they may be, when, and what their answers mean (RFC 4028 §10, RFC 3261
//! §14.1, RFC 5057).

use sipwarden_session_timer::{AppProbe, EndCause, Leg, Timers};

use super::super::message::Sip;
use super::super::timer::{LEAST, Role, SessionExpires, min_se_of};
use super::{TICK_MS, Watch};

/// 64 × T1.
const LIFE_MS: u64 = 32_000;
/// How long an application may take to answer a probe.
const PROBE_MS: u64 = 8_000;
/// An INVITE that rings.
const RINGS_MS: u64 = 180_000;

/// One that is answered is looked at for so long: no copy of it, or of its answers, comes later.
const REMEMBERED_MS: u64 = RINGS_MS + 2 * LIFE_MS;

/// One of them.
pub struct Own {
    pub dialog: usize,
    pub leg: Leg,
    pub request: Sip,
    pub sent_at: u64,
    pub status: Option<u16>,
    /// By which it was made.
    timers: Timers,
    rings_at: Option<u64>,
}

impl Own {
    pub fn method(&self) -> &str {
        self.request.method().unwrap_or_default()
    }

    pub fn is_bye(&self, dialog: usize, leg: Leg) -> bool {
        self.dialog == dialog && self.leg == leg && self.method() == "BYE"
    }

    pub fn is_open(&self, now: u64) -> bool {
        self.status.is_none() && now < self.gives_up_at()
    }

    /// Without a final response.
    pub fn gives_up_at(&self) -> u64 {
        match (self.method(), self.rings_at) {
            ("OPTIONS", _) => self.sent_at + PROBE_MS,
            ("INVITE", Some(at)) => at + RINGS_MS,
            _ => self.sent_at + LIFE_MS,
        }
    }
}

/// Does such a response to a refresh end the session?
pub(super) fn ends(status: u16) -> bool {
    matches!(status, 404 | 408 | 410 | 416 | 480..=485 | 604)
}

impl Watch {
    /// Requests of the sidecar's own left.
    pub(super) fn own_left(&mut self, now: u64, leg: Leg, request: &Sip) -> Result<(), String> {
        let (number, method) = request.cseq();
        if method == "ACK" {
            let acked = |own: &&Own| own.request.call_id() == request.call_id() && own.request.cseq().0 == number;
            let invite = self.own.iter().filter(acked).find(|own| own.leg == leg && own.method() == "INVITE");
            let final_status = invite.and_then(|own| own.status);
            return final_status.map(|_| ()).ok_or_else(|| format!("an ACK {number} to nothing"));
        }
        if let Some(known) = self.own.iter().find(|own| own.request.branch() == request.branch()) {
            return match known.request == *request && known.status.is_none() {
                true => Ok(()),
                false => Err(format!("its own {method} {number} is not as it was, or was answered")),
            };
        }
        self.sequences.check(request, true)?;
        self.numbers.made(request);
        let tags = (request.tag("From"), request.tag("To"));
        let dialog = self.dialogs.iter().position(|dialog| {
            dialog.call_id == request.call_id()
                && (Some(dialog.tags[leg.other().index()].as_str()), Some(dialog.tags[leg.index()].as_str())) == tags
        });
        let dialog = dialog.ok_or_else(|| format!("its own {method} of no dialog"))?;
        match (method, leg) {
            ("BYE", _) => self.check_bye(dialog, leg, request)?,
            ("OPTIONS", Leg::Local) => self.check_alone(now, dialog, leg, method)?,
            ("UPDATE" | "INVITE", Leg::Remote) => {
                self.check_alone(now, dialog, leg, method)?;
                self.check_refresh(now, dialog, request)?;
            }
            _ => return Err(format!("it made a {method} to {leg:?}")),
        }
        if method != "BYE" {
            self.dialogs[dialog].stepped = true;
        }
        let timers = self.timers_for(self.dialogs[dialog].caller);
        let (request, sent_at) = (request.clone(), now);
        self.own.push(Own { dialog, leg, request, sent_at, status: None, timers, rings_at: None });
        Ok(())
    }

    /// One for each leg, and another only for who asked who we are (RFC 3261 §22.2).
    fn check_bye(&self, dialog: usize, leg: Leg, bye: &Sip) -> Result<(), String> {
        let before = self.own.iter().rfind(|own| own.is_bye(dialog, leg)).map(|own| own.status);
        match before {
            None => Ok(()),
            Some(Some(401)) if bye.get("Authorization").is_some() => Ok(()),
            Some(Some(407)) if bye.get("Proxy-Authorization").is_some() => Ok(()),
            Some(status) => Err(format!("another BYE, and the one before was answered {status:?}")),
        }
    }

    fn check_alone(&self, now: u64, dialog: usize, leg: Leg, method: &str) -> Result<(), String> {
        let held = &self.dialogs[dialog];
        if held.end.is_some() || !held.acts {
            return Err(format!("its own {method} in a call that ended, or that is not its own: {:?}", held.end));
        }
        let of = |own: &&Own| own.dialog == dialog && own.leg == leg && own.method() != "BYE" && own.is_open(now);
        match self.own.iter().find(of) {
            Some(open) => Err(format!("its own {method} while its {} waits", open.method())),
            None => Ok(()),
        }
    }

    fn check_refresh(&self, now: u64, dialog: usize, request: &Sip) -> Result<(), String> {
        let held = &self.dialogs[dialog];
        let header = SessionExpires::of(request).ok().flatten();
        let is_refresh = header.is_some_and(|header| header.delta >= LEAST && header.refresher == Some(Role::Uac));
        if !is_refresh || !request.lists("Supported", "timer") || request.contact().is_none() {
            return Err(format!("no refresh: {request:?}"));
        }
        let Some((interval, Leg::Local)) = held.timer else {
            return Err(format!("it refreshes, and the timer is {:?}", held.timer));
        };
        let timers = self.timers_for(held.caller);
        let most = interval.max(timers.session_expires_s()).max(timers.max_min_se_s());
        if header.is_some_and(|header| header.delta > most) || min_se_of(request) > Some(most) {
            return Err(format!("it asks for more than {most}: {request:?}"));
        }
        let least = held.highest_min_se.min(timers.max_min_se_s());
        if min_se_of(request).unwrap_or(LEAST) < least {
            return Err(format!("it asks for less than {least}: {request:?}"));
        }
        if !held.stepped_by_request && now < held.armed_at + u64::from(interval) * 200 {
            return Err(format!("it refreshes at {now}, and the timer began at {}", held.armed_at));
        }
        if held.timers.app_probe == AppProbe::Options && !held.app_alive {
            return Err("it refreshes for an application it has not asked".into());
        }
        let open = |asked: &&super::Asked| asked.is_of(held) && asked.method == "INVITE" && asked.is_open(now);
        match self.asked.iter().find(open) {
            Some(open) if request.method() == Some("INVITE") => Err(format!("an INVITE while {} is open", open.cseq)),
            _ => Ok(()),
        }
    }

    /// A response to one of them came; `left`: what left because of it.
    pub(super) fn own_answered(&mut self, now: u64, at: usize, came: &Sip, left: &[(Leg, Sip)]) -> Result<(), String> {
        let status = came.status().unwrap_or_default();
        let own = &mut self.own[at];
        if status < 200 {
            own.rings_at.get_or_insert(now);
            return Ok(());
        }
        if own.method() == "INVITE" {
            let acks = |(leg, sip): &&(Leg, Sip)| {
                *leg == own.leg && sip.method() == Some("ACK") && sip.cseq().0 == own.request.cseq().0
            };
            let count = left.iter().filter(acks).count();
            // After Timer B, or that of copies, nobody knows of it.
            let owed = own.status.is_none() && now < own.gives_up_at();
            if count > 1 || (owed && count == 0) {
                return Err(format!("{count} ACKs to {status} of its own INVITE"));
            }
        }
        if own.status.is_some() || now > own.gives_up_at() + TICK_MS {
            own.status.get_or_insert(status);
            return Ok(());
        }
        own.status = Some(status);
        let (dialog, method) = (own.dialog, own.method().to_owned());
        let (offered, most) = (SessionExpires::of(&own.request).ok().flatten(), own.timers.max_min_se_s());
        let held = &mut self.dialogs[dialog];
        if held.end.is_some() {
            return Ok(());
        }
        match (method.as_str(), status) {
            ("OPTIONS", 408 | 500 | 502..=504) => held.probes_failed += 1,
            ("OPTIONS", _) if ends(status) => held.finish(now, EndCause::AppGone),
            ("OPTIONS", _) => (held.app_alive, held.probes_failed) = (true, 0),
            ("UPDATE" | "INVITE", 200..300) => {
                held.heard_at = now;
                held.timers = self.own[at].timers.clone();
                held.learn_peer(came);
                held.app_alive = false;
                let answer = SessionExpires::of(came).ok().flatten();
                let refresher = answer.and_then(|answer| answer.refresher);
                let refresher = if refresher == Some(Role::Uas) { Leg::Remote } else { Leg::Local };
                let interval = answer.or(offered).map(|header| (header.delta.max(LEAST), refresher));
                held.arm(now, interval);
            }
            ("UPDATE" | "INVITE", _) if ends(status) => held.finish(now, EndCause::RefreshFailed(status)),
            ("UPDATE" | "INVITE", _) => {
                // A 5xx, or 430, may be a proxy's, of one that is dead.
                held.refused = status != 430 && status / 100 != 5;
                let asked = min_se_of(came).filter(|asked| status == 422 && *asked <= most);
                held.highest_min_se = held.highest_min_se.max(asked.unwrap_or(0));
            }
            _ => {}
        }
        if held.probes_failed >= 2 && held.end.is_none() {
            held.finish(now, EndCause::AppGone);
        }
        Ok(())
    }

    /// What of theirs ran out at `now`.
    pub(super) fn run_out(&mut self, now: u64) {
        self.own.retain(|own| own.status.is_none() || now < own.sent_at + REMEMBERED_MS);
        for own in &mut self.own {
            if own.status.is_some() || own.gives_up_at() > now {
                continue;
            }
            own.status = Some(0);
            if own.method() == "BYE" {
                continue;
            }
            let held = &mut self.dialogs[own.dialog];
            match (own.request.method().unwrap_or_default(), held.end) {
                (_, Some(_)) => {}
                ("OPTIONS", None) => {
                    held.probes_failed += 1;
                    if held.probes_failed >= 2 {
                        held.finish(now, EndCause::AppGone);
                    }
                }
                _ => held.finish(now, EndCause::RefreshFailed(408)),
            }
        }
    }
}
