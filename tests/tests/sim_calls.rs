//! Calls through the sidecar in virtual time, without loss unless a test cuts a link: what each side gets to see, and
//! how each call ends. The invariants and the reference model of the simulator judge every step as well.

use sipwarden_session_timer::{EndCause, Leg, Mode, Policy, SessionState, SessionView};
use sipwarden_tests::sim::agent::{Act, Habits};
use sipwarden_tests::sim::dialog::Ending;
use sipwarden_tests::sim::link::Link;
use sipwarden_tests::sim::message::Sip;
use sipwarden_tests::sim::plan::proxy_only;
use sipwarden_tests::sim::timer::{Role, Wishes};
use sipwarden_tests::sim::trace::{self, Crossing};
use sipwarden_tests::sim::{Call, Parties, Setup, World};

const SECOND: u64 = 1_000;

fn enforce(interval: u32, min_se: u32) -> Policy {
    let timers = proxy_only(interval, min_se);
    Policy { name: "test".into(), mode: Mode::Enforce, timers, rules: Vec::new() }
}

fn native(interval: u32) -> Habits {
    Habits::native(Wishes::plain(Some(interval)))
}

/// A world with one call between two agents, run until it is answered and a little longer.
fn answered(policy: Policy, caller: Leg, uac: Habits, uas: Habits) -> (World, Parties) {
    let mut world = World::new(Setup::perfect(policy));
    let parties = world.call(Call::between(caller, uac, uas));
    run(&mut world, 2 * SECOND);
    (world, parties)
}

fn run(world: &mut World, ms: u64) {
    let result = world.run_for(ms);
    result.unwrap_or_else(|error| panic!("{}{error}", trace::text(&world.log, &error)));
}

fn finish(world: &mut World) {
    let result = world.finish(100_000);
    result.unwrap_or_else(|error| panic!("{}{error}", trace::text(&world.log, &error)));
}

fn session(world: &World) -> SessionView {
    let sessions = world.sessions();
    assert_eq!(sessions.len(), 1, "one session\n{}", trace::text(&world.log, ""));
    sessions.into_iter().next().expect("one")
}

fn expires_at(world: &World) -> u64 {
    session(world).expires_at.expect("it has a timer").as_millis()
}

fn left<'w>(world: &'w World, leg: Leg, kind: &str) -> Vec<&'w Crossing> {
    world.log.iter().filter(|crossing| crossing.is(leg, kind)).collect()
}

fn one<'w>(world: &'w World, leg: Leg, kind: &str) -> &'w Sip {
    let found = left(world, leg, kind);
    assert_eq!(found.len(), 1, "one {kind} to {leg:?}\n{}", trace::text(&world.log, ""));
    &found[0].sip
}

fn ending(world: &World, agent: usize) -> Option<Ending> {
    world.agent(agent).dialogs.first().and_then(|dialog| dialog.end)
}

/// Runs until the session expired; gives the ends as its two agents saw them.
fn expire(world: &mut World, parties: &Parties) -> (Option<Ending>, Option<Ending>) {
    let wait = expires_at(world) - world.now + SECOND;
    run(world, wait);
    let expired = SessionState::Ended(EndCause::Expired);
    assert_eq!(session(world).state, expired, "{}", trace::text(&world.log, ""));
    (ending(world, parties.uac), ending(world, parties.callees[0]))
}

#[test]
fn caller_without_refreshes_is_missed_and_both_sides_get_bye() {
    for caller in Leg::BOTH {
        let (mut world, parties) = answered(enforce(90, 90), caller, native(90), Habits::plain());
        assert_eq!(session(&world).refresher, Some(caller), "completed for the UAC");
        world.act(parties.uac, 0, Act::Vanish);
        assert_eq!(expire(&mut world, &parties), (None, Some(Ending::Expired)));
        assert!(!left(&world, caller, "BYE").is_empty(), "the vanished side is told as well");
        finish(&mut world);
    }
}

