//! Random worlds: policies, links, agents and what they do.

use std::sync::Arc;

use sipwarden_session_timer::{
    ActForApp, AppProbe, BelowMinSe, Direction, ExpiryAction, Leg, Malformed, Margin, Match, Mode, Policy,
    RefreshMethod, RefresherPreference, Rule, Timers, WithoutPeerSupport,
};

use super::agent::{Act, Canned, Habits};
use super::link::Link;
use super::message::Style;
use super::rng::Rng;
use super::timer::Wishes;
use super::{Call, Setup, World};

/// Session-Expires that is no Session-Expires, or an unusual one.
const ODD: [&str; 7] = ["abc", "4294967296", "-1", "", "1800;refresher=both", "1800;x=y;refresher=uas", "0"];
/// Within this time after its answer an agent does what it does.
const ACTIVE_MS: u64 = 1_500_000;

/// Timers of a sidecar that stands in for nobody.
pub fn proxy_only(interval: u32, min_se: u32) -> Timers {
    let mut timers = Timers::new(interval, min_se, 7200).expect("valid timers");
    timers.act_for_app = ActForApp::Never;
    timers
}

impl Habits {
    /// An agent that has never heard of session timers.
    pub fn plain() -> Habits {
        Habits {
            timer: None,
            update: true,
            stubborn: false,
            allows: true,
            late_offer: false,
            early_media: false,
            secured: false,
            restless: false,
            fax: false,
            script: Vec::new(),
            asks_for: Vec::new(),
            reliable_provisional: false,
            rings_ms: 1_000,
            busy: false,
            keeps_forks: false,
            odd_session_expires: None,
            style: Style::default(),
            acts: Vec::new(),
        }
    }

    /// An agent of RFC 4028.
    pub fn native(wishes: Wishes) -> Habits {
        Habits { timer: Some(wishes), ..Habits::plain() }
    }

    fn random(rng: &mut Rng) -> Habits {
        Habits {
            timer: rng.maybe(65, Wishes::random),
            update: rng.chance(70),
            stubborn: false,
            allows: true,
            late_offer: rng.chance(15),
            early_media: rng.chance(50),
            secured: rng.chance(10),
            restless: rng.chance(15),
            fax: rng.chance(50),
            script: Vec::new(),
            asks_for: Vec::new(),
            reliable_provisional: rng.chance(30),
            rings_ms: rng.range(0..15_000),
            busy: rng.chance(4),
            keeps_forks: rng.chance(40),
            odd_session_expires: rng.maybe(4, |rng| rng.pick(&ODD)),
            style: Style {
                compact: rng.chance(30),
                spaced: rng.chance(30),
                upper: rng.chance(20),
                folded: rng.chance(20),
            },
            acts: random_acts(rng),
        }
    }
}

fn random_acts(rng: &mut Rng) -> Vec<(u64, Act)> {
    let restless =
        [Act::Refresh, Act::Hold, Act::HoldByUpdate, Act::Fax, Act::AskForOffer, Act::Info, Act::Info, Act::TimerOff];
    let mut acts: Vec<(u64, Act)> =
        (0..rng.range(0..5)).map(|_| (rng.range(500..ACTIVE_MS / 2), rng.pick(&restless))).collect();
    // Together with the other side's, so that offers collide.
    acts.extend(rng.maybe(25, |rng| (rng.pick(&[10_000, 60_000]), Act::Hold)));
    // Some stay until the other side, or the sidecar, ends the call.
    let last = rng.pick(&[Act::HangUp, Act::HangUp, Act::Vanish, Act::Vanish, Act::Forget]);
    acts.extend(rng.maybe(75, |rng| (rng.range(1_000..ACTIVE_MS), last)));
    acts
}

