//! A forking proxy that stays in the dialog (RFC 3261 §16): rings all its targets, and lets every one answer.

use std::net::SocketAddr;

use super::message::{Sip, Style, address_of, bracketed};
use super::transaction::{LIFE, Sent, T1, T2};

/// The fork of one call.
#[derive(Debug)]
pub struct Proxy {
    pub addr: SocketAddr,
    pub call_id: String,
    /// A message it should never have been sent.
    pub problem: Option<String>,
    targets: Vec<SocketAddr>,
    /// Ends the other branches at the first 2xx.
    cancels: bool,
    /// The INVITE at hand, one branch per target.
    invite: Option<(Sip, SocketAddr)>,
    branches: Vec<Branch>,
    /// The failure sent upstream, until its ACK comes: bytes, next time, pause, end.
    failure: Option<(Sent, u64, u64, u64)>,
}

#[derive(Debug)]
struct Branch {
    target: SocketAddr,
    request: Sip,
    last: Option<Sip>,
}

impl Branch {
    fn status(&self) -> u16 {
        self.last.as_ref().and_then(Sip::status).unwrap_or(0)
    }
}

impl Proxy {
    pub fn new(addr: SocketAddr, call_id: String, targets: Vec<SocketAddr>, cancels: bool) -> Proxy {
        Proxy { addr, call_id, problem: None, targets, cancels, invite: None, branches: Vec::new(), failure: None }
    }

    pub fn due(&self) -> u64 {
        self.failure.as_ref().map_or(u64::MAX, |(_, at, ..)| *at)
    }

    pub fn tick(&mut self, now: u64, out: &mut Vec<Sent>) {
        if let Some((sent, at, pause, ends)) = &mut self.failure {
            if now >= *ends {
                self.failure = None;
            } else if now >= *at {
                *pause = (*pause * 2).min(T2);
                *at = now + *pause;
                out.push(sent.clone());
            }
        }
    }

    pub fn receive(&mut self, now: u64, from: SocketAddr, message: &Sip, out: &mut Vec<Sent>) {
        match (message.method(), message.tag("To")) {
            (None, _) => self.response(now, message, out),
            (Some("INVITE"), None) => self.invite(from, message, out),
            (Some("CANCEL"), None) => self.cancel(from, message, out),
            (Some("ACK"), _) if self.invite.as_ref().is_some_and(|(invite, _)| invite.branch() == message.branch()) => {
                self.failure = None;
            }
            _ => self.pass(message, out),
        }
    }

    fn invite(&mut self, from: SocketAddr, invite: &Sip, out: &mut Vec<Sent>) {
        if self.invite.as_ref().is_some_and(|(known, _)| known.branch() == invite.branch()) {
            out.extend(self.failure.iter().map(|(sent, ..)| sent.clone()));
        } else {
            self.failure = None;
            self.branches = Vec::new();
            for (number, target) in self.targets.iter().enumerate() {
                let mut request = self.forwarded(invite, &format!("f{number}"));
                request.start = format!("INVITE sip:callee@{target} SIP/2.0");
                let record_route = format!("<sip:{};lr>", self.addr);
                let at = request.headers.iter().position(|line| line.name == "record-route").unwrap_or(0);
                request.push_front("Record-Route", &record_route);
                request.headers[..=at].rotate_left(1);
                self.branches.push(Branch { target: *target, request, last: None });
            }
            self.invite = Some((invite.clone(), from));
        }
        for branch in self.branches.iter().filter(|branch| branch.status() < 200) {
            out.push(Sent { to: branch.target, bytes: branch.request.bytes(Style::default()) });
        }
    }

    fn cancel(&mut self, from: SocketAddr, cancel: &Sip, out: &mut Vec<Sent>) {
        let answer = Sip::response(cancel, 200, "proxy");
        out.push(Sent { to: from, bytes: answer.bytes(Style::default()) });
        self.cancel_open(out);
    }

