//! The messages of the simulated call, rendered once per run but for the holes that differ per call.
//!
//! One call is seven messages: INVITE, 100, 180, 200, ACK, BYE, 200; held calls may be refreshed and probed besides. The caller's tag, the Call-ID and the branches all
//! carry the call's serial, 16 hexadecimal digits, so messages of one kind have one length.

use std::net::SocketAddrV4;

use crate::wire;

/// Every message the two phones of the generator send.
pub(crate) struct Messages {
    invite: Template,
    ack: Template,
    bye: Template,
    answer: Template,
    /// What the caller's 200 to a refresh says of itself: behind UPDATE, and behind INVITE.
    refreshed: [Vec<u8>; 2],
}

/// What the phones can do.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Manners {
    /// The callee has neither session timers nor UPDATE.
    pub(crate) callee_without_timers: bool,
    /// The caller has no UPDATE.
    pub(crate) caller_without_update: bool,
}

impl Messages {
    /// Messages between a caller at `uac` and a callee at `uas`.
    pub(crate) fn new(uac: SocketAddrV4, uas: SocketAddrV4, manners: Manners) -> Self {
        let allow = |update: bool| {
            let update = if update { "UPDATE, " } else { "" };
            format!("Allow: INVITE, ACK, CANCEL, BYE, {update}OPTIONS, INFO, REFER, NOTIFY\r\n")
        };
        let (caller_allow, callee_allow) =
            (allow(!manners.caller_without_update), allow(!manners.callee_without_timers));
        let callee_timers = if manners.callee_without_timers {
            "Supported: replaces\r\n"
        } else {
            "Session-Expires: {2};refresher=uac\r\nRequire: timer\r\nSupported: timer, replaces\r\n"
        };
        let refreshed =
            format!("Contact: <sip:caller@{uac}>\r\nRequire: timer\r\nSupported: timer, replaces\r\n{caller_allow}");
        let (caller_sdp, callee_sdp) = (sdp("caller", 40_000), sdp("callee", 42_000));
        let via =
            |kind: &str| format!("Via: SIP/2.0/UDP {uac};branch=z9hG4bK{kind}{{0}};rport\r\nMax-Forwards: 70\r\n");
        let in_dialog = |method: &str, cseq: u32| {
            format!(
                "{method} sip:callee@{uas} SIP/2.0\r\n{}{{1}}\
                 From: \"Caller\" <sip:caller@example.com>;tag=a{{0}}\r\n{{2}}\
                 Call-ID: {{0}}@example.com\r\nCSeq: {cseq} {method}\r\n\
                 User-Agent: sipwarden-bench\r\nContent-Length: 0\r\n\r\n",
                via(&method.to_ascii_lowercase()[..3])
            )
        };
        Self {
            invite: Template::new(&format!(
                "INVITE sip:callee@{uas} SIP/2.0\r\n{}\
                 From: \"Caller\" <sip:caller@example.com>;tag=a{{0}}\r\nTo: \"Callee\" <sip:callee@example.com>\r\n\
                 Call-ID: {{0}}@example.com\r\nCSeq: 1 INVITE\r\nContact: <sip:caller@{uac}>\r\n\
                 Session-Expires: {{1}}\r\nMin-SE: 90\r\nSupported: timer, replaces\r\n{caller_allow}\
                 User-Agent: sipwarden-bench\r\nContent-Type: application/sdp\r\n\
                 Content-Length: {}\r\n\r\n{caller_sdp}",
                via("inv"),
                caller_sdp.len()
            )),
            ack: Template::new(&in_dialog("ACK", 1)),
            bye: Template::new(&in_dialog("BYE", 2)),
            answer: Template::new(&format!(
                "SIP/2.0 200 OK\r\n{{0}};tag=b{{1}}\r\nContact: <sip:callee@{uas}>\r\n{callee_timers}{callee_allow}\
                 Content-Type: application/sdp\r\nContent-Length: {}\r\n\r\n{callee_sdp}",
                callee_sdp.len()
            )),
            refreshed: [
                format!("{refreshed}Content-Length: 0\r\n\r\n"),
                format!(
                    "{refreshed}Content-Type: application/sdp\r\nContent-Length: {}\r\n\r\n{caller_sdp}",
                    caller_sdp.len()
                ),
            ]
            .map(String::into_bytes),
        }
    }

    /// INVITE offering a session interval of `interval_s` seconds.
    pub(crate) fn invite(&self, out: &mut Vec<u8>, serial: u64, interval_s: u32) {
        self.invite.render(out, &[&hex(serial), interval_s.to_string().as_bytes()]);
    }

    /// ACK and BYE of the dialog that `response`, the 200 to the INVITE, sets up: its route set and its To.
    pub(crate) fn ack_and_bye(&self, ack: &mut Vec<u8>, bye: &mut Vec<u8>, serial: u64, response: &[u8]) {
        let route = wire::route_lines(response);
        let to = wire::to_line(response);
        ack.clear();
        bye.clear();
        self.ack.render(ack, &[&hex(serial), &route, to]);
        self.bye.render(bye, &[&hex(serial), &route, to]);
    }

    /// 100 to the INVITE that `head` was taken from.
    pub(crate) fn trying(&self, out: &mut Vec<u8>, head: &[u8]) {
        append(out, &[b"SIP/2.0 100 Trying\r\n", head, b"\r\nContent-Length: 0\r\n\r\n"]);
    }

    /// 180 to the INVITE that `head` was taken from.
    pub(crate) fn ringing(&self, out: &mut Vec<u8>, head: &[u8], serial: u64) {
        append(out, &[b"SIP/2.0 180 Ringing\r\n", head, b";tag=b", &hex(serial), b"\r\nContent-Length: 0\r\n\r\n"]);
    }

