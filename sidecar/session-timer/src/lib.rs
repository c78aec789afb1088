//! RFC 4028 session timers as a sans-IO state machine over the dialogs that pass a sidecar.
//!
//! Every [`SipMessage`](sipwarden_sip::Message) that belongs to a call is shown to [`Dialogs::handle_message`] before it is
//! forwarded; the verdict says whether it goes on (with the edits added) or is answered here. Time comes in as an
//! argument ([`Time`]), time-outs through [`Dialogs::handle_timeout`], and what must be sent or told leaves through
//! [`Dialogs::poll_action`], which the owner drains after every call.
//!
//! ```text
//!               INVITE            2xx              refresh 2xx (re-arms)
//!   (nothing) ────────► setup ────────► session ◄───────────────┐
//!                                        │  │  └────────────────┘
//!                          BYE, 481, …   │  │  no refresh until interval − margin
//!                                        ▼  ▼
//!                                       ended (kept a while: late requests get 481 after expiry)
//! ```
//!
//! Owns: negotiation, dialog state, deadlines, the requests we originate. Must not know: sockets, clocks, DNS, metric names.

mod acting;
mod challenge;
mod client;
mod dialogs;
mod event;
mod identity;
mod judgment;
mod leg;
mod media;
mod negotiation;
mod numbering;
mod policy;
mod session;
mod setup;
mod time;
mod view;
mod wheel;

pub use acting::NextStep;
pub use dialogs::{
    Action, Arrival, CallKey, Config, Context, Dialogs, Endpoint, Limits, RECORD_ROUTES, Resend, Transmit, VerbError,
    Verdict,
};
pub use event::{ByeOutcome, EndCause, Event, EventKind, HeaderKind, LimitKind, NoRefresh};
pub use judgment::{Judged, RequestFacts};
pub use leg::{Flow, Leg};
pub use media::SdpUnusable;
pub use policy::{
    ActForApp, AppProbe, BelowMinSe, Credentials, Direction, ExpiryAction, Malformed, Margin, Match, Mode, PeerFacts,
    Policy, PolicyError, RefreshMethod, RefresherPreference, Rule, Seconds, Timers, WithoutPeerSupport,
};
pub use session::SessionId;
pub use time::Time;
pub use view::{ActingView, LegView, SessionState, SessionView, TimedEvent};
