//! A user agent client with one call: its transactions (RFC 3261 §17.1), its dialog (§12), and what it answers meanwhile.

mod serving;

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use sipwarden_session_timer::Leg;
use sipwarden_shard::Target;
use sipwarden_sip::build::{RequestParts, Responder, request};
use sipwarden_sip::value::{NameAddr, Transport, Uri};
use sipwarden_sip::{HeaderName, Method};
use tokio::net::UdpSocket;
use tokio::time::{Instant, timeout_at};

use super::packet::{Packet, Route};
use super::report::Step;
use super::wire::Wire;
use crate::address::transport_name;
use crate::resolver::Resolver;
use crate::transport::Endpoint;

const T1: Duration = Duration::from_millis(500);
const T2: Duration = Duration::from_secs(4);
/// After CANCEL, until the 487 or a 2xx that crossed it.
const CANCEL_LIMIT: Duration = Duration::from_secs(5);
/// What we answer, for everybody who asks.
const ALLOW: &str = "Allow: INVITE, ACK, BYE, CANCEL, OPTIONS, UPDATE, INFO\r\n";
const USER_AGENT: &str = concat!("User-Agent: sipwarden-call/", env!("CARGO_PKG_VERSION"), "\r\n");

/// The calling side of one call.
pub(super) struct Agent {
    wire: Wire,
    resolver: Resolver,
    /// Where the next request goes.
    next_hop: SocketAddr,
    route: Route,
    call_id: String,
    from: String,
    to: String,
    cseq: u32,
    /// The ACK of each 2xx, which is sent again when that comes again.
    acks: Vec<Ack>,
    responder: Responder,
    /// Holds the port that the SDP names. Media that comes is left in its buffer, which the system bounds.
    media: UdpSocket,
    /// What the callee ended the call with.
    ended: Option<String>,
    steps: Vec<Step>,
    limit: Duration,
}

struct Ack {
    cseq: u32,
    to: String,
    bytes: Vec<u8>,
    next_hop: SocketAddr,
}

/// A request of ours under way.
struct Transaction {
    method: Method,
    cseq: u32,
    branch: String,
    bytes: Vec<u8>,
    next_hop: SocketAddr,
    route: Route,
}

/// Looks up names for this transport only.
pub(super) fn resolver(target: &Target) -> Resolver {
    let any: [SocketAddr; 2] = [([0; 4], 0).into(), ([0u16; 8], 0).into()];
    let transport = target.transport.unwrap_or(Transport::Udp);
    Resolver::new(&any.map(|local| Endpoint { leg: Leg::Remote, transport, local }))
}

impl Agent {
    /// A caller of `uri`, whose first request goes to `peer`. `limit` is for each request.
    pub(super) async fn new(
        wire: Wire,
        resolver: Resolver,
        peer: SocketAddr,
        uri: &str,
        from: Option<&str>,
        limit: Duration,
    ) -> anyhow::Result<Agent> {
        let local = wire.local();
        let media = UdpSocket::bind((local.ip(), 0)).await.context("cannot open a port for media")?;
        let from = from.map_or_else(|| format!("sip:sipwarden-call@{local}"), str::to_owned);
        Ok(Agent {
            next_hop: peer,
            route: Route { target: uri.to_owned(), hops: Vec::new() },
            call_id: format!("{:016x}@sipwarden-call", crate::random()),
            from: format!("<{from}>;tag={:016x}", crate::random()),
            to: format!("<{uri}>"),
            cseq: 0,
            acks: Vec::new(),
            responder: Responder::new(crate::random()),
            ended: None,
            steps: Vec::new(),
            wire,
            resolver,
            media,
            limit,
        })
    }

    /// Its Call-ID.
    pub(super) fn call_id(&self) -> &str {
        &self.call_id
    }

    /// How the callee ended the call, if it did.
    pub(super) fn ended(&self) -> Option<&str> {
        self.ended.as_deref()
    }

    /// What happened so far.
    pub(super) fn into_steps(self) -> Vec<Step> {
        self.steps
    }

    /// An INVITE with an SDP offer, and `lines`; the first 2xx makes the dialog. Its ACK is sent.
    pub(super) async fn invite(&mut self, lines: &str) -> anyhow::Result<Packet> {
        let lines = format!("{lines}Content-Type: application/sdp\r\n");
        let transaction = self.start(Method::Invite, &lines, self.sdp()?.as_bytes());
        let answer = self.ask(&transaction).await?;
        match status(&answer) {
            200..300 => self.accept(&transaction, &answer).await?,
            _ => self.acknowledge_failure(&transaction, &answer).await?,
        }
        Ok(answer)
    }

