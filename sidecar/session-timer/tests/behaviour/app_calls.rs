//! An application without session timers calls out: our half negotiates for it, and it sees nothing of that.

use sipwarden_session_timer::{ActForApp, EventKind, Leg, RefresherPreference, Verdict, WithoutPeerSupport};

use crate::support::{Bench, Call, TIMER, Wire, changed, s, standing_in};

/// The INVITE of an application without timers, and as it leaves.
fn invited(bench: &mut Bench, headers: &[&str]) -> (Call, Wire, Wire) {
    let mut call = Call::from(Leg::Local);
    let invite = call.invite().with_all(headers);
    let left = bench.pass(Leg::Local, &invite);
    (call, invite, left)
}

/// What goes out again because of a 422 with this Min-SE: the ACK and the INVITE.
fn refused(bench: &mut Bench, call: &Call, left: &Wire, min_se: u32) -> [Wire; 2] {
    let rejection = call.answer(left, 422).with(&format!("Min-SE: {min_se}"));
    let passage = bench.send(Leg::Remote, &rejection);
    assert_eq!(passage.verdict, Verdict::Absorb);
    let [ack, invite] = passage.resent.as_slice() else { panic!("ACK and INVITE, not {:?}", passage.resent) };
    ack.assert_well_formed();
    invite.assert_well_formed();
    assert_eq!((ack.method(), invite.method()), ("ACK", "INVITE"));
    assert_eq!(ack.cseq(), left.cseq());
    assert_eq!(ack.tag("To"), Some(call.tags[1].as_str()));
    [ack.clone(), invite.clone()]
}

#[test]
fn the_invite_leaves_with_what_a_uac_with_timers_says() {
    let mut bench = Bench::enforcing(standing_in(90));
    let (_, _, left) = invited(&mut bench, &["Supported: 100rel"]);
    assert_eq!(left.all("Supported"), ["100rel, timer"]);
    assert_eq!(left.all("Session-Expires"), ["1800"]);
}

#[test]
fn an_app_that_supports_timers_speaks_for_itself_unless_the_policy_says_always() {
    let mut bench = Bench::enforcing(standing_in(90));
    let (call, _, left) = invited(&mut bench, &[TIMER]);
    let ok = bench.pass(Leg::Remote, &call.answer(&left, 200).with("Session-Expires: 600;refresher=uac"));
    assert_eq!(ok.all("Session-Expires"), ["600;refresher=uac"]);
    assert!(bench.session().acting.is_none());

    let mut bench = Bench::enforcing(changed(standing_in(90), |timers| timers.act_for_app = ActForApp::Always));
    let (call, _, left) = invited(&mut bench, &[TIMER]);
    let ok = call.answer(&left, 200).with_all(&["Session-Expires: 600;refresher=uac", "Require: timer"]);
    let ok = bench.pass(Leg::Remote, &ok);
    assert_eq!((ok.all("Session-Expires"), ok.all("Require")), (vec![], vec![]));
    assert!(bench.session().acting.is_some());
}

#[test]
fn the_app_sees_neither_session_expires_nor_require_timer_in_the_2xx() {
    let mut bench = Bench::enforcing(standing_in(90));
    let (call, invite, left) = invited(&mut bench, &[]);
    let ok = call.answer(&left, 200).with_all(&["x: 600;refresher=uac", "Require: 100rel, timer"]);
    let ok = bench.pass(Leg::Remote, &ok);
    assert_eq!((ok.all("x"), ok.all("Session-Expires"), ok.all("Require")), (vec![], vec![], vec!["100rel"]));
    assert_eq!(bench.timer(), Some((600, Leg::Local)));
    assert_eq!(bench.pass(Leg::Local, &call.ack(&invite, &ok)), call.ack(&invite, &ok));
}

#[test]
fn a_422_is_answered_by_us_and_the_app_sees_only_its_own_numbers() {
    let mut bench = Bench::enforcing(standing_in(90));
    let (mut call, invite, left) = invited(&mut bench, &["Allow: INVITE"]);
    let [_, again] = refused(&mut bench, &call, &left, 2400);
    assert_eq!(again.cseq(), left.cseq() + 1);
    assert_eq!((again.all("Session-Expires"), again.all("Min-SE")), (vec!["2400"], vec!["2400"]));
    for same in ["From", "To", "Call-ID", "Via", "Contact"] {
        assert_eq!(again.header(same), invite.header(same), "{same}");
    }

    let repeated = bench.pass(Leg::Local, &invite);
    assert_eq!(repeated, again, "the app's retransmission is one of the newest try");

    let ringing = bench.pass(Leg::Remote, &call.answer(&again, 180));
    assert_eq!(ringing.cseq(), invite.cseq());
    let ok = bench.pass(Leg::Remote, &call.answer(&again, 200).with("Session-Expires: 2400;refresher=uas"));
    assert_eq!(ok.cseq(), invite.cseq());
    let ack = bench.pass(Leg::Local, &call.ack(&invite, &ok));
    assert_eq!(ack.cseq(), again.cseq());
    assert_eq!(bench.timer(), Some((2400, Leg::Remote)));

    let bye = call.request(Leg::Local, "BYE");
    let left = bench.pass(Leg::Local, &bye);
    assert_eq!(left.cseq(), bye.cseq() + 1);
    assert_eq!(bench.pass(Leg::Remote, &call.answer(&left, 200)).cseq(), bye.cseq());
}

