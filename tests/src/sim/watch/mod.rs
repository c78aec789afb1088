//! A model of a sidecar that stands in for its application, from the RFCs and from what crosses its border alone. It says
//! of each message whether it was treated as it must be, and which session each dialog must have.
//!
//! ```text
//! came ─► passed: nothing but numbers and timer headers differ    ─► asked ─► 2xx: the timer that both sides heard of
//!      ─► answered here: 422, 491, or in the application's place
//!      ─► an answer to one of the sidecar's own                   ─► own (refresh, probe, BYE)
//! ```

mod held;
mod numbers;
mod offers;
mod own;

use std::collections::HashMap;
use std::sync::Arc;

use sipwarden_session_timer::{ActForApp, BelowMinSe, Direction, EndCause, Leg, Policy, Timers, WithoutPeerSupport};

use super::invariants::{self, Sequences};
use super::message::Sip;
use super::timer::{LEAST, Role, SessionExpires, min_se_of};
pub use held::Held;
use numbers::{Numbers, Origin};
use offers::check_offer;
pub use own::Own;

/// Wheel granularity: so much later than its time something may be noticed.
const TICK_MS: u64 = 16;
/// What the sidecar may change in a message that passes.
const CHANGED: [&str; 10] = [
    "via",
    "route",
    "record-route",
    "max-forwards",
    "session-expires",
    "min-se",
    "require",
    "supported",
    "cseq",
    "rack",
];
/// For how long an answered INVITE may be answered again (64 × T1), with some room.
const ANSWERED_MS: u64 = 31_000;
/// How often a request may be sent once more.
const MOST_TRIES: u32 = 5;

/// An INVITE or UPDATE that passed, or was answered in the application's place.
pub struct Asked {
    call_id: String,
    from: Leg,
    from_tag: String,
    to_tag: Option<String>,
    pub method: String,
    /// As its sender numbered it.
    pub cseq: u32,
    /// As the remote leg saw it.
    header: Option<SessionExpires>,
    min_se: Option<u32>,
    knows: bool,
    /// The sidecar speaks for the application; `None`: its answer tells.
    acts: Option<bool>,
    timers: Timers,
    /// To tags of the 2xx that came.
    concluded: Vec<String>,
    answered_at: Option<u64>,
    /// Its sender has gone on to another one.
    superseded: bool,
    pub open: bool,
    since: u64,
    tries: u32,
    app_updates: bool,
    peer_knows: bool,
}

impl Asked {
    pub fn is_of(&self, held: &Held) -> bool {
        let tags = [self.from, self.from.other()].map(|leg| held.tags[leg.index()].as_str());
        self.call_id == held.call_id
            && self.from_tag == tags[0]
            && self.to_tag.as_deref().is_none_or(|to| to == tags[1])
    }

    /// Does its sender still wait for its answer?
    pub fn is_open(&self, now: u64) -> bool {
        self.open && now < self.since + 32_000
    }
}

/// The model.
pub struct Watch {
    policy: Arc<Policy>,
    idle_ms: u64,
    pub dialogs: Vec<Held>,
    pub asked: Vec<Asked>,
    pub own: Vec<Own>,
    /// Somebody asks for an end.
    pub ends_on_request: bool,
    numbers: Numbers,
    sequences: Sequences,
    /// INVITEs the sidecar answered: Call-ID, From tag, CSeq.
    refused: Vec<(String, String, u32)>,
    /// Branch and CSeq of what met a request of the sidecar.
    glared: Vec<(String, u32)>,
    /// The branch a request left with, by the one it came with and its number.
    branches: HashMap<(String, u32), String>,
}

fn owned(text: Option<&str>) -> String {
    text.unwrap_or_default().to_owned()
}

fn speaks(message: &Sip) -> bool {
    message.lists("Supported", "timer") || message.lists("Require", "timer")
}

impl Watch {
    pub fn new(policy: Arc<Policy>, idle_ms: u64) -> Watch {
        Watch {
            policy,
            idle_ms,
            dialogs: Vec::new(),
            asked: Vec::new(),
            own: Vec::new(),
            ends_on_request: false,
            numbers: Numbers::default(),
            sequences: Sequences::default(),
            refused: Vec::new(),
            glared: Vec::new(),
            branches: HashMap::new(),
        }
    }

