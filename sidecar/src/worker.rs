//! A worker: one thread that receives, decides and sends, and runs the timers of its shard.
//!
//! Each turn serves, in this order: due timers (an expiry must not wait for a flood), messages from streams and from
//! the resolver, datagrams. Then everything that leaves is sent, datagrams of one socket in one system call. A message
//! of another worker's call is handled right here under that shard's lock; no lock is held across an await.

use std::future::poll_fn;
use std::net::UdpSocket;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use sipwarden_session_timer::{Flow, Leg, Time};
use sipwarden_shard::{DropReason, Intake, Outbox, Outcome, shard_of};
use sipwarden_sip::Message;
use sipwarden_sip::value::Transport;
use tokio::sync::{mpsc, watch};
use tokio::time::Sleep;
use tracing::trace;

use crate::hub::{Command, Hub, Step};
use crate::metrics::MessageKind;
use crate::record::Handled;
use crate::transport::udp::{Arena, Udp};
use crate::typed;

/// Commands and batches of datagrams of one socket served in one turn, before the others get theirs.
const COMMANDS_PER_TURN: usize = 64;
const BATCHES_PER_TURN: usize = 4;
/// NAT keep-alives (RFC 5626 §3.5.1 and its kin): line ends or zeros, too short to be anything else.
const KEEPALIVE_LEN: usize = 4;
/// One decision of this many is timed.
const DECISION_SAMPLE: u32 = 64;
/// Room the outbox may keep after a burst.
const KEPT_OUTBOX_LEN: usize = 1 << 20;

/// One worker, to be run on its own thread.
pub struct Worker {
    sockets: Vec<Udp>,
    arena: Arena,
    commands: mpsc::Receiver<Command>,
    stop: watch::Receiver<bool>,
    timer: Pin<Box<Sleep>>,
    engine: Engine,
}

/// The part without sockets.
struct Engine {
    index: usize,
    hub: Arc<Hub>,
    intake: Intake,
    outbox: Outbox,
    unsampled: u32,
}

impl Worker {
    /// Worker number `index` with its sockets, each with its endpoint's index. Call it in the worker's runtime.
    ///
    /// # Errors
    /// The runtime cannot watch a socket.
    pub fn new(
        index: usize,
        hub: Arc<Hub>,
        sockets: Vec<(u16, UdpSocket)>,
        commands: mpsc::Receiver<Command>,
        stop: watch::Receiver<bool>,
    ) -> std::io::Result<Worker> {
        let sockets = sockets
            .into_iter()
            .map(|(endpoint, socket)| Udp::new(endpoint, socket, hub.metrics.clone()))
            .collect::<Result<_, _>>()?;
        Ok(Worker {
            sockets,
            arena: Arena::new(),
            commands,
            stop,
            timer: Box::pin(tokio::time::sleep_until(hub.instant(Hub::NEVER))),
            engine: Engine { index, hub, intake: Intake::new(), outbox: Outbox::default(), unsampled: 0 },
        })
    }

    /// Works until it is told to stop.
    pub async fn run(&mut self) {
        let mut stop = self.stop.clone();
        tokio::select! {
            biased;
            _ = stop.wait_for(|&stop| stop) => {}
            () = poll_fn(|cx| self.turn(cx)) => {}
        }
    }

    /// Serves what has come by now and sends what it still has.
    pub async fn flush(&mut self) {
        poll_fn(|cx| {
            let _ = self.turn(cx);
            self.poll_flush(cx)
        })
        .await;
    }

    /// Never ready.
    fn turn(&mut self, cx: &mut Context) -> Poll<()> {
        let now = self.engine.hub.now();
        self.engine.run_due(now);
        self.serve_commands(cx, now);
        self.serve_datagrams(cx, now);
        self.send();
        while let Some(next) = self.engine.next_timeout() {
            self.arm(next);
            if self.timer.as_mut().poll(cx).is_pending() {
                break;
            }
            self.engine.run_due(self.engine.hub.now());
            self.send();
        }
        let _ = self.poll_flush(cx);
        Poll::Pending
    }

    fn serve_commands(&mut self, cx: &mut Context, now: Time) {
        for _ in 0..COMMANDS_PER_TURN {
            match self.commands.poll_recv(cx) {
                Poll::Ready(Some(Command::Message(inbound))) => self.engine.receive(now, inbound.flow, &inbound.bytes),
                Poll::Ready(Some(Command::Rearm)) => {}
                Poll::Ready(None) | Poll::Pending => return,
            }
        }
        cx.waker().wake_by_ref();
    }

