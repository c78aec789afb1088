//! Sessions as JSON, for `/sessions`.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sipwarden_session_timer::{Leg, LegView, NextStep, SessionState, SessionView, Time};
use sipwarden_sip::Method;

use crate::address::transport_name;
use crate::hub::Hub;
use crate::record::names_user;
use crate::report::{self, Record, session_name};
use crate::typed;
use crate::words::Words;

/// Most sessions of one page.
pub const MAX_PAGE: usize = 1000;
/// Sessions copied under one lock: about a tenth of a millisecond.
const LOCKED_PAGE: usize = 50;

/// A page of `/sessions`.
#[derive(Debug, Serialize)]
pub struct Page {
    /// Up to the limit asked for.
    pub sessions: Vec<Session>,
    /// Sessions on all pages: active ones, and those that ended a short while ago; those that fit when filtered.
    pub total: usize,
    /// Sessions with a 2xx and no end.
    pub active: usize,
}

/// One session. Durations in seconds; those of session time run `--clock-speed` times faster than the clock.
#[derive(Debug, Serialize)]
pub struct Session {
    id: String,
    call_id: String,
    direction: &'static str,
    /// `Active` or `Ended`.
    state: &'static str,
    ended: Option<&'static str>,
    mode: &'static str,
    policy: String,
    rule: Option<String>,
    /// Where it is traced.
    #[serde(skip_serializing_if = "Option::is_none")]
    trace_id: Option<String>,
    interval_s: Option<u32>,
    refresher: Option<&'static str>,
    /// Until the session interval ends.
    deadline_in_s: Option<f64>,
    /// Until we end the session, unless it is refreshed.
    expires_in_s: Option<f64>,
    /// The highest Min-SE somebody asked for in this session.
    #[serde(skip_serializing_if = "Option::is_none")]
    min_se_s: Option<u32>,
    next: Option<Next>,
    /// When the sidecar is the session-timer half of the application.
    acting: Option<Acting>,
    age_s: f64,
    legs: Legs,
    events: Vec<PastEvent>,
}

/// What the sidecar does next of itself.
#[derive(Debug, Serialize)]
struct Next {
    /// `Refresh`, `Probe` or `Expire`.
    step: &'static str,
    in_s: f64,
}

#[derive(Debug, Serialize)]
struct Acting {
    /// What a refresh would be sent as; `null` when it cannot be sent.
    method: Option<&'static str>,
    /// `Known`, or why the application's SDP cannot be offered again.
    sdp: &'static str,
    peer_has_timers: bool,
    last_refresh_ago_s: Option<f64>,
    /// A request of ours waits for its answer.
    under_way: bool,
}

#[derive(Debug, Serialize)]
struct Legs {
    local: Party,
    remote: Party,
}

#[derive(Debug, Serialize)]
struct Party {
    party: String,
    target: String,
    /// Where it was last heard.
    flow: String,
    transport: &'static str,
    cseq: Option<u32>,
}

#[derive(Debug, Serialize)]
struct PastEvent {
    ago_s: f64,
    #[serde(flatten)]
    record: Record,
    /// Only where one session is shown.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    words: Option<Words>,
}

/// Whether a session goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum StateFilter {
    /// It has a 2xx and no end.
    Active,
    /// It is over.
    Ended,
}

/// Which sessions to show. Texts are parts, in any case of letters.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    state: Option<StateFilter>,
    peer: Option<String>,
    policy: Option<String>,
    call_id: Option<String>,
}

impl Filter {
    /// Those of `state`, whose remote side (address, From or To, Contact) holds `peer`, whose policy's or rule's name
    /// holds `policy`, and whose Call-ID holds `call_id`. What is empty fits all.
    pub fn new(
        state: Option<StateFilter>,
        peer: Option<String>,
        policy: Option<String>,
        call_id: Option<String>,
    ) -> Filter {
        let part = |text: Option<String>| text.map(|text| text.trim().to_lowercase()).filter(|text| !text.is_empty());
        Filter { state, peer: part(peer), policy: part(policy), call_id: part(call_id) }
    }

    fn fits_all(&self) -> bool {
        self.state.is_none() && self.peer.is_none() && self.policy.is_none() && self.call_id.is_none()
    }

    fn fits(&self, view: &SessionView) -> bool {
        let holds = |part: &Option<String>, text: &dyn Fn() -> String| {
            part.as_ref().is_none_or(|part| text().to_lowercase().contains(part))
        };
        let state = if view.state == SessionState::Active { StateFilter::Active } else { StateFilter::Ended };
        self.state.is_none_or(|wanted| wanted == state)
            && self.call_id.as_ref().is_none_or(|part| {
                shown_call_id(view, false).to_lowercase().contains(part)
                    || view.call_id.eq_ignore_ascii_case(part.as_bytes())
            })
            && holds(&self.policy, &|| {
                format!("{}\n{}", view.policy.name, view.policy.rule_name(view.rule).unwrap_or(""))
            })
            && holds(&self.peer, &|| shown_peer(&view.legs[Leg::Remote.index()]))
    }
}

/// As it is shown, without a user of the call.
pub(crate) fn shown_call_id(view: &SessionView, reveal: bool) -> String {
    let parties = view.legs.each_ref().map(|leg| Some(leg.party.as_slice()));
    typed::shown_call_id(&view.call_id, !reveal && names_user(&view.call_id, parties))
}

/// The remote side as it is shown. Users stay hidden here even from who may see them: a filter that finds what it does
/// not show would tell them.
fn shown_peer(leg: &LegView) -> String {
    let (party, target) = (typed::shown_party(&leg.party, false), typed::shown_uri(&leg.target, false));
    format!("{}\n{party}\n{target}", leg.flow.peer)
}

