//! The index, judged by what a cluster would look like.

mod properties;
mod selecting;
mod world;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use sipwarden_crds::Mode;
use sipwarden_operator::{
    index::{ConfigChange, Fingerprint, Key, NamespaceState, PodFacts},
    inject::Skip,
};

use self::world::{
    World, cluster_policy, deployment, edited, labels, opted_in, paused, pod, policy, secs, time, with_interval,
};

fn invalid(name: &str) -> sipwarden_crds::SessionPolicy {
    let mut policy = edited(policy("voice", name, "pbx"));
    policy.spec.timers.min_se = secs(10);
    policy
}

#[test]
fn a_policy_reaches_its_pods_and_its_workload() {
    let mut world = World::voice();
    world.pod("voice", "web-1", pod("web-1", "web", "web"));
    world.policy(policy("voice", "carrier", "pbx"));
    world.settle();

    assert_eq!(world.obeyed("voice", "pbx-1"), "carrier");
    assert_eq!(world.obeyed("voice", "pbx-2"), "carrier");
    assert!(world.config_of("voice", "web-1").is_none(), "a pod that no policy selects is left alone");
    let names: Vec<_> = world.configs.keys().map(|key| key.name.as_str()).collect();
    assert_eq!(names, ["deployment-pbx", "sessionpolicy-carrier"]);
    let config = world.configs.values().next().unwrap();
    assert_eq!(config.spec, world.config_of("voice", "pbx-1").unwrap());
    assert_eq!(config.metadata.owner_references.as_ref().unwrap()[0].uid, "uid-pbx");
    let text = &config.metadata.annotations.as_ref().unwrap()["sipwarden.dev/config"];
    assert_eq!(*text, world.annotations[&Key::new("voice", "pbx-1")], "what admission gives is what is written later");
    assert_eq!(world.writes, 4);
}

#[test]
fn a_workload_has_its_config_before_its_first_pod() {
    let mut world = World::new();
    world.namespace("voice", opted_in());
    world.policy(policy("voice", "carrier", "pbx"));
    world.workload("voice", deployment("pbx", "pbx"));
    world.settle();
    assert_eq!(world.configs[&Key::new("voice", "deployment-pbx")].spec.policy, "carrier");
}

#[test]
fn a_pod_about_to_be_created_is_given_what_it_would_be_given_later() {
    let mut world = World::voice();
    world.policy(policy("voice", "carrier", "pbx"));
    world.settle();
    let meta = k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta {
        labels: Some(labels([("app", "pbx")])),
        ..Default::default()
    };
    let annotation = world.index.annotation_for("voice", &meta).unwrap();
    assert_eq!(sipwarden_crds::from_annotation(&annotation).unwrap(), world.config_of("voice", "pbx-1").unwrap());
    assert_eq!(world.index.annotation_for("elsewhere", &meta), None);
}

#[test]
fn priority_goes_before_age_and_age_before_name() {
    let mut world = World::voice();
    for (name, priority, created, winner) in [
        ("m", 0, 50, "m"),
        ("z", 0, 40, "z"),
        ("a", 0, 60, "z"),
        ("b", 0, 40, "b"),
        ("y", 7, 90, "y"),
        ("x", -7, 1, "y"),
    ] {
        let mut policy = policy("voice", name, "pbx");
        policy.spec.priority = priority;
        policy.metadata.creation_timestamp = Some(time(created));
        world.policy(policy);
        world.settle();
        assert_eq!(world.obeyed("voice", "pbx-1"), winner, "after {name}");
    }
    assert_eq!(world.condition("voice", "y", "Accepted"), "True Accepted");
    assert_eq!(world.condition("voice", "x", "Accepted"), "True Accepted");
    assert_eq!(world.condition("voice", "x", "Programmed"), "False Overridden");
    assert_eq!(world.condition("voice", "x", "Ready"), "True Ready");
    world.remove_policy("voice", "y");
    world.settle();
    assert_eq!(world.obeyed("voice", "pbx-1"), "b");
    assert_eq!(world.condition("voice", "z", "Accepted"), "False Conflicted");
    assert_eq!(world.condition("voice", "x", "Accepted"), "True Accepted");
}

#[test]
fn a_policy_in_force_for_some_of_the_pods_it_selects_is_programmed() {
    let mut world = World::voice();
    world.pod("voice", "web-1", pod("web-1", "web", "web"));
    world.policy(policy("voice", "all", ""));
    let mut pbx = policy("voice", "pbx", "pbx");
    pbx.spec.priority = 1;
    world.policy(pbx);
    world.settle();
    assert_eq!((world.obeyed("voice", "web-1"), world.obeyed("voice", "pbx-1")), ("all".into(), "pbx".into()));
    assert_eq!(world.condition("voice", "all", "Programmed"), "True Programmed");
    assert_eq!(world.status("voice", "all").pods.matched, 1);
}

