//! A message as text. Read with string operations only, so that the parser under test is not its own judge.

use std::fmt::{Display, Formatter};

use sipwarden_session_timer::Leg;
use sipwarden_sip::{Message, Slots};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wire(pub(crate) String);

impl Wire {
    /// From lines without line ends.
    pub(crate) fn of_lines<'a>(lines: impl IntoIterator<Item = &'a str>) -> Wire {
        Wire(lines.into_iter().chain(["", ""]).collect::<Vec<_>>().join("\r\n"))
    }

    pub(crate) fn of_bytes(bytes: Vec<u8>) -> Wire {
        Wire(String::from_utf8(bytes).expect("all text of these tests is ASCII"))
    }

    /// With one more header line (or several, separated by CRLF) behind the others.
    pub(crate) fn with(self, line: &str) -> Wire {
        let end = self.0.find("\r\n\r\n").expect("a message ends its headers");
        Wire(format!("{}\r\n{line}{}", &self.0[..end], &self.0[end..]))
    }

    pub(crate) fn with_all(self, lines: &[&str]) -> Wire {
        lines.iter().fold(self, |wire, line| wire.with(line))
    }

    /// With one more header line before the others.
    pub(crate) fn on_top(self, line: &str) -> Wire {
        let (start, rest) = self.0.split_once("\r\n").expect("a start line");
        Wire(format!("{start}\r\n{line}\r\n{rest}"))
    }

    /// With this session description as its body.
    pub(crate) fn with_sdp(self, sdp: &str) -> Wire {
        let bodiless = self.without("Content-Length").with("Content-Type: application/sdp");
        let wire = bodiless.with(&format!("Content-Length: {}", sdp.len()));
        Wire(wire.0 + sdp)
    }

    pub(crate) fn body(&self) -> &str {
        self.0.split_once("\r\n\r\n").map_or("", |(_, body)| body)
    }

    pub(crate) fn without(self, name: &str) -> Wire {
        Wire::of_lines(self.lines().filter(|line| !is_named(line, name)))
    }

    /// Value of the first header of exactly that name (long forms are not compact forms).
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.all(name).into_iter().next()
    }

    /// Values of all headers of that name, in order.
    pub(crate) fn all(&self, name: &str) -> Vec<&str> {
        self.lines().filter(|line| is_named(line, name)).map(|line| line[name.len() + 1..].trim()).collect()
    }

    /// Header lines that are not in `other`.
    pub(crate) fn added_to(&self, other: &Wire) -> Vec<&str> {
        self.lines().filter(|line| !other.lines().any(|known| known == *line)).collect()
    }

    pub(crate) fn start_line(&self) -> &str {
        self.lines().next().unwrap_or_default()
    }

    /// The method of a request, `SIP/2.0` of a response.
    pub(crate) fn method(&self) -> &str {
        self.start_line().split(' ').next().unwrap_or_default()
    }

    pub(crate) fn request_uri(&self) -> &str {
        self.start_line().split(' ').nth(1).unwrap_or_default()
    }

    pub(crate) fn status(&self) -> Option<u16> {
        self.start_line().strip_prefix("SIP/2.0 ")?.get(..3)?.parse().ok()
    }

    pub(crate) fn cseq(&self) -> u32 {
        let value = self.header("CSeq").expect("a CSeq");
        value.split(' ').next().and_then(|number| number.parse().ok()).expect("a CSeq number")
    }

    /// The tag in From or To.
    pub(crate) fn tag(&self, name: &str) -> Option<&str> {
        let (_, tag) = self.header(name)?.split_once(";tag=")?;
        tag.split(';').next()
    }

    /// As it leaves the router for `toward`: with its Via, and its Record-Route where a dialog may start.
    pub(crate) fn routed(&self, toward: Leg) -> Wire {
        let mut wire = self.clone();
        if self.method() == "INVITE" && self.tag("To").is_none() {
            let names = ["Record-Route: <sip:127.0.0.1:5070;lr>", "Record-Route: <sip:192.0.2.1;lr>"];
            wire = wire.on_top(names[toward.other().index()]).on_top(names[toward.index()]);
        }
        wire.on_top("Via: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bKrouter")
    }

    /// A response behind the router: without the router's Via.
    pub(crate) fn unrouted(&self) -> Wire {
        let mut taken = false;
        Wire::of_lines(
            self.lines().filter(|line| taken || !is_named(line, "Via") || std::mem::replace(&mut taken, true)),
        )
    }

    /// Would a SIP element read it? A defect when what leaves the core is not.
    pub(crate) fn assert_well_formed(&self) {
        let mut slots = Slots::new();
        let message = Message::parse(self.0.as_bytes(), &mut slots).expect("a SIP message");
        sipwarden_sip::check::check(&message).unwrap_or_else(|fault| panic!("{fault:?} in\n{self}"));
    }

    fn lines(&self) -> impl Iterator<Item = &str> {
        self.0.split("\r\n").take_while(|line| !line.is_empty())
    }
}

impl Display for Wire {
    fn fmt(&self, formatter: &mut Formatter) -> std::fmt::Result {
        formatter.write_str(&self.0)
    }
}

fn is_named(line: &str, name: &str) -> bool {
    line.split_once(':').is_some_and(|(left, _)| left.trim_end().eq_ignore_ascii_case(name))
}
