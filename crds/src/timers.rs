//! The timer settings of a policy, whole ([`Timers`]) and as a rule overrides them ([`TimerOverrides`]).
//!
//! The doc comments of fields are what `kubectl explain` prints.

use std::{borrow::Cow, fmt, str::FromStr};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{
    duration::{Duration, FromText, ParseDurationError},
    is_default,
};

/// The least session interval and Min-SE there may be (RFC 4028 §4).
pub(crate) const LEAST_MIN_SE: Duration = Duration::constant(90);

/// How sessions are timed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[schemars(extend("x-kubernetes-validations" = [
    {
        "rule": "duration(self.minSE) >= duration('90s')",
        "message": "minSE is below 90s, the least RFC 4028 section 4 allows",
        "fieldPath": ".minSE",
    },
    {
        "rule": "duration(self.sessionExpires) >= duration(self.minSE)",
        "message": "sessionExpires is below minSE",
        "fieldPath": ".sessionExpires",
    },
    {
        "rule": "duration(self.maxMinSE) >= duration(self.minSE)",
        "message": "maxMinSE is below minSE",
        "fieldPath": ".maxMinSE",
    },
    {
        "rule": "self.expiry.margin == 'Rfc4028' || duration(self.expiry.margin) < duration(self.sessionExpires)",
        "message": "expiry.margin is not below sessionExpires",
        "fieldPath": ".expiry.margin",
    },
]))]
pub struct Timers {
    /// The session interval put into a request that has none, and the longest one accepted from others. A longer one is
    /// lowered to it. Example: 30m.
    pub session_expires: Duration,

    /// The shortest session interval accepted, at least 90s. What happens to a request that asks for less is decided by
    /// belowMinSE. Example: 90s.
    #[serde(rename = "minSE")]
    pub min_se: Duration,

    /// The highest Min-SE followed when someone answers 422 and asks for a longer interval; beyond it the 422 stands.
    /// Example: 2h.
    #[serde(rename = "maxMinSE")]
    pub max_min_se: Duration,

    /// What happens to a request whose session interval is below minSE. Reject answers 422 with Min-SE where the caller
    /// supports timers, and raises the interval where it does not; Raise raises it for both.
    #[serde(rename = "belowMinSE")]
    pub below_min_se: BelowMinSe,

    /// Who shall refresh a session when the request leaves it open. PeerChoice leaves it to the called side; Local is the
    /// application beside the sidecar, Remote the other party; Caller and Callee are the sides of the call. A refresher
    /// that a request names is never changed.
    pub refresher: Refresher,

    /// What happens to a request whose Session-Expires or Min-SE cannot be read. Forward passes it on untouched, and the
    /// call has a timer only if the answer names one; Reject answers it with 400.
    pub malformed: Malformed,

    /// What happens when nobody refreshes a session in time.
    pub expiry: Expiry,
}

/// The settings of [`Timers`] that a rule sets otherwise; what it leaves out comes from the policy's own timers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "!has(self.minSE) || duration(self.minSE) >= duration('90s')",
    "message": "minSE is below 90s, the least RFC 4028 section 4 allows",
    "fieldPath": ".minSE",
}]))]
pub struct TimerOverrides {
    /// Instead of the policy's sessionExpires. Example: 10m.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Duration")]
    pub session_expires: Option<Duration>,

    /// Instead of the policy's minSE, at least 90s. Example: 5m.
    #[serde(rename = "minSE", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Duration")]
    pub min_se: Option<Duration>,

    /// Instead of the policy's maxMinSE. Example: 1h.
    #[serde(rename = "maxMinSE", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Duration")]
    pub max_min_se: Option<Duration>,

    /// Instead of the policy's belowMinSE: Reject or Raise.
    #[serde(rename = "belowMinSE", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "BelowMinSe")]
    pub below_min_se: Option<BelowMinSe>,

    /// Instead of the policy's refresher: PeerChoice, Local, Remote, Caller or Callee.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Refresher")]
    pub refresher: Option<Refresher>,

    /// Instead of the policy's malformed: Forward or Reject.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Malformed")]
    pub malformed: Option<Malformed>,

