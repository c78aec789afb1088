//! Names to addresses as RFC 3263 asks: NAPTR, then SRV, then A and AAAA; only transports and IP versions we have
//! endpoints for. One query for each name at a time, however many packets wait for it.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::proto::rr::rdata::{NAPTR, SRV};
use hickory_resolver::proto::rr::{RData, Record, RecordType};
use sipwarden_session_timer::Leg;
use sipwarden_shard::{Lookup, Resolved, Target, Unresolvable};
use sipwarden_sip::value::Transport;
use tokio::sync::{OnceCell, mpsc};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::{debug, warn};

use crate::address::transport_name;
use crate::hub::{Command, Hub};
use crate::metrics::Limit;
use crate::transport::{Endpoint, Inbound};

/// Names asked for at once; a packet for one more goes as unresolvable.
const MAX_QUERIES: usize = 256;
/// The whole walk from NAPTR to an address. A caller retransmits for 32 s.
const WALK_TIMEOUT: Duration = Duration::from_secs(5);
const MIN_TTL: Duration = Duration::from_secs(1);
const MAX_TTL: Duration = Duration::from_secs(3600);
const NEGATIVE_TTL: Duration = Duration::from_secs(5);
const SIP_PORT: u16 = 5060;

/// Looks names up.
pub struct Resolver {
    /// Transports and IP versions (is IPv4) we can send with.
    reachable: Vec<(Transport, bool)>,
    /// Made when a name is first seen: where only addresses occur no DNS needs to be configured.
    dns: OnceCell<TokioResolver>,
}

/// An answer, and how long it holds.
type Answer = (Resolved, Duration);

impl Resolver {
    /// For the remote-facing ones of `endpoints`.
    pub fn new(endpoints: &[Endpoint]) -> Resolver {
        let remote = endpoints.iter().filter(|endpoint| endpoint.leg == Leg::Remote);
        Resolver {
            reachable: remote.map(|endpoint| (endpoint.transport, endpoint.local.is_ipv4())).collect(),
            dns: OnceCell::new(),
        }
    }

    /// Reads the system's DNS configuration now instead of at the first name.
    ///
    /// # Errors
    /// There is none, or it cannot be understood.
    pub async fn prepare(&self) -> Result<(), hickory_resolver::net::NetError> {
        self.dns().await.map(|_| ())
    }

    /// Answers lookups until the process ends; packets that waited go to `worker`.
    pub async fn run(
        self: Arc<Self>,
        mut lookups: mpsc::UnboundedReceiver<(usize, Lookup)>,
        hub: Arc<Hub>,
        worker: mpsc::Sender<Command>,
    ) {
        let mut waiting: HashMap<Target, Vec<(usize, Inbound)>> = HashMap::new();
        let mut queries: JoinSet<(Target, Answer)> = JoinSet::new();
        loop {
            tokio::select! {
                lookup = lookups.recv() => {
                    let Some((shard, Lookup { target, flow, bytes })) = lookup else { return };
                    let packet = (shard, Inbound { flow, bytes });
                    if let Some(others) = waiting.get_mut(&target) {
                        others.push(packet);
                    } else if waiting.len() >= MAX_QUERIES {
                        hub.metrics.limit(Limit::Lookups);
                        deliver(&hub, &worker, &target, (Err(Unresolvable), MIN_TTL), vec![packet]).await;
                    } else {
                        waiting.insert(target.clone(), vec![packet]);
                        let resolver = self.clone();
                        queries.spawn(async move { (target.clone(), resolver.resolve(&target).await) });
                    }
                }
                Some(done) = queries.join_next() => {
                    let (target, answer) = done.expect("a query neither panics nor is aborted");
                    hub.metrics.lookup(answer.0.is_ok());
                    let packets = waiting.remove(&target).unwrap_or_default();
                    deliver(&hub, &worker, &target, answer, packets).await;
                }
            }
        }
    }

    /// Where requests to `target` go, and for how long that holds.
    pub async fn resolve(&self, target: &Target) -> Answer {
        let answer = timeout(WALK_TIMEOUT, self.walk(target)).await.ok().flatten();
        debug!(host = target.host, found = answer.is_some(), "looked up");
        match answer {
            Some((transport, addr, ttl)) => (Ok((transport, addr)), ttl.clamp(MIN_TTL, MAX_TTL)),
            None => (Err(Unresolvable), NEGATIVE_TTL),
        }
    }

    /// RFC 3263 §4.1 and §4.2.
    async fn walk(&self, target: &Target) -> Option<(Transport, SocketAddr, Duration)> {
        let default = target.transport.or_else(|| self.transports().next())?;
        if let Ok(ip) = target.host.parse::<IpAddr>() {
            let addr = SocketAddr::new(ip, target.port.unwrap_or(SIP_PORT));
            return self.reaches(default, ip).then_some((default, addr, MAX_TTL));
        }
        if let Some(port) = target.port {
            return self.address(&target.host, default, port, MAX_TTL).await;
        }
        for (transport, service, ttl) in self.services(target).await {
            if let Some(found) = self.service(&service, transport, ttl).await {
                return Some(found);
            }
        }
        self.address(&target.host, default, SIP_PORT, MAX_TTL).await
    }

