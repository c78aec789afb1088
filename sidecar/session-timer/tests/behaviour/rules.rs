//! Which settings apply to whom, and from when on.

use sipwarden_session_timer::{Direction, EventKind, ExpiryAction, Leg, Margin, Match, Mode, Policy, Rule, Timers};

use crate::support::{
    Bench, Call, REMOTE, TIMER, at_least, both_directions, changed, established, policy, refreshed, s,
};

const ANSWER: &str = "Session-Expires: 600;refresher=uac";

/// What the policy offers to everybody, and what the one rule offers.
const PLAIN: &str = "1800";
const RULED: &str = "300";

fn rule(name: &str, interval_s: u32, matches: Match) -> Rule {
    Rule { name: name.into(), matches, timers: Timers::new(interval_s, 90, 7200).expect("valid") }
}

fn with_rules(rules: Vec<Rule>) -> Policy {
    Policy { rules, ..policy(Mode::Enforce, at_least(90)) }
}

fn offered(matches: &Match, caller: Leg, lines: &[&str]) -> String {
    let mut bench = Bench::with_policy(with_rules(vec![rule("only", 300, matches.clone())]));
    let left = bench.pass(caller, &Call::from(caller).invite().with(TIMER).with_all(lines));
    left.header("Session-Expires").expect("inserted").to_owned()
}

#[test]
fn a_rule_for_a_direction_holds_for_that_direction_only() {
    for (direction, caller) in [(Direction::Inbound, Leg::Remote), (Direction::Outbound, Leg::Local)] {
        let matches = Match { direction: Some(direction), ..Match::default() };
        assert_eq!(offered(&matches, caller, &[]), RULED);
        assert_eq!(offered(&matches, caller.other(), &[]), PLAIN);
    }
}

#[test]
fn a_rule_for_a_network_holds_for_the_remote_address_in_both_directions() {
    both_directions(|caller| {
        for (cidr, expected) in [("192.0.2.0/24", RULED), ("192.0.2.7/32", RULED), ("198.51.100.0/24", PLAIN)] {
            let matches = Match { peer_cidrs: vec![cidr.parse().expect("a network")], ..Match::default() };
            assert_eq!(offered(&matches, caller, &[]), expected, "{cidr}");
        }
    });
}

#[test]
fn a_rule_for_a_domain_looks_at_from_or_to() {
    for (from, to, caller, expected) in [
        (vec!["Carrier.Example"], vec![], Leg::Remote, RULED),
        (vec!["carrier.example"], vec![], Leg::Local, PLAIN),
        (vec![], vec!["carrier.example"], Leg::Local, RULED),
        (vec!["bench.example", "pod.example"], vec!["carrier.example"], Leg::Local, RULED),
        (vec!["pod.example"], vec!["bench.example"], Leg::Local, PLAIN),
    ] {
        let domains = |list: Vec<&str>| list.into_iter().map(str::to_owned).collect();
        let matches = Match { from_domains: domains(from), to_domains: domains(to), ..Match::default() };
        assert_eq!(offered(&matches, caller, &[]), expected, "{matches:?} for a call of {caller:?}");
    }
}

#[test]
fn a_rule_for_user_agents_matches_globs() {
    both_directions(|caller| {
        let matches = Match { user_agents: vec!["Polycom*".into(), "*/1.?".into()], ..Match::default() };
        for (line, expected) in [
            ("User-Agent: PolycomVVX-VVX_410-UA/5.9", RULED),
            ("user-agent: Phone/1.2", RULED),
            ("User-Agent: Other", PLAIN),
            ("Subject: none", PLAIN),
        ] {
            assert_eq!(offered(&matches, caller, &[line]), expected, "{line}");
        }
    });
}

