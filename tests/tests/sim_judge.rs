//! The simulator's judges are not blind: a sidecar that does what it must not is found out.

use std::sync::Arc;

use sipwarden_session_timer::{Leg, Margin, Mode, Policy, Timers};
use sipwarden_tests::sim::agent::{Act, Habits};
use sipwarden_tests::sim::message::Sip;
use sipwarden_tests::sim::timer::Wishes;
use sipwarden_tests::sim::{Call, Setup, Tamper, World};

fn policy() -> Policy {
    let timers = Timers::new(600, 120, 7200).expect("a valid policy");
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
    let complaint = other(|policy| policy.timers = Timers::new(600, 90, 7200).expect("valid"));
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