    /// Any other request within the dialog, with `lines`.
    pub(super) async fn request(&mut self, method: Method, lines: &str) -> anyhow::Result<Packet> {
        let transaction = self.start(method, lines, b"");
        self.ask(&transaction).await
    }

    /// Answers what comes for that long, or until the callee ends the call.
    pub(super) async fn listen(&mut self, time: Duration) -> anyhow::Result<()> {
        let until = Instant::now() + time;
        while self.ended.is_none() {
            let Ok(packet) = timeout_at(until, self.wire.receive()).await else { break };
            self.serve(packet).await?;
        }
        Ok(())
    }

    fn start(&mut self, method: Method, lines: &str, body: &[u8]) -> Transaction {
        self.cseq += 1;
        let branch = branch();
        let contact = match transport_name(self.wire.transport()) {
            "udp" => String::new(),
            name => format!(";transport={name}"),
        };
        let lines = match method {
            Method::Bye => USER_AGENT.to_owned(),
            _ => format!("Contact: <sip:sipwarden-call@{}{contact}>\r\n{ALLOW}{USER_AGENT}{lines}", self.wire.local()),
        };
        let bytes = self.build(method, self.cseq, &branch, &self.route, &self.to, &lines, body);
        let (next_hop, route) = (self.next_hop, self.route.clone());
        Transaction { method, cseq: self.cseq, branch, bytes, next_hop, route }
    }

    #[allow(clippy::too_many_arguments, reason = "a request has that many parts")]
    fn build(
        &self,
        method: Method,
        cseq: u32,
        branch: &str,
        route: &Route,
        to: &str,
        lines: &str,
        body: &[u8],
    ) -> Vec<u8> {
        let mut bytes = Vec::new();
        let parts = RequestParts {
            method,
            target: route.target.as_bytes(),
            routes: &route.hops.join(", ").into_bytes(),
            transport: self.wire.transport(),
            sent_by: &self.wire.local().to_string(),
            branch,
            from: self.from.as_bytes(),
            to: to.as_bytes(),
            call_id: self.call_id.as_bytes(),
            cseq,
            extra: lines.as_bytes(),
            body,
        };
        request(&parts, &mut bytes);
        bytes
    }

    /// The final answer, which is written down.
    async fn ask(&mut self, transaction: &Transaction) -> anyhow::Result<Packet> {
        let began = Instant::now();
        let name = transaction.method.as_str();
        let (answer, heard) = self.exchange(transaction, began + self.limit).await?;
        match answer {
            Some(answer) => {
                self.steps.push(Step::answered(name, transaction.cseq, &answer, began.elapsed()));
                Ok(answer)
            }
            None => {
                self.steps.push(Step::unanswered(name, transaction.cseq, began.elapsed()));
                if transaction.method == Method::Invite && heard {
                    self.cancel(transaction).await?;
                    bail!("the callee did not answer within {} s; does somebody pick up there?", self.limit.as_secs())
                }
                let (transport, peer) = (transport_name(self.wire.transport()), transaction.next_hop);
                Err(anyhow!(
                    "nobody answered {name} within {} s at {transport}:{peer}; is that where it listens, are its pods Ready, and \
                     does a NetworkPolicy stand between?",
                    self.limit.as_secs()
                ))
            }
        }
    }

    /// Sends, and again (RFC 3261 §17.1.1.2, §17.1.2.2), until a final response or `until`; was anything heard at all?
    async fn exchange(&mut self, transaction: &Transaction, until: Instant) -> anyhow::Result<(Option<Packet>, bool)> {
        let (mut pause, mut heard) = (T1, false);
        let mut due = Some(Instant::now());
        loop {
            let now = Instant::now();
            if now >= until {
                return Ok((None, heard));
            }
            if due.is_some_and(|due| due <= now) {
                self.wire.send(&transaction.bytes, transaction.next_hop).await?;
                due = (!self.wire.is_reliable()).then_some(now + pause);
                pause = if transaction.method == Method::Invite { pause * 2 } else { T2.min(pause * 2) };
            }
            let wake = due.map_or(until, |due| due.min(until));
            let Ok(packet) = timeout_at(wake, self.wire.receive()).await else { continue };
            match self.is_answer(&packet, transaction) {
                true if status(&packet) >= 200 => return Ok((Some(packet), true)),
                true => {
                    heard = true;
                    (due, pause) = if transaction.method == Method::Invite { (None, pause) } else { (due, T2) };
                }
                false => self.serve(packet).await?,
            }
        }
    }

