//! The session view: a page that shows what `/sessions`, `/history` and `/status` say. Its files are part of the
//! program, and it loads nothing else, so it works wherever the admin port can be reached, under any path.

mod files;

pub(crate) use self::files::router;

#[cfg(test)]
mod tests {
    use super::files::FILES;
    use crate::report::KINDS;

    fn content(path: &str) -> &'static str {
        FILES.iter().find(|(name, ..)| *name == path).expect("a file of the page").2
    }

    #[test]
    fn the_page_has_tones_for_events_that_there_are() {
        let tones = content("/words.js").split("const TONES = {").nth(1).and_then(|rest| rest.split('}').next());
        let kinds: Vec<_> = tones.expect("tones").lines().filter_map(|line| line.trim().split_once(':')).collect();
        assert!(kinds.len() > 10, "{kinds:?}");
        for (kind, _) in kinds {
            assert!(KINDS.contains(&kind), "{kind} is no event");
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
