//! A SIP message as the simulated agents read and write it: plain, slow, and independent of the product's parser.

use std::net::SocketAddr;

/// Compact forms the agents write and read (RFC 3261 §7.3.3, RFC 4028 §4).
const COMPACT: [(&str, &str); 10] = [
    ("v", "Via"),
    ("f", "From"),
    ("t", "To"),
    ("i", "Call-ID"),
    ("m", "Contact"),
    ("l", "Content-Length"),
    ("c", "Content-Type"),
    ("k", "Supported"),
    ("x", "Session-Expires"),
    ("s", "Subject"),
];

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sip {
    /// Start line without its line end.
    pub start: String,
    pub headers: Vec<Line>,
    pub body: String,
}

/// One header field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Long name, lower case.
    pub name: String,
    /// Unfolded and trimmed.
    pub value: String,
    /// As it stands in the message, without the last line end.
    pub raw: String,
}

/// How an agent likes to write what may be written in several ways.
#[derive(Clone, Copy, Debug, Default)]
pub struct Style {
    pub compact: bool,
    /// `1800 ; refresher = uas`
    pub spaced: bool,
    /// `REFRESHER=UAS`
    pub upper: bool,
    /// Session-Expires over two lines.
    pub folded: bool,
}

impl Sip {
    /// A request without headers.
    pub fn request(method: &str, uri: &str) -> Sip {
        Sip { start: format!("{method} {uri} SIP/2.0"), headers: Vec::new(), body: String::new() }
    }

    /// The response to `request`, with what every response copies (RFC 3261 §8.2.6.2).
    pub fn response(request: &Sip, status: u16, tag: &str) -> Sip {
        let mut response = Sip { start: format!("SIP/2.0 {status} Status"), headers: Vec::new(), body: String::new() };
        for name in ["Via", "From", "To", "Call-ID", "CSeq"] {
            for value in request.all(name) {
                let missing_tag = name == "To" && status > 100 && request.tag("To").is_none();
                let tag = if missing_tag { format!(";tag={tag}") } else { String::new() };
                response.push(name, &format!("{value}{tag}"));
            }
        }
        response
    }

    /// Reads one; the error says what is not well-formed.
    pub fn parse(bytes: &[u8]) -> Result<Sip, String> {
        let text = std::str::from_utf8(bytes).map_err(|_| "not UTF-8")?;
        let (head, body) = text.split_once("\r\n\r\n").ok_or("no empty line")?;
        let mut lines = head.split("\r\n");
        let start = lines.next().unwrap_or_default().to_owned();
        let words = start.split(' ').count();
        if !(start.starts_with("SIP/2.0 ") && words >= 3 || start.ends_with(" SIP/2.0") && words == 3) {
            return Err(format!("start line {start:?}"));
        }
        let mut raws: Vec<String> = Vec::new();
        for line in lines {
            match raws.last_mut() {
                Some(folded) if line.starts_with([' ', '\t']) => folded.push_str(&format!("\r\n{line}")),
                _ => raws.push(line.to_owned()),
            }
        }
        let headers = raws.into_iter().map(Line::parse).collect::<Result<Vec<_>, _>>()?;
        let sip = Sip { start, headers, body: body.to_owned() };
        match sip.get("Content-Length").and_then(|length| length.parse::<usize>().ok()) {
            Some(length) if sip.body.len() == length => Ok(sip),
            length => Err(format!("Content-Length {length:?} of a body of {}", sip.body.len())),
        }
    }

    /// Adds a header field.
    pub fn push(&mut self, name: &str, value: &str) {
        self.headers.push(Line::new(name, value));
    }

    /// Adds a session description, unless it is empty.
    pub fn describe_media(&mut self, sdp: &str) {
        if !sdp.is_empty() {
            self.push("Content-Type", "application/sdp");
            self.body = sdp.to_owned();
        }
    }

    /// Adds a header field at the front.
    pub fn push_front(&mut self, name: &str, value: &str) {
        self.headers.insert(0, Line::new(name, value));
    }

    /// The bytes, with a Content-Length of their own.
    pub fn bytes(&self, style: Style) -> Vec<u8> {
        let mut text = format!("{}\r\n", self.start);
        let length = Line::new("Content-Length", &self.body.len().to_string());
        let others = self.headers.iter().filter(|line| line.name != "content-length");
        for line in others.chain([&length]) {
            let short = COMPACT.iter().find(|(_, long)| style.compact && long.eq_ignore_ascii_case(&line.name));
            match (short, line.raw.split_once(':')) {
                (Some((short, _)), Some((_, value))) => text.push_str(&format!("{short}:{value}\r\n")),
                _ => text.push_str(&format!("{}\r\n", line.raw)),
            }
        }
        text.push_str("\r\n");
        text.push_str(&self.body);
        text.into_bytes()
    }

    /// The method of a request.
    pub fn method(&self) -> Option<&str> {
        if self.status().is_some() { None } else { self.start.split(' ').next() }
    }

    /// The Request-URI of a request.
    pub fn uri(&self) -> &str {
        self.start.split(' ').nth(1).unwrap_or_default()
    }

    /// The status of a response.
    pub fn status(&self) -> Option<u16> {
        self.start.strip_prefix("SIP/2.0 ")?.get(..3)?.parse().ok()
    }