    fn is_answer(&self, packet: &Packet, transaction: &Transaction) -> bool {
        let read = packet.read(|message| {
            message.status().is_some()
                && message.call_id() == Some(self.call_id.as_bytes())
                && message.cseq().is_ok_and(|cseq| (cseq.number, cseq.method) == (transaction.cseq, transaction.method))
        });
        read.unwrap_or(false)
    }

    /// The first 2xx makes the dialog; each moves its remote target.
    async fn accept(&mut self, transaction: &Transaction, answer: &Packet) -> anyhow::Result<()> {
        let mut route = answer.route()?;
        if !self.acks.is_empty() {
            route.hops.clone_from(&self.route.hops);
        }
        self.to = answer.first(HeaderName::To)?;
        self.next_hop = self.hop(&route).await?;
        self.route = route;
        let bytes = self.build(Method::Ack, transaction.cseq, &branch(), &self.route, &self.to, USER_AGENT, b"");
        self.wire.send(&bytes, self.next_hop).await?;
        self.acks.push(Ack { cseq: transaction.cseq, to: self.to.clone(), bytes, next_hop: self.next_hop });
        Ok(())
    }

    /// RFC 3261 §17.1.1.3: the branch, the Request-URI and the Route of the INVITE.
    async fn acknowledge_failure(&mut self, invite: &Transaction, answer: &Packet) -> anyhow::Result<()> {
        let to = answer.first(HeaderName::To)?;
        let ack = self.build(Method::Ack, invite.cseq, &invite.branch, &invite.route, &to, "", b"");
        self.wire.send(&ack, invite.next_hop).await
    }

    /// Takes an INVITE back that rings, and leaves nothing behind (RFC 3261 §9.1).
    async fn cancel(&mut self, invite: &Transaction) -> anyhow::Result<()> {
        let bytes = self.build(Method::Cancel, invite.cseq, &invite.branch, &invite.route, &self.to, USER_AGENT, b"");
        let cancel = Transaction {
            method: Method::Cancel,
            bytes,
            route: invite.route.clone(),
            branch: String::new(),
            ..*invite
        };
        let until = Instant::now() + CANCEL_LIMIT;
        self.exchange(&cancel, until).await?;
        while let Ok(packet) = timeout_at(until, self.wire.receive()).await {
            if !self.is_answer(&packet, invite) {
                continue;
            }
            match status(&packet) {
                100..200 => continue,
                200..300 => {
                    self.accept(invite, &packet).await?;
                    let bye = self.start(Method::Bye, "", b"");
                    self.exchange(&bye, until).await?;
                }
                _ => self.acknowledge_failure(invite, &packet).await?,
            }
            break;
        }
        Ok(())
    }

    /// The address of the first hop of a route.
    async fn hop(&self, route: &Route) -> anyhow::Result<SocketAddr> {
        let named = match route.hops.first() {
            Some(hop) => NameAddr::parse(hop.as_bytes()).ok().map(|hop| String::from_utf8_lossy(hop.uri).into_owned()),
            None => Some(route.target.clone()),
        };
        let named = named.context("the 200 has a Record-Route that is not an address")?;
        let target = Uri::parse(named.as_bytes()).ok().and_then(|uri| Target::of(&uri));
        let target =
            target.with_context(|| format!("requests of the dialog go to {named}, which is no SIP address"))?;
        let transport = self.wire.transport();
        let target = Target { transport: target.transport.or(Some(transport)), ..target };
        let (found, _) = self.resolver.resolve(&target).await;
        let (_, address) = found.map_err(|_| {
            anyhow!("requests of the dialog go to {named}, which has no address over {}", transport_name(transport))
        })?;
        Ok(address)
    }

    /// G.711 on a port of ours: what every SIP application takes.
    fn sdp(&self) -> anyhow::Result<String> {
        let address = self.media.local_addr()?;
        let (ip, port) = (address.ip(), address.port());
        let version = if ip.is_ipv4() { "IP4" } else { "IP6" };
        Ok(format!(
            "v=0\r\no=- {port} 1 IN {version} {ip}\r\ns=sipwarden-call\r\nc=IN {version} {ip}\r\nt=0 0\r\n\
             m=audio {port} RTP/AVP 8 0 101\r\na=rtpmap:8 PCMA/8000\r\na=rtpmap:0 PCMU/8000\r\n\
             a=rtpmap:101 telephone-event/8000\r\na=sendrecv\r\n"
        ))
    }
}

/// 0 for what is no response.
pub(super) fn status(packet: &Packet) -> u16 {
    packet.read(|message| message.status()).ok().flatten().unwrap_or(0)
}

fn branch() -> String {
    format!("z9hG4bK{:016x}", crate::random())
}
