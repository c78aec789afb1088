//! Properties that hold for any bytes, checked against slow references where there is one.

use proptest::collection::vec;
use proptest::prelude::*;
use sipwarden_sip::build::Responder;
use sipwarden_sip::check::{check, max_forwards};
use sipwarden_sip::frame::{Frame, FrameError, Framer};
use sipwarden_sip::value::{CSeq, NameAddr, RefresherParam, SessionExpires, Uri, Via, param, parse_delta};
use sipwarden_sip::{Edits, HeaderName, Message, ParseError, Slots};

/// Pieces that make parsers branch, and a few bytes of noise.
fn fragments() -> impl Strategy<Value = Vec<u8>> {
    let known = prop::sample::select(vec![
        "SIP/2.0/UDP a:5060;branch=z9hG4bK1",
        "<sip:a@[::1]:5060;lr?x=y>",
        "\"q \\\" , ;\"",
        "\"",
        "<",
        ">",
        ",",
        ";",
        "=",
        ":",
        "@",
        "tag=1",
        "1 INVITE",
        "4294967296",
        "-1",
        "90",
        "timer",
        "sip:",
        "tel:1",
        "\r\n ",
        "\n\t",
        " ",
        "\\",
        "\0",
        "é",
        "*",
        "/",
    ]);
    let piece = prop_oneof![4 => known.prop_map(|text| text.as_bytes().to_vec()), 1 => vec(any::<u8>(), 0..4)];
    vec(piece, 0..8).prop_map(|pieces| pieces.concat())
}

/// Something between a good message and noise.
fn almost_message() -> impl Strategy<Value = Vec<u8>> {
    let start = prop::sample::select(vec![
        "INVITE sip:b@x SIP/2.0",
        "SIP/2.0 200 OK",
        "ACK  a  SIP/2.0 ",
        "FOO urn:x SIP/7.0",
        "SIP/2.0 99",
        "x",
        "",
        "\r\n",
    ]);
    let name = prop::sample::select(vec![
        "Via",
        "v",
        "From",
        "To",
        "t",
        "Call-ID",
        "CSeq",
        "Max-Forwards",
        "Route",
        "m",
        "l",
        "Content-Length",
        "x",
        "Session-Expires",
        "Min-SE",
        "k",
        "Require",
        "X-Other",
        "",
        " ",
    ]);
    let colon = prop::sample::select(vec![":", ": ", " : ", ":\r\n ", ""]);
    let line_end = prop::sample::select(vec!["\r\n", "\r\n", "\r\n", "\n", "\r", ""]);
    let line = (name, colon, fragments(), line_end)
        .prop_map(|(name, colon, value, end)| [name.as_bytes(), colon.as_bytes(), &value, end.as_bytes()].concat());
    let end = prop::sample::select(vec!["\r\n", "\n", ""]);
    (start, vec(line, 0..12), end, vec(any::<u8>(), 0..20)).prop_map(|(start, lines, end, body)| {
        [start.as_bytes(), b"\r\n", &lines.concat(), end.as_bytes(), &body].concat()
    })
}

fn any_bytes() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![1 => vec(any::<u8>(), 0..200), 4 => almost_message()]
}

/// Calls every accessor there is.
fn read_everything(message: &Message) {
    let _ =
        (message.method(), message.status(), message.request_uri(), message.body(), message.call_id(), message.cseq());
    let _ = (
        message.from_tag(),
        message.to_tag(),
        message.contact().map(|contact| contact.parse_uri().map(|uri| uri.ip())),
    );
    let _ = (message.session_expires(), message.min_se(), max_forwards(message), check(message));
    let _ = message.top_via().map(|via| (via.branch, via.params_offset()));
    for name in HeaderName::ALL {
        assert_eq!(message.count(name), message.headers().filter(|header| header.name == name).count());
        assert_eq!(
            message.first(name).map(|header| header.line_start),
            message.all(name).next().map(|line| line.line_start)
        );
        let _ = message.has_token(name, "timer");
        for (offset, element) in message.elements(name) {
            assert_eq!(&message.bytes()[offset..offset + element.len()], element);
            assert!(!element.is_empty());
            read_value(element);
        }
    }
}