#[test]
fn two_hops_may_each_ask_for_more_and_each_is_followed() {
    let mut bench = Bench::enforcing(standing_in(90));
    let (mut call, invite, left) = invited(&mut bench, &[]);
    let [_, second] = refused(&mut bench, &call, &left, 2400);
    let [ack, third] = refused(&mut bench, &call, &second, 3600);
    assert_eq!([ack.cseq(), third.cseq()], [invite.cseq() + 1, invite.cseq() + 2]);
    assert_eq!(third.all("Min-SE"), ["3600"]);
    bench.pass(Leg::Remote, &call.answer(&third, 200).with("Session-Expires: 3600;refresher=uac"));
    assert_eq!(bench.session().min_se, 3600);
    let hold = bench.pass(Leg::Local, &call.request(Leg::Local, "INVITE"));
    assert_eq!((hold.all("Session-Expires"), hold.all("Min-SE")), (vec!["3600;refresher=uac"], vec!["3600"]));
}

#[test]
fn after_a_refused_call_that_was_answered_422_the_next_one_asks_for_as_much() {
    let mut bench = Bench::enforcing(standing_in(90));
    let (mut call, invite, left) = invited(&mut bench, &[]);
    let [_, again] = refused(&mut bench, &call, &left, 2400);
    let busy = bench.pass(Leg::Remote, &call.answer(&again, 486));
    bench.pass(Leg::Local, &call.ack(&invite, &busy));
    let next = bench.pass(Leg::Local, &call.invite());
    assert_eq!((next.all("Session-Expires"), next.all("Min-SE")), (vec!["2400"], vec!["2400"]));
}

#[test]
fn a_422_ends_with_the_app_when_it_asks_again_for_the_same_or_too_much_or_for_nothing() {
    for (first, second) in [(2400, Some("Min-SE: 2400")), (2400, Some("Min-SE: 9000")), (2400, None)] {
        let mut bench = Bench::enforcing(standing_in(90));
        let (call, invite, left) = invited(&mut bench, &[]);
        let [_, again] = refused(&mut bench, &call, &left, first);
        let rejection = call.answer(&again, 422).with_all(second.as_slice());
        let passage = bench.send(Leg::Remote, &rejection);
        assert!(passage.resent.is_empty());
        assert_eq!(passage.left.cseq(), invite.cseq());
        let ack = bench.pass(Leg::Local, &call.ack(&invite, &passage.left));
        assert_eq!(ack.cseq(), again.cseq(), "the app's ACK belongs to the last try");
        assert_eq!(bench.send(Leg::Remote, &rejection).left.cseq(), invite.cseq(), "so does a copy of the answer");
        bench.run_out();
    }
}

#[test]
fn endless_422_with_rising_values_end() {
    let mut bench = Bench::enforcing(standing_in(90));
    let (call, _, mut left) = invited(&mut bench, &[]);
    let mut tries = 0;
    loop {
        let rejection = call.answer(&left, 422).with(&format!("Min-SE: {}", 2000 + tries));
        let passage = bench.send(Leg::Remote, &rejection);
        let Some(again) = passage.resent.into_iter().nth(1) else { break };
        left = again;
        tries += 1;
        assert!(tries < 20, "endless");
    }
    assert!(tries >= 2, "gives up after the first");
}

#[test]
fn a_late_copy_of_a_422_is_acknowledged_again_and_kept_from_the_app() {
    let mut bench = Bench::enforcing(standing_in(90));
    let (call, _, left) = invited(&mut bench, &[]);
    let [ack, again] = refused(&mut bench, &call, &left, 2400);
    let copy = bench.send(Leg::Remote, &call.answer(&left, 422).with("Min-SE: 2400"));
    assert_eq!((copy.verdict, copy.resent), (Verdict::Absorb, vec![ack.clone()]));
    bench.pass(Leg::Remote, &call.answer(&again, 200));
    let copy = bench.send(Leg::Remote, &call.answer(&left, 422).with("Min-SE: 2400"));
    assert_eq!(copy.verdict, Verdict::Absorb);
}