    /// The SRV names to try, best first: those of NAPTR records, else the usual ones.
    async fn services(&self, target: &Target) -> Vec<(Transport, String, Duration)> {
        if target.transport.is_none() {
            let mut records: Vec<(NAPTR, Duration)> = self.records(&target.host, RecordType::NAPTR).await;
            records.retain(|(record, _)| self.transport_of(record).is_some());
            records.sort_by_key(|(record, _)| (record.order, record.preference));
            if !records.is_empty() {
                let service = |(record, ttl): &(NAPTR, Duration)| {
                    Some((self.transport_of(record)?, record.replacement.to_ascii(), *ttl))
                };
                return records.iter().filter_map(service).collect();
            }
        }
        let wanted = self.transports().filter(|&transport| target.transport.is_none_or(|asked| asked == transport));
        wanted
            .map(|transport| (transport, format!("_sip._{}.{}", transport_name(transport), target.host), MAX_TTL))
            .collect()
    }

    /// One SRV name: its targets by priority, then by weighted chance (RFC 2782).
    async fn service(
        &self,
        name: &str,
        transport: Transport,
        ttl: Duration,
    ) -> Option<(Transport, SocketAddr, Duration)> {
        let mut records: Vec<(SRV, Duration)> = self.records(name, RecordType::SRV).await;
        let mut random = crate::random();
        while let Some(index) = choose(&records, &mut random) {
            let (record, record_ttl) = records.swap_remove(index);
            let ttl = ttl.min(record_ttl);
            let found = self.address(&record.target.to_ascii(), transport, record.port, ttl).await;
            if found.is_some() {
                return found;
            }
        }
        None
    }

    async fn address(
        &self,
        host: &str,
        transport: Transport,
        port: u16,
        ttl: Duration,
    ) -> Option<(Transport, SocketAddr, Duration)> {
        for (record_type, is_ipv4) in [(RecordType::A, true), (RecordType::AAAA, false)] {
            if !self.reachable.contains(&(transport, is_ipv4)) {
                continue;
            }
            let addresses: Vec<(IpAddr, Duration)> = self.records(host, record_type).await;
            if let Some((ip, record_ttl)) = addresses.first() {
                return Some((transport, SocketAddr::new(*ip, port), ttl.min(*record_ttl)));
            }
        }
        None
    }

    /// The records of that type, each with its time to live.
    async fn records<T: FromRecord>(&self, name: &str, record_type: RecordType) -> Vec<(T, Duration)> {
        let Ok(dns) = self.dns().await.inspect_err(|error| warn!(%error, "DNS is not configured")) else {
            return Vec::new();
        };
        let Ok(lookup) = dns.lookup(name, record_type).await else { return Vec::new() };
        let ttl = |record: &Record| Duration::from_secs(u64::from(record.ttl));
        lookup.answers().iter().filter_map(|record| Some((T::from_record(&record.data)?, ttl(record)))).collect()
    }

    async fn dns(&self) -> Result<&TokioResolver, hickory_resolver::net::NetError> {
        self.dns.get_or_try_init(|| async { TokioResolver::builder_tokio()?.build() }).await
    }

    /// UDP before TCP, as RFC 3263 §4.1 does without NAPTR and SRV.
    fn transports(&self) -> impl Iterator<Item = Transport> + '_ {
        let known = [Transport::Udp, Transport::Tcp].into_iter();
        known.filter(|&transport| self.reachable.iter().any(|&(reachable, _)| reachable == transport))
    }

    fn transport_of(&self, record: &NAPTR) -> Option<Transport> {
        let transport = match record.services.to_ascii_uppercase().as_slice() {
            b"SIP+D2U" => Transport::Udp,
            b"SIP+D2T" => Transport::Tcp,
            _ => return None,
        };
        self.transports().find(|&reachable| reachable == transport && record.flags.eq_ignore_ascii_case(b"s"))
    }

    fn reaches(&self, transport: Transport, ip: IpAddr) -> bool {
        self.reachable.contains(&(transport, ip.is_ipv4()))
    }
}

/// Every shard that waits learns the answer before its packets come again.
async fn deliver(
    hub: &Hub,
    worker: &mpsc::Sender<Command>,
    target: &Target,
    (answer, ttl): Answer,
    packets: Vec<(usize, Inbound)>,
) {
    for &(shard, _) in &packets {
        hub.resolved(shard, target, answer, ttl);
    }
    for (_, packet) in packets {
        // The worker only ends with the process.
        let _ = worker.send(Command::Message(packet)).await;
    }
}

/// Of the records with the lowest priority one, with a chance in proportion to its weight.
fn choose(records: &[(SRV, Duration)], random: &mut u64) -> Option<usize> {
    let priority = records.iter().map(|(record, _)| record.priority).min()?;
    let best = || records.iter().enumerate().filter(move |(_, (record, _))| record.priority == priority);
    // Weight 0 keeps a small chance.
    let share = |record: &SRV| u64::from(record.weight) * 100 + 1;
    let total: u64 = best().map(|(_, (record, _))| share(record)).sum();
    *random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    let mut point = (*random >> 16) % total;
    for (index, (record, _)) in best() {
        match point.checked_sub(share(record)) {
            Some(rest) => point = rest,
            None => return Some(index),
        }
    }
    None
}

trait FromRecord: Sized {
    fn from_record(data: &RData) -> Option<Self>;
}

impl FromRecord for NAPTR {
    fn from_record(data: &RData) -> Option<NAPTR> {
        if let RData::NAPTR(record) = data { Some(record.clone()) } else { None }
    }
}

impl FromRecord for SRV {
    fn from_record(data: &RData) -> Option<SRV> {
        if let RData::SRV(record) = data { Some(record.clone()) } else { None }
    }
}

impl FromRecord for IpAddr {
    fn from_record(data: &RData) -> Option<IpAddr> {
        data.ip_addr()
    }
}

#[cfg(test)]
mod tests;
