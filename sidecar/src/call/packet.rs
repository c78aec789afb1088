//! A SIP message that came, kept whole, with the accessors a user agent needs.

use std::net::SocketAddr;

use anyhow::Context;
use sipwarden_sip::{HeaderName, Message, ParseError, Slots};

/// A message and who sent it.
#[derive(Debug)]
pub(crate) struct Packet {
    pub(crate) bytes: Vec<u8>,
    pub(crate) from: SocketAddr,
}

/// What a 2xx to an INVITE tells about later requests (RFC 3261 §12.1.2).
#[derive(Clone, Debug)]
pub(crate) struct Route {
    /// The remote target.
    pub(crate) target: String,
    /// The route set, nearest hop first; may be empty.
    pub(crate) hops: Vec<String>,
}

impl Packet {
    /// Lets `read` look at the message.
    ///
    /// # Errors
    /// It is none.
    pub(crate) fn read<R>(&self, read: impl FnOnce(&Message) -> R) -> Result<R, ParseError> {
        let mut slots = Slots::new();
        Ok(read(&Message::parse(&self.bytes, &mut slots)?))
    }

    /// The value of the first header of that name.
    pub(crate) fn first(&self, name: HeaderName) -> anyhow::Result<String> {
        self.all(name)?.into_iter().next().with_context(|| format!("{} is missing", name.as_str()))
    }

    /// The values of all headers of that name.
    pub(crate) fn all(&self, name: HeaderName) -> anyhow::Result<Vec<String>> {
        Ok(self.read(|message| message.all(name).map(|header| text(header.value)).collect())?)
    }

    /// The start line without its end.
    pub(crate) fn start_line(&self) -> String {
        text(self.bytes.split(|&byte| byte == b'\r' || byte == b'\n').next().unwrap_or_default())
    }

    /// Where requests of the caller within the dialog go, when this is the 2xx that made it.
    pub(crate) fn route(&self) -> anyhow::Result<Route> {
        let route = self.read(|message| {
            let target = message.contact().map(|contact| text(contact.uri));
            let mut hops: Vec<String> = message.elements(HeaderName::RecordRoute).map(|(_, hop)| text(hop)).collect();
            hops.reverse();
            target.map(|target| Route { target, hops })
        })?;
        route.context("the 200 has no Contact, so nothing can be sent within its dialog (RFC 3261 §12.1.1)")
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_route_set_of_the_caller_is_record_route_backwards() {
        let bytes = b"SIP/2.0 200 OK\r\nRecord-Route: <sip:a;lr>, <sip:b;lr>\r\nRecord-Route: <sip:c;lr>\r\n\
                      Contact: <sip:x@192.0.2.1:5070>\r\n\r\n";
        let packet = Packet { bytes: bytes.to_vec(), from: SocketAddr::from(([192, 0, 2, 1], 5060)) };
        let route = packet.route().expect("a route");
        assert_eq!(route.hops, ["<sip:c;lr>", "<sip:b;lr>", "<sip:a;lr>"]);
        assert_eq!(route.target, "sip:x@192.0.2.1:5070");
        assert_eq!(packet.start_line(), "SIP/2.0 200 OK");
    }
}