#[test]
fn callee_that_vanishes_is_missed_and_both_sides_get_bye() {
    for caller in Leg::BOTH {
        let (mut world, parties) = answered(enforce(90, 90), caller, Habits::plain(), native(90));
        assert_eq!(session(&world).refresher, Some(caller.other()), "a UAC without timers cannot refresh");
        world.act(parties.callees[0], 0, Act::Vanish);
        assert_eq!(expire(&mut world, &parties), (Some(Ending::Expired), None));
        finish(&mut world);
    }
}

#[test]
fn a_session_lives_as_long_as_it_is_refreshed_by_either_method_and_side() {
    for caller in Leg::BOTH {
        for (update, refresher) in [(true, Role::Uac), (true, Role::Uas), (false, Role::Uac), (false, Role::Uas)] {
            let uac = Habits { update, ..Habits::native(Wishes { asks: Some(refresher), ..Wishes::plain(Some(90)) }) };
            let (mut world, parties) = answered(enforce(1800, 90), caller, uac, Habits { update, ..native(90) });
            run(&mut world, 600 * SECOND);
            let refresher = if refresher == Role::Uac { caller } else { caller.other() };
            assert_eq!(session(&world).state, SessionState::Active);
            assert_eq!(session(&world).refresher, Some(refresher));
            let method = if update { "UPDATE" } else { "INVITE" };
            let refreshes =
                left(&world, refresher.other(), method).iter().filter(|r| r.sip.tag("To").is_some()).count();
            assert!((12..15).contains(&refreshes), "every 45 s: {refreshes}");
            world.act(parties.callees[0], 0, Act::HangUp);
            finish(&mut world);
            assert_eq!(ending(&world, parties.uac), Some(Ending::Bye));
        }
    }
}

#[test]
fn uac_below_the_minimum_gets_422_and_calls_again_with_what_it_was_told() {
    let (world, _) = answered(enforce(1800, 300), Leg::Remote, native(100), native(600));
    assert_eq!(one(&world, Leg::Remote, "422 INVITE").get("Min-SE"), Some("300"));
    let invite = one(&world, Leg::Local, "INVITE");
    assert_eq!((invite.get("Session-Expires"), invite.get("Min-SE")), (Some("300"), Some("300")));
    assert_eq!(session(&world).interval, Some(300));
}

#[test]
fn uac_without_timer_below_the_minimum_gets_no_422() {
    let uac = Habits { odd_session_expires: Some("30"), ..Habits::plain() };
    let (world, _) = answered(enforce(1800, 120), Leg::Remote, uac, Habits::plain());
    let invite = one(&world, Leg::Local, "INVITE");
    assert_eq!((invite.get("Session-Expires"), invite.get("Min-SE")), (Some("120"), Some("120")));
    assert_eq!(session(&world).interval, None, "neither side knows timers");
}

#[test]
fn uas_without_timer_is_completed_with_require_for_the_uac() {
    let (world, _) = answered(enforce(600, 90), Leg::Local, native(1800), Habits::plain());
    let ok = one(&world, Leg::Local, "200 INVITE");
    assert_eq!(ok.get("Session-Expires"), Some("600;refresher=uac"));
    assert_eq!(ok.list("Require"), ["timer"]);
    assert_eq!(session(&world).interval, Some(600));
}

#[test]
fn intervals_of_two_hops_are_negotiated_by_422_each() {
    let demanding = Habits::native(Wishes { least: 900, ..Wishes::plain(Some(900)) });
    let (world, _) = answered(enforce(1800, 120), Leg::Remote, native(90), demanding);
    let minima: Vec<_> = left(&world, Leg::Remote, "422 INVITE").iter().map(|c| c.sip.get("Min-SE")).collect();
    assert_eq!(minima, [Some("120"), Some("900")]);
    assert_eq!(session(&world).interval, Some(900));
}

