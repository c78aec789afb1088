//! The policy in force. Parsed, not validated: a [`Timers`] cannot hold an invalid combination.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use sipwarden_sip::value::Uri;

use crate::Leg;

/// Whole seconds.
pub type Seconds = u32;

/// The least session interval and Min-SE there is (RFC 4028 §4, §5).
pub(crate) const LEAST_INTERVAL_S: Seconds = 90;

/// Report only, or act.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Change nothing, report what would have been done.
    Observe,
    /// Reject, insert, complete and end.
    Enforce,
}

/// What to do with an interval below the minimum from a UAC that supports `timer`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BelowMinSe {
    /// Answer 422 with our Min-SE (RFC 4028 §6).
    Reject,
    /// Raise Session-Expires and Min-SE, forward.
    Raise,
}

/// Which side should refresh, where the UAC left it open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RefresherPreference {
    PeerChoice,
    Local,
    Remote,
    Caller,
    Callee,
}

/// What to do with a malformed Session-Expires or Min-SE in a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Malformed {
    /// Forward it untouched and count it.
    Forward,
    /// Answer 400.
    Reject,
}

/// What expiry does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ExpiryAction {
    /// BYE to both legs.
    Bye,
    /// Report it, leave the call alone.
    Report,
}

/// How long before the deadline an unrefreshed session ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Margin {
    /// min(32 s, interval / 3) (RFC 4028 §10).
    Rfc4028,
    /// A fixed time, of which a third of the interval counts at most: refreshes come at half of it, and must not be too
    /// late already where a short interval was negotiated.
    Fixed(Seconds),
}

impl Margin {
    /// The margin for one interval, both in milliseconds of session time.
    pub fn before_ms(self, interval_s: Seconds) -> u64 {
        let most_ms = match self {
            Margin::Rfc4028 => 32_000,
            Margin::Fixed(seconds) => u64::from(seconds) * 1000,
        };
        (u64::from(interval_s) * 1000 / 3).min(most_ms)
    }
}

/// How a refresh of ours is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RefreshMethod {
    /// UPDATE where the peer Allows it, else re-INVITE with the SDP in force.
    Auto,
    Update,
    ReInvite,
}

/// Whether the sidecar is the RFC 4028 half of the application.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ActForApp {
    /// Where the application does not say `Supported: timer`.
    Auto,
    /// Also where it does: its own timer headers are taken out.
    Always,
    Never,
}

/// What happens where neither side knows timers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WithoutPeerSupport {
    /// The remote side is refreshed all the same: any UA answers a re-INVITE or UPDATE.
    Refresh,
    /// There is no timer.
    Skip,
}

/// How the application is asked whether it still has a call before that call is refreshed for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AppProbe {
    /// By OPTIONS in the dialog.
    Options,
    None,
}

/// What a 401 or 407 to a request of ours is answered with.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    pub username: String,
    pub password: String,
    /// Only for this realm; for any, if none is given.
    pub realm: Option<String>,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.debug_struct("Credentials").field("realm", &self.realm).finish_non_exhaustive()
    }
}

/// Resolved timer settings of one rule, or of the policy where no rule matches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timers {
    session_expires_s: Seconds,
    min_se_s: Seconds,
    /// The highest Min-SE followed from someone's 422.
    max_min_se_s: Seconds,
    pub below_min_se: BelowMinSe,
    pub refresher: RefresherPreference,
    pub malformed: Malformed,
    pub expiry: ExpiryAction,
    pub margin: Margin,
    pub refresh_method: RefreshMethod,
    /// By how much of the time until it a refresh of ours may come earlier, at random.
    pub refresh_jitter_percent: u8,
    pub act_for_app: ActForApp,
    pub without_peer_support: WithoutPeerSupport,
    pub app_probe: AppProbe,
    pub credentials: Option<Arc<Credentials>>,
}

/// Why settings are not a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    #[error("minSE is below 90 s, the least RFC 4028 allows")]
    MinSeBelow90,
    #[error("sessionExpires is below minSE")]
    IntervalBelowMinSe,
    #[error("maxMinSE is below minSE")]
    MaxBelowMinSe,
}

impl Timers {
    /// Settings with the given interval and bounds (seconds) and the defaults for the rest.
    pub fn new(session_expires_s: Seconds, min_se_s: Seconds, max_min_se_s: Seconds) -> Result<Timers, PolicyError> {
        if min_se_s < LEAST_INTERVAL_S {
            return Err(PolicyError::MinSeBelow90);
        }
        if session_expires_s < min_se_s {
            return Err(PolicyError::IntervalBelowMinSe);
        }
        if max_min_se_s < min_se_s {
            return Err(PolicyError::MaxBelowMinSe);
        }
        Ok(Timers {
            session_expires_s,
            min_se_s,
            max_min_se_s,
            below_min_se: BelowMinSe::Reject,
            refresher: RefresherPreference::PeerChoice,
            malformed: Malformed::Forward,
            expiry: ExpiryAction::Bye,
            margin: Margin::Rfc4028,
            refresh_method: RefreshMethod::Auto,
            refresh_jitter_percent: 10,
            act_for_app: ActForApp::Auto,
            without_peer_support: WithoutPeerSupport::Refresh,
            app_probe: AppProbe::Options,
            credentials: None,
        })
    }

