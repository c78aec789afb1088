//! A dialog as one agent holds it (RFC 3261 §12).

use std::net::SocketAddr;

use super::media::Media;
use super::message::{Sip, address_of, bracketed};
use super::timer::Running;
use super::transaction::Sent;

/// How a dialog ended for its agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It sent BYE.
    HungUp,
    /// BYE of the other agent.
    Bye,
    /// BYE of a sidecar.
    Expired,
    /// A request of its own was answered with this.
    Failed(u16),
    /// It never came to be.
    Unanswered,
    /// The agent lost its memory.
    Forgotten,
}

/// One dialog.
#[derive(Clone, Debug)]
pub struct Dialog {
    pub call_id: String,
    /// From of what we send, with our tag.
    pub local: String,
    pub local_tag: String,
    /// To of what we send.
    pub remote: String,
    pub remote_tag: String,
    pub target: String,
    pub routes: Vec<String>,
    pub local_seq: u32,
    pub remote_seq: Option<u32>,
    /// We own the Call-ID.
    pub calls: bool,
    pub confirmed: bool,
    pub end: Option<Ending>,
    pub timer: Option<Running>,
    /// When the next refresh goes out, if we refresh.
    pub refresh_at: u64,
    /// When we hang up for want of a refresh.
    pub gives_up_at: u64,
    /// The highest Min-SE of a 422.
    pub min_se: u32,
    /// The other side takes UPDATE.
    pub takes_update: bool,
    /// The last ACK of a 2xx, by CSeq.
    pub ack: Option<(u32, Sent)>,
    /// The last RSeq we acknowledged.
    pub rseq: u32,
    pub media: Media,
}

impl Dialog {
    /// The dialog of the INVITE `request` and its `response`, for the side that `calls` or is called.
    pub fn new(calls: bool, request: &Sip, response: &Sip) -> Dialog {
        let (ours, theirs) = if calls { ("From", "To") } else { ("To", "From") };
        let other = if calls { response } else { request };
        let mut routes = response.list("Record-Route");
        if calls {
            routes.reverse();
        }
        let value = |name| response.get(name).unwrap_or_default().to_owned();
        let tag = |name| response.tag(name).unwrap_or_default().to_owned();
        let seq = request.cseq().0;
        Dialog {
            call_id: request.call_id().to_owned(),
            local: value(ours),
            local_tag: tag(ours),
            remote: value(theirs),
            remote_tag: tag(theirs),
            target: other.contact().unwrap_or_default(),
            routes,
            // The callee's numbers begin anywhere (RFC 3261 §12.1.1).
            local_seq: if calls { seq } else { seq % 7 * 1000 },
            remote_seq: (!calls).then_some(seq),
            calls,
            confirmed: false,
            end: None,
            timer: None,
            refresh_at: u64::MAX,
            gives_up_at: u64::MAX,
            min_se: 0,
            takes_update: other.lists("Allow", "UPDATE"),
            ack: None,
            rseq: 0,
            media: Media::new(&tag(ours), false),
        }
    }

    pub fn is_live(&self) -> bool {
        self.confirmed && self.end.is_none()
    }

    /// A request inside it, as far as the dialog decides (RFC 3261 §12.2.1.1). ACK and CANCEL bring their number.
    pub fn request(&mut self, method: &str, number: Option<u32>) -> Sip {
        let number = number.unwrap_or_else(|| {
            self.local_seq += 1;
            self.local_seq
        });
        let mut request = Sip::request(method, &self.target);
        for route in &self.routes {
            request.push("Route", route);
        }
        request.push("From", &self.local);
        request.push("To", &self.remote);
        request.push("Call-ID", &self.call_id);
        request.push("CSeq", &format!("{number} {method}"));
        request
    }

    /// Where its requests go.
    pub fn next_hop(&self) -> Option<SocketAddr> {
        address_of(self.routes.first().map_or(&self.target, |route| bracketed(route)))
    }

    /// The timer a 2xx left us with.
    pub fn arm(&mut self, timer: Option<Running>, guards: bool) {
        self.timer = timer;
        let (refreshes, guards) = timer.map_or((false, false), |timer| (timer.we_refresh, guards));
        self.refresh_at = timer.filter(|_| refreshes).map_or(u64::MAX, |timer| timer.refresh_at());
        self.gives_up_at = timer.filter(|_| guards).map_or(u64::MAX, |timer| timer.gives_up_at());
    }

    pub fn finish(&mut self, ending: Ending) {
        self.end.get_or_insert(ending);
        self.arm(None, false);
    }
}