    /// From now on judges by `policy`.
    pub fn set_policy(&mut self, policy: Arc<Policy>) {
        self.policy = policy;
    }

    /// `came` from `from`, and `left` left because of it.
    pub fn crossed(&mut self, now: u64, from: Leg, came: &Sip, left: &[(Leg, Sip)]) -> Result<(), String> {
        self.run_out(now);
        let is_own = |sip: &Sip| sip.method().is_some() && sip.list("Via").len() == 1;
        let others: Vec<&(Leg, Sip)> = left.iter().filter(|(_, sip)| !is_own(sip)).collect();
        match came.status() {
            None => self.request(now, from, came, &others)?,
            Some(status) => match self.own.iter().position(|own| own.request.branch() == came.branch()) {
                Some(_) if !others.is_empty() => return Err("an answer to the sidecar's own request passed".into()),
                Some(at) => self.own_answered(now, at, came, left)?,
                None => self.response(now, from, came, status, &others)?,
            },
        }
        let mut own = left.iter().filter(|(_, sip)| is_own(sip));
        own.try_for_each(|(leg, sip)| self.own_left(now, *leg, sip))
    }

    /// Time passed, and `left` left because of it.
    pub fn acted(&mut self, now: u64, left: &[(Leg, Sip)]) -> Result<(), String> {
        self.run_out(now);
        left.iter().try_for_each(|(leg, sip)| self.own_left(now, *leg, sip))
    }

    fn dialog(&self, from: Leg, message: &Sip, sender: &str, receiver: &str) -> Option<usize> {
        let (sender, receiver) = (message.tag(sender)?, message.tag(receiver)?);
        self.dialogs.iter().position(|held| {
            held.call_id == message.call_id()
                && held.tags[from.index()] == sender
                && held.tags[from.other().index()] == receiver
        })
    }

    /// The simulated policies match on nothing but the direction.
    fn timers_for(&self, caller: Leg) -> Timers {
        let direction = if caller == Leg::Local { Direction::Outbound } else { Direction::Inbound };
        let fits = |wanted: Option<Direction>| wanted.is_none_or(|wanted| wanted == direction);
        let rule = self.policy.rules.iter().find(|rule| fits(rule.matches.direction));
        rule.map_or_else(|| self.policy.timers.clone(), |rule| rule.timers.clone())
    }

    // Requests

    fn request(&mut self, now: u64, from: Leg, came: &Sip, left: &[&(Leg, Sip)]) -> Result<(), String> {
        let refused = (came.call_id().to_owned(), owned(came.tag("From")), came.cseq().0);
        match left {
            [(to, left)] if *to == from.other() && left.method().is_some() => self.passed(now, from, came, left),
            [(to, answer)] if *to == from && answer.status().is_some() => self.answered(now, from, came, answer),
            [] if came.method() == Some("ACK") => {
                let over =
                    self.dialog(from, came, "From", "To").is_some_and(|index| self.dialogs[index].ended_by_sidecar());
                if over || self.refused.contains(&refused) { Ok(()) } else { Err("an ACK went nowhere".into()) }
            }
            _ => Err(format!("{} packets left: {:?}", left.len(), left.first())),
        }
    }

