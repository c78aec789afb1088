//! What happens to a session that nobody refreshes.

use std::{borrow::Cow, fmt, str::FromStr};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::duration::{Duration, FromText, ParseDurationError};

/// What happens when nobody refreshes a session in time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum ExpiryAction {
    /// BYE to both legs.
    #[default]
    Bye,
    /// It is counted and logged; the call goes on.
    Report,
}

/// How long before the end of the interval a session without refresh is given up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Margin {
    /// The lesser of 32 seconds and a third of the session interval (RFC 4028 §10).
    #[default]
    Rfc4028,
    /// This long.
    Fixed(Duration),
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
