//! The refresher's half for an application that has none (RFC 4028 §10): when to refresh, how, and what its answer means;
//! before that the question whether the application still has the call; and refreshes of the peer that are answered here.

use std::time::Duration;

use sipwarden_sip::value::RefresherParam;
use sipwarden_sip::{Message, Method};

use super::concluding::Asked;
use super::requests::Sent;
use super::responses::{ends_usage, shows_life};
use super::retrying::{MOST_TRIES, raised};
use super::{Arrival, Dialogs, Verdict};
use crate::acting::{Half, NextStep, UpdateSupport};
use crate::challenge::Challenges;
use crate::client::{Order, Purpose, retry_after_s};
use crate::media::Content;
use crate::negotiation::{Conclusion, Offer};
use crate::policy::LEAST_INTERVAL_S;
use crate::session::{Ruling, Session};
use crate::setup::contact_uri;
use crate::{AppProbe, EndCause, EventKind, Leg, NoRefresh, RefreshMethod, SdpUnusable, Seconds, Time};

/// How soon to look again, at the soonest, when a request of somebody else is in the way.
const HELD_BACK: Duration = Duration::from_secs(1);
/// Probes in a row without an answer that end a session.
const PROBES: u8 = 2;
/// Between them: time for an application that is only busy.
const PROBE_AGAIN: Duration = Duration::from_secs(4);

impl Dialogs {
    /// The timer of a session was armed, changed or turned off.
    pub(super) fn plan(&mut self, slot: u32) {
        let session = &mut self.sessions[slot as usize];
        if let Some(acting) = &mut session.acting {
            let jitter_percent = session.ruling.timers().refresh_jitter_percent;
            acting.plan(session.timer.as_ref(), jitter_percent, self.random.next(), self.pace);
        }
    }

    /// What was planned is due.
    pub(super) fn take_step(&mut self, now: Time, slot: u32) {
        let session = &mut self.sessions[slot as usize];
        let probes = session.ruling.timers().app_probe == AppProbe::Options;
        let Some(acting) = &mut session.acting else { return };
        let Some((_, step)) = acting.next.take() else { return };
        if acting.under_way.is_some() {
            acting.next = Some((now + HELD_BACK, step));
            return self.schedule_session(slot);
        }
        acting.refreshing = step == NextStep::Refresh;
        if probes && !acting.app_alive {
            self.send_probe(now, slot);
        } else if acting.refreshing {
            self.send_refresh(now, slot, Challenges::default());
        }
        self.schedule_session(slot);
    }

    /// Is a refresh of ours under way that this request must not meet?
    pub(super) fn meets_ours(&self, slot: u32, sent: Sent, offers: bool) -> bool {
        let acting = self.sessions[slot as usize].acting.as_ref();
        let under_way = acting.and_then(|acting| acting.under_way).and_then(|key| self.clients.get(key as usize));
        under_way.map(|client| client.ours).is_some_and(|ours| {
            ours.purpose == Purpose::Refresh && collide(ours.method, sent.from, sent.method, offers)
        })
    }

    // The application

    fn send_probe(&mut self, now: Time, slot: u32) {
        let Some(cseq) = self.reserve_cseq(slot, Leg::Local) else {
            return self.cannot_refresh(now, slot, NoRefresh::CSeqSpace);
        };
        let extra = b"Accept: application/sdp\r\n";
        let order = Order { to: Leg::Local, purpose: Purpose::Probe, method: Method::Options, cseq, extra, body: b"" };
        self.send_own(now, slot, order, Challenges::default());
        self.sessions[slot as usize].tell(now, EventKind::ProbeSent, &mut self.actions);
    }

    /// `None`: no answer came.
    pub(super) fn probe_concluded(&mut self, now: Time, slot: u32, status: Option<u16>) {
        let session = &mut self.sessions[slot as usize];
        let Some(acting) = &mut session.acting else { return };
        acting.under_way = None;
        let status = status.unwrap_or(408);
        // What a UA would say to a new INVITE (RFC 3261 §11.2), busy say, tells nothing of this dialog. Whoever knows no
        // OPTIONS still says that he is there; whoever fails, and whoever is silent, does not.
        let denied = matches!(status, 404 | 410 | 416 | 481 | 604);
        if !denied && !matches!(status, 408 | 500 | 502..=504) {
            (acting.probes_failed, acting.app_alive) = (0, acting.refreshing);
            if acting.refreshing {
                self.send_refresh(now, slot, Challenges::default());
            }
            return self.schedule_session(slot);
        }
        acting.probes_failed += 1;
        let gone = denied || acting.probes_failed >= PROBES;
        let step = if acting.refreshing { NextStep::Refresh } else { NextStep::Probe };
        acting.next = Some((now + PROBE_AGAIN, step));
        session.tell(now, EventKind::ProbeFailed { status }, &mut self.actions);
        if gone { self.terminate(now, slot, EndCause::AppGone) } else { self.schedule_session(slot) }
    }

