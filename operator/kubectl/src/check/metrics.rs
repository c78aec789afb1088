//! Sums of counters in what Prometheus would scrape.

/// The sum over all series of `name` whose labels hold each of `labels`, written as `label="value"`.
pub(super) fn sum(text: &str, name: &str, labels: &[&str]) -> f64 {
    let series = text.lines().filter_map(|line| {
        let rest = line.strip_prefix(name)?;
        let (found, value) = match rest.strip_prefix('{') {
            Some(rest) => rest.rsplit_once('}')?,
            None => ("", rest),
        };
        // Another metric may begin with the same letters.
        let value = value.strip_prefix(' ')?.split(' ').next()?.parse::<f64>().ok()?;
        labels.iter().all(|label| found.contains(label)).then_some(value)
    });
    series.sum()
}

/// The values of the label `label` of those series of `name` that are not 0.
pub(super) fn reached<'a>(text: &'a str, name: &str, label: &str) -> Vec<&'a str> {
    let prefix = format!("{label}=\"");
    let series = text.lines().filter(|line| line.starts_with(name) && line[name.len()..].starts_with('{'));
    let reached = series.filter(|line| !line.ends_with(" 0"));
    reached.filter_map(|line| line.split_once(&prefix)?.1.split('"').next()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# HELP a b\n# TYPE a counter\na{mode=\"Enforce\",side=\"Local\"} 3\na{mode=\"Observe\",side=\"Local\"} 4\n\
                        a_total 9\nb 1.5e3\nlimits{limit=\"Calls\"} 0\nlimits{limit=\"Forks\"} 2\n";

    #[test]
    fn series_of_the_name_and_the_labels_are_added() {
        assert_eq!(sum(TEXT, "a", &[]), 7.0);
        assert_eq!(sum(TEXT, "a", &["mode=\"Enforce\""]), 3.0);
        assert_eq!(sum(TEXT, "b", &[]), 1500.0);
        assert_eq!(sum(TEXT, "c", &[]), 0.0);
        assert_eq!(reached(TEXT, "limits", "limit"), ["Forks"]);
    }
}
