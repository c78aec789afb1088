//! The text format of Prometheus, as far as our metrics use it: label values without quotes or commas.

use std::collections::{BTreeMap, BTreeSet};

/// The labels of one series.
pub type Labels = BTreeMap<String, String>;

/// Everything of one name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Family {
    pub name: String,
    /// `counter`, `gauge` or `histogram`.
    pub kind: String,
    pub help: String,
    /// Without the buckets of a histogram.
    pub series: BTreeSet<Labels>,
    /// How many series a server keeps of it, buckets included.
    pub stored: usize,
}

/// Reads what a scrape gets.
pub fn families(text: &str) -> Vec<Family> {
    let mut families: Vec<Family> = Vec::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').unwrap_or((rest, ""));
            let (name, help) = (name.to_owned(), help.to_owned());
            families.push(Family { name, kind: String::new(), help, series: BTreeSet::new(), stored: 0 });
        } else if let Some(family) = families.last_mut() {
            match line.strip_prefix("# TYPE ") {
                Some(rest) => family.kind = rest.rsplit(' ').next().unwrap_or_default().to_owned(),
                None => family.add(line),
            }
        }
    }
    families
}

impl Family {
    fn add(&mut self, line: &str) {
        let key = line.rsplit_once(' ').map_or(line, |(key, _)| key);
        let (name, labels) = key.split_once('{').unwrap_or((key, ""));
        assert!(name.starts_with(&self.name), "{name} among the samples of {}", self.name);
        self.stored += 1;
        if self.kind != "histogram" || name.ends_with("_count") {
            self.series.insert(parse(labels.trim_end_matches('}')));
        }
    }
}

fn parse(labels: &str) -> Labels {
    let pairs = labels.split(',').filter_map(|pair| pair.split_once('='));
    pairs.map(|(name, value)| (name.to_owned(), value.trim_matches('"').to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_have_their_type_help_and_series() {
        let text = "# HELP a_total Of a.\n# TYPE a_total counter\na_total{x=\"1\",y=\"b\"} 2\na_total{x=\"2\",y=\"b\"} 0\n\
                    # HELP h Of h.\n# TYPE h histogram\nh_bucket{le=\"1\"} 0\nh_bucket{le=\"+Inf\"} 0\nh_sum 0\nh_count 0\n";

        let families = families(text);

        assert_eq!((families[0].name.as_str(), families[0].kind.as_str()), ("a_total", "counter"));
        assert_eq!((families[0].help.as_str(), families[0].series.len()), ("Of a.", 2));
        assert_eq!(families[0].series.first().and_then(|labels| labels.get("x")).map(String::as_str), Some("1"));
        assert_eq!((families[1].series.len(), families[1].stored), (1, 4));
    }
}
