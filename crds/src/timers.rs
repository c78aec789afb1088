//! The timer settings of a policy, whole ([`Timers`]) and as a rule overrides them ([`TimerOverrides`]).
//!
//! The doc comments of fields are what `kubectl explain` prints.

mod credentials;
mod expiry;
mod refresh;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub(crate) use self::credentials::{MAX_OBJECT_NAME, MAX_PATH, is_path, is_secret_name};
pub use self::{
    credentials::Credentials,
    expiry::{Expiry, ExpiryAction, ExpiryOverrides, Margin},
    refresh::{ActForApp, AppProbe, Jitter, RefreshMethod, WithoutPeerSupport},
};
use crate::{duration::Duration, is_default};

/// The least session interval and Min-SE there may be (RFC 4028 §4).
pub const LEAST_MIN_SE: Duration = Duration::constant(90);

/// How sessions are timed.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
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

    /// How the sidecar refreshes a session. Auto is UPDATE without a body where the peer allows UPDATE, else a re-INVITE
    /// with the session description in force; Update and ReInvite are that one alone.
    pub refresh_method: RefreshMethod,

    /// By how many percent of the time to a refresh it may come earlier, at random, so that calls which began together
    /// are not all refreshed together; 0 to 50. Example: 10, which refreshes an interval of 30m after 13m30s to 15m.
    pub refresh_jitter: Jitter,

    /// Whether the sidecar negotiates and refreshes in the application's place. Auto does so for an application that
    /// does not say Supported: timer; Always does so for one that does as well, and takes the application's own timer
    /// headers out; Never leaves timers to the application.
    pub act_for_app: ActForApp,

    /// What happens to a call of which neither side knows timers. Refresh refreshes the other party all the same, which
    /// any of them answers, so that a dead call is found; Skip leaves the call without a timer.
    pub without_peer_support: WithoutPeerSupport,

    /// How the application is asked whether it still has a call before the call is refreshed for it. Options is an
    /// OPTIONS inside the dialog; None asks nothing, so that a call which the application forgot may be kept alive.
    pub app_probe: AppProbe,

    /// What a 401 or 407 to a refresh or BYE of the sidecar's own is answered with. Without it the challenge stands, and
    /// is reported.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Credentials")]
    pub credentials: Option<Credentials>,

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

    /// Instead of the policy's refreshMethod: Auto, Update or ReInvite.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "RefreshMethod")]
    pub refresh_method: Option<RefreshMethod>,

    /// Instead of the policy's refreshJitter, in percent from 0 to 50. Example: 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Jitter")]
    pub refresh_jitter: Option<Jitter>,

    /// Instead of the policy's actForApp: Auto, Always or Never.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "ActForApp")]
    pub act_for_app: Option<ActForApp>,

    /// Instead of the policy's withoutPeerSupport: Refresh or Skip.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "WithoutPeerSupport")]
    pub without_peer_support: Option<WithoutPeerSupport>,

    /// Instead of the policy's appProbe: Options or None.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "AppProbe")]
    pub app_probe: Option<AppProbe>,

    /// Instead of the policy's credentials, whole. Example: secretName: trunk-a.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Credentials")]
    pub credentials: Option<Credentials>,

    /// Instead of the policy's expiry; each of its fields alone.
    #[serde(skip_serializing_if = "is_default")]
    pub expiry: ExpiryOverrides,
}

/// What happens to a request whose session interval is below the minimum (RFC 4028 §8.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum BelowMinSe {
    /// 422 with Min-SE, where the caller supports timers.
    #[default]
    Reject,
    /// Min-SE and Session-Expires are raised to the minimum.
    Raise,
}

/// Which side is to refresh a session when the request leaves it open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Malformed {
    /// It passes untouched.
    #[default]
    Forward,
    /// It is answered with 400.
    Reject,
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
            refresh_method: RefreshMethod::default(),
            refresh_jitter: Jitter::default(),
            act_for_app: ActForApp::default(),
            without_peer_support: WithoutPeerSupport::default(),
            app_probe: AppProbe::default(),
            credentials: None,
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
            refresh_method: self.refresh_method.unwrap_or(inherited.refresh_method),
            refresh_jitter: self.refresh_jitter.unwrap_or(inherited.refresh_jitter),
            act_for_app: self.act_for_app.unwrap_or(inherited.act_for_app),
            without_peer_support: self.without_peer_support.unwrap_or(inherited.without_peer_support),
            app_probe: self.app_probe.unwrap_or(inherited.app_probe),
            credentials: self.credentials.clone().or_else(|| inherited.credentials.clone()),
            expiry: Expiry {
                action: self.expiry.action.unwrap_or(inherited.expiry.action),
                margin: self.expiry.margin.unwrap_or(inherited.expiry.margin),
            },
        }
    }
}
