//! Holds a compiled config to what ClusterSessionPolicies allow.

use std::cmp::Reverse;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    cluster::{ClusterSessionPolicy, DurationBounds},
    config::{CompiledRule, SidecarConfig},
    duration::Duration,
    policy::Mode,
    timers::{LEAST_MIN_SE, MAX_OBJECT_NAME, Margin, Timers},
};

/// A setting that was changed because it was out of bounds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Clamp {
    /// The setting, such as spec.rules[2].timers.minSE.
    #[schemars(length(max = 64))]
    pub field: String,

    /// What the policy asks for.
    #[schemars(length(max = 16))]
    pub asked: String,

    /// What it is given.
    #[schemars(length(max = 16))]
    pub given: String,

    /// The ClusterSessionPolicy that wants it so.
    #[schemars(length(max = MAX_OBJECT_NAME))]
    pub by: String,
}

/// The config with every setting within the bounds of all of `policies`, and what that changed, in the order of fields.
///
/// Where bounds of different policies contradict each other, the one from above counts: rather Observe than Enforce, rather
/// the shorter interval. The result does not depend on the order of `policies`, is valid if the config is, and stays the
/// same when it is bound again.
pub fn bound(config: &SidecarConfig, policies: &[ClusterSessionPolicy]) -> (SidecarConfig, Vec<Clamp>) {
    let limits = Limits::of(policies);
    let mut clamps = Vec::new();
    let mode = limits.mode(config.mode, &mut clamps);
    let timers = limits.timers("spec.timers", &config.timers, &mut clamps);
    let rules = config.rules.iter().enumerate().map(|(i, rule)| CompiledRule {
        timers: limits.timers(&format!("spec.rules[{i}].timers"), &rule.timers, &mut clamps),
        ..rule.clone()
    });
    let rules = rules.collect();
    (SidecarConfig::new(&config.policy, config.generation, mode, config.privacy, timers, rules), clamps)
}

/// A bound and the name of the policy it is from; of equal ones that of the first name.
type Limit<'a, T> = Option<(T, &'a str)>;

/// The strictest of all bounds, made so that they do not contradict each other.
struct Limits<'a> {
    mode_at_least: Limit<'a, Mode>,
    mode_at_most: Limit<'a, Mode>,
    min_se: Range<'a>,
    session_expires: Range<'a>,
}

struct Range<'a> {
    at_least: Limit<'a, Duration>,
    at_most: Limit<'a, Duration>,
}

impl<'a> Limits<'a> {
    fn of(policies: &'a [ClusterSessionPolicy]) -> Self {
        let mode_at_least =
            first_name(policies, |policy| policy.spec.mode.at_least.filter(|mode| *mode == Mode::Enforce));
        let mode_at_most =
            first_name(policies, |policy| policy.spec.mode.at_most.filter(|mode| *mode == Mode::Observe));
        let session_expires = Range::of(policies, |policy| policy.spec.timers.session_expires);
        let mut min_se = Range::of(policies, |policy| policy.spec.timers.min_se);
        // No minSE may be above sessionExpires.
        min_se.at_most = lesser(min_se.at_most, session_expires.at_most);
        Self { mode_at_least, mode_at_most, min_se, session_expires }
    }

    fn mode(&self, asked: Mode, clamps: &mut Vec<Clamp>) -> Mode {
        let given = self.mode_at_most.or(self.mode_at_least).filter(|(mode, _)| *mode != asked);
        let Some((given, by)) = given else { return asked };
        clamps.push(clamp("spec.mode".to_owned(), format!("{asked:?}"), format!("{given:?}"), by));
        given
    }

    fn timers(&self, path: &str, asked: &Timers, clamps: &mut Vec<Clamp>) -> Timers {
        let mut given = asked.clone();
        let (session_expires, session_expires_by) = self.session_expires.hold(asked.session_expires);
        let (min_se, min_se_by) = self.min_se.hold(asked.min_se);
        given.min_se = min_se;
        given.session_expires = session_expires.max(min_se);
        given.max_min_se = asked.max_min_se.max(min_se);
        if matches!(asked.expiry.margin, Margin::Fixed(margin) if margin >= given.session_expires) {
            given.expiry.margin = Margin::Fixed(given.session_expires.third());
        }
        let interval_by = if session_expires < min_se { min_se_by } else { session_expires_by };
        let fields = [
            ("sessionExpires", asked.session_expires.to_string(), given.session_expires.to_string(), interval_by),
            ("minSE", asked.min_se.to_string(), given.min_se.to_string(), min_se_by),
            ("maxMinSE", asked.max_min_se.to_string(), given.max_min_se.to_string(), min_se_by),
            ("expiry.margin", asked.expiry.margin.to_string(), given.expiry.margin.to_string(), interval_by),
        ];
        for (field, asked, given, by) in fields.into_iter().filter(|(_, asked, given, _)| asked != given) {
            clamps.push(clamp(format!("{path}.{field}"), asked, given, by));
        }
        given
    }
}

impl<'a> Range<'a> {
    fn of(policies: &'a [ClusterSessionPolicy], bounds: impl Fn(&ClusterSessionPolicy) -> DurationBounds) -> Self {
        let named = || policies.iter().map(|policy| (bounds(policy), name(policy)));
        let at_least = named().filter_map(|(bounds, name)| Some((bounds.at_least?, name)));
        let at_most = named().filter_map(|(bounds, name)| Some((bounds.at_most?, name)));
        Self { at_least: at_least.max_by_key(|(bound, name)| (*bound, Reverse(*name))), at_most: at_most.min() }
    }

    /// What `asked` becomes, and the policy that changes it. Never below the least there may be, which a policy that was
    /// not checked may ask for.
    fn hold(&self, asked: Duration) -> (Duration, &'a str) {
        let most = self.at_most.map_or(Duration::MAX, |(most, _)| most.max(LEAST_MIN_SE));
        match (self.at_least, self.at_most) {
            (_, Some((_, by))) if asked > most => (most, by),
            (Some((least, by)), _) if asked < least.min(most) => (least.min(most), by),
            _ => (asked, ""),
        }
    }
}

fn lesser<'a>(a: Limit<'a, Duration>, b: Limit<'a, Duration>) -> Limit<'a, Duration> {
    a.into_iter().chain(b).min()
}

fn first_name<'a>(
    policies: &'a [ClusterSessionPolicy],
    bound: impl Fn(&ClusterSessionPolicy) -> Option<Mode>,
) -> Limit<'a, Mode> {
    policies.iter().filter_map(|policy| Some((bound(policy)?, name(policy)))).min_by_key(|(_, name)| *name)
}

fn name(policy: &ClusterSessionPolicy) -> &str {
    policy.metadata.name.as_deref().unwrap_or_default()
}

fn clamp(field: String, asked: String, given: String, by: &str) -> Clamp {
    Clamp { field, asked, given, by: by.to_owned() }
}