#[test]
fn an_invalid_policy_keeps_what_it_last_said_and_harms_no_other() {
    let mut world = World::voice();
    world.pod("voice", "web-1", pod("web-1", "web", "web"));
    world.policy(policy("voice", "web", "web"));
    world.policy(policy("voice", "carrier", "pbx"));
    world.settle();
    let (before, writes) = (world.annotations.clone(), world.writes);

    world.policy(invalid("carrier"));
    world.policy(invalid("new"));
    world.settle();
    assert_eq!((&world.annotations, world.writes), (&before, writes));
    assert_eq!(world.condition("voice", "carrier", "Accepted"), "False Invalid");
    assert_eq!(world.condition("voice", "new", "Accepted"), "False Invalid");
    assert_eq!(world.condition("voice", "new", "Programmed"), "False Pending");
    assert_eq!(world.condition("voice", "web", "Ready"), "True Ready");
    assert_eq!(world.status("voice", "carrier").observed_generation, 2);
    assert_eq!(world.index.sizes().invalid_policies, 0, "what is counted is what was told");
    world.index.told(&Key::new("voice", "carrier"), world.status("voice", "carrier"));
    assert_eq!((world.index.sizes().invalid_policies, world.index.sizes().conflicted_policies), (1, 0));

    world.pod("voice", "pbx-3", pod("pbx-3", "pbx", "pbx"));
    world.settle();
    assert_eq!(world.obeyed("voice", "pbx-3"), "carrier", "new pods get the last good one");
    world.policy(edited(with_interval(policy("voice", "carrier", "pbx"), 900)));
    world.settle();
    assert_eq!(world.config_of("voice", "pbx-1").unwrap().timers.session_expires, secs(900));
}

#[test]
fn an_unreadable_policy_keeps_what_it_last_said() {
    let mut world = World::voice();
    world.policy(policy("voice", "carrier", "pbx"));
    world.settle();
    let mut unreadable = edited(policy("voice", "carrier", ""));
    unreadable.spec = Default::default();
    world.index.policy(unreadable, Some("unknown field".to_owned()));
    world.settle();
    assert_eq!(world.obeyed("voice", "pbx-1"), "carrier");
    assert_eq!(world.condition("voice", "carrier", "Accepted"), "False Invalid");
}

#[test]
fn a_policy_that_is_invalid_when_the_operator_starts_keeps_what_the_operator_before_made_of_it() {
    let mut world = World::voice();
    world.policy(with_interval(policy("voice", "carrier", "pbx"), 900));
    world.settle();
    world.policy(edited(invalid("carrier")));
    world.settle();

    let mut restarted = properties::restarted(&world, |events| events);
    restarted.settle();
    assert_eq!(restarted.writes, 0);
    assert_eq!(restarted.status("voice", "carrier").hash, world.status("voice", "carrier").hash);
    restarted.pod("voice", "pbx-3", pod("pbx-3", "pbx", "pbx"));
    restarted.settle();
    assert_eq!(restarted.config_of("voice", "pbx-3").unwrap().timers.session_expires, secs(900));
    assert_eq!(restarted.condition("voice", "carrier", "Accepted"), "False Invalid");
}

#[test]
fn workloads_made_after_the_restart_are_given_what_is_kept_of_a_faulty_or_paused_policy() {
    let halted = paused(with_interval(policy("voice", "carrier", "pbx"), 600));
    for unfit in [invalid("carrier"), halted] {
        let mut world = World::voice();
        world.policy(with_interval(policy("voice", "carrier", "pbx"), 900));
        world.settle();
        world.policy(edited(unfit));
        world.settle();

        let mut restarted = properties::restarted(&world, |events| events.into_iter().rev().collect());
        restarted.workload("voice", deployment("new", "pbx"));
        restarted.pod("voice", "new-1", pod("new-1", "new", "pbx"));
        restarted.pod("voice", "web-1", pod("web-1", "web", "web"));
        restarted.settle();
        let config = restarted.config_of("voice", "new-1").expect("a config");
        assert_eq!((config.policy.as_str(), config.timers.session_expires), ("carrier", secs(900)));
        assert_eq!(restarted.configs[&Key::new("voice", "deployment-new")].spec, config);
        assert!(restarted.config_of("voice", "web-1").is_none(), "it is none that the policy selects");
        assert_eq!(restarted.status("voice", "carrier").pods.matched, 3);
        let meta = ObjectMeta { labels: Some(labels([("app", "pbx")])), ..ObjectMeta::default() };
        let given = restarted.index.annotation_for("voice", &meta).expect("it is known");
        assert_eq!(sipwarden_crds::from_annotation(&given).expect("a config"), config, "so does admission");
    }
}

