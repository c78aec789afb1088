//! What a refresh by re-INVITE carries: byte for byte the SDP last accepted, or nothing at all.

use sipwarden_session_timer::{AppProbe, Leg, RefreshMethod, SdpUnusable, Timers};

use crate::support::{ALLOW, ALLOW_UPDATE, Bench, Call, SDP_LOCAL, SDP_REMOTE, TIMER, Wire, changed, s, standing_in};

const HELD: &str = "v=0\r\no=pbx 1 2 IN IP4 127.0.0.1\r\ns=-\r\nm=audio 4000 RTP/AVP 0\r\na=sendonly\r\n";
const FAX: &str = "v=0\r\no=pbx 1 3 IN IP4 127.0.0.1\r\ns=-\r\nm=image 4002 udptl t38\r\n";
const OURS: &str = "Session-Expires: 90;refresher=uac";

fn by_re_invite() -> Timers {
    changed(standing_in(90), |timers| {
        timers.app_probe = AppProbe::None;
        timers.refresh_method = RefreshMethod::ReInvite;
    })
}

/// A call of the application to a peer that takes no UPDATE.
fn established(bench: &mut Bench) -> Call {
    let mut call = Call::from(Leg::Local);
    let invite = call.invite().with_sdp(SDP_LOCAL);
    let left = bench.pass(Leg::Local, &invite);
    let ok = bench.pass(Leg::Remote, &call.answer(&left, 200).with_all(&[OURS, ALLOW]).with_sdp(SDP_REMOTE));
    bench.pass(Leg::Local, &call.ack(&invite, &ok));
    call
}

/// `from` sends a request with `offer`, answered with `status` and `answer`.
fn offered(bench: &mut Bench, call: &mut Call, from: Leg, method: &str, offer: &str, status: u16, answer: &str) {
    let request = call.request(from, method).with(TIMER).with_sdp(offer);
    let left = bench.pass(from, &request);
    let response = call.answer(&left, status).with(OURS);
    let response = if status < 300 { response.with_sdp(answer) } else { response };
    let response = bench.pass(from.other(), &response);
    if method == "INVITE" {
        bench.pass(from, &call.ack(&request, &response));
    }
}

/// Lets a refresh come and answers it; its body.
fn refreshed_with(bench: &mut Bench, call: &Call) -> String {
    let elapsed = bench.run_for(s(41));
    let invite = &elapsed.sent.first().expect("a refresh").1.wire;
    assert_eq!(invite.method(), "INVITE");
    bench.send(Leg::Remote, &call.respond(Leg::Remote, invite, 200).with(OURS).with_sdp(SDP_REMOTE));
    invite.body().to_owned()
}

#[test]
fn hold_and_resume_of_the_app_are_followed_round_by_round() {
    let mut bench = Bench::enforcing(by_re_invite());
    let mut call = established(&mut bench);
    assert_eq!(refreshed_with(&mut bench, &call), SDP_LOCAL);
    for (offer, method) in [(HELD, "INVITE"), (SDP_LOCAL, "UPDATE"), (HELD, "INVITE")] {
        // Without `Supported: timer`: it stays an application that has none.
        let request = call.request(Leg::Local, method).with_sdp(offer);
        let left = bench.pass(Leg::Local, &request);
        let ok = bench.pass(Leg::Remote, &call.answer(&left, 200).with(OURS).with_sdp(SDP_REMOTE));
        if method == "INVITE" {
            bench.pass(Leg::Local, &call.ack(&request, &ok));
        }
        assert_eq!(refreshed_with(&mut bench, &call), offer);
    }
}

#[test]
fn an_answer_of_the_app_to_the_peers_hold_is_what_is_in_force() {
    let mut bench = Bench::enforcing(by_re_invite());
    let mut call = established(&mut bench);
    let asked = "Session-Expires: 90;refresher=uas";
    let request = call.request(Leg::Remote, "INVITE").with_all(&[TIMER, asked]).with_sdp(SDP_REMOTE);
    let left = bench.pass(Leg::Remote, &request);
    bench.pass(Leg::Local, &call.answer(&left, 200).with_sdp(HELD));
    assert_eq!(refreshed_with(&mut bench, &call), HELD);
}

#[test]
fn a_rejected_offer_is_never_sent_again() {
    let mut bench = Bench::enforcing(by_re_invite());
    let mut call = established(&mut bench);
    offered_by_app(&mut bench, &mut call, FAX, 488);
    assert_eq!(refreshed_with(&mut bench, &call), SDP_LOCAL);
    offered(&mut bench, &mut call, Leg::Remote, "INVITE", FAX, 488, "");
    assert_eq!(refreshed_with(&mut bench, &call), SDP_LOCAL);
}