fn read_value(value: &[u8]) {
    let _ = (CSeq::parse(value), SessionExpires::parse(value), parse_delta(value), param(value, "tag"));
    let _ = (NameAddr::parse(value), Uri::parse(value).map(|uri| (uri.ip(), uri.param("lr"))), Via::parse(value, 0));
}

/// Everything that may be done to a message.
fn change_everything(message: &Message, out: &mut Vec<u8>) {
    for name in HeaderName::ALL {
        let mut edits = Edits::new();
        edits.add_token(message, name, "timer");
        edits.prepend_header(message, name, &[b"x"]);
        edits.render(message, out);
        edits.clear();
        edits.remove_first_elements(message, name, 2);
        edits.append_header(message, name, &[b"x"]);
        edits.render(message, out);
        edits.clear();
        edits.set_header(message, name, &[b"x"]);
        edits.render(message, out);
    }
    let responder = Responder::new(1);
    responder.respond(message, 400, "Bad Request", b";received=192.0.2.1;rport=5060", b"", out);
    let _ = responder.owns_ack(message);
}

/// What a stream gives: its messages with the pings before each, and how it ends.
type Stream = (Vec<(Vec<u8>, usize)>, usize, Option<FrameError>);

fn framed(chunks: &[&[u8]]) -> Stream {
    let (mut framer, mut buffer) = (Framer::default(), Vec::new());
    let (mut messages, mut pings) = (Vec::new(), 0);
    for chunk in chunks {
        buffer.extend_from_slice(chunk);
        loop {
            let consumed = match framer.next(&buffer) {
                Ok(Frame::Message { skip, len }) => {
                    messages.push((buffer[skip..skip + len].to_vec(), std::mem::take(&mut pings)));
                    skip + len
                }
                Ok(Frame::Ping { len }) => {
                    pings += 1;
                    len
                }
                Ok(Frame::Blank { len }) => len,
                Ok(Frame::Incomplete) => break,
                Err(error) => return (messages, pings, Some(error)),
            };
            assert!(consumed > 0);
            buffer.drain(..consumed);
        }
    }
    (messages, pings, None)
}

fn cut<'a>(bytes: &'a [u8], cuts: &[prop::sample::Index]) -> Vec<&'a [u8]> {
    let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
    at.extend([0, bytes.len()]);
    at.sort_unstable();
    at.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect()
}

fn stream() -> impl Strategy<Value = Vec<u8>> {
    let body = vec(any::<u8>(), 0..30);
    let length = prop::sample::select(vec!["Content-Length: ", "l:", "L :\r\n "]);
    let message = (length, body).prop_map(|(length, body)| {
        let head = format!("BYE sip:a SIP/2.0\r\nTo: a\r\n{length}{}\r\nX: y\r\n\r\n", body.len());
        [head.as_bytes(), &body].concat()
    });
    let between =
        prop::sample::select(vec!["\r\n", "\r\n\r\n", "\n", "\r\n\n"]).prop_map(|text| text.as_bytes().to_vec());
    vec(prop_oneof![message, between, almost_message()], 0..6).prop_map(|items| items.concat())
}

