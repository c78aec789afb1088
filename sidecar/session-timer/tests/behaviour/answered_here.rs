//! The peer is the refresher: what the application cannot answer is answered here, the rest goes to it.

use sipwarden_session_timer::{AppProbe, EndCause, EventKind, Leg, RefresherPreference, SessionState, Timers, Verdict};
use sipwarden_sip::Method;

use crate::support::{ALLOW, ALLOW_UPDATE, Bench, Call, SDP_REMOTE, TIMER, changed, refreshed, s, standing_in};

fn unprobed() -> Timers {
    changed(standing_in(90), |timers| timers.app_probe = AppProbe::None)
}

/// The remote side, which has timers, calls the application, which has none and says `headers`.
fn called(bench: &mut Bench, headers: &[&str]) -> Call {
    let mut call = Call::from(Leg::Remote);
    let invite = call.invite().with_all(&[TIMER, "Session-Expires: 600;refresher=uac", ALLOW_UPDATE]);
    let left = bench.pass(Leg::Remote, &invite);
    let ok = bench.pass(Leg::Local, &call.answer(&left, 200).with_all(headers));
    bench.pass(Leg::Remote, &call.ack(&invite, &ok));
    call
}

#[test]
fn an_update_that_the_app_does_not_allow_is_answered_here_within_the_policy() {
    for headers in [&[ALLOW][..], &[]] {
        let mut bench = Bench::enforcing(unprobed());
        let mut call = called(&mut bench, headers);
        bench.run_for(s(300));
        let update = call.request(Leg::Remote, "UPDATE").with_all(&[TIMER, "Session-Expires: 3600;refresher=uac"]);
        let passage = bench.send(Leg::Remote, &update);
        let ok = passage.answer();
        assert_eq!(ok.status(), Some(200));
        assert_eq!(ok.all("Session-Expires"), ["1800;refresher=uac"]);
        assert_eq!((ok.all("Require"), ok.all("Supported")), (vec!["timer"], vec!["timer"]));
        assert_eq!(ok.all("Contact"), [format!("<{}>", call.contacts[0])]);
        assert_eq!(bench.timer(), Some((1800, Leg::Remote)));
        let kind = EventKind::AnsweredForApp { from: Leg::Remote, method: Method::Update };
        assert!(passage.kinds().contains(&kind));

        bench.run_for(s(2));
        let again = bench.send(Leg::Remote, &update);
        assert_eq!(again.answer().all("Session-Expires"), ["1800;refresher=uac"]);
        assert_eq!(bench.deadline_s(), Some(1798), "its copy re-arms nothing");
    }
}

#[test]
fn an_update_that_the_app_allows_or_that_says_more_goes_to_the_app() {
    let mut bench = Bench::enforcing(unprobed());
    let mut call = called(&mut bench, &[ALLOW_UPDATE]);
    refreshed(&mut bench, &mut call, Leg::Remote, "UPDATE", &[TIMER, "Session-Expires: 900;refresher=uac"], &[]);
    assert_eq!(bench.timer(), Some((900, Leg::Remote)));
    let mut bench = Bench::enforcing(unprobed());
    let mut call = called(&mut bench, &[ALLOW]);
    bench.pass(Leg::Remote, &call.request(Leg::Remote, "UPDATE").with(TIMER).with_sdp(SDP_REMOTE));
}

#[test]
fn an_update_below_the_minimum_gets_422_and_changes_nothing() {
    let mut bench = Bench::enforcing(unprobed());
    let mut call = called(&mut bench, &[]);
    bench.run_for(s(100));
    let update = call.request(Leg::Remote, "UPDATE").with_all(&[TIMER, "Session-Expires: 60"]);
    assert_eq!(bench.send(Leg::Remote, &update).answer().status(), Some(422));
    assert_eq!((bench.timer(), bench.deadline_s()), (Some((600, Leg::Remote)), Some(500)));
}

