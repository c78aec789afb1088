//! The simulator's judges are not blind: a sidecar that does what it must not is found out.

use std::sync::Arc;

use sipwarden_session_timer::{Leg, Margin, Mode, Policy, RefreshMethod, RefresherPreference};
use sipwarden_tests::sim::agent::{Act, Habits};
use sipwarden_tests::sim::message::Sip;
use sipwarden_tests::sim::plan::proxy_only;
use sipwarden_tests::sim::stage::{enforce, native, standing_in};
use sipwarden_tests::sim::timer::Wishes;
use sipwarden_tests::sim::{Call, Setup, Tamper, World};

fn policy() -> Policy {
    let timers = proxy_only(600, 120);
    Policy { name: "test".into(), mode: Mode::Enforce, timers, rules: Vec::new() }
}

/// A call that is answered 422 first, then completed, refreshed, and abandoned by the callee.
fn world() -> World {
    let mut world = World::new(Setup::perfect(policy()));
    let uac = Habits::native(Wishes { interval: Some(100), ..Wishes::plain(None) });
    let parties = world.call(Call::between(Leg::Remote, uac, Habits::plain()));
    world.act(parties.callees[0], 200_000, Act::Info);
    world.act(parties.uac, 300_000, Act::Vanish);
    world
}

/// What is said of a sidecar whose packets `tamper` changes.
fn complaint(tamper: Tamper) -> String {
    let mut world = world();
    world.tamper = Some(tamper);
    world.finish(10_000).expect_err("nobody noticed")
}

fn replace(sip: &mut Sip, name: &str, value: &str) {
    if let Some(line) = sip.headers.iter_mut().find(|line| line.name.eq_ignore_ascii_case(name)) {
        line.raw = format!("{name}: {value}");
        line.value = value.into();
    }
}

fn remove(sip: &mut Sip, name: &str) {
    sip.headers.retain(|line| !line.name.eq_ignore_ascii_case(name));
}

#[test]
fn an_honest_sidecar_passes() {
    world().finish(10_000).expect("nothing to complain of");
}

#[test]
fn a_model_of_another_policy_disagrees() {
    let other = |change: fn(&mut Policy)| {
        let (mut world, mut policy) = (world(), policy());
        change(&mut policy);
        world.reference.set_policy(Arc::new(policy));
        world.finish(10_000).expect_err("nobody noticed")
    };
    let complaint = other(|policy| policy.timers = proxy_only(600, 90));
    assert!(complaint.contains("Answered(422)"), "{complaint}");
    let complaint = other(|policy| policy.timers.margin = Margin::Fixed(5));
    assert!(complaint.contains("its timer is"), "{complaint}");
    let complaint = other(|policy| policy.mode = Mode::Observe);
    assert!(complaint.contains("Answered(422)"), "{complaint}");
}

#[test]
fn a_422_without_min_se_is_noticed() {
    let complaint = complaint(|sip| {
        if sip.status() == Some(422) {
            remove(sip, "Min-SE");
        }
        true
    });
    assert!(complaint.contains("Min-SE None"), "{complaint}");
}

#[test]
fn a_completed_2xx_without_require_is_noticed() {
    let complaint = complaint(|sip| {
        remove(sip, "Require");
        true
    });
    assert!(complaint.contains("Require is []"), "{complaint}");
}

#[test]
fn another_refresher_than_uac_in_a_completed_2xx_is_noticed() {
    let complaint = complaint(|sip| {
        if sip.status() == Some(200) {
            replace(sip, "Session-Expires", "120;refresher=uas");
        }
        true
    });
    assert!(complaint.contains("Some(Uas)"), "{complaint}");
}

#[test]
fn a_header_changed_in_transit_is_noticed() {
    let complaint = complaint(|sip| {
        if sip.method() == Some("INFO") {
            replace(sip, "X-Sim", "mangled");
        }
        true
    });
    assert!(complaint.contains("mangled"), "{complaint}");
}

#[test]
fn a_lost_packet_inside_the_sidecar_is_noticed() {
    let complaint = complaint(|sip| sip.method() != Some("INFO"));
    assert!(complaint.contains("0 packets left"), "{complaint}");
}

#[test]
fn a_bye_to_one_side_only_is_noticed() {
    let complaint = complaint(|sip| sip.method() != Some("BYE") || sip.tag("To") != Some("uac1-c"));
    assert!(complaint.contains("without one BYE to Remote"), "{complaint}");
}

#[test]
fn a_bye_with_a_number_of_its_own_is_noticed() {
    let complaint = complaint(|sip| {
        if sip.method() == Some("BYE") {
            replace(sip, "CSeq", "1 BYE");
        }
        true
    });
    assert!(complaint.contains("CSeq 1 of the sidecar's BYE"), "{complaint}");
}

