//! A user agent in one call: what it does of itself. Its answers are in `uas`, what it makes of answers in `uac`.

use std::net::SocketAddr;

use super::dialog::{Dialog, Ending};
use super::media::{Change, Media};
use super::message::{Sip, Style};
use super::rng::Rng;
use super::timer::{self, SessionExpires, Wishes};
use super::transaction::{Client, Purpose, Sent, Server, Tick};

/// What an agent can be told to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    Call,
    /// Answer the INVITE that rings.
    Answer,
    Cancel,
    /// Refresh now, whoever should.
    Refresh,
    /// A refresh without Session-Expires: turns the timer off.
    TimerOff,
    /// Hold or resume by re-INVITE.
    Hold,
    /// Hold or resume by UPDATE.
    HoldByUpdate,
    /// A re-INVITE without an offer.
    AskForOffer,
    /// Fax instead of voice, by re-INVITE.
    Fax,
    Info,
    HangUp,
    /// Receives and sends nothing any more.
    Vanish,
    /// Comes back without memory of any dialog.
    Forget,
}

/// An answer an agent gives instead of what it would do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Canned {
    /// Of an in-dialog request.
    pub method: &'static str,
    /// 0: none at all. 401, 407: until the request brings what answers it. 422: with a Min-SE of 900.
    pub status: u16,
    pub retry_after: Option<u32>,
    /// How many times; then it does what it would.
    pub times: u32,
}

/// What kind of agent it is.
#[derive(Clone, Debug)]
pub struct Habits {
    /// `None`: has never heard of RFC 4028.
    pub timer: Option<Wishes>,
    /// Takes UPDATE, and refreshes with it.
    pub update: bool,
    /// Sends UPDATE even to who does not take it.
    pub stubborn: bool,
    /// Sends Allow.
    pub allows: bool,
    /// Its INVITE has no offer.
    pub late_offer: bool,
    /// Its reliable 183 describes media.
    pub early_media: bool,
    /// Its media is bound to keys of one round (DTLS-SRTP).
    pub secured: bool,
    /// Raises the version of its description with every answer.
    pub restless: bool,
    /// Takes T.38.
    pub fax: bool,
    /// In-dialog requests it answers otherwise, the first that fits.
    pub script: Vec<Canned>,
    /// Its first calls are refused with 422 and these, whatever they ask for: hops that each want more.
    pub asks_for: Vec<u32>,
    /// Does 100rel: as a callee, its 183 is reliable.
    pub reliable_provisional: bool,
    /// How long it rings, in milliseconds.
    pub rings_ms: u64,
    pub busy: bool,
    /// Keeps every fork that answers, instead of the first.
    pub keeps_forks: bool,
    /// Session-Expires of its INVITE, as it stands here.
    pub odd_session_expires: Option<&'static str>,
    pub style: Style,
    /// Milliseconds after its first dialog is confirmed.
    pub acts: Vec<(u64, Act)>,
}

/// A user agent in one call.
#[derive(Debug)]
pub struct Agent {
    pub name: String,
    pub addr: SocketAddr,
    pub tcp: bool,
    /// Where its first request goes, and the Request-URI.
    pub outbound: (SocketAddr, String),
    pub call_id: String,
    pub habits: Habits,
    pub vanished: bool,
    /// It hung up for want of a refresh.
    pub gave_up: bool,
    /// When it vanished or lost its memory.
    pub gone_at: Option<u64>,
    pub dialogs: Vec<Dialog>,
    pub clients: Vec<Client>,
    pub servers: Vec<Server>,
    /// Absolute times.
    pub acts: Vec<(u64, Act)>,
    /// Nothing on the way to it can change the order of requests.
    pub in_order: bool,
    /// A message it should never have been sent.
    pub problem: Option<String>,
    /// CANCEL was sent, or nobody wants the call any more.
    pub(super) cancelled: bool,
    /// The last Min-SE of a 422 to its initial INVITE, and how many came.
    pub(super) setup_min_se: u32,
    pub(super) setup_tries: u32,
    pub(super) setup_seq: u32,
    pub(super) planned: bool,
    pub(super) rng: Rng,
    pub(super) branches: u32,
}

impl Agent {
    pub fn new(name: String, addr: SocketAddr, call_id: String, habits: Habits, mut rng: Rng) -> Agent {
        Agent {
            name,
            addr,
            tcp: false,
            outbound: (addr, String::new()),
            call_id,
            habits,
            vanished: false,
            gave_up: false,
            gone_at: None,
            dialogs: Vec::new(),
            clients: Vec::new(),
            servers: Vec::new(),
            acts: Vec::new(),
            in_order: false,
            problem: None,
            cancelled: false,
            setup_min_se: 0,
            setup_tries: 0,
            setup_seq: rng.range(1..5000) as u32,
            planned: false,
            branches: 0,
            rng,
        }
    }