fn offered_by_app(bench: &mut Bench, call: &mut Call, offer: &str, status: u16) {
    let request = call.request(Leg::Local, "INVITE").with_sdp(offer);
    let left = bench.pass(Leg::Local, &request);
    let response = bench.pass(Leg::Remote, &call.answer(&left, status));
    bench.pass(Leg::Local, &call.ack(&request, &response));
}

#[test]
fn an_accepted_fax_is_in_force_like_anything_else() {
    let mut bench = Bench::enforcing(by_re_invite());
    let mut call = established(&mut bench);
    let request = call.request(Leg::Local, "INVITE").with_sdp(FAX);
    let left = bench.pass(Leg::Local, &request);
    bench.pass(Leg::Remote, &call.answer(&left, 200).with(OURS).with_sdp(SDP_REMOTE));
    assert_eq!(refreshed_with(&mut bench, &call), FAX);
}

#[test]
fn a_late_offer_that_ack_answers_is_in_force_for_who_offered() {
    let mut bench = Bench::enforcing(by_re_invite());
    let mut call = Call::from(Leg::Remote);
    let invite = call.invite().with_all(&[TIMER, ALLOW, "Session-Expires: 90;refresher=uas"]);
    let left = bench.pass(Leg::Remote, &invite);
    let ok = bench.pass(Leg::Local, &call.answer(&left, 200).with_sdp(SDP_LOCAL));
    assert_eq!(bench.session().acting.expect("we act").sdp, Err(SdpUnusable::OpenOffer));
    bench.pass(Leg::Remote, &call.ack(&invite, &ok).with_sdp(SDP_REMOTE));
    assert_eq!(refreshed_with(&mut bench, &call), SDP_LOCAL);
}

#[test]
fn what_a_reliable_183_and_its_prack_settled_is_in_force_for_that_fork_only() {
    let mut bench = Bench::enforcing(by_re_invite());
    let mut call = Call::from(Leg::Local);
    let invite = call.invite().with("Supported: 100rel");
    let left = bench.pass(Leg::Local, &invite);
    let reliable = ["Require: 100rel", "RSeq: 1"];
    bench.pass(Leg::Remote, &call.answer(&left, 183).with_all(&reliable).with_sdp(SDP_REMOTE));
    let prack = call.request(Leg::Local, "PRACK").with(&format!("RAck: 1 {} INVITE", invite.cseq()));
    let prack = bench.pass(Leg::Local, &prack.with_sdp(SDP_LOCAL));
    bench.pass(Leg::Remote, &call.answer(&prack, 200));
    let settled = call.tags[1].clone();
    call.tags[1] = "loser".into();
    bench.pass(Leg::Remote, &call.answer(&left, 180));
    call.tags[1] = settled;
    bench.pass(Leg::Remote, &call.answer(&left, 200).with_all(&[OURS, ALLOW]));
    assert_eq!(refreshed_with(&mut bench, &call), SDP_LOCAL);
}

#[test]
fn unknown_sdp_is_never_offered_and_update_is_tried_where_nobody_forbade_it() {
    let multipart =
        |wire: Wire| Wire(wire.with_sdp(SDP_LOCAL).0.replace("application/sdp", "multipart/mixed;boundary=x"));
    let mut bench = Bench::enforcing(by_re_invite());
    let mut call = Call::from(Leg::Local);
    let left = bench.pass(Leg::Local, &multipart(call.invite()));
    bench.pass(Leg::Remote, &call.answer(&left, 200).with(OURS).with_sdp(SDP_REMOTE));
    let elapsed = bench.run_for(s(41));
    let update = &elapsed.sent.first().expect("a refresh").1.wire;
    assert_eq!((update.method(), update.body()), ("UPDATE", ""));
}

#[test]
fn the_media_description_is_the_same_after_ten_refreshes() {
    let mut bench = Bench::enforcing(by_re_invite());
    let call = established(&mut bench);
    for _ in 0..10 {
        assert_eq!(refreshed_with(&mut bench, &call), SDP_LOCAL);
    }
    assert!(bench.session().events.iter().all(|past| !past.event.observed));
}

#[test]
fn an_update_peer_is_never_sent_a_body() {
    let mut bench = Bench::enforcing(changed(by_re_invite(), |timers| timers.refresh_method = RefreshMethod::Auto));
    let mut call = Call::from(Leg::Local);
    let left = bench.pass(Leg::Local, &call.invite().with_sdp(SDP_LOCAL));
    bench.pass(Leg::Remote, &call.answer(&left, 200).with_all(&[OURS, ALLOW_UPDATE]).with_sdp(SDP_REMOTE));
    let elapsed = bench.run_for(s(41));
    assert_eq!(elapsed.sent[0].1.wire.body(), "");
}
