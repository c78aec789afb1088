//! How an agent answers.

use std::net::SocketAddr;

use super::agent::{Act, Agent};
use super::dialog::{Dialog, Ending};
use super::message::Sip;
use super::timer::{self, Role, Running, SessionExpires};
use super::transaction::{Sent, Server};

impl Agent {
    pub(super) fn request(&mut self, now: u64, from: SocketAddr, request: &Sip, out: &mut Vec<Sent>) {
        let method = request.method().unwrap_or_default().to_owned();
        if let Some(server) = self.servers.iter_mut().find(|server| server.is_of(request)) {
            return if method == "ACK" { server.acked() } else { server.repeat(out) };
        }
        match method.as_str() {
            "ACK" => self.acked(request),
            "CANCEL" => self.cancelled_by_caller(now, from, request, out),
            _ => {
                self.servers.push(Server::new(now, request, from, self.habits.style));
                let server = self.servers.len() - 1;
                match request.tag("To") {
                    Some(tag) => {
                        let tag = tag.to_owned();
                        self.in_dialog_request(now, server, request, &tag, &method, out);
                    }
                    None if method == "INVITE" => self.called(now, server, request, out),
                    None => self.reply(now, server, 501, out),
                }
            }
        }
    }

    /// The tag of every dialog in which this agent is called.
    fn tag(&self) -> String {
        format!("{}-s", self.name)
    }

    fn reply(&mut self, now: u64, server: usize, status: u16, out: &mut Vec<Sent>) {
        let response = Sip::response(&self.servers[server].request, status, &self.tag());
        self.servers[server].respond(now, &response, out);
    }

    fn acked(&mut self, ack: &Sip) {
        let of = |server: &&mut Server| {
            server.is_invite()
                && server.request.cseq().0 == ack.cseq().0
                && server.request.tag("From") == ack.tag("From")
        };
        if let Some(server) = self.servers.iter_mut().find(of) {
            server.acked();
        }
    }

    fn cancelled_by_caller(&mut self, now: u64, from: SocketAddr, cancel: &Sip, out: &mut Vec<Sent>) {
        let invite =
            self.servers.iter().position(|server| server.is_invite() && server.request.branch() == cancel.branch());
        self.servers.push(Server::new(now, cancel, from, self.habits.style));
        let server = self.servers.len() - 1;
        self.reply(now, server, if invite.is_some() { 200 } else { 481 }, out);
        if let Some(invite) = invite.filter(|invite| self.servers[*invite].status < 200) {
            self.acts.retain(|(_, act)| *act != Act::Answer);
            self.dialogs
                .iter_mut()
                .filter(|dialog| !dialog.confirmed)
                .for_each(|early| early.finish(Ending::Unanswered));
            self.reply(now, invite, 487, out);
        }
    }

    /// An initial INVITE.
    fn called(&mut self, now: u64, server: usize, invite: &Sip, out: &mut Vec<Sent>) {
        if self.habits.busy || self.dialogs.iter().any(|dialog| dialog.end == Some(Ending::Forgotten)) {
            return self.reply(now, server, 486, out);
        }
        if let Some(least) = self.habits.timer.as_ref().and_then(|wishes| timer::too_small(wishes, invite)) {
            return self.too_small(now, server, least, out);
        }
        let reliable = self.habits.reliable_provisional && invite.lists("Supported", "100rel");
        let mut ringing = Sip::response(invite, if reliable { 183 } else { 180 }, &self.tag());
        if reliable {
            ringing.push("Require", "100rel");
            ringing.push("RSeq", "71");
        }
        self.record_route(invite, &mut ringing);
        self.describe(&mut ringing);
        self.dialogs.push(Dialog::new(false, invite, &ringing));
        self.servers[server].respond(now, &ringing, out);
        self.acts.push((now + self.habits.rings_ms, Act::Answer));
    }

    /// Picks up, unless a PRACK is still to come.
    pub(super) fn answer_call(&mut self, now: u64, out: &mut Vec<Sent>) {
        let rings = |server: &Server| server.is_invite() && (1..200).contains(&server.status);
        let Some(server) = self.servers.iter().position(rings) else { return };
        if self.servers[server].rseq.is_some() {
            return self.acts.push((now + 200, Act::Answer));
        }
        let invite = self.servers[server].request.clone();
        let from = invite.tag("From").unwrap_or_default();
        let Some(index) = self.dialogs.iter().position(|dialog| dialog.remote_tag == from) else { return };
        self.dialogs[index].confirmed = true;
        self.accept(now, server, index, &invite, out);
        self.confirmed(now);
    }

