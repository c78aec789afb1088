//! Label selectors in a form that CEL can take apart: an admission policy knows no selectors, and no JSON in a text.
//!
//! A selector is a block: a line for each requirement, with operator, key and values parted by spaces, none of which can
//! be in a key or value. A block without lines selects all pods.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};

/// The longest text, in bytes: two dozen selectors as people write them. What it costs the API server to judge it for
/// each new pod grows with its length.
pub const MAX_SELECTORS_TEXT: usize = 16 * 1024;

/// The text of the annotation [`super::names::POD_SELECTORS`]: the pods that the block `own` selects and none of
/// `stronger` does; blocks parted by empty lines, `own` first.
pub fn selectors_text<'a>(own: &'a str, stronger: impl IntoIterator<Item = &'a str>) -> String {
    let blocks: Vec<&str> = std::iter::once(own).chain(stronger).collect();
    blocks.join("\n\n")
}

/// The blocks of such a text, its own first.
pub fn selector_blocks(text: &str) -> impl Iterator<Item = &str> {
    text.split("\n\n")
}

/// Whether it is of pods with these labels, as the admission policy judges.
pub fn text_selects(text: &str, labels: &BTreeMap<String, String>) -> bool {
    selector_blocks(text).enumerate().all(|(place, block)| block_selects(block, labels) == (place == 0))
}

/// A selector as a block.
pub fn selector_block(selector: Option<&LabelSelector>) -> String {
    let labels = selector.iter().flat_map(|selector| selector.match_labels.iter().flatten());
    let labels = labels.map(|(key, value)| format!("In {key} {value}"));
    let expressions = selector.iter().flat_map(|selector| selector.match_expressions.iter().flatten()).map(line);
    labels.chain(expressions).collect::<Vec<_>>().join("\n")
}

/// Whether the block selects pods with these labels.
pub fn block_selects(block: &str, labels: &BTreeMap<String, String>) -> bool {
    block.lines().filter_map(Requirement::parse).all(|requirement| requirement.is_met_by(labels))
}

/// Whether no pod can be selected by both blocks, as far as two of their requirements show it. Policies for different
/// applications are so, and need not name each other.
pub fn are_disjoint(a: &str, b: &str) -> bool {
    let contradict = |a: &Requirement, b: &Requirement| a.excludes(b) || b.excludes(a);
    let of_b: Vec<_> = b.lines().filter_map(Requirement::parse).collect();
    a.lines().filter_map(Requirement::parse).any(|a| of_b.iter().any(|b| contradict(&a, b)))
}

/// A line taken apart.
struct Requirement<'a> {
    operator: &'a str,
    key: &'a str,
    values: &'a str,
}

impl<'a> Requirement<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let (operator, rest) = line.split_once(' ')?;
        let (key, values) = rest.split_once(' ').unwrap_or((rest, ""));
        Some(Self { operator, key, values })
    }

    fn is_met_by(&self, labels: &BTreeMap<String, String>) -> bool {
        let value = labels.get(self.key);
        let is_listed = || value.is_some_and(|value| self.values.split(' ').any(|listed| listed == value));
        match self.operator {
            "In" => is_listed(),
            "NotIn" => !is_listed(),
            "Exists" => value.is_some(),
            "DoesNotExist" => value.is_none(),
            _ => false,
        }
    }

    fn excludes(&self, other: &Self) -> bool {
        let allows = |value: &str| other.values.split(' ').any(|allowed| allowed == value);
        self.key == other.key
            && match (self.operator, other.operator) {
                ("In", "In") => !self.values.split(' ').any(allows),
                ("In", "NotIn") => self.values.split(' ').all(allows),
                ("In" | "Exists", "DoesNotExist") => true,
                _ => false,
            }
    }
}

fn line(requirement: &LabelSelectorRequirement) -> String {
    let LabelSelectorRequirement { key, operator, values } = requirement;
    let values = values.iter().flatten().map(|value| format!(" {value}"));
    std::iter::once(format!("{operator} {key}")).chain(values).collect()
}

#[cfg(test)]
mod tests {
    use kube::core::{Selector, SelectorExt};
    use proptest::{collection::vec, prelude::*, sample::select};

    use super::*;

    #[test]
    fn each_selector_is_a_block_and_each_requirement_a_line() {
        let own = LabelSelector {
            match_labels: Some([("app".to_owned(), "asterisk".to_owned())].into()),
            match_expressions: Some(vec![
                LabelSelectorRequirement {
                    key: "tier".to_owned(),
                    operator: "NotIn".to_owned(),
                    values: Some(vec!["a".to_owned(), String::new()]),
                },
                LabelSelectorRequirement { key: "x/y".to_owned(), operator: "Exists".to_owned(), values: None },
            ]),
        };
        let block = selector_block(Some(&own));
        assert_eq!(block, "In app asterisk\nNotIn tier a \nExists x/y");
        let text = selectors_text(&block, ["", &block]);
        assert_eq!(text, format!("{block}\n\n\n\n{block}"));
        assert_eq!(selector_blocks(&text).collect::<Vec<_>>(), [&block, "", &block]);
        assert_eq!(selectors_text(&selector_block(None), []), "");
    }

    fn selector() -> impl Strategy<Value = LabelSelector> {
        let value = || select(vec!["", "1", "2", "3"]).prop_map(str::to_owned);
        let operator = select(vec!["In", "NotIn", "Exists", "DoesNotExist"]);
        let expression = (select(vec!["a", "b"]), operator, vec(value(), 1..3)).prop_map(|(key, operator, values)| {
            let values = operator.ends_with("In").then_some(values);
            LabelSelectorRequirement { key: key.to_owned(), operator: operator.to_owned(), values }
        });
        let labels = prop::option::of((select(vec!["a", "b"]).prop_map(str::to_owned), value()));
        (labels, vec(expression, 0..3)).prop_map(|(labels, expressions)| LabelSelector {
            match_labels: Some(labels.into_iter().collect()),
            match_expressions: Some(expressions),
        })
    }

    proptest! {
        #[test]
        fn blocks_select_what_their_selectors_do_and_disjoint_ones_share_no_pod(a in selector(), b in selector()) {
            let block = selector_block(Some(&a));
            let disjoint = are_disjoint(&block, &selector_block(Some(&b)));
            let [a, b] = [a, b].map(|selector| Selector::try_from(selector).expect("a selector"));
            let values = || [None, Some(""), Some("1"), Some("2"), Some("3")];
            for (on_a, on_b) in values().into_iter().flat_map(|on_a| values().map(|on_b| (on_a, on_b))) {
                let labels = [("a", on_a), ("b", on_b)];
                let labels = labels.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?.to_owned())));
                let labels: BTreeMap<String, String> = labels.collect();
                prop_assert_eq!(block_selects(&block, &labels), a.matches(&labels), "{:?}", labels);
                prop_assert!(!(disjoint && a.matches(&labels) && b.matches(&labels)), "{labels:?}");
            }
        }
    }

    #[test]
    fn policies_for_different_applications_are_disjoint() {
        for (a, b, disjoint) in [
            ("In app a", "In app b", true),
            ("In app a", "In tier a", false),
            ("In app a b", "In app b", false),
            ("In app a", "NotIn app b a", true),
            ("Exists x", "DoesNotExist x", true),
            ("", "In app a", false),
        ] {
            assert_eq!((are_disjoint(a, b), are_disjoint(b, a)), (disjoint, disjoint), "{a:?} {b:?}");
        }
    }
}
