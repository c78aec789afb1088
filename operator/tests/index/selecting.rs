//! The SidecarConfigs of policies: what pods are given that nobody knew before the operator was gone.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement, ObjectMeta};
use kube::core::{Selector, SelectorExt};
use proptest::prelude::*;
use sipwarden_crds::{SidecarConfigObject, from_annotation};
use sipwarden_operator::{
    index::{CONFIG_FOR, CONFIG_FOR_SELECTOR, Key, Labels},
    inject::{MAX_SELECTORS_TEXT, names, selector_blocks},
};

use crate::{
    properties::{happening, restarted},
    world::{World, cluster_policy, edited, labels, paused, policy, secs, with_interval},
};

fn config<'w>(world: &'w World, policy: &str) -> &'w SidecarConfigObject {
    &world.configs[&Key::new("voice", format!("sessionpolicy-{policy}"))]
}

fn annotation<'o>(object: &'o SidecarConfigObject, name: &str) -> &'o str {
    object.metadata.annotations.as_ref().expect("annotations").get(name).expect("such an annotation")
}

fn selectors<'w>(world: &'w World, policy: &str) -> &'w str {
    annotation(config(world, policy), names::POD_SELECTORS)
}

fn ranked(name: &str, app: &str, priority: i32) -> sipwarden_crds::SessionPolicy {
    let mut policy = policy("voice", name, app);
    policy.spec.priority = priority;
    policy
}

/// What the admission policy makes of a block, by Kubernetes' own rules.
fn selects(block: &str, labels: &Labels) -> bool {
    let requirement = |line: &str| {
        let mut words = line.split(' ').map(str::to_owned);
        let (operator, key) = (words.next().expect("an operator"), words.next().expect("a key"));
        let values: Vec<String> = words.collect();
        LabelSelectorRequirement { key, operator, values: (!values.is_empty()).then_some(values) }
    };
    let requirements = block.lines().map(requirement).collect();
    let selector = LabelSelector { match_expressions: Some(requirements), ..LabelSelector::default() };
    Selector::try_from(selector).expect("a selector").matches(labels)
}

/// The policies whose SidecarConfig a pod with these labels would be given.
fn given(world: &World, namespace: &str, labels: &Labels) -> Vec<String> {
    let of_policy = world.configs.iter().filter(|(key, config)| {
        key.namespace == namespace
            && config.metadata.labels.as_ref().is_some_and(|l| l[CONFIG_FOR] == CONFIG_FOR_SELECTOR)
    });
    let holds = |config: &&SidecarConfigObject| {
        selector_blocks(annotation(config, names::POD_SELECTORS))
            .enumerate()
            .all(|(i, b)| selects(b, labels) == (i == 0))
    };
    of_policy.map(|(_, config)| config).filter(holds).map(|config| config.spec.policy.clone()).collect()
}

#[test]
fn each_policy_has_one_that_belongs_to_it_and_counts_its_pods() {
    let mut world = World::voice();
    world.policy(policy("voice", "carrier", "pbx"));
    world.cluster(cluster_policy("floor", 300));
    world.settle();
    let object = config(&world, "carrier");
    assert_eq!(object.spec, world.config_of("voice", "pbx-1").unwrap(), "held to the bounds of the cluster as well");
    assert_eq!(from_annotation(annotation(object, names::CONFIG)).unwrap(), object.spec);
    let owner = &object.metadata.owner_references.as_ref().unwrap()[0];
    assert_eq!((owner.kind.as_str(), owner.uid.as_str()), ("SessionPolicy", "uid-voice-carrier"));
    assert_eq!(selectors(&world, "carrier"), "In app pbx");

    world.ack("voice", "pbx-1", &object.spec.hash.clone(), 3);
    let status = world.index.config_status(&Key::new("voice", "sessionpolicy-carrier")).unwrap();
    assert_eq!((status.pods, status.in_step, status.sessions), (2, 1, 3));
    world.remove_policy("voice", "carrier");
    world.settle();
    assert!(world.configs.is_empty());
}

