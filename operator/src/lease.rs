//! Leader election: a Lease that one replica at a time holds.
//!
//! A holder is believed dead when its Lease has not changed for its duration by our own clock since we saw it last, so
//! clocks of nodes need not agree. Every write names the version it is made from, so of two candidates one wins. Who
//! cannot renew in time has to exit: a new process starts from the truth.
//!
//! kube-lease-manager compares the stored time with the local clock and runs on after a loss; both are what we must not
//! have, and what is left is this file.

use std::time::Duration;

use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
    jiff::Timestamp,
};
use kube::{Api, Client, api::PostParams};
use thiserror::Error;
use tokio::time::{Instant, sleep, timeout};

const FIELD_MANAGER: &str = "sipwarden-operator";
const CONFLICT: u16 = 409;

/// How long things take.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// Others may take the Lease when it was not renewed for so long.
    pub duration: Duration,
    /// Who could not renew it for so long has lost it.
    pub renew_deadline: Duration,
    /// Between two renewals, and between two attempts to get it.
    pub retry_period: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            duration: Duration::from_secs(15),
            renew_deadline: Duration::from_secs(10),
            retry_period: Duration::from_secs(2),
        }
    }
}

/// The Lease is someone else's now, or may be.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Lost {
    /// Another replica holds it.
    #[error("another replica holds the lease; were this one's renewals slow, or its process suspended?")]
    Taken,
    /// It could not be renewed in time.
    #[error("the lease could not be renewed in time; check the API server and the RBAC of leases")]
    NotRenewed,
}

/// One replica's view of the Lease.
pub struct Election {
    api: Api<Lease>,
    name: String,
    identity: String,
    timing: Timing,
    /// The version last seen, and when it was new to us.
    seen: Option<(String, Instant)>,
}

/// The Lease as we hold it.
pub struct Leadership {
    election: Election,
    lease: Lease,
}

impl Election {
    /// A candidate called `identity` for the Lease `name`.
    pub fn new(client: Client, namespace: &str, name: String, identity: String, timing: Timing) -> Self {
        Self { api: Api::namespaced(client, namespace), name, identity, timing, seen: None }
    }

    /// Waits until the Lease is ours.
    pub async fn win(mut self) -> Leadership {
        loop {
            match timeout(self.timing.renew_deadline, self.attempt()).await {
                Ok(Ok(Some(lease))) => return Leadership { election: self, lease },
                Ok(Ok(None)) => {}
                Ok(Err(error)) => tracing::warn!(%error, lease = self.name, "the lease cannot be read or written"),
                Err(_) => tracing::warn!(lease = self.name, "the API server does not answer"),
            }
            sleep(self.timing.retry_period).await;
        }
    }

    /// None if another holds it, or was faster.
    async fn attempt(&mut self) -> Result<Option<Lease>, kube::Error> {
        let Some(lease) = self.api.get_opt(&self.name).await? else {
            let metadata = ObjectMeta { name: Some(self.name.clone()), ..ObjectMeta::default() };
            let spec = Some(self.spec(None));
            return unless_conflict(self.api.create(&params(), &Lease { metadata, spec }).await);
        };
        if !self.is_free(&lease, Instant::now()) {
            return Ok(None);
        }
        let spec = Some(self.spec(lease.spec.as_ref()));
        unless_conflict(self.api.replace(&self.name, &params(), &Lease { spec, ..lease }).await)
    }

    /// Remembers what it saw.
    fn is_free(&mut self, lease: &Lease, now: Instant) -> bool {
        let spec = lease.spec.as_ref();
        let holder = spec.and_then(|spec| spec.holder_identity.as_deref()).unwrap_or_default();
        if holder.is_empty() || holder == self.identity {
            return true;
        }
        let version = lease.metadata.resource_version.clone().unwrap_or_default();
        let since = match &self.seen {
            Some((known, since)) if *known == version => *since,
            _ => now,
        };
        self.seen = Some((version, since));
        let seconds = spec.and_then(|spec| spec.lease_duration_seconds).and_then(|seconds| u64::try_from(seconds).ok());
        now.duration_since(since) >= seconds.map_or(self.timing.duration, Duration::from_secs)
    }

