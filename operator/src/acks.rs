//! Asks sidecars what they obey. Answers are advisory: they are counted in statuses, and nothing waits for them.
//!
//! A sidecar is asked soon after it was given a config, again and again until it says so, and then now and then. The
//! client is hyper's, a connection for each question: a pool would keep one for each pod, to use it twice a minute.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    net::SocketAddr,
    time::Duration,
};

use axum::http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::{body::Bytes, client::conn::http1};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use thiserror::Error;
use tokio::{net::TcpStream, task::JoinSet, time::timeout};

use crate::{
    index::{Ack, Key},
    queue::{Outcome, Task},
    write::{Writer, nudge, work},
};

/// Questions at the same time.
const WORKERS: usize = 64;
/// For one question, and so for how long a pod that is gone keeps a worker.
const TIMEOUT: Duration = Duration::from_secs(2);
/// The answer is a few hundred bytes.
const MAX_ANSWER: usize = 16 * 1024;

/// What all questions need.
#[derive(Clone)]
pub struct Asker {
    /// Knows whom to ask, and writes to pods.
    pub writer: Writer,
    /// Where sidecars answer.
    pub port: u16,
    /// Between two questions to a sidecar that is in step.
    pub interval: Duration,
}

/// A sidecar did not say what it obeys.
#[derive(Debug, Error)]
pub enum AskError {
    /// It cannot be reached, or hung up.
    #[error("no connection: {0}")]
    Connection(#[from] std::io::Error),
    /// It does not speak HTTP.
    #[error("no HTTP: {0}")]
    Http(#[from] hyper::Error),
    /// It said no.
    #[error("HTTP status {0}")]
    Status(StatusCode),
    /// It did not answer with a status.
    #[error("an answer of another form")]
    Form,
    /// It took too long.
    #[error("no answer in time")]
    Timeout,
}

/// Of `/status`, what matters here.
#[derive(Deserialize)]
struct Answer {
    hash: Option<String>,
    sessions: u32,
    error: Option<String>,
}

impl Asker {
    /// Starts asking. It ends with the set.
    pub fn start(&self, tasks: &mut JoinSet<()>) {
        for _ in 0..WORKERS {
            let asker = self.clone();
            tasks.spawn(async move { work(&asker.writer.state.queues.acks, |task| asker.ask_one(task)).await });
        }
    }

    async fn ask_one(&self, Task { key, .. }: Task<Key>) -> Outcome {
        let Writer { state, metrics, .. } = &self.writer;
        let Some(target) = state.look(|index| index.ack_target(&key)) else { return self.gone(&key) };
        let answer = ask(SocketAddr::new(target.ip, self.port)).await;
        metrics.acked(answer.is_ok());
        if let Err(error) = &answer {
            tracing::debug!(%error, pod = key.name, "a sidecar did not answer");
        }
        let answer = answer.ok();
        state.update(|index| {
            // Another pod may have the name by now.
            if index.ack_target(&key).is_some_and(|now| now.ip == target.ip) {
                index.acked(&key, answer.clone());
            }
        });
        match state.look(|index| index.ack_target(&key)) {
            None => self.gone(&key),
            Some(now) if now.in_step => {
                self.writer.deliveries.end(&key);
                Outcome::After(self.spread(&key))
            }
            Some(now) => {
                let could_obey = matches!(answer, Some(Ack { error: None, .. })) && now.written;
                if could_obey && self.writer.deliveries.is_overdue(&key) {
                    nudge(&self.writer, &key).await;
                }
                Outcome::Retry
            }
        }
    }

    fn gone(&self, key: &Key) -> Outcome {
        self.writer.deliveries.end(key);
        Outcome::Done
    }

    /// Pods that came up together are not asked together for ever.
    fn spread(&self, key: &Key) -> Duration {
        let mut hasher = DefaultHasher::new();
        key.hash(&mut hasher);
        let permille = u32::try_from(hasher.finish() % 500).expect("below 500");
        self.interval * (750 + permille) / 1000
    }
}

/// Asks a sidecar.
///
/// # Errors
/// [`AskError`]; all of them may pass.
pub async fn ask(address: SocketAddr) -> Result<Ack, AskError> {
    timeout(TIMEOUT, ask_whole(address)).await.unwrap_or(Err(AskError::Timeout))
}

async fn ask_whole(address: SocketAddr) -> Result<Ack, AskError> {
    let stream = TcpStream::connect(address).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::get("/status").header(header::HOST, address.to_string());
    let request = request.body(Empty::<Bytes>::new()).expect("a path and an address make a request");
    let exchange = async move {
        let response = sender.send_request(request).await?;
        if response.status() != StatusCode::OK {
            return Err(AskError::Status(response.status()));
        }
        let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await.map_err(|_| AskError::Form)?;
        let Answer { hash, sessions, error } = serde_json::from_slice(&body.to_bytes()).map_err(|_| AskError::Form)?;
        Ok(Ack { hash, error, sessions })
    };
    let mut exchange = std::pin::pin!(exchange);
    tokio::select! {
        answer = &mut exchange => answer,
        // The connection may end before the answer was taken out of it.
        ended = connection => {
            ended?;
            exchange.await
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;

    /// A sidecar that gives this answer once.
    async fn answering(answer: String) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 1024];
            let read = stream.read(&mut request).await.unwrap();
            assert!(request[..read].starts_with(b"GET /status HTTP/1.1\r\n"));
            stream.write_all(answer.as_bytes()).await.unwrap();
        });
        address
    }

    fn http(status: &str, body: &str) -> String {
        format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}", body.len())
    }

    #[tokio::test]
    async fn a_sidecar_says_what_it_obeys() {
        let body = r#"{"policy":"carrier","generation":3,"hash":"0123456789abcdef","source":"File","ageS":1.5,
            "mode":"Enforce","sessions":17,"error":null}"#;
        let ack = ask(answering(http("200 OK", body)).await).await.unwrap();
        assert_eq!(ack, Ack { hash: Some("0123456789abcdef".to_owned()), error: None, sessions: 17 });
    }

    #[tokio::test]
    async fn a_strange_answer_is_no_answer() {
        for (answer, expected) in [
            (http("200 OK", "[]"), "an answer of another form"),
            (http("200 OK", &"x".repeat(MAX_ANSWER + 1)), "an answer of another form"),
            (http("503 Service Unavailable", ""), "HTTP status 503"),
            ("SIP/2.0 200 OK\r\n\r\n".to_owned(), "no HTTP"),
            (String::new(), "no HTTP"),
        ] {
            let error = ask(answering(answer.clone()).await).await.unwrap_err().to_string();
            assert!(error.starts_with(expected), "{error} for {answer:.40}");
        }
    }

    #[tokio::test]
    async fn silence_ends_in_time() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let asked = tokio::time::Instant::now();
        assert!(matches!(ask(listener.local_addr().unwrap()).await, Err(AskError::Timeout)));
        assert!(asked.elapsed() < TIMEOUT * 2);
    }
}
