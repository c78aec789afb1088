//! A small user agent for the demo: one UDP socket, one call, and every packet told as it goes and comes.

use std::fmt::Write;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, bail};
use sipwarden_sip::HeaderName;
use tokio::net::UdpSocket;
use tokio::time::timeout;

use super::console::Console;
use crate::call::packet::Packet;

/// Longest wait for a packet that must come; the expiry of the demo's session is the longest.
const PATIENCE: Duration = Duration::from_secs(9);
/// Headers worth a look in this demo.
const SHOWN: [HeaderName; 6] = [
    HeaderName::SessionExpires,
    HeaderName::MinSe,
    HeaderName::Supported,
    HeaderName::Require,
    HeaderName::Reason,
    HeaderName::CSeq,
];

/// One simulated phone.
pub(super) struct Phone {
    name: &'static str,
    socket: UdpSocket,
    /// Where its packets go: the sidecar.
    proxy: SocketAddr,
    console: Console,
}

impl Phone {
    /// A phone on loopback that sends everything to `proxy`.
    pub(super) fn new(name: &'static str, socket: UdpSocket, proxy: SocketAddr, console: Console) -> Phone {
        Phone { name, socket, proxy, console }
    }

    /// `IP:PORT`.
    pub(super) fn address(&self) -> anyhow::Result<SocketAddr> {
        Ok(self.socket.local_addr()?)
    }

    /// Sends a request; `lines` are its header lines without Via and Content-Length.
    pub(super) async fn request(&self, start: &str, branch: &str, lines: &[String]) -> anyhow::Result<()> {
        let address = self.address()?;
        let mut text = format!(
            "{start} SIP/2.0\r\nVia: SIP/2.0/UDP {address};rport;branch=z9hG4bK{branch}\r\nMax-Forwards: 70\r\n"
        );
        for line in lines {
            let _ = write!(text, "{line}\r\n");
        }
        text += "Content-Length: 0\r\n\r\n";
        self.send(text.into_bytes()).await
    }

    /// Answers a request as a user agent without session timers does; `lines` are added.
    pub(super) async fn answer(&self, request: &Packet, status: &str, lines: &[String]) -> anyhow::Result<()> {
        let mut text = format!("SIP/2.0 {status}\r\n");
        for name in [
            HeaderName::Via,
            HeaderName::RecordRoute,
            HeaderName::From,
            HeaderName::To,
            HeaderName::CallId,
            HeaderName::CSeq,
        ] {
            for value in request.all(name)? {
                let tag = if name == HeaderName::To && !value.contains(";tag=") { ";tag=app" } else { "" };
                let _ = write!(text, "{}: {value}{tag}\r\n", name.as_str());
            }
        }
        for line in lines {
            let _ = write!(text, "{line}\r\n");
        }
        text += "Content-Length: 0\r\n\r\n";
        self.send(text.into_bytes()).await
    }

    /// The next packet, which must be a `what`: a method or a status.
    pub(super) async fn expect(&self, what: &str) -> anyhow::Result<Packet> {
        let packet = self.receive().await.with_context(|| format!("{} waits for {what}", self.name))?;
        let start = packet.start_line();
        let found = start.strip_prefix("SIP/2.0 ").unwrap_or(&start).split(' ').next().unwrap_or_default();
        if found != what {
            bail!("{} got {start:?} instead of {what}", self.name);
        }
        Ok(packet)
    }

    async fn receive(&self) -> anyhow::Result<Packet> {
        let mut bytes = vec![0; 4096];
        let (length, from) = timeout(PATIENCE, self.socket.recv_from(&mut bytes)).await.context("nothing came")??;
        bytes.truncate(length);
        let packet = Packet { bytes, from };
        self.console.packet(self.name, "<--", &packet.start_line(), &shown(&packet)?);
        Ok(packet)
    }

    async fn send(&self, bytes: Vec<u8>) -> anyhow::Result<()> {
        let packet = Packet { bytes, from: self.address()? };
        self.console.packet(self.name, "-->", &packet.start_line(), &shown(&packet)?);
        self.socket.send_to(&packet.bytes, self.proxy).await?;
        Ok(())
    }
}

/// The headers worth a look.
fn shown(packet: &Packet) -> anyhow::Result<Vec<String>> {
    let mut lines = Vec::new();
    for name in SHOWN {
        lines.extend(packet.all(name)?.into_iter().map(|value| format!("{}: {value}", name.as_str())));
    }
    Ok(lines)
}