    fn passed(&mut self, now: u64, from: Leg, came: &Sip, left: &Sip) -> Result<(), String> {
        invariants::check_carried(came, left, &CHANGED)?;
        let dialog = self.dialog(from, came, "From", "To");
        let forgotten = |held: &Held| held.end.is_some() && now >= held.remembered_until();
        if dialog.is_some_and(|index| forgotten(&self.dialogs[index])) {
            return Ok(());
        }
        let refused = (came.call_id().to_owned(), owned(came.tag("From")), came.cseq().0);
        if came.method() == Some("ACK") && self.refused.contains(&refused) {
            // Of several that were refused only the newest is known.
            return Ok(());
        }
        self.numbers.passed(came, left)?;
        self.sequences.check(left, false)?;
        let branch = self.branches.entry((came.branch(), left.cseq().0)).or_insert_with(|| left.branch());
        if *branch != left.branch() {
            return Err(format!("{} left as {branch} and as {}", came.branch(), left.branch()));
        }
        let (_, method) = came.cseq();
        if let Some(held) = dialog.map(|index| &mut self.dialogs[index]) {
            if held.ended_by_sidecar() && now <= held.remembered_until() {
                return Err(format!("it passed, and the session is {:?}", held.end));
            }
            if held.end.is_none() {
                held.heard_at = now;
                if method == "BYE" {
                    held.finish(now, EndCause::Bye(from));
                }
            }
        }
        let live = dialog.is_some_and(|index| self.dialogs[index].end.is_none());
        match method {
            "INVITE" | "UPDATE" if live || came.tag("To").is_none() => self.offered(now, from, came, left, dialog),
            _ => Ok(()),
        }
    }

    fn find_asked(&self, request: &Sip, cseq: u32, method: &str, to_tag: Option<&str>) -> Option<usize> {
        self.asked.iter().position(|asked| {
            asked.call_id == request.call_id()
                && Some(asked.from_tag.as_str()) == request.tag("From")
                && (asked.cseq, asked.method.as_str()) == (cseq, method)
                && (asked.to_tag.is_none() || asked.to_tag.as_deref() == to_tag)
        })
    }

    fn offered(&mut self, now: u64, from: Leg, came: &Sip, left: &Sip, dialog: Option<usize>) -> Result<(), String> {
        let (cseq, method) = came.cseq();
        if let Some(known) = self.find_asked(came, cseq, method, came.tag("To")) {
            let same = self.asked[known].header == SessionExpires::of(left).ok().flatten() || from == Leg::Remote;
            return if same { Ok(()) } else { Err("a retransmission left with another Session-Expires".into()) };
        }
        let caller = dialog.map_or(from, |index| self.dialogs[index].caller);
        let timers = self.timers_for(caller);
        let acts = match (dialog, timers.act_for_app, from) {
            // An application that begins to speak for itself.
            (Some(_), ActForApp::Auto, Leg::Local) if speaks(came) => Some(false),
            (Some(index), ..) => Some(self.dialogs[index].acts),
            (None, ActForApp::Never, _) => Some(false),
            (None, ActForApp::Always, _) => Some(true),
            (None, ActForApp::Auto, Leg::Local) => Some(!speaks(came)),
            (None, ActForApp::Auto, Leg::Remote) => None,
        };
        let known = dialog.map_or(0, |index| self.dialogs[index].highest_min_se);
        check_offer(&timers, from, acts, known, came, left)?;
        if let Some(held) = dialog.map(|index| &mut self.dialogs[index]) {
            match from {
                Leg::Local => held.learn_app(came),
                Leg::Remote => held.learn_peer(came),
            }
        }
        let (from_tag, to_tag) = (owned(came.tag("From")), came.tag("To"));
        let earlier =
            self.asked.iter_mut().filter(|asked| asked.call_id == came.call_id() && asked.from_tag == from_tag);
        let earlier =
            earlier.filter(|asked| to_tag.is_some() && asked.to_tag.as_deref() == to_tag && asked.cseq < cseq);
        earlier.for_each(|asked| asked.superseded = true);
        let remote = if from == Leg::Local { left } else { came };
        self.asked.push(Asked {
            call_id: came.call_id().to_owned(),
            from,
            from_tag: owned(came.tag("From")),
            to_tag: came.tag("To").map(str::to_owned),
            method: method.to_owned(),
            cseq,
            header: SessionExpires::of(remote).ok().flatten(),
            min_se: min_se_of(remote),
            knows: remote.lists("Supported", "timer"),
            acts,
            timers,
            concluded: Vec::new(),
            answered_at: None,
            superseded: false,
            open: true,
            since: now,
            tries: 0,
            app_updates: from == Leg::Local && came.lists("Allow", "UPDATE"),
            peer_knows: from == Leg::Remote && (speaks(came) || SessionExpires::of(came) != Ok(None)),
        });
        Ok(())
    }

