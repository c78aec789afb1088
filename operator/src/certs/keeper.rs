//! Carries out what [`plan`] decides, and keeps bundles and leaf in step with it.

use std::{
    future::Future,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use thiserror::Error;
use tokio::time::timeout;

use super::{
    authority::{Ca, CaError, Leaf, Timing},
    cluster::{Cluster, ClusterError, Configuration, StoredCa},
    leaf::LeafSlot,
    metrics::Metrics,
    plan::{Step, Why, plan},
    store::CaSet,
};

/// Between two looks, when nothing is under way.
const CALM: Duration = Duration::from_secs(30);
/// After another replica was faster.
const SOON: Duration = Duration::from_millis(200);
/// For one call: a connection that died silently must not stop what keeps the webhook trusted.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// Beyond it, people are told that a clock is wrong.
const SKEW_WORTH_TELLING_S: i64 = 30;

/// A look that did not come to its end.
#[derive(Debug, Error)]
pub enum CertsError {
    /// Of the cluster.
    #[error("{what}: {source}")]
    Cluster {
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        source: ClusterError,
    },
    /// Of a certificate.
    #[error(transparent)]
    Ca(#[from] CaError),
}

/// What one look came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// What was done to the Secret.
    pub step: Step,
    /// Another replica was faster somewhere; the next look will see what it did.
    pub conflict: bool,
    /// When to look again.
    pub again: Duration,
}

/// Keeps one replica's leaf, and with the other replicas the CA and the bundles.
#[derive(Debug)]
pub struct Keeper<C> {
    cluster: C,
    revision: String,
    dns_names: Vec<String>,
    timing: Timing,
    slot: Arc<LeafSlot>,
    metrics: Metrics,
    leaf: Option<Leaf>,
    /// The next CA, and since when it is in every bundle.
    trusted: Option<(String, i64)>,
}

impl<C: Cluster> Keeper<C> {
    /// A keeper of leaves for these DNS names.
    pub fn new(
        cluster: C,
        revision: impl Into<String>,
        dns_names: Vec<String>,
        timing: Timing,
        slot: Arc<LeafSlot>,
        metrics: Metrics,
    ) -> Self {
        Self { cluster, revision: revision.into(), dns_names, timing, slot, metrics, leaf: None, trusted: None }
    }

    /// Looks again and again until `shutdown`. Failures are told and tried again.
    pub async fn run(mut self, shutdown: impl Future<Output = ()>) {
        let mut failures: u32 = 0;
        tokio::pin!(shutdown);
        loop {
            let looked = tokio::select! {
                () = &mut shutdown => return,
                looked = self.look() => looked,
            };
            let pause = match looked {
                Ok(report) => {
                    failures = 0;
                    report.again
                }
                Err(error) => {
                    let error: &dyn std::error::Error = &error;
                    tracing::warn!(error, "the webhook's certificates could not be looked after; trying again");
                    self.metrics.failures.inc();
                    failures = failures.saturating_add(1);
                    CALM.min(Duration::from_secs(1) * 2_u32.saturating_pow(failures.min(5)))
                }
            };
            tokio::select! {
                () = &mut shutdown => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// One look. The configurations are read before the Secret and written in the state they were read in, so a bundle
    /// made from an older Secret never follows one made from a newer.
    ///
    /// # Errors
    /// A call that failed; what was done until then stands.
    pub async fn look(&mut self) -> Result<Report, CertsError> {
        let configurations = in_time(self.cluster.configurations()).await.map_err(failed("webhook configurations"))?;
        let now_s = self.now_s().await;
        let stored = in_time(self.cluster.load()).await.map_err(failed("the CA's Secret"))?;
        let (set, version) = self.read(stored);
        let trusted_for_s = self.trusted_for_s(set.as_ref().ok(), &configurations, now_s);
        let step = match &set {
            Ok(set) => plan(Some(set), now_s, trusted_for_s, &self.timing),
            Err(None) => Step::Create,
            Err(Some(why)) => Step::Replace(*why),
        };
        let able = set.as_ref().ok().filter(|set| set.current.certificate.is_valid_at(now_s)).cloned();
        let done = self.follow(step, set.ok(), version.as_deref(), &configurations, now_s).await;
        // What signs now goes on to: who may not rotate, or not write bundles, still answers, and tells when that ends.
        if let (Err(_), Some(set)) = (&done, able) {
            self.sign_with(&set, now_s)?;
        }
        done
    }

    /// Does a step, and signs once every bundle has the CA: ready is who can be trusted.
    async fn follow(
        &mut self,
        step: Step,
        set: Option<CaSet>,
        version: Option<&str>,
        configurations: &[Configuration],
        now_s: i64,
    ) -> Result<Report, CertsError> {
        let Some(set) = self.take(step, set, version, now_s).await? else {
            return Ok(Report { step: Step::Keep, conflict: true, again: SOON });
        };
        let conflict = self.publish(configurations, &set.bundle()).await?;
        if let (false, Some(next)) = (conflict, &set.next) {
            self.trusted.get_or_insert_with(|| (next.certificate.pem.clone(), now_s));
        }
        self.sign_with(&set, now_s)?;
        let again = match (conflict || step != Step::Keep, set.next.is_some()) {
            (true, _) => SOON,
            (false, true) => Duration::from_secs(self.timing.propagation_s.unsigned_abs()).clamp(SOON, CALM) / 4,
            (false, false) => CALM,
        };
        Ok(Report { step, conflict, again })
    }

    /// The API server's clock judges certificates, so it is the one to go by.
    async fn now_s(&self) -> i64 {
        let own_s = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64);
        let now_s = timeout(CALL_TIMEOUT, self.cluster.now_s()).await.ok().flatten();
        let Some(now_s) = now_s else { return own_s };
        let skew_s = own_s - now_s;
        let is_news = self.metrics.clock_skew_s.get().abs() <= SKEW_WORTH_TELLING_S;
        self.metrics.clock_skew_s.set(skew_s);
        if is_news && skew_s.abs() > SKEW_WORTH_TELLING_S {
            tracing::warn!(skew_s, "this node's clock differs from the API server's; certificates go by the latter");
        }
        now_s
    }

    /// The set, or None if there is no Secret, or why it cannot stay; and the version of the Secret.
    fn read(&self, stored: Option<StoredCa>) -> (Result<CaSet, Option<Why>>, Option<String>) {
        let Some(stored) = stored else { return (Err(None), None) };
        let set = CaSet::read(&stored).map_err(|error| {
            tracing::error!(%error, "the CA in the Secret is of no use; it is replaced");
            Some(Why::Unreadable)
        });
        (set, Some(stored.version))
    }

    fn trusted_for_s(&mut self, set: Option<&CaSet>, configurations: &[Configuration], now_s: i64) -> Option<i64> {
        let next = set.and_then(|set| set.next.as_ref()).map(|next| next.certificate.pem.as_str());
        let everywhere = |pem: &&str| {
            configurations.iter().flat_map(|configuration| &configuration.bundles).all(|bundle| bundle.contains(*pem))
        };
        let next = next.filter(everywhere);
        self.trusted = match (next, self.trusted.take()) {
            (Some(next), Some((known, since_s))) if known == next && since_s <= now_s => Some((known, since_s)),
            (Some(next), _) => Some((next.to_owned(), now_s)),
            (None, _) => None,
        };
        self.trusted.as_ref().map(|(_, since_s)| now_s - since_s)
    }

    /// Does a step to the set and the Secret. None if another replica was faster.
    async fn take(
        &self,
        step: Step,
        set: Option<CaSet>,
        version: Option<&str>,
        now_s: i64,
    ) -> Result<Option<CaSet>, CertsError> {
        let new_ca = || Ca::generate(&self.revision, now_s, &self.timing);
        let set = match (step, set) {
            (Step::Keep, Some(set)) => return Ok(Some(set)),
            (Step::Prepare(_), Some(mut set)) => {
                set.prepare(new_ca()?);
                set
            }
            (Step::Promote, Some(mut set)) => {
                set.promote(now_s, &self.timing);
                set
            }
            (Step::Retire, Some(mut set)) => {
                set.retire();
                set
            }
            (Step::Create | Step::Replace(_), _) | (_, None) => CaSet::new(new_ca()?),
        };
        let stored = set.to_stored(version.unwrap_or_default());
        let written = match version {
            Some(_) => in_time(self.cluster.replace(&stored)).await,
            None => in_time(self.cluster.create(&stored)).await,
        };
        match written {
            Ok(()) => {
                self.tell(step);
                Ok(Some(set))
            }
            Err(ClusterError::Conflict) => Ok(None),
            Err(error) => Err(failed("writing the CA's Secret")(error)),
        }
    }

    fn tell(&self, step: Step) {
        match step {
            Step::Keep => {}
            Step::Create => tracing::info!("a CA for the webhook was made"),
            Step::Prepare(why) => tracing::info!(why = why.as_str(), "a next CA was made; it signs once it is trusted"),
            Step::Promote => tracing::info!("the next CA signs from now on"),
            Step::Retire => tracing::info!("the old CA is trusted no more"),
            Step::Replace(why) => tracing::warn!(why = why.as_str(), "the CA was of no use and was replaced at once"),
        }
        if matches!(step, Step::Promote | Step::Replace(_)) {
            self.metrics.rotations.inc();
        }
    }

    /// True if another replica was faster somewhere.
    async fn publish(&self, configurations: &[Configuration], bundle: &str) -> Result<bool, CertsError> {
        let mut conflict = false;
        for configuration in configurations {
            if configuration.bundles.iter().all(|known| known == bundle) {
                continue;
            }
            match in_time(self.cluster.publish(configuration, bundle)).await {
                Ok(()) => tracing::info!(configuration = configuration.name, "CA bundle written"),
                Err(ClusterError::Conflict) => conflict = true,
                Err(error) => return Err(failed("writing a CA bundle")(error)),
            }
        }
        Ok(conflict)
    }

    /// A leaf of the CA, anew after half its life, after a change of the CA, and when the clock went where it is not valid.
    fn sign_with(&mut self, set: &CaSet, now_s: i64) -> Result<(), CaError> {
        self.metrics.ca_expiry_s.set(set.current.certificate.not_after_s);
        let good = self.leaf.as_ref().is_some_and(|leaf| {
            leaf.ca_pem == set.current.certificate.pem
                && leaf.not_before_s <= now_s
                && now_s + self.timing.leaf_life_s / 2 < leaf.not_after_s
        });
        // Near its end a CA can only sign leaves that end with it; one that was just signed is as good as another.
        let ends_with_ca = self.leaf.as_ref().is_some_and(|leaf| {
            leaf.ca_pem == set.current.certificate.pem
                && leaf.not_after_s == set.current.certificate.not_after_s
                && (leaf.not_before_s..leaf.not_after_s).contains(&now_s)
        });
        if good || ends_with_ca {
            return Ok(());
        }
        let leaf = set.current.sign(&self.dns_names, now_s, &self.timing)?;
        self.slot.put(leaf.key.clone());
        self.metrics.leaf_expiry_s.set(leaf.not_after_s);
        self.leaf = Some(leaf);
        Ok(())
    }
}

async fn in_time<T>(call: impl Future<Output = Result<T, ClusterError>>) -> Result<T, ClusterError> {
    timeout(CALL_TIMEOUT, call).await.unwrap_or_else(|elapsed| Err(ClusterError::Failed(elapsed.into())))
}

fn failed(what: &'static str) -> impl Fn(ClusterError) -> CertsError {
    move |source| CertsError::Cluster { what, source }
}