#[test]
fn requests_that_are_no_refresh_do_not_move_the_deadline() {
    let (mut world, parties) = answered(enforce(1800, 90), Leg::Remote, native(600), Habits::plain());
    let before = expires_at(&world);
    for agent in [parties.uac, parties.callees[0]] {
        world.act(agent, SECOND, Act::Info);
    }
    run(&mut world, 5 * SECOND);
    assert_eq!(left(&world, Leg::Local, "INFO").len() + left(&world, Leg::Remote, "INFO").len(), 2);
    assert_eq!(expires_at(&world), before);
}

#[test]
fn a_reinvite_of_either_side_moves_the_deadline_and_keeps_the_refresher() {
    let (mut world, parties) = answered(enforce(1800, 90), Leg::Remote, native(600), native(600));
    assert_eq!(session(&world).refresher, Some(Leg::Local), "the UAS chose itself");
    for agent in [parties.uac, parties.callees[0]] {
        let before = expires_at(&world);
        world.act(agent, 10 * SECOND, Act::Hold);
        run(&mut world, 20 * SECOND);
        assert!(expires_at(&world) >= before + 10 * SECOND);
        assert_eq!(session(&world).refresher, Some(Leg::Local), "`uac` of one transaction is `uas` of the other");
    }
}

#[test]
fn glare_changes_nothing_until_one_side_tries_again() {
    let (mut world, parties) = answered(enforce(1800, 90), Leg::Remote, native(600), native(600));
    let before = expires_at(&world);
    world.act(parties.uac, SECOND, Act::Hold);
    world.act(parties.callees[0], SECOND, Act::Hold);
    run(&mut world, SECOND + 100);
    assert_eq!(left(&world, Leg::Remote, "491 INVITE").len() + left(&world, Leg::Local, "491 INVITE").len(), 2);
    assert_eq!(expires_at(&world), before, "a failed re-INVITE leaves the timer alone");
    run(&mut world, 10 * SECOND);
    assert!(expires_at(&world) > before);
}

#[test]
fn every_fork_that_answers_has_a_timer_of_its_own() {
    let mut world = World::new(Setup::perfect(enforce(90, 90)));
    let uac = Habits { keeps_forks: true, ..native(90) };
    let second = Habits { rings_ms: 3_000, ..native(90) };
    let call = Call { callees: vec![native(90), second], ..Call::between(Leg::Remote, uac, Habits::plain()) };
    let parties = world.call(call);
    run(&mut world, 10 * SECOND);
    assert_eq!(world.sessions().len(), 2);
    world.act(parties.callees[0], 0, Act::Vanish);
    run(&mut world, 90 * SECOND);
    let states: Vec<_> = world.sessions().iter().map(|session| session.state).collect();
    assert_eq!(states, [SessionState::Ended(EndCause::Expired), SessionState::Active], "the other fork goes on");
    assert_eq!(ending(&world, parties.uac), Some(Ending::Expired));
    world.act(parties.callees[1], 0, Act::HangUp);
    finish(&mut world);
}

#[test]
fn forks_the_caller_does_not_want_leave_nothing_behind() {
    for caller in Leg::BOTH {
        let mut world = World::new(Setup::perfect(enforce(90, 90)));
        let callees = vec![native(90), native(90)];
        let parties = world.call(Call { callees, ..Call::between(caller, native(90), Habits::plain()) });
        run(&mut world, 50 * SECOND);
        assert_eq!(world.sessions().len(), 1, "the one hung up is forgotten after a while");
        world.act(parties.uac, 0, Act::HangUp);
        finish(&mut world);
    }
}

#[test]
fn a_bye_that_nobody_acknowledges_is_sent_again_until_it_arrives() {
    let (mut world, parties) = answered(enforce(90, 90), Leg::Remote, Habits::plain(), native(90));
    world.act(parties.callees[0], 0, Act::Vanish);
    let wait = expires_at(&world) - world.now - 10;
    run(&mut world, wait);
    world.set_links(Link::CUT, Link::PERFECT);
    run(&mut world, 5 * SECOND);
    assert_eq!(ending(&world, parties.uac), None, "the link is cut");
    world.set_links(Link::PERFECT, Link::PERFECT);
    run(&mut world, 10 * SECOND);
    assert_eq!(ending(&world, parties.uac), Some(Ending::Expired));
    finish(&mut world);
}

