//! When nobody refreshes: both legs get a BYE they can only accept, and the session never comes back.

use std::time::Duration;

use sipwarden_session_timer::{EndCause, EventKind, ExpiryAction, Leg, Margin, SessionState, Verdict};
use sipwarden_sip::Method;

use crate::support::{
    Bench, Call, LOCAL, LOCAL_TCP, REMOTE, REMOTE_TCP, TIMER, Wire, at_least, both_directions, changed, established,
    refreshed, s,
};

const ANSWER: &str = "Session-Expires: 600;refresher=uac";

/// An established call with nothing special about it, and the two BYEs it ends with.
fn expired(caller: Leg) -> (Bench, Call, [Wire; 2]) {
    let mut bench = Bench::enforcing(at_least(90));
    let call = established(&mut bench, caller, &[TIMER], &[ANSWER]);
    let byes = byes(&mut bench);
    (bench, call, byes)
}

/// Lets the one session expire; the BYE to the local and to the remote side.
fn byes(bench: &mut Bench) -> [Wire; 2] {
    let until_expiry = bench.session().expires_at.expect("a timer").since(bench.now);
    bench.run_for(until_expiry + Duration::from_millis(16)).byes().map(|sent| sent.wire.clone())
}

#[test]
fn an_unrefreshed_session_ends_the_margin_before_its_deadline_and_not_earlier() {
    both_directions(|caller| {
        for (margin, interval, after_s) in [
            (Margin::Rfc4028, 90, 60),
            (Margin::Rfc4028, 96, 64),
            (Margin::Rfc4028, 1800, 1768),
            (Margin::Fixed(0), 90, 90),
            (Margin::Fixed(5), 1800, 1795),
        ] {
            let mut bench = Bench::enforcing(changed(at_least(90), |timers| timers.margin = margin));
            established(&mut bench, caller, &[TIMER], &[&format!("Session-Expires: {interval};refresher=uas")]);
            let before = bench.run_for(s(after_s) - Duration::from_millis(1));
            assert!(before.sent.is_empty() && before.events.is_empty());
            let elapsed = bench.run_for(Duration::from_millis(17));
            assert_eq!(
                elapsed.kinds(),
                [
                    EventKind::Expired { interval, refresher: caller.other() },
                    EventKind::ByeSent { to: Leg::Local },
                    EventKind::ByeSent { to: Leg::Remote },
                    EventKind::Ended { cause: EndCause::Expired },
                ]
            );
            assert_eq!((elapsed.sent.len(), bench.dialogs.active()), (2, 0));
            assert_eq!(bench.session().state, SessionState::Ended(EndCause::Expired));
        }
    });
}

#[test]
fn both_sides_get_a_bye_with_the_parties_of_the_dialog() {
    both_directions(|caller| {
        let (_, call, byes) = expired(caller);
        for (bye, to) in byes.iter().zip(Leg::BOTH) {
            assert_eq!(bye.start_line(), format!("BYE {} SIP/2.0", call.contacts[to.index()]));
            assert_eq!(bye.all("From"), [call.party(to.other())]);
            assert_eq!(bye.all("To"), [call.party(to)]);
            assert_eq!(bye.all("Call-ID"), ["one@call.example"]);
            assert_eq!(bye.all("Reason"), ["SIP;cause=408;text=\"Session timer expired\""]);
            assert_eq!(bye.all("Max-Forwards"), ["70"]);
            assert_eq!(bye.all("Route"), [""; 0]);
            assert_eq!(bye.all("Via").len(), 1);
        }
        assert_ne!(byes[0].header("Via"), byes[1].header("Via"), "two transactions");
    });
}