#[test]
fn what_is_kept_of_a_policy_is_nothing_to_another_one_of_its_name() {
    let mut world = World::voice();
    world.policy(policy("voice", "carrier", "pbx"));
    world.settle();
    let mut other = invalid("carrier");
    other.metadata.uid = Some("another".to_owned());
    world.policies.insert(Key::new("voice", "carrier"), other);
    let mut restarted = properties::restarted(&world, |events| events);
    restarted.workload("voice", deployment("new", "pbx"));
    restarted.pod("voice", "new-1", pod("new-1", "new", "pbx"));
    restarted.settle();
    assert!(restarted.config_of("voice", "new-1").is_none());
    assert!(!restarted.configs.contains_key(&Key::new("voice", "sessionpolicy-carrier")));
}

#[test]
fn a_deleted_policy_returns_its_pods_to_observe() {
    let mut world = World::voice();
    world.policy(policy("voice", "carrier", "pbx"));
    world.settle();
    world.remove_policy("voice", "carrier");
    world.settle();
    let config = world.config_of("voice", "pbx-1").unwrap();
    assert_eq!((config.mode, config.policy.as_str()), (Mode::Observe, "built-in"));
    assert!(world.configs.is_empty());
}

#[test]
fn a_policy_made_anew_under_the_same_name_inherits_nothing() {
    let mut world = World::voice();
    world.policy(policy("voice", "carrier", "pbx"));
    world.settle();
    let mut other = invalid("carrier");
    other.metadata.uid = Some("another".to_owned());
    other.metadata.generation = Some(1);
    world.index.remove_policy(&Key::new("voice", "carrier"));
    world.policy(other);
    let changes = world.index.take_changes();
    assert!(changes.pods.contains(&Key::new("voice", "pbx-1")));
}

#[test]
fn bounds_of_the_cluster_hold_and_are_told() {
    let mut world = World::voice();
    world.policy(policy("voice", "carrier", "pbx"));
    world.cluster(cluster_policy("floor", 300));
    world.settle();
    assert_eq!(world.config_of("voice", "pbx-1").unwrap().timers.min_se, secs(300));
    let status = world.status("voice", "carrier");
    assert_eq!((status.clamped[0].field.as_str(), status.clamped[0].by.as_str()), ("spec.timers.minSE", "floor"));
    let (told, _) = world.index.cluster_status("floor", &time(9)).unwrap();
    assert_eq!((told.namespaces, told.clamped_policies), (1, 1));

    world.index.remove_cluster("floor");
    world.settle();
    assert_eq!(world.config_of("voice", "pbx-1").unwrap().timers.min_se, secs(90));
    assert!(world.status("voice", "carrier").clamped.is_empty());
}

#[test]
fn bounds_are_for_the_namespaces_they_select() {
    let mut world = World::voice();
    world.policy(policy("voice", "carrier", "pbx"));
    let mut floor = cluster_policy("floor", 300);
    floor.spec.namespace_selector = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector {
        match_labels: Some(labels([("team", "voice")])),
        ..Default::default()
    });
    world.cluster(floor);
    world.settle();
    assert_eq!(world.config_of("voice", "pbx-1").unwrap().timers.min_se, secs(90));
    let mut state = opted_in();
    state.labels.extend(labels([("team", "voice")]));
    world.namespace("voice", state);
    world.settle();
    assert_eq!(world.config_of("voice", "pbx-1").unwrap().timers.min_se, secs(300));
}

#[test]
fn bounds_hold_under_every_revision_and_one_of_them_tells_their_status() {
    let mut world = World::voice();
    world.policy(policy("voice", "carrier", "pbx"));
    for (revision, is_told) in [(Some("canary"), false), (Some("default"), true), (None, true)] {
        let mut floor = cluster_policy("floor", 300);
        floor.metadata.labels = revision.map(|revision| labels([("sipwarden.dev/rev", revision)]));
        world.cluster(floor);
        world.settle();
        assert_eq!(world.config_of("voice", "pbx-1").unwrap().timers.min_se, secs(300), "{revision:?}");
        assert_eq!(world.index.cluster_status("floor", &time(9)).is_some(), is_told, "{revision:?}");
    }
}