    /// The interval offered, and the most accepted.
    pub fn session_expires_s(&self) -> Seconds {
        self.session_expires_s
    }

    /// Below it: 422.
    pub fn min_se_s(&self) -> Seconds {
        self.min_se_s
    }

    /// The highest Min-SE followed from someone's 422.
    pub fn max_min_se_s(&self) -> Seconds {
        self.max_min_se_s
    }
}

impl Default for Timers {
    /// 30 minutes, Min-SE 90 s, following up to 2 h.
    fn default() -> Timers {
        Timers::new(1800, LEAST_INTERVAL_S, 7200).expect("1800 ≥ 90 and 7200 ≥ 90")
    }
}

/// Who started the call, seen from the pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// The remote side calls our application.
    Inbound,
    /// Our application calls out.
    Outbound,
}

impl Direction {
    /// Of a call that `caller` began.
    pub(crate) const fn of_caller(caller: Leg) -> Direction {
        match caller {
            Leg::Local => Direction::Outbound,
            Leg::Remote => Direction::Inbound,
        }
    }

    /// `Inbound` or `Outbound`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Direction::Inbound => "Inbound",
            Direction::Outbound => "Outbound",
        }
    }
}

/// What a rule can match on, taken from the request that starts the call.
#[derive(Clone, Copy, Debug)]
pub struct PeerFacts<'a> {
    pub direction: Direction,
    /// The remote side's address: the source of an inbound request, the next hop of an outbound one.
    pub peer: Option<IpAddr>,
    /// Host part of the From URI.
    pub from_domain: &'a [u8],
    /// Host part of the To URI.
    pub to_domain: &'a [u8],
    /// The request's User-Agent, empty without one.
    pub user_agent: &'a [u8],
}

impl<'a> PeerFacts<'a> {
    /// Those of a call; `from` and `to` are the URIs of the request that starts it.
    pub fn of(direction: Direction, peer: Option<IpAddr>, from: &'a [u8], to: &'a [u8], user_agent: &'a [u8]) -> Self {
        let domain = |uri| Uri::parse(uri).map_or(b"" as &[u8], |uri| uri.host);
        PeerFacts { direction, peer, from_domain: domain(from), to_domain: domain(to), user_agent }
    }
}

/// The conditions of a rule; an empty list or `None` matches everything, all must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Match {
    pub direction: Option<Direction>,
    pub peer_cidrs: Vec<IpNet>,
    /// Compared case-insensitively.
    pub from_domains: Vec<String>,
    pub to_domains: Vec<String>,
    /// Globs with `*` and `?` over the whole User-Agent, case-insensitive.
    pub user_agents: Vec<String>,
}

/// A rule: the first that matches decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    pub name: String,
    pub matches: Match,
    pub timers: Timers,
}

/// A whole policy. Immutable: a change is a new one, and running sessions keep theirs until their next refresh.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    pub name: String,
    pub mode: Mode,
    pub timers: Timers,
    pub rules: Vec<Rule>,
}

impl Policy {
    /// Observe with the default timers: what runs without any configuration.
    pub fn observe() -> Policy {
        Policy { name: "built-in".into(), mode: Mode::Observe, timers: Timers::default(), rules: Vec::new() }
    }

    /// Index of the first rule that matches.
    pub fn rule_for(&self, facts: &PeerFacts) -> Option<u16> {
        let position = self.rules.iter().position(|rule| rule.matches.holds(facts))?;
        u16::try_from(position).ok()
    }

    /// The timers of a rule, or the policy's own.
    pub fn timers(&self, rule: Option<u16>) -> &Timers {
        rule.and_then(|index| self.rules.get(usize::from(index))).map_or(&self.timers, |rule| &rule.timers)
    }

    /// Index of the rule of that name.
    pub fn rule_named(&self, name: &str) -> Option<u16> {
        let position = self.rules.iter().position(|rule| rule.name == name)?;
        u16::try_from(position).ok()
    }

    /// The name of a rule.
    pub fn rule_name(&self, rule: Option<u16>) -> Option<&str> {
        rule.and_then(|index| self.rules.get(usize::from(index))).map(|rule| rule.name.as_str())
    }
}