#[test]
fn each_bye_has_the_next_cseq_of_the_side_it_speaks_for() {
    both_directions(|caller| {
        let mut bench = Bench::enforcing(at_least(90));
        let mut call = established(&mut bench, caller, &[TIMER], &[ANSWER]);
        for (from, method, times) in [(Leg::Local, "INFO", 3), (Leg::Remote, "MESSAGE", 5)] {
            for _ in 0..times {
                bench.pass(from, &call.request(from, method));
            }
        }
        refreshed(&mut bench, &mut call, caller.other(), "INVITE", &[TIMER], &[ANSWER]);
        for (bye, to) in byes(&mut bench).iter().zip(Leg::BOTH) {
            assert_eq!(bye.header("CSeq"), Some(format!("{} BYE", call.cseqs[to.other().index()] + 1).as_str()));
        }
    });
}

#[test]
fn numbers_used_in_the_early_dialog_are_not_used_again() {
    both_directions(|caller| {
        let mut bench = Bench::enforcing(at_least(90));
        let mut call = Call::from(caller);
        let left = bench.pass(caller, &call.invite().with(TIMER));
        bench.pass(caller.other(), &call.answer(&left, 183).with("Require: 100rel").with("RSeq: 1"));
        for (from, method) in [(caller, "PRACK"), (caller, "UPDATE"), (caller.other(), "UPDATE"), (caller, "PRACK")] {
            let left = bench.pass(from, &call.request(from, method));
            bench.pass(from.other(), &call.answer(&left, 200));
        }
        bench.pass(caller.other(), &call.answer(&left, 200).with(ANSWER));
        for (bye, to) in byes(&mut bench).iter().zip(Leg::BOTH) {
            assert_eq!(bye.cseq(), call.cseqs[to.other().index()] + 1);
        }
    });
}

#[test]
fn the_number_of_a_request_we_rejected_is_not_used_again() {
    let mut bench = Bench::enforcing(at_least(120));
    let mut call = established(&mut bench, Leg::Remote, &[TIMER], &[ANSWER]);
    let rejected = bench.send(Leg::Remote, &call.request(Leg::Remote, "UPDATE").with_all(&[TIMER, "x: 90"]));
    assert_eq!(rejected.verdict, Verdict::Answered(422));
    assert_eq!(byes(&mut bench)[0].cseq(), call.cseqs[Leg::Remote.index()] + 1);
}

#[test]
fn the_bye_for_a_side_that_never_sent_a_request_has_a_number_all_the_same() {
    both_directions(|caller| {
        let (_, call, byes) = expired(caller);
        assert_eq!(byes[call.callee().index()].cseq(), call.cseqs[caller.index()] + 1);
        assert!(byes[caller.index()].cseq() > 0);
    });
}

#[test]
fn the_byes_carry_the_whole_route_set_nearest_first() {
    both_directions(|caller| {
        let mut bench = Bench::enforcing(at_least(90));
        let mut call = Call::from(caller);
        let below =
            ["Record-Route: <sip:near.caller;lr>, <sip:mid.caller;lr>", "Record-Route: <sip:far.caller;lr>;x=1"];
        let left = bench.pass(caller, &call.invite().with(TIMER).with_all(&below));
        let above = ["<sip:near.callee;lr>", "<sip:mid.callee;lr;u=\"a,b\">", "<sip:far.callee;lr>"];
        bench.pass(caller.other(), &call.answer_through(&left, 200, &above).with(ANSWER));
        let byes = byes(&mut bench);
        let routes = |leg: Leg| byes[leg.index()].all("Route").join(",").replace(' ', "");
        assert_eq!(routes(caller), "<sip:near.caller;lr>,<sip:mid.caller;lr>,<sip:far.caller;lr>;x=1");
        assert_eq!(routes(caller.other()), above.join(","));
        for leg in Leg::BOTH {
            assert_eq!(byes[leg.index()].request_uri(), call.contacts[leg.index()], "the target stays the target");
        }
    });
}

