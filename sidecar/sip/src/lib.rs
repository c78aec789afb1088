//! SIP bytes to message and back (RFC 3261), for a proxy that must not mangle what it forwards.
//!
//! A message is scanned once into a header index, read through lazy accessors (`value`), changed by a
//! list of byte-range edits (`edits`) and rendered; what no edit names leaves byte for byte as it came. Messages of
//! our own are written by `build`. Stream transports cut their bytes into messages with `frame`.
//!
//! Owns: SIP syntax. Must not know: sockets, clocks, randomness, dialogs, policy.

pub mod build;
pub mod check;
mod decimal;
pub mod edits;
pub mod frame;
pub mod header;
mod index;
mod lex;
pub mod message;
pub mod method;
mod scan;
pub mod value;

pub use decimal::Decimal;
pub use edits::Edits;
pub use header::HeaderName;
pub use message::{Header, Message, ParseError, Slots, StartLine};
pub use method::Method;
