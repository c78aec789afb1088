//! Our side is the refresher of an application that has no timers (RFC 4028 §10).

use std::time::Duration;

use sipwarden_session_timer::{
    AppProbe, ByeOutcome, EndCause, EventKind, Leg, Margin, NoRefresh, RefreshMethod, SdpUnusable, SessionState,
    Timers, VerbError, Verdict,
};
use sipwarden_sip::Method;

use crate::support::{
    ALLOW, ALLOW_UPDATE, Bench, Call, REMOTE, SDP_LOCAL, SDP_REMOTE, Sent, TIMER, Wire, changed, refreshed, s,
    standing_in,
};

const OURS: &str = "Session-Expires: 90;refresher=uac";

fn unprobed() -> Timers {
    changed(standing_in(90), |timers| timers.app_probe = AppProbe::None)
}

/// A call of the application, 90 s, ours to refresh; the remote side says `headers` in its 2xx.
fn ours(bench: &mut Bench, headers: &[&str]) -> Call {
    let mut call = Call::from(Leg::Local);
    let invite = call.invite().with_sdp(SDP_LOCAL);
    let left = bench.pass(Leg::Local, &invite);
    let ok = call.answer(&left, 200).with_all(headers).with_sdp(SDP_REMOTE);
    let ok = bench.pass(Leg::Remote, &ok);
    bench.pass(Leg::Local, &call.ack(&invite, &ok));
    call
}

/// Lets time go until our one request goes out.
fn next_sent(bench: &mut Bench, within: Duration) -> Wire {
    let elapsed = bench.run_for(within);
    let (_, Sent { wire, .. }) = elapsed.sent.first().expect("a request");
    assert!(elapsed.sent.iter().all(|(_, sent)| sent.wire == *wire), "one request, again at most: {:?}", elapsed.sent);
    wire.assert_well_formed();
    wire.clone()
}

/// Our refresh of an established call.
fn first_refresh(bench: &mut Bench) -> Wire {
    next_sent(bench, Duration::from_millis(40_516))
}

/// The remote side's answer to a request of ours; what we send because of it.
fn answered(bench: &mut Bench, call: &Call, request: &Wire, status: u16, headers: &[&str]) -> Vec<Wire> {
    let passage = bench.send(Leg::Remote, &call.respond(Leg::Remote, request, status).with_all(headers));
    assert_eq!(passage.verdict, Verdict::Absorb, "the application hears of none of it");
    passage.sent.into_iter().map(|sent| sent.wire).collect()
}

#[test]
fn a_peer_that_allows_update_is_refreshed_by_update_without_body() {
    let mut bench = Bench::enforcing(unprobed());
    let call = ours(&mut bench, &[OURS, ALLOW_UPDATE]);
    assert!(bench.run_for(Duration::from_millis(40_400)).sent.is_empty(), "not at once");
    let update = next_sent(&mut bench, Duration::from_millis(116));
    assert_eq!(update.start_line(), format!("UPDATE {} SIP/2.0", call.contacts[1]));
    assert_eq!(update.all("From"), [call.party(Leg::Local)]);
    assert_eq!(update.all("To"), [call.party(Leg::Remote)]);
    assert_eq!(update.all("Contact"), [format!("<{}>", call.contacts[0])]);
    assert_eq!(update.all("Supported"), ["timer"]);
    assert_eq!(update.all("Session-Expires"), ["90;refresher=uac"]);
    assert_eq!((update.cseq(), update.body()), (call.cseqs[0] + 1, ""));
    assert!(answered(&mut bench, &call, &update, 200, &[OURS]).is_empty());
    assert_eq!(bench.deadline_s(), Some(90));
    assert!(bench.session().acting.expect("we act").last_refresh.is_some());
}