#[test]
fn the_first_rule_that_matches_decides_and_is_named_in_events() {
    let mut bench = Bench::with_policy(with_rules(vec![
        rule("outbound", 400, Match { direction: Some(Direction::Outbound), ..Match::default() }),
        rule("all", 500, Match::default()),
        rule("never reached", 700, Match::default()),
    ]));
    let passage = bench.send(Leg::Remote, &Call::from(Leg::Remote).invite().with(TIMER));
    assert_eq!(passage.left.header("Session-Expires"), Some("500"));
    assert_eq!(passage.events[0].rule, Some(1));
}

#[test]
fn a_rule_decides_about_refreshes_and_expiry_too() {
    both_directions(|caller| {
        let mut strict = rule("strict", 300, Match::default());
        strict.timers.expiry = ExpiryAction::Report;
        strict.timers.margin = Margin::Fixed(0);
        let mut bench = Bench::with_policy(with_rules(vec![strict]));
        let mut call = established(&mut bench, caller, &[TIMER], &["Session-Expires: 120;refresher=uac"]);
        let left = bench.pass(caller.other(), &call.request(caller.other(), "UPDATE").with(TIMER));
        assert_eq!(left.header("Session-Expires"), Some(RULED));
        let elapsed = bench.run_for(s(121));
        assert_eq!(elapsed.kinds(), [EventKind::Expired { interval: 120, refresher: caller }]);
        assert!(elapsed.sent.is_empty());
    });
}

#[test]
fn a_session_keeps_its_rule_while_the_policy_stays() {
    let polycom = Match { user_agents: vec!["Polycom*".into()], ..Match::default() };
    for (invited_as, expected) in [("User-Agent: PolycomVVX", RULED), ("User-Agent: Other", PLAIN)] {
        let mut bench = Bench::with_policy(with_rules(vec![rule("polycom", 300, polycom.clone())]));
        let mut call = established(&mut bench, Leg::Remote, &[TIMER, invited_as], &[ANSWER]);
        for (from, says) in [(Leg::Remote, "User-Agent: PolycomVVX"), (Leg::Local, "User-Agent: Other")] {
            let left = bench.pass(from, &call.request(from, "UPDATE").with(TIMER).with(says));
            assert_eq!(left.header("Session-Expires"), Some(expected), "{invited_as}, then {says}");
        }
    }
}

#[test]
fn a_new_policy_leaves_running_timers_as_they_are() {
    both_directions(|caller| {
        let mut bench = Bench::enforcing(at_least(90));
        established(&mut bench, caller, &[TIMER], &[ANSWER]);
        let mut lax = changed(at_least(900), |timers| timers.margin = Margin::Fixed(0));
        lax.expiry = ExpiryAction::Report;
        bench.set_policy(policy(Mode::Observe, lax));
        let elapsed = bench.run_for(s(568));
        assert_eq!(elapsed.sent.len(), 2, "both BYEs, at 600 s less the old margin");
    });
}

#[test]
fn a_new_policy_holds_from_the_next_refresh_on() {
    both_directions(|caller| {
        let mut bench = Bench::enforcing(at_least(90));
        let mut call = established(&mut bench, caller, &[TIMER], &[ANSWER]);
        bench.set_policy(policy(Mode::Enforce, changed(at_least(90), |timers| timers.margin = Margin::Fixed(0))));
        refreshed(&mut bench, &mut call, caller, "UPDATE", &[TIMER], &[ANSWER]);
        let elapsed = bench.run_for(s(599));
        assert!(elapsed.sent.is_empty());
        assert_eq!(bench.run_for(s(2)).sent.len(), 4, "two BYEs and their first retransmission");
    });
}

#[test]
fn a_refresh_that_fails_brings_no_new_policy() {
    let mut bench = Bench::enforcing(at_least(90));
    let mut call = established(&mut bench, Leg::Local, &[TIMER], &[ANSWER]);
    bench.set_policy(policy(Mode::Enforce, changed(at_least(90), |timers| timers.margin = Margin::Fixed(0))));
    let left = bench.pass(Leg::Local, &call.request(Leg::Local, "INVITE").with(TIMER));
    bench.pass(Leg::Remote, &call.answer(&left, 491));
    assert_eq!(bench.run_for(s(568)).sent.len(), 2);
}