#[test]
fn a_bye_that_is_lost_on_the_way_to_the_sidecar_ends_the_call_at_expiry() {
    let (mut world, parties) = answered(enforce(90, 90), Leg::Remote, native(90), Habits::plain());
    world.set_links(Link::CUT, Link::PERFECT);
    world.act(parties.uac, 0, Act::HangUp);
    run(&mut world, 40 * SECOND);
    assert_eq!(session(&world).state, SessionState::Active);
    assert_eq!(expire(&mut world, &parties), (Some(Ending::HungUp), Some(Ending::Expired)));
    world.set_links(Link::PERFECT, Link::PERFECT);
    finish(&mut world);
}

#[test]
fn a_refresh_that_comes_too_late_revives_nothing() {
    let (mut world, parties) = answered(enforce(90, 90), Leg::Remote, native(90), Habits::plain());
    // The refresh of half-time does not get through before the deadline, and goes on being sent.
    world.set_links(Link::CUT, Link::PERFECT);
    let wait = expires_at(&world) - world.now + SECOND / 2;
    run(&mut world, wait);
    world.set_links(Link::PERFECT, Link::PERFECT);
    run(&mut world, 5 * SECOND);
    assert_eq!(left(&world, Leg::Remote, "481 UPDATE").len(), 1);
    assert_eq!(session(&world).state, SessionState::Ended(EndCause::Expired));
    assert_eq!(ending(&world, parties.callees[0]), Some(Ending::Expired));
    finish(&mut world);
}

#[test]
fn doubled_packets_neither_rearm_nor_end_anything() {
    let doubled = Link { duplication: 1000, ..Link::PERFECT };
    let (mut world, parties) = answered(enforce(180, 90), Leg::Local, native(180), native(180));
    world.set_links(doubled.clone(), doubled);
    run(&mut world, 1000 * SECOND);
    assert_eq!(session(&world).state, SessionState::Active);
    world.act(parties.callees[0], 0, Act::Vanish);
    assert_eq!(expire(&mut world, &parties).0, Some(Ending::Expired));
    finish(&mut world);
}

#[test]
fn a_late_copy_of_an_old_refresh_does_not_arm_the_timer_again() {
    for mode in [Mode::Enforce, Mode::Observe] {
        let policy = Policy { mode, ..enforce(1800, 90) };
        let (mut world, parties) = answered(policy, Leg::Remote, native(600), native(600));
        world.act(parties.uac, SECOND, Act::TimerOff);
        world.act(parties.uac, 5 * SECOND, Act::Hold);
        run(&mut world, 10 * SECOND);
        let before = session(&world).expires_at;
        let old = world.log.iter().position(|crossing| crossing.arrives && crossing.kind() == "UPDATE");
        world.repeat(old.expect("the first refresh"), SECOND);
        run(&mut world, 5 * SECOND);
        assert!(left(&world, Leg::Remote, "200 UPDATE").len() > 1, "its answer came again");
        assert_eq!(session(&world).expires_at, before);
    }
}

#[test]
fn the_bye_to_a_tcp_peer_uses_the_connection_it_was_heard_on() {
    for caller in Leg::BOTH {
        let mut world = World::new(Setup::perfect(enforce(90, 90)));
        let parties = world.call(Call { tcp: true, ..Call::between(caller, native(90), native(90)) });
        run(&mut world, 2 * SECOND);
        let local = if caller == Leg::Local { parties.uac } else { parties.callees[0] };
        let remote = if caller == Leg::Remote { parties.uac } else { parties.callees[0] };
        world.act(local, 0, Act::Vanish);
        expire(&mut world, &parties);
        let heard = world.log.iter().filter(|c| c.arrives && c.leg == Leg::Remote).map(|c| c.flow).collect::<Vec<_>>();
        assert_ne!(heard[0].connection, 0);
        assert_eq!(left(&world, Leg::Remote, "BYE")[0].flow, heard[0]);
        assert_eq!(ending(&world, remote), Some(Ending::Expired));
        finish(&mut world);
    }
}

