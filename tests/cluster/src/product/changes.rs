//! How long changes of a policy take from `kubectl apply` to running sidecars, and to the calls they judge.

use std::fmt;
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::site::{Pod, Site};
use crate::http::{get_json, get_text};

/// Between two calls, two questions to a sidecar, and two changes.
const CALL_STEP: Duration = Duration::from_millis(10);
const ASK_STEP: Duration = Duration::from_millis(200);
const PAUSE: Duration = Duration::from_secs(2);
/// The metric that tells for how long a sidecar has obeyed.
const AGE: &str = "sipwarden_policy_age_seconds ";

/// Times from the start of a change, which is that of the kubectl that makes it.
#[derive(Debug, Default)]
pub struct Changes {
    /// kubectl has ended.
    pub applied: Times,
    /// A sidecar says that it obeys; of those that did within the limit.
    pub obeyed: Times,
    /// The last sidecar of a change does; of those changes that none of them was late for.
    pub all_obeyed: Times,
    /// How many sidecars were late.
    pub late: usize,
    /// A call through the Service is judged by it.
    pub judged: Times,
}

/// Durations, to be looked at from the shortest.
#[derive(Debug, Default)]
pub struct Times(Vec<Duration>);

impl Changes {
    /// Changes the policy `carrier`, which the pods obey, so many times. Nothing is waited for longer than `limit`.
    pub fn measure(site: &Site, changes: u32, limit: Duration) -> Result<Changes> {
        let (pods, service) = (site.pods()?, site.service()?);
        let mut times = Changes::default();
        for change in 1..=changes {
            times.make(site, &pods, service, 100 + change, limit)?;
            thread::sleep(PAUSE);
        }
        Ok(times)
    }

    /// One change, until every sidecar obeys it and a call was judged by it.
    fn make(&mut self, site: &Site, pods: &[Pod], service: SocketAddr, min_se_s: u32, limit: Duration) -> Result<()> {
        let spec = json!({ "timers": { "sessionExpires": "30m", "minSE": format!("{min_se_s}s") } });
        let policy = site.policy_text("carrier", &spec);
        let generation =
            site.get("sessionpolicy", "carrier")?["metadata"]["generation"].as_i64().unwrap_or_default() + 1;
        let start = Instant::now();
        thread::scope(|scope| {
            let obeyed = scope.spawn(move || watch_pods(site, pods, generation, start, limit));
            let judged = scope.spawn(move || first_judged(site, service, min_se_s, start, limit));
            site.cluster.apply(&policy)?;
            self.applied.0.push(start.elapsed());
            let obeyed = obeyed.join().expect("the thread does not panic")?;
            let late = pods.len() - obeyed.len();
            self.late += late;
            self.all_obeyed.0.extend(obeyed.iter().max().filter(|_| late == 0));
            self.obeyed.0.extend(obeyed);
            self.judged.0.push(judged.join().expect("the thread does not panic")?);
            Ok(())
        })
    }
}

/// When each pod came to obey this generation; of those that did in time. A sidecar knows since when, so that it need not be
/// asked all the time: the processor has changes to deliver.
fn watch_pods(site: &Site, pods: &[Pod], generation: i64, start: Instant, limit: Duration) -> Result<Vec<Duration>> {
    let mut waiting: Vec<SocketAddr> = pods.iter().map(Pod::status_address).collect();
    let mut times = Vec::new();
    site.cluster.in_network(|| {
        while !waiting.is_empty() && start.elapsed() < limit {
            thread::sleep(ASK_STEP);
            waiting.retain(|address| {
                let age = obeyed_for(*address, generation);
                times.extend(age.map(|age| start.elapsed().saturating_sub(age)));
                age.is_none()
            });
        }
    })?;
    Ok(times)
}

/// For how long a sidecar has obeyed this generation or a later one; None if it does not.
fn obeyed_for(address: SocketAddr, generation: i64) -> Option<Duration> {
    get_json(address, "/status").ok().filter(|status| status["generation"].as_i64() >= Some(generation))?;
    let metrics = get_text(address, "/metrics").ok()?;
    let age_s = metrics.lines().find_map(|line| line.strip_prefix(AGE))?.parse().ok()?;
    Some(Duration::from_secs_f64(age_s))
}

fn first_judged(site: &Site, service: SocketAddr, min_se_s: u32, start: Instant, limit: Duration) -> Result<Duration> {
    let wanted = min_se_s.to_string();
    loop {
        let answer = site.cluster.invite(service, 90)?;
        if answer.header("Min-SE") == Some(&wanted) {
            return Ok(start.elapsed());
        }
        ensure!(start.elapsed() < limit, "no call was judged by the change within {limit:?}; {}", site.look());
        thread::sleep(CALL_STEP);
    }
}

impl Times {
    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// How many do not exceed this.
    pub fn within(&self, limit: Duration) -> usize {
        self.0.iter().filter(|time| **time <= limit).count()
    }

    /// The time that so many of a thousand did not exceed.
    pub fn quantile(&self, permille: usize) -> Result<Duration> {
        let mut times = self.0.clone();
        times.sort();
        let last = times.len().checked_sub(1).context("nothing was measured")?;
        Ok(times[last * permille / 1000])
    }
}

impl FromIterator<Duration> for Times {
    fn from_iter<I: IntoIterator<Item = Duration>>(times: I) -> Times {
        Times(times.into_iter().collect())
    }
}

impl fmt::Display for Times {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, permille) in [("p50", 500), (", p99", 990), (", max", 1000)] {
            match self.quantile(permille) {
                Ok(time) => write!(f, "{name} {:.3} s", time.as_secs_f64())?,
                Err(_) => write!(f, "{name} none")?,
            }
        }
        Ok(())
    }
}

impl fmt::Display for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Changes { applied, obeyed, all_obeyed, late, judged } = self;
        writeln!(f, "  kubectl has ended  {applied}")?;
        writeln!(f, "  a sidecar obeys    {obeyed}")?;
        writeln!(f, "  all sidecars obey  {all_obeyed}")?;
        writeln!(f, "  a call is judged   {judged}")?;
        write!(f, "  too late           {late} of {} files", late + obeyed.count())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_times_that_were_measured() {
        let times: Times = (1..=100).rev().map(Duration::from_secs).collect();
        assert_eq!([0, 500, 990, 1000].map(|part| times.quantile(part).unwrap().as_secs()), [1, 50, 99, 100]);
        assert_eq!(times.within(Duration::from_secs(7)), 7);
        assert!(Times::default().quantile(500).is_err());
        assert_eq!(Times::default().to_string(), "p50 none, p99 none, max none");
    }
}