#[test]
fn an_invalid_cluster_policy_keeps_its_bounds() {
    let mut world = World::voice();
    world.policy(policy("voice", "carrier", "pbx"));
    world.cluster(cluster_policy("floor", 300));
    world.cluster(cluster_policy("floor", 10));
    world.settle();
    assert_eq!(world.config_of("voice", "pbx-1").unwrap().timers.min_se, secs(300));
    let (status, _) = world.index.cluster_status("floor", &time(9)).unwrap();
    assert_eq!(status.conditions[0].reason, "Invalid");
}

#[test]
fn a_paused_policy_stays_as_it_was_for_old_and_new_pods() {
    let mut world = World::voice();
    world.policy(policy("voice", "carrier", "pbx"));
    world.settle();
    world.policy(paused(with_interval(policy("voice", "carrier", "pbx"), 900)));
    world.pod("voice", "pbx-3", pod("pbx-3", "pbx", "pbx"));
    world.settle();
    assert_eq!(world.config_of("voice", "pbx-1").unwrap().generation, 1);
    assert_eq!(world.config_of("voice", "pbx-3").unwrap().generation, 1);
    assert_eq!(world.condition("voice", "carrier", "Programmed"), "False Paused");
    world.policy(with_interval(policy("voice", "carrier", "pbx"), 900));
    world.settle();
    assert_eq!(world.config_of("voice", "pbx-1").unwrap().timers.session_expires, secs(900));
}

#[test]
fn the_bounds_of_the_cluster_hold_for_a_paused_policy() {
    let mut world = World::voice();
    world.policy(policy("voice", "carrier", "pbx"));
    world.settle();
    world.policy(paused(with_interval(policy("voice", "carrier", "pbx"), 900)));
    world.cluster(cluster_policy("floor", 300));
    world.settle();
    let config = world.config_of("voice", "pbx-1").unwrap();
    assert_eq!((config.generation, config.timers.min_se), (1, secs(300)));
    assert_eq!(world.status("voice", "carrier").clamped.len(), 1);
    world.policy(policy("voice", "carrier", "pbx"));
    world.settle();
    assert_eq!(world.config_of("voice", "pbx-1").unwrap().timers.min_se, secs(300));
}

#[test]
fn nothing_is_written_to_a_paused_namespace() {
    let mut world = World::voice();
    world.policy(policy("voice", "carrier", "pbx"));
    world.settle();
    let writes = world.writes;
    world.namespace("voice", NamespaceState { paused: true, ..opted_in() });
    world.policy(with_interval(policy("voice", "carrier", "pbx"), 900));
    world.pod("voice", "pbx-3", pod("pbx-3", "pbx", "pbx"));
    world.settle();
    assert_eq!(world.writes, writes);
    assert_eq!(world.condition("voice", "carrier", "Programmed"), "False Paused");
    world.namespace("voice", opted_in());
    world.settle();
    assert_eq!(world.config_of("voice", "pbx-3").unwrap().generation, 2);
}

#[test]
fn new_pods_of_a_paused_namespace_are_given_what_was_in_force_before() {
    let mut world = World::voice();
    world.policy(policy("voice", "rest", ""));
    let mut carrier = with_interval(policy("voice", "carrier", "pbx"), 900);
    carrier.spec.priority = 1;
    world.policy(carrier.clone());
    world.settle();
    let before = world.status("voice", "carrier");
    world.namespace("voice", NamespaceState { paused: true, ..opted_in() });
    let mut wider = with_interval(carrier, 600);
    wider.spec.pod_selector = None;
    world.policy(wider);
    world.policy(policy("voice", "new", "fax"));
    world.cluster(cluster_policy("floor", 300));
    world.settle();

    let check = |world: &World| {
        let given = |app: &str| {
            let labels = Some(labels([("app", app)]));
            let given = world.index.annotation_for("voice", &ObjectMeta { labels, ..ObjectMeta::default() });
            sipwarden_crds::from_annotation(&given.expect("it is known")).expect("a config")
        };
        let pbx = given("pbx");
        assert_eq!(
            (pbx.policy.as_str(), pbx.timers.session_expires, pbx.timers.min_se),
            ("carrier", secs(900), secs(90))
        );
        assert_eq!(given("fax").policy, "rest", "neither the new policy nor the wider one");
        let status = world.status("voice", "carrier");
        assert_eq!((&status.hash, status.clamped.len()), (&before.hash, 0));
        let programmed = status.conditions.iter().find(|condition| condition.type_ == "Programmed").unwrap();
        assert!(programmed.message.contains("new pods are given the same"), "{}", programmed.message);
    };
    check(&world);
    check(&properties::restarted(&world, |events| events));
    check(&properties::restarted(&world, |events| events.into_iter().rev().collect()));

    world.namespace("voice", opted_in());
    world.settle();
    let config = world.config_of("voice", "pbx-1").unwrap();
    assert_eq!((config.timers.session_expires, config.timers.min_se), (secs(600), secs(300)));
}

