//! Forks, and requests that cross: the sidecar's own with whatever either side sends at the same time (RFC 5407), CANCEL with 2xx,
//! two sidecars in one call, and links that lose, double and reorder. The model of the simulator and the agents judge
//! every step.

use sipwarden_session_timer::{EndCause, EventKind, Leg, RefreshMethod, RefresherPreference, SessionState, Timers};
use sipwarden_sip::Method;
use sipwarden_tests::sim::agent::{Act, Habits};
use sipwarden_tests::sim::dialog::Ending;
use sipwarden_tests::sim::link::Link;
use sipwarden_tests::sim::stage::{
    SECOND, answered, assert_active, ended, ending, enforce, finish, left, made, native, run, simple, staged,
    standing_in, told,
};
use sipwarden_tests::sim::{Call, Setup, World, trace};

fn refreshing(interval: u32, method: RefreshMethod) -> Timers {
    let mut timers = standing_in(interval, 90);
    timers.refresher = RefresherPreference::Local;
    timers.refresh_method = method;
    timers
}

/// Every agent and method, and `act` so many milliseconds before or after the sidecar begins to refresh.
fn crossing(act: Act, after: impl Fn(&mut World, u64)) {
    for caller in Leg::BOTH {
        for method in [RefreshMethod::Update, RefreshMethod::ReInvite] {
            for by_caller in [true, false] {
                for offset in 0..30 {
                    let (mut world, parties) =
                        answered(refreshing(1800, method), caller, Habits::plain(), Habits::plain());
                    run(&mut world, 10 * SECOND);
                    let agent = if by_caller { parties.uac } else { parties.callees[0] };
                    world.act(agent, offset, act);
                    run(&mut world, 8);
                    // Unless the call is over.
                    assert!(world.refresh_now().is_ok() || ended(&world).is_some());
                    run(&mut world, 30 * SECOND);
                    after(&mut world, offset);
                    finish_by(&mut world, parties.uac);
                }
            }
        }
    }
}

/// Hangs up and lets everything come to its end.
fn finish_by(world: &mut World, agent: usize) {
    world.act(agent, 0, Act::HangUp);
    finish(world);
}

fn refreshed_and_active(world: &mut World, _: u64) {
    assert_active(world);
    let done = told(world, |kind| matches!(kind, EventKind::Refreshed { .. }));
    assert!(done > 0, "{}", trace::text(&world.log, ""));
}

/// The same, and after one more refresh.
fn refreshed_twice_and_active(world: &mut World, offset: u64) {
    refreshed_and_active(world, offset);
    world.refresh_now().expect("it is ours to refresh");
    run(world, 30 * SECOND);
    assert_active(world);
}

#[test]
fn a_bye_that_crosses_a_refresh_ends_the_call_once() {
    crossing(Act::HangUp, |world, _| {
        let byes = Leg::BOTH.map(|leg| left(world, leg, "BYE").len()).iter().sum::<usize>();
        assert_eq!(byes, 1, "{}", trace::text(&world.log, ""));
        assert!(Leg::BOTH.iter().all(|leg| made(world, *leg, "BYE").is_empty()));
    });
}

#[test]
fn a_re_invite_that_crosses_a_refresh_leaves_the_call_as_both_agreed() {
    crossing(Act::Hold, refreshed_twice_and_active);
}

#[test]
fn an_update_that_crosses_a_refresh_leaves_the_call_as_both_agreed() {
    crossing(Act::HoldByUpdate, refreshed_twice_and_active);
}

#[test]
fn a_re_invite_without_offer_that_crosses_a_refresh_leaves_the_call_as_both_agreed() {
    crossing(Act::AskForOffer, refreshed_twice_and_active);
}

#[test]
fn another_request_that_crosses_a_refresh_keeps_its_own_number() {
    crossing(Act::Info, refreshed_and_active);
}

#[test]
fn a_side_that_dies_while_it_is_refreshed_ends_the_call() {
    crossing(Act::Vanish, |world, _| {
        run(world, 1_700 * SECOND);
        assert!(ended(world).is_some());
    });
}

#[test]
fn a_refresh_of_the_remote_side_that_crosses_ours_is_answered_too() {
    for caller in Leg::BOTH {
        for update in [true, false] {
            for offset in 0..30 {
                let remote = Habits { update, ..native(600) };
                let (uac, uas) = if caller == Leg::Local { (simple(), remote) } else { (remote, simple()) };
                let (mut world, parties) = answered(refreshing(600, RefreshMethod::Auto), caller, uac, uas);
                run(&mut world, 10 * SECOND);
                let remote = if caller == Leg::Remote { parties.uac } else { parties.callees[0] };
                world.act(remote, offset, Act::Refresh);
                run(&mut world, 8);
                world.refresh_now().expect("it is ours to refresh");
                run(&mut world, 1_000 * SECOND);
                assert_active(&world);
                finish_by(&mut world, parties.uac);
            }
        }
    }
}

