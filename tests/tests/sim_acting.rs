//! Calls of applications that have no session timers: what the sidecar says, refreshes and ends in their place. The
//! model of the simulator, and the agents themselves, judge every step as well.

use sipwarden_session_timer::{
    ActForApp, AppProbe, EndCause, EventKind, Leg, NoRefresh, RefreshMethod, RefresherPreference, WithoutPeerSupport,
};
use sipwarden_tests::sim::agent::{Act, Habits};
use sipwarden_tests::sim::dialog::Ending;
use sipwarden_tests::sim::link::Link;
use sipwarden_tests::sim::stage::{
    SECOND, answered, assert_active, canned, ended, ending, enforce, finish, left, made, native, refreshing, run,
    scripted, session, simple, standing_in, told,
};
use sipwarden_tests::sim::timer::{Role, Wishes};
use sipwarden_tests::sim::{Call, Setup, World, trace};

/// Milliseconds between what left and the time it is counted from.
fn times(crossings: &[&trace::Crossing], since: u64) -> Vec<u64> {
    crossings.iter().map(|crossing| crossing.at - since).collect()
}

#[test]
fn a_call_of_an_app_without_timers_is_refreshed_as_long_as_it_lasts() {
    for caller in Leg::BOTH {
        for remote in [native(90), Habits { update: false, ..native(90) }, Habits::plain(), simple()] {
            let method = if remote.update { "UPDATE" } else { "INVITE" };
            let (uac, uas) = if caller == Leg::Local { (simple(), remote) } else { (remote, simple()) };
            let (mut world, parties) = answered(refreshing(90), caller, uac, uas);
            assert_eq!((session(&world).interval, session(&world).refresher), (Some(90), Some(Leg::Local)));
            run(&mut world, 600 * SECOND);
            assert_active(&world);
            let count = made(&world, Leg::Remote, method).len();
            assert!((13..=16).contains(&count), "every 40.5 s by {method}: {count}");
            assert_eq!(made(&world, Leg::Local, "OPTIONS").len(), count, "asked before each");
            world.act(parties.callees[0], 0, Act::HangUp);
            finish(&mut world);
            assert_eq!(ending(&world, parties.uac), Some(Ending::Bye));
        }
    }
}

#[test]
fn the_first_refresh_comes_before_half_the_interval_and_neither_at_once_nor_at_its_end() {
    let (mut world, _) = answered(standing_in(90, 90), Leg::Local, simple(), Habits::plain());
    run(&mut world, 90 * SECOND);
    let answer = left(&world, Leg::Local, "200 INVITE")[0].at;
    let first = times(&made(&world, Leg::Remote, "UPDATE"), answer)[0];
    assert!((40 * SECOND..45 * SECOND).contains(&first), "{first}");
}

#[test]
fn a_422_is_answered_by_the_sidecar_and_the_app_never_sees_it() {
    let callee = Habits { asks_for: vec![300, 500, 700], reliable_provisional: true, ..native(90) };
    let uac = Habits { reliable_provisional: true, ..simple() };
    let (mut world, parties) = answered(standing_in(120, 90), Leg::Local, uac, callee);
    assert!(left(&world, Leg::Local, "422 INVITE").is_empty());
    let asked: Vec<_> = left(&world, Leg::Remote, "INVITE").iter().map(|c| c.sip.get("Session-Expires")).collect();
    assert_eq!(asked, [Some("120"), Some("300"), Some("500"), Some("700")]);
    assert_eq!(session(&world).interval, Some(700));
    run(&mut world, 1000 * SECOND);
    assert_active(&world);
    world.act(parties.uac, 0, Act::HangUp);
    finish(&mut world);
    assert_eq!(ending(&world, parties.callees[0]), Some(Ending::Bye));
}

#[test]
fn the_same_422_twice_one_above_the_bound_and_an_endless_rise_end_the_call() {
    let rising = (1..50).map(|step| 100 * step).collect();
    for (asks_for, tries) in [(vec![300, 300], 2), (vec![7201], 1), (rising, 6)] {
        let callee = Habits { asks_for, ..native(90) };
        let (mut world, parties) = answered(standing_in(90, 90), Leg::Local, simple(), callee);
        assert_eq!(left(&world, Leg::Remote, "INVITE").len(), tries);
        assert_eq!(left(&world, Leg::Local, "422 INVITE").len(), 1, "with the number the app gave it");
        finish(&mut world);
        assert!(world.agent(parties.uac).dialogs.is_empty());
    }
}