fn random_timers(rng: &mut Rng) -> Timers {
    let least = rng.pick(&[90, 90, 90, 120, 300]);
    let interval = rng.pick(&[90, 120, 180, 600, 1800]).max(least);
    let mut timers = Timers::new(interval, least, 7200).expect("interval and maximum are above the minimum");
    timers.act_for_app = ActForApp::Never;
    timers.below_min_se = rng.pick(&[BelowMinSe::Reject, BelowMinSe::Reject, BelowMinSe::Raise]);
    timers.refresher = rng.pick(&[
        RefresherPreference::PeerChoice,
        RefresherPreference::Local,
        RefresherPreference::Remote,
        RefresherPreference::Caller,
        RefresherPreference::Callee,
    ]);
    timers.malformed = rng.pick(&[Malformed::Forward, Malformed::Reject]);
    timers.expiry = rng.pick(&[ExpiryAction::Bye, ExpiryAction::Bye, ExpiryAction::Bye, ExpiryAction::Report]);
    timers.margin = rng.pick(&[Margin::Rfc4028, Margin::Rfc4028, Margin::Fixed(5), Margin::Fixed(0)]);
    timers
}

/// A policy that may have a rule for calls of that direction.
fn random_policy(rng: &mut Rng, direction: Direction) -> Policy {
    let matches = Match { direction: Some(direction), ..Match::default() };
    let rule = rng.maybe(30, |rng| Rule { name: "one-way".into(), matches, timers: random_timers(rng) });
    let mode = if rng.chance(15) { Mode::Observe } else { Mode::Enforce };
    Policy { name: "random".into(), mode, timers: random_timers(rng), rules: rule.into_iter().collect() }
}

/// The world of a seed, with `calls` calls that begin within two minutes.
pub fn random_world(seed: u64, calls: u64) -> World {
    let mut rng = Rng::new(seed);
    let direction = rng.pick(&[Direction::Inbound, Direction::Outbound]);
    let policy = Arc::new(random_policy(&mut rng, direction));
    let (remote_link, mut local_link) = (Link::random(&mut rng), Link::random(&mut rng));
    let tcp = rng.chance(25);
    if tcp {
        // What came over a stream is not sent again by its sender, nor by a stateless proxy.
        local_link.loss = 0;
    }
    let mut world =
        World::new(Setup { seed: rng.draw(), policy, remote_link, local_link, idle_ms: 7_200_000, sidecars: 1 });
    if rng.chance(20) {
        let policy = random_policy(&mut rng, direction);
        world.set_policy_after(rng.range(0..ACTIVE_MS / 2), policy);
    }
    for _ in 0..calls {
        let forks = if rng.chance(25) { 2 } else { 1 };
        let call = Call {
            caller: rng.pick(&Leg::BOTH),
            uac: Habits::random(&mut rng),
            callees: (0..forks).map(|_| Habits::random(&mut rng)).collect(),
            tcp,
            proxy_cancels: rng.chance(40),
            starts_ms: rng.range(0..120_000),
        };
        let starts_ms = call.starts_ms;
        let parties = world.call(call);
        // Nobody talks for ever.
        world.act(parties.uac, starts_ms + 3 * ACTIVE_MS, Act::HangUp);
        if rng.chance(10) {
            world.act(parties.uac, starts_ms + rng.range(0..15_000), Act::Cancel);
        }
    }
    world
}

/// Timers of a sidecar that stands in for applications.
fn random_acting_timers(rng: &mut Rng) -> Timers {
    let mut timers = random_timers(rng);
    timers.act_for_app = rng.pick(&[ActForApp::Auto, ActForApp::Auto, ActForApp::Auto, ActForApp::Always]);
    timers.refresh_method =
        rng.pick(&[RefreshMethod::Auto, RefreshMethod::Auto, RefreshMethod::ReInvite, RefreshMethod::Update]);
    timers.refresh_jitter_percent = rng.pick(&[0, 10, 50]);
    timers.app_probe = if rng.chance(85) { AppProbe::Options } else { AppProbe::None };
    timers.without_peer_support = if rng.chance(85) { WithoutPeerSupport::Refresh } else { WithoutPeerSupport::Skip };
    timers
}

