//! Policies out of thin air.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::{CustomResourceExt, core::cel::Validator};
use proptest::{collection::vec, option, prelude::*, sample::select};
use serde_json::Value;
use sipwarden_crds::{
    ActForApp, AppProbe, BelowMinSe, Credentials, Direction, Duration, Expiry, ExpiryAction, ExpiryOverrides, Jitter,
    Malformed, Margin, Mode, Privacy, RefreshMethod, Refresher, Rule, RuleMatch, SessionPolicy, SessionPolicySpec,
    SipUsers, TimerOverrides, Timers, WithoutPeerSupport,
};

/// Policies as the types allow them, with values close enough together that they often contradict each other.
pub(crate) fn any_policy() -> impl Strategy<Value = SessionPolicy> {
    let duration = || prop_oneof![1 => select(vec![0, 89, 90]), 4 => 90..=7200u32].prop_map(secs).boxed();
    let name = prop_oneof![8 => "[a-z]", 1 => select(vec!["a", "A", ""]).prop_map(str::to_owned)];
    let cidr = prop_oneof![
        8 => select(vec!["10.0.0.0/8", "2001:db8::/32"]),
        1 => select(vec!["10.0.0.0/33", "x", "::ffff:10.0.0.0/104"]),
    ];
    policy(timers(duration), overrides(duration), name.boxed(), cidr.prop_map(str::to_owned).boxed())
}

/// Policies with nothing wrong in them.
pub(crate) fn valid_policy() -> impl Strategy<Value = SessionPolicy> {
    // Above the least minSE, each kind of duration has a range of its own, so any override goes with any inherited value.
    let timers = (timers(|| Just(secs(0)).boxed()), 90..=600u32, 601..=9000u32, 601..=Duration::MAX.secs(), 0..=600u32)
        .prop_map(|(timers, min_se, session_expires, max_min_se, margin)| Timers {
            session_expires: secs(session_expires),
            min_se: secs(min_se),
            max_min_se: secs(max_min_se),
            expiry: Expiry { margin: fixed(timers.expiry.margin, margin), ..timers.expiry },
            ..timers
        });
    let overrides = (overrides(|| Just(secs(0)).boxed()), 90..=600u32, 601..=9000u32, 601..=9000u32, 0..=600u32)
        .prop_map(|(timers, min_se, session_expires, max_min_se, margin)| TimerOverrides {
            session_expires: timers.session_expires.map(|_| secs(session_expires)),
            min_se: timers.min_se.map(|_| secs(min_se)),
            max_min_se: timers.max_min_se.map(|_| secs(max_min_se)),
            expiry: ExpiryOverrides { margin: timers.expiry.margin.map(|m| fixed(m, margin)), ..timers.expiry },
            ..timers
        });
    let cidr =
        (any::<u32>(), 0..=32u8).prop_map(|(bits, length)| format!("{}/{length}", std::net::Ipv4Addr::from(bits)));
    policy(timers, overrides, Just(String::new()).boxed(), cidr.boxed()).prop_map(|mut policy| {
        for (i, rule) in policy.spec.rules.iter_mut().enumerate() {
            rule.name = format!("rule-{i}");
            rule.when.direction.get_or_insert(Direction::Inbound);
        }
        policy
    })
}

fn secs(secs: u32) -> Duration {
    Duration::from_secs(secs).expect("no strategy goes beyond the longest")
}

fn fixed(margin: Margin, secs: u32) -> Margin {
    match margin {
        Margin::Rfc4028 => Margin::Rfc4028,
        Margin::Fixed(_) => Margin::Fixed(self::secs(secs)),
    }
}

fn policy(
    timers: impl Strategy<Value = Timers>,
    overrides: impl Strategy<Value = TimerOverrides>,
    name: BoxedStrategy<String>,
    cidr: BoxedStrategy<String>,
) -> impl Strategy<Value = SessionPolicy> {
    let rule = (name, rule_match(cidr), overrides).prop_map(|(name, when, timers)| Rule { name, when, timers });
    let selector = ("[a-z]{1,8}", "[a-z]{0,8}")
        .prop_map(|pair| LabelSelector { match_labels: Some([pair].into()), ..LabelSelector::default() });
    let mode = select(vec![Mode::Enforce, Mode::Observe]);
    let privacy = select(vec![SipUsers::Redact, SipUsers::Show]).prop_map(|sip_users| Privacy { sip_users });
    ("[a-z][a-z0-9]{0,8}", option::of(selector), any::<i32>(), mode, privacy, timers, vec(rule, 0..4)).prop_map(
        |(name, pod_selector, priority, mode, privacy, timers, rules)| {
            SessionPolicy::new(&name, SessionPolicySpec { pod_selector, priority, mode, privacy, timers, rules })
        },
    )
}

fn rule_match(cidr: BoxedStrategy<String>) -> impl Strategy<Value = RuleMatch> {
    let direction = option::of(select(vec![Direction::Inbound, Direction::Outbound]));
    // Texts that YAML would take for something else are part of it.
    let user_agent = prop_oneof![
        "\\PC{1,20}",
        select(vec!["*", "yes", "null", "1.0", "- a", "a: b", "&a", " ", "0x1"]).prop_map(str::to_owned)
    ];
    let domain = || vec("[a-zA-Z0-9][-.a-zA-Z0-9]{0,12}", 0..3);
    (direction, vec(cidr, 0..3), domain(), domain(), vec(user_agent, 0..3)).prop_map(
        |(direction, peer_cidrs, from_domains, to_domains, user_agents)| RuleMatch {
            direction,
            peer_cidrs,
            from_domains,
            to_domains,
            user_agents,
        },
    )
}

