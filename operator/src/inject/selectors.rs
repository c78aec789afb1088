//! Label selectors in a form that CEL can take apart: an admission policy knows no selectors, and no JSON in a text.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};

/// The text of the annotation [`super::names::POD_SELECTORS`]: the pods that `own` selects and none of `stronger` does.
///
/// A block for each selector, `own` first, parted by an empty line; a line for each requirement: operator, key and values,
/// parted by spaces, none of which can be in a key or value. A selector without requirements selects all pods.
pub fn selectors_text<'a>(
    own: Option<&'a LabelSelector>,
    stronger: impl IntoIterator<Item = Option<&'a LabelSelector>>,
) -> String {
    let blocks: Vec<String> = std::iter::once(own).chain(stronger).map(block).collect();
    blocks.join("\n\n")
}

fn block(selector: Option<&LabelSelector>) -> String {
    let labels = selector.iter().flat_map(|selector| selector.match_labels.iter().flatten());
    let labels = labels.map(|(key, value)| format!("In {key} {value}"));
    let expressions = selector.iter().flat_map(|selector| selector.match_expressions.iter().flatten()).map(line);
    labels.chain(expressions).collect::<Vec<_>>().join("\n")
}

fn line(requirement: &LabelSelectorRequirement) -> String {
    let LabelSelectorRequirement { key, operator, values } = requirement;
    let values = values.iter().flatten().map(|value| format!(" {value}"));
    std::iter::once(format!("{operator} {key}")).chain(values).collect()
}

#[cfg(test)]
mod tests {
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
        assert_eq!(
            selectors_text(Some(&own), [None, Some(&own)]),
            "In app asterisk\nNotIn tier a \nExists x/y\n\n\n\nIn app asterisk\nNotIn tier a \nExists x/y"
        );
        assert_eq!(selectors_text(None, []), "");
    }
}