    /// When [`Self::tick`] has something to do.
    pub fn due(&self) -> u64 {
        if self.vanished {
            return u64::MAX;
        }
        let acts = self.acts.iter().map(|(at, _)| *at);
        let dialogs = self.dialogs.iter().map(|dialog| dialog.refresh_at.min(dialog.gives_up_at));
        let transactions = self.clients.iter().map(Client::due).chain(self.servers.iter().map(Server::due));
        acts.chain(dialogs).chain(transactions).min().unwrap_or(u64::MAX)
    }

    pub fn tick(&mut self, now: u64, out: &mut Vec<Sent>) {
        self.tick_transactions(now, out);
        for index in 0..self.dialogs.len() {
            let dialog = &self.dialogs[index];
            if dialog.gives_up_at <= now {
                self.gave_up |= dialog.is_live();
                self.hang_up(now, index, out);
            } else if dialog.refresh_at <= now {
                self.refresh(now, index, out);
            }
        }
        let (due, later) = std::mem::take(&mut self.acts).into_iter().partition(|(at, _)| *at <= now);
        self.acts = later;
        let due: Vec<(u64, Act)> = due;
        for (_, act) in due {
            self.act(now, act, out);
        }
    }

    /// A message that arrived from `from`.
    pub fn receive(&mut self, now: u64, from: SocketAddr, message: &Sip, out: &mut Vec<Sent>) {
        if self.vanished {
            return;
        }
        match message.status() {
            Some(status) => self.response(now, message, status, out),
            None => self.request(now, from, message, out),
        }
    }

    /// Does it hold a dialog it believes in?
    pub fn is_in_call(&self) -> bool {
        !self.vanished && self.dialogs.iter().any(Dialog::is_live)
    }

    /// May its call end without its doing: it is gone, or refuses what keeps a call alive?
    pub fn is_unwell(&self) -> bool {
        let refuses = |canned: &Canned| {
            matches!(canned.status, 0 | 401 | 407 | 408 | 481)
                || (canned.times > 10 && !matches!(canned.status, 405 | 501))
        };
        self.gone_at.is_some() || self.habits.script.iter().any(refuses)
    }

    /// Does `act` now, or in a second when something stands in its way.
    pub fn act(&mut self, now: u64, act: Act, out: &mut Vec<Sent>) {
        let live = self.dialogs.iter().position(Dialog::is_live);
        let says_bye = self.clients.iter().any(|client| client.purpose == Purpose::Bye && client.is_open());
        match (act, live) {
            // Whoever says goodbye stays until it is heard: nobody else could say it again.
            (Act::Vanish | Act::Forget, _) if says_bye => self.acts.push((now + 1_000, act)),
            (Act::Call, _) => {
                self.cancelled = false;
                self.call(now, None, out);
            }
            (Act::Answer, _) => self.answer_call(now, out),
            (Act::Cancel, _) => self.cancel(now, out),
            (Act::Vanish, _) => {
                self.vanished = true;
                self.gone_at.get_or_insert(now);
            }
            (Act::Forget, _) => {
                self.gone_at.get_or_insert(now);
                self.dialogs.iter_mut().for_each(|dialog| dialog.finish(Ending::Forgotten));
                (self.clients, self.servers, self.acts) = Default::default();
            }
            (_, None) => {}
            (Act::HangUp, Some(_)) => {
                for index in 0..self.dialogs.len() {
                    self.hang_up(now, index, out);
                }
            }
            (Act::Info, Some(index)) => {
                let request = self.in_dialog(index, "INFO");
                self.send(now, request, Purpose::Other, Some(index), out);
            }
            (_, Some(index)) if self.is_busy(index) => self.acts.push((now + 1_000, act)),
            (Act::Refresh, Some(index)) => self.refresh(now, index, out),
            (Act::TimerOff, Some(index)) => {
                let method = self.refresh_method(index);
                self.renegotiate(now, index, (method, Change::Nothing), Purpose::Refresh, None, out);
            }
            (Act::HoldByUpdate, Some(index)) if !self.dialogs[index].takes_update => {}
            (Act::Hold | Act::HoldByUpdate | Act::Fax | Act::AskForOffer, Some(index)) => {
                let change = match act {
                    Act::Fax => Change::Fax,
                    Act::AskForOffer => Change::Nothing,
                    _ => Change::Hold,
                };
                let method = if act == Act::HoldByUpdate { "UPDATE" } else { "INVITE" };
                let header = self.asked_again(index);
                self.renegotiate(now, index, (method, change), Purpose::Change(act), header, out);
            }
        }
    }