#[test]
fn a_call_that_was_sent_once_more_can_be_cancelled() {
    for at in (0..60).chain([1_990, 2_005, 2_010, 2_015, 2_020]) {
        let callee = Habits { asks_for: vec![300], rings_ms: 2_000, reliable_provisional: true, ..native(90) };
        let mut world = World::new(Setup::perfect(enforce(standing_in(90, 90))));
        let parties = world.call(Call::between(Leg::Local, Habits { reliable_provisional: true, ..simple() }, callee));
        world.act(parties.uac, at, Act::Cancel);
        finish(&mut world);
        assert!(!world.agent(parties.callees[0]).is_in_call());
    }
}

#[test]
fn a_called_app_without_timers_answers_with_them() {
    for (asks, preference, refresher) in [
        (Some(Role::Uac), RefresherPreference::Local, Leg::Remote),
        (Some(Role::Uas), RefresherPreference::Remote, Leg::Local),
        (None, RefresherPreference::Local, Leg::Local),
        (None, RefresherPreference::Remote, Leg::Remote),
        (None, RefresherPreference::PeerChoice, Leg::Remote),
    ] {
        let mut timers = standing_in(1800, 90);
        timers.refresher = preference;
        let uac = Habits::native(Wishes { asks, ..Wishes::plain(Some(600)) });
        let (world, _) = answered(timers, Leg::Remote, uac, simple());
        let answer = &left(&world, Leg::Remote, "200 INVITE")[0].sip;
        let role = if refresher == Leg::Remote { "uac" } else { "uas" };
        assert_eq!(answer.get("Session-Expires"), Some(format!("600;refresher={role}").as_str()));
        assert_eq!(answer.get("Require"), Some("timer"));
        assert_eq!((session(&world).interval, session(&world).refresher), (Some(600), Some(refresher)));
    }
}

#[test]
fn a_caller_without_timers_is_never_told_that_they_are_required() {
    let (world, _) = answered(standing_in(600, 90), Leg::Remote, simple(), simple());
    let answer = &left(&world, Leg::Remote, "200 INVITE")[0].sip;
    assert_eq!(answer.get("Session-Expires"), Some("600;refresher=uas"));
    assert_eq!(answer.get("Require"), None);
}

#[test]
fn a_caller_below_the_minimum_gets_422_and_the_app_hears_of_the_second_call_only() {
    let (world, _) = answered(standing_in(1800, 300), Leg::Remote, native(100), simple());
    assert_eq!(left(&world, Leg::Remote, "422 INVITE")[0].sip.get("Min-SE"), Some("300"));
    assert_eq!(left(&world, Leg::Local, "INVITE").len(), 1);
    assert_eq!(session(&world).interval, Some(300));
}

#[test]
fn an_update_of_the_remote_side_that_the_app_does_not_allow_is_answered_here() {
    for (app, passes) in [(simple(), false), (Habits { allows: false, ..simple() }, false), (Habits::plain(), true)] {
        let (mut world, _) = answered(standing_in(1800, 90), Leg::Remote, native(90), app);
        run(&mut world, 300 * SECOND);
        assert_active(&world);
        // The caller knows of UPDATE from the answer's Allow, which is the app's.
        let to_app = left(&world, Leg::Local, "UPDATE").len();
        assert_eq!(to_app > 0, passes);
        assert_eq!(session(&world).refresher, Some(Leg::Remote));
    }
}