#[test]
fn a_cancel_that_crosses_the_2xx_leaves_a_call_that_its_caller_ends() {
    for caller in Leg::BOTH {
        for offset in 980..1_040 {
            for asks_for in [vec![], vec![300]] {
                let callee = Habits { asks_for: if caller == Leg::Local { asks_for } else { vec![] }, ..simple() };
                let mut world = World::new(Setup::perfect(enforce(standing_in(90, 90))));
                let parties = world.call(Call::between(caller, simple(), callee));
                world.act(parties.uac, offset, Act::Cancel);
                // It may have come too late.
                world.act(parties.uac, 10 * SECOND, Act::HangUp);
                finish(&mut world);
                let end = ending(&world, parties.uac);
                assert!(matches!(end, None | Some(Ending::HungUp | Ending::Unanswered)), "{end:?}");
                assert!(!world.agent(parties.callees[0]).is_in_call());
            }
        }
    }
}

#[test]
fn an_answer_to_a_refresh_after_bye_is_acknowledged_and_starts_nothing() {
    for by_caller in [true, false] {
        let timers = refreshing(1800, RefreshMethod::ReInvite);
        let (mut world, parties) = answered(timers, Leg::Local, simple(), simple());
        world.set_links(Link { delay: 300..301, ..Link::PERFECT }, Link::PERFECT);
        world.refresh_now().expect("it is ours to refresh");
        let agent = if by_caller { parties.uac } else { parties.callees[0] };
        // The 200 is under way when the BYE passes.
        world.act(agent, if by_caller { 400 } else { 310 }, Act::HangUp);
        run(&mut world, 10 * SECOND);
        assert_eq!(made(&world, Leg::Remote, "INVITE").len(), 1);
        assert!(matches!(ended(&world), Some(EndCause::Bye(_))));
        finish(&mut world);
    }
}

/// A world of two sidecars, each of which stands in for the application beside it.
fn two_sidecars(timers: Timers, apps: [Habits; 2]) -> (World, sipwarden_tests::sim::Parties) {
    let [uac, uas] = apps;
    staged(Setup { sidecars: 2, ..Setup::perfect(enforce(timers)) }, Call::between(Leg::Local, uac, uas))
}

#[test]
fn two_sidecars_in_one_call_agree_who_refreshes() {
    for preference in [
        RefresherPreference::PeerChoice,
        RefresherPreference::Local,
        RefresherPreference::Remote,
        RefresherPreference::Caller,
        RefresherPreference::Callee,
    ] {
        for apps in [[simple(), simple()], [Habits::plain(), Habits::plain()], [Habits::plain(), simple()]] {
            let mut timers = standing_in(90, 90);
            timers.refresher = preference;
            let (mut world, parties) = two_sidecars(timers, apps);
            run(&mut world, 400 * SECOND);
            let refreshers = [0, 1].map(|number| world.sessions_of(number)[0].refresher.expect("a timer"));
            assert_eq!(
                refreshers[0],
                refreshers[1].other(),
                "one side, seen from both\n{}",
                trace::text(&world.log, "")
            );
            world.act(parties.uac, SECOND, Act::Hold);
            world.act(parties.callees[0], 5 * SECOND, Act::Hold);
            run(&mut world, 400 * SECOND);
            assert!([0, 1].iter().all(|number| world.sessions_of(*number).len() == 1));
            finish_by(&mut world, parties.uac);
            assert_eq!(ending(&world, parties.callees[0]), Some(Ending::Bye));
        }
    }
}

#[test]
fn either_app_that_dies_between_two_sidecars_ends_the_call_of_the_other() {
    for preference in [RefresherPreference::Local, RefresherPreference::Remote] {
        for (update, dies_at_caller) in [(true, true), (true, false), (false, true), (false, false)] {
            for act in [Act::Vanish, Act::Forget] {
                let mut timers = standing_in(90, 90);
                timers.refresher = preference;
                let app = Habits { update, ..Habits::plain() };
                let (mut world, parties) = two_sidecars(timers, [app.clone(), app]);
                run(&mut world, 100 * SECOND);
                let pair = [parties.uac, parties.callees[0]];
                let [dead, other] = if dies_at_caller { pair } else { [pair[1], pair[0]] };
                world.act(dead, 0, act);
                run(&mut world, 150 * SECOND);
                assert!(ending(&world, other).is_some(), "{}", trace::text(&world.log, ""));
                finish(&mut world);
            }
        }
    }
}

