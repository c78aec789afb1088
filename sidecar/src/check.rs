//! `check`: what is wrong with a policy file, or what it will do.

use std::fmt::Write;
use std::path::Path;

use sipwarden_crds::{
    ActForApp, AppProbe, BelowMinSe, CompiledMatch, Credentials, ExpiryAction, Malformed, Margin, Mode, RefreshMethod,
    Refresher, SidecarConfig, Timers, WithoutPeerSupport,
};

use crate::policy_file;

/// Prints a summary of the policy in `file`.
///
/// # Errors
/// The problems, one a line, with line and field.
pub fn check(file: &Path) -> anyhow::Result<()> {
    let config = policy_file::read(file)?;
    print!("{}", summary(&config));
    Ok(())
}

fn summary(config: &SidecarConfig) -> String {
    let mode = match config.mode {
        Mode::Enforce => "Enforce: rejects, inserts, completes and ends",
        Mode::Observe => "Observe: changes nothing, reports what it would do",
    };
    let mut text = format!("policy {} ({})\nmode {mode}\n", config.policy, config.hash);
    for rule in &config.rules {
        let _ = writeln!(text, "\nrule {}, for calls with {}", rule.name, conditions(&rule.when));
        text += &timers(&rule.timers);
    }
    let rest = if config.rules.is_empty() { "all calls" } else { "all other calls" };
    let _ = writeln!(text, "\n{rest}");
    text + &timers(&config.timers)
}

fn timers(timers: &Timers) -> String {
    let below = match timers.below_min_se {
        BelowMinSe::Reject => "rejected with 422",
        BelowMinSe::Raise => "raised",
    };
    let refresher = match timers.refresher {
        Refresher::PeerChoice => "whom the called side chooses",
        Refresher::Local => "the application",
        Refresher::Remote => "the other party",
        Refresher::Caller => "the caller",
        Refresher::Callee => "the callee",
    };
    let malformed = match timers.malformed {
        Malformed::Forward => "forwarded",
        Malformed::Reject => "rejected with 400",
    };
    let action = match timers.expiry.action {
        ExpiryAction::Bye => "ended with BYE to both sides",
        ExpiryAction::Report => "reported and left alone",
    };
    let margin = match timers.expiry.margin {
        Margin::Rfc4028 => "min(32s, a third of the interval)".to_owned(),
        Margin::Fixed(margin) => margin.to_string(),
    };
    format!(
        "  interval        at most {}, offered where a caller asks for none\n  \
           below {:<9} {below}\n  \
           Min-SE of a 422 followed up to {}\n  \
           refreshed by    {refresher}, unless the caller says otherwise\n  \
           malformed       {malformed}\n  \
           not refreshed   {action}, {margin} before the interval ends\n",
        timers.session_expires,
        timers.min_se.to_string(),
        timers.max_min_se,
    ) + &acting(timers)
}

/// What the sidecar does in the application's place.
fn acting(timers: &Timers) -> String {
    let acts = match timers.act_for_app {
        ActForApp::Auto => "where it has no session timers",
        ActForApp::Always => "always, its own timers are taken out",
        ActForApp::Never => return "  for the app     nothing: timers are its own\n".to_owned(),
    };
    let method = match timers.refresh_method {
        RefreshMethod::Auto => "UPDATE where allowed, else re-INVITE",
        RefreshMethod::Update => "UPDATE",
        RefreshMethod::ReInvite => "re-INVITE",
    };
    let alone = match timers.without_peer_support {
        WithoutPeerSupport::Refresh => "refreshed all the same",
        WithoutPeerSupport::Skip => "left without a timer",
    };
    let probe = match timers.app_probe {
        AppProbe::Options => "OPTIONS in its dialog",
        AppProbe::None => "nothing",
    };
    let challenged = match &timers.credentials {
        None => "reported".to_owned(),
        Some(Credentials::SecretName(name)) => format!("answered from Secret {name}"),
        Some(Credentials::File(path)) => format!("answered from file {path}"),
    };
    format!(
        "  for the app     {acts}\n  \
           refreshes by    {method}, up to {}% early\n  \
           app asked by    {probe}\n  \
           401, 407        {challenged}\n  \
           neither has any {alone}\n",
        timers.refresh_jitter.percent(),
    )
}

fn conditions(when: &CompiledMatch) -> String {
    let mut all = Vec::new();
    all.extend(when.direction.map(|direction| format!("direction {direction:?}")));
    let networks: Vec<String> = when.peer_cidrs.iter().map(ToString::to_string).collect();
    let lists = [
        ("peer", &networks),
        ("From domain", &when.from_domains),
        ("To domain", &when.to_domains),
        ("User-Agent", &when.user_agents),
    ];
    all.extend(
        lists.iter().filter(|(_, list)| !list.is_empty()).map(|(name, list)| format!("{name} {}", list.join(" or "))),
    );
    all.join(", ")
}

#[cfg(test)]
mod tests {
    use sipwarden_crds::file;

    use super::*;

    const POLICY: &str = "\
apiVersion: sipwarden.dev/v1alpha1
kind: SessionPolicy
metadata: {name: carrier}
spec:
  mode: Observe
  timers: {sessionExpires: 10m, minSE: 2m, credentials: {secretName: trunk-a}}
  rules:
  - name: late-phones
    match: {direction: Inbound, peerCIDRs: [192.0.2.0/24]}
    timers: {expiry: {margin: 5s}}
";

    #[test]
    fn the_summary_shows_rules_with_what_they_inherit() {
        let text = summary(&file::load(POLICY).expect("a policy").into_config());
        for part in [
            "policy carrier",
            "mode Observe",
            "rule late-phones, for calls with direction Inbound, peer 192.0.2.0/24",
            "at most 10m",
            "5s before the interval ends",
            "for the app     where it has no session timers",
            "UPDATE where allowed, else re-INVITE, up to 10% early",
            "answered from Secret trunk-a",
            "all other calls",
        ] {
            assert!(text.contains(part), "{part} in\n{text}");
        }
    }
}
