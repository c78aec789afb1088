//! What must hold of every message that crosses the sidecar, and of every one it sends of itself.

use std::collections::HashMap;

use sipwarden_session_timer::Leg;

use super::message::Sip;
use super::reference::{Expect, Headers};
use super::timer::{SessionExpires, min_se_of};

/// Headers a proxy or RFC 4028 owns; all others pass as they are, in their order.
const OWNED: [&str; 7] = ["via", "route", "record-route", "max-forwards", "session-expires", "min-se", "require"];

/// Call-ID, sender's tag, receiver's tag.
type Direction = (String, String, String);

/// The numbers seen on their way to each receiver.
#[derive(Default)]
pub struct Sequences {
    /// Branch by number.
    seen: HashMap<Direction, HashMap<u32, String>>,
}

impl Sequences {
    /// Notes a request that leaves; `own`: the sidecar made it.
    pub fn check(&mut self, request: &Sip, own: bool) -> Result<(), String> {
        let (number, method) = request.cseq();
        let (Some(from), Some(to)) = (request.tag("From"), request.tag("To")) else { return Ok(()) };
        if matches!(method, "ACK" | "CANCEL") {
            return Ok(());
        }
        let numbers = self.seen.entry((request.call_id().into(), from.into(), to.into())).or_default();
        let highest = numbers.keys().max().copied();
        let branch = request.branch();
        match numbers.insert(number, branch.clone()) {
            Some(before) if before != branch => {
                Err(format!("CSeq {number} is used by two requests: {}", request.start))
            }
            Some(_) => Ok(()),
            None if own && highest.is_some_and(|highest| highest >= number) => {
                Err(format!("CSeq {number} of the sidecar's {method} is not above {highest:?}"))
            }
            None => Ok(()),
        }
    }
}

/// What the sidecar makes of the branches of others.
#[derive(Default)]
pub struct Branches {
    /// The branch it left with, by the one it came with.
    left: HashMap<String, String>,
    /// The other way round.
    came: HashMap<String, String>,
}

impl Branches {
    /// A retransmission, a CANCEL and the ACK of a failure keep the branch of their INVITE on both sides
    /// (RFC 3261 §16.11, §17.1.1.3); nothing else has it.
    pub fn check(&mut self, came: &Sip, left: &Sip) -> Result<(), String> {
        let (came, left) = (came.branch(), left.branch());
        let before = self.left.entry(came.clone()).or_insert_with(|| left.clone());
        let origin = self.came.entry(left.clone()).or_insert_with(|| came.clone());
        if *before == left && *origin == came { Ok(()) } else { Err(format!("{came} left as {before} and as {left}")) }
    }
}

/// Was `came` from `from` treated as `expect` says? `left`: the side and text of each packet that left because of it.
pub fn check_transit(from: Leg, came: &Sip, left: &[(Leg, Sip)], expect: &Expect) -> Result<(), String> {
    match (expect, left) {
        (Expect::Absorb, []) => Ok(()),
        (Expect::Pass(headers), [(to, left)]) if *to == from.other() => check_pass(came, left, headers.as_ref()),
        (Expect::PassEither(headers), [(to, left)]) if *to == from.other() => {
            check_pass(came, left, headers.as_ref()).or_else(|_| check_pass(came, left, None))
        }
        (Expect::Refuse(status, min_se), [(to, left)]) if *to == from => check_refusal(came, left, *status, *min_se),
        _ => Err(format!("expected {expect:?}, but {} packets left: {:?}", left.len(), left.first())),
    }
}

fn check_refusal(came: &Sip, left: &Sip, status: u16, min_se: Option<u32>) -> Result<(), String> {
    if left.status() != Some(status) {
        return Err(format!("expected {status}, got {}", left.start));
    }
    let copied = ["From", "Call-ID", "CSeq"].iter().all(|name| came.get(name) == left.get(name));
    let vias = |sip: &Sip| sip.list("Via").iter().map(|via| bare_via(via)).collect::<Vec<_>>();
    if !copied || left.tag("To").is_none() || vias(came) != vias(left) {
        return Err(format!("the {status} does not fit its request"));
    }
    if status == 422 && (min_se_of(left) != min_se || !came.lists("Supported", "timer")) {
        return Err(format!("a 422 with Min-SE {:?}, expected {min_se:?}", left.get("Min-SE")));
    }
    Ok(())
}

