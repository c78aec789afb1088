//! A SIP caller in the cluster's network that the test itself drives: calls that are up while something else happens.
//!
//! It supports session timers and never refreshes; it answers nothing, so calls are to be shorter than their interval.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::cluster::Cluster;
use crate::layout::NODE_ADDRESS;

/// Until a request is sent again.
const RETRANSMIT: Duration = Duration::from_millis(500);
/// Until a request that nobody answers is given up.
const LIMIT: Duration = Duration::from_secs(5);

/// A socket of the node that calls are made from, each call from another.
struct Caller {
    socket: UdpSocket,
    local: SocketAddr,
    call_id: String,
}

/// A final response.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    text: String,
}

/// A call that is up.
pub struct Call {
    caller: Caller,
    /// Where requests within the dialog go first.
    next_hop: SocketAddr,
    target: String,
    routes: Vec<String>,
    to: String,
    sequence: u32,
    /// What the call was accepted with.
    pub answer: Answer,
}

impl Cluster {
    /// Asks `target` for a call with this session interval, and gives the final answer. A call that was accepted stays.
    pub fn invite(&self, target: SocketAddr, session_expires_s: u32) -> Result<Answer> {
        Caller::new(self)?.invite(target, session_expires_s)
    }

    /// A call to `target` that is up.
    pub fn call(&self, target: SocketAddr, session_expires_s: u32) -> Result<Call> {
        let caller = Caller::new(self)?;
        let answer = caller.invite(target, session_expires_s)?;
        ensure!(answer.status == 200, "the call was refused:\n{}", answer.text);
        Call::new(caller, answer)
    }
}

impl Answer {
    /// The first header of this name, which is written as in the RFCs.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers(name).next()
    }

    fn headers(&self, name: &str) -> impl DoubleEndedIterator<Item = &str> {
        let head = self.text.split("\r\n\r\n").next().unwrap_or_default();
        let lines = head.lines().filter_map(|line| line.split_once(':'));
        lines.filter(move |(header, _)| header.trim().eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    }
}

impl Call {
    fn new(caller: Caller, answer: Answer) -> Result<Call> {
        let routes: Vec<String> = answer.headers("Record-Route").rev().flat_map(reversed).collect();
        let target = uri(answer.header("Contact").context("a 200 without Contact")?).to_owned();
        let next_hop = host_and_port(routes.first().map_or(target.as_str(), |route| uri(route)))?;
        let to = answer.header("To").context("a 200 without To")?.to_owned();
        let call = Call { caller, next_hop, target, routes, to, sequence: 1, answer };
        call.caller.send(call.next_hop, &call.request("ACK", 1))?;
        Ok(call)
    }

    /// Asks within the call; an error if nobody answers 200.
    pub fn check(&mut self) -> Result<()> {
        self.ask("OPTIONS")
    }

    /// Ends the call.
    pub fn hang_up(mut self) -> Result<()> {
        self.ask("BYE")
    }

    /// The Call-ID.
    pub fn id(&self) -> &str {
        &self.caller.call_id
    }

    fn ask(&mut self, method: &str) -> Result<()> {
        self.sequence += 1;
        let request = self.request(method, self.sequence);
        let answer = self.caller.ask(self.next_hop, &request, &format!("{} {method}", self.sequence))?;
        ensure!(answer.status == 200, "{method} within the call was refused:\n{}", answer.text);
        Ok(())
    }

    fn request(&self, method: &str, sequence: u32) -> String {
        let routes: String = self.routes.iter().map(|route| format!("Route: {route}\r\n")).collect();
        self.caller.request(method, &self.target, &self.to, sequence, &routes)
    }
}

impl Caller {
    fn new(cluster: &Cluster) -> Result<Caller> {
        let socket = cluster.in_network(|| UdpSocket::bind((NODE_ADDRESS, 0)))??;
        socket.set_read_timeout(Some(RETRANSMIT))?;
        let local = socket.local_addr()?;
        Ok(Caller { socket, local, call_id: format!("{:016x}", random()) })
    }

    fn invite(&self, target: SocketAddr, session_expires_s: u32) -> Result<Answer> {
        let offer = format!(
            "Contact: <sip:caller@{}>\r\nAllow: INVITE, ACK, BYE, CANCEL, UPDATE, OPTIONS\r\nSupported: timer\r\n\
             Session-Expires: {session_expires_s}\r\n",
            self.local
        );
        let request = self.request("INVITE", &format!("sip:callee@{target}"), "<sip:callee@callee.example>", 1, &offer);
        let answer = self.ask(target, &request, "1 INVITE")?;
        if answer.status >= 300 {
            // RFC 3261 section 17.1.1.3: the same branch, and the To of the answer.
            let to = format!("To: {}", answer.header("To").unwrap_or_default());
            let acknowledged = request.replace("INVITE", "ACK").replace("To: <sip:callee@callee.example>", &to);
            self.send(target, &acknowledged)?;
        }
        Ok(answer)
    }