#[test]
fn without_update_in_allow_a_re_invite_carries_the_sdp_in_force_and_its_2xx_is_acknowledged_each_time() {
    for allow in [&[ALLOW][..], &[]] {
        let mut bench = Bench::enforcing(unprobed());
        let call = ours(&mut bench, &[&[OURS], allow].concat());
        let invite = first_refresh(&mut bench);
        assert_eq!((invite.method(), invite.body()), ("INVITE", SDP_LOCAL));
        assert_eq!(invite.all("Content-Type"), ["application/sdp"]);
        let ok = call.respond(Leg::Remote, &invite, 200).with(OURS).with_sdp(SDP_REMOTE);
        let acks: Vec<Sent> = (0..3).flat_map(|_| bench.send(Leg::Remote, &ok).sent).collect();
        assert_eq!(acks.len(), 3);
        for Sent { wire: ack, flow } in &acks {
            assert_eq!((ack.method(), ack.cseq(), *flow), ("ACK", invite.cseq(), REMOTE));
            assert_ne!(ack.header("Via"), invite.header("Via"));
        }
        assert_eq!(bench.deadline_s(), Some(90));
    }
}

#[test]
fn later_requests_of_the_app_never_repeat_a_number_of_ours() {
    let mut bench = Bench::enforcing(unprobed());
    let mut call = ours(&mut bench, &[OURS, ALLOW_UPDATE]);
    let mut highest = call.cseqs[0];
    for round in 0..10 {
        let update = first_refresh(&mut bench);
        assert!(update.cseq() > highest, "{round}");
        answered(&mut bench, &call, &update, 200, &[OURS]);
        highest = update.cseq();
        if round % 3 == 0 {
            let info = call.request(Leg::Local, "INFO");
            let left = bench.pass(Leg::Local, &info);
            assert!(left.cseq() > highest);
            assert_eq!(bench.pass(Leg::Remote, &call.answer(&left, 200)).cseq(), info.cseq());
            highest = left.cseq();
        }
    }
    let update = first_refresh(&mut bench);
    let bye = bench.pass(Leg::Local, &call.request(Leg::Local, "BYE"));
    assert!(bye.cseq() > update.cseq(), "a hang-up that meets a refresh");
    assert!(answered(&mut bench, &call, &update, 200, &[OURS]).is_empty());
    assert_eq!(bench.session().state, SessionState::Ended(EndCause::Bye(Leg::Local)));
}

#[test]
fn a_failed_re_invite_of_the_app_is_acknowledged_with_the_number_it_left_with() {
    let mut bench = Bench::enforcing(unprobed());
    let mut call = ours(&mut bench, &[OURS, ALLOW_UPDATE]);
    let update = first_refresh(&mut bench);
    answered(&mut bench, &call, &update, 200, &[OURS]);
    let invite = call.request(Leg::Local, "INVITE").with_sdp(SDP_LOCAL);
    let left = bench.pass(Leg::Local, &invite);
    let failure = bench.pass(Leg::Remote, &call.answer(&left, 488));
    assert_eq!(failure.cseq(), invite.cseq());
    assert_eq!(bench.pass(Leg::Local, &call.ack(&invite, &failure)).cseq(), left.cseq());
}

#[test]
fn update_refused_means_re_invite_at_once_and_ever_after() {
    for status in [405, 501] {
        let mut bench = Bench::enforcing(unprobed());
        let call = ours(&mut bench, &[OURS, ALLOW_UPDATE]);
        let update = first_refresh(&mut bench);
        let [invite] = answered(&mut bench, &call, &update, status, &[]).try_into().expect("a re-INVITE");
        assert_eq!((invite.method(), invite.cseq()), ("INVITE", update.cseq() + 1));
        let ok = call.respond(Leg::Remote, &invite, 200).with_all(&[OURS, ALLOW_UPDATE]).with_sdp(SDP_REMOTE);
        bench.send(Leg::Remote, &ok);
        assert_eq!(first_refresh(&mut bench).method(), "INVITE");
    }
}