    // The remote side

    /// `challenges`: those that earlier tries of it met.
    fn send_refresh(&mut self, now: Time, slot: u32, challenges: Challenges) {
        let ruling = self.ruling_now(slot, Leg::Local, None);
        let session = &self.sessions[slot as usize];
        let method = match session.refresh_method_by(&ruling) {
            Ok(method) if session.has_open(method) => return self.hold_back(now, slot),
            Err(NoRefresh::Sdp(SdpUnusable::OpenOffer)) => return self.hold_back(now, slot),
            Ok(method) => method,
            Err(reason) => return self.cannot_refresh(now, slot, reason),
        };
        let Some(offer) = session.refresh_offer(&ruling) else { return };
        let Some(cseq) = self.reserve_cseq(slot, Leg::Remote) else {
            return self.cannot_refresh(now, slot, NoRefresh::CSeqSpace);
        };
        let session = &self.sessions[slot as usize];
        let Some(acting) = &session.acting else { return };
        let mut extra = session.refresh_lines(offer);
        let mut body = Vec::new();
        if method == Method::Invite
            && let Ok(sdp) = acting.media.in_force()
        {
            extra.extend_from_slice(b"Content-Type: application/sdp\r\n");
            body.extend_from_slice(sdp);
        }
        let order = Order { to: Leg::Remote, purpose: Purpose::Refresh, method, cseq, extra: &extra, body: &body };
        self.send_own(now, slot, order, challenges);
        let session = &mut self.sessions[slot as usize];
        if let Some(acting) = &mut session.acting {
            acting.offered = Some((offer, ruling));
        }
        session.tell(now, EventKind::RefreshSent { to: Leg::Remote, method }, &mut self.actions);
    }

    /// `None`: no answer came.
    pub(super) fn refresh_concluded(
        &mut self,
        now: Time,
        slot: u32,
        method: Method,
        answer: Option<(u16, &Message)>,
        challenges: Challenges,
    ) {
        let session = &mut self.sessions[slot as usize];
        let Some(acting) = &mut session.acting else { return };
        acting.under_way = None;
        acting.refused = answer.is_some_and(|(status, _)| shows_life(status));
        let Some((offer, ruling)) = acting.offered.take() else { return };
        let status = answer.map_or(408, |(status, _)| status);
        if let Some((200..300, message)) = answer {
            return self.refreshed(now, slot, method, (offer, ruling), message);
        }
        session.tell(now, EventKind::RefreshFailed { by: Leg::Local, status }, &mut self.actions);
        match (status, answer) {
            (405 | 501, _) if method == Method::Update => {
                if let Some(acting) = &mut session.acting {
                    acting.remote_update = UpdateSupport::Refused;
                }
                self.send_refresh(now, slot, challenges);
            }
            (422, Some((_, message))) => self.refresh_too_short(now, slot, (offer, ruling), message, challenges),
            (401 | 407, Some((_, message))) => self.refresh_challenged(now, slot, &ruling, message, challenges),
            (491, _) => {
                // Who owns the Call-ID waits longer, so that one of both comes first (RFC 3261 §14.1).
                let (least_ms, steps) = if session.caller == Leg::Local { (2100, 191) } else { (0, 201) };
                let pause = Duration::from_millis(least_ms + 10 * (self.random.next() % steps));
                self.refresh_in(slot, now + pause);
            }
            (status, _) if ends_usage(method, status) => self.terminate(now, slot, EndCause::RefreshFailed(status)),
            (_, answer) => {
                let asked = answer.and_then(|(_, message)| retry_after_s(message));
                self.refresh_later(now, slot, asked);
            }
        }
        self.schedule_session(slot);
    }

    fn refreshed(&mut self, now: Time, slot: u32, method: Method, offered: (Offer, Ruling), message: &Message) {
        let limit = self.config.limits.identity_len;
        let session = &mut self.sessions[slot as usize];
        let (offer, ruling) = offered;
        session.ruling = ruling;
        session.last_heard = now;
        if let Some(target) = contact_uri(message) {
            session.identity.set_target(Leg::Remote, target, limit);
        }
        let mut media_changed = false;
        if let Some(acting) = &mut session.acting {
            acting.learn(Leg::Remote, message);
            media_changed = method == Method::Invite && !acting.media.repeated(Content::of(message));
            (acting.app_alive, acting.last_refresh) = (false, Some(now));
        }
        if media_changed {
            session.tell(now, EventKind::MediaChanged, &mut self.actions);
        }
        let (caller, timer) = (session.caller, session.timer);
        let ruling = session.ruling.clone();
        let asked = Asked { uac: Leg::Local, offer, half: Half::Sidecar, ruling: &ruling, caller, timer };
        let concluded = asked.conclude(message);
        self.rearm(now, slot, Leg::Local, method, (concluded, asked.timer_of(concluded, now)));
    }