#[test]
fn stronger_policies_are_named_where_they_could_select_the_same_pods() {
    let mut world = World::voice();
    world.policy(ranked("pbx", "pbx", 1));
    world.policy(ranked("all", "", 0));
    world.policy(ranked("web", "web", 2));
    world.settle();
    assert_eq!(selectors(&world, "pbx"), "In app pbx", "no pod is of two applications");
    assert_eq!(selectors(&world, "all"), "\n\nIn app pbx\n\nIn app web");
    let writes = world.writes;
    world.policy(edited(ranked("all", "", 9)));
    world.settle();
    assert_eq!(selectors(&world, "all"), "");
    assert_eq!(selectors(&world, "pbx"), "In app pbx\n\n");
    // Two pods and their workload, and the three policies'.
    assert_eq!(world.writes - writes, 3 + 3);
    world.remove_policy("voice", "all");
    world.settle();
    assert_eq!(selectors(&world, "web"), "In app web");
}

#[test]
fn of_a_policy_that_the_operator_never_saw_valid_it_stays_as_it_was_for_itself_and_others() {
    for spoil in [paused, |mut policy: sipwarden_crds::SessionPolicy| {
        policy.spec.timers.min_se = secs(10);
        edited(policy)
    }] {
        let mut world = World::voice();
        world.policy(ranked("all", "", 0));
        world.policy(ranked("pbx", "pbx", 1));
        world.settle();
        world.policy(spoil(with_interval(ranked("pbx", "pbx", 1), 900)));
        world.settle();
        let before = world.configs.clone();
        let mut other = restarted(&world, |events| events);
        other.settle();
        assert_eq!((other.writes, &other.configs), (0, &before));
        assert_eq!(selectors(&other, "all"), "\n\nIn app pbx");
        // Mended, it has the rank it asks for.
        other.policy(edited(edited(with_interval(ranked("pbx", "pbx", -1), 900))));
        other.settle();
        assert_eq!((selectors(&other, "all"), selectors(&other, "pbx")), ("", "In app pbx\n\n"));
    }
}

#[test]
fn selectors_that_are_too_long_are_left_out_and_told() {
    let mut world = World::voice();
    let mut long = ranked("long", "pbx", 1);
    let values = (0..64).map(|i| format!("{i:063}")).chain(["pbx".to_owned()]).collect();
    let expression = LabelSelectorRequirement { key: "app".into(), operator: "In".into(), values: Some(values) };
    let expressions = vec![expression; 1 + MAX_SELECTORS_TEXT / (64 * 64)];
    long.spec.pod_selector = Some(LabelSelector { match_expressions: Some(expressions), ..LabelSelector::default() });
    world.policy(long);
    world.policy(ranked("all", "", 0));
    world.policy(ranked("web", "web", 0));
    world.settle();
    assert_eq!(world.obeyed("voice", "pbx-1"), "long");
    let names: Vec<_> = world.configs.keys().map(|key| key.name.as_str()).collect();
    assert_eq!(names, ["deployment-pbx", "sessionpolicy-web"]);
    for (name, told) in [("long", true), ("all", true), ("web", false)] {
        let status = world.status("voice", name);
        assert_eq!(status.conditions[1].message.contains("too long for the admission policy"), told, "{status:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn a_pod_is_given_what_the_operator_would_give_it(happenings in prop::collection::vec(happening(false), 0..60)) {
        let mut world = World::new();
        happenings.iter().for_each(|happening| world.happen(happening));
        world.settle();
        for namespace in ["n", "m"] {
            for app in ["a", "b", "c", "d"] {
                let labels = labels([("app", app)]);
                let meta = ObjectMeta { labels: Some(labels.clone()), ..ObjectMeta::default() };
                let Some(text) = world.index.annotation_for(namespace, &meta) else { continue };
                let expected = (!text.is_empty()).then(|| from_annotation(&text).expect("a config").policy);
                prop_assert_eq!(given(&world, namespace, &labels), Vec::from_iter(expected), "{} {}", namespace, app);
            }
        }
    }
}