#[test]
fn a_strict_router_gets_itself_as_request_uri_and_the_target_last() {
    let mut bench = Bench::enforcing(at_least(90));
    let mut call = Call::from(Leg::Remote);
    let below = "Record-Route: <sip:strict.example>, <sip:loose.example;lr>";
    let left = bench.pass(Leg::Remote, &call.invite().with(TIMER).with(below));
    bench.pass(Leg::Local, &call.answer(&left, 200).with(ANSWER));
    let [_, bye] = byes(&mut bench);
    assert_eq!(bye.request_uri(), "sip:strict.example");
    assert_eq!(bye.all("Route"), ["<sip:loose.example;lr>, <sip:phone@192.0.2.7:5060;ob>"]);
}

#[test]
fn the_byes_go_to_the_refreshed_targets() {
    both_directions(|caller| {
        for (method, from) in [("INVITE", caller), ("UPDATE", caller.other())] {
            let mut bench = Bench::enforcing(at_least(90));
            let mut call = established(&mut bench, caller, &[TIMER], &[ANSWER]);
            call.contacts = ["sip:moved@127.0.0.1:9".into(), "sip:moved@198.51.100.1".into()];
            refreshed(&mut bench, &mut call, from, method, &[TIMER], &[ANSWER]);
            let byes = byes(&mut bench);
            assert_eq!(byes.each_ref().map(Wire::request_uri), call.contacts.each_ref().map(String::as_str));
        }
    });
}

#[test]
fn a_refused_re_invite_changes_no_target() {
    let mut bench = Bench::enforcing(at_least(90));
    let mut call = established(&mut bench, Leg::Remote, &[TIMER], &[ANSWER]);
    let before = call.contacts.clone();
    call.contacts = ["sip:moved@127.0.0.1:9".into(), "sip:moved@198.51.100.1".into()];
    let left = bench.pass(Leg::Remote, &call.request(Leg::Remote, "INVITE").with(TIMER));
    bench.pass(Leg::Local, &call.answer(&left, 488).with("Contact: <sip:moved@127.0.0.1:9>"));
    assert_eq!(byes(&mut bench).each_ref().map(Wire::request_uri), before.each_ref().map(String::as_str));
}

#[test]
fn a_party_without_contact_is_addressed_by_its_own_uri() {
    let mut bench = Bench::enforcing(at_least(90));
    let mut call = Call::from(Leg::Remote);
    let left = bench.pass(Leg::Remote, &call.invite().without("Contact").with(TIMER));
    bench.pass(Leg::Local, &call.answer(&left, 200).without("Contact").with(ANSWER));
    assert_eq!(
        byes(&mut bench).each_ref().map(Wire::request_uri),
        ["sip:pbx@pod.example", "sip:phone@carrier.example"]
    );
}

#[test]
fn each_bye_goes_to_the_flow_its_leg_was_last_heard_on() {
    let mut bench = Bench::enforcing(at_least(90));
    let mut call = established(&mut bench, Leg::Remote, &[TIMER], &[ANSWER]);
    let flows = |bench: &mut Bench| bench.run_for(s(600)).byes().map(|sent| sent.flow);
    bench.flows[Leg::Remote.index()] = REMOTE_TCP;
    let left = bench.pass(Leg::Remote, &call.request(Leg::Remote, "INFO"));
    bench.flows[Leg::Local.index()] = LOCAL_TCP;
    bench.pass(Leg::Local, &call.answer(&left, 200));
    assert_eq!(flows(&mut bench), [LOCAL_TCP, REMOTE_TCP], "a response is heard as well");
}

#[test]
fn requests_inside_the_session_are_sent_on_to_where_the_other_leg_was_last_heard() {
    let mut bench = Bench::enforcing(at_least(90));
    let mut call = established(&mut bench, Leg::Remote, &[TIMER], &[ANSWER]);
    let toward = |bench: &mut Bench, call: &mut Call, from| bench.send(from, &call.request(from, "INFO")).verdict;
    assert_eq!(toward(&mut bench, &mut call, Leg::Local), Verdict::Forward { toward: Some(REMOTE), cseq: None });
    bench.flows[Leg::Remote.index()] = REMOTE_TCP;
    assert_eq!(toward(&mut bench, &mut call, Leg::Remote), Verdict::Forward { toward: Some(LOCAL), cseq: None });
    assert_eq!(toward(&mut bench, &mut call, Leg::Local), Verdict::Forward { toward: Some(REMOTE_TCP), cseq: None });
}

