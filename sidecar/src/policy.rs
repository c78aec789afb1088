//! From the compiled config to the policy of the session-timer core: the only place that knows both.

use sipwarden_crds as crds;
use sipwarden_session_timer as session_timer;

use crate::credentials::CredentialSet;

/// The core's policy. Credentials that could not be read are left out.
///
/// # Errors
/// A combination that compiling refuses too; only a config changed behind its compiler's back has one.
pub fn from_config(
    config: &crds::SidecarConfig,
    credentials: &CredentialSet,
) -> Result<session_timer::Policy, session_timer::PolicyError> {
    Ok(session_timer::Policy {
        name: config.policy.clone(),
        mode: match config.mode {
            crds::Mode::Enforce => session_timer::Mode::Enforce,
            crds::Mode::Observe => session_timer::Mode::Observe,
        },
        timers: timers(&config.timers, credentials)?,
        rules: config.rules.iter().map(|compiled| rule(compiled, credentials)).collect::<Result<_, _>>()?,
    })
}

fn rule(
    rule: &crds::CompiledRule,
    credentials: &CredentialSet,
) -> Result<session_timer::Rule, session_timer::PolicyError> {
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
        timers: timers(&rule.timers, credentials)?,
    })
}

fn timers(
    timers: &crds::Timers,
    credentials: &CredentialSet,
) -> Result<session_timer::Timers, session_timer::PolicyError> {
    let seconds = crds::Duration::secs;
    let interval = seconds(timers.session_expires);
    let mut core = session_timer::Timers::new(interval, seconds(timers.min_se), seconds(timers.max_min_se))?;
    negotiation(timers, &mut core);
    refreshing(timers, &mut core);
    core.credentials = timers.credentials.as_ref().and_then(|place| credentials.get(place));
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

fn negotiation(timers: &crds::Timers, core: &mut session_timer::Timers) {
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
}

fn refreshing(timers: &crds::Timers, core: &mut session_timer::Timers) {
    core.refresh_method = match timers.refresh_method {
        crds::RefreshMethod::Auto => session_timer::RefreshMethod::Auto,
        crds::RefreshMethod::Update => session_timer::RefreshMethod::Update,
        crds::RefreshMethod::ReInvite => session_timer::RefreshMethod::ReInvite,
    };
    core.refresh_jitter_percent = timers.refresh_jitter.percent();
    core.act_for_app = match timers.act_for_app {
        crds::ActForApp::Auto => session_timer::ActForApp::Auto,
        crds::ActForApp::Always => session_timer::ActForApp::Always,
        crds::ActForApp::Never => session_timer::ActForApp::Never,
    };
    core.without_peer_support = match timers.without_peer_support {
        crds::WithoutPeerSupport::Refresh => session_timer::WithoutPeerSupport::Refresh,
        crds::WithoutPeerSupport::Skip => session_timer::WithoutPeerSupport::Skip,
    };
    core.app_probe = match timers.app_probe {
        crds::AppProbe::Options => session_timer::AppProbe::Options,
        crds::AppProbe::None => session_timer::AppProbe::None,
    };
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
        let policy = from_config(&config(), &CredentialSet::default()).expect("converted");
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
        let refused = from_config(&config, &CredentialSet::default());
        assert_eq!(refused, Err(session_timer::PolicyError::MinSeBelow90));
    }

    #[test]
    fn what_is_said_of_refreshes_reaches_the_core() {
        let mut config = config();
        let timers = &mut config.rules[0].timers;
        timers.refresh_method = crds::RefreshMethod::ReInvite;
        timers.refresh_jitter = crds::Jitter::from_percent(33).expect("a jitter");
        timers.act_for_app = crds::ActForApp::Always;
        timers.without_peer_support = crds::WithoutPeerSupport::Skip;
        timers.app_probe = crds::AppProbe::None;
        let policy = from_config(&config, &CredentialSet::default()).expect("converted");
        let timers = &policy.rules[0].timers;
        assert_eq!(timers.refresh_method, session_timer::RefreshMethod::ReInvite);
        assert_eq!(timers.refresh_jitter_percent, 33);
        assert_eq!(timers.act_for_app, session_timer::ActForApp::Always);
        assert_eq!(timers.without_peer_support, session_timer::WithoutPeerSupport::Skip);
        assert_eq!(timers.app_probe, session_timer::AppProbe::None);
        assert_eq!(policy.timers.act_for_app, session_timer::ActForApp::Auto, "the rule's are the rule's");
    }

    #[test]
    fn a_rule_gets_the_credentials_it_names_and_a_missing_secret_is_no_obstacle() {
        let secrets = tempfile::tempdir().expect("a directory");
        std::fs::create_dir(secrets.path().join("trunk-a")).expect("made");
        for (key, value) in [("username", "alice"), ("password", "s3cret")] {
            std::fs::write(secrets.path().join("trunk-a").join(key), value).expect("written");
        }
        let mut config = config();
        config.timers.credentials = Some(crds::Credentials::SecretName("trunk-b".into()));
        config.rules[0].timers.credentials = Some(crds::Credentials::SecretName("trunk-a".into()));
        let read = CredentialSet::read(&config, secrets.path());
        let policy = from_config(&config, &read).expect("converted");
        assert_eq!(policy.timers.credentials, None);
        assert_eq!(policy.rules[0].timers.credentials.as_ref().expect("credentials").username, "alice");
    }
}