#[test]
fn the_policy_chooses_the_method_within_what_the_peer_takes() {
    for (method, allow, expected) in [
        (RefreshMethod::Auto, ALLOW_UPDATE, "UPDATE"),
        (RefreshMethod::ReInvite, ALLOW_UPDATE, "INVITE"),
        (RefreshMethod::Update, ALLOW_UPDATE, "UPDATE"),
    ] {
        let mut bench = Bench::enforcing(changed(unprobed(), |timers| timers.refresh_method = method));
        ours(&mut bench, &[OURS, allow]);
        assert_eq!(first_refresh(&mut bench).method(), expected);
    }
    let mut bench = Bench::enforcing(changed(unprobed(), |timers| timers.refresh_method = RefreshMethod::Update));
    ours(&mut bench, &[OURS, ALLOW, TIMER]);
    let elapsed = bench.run_for(s(41));
    assert!(elapsed.sent.is_empty());
    assert_eq!(elapsed.kinds(), [EventKind::NotRefreshed { reason: NoRefresh::UpdateRefused }]);
}

#[test]
fn a_peer_whose_media_we_cannot_offer_again_is_left_alone_and_the_reason_told() {
    let mut bench = Bench::enforcing(unprobed());
    let mut call = Call::from(Leg::Local);
    let dtls = format!("{SDP_LOCAL}a=setup:actpass\r\n");
    let left = bench.pass(Leg::Local, &call.invite().with_sdp(&dtls));
    bench.pass(Leg::Remote, &call.answer(&left, 200).with(ALLOW).with_sdp(SDP_REMOTE));
    let elapsed = bench.run_for(s(1800));
    assert!(elapsed.sent.is_empty(), "neither offered again nor hung up");
    let reason = NoRefresh::Sdp(SdpUnusable::Bound);
    assert_eq!(elapsed.kinds(), [EventKind::NotRefreshed { reason }, EventKind::TimerOff { by: Leg::Local }]);
    assert_eq!(bench.session().state, SessionState::Active);
}

#[test]
fn a_session_nobody_answers_for_is_over_on_both_sides() {
    for status in [408, 481, 404, 604] {
        let mut bench = Bench::enforcing(unprobed());
        let call = ours(&mut bench, &[OURS, ALLOW_UPDATE]);
        let update = first_refresh(&mut bench);
        let byes = answered(&mut bench, &call, &update, status, &[]);
        assert_eq!(byes.iter().map(Wire::method).collect::<Vec<_>>(), ["BYE", "BYE"]);
        let reason = format!("SIP;cause={status};text=\"Session refresh failed\"");
        assert!(byes.iter().all(|bye| bye.header("Reason") == Some(reason.as_str())));
        assert_eq!(byes[1].cseq(), update.cseq() + 1);
        assert_eq!(bench.session().state, SessionState::Ended(EndCause::RefreshFailed(status)));
        bench.run_out();
    }
}

#[test]
fn a_refresh_without_an_answer_is_retransmitted_and_ends_the_session_after_64_t1() {
    let mut bench = Bench::enforcing(unprobed());
    ours(&mut bench, &[OURS, ALLOW_UPDATE]);
    let update = first_refresh(&mut bench);
    let elapsed = bench.run_for(s(33));
    let copies = elapsed.sent.iter().filter(|(_, sent)| sent.wire == update).count();
    assert_eq!(copies, 10, "0.5, 1, 2, then every 4 s");
    elapsed.byes();
    assert!(elapsed.kinds().contains(&EventKind::RefreshFailed { by: Leg::Local, status: 408 }));
    assert!(elapsed.kinds().contains(&EventKind::Ended { cause: EndCause::RefreshFailed(408) }));
}