#[test]
fn the_bounds_of_the_cluster_hold_for_what_is_left_of_a_faulty_or_paused_policy() {
    let programmed = |world: &World, type_: &str| {
        let conditions = world.status("voice", "carrier").conditions;
        conditions.into_iter().find(|condition| condition.type_ == type_).expect("such a condition").message
    };
    for (unfit, told_by) in
        [(invalid("carrier"), "Accepted"), (paused(edited(policy("voice", "carrier", "pbx"))), "Programmed")]
    {
        let mut world = World::voice();
        world.policy(policy("voice", "carrier", "pbx"));
        world.settle();
        world.policy(unfit);
        world.settle();
        for late in [false, true] {
            let order = move |events: Vec<_>| if late { events.into_iter().rev().collect() } else { events };
            let mut restarted = properties::restarted(&world, order);
            assert!(!programmed(&restarted, told_by).contains("bounds of ClusterSessionPolicies"));
            restarted.cluster(cluster_policy("floor", 300));
            restarted.settle();
            restarted.pod("voice", "pbx-3", pod("pbx-3", "pbx", "pbx"));
            restarted.settle();
            for name in ["pbx-1", "pbx-3"] {
                let config = restarted.config_of("voice", name).expect("a config");
                assert_eq!((config.generation, config.timers.min_se), (1, secs(300)), "{name}");
            }
            for name in ["deployment-pbx", "sessionpolicy-carrier"] {
                assert_eq!(restarted.configs[&Key::new("voice", name)].spec.timers.min_se, secs(300), "{name}");
            }
            let status = restarted.status("voice", "carrier");
            assert_eq!((status.clamped.len(), status.clamped[0].by.as_str()), (1, "floor"));
            assert_eq!(restarted.index.cluster_status("floor", &time(9)).expect("news").0.clamped_policies, 1);
            let told = programmed(&restarted, told_by);
            assert!(told.ends_with("settings held to the bounds of ClusterSessionPolicies: 1"), "{told}");

            let mut policy = restarted.policies[&Key::new("voice", "carrier")].clone();
            policy.status = Some(status.clone());
            restarted.policy(policy);
            let again = properties::restarted(&restarted, |events| events);
            assert_eq!(again.status_or_told("voice", "carrier").clamped, status.clamped, "what was told stays so");
        }
    }
}

#[test]
fn a_namespace_of_another_revision_is_not_touched() {
    let mut world = World::voice();
    let mut state = opted_in();
    state.labels.extend(labels([("sipwarden.dev/rev", "canary")]));
    world.namespace("voice", state);
    world.policy(policy("voice", "carrier", "pbx"));
    world.settle();
    assert_eq!(world.writes, 0);
    assert!(world.index.policy_status(&Key::new("voice", "carrier"), &time(9)).is_none());
    world.namespace("voice", opted_in());
    world.settle();
    assert_eq!(world.obeyed("voice", "pbx-1"), "carrier");
}

#[test]
fn a_terminating_pod_is_left_alone_and_not_counted() {
    let mut world = World::voice();
    world.pod("voice", "pbx-2", PodFacts { terminating: true, ..pod("pbx-2", "pbx", "pbx") });
    world.policy(policy("voice", "carrier", "pbx"));
    world.settle();
    assert!(world.config_of("voice", "pbx-2").is_none());
    assert_eq!(world.status("voice", "carrier").pods.matched, 1);
}