    fn spec(&self, before: Option<&LeaseSpec>) -> LeaseSpec {
        let now = MicroTime(Timestamp::now());
        let held = before.filter(|before| before.holder_identity.as_ref() == Some(&self.identity));
        let transitions = before.and_then(|before| before.lease_transitions).unwrap_or(0);
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: i32::try_from(self.timing.duration.as_secs()).ok(),
            acquire_time: held.and_then(|held| held.acquire_time.clone()).or_else(|| Some(now.clone())),
            renew_time: Some(now),
            lease_transitions: Some(if held.is_some() { transitions } else { transitions.saturating_add(1) }),
            ..LeaseSpec::default()
        }
    }
}

impl Leadership {
    /// Renews the Lease for as long as it is ours.
    pub async fn keep(&mut self) -> Lost {
        let Timing { renew_deadline, retry_period, .. } = self.election.timing;
        let mut renewed = Instant::now();
        loop {
            sleep(retry_period).await;
            let left = renew_deadline.saturating_sub(renewed.elapsed());
            // A connection that died silently must not be the only attempt.
            match timeout(left.min(renew_deadline / 2), self.renew()).await {
                Ok(Ok(())) => renewed = Instant::now(),
                Ok(Err(Renewal::Lost(lost))) => return lost,
                Ok(Err(Renewal::Failed(error))) => tracing::warn!(%error, "the lease was not renewed; trying again"),
                Err(_) => tracing::warn!("the renewal of the lease was not answered; trying again"),
            }
            if renewed.elapsed() >= renew_deadline {
                return Lost::NotRenewed;
            }
        }
    }

    /// Gives it up, so that another replica need not wait. That this may fail only costs time.
    pub async fn release(self) {
        let Self { election, mut lease } = self;
        if let Some(spec) = &mut lease.spec {
            spec.holder_identity = None;
            spec.renew_time = Some(MicroTime(Timestamp::now()));
        }
        let params = params();
        let write = election.api.replace(&election.name, &params, &lease);
        match timeout(election.timing.retry_period, write).await {
            Ok(Ok(_)) => tracing::info!("lease released"),
            Ok(Err(error)) => tracing::info!(%error, "the lease was not released; it will run out"),
            Err(_) => tracing::info!("the lease was not released in time; it will run out"),
        }
    }

    async fn renew(&mut self) -> Result<(), Renewal> {
        let spec = Some(self.election.spec(self.lease.spec.as_ref()));
        let lease = Lease { spec, ..self.lease.clone() };
        match self.election.api.replace(&self.election.name, &params(), &lease).await {
            Ok(lease) => {
                self.lease = lease;
                Ok(())
            }
            Err(kube::Error::Api(status)) if status.code == CONFLICT => self.reread().await,
            Err(error) => Err(Renewal::Failed(error)),
        }
    }

    /// Someone wrote: another holder, or a hand that changed an annotation.
    async fn reread(&mut self) -> Result<(), Renewal> {
        let lease = self.election.api.get(&self.election.name).await.map_err(Renewal::Failed)?;
        let holder = lease.spec.as_ref().and_then(|spec| spec.holder_identity.as_ref());
        if holder != Some(&self.election.identity) {
            return Err(Renewal::Lost(Lost::Taken));
        }
        self.lease = lease;
        Ok(())
    }
}

enum Renewal {
    Lost(Lost),
    Failed(kube::Error),
}

fn params() -> PostParams {
    PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() }
}

fn unless_conflict(written: Result<Lease, kube::Error>) -> Result<Option<Lease>, kube::Error> {
    match written {
        Err(kube::Error::Api(status)) if status.code == CONFLICT => Ok(None),
        written => written.map(Some),
    }
}
