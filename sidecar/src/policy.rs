//! From the compiled config to the policy of the session-timer core: the only place that knows both.

use sipwarden_crds as crds;
use sipwarden_session_timer as session_timer;

/// The core's policy.
///
/// # Errors
/// A combination that compiling refuses too; only a config changed behind its compiler's back has one.
pub fn from_config(config: &crds::SidecarConfig) -> Result<session_timer::Policy, session_timer::PolicyError> {
    Ok(session_timer::Policy {
        name: config.policy.clone(),
        mode: match config.mode {
            crds::Mode::Enforce => session_timer::Mode::Enforce,
            crds::Mode::Observe => session_timer::Mode::Observe,
        },
        timers: timers(&config.timers)?,
        rules: config.rules.iter().map(rule).collect::<Result<_, _>>()?,
    })
}

fn rule(rule: &crds::CompiledRule) -> Result<session_timer::Rule, session_timer::PolicyError> {
    let when = &rule.when;
    Ok(session_timer::Rule {
        name: rule.name.clone(),
        matches: session_timer::Match {
            direction: when.direction.map(|direction| match direction {
                crds::Direction::Inbound => session_timer::Direction::Inbound,
                crds::Direction::Outbound => session_timer::Direction::Outbound,
            }),
            peer_cidrs: when.peer_cidrs.clone(),
            from_domains: when.from_domains.clone(),
            to_domains: when.to_domains.clone(),
            user_agents: when.user_agents.clone(),
        },
        timers: timers(&rule.timers)?,
    })
}

fn timers(timers: &crds::Timers) -> Result<session_timer::Timers, session_timer::PolicyError> {
    let seconds = crds::Duration::secs;
    let interval = seconds(timers.session_expires);
    let mut core = session_timer::Timers::new(interval, seconds(timers.min_se), seconds(timers.max_min_se))?;
    core.below_min_se = match timers.below_min_se {
        crds::BelowMinSe::Reject => session_timer::BelowMinSe::Reject,
        crds::BelowMinSe::Raise => session_timer::BelowMinSe::Raise,
    };
    core.refresher = match timers.refresher {
        crds::Refresher::PeerChoice => session_timer::RefresherPreference::PeerChoice,
        crds::Refresher::Local => session_timer::RefresherPreference::Local,
        crds::Refresher::Remote => session_timer::RefresherPreference::Remote,
        crds::Refresher::Caller => session_timer::RefresherPreference::Caller,
        crds::Refresher::Callee => session_timer::RefresherPreference::Callee,
    };
    core.malformed = match timers.malformed {
        crds::Malformed::Forward => session_timer::Malformed::Forward,
        crds::Malformed::Reject => session_timer::Malformed::Reject,
    };
    core.expiry = match timers.expiry.action {
        crds::ExpiryAction::Bye => session_timer::ExpiryAction::Bye,
        crds::ExpiryAction::Report => session_timer::ExpiryAction::Report,
    };
    core.margin = match timers.expiry.margin {
        crds::Margin::Rfc4028 => session_timer::Margin::Rfc4028,
        crds::Margin::Fixed(margin) => session_timer::Margin::Fixed(seconds(margin)),
    };
    Ok(core)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> crds::SidecarConfig {
        let duration = |seconds| crds::Duration::from_secs(seconds).expect("a duration");
        let mut policy = crds::SessionPolicy::new("carrier", crds::SessionPolicySpec::default());
        policy.spec.timers.session_expires = duration(600);
        policy.spec.timers.min_se = duration(120);
        policy.spec.timers.refresher = crds::Refresher::Callee;
        policy.spec.rules = vec![crds::Rule {
            name: "late-phones".into(),
            when: crds::RuleMatch {
                direction: Some(crds::Direction::Inbound),
                peer_cidrs: vec!["192.0.2.0/24".into()],
                ..Default::default()
            },
            timers: crds::TimerOverrides {
                expiry: crds::ExpiryOverrides {
                    action: Some(crds::ExpiryAction::Report),
                    margin: Some(crds::Margin::Fixed(duration(5))),
                },
                ..Default::default()
            },
        }];
        crds::compile(&policy).expect("a valid policy")
    }

    #[test]
    fn every_setting_reaches_the_core() {
        let policy = from_config(&config()).expect("converted");
        assert_eq!((policy.name.as_str(), policy.mode), ("carrier", session_timer::Mode::Enforce));
        assert_eq!((policy.timers.session_expires_s(), policy.timers.min_se_s()), (600, 120));
        assert_eq!(policy.timers.max_min_se_s(), 7200);
        assert_eq!(policy.timers.refresher, session_timer::RefresherPreference::Callee);
        assert_eq!(policy.timers.margin, session_timer::Margin::Rfc4028);
        let rule = &policy.rules[0];
        assert_eq!(rule.name, "late-phones");
        assert_eq!(rule.matches.direction, Some(session_timer::Direction::Inbound));
        assert_eq!(rule.matches.peer_cidrs, ["192.0.2.0/24".parse().expect("a network")]);
        assert_eq!(rule.timers.session_expires_s(), 600, "inherited");
        assert_eq!(rule.timers.expiry, session_timer::ExpiryAction::Report);
        assert_eq!(rule.timers.margin, session_timer::Margin::Fixed(5));
    }

    #[test]
    fn a_config_with_a_forbidden_combination_is_refused() {
        let mut config = config();
        config.timers.min_se = crds::Duration::from_secs(60).expect("a duration");
        assert_eq!(from_config(&config), Err(session_timer::PolicyError::MinSeBelow90));
    }
}