impl Match {
    fn holds(&self, facts: &PeerFacts) -> bool {
        let domain = |list: &[String], host: &[u8]| {
            list.is_empty() || list.iter().any(|name| name.as_bytes().eq_ignore_ascii_case(host))
        };
        self.direction.is_none_or(|direction| direction == facts.direction)
            && (self.peer_cidrs.is_empty()
                || facts
                    .peer
                    .is_some_and(|peer| self.peer_cidrs.iter().any(|cidr| cidr.contains(&peer.to_canonical()))))
            && domain(&self.from_domains, facts.from_domain)
            && domain(&self.to_domains, facts.to_domain)
            && (self.user_agents.is_empty()
                || self.user_agents.iter().any(|glob| glob_matches(glob.as_bytes(), facts.user_agent)))
    }
}

/// `*` any run, `?` any one byte. Linear in text × pattern: on a mismatch only the last `*` is tried again.
fn glob_matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut retry: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                retry = Some((p + 1, t));
                p += 1;
            }
            Some(&byte) if byte == b'?' || byte.eq_ignore_ascii_case(&text[t]) => {
                p += 1;
                t += 1;
            }
            _ => match retry {
                Some((after_star, from)) => {
                    p = after_star;
                    t = from + 1;
                    retry = Some((after_star, t));
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|&byte| byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    const FACTS: PeerFacts = PeerFacts {
        direction: Direction::Inbound,
        peer: Some(IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 7))),
        from_domain: b"Example.com",
        to_domain: b"pbx.example.net",
        user_agent: b"PolycomVVX-VVX_410-UA/5.9",
    };

    fn rule(name: &str, matches: Match) -> Rule {
        Rule { name: name.into(), matches, timers: Timers::default() }
    }

    #[test]
    fn timers_refuse_combinations_rfc_4028_forbids() {
        assert_eq!(Timers::new(1800, 89, 7200), Err(PolicyError::MinSeBelow90));
        assert_eq!(Timers::new(100, 120, 7200), Err(PolicyError::IntervalBelowMinSe));
        assert_eq!(Timers::new(1800, 120, 119), Err(PolicyError::MaxBelowMinSe));
        assert!(Timers::new(90, 90, 90).is_ok());
    }

    #[test]
    fn margin_is_a_third_of_short_intervals_and_32_s_of_long_ones() {
        assert_eq!(Margin::Rfc4028.before_ms(90), 30_000);
        assert_eq!(Margin::Rfc4028.before_ms(96), 32_000);
        assert_eq!(Margin::Rfc4028.before_ms(1800), 32_000);
        assert_eq!(Margin::Fixed(5).before_ms(90), 5_000);
        assert_eq!(Margin::Fixed(500).before_ms(90), 30_000);
    }

    #[test]
    fn first_rule_that_matches_decides() {
        let policy = Policy {
            rules: vec![
                rule("outbound", Match { direction: Some(Direction::Outbound), ..Match::default() }),
                rule("polycom", Match { user_agents: vec!["Polycom*".into()], ..Match::default() }),
                rule("all", Match::default()),
            ],
            ..Policy::observe()
        };
        assert_eq!(policy.rule_name(policy.rule_for(&FACTS)), Some("polycom"));
        let other = PeerFacts { user_agent: b"", ..FACTS };
        assert_eq!(policy.rule_name(policy.rule_for(&other)), Some("all"));
    }

    #[test]
    fn every_condition_of_a_rule_must_hold() {
        let cidr = |text: &str| vec![text.parse().expect("a CIDR")];
        let matching =
            Match { peer_cidrs: cidr("192.0.2.0/24"), from_domains: vec!["example.COM".into()], ..Match::default() };
        assert!(matching.holds(&FACTS));
        assert!(!Match { peer_cidrs: cidr("198.51.100.0/24"), ..matching.clone() }.holds(&FACTS));
        assert!(!Match { to_domains: vec!["else.example".into()], ..matching.clone() }.holds(&FACTS));
        assert!(!matching.holds(&PeerFacts { peer: None, ..FACTS }));
        let mapped = PeerFacts { peer: Some("::ffff:192.0.2.7".parse().expect("an address")), ..FACTS };
        assert!(matching.holds(&mapped), "an IPv4-mapped peer is an IPv4 peer");
    }

    #[test]
    fn globs_match_the_whole_text() {
        for (pattern, text, expected) in [
            ("Polycom*", "polycomVVX", true),
            ("Polycom*", "MyPolycom", false),
            ("*", "", true),
            ("", "", true),
            ("", "x", false),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("*VVX*5.?", "PolycomVVX-5.9", true),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-b-b-d", false),
        ] {
            assert_eq!(glob_matches(pattern.as_bytes(), text.as_bytes()), expected, "{pattern} on {text}");
        }
    }
}
