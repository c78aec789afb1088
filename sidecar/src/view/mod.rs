//! The session view: a page that shows what `/sessions`, `/history` and `/status` say. Its files are part of the
//! program, and it loads nothing else, so it works wherever the admin port can be reached, under any path.

use axum::Router;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderName, StatusCode};
use axum::routing::get;

/// Own scripts, own styles, own requests; nothing inline, no frames around it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

/// Path, type, content. Modules import one another by these names.
const FILES: [(&str, &str, &str); 7] = [
    ("/", HTML, include_str!("page.html")),
    ("/page.css", CSS, include_str!("page.css")),
    ("/page.js", SCRIPT, include_str!("page.js")),
    ("/detail.js", SCRIPT, include_str!("detail.js")),
    ("/words.js", SCRIPT, include_str!("words.js")),
    ("/charts.js", SCRIPT, include_str!("charts.js")),
    ("/dom.js", SCRIPT, include_str!("dom.js")),
];

/// The routes of the page's files.
pub fn router() -> Router {
    FILES.into_iter().fold(Router::new(), |router, (path, kind, content)| {
        router.route(path, get(move || async move { file(kind, content) }))
    })
}

fn file(kind: &'static str, content: &'static str) -> (StatusCode, [(HeaderName, &'static str); 5], &'static str) {
    let headers = [
        (CONTENT_TYPE, kind),
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
        // Another version of the sidecar may answer at the same address next.
        (CACHE_CONTROL, "no-cache"),
    ];
    (StatusCode::OK, headers, content)
}

#[cfg(test)]
mod tests {
    use super::*;

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