#[test]
fn a_call_is_refreshed_over_links_that_lose_double_and_reorder() {
    let links = [
        Link { loss: 200, ..Link::PERFECT },
        Link { duplication: 1000, delay: 5..400, ..Link::PERFECT },
        Link { loss: 100, duplication: 300, delay: 5..900 },
    ];
    for seed in 1..=20 {
        for link in &links {
            for method in [RefreshMethod::Update, RefreshMethod::ReInvite] {
                let policy = enforce(refreshing(90, method));
                let setup =
                    Setup { seed, remote_link: link.clone(), local_link: link.clone(), ..Setup::perfect(policy) };
                let acts = vec![(60_000, Act::Hold), (120_000, Act::Hold), (180_000, Act::Info)];
                let agent = Habits { acts, ..Habits::plain() };
                let mut world = World::new(setup);
                let parties = world.call(Call::between(Leg::Local, agent.clone(), agent));
                run(&mut world, 600 * SECOND);
                finish_by(&mut world, parties.uac);
                if ending(&world, parties.uac) == Some(Ending::HungUp) {
                    assert!(
                        made(&world, Leg::Remote, "UPDATE").len() + made(&world, Leg::Remote, "INVITE").len() >= 10
                    );
                }
            }
        }
    }
}

#[test]
fn a_fork_has_the_options_of_its_own_answer() {
    let callees = vec![native(90), Habits { rings_ms: 3_000, ..simple() }];
    let uac = Habits { keeps_forks: true, ..simple() };
    let call = Call { callees, ..Call::between(Leg::Local, uac, simple()) };
    let (mut world, parties) = staged(Setup::perfect(enforce(standing_in(90, 90))), call);
    run(&mut world, 300 * SECOND);
    let sessions = world.sessions();
    assert_eq!(sessions.len(), 2);
    let methods = sessions.iter().filter_map(|session| session.acting.and_then(|acting| acting.method));
    let methods: Vec<Method> = methods.collect();
    assert!(methods.contains(&Method::Update) && methods.contains(&Method::Invite), "{methods:?}");
    assert!(sessions.iter().all(|session| session.state == SessionState::Active));
    world.act(parties.uac, 0, Act::HangUp);
    finish(&mut world);
}

#[test]
fn a_fork_that_is_not_wanted_leaves_nothing_behind() {
    for caller in Leg::BOTH {
        let callees = vec![simple(), Habits { rings_ms: 1_100, ..simple() }];
        let call = Call { callees, ..Call::between(caller, simple(), simple()) };
        let (mut world, parties) = staged(Setup::perfect(enforce(standing_in(90, 90))), call);
        run(&mut world, 120 * SECOND);
        assert_active(&world);
        world.act(parties.uac, 0, Act::HangUp);
        finish(&mut world);
    }
}

#[test]
fn a_prack_in_one_fork_does_not_count_in_the_dialog_of_another() {
    let reliable = Habits { reliable_provisional: true, rings_ms: 60_000, ..simple() };
    let callees = vec![simple(), reliable];
    let uac = Habits { reliable_provisional: true, ..native(90) };
    let call = Call { callees, proxy_cancels: true, ..Call::between(Leg::Remote, uac, simple()) };
    let (mut world, parties) = staged(Setup::perfect(enforce(refreshing(90, RefreshMethod::Auto))), call);
    assert_eq!(left(&world, Leg::Local, "PRACK").len(), 1);
    run(&mut world, 50 * SECOND);
    assert_eq!(made(&world, Leg::Local, "OPTIONS").len(), 1);
    world.act(parties.uac, 0, Act::Hold);
    run(&mut world, 100 * SECOND);
    assert_active(&world);
    world.act(parties.uac, 0, Act::HangUp);
    finish(&mut world);
}

#[test]
fn an_offer_that_comes_while_the_refresh_is_lost_does_not_leave_the_media_one_round_behind() {
    for (act, by_caller) in
        [(Act::HoldByUpdate, false), (Act::Hold, false), (Act::HoldByUpdate, true), (Act::Hold, true)]
    {
        let timers = refreshing(1800, RefreshMethod::ReInvite);
        let (mut world, parties) = answered(timers, Leg::Local, Habits::plain(), Habits::plain());
        run(&mut world, 10 * SECOND);
        world.set_links(Link::CUT, Link::PERFECT);
        world.refresh_now().expect("it is ours to refresh");
        run(&mut world, 300);
        world.set_links(Link::PERFECT, Link::PERFECT);
        // The next copy of the refresh goes out after this was answered.
        world.act(if by_caller { parties.uac } else { parties.callees[0] }, 0, act);
        run(&mut world, 30 * SECOND);
        world.refresh_now().expect("it is ours to refresh");
        run(&mut world, 30 * SECOND);
        assert_active(&world);
        finish_by(&mut world, parties.uac);
    }
}
