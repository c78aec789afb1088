//! What a caller answers while its call is up.

use sipwarden_sip::value::{RefresherParam, SessionExpires};
use sipwarden_sip::{HeaderName, Method};

use super::{ALLOW, Ack, Agent, USER_AGENT, branch};
use crate::call::packet::Packet;

impl Agent {
    /// What is no answer to the request under way.
    pub(super) async fn serve(&mut self, packet: Packet) -> anyhow::Result<()> {
        match packet.read(|message| message.method()) {
            Ok(Some(method)) => self.answer(method, &packet).await,
            Ok(None) => self.again(&packet).await,
            // Not SIP: nothing to say about it.
            Err(_) => Ok(()),
        }
    }

    /// A 2xx to an INVITE that came again gets its ACK again; one of another fork gets its ACK and a BYE.
    async fn again(&mut self, packet: &Packet) -> anyhow::Result<()> {
        let read = packet.read(|message| {
            let cseq = message.cseq().ok().filter(|cseq| cseq.method == Method::Invite)?;
            let is_ours = message.call_id() == Some(self.call_id.as_bytes());
            (is_ours && message.status().is_some_and(|status| (200..300).contains(&status))).then_some(cseq.number)
        });
        let Ok(Some(cseq)) = read else { return Ok(()) };
        let to = packet.first(HeaderName::To)?;
        let known: Vec<&Ack> = self.acks.iter().filter(|ack| ack.cseq == cseq).collect();
        if let Some(ack) = known.iter().find(|ack| ack.to == to) {
            return self.wire.send(&ack.bytes, ack.next_hop).await;
        }
        if known.is_empty() {
            return Ok(());
        }
        let route = packet.route()?;
        let next_hop = self.hop(&route).await?;
        for (method, cseq) in [(Method::Ack, cseq), (Method::Bye, cseq + 1)] {
            let bytes = self.build(method, cseq, &branch(), &route, &to, USER_AGENT, b"");
            self.wire.send(&bytes, next_hop).await?;
        }
        Ok(())
    }

    /// A request of the callee. The media stays what was offered.
    async fn answer(&mut self, method: Method, packet: &Packet) -> anyhow::Result<()> {
        let (mut out, mut is_ours) = (Vec::new(), false);
        packet.read(|message| {
            is_ours = message.call_id() == Some(self.call_id.as_bytes());
            let (status, reason, lines) = match method {
                Method::Ack => return,
                _ if !is_ours => (481, "Call/Transaction Does Not Exist", String::new()),
                Method::Bye | Method::Info => (200, "OK", String::new()),
                Method::Options => (200, "OK", ALLOW.to_owned()),
                Method::Update if message.body().is_empty() => {
                    (200, "OK", self.timer_lines(message.session_expires().ok().flatten()))
                }
                Method::Update | Method::Invite => (488, "Not Acceptable Here", String::new()),
                Method::Cancel => (481, "Call/Transaction Does Not Exist", String::new()),
                _ => (405, "Method Not Allowed", ALLOW.to_owned()),
            };
            self.responder.respond(message, status, reason, b"", lines.as_bytes(), &mut out);
        })?;
        if method == Method::Bye && is_ours {
            let reason = packet.first(HeaderName::Reason).map(|reason| format!(" ({reason})")).unwrap_or_default();
            self.ended = Some(format!("the callee ended the call with a BYE{reason}"));
        }
        if out.is_empty() {
            return Ok(());
        }
        self.wire.send(&out, packet.from).await
    }

    /// Of the 2xx to a refresh that the callee sent (RFC 4028 §9).
    fn timer_lines(&self, asked: Option<SessionExpires>) -> String {
        let contact = format!("Contact: <sip:sipwarden-call@{}>\r\n{ALLOW}Supported: timer\r\n", self.wire.local());
        let Some(asked) = asked else { return contact };
        let refresher = asked.refresher.unwrap_or(RefresherParam::Uac);
        let require = if refresher == RefresherParam::Uac { "Require: timer\r\n" } else { "" };
        format!("{contact}{require}Session-Expires: {};refresher={}\r\n", asked.delta, refresher.as_str())
    }
}
