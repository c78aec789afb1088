//! What happened lately: the last hour of a few of the metrics' own counters, for `/history`. Kept in memory, bounded,
//! and gone with the process; whoever wants more has Prometheus.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Serialize;
use sipwarden_session_timer::Time;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use crate::hub::Hub;
use crate::metrics::Metrics;

/// Time between two samples.
pub const INTERVAL: Duration = Duration::from_secs(10);
/// Samples kept: one hour.
pub const CAPACITY: usize = 360;

const REFRESHES: &str = "sipwarden_refreshes_total";
const REJECTIONS: &str = "sipwarden_rejections_total";
const EXPIRIES: &str = "sipwarden_expiries_total";

/// The samples of the last hour.
#[derive(Debug, Default)]
pub struct History {
    ring: Mutex<VecDeque<(Time, Counts)>>,
}

/// The process at one moment. All but `active` count since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Sessions with a 2xx and no end.
    pub active: u64,
    /// 2xx that armed a timer anew.
    pub refreshes: u64,
    /// 422 sent, and those that Observe would have sent.
    pub rejections: u64,
    /// Sessions that were not refreshed in time, those that Observe left alone included.
    pub expiries: u64,
}

/// `/history`
#[derive(Debug, Serialize)]
pub struct Report {
    interval_s: u64,
    capacity: usize,
    /// Oldest first; the last one is now.
    samples: Vec<Sample>,
}

/// Counts, and how long ago they were these; of the clock, whatever the speed of session time.
#[derive(Debug, PartialEq, Serialize)]
struct Sample {
    ago_s: f64,
    #[serde(flatten)]
    counts: Counts,
}

impl Counts {
    /// As they are now.
    pub fn of(metrics: &Metrics, active: usize) -> Counts {
        let families = metrics.gather();
        let total = |name: &str| {
            let samples = families.iter().filter(|family| family.name() == name).flat_map(|family| family.get_metric());
            samples.map(|metric| metric.get_counter().get_value()).sum::<f64>() as u64
        };
        Counts {
            active: active as u64,
            refreshes: total(REFRESHES),
            rejections: total(REJECTIONS),
            expiries: total(EXPIRIES),
        }
    }
}

impl History {
    /// Keeps `counts`, which were so at `now`; the oldest goes when there are more than [`CAPACITY`].
    pub fn keep(&self, now: Time, counts: Counts) {
        let mut ring = self.ring();
        if ring.len() == CAPACITY {
            ring.pop_front();
        }
        ring.push_back((now, counts));
    }

    /// What was kept, and `counts` of `now`.
    pub fn report(&self, now: Time, counts: Counts) -> Report {
        let kept = self.ring();
        let samples = kept.iter().copied().chain([(now, counts)]);
        let sample = |(at, counts): (Time, Counts)| Sample { ago_s: now.since(at).as_secs_f64(), counts };
        Report { interval_s: INTERVAL.as_secs(), capacity: CAPACITY, samples: samples.map(sample).collect() }
    }

    /// With a sample of `hub` as it is now.
    pub fn begun(hub: &Hub) -> History {
        let history = History::default();
        history.keep(hub.now(), Counts::of(&hub.metrics, hub.active()));
        history
    }

    /// Keeps a sample of `hub` each [`INTERVAL`]; never ends.
    pub async fn follow(&self, hub: &Hub) {
        let mut ticks = interval_at(Instant::now() + INTERVAL, INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.keep(hub.now(), Counts::of(&hub.metrics, hub.active()));
        }
    }

    fn ring(&self) -> MutexGuard<'_, VecDeque<(Time, Counts)>> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use sipwarden_session_timer::{Event, EventKind, Leg};
    use sipwarden_sip::Method;

    use super::*;

    #[test]
    fn after_an_hour_each_sample_pushes_out_the_oldest() {
        let history = History::default();
        let hours: u64 = 2;
        for index in 0..hours * CAPACITY as u64 {
            history.keep(Time::ZERO + INTERVAL * index as u32, Counts { active: index, ..Counts::default() });
        }
        let now = Time::ZERO + INTERVAL * (hours as u32 * CAPACITY as u32);
        let Report { samples, .. } = history.report(now, Counts { active: 7, ..Counts::default() });
        assert_eq!(samples.len(), CAPACITY + 1);
        assert_eq!((samples[0].ago_s, samples[0].counts.active), (3600.0, CAPACITY as u64));
        assert!(samples.windows(2).all(|pair| pair[0].ago_s - pair[1].ago_s == INTERVAL.as_secs_f64()));
        assert_eq!(samples[CAPACITY], Sample { ago_s: 0.0, counts: Counts { active: 7, ..Counts::default() } });
    }

    #[test]
    fn a_young_process_has_a_short_history() {
        let Report { samples, .. } = History::default().report(Time::ZERO, Counts::default());
        assert_eq!(samples, [Sample { ago_s: 0.0, counts: Counts::default() }]);
    }

    #[test]
    fn the_counts_are_the_sums_of_the_metrics_over_their_labels() {
        let metrics = Metrics::new();
        let rejected = EventKind::Rejected { to: Leg::Remote, asked: 60, min_se: 90 };
        let refreshed = |by| EventKind::Refreshed { by, method: Method::Update, interval: 90, refresher: by };
        let expired = EventKind::Expired { interval: 90, refresher: Leg::Remote };
        for (observed, kind) in [
            (false, rejected),
            (true, rejected),
            (false, rejected),
            (false, refreshed(Leg::Local)),
            (false, refreshed(Leg::Remote)),
            (true, expired),
        ] {
            metrics.event(&Event { session: None, observed, rule: None, kind });
        }
        assert_eq!(Counts::of(&metrics, 5), Counts { active: 5, refreshes: 2, rejections: 3, expiries: 1 });
    }
}
