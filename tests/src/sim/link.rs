//! Links that lose, double, delay and so reorder packets.

use std::ops::Range;

use super::rng::Rng;

/// One direction of a link between two nodes.
#[derive(Clone, Debug)]
pub struct Link {
    /// In 1,000.
    pub loss: u64,
    /// In 1,000.
    pub duplication: u64,
    /// Milliseconds; a wide range reorders.
    pub delay: Range<u64>,
}

impl Link {
    /// 5 ms, everything arrives once and in order.
    pub const PERFECT: Link = Link { loss: 0, duplication: 0, delay: 5..6 };

    /// Nothing arrives.
    pub const CUT: Link = Link { loss: 1000, duplication: 0, delay: 5..6 };

    /// When the copies of a packet sent at `now` arrive; none when it is lost.
    pub fn arrivals(&self, now: u64, rng: &mut Rng) -> Vec<u64> {
        if rng.range(0..1000) < self.loss {
            return Vec::new();
        }
        let copies = if rng.range(0..1000) < self.duplication { 2 } else { 1 };
        (0..copies).map(|_| now + rng.range(self.delay.clone())).collect()
    }

    /// Does every packet arrive once, and in the order of sending?
    pub fn keeps_order(&self) -> bool {
        self.loss == 0 && self.duplication == 0 && self.delay.end - self.delay.start <= 1
    }

    /// A stream only delays.
    pub fn reliable(&self) -> Link {
        Link { loss: 0, duplication: 0, delay: self.delay.clone() }
    }

    /// Any link a call can survive.
    pub fn random(rng: &mut Rng) -> Link {
        if rng.chance(25) {
            return Link::PERFECT;
        }
        let fastest = rng.range(1..30);
        let slowest = fastest + rng.pick(&[1, 20, 150, 900, 3000]);
        Link { loss: rng.pick(&[0, 20, 100, 200]), duplication: rng.pick(&[0, 20, 150]), delay: fastest..slowest }
    }
}
