//! The page's files, and how they are served. `kubectl sipwarden dashboard` includes this module by its path and serves the
//! same page for many sidecars, so it uses nothing but axum.

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
pub(super) const FILES: [(&str, &str, &str); 8] = [
    ("/", HTML, include_str!("page.html")),
    ("/page.css", CSS, include_str!("page.css")),
    ("/page.js", SCRIPT, include_str!("page.js")),
    ("/detail.js", SCRIPT, include_str!("detail.js")),
    ("/ladder.js", SCRIPT, include_str!("ladder.js")),
    ("/words.js", SCRIPT, include_str!("words.js")),
    ("/charts.js", SCRIPT, include_str!("charts.js")),
    ("/dom.js", SCRIPT, include_str!("dom.js")),
];

/// The routes of the page's files.
pub(crate) fn router() -> Router {
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