#[test]
fn a_failure_that_says_nothing_of_the_call_is_tried_again_while_time_is_left_and_never_counts_as_life() {
    for status in [500, 503, 488] {
        let mut bench = Bench::enforcing(unprobed());
        let call = ours(&mut bench, &[OURS, ALLOW_UPDATE]);
        let update = first_refresh(&mut bench);
        assert!(answered(&mut bench, &call, &update, status, &[]).is_empty());
        assert_eq!(bench.deadline_s(), Some(49));
        let mut tries = 0;
        let byes = loop {
            let next = bench.session().next_step.expect("a step").0.since(bench.now) + Duration::from_millis(16);
            let elapsed = bench.run_for(next);
            if elapsed.sent.iter().any(|(_, sent)| sent.wire.method() == "BYE") {
                break elapsed;
            }
            for (_, sent) in &elapsed.sent {
                tries += 1;
                answered(&mut bench, &call, &sent.wire, status, &[]);
            }
            assert!(tries < 100, "endless");
        };
        assert!(tries >= 3);
        byes.byes();
        assert!(byes.kinds().contains(&EventKind::Ended { cause: EndCause::Expired }), "the deadline is the backstop");
    }
}

/// Answers every refresh of a call to a peer without timers, the nth with the nth of `statuses` and the last of them from
/// then on, until nothing more is planned. What was told.
fn refused(bench: &mut Bench, statuses: &[u16]) -> Vec<EventKind> {
    let call = ours(bench, &[ALLOW_UPDATE]);
    let mut told = Vec::new();
    for tries in 0.. {
        assert!(tries < 1000, "endless");
        let Some((at, _)) = bench.session().next_step else { break };
        let elapsed = bench.run_for(at.since(bench.now) + Duration::from_millis(16));
        told.extend(elapsed.kinds());
        for (_, sent) in elapsed.sent.iter().filter(|(_, sent)| sent.wire.method() == "UPDATE") {
            let status = statuses.get(tries).or(statuses.last()).expect("one");
            answered(bench, &call, &sent.wire, *status, &[]);
        }
    }
    told
}

#[test]
fn a_peer_without_timers_that_refuses_our_refreshes_keeps_its_call_and_loses_the_timer() {
    for statuses in [&[302][..], &[422], &[488], &[491], &[603], &[503, 500, 488]] {
        let mut bench = Bench::enforcing(unprobed());
        let told = refused(&mut bench, statuses);
        let off = [EventKind::NotRefreshed { reason: NoRefresh::Refused }, EventKind::TimerOff { by: Leg::Local }];
        assert_eq!(told[told.len() - 2..], off, "{statuses:?}");
        assert_eq!((bench.session().state, bench.timer()), (SessionState::Active, None));
        assert!(bench.run_for(s(3600)).sent.is_empty());
    }
}

#[test]
fn what_a_proxy_says_of_a_peer_out_of_reach_does_not_keep_the_call_of_a_peer_without_timers() {
    for statuses in [&[500][..], &[503], &[504], &[430], &[488, 503]] {
        let mut bench = Bench::enforcing(unprobed());
        let told = refused(&mut bench, statuses);
        assert!(told.contains(&EventKind::Ended { cause: EndCause::Expired }), "{statuses:?}: {told:?}");
    }
}

#[test]
fn a_peer_without_timers_that_falls_silent_after_a_refusal_is_hung_up() {
    let mut bench = Bench::enforcing(unprobed());
    let call = ours(&mut bench, &[ALLOW_UPDATE]);
    let update = next_sent(&mut bench, s(900));
    answered(&mut bench, &call, &update, 488, &[]);
    let elapsed = bench.run_for(s(900));
    elapsed.byes();
    assert!(elapsed.kinds().contains(&EventKind::Ended { cause: EndCause::RefreshFailed(408) }));
}

#[test]
fn retry_after_is_obeyed_while_time_is_left() {
    let mut bench = Bench::enforcing(unprobed());
    let call = ours(&mut bench, &[OURS, ALLOW_UPDATE]);
    let update = first_refresh(&mut bench);
    answered(&mut bench, &call, &update, 503, &["Retry-After: 20 (later)"]);
    assert!(bench.run_for(s(19)).sent.is_empty());
    next_sent(&mut bench, s(1) + Duration::from_millis(16));
}