/// RFC 4028 §4 said slowly: characters instead of bytes, no shared code.
fn slow_session_expires(text: &str) -> Option<(u32, Option<RefresherParam>)> {
    const TOKEN: &str = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-.!%*_+`'~";
    let (mut segments, mut quoted, mut escaped) = (vec![String::new()], false, false);
    for c in text.chars() {
        let was_escaped = escaped;
        escaped = quoted && c == '\\' && !was_escaped;
        quoted ^= c == '"' && !was_escaped;
        if c == ';' && !quoted {
            segments.push(String::new());
        } else {
            segments.last_mut()?.push(c);
        }
    }
    let white = [' ', '\t', '\r', '\n'];
    let number = segments[0].trim_matches(white);
    if number.is_empty() || !number.chars().all(|c| c.is_ascii_digit()) {
        return None;
    }
    let delta =
        number.chars().try_fold(0u128, |sum, c| (sum < 1 << 40).then_some(sum * 10 + u128::from(c.to_digit(10)?)))?;
    let mut refreshers = Vec::new();
    for segment in segments[1..].iter().map(|segment| segment.trim_matches(white)).filter(|segment| !segment.is_empty())
    {
        let (name, value) = match segment.split_once('=') {
            Some((name, value)) => (name.trim_matches(white), Some(value.trim_matches(white))),
            None => (segment, None),
        };
        let token =
            |text: &str, more: &str| !text.is_empty() && text.chars().all(|c| TOKEN.contains(c) || more.contains(c));
        let string = |text: &str| {
            let inner = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).filter(|_| text.len() > 1)?;
            let mut escaped = false;
            let closed_early = inner.chars().any(|c| {
                let early = c == '"' && !escaped;
                escaped = c == '\\' && !escaped;
                early
            });
            (!closed_early && !escaped).then_some(())
        };
        if !token(name, "") || value.is_some_and(|value| !token(value, "[]:") && string(value).is_none()) {
            return None;
        }
        if name.to_lowercase() == "refresher" {
            refreshers.push(match value?.to_lowercase().as_str() {
                "uac" => RefresherParam::Uac,
                "uas" => RefresherParam::Uas,
                _ => return None,
            });
        }
    }
    (refreshers.len() < 2).then_some((u32::try_from(delta).ok()?, refreshers.first().copied()))
}

fn session_expires_text() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "1800",
        "90",
        "0",
        "4294967295",
        "4294967296",
        "-1",
        "abc",
        ";",
        ";",
        ";",
        "=",
        "refresher=uas",
        "refresher = uac",
        "REFRESHER=UAS",
        "refresher",
        "uas",
        " ",
        "\r\n ",
        "\t",
        "\"",
        "\"a;b\"",
        "\\",
        "x",
        "a=b",
        "a=[::1]",
        ",",
        "\"\\\"\"",
    ]);
    (prop::sample::select(vec!["1800", "", " 90 ", "00090"]), vec(piece, 0..8))
        .prop_map(|(start, pieces)| start.to_owned() + &pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    #[test]
    fn no_bytes_panic(bytes in any_bytes(), value in fragments()) {
        let mut slots = Slots::new();
        if let Ok(message) = Message::parse_head(&bytes, &mut slots) {
            read_everything(&message);
            change_everything(&message, &mut Vec::new());
        }
        if let Ok(message) = Message::parse(&bytes, &mut slots) {
            read_everything(&message);
        }
        read_value(&value);
        read_value(&bytes);
    }

    #[test]
    fn unedited_messages_leave_as_they_came(bytes in any_bytes()) {
        let mut slots = Slots::new();
        if let Ok(message) = Message::parse(&bytes, &mut slots) {
            let mut out = Vec::new();
            Edits::new().render(&message, &mut out);
            let leading = bytes.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
            prop_assert!(bytes[leading..].starts_with(&out));
            prop_assert_eq!(out, message.bytes());
        }
    }

    #[test]
    fn edits_equal_a_naive_splice(
        cuts in vec(any::<prop::sample::Index>(), 0..12),
        texts in vec("[a-z]{0,5}", 6),
        order in Just((0..6).collect::<Vec<usize>>()).prop_shuffle(),
    ) {
        let original = b"BYE sip:a SIP/2.0\r\nTo: x\r\nX: y\r\n\r\n";
        let mut slots = Slots::new();
        let message = Message::parse(original, &mut slots).unwrap();
        let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(original.len() + 1)).collect();
        at.sort_unstable();
        // Every second gap is edited, so that neighbours may touch but never overlap.
        let ranges: Vec<_> = at.chunks_exact(2).map(|pair| pair[0]..pair[1]).collect();
        let mut edits = Edits::new();
        let mut expected = Vec::new();
        for (range, text) in order.iter().filter_map(|index| Some((ranges.get(*index)?, &texts[*index]))) {
            edits.replace(range.clone(), &[text.as_bytes()]);
            expected.push((range, text));
        }
        expected.sort_by_key(|(range, _)| (range.start, range.end));
        let mut spliced = original.to_vec();
        for (range, text) in expected.into_iter().rev() {
            spliced.splice(range.clone(), text.bytes());
        }
        let mut out = Vec::new();
        edits.render(&message, &mut out);
        prop_assert_eq!(out, spliced);
    }

    #[test]
    fn an_added_token_joins_the_list_and_changes_nothing_else(
        lists in vec(prop::sample::select(vec!["", " ", "a", "a,b", " a ,\r\n b", "a,", ",a", "TIMER", "x,timer"]), 0..4),
    ) {
        let lines: String = lines_of("Require", &lists);
        let text = format!("BYE sip:a SIP/2.0\r\nTo: x\r\n{lines}From: y\r\n\r\n");
        let (mut slots, mut out) = (Slots::new(), Vec::new());
        let message = Message::parse(text.as_bytes(), &mut slots).unwrap();
        let mut edits = Edits::new();
        edits.add_token(&message, HeaderName::Require, "timer");
        edits.render(&message, &mut out);
        let mut after_slots = Slots::new();
        let after = Message::parse(&out, &mut after_slots).unwrap();
        let tokens = |message: &Message| -> Vec<String> {
            message.elements(HeaderName::Require).map(|(_, token)| String::from_utf8_lossy(token).to_lowercase()).collect()
        };
        let (mut before, mut now) = (tokens(&message), tokens(&after));
        prop_assert!(now.contains(&"timer".to_owned()));
        if !before.contains(&"timer".to_owned()) {
            before.push("timer".to_owned());
        }
        before.sort();
        now.sort();
        prop_assert_eq!(before, now);
        prop_assert_eq!((after.to().unwrap().uri, after.from().unwrap().uri), (&b"x"[..], &b"y"[..]));
        prop_assert!(edits.is_empty() == (out == text.as_bytes()));
    }

    #[test]
    fn removed_elements_are_the_first_ones(
        lists in vec(prop::sample::select(vec!["", "<sip:a,b>", "<sip:c>,<sip:d>", " <sip:e> ,\r\n <sip:f>,", "\"g,\" <sip:g>"]), 0..4),
        count in 0usize..8,
    ) {
        let text = format!("BYE sip:a SIP/2.0\r\nTo: x\r\n{}From: y\r\n\r\n", lines_of("Route", &lists));
        let (mut slots, mut out) = (Slots::new(), Vec::new());
        let message = Message::parse(text.as_bytes(), &mut slots).unwrap();
        let mut edits = Edits::new();
        edits.remove_first_elements(&message, HeaderName::Route, count);
        edits.render(&message, &mut out);
        let mut after_slots = Slots::new();
        let after = Message::parse(&out, &mut after_slots).unwrap();
        let left: Vec<_> = after.elements(HeaderName::Route).map(|(_, route)| route).collect();
        let expected: Vec<_> = message.elements(HeaderName::Route).map(|(_, route)| route).skip(count).collect();
        prop_assert_eq!(left, expected);
        prop_assert_eq!((after.to().unwrap().uri, after.from().unwrap().uri), (&b"x"[..], &b"y"[..]));
    }

    #[test]
    fn framing_does_not_depend_on_the_chunks(bytes in stream(), cuts in vec(any::<prop::sample::Index>(), 0..20)) {
        let whole = framed(&[&bytes]);
        prop_assert_eq!(framed(&cut(&bytes, &cuts)), whole.clone());
        prop_assert_eq!(framed(&bytes.chunks(1).collect::<Vec<_>>()), whole);
    }

    #[test]
    fn a_frame_is_one_whole_message(bytes in stream()) {
        for (frame, _) in framed(&[&bytes]).0 {
            let mut slots = Slots::new();
            match Message::parse(&frame, &mut slots) {
                Ok(message) => prop_assert!(frame.ends_with(message.bytes())),
                Err(error) => prop_assert!(matches!(error, ParseError::StartLine | ParseError::HeaderLine), "{error}"),
            }
        }
    }

    #[test]
    fn session_expires_agrees_with_a_slow_reference(text in session_expires_text()) {
        let fast = SessionExpires::parse(text.as_bytes()).ok().map(|value| (value.delta, value.refresher));
        prop_assert_eq!(fast, slow_session_expires(&text), "{:?}", text);
    }
}

fn lines_of(name: &str, values: &[&str]) -> String {
    values.iter().map(|value| format!("{name}:{value}\r\n")).collect()
}
