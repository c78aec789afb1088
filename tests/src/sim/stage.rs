//! What tests of single calls share: a call set up, time passing with the judges at work, and looking at what crossed.

use sipwarden_session_timer::{
    EndCause, EventKind, Leg, Mode, Policy, RefresherPreference, SessionState, SessionView, Timers,
};

use super::agent::{Canned, Habits};
use super::dialog::Ending;
use super::timer::Wishes;
use super::trace::{self, Crossing};
use super::{Call, Parties, Setup, World};

pub const SECOND: u64 = 1_000;

/// A policy that enforces these timers.
pub fn enforce(timers: Timers) -> Policy {
    Policy { name: "test".into(), mode: Mode::Enforce, timers, rules: Vec::new() }
}

/// Timers of a sidecar that stands in for applications without them, and refreshes at a time that can be told.
pub fn standing_in(interval: u32, min_se: u32) -> Timers {
    let mut timers = Timers::new(interval, min_se, 7200).expect("valid timers");
    timers.refresh_jitter_percent = 0;
    timers
}

/// An agent that knows timers and asks for that interval.
pub fn native(interval: u32) -> Habits {
    Habits::native(Wishes::plain(Some(interval)))
}

/// An agent without timers and without UPDATE.
pub fn simple() -> Habits {
    Habits { update: false, ..Habits::plain() }
}

/// Timers of a sidecar that stands in, and is always the refresher where it can be.
pub fn refreshing(interval: u32) -> Timers {
    let mut timers = standing_in(interval, 90);
    timers.refresher = RefresherPreference::Local;
    timers
}

/// An answer to requests in a dialog, so many times; as [`Canned`] has it.
pub fn canned(method: &'static str, status: u16, times: u32) -> Canned {
    Canned { method, status, retry_after: None, times }
}

/// An agent that answers so.
pub fn scripted(habits: Habits, canned: Canned) -> Habits {
    Habits { script: vec![canned], ..habits }
}

/// A world with one call between two agents, run until it is answered and a little longer.
pub fn answered(timers: Timers, caller: Leg, uac: Habits, uas: Habits) -> (World, Parties) {
    staged(Setup::perfect(enforce(timers)), Call::between(caller, uac, uas))
}

/// The same, of a call in a world of its own.
pub fn staged(setup: Setup, call: Call) -> (World, Parties) {
    let mut world = World::new(setup);
    let parties = world.call(call);
    run(&mut world, 2 * SECOND);
    (world, parties)
}

/// Lets time pass; whatever does not hold ends the test.
pub fn run(world: &mut World, ms: u64) {
    let result = world.run_for(ms);
    result.unwrap_or_else(|error| panic!("{}{error}", trace::text(&world.log, &error)));
}

/// Lets everything come to its end.
pub fn finish(world: &mut World) {
    let result = world.finish(200_000);
    result.unwrap_or_else(|error| panic!("{}{error}", trace::text(&world.log, &error)));
}

/// The only session of the sidecar beside the application.
pub fn session(world: &World) -> SessionView {
    let sessions = world.sessions();
    assert_eq!(sessions.len(), 1, "one session\n{}", trace::text(&world.log, ""));
    sessions.into_iter().next().expect("one")
}

/// That session goes on.
pub fn assert_active(world: &World) {
    assert_eq!(session(world).state, SessionState::Active, "{}", trace::text(&world.log, ""));
}

/// What left the sidecar beside the application towards a leg, as a method or `200 INVITE`.
pub fn left<'w>(world: &'w World, leg: Leg, kind: &str) -> Vec<&'w Crossing> {
    world.log.iter().filter(|crossing| crossing.sidecar == 0 && crossing.is(leg, kind)).collect()
}

/// Requests that this sidecar made of itself, retransmissions left out.
pub fn made<'w>(world: &'w World, leg: Leg, method: &str) -> Vec<&'w Crossing> {
    let mut branches = Vec::new();
    let mut found = left(world, leg, method);
    found.retain(|crossing| {
        let branch = crossing.sip.branch();
        let is_new = !branches.contains(&branch);
        branches.push(branch);
        is_new && crossing.sip.list("Via").len() == 1
    });
    found
}

/// What that sidecar told.
pub fn told(world: &World, wanted: impl Fn(&EventKind) -> bool) -> usize {
    world.events.iter().filter(|(_, sidecar, event)| *sidecar == 0 && wanted(&event.kind)).count()
}

/// How the first dialog of an agent ended.
pub fn ending(world: &World, agent: usize) -> Option<Ending> {
    world.agent(agent).dialogs.first().and_then(|dialog| dialog.end)
}

/// How the only session of the sidecar beside the application ended, if it did.
pub fn ended(world: &World) -> Option<EndCause> {
    world.events.iter().find_map(|(_, sidecar, event)| match event.kind {
        EventKind::Ended { cause } if *sidecar == 0 => Some(cause),
        _ => None,
    })
}