    fn request(&self, method: &str, uri: &str, to: &str, sequence: u32, more: &str) -> String {
        let Caller { local, call_id, .. } = self;
        format!(
            "{method} {uri} SIP/2.0\r\nVia: SIP/2.0/UDP {local};rport;branch=z9hG4bK{:016x}\r\nMax-Forwards: 70\r\n\
             From: <sip:caller@caller.example>;tag=caller\r\nTo: {to}\r\nCall-ID: {call_id}\r\nCSeq: {sequence} {method}\r\n\
             {more}Content-Length: 0\r\n\r\n",
            random()
        )
    }

    /// Sends until there is a final answer. What a Service has no endpoint for is refused, which passes.
    fn ask(&self, target: SocketAddr, request: &str, sequence: &str) -> Result<Answer> {
        let deadline = Instant::now() + LIMIT;
        while Instant::now() < deadline {
            self.send(target, request)?;
            let sent = Instant::now();
            while sent.elapsed() < RETRANSMIT {
                match self.receive(sequence) {
                    Some(answer) if answer.status >= 200 => return Ok(answer),
                    _ => {}
                }
            }
        }
        bail!("nobody answers at {target}: {}", request.lines().next().unwrap_or_default())
    }

    fn receive(&self, sequence: &str) -> Option<Answer> {
        let mut bytes = [0; 4096];
        // Time is over, or ICMP told that nobody listens.
        let length = self.socket.recv(&mut bytes).ok()?;
        let text = String::from_utf8_lossy(&bytes[..length]).into_owned();
        let status = text.strip_prefix("SIP/2.0 ")?.get(..3)?.parse().ok()?;
        let answer = Answer { status, text };
        let is_ours = answer.header("Call-ID") == Some(&self.call_id) && answer.header("CSeq") == Some(sequence);
        is_ours.then_some(answer)
    }

    fn send(&self, target: SocketAddr, message: &str) -> Result<()> {
        match self.socket.send_to(message.as_bytes(), target) {
            // kube-proxy refuses what is sent to a Service without endpoints.
            Err(error)
                if !matches!(
                    error.kind(),
                    std::io::ErrorKind::PermissionDenied | std::io::ErrorKind::ConnectionRefused
                ) =>
            {
                Err(error).with_context(|| format!("cannot send to {target}"))
            }
            _ => Ok(()),
        }
    }
}

/// Elements of a list, last first.
fn reversed(list: &str) -> impl Iterator<Item = String> {
    list.rsplit(',').map(|element| element.trim().to_owned())
}

/// What is between the angle brackets.
fn uri(header: &str) -> &str {
    let inside = header.split_once('<').map_or(header, |(_, rest)| rest);
    inside.split('>').next().unwrap_or(inside)
}

fn host_and_port(uri: &str) -> Result<SocketAddr> {
    let host = uri.rsplit('@').next().unwrap_or(uri).trim_start_matches("sip:");
    let host = host.split([';', '?']).next().unwrap_or(host);
    host.parse().with_context(|| format!("{uri} does not name an address and a port"))
}

fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_hop_is_the_address_of_the_uri() {
        for uri in ["sip:10.0.0.1:15060;lr;x=1", "sip:callee@10.0.0.1:15060", "sip:10.0.0.1:15060?a=b"] {
            assert_eq!(host_and_port(uri).unwrap(), "10.0.0.1:15060".parse().unwrap());
        }
        assert!(host_and_port("sip:example.com").is_err());
    }

    #[test]
    fn headers_are_found_by_name_and_in_order() {
        let text = "SIP/2.0 200 OK\r\nrecord-route: <sip:a;lr>, <sip:b;lr>\r\nRecord-Route: <sip:c;lr>\r\n\r\nTo: x"
            .to_owned();
        let answer = Answer { status: 200, text };
        assert_eq!(answer.headers("Record-Route").collect::<Vec<_>>(), ["<sip:a;lr>, <sip:b;lr>", "<sip:c;lr>"]);
        let routes = answer.headers("Record-Route").rev().flat_map(reversed);
        assert_eq!(routes.collect::<Vec<_>>(), ["<sip:c;lr>", "<sip:b;lr>", "<sip:a;lr>"]);
        assert_eq!(uri(answer.header("Record-Route").unwrap()), "sip:a;lr");
        assert_eq!(answer.header("To"), None);
    }
}
