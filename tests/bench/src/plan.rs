//! What a run of the generator does, and what came of it.

use std::fmt::{self, Display, Formatter};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

/// How calls are begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pace {
    /// So many per second, however the path under test fares.
    Open { per_second: u32 },
    /// A new one whenever fewer than so many are in progress: saturation.
    Closed { open: u64 },
}

impl Pace {
    /// Calls to begin now, `launched` having been begun since `begin` and `open` being in progress.
    pub(crate) fn due(self, begin: Instant, now: Instant, launched: u64, open: u64) -> u64 {
        match self {
            Self::Open { per_second } => {
                let by_now = (now - begin).as_secs_f64() * f64::from(per_second);
                (by_now as u64 + 1).saturating_sub(launched)
            }
            Self::Closed { open: wanted } => wanted.saturating_sub(open),
        }
    }
}

impl Display for Pace {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open { per_second } => write!(f, "{per_second} calls/s"),
            Self::Closed { .. } => write!(f, "saturation"),
        }
    }
}

/// The session interval that a call's INVITE offers.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Interval {
    /// The same for every call, seconds.
    Fixed(u32),
    /// Scattered over these seconds, so that no two neighbours agree.
    Spread { from_s: u32, to_s: u32 },
    /// Such that all sessions end within one second of `at`: an end comes `margin_s` before the interval is over,
    /// and the tested clock runs `speed` times as fast as ours.
    EndingAt { at: Instant, margin_s: u32, speed: u32 },
}

impl Interval {
    /// Seconds for the call begun as the `number`th at `now`.
    pub(crate) fn seconds(self, number: u64, now: Instant) -> u32 {
        match self {
            Self::Fixed(seconds) => seconds,
            Self::Spread { from_s, to_s } => {
                let scattered = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
                from_s + (scattered % u64::from(to_s - from_s)) as u32
            }
            Self::EndingAt { at, margin_s, speed } => {
                let left = at.saturating_duration_since(now).as_secs_f64() * f64::from(speed);
                left.ceil() as u32 + margin_s
            }
        }
    }
}

/// One run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) pace: Pace,
    pub(crate) interval: Interval,
    /// Leave the sessions standing once established: a call completes with its ACK.
    pub(crate) hold: bool,
    /// Calls begun at most, the warm-up's included.
    pub(crate) calls_max: u64,
    /// Before the measured window.
    pub(crate) warm_up: Duration,
    /// The measured window; it ends sooner when `calls_max` are done.
    pub(crate) window: Duration,
}

/// What a run measured.
pub(crate) struct Outcome {
    /// Calls that went their whole way.
    pub(crate) completed: u64,
    /// Calls given up after sending too often, refused, or without an end when the run ended.
    pub(crate) failed: u64,
    /// Messages sent again because nothing came of them.
    pub(crate) resent: u64,
    /// Messages that fit no call, such as a response seen twice.
    pub(crate) strays: u64,
    /// Calls not begun because too many were in progress.
    pub(crate) shed: u64,
    /// The last status at or above 300.
    pub(crate) last_refusal: Option<u16>,
    /// Length of the measured window.
    pub(crate) elapsed: Duration,
    /// Calls completed in the window.
    pub(crate) completed_in_window: u64,
    /// CPU time that the process under test took in the window.
    pub(crate) cpu: Duration,
    /// Nanoseconds from INVITE sent to INVITE received, and from 200 sent to 200 received.
    pub(crate) latency_ns: Histogram<u64>,
}

impl Outcome {
    pub(crate) fn new() -> Self {
        Self {
            completed: 0,
            failed: 0,
            resent: 0,
            strays: 0,
            shed: 0,
            last_refusal: None,
            elapsed: Duration::ZERO,
            completed_in_window: 0,
            cpu: Duration::ZERO,
            latency_ns: Histogram::new_with_bounds(1000, 60_000_000_000, 3).expect("the bounds are in order"),
        }
    }

    /// Counts one trip of an INVITE or a 200 through the path under test.
    pub(crate) fn trip(&mut self, took: Duration) {
        self.latency_ns.saturating_record(took.as_nanos() as u64);
    }

    /// Counts a call refused with `status`.
    pub(crate) fn refused(&mut self, status: u16) {
        self.failed += 1;
        self.last_refusal = Some(status);
    }

    /// Completed calls per second of the window.
    pub(crate) fn calls_per_second(&self) -> f64 {
        self.completed_in_window as f64 / self.elapsed.as_secs_f64()
    }

    /// CPU seconds of the process under test per 1,000 calls completed in the window.
    pub(crate) fn cpu_per_1000(&self) -> f64 {
        self.cpu.as_secs_f64() * 1000.0 / self.completed_in_window.max(1) as f64
    }

    /// Microseconds below which the share `quantile` of trips stayed.
    pub(crate) fn latency_us(&self, quantile: f64) -> f64 {
        self.latency_ns.value_at_quantile(quantile) as f64 / 1000.0
    }
}

impl Display for Outcome {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let (rate, cpu) = (self.calls_per_second(), self.cpu_per_1000());
        write!(f, "{rate:.0} calls/s, {cpu:.4} CPU s per 1,000 calls, ")?;
        write!(f, "p50 {:.0} µs, p99 {:.0} µs, ", self.latency_us(0.5), self.latency_us(0.99))?;
        write!(f, "{} completed, {} failed, {} sent again, ", self.completed, self.failed, self.resent)?;
        write!(f, "{} shed, {} strays", self.shed, self.strays)?;
        self.last_refusal.map_or(Ok(()), |status| write!(f, ", last refused with {status}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_open_pace_makes_up_for_lost_time() {
        let begin = Instant::now();
        let pace = Pace::Open { per_second: 500 };
        assert_eq!(pace.due(begin, begin, 0, 0), 1);
        assert_eq!(pace.due(begin, begin + Duration::from_millis(100), 1, 40_000), 50);
    }

    #[test]
    fn sessions_begun_apart_end_in_the_same_second() {
        let begin = Instant::now();
        let at = begin + Duration::from_secs(70);
        let interval = Interval::EndingAt { at, margin_s: 32, speed: 1 };
        for begun_ms in [0, 1, 700, 2300, 5999] {
            let begun = begin + Duration::from_millis(begun_ms);
            let end = begun + Duration::from_secs(u64::from(interval.seconds(0, begun) - 32));
            assert!((at..at + Duration::from_secs(1)).contains(&end), "begun after {begun_ms} ms");
        }
    }

    #[test]
    fn spread_intervals_stay_in_their_range_and_differ() {
        let interval = Interval::Spread { from_s: 1000, to_s: 1800 };
        let seconds: Vec<u32> = (0..100).map(|number| interval.seconds(number, Instant::now())).collect();
        assert!(seconds.iter().all(|seconds| (1000..1800).contains(seconds)));
        assert!(seconds.windows(2).all(|pair| pair[0] != pair[1]));
    }
}
