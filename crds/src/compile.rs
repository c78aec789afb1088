//! From intent to config: checks everything that types alone do not, and resolves what rules inherit.

use std::{collections::HashMap, fmt};

use ipnet::IpNet;
use kube::core::Selector;

use crate::{
    annotation,
    config::{CompiledMatch, CompiledRule, SidecarConfig},
    policy::{self, Rule, RuleMatch, SessionPolicy},
    timers::{
        Credentials, LEAST_MIN_SE, MAX_OBJECT_NAME, MAX_PATH, Margin, TimerOverrides, Timers, is_path, is_secret_name,
    },
};

/// Something in a policy that cannot stand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The field, such as `spec.rules[2].timers.minSE`.
    pub path: String,
    /// What is wrong with it, with the values that matter.
    pub message: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.message)
    }
}

impl std::error::Error for Violation {}

/// Resolves a policy into what a sidecar obeys. Pure: the same policy gives the same config.
///
/// # Errors
/// Every violation there is, in the order of the policy's fields.
pub fn compile(policy: &SessionPolicy) -> Result<SidecarConfig, Vec<Violation>> {
    let mut found = Violations::default();
    let name = policy.metadata.name.as_deref().unwrap_or_default();
    check_policy_name(name, &mut found);
    let spec = &policy.spec;
    if let Some(Err(error)) = spec.pod_selector.clone().map(Selector::try_from) {
        found.add("spec.podSelector", format!("not a label selector: {error}"));
    }
    check_timers("spec.timers", &spec.timers, Given::in_policy(&spec.timers), &mut found);
    let rules = compile_rules(&spec.rules, &spec.timers, &mut found);
    if !found.0.is_empty() {
        return Err(found.0);
    }
    let generation = policy.metadata.generation.unwrap_or(0);
    let config = SidecarConfig::new(name, generation, spec.mode, spec.privacy, spec.timers.clone(), rules);
    check_size(&config, &mut found);
    if found.0.is_empty() { Ok(config) } else { Err(found.0) }
}

/// The violations of a config that did not come from [`compile`] in this process.
pub(crate) fn check_config(config: &SidecarConfig) -> Vec<Violation> {
    let mut found = Violations::default();
    check_timers("spec.timers", &config.timers, Given::ALL, &mut found);
    for (i, rule) in config.rules.iter().enumerate() {
        check_timers(&format!("spec.rules[{i}].timers"), &rule.timers, Given::ALL, &mut found);
    }
    found.0
}

#[derive(Default)]
pub(crate) struct Violations(Vec<Violation>);

impl Violations {
    pub(crate) fn into_vec(self) -> Vec<Violation> {
        self.0
    }

    pub(crate) fn add(&mut self, path: impl Into<String>, message: impl Into<String>) {
        self.0.push(Violation { path: path.into(), message: message.into() });
    }
}

/// Only rules can make a config this long.
fn check_size(config: &SidecarConfig, found: &mut Violations) {
    if let Some(excess) = annotation::excess(config) {
        let message = format!(
            "too long by {excess} bytes for the annotation of a pod; use fewer or shorter entries to match, or two policies"
        );
        found.add("spec.rules", message);
    }
}

pub(crate) fn check_policy_name(name: &str, found: &mut Violations) {
    let legal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.';
    if name.is_empty() {
        found.add("metadata.name", "a policy needs a name");
    } else if name.len() > 253 || !name.bytes().all(legal) {
        found.add("metadata.name", "not a name: use at most 253 of a-z, 0-9, - and .");
    }
}

fn compile_rules(rules: &[Rule], inherited: &Timers, found: &mut Violations) -> Vec<CompiledRule> {
    if rules.len() > policy::MAX_RULES {
        found.add("spec.rules", format!("{} rules, of at most {}", rules.len(), policy::MAX_RULES));
        return Vec::new();
    }
    let mut first_of_name = HashMap::new();
    let mut compiled = Vec::with_capacity(rules.len());
    for (i, rule) in rules.iter().enumerate() {
        let path = format!("spec.rules[{i}]");
        check_rule_name(&path, &rule.name, found);
        let first = *first_of_name.entry(rule.name.as_str()).or_insert(i);
        if first != i {
            found.add(format!("{path}.name"), format!("spec.rules[{first}] has the same name"));
        }
        let when = compile_match(&format!("{path}.match"), &rule.when, found);
        let timers = rule.timers.over(inherited);
        check_timers(&format!("{path}.timers"), &timers, Given::in_rule(&rule.timers), found);
        compiled.push(CompiledRule { name: rule.name.clone(), when, timers });
    }
    compiled
}

fn check_rule_name(path: &str, name: &str, found: &mut Violations) {
    let legal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let length_fits = (1..=policy::MAX_NAME).contains(&name.len());
    if !length_fits || !name.bytes().all(legal) || name.starts_with('-') || name.ends_with('-') {
        let message = format!("not a name: use 1 to {} of a-z, 0-9 and inner -", policy::MAX_NAME);
        found.add(format!("{path}.name"), message);
    }
}

fn compile_match(path: &str, when: &RuleMatch, found: &mut Violations) -> CompiledMatch {
    let lists = [&when.peer_cidrs, &when.from_domains, &when.to_domains, &when.user_agents];
    if when.direction.is_none() && lists.iter().all(|list| list.is_empty()) {
        found.add(path, "a rule needs at least one condition to match; for all calls there is spec.timers");
    }
    CompiledMatch {
        direction: when.direction,
        peer_cidrs: compile_list(&format!("{path}.peerCIDRs"), &when.peer_cidrs, cidr, found),
        from_domains: compile_list(&format!("{path}.fromDomains"), &when.from_domains, domain, found),
        to_domains: compile_list(&format!("{path}.toDomains"), &when.to_domains, domain, found),
        user_agents: compile_list(&format!("{path}.userAgents"), &when.user_agents, user_agent, found),
    }
}