#[test]
fn a_new_policy_waits_for_the_next_refresh() {
    let (mut world, _) = answered(enforce(600, 90), Leg::Remote, native(1800), Habits::plain());
    let before = expires_at(&world);
    world.set_policy(enforce(200, 90));
    run(&mut world, 200 * SECOND);
    assert_eq!((session(&world).interval, expires_at(&world)), (Some(600), before));
    run(&mut world, 150 * SECOND);
    assert_eq!(session(&world).interval, Some(200), "refreshed at 300 s");
}

#[test]
fn a_refresh_answered_422_leaves_the_running_timer_alone() {
    let (mut world, _) = answered(enforce(1800, 90), Leg::Remote, native(90), Habits::plain());
    let before = expires_at(&world);
    world.set_policy(enforce(1800, 400));
    world.set_links(Link::PERFECT, Link::CUT);
    run(&mut world, 45 * SECOND);
    assert_eq!(one(&world, Leg::Remote, "422 UPDATE").get("Min-SE"), Some("400"));
    assert_eq!(expires_at(&world), before);
    world.set_links(Link::PERFECT, Link::PERFECT);
    run(&mut world, 10 * SECOND);
    assert_eq!(session(&world).interval, Some(400), "the second try, with what the 422 said");
}

#[test]
fn observe_changes_nothing_and_ends_nothing() {
    let policy = Policy { mode: Mode::Observe, ..enforce(1800, 300) };
    let (mut world, parties) = answered(policy, Leg::Remote, native(90), native(90));
    assert_eq!(session(&world).interval, Some(90), "below our minimum, and none of our business");
    world.act(parties.callees[0], 0, Act::Vanish);
    run(&mut world, 100 * SECOND);
    assert_eq!((session(&world).state, session(&world).interval), (SessionState::Active, None));
    assert!(left(&world, Leg::Remote, "BYE").is_empty());
    world.act(parties.uac, 0, Act::HangUp);
    finish(&mut world);
}

#[test]
fn in_observe_a_refresh_without_session_expires_turns_the_timer_off() {
    let policy = Policy { mode: Mode::Observe, ..enforce(1800, 90) };
    let (mut world, parties) = answered(policy, Leg::Remote, native(600), native(600));
    world.act(parties.uac, SECOND, Act::TimerOff);
    run(&mut world, 5 * SECOND);
    assert_eq!(session(&world).interval, None);
    world.act(parties.uac, SECOND, Act::HangUp);
    finish(&mut world);
}

#[test]
fn a_side_that_lost_its_memory_ends_the_session_by_481() {
    let (mut world, parties) = answered(enforce(90, 90), Leg::Remote, native(90), Habits::plain());
    world.act(parties.callees[0], 0, Act::Forget);
    run(&mut world, 60 * SECOND);
    assert_eq!(session(&world).state, SessionState::Ended(EndCause::Response(481)));
    assert_eq!(ending(&world, parties.uac), Some(Ending::Failed(481)));
    finish(&mut world);
}

#[test]
fn a_cancelled_call_leaves_nothing_behind() {
    for caller in Leg::BOTH {
        let mut world = World::new(Setup::perfect(enforce(90, 90)));
        let uas = Habits { rings_ms: 30_000, reliable_provisional: true, ..native(90) };
        let uac = Habits { reliable_provisional: true, ..native(90) };
        let parties = world.call(Call::between(caller, uac, uas));
        world.act(parties.uac, 5 * SECOND, Act::Cancel);
        finish(&mut world);
        assert_eq!(left(&world, caller, "487 INVITE").len(), 1, "{}", trace::text(&world.log, ""));
        assert_eq!(left(&world, caller.other(), "PRACK").len(), 1);
    }
}