#[test]
fn a_late_refresh_is_answered_481_and_revives_nothing() {
    both_directions(|caller| {
        for (method, from) in
            [("INVITE", Leg::Local), ("UPDATE", Leg::Local), ("INVITE", Leg::Remote), ("UPDATE", Leg::Remote)]
        {
            let (mut bench, mut call, _) = expired(caller);
            let refresh = call.request(from, method).with_all(&[TIMER, "Session-Expires: 600"]);
            let late = bench.send(from, &refresh);
            assert_eq!(late.answer().status(), Some(481));
            let told = Method::from_token(method.as_bytes());
            assert_eq!(late.kinds(), [EventKind::LateRequest { from, method: told }]);
            if method == "INVITE" {
                let ack = call.ack(&refresh, late.answer());
                assert_eq!(bench.send(from, &ack).verdict, Verdict::Absorb);
            }
            assert_eq!((bench.dialogs.active(), bench.timer()), (0, None));
        }
    });
}

#[test]
fn other_late_requests_are_answered_481_and_a_late_bye_200() {
    both_directions(|caller| {
        let (mut bench, mut call, _) = expired(caller);
        for from in Leg::BOTH {
            for (method, status) in [("INFO", 481), ("MESSAGE", 481), ("PRACK", 481), ("CANCEL", 481), ("BYE", 200)] {
                let late = bench.send(from, &call.request(from, method));
                assert_eq!(late.answer().status(), Some(status), "{method}");
            }
            let ack = call.request(from, "ACK");
            assert_eq!(bench.send(from, &ack).verdict, Verdict::Absorb);
        }
    });
}

#[test]
fn a_2xx_that_comes_after_expiry_revives_nothing() {
    both_directions(|caller| {
        let mut bench = Bench::enforcing(at_least(90));
        let mut call = established(&mut bench, caller, &[TIMER], &[ANSWER]);
        bench.run_for(s(560));
        let left = bench.pass(caller, &call.request(caller, "INVITE").with(TIMER));
        bench.run_for(s(10));
        assert_eq!(bench.dialogs.active(), 0);
        bench.send(caller.other(), &call.answer(&left, 200).with(ANSWER));
        assert_eq!((bench.dialogs.active(), bench.timer()), (0, None));
        bench.run_out();
    });
}

#[test]
fn a_refresher_that_is_one_interval_late_still_gets_its_481() {
    let (mut bench, mut call, _) = expired(Leg::Remote);
    bench.run_for(s(590));
    let late = bench.send(Leg::Remote, &call.request(Leg::Remote, "UPDATE").with(TIMER));
    assert_eq!(late.answer().status(), Some(481));
    bench.run_out();
}

#[test]
fn where_the_policy_only_reports_the_call_goes_on() {
    both_directions(|caller| {
        let mut bench = Bench::enforcing(changed(at_least(90), |timers| timers.expiry = ExpiryAction::Report));
        let mut call = established(&mut bench, caller, &[TIMER], &[ANSWER]);
        let elapsed = bench.run_for(s(1800));
        assert_eq!(elapsed.kinds(), [EventKind::Expired { interval: 600, refresher: caller }], "told once");
        assert!(elapsed.sent.is_empty());
        assert_eq!(bench.dialogs.active(), 1);
        refreshed(&mut bench, &mut call, caller, "UPDATE", &[TIMER], &[ANSWER]);
        assert_eq!(bench.deadline_s(), Some(600));
    });
}