fn compile_list<T>(
    path: &str,
    list: &[String],
    parse: impl Fn(&str) -> Result<T, String>,
    found: &mut Violations,
) -> Vec<T> {
    if list.len() > policy::MAX_MATCH_ITEMS {
        found.add(path, format!("{} entries, of at most {}", list.len(), policy::MAX_MATCH_ITEMS));
        return Vec::new();
    }
    let mut compiled = Vec::with_capacity(list.len());
    for (i, text) in list.iter().enumerate() {
        match parse(text) {
            Ok(value) => compiled.push(value),
            Err(message) => found.add(format!("{path}[{i}]"), message),
        }
    }
    compiled
}

/// As strict as the API server: no zeros in front, no IPv4 in IPv6 form (peers are known by their IPv4 address, so it
/// would never match). Bits beyond the prefix are dropped.
fn cidr(text: &str) -> Result<IpNet, String> {
    let parse = || {
        let (address, length) = text.split_once('/')?;
        let net = IpNet::new(address.parse().ok()?, length.parse().ok()?).ok()?;
        let mapped = matches!(net, IpNet::V6(net) if net.addr().to_ipv4_mapped().is_some());
        (!mapped && net.prefix_len().to_string() == length).then(|| net.trunc())
    };
    parse().ok_or_else(|| "not a network in CIDR form such as 192.0.2.0/24 or 2001:db8::/32".to_owned())
}

fn domain(text: &str) -> Result<String, String> {
    let host = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
    let ipv6 = |b: u8| b.is_ascii_hexdigit() || matches!(b, b':' | b'.');
    let legal = match text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(inner) => !inner.is_empty() && inner.bytes().all(ipv6),
        None => !text.is_empty() && text.bytes().all(host),
    };
    if legal && text.len() <= policy::MAX_DOMAIN {
        return Ok(text.to_ascii_lowercase());
    }
    Err(format!(
        "not a host such as carrier.example.com or [2001:db8::1], of at most {} characters",
        policy::MAX_DOMAIN
    ))
}

fn user_agent(text: &str) -> Result<String, String> {
    if (1..=policy::MAX_USER_AGENT).contains(&text.chars().count()) {
        return Ok(text.to_lowercase());
    }
    Err(format!("a User-Agent to match has 1 to {} characters", policy::MAX_USER_AGENT))
}

/// Which of the timers that limit each other were written at the place under check. Only those can be blamed there:
/// a fault among inherited values alone is reported where they come from.
#[derive(Clone, Copy)]
struct Given {
    session_expires: bool,
    min_se: bool,
    max_min_se: bool,
    margin: bool,
    credentials: bool,
}

impl Given {
    const ALL: Self = Self { session_expires: true, min_se: true, max_min_se: true, margin: true, credentials: true };

    /// A default may have been written or not, but it is never what breaks a policy.
    fn in_policy(timers: &Timers) -> Self {
        let default = Timers::default();
        Self {
            session_expires: timers.session_expires != default.session_expires,
            min_se: timers.min_se != default.min_se,
            max_min_se: timers.max_min_se != default.max_min_se,
            margin: timers.expiry.margin != default.expiry.margin,
            credentials: true,
        }
    }

    fn in_rule(timers: &TimerOverrides) -> Self {
        Self {
            session_expires: timers.session_expires.is_some(),
            min_se: timers.min_se.is_some(),
            max_min_se: timers.max_min_se.is_some(),
            margin: timers.expiry.margin.is_some(),
            credentials: timers.credentials.is_some(),
        }
    }
}

fn check_timers(path: &str, timers: &Timers, given: Given, found: &mut Violations) {
    let Timers { session_expires, min_se, max_min_se, .. } = *timers;
    if min_se < LEAST_MIN_SE && given.min_se {
        let message = format!("{min_se} is below {LEAST_MIN_SE}, the least RFC 4028 §4 allows");
        found.add(format!("{path}.minSE"), message);
    }
    for (name, value, value_given) in
        [("sessionExpires", session_expires, given.session_expires), ("maxMinSE", max_min_se, given.max_min_se)]
    {
        if value < min_se && value_given {
            found.add(format!("{path}.{name}"), format!("{value} is below minSE, which is {min_se}"));
        } else if value < min_se && given.min_se {
            found.add(format!("{path}.minSE"), format!("{min_se} is above {name}, which is {value}"));
        }
    }
    if let Some(credentials) = timers.credentials.as_ref().filter(|_| given.credentials) {
        check_credentials(&format!("{path}.credentials"), credentials, found);
    }
    let Margin::Fixed(margin) = timers.expiry.margin else { return };
    if margin >= session_expires && given.margin {
        let message = format!("{margin} is not below sessionExpires, which is {session_expires}");
        found.add(format!("{path}.expiry.margin"), message);
    } else if margin >= session_expires && given.session_expires {
        let message = format!("{session_expires} is not above expiry.margin, which is {margin}");
        found.add(format!("{path}.sessionExpires"), message);
    }
}

fn check_credentials(path: &str, credentials: &Credentials, found: &mut Violations) {
    match credentials {
        Credentials::SecretName(name) if !is_secret_name(name) => found.add(
            format!("{path}.secretName"),
            format!("not a name of a Secret: use at most {MAX_OBJECT_NAME} of a-z, 0-9, and - and . inside"),
        ),
        Credentials::File(file) if !is_path(file) => {
            found.add(format!("{path}.file"), format!("not an absolute path of at most {MAX_PATH} characters"));
        }
        Credentials::SecretName(_) | Credentials::File(_) => {}
    }
}
