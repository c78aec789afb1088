//! SessionPolicy: what a person asks for.
//!
//! The doc comments of fields are what `kubectl explain` prints. Every list and string is bounded, so that the API server
//! can tell the cost of the CEL rules; [`crate::compile`] holds files to the same bounds.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{
    is_default,
    selector::label_selector,
    status::SessionPolicyStatus,
    timers::{TimerOverrides, Timers},
};

pub(crate) const MAX_RULES: usize = 64;
pub(crate) const MAX_MATCH_ITEMS: usize = 64;
pub(crate) const MAX_NAME: usize = 63;
pub(crate) const MAX_CIDR: usize = 43;
pub(crate) const MAX_DOMAIN: usize = 253;
pub(crate) const MAX_USER_AGENT: usize = 128;

/// How the calls of some pods are timed, and for which peers otherwise.
#[derive(Clone, Debug, Default, PartialEq, CustomResource, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "sipwarden.dev",
    version = "v1alpha1",
    kind = "SessionPolicy",
    plural = "sessionpolicies",
    namespaced,
    shortname = "sp",
    category = "sipwarden",
    derive = "PartialEq",
    doc = "One policy for the SIP session timers (RFC 4028) of the pods it selects.",
    status = "SessionPolicyStatus",
    selectable = ".spec.mode",
    printcolumn = r#"{"name":"Mode","type":"string","jsonPath":".spec.mode"}"#,
    printcolumn = r#"{"name":"Interval","type":"string","jsonPath":".spec.timers.sessionExpires"}"#,
    printcolumn = r#"{"name":"Accepted","type":"string","jsonPath":".status.conditions[?(@.type=='Accepted')].status"}"#,
    printcolumn = r#"{"name":"Programmed","type":"string","jsonPath":".status.conditions[?(@.type=='Programmed')].status"}"#,
    printcolumn = r#"{"name":"Pods","type":"integer","jsonPath":".status.pods.matched"}"#,
    printcolumn = r#"{"name":"In Step","type":"integer","jsonPath":".status.pods.inStep","priority":1}"#,
    printcolumn = r#"{"name":"Sessions","type":"integer","jsonPath":".status.sessions","priority":1}"#,
    printcolumn = r#"{"name":"Priority","type":"integer","jsonPath":".spec.priority","priority":1}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[schemars(extend("x-kubernetes-validations" = rules_over_rules()))]
pub struct SessionPolicySpec {
    /// The pods of this namespace that the policy is for; all of them if left out. A sidecar that reads the policy from a
    /// file obeys it whatever is selected. Example: matchLabels: {app: asterisk}.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "label_selector")]
    pub pod_selector: Option<LabelSelector>,

    /// Which policy is in force for a pod that several select: the one with the highest number, then the oldest, then the
    /// first by name. Example: 10.
    pub priority: i32,

    /// Enforce rejects, inserts, selects refreshers and ends calls as the policy says. Observe changes nothing and counts
    /// and logs what Enforce would have done.
    pub mode: Mode,

    /// What sidecars show of who calls whom.
    pub privacy: Privacy,

    /// How sessions are timed, unless a rule says otherwise.
    pub timers: Timers,

    /// Other timers for some peers. The first rule that matches a call wins.
    #[schemars(length(max = MAX_RULES))]
    pub rules: Vec<Rule>,
}

/// Whether the policy acts or only tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Mode {
    /// The policy acts.
    #[default]
    Enforce,
    /// Messages pass untouched; what would have been done is counted and logged.
    Observe,
}

/// What is shown of who calls whom, in logs and traces and by the sidecar's admin port. Metrics never name anybody.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Privacy {
    /// The users of SIP URIs, which are phone numbers more often than not. Redact writes sip:***@host in log lines, in
    /// spans, and in what the admin port shows to who does not ask to reveal them; Show writes them as they are. Example:
    /// Show, while a trunk is being tested.
    pub sip_users: SipUsers,
}

/// Whether the users of SIP URIs are seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum SipUsers {
    /// Only their hosts are.
    #[default]
    Redact,
    /// They are.
    Show,
}

