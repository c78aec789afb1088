//! Whole messages through a shard, one file per behaviour. The policy is to observe, so that nothing but the proxy acts.

mod dialogs;
mod hops;
mod refusals;
mod requests;
mod responses;
mod retries;

use std::sync::Arc;

use sipwarden_session_timer::{Flow, Policy, Time};
use sipwarden_sip::{HeaderName, Message};

use super::fixture::{APP, LOCAL_UDP, PHONE, REMOTE_UDP, config, flow, message, parse};
use super::{Outbox, Outcome, Shard, ShardConfig, Target};

/// A shard and what it sent last.
struct Bench {
    shard: Shard,
    now: Time,
    out: Outbox,
}

impl Bench {
    fn new() -> Bench {
        Bench::with(config())
    }

    fn with(config: ShardConfig) -> Bench {
        let shard = Shard::new(Arc::new(config), Arc::new(Policy::observe()), 0);
        Bench { shard, now: Time::ZERO, out: Outbox::default() }
    }

    fn send(&mut self, from: Flow, message: &Message) -> Outcome {
        self.out.clear();
        self.shard.handle_message(self.now, from, message, &mut self.out)
    }

    /// Sends what must be forwarded: where it goes, and as what.
    fn forward(&mut self, from: Flow, message: &Message) -> (Flow, Message<'static>) {
        let outcome = self.send(from, message);
        assert!(matches!(outcome, Outcome::Forwarded { edited: false }), "{outcome:?}");
        self.only_packet()
    }

    /// Sends what must be answered here: status, where the answer goes, and as what.
    fn answer(&mut self, from: Flow, message: &Message) -> (u16, Flow, Message<'static>) {
        let outcome = self.send(from, message);
        let (flow, answer) = self.only_packet();
        let status = answer.status().expect("a response");
        assert_eq!(outcome, Outcome::Answered(status));
        (status, flow, answer)
    }

    fn only_packet(&self) -> (Flow, Message<'static>) {
        let [packet] = &self.out.packets[..] else { panic!("{} packets", self.out.packets.len()) };
        (packet.flow, parse(self.out.packet(packet)))
    }
}

fn phone() -> Flow {
    flow(REMOTE_UDP, PHONE)
}

fn app() -> Flow {
    flow(LOCAL_UDP, APP)
}

/// A request from `PHONE`'s side; `lines` stand between Via and From.
fn request(method: &str, uri: &str, lines: &str) -> Message<'static> {
    message(&request_text(method, uri, lines))
}

fn request_text(method: &str, uri: &str, lines: &str) -> String {
    format!(
        "{method} {uri} SIP/2.0\nVia: SIP/2.0/UDP {PHONE};branch=z9hG4bKa1\n{lines}Max-Forwards: 70\n\
         From: \"A\" <sip:alice@example.com>;tag=f1\nTo: <sip:bob@example.com>\nCall-ID: call-1\nCSeq: 1 {method}\n\
         Content-Length: 4\n\nbody"
    )
}

/// The same inside a dialog.
fn in_dialog(method: &str, uri: &str, lines: &str) -> Message<'static> {
    let text = request_text(method, uri, lines).replace("<sip:bob@example.com>\n", "<sip:bob@example.com>;tag=t1\n");
    message(&text)
}

/// All elements of a list header.
fn elements(message: &Message, name: HeaderName) -> Vec<String> {
    message.elements(name).map(|(_, element)| String::from_utf8_lossy(element).into_owned()).collect()
}

/// The answer of a UAS to a forwarded request, as text.
fn response_text(request: &Message, status_line: &str) -> String {
    let text = String::from_utf8(request.bytes().to_vec()).unwrap().replace("\r\n", "\n");
    let kept =
        text.lines().filter(|line| ["Via", "From", "To", "Call-ID", "CSeq"].iter().any(|name| line.starts_with(name)));
    let head: String = kept.map(|line| format!("{line}\n")).collect();
    format!("SIP/2.0 {status_line}\n{head}Content-Length: 0\n\n")
}

fn response(request: &Message, status_line: &str) -> Message<'static> {
    message(&response_text(request, status_line))
}

fn target(host: &str, port: Option<u16>) -> Target {
    Target { host: host.into(), port, transport: None }
}