#[test]
fn a_bye_of_another_dialog_is_noticed() {
    let complaint = complaint(|sip| {
        if sip.method() == Some("BYE") {
            replace(sip, "To", "<sip:x@y>;tag=else");
        }
        true
    });
    assert!(complaint.contains("without one BYE"), "{complaint}");
}

#[test]
fn a_bye_for_another_target_is_noticed() {
    let complaint = complaint(|sip| {
        if sip.method() == Some("BYE") {
            sip.start = "BYE sip:else@127.0.0.1:5070 SIP/2.0".into();
        }
        true
    });
    assert!(complaint.contains("was sent a BYE for sip:else"), "{complaint}");
}

#[test]
fn a_bye_without_its_route_is_noticed() {
    let mut world = World::new(Setup::perfect(policy()));
    let callees = vec![Habits::plain(), Habits { rings_ms: 90_000, ..Habits::plain() }];
    let uac = Habits::native(Wishes::plain(Some(600)));
    let call = Call { callees, proxy_cancels: true, ..Call::between(Leg::Remote, uac, Habits::plain()) };
    let parties = world.call(call);
    world.act(parties.uac, 100_000, Act::Vanish);
    world.tamper = Some(|sip| {
        if sip.method() == Some("BYE") {
            remove(sip, "Route");
        }
        true
    });
    let complaint = world.finish(10_000).expect_err("nobody noticed");
    assert!(complaint.contains("without its Route"), "{complaint}");
}

/// What is said of a sidecar that stands in for a caller without timers, and whose packets `tamper` changes.
fn complaint_of_acting(method: RefreshMethod, tamper: Tamper) -> String {
    let mut timers = standing_in(120, 90);
    timers.refresher = RefresherPreference::Local;
    timers.refresh_method = method;
    let mut world = World::new(Setup::perfect(enforce(timers)));
    let callee = Habits { asks_for: vec![200], ..native(90) };
    let parties = world.call(Call::between(Leg::Local, Habits::plain(), callee));
    world.act(parties.uac, 150_000, Act::Info);
    world.act(parties.uac, 300_000, Act::Vanish);
    world.tamper = Some(tamper);
    world.finish(10_000).expect_err("nobody noticed")
}

#[test]
fn a_refresh_of_other_media_than_are_in_force_is_noticed() {
    let complaint = complaint_of_acting(RefreshMethod::ReInvite, |sip| {
        if sip.list("Via").len() == 1 && sip.method() == Some("INVITE") {
            sip.body = sip.body.replace("RTP/AVP 0", "RTP/AVP 0 8");
        }
        true
    });
    assert!(complaint.contains("is in force"), "{complaint}");
}

#[test]
fn a_number_that_is_used_twice_is_noticed() {
    let complaint = complaint_of_acting(RefreshMethod::Update, |sip| {
        if sip.method() == Some("INFO") {
            let number = sip.cseq().0 - 1;
            replace(sip, "CSeq", &format!("{number} INFO"));
        }
        true
    });
    assert!(complaint.contains("has left before"), "{complaint}");
}

#[test]
fn an_answer_with_the_number_it_left_with_is_noticed() {
    let complaint = complaint_of_acting(RefreshMethod::Update, |sip| {
        if sip.status() == Some(200) && sip.cseq().1 == "INFO" {
            let number = sip.cseq().0 + 1;
            replace(sip, "CSeq", &format!("{number} INFO"));
        }
        true
    });
    assert!(complaint.contains("and left as"), "{complaint}");
}

#[test]
fn a_422_that_is_not_answered_and_a_timer_the_app_is_told_of_are_noticed() {
    let complaint =
        complaint_of_acting(RefreshMethod::Update, |sip| sip.method() != Some("INVITE") || sip.get("Min-SE").is_none());
    assert!(complaint.contains("packets left"), "{complaint}");
    let complaint = complaint_of_acting(RefreshMethod::Update, |sip| {
        if sip.status() == Some(200) && sip.cseq().1 == "INVITE" {
            sip.push("Session-Expires", "200;refresher=uac");
        }
        true
    });
    assert!(complaint.contains("told of a timer"), "{complaint}");
}

#[test]
fn a_refresh_without_a_question_and_one_that_never_comes_are_noticed() {
    let complaint = complaint_of_acting(RefreshMethod::Update, |sip| sip.method() != Some("OPTIONS"));
    assert!(complaint.contains("was to be refreshed"), "{complaint}");
    let complaint = complaint_of_acting(RefreshMethod::Update, |sip| {
        if sip.method() == Some("UPDATE") {
            remove(sip, "Session-Expires");
        }
        true
    });
    assert!(complaint.contains("no refresh"), "{complaint}");
}

#[test]
fn one_bye_for_a_call_whose_app_is_gone_is_noticed() {
    let complaint = complaint_of_acting(RefreshMethod::Update, |sip| {
        sip.method() != Some("BYE") || sip.tag("To") != Some("uac1-c")
    });
    assert!(complaint.contains("BYEs left"), "{complaint}");
}
