//! What a proxy asks of a request before it routes it (RFC 3261 §16.3), and the answers to those it refuses.

use sipwarden_sip::check::{Fault, check};
use sipwarden_sip::{HeaderName, Message, Method};

/// Why a request is answered instead of forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    Faulty(Fault),
    Hops,
    Loop,
    /// Proxy-Require: of the extensions that ask for a proxy we support `timer` only.
    Extension,
    /// Nowhere to send it. 500 and not 503, which would have the sender avoid us for other requests too
    /// (RFC 3261 §16.7 item 6).
    Unreachable,
}

impl Refusal {
    /// Status code and reason phrase.
    pub(super) fn status(self) -> (u16, &'static str) {
        match self {
            Refusal::Faulty(fault) => fault.status(),
            Refusal::Hops => (483, "Too Many Hops"),
            Refusal::Loop => (482, "Loop Detected"),
            Refusal::Extension => (420, "Bad Extension"),
            Refusal::Unreachable => (500, "Next Hop Unreachable"),
        }
    }
}

/// Is any message fit to be handled? Gives the Max-Forwards of a request.
pub(super) fn sound(message: &Message) -> Result<Option<u8>, Fault> {
    // The intake lets those pass whose Content-Length is wrong.
    if !message.is_framed() {
        return Err(Fault::BadRequest);
    }
    check(message)
}

/// Judge a request: the Max-Forwards it came with, or why it is refused.
pub(super) fn admit(message: &Message) -> Result<Option<u8>, Refusal> {
    let hops = sound(message).map_err(Refusal::Faulty)?;
    if hops == Some(0) {
        return Err(Refusal::Hops);
    }
    // In both it must be ignored (§8.2.2.3): a request that has it was answered 420 itself.
    let exempt = matches!(message.method(), Some(Method::Ack | Method::Cancel));
    if !exempt && unknown_extensions(message).next().is_some() {
        return Err(Refusal::Extension);
    }
    Ok(hops)
}

/// What a request asks of proxies beyond session timers (RFC 4028 §7.1).
fn unknown_extensions<'b>(message: &Message<'b>) -> impl Iterator<Item = &'b [u8]> {
    let asked = message.elements(HeaderName::ProxyRequire).map(|(_, extension)| extension);
    asked.filter(|extension| !extension.eq_ignore_ascii_case(b"timer"))
}

/// The header lines of the answer to a refusal: what the sender must leave out (RFC 3261 §16.3 item 5).
pub(super) fn unsupported(message: &Message, out: &mut Vec<u8>) {
    let mut separator: &[u8] = b"Unsupported: ";
    for extension in unknown_extensions(message) {
        out.extend_from_slice(separator);
        out.extend_from_slice(extension);
        separator = b", ";
    }
    out.extend_from_slice(b"\r\n");
}