/// How views become JSON.
#[derive(Clone)]
pub struct Presenter {
    hub: Arc<Hub>,
    clock_speed: u32,
}

impl Presenter {
    /// Session time of `hub` runs `clock_speed` times faster.
    pub fn new(hub: Arc<Hub>, clock_speed: u32) -> Presenter {
        Presenter { hub, clock_speed }
    }

    /// Up to `limit` sessions that fit, from the `offset`th over all shards. Sessions that come or go between two locks
    /// may be shown twice or not at all.
    pub fn page(&self, filter: &Filter, offset: usize, limit: usize, reveal: bool) -> Page {
        let limit = limit.min(MAX_PAGE);
        if filter.fits_all() {
            self.unfiltered(offset, limit, reveal)
        } else {
            self.filtered(filter, offset, limit, reveal)
        }
    }

    /// Looks only at the page.
    fn unfiltered(&self, offset: usize, limit: usize, reveal: bool) -> Page {
        let now = self.hub.now();
        let mut sessions = Vec::new();
        let mut total = 0;
        for index in 0..self.hub.shard_count() {
            let known = self.hub.lock(index).shard.dialogs().known();
            let mut skip = offset.saturating_sub(total);
            while sessions.len() < limit && skip < known {
                let views =
                    self.hub.lock(index).shard.dialogs().sessions(skip, LOCKED_PAGE.min(limit - sessions.len()));
                if views.is_empty() {
                    break;
                }
                skip += views.len();
                sessions.extend(views.iter().map(|view| self.session(now, index, view, reveal, false)));
            }
            total += known;
        }
        Page { sessions, total, active: self.hub.active() }
    }

    /// Looks at every session, since their number is told.
    fn filtered(&self, filter: &Filter, offset: usize, limit: usize, reveal: bool) -> Page {
        let now = self.hub.now();
        let mut sessions = Vec::new();
        let mut total = 0;
        for index in 0..self.hub.shard_count() {
            let mut skip = 0;
            loop {
                let views = self.hub.lock(index).shard.dialogs().sessions(skip, LOCKED_PAGE);
                if views.is_empty() {
                    break;
                }
                skip += views.len();
                for view in views.iter().filter(|view| filter.fits(view)) {
                    if total >= offset && sessions.len() < limit {
                        sessions.push(self.session(now, index, view, reveal, false));
                    }
                    total += 1;
                }
            }
        }
        Page { sessions, total, active: self.hub.active() }
    }

    /// The session of that name.
    pub fn find(&self, name: &str, reveal: bool) -> Option<Session> {
        let (index, id) = report::parse_session_name(name)?;
        let view = self.hub.session(index, id)?;
        Some(self.session(self.hub.now(), index, &view, reveal, true))
    }

    fn session(&self, now: Time, shard: usize, view: &SessionView, reveal: bool, explained: bool) -> Session {
        let until = |time: Time| self.scaled(time.since(now)) - self.scaled(now.since(time));
        let (state, ended) = match view.state {
            SessionState::Active => ("Active", None),
            SessionState::Ended(cause) => ("Ended", Some(report::cause_name(cause))),
        };
        let [local, remote] = Leg::BOTH.map(|leg| self.party(&view.legs[leg.index()], reveal));
        Session {
            id: session_name(shard, view.id),
            call_id: shown_call_id(view, reveal),
            direction: view.direction.as_str(),
            state,
            ended,
            mode: report::mode_name(view.policy.mode),
            policy: view.policy.name.clone(),
            rule: view.policy.rule_name(view.rule).map(str::to_owned),
            trace_id: self.hub.trace_id(shard, view.id).map(|id| id.to_string()),
            interval_s: view.interval,
            refresher: view.refresher.map(Leg::as_str),
            deadline_in_s: view.deadline.map(until),
            expires_in_s: view.expires_at.map(until),
            min_se_s: Some(view.min_se).filter(|min_se| *min_se > 0),
            next: view.next_step.map(|(at, step)| Next { step: step_name(step), in_s: until(at) }),
            acting: view.acting.map(|acting| Acting {
                method: acting.method.map(Method::as_str),
                sdp: acting.sdp.map_or_else(report::sdp_name, |_| "Known"),
                peer_has_timers: acting.peer_has_timers,
                last_refresh_ago_s: acting.last_refresh.map(|at| self.scaled(now.since(at))),
                under_way: acting.under_way,
            }),
            age_s: self.scaled(now.since(view.started)),
            legs: Legs { local, remote },
            events: view
                .events
                .iter()
                .map(|past| PastEvent {
                    ago_s: self.scaled(now.since(past.at)),
                    record: (&past.event).into(),
                    words: explained.then(|| Words::of(past.event.kind, past.event.observed)),
                })
                .collect(),
        }
    }

    fn party(&self, leg: &LegView, reveal: bool) -> Party {
        let endpoint = &self.hub.endpoints[usize::from(leg.flow.endpoint)];
        Party {
            party: typed::shown_party(&leg.party, reveal),
            target: typed::shown_uri(&leg.target, reveal),
            flow: leg.flow.peer.to_string(),
            transport: transport_name(endpoint.transport),
            cseq: leg.cseq,
        }
    }

    fn scaled(&self, duration: std::time::Duration) -> f64 {
        duration.as_secs_f64() * f64::from(self.clock_speed)
    }
}

fn step_name(step: NextStep) -> &'static str {
    match step {
        NextStep::Refresh => "Refresh",
        NextStep::Probe => "Probe",
        NextStep::Expire => "Expire",
    }
}