#[test]
fn answers_of_sidecars_decide_where_there_are_any() {
    let mut world = World::voice();
    world.policy(policy("voice", "carrier", "pbx"));
    assert_eq!(world.condition("voice", "carrier", "Programmed"), "False Pending");
    world.settle();
    assert_eq!(world.condition("voice", "carrier", "Programmed"), "True Programmed");
    let pods = world.status("voice", "carrier").pods;
    assert_eq!((pods.matched, pods.injected, pods.in_step, pods.stale), (2, 2, 0, 2), "nobody has answered yet");

    let hash = world.status("voice", "carrier").hash;
    world.ack("voice", "pbx-1", &hash, 3);
    world.ack("voice", "pbx-2", "0000000000000000", 4);
    assert_eq!(world.condition("voice", "carrier", "Programmed"), "False PartiallyProgrammed");
    let status = world.status("voice", "carrier");
    assert_eq!((status.pods.in_step, status.pods.stale, status.sessions), (1, 1, 7));
    world.ack("voice", "pbx-2", &hash, 4);
    assert_eq!(world.condition("voice", "carrier", "Ready"), "True Ready");
    let status = world.index.config_status(&Key::new("voice", "deployment-pbx")).unwrap();
    assert_eq!((status.pods, status.in_step, status.sessions), (2, 2, 7));

    world.index.acked(&Key::new("voice", "pbx-2"), None);
    assert_eq!(world.condition("voice", "carrier", "Programmed"), "True Programmed", "silence proves nothing");
}

#[test]
fn a_sidecar_is_behind_until_it_says_what_was_written_to_its_pod() {
    let mut world = World::voice();
    let target = |world: &World| {
        let target = world.index.ack_target(&Key::new("voice", "pbx-1")).unwrap();
        (target.in_step, target.written)
    };
    let obey = |world: &mut World| {
        let hash = world.config_of("voice", "pbx-1").unwrap().hash;
        world.ack("voice", "pbx-1", &hash, 0);
    };
    world.policy(policy("voice", "carrier", "pbx"));
    assert_eq!(target(&world), (false, false));
    world.settle();
    assert_eq!(target(&world), (false, true));
    obey(&mut world);
    assert_eq!(target(&world), (true, true));

    world.remove_policy("voice", "carrier");
    world.settle();
    assert_eq!(target(&world), (false, true), "it has to be shown Observe");
    obey(&mut world);
    assert_eq!(target(&world), (true, true));

    world.namespace("voice", NamespaceState { paused: true, ..opted_in() });
    world.policy(policy("voice", "carrier", "pbx"));
    world.settle();
    assert_eq!(target(&world), (true, false), "what is in force stays so; its kubelet misses nothing");
}

#[test]
fn sessions_alone_are_no_hurry() {
    let mut world = World::voice();
    world.policy(policy("voice", "carrier", "pbx"));
    world.settle();
    let hash = world.status("voice", "carrier").hash;
    world.ack("voice", "pbx-1", &hash, 3);
    let first = world.index.take_changes();
    world.ack("voice", "pbx-1", &hash, 4);
    let second = world.index.take_changes();
    assert_eq!((first.policies.len(), first.sessions.len()), (1, 0));
    assert_eq!((second.policies.len(), second.sessions.len()), (0, 1));
    assert_eq!(
        (second.config_statuses.len(), second.config_sessions.len()),
        (0, 2),
        "of the workload and of the policy"
    );
}

#[test]
fn an_answer_counts_for_the_pod_that_gave_it_only() {
    let mut world = World::voice();
    world.policy(policy("voice", "carrier", "pbx"));
    world.settle();
    let hash = world.status("voice", "carrier").hash;
    world.ack("voice", "pbx-1", &hash, 3);
    world.pod("voice", "pbx-1", PodFacts { uid: "another".into(), ..pod("pbx-1", "pbx", "pbx") });
    assert_eq!(world.status("voice", "carrier").sessions, 0);
}

#[test]
fn a_workload_is_told_once_that_its_pods_have_sidecars() {
    let mut world = World::new();
    world.namespace("voice", opted_in());
    world.namespace("elsewhere", NamespaceState { labels: labels([("sipwarden.dev/rev", "canary")]), paused: false });
    for namespace in ["voice", "elsewhere"] {
        world.workload(namespace, deployment("pbx", "pbx"));
    }
    world.bare_pod("voice", "pbx-0", pod("pbx-0", "pbx", "pbx"), None);
    assert!(world.index.take_changes().injected_workloads.is_empty());

    let key = Key::new("voice", "deployment-pbx");
    for namespace in ["voice", "elsewhere"] {
        world.pod(namespace, "pbx-1", pod("pbx-1", "pbx", "pbx"));
    }
    assert_eq!(world.index.take_changes().injected_workloads, [key.clone()].into(), "the other is another revision's");
    assert_eq!(world.index.workload_owner(&key).unwrap().name, "pbx");
    world.pod("voice", "pbx-2", pod("pbx-2", "pbx", "pbx"));
    for name in ["pbx-1", "pbx-2"] {
        world.index.remove_pod(&Key::new("voice", name));
    }
    world.pod("voice", "pbx-3", pod("pbx-3", "pbx", "pbx"));
    world.index.change_everything();
    assert!(world.index.take_changes().injected_workloads.is_empty());
}