/// Other timers for the calls that match.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Rule {
    /// Names the rule in metrics, logs and the list of sessions; no two rules share a name. Example: late-phones.
    #[schemars(length(min = 1, max = MAX_NAME), regex(pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,

    /// Which calls the rule is for: those that meet every condition given. At least one is needed.
    #[serde(rename = "match")]
    pub when: RuleMatch,

    /// The timers that differ from the policy's own. With none, matching calls keep those and no later rule is tried.
    #[serde(default, skip_serializing_if = "is_default")]
    pub timers: TimerOverrides,
}

/// Which calls a rule is for. The conditions given must all hold; of a list, one entry must.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "has(self.direction) || (has(self.peerCIDRs) && size(self.peerCIDRs) > 0) || \
        (has(self.fromDomains) && size(self.fromDomains) > 0) || (has(self.toDomains) && size(self.toDomains) > 0) || \
        (has(self.userAgents) && size(self.userAgents) > 0)",
    "message": "a rule needs at least one condition to match",
}]))]
pub struct RuleMatch {
    /// Inbound calls come from the other party to the application, Outbound ones go from the application to it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Direction")]
    pub direction: Option<Direction>,

    /// Networks of the other party: of the address its messages come from or go to. Example: 192.0.2.0/24.
    #[serde(rename = "peerCIDRs", skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = MAX_MATCH_ITEMS), inner(length(max = MAX_CIDR)))]
    #[schemars(extend("x-kubernetes-validations" = [{
        "rule": "self.all(c, isCIDR(c))",
        "message": "not a network in CIDR form such as 192.0.2.0/24 or 2001:db8::/32",
    }]))]
    pub peer_cidrs: Vec<String>,

    /// Hosts of the From URI, whole and without regard to case. Example: carrier.example.com.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = MAX_MATCH_ITEMS), inner(length(min = 1, max = MAX_DOMAIN)))]
    #[schemars(inner(regex(pattern = r"^([-._A-Za-z0-9]+|\[[0-9A-Fa-f:.]+\])$")))]
    pub from_domains: Vec<String>,

    /// Hosts of the To URI, whole and without regard to case. Example: pbx.example.com.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = MAX_MATCH_ITEMS), inner(length(min = 1, max = MAX_DOMAIN)))]
    #[schemars(inner(regex(pattern = r"^([-._A-Za-z0-9]+|\[[0-9A-Fa-f:.]+\])$")))]
    pub to_domains: Vec<String>,

    /// The caller's User-Agent, whole and without regard to case; * stands for any text, ? for one character.
    /// Example: Polycom*.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = MAX_MATCH_ITEMS), inner(length(min = 1, max = MAX_USER_AGENT)))]
    pub user_agents: Vec<String>,
}

/// Which way a call goes, seen from the application.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Direction {
    /// The application is called.
    Inbound,
    /// The application calls.
    Outbound,
}

/// CEL that needs more than one rule, or a rule and the timers it inherits.
fn rules_over_rules() -> Value {
    let timer = |name: &str| format!("(has(r.timers) && has(r.timers.{name}) ? r.timers.{name} : self.timers.{name})");
    let session_expires = timer("sessionExpires");
    let min_se = timer("minSE");
    let max_min_se = timer("maxMinSE");
    let margin = "(has(r.timers) && has(r.timers.expiry) && has(r.timers.expiry.margin) \
                  ? r.timers.expiry.margin : self.timers.expiry.margin)";
    json!([
        {
            "rule": "self.rules.all(r, self.rules.exists_one(other, other.name == r.name))",
            "message": "two rules have the same name",
            "fieldPath": ".rules",
        },
        {
            "rule": format!("self.rules.all(r, duration({session_expires}) >= duration({min_se}))"),
            "message": "a rule's sessionExpires is below its minSE, each its own or inherited",
            "fieldPath": ".rules",
        },
        {
            "rule": format!("self.rules.all(r, duration({max_min_se}) >= duration({min_se}))"),
            "message": "a rule's maxMinSE is below its minSE, each its own or inherited",
            "fieldPath": ".rules",
        },
        {
            "rule": format!(
                "self.rules.all(r, {margin} == 'Rfc4028' || duration({margin}) < duration({session_expires}))"
            ),
            "message": "a rule's expiry.margin is not below its sessionExpires, each its own or inherited",
            "fieldPath": ".rules",
        },
    ])
}