    /// The sidecar answered a request itself.
    fn answered(&mut self, now: u64, from: Leg, came: &Sip, answer: &Sip) -> Result<(), String> {
        let ((cseq, method), status) = (came.cseq(), answer.status().unwrap_or_default());
        let copied = ["From", "Call-ID", "CSeq"].iter().all(|name| came.get(name) == answer.get(name));
        if !copied || answer.tag("To").is_none() {
            return Err(format!("the {status} does not fit its request"));
        }
        if method == "INVITE" && status >= 300 {
            self.refused.push((came.call_id().to_owned(), owned(came.tag("From")), cseq));
        }
        let dialog = self.dialog(from, came, "From", "To");
        if let Some(held) = dialog.map(|index| &mut self.dialogs[index])
            && held.end.is_none()
        {
            held.heard_at = now;
        }
        let over = dialog.is_some_and(|index| self.dialogs[index].ended_by_sidecar());
        let fits = match (status, method) {
            (422, "INVITE" | "UPDATE") => self.must_refuse(from, came, answer, dialog),
            (491, "INVITE" | "UPDATE") => {
                let own = |own: &&Own| Some(own.dialog) == dialog && own.leg == Leg::Remote && own.is_open(now);
                let meets = self.own.iter().filter(own).any(|own| own.method() != "BYE");
                // What was refused is refused again.
                let key = (came.branch(), cseq);
                let again = self.glared.contains(&key);
                self.glared.extend((meets && !again).then_some(key));
                meets || again
            }
            (200, "UPDATE") if !over => return self.answered_for_app(now, from, came, answer, dialog),
            (200, "BYE") => over,
            (481, _) => over,
            _ => false,
        };
        if fits { Ok(()) } else { Err(format!("it was answered {status} by the sidecar")) }
    }

    fn must_refuse(&self, from: Leg, came: &Sip, answer: &Sip, dialog: Option<usize>) -> bool {
        let timers = self.timers_for(dialog.map_or(from, |index| self.dialogs[index].caller));
        let asked = SessionExpires::of(came).ok().flatten();
        asked.is_some_and(|asked| asked.delta < timers.min_se_s())
            && came.lists("Supported", "timer")
            && timers.below_min_se == BelowMinSe::Reject
            && min_se_of(answer) == Some(timers.min_se_s())
    }

    /// A refresh of the remote side that the application could only refuse.
    fn answered_for_app(
        &mut self,
        now: u64,
        from: Leg,
        came: &Sip,
        answer: &Sip,
        dialog: Option<usize>,
    ) -> Result<(), String> {
        let Some(index) = dialog.filter(|_| from == Leg::Remote && came.body.is_empty()) else {
            return Err("an UPDATE was answered in nobody's place".into());
        };
        if !self.dialogs[index].acts || self.dialogs[index].app_updates {
            return Err("an UPDATE was answered that the application takes itself".into());
        }
        let (cseq, method) = came.cseq();
        if self.find_asked(came, cseq, method, came.tag("To")).is_none() {
            self.dialogs[index].learn_peer(came);
            self.offered(now, from, came, came, dialog)?;
            let last = self.asked.len() - 1;
            self.check_own_answer(last, answer)?;
            self.conclude(now, last, true, answer, answer);
        }
        Ok(())
    }

    // Responses

    fn response(&mut self, now: u64, by: Leg, came: &Sip, status: u16, left: &[&(Leg, Sip)]) -> Result<(), String> {
        let origin = self.numbers.origin(came);
        let passed: Vec<&Sip> =
            left.iter().filter(|(leg, sip)| *leg == by.other() && sip.status().is_some()).map(|(_, sip)| sip).collect();
        let again = left.iter().find(|(_, sip)| matches!(sip.method(), Some("INVITE" | "UPDATE")));
        match (&passed[..], origin) {
            ([], Origin::Own(own)) if status == 422 && again.is_some() => {
                let again = &again.ok_or("nothing was sent once more")?.1;
                self.retried(by, came, own, again, left)
            }
            ([], Origin::Earlier(_)) => Ok(()),
            ([_], _) if self.is_forgotten(now, by, came) => Ok(()),
            ([left], Origin::Own(own)) => self.response_passed(now, by, came, left, own),
            ([left], Origin::Unknown) => self.response_passed(now, by, came, left, came.cseq().0),
            ([_], Origin::Earlier(own)) => Err(format!("an answer to an earlier try of {own} passed")),
            _ => Err(format!("{} packets left: {:?}", left.len(), left.first())),
        }
    }