    fn refresh_too_short(
        &mut self,
        now: Time,
        slot: u32,
        (offer, ruling): (Offer, Ruling),
        message: &Message,
        challenges: Challenges,
    ) {
        let most = ruling.timers().max_min_se_s();
        let session = &mut self.sessions[slot as usize];
        let Some(acting) = &mut session.acting else { return };
        let asked = message.min_se().ok().flatten().filter(|asked| *asked <= most);
        session.highest_min_se = session.highest_min_se.max(asked.unwrap_or(0));
        if acting.tries < MOST_TRIES && asked.is_some_and(|asked| raised(offer, asked) != offer) {
            acting.tries += 1;
            self.send_refresh(now, slot, challenges);
        } else {
            self.refresh_later(now, slot, None);
        }
    }

    fn refresh_challenged(
        &mut self,
        now: Time,
        slot: u32,
        ruling: &Ruling,
        message: &Message,
        mut challenges: Challenges,
    ) {
        let session = &mut self.sessions[slot as usize];
        let status = message.status().unwrap_or(401);
        session.tell(now, EventKind::Challenged { status }, &mut self.actions);
        let Some(acting) = &mut session.acting else { return };
        let credentials = ruling.timers().credentials.as_ref().filter(|_| acting.tries < MOST_TRIES);
        if credentials.is_some_and(|credentials| challenges.take_up(message, credentials)) {
            acting.tries += 1;
            self.send_refresh(now, slot, challenges);
        } else {
            self.cannot_refresh(now, slot, NoRefresh::Unauthorized);
        }
    }

    fn send_own(&mut self, now: Time, slot: u32, order: Order, challenges: Challenges) {
        let key = self.originate(now, slot, order, challenges);
        if let Some(acting) = &mut self.sessions[slot as usize].acting {
            acting.under_way = Some(key);
        }
    }

    /// A peer with timers ends what is not refreshed, so we try on while there is time; where only we have a timer, a call
    /// must not end because we cannot ask.
    pub(super) fn cannot_refresh(&mut self, now: Time, slot: u32, reason: NoRefresh) {
        let session = &mut self.sessions[slot as usize];
        session.tell(now, EventKind::NotRefreshed { reason }, &mut self.actions);
        if session.acting.as_ref().is_some_and(|acting| acting.peer_has_timers) {
            return self.refresh_later(now, slot, None);
        }
        session.timer = None;
        session.tell(now, EventKind::TimerOff { by: Leg::Local }, &mut self.actions);
        self.plan(slot);
        self.schedule_session(slot);
    }

    /// Once more while time is left: when the peer asked for it, else after a quarter of that time.
    fn refresh_later(&mut self, now: Time, slot: u32, asked_s: Option<Seconds>) {
        let Some(timer) = self.sessions[slot as usize].timer else { return };
        let left = timer.deadline(self.pace).since(now);
        let asked = asked_s.map(|seconds| Duration::from_secs(seconds.into())).filter(|asked| *asked < left);
        let pause = asked.unwrap_or(left / 4).max(Duration::from_millis(100));
        self.refresh_in(slot, now + pause);
    }

    /// Soon again, but the less often the more time is left: what is in the way may never be answered.
    fn hold_back(&mut self, now: Time, slot: u32) {
        let left =
            self.sessions[slot as usize].timer.map_or(Duration::ZERO, |timer| timer.deadline(self.pace).since(now));
        self.refresh_in(slot, now + (left / 32).max(HELD_BACK));
    }

    fn refresh_in(&mut self, slot: u32, at: Time) {
        if let Some(acting) = &mut self.sessions[slot as usize].acting {
            acting.next = Some((at, NextStep::Refresh));
        }
        self.schedule_session(slot);
    }

    // In the application's place

    /// Answers the UPDATE of the other side at `position`, for the first time or again.
    pub(super) fn answer_for_app(
        &mut self,
        now: Time,
        arrival: &Arrival,
        message: &Message,
        slot: u32,
        position: usize,
    ) -> Verdict {
        let session = &mut self.sessions[slot as usize];
        let refresh = &mut session.refreshes[position];
        let asked = Asked::of(refresh, session.caller, session.timer);
        let conclusion = asked.own_answer();
        let timer = asked.timer_of(Ok(conclusion), now);
        let (from, method) = (refresh.from, refresh.method);
        let extra = answer_lines(conclusion, refresh.offer, session.identity.leg(from.other()).target);
        if !std::mem::replace(&mut refresh.answered, true) {
            if let Conclusion::Timer { refresher, .. } = conclusion {
                // A retransmission gets the same answer, whatever has become of the timer.
                refresh.offer.refresher = Some(refresher);
            }
            session.tell(now, EventKind::AnsweredForApp { from, method }, &mut self.actions);
            self.renegotiated(now, slot, position, None, (Ok(conclusion), timer));
            self.probe_soon(now, slot);
        }
        self.answer(arrival, message, 200, "OK", &extra)
    }

