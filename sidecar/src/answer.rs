//! `answer`: an application without session timers that takes every call, for test calls to have somebody to talk to.
//!
//! It keeps no state at all: its answer to a request is a function of the request (RFC 3261 §8.2.7), and a caller that
//! misses one asks again.

use std::fmt::Write;
use std::net::SocketAddr;

use anyhow::{Context, bail};
use clap::Args;
use sipwarden_sip::build::Responder;
use sipwarden_sip::value::Transport;
use sipwarden_sip::{HeaderName, Message, Method, Slots};
use tokio::net::UdpSocket;
use tokio::signal::unix::{SignalKind, signal};

use crate::address::{ListenAddress, transport_name};
use crate::transport::local_ip;

const ALLOW: &str = "Allow: INVITE, ACK, BYE, CANCEL, OPTIONS\r\n";
/// What [`Responder`] ends a response with.
const NO_BODY: &[u8] = b"Content-Length: 0\r\n\r\n";

/// Settings of `answer`.
#[derive(Clone, Debug, Args)]
pub struct AnswerArgs {
    /// Where calls come in, udp:IP:PORT
    #[arg(long, value_name = "TRANSPORT:IP:PORT", default_value = "udp:0.0.0.0:5060")]
    pub listen: ListenAddress,
}

/// Answers until SIGTERM or SIGINT.
///
/// # Errors
/// The address cannot be listened on.
pub fn run(args: &AnswerArgs) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let answerer = Answerer::bind(args.listen).await?;
        println!("answers listen=udp:{}", answerer.local()?);
        tokio::select! {
            served = answerer.serve() => served,
            _ = terminate.recv() => Ok(()),
            _ = interrupt.recv() => Ok(()),
        }
    })
}

/// A socket that answers.
pub struct Answerer {
    socket: UdpSocket,
    responder: Responder,
}