    /// Its dialog ended so long ago that nothing has to be known of it.
    fn is_forgotten(&self, now: u64, by: Leg, response: &Sip) -> bool {
        let dialog = self.dialog(by, response, "To", "From").map(|index| &self.dialogs[index]);
        dialog.is_some_and(|held| held.end.is_some() && now >= held.remembered_until())
    }

    /// The application's request was sent once more (RFC 4028 §7.3).
    fn retried(&mut self, by: Leg, came: &Sip, own: u32, again: &Sip, left: &[&(Leg, Sip)]) -> Result<(), String> {
        let before = came.cseq().0;
        self.numbers.retried(before, again)?;
        self.sequences.check(again, false)?;
        let acks = left.iter().filter(|(_, sip)| sip.method() == Some("ACK") && sip.cseq().0 == before).count();
        let invites = again.method() == Some("INVITE");
        if acks != usize::from(invites) || left.len() != acks + 1 {
            return Err(format!("{acks} ACKs of {} packets answer a 422", left.len()));
        }
        let position = self.find_asked(again, own, again.method().unwrap_or_default(), came.tag("To"));
        let asked = &mut self.asked[position.ok_or("a request nobody sent is sent once more")?];
        let wanted = min_se_of(came).unwrap_or(LEAST);
        let header = SessionExpires::of(again).ok().flatten();
        asked.tries += 1;
        let may = by == Leg::Remote && asked.acts == Some(true) && asked.tries <= MOST_TRIES;
        let follows = header.is_some_and(|header| header.delta >= wanted) && min_se_of(again) >= Some(wanted);
        if !may || !follows || wanted > asked.timers.max_min_se_s() {
            return Err(format!("a 422 of {wanted} was answered with {header:?} at try {}", asked.tries));
        }
        (asked.header, asked.min_se) = (header, min_se_of(again));
        self.learn_min_se(by, came);
        Ok(())
    }

    /// A 422 came in its dialog, where there is one.
    fn learn_min_se(&mut self, by: Leg, rejection: &Sip) {
        if let Some(held) = self.dialog(by, rejection, "To", "From").map(|index| &mut self.dialogs[index]) {
            held.highest_min_se = held.highest_min_se.max(min_se_of(rejection).unwrap_or(0));
        }
    }

    fn response_passed(&mut self, now: u64, by: Leg, came: &Sip, left: &Sip, own: u32) -> Result<(), String> {
        invariants::check_carried(came, left, &CHANGED)?;
        let (status, method) = (came.status().unwrap_or_default(), came.cseq().1);
        if left.cseq() != (own, method) {
            return Err(format!("it answers {own} {method}, and left as {:?}", left.cseq()));
        }
        let dialog = self.dialog(by, came, "To", "From").filter(|index| self.dialogs[*index].end.is_none());
        if let Some(index) = dialog {
            self.dialogs[index].heard_at = now;
        }
        let position = self.find_asked(came, own, method, came.tag("To"));
        let initial = position.is_some_and(|at| self.asked[at].to_tag.is_none());
        let ends = match method {
            "INVITE" | "UPDATE" => own::ends(status),
            "INFO" | "PRACK" => matches!(status, 408 | 481),
            _ => false,
        };
        if ends
            && !initial
            && let Some(index) = dialog
        {
            self.dialogs[index].finish(now, EndCause::Response(status));
        }
        let Some(position) = position else { return Ok(()) };
        if status == 422 && !initial {
            self.learn_min_se(by, came);
        }
        self.asked[position].open &= status < 200;
        match status {
            ..200 => Ok(()),
            200..300 => self.accepted(now, by, came, left, position),
            _ => {
                // A late copy of it is judged anew.
                if self.asked[position].concluded.is_empty() {
                    self.asked.swap_remove(position);
                }
                Ok(())
            }
        }
    }

