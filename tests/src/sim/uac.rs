//! What an agent makes of the answers to its requests.

use super::agent::{Act, Agent};
use super::dialog::{Dialog, Ending};
use super::media::Change;
use super::message::Sip;
use super::timer::{self, Role, Running, SessionExpires, Unreadable};
use super::transaction::{Client, Purpose, Sent};

/// After so many 422 a caller gives up.
const MOST_TRIES: u32 = 4;

impl Agent {
    pub(super) fn response(&mut self, now: u64, response: &Sip, status: u16, out: &mut Vec<Sent>) {
        let Some(position) = self.clients.iter().position(|client| client.answers_to(response)) else {
            let prefix = format!("z9hG4bK{}.", self.name);
            if !response.branch().starts_with(&prefix) {
                self.problem = Some(format!("{} was sent an answer to a request of somebody else", self.name));
            }
            return;
        };
        if self.habits.timer.is_none() && response.lists("Require", "timer") {
            self.problem = Some(format!("{} knows no timers, and they are required of it", self.name));
        }
        let client = &mut self.clients[position];
        let sent = &client.request;
        let same = ["From", "Call-ID", "CSeq"].iter().all(|name| sent.get(name) == response.get(name));
        if !same || sent.tag("To").is_some_and(|tag| Some(tag) != response.tag("To")) {
            self.problem = Some(format!("{} was sent an answer that does not fit its request", self.name));
            return;
        }
        if !client.receive(now, response, out) {
            return;
        }
        let client = client.clone();
        match (&client.purpose, client.dialog) {
            (Purpose::Setup, _) => self.setup_answered(now, &client, response, status, out),
            (Purpose::Refresh | Purpose::Change(_), Some(index)) if status >= 200 => {
                self.renegotiated(now, index, &client, response, status, out);
            }
            (Purpose::Other, Some(index)) if matches!(status, 408 | 481) && self.dialogs[index].confirmed => {
                self.failed(now, index, status, out);
            }
            _ => {}
        }
    }

    /// Timer B or F, or nobody picked up.
    pub(super) fn unanswered(&mut self, now: u64, client: &Client, out: &mut Vec<Sent>) {
        match (&client.purpose, client.dialog) {
            (Purpose::Setup, _) => self.give_up_setup(),
            (Purpose::Bye, _) | (_, None) => {}
            (_, Some(index)) => self.failed(now, index, 408, out),
        }
    }

    fn setup_answered(&mut self, now: u64, client: &Client, response: &Sip, status: u16, out: &mut Vec<Sent>) {
        match status {
            ..200 => self.prack(now, client, response, out),
            200..300 => self.accepted(now, client, response, out),
            422 if self.habits.timer.is_some() && self.setup_tries < MOST_TRIES && !self.cancelled => {
                let Some(min_se) = timer::min_se_of(response) else { return self.give_up_setup() };
                self.setup_tries += 1;
                self.setup_min_se = self.setup_min_se.max(min_se);
                self.call(now, Some(self.setup_min_se), out);
            }
            _ => self.give_up_setup(),
        }
    }

    fn give_up_setup(&mut self) {
        self.cancelled = true;
        self.dialogs.iter_mut().filter(|dialog| !dialog.confirmed).for_each(|dialog| dialog.finish(Ending::Unanswered));
    }

    /// RFC 3262 §4.
    fn prack(&mut self, now: u64, client: &Client, response: &Sip, out: &mut Vec<Sent>) {
        if !response.lists("Require", "100rel") || response.tag("To").is_none() {
            return;
        }
        let rseq = response.get("RSeq").and_then(|number| number.parse().ok()).unwrap_or(0);
        let index = self.dialog_of(client, response);
        if rseq <= self.dialogs[index].rseq {
            return;
        }
        self.dialogs[index].rseq = rseq;
        let mut prack = self.in_dialog(index, "PRACK");
        prack.push("RAck", &format!("{rseq} {} INVITE", client.request.cseq().0));
        if !response.body.is_empty() {
            match client.request.body.as_str() {
                "" => {
                    let answer = self.dialogs[index].media.answer(&response.body);
                    prack.describe_media(&answer);
                }
                _ => self.dialogs[index].media.answered(&response.body),
            }
        }
        self.send(now, prack, Purpose::Other, Some(index), out);
    }

    fn dialog_of(&mut self, client: &Client, response: &Sip) -> usize {
        let tag = response.tag("To");
        let known = self.dialogs.iter().position(|dialog| Some(dialog.remote_tag.as_str()) == tag);
        known.unwrap_or_else(|| {
            let mut dialog = Dialog::new(true, &client.request, response);
            dialog.media = self.media("c");
            if !client.request.body.is_empty() {
                dialog.media.offer(Change::Nothing);
            }
            self.dialogs.push(dialog);
            self.dialogs.len() - 1
        })
    }

