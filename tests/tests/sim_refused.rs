//! What a remote side may say to a refresh of the sidecar but yes: failures, challenges, nothing. The model of the simulator,
//! and the agents themselves, judge every step as well.

use sipwarden_session_timer::{Credentials, EndCause, EventKind, Leg, Timers};
use sipwarden_tests::sim::agent::{Act, Canned, Habits};
use sipwarden_tests::sim::dialog::Ending;
use sipwarden_tests::sim::stage::{
    SECOND, answered, assert_active, canned, ended, ending, finish, made, native, refreshing, run, scripted, simple,
    standing_in, told,
};

#[test]
fn a_refresh_that_fails_for_now_is_tried_again_in_time() {
    for (status, retry_after, pause) in [
        (491, None, 0..4_100),
        (500, None, 0..20_000),
        (503, Some(7), 6_990..7_100),
        (504, None, 0..20_000),
        (488, None, 0..20_000),
    ] {
        for (method, caller) in
            [("UPDATE", Leg::Local), ("INVITE", Leg::Local), ("UPDATE", Leg::Remote), ("INVITE", Leg::Remote)]
        {
            let answer = Canned { method, status, retry_after, times: 1 };
            let remote = scripted(Habits { update: method == "UPDATE", ..Habits::plain() }, answer);
            let (uac, uas) = if caller == Leg::Local { (simple(), remote) } else { (remote, simple()) };
            let (mut world, _) = answered(standing_in(90, 90), caller, uac, uas);
            run(&mut world, 85 * SECOND);
            assert_active(&world);
            let sent = made(&world, Leg::Remote, method);
            let waited = sent[1].at - sent[0].at;
            assert!(pause.contains(&waited), "{method} after {status}: {waited}");
            if status == 491 && caller == Leg::Local {
                assert!(waited >= 2_100, "the owner of the Call-ID waits longer: {waited}");
            }
            run(&mut world, 200 * SECOND);
            assert_active(&world);
        }
    }
}

#[test]
fn no_failure_counts_as_life_where_the_remote_side_would_end_the_call_as_well() {
    for status in [500, 503, 488, 491] {
        let remote = scripted(native(90), canned("UPDATE", status, u32::MAX));
        let (mut world, parties) = answered(refreshing(90), Leg::Local, simple(), remote);
        run(&mut world, 100 * SECOND);
        assert_eq!(ended(&world), Some(EndCause::Expired), "{status}");
        assert!(made(&world, Leg::Remote, "UPDATE").len() > 1);
        assert_eq!(ending(&world, parties.uac), Some(Ending::Expired));
        assert!(world.agent(parties.callees[0]).dialogs[0].end.is_some());
        finish(&mut world);
    }
}

#[test]
fn a_remote_side_without_timers_that_refuses_each_refresh_keeps_its_call_unless_a_proxy_may_have_refused() {
    for (status, keeps) in [(488, true), (491, true), (603, true), (500, false), (503, false)] {
        let remote = scripted(Habits::plain(), canned("UPDATE", status, u32::MAX));
        let (mut world, parties) = answered(standing_in(90, 90), Leg::Local, simple(), remote);
        run(&mut world, 300 * SECOND);
        assert!(made(&world, Leg::Remote, "UPDATE").len() > 1);
        assert_eq!(ended(&world), (!keeps).then_some(EndCause::Expired), "{status}");
        let ending = (!keeps).then_some(Ending::Expired);
        assert_eq!([parties.uac, parties.callees[0]].map(|agent| self::ending(&world, agent)), [ending; 2]);
        world.act(parties.uac, 0, Act::HangUp);
        finish(&mut world);
    }
}

#[test]
fn a_refresh_that_finds_no_call_ends_it_on_both_sides() {
    for (status, cause) in [(481, 481), (408, 408), (0, 408)] {
        for method in ["UPDATE", "INVITE"] {
            let remote = Habits { update: method == "UPDATE", ..Habits::plain() };
            let remote = scripted(remote, canned(method, status, u32::MAX));
            let (mut world, parties) = answered(standing_in(300, 90), Leg::Local, simple(), remote);
            run(&mut world, 200 * SECOND);
            assert_eq!(ended(&world), Some(EndCause::RefreshFailed(cause)), "{status} to {method}");
            assert_eq!([Leg::Local, Leg::Remote].map(|leg| made(&world, leg, "BYE").len()), [1, 1]);
            assert!(world.agent(parties.uac).dialogs[0].end.is_some());
            finish(&mut world);
        }
    }
}

#[test]
fn a_challenge_is_reported_and_does_not_end_a_call_by_itself() {
    let remote = scripted(Habits::plain(), canned("UPDATE", 401, u32::MAX));
    let (mut world, parties) = answered(standing_in(90, 90), Leg::Local, simple(), remote);
    run(&mut world, 300 * SECOND);
    assert_active(&world);
    assert!(told(&world, |kind| *kind == EventKind::Challenged { status: 401 }) > 0);
    world.act(parties.uac, 0, Act::HangUp);
    finish(&mut world);
}

/// Those of a policy that names credentials for any realm.
fn known(mut timers: Timers) -> Timers {
    let credentials = Credentials { username: "app".into(), password: "secret".into(), realm: None };
    timers.credentials = Some(credentials.into());
    timers
}

#[test]
fn each_challenge_is_answered_with_the_policy_s_credentials() {
    for method in ["UPDATE", "INVITE"] {
        let challenges = [407, 401].map(|status| canned(method, status, u32::MAX));
        let remote = Habits { update: method == "UPDATE", script: challenges.into(), ..native(90) };
        let (mut world, _) = answered(known(refreshing(90)), Leg::Local, simple(), remote);
        run(&mut world, 300 * SECOND);
        assert_active(&world);
        assert!(told(&world, |kind| matches!(kind, EventKind::Refreshed { by: Leg::Local, .. })) >= 6);
    }
}

#[test]
fn a_remote_side_that_challenges_our_bye_is_hung_up_all_the_same() {
    let challenges = [407, 401].map(|status| canned("BYE", status, u32::MAX));
    let remote = Habits { script: challenges.into(), ..native(90) };
    let (mut world, parties) = answered(known(refreshing(90)), Leg::Local, simple(), remote);
    world.act(parties.uac, 0, Act::Forget);
    run(&mut world, 60 * SECOND);
    assert_eq!(ended(&world), Some(EndCause::AppGone));
    assert_eq!(ending(&world, parties.callees[0]), Some(Ending::Expired));
    assert_eq!(made(&world, Leg::Remote, "BYE").len(), 3);
    finish(&mut world);
}