fn random_acting_policy(rng: &mut Rng, direction: Direction) -> Policy {
    let matches = Match { direction: Some(direction), ..Match::default() };
    let rule = rng.maybe(30, |rng| Rule { name: "one-way".into(), matches, timers: random_acting_timers(rng) });
    let timers = random_acting_timers(rng);
    Policy { name: "random".into(), mode: Mode::Enforce, timers, rules: rule.into_iter().collect() }
}

/// An agent in a world of sidecars that stand in; `plain` of 100 have no timers.
fn random_acting_habits(rng: &mut Rng, plain: u64) -> Habits {
    let mut habits = Habits { odd_session_expires: None, ..Habits::random(rng) };
    if rng.chance(plain) {
        habits.timer = None;
    }
    if let Some(wishes) = &mut habits.timer {
        // What a 2xx then means is the other model's affair.
        wishes.sloppy = false;
    }
    habits.allows = rng.chance(85);
    habits.stubborn = rng.chance(15);
    let times = rng.range(1..3) as u32;
    let unknown = |method, status| Canned { method, status, retry_after: None, times: u32::MAX };
    let passing = |method, status, retry_after| Canned { method, status, retry_after, times };
    let scripts = [
        unknown("UPDATE", 405),
        unknown("UPDATE", 501),
        unknown("OPTIONS", 405),
        passing("UPDATE", 491, None),
        passing("INVITE", 491, None),
        passing("UPDATE", 500, None),
        passing("INVITE", 503, Some(5)),
        passing("INVITE", 488, None),
        passing("OPTIONS", 0, None),
    ];
    habits.script.extend(rng.maybe(30, |rng| rng.pick(&scripts)));
    if rng.chance(10) {
        let first = rng.pick(&[120, 300, 900]);
        habits.asks_for = [first, first * 2, first * 2][..rng.range(1..4) as usize].to_vec();
    }
    habits
}

/// The world of a seed in which sidecars, one or two, stand in for applications.
pub fn random_acting_world(seed: u64, calls: u64) -> World {
    let mut rng = Rng::new(seed ^ 0xac71);
    let direction = rng.pick(&[Direction::Inbound, Direction::Outbound]);
    let policy = Arc::new(random_acting_policy(&mut rng, direction));
    let (remote_link, mut local_link) = (Link::random(&mut rng), Link::random(&mut rng));
    let sidecars = if rng.chance(25) { 2 } else { 1 };
    let tcp = sidecars == 1 && rng.chance(20);
    if tcp {
        local_link.loss = 0;
    }
    let seed = rng.draw();
    let mut world = World::new(Setup { seed, policy, remote_link, local_link, idle_ms: 7_200_000, sidecars });
    if rng.chance(20) {
        let policy = random_acting_policy(&mut rng, direction);
        world.set_policy_after(rng.range(0..ACTIVE_MS / 2), policy);
    }
    for _ in 0..calls {
        let forks = if sidecars == 1 && rng.chance(20) { 2 } else { 1 };
        let caller = rng.pick(&Leg::BOTH);
        let plain = |leg| if leg == Leg::Local || sidecars > 1 { 80 } else { 30 };
        let call = Call {
            caller,
            uac: random_acting_habits(&mut rng, plain(caller)),
            callees: (0..forks).map(|_| random_acting_habits(&mut rng, plain(caller.other()))).collect(),
            tcp,
            proxy_cancels: rng.chance(40),
            starts_ms: rng.range(0..120_000),
        };
        let starts_ms = call.starts_ms;
        let parties = world.call(call);
        // Nobody talks for ever, nor to a dead application that the sidecar may not ask.
        for agent in parties.callees.iter().chain([&parties.uac]) {
            world.act(*agent, starts_ms + 3 * ACTIVE_MS, Act::HangUp);
        }
        if rng.chance(10) {
            world.act(parties.uac, starts_ms + rng.range(0..15_000), Act::Cancel);
        }
    }
    world
}
