//! Counters whose labels have closed sets of values, resolved once: counting is an index and an addition.

use prometheus::{IntCounter, IntCounterVec, Opts, Registry};

/// One counter for each combination of label values.
pub(super) struct Grid<const D: usize> {
    counters: Box<[IntCounter]>,
    sizes: [usize; D],
}

impl<const D: usize> Grid<D> {
    /// Registers `name` with each label and the values it can have.
    pub(super) fn new(registry: &Registry, name: &str, help: &str, labels: [(&str, &[&str]); D]) -> Grid<D> {
        let names = labels.map(|(label, _)| label);
        let sizes = labels.map(|(_, values)| values.len());
        let vec = IntCounterVec::new(Opts::new(name, help), &names).expect("a legal name and legal labels");
        registry.register(Box::new(vec.clone())).expect("each name is registered once");
        let counters =
            (0..sizes.iter().product()).map(|cell| vec.with_label_values(&values_of(cell, &labels))).collect();
        Grid { counters, sizes }
    }

    /// Adds one. `index`: the position of each label's value.
    pub(super) fn inc(&self, index: [usize; D]) {
        self.add(index, 1);
    }

    /// Adds `count`.
    pub(super) fn add(&self, index: [usize; D], count: u64) {
        let cell = index.iter().zip(&self.sizes).fold(0, |cell, (&at, &size)| cell * size + at);
        self.counters[cell].inc_by(count);
    }
}

/// The label values of a cell; the last label varies fastest.
fn values_of<'a, const D: usize>(mut cell: usize, labels: &[(&str, &[&'a str]); D]) -> [&'a str; D] {
    let mut values = [""; D];
    for (value, (_, all)) in values.iter_mut().zip(labels).rev() {
        *value = all[cell % all.len()];
        cell /= all.len();
    }
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_combination_has_its_own_counter() {
        let registry = Registry::new();
        let grid = Grid::new(&registry, "seen_total", "Seen.", [("side", &["a", "b"]), ("kind", &["x", "y", "z"])]);
        grid.inc([0, 2]);
        grid.add([1, 0], 5);
        let family = registry.gather().remove(0);
        let value = |side: &str, kind: &str| {
            let matches = |metric: &&prometheus::proto::Metric| {
                let label = |name: &str| metric.get_label().iter().find(|l| l.name() == name).expect("a label").value();
                label("side") == side && label("kind") == kind
            };
            family.get_metric().iter().find(matches).expect("a counter").get_counter().get_value() as u64
        };
        assert_eq!(family.get_metric().len(), 6);
        assert_eq!((value("a", "z"), value("b", "x"), value("a", "x")), (1, 5, 0));
    }
}