    fn in_dialog_request(
        &mut self,
        now: u64,
        server: usize,
        request: &Sip,
        tag: &str,
        method: &str,
        out: &mut Vec<Sent>,
    ) {
        if ![self.tag(), format!("{}-c", self.name)].contains(&tag.to_owned()) {
            self.problem = Some(format!("{} was sent a {method} of somebody else's dialog", self.name));
        }
        if request.uri() != self.contact() {
            self.problem = Some(format!("{} was sent a {method} for {}", self.name, request.uri()));
        }
        let remote_tag = request.tag("From").unwrap_or_default();
        let known = self.dialogs.iter().position(|dialog| dialog.local_tag == tag && dialog.remote_tag == remote_tag);
        let Some(index) = known.filter(|index| self.dialogs[*index].end.is_none()) else {
            return self.reply(now, server, 481, out);
        };
        let number = request.cseq().0;
        if self.dialogs[index].remote_seq.is_some_and(|last| number <= last) {
            // RFC 3261 §12.2.2.
            if self.in_order {
                self.problem = Some(format!("{} was sent a CSeq of {number} after a higher one", self.name));
            }
            return self.reply(now, server, 500, out);
        }
        self.dialogs[index].remote_seq = Some(number);
        match method {
            "BYE" => {
                let ours = request.get("Reason").is_some_and(|reason| reason.contains("Session timer expired"));
                self.dialogs[index].finish(if ours { Ending::Expired } else { Ending::Bye });
                self.reply(now, server, 200, out);
            }
            "PRACK" => self.pracked(now, server, request, out),
            "INVITE" | "UPDATE" => self.renegotiate_with(now, server, index, request, method, out),
            _ => self.reply(now, server, 200, out),
        }
    }

    fn pracked(&mut self, now: u64, server: usize, prack: &Sip, out: &mut Vec<Sent>) {
        let rack = prack.get("RAck").unwrap_or_default();
        let acknowledges = |waits: &&mut Server| {
            waits.rseq.is_some_and(|rseq| rack == format!("{rseq} {} INVITE", waits.request.cseq().0))
        };
        match self.servers.iter_mut().find(acknowledges) {
            Some(waits) => {
                waits.pracked(now);
                self.reply(now, server, 200, out);
            }
            None => self.reply(now, server, 481, out),
        }
    }

    /// A re-INVITE or UPDATE of the other side.
    fn renegotiate_with(
        &mut self,
        now: u64,
        server: usize,
        index: usize,
        request: &Sip,
        method: &str,
        out: &mut Vec<Sent>,
    ) {
        let offers = method == "INVITE";
        let ours =
            self.clients.iter().any(|client| client.dialog == Some(index) && client.is_open() && client.is_invite());
        let theirs = self.servers[..server].iter().any(|other| other.is_invite() && !other.settled);
        if method == "UPDATE" && !self.habits.update {
            return self.reply(now, server, 405, out);
        }
        if offers && ours {
            return self.reply(now, server, 491, out);
        }
        if offers && theirs {
            return self.reply(now, server, 500, out);
        }
        self.accept(now, server, index, request, out);
    }

    /// 200, or 422, to INVITE or UPDATE.
    fn accept(&mut self, now: u64, server: usize, index: usize, request: &Sip, out: &mut Vec<Sent>) {
        let wishes = self.habits.timer.as_ref();
        if let Some(least) = wishes.and_then(|wishes| timer::too_small(wishes, request)) {
            return self.too_small(now, server, least, out);
        }
        let header = wishes.and_then(|wishes| timer::answer(wishes, request, &mut self.rng));
        if let Some(target) = request.contact() {
            self.dialogs[index].target = target;
        }
        let mut response = Sip::response(request, 200, &self.tag());
        self.record_route(request, &mut response);
        self.describe(&mut response);
        if let Some(header) = header {
            response.push("Session-Expires", &header.written(self.habits.style));
            if header.refresher == Some(Role::Uac) {
                response.push("Require", "timer");
            }
        }
        if request.method() == Some("INVITE") {
            response.body = self.dialogs[index].sdp(false);
        }
        self.servers[server].respond(now, &response, out);
        if let Some(wishes) = &self.habits.timer {
            let asked = SessionExpires::of(request).ok().flatten().and_then(|header| header.refresher);
            let timer = header.map(|header| Running::from_2xx(now, header, Role::Uas, asked));
            self.dialogs[index].arm(timer, wishes.guards);
        }
    }

    fn too_small(&mut self, now: u64, server: usize, least: u32, out: &mut Vec<Sent>) {
        let mut response = Sip::response(&self.servers[server].request, 422, &self.tag());
        response.push("Min-SE", &least.to_string());
        self.servers[server].respond(now, &response, out);
    }

    fn record_route(&self, invite: &Sip, response: &mut Sip) {
        for value in invite.all("Record-Route") {
            response.push("Record-Route", value);
        }
    }

    /// The ACK of a 2xx never came (RFC 3261 §13.3.1.4), or the PRACK of a 183.
    pub(super) fn unacknowledged(&mut self, now: u64, server: &Server, out: &mut Vec<Sent>) {
        let from = server.request.tag("From").unwrap_or_default();
        let Some(index) = self.dialogs.iter().position(|dialog| dialog.remote_tag == from) else { return };
        if server.status >= 200 && server.status < 300 {
            self.hang_up(now, index, out);
        } else if !self.dialogs[index].confirmed {
            self.dialogs[index].finish(Ending::Unanswered);
        }
    }
}
