//! Requests to the collector: HTTP/1.1, a connection for each batch.
//!
//! The client of the exporter's own project keeps a pool, and brings HTTP/2: an eighth of the sidecar, and one more protocol that
//! strangers could speak to the HTTP servers of both programs.

use std::pin::pin;
use std::time::Duration;

use async_trait::async_trait;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::client::conn::http1;
use hyper::header::{HOST, HeaderValue};
use hyper::http::uri::{Authority, PathAndQuery, Uri};
use hyper_util::rt::TokioIo;
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response, ResponseBodyTooLarge};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// What the specification lets a client read of an answer.
const MAX_ANSWER: usize = 4 * 1024 * 1024;

/// Sends requests.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Client {
    /// For one request, from the look-up of the host to the last byte of the answer.
    pub(crate) timeout: Duration,
}

#[async_trait]
impl HttpClient for Client {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        timeout(self.timeout, exchange(request)).await?
    }
}

async fn exchange(request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
    let (mut parts, body) = request.into_parts();
    let authority = parts.uri.authority().ok_or("a URL without a host")?.clone();
    // A connection wants the path only, and of whom it is asked in a header.
    parts.uri = Uri::from(parts.uri.path_and_query().cloned().unwrap_or(PathAndQuery::from_static("/")));
    parts.headers.entry(HOST).or_insert(HeaderValue::from_str(authority.as_str())?);

    let stream = TcpStream::connect(target(&authority)).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let answer = async move {
        let (parts, body) = sender.send_request(Request::from_parts(parts, Full::new(body))).await?.into_parts();
        let body = Limited::new(body, MAX_ANSWER).collect().await.map_err(too_large)?;
        Ok(Response::from_parts(parts, body.to_bytes()))
    };
    let mut answer = pin!(answer);
    tokio::select! {
        answer = &mut answer => answer,
        // The connection may end before the answer was taken out of it.
        ended = connection => {
            ended?;
            answer.await
        }
    }
}

/// Host and port as the resolver takes them: an IPv6 address without its brackets.
fn target(authority: &Authority) -> (&str, u16) {
    (authority.host().trim_matches(['[', ']']), authority.port_u16().unwrap_or(80))
}

/// In the form in which the exporter knows not to try again.
fn too_large(error: HttpError) -> HttpError {
    if error.is::<LengthLimitError>() { Box::new(ResponseBodyTooLarge::new()) } else { error }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    const CLIENT: Client = Client { timeout: Duration::from_secs(10) };

    /// A collector that gives this answer once, its URL, and what it was asked.
    async fn answering(answer: impl Into<Vec<u8>>) -> (String, tokio::task::JoinHandle<String>) {
        let answer = answer.into();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a listener");
        let url = format!("http://{}/v1/traces?a=b", listener.local_addr().expect("an address"));
        let asked = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            let mut asked = Vec::new();
            while !asked.ends_with(b"spans") {
                assert_ne!(stream.read_buf(&mut asked).await.expect("bytes"), 0, "{asked:?}");
            }
            // Beyond the limit the client hangs up.
            let _ = stream.write_all(&answer).await;
            String::from_utf8(asked).expect("text")
        });
        (url, asked)
    }

    fn post(url: &str) -> Request<Bytes> {
        Request::post(url).header("x-tenant", "voice").body(Bytes::from_static(b"spans")).expect("a request")
    }

    #[tokio::test]
    async fn a_batch_goes_to_the_path_of_the_url_and_the_answer_comes_back_whole() {
        let answer = "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 7\r\nContent-Length: 4\r\n\r\nbusy";
        let (url, asked) = answering(answer).await;
        let got = CLIENT.send_bytes(post(&url)).await.expect("an answer");
        assert_eq!(
            (got.status().as_u16(), &got.headers()["retry-after"], &got.body()[..]),
            (503, &"7".parse().expect("a header"), &b"busy"[..])
        );
        let asked = asked.await.expect("a request");
        assert!(asked.starts_with("POST /v1/traces?a=b HTTP/1.1\r\n"), "{asked}");
        let host = url.strip_prefix("http://").and_then(|rest| rest.split('/').next()).expect("a host");
        for line in [&format!("host: {host}"), "x-tenant: voice", "content-length: 5"] {
            assert!(asked.lines().any(|asked| asked == line), "{line}: {asked}");
        }
    }

    #[test]
    fn a_host_is_looked_up_without_brackets_and_port_80_is_that_of_http() {
        for (authority, host, port) in [
            ("collector", "collector", 80),
            ("192.0.2.1:4318", "192.0.2.1", 4318),
            ("[2001:db8::1]", "2001:db8::1", 80),
            ("[2001:db8::1]:4318", "2001:db8::1", 4318),
        ] {
            assert_eq!(target(&authority.parse().expect("an authority")), (host, port));
        }
    }

    #[tokio::test]
    async fn an_answer_without_end_is_left_at_the_limit() {
        let mut answer = b"HTTP/1.1 200 OK\r\n\r\n".to_vec();
        answer.resize(MAX_ANSWER + 4096, b'x');
        let (url, _) = answering(answer).await;
        let error = CLIENT.send_bytes(post(&url)).await.expect_err("too much");
        assert!(error.is::<ResponseBodyTooLarge>(), "{error}");
    }

    #[tokio::test]
    async fn a_collector_that_says_nothing_is_left_in_time() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a listener");
        let url = format!("http://{}/", listener.local_addr().expect("an address"));
        let client = Client { timeout: Duration::from_millis(50) };
        let error = client.send_bytes(post(&url)).await.expect_err("no answer");
        assert!(error.is::<tokio::time::error::Elapsed>(), "{error}");
    }
}