#[test]
fn after_491_who_owns_the_call_id_waits_longer() {
    for (caller, least_ms, most_ms) in [(Leg::Local, 2100, 4016), (Leg::Remote, 0, 2016)] {
        let mut bench = Bench::enforcing(changed(unprobed(), |timers| {
            timers.refresher = sipwarden_session_timer::RefresherPreference::Local;
        }));
        let mut call = Call::from(caller);
        let left = bench.pass(
            caller,
            &call.invite().with_all(&[TIMER, ALLOW_UPDATE, "Session-Expires: 90"]).without(if caller == Leg::Local {
                "Supported"
            } else {
                "none"
            }),
        );
        let answer = if caller == Leg::Local { &[OURS, ALLOW_UPDATE][..] } else { &[] };
        bench.pass(caller.other(), &call.answer(&left, 200).with_all(answer));
        let update = first_refresh(&mut bench);
        assert!(answered(&mut bench, &call, &update, 491, &[]).is_empty());
        let waits = bench.session().next_step.expect("re-armed").0.since(bench.now);
        let (least, most) = (Duration::from_millis(least_ms), Duration::from_millis(most_ms));
        assert!(waits >= least && waits <= most, "{waits:?}");
        let again = next_sent(&mut bench, most + Duration::from_millis(16));
        assert!(again.cseq() > update.cseq());
    }
}

#[test]
fn a_422_to_our_refresh_is_followed_and_the_running_timer_stays() {
    let mut bench = Bench::enforcing(unprobed());
    let call = ours(&mut bench, &[OURS, ALLOW_UPDATE]);
    let update = first_refresh(&mut bench);
    let [again] = answered(&mut bench, &call, &update, 422, &["Min-SE: 600"]).try_into().expect("another try");
    assert_eq!((again.all("Session-Expires"), again.all("Min-SE")), (vec!["600;refresher=uac"], vec!["600"]));
    assert_eq!(bench.deadline_s(), Some(49));
    assert!(answered(&mut bench, &call, &again, 422, &["Min-SE: 600"]).is_empty(), "the same again leads nowhere");
    assert!(bench.session().next_step.is_some());
}

#[test]
fn a_422_beyond_max_min_se_puts_no_more_than_that_into_our_refreshes() {
    for asked in [7201, u32::MAX] {
        let mut bench = Bench::enforcing(unprobed());
        let mut call = ours(&mut bench, &[OURS, ALLOW_UPDATE]);
        let left = bench.pass(Leg::Local, &call.request(Leg::Local, "INVITE"));
        bench.pass(Leg::Remote, &call.answer(&left, 422).with(&format!("Min-SE: {asked}")));
        assert_eq!(bench.session().min_se, asked, "what was asked for is shown as it is");
        let update = first_refresh(&mut bench);
        assert_eq!((update.all("Session-Expires"), update.all("Min-SE")), (vec!["7200;refresher=uac"], vec!["7200"]));
        answered(&mut bench, &call, &update, 200, &["Session-Expires: 7200;refresher=uac"]);
        assert_eq!(bench.timer(), Some((7200, Leg::Local)));
    }
}

#[test]
fn a_2xx_that_makes_the_peer_the_refresher_ends_our_turn() {
    let mut bench = Bench::enforcing(unprobed());
    let call = ours(&mut bench, &[OURS, ALLOW_UPDATE]);
    let update = first_refresh(&mut bench);
    answered(&mut bench, &call, &update, 200, &["Session-Expires: 120;refresher=uas"]);
    assert_eq!(bench.timer(), Some((120, Leg::Remote)));
    assert!(bench.run_for(s(87)).sent.is_empty());
    bench.run_for(s(2)).byes();
}

#[test]
fn our_own_deadline_is_the_whole_interval_whatever_the_margin() {
    let mut bench = Bench::enforcing(changed(unprobed(), |timers| timers.margin = Margin::Fixed(30)));
    ours(&mut bench, &[OURS]);
    let view = bench.session();
    assert_eq!(view.expires_at, view.deadline);
}

