//! Who may act through the admin interface: whoever shows the token of a file.

use std::path::PathBuf;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use subtle::ConstantTimeEq;
use tracing::warn;

/// A file larger than this holds no token.
const MAX_LEN: u64 = 4096;

/// The token's file, read for each request: a changed one counts at once.
#[derive(Clone, Debug)]
pub struct AdminToken {
    file: Option<Arc<PathBuf>>,
}

/// Why somebody may not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// There is no token.
    #[error(
        "nobody may do this here: start the sidecar with --admin-token-file FILE to allow it to whoever has the token"
    )]
    NoTokenFile,
    /// There should be one.
    #[error("the file of --admin-token-file cannot be read, or is empty: nobody may do this until it holds a token")]
    NoToken,
    /// None was shown, or another.
    #[error("this needs the header Authorization: Bearer TOKEN with what is in the file of --admin-token-file")]
    NotShown,
}

impl AdminToken {
    /// The token is in `file`; without one nobody may act. Warns of a file without a token.
    pub fn new(file: Option<PathBuf>) -> AdminToken {
        let token = AdminToken { file: file.map(Arc::new) };
        if let Some(path) = token.file.as_ref().filter(|_| token.read().is_none()) {
            warn!("--admin-token-file {} cannot be read or is empty: nobody may act on sessions", path.display());
        }
        token
    }

    /// Is there a file?
    pub fn is_set(&self) -> bool {
        self.file.is_some()
    }

    /// # Errors
    /// Whoever sent `headers` may not act.
    pub fn check(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        if !self.is_set() {
            return Err(Refusal::NoTokenFile);
        }
        let token = self.read().ok_or(Refusal::NoToken)?;
        let shown = headers.get(header::AUTHORIZATION).and_then(|value| bearer(value.as_bytes()));
        // The time this takes tells the token's length at most.
        let is_same = shown.is_some_and(|shown| shown.ct_eq(token.as_bytes()).into());
        if is_same { Ok(()) } else { Err(Refusal::NotShown) }
    }

    fn read(&self) -> Option<String> {
        let path = self.file.as_deref()?;
        if std::fs::metadata(path).ok()?.len() > MAX_LEN {
            return None;
        }
        let token = std::fs::read_to_string(path).ok()?.trim().to_owned();
        (!token.is_empty()).then_some(token)
    }
}

/// Lets only those through who show the token.
pub async fn require(State(token): State<AdminToken>, request: Request, next: Next) -> Response {
    match token.check(request.headers()) {
        Ok(()) => next.run(request).await,
        Err(refusal) => refusal.into_response(),
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let text = format!("{self}\n");
        match self {
            Refusal::NoTokenFile | Refusal::NoToken => (StatusCode::FORBIDDEN, text).into_response(),
            Refusal::NotShown => {
                (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, "Bearer")], text).into_response()
            }
        }
    }
}

/// What follows `Bearer` (RFC 6750 §2.1); the scheme's name is case-insensitive (RFC 9110 §11.1).
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, rest) = value.split_at_checked("Bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then(|| rest.trim_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(value: &str) -> HeaderMap {
        HeaderMap::from_iter([(header::AUTHORIZATION, value.parse().expect("a header value"))])
    }

    #[test]
    fn only_the_token_of_the_file_as_it_is_now_opens() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("token");
        let token = AdminToken::new(Some(path.clone()));
        assert_eq!(token.check(&shown("Bearer ")), Err(Refusal::NoToken));
        std::fs::write(&path, "\n").expect("written");
        assert_eq!(token.check(&shown("Bearer ")), Err(Refusal::NoToken));
        std::fs::write(&path, "0a1b2c\n").expect("written");
        assert_eq!(token.check(&shown("Bearer 0a1b2c")), Ok(()));
        assert_eq!(token.check(&shown("bearer  0a1b2c")), Ok(()));
        for wrong in ["Bearer 0a1b2d", "Bearer 0a1b2c3", "Bearer 0a1b2", "Bearer ", "Basic 0a1b2c", "0a1b2c"] {
            assert_eq!(token.check(&shown(wrong)), Err(Refusal::NotShown), "{wrong}");
        }
        assert_eq!(token.check(&HeaderMap::new()), Err(Refusal::NotShown));
        std::fs::write(&path, "another").expect("written");
        assert_eq!(token.check(&shown("Bearer 0a1b2c")), Err(Refusal::NotShown));
    }

    #[test]
    fn without_a_file_nobody_may_act() {
        assert_eq!(AdminToken::new(None).check(&shown("Bearer x")), Err(Refusal::NoTokenFile));
    }
}