    fn serve_datagrams(&mut self, cx: &mut Context, now: Time) {
        for socket in &mut self.sockets {
            for batch in 1.. {
                let Poll::Ready(more) = socket.poll_receive(cx, &mut self.arena) else { break };
                for (peer, bytes) in self.arena.received() {
                    if bytes.len() > KEEPALIVE_LEN {
                        self.engine.receive(now, Flow { endpoint: socket.endpoint, connection: 0, peer }, bytes);
                    }
                }
                if more && batch == BATCHES_PER_TURN {
                    cx.waker().wake_by_ref();
                    break;
                }
            }
        }
    }

    /// Sends the outbox and empties it.
    fn send(&mut self) {
        let Engine { hub, outbox, .. } = &mut self.engine;
        if outbox.packets.is_empty() {
            return;
        }
        for socket in &mut self.sockets {
            let endpoint = socket.endpoint;
            let own = outbox.packets.iter().filter(|packet| packet.flow.endpoint == endpoint);
            socket.send(own.map(|packet| (packet.flow.peer, outbox.packet(packet))));
        }
        for packet in &outbox.packets {
            let endpoint = &hub.endpoints[usize::from(packet.flow.endpoint)];
            if endpoint.transport != Transport::Udp {
                hub.streams.send(packet.flow, endpoint.local, outbox.packet(packet));
            }
        }
        outbox.clear();
        outbox.bytes.shrink_to(KEPT_OUTBOX_LEN);
    }

    fn poll_flush(&mut self, cx: &mut Context) -> Poll<()> {
        let pending = self.sockets.iter_mut().filter_map(|socket| socket.poll_flush(cx).is_pending().then_some(()));
        if pending.count() == 0 { Poll::Ready(()) } else { Poll::Pending }
    }

    /// A timer that fires too early costs a turn, one that is moved costs each time: so it is only moved forward.
    fn arm(&mut self, next: Time) {
        let deadline = self.engine.hub.instant(next);
        if self.timer.is_elapsed() || deadline < self.timer.deadline() {
            self.timer.as_mut().reset(deadline);
        }
    }
}

impl Engine {
    /// One message, whole: what leaves because of it is in the outbox afterwards.
    fn receive(&mut self, now: Time, flow: Flow, bytes: &[u8]) {
        self.unsampled += 1;
        if self.unsampled < DECISION_SAMPLE {
            return self.decide(now, flow, bytes);
        }
        self.unsampled = 0;
        let start = Instant::now();
        self.decide(now, flow, bytes);
        self.hub.metrics.decision(start.elapsed());
    }

    fn decide(&mut self, now: Time, flow: Flow, bytes: &[u8]) {
        let hub = &self.hub;
        let side = hub.endpoints[usize::from(flow.endpoint)].leg;
        let (kind, outcome) = match self.intake.receive(bytes) {
            Err(error) => (MessageKind::Unreadable, Outcome::Dropped(DropReason::Parse(error))),
            Ok(message) => {
                let index = shard_of(&message, hub.key, hub.shard_count());
                let mut guarded = hub.lock(index);
                let packets = self.outbox.packets.len();
                let outcome = guarded.shard.handle_message(now, flow, &message, &mut self.outbox);
                let handled = Handled { flow, leg: side, message: &message, outcome };
                hub.report(index, &mut guarded, &mut self.outbox, &Step { now, packets, handled: Some(handled) });
                if index != self.index {
                    hub.arm(index, &guarded.shard);
                }
                drop(guarded);
                trace_message(side, flow, &message, outcome, hub.logs_users());
                for lookup in self.outbox.lookups.drain(..) {
                    hub.look_up(index, lookup);
                }
                (kind_of(&message), outcome)
            }
        };
        hub.metrics.message(side, kind, outcome);
    }

    fn run_due(&mut self, now: Time) {
        let mut guarded = self.hub.lock(self.index);
        if guarded.shard.next_timeout().is_some_and(|due| due <= now) {
            let packets = self.outbox.packets.len();
            guarded.shard.handle_timeout(now, &mut self.outbox);
            self.hub.report(self.index, &mut guarded, &mut self.outbox, &Step { now, packets, handled: None });
        }
    }

    fn next_timeout(&self) -> Option<Time> {
        self.hub.arm_own(self.index)
    }
}

fn kind_of(message: &Message) -> MessageKind {
    if message.method().is_some() { MessageKind::Request } else { MessageKind::Response }
}

fn trace_message(side: Leg, flow: Flow, message: &Message, outcome: Outcome, reveal: bool) {
    if !tracing::enabled!(target: "sipwarden::message", tracing::Level::TRACE) {
        return;
    }
    let text = |bytes: Option<&[u8]>| bytes.map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    trace!(
        target: "sipwarden::message",
        from = side.as_str(),
        peer = %flow.peer,
        connection = flow.connection,
        method = message.method().map(sipwarden_sip::Method::as_str),
        status = message.status(),
        uri = message.request_uri().map(|uri| typed::shown_uri(uri, reveal)),
        call_id = text(message.call_id()),
        ?outcome,
        "message"
    );
}