#[test]
fn jitter_comes_off_the_time_and_stays_within_its_bound() {
    let mut times = Vec::new();
    let mut bench = Bench::enforcing(changed(unprobed(), |timers| timers.refresh_jitter_percent = 50));
    let call = ours(&mut bench, &[OURS, ALLOW_UPDATE]);
    for _ in 0..40 {
        let at = bench.session().next_step.expect("a refresh").0.since(bench.now);
        assert!(at >= Duration::from_millis(20_250) && at <= Duration::from_millis(40_500), "{at:?}");
        times.push(at.as_secs() / 5);
        let update = next_sent(&mut bench, at + Duration::from_millis(16));
        answered(&mut bench, &call, &update, 200, &[OURS]);
    }
    times.sort_unstable();
    times.dedup();
    assert!(times.len() >= 4, "spread: {times:?}");
}

#[test]
fn a_refresh_of_somebody_else_moves_ours() {
    let mut bench = Bench::enforcing(unprobed());
    let mut call = ours(&mut bench, &[OURS, ALLOW_UPDATE]);
    bench.run_for(s(30));
    refreshed(&mut bench, &mut call, Leg::Remote, "INVITE", &[TIMER, "Session-Expires: 90;refresher=uas"], &[]);
    assert_eq!(bench.timer(), Some((90, Leg::Local)));
    assert!(bench.run_for(s(40)).sent.is_empty());
    next_sent(&mut bench, s(1));
}

#[test]
fn a_re_invite_of_the_app_keeps_interval_and_refresher() {
    let mut bench = Bench::enforcing(unprobed());
    let mut call = ours(&mut bench, &[OURS, ALLOW_UPDATE]);
    let invite = call.request(Leg::Local, "INVITE");
    let left = bench.pass(Leg::Local, &invite);
    assert_eq!((left.all("Session-Expires"), left.all("Supported")), (vec!["90;refresher=uac"], vec!["timer"]));
    let ok = bench.pass(Leg::Remote, &call.answer(&left, 200).with_all(&[OURS, "Require: timer"]));
    assert_eq!((ok.all("Session-Expires"), ok.all("Require")), (vec![], vec![]));
    assert_eq!(bench.timer(), Some((90, Leg::Local)));
}

#[test]
fn an_open_invite_of_either_side_holds_ours_back() {
    for from in Leg::BOTH {
        let mut bench = Bench::enforcing(unprobed());
        let mut call = ours(&mut bench, &[OURS]);
        bench.run_for(s(40));
        let invite = call.request(from, "INVITE").with_sdp(if from == Leg::Local { SDP_LOCAL } else { SDP_REMOTE });
        let left = bench.pass(from, &invite);
        assert!(bench.run_for(s(5)).sent.is_empty(), "never a second INVITE");
        bench.pass(from.other(), &call.answer(&left, 488));
        assert_eq!(next_sent(&mut bench, s(2)).method(), "INVITE");
    }
}

#[test]
fn an_invite_that_meets_ours_is_answered_491_on_either_side() {
    for from in Leg::BOTH {
        let mut bench = Bench::enforcing(unprobed());
        let mut call = ours(&mut bench, &[OURS]);
        let ours = first_refresh(&mut bench);
        let theirs = call.request(from, "INVITE").with_sdp(SDP_LOCAL);
        let passage = bench.send(from, &theirs);
        assert_eq!(passage.answer().status(), Some(491));
        assert_eq!(bench.send(from, &call.ack(&theirs, passage.answer())).verdict, Verdict::Absorb);
        let ok = call.respond(Leg::Remote, &ours, 200).with(OURS).with_sdp(SDP_REMOTE);
        bench.send(Leg::Remote, &ok);
        assert_eq!(bench.send(from, &theirs).answer().status(), Some(491), "a late copy of it");
        bench.pass(from, &call.request(from, "INVITE"));
    }
}

#[test]
fn a_re_invite_of_the_peer_may_cross_our_update() {
    let mut bench = Bench::enforcing(unprobed());
    let mut call = ours(&mut bench, &[OURS, ALLOW_UPDATE]);
    let update = first_refresh(&mut bench);
    refreshed(&mut bench, &mut call, Leg::Remote, "INVITE", &[TIMER, "Session-Expires: 90;refresher=uas"], &[]);
    assert!(answered(&mut bench, &call, &update, 200, &[OURS]).is_empty());
    assert_eq!(bench.timer(), Some((90, Leg::Local)));
}