    /// Instead of the policy's expiry; each of its fields alone.
    #[serde(skip_serializing_if = "is_default")]
    pub expiry: ExpiryOverrides,
}

/// What happens to a request whose session interval is below the minimum (RFC 4028 §8.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum BelowMinSe {
    /// 422 with Min-SE, where the caller supports timers.
    #[default]
    Reject,
    /// Min-SE and Session-Expires are raised to the minimum.
    Raise,
}

/// Which side is to refresh a session when the request leaves it open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Refresher {
    /// The called side chooses; nothing is added.
    #[default]
    PeerChoice,
    /// The application beside the sidecar.
    Local,
    /// The other party.
    Remote,
    /// The side that sent the first INVITE.
    Caller,
    /// The side that answered the first INVITE.
    Callee,
}

/// What happens to a request whose Session-Expires or Min-SE cannot be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Malformed {
    /// It passes untouched.
    #[default]
    Forward,
    /// It is answered with 400.
    Reject,
}

/// What happens when nobody refreshes a session in time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Expiry {
    /// Bye ends the call on both sides; Report only counts and logs it.
    pub action: ExpiryAction,

    /// How long before the end of the session interval a session that was not refreshed is given up. Rfc4028 is 32s or a
    /// third of the interval, whichever is less; else a duration, of which never more counts than a third of the
    /// interval. Example: 5s, for phones that refresh late.
    pub margin: Margin,
}

/// The settings of [`Expiry`] that a rule sets otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ExpiryOverrides {
    /// Instead of the policy's action: Bye or Report.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "ExpiryAction")]
    pub action: Option<ExpiryAction>,

    /// Instead of the policy's margin: Rfc4028 or a duration. Example: 5s.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Margin")]
    pub margin: Option<Margin>,
}

/// What is done to a session that expired.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ExpiryAction {
    /// BYE to both legs.
    #[default]
    Bye,
    /// It is counted and logged; the call goes on.
    Report,
}

/// How long before the end of the interval a session without refresh is given up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Margin {
    /// The lesser of 32 seconds and a third of the session interval (RFC 4028 §10).
    #[default]
    Rfc4028,
    /// This long.
    Fixed(Duration),
}

impl Default for Timers {
    fn default() -> Self {
        Self {
            session_expires: Duration::constant(1800),
            min_se: LEAST_MIN_SE,
            max_min_se: Duration::constant(7200),
            below_min_se: BelowMinSe::default(),
            refresher: Refresher::default(),
            malformed: Malformed::default(),
            expiry: Expiry::default(),
        }
    }
}

impl TimerOverrides {
    /// These settings where they are given, `inherited` where they are not.
    pub fn over(&self, inherited: &Timers) -> Timers {
        Timers {
            session_expires: self.session_expires.unwrap_or(inherited.session_expires),
            min_se: self.min_se.unwrap_or(inherited.min_se),
            max_min_se: self.max_min_se.unwrap_or(inherited.max_min_se),
            below_min_se: self.below_min_se.unwrap_or(inherited.below_min_se),
            refresher: self.refresher.unwrap_or(inherited.refresher),
            malformed: self.malformed.unwrap_or(inherited.malformed),
            expiry: Expiry {
                action: self.expiry.action.unwrap_or(inherited.expiry.action),
                margin: self.expiry.margin.unwrap_or(inherited.expiry.margin),
            },
        }
    }
}

impl FromStr for Margin {
    type Err = ParseDurationError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "Rfc4028" { Ok(Self::Rfc4028) } else { text.parse().map(Self::Fixed) }
    }
}

impl fmt::Display for Margin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rfc4028 => f.write_str("Rfc4028"),
            Self::Fixed(duration) => duration.fmt(f),
        }
    }
}

impl Serialize for Margin {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Margin {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(FromText::new("Rfc4028 or a duration such as 5s"))
    }
}

impl JsonSchema for Margin {
    fn schema_name() -> Cow<'static, str> {
        "Margin".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let duration = Duration::PATTERN.trim_start_matches("^(").trim_end_matches(")$");
        json_schema!({
            "type": "string",
            "pattern": format!("^(Rfc4028|{duration})$"),
            "maxLength": Duration::MAX_LENGTH,
        })
    }
}