    fn accepted(&mut self, now: u64, by: Leg, came: &Sip, left: &Sip, position: usize) -> Result<(), String> {
        let asked = &self.asked[position];
        let app_says = by == Leg::Local && (speaks(came) || SessionExpires::of(came) != Ok(None));
        // Each fork by its own answer.
        let acts = asked.acts.unwrap_or(!app_says);
        let superseded = self.is_superseded(now, position);
        if acts && !superseded {
            match by {
                Leg::Remote if SessionExpires::of(left) != Ok(None) || left.lists("Require", "timer") => {
                    return Err("the application is told of a timer".into());
                }
                Leg::Remote => {}
                Leg::Local => self.check_own_answer(position, left)?,
            }
        }
        let tag = owned(came.tag("To"));
        if !self.asked[position].concluded.contains(&tag) {
            self.conclude(now, position, acts, came, left);
        }
        Ok(())
    }

    /// Nobody can care any more how its answer is written.
    fn is_superseded(&self, now: u64, position: usize) -> bool {
        let asked = &self.asked[position];
        let over = || self.dialogs.iter().any(|held| asked.is_of(held) && held.end.is_some());
        let late = asked.answered_at.is_some_and(|at| now > at + ANSWERED_MS);
        late || asked.superseded || (asked.to_tag.is_some() && over())
    }

    /// The first 2xx: what both sides heard of a timer.
    fn conclude(&mut self, now: u64, position: usize, acts: bool, came: &Sip, left: &Sip) {
        let asked = &mut self.asked[position];
        let (from, tag) = (asked.from, owned(came.tag("To")));
        asked.concluded.push(tag.clone());
        asked.open = false;
        asked.answered_at.get_or_insert(now);
        let heard = if from == Leg::Local { came } else { left };
        let timer = match SessionExpires::of(heard).ok().flatten() {
            Some(said) => {
                let assumed = if asked.knows { Role::Uac } else { Role::Uas };
                let role = said.refresher.or(asked.header.and_then(|header| header.refresher)).unwrap_or(assumed);
                Some((said.delta.max(LEAST), if role == Role::Uac { from } else { from.other() }))
            }
            // Nobody but the sidecar knows timers there; or it tells an application that does (§8.2).
            None if from == Leg::Local && asked.knows => {
                let skips = acts && asked.timers.without_peer_support == WithoutPeerSupport::Skip;
                asked.header.filter(|_| !skips).map(|header| (header.delta, from))
            }
            None => None,
        };
        let mut tags = [tag.clone(), tag];
        tags[from.index()].clone_from(&asked.from_tag);
        let (call_id, timers) = (asked.call_id.clone(), asked.timers.clone());
        let (app_updates, peer_knows, initial) = (asked.app_updates, asked.peer_knows, asked.to_tag.is_none());
        let known = self.dialogs.iter().position(|held| held.call_id == call_id && held.tags == tags);
        let index = match known {
            Some(index) if self.dialogs[index].end.is_some() || initial => return,
            Some(index) => index,
            None if !initial => return,
            None => {
                self.dialogs.push(Held {
                    call_id,
                    tags,
                    caller: from,
                    timers: timers.clone(),
                    acts,
                    timer: None,
                    armed_at: now,
                    end: None,
                    ended_at: 0,
                    heard_at: now,
                    peer_knows,
                    app_updates,
                    app_alive: false,
                    probes_failed: 0,
                    highest_min_se: if from == Leg::Remote || asked.tries > 0 { asked.min_se.unwrap_or(0) } else { 0 },
                    refused: false,
                    stepped: false,
                    stepped_by_request: false,
                    excused: false,
                    was_excused: false,
                });
                self.dialogs.len() - 1
            }
        };
        let held = &mut self.dialogs[index];
        held.timers = timers;
        held.acts = acts;
        match from {
            Leg::Local => held.learn_peer(came),
            Leg::Remote => held.learn_app(came),
        }
        held.arm(now, timer);
    }
}
