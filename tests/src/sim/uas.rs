//! How an agent answers.

use std::net::SocketAddr;

use super::agent::{Act, Agent, Canned};
use super::dialog::{Dialog, Ending};
use super::media::{Change, Media};
use super::message::Sip;
use super::timer::{self, Role, Running, SessionExpires};
use super::transaction::{Sent, Server};

impl Agent {
    pub(super) fn request(&mut self, now: u64, from: SocketAddr, request: &Sip, out: &mut Vec<Sent>) {
        let method = request.method().unwrap_or_default().to_owned();
        if self.habits.timer.is_none() && request.lists("Require", "timer") {
            self.problem = Some(format!("{} knows no timers, and they are required of it", self.name));
        }
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
        let Some(server) = self.servers.iter_mut().find(of) else { return };
        let answers = !server.settled && server.request.body.is_empty();
        server.acked();
        let of = |dialog: &&mut Dialog| Some(dialog.remote_tag.as_str()) == ack.tag("From");
        if let Some(dialog) = self.dialogs.iter_mut().find(of).filter(|_| answers) {
            dialog.media.answered(&ack.body);
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
        if !self.habits.asks_for.is_empty() {
            let least = self.habits.asks_for.remove(0);
            return self.too_small(now, server, least, out);
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
        let mut dialog = Dialog::new(false, invite, &ringing);
        dialog.media = self.media("s");
        if reliable && self.habits.early_media {
            let described = describe(&mut dialog.media, &invite.body);
            ringing.describe_media(&described);
        }
        self.dialogs.push(dialog);
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
        if let Some(canned) = self.canned(request) {
            return self.reply_canned(now, server, canned, out);
        }
        match method {
            "BYE" => {
                let ending = if request.is_of_sidecar() { Ending::Expired } else { Ending::Bye };
                self.dialogs[index].finish(ending);
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
                let from = prack.tag("From");
                if let Some(dialog) = self.dialogs.iter_mut().find(|dialog| Some(dialog.remote_tag.as_str()) == from)
                    && !prack.body.is_empty()
                {
                    dialog.media.answered(&prack.body);
                }
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
        let offers = method == "INVITE" || !request.body.is_empty();
        let inviting =
            self.clients.iter().any(|client| client.dialog == Some(index) && client.is_open() && client.is_invite());
        // Without an offer of its own an UPDATE disturbs nobody (RFC 3311 §5.2).
        let ours = inviting || self.dialogs[index].media.offered.is_some();
        let unsettled = |other: &&Server| other.is_invite() && !other.settled;
        let theirs = self.servers[..server].iter().find(unsettled).map(|other| other.request.is_of_sidecar());
        if offers && theirs == Some(true) && self.in_order {
            self.problem = Some(format!("a {method} came to {} while the sidecar's own offer was open", self.name));
        }
        if method == "UPDATE" && !self.habits.update {
            return self.reply(now, server, 405, out);
        }
        if offers && ours {
            return self.reply(now, server, 491, out);
        }
        if offers && theirs.is_some() {
            return self.reply(now, server, 500, out);
        }
        if request.body.contains("m=image") && !self.habits.fax {
            return self.reply(now, server, 488, out);
        }
        if request.is_of_sidecar() {
            self.judge_refresh(index, request);
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
        let described = match request.tag("To") {
            // A reliable 183 has said it.
            None if self.dialogs[index].media.mine.is_some() => String::new(),
            _ if request.method() == Some("INVITE") || !request.body.is_empty() => {
                describe(&mut self.dialogs[index].media, &request.body)
            }
            _ => String::new(),
        };
        response.describe_media(&described);
        self.servers[server].respond(now, &response, out);
        if let Some(wishes) = &self.habits.timer {
            let asked = SessionExpires::of(request).ok().flatten().and_then(|header| header.refresher);
            let timer = header.map(|header| Running::from_2xx(now, header, Role::Uas, asked));
            self.dialogs[index].arm(timer, wishes.guards);
        }
    }

    /// A refresh the sidecar made in the name of the other side: it must be one, and change nothing.
    fn judge_refresh(&mut self, index: usize, request: &Sip) {
        let (dialog, method) = (&self.dialogs[index], request.method().unwrap_or_default());
        let fits = match method {
            "INVITE" => dialog.media.theirs.as_deref() == Some(request.body.as_str()),
            _ => request.body.is_empty(),
        };
        let refresher = SessionExpires::of(request).ok().flatten().and_then(|header| header.refresher);
        // A sidecar between the one that made it and its application may take out what it answers itself.
        let told =
            self.addr.ip().is_loopback() || (refresher == Some(Role::Uac) && request.lists("Supported", "timer"));
        let complaint = if !fits {
            format!("offers {:?}, and {:?} is in force", request.body, dialog.media.theirs)
        } else if !told {
            "is no refresh".to_owned()
        } else if request.contact().as_ref() != Some(&dialog.target) {
            format!("names {:?} for {}", request.contact(), dialog.target)
        } else {
            return;
        };
        self.problem = Some(format!("a {method} of the sidecar to {} {complaint}", self.name));
    }

    /// What it answers otherwise than it would.
    fn canned(&mut self, request: &Sip) -> Option<Canned> {
        let fits = |canned: &&mut Canned| {
            let answered = match canned.status {
                401 => request.get("Authorization").is_some(),
                407 => request.get("Proxy-Authorization").is_some(),
                _ => false,
            };
            Some(canned.method) == request.method() && canned.times > 0 && !answered
        };
        let canned = self.habits.script.iter_mut().find(fits)?;
        canned.times -= 1;
        Some(*canned)
    }

    fn reply_canned(&mut self, now: u64, server: usize, canned: Canned, out: &mut Vec<Sent>) {
        if canned.status == 0 {
            return self.servers[server].settled = true;
        }
        let mut response = Sip::response(&self.servers[server].request, canned.status, &self.tag());
        if let Some(seconds) = canned.retry_after {
            response.push("Retry-After", &seconds.to_string());
        }
        if canned.status == 422 {
            response.push("Min-SE", "900");
        }
        match canned.status {
            401 => response.push("WWW-Authenticate", "Digest realm=\"sim\", nonce=\"n1\", algorithm=MD5"),
            407 => response.push("Proxy-Authenticate", "Digest realm=\"proxy\", nonce=\"n2\", algorithm=MD5"),
            _ => {}
        }
        self.servers[server].respond(now, &response, out);
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

/// The answer to an offer, or an offer where none came.
fn describe(media: &mut Media, offer: &str) -> String {
    if offer.is_empty() { media.offer(Change::Nothing) } else { media.answer(offer) }
}