#[test]
fn what_the_sidecar_answers_for_the_app_does_not_keep_a_dead_app_alive() {
    for act in [Act::Vanish, Act::Forget] {
        let mut timers = standing_in(1800, 90);
        timers.refresher = RefresherPreference::Remote;
        // It refreshes by UPDATE although nobody allowed it.
        let remote = Habits { stubborn: true, ..native(90) };
        let (mut world, parties) = answered(timers, Leg::Remote, remote, simple());
        run(&mut world, 100 * SECOND);
        assert!(!left(&world, Leg::Remote, "200 UPDATE").is_empty());
        assert!(left(&world, Leg::Local, "UPDATE").is_empty());
        world.act(parties.callees[0], 0, act);
        run(&mut world, 100 * SECOND);
        assert_eq!(ended(&world), Some(EndCause::AppGone));
        assert_eq!(ending(&world, parties.uac), Some(Ending::Expired));
        finish(&mut world);
    }
}

#[test]
fn a_refresh_below_the_minimum_gets_422_and_changes_nothing() {
    let (mut world, _) = answered(standing_in(1800, 90), Leg::Remote, native(90), simple());
    let before = session(&world).expires_at;
    world.set_policy(enforce(standing_in(1800, 400)));
    world.set_links(Link::PERFECT, Link::CUT);
    run(&mut world, 45 * SECOND);
    assert_eq!(left(&world, Leg::Remote, "422 INVITE").len(), 1);
    assert_eq!(session(&world).expires_at, before);
    world.set_links(Link::PERFECT, Link::PERFECT);
    run(&mut world, 10 * SECOND);
    assert_eq!(session(&world).interval, Some(400));
}

#[test]
fn a_refresh_carries_the_media_in_force_and_nothing_else() {
    // Who does what, before refreshes by re-INVITE: the agents compare each with what they last agreed on.
    let acts: [&[(bool, Act)]; 9] = [
        &[],
        &[(true, Act::Hold)],
        &[(true, Act::Hold), (true, Act::Hold)],
        &[(false, Act::Hold)],
        &[(false, Act::Hold), (false, Act::Hold), (true, Act::Hold)],
        &[(true, Act::HoldByUpdate), (false, Act::HoldByUpdate)],
        &[(true, Act::AskForOffer), (false, Act::AskForOffer)],
        &[(true, Act::Fax), (false, Act::Fax)],
        &[(true, Act::Hold), (false, Act::Fax), (false, Act::AskForOffer)],
    ];
    for caller in Leg::BOTH {
        for acts in acts {
            for variant in 0..8 {
                let (late, early, restless) = (variant & 1 > 0, variant & 2 > 0, variant & 4 > 0);
                let agent = Habits {
                    late_offer: late,
                    reliable_provisional: early,
                    early_media: early,
                    restless,
                    fax: restless,
                    ..Habits::plain()
                };
                let mut timers = standing_in(90, 90);
                timers.refresh_method = RefreshMethod::ReInvite;
                let (mut world, parties) = answered(timers, caller, agent.clone(), agent);
                for (step, (by_caller, act)) in acts.iter().enumerate() {
                    let agent = if *by_caller { parties.uac } else { parties.callees[0] };
                    world.act(agent, step as u64 * SECOND, *act);
                }
                run(&mut world, 300 * SECOND);
                assert_active(&world);
                let count = made(&world, Leg::Remote, "INVITE").len();
                assert!(count >= 6, "{count} after {acts:?} of {caller:?}\n{}", trace::text(&world.log, ""));
                world.act(parties.uac, 0, Act::HangUp);
                finish(&mut world);
            }
        }
    }
}

#[test]
fn a_rejected_offer_is_never_sent_again() {
    for status in [488, 491, 500, 503] {
        let remote = scripted(simple(), canned("INVITE", status, 1));
        let (mut world, parties) = answered(standing_in(90, 90), Leg::Local, simple(), remote);
        world.act(parties.uac, SECOND, Act::Fax);
        run(&mut world, 200 * SECOND);
        assert_active(&world);
        assert!(made(&world, Leg::Remote, "INVITE").iter().all(|refresh| !refresh.sip.body.contains("image")));
        assert!(made(&world, Leg::Remote, "INVITE").len() >= 4);
    }
}

