//! How the sidecar refreshes sessions, and for whom.

use std::{borrow::Cow, fmt};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, de};

/// How a refresh is sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum RefreshMethod {
    /// UPDATE where the peer allows it, else re-INVITE.
    #[default]
    Auto,
    /// UPDATE without a body.
    Update,
    /// INVITE inside the dialog, with the session description in force.
    ReInvite,
}

/// Whether the sidecar is the RFC 4028 half of the application.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum ActForApp {
    /// For an application that does not say `Supported: timer`.
    #[default]
    Auto,
    /// For one that does as well, whose own timer headers are taken out.
    Always,
    /// Timers are the application's.
    Never,
}

/// What happens where neither side knows timers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum WithoutPeerSupport {
    /// The remote side is refreshed all the same.
    #[default]
    Refresh,
    /// The call has no timer.
    Skip,
}

/// How the application is asked whether it still has a call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum AppProbe {
    /// OPTIONS inside the dialog.
    #[default]
    Options,
    /// It is not asked.
    None,
}

/// By how much of the time to a refresh it may come earlier, in percent, at most [`Self::MAX_PERCENT`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Jitter(u8);

impl Jitter {
    /// Beyond it refreshes would come twice as often as they need to.
    pub const MAX_PERCENT: u8 = 50;

    /// `percent` percent, or none if that is beyond [`Self::MAX_PERCENT`].
    pub const fn from_percent(percent: u8) -> Option<Self> {
        if percent <= Self::MAX_PERCENT { Some(Self(percent)) } else { None }
    }

    /// From 0 to [`Self::MAX_PERCENT`].
    pub const fn percent(self) -> u8 {
        self.0
    }
}

impl Default for Jitter {
    fn default() -> Self {
        Self(10)
    }
}

impl<'de> Deserialize<'de> for Jitter {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_u8(JitterVisitor)
    }
}

struct JitterVisitor;

impl de::Visitor<'_> for JitterVisitor {
    type Value = Jitter;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a whole number of percent from 0 to {}", Jitter::MAX_PERCENT)
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Jitter, E> {
        let percent = u8::try_from(number).ok().and_then(Jitter::from_percent);
        percent.ok_or_else(|| E::invalid_value(de::Unexpected::Unsigned(number), &self))
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<Jitter, E> {
        let number = u64::try_from(number).map_err(|_| E::invalid_value(de::Unexpected::Signed(number), &self))?;
        self.visit_u64(number)
    }
}

impl JsonSchema for Jitter {
    fn schema_name() -> Cow<'static, str> {
        "Jitter".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "integer", "format": "int32", "minimum": 0, "maximum": Self::MAX_PERCENT })
    }
}