#[test]
fn a_refresh_is_judged_by_the_new_policy() {
    both_directions(|caller| {
        let mut bench = Bench::enforcing(at_least(90));
        let mut call = established(&mut bench, caller, &[TIMER], &[ANSWER]);
        bench.set_policy(policy(Mode::Enforce, at_least(700)));
        let rejected = bench.send(caller, &call.request(caller, "UPDATE").with_all(&[TIMER, "Session-Expires: 600"]));
        assert_eq!(rejected.answer().header("Min-SE"), Some("700"));
        bench.set_policy(policy(Mode::Observe, at_least(700)));
        let update = call.request(caller, "UPDATE").with_all(&[TIMER, "Session-Expires: 600"]);
        assert_eq!(bench.pass(caller, &update), update);
    });
}

#[test]
fn a_session_keeps_its_rule_by_name_under_a_new_policy() {
    // Only the INVITE said which phone it is.
    let polycom = Match { user_agents: vec!["Polycom*".into()], ..Match::default() };
    let mut bench = Bench::with_policy(with_rules(vec![rule("polycom", 300, polycom.clone())]));
    let mut call = established(&mut bench, Leg::Remote, &[TIMER, "User-Agent: PolycomVVX"], &[ANSWER]);
    bench.set_policy(with_rules(vec![
        rule("nobody", 200, Match { user_agents: vec!["Nobody".into()], ..Match::default() }),
        rule("polycom", 500, polycom),
    ]));
    let left = bench.pass(Leg::Local, &call.request(Leg::Local, "UPDATE").with(TIMER));
    assert_eq!(left.header("Session-Expires"), Some("500"));
}

#[test]
fn a_session_without_rule_is_matched_anew_under_a_new_policy() {
    for (matches, expected) in [
        (Match { direction: Some(Direction::Inbound), ..Match::default() }, RULED),
        (Match { direction: Some(Direction::Outbound), ..Match::default() }, PLAIN),
        (Match { from_domains: vec!["carrier.example".into()], ..Match::default() }, RULED),
        (Match { to_domains: vec!["pod.example".into()], ..Match::default() }, RULED),
        (Match { peer_cidrs: vec![REMOTE.peer.ip().into()], ..Match::default() }, RULED),
    ] {
        for from in Leg::BOTH {
            let mut bench = Bench::enforcing(at_least(90));
            let mut call = established(&mut bench, Leg::Remote, &[TIMER], &[ANSWER]);
            bench.set_policy(with_rules(vec![rule("new", 300, matches.clone())]));
            let left = bench.pass(from, &call.request(from, "UPDATE").with(TIMER));
            assert_eq!(left.header("Session-Expires"), Some(expected), "{matches:?}, refreshed by {from:?}");
        }
    }
}

#[test]
fn a_request_tells_what_another_policy_would_have_decided() {
    both_directions(|caller| {
        let stricter = policy(Mode::Enforce, at_least(900));
        let rejected = |asked| vec![EventKind::Rejected { to: caller, asked, min_se: 900 }];
        let invite = Call::from(caller).invite().with(TIMER).with("Session-Expires: 600");
        let mut bench = Bench::with_policy(policy(Mode::Enforce, at_least(90)));
        let judged = bench.send(caller, &invite).judged.expect("it is a request for a timer");
        assert!(judged.facts.is_initial() && judged.facts.is_of_caller());
        assert_eq!(judged.facts.judged_by(&stricter, None), rejected(600));
        assert_eq!(judged.facts.judged_by(&policy(Mode::Enforce, at_least(90)), None), []);
        assert!(bench.send(caller, &invite).judged.is_none(), "a copy of what was judged is not judged");
    });
}