#[test]
fn media_bound_to_one_round_is_never_offered_again() {
    for (remote, sent) in
        [(Habits::plain(), true), (Habits { allows: false, ..Habits::plain() }, true), (simple(), false)]
    {
        let app = Habits { secured: true, ..simple() };
        let (mut world, _) = answered(standing_in(90, 90), Leg::Local, app, remote);
        run(&mut world, 300 * SECOND);
        assert!(made(&world, Leg::Remote, "INVITE").is_empty());
        assert_eq!(!made(&world, Leg::Remote, "UPDATE").is_empty(), sent);
        let reported = told(&world, |kind| matches!(kind, EventKind::NotRefreshed { reason: NoRefresh::Sdp(_) }));
        assert_eq!(reported > 0, !sent);
        assert_active(&world);
    }
}

#[test]
fn a_peer_with_timers_that_cannot_be_refreshed_ends_the_call_at_the_deadline() {
    let app = Habits { secured: true, ..simple() };
    let (mut world, parties) = answered(refreshing(90), Leg::Local, app, Habits { update: false, ..native(90) });
    run(&mut world, 100 * SECOND);
    assert_eq!(ended(&world), Some(EndCause::Expired));
    assert_eq!(ending(&world, parties.uac), Some(Ending::Expired));
    finish(&mut world);
}

#[test]
fn an_update_that_is_not_known_is_never_sent_twice() {
    for status in [405, 501] {
        // It allows what it does not take, or says nothing.
        let never = canned("UPDATE", status, u32::MAX);
        for remote in [scripted(Habits::plain(), never), scripted(native(90), never)] {
            let (mut world, _) = answered(refreshing(90), Leg::Local, simple(), remote);
            run(&mut world, 300 * SECOND);
            assert_eq!(made(&world, Leg::Remote, "UPDATE").len(), 1);
            assert!(made(&world, Leg::Remote, "INVITE").len() >= 6);
            assert_active(&world);
        }
    }
}

#[test]
fn a_peer_that_lists_no_update_gets_a_re_invite() {
    for remote in [simple(), Habits { allows: false, ..simple() }] {
        let (mut world, _) = answered(standing_in(90, 90), Leg::Local, simple(), remote);
        run(&mut world, 100 * SECOND);
        assert!(made(&world, Leg::Remote, "UPDATE").is_empty());
        assert_eq!(made(&world, Leg::Remote, "INVITE").len(), 2);
    }
}

#[test]
fn an_app_that_is_gone_ends_the_call_and_is_not_kept_alive() {
    for caller in Leg::BOTH {
        for remote in [native(90), simple()] {
            for act in [Act::Vanish, Act::Forget] {
                let (uac, uas) =
                    if caller == Leg::Local { (simple(), remote.clone()) } else { (remote.clone(), simple()) };
                let (mut world, parties) = answered(refreshing(90), caller, uac, uas);
                let (app, peer) = if caller == Leg::Local {
                    (parties.uac, parties.callees[0])
                } else {
                    (parties.callees[0], parties.uac)
                };
                run(&mut world, 100 * SECOND);
                world.act(app, 0, act);
                run(&mut world, 90 * SECOND);
                assert_eq!(ended(&world), Some(EndCause::AppGone));
                assert_eq!(ending(&world, peer), Some(Ending::Expired));
                finish(&mut world);
            }
        }
    }
}

#[test]
fn an_app_that_knows_no_options_is_there_and_one_that_fails_to_answer_is_not() {
    for (status, lives) in [(405, true), (501, true), (403, true), (500, false), (503, false)] {
        let app = scripted(simple(), canned("OPTIONS", status, u32::MAX));
        let (mut world, _) = answered(standing_in(90, 90), Leg::Local, app, Habits::plain());
        run(&mut world, 300 * SECOND);
        assert_eq!(ended(&world), if lives { None } else { Some(EndCause::AppGone) }, "{status}");
    }
}

#[test]
fn an_app_that_misses_one_question_is_asked_again() {
    let app = scripted(simple(), canned("OPTIONS", 0, 1));
    let (mut world, _) = answered(refreshing(90), Leg::Local, app, native(90));
    run(&mut world, 300 * SECOND);
    assert_active(&world);
    assert_eq!(told(&world, |kind| matches!(kind, EventKind::ProbeFailed { .. })), 1);
}