#[test]
fn a_re_invite_goes_to_the_app_and_its_2xx_says_what_our_half_says() {
    for (asked, said, refresher) in [
        ("Session-Expires: 900;refresher=uac", "900;refresher=uac", Leg::Remote),
        ("Session-Expires: 900;refresher=uas", "900;refresher=uas", Leg::Local),
        ("Session-Expires: 900", "900;refresher=uac", Leg::Remote),
        ("Subject: no timer header", "1800;refresher=uac", Leg::Remote),
    ] {
        let mut bench = Bench::enforcing(unprobed());
        let mut call = called(&mut bench, &[]);
        let invite = call.request(Leg::Remote, "INVITE").with_all(&[TIMER, asked]);
        let left = bench.pass(Leg::Remote, &invite);
        let ok = bench.pass(Leg::Local, &call.answer(&left, 200));
        assert_eq!((ok.all("Session-Expires"), ok.all("Require")), (vec![said], vec!["timer"]), "{asked}");
        assert_eq!(bench.timer().map(|(_, side)| side), Some(refresher));
    }
}

#[test]
fn the_refresher_stays_who_he_was_unless_somebody_says_otherwise() {
    let ours = changed(unprobed(), |timers| timers.refresher = RefresherPreference::PeerChoice);
    let mut bench = Bench::enforcing(ours);
    let mut call = Call::from(Leg::Remote);
    let left = bench.pass(Leg::Remote, &call.invite().with_all(&[TIMER, "Session-Expires: 600;refresher=uas"]));
    bench.pass(Leg::Local, &call.answer(&left, 200));
    assert_eq!(bench.timer(), Some((600, Leg::Local)));
    refreshed(&mut bench, &mut call, Leg::Remote, "INVITE", &[TIMER, "Session-Expires: 600"], &[]);
    assert_eq!(bench.timer(), Some((600, Leg::Local)));
}

#[test]
fn what_was_answered_without_the_app_is_followed_by_a_question_to_it() {
    let mut bench = Bench::enforcing(standing_in(90));
    let mut call = called(&mut bench, &[]);
    let update = call.request(Leg::Remote, "UPDATE").with_all(&[TIMER, "Session-Expires: 600;refresher=uac"]);
    bench.send(Leg::Remote, &update);
    let elapsed = bench.run_for(s(0) + std::time::Duration::from_millis(32));
    let probe = &elapsed.sent[0].1.wire;
    assert_eq!(probe.method(), "OPTIONS");
    assert_eq!(probe.start_line(), format!("OPTIONS {} SIP/2.0", call.contacts[0]));
    assert!(probe.cseq() > update.cseq() - 1);
    let passage = bench.send(Leg::Local, &call.respond(Leg::Local, probe, 481));
    assert_eq!(passage.verdict, Verdict::Absorb);
    assert_eq!(bench.session().state, SessionState::Ended(EndCause::AppGone));
    assert_eq!(passage.sent.len(), 2, "a BYE to each side");
}

#[test]
fn an_app_that_begins_to_say_timer_is_left_to_itself() {
    let mut bench = Bench::enforcing(unprobed());
    let mut call = called(&mut bench, &[]);
    let native = [TIMER, "Session-Expires: 600;refresher=uac"];
    refreshed(&mut bench, &mut call, Leg::Local, "INVITE", &native, &["Session-Expires: 600;refresher=uac"]);
    assert!(bench.session().acting.is_none());
    assert_eq!(bench.timer(), Some((600, Leg::Local)));
}

#[test]
fn a_session_goes_on_being_refreshed_under_a_policy_that_would_no_longer_begin_to() {
    let mut bench = Bench::enforcing(changed(unprobed(), |timers| timers.refresher = RefresherPreference::Local));
    let mut call = Call::from(Leg::Remote);
    let left = bench.pass(Leg::Remote, &call.invite().with_all(&[TIMER, ALLOW_UPDATE, "Session-Expires: 600"]));
    bench.pass(Leg::Local, &call.answer(&left, 200));
    bench.set_policy(sipwarden_session_timer::Policy::observe());
    for _ in 0..3 {
        let elapsed = bench.run_for(s(296));
        let update = elapsed.sent.first().expect("a refresh").1.wire.clone();
        let ok = call.respond(Leg::Remote, &update, 200).with("Session-Expires: 600;refresher=uac");
        bench.send(Leg::Remote, &ok);
    }
    assert_eq!(bench.timer(), Some((600, Leg::Local)));
}