    /// Sends an initial INVITE; after a 422 with its `min_se`.
    pub(super) fn call(&mut self, now: u64, min_se: Option<u32>, out: &mut Vec<Sent>) {
        self.setup_seq += 1;
        let uri = self.outbound.1.clone();
        let mut invite = Sip::request("INVITE", &uri);
        invite.push("From", &format!("\"Zoë;tag=no\" <sip:{}@caller.example>;tag={}-c", self.name, self.name));
        invite.push("To", &format!("<{uri}>"));
        invite.push("Call-ID", &self.call_id);
        invite.push("CSeq", &format!("{} INVITE", self.setup_seq));
        if let Some(wishes) = &self.habits.timer {
            let floor = min_se.unwrap_or(0);
            let asked = wishes.interval.or(min_se).map(|interval| interval.max(floor));
            let least = if wishes.least > timer::LEAST { wishes.least.max(floor) } else { floor };
            if let Some(delta) = asked {
                let header = SessionExpires { delta, refresher: wishes.asks };
                invite.push("Session-Expires", &header.written(self.habits.style));
            }
            if least > 0 {
                invite.push("Min-SE", &least.to_string());
            }
        }
        if let Some(odd) = self.habits.odd_session_expires {
            invite.headers.retain(|line| line.name != "session-expires");
            invite.push("Session-Expires", odd);
        }
        if !self.habits.late_offer {
            let opening = self.media("c").offer(Change::Nothing);
            invite.describe_media(&opening);
        }
        self.furnish(&mut invite);
        self.send(now, invite, Purpose::Setup, None, out);
    }

    /// Ends a dialog with BYE, unless it may not yet (RFC 3261 §15).
    pub(super) fn hang_up(&mut self, now: u64, index: usize, out: &mut Vec<Sent>) {
        if !self.dialogs[index].is_live() {
            return;
        }
        if self.awaits_ack(index) {
            self.dialogs[index].gives_up_at = u64::MAX;
            return self.acts.push((now + 1_000, Act::HangUp));
        }
        let bye = self.in_dialog(index, "BYE");
        self.send(now, bye, Purpose::Bye, Some(index), out);
        self.dialogs[index].finish(Ending::HungUp);
    }

    fn refresh(&mut self, now: u64, index: usize, out: &mut Vec<Sent>) {
        if self.is_busy(index) {
            self.dialogs[index].refresh_at = now + 1_000;
            return;
        }
        self.dialogs[index].refresh_at = u64::MAX;
        let (method, header) = (self.refresh_method(index), self.asked_again(index));
        self.renegotiate(now, index, (method, Change::Nothing), Purpose::Refresh, header, out);
    }

    /// Descriptions of a dialog it begins with that letter.
    pub(super) fn media(&self, role: &str) -> Media {
        let mut media = Media::new(&format!("{}-{role}", self.name), self.habits.secured);
        media.restless = self.habits.restless;
        media
    }