#[test]
fn an_app_is_not_asked_where_the_policy_says_so() {
    let mut timers = refreshing(90);
    timers.app_probe = AppProbe::None;
    let (mut world, _) = answered(timers, Leg::Local, simple(), native(90));
    run(&mut world, 300 * SECOND);
    assert_active(&world);
    assert!(made(&world, Leg::Local, "OPTIONS").is_empty());
    assert!(made(&world, Leg::Remote, "UPDATE").len() >= 6);
}

#[test]
fn the_death_of_a_remote_side_without_timers_ends_the_app_s_leg() {
    for remote in [Habits::plain(), simple()] {
        let (mut world, parties) = answered(standing_in(90, 90), Leg::Local, simple(), remote);
        run(&mut world, 10 * SECOND);
        world.act(parties.callees[0], 0, Act::Vanish);
        run(&mut world, 90 * SECOND);
        assert_eq!(ended(&world), Some(EndCause::RefreshFailed(408)));
        assert_eq!(ending(&world, parties.uac), Some(Ending::Expired));
        finish(&mut world);
    }
}

#[test]
fn where_neither_side_has_timers_a_policy_may_leave_it_at_that() {
    for caller in Leg::BOTH {
        let mut timers = standing_in(90, 90);
        timers.without_peer_support = WithoutPeerSupport::Skip;
        let (mut world, parties) = answered(timers, caller, simple(), simple());
        assert_eq!(session(&world).interval, None);
        assert_eq!(left(&world, caller, "200 INVITE")[0].sip.get("Session-Expires"), None);
        run(&mut world, 300 * SECOND);
        assert!(made(&world, Leg::Remote, "INVITE").is_empty());
        world.act(parties.uac, 0, Act::HangUp);
        finish(&mut world);
    }
}

#[test]
fn an_app_that_has_timers_is_left_to_itself_unless_the_policy_says_always() {
    for (act_for_app, acts) in [(ActForApp::Auto, false), (ActForApp::Always, true)] {
        for caller in Leg::BOTH {
            let mut timers = standing_in(1800, 90);
            timers.act_for_app = act_for_app;
            timers.refresher = RefresherPreference::Local;
            let (mut world, parties) = answered(timers, caller, native(90), native(90));
            run(&mut world, 300 * SECOND);
            assert_active(&world);
            let count = ["UPDATE", "INVITE"].map(|method| made(&world, Leg::Remote, method).len());
            assert_eq!(count.iter().sum::<usize>() > 0, acts, "{act_for_app:?} {caller:?}");
            world.act(parties.callees[0], 0, Act::HangUp);
            finish(&mut world);
        }
    }
}

#[test]
fn roles_swap_with_a_re_invite_that_says_so() {
    let mut timers = standing_in(1800, 90);
    timers.refresher = RefresherPreference::Local;
    let uac = Habits { update: false, ..native(90) };
    let (mut world, parties) = answered(timers, Leg::Remote, uac, simple());
    assert_eq!(session(&world).refresher, Some(Leg::Local));
    // Its own re-INVITE names the other side, which is the UAS now as it was then.
    world.act(parties.uac, SECOND, Act::Refresh);
    run(&mut world, 5 * SECOND);
    let answer = left(&world, Leg::Remote, "200 INVITE").last().expect("answered").sip.clone();
    assert_eq!(answer.get("Session-Expires"), Some("90;refresher=uas"));
    assert_eq!(session(&world).refresher, Some(Leg::Local));
    run(&mut world, 300 * SECOND);
    assert_active(&world);
    assert!(made(&world, Leg::Remote, "INVITE").len() >= 6);
}

#[test]
fn a_person_may_refresh_and_end_a_call() {
    let (mut world, parties) = answered(standing_in(1800, 90), Leg::Local, simple(), Habits::plain());
    world.refresh_now().expect("it is ours to refresh");
    run(&mut world, SECOND);
    assert_eq!(made(&world, Leg::Remote, "UPDATE").len(), 1);
    world.end_now().expect("it is active");
    run(&mut world, SECOND);
    assert_eq!(ended(&world), Some(EndCause::Requested));
    assert!(ending(&world, parties.uac).is_some() && ending(&world, parties.callees[0]).is_some());
    finish(&mut world);
}