    /// The value of the first header field of that long name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.all(name).next()
    }

    /// The values of all header fields of that long name.
    pub fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        let name = name.to_ascii_lowercase();
        self.headers.iter().filter(move |line| line.name == name).map(|line| line.value.as_str())
    }

    /// The elements of a comma list over all its header fields.
    pub fn list(&self, name: &str) -> Vec<String> {
        let mut elements = Vec::new();
        for value in self.all(name) {
            let (mut quoted, mut bracketed, mut element) = (false, false, String::new());
            for letter in value.chars() {
                match letter {
                    '"' => quoted = !quoted,
                    '<' | '>' if !quoted => bracketed = letter == '<',
                    ',' if !quoted && !bracketed => {
                        elements.push(std::mem::take(&mut element));
                        continue;
                    }
                    _ => {}
                }
                element.push(letter);
            }
            elements.push(element);
        }
        elements.iter().map(|element| element.trim().to_owned()).filter(|element| !element.is_empty()).collect()
    }

    /// Is `token` in that comma list?
    pub fn lists(&self, name: &str, token: &str) -> bool {
        self.list(name).iter().any(|element| element.eq_ignore_ascii_case(token))
    }

    /// The tag of From or To.
    pub fn tag(&self, name: &str) -> Option<&str> {
        param(self.get(name)?.rsplit_once('>')?.1, "tag")
    }

    /// CSeq; 0 when it is none.
    pub fn cseq(&self) -> (u32, &str) {
        let value = self.get("CSeq").unwrap_or_default();
        value.split_once(' ').map_or((0, ""), |(number, method)| (number.parse().unwrap_or(0), method.trim()))
    }

    /// The Call-ID; empty without one.
    pub fn call_id(&self) -> &str {
        self.get("Call-ID").unwrap_or_default()
    }

    /// The branch of the topmost Via; empty without one.
    pub fn branch(&self) -> String {
        let vias = self.list("Via");
        vias.first().and_then(|via| param(via, "branch")).unwrap_or_default().to_owned()
    }

    /// Was it made by a sidecar, and not by an agent? The lowest Via tells.
    pub fn is_of_sidecar(&self) -> bool {
        let vias = self.list("Via");
        let branch = vias.last().and_then(|via| param(via, "branch")).unwrap_or_default();
        !branch.starts_with("z9hG4bKua")
    }

    /// The URI of the first Contact.
    pub fn contact(&self) -> Option<String> {
        self.list("Contact").first().map(|contact| bracketed(contact).to_owned())
    }
}

impl Line {
    fn new(name: &str, value: &str) -> Line {
        let unfolded = value.replace("\r\n", "");
        Line { name: name.to_ascii_lowercase(), value: unfolded.trim().to_owned(), raw: format!("{name}: {value}") }
    }

    fn parse(raw: String) -> Result<Line, String> {
        let (name, value) = raw.split_once(':').ok_or_else(|| format!("header line {raw:?}"))?;
        let name = name.trim_end();
        if name.is_empty() || name.contains([' ', '\t']) {
            return Err(format!("header name {name:?}"));
        }
        let long = COMPACT.iter().find(|(short, _)| short.eq_ignore_ascii_case(name)).map_or(name, |(_, long)| long);
        let value = value.replace("\r\n", "").trim().to_owned();
        Ok(Line { name: long.to_ascii_lowercase(), value, raw })
    }
}

/// What stands between angle brackets, or all of it.
pub fn bracketed(address: &str) -> &str {
    address.split_once('<').and_then(|(_, rest)| rest.split_once('>')).map_or(address, |(uri, _)| uri)
}

/// The value of a `;name=value` parameter.
pub fn param<'t>(text: &'t str, name: &str) -> Option<&'t str> {
    text.split(';').skip(1).find_map(|param| {
        let (key, value) = param.split_once('=').unwrap_or((param, ""));
        key.trim().eq_ignore_ascii_case(name).then_some(value.trim())
    })
}

/// The address in `sip:user@ip:port;…`.
pub fn address_of(uri: &str) -> Option<SocketAddr> {
    let rest = uri.strip_prefix("sip:")?;
    let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
    host.split(';').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_in_any_style_is_read_back() {
        let mut sip = Sip::request("INVITE", "sip:b@192.0.2.1:5060");
        sip.push("Via", "SIP/2.0/UDP a;branch=z9hG4bK1, SIP/2.0/UDP \"b,c\";branch=z9hG4bK2");
        sip.push("From", "\"A;tag=no\" <sip:a@x;tag=no>;tag=yes");
        sip.push("Session-Expires", "1800\r\n ; refresher = uas");
        sip.body = "v=0\r\n".into();
        for compact in [false, true] {
            let read = Sip::parse(&sip.bytes(Style { compact, ..Style::default() })).expect("well-formed");
            assert_eq!(read.tag("From"), Some("yes"));
            assert_eq!(read.list("Via").len(), 2);
            assert_eq!(read.branch(), "z9hG4bK1");
            assert_eq!(read.get("Session-Expires"), Some("1800 ; refresher = uas"));
            assert_eq!(read.body, sip.body);
        }
    }

    #[test]
    fn what_is_not_well_formed_is_refused() {
        for text in [
            "INVITE sip:b SIP/2.0\r\nCall-ID: 1\r\n\r\n",
            "INVITE sip:b SIP/2.0\r\nCall-ID 1\r\nContent-Length: 0\r\n\r\n",
            "INVITE sip:b\r\nContent-Length: 0\r\n\r\n",
            "INVITE sip:b SIP/2.0\r\nContent-Length: 0\r\n\r\nx",
        ] {
            assert!(Sip::parse(text.as_bytes()).is_err(), "{text}");
        }
    }
}