    fn refresh_method(&self, index: usize) -> &'static str {
        if self.habits.update && (self.habits.stubborn || self.dialogs[index].takes_update) {
            "UPDATE"
        } else {
            "INVITE"
        }
    }

    fn asked_again(&mut self, index: usize) -> Option<SessionExpires> {
        let dialog = &self.dialogs[index];
        let wishes = self.habits.timer.as_ref()?;
        timer::asked_again(wishes, dialog.timer, dialog.min_se, &mut self.rng)
    }

    /// A re-INVITE or UPDATE.
    pub(super) fn renegotiate(
        &mut self,
        now: u64,
        index: usize,
        (method, change): (&str, Change),
        purpose: Purpose,
        header: Option<SessionExpires>,
        out: &mut Vec<Sent>,
    ) {
        let mut request = self.in_dialog(index, method);
        if let Some(wishes) = &self.habits.timer {
            if let Some(header) = header {
                request.push("Session-Expires", &header.written(self.habits.style));
            }
            let least = if wishes.least > timer::LEAST { wishes.least } else { 0 };
            let least = least.max(self.dialogs[index].min_se);
            if header.is_some_and(|header| header.delta >= least) && least > 0 {
                request.push("Min-SE", &least.to_string());
            }
        }
        let asks = purpose == Purpose::Change(Act::AskForOffer);
        if !asks && (method == "INVITE" || change != Change::Nothing) {
            let offer = self.dialogs[index].media.offer(change);
            request.describe_media(&offer);
        }
        self.send(now, request, purpose, Some(index), out);
    }

    /// A transaction of ours, or one we answer, forbids another offer now (RFC 3261 §14.1).
    pub(super) fn is_busy(&self, index: usize) -> bool {
        let open = |client: &&Client| client.dialog == Some(index) && client.is_open();
        let negotiates = |client: &Client| matches!(client.purpose, Purpose::Refresh | Purpose::Change(_));
        self.clients.iter().filter(open).any(negotiates) || self.awaits_ack(index)
    }

    pub(super) fn awaits_ack(&self, index: usize) -> bool {
        let tag = &self.dialogs[index].remote_tag;
        let of_dialog = |server: &&Server| server.request.tag("From") == Some(tag);
        self.servers.iter().filter(of_dialog).any(|server| server.is_invite() && !server.settled)
    }

    /// A request inside a dialog with all an agent adds to it.
    pub(super) fn in_dialog(&mut self, index: usize, method: &str) -> Sip {
        let mut request = self.dialogs[index].request(method, None);
        self.furnish(&mut request);
        request
    }

    /// What every request of this agent has.
    pub(super) fn furnish(&mut self, request: &mut Sip) {
        self.branches += 1;
        let (transport, addr) = (if self.tcp { "TCP" } else { "UDP" }, self.addr);
        let rport = if self.branches.is_multiple_of(2) { ";rport" } else { "" };
        let branch = format!("z9hG4bK{}.{}", self.name, self.branches);
        request.push_front("Via", &format!("SIP/2.0/{transport} {addr};branch={branch}{rport}"));
        request.push("Max-Forwards", "70");
        self.describe(request);
        request.push("X-Sim", "kept; as=\"it, was\"");
    }

    pub(super) fn contact(&self) -> String {
        let transport = if self.tcp { ";transport=tcp" } else { "" };
        format!("sip:{}@{}{transport}", self.name, self.addr)
    }

    /// Contact, Supported, Allow.
    pub(super) fn describe(&self, message: &mut Sip) {
        message.push("Contact", &format!("<{}>", self.contact()));
        let timer = self.habits.timer.as_ref().map(|_| "timer");
        let reliable = self.habits.reliable_provisional.then_some("100rel");
        let supported: Vec<&str> = ["replaces"].into_iter().chain(timer).chain(reliable).collect();
        message.push("Supported", &supported.join(if self.habits.style.spaced { " , " } else { "," }));
        if self.habits.allows {
            let update = if self.habits.update { ", UPDATE" } else { "" };
            message.push("Allow", &format!("INVITE, ACK, BYE, CANCEL, INFO, PRACK{update}"));
        }
    }

    pub(super) fn send(
        &mut self,
        now: u64,
        request: Sip,
        purpose: Purpose,
        dialog: Option<usize>,
        out: &mut Vec<Sent>,
    ) {
        let to = dialog.map_or(Some(self.outbound.0), |index| self.dialogs[index].next_hop());
        let Some(to) = to else {
            self.problem = Some(format!("{} was given a route it cannot follow", self.name));
            return;
        };
        let mut client = Client::start(now, request, purpose, to, self.habits.style, out);
        client.dialog = dialog;
        self.clients.push(client);
    }

    fn cancel(&mut self, now: u64, out: &mut Vec<Sent>) {
        let setup = self.clients.iter().find(|client| client.purpose == Purpose::Setup && client.is_open());
        let Some(setup) = setup else { return };
        self.cancelled = true;
        if !setup.rings {
            // Not before a provisional (RFC 3261 §9.1).
            return self.acts.push((now + 500, Act::Cancel));
        }
        let mut cancel = Sip::request("CANCEL", setup.request.uri());
        cancel.push("Via", setup.request.get("Via").unwrap_or_default());
        for name in ["From", "To", "Call-ID"] {
            cancel.push(name, setup.request.get(name).unwrap_or_default());
        }
        cancel.push("CSeq", &format!("{} CANCEL", setup.request.cseq().0));
        cancel.push("Max-Forwards", "70");
        self.send(now, cancel, Purpose::Other, None, out);
    }

    /// The first dialog is confirmed: from now on the plan runs.
    pub(super) fn confirmed(&mut self, now: u64) {
        if !std::mem::replace(&mut self.planned, true) {
            self.acts.extend(self.habits.acts.iter().map(|(after, act)| (now + after, *act)));
        }
    }

    fn tick_transactions(&mut self, now: u64, out: &mut Vec<Sent>) {
        let mut gone = Vec::new();
        self.clients.retain_mut(|client| match client.tick(now, out) {
            Tick::Goes => true,
            Tick::Over => false,
            Tick::TimedOut => {
                gone.push(client.clone());
                false
            }
        });
        for client in gone {
            self.unanswered(now, &client, out);
        }
        let mut unsettled = Vec::new();
        self.servers.retain_mut(|server| match server.tick(now, out) {
            Tick::Goes => true,
            Tick::Over => false,
            Tick::TimedOut => {
                unsettled.push(server.clone());
                false
            }
        });
        for server in unsettled {
            self.unacknowledged(now, &server, out);
        }
    }
}