    /// 200 to the INVITE that `head` was taken from, the caller refreshing every `interval_s` seconds.
    pub(crate) fn answer(&self, out: &mut Vec<u8>, head: &[u8], serial: u64, interval_s: u32) {
        self.answer.render(out, &[head, &hex(serial), interval_s.to_string().as_bytes()]);
    }

    /// 200 to a BYE or an OPTIONS.
    pub(crate) fn done(&self, out: &mut Vec<u8>, request: &[u8]) {
        out.extend_from_slice(b"SIP/2.0 200 OK\r\n");
        wire::response_head(request, out);
        out.extend_from_slice(b"\r\nContent-Length: 0\r\n\r\n");
    }

    /// The caller's 200 to a refresh: it takes the interval, and leaves the refreshing to who began it.
    pub(crate) fn refreshed(&self, out: &mut Vec<u8>, refresh: &[u8]) {
        let [update, invite] = &self.refreshed;
        let rest = if wire::kind(refresh) == wire::Kind::Invite { invite } else { update };
        out.extend_from_slice(b"SIP/2.0 200 OK\r\n");
        wire::response_head(refresh, out);
        append(out, &[b"\r\n", wire::session_expires_line(refresh), rest]);
    }
}

/// Text with holes written `{0}` to `{9}`.
struct Template {
    pieces: Vec<(Vec<u8>, usize)>,
    tail: Vec<u8>,
}

impl Template {
    fn new(text: &str) -> Self {
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('{') {
            let (hole, after) = after.split_once('}').expect("a hole of a template is closed");
            pieces.push((before.as_bytes().to_vec(), hole.parse().expect("a hole of a template is a number")));
            rest = after;
        }
        Self { pieces, tail: rest.as_bytes().to_vec() }
    }

    fn render(&self, out: &mut Vec<u8>, fills: &[&[u8]]) {
        for (text, hole) in &self.pieces {
            append(out, &[text, fills[*hole]]);
        }
        out.extend_from_slice(&self.tail);
    }
}

fn append(out: &mut Vec<u8>, parts: &[&[u8]]) {
    parts.iter().for_each(|part| out.extend_from_slice(part));
}

fn hex(serial: u64) -> [u8; wire::SERIAL_LEN] {
    std::array::from_fn(|index| b"0123456789abcdef"[(serial >> (60 - 4 * index)) as usize & 15])
}

fn sdp(user: &str, port: u16) -> String {
    format!(
        "v=0\r\no={user} 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio {port} RTP/AVP 8 0 101\r\n\
         a=rtpmap:8 PCMA/8000\r\na=rtpmap:0 PCMU/8000\r\na=rtpmap:101 telephone-event/8000\r\na=fmtp:101 0-16\r\na=ptime:20\r\na=sendrecv\r\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn messages() -> Messages {
        messages_of(Manners::default())
    }

    fn messages_of(manners: Manners) -> Messages {
        Messages::new("127.0.0.1:5060".parse().unwrap(), "127.0.0.1:5070".parse().unwrap(), manners)
    }

    #[test]
    fn a_callee_without_timers_answers_nothing_of_them() {
        for (callee_without_timers, speaks) in [(false, true), (true, false)] {
            let mut answer = Vec::new();
            let manners = Manners { callee_without_timers, ..Manners::default() };
            messages_of(manners).answer(&mut answer, b"To: <sip:callee@example.com>", 1, 90);
            let text = String::from_utf8(answer).unwrap();
            assert_eq!(text.contains("timer"), speaks, "{text}");
            assert_eq!(text.contains("Session-Expires: 90;refresher=uac\r\n"), speaks, "{text}");
            assert_eq!(text.contains("UPDATE"), speaks, "{text}");
        }
    }

    #[test]
    fn a_refresh_is_answered_with_its_own_interval_and_a_body_where_it_has_one() {
        for (method, body) in [("UPDATE", false), ("INVITE", true)] {
            let refresh = format!(
                "{method} sip:a SIP/2.0\r\nVia: 1\r\nTo: <sip:b>;tag=1\r\nCSeq: 7 {method}\r\n\
                 Session-Expires: 90;refresher=uac\r\n\r\n"
            );
            let mut answer = Vec::new();
            messages().refreshed(&mut answer, refresh.as_bytes());
            let text = String::from_utf8(answer).unwrap();
            assert!(text.contains("tag=1\r\nSession-Expires: 90;refresher=uac\r\nContact: "), "{text}");
            assert_eq!(text.ends_with("a=sendrecv\r\n"), body, "{text}");
        }
    }

    #[test]
    fn an_invite_is_about_800_bytes_and_carries_its_serial() {
        let mut invite = Vec::new();
        messages().invite(&mut invite, 0xabc, 1800);
        assert!((750..850).contains(&invite.len()), "{} bytes", invite.len());
        assert_eq!(wire::serial(&invite), Some(0xabc));
    }

    #[test]
    fn in_dialog_requests_follow_the_record_route_in_reverse() {
        let response = b"SIP/2.0 200 OK\r\nRecord-Route: <sip:near;lr>, <sip:mid;lr>\r\nRecord-Route: <sip:far;lr>\r\n\
                         To: <sip:callee@example.com>;tag=b1\r\n\r\n";
        let (mut ack, mut bye) = (Vec::new(), Vec::new());
        messages().ack_and_bye(&mut ack, &mut bye, 1, response);
        let expected = "Route: <sip:far;lr>\r\nRoute: <sip:mid;lr>\r\nRoute: <sip:near;lr>\r\n";
        for request in [ack, bye] {
            let text = String::from_utf8(request).unwrap();
            assert!(text.contains(expected), "{text}");
            assert!(text.contains("To: <sip:callee@example.com>;tag=b1\r\n"), "{text}");
        }
    }
}
