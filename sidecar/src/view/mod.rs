//! The session view: a page that shows what `/sessions`, `/history` and `/status` say. Its files are part of the
//! program, and it loads nothing else, so it works wherever the admin port can be reached, under any path.

mod files;

pub(crate) use self::files::router;

#[cfg(test)]
mod tests {
    use super::files::FILES;

    fn content(path: &str) -> &'static str {
        FILES.iter().find(|(name, ..)| *name == path).expect("a file of the page").2
    }

    /// Event kinds are named in one place, so their names can be read there.
    fn event_kinds() -> Vec<&'static str> {
        let source = include_str!("../report.rs").split("fn record(").nth(1).expect("where kinds get their names");
        let source = source.split("fn header_name(").next().expect("text");
        let after = |mark: &'static str| source.split(mark).skip(1).filter_map(|rest| rest.split('"').next());
        after("kind: \"").chain(after("of(\"")).collect()
    }

    #[test]
    fn every_event_has_words_on_the_page() {
        let kinds = event_kinds();
        assert!(kinds.len() > 30, "{kinds:?}");
        for kind in kinds {
            assert!(content("/words.js").contains(&format!("\n  {kind}: (")), "no words for {kind}");
        }
    }

    #[test]
    fn the_page_names_only_files_it_has() {
        for (path, _, text) in FILES {
            for name in text.split(['"', '\'']).filter(|word| word.ends_with(".js") || word.ends_with(".css")) {
                let name = name.trim_start_matches("./");
                assert!(FILES.iter().any(|(known, ..)| known[1..] == *name), "{path} names {name}");
            }
        }
    }

    #[test]
    fn no_data_can_become_markup_or_code() {
        for (path, _, text) in FILES {
            for sink in
                ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "style=\"", "onclick="]
            {
                assert!(!text.contains(sink), "{sink} in {path}");
            }
        }
    }
}