#[test]
fn pods_that_asked_in_vain_are_counted_and_their_workload_is_told() {
    let mut world = World::voice();
    world.policy(policy("voice", "carrier", "pbx"));
    world.bare_pod("voice", "pbx-8", pod("pbx-8", "pbx", "pbx"), None);
    world.bare_pod("voice", "pbx-9", pod("pbx-9", "pbx", "pbx"), None);
    let mut unwilling = pod("pbx-10", "pbx", "pbx");
    unwilling.labels.extend(labels([("sipwarden.dev/inject", "disabled")]));
    world.bare_pod("voice", "pbx-10", unwilling, None);
    let changes = world.index.take_changes();
    assert_eq!(changes.bare_workloads, [Key::new("voice", "deployment-pbx")].into());
    let bare = world.index.bare_pods_of(&Key::new("voice", "deployment-pbx")).unwrap();
    assert_eq!((bare.owner.kind.as_str(), bare.missed, bare.refusals.len()), ("Deployment", 2, 0));
    assert_eq!(world.index.sizes().bare_pods, 2);
    world.index.change_everything();
    world.settle();
    let pods = world.status("voice", "carrier").pods;
    assert_eq!((pods.matched, pods.injected), (4, 2));
    assert_eq!(world.condition("voice", "carrier", "Programmed"), "False PartiallyProgrammed");

    world.index.remove_bare_pod(&Key::new("voice", "pbx-8"));
    world.index.remove_bare_pod(&Key::new("voice", "pbx-9"));
    assert!(world.index.bare_pods_of(&Key::new("voice", "deployment-pbx")).is_none());
    assert_eq!(world.condition("voice", "carrier", "Programmed"), "True Programmed");
}

#[test]
fn pods_that_cannot_have_a_sidecar_are_told_why_and_keep_no_policy_from_being_ready() {
    let mut world = World::voice();
    world.policy(policy("voice", "all", ""));
    world.settle();
    let database = || PodFacts { labels: labels([("app", "db")]), ..pod("db-1", "db", "db") };
    let no_port = || Skip::NoSuchPort { name: "sip".to_owned() };
    world.workload("voice", deployment("db", "db"));
    for (name, refusal) in [("db-1", no_port()), ("db-2", no_port()), ("db-3", Skip::HostNetwork)] {
        world.bare_pod("voice", name, database(), Some(refusal));
    }
    assert_eq!(world.index.take_changes().bare_workloads, [Key::new("voice", "deployment-db")].into());
    let bare = world.index.bare_pods_of(&Key::new("voice", "deployment-db")).unwrap();
    assert_eq!((bare.owner.name.as_str(), bare.missed), ("db", 0));
    assert_eq!(bare.refusals, [no_port(), Skip::HostNetwork], "each reason once");
    assert_eq!(world.index.sizes().bare_pods, 3);
    let status = world.status("voice", "all");
    assert_eq!((status.pods.matched, status.pods.injected), (2, 2));
    assert_eq!(world.condition("voice", "all", "Ready"), "True Ready");
    let programmed = status.conditions.iter().find(|condition| condition.type_ == "Programmed").unwrap();
    assert!(programmed.message.contains("unable to have a sidecar, see their Events: 3"), "{}", programmed.message);

    world.index.take_changes();
    world.bare_pod("voice", "db-3", database(), None);
    let changes = world.index.take_changes();
    assert!(changes.policies.contains(&Key::new("voice", "all")), "what it could have now is missed");
    assert_eq!(world.condition("voice", "all", "Programmed"), "False PartiallyProgrammed");
}

#[test]
fn a_config_that_someone_changed_or_took_over_is_put_right_and_a_strangers_is_left() {
    let mut world = World::voice();
    world.policy(policy("voice", "carrier", "pbx"));
    world.settle();
    let key = Key::new("voice", "deployment-pbx");
    let good = world.configs[&key].clone();
    let mut bad = good.clone();
    bad.spec.mode = Mode::Observe;
    world.index.config(bad);
    let Some(ConfigChange::Apply(object)) = world.index.config_change(&key) else { panic!("it is put right") };
    assert_eq!(object.spec, good.spec);

    let mut strangers = good;
    strangers.metadata.name = Some("mine".to_owned());
    strangers.metadata.labels = None;
    world.index.config(strangers);
    assert_eq!(world.index.config_change(&Key::new("voice", "mine")), None);
}