fn timers(duration: impl Fn() -> BoxedStrategy<Duration>) -> impl Strategy<Value = Timers> {
    let action = select(vec![ExpiryAction::Bye, ExpiryAction::Report]);
    let expiry = (action, margin(duration())).prop_map(|(action, margin)| Expiry { action, margin });
    let answering = (below_min_se(), refresher(), malformed(), expiry);
    let refreshing = (refresh_method(), jitter(), act_for_app(), without_peer_support(), app_probe(), credentials());
    (duration(), duration(), duration(), answering, refreshing).prop_map(
        |(session_expires, min_se, max_min_se, answering, refreshing)| {
            let (below_min_se, refresher, malformed, expiry) = answering;
            let (refresh_method, refresh_jitter, act_for_app, without_peer_support, app_probe, credentials) =
                refreshing;
            Timers {
                session_expires,
                min_se,
                max_min_se,
                below_min_se,
                refresher,
                malformed,
                refresh_method,
                refresh_jitter,
                act_for_app,
                without_peer_support,
                app_probe,
                credentials,
                expiry,
            }
        },
    )
}

fn overrides(duration: impl Fn() -> BoxedStrategy<Duration>) -> impl Strategy<Value = TimerOverrides> {
    let given = vec(any::<bool>(), 13);
    (timers(duration), given).prop_map(|(timers, given)| TimerOverrides {
        session_expires: given[0].then_some(timers.session_expires),
        min_se: given[1].then_some(timers.min_se),
        max_min_se: given[2].then_some(timers.max_min_se),
        below_min_se: given[3].then_some(timers.below_min_se),
        refresher: given[4].then_some(timers.refresher),
        malformed: given[5].then_some(timers.malformed),
        refresh_method: given[8].then_some(timers.refresh_method),
        refresh_jitter: given[9].then_some(timers.refresh_jitter),
        act_for_app: given[10].then_some(timers.act_for_app),
        without_peer_support: given[11].then_some(timers.without_peer_support),
        app_probe: given[12].then_some(timers.app_probe),
        credentials: timers.credentials,
        expiry: ExpiryOverrides {
            action: given[6].then_some(timers.expiry.action),
            margin: given[7].then_some(timers.expiry.margin),
        },
    })
}

fn margin(duration: BoxedStrategy<Duration>) -> impl Strategy<Value = Margin> {
    prop_oneof![Just(Margin::Rfc4028), duration.prop_map(Margin::Fixed)]
}

fn below_min_se() -> impl Strategy<Value = BelowMinSe> {
    select(vec![BelowMinSe::Reject, BelowMinSe::Raise])
}

fn refresher() -> impl Strategy<Value = Refresher> {
    use Refresher::{Callee, Caller, Local, PeerChoice, Remote};
    select(vec![PeerChoice, Local, Remote, Caller, Callee])
}

fn malformed() -> impl Strategy<Value = Malformed> {
    select(vec![Malformed::Forward, Malformed::Reject])
}

fn refresh_method() -> impl Strategy<Value = RefreshMethod> {
    select(vec![RefreshMethod::Auto, RefreshMethod::Update, RefreshMethod::ReInvite])
}

fn jitter() -> impl Strategy<Value = Jitter> {
    (0..=Jitter::MAX_PERCENT).prop_map(|percent| Jitter::from_percent(percent).expect("it is within the bounds"))
}

fn act_for_app() -> impl Strategy<Value = ActForApp> {
    select(vec![ActForApp::Auto, ActForApp::Always, ActForApp::Never])
}

fn without_peer_support() -> impl Strategy<Value = WithoutPeerSupport> {
    select(vec![WithoutPeerSupport::Refresh, WithoutPeerSupport::Skip])
}

fn app_probe() -> impl Strategy<Value = AppProbe> {
    select(vec![AppProbe::Options, AppProbe::None])
}

fn credentials() -> impl Strategy<Value = Option<Credentials>> {
    option::of(prop_oneof![
        "[a-z0-9]([-a-z0-9]{0,4}[a-z0-9])?(\\.[a-z0-9]{1,4})?".prop_map(Credentials::SecretName),
        "/\\PC{0,12}".prop_map(Credentials::File),
    ])
}

/// Whether the timers do not contradict each other.
pub(crate) fn holds(timers: &Timers) -> bool {
    timers.min_se.secs() >= 90
        && timers.session_expires >= timers.min_se
        && timers.max_min_se >= timers.min_se
        && match timers.expiry.margin {
            Margin::Rfc4028 => true,
            Margin::Fixed(margin) => margin < timers.session_expires,
        }
}

/// The schema in a kind's definition.
pub(crate) fn schema_of<T: CustomResourceExt>() -> Value {
    let schema = T::crd().spec.versions.remove(0).schema.expect("it has one").open_api_v3_schema;
    serde_json::to_value(schema).expect("a schema is JSON")
}

/// What the CEL rules of a schema say of an object; every message, none if it is valid.
pub(crate) fn cel_verdict(schema: &Value, object: &Value) -> Vec<String> {
    match Validator::new().validate(schema, object, None) {
        Ok(()) => Vec::new(),
        Err(errors) => errors.iter().map(|error| format!("{}: {}", error.field_path, error.message)).collect(),
    }
}