    /// A 2xx to the initial INVITE: new, of another fork, or again.
    fn accepted(&mut self, now: u64, client: &Client, response: &Sip, out: &mut Vec<Sent>) {
        let index = self.dialog_of(client, response);
        let is_new = !self.dialogs[index].confirmed;
        let is_second = self.dialogs.iter().any(Dialog::is_live);
        if is_new {
            let dialog = &mut self.dialogs[index];
            // The 2xx decides on the route set, whatever a provisional said (RFC 3261 §13.2.2.4).
            let fresh = Dialog::new(true, &client.request, response);
            let (local_seq, rseq, media) = (dialog.local_seq, dialog.rseq, dialog.media.clone());
            *dialog = Dialog { local_seq, rseq, media, confirmed: true, ..fresh };
            dialog.min_se = self.setup_min_se;
        }
        self.acknowledge(index, client, &response.body, out);
        if !is_new {
            return;
        }
        self.take_timer(now, index, client, response);
        if self.cancelled || (is_second && !self.habits.keeps_forks) {
            return self.hang_up(now, index, out);
        }
        self.confirmed(now);
    }

    /// ACK of a 2xx, the same each time it is needed (RFC 3261 §13.2.2.4).
    fn acknowledge(&mut self, index: usize, client: &Client, described: &str, out: &mut Vec<Sent>) {
        let number = client.request.cseq().0;
        match &self.dialogs[index].ack {
            Some((acked, sent)) if *acked == number => return out.push(sent.clone()),
            _ => {}
        }
        let mut ack = self.dialogs[index].request("ACK", Some(number));
        let media = &mut self.dialogs[index].media;
        match client.request.body.is_empty() {
            true if !described.is_empty() => ack.describe_media(&media.answer(described)),
            true => {}
            false => media.answered(described),
        }
        self.furnish(&mut ack);
        let Some(to) = self.dialogs[index].next_hop() else { return };
        let sent = Sent { to, bytes: ack.bytes(self.habits.style) };
        out.push(sent.clone());
        self.dialogs[index].ack = Some((number, sent));
    }

    /// What a 2xx means for the session timer of an agent that knows timers (§7.2).
    fn take_timer(&mut self, now: u64, index: usize, client: &Client, response: &Sip) {
        let Some(wishes) = &self.habits.timer else { return };
        let asked = SessionExpires::of(&client.request).ok().flatten().and_then(|header| header.refresher);
        let timer = match SessionExpires::of(response) {
            Ok(Some(answer)) => Some(Running::from_2xx(now, answer, Role::Uac, asked)),
            Ok(None) => None,
            // It lives; what it said is lost.
            Err(Unreadable) => self.dialogs[index].timer.map(|timer| Running { armed_at: now, ..timer }),
        };
        self.dialogs[index].arm(timer, wishes.guards);
    }

    fn renegotiated(
        &mut self,
        now: u64,
        index: usize,
        client: &Client,
        response: &Sip,
        status: u16,
        out: &mut Vec<Sent>,
    ) {
        let again = self.dialogs[index].ack.as_ref().is_some_and(|(number, _)| *number == client.request.cseq().0);
        if (200..300).contains(&status) && client.is_invite() {
            self.acknowledge(index, client, &response.body, out);
        }
        if again || !self.dialogs[index].is_live() {
            return;
        }
        if !client.request.body.is_empty() && (!client.is_invite() || status >= 300) {
            let answer = if status < 300 { response.body.as_str() } else { "" };
            self.dialogs[index].media.answered(answer);
        }
        let refreshes = client.purpose == Purpose::Refresh;
        match status {
            200..300 => {
                if let Some(target) = response.contact() {
                    self.dialogs[index].target = target;
                }
                self.take_timer(now, index, client, response);
            }
            408 | 481 => self.failed(now, index, status, out),
            422 => {
                let min_se = timer::min_se_of(response).unwrap_or(0);
                let rises = min_se > self.dialogs[index].min_se;
                self.dialogs[index].min_se = self.dialogs[index].min_se.max(min_se);
                if rises {
                    self.acts.push((now, Act::Refresh));
                }
            }
            491 => {
                // RFC 3261 §14.1.
                let owner = self.dialogs[index].calls;
                let after = self.rng.range(if owner { 2_100..4_000 } else { 0..2_000 });
                match client.purpose {
                    Purpose::Change(act) => self.acts.push((now + after, act)),
                    _ => self.dialogs[index].refresh_at = now + after,
                }
            }
            405 | 501 => {
                self.dialogs[index].takes_update = false;
                self.acts.push((now, Act::Refresh));
            }
            _ if refreshes => self.dialogs[index].refresh_at = now + 5_000,
            _ => {}
        }
    }

    /// RFC 3261 §12.2.1.2: 408 and 481 end the dialog.
    fn failed(&mut self, now: u64, index: usize, status: u16, out: &mut Vec<Sent>) {
        if self.dialogs[index].is_live() {
            let bye = self.in_dialog(index, "BYE");
            self.send(now, bye, Purpose::Bye, Some(index), out);
            self.dialogs[index].finish(Ending::Failed(status));
        }
    }
}