#[test]
fn a_policy_may_want_update_alone() {
    let mut timers = standing_in(90, 90);
    timers.refresh_method = RefreshMethod::Update;
    let (mut world, _) = answered(timers, Leg::Local, simple(), simple());
    run(&mut world, 200 * SECOND);
    assert_active(&world);
    let reported = told(&world, |kind| *kind == EventKind::NotRefreshed { reason: NoRefresh::UpdateRefused });
    assert_eq!(reported, 1);
    assert!(made(&world, Leg::Remote, "INVITE").is_empty());
}

#[test]
fn a_side_that_cannot_be_heard_for_a_while_is_still_in_its_call() {
    // Longer than a probe or a copy of a refresh, shorter than 64 × T1.
    for (remote, local) in [(Link::CUT, Link::PERFECT), (Link::PERFECT, Link::CUT)] {
        let (mut world, _) = answered(refreshing(300), Leg::Local, simple(), native(300));
        run(&mut world, 140 * SECOND);
        world.set_links(remote, local);
        run(&mut world, 12 * SECOND);
        world.set_links(Link::PERFECT, Link::PERFECT);
        run(&mut world, 600 * SECOND);
        assert_active(&world);
    }
}

#[test]
fn an_app_that_begins_to_speak_of_timers_is_left_to_it_once_that_is_answered() {
    for refused in [true, false] {
        let mut timers = refreshing(90);
        timers.act_for_app = ActForApp::Always;
        let remote = Habits { fax: !refused, ..simple() };
        let (mut world, parties) = answered(timers, Leg::Local, native(90), remote);
        world.set_policy(enforce(refreshing(90)));
        world.act(parties.uac, 10 * SECOND, Act::Fax);
        run(&mut world, 30 * SECOND);
        assert_eq!(session(&world).acting.is_some(), refused);
        run(&mut world, 300 * SECOND);
        assert_active(&world);
    }
}

#[test]
fn a_late_copy_of_a_422_never_reaches_the_app() {
    let script = vec![canned("INVITE", 422, 1), canned("INVITE", 500, 1)];
    let (mut world, parties) =
        answered(standing_in(300, 90), Leg::Local, simple(), Habits { script, ..Habits::plain() });
    world.act(parties.uac, 0, Act::Hold);
    run(&mut world, 5 * SECOND);
    assert_eq!(told(&world, |kind| matches!(kind, EventKind::Retried { .. })), 1);
    let rejection = world.log.iter().position(|crossing| crossing.arrives && crossing.kind() == "422 INVITE");
    world.repeat(rejection.expect("the first try's"), SECOND);
    run(&mut world, 5 * SECOND);
    assert!(left(&world, Leg::Local, "422 INVITE").is_empty());
    assert_eq!(left(&world, Leg::Local, "500 INVITE").len(), 1);
}

#[test]
fn a_refresh_names_the_least_interval_so_that_no_answer_goes_below_it() {
    for (least, said) in [(90, None), (300, Some("300"))] {
        let mut timers = standing_in(600, least);
        timers.refresher = RefresherPreference::Local;
        let (mut world, _) = answered(timers, Leg::Local, simple(), native(600));
        run(&mut world, 300 * SECOND);
        assert_eq!(made(&world, Leg::Remote, "UPDATE")[0].sip.get("Min-SE"), said);
    }
}

#[test]
fn a_late_copy_of_a_422_is_that_of_the_call_it_answered() {
    let callee = Habits { asks_for: vec![300, 300, 600], ..native(90) };
    let (mut world, parties) = answered(standing_in(90, 90), Leg::Local, simple(), callee);
    assert_eq!(left(&world, Leg::Local, "422 INVITE").len(), 1, "the first call");
    world.act(parties.uac, 0, Act::Call);
    run(&mut world, SECOND / 2);
    let of_second = |crossing: &trace::Crossing| crossing.arrives && crossing.sip.get("Min-SE") == Some("600");
    let rejection = world.log.iter().position(of_second);
    world.repeat(rejection.expect("the second call's"), 0);
    run(&mut world, 200 * SECOND);
    assert_eq!(left(&world, Leg::Local, "422 INVITE").len(), 1);
    assert_eq!(session(&world).interval, Some(600));
    world.act(parties.uac, 0, Act::HangUp);
    finish(&mut world);
}