impl Answerer {
    /// Listens there.
    ///
    /// # Errors
    /// What the system says about the address, or that it is not UDP.
    pub async fn bind(listen: ListenAddress) -> anyhow::Result<Answerer> {
        if listen.transport != Transport::Udp {
            bail!("--listen: calls are answered over udp only, not {}", transport_name(listen.transport));
        }
        let socket = UdpSocket::bind(listen.addr).await.with_context(|| format!("cannot listen on {listen}"))?;
        Ok(Answerer { socket, responder: Responder::new(crate::random()) })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// What the system says.
    pub fn local(&self) -> anyhow::Result<SocketAddr> {
        Ok(self.socket.local_addr()?)
    }

    /// Answers for ever.
    ///
    /// # Errors
    /// The socket is of no use any more.
    pub async fn serve(&self) -> anyhow::Result<()> {
        let mut buffer = vec![0; 65_536];
        loop {
            let (length, from) = self.socket.recv_from(&mut buffer).await.context("the socket failed")?;
            let mut slots = Slots::new();
            let Ok(request) = Message::parse(&buffer[..length], &mut slots) else { continue };
            let here = SocketAddr::new(local_ip(from)?, self.local()?.port());
            if let Some(answer) = self.answer(&request, here) {
                // A lost answer is asked for again.
                let _ = self.socket.send_to(&answer, from).await;
            }
        }
    }

    /// None to an ACK, or to what is no request.
    fn answer(&self, request: &Message, here: SocketAddr) -> Option<Vec<u8>> {
        let (status, reason, lines) = match request.method()? {
            Method::Ack => return None,
            Method::Invite => (200, "OK", format!("{}Contact: <sip:answer@{here}>\r\n{ALLOW}", record_route(request))),
            Method::Options => (200, "OK", ALLOW.to_owned()),
            // Whatever it cancels has been answered.
            Method::Bye | Method::Cancel => (200, "OK", String::new()),
            _ => (405, "Method Not Allowed", ALLOW.to_owned()),
        };
        let mut out = Vec::new();
        let body = if request.method() == Some(Method::Invite) { declined(request.body(), here) } else { None };
        let lines = lines + if body.is_some() { "Content-Type: application/sdp\r\n" } else { "" };
        self.responder.respond(request, status, reason, b"", lines.as_bytes(), &mut out);
        if let Some(body) = body {
            debug_assert!(out.ends_with(NO_BODY), "the responder writes no bodies");
            out.truncate(out.len() - NO_BODY.len());
            out.extend_from_slice(format!("Content-Length: {}\r\n\r\n{body}", body.len()).as_bytes());
        }
        Some(out)
    }
}

/// The route set, which a 2xx has to give back (RFC 3261 §12.1.1).
fn record_route(request: &Message) -> String {
    let mut lines = String::new();
    for hop in request.all(HeaderName::RecordRoute) {
        let _ = write!(lines, "Record-Route: {}\r\n", String::from_utf8_lossy(hop.value));
    }
    lines
}

/// The answer to an SDP offer that takes none of its streams (RFC 3264 §6); none without an offer.
fn declined(offer: &[u8], here: SocketAddr) -> Option<String> {
    let offer = std::str::from_utf8(offer).ok().filter(|offer| offer.starts_with("v=0"))?;
    let version = if here.is_ipv4() { "IP4" } else { "IP6" };
    let ip = here.ip();
    let mut text = format!("v=0\r\no=- 1 1 IN {version} {ip}\r\ns=-\r\nc=IN {version} {ip}\r\nt=0 0\r\n");
    for stream in offer.lines().filter(|line| line.starts_with("m=")) {
        let mut words = stream.split(' ');
        let (media, _port) = (words.next()?, words.next()?);
        let _ = write!(text, "{media} 0 {}\r\n", words.collect::<Vec<_>>().join(" "));
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn answer(request: &str) -> Option<String> {
        let answerer = Answerer::bind("udp:127.0.0.1:0".parse().expect("an address")).await.expect("bound");
        let mut slots = Slots::new();
        let message = Message::parse(request.as_bytes(), &mut slots).expect("a message");
        let answer = answerer.answer(&message, SocketAddr::from(([192, 0, 2, 1], 5060)))?;
        Some(String::from_utf8(answer).expect("text"))
    }

    fn request(method: &str, body: &str) -> String {
        format!(
            "{method} sip:a@b SIP/2.0\r\nVia: SIP/2.0/UDP c;branch=z9hG4bK1\r\nFrom: <sip:c@d>;tag=1\r\nTo: <sip:a@b>\r\n\
             Call-ID: 1\r\nCSeq: 1 {method}\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
    }

    #[tokio::test]
    async fn an_invite_is_taken_and_its_streams_are_not() {
        let offer =
            "v=0\r\no=- 1 1 IN IP4 c\r\ns=-\r\nt=0 0\r\nm=audio 4000 RTP/AVP 8 0\r\na=x\r\nm=video 4002 RTP/AVP 96\r\n";
        let taken = answer(&request("INVITE", offer)).await.expect("an answer");
        assert!(taken.starts_with("SIP/2.0 200 OK\r\n") && taken.contains("Contact: <sip:answer@192.0.2.1:5060>\r\n"));
        let (head, body) = taken.split_once("\r\n\r\n").expect("a body");
        assert!(head.ends_with(&format!("Content-Type: application/sdp\r\nContent-Length: {}", body.len())), "{head}");
        assert!(body.ends_with("t=0 0\r\nm=audio 0 RTP/AVP 8 0\r\nm=video 0 RTP/AVP 96\r\n"), "{body}");
        assert!(answer(&request("INVITE", "")).await.expect("an answer").ends_with("Content-Length: 0\r\n\r\n"));
    }

    #[tokio::test]
    async fn what_is_no_part_of_a_call_is_refused_with_what_is() {
        assert_eq!(answer(&request("ACK", "")).await, None);
        for (method, status) in [("BYE", "200"), ("OPTIONS", "200"), ("UPDATE", "405"), ("REFER", "405")] {
            let answer = answer(&request(method, "")).await.expect("an answer");
            assert!(answer.starts_with(&format!("SIP/2.0 {status} ")), "{answer}");
        }
    }
}