fn check_pass(came: &Sip, left: &Sip, headers: Option<&Headers>) -> Result<(), String> {
    check_carried(came, left, &OWNED)?;
    check_timer_headers(came, left, headers)
}

/// Was it carried on as a proxy does, with nothing changed but what is `owned`?
pub fn check_carried(came: &Sip, left: &Sip, owned: &[&str]) -> Result<(), String> {
    if came.start != left.start || came.body != left.body {
        return Err(format!("start line or body changed: {} → {}", came.start, left.start));
    }
    let others = |sip: &Sip| -> Vec<String> {
        sip.headers.iter().filter(|line| !owned.contains(&line.name.as_str())).map(|line| line.raw.clone()).collect()
    };
    if others(came) != others(left) {
        return Err(format!("headers that are not ours changed: {:?} → {:?}", others(came), others(left)));
    }
    check_proxy_headers(came, left)
}

fn check_timer_headers(came: &Sip, left: &Sip, headers: Option<&Headers>) -> Result<(), String> {
    let raw = |sip: &Sip, name: &str| -> Vec<String> {
        sip.headers.iter().filter(|line| line.name == name).map(|line| line.raw.clone()).collect()
    };
    let unchanged = |name: &str| {
        let (before, after) = (raw(came, name), raw(left, name));
        if before == after { Ok(()) } else { Err(format!("{name} changed: {before:?} → {after:?}")) }
    };
    let Some(headers) = headers else {
        return ["session-expires", "min-se", "require"].into_iter().try_for_each(unchanged);
    };
    let session_expires = SessionExpires::of(left);
    if session_expires != Ok(headers.session_expires) || min_se_of(left) != headers.min_se {
        return Err(format!("left with {session_expires:?}, Min-SE {:?}, expected {headers:?}", min_se_of(left)));
    }
    if SessionExpires::of(came) == session_expires {
        unchanged("session-expires")?;
    }
    let mut require = came.list("Require");
    if headers.requires && !came.lists("Require", "timer") {
        require.push("timer".into());
    }
    if require == left.list("Require") { Ok(()) } else { Err(format!("Require is {:?}", left.list("Require"))) }
}

fn check_proxy_headers(came: &Sip, left: &Sip) -> Result<(), String> {
    let (before, after) = (came.list("Via"), left.list("Via"));
    let vias_fit = match came.status() {
        Some(_) => before[1..] == after[..],
        None => {
            after.len() == before.len() + 1 && bare_via(&after[1]) == bare_via(&before[0]) && after[2..] == before[1..]
        }
    };
    if !vias_fit {
        return Err(format!("Via: {before:?} → {after:?}"));
    }
    let (routes, left_routes) = (came.list("Route"), left.list("Route"));
    if !routes.ends_with(&left_routes) || routes.len() - left_routes.len() > 2 {
        return Err(format!("Route: {routes:?} → {left_routes:?}"));
    }
    let (records, left_records) = (came.list("Record-Route"), left.list("Record-Route"));
    let added = if came.method() == Some("INVITE") { 2 } else { 0 };
    if !left_records.ends_with(&records) || left_records.len() != records.len() + added {
        return Err(format!("Record-Route: {records:?} → {left_records:?}"));
    }
    let hops = |sip: &Sip| sip.get("Max-Forwards").and_then(|hops| hops.parse::<u8>().ok());
    let hops_fit = came.status().is_some() || hops(left) == hops(came).map(|hops| hops - 1);
    if hops_fit { Ok(()) } else { Err(format!("Max-Forwards: {:?} → {:?}", hops(came), hops(left))) }
}

/// A Via without what the receiver of its request may add.
fn bare_via(via: &str) -> String {
    let kept = |param: &&str| !param.starts_with("received") && !param.starts_with("rport");
    via.split(';').filter(kept).collect::<Vec<_>>().join(";")
}