    /// What was answered without the application must not keep a call alive that it no longer has.
    fn probe_soon(&mut self, now: Time, slot: u32) {
        if let Some(acting) = &mut self.sessions[slot as usize].acting
            && acting.next.is_none()
        {
            acting.next = Some((now, NextStep::Probe));
            self.schedule_session(slot);
        }
    }
}

impl Session {
    /// How a refresh would be sent now.
    pub(crate) fn refresh_method(&self) -> Result<Method, NoRefresh> {
        self.refresh_method_by(&self.ruling)
    }

    fn refresh_method_by(&self, ruling: &Ruling) -> Result<Method, NoRefresh> {
        let Some(acting) = &self.acting else { return Err(NoRefresh::Sdp(SdpUnusable::Unknown)) };
        let update = acting.remote_update;
        let re_invite = || acting.media.in_force().map(|_| Method::Invite).map_err(NoRefresh::Sdp);
        match ruling.timers().refresh_method {
            RefreshMethod::Update if matches!(update, UpdateSupport::Refused | UpdateSupport::NotListed) => {
                Err(NoRefresh::UpdateRefused)
            }
            RefreshMethod::Update => Ok(Method::Update),
            RefreshMethod::Auto if update == UpdateSupport::Listed => Ok(Method::Update),
            // An UPDATE that nobody forbade is the last resort of who cannot offer.
            RefreshMethod::Auto | RefreshMethod::ReInvite => match (re_invite(), update) {
                (Err(NoRefresh::Sdp(SdpUnusable::OpenOffer)), _) => Err(NoRefresh::Sdp(SdpUnusable::OpenOffer)),
                (Err(_), UpdateSupport::Listed | UpdateSupport::Unknown) => Ok(Method::Update),
                (found, _) => found,
            },
        }
    }

    /// The interval there is, or that of a policy that is newer; never less than somebody asked for, so far as the policy
    /// follows that.
    fn refresh_offer(&self, ruling: &Ruling) -> Option<Offer> {
        let same_policy = std::sync::Arc::ptr_eq(&ruling.policy, &self.ruling.policy);
        let timers = ruling.timers();
        let wanted = if same_policy { self.timer?.interval_s } else { timers.session_expires_s() };
        let least = timers.min_se_s().max(self.highest_min_se.min(timers.max_min_se_s()));
        // Without the header 90 s are meant (RFC 4028 §5), and a UAS may lower the interval to that.
        let min_se = Some(least).filter(|least| *least > LEAST_INTERVAL_S);
        let interval = Some(wanted.max(least));
        Some(Offer { interval, refresher: Some(RefresherParam::Uac), min_se, uac_supports_timer: true })
    }

    fn refresh_lines(&self, offer: Offer) -> Vec<u8> {
        let mut lines = Vec::with_capacity(160);
        lines.extend_from_slice(b"Contact: <");
        lines.extend_from_slice(self.identity.leg(Leg::Local).target);
        lines.extend_from_slice(b">\r\nSupported: timer\r\n");
        let interval = offer.interval.unwrap_or_default();
        lines.extend_from_slice(format!("Session-Expires: {interval};refresher=uac\r\n").as_bytes());
        if let Some(min_se) = offer.min_se {
            lines.extend_from_slice(format!("Min-SE: {min_se}\r\n").as_bytes());
        }
        lines
    }
}

/// Is a request with the method `theirs` from `from`, which `offers`, one too many while `ours` is under way (RFC 3261 §14.1,
/// RFC 3311 §5.2)?
fn collide(ours: Method, from: Leg, theirs: Method, offers: bool) -> bool {
    match (ours, theirs) {
        (Method::Invite, Method::Invite) => true,
        // Ours go to the remote side: its own UPDATE says nothing that ours contradicts.
        (Method::Update, Method::Update) => from == Leg::Local,
        // Our offer waits for its answer: neither side may make another before.
        (Method::Invite, Method::Update) => offers,
        _ => false,
    }
}

fn answer_lines(conclusion: Conclusion, offer: Offer, target: &[u8]) -> String {
    let mut lines = format!("Contact: <{}>\r\nSupported: timer\r\n", String::from_utf8_lossy(target));
    if let Conclusion::Timer { interval, refresher, .. } = conclusion {
        lines.push_str(&format!("Session-Expires: {interval};refresher={}\r\n", refresher.as_str()));
        if offer.uac_supports_timer {
            lines.push_str("Require: timer\r\n");
        }
    }
    lines
}