#[test]
fn a_pod_event_that_changes_nothing_asks_for_nothing() {
    let mut world = World::voice();
    world.policy(policy("voice", "carrier", "pbx"));
    world.settle();
    world.index.take_changes();
    world.pod("voice", "pbx-1", pod("pbx-1", "pbx", "pbx"));
    assert!(world.index.take_changes().is_empty());
}

#[test]
fn a_change_of_status_alone_writes_no_config() {
    let mut world = World::voice();
    world.policy(policy("voice", "carrier", "pbx"));
    world.settle();
    let mut told = policy("voice", "carrier", "pbx");
    told.status = Some(world.status("voice", "carrier"));
    world.policy(told);
    let changes = world.index.take_changes();
    assert!(changes.pods.is_empty() && changes.configs.is_empty());
    assert!(world.index.policy_status(&Key::new("voice", "carrier"), &time(99)).is_none(), "it is as it should be");
}

#[test]
fn a_written_annotation_is_not_written_again_before_the_watch_tells() {
    let mut world = World::voice();
    world.policy(policy("voice", "carrier", "pbx"));
    let key = Key::new("voice", "pbx-1");
    let patch = world.index.pod_patch(&key).unwrap();
    world.index.annotated(&key, &patch.uid, patch.fingerprint);
    assert_eq!(world.index.pod_patch(&key), None);
}

#[test]
fn a_config_that_somebody_changed_is_written_again_even_with_its_hash() {
    let mut world = World::voice();
    world.policy(policy("voice", "carrier", "pbx"));
    world.settle();
    let key = Key::new("voice", "pbx-1");
    let good = world.annotations[&key].clone();
    let changes = [
        (r#""mode":"Enforce""#, r#""mode":"Observe""#),
        (r#""timers":{}"#, r#""timers":{"sessionExpires":"2h"}"#),
        (r#""rules":[]"#, r#""rules":[],"newer":1"#),
        ("SidecarConfig", "SessionPolicy"),
    ];
    for (from, to) in changes {
        assert!(good.contains(from), "{good}");
        world.annotations.insert(key.clone(), good.replace(from, to));
        world.pod("voice", "pbx-1", pod("pbx-1", "pbx", "pbx"));
        assert_eq!(world.condition("voice", "carrier", "Programmed"), "False PartiallyProgrammed", "{to}");
        world.settle();
        assert_eq!(world.annotations[&key], good, "{to}");
    }
    world.annotations.insert(key.clone(), good.replace("deployment-pbx", "other"));
    world.pod("voice", "pbx-1", pod("pbx-1", "pbx", "pbx"));
    assert_eq!(world.index.pod_patch(&key), None, "nobody obeys the name of the object");
}

#[test]
fn what_is_no_config_has_the_fingerprint_of_none() {
    let good = sipwarden_crds::to_annotation("pod-x", &sipwarden_crds::compile(&policy("n", "p", "")).unwrap());
    assert_eq!(Fingerprint::of_annotation("{"), Fingerprint::of_annotation("[1]"));
    assert_ne!(Fingerprint::of_annotation(&good), Fingerprint::of_annotation(&good[1..]));
}

#[test]
fn among_many_objects_an_event_touches_only_what_it_is_about() {
    let mut world = World::new();
    for number in 0..100 {
        let namespace = format!("n{number}");
        world.namespace(&namespace, opted_in());
        for app in ["a", "b"] {
            world.policy(policy(&namespace, app, app));
            world.workload(&namespace, deployment(app, app));
            for name in [format!("{app}-1"), format!("{app}-2")] {
                world.pod(&namespace, &name, pod(&name, app, app));
            }
        }
    }
    world.settle();
    assert_eq!(world.writes, 100 * (4 + 2 + 2));
    world.index.take_changes();

    world.pod("n7", "a-3", pod("a-3", "a", "a"));
    let changes = world.index.take_changes();
    assert_eq!(changes.pods, [Key::new("n7", "a-3")].into());
    assert_eq!(changes.configs, [Key::new("n7", "deployment-a")].into());
    assert_eq!(changes.policies, [Key::new("n7", "a")].into());

    world.policy(with_interval(policy("n8", "b", "b"), 900));
    let changes = world.index.take_changes();
    assert_eq!(changes.pods, [Key::new("n8", "b-1"), Key::new("n8", "b-2")].into());
    assert_eq!(changes.configs, [Key::new("n8", "deployment-b"), Key::new("n8", "sessionpolicy-b")].into());
    assert_eq!(changes.policies, [Key::new("n8", "b")].into());
}
