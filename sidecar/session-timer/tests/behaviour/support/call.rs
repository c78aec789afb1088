//! The two user agents of a call: what they write.

use sipwarden_session_timer::Leg;

use super::{Bench, Wire};

pub(crate) struct Call {
    pub(crate) id: String,
    pub(crate) caller: Leg,
    /// By leg: address, tag, Contact URI, the CSeq last used.
    pub(crate) addresses: [String; 2],
    pub(crate) tags: [String; 2],
    pub(crate) contacts: [String; 2],
    pub(crate) cseqs: [u32; 2],
}

impl Call {
    pub(crate) fn from(caller: Leg) -> Call {
        Call::named("one", caller)
    }

    pub(crate) fn named(id: &str, caller: Leg) -> Call {
        Call {
            id: format!("{id}@call.example"),
            caller,
            addresses: ["<sip:pbx@pod.example>".into(), "\"A. Phone\" <sip:phone@carrier.example>".into()],
            tags: [format!("local-{id}"), format!("remote-{id}")],
            contacts: ["sip:pbx@127.0.0.1:5080".into(), "sip:phone@192.0.2.7:5060;ob".into()],
            cseqs: [100, 7000],
        }
    }

    pub(crate) fn callee(&self) -> Leg {
        self.caller.other()
    }

    /// The INVITE that starts it, with the caller's next CSeq.
    pub(crate) fn invite(&mut self) -> Wire {
        let to = self.addresses[self.callee().index()].clone();
        self.write(self.caller, "INVITE", "sip:someone@example.com", &to)
    }

    /// A request inside its dialog, with the sender's next CSeq.
    pub(crate) fn request(&mut self, from: Leg, method: &str) -> Wire {
        let (to, target) = (self.party(from.other()), self.contacts[from.other().index()].clone());
        self.write(from, method, &target, &to)
    }

    /// The ACK to `response`, which answered `invite`.
    pub(crate) fn ack(&self, invite: &Wire, response: &Wire) -> Wire {
        let field = |wire: &Wire, name: &str| format!("{name}: {}", wire.header(name).expect("a complete message"));
        Wire::of_lines([
            format!("ACK {} SIP/2.0", invite.request_uri()).as_str(),
            &field(invite, "Via"),
            "Max-Forwards: 70",
            &field(invite, "From"),
            &field(response, "To"),
            &field(invite, "Call-ID"),
            &format!("CSeq: {} ACK", invite.cseq()),
            "Content-Length: 0",
        ])
    }

    /// The answer of whoever got `request`, which is as the core left it.
    pub(crate) fn answer(&self, request: &Wire, status: u16) -> Wire {
        self.answer_through(request, status, &[])
    }

    /// As [`Self::answer`], with proxies on the way that put `routes` on top of Record-Route, nearest to us first.
    pub(crate) fn answer_through(&self, request: &Wire, status: u16, routes: &[&str]) -> Wire {
        let by = if request.tag("From") == Some(&self.tags[0]) { Leg::Remote } else { Leg::Local };
        let arrived = request.routed(by);
        let arrived = routes.iter().fold(arrived, |wire, route| wire.on_top(&format!("Record-Route: {route}")));
        self.respond(by, &arrived, status)
    }

    /// The response of the party that stands on `by` to a request as it arrived there.
    pub(crate) fn respond(&self, by: Leg, request: &Wire, status: u16) -> Wire {
        let mut lines = vec![format!("SIP/2.0 {status} Whatever")];
        for name in ["Via", "Record-Route", "From", "To", "Call-ID", "CSeq"] {
            lines.extend(request.all(name).into_iter().map(|value| match (name, request.tag("To")) {
                ("To", None) => format!("To: {value};tag={}", self.tags[by.index()]),
                _ => format!("{name}: {value}"),
            }));
        }
        if status < 300 {
            lines.push(format!("Contact: <{}>", self.contacts[by.index()]));
        }
        lines.push("Content-Length: 0".into());
        Wire::of_lines(lines.iter().map(String::as_str))
    }

    /// From or To value of a side, with its tag.
    pub(crate) fn party(&self, leg: Leg) -> String {
        format!("{};tag={}", self.addresses[leg.index()], self.tags[leg.index()])
    }

    fn write(&mut self, from: Leg, method: &str, target: &str, to: &str) -> Wire {
        self.cseqs[from.index()] += 1;
        let cseq = self.cseqs[from.index()];
        let tag = &self.tags[from.index()];
        let mut lines = vec![
            format!("{method} {target} SIP/2.0"),
            format!("Via: SIP/2.0/UDP host.example;branch=z9hG4bK-{tag}-{cseq}"),
            "Max-Forwards: 70".into(),
            format!("From: {}", self.party(from)),
            format!("To: {to}"),
            format!("Call-ID: {}", self.id),
            format!("CSeq: {cseq} {method}"),
        ];
        if matches!(method, "INVITE" | "UPDATE") {
            lines.push(format!("Contact: <{}>", self.contacts[from.index()]));
        }
        lines.push("Content-Length: 0".into());
        Wire::of_lines(lines.iter().map(String::as_str))
    }
}

/// A call of `caller` whose INVITE had the `asked` headers and whose 200 had the `answered` ones.
pub(crate) fn established(bench: &mut Bench, caller: Leg, asked: &[&str], answered: &[&str]) -> Call {
    let mut call = Call::from(caller);
    let invite = call.invite().with_all(asked);
    let left = bench.pass(caller, &invite);
    let ok = call.answer(&left, 200).with_all(answered);
    let ok = bench.pass(caller.other(), &ok);
    let ack = call.ack(&invite, &ok);
    bench.pass(caller, &ack);
    call
}

/// A refresh by `from` with the `asked` headers and the `answered` ones in its 200.
pub(crate) fn refreshed(
    bench: &mut Bench,
    call: &mut Call,
    from: Leg,
    method: &str,
    asked: &[&str],
    answered: &[&str],
) {
    let request = call.request(from, method).with_all(asked);
    let left = bench.pass(from, &request);
    let ok = call.answer(&left, 200).with_all(answered);
    let ok = bench.pass(from.other(), &ok);
    if method == "INVITE" {
        let ack = call.ack(&request, &ok);
        bench.pass(from, &ack);
    }
}