#[test]
fn a_call_that_the_app_cancelled_is_not_tried_again() {
    let mut bench = Bench::enforcing(standing_in(90));
    let (call, invite, left) = invited(&mut bench, &[]);
    let [_, again] = refused(&mut bench, &call, &left, 2400);
    let cancel = Wire(invite.0.replacen("INVITE ", "CANCEL ", 1).replace(" INVITE\r\n", " CANCEL\r\n"));
    assert_eq!(bench.pass(Leg::Local, &cancel).cseq(), again.cseq(), "it cancels the newest try");
    let passage = bench.send(Leg::Remote, &call.answer(&again, 422).with("Min-SE: 3600"));
    assert!(passage.resent.is_empty() && passage.left.cseq() == invite.cseq());
}

#[test]
fn prack_and_rack_follow_the_shifted_numbers() {
    let mut bench = Bench::enforcing(standing_in(90));
    let (mut call, invite, left) = invited(&mut bench, &["Supported: 100rel"]);
    let [_, again] = refused(&mut bench, &call, &left, 2400);
    let progress = call.answer(&again, 183).with_all(&["Require: 100rel", "RSeq: 5"]);
    assert_eq!(bench.pass(Leg::Remote, &progress).cseq(), invite.cseq());
    let prack = call.request(Leg::Local, "PRACK").with(&format!("RAck: 5 {} INVITE", invite.cseq()));
    let left = bench.pass(Leg::Local, &prack);
    assert_eq!(left.cseq(), prack.cseq() + 1);
    assert_eq!(left.all("RAck"), [format!("5 {} INVITE", again.cseq())]);
    assert_eq!(bench.pass(Leg::Remote, &call.answer(&left, 200)).cseq(), prack.cseq());
}

#[test]
fn an_invite_that_follows_a_refused_one_does_not_repeat_a_number() {
    let mut bench = Bench::enforcing(standing_in(90));
    let (mut call, _, left) = invited(&mut bench, &[]);
    let [_, again] = refused(&mut bench, &call, &left, 2400);
    bench.pass(Leg::Remote, &call.answer(&again, 401));
    let second = bench.pass(Leg::Local, &call.invite());
    assert_eq!(second.cseq(), again.cseq() + 1);
    assert_eq!(second.all("Session-Expires"), ["2400"], "what was asked for is remembered");
}

#[test]
fn without_timers_on_either_side_the_policy_decides() {
    let told = |timers| {
        let mut bench = Bench::enforcing(timers);
        let (call, _, left) = invited(&mut bench, &[]);
        let passage = bench.send(Leg::Remote, &call.answer(&left, 200));
        assert_eq!(passage.left, call.answer(&left, 200), "the app hears of nothing");
        assert!(passage.kinds().contains(&EventKind::ActsForApp));
        bench.timer()
    };
    assert_eq!(told(standing_in(90)), Some((1800, Leg::Local)));
    assert_eq!(told(changed(standing_in(90), |t| t.without_peer_support = WithoutPeerSupport::Skip)), None);
}

#[test]
fn the_refresher_the_policy_prefers_is_asked_for() {
    for (preference, expected) in [
        (RefresherPreference::Local, "1800;refresher=uac"),
        (RefresherPreference::Caller, "1800;refresher=uac"),
        (RefresherPreference::Remote, "1800;refresher=uas"),
        (RefresherPreference::PeerChoice, "1800"),
    ] {
        let mut bench = Bench::enforcing(changed(standing_in(90), |timers| timers.refresher = preference));
        let (_, _, left) = invited(&mut bench, &[]);
        assert_eq!(left.all("Session-Expires"), [expected]);
    }
}

#[test]
fn an_interval_of_an_app_without_timers_is_raised_and_never_refused() {
    let mut bench = Bench::enforcing(standing_in(120));
    let (_, _, left) = invited(&mut bench, &["Supported:", "Session-Expires: 60"]);
    assert_eq!(left.all("Session-Expires"), ["120"]);
    assert_eq!(left.all("Min-SE"), ["120"]);
    assert_eq!(left.all("Supported"), ["timer"]);
}

#[test]
fn each_fork_is_a_session_with_its_own_options() {
    let mut bench = Bench::enforcing(standing_in(90));
    let (mut call, _, left) = invited(&mut bench, &[]);
    bench.pass(Leg::Remote, &call.answer(&left, 200).with("Session-Expires: 600;refresher=uas"));
    call.tags[1] = "another".into();
    bench.pass(Leg::Remote, &call.answer(&left, 200).with("Session-Expires: 900;refresher=uac"));
    let timers: Vec<_> = bench.dialogs.sessions(0, 9).iter().map(|one| one.interval.zip(one.refresher)).collect();
    assert_eq!(timers, [Some((600, Leg::Remote)), Some((900, Leg::Local))]);
    bench.run_for(s(40));
    assert_eq!(bench.dialogs.active(), 2);
}