#[test]
fn a_2xx_to_our_invite_is_acknowledged_after_the_hang_up_too() {
    let mut bench = Bench::enforcing(unprobed());
    let mut call = ours(&mut bench, &[OURS]);
    let invite = first_refresh(&mut bench);
    let bye = bench.pass(Leg::Local, &call.request(Leg::Local, "BYE"));
    bench.pass(Leg::Remote, &call.answer(&bye, 200));
    let ok = call.respond(Leg::Remote, &invite, 200).with(OURS).with_sdp(SDP_REMOTE);
    let passage = bench.send(Leg::Remote, &ok);
    assert_eq!(passage.sent[0].wire.method(), "ACK");
    assert!(passage.events.is_empty(), "and changes nothing");
    bench.run_out();
}

#[test]
fn other_media_in_the_answer_to_our_re_invite_are_told() {
    let mut bench = Bench::enforcing(unprobed());
    let call = ours(&mut bench, &[OURS]);
    let invite = first_refresh(&mut bench);
    let moved = SDP_REMOTE.replace("6000", "7000");
    let passage = bench.send(Leg::Remote, &call.respond(Leg::Remote, &invite, 200).with(OURS).with_sdp(&moved));
    assert!(passage.kinds().contains(&EventKind::MediaChanged));
}

#[test]
fn a_person_may_refresh_now_or_end_it() {
    let mut bench = Bench::enforcing(unprobed());
    let call = ours(&mut bench, &[OURS, ALLOW_UPDATE]);
    let id = bench.session().id;
    bench.dialogs.refresh_now(bench.now, id).expect("we act");
    let update = next_sent(&mut bench, Duration::from_millis(32));
    assert_eq!(bench.dialogs.refresh_now(bench.now, id), Err(VerbError::Busy));
    answered(&mut bench, &call, &update, 200, &[OURS]);
    bench.dialogs.end_now(bench.now, id).expect("active");
    let elapsed = bench.run_for(Duration::from_millis(32));
    elapsed.byes();
    assert_eq!(bench.session().state, SessionState::Ended(EndCause::Requested));
    assert_eq!(bench.dialogs.end_now(bench.now, id), Err(VerbError::NoSuchSession));
}

#[test]
fn requests_of_a_session_we_ended_are_answered_481() {
    let mut bench = Bench::enforcing(unprobed());
    let mut call = ours(&mut bench, &[OURS, ALLOW_UPDATE]);
    let update = first_refresh(&mut bench);
    let byes = answered(&mut bench, &call, &update, 481, &[]);
    assert_eq!(bench.send(Leg::Local, &call.request(Leg::Local, "INFO")).answer().status(), Some(481));
    let passage = bench.send(Leg::Remote, &call.respond(Leg::Remote, &byes[1], 481));
    assert_eq!(
        passage.kinds(),
        [EventKind::ByeDone { to: Leg::Remote, outcome: ByeOutcome::Answered(481) }],
        "481 to a BYE changes nothing"
    );
}

#[test]
fn what_is_told_of_a_refresh_names_method_and_side() {
    let mut bench = Bench::enforcing(unprobed());
    let call = ours(&mut bench, &[OURS, ALLOW_UPDATE]);
    let elapsed = bench.run_for(s(41));
    assert_eq!(elapsed.kinds(), [EventKind::RefreshSent { to: Leg::Remote, method: Method::Update }]);
    let update = &elapsed.sent[0].1.wire;
    let passage = bench.send(Leg::Remote, &call.respond(Leg::Remote, update, 200).with(OURS));
    let kind = EventKind::Refreshed { by: Leg::Local, method: Method::Update, interval: 90, refresher: Leg::Local };
    assert_eq!(passage.kinds(), [kind]);
}