    fn cancel_open(&self, out: &mut Vec<Sent>) {
        for branch in self.branches.iter().filter(|branch| (101..200).contains(&branch.status())) {
            out.push(Sent { to: branch.target, bytes: hop_by_hop("CANCEL", &branch.request, None) });
        }
    }

    /// A request inside the dialog, or a stray one: to its next Route.
    fn pass(&mut self, request: &Sip, out: &mut Vec<Sent>) {
        let mut next = self.forwarded(request, "p");
        let own = format!("<sip:{};lr>", self.addr);
        let mut routes = next.list("Route");
        if routes.first() == Some(&own) {
            routes.remove(0);
        } else if request.method() != Some("ACK") {
            self.problem = Some(format!("the proxy was sent a request without its Route {own}"));
        }
        next.headers.retain(|line| line.name != "route");
        routes.iter().for_each(|route| next.push("Route", route));
        let to = address_of(routes.first().map_or(next.uri(), |route| bracketed(route)));
        // What has no other place to go, as the ACK of a forgotten failure, ends here.
        if let Some(to) = to.filter(|to| *to != self.addr) {
            out.push(Sent { to, bytes: next.bytes(Style::default()) });
        }
    }

    fn response(&mut self, now: u64, response: &Sip, out: &mut Vec<Sent>) {
        let status = response.status().unwrap_or(0);
        let number = self.branches.iter().position(|branch| branch.request.branch() == response.branch());
        let Some(number) = number.filter(|_| response.cseq().1 == "INVITE") else { return self.back(response, out) };
        let branch = &mut self.branches[number];
        if status >= 300 {
            let ack = hop_by_hop("ACK", &branch.request, response.get("To"));
            out.push(Sent { to: branch.target, bytes: ack });
        }
        let first_final = branch.status() < 200 && status >= 200;
        if branch.status() < 200 {
            branch.last = Some(response.clone());
        }
        match status {
            ..=100 => {}
            101..300 => {
                self.back(response, out);
                if first_final && self.cancels {
                    self.cancel_open(out);
                }
            }
            _ if first_final && self.branches.iter().all(|branch| branch.status() >= 300) => {
                let best = self.branches.iter().min_by_key(|branch| branch.status()).and_then(|best| best.last.clone());
                let mut answer = Vec::new();
                self.back(&best.unwrap_or_else(|| response.clone()), &mut answer);
                out.extend(answer.iter().cloned());
                self.failure = answer.pop().map(|sent| (sent, now + T1, T1, now + LIFE));
            }
            _ => {}
        }
    }

    /// To the next Via; what ends here was for a request of our own.
    fn back(&self, response: &Sip, out: &mut Vec<Sent>) {
        let mut response = response.clone();
        let vias = response.list("Via");
        response.headers.retain(|line| line.name != "via");
        for via in vias.iter().skip(1).rev() {
            response.push_front("Via", via);
        }
        let sent_by = vias.get(1).and_then(|via| via.split([' ', ';']).nth(1)?.parse().ok());
        if let Some(to) = sent_by {
            out.push(Sent { to, bytes: response.bytes(Style::default()) });
        }
    }

    fn forwarded(&self, request: &Sip, mark: &str) -> Sip {
        let mut next = request.clone();
        let branch = request.branch();
        next.push_front("Via", &format!("SIP/2.0/UDP {};branch={branch}.{mark}", self.addr));
        next
    }
}

/// CANCEL or the ACK of a failure, for one branch.
fn hop_by_hop(method: &str, invite: &Sip, to: Option<&str>) -> Vec<u8> {
    let mut request = Sip::request(method, invite.uri());
    request.push("Via", invite.list("Via").first().map_or("", String::as_str));
    for name in ["From", "Call-ID"] {
        request.push(name, invite.get(name).unwrap_or_default());
    }
    request.push("To", to.or(invite.get("To")).unwrap_or_default());
    request.push("CSeq", &format!("{} {method}", invite.cseq().0));
    request.push("Max-Forwards", "69");
    request.bytes(Style::default())
}
