//! Asking sidecars: HTTP on the admin port of a pod's loopback, over a stream that the API server forwards.
//!
//! Many are asked at once, but not all. Each has a time of its own, so one that does not answer is told of and holds back
//! none of the others. No answer is read beyond a bound.

use std::{fmt, future::Future, io::Write as _, sync::Arc, time::Duration};

use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    client::conn::http1::{self, SendRequest},
    header,
};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client, api::Portforwarder};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use sipwarden_operator::inject::names::ADMIN_PORT;
use thiserror::Error;
use tokio::{
    sync::{Semaphore, oneshot},
    task::JoinSet,
    time::timeout,
};

use crate::{cli::PodArgs, outcome::told, scope::PodRef};

/// A thousand sessions with all their events are a few megabytes.
const MAX_ANSWER: usize = 64 * 1024 * 1024;
/// What goes wrong in the pod is told on a channel of its own, a moment before or after the stream ends.
const TROUBLE_DELAY: Duration = Duration::from_millis(500);
/// For as long as this nothing is said of progress.
const PROGRESS_AFTER: Duration = Duration::from_secs(1);

/// How sidecars are reached.
#[derive(Clone)]
pub struct Sidecars {
    client: Client,
    port: u16,
    timeout: Duration,
    parallel: usize,
    shows_progress: bool,
}

/// A sidecar did not answer, or not as it should.
#[derive(Debug, Error)]
pub enum AskError {
    /// The user has no right to forward ports.
    #[error("no right to forward a port to the pod (create pods/portforward)")]
    Forbidden,
    /// The API server or the kubelet do not reach the pod.
    #[error("its port cannot be forwarded: {0}")]
    Unreachable(String),
    /// It is there and said nothing in time.
    #[error("no answer within {} s", .0.as_secs())]
    Timeout(Duration),
    /// It hung up.
    #[error("the connection ended: {0}")]
    Connection(#[from] hyper::Error),
    /// It said no.
    #[error("it answered {status}: {text}")]
    Status {
        /// The status.
        status: StatusCode,
        /// Its words.
        text: String,
    },
    /// It answered with something else.
    #[error("its answer cannot be read; is it of another version? {0}")]
    Form(String),
}

/// What one sidecar answered.
pub type Answer<T> = (PodRef, Result<T, AskError>);

/// A pod that did not answer, for programs.
#[derive(Debug, Serialize)]
pub struct Silent {
    #[serde(flatten)]
    pod: PodRef,
    error: String,
}

/// A connection to a sidecar.
pub struct Link {
    requests: SendRequest<Full<Bytes>>,
    host: String,
    trouble: Option<oneshot::Receiver<Option<String>>>,
}

impl Sidecars {
    /// Through this API server.
    pub fn new(client: Client, args: &PodArgs) -> Self {
        let shows_progress = std::io::IsTerminal::is_terminal(&std::io::stderr());
        let port = u16::try_from(ADMIN_PORT).expect("a port");
        Self { client, port, timeout: args.timeout(), parallel: usize::from(args.parallel), shows_progress }
    }

    /// The same for another port: the operator speaks HTTP too.
    #[must_use]
    pub fn at_port(&self, port: u16) -> Self {
        Self { port, ..self.clone() }
    }

    /// The same without a word of progress: for those who draw on the terminal themselves.
    #[must_use]
    pub fn quiet(self) -> Self {
        Self { shows_progress: false, ..self }
    }

    /// `GET path`, as JSON.
    ///
    /// # Errors
    /// [`AskError`].
    pub async fn get<T: DeserializeOwned>(&self, pod: &PodRef, path: &str) -> Result<T, AskError> {
        read(&self.exchange(pod, Method::GET, path, Bytes::new()).await?)
    }

    /// `GET path`, as text.
    ///
    /// # Errors
    /// [`AskError`].
    pub async fn get_text(&self, pod: &PodRef, path: &str) -> Result<String, AskError> {
        let body = self.exchange(pod, Method::GET, path, Bytes::new()).await?;
        Ok(String::from_utf8_lossy(&body).into_owned())
    }

    /// `POST path` of JSON, answered with JSON.
    ///
    /// # Errors
    /// [`AskError`].
    pub async fn post<T: DeserializeOwned>(&self, pod: &PodRef, path: &str, body: Bytes) -> Result<T, AskError> {
        read(&self.exchange(pod, Method::POST, path, body).await?)
    }

    /// Asks each of `pods` by `ask`, which is given the asker and the pod. The answers are in the order of the pods.
    pub async fn each<T, F>(&self, pods: &[PodRef], ask: impl Fn(Self, PodRef) -> F) -> Vec<Answer<T>>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, AskError>> + Send + 'static,
    {
        let room = Arc::new(Semaphore::new(self.parallel));
        let mut asked = JoinSet::new();
        for (index, pod) in pods.iter().enumerate() {
            let (room, question) = (room.clone(), ask(self.clone(), pod.clone()));
            asked.spawn(async move {
                let _permit = room.acquire_owned().await.expect("nobody closes it");
                (index, question.await)
            });
        }
        let mut answers: Vec<_> = pods.iter().map(|_| None).collect();
        let mut progress = Progress::new(pods.len(), self.shows_progress);
        while let Some(done) = asked.join_next().await {
            let (index, answer) = done.expect("a question neither panics nor is stopped");
            answers[index] = Some(answer);
            progress.one_more();
        }
        let answers = answers.into_iter().map(|answer| answer.expect("each was asked"));
        pods.iter().cloned().zip(answers).collect()
    }

    /// A connection on which requests may follow each other.
    ///
    /// # Errors
    /// [`AskError`].
    pub async fn link(&self, pod: &PodRef) -> Result<Link, AskError> {
        timeout(self.timeout, Link::open(self, pod)).await.unwrap_or(Err(AskError::Timeout(self.timeout)))
    }

    /// What a 2xx to `GET path` begins with; its body is the caller's to read.
    ///
    /// # Errors
    /// [`AskError`].
    pub async fn open(&self, pod: &PodRef, path: &str) -> Result<(Link, Response<Incoming>), AskError> {
        let opened = async {
            let mut link = Link::open(self, pod).await?;
            let response = link.send(Method::GET, path, Bytes::new()).await?;
            let response = good(response).await?;
            Ok((link, response))
        };
        timeout(self.timeout, opened).await.unwrap_or(Err(AskError::Timeout(self.timeout)))
    }

    async fn exchange(&self, pod: &PodRef, method: Method, path: &str, body: Bytes) -> Result<Bytes, AskError> {
        let mut link = self.link(pod).await?;
        link.exchange(method, path, body, self.timeout).await
    }
}

impl Link {
    async fn open(of: &Sidecars, pod: &PodRef) -> Result<Self, AskError> {
        let (api, port) = (Api::<Pod>::namespaced(of.client.clone(), &pod.namespace), of.port);
        let mut forward = api.portforward(&pod.name, &[port]).await.map_err(|error| refused(&error))?;
        let stream = forward.take_stream(port).expect("this port was asked for, and nobody took it");
        let (requests, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let trouble = watch(forward, port);
        // It ends with the last request, or with the stream.
        tokio::spawn(connection);
        Ok(Self { requests, host: format!("127.0.0.1:{port}"), trouble: Some(trouble) })
    }

    /// Sends a request and reads the whole answer, which has to be a 2xx.
    ///
    /// # Errors
    /// [`AskError`]; after one the connection is of no use any more.
    pub async fn exchange(
        &mut self,
        method: Method,
        path: &str,
        body: Bytes,
        limit: Duration,
    ) -> Result<Bytes, AskError> {
        let exchanged = async {
            let response = self.send(method, path, body).await?;
            whole(good(response).await?).await
        };
        timeout(limit, exchanged).await.unwrap_or(Err(AskError::Timeout(limit)))
    }

    async fn send(&mut self, method: Method, path: &str, body: Bytes) -> Result<Response<Incoming>, AskError> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, &self.host)
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(body));
        let request = request.map_err(|error| AskError::Form(error.to_string()))?;
        let Self { requests, trouble, .. } = self;
        let sent = async {
            requests.ready().await?;
            requests.send_request(request).await
        };
        let sent = tokio::select! {
            sent = sent => sent,
            text = trouble_text(trouble) => return Err(AskError::Unreachable(text)),
        };
        match sent {
            Ok(response) => Ok(response),
            Err(error) => {
                // The stream may end a moment before it is told why.
                let told = timeout(TROUBLE_DELAY, trouble_text(trouble)).await;
                Err(told.map_or(AskError::Connection(error), AskError::Unreachable))
            }
        }
    }
}

/// What the pod's side says is wrong with the stream; never, if it says nothing.
async fn trouble_text(trouble: &mut Option<oneshot::Receiver<Option<String>>>) -> String {
    if let Some(receiver) = trouble {
        let told = receiver.await;
        *trouble = None;
        if let Ok(Some(text)) = told {
            return text;
        }
    }
    std::future::pending().await
}

/// Keeps the forwarding alive for as long as its stream is, and tells what went wrong in the pod.
fn watch(mut forward: Portforwarder, port: u16) -> oneshot::Receiver<Option<String>> {
    let error = forward.take_error(port).expect("this port was asked for, and nobody took it");
    let (tell, told) = oneshot::channel();
    tokio::spawn(async move {
        // Nobody may be there to hear it.
        let _ = tell.send(error.await);
        let _ = forward.join().await;
    });
    told
}

fn refused(error: &kube::Error) -> AskError {
    match error {
        kube::Error::Api(status) if status.code == 403 => AskError::Forbidden,
        kube::Error::Api(status) if status.code == 404 => AskError::Unreachable("the pod is gone".to_owned()),
        other => AskError::Unreachable(told(other)),
    }
}

async fn good(response: Response<Incoming>) -> Result<Response<Incoming>, AskError> {
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let text = whole(response).await.unwrap_or_default();
    let text: String = String::from_utf8_lossy(&text).trim().chars().take(200).collect();
    Err(AskError::Status { status, text })
}

async fn whole(response: Response<Incoming>) -> Result<Bytes, AskError> {
    let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
    Ok(body.map_err(|error| AskError::Form(error.to_string()))?.to_bytes())
}

fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, AskError> {
    serde_json::from_slice(body).map_err(|error| AskError::Form(error.to_string()))
}

/// Parts the answers from those that did not come.
pub fn sorted<T>(answers: Vec<Answer<T>>) -> (Vec<(PodRef, T)>, Vec<Silent>) {
    let (mut came, mut silent) = (Vec::new(), Vec::new());
    for (pod, answer) in answers {
        match answer {
            Ok(answer) => came.push((pod, answer)),
            Err(error) => silent.push(Silent { pod, error: error.to_string() }),
        }
    }
    (came, silent)
}

/// A path with a query, in which each value is written so that it stays one.
pub fn query<'a>(path: &str, fields: impl IntoIterator<Item = (&'a str, Option<String>)>) -> String {
    let mut whole = path.to_owned();
    for (name, value) in fields {
        let Some(value) = value else { continue };
        whole.push(if whole.contains('?') { '&' } else { '?' });
        whole.push_str(name);
        whole.push('=');
        whole.push_str(&escaped(&value));
    }
    whole
}

/// With `%` for what has a meaning in URLs.
pub fn escaped(text: &str) -> String {
    text.bytes().fold(String::new(), |mut whole, byte| {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => whole.push(char::from(byte)),
            _ => whole.push_str(&format!("%{byte:02X}")),
        }
        whole
    })
}

/// With the names of the pod it is from; what is no object is left alone.
pub fn with_pod(pod: &PodRef, mut value: Value) -> Value {
    if let Value::Object(fields) = &mut value {
        fields.insert("namespace".to_owned(), pod.namespace.clone().into());
        fields.insert("pod".to_owned(), pod.name.clone().into());
    }
    value
}

impl fmt::Display for Silent {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}: {}", self.pod, self.error)
    }
}

/// A line that says how many have answered, on a terminal and only when it takes long.
struct Progress {
    done: usize,
    all: usize,
    begun: std::time::Instant,
    shows: bool,
    has_shown: bool,
}

impl Progress {
    fn new(all: usize, shows: bool) -> Self {
        Self { done: 0, all, begun: std::time::Instant::now(), shows, has_shown: false }
    }

    fn one_more(&mut self) {
        self.done += 1;
        if self.shows && self.begun.elapsed() >= PROGRESS_AFTER {
            self.has_shown = true;
            // A terminal that is gone is no reason to stop.
            let _ = write!(std::io::stderr(), "\r\x1b[Kasked {} of {} sidecars", self.done, self.all);
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.has_shown {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_value_stays_one_value() {
        let path =
            query("/sessions", [("call_id", Some("a b&c=d@e/f%".to_owned())), ("peer", None), ("x", Some("1".into()))]);
        assert_eq!(path, "/sessions?call_id=a%20b%26c%3Dd%40e%2Ff%25&x=1");
    }

    #[test]
    fn an_answer_names_its_pod() {
        let pod = PodRef { namespace: "voice".to_owned(), name: "pbx-0".to_owned() };
        let answer = with_pod(&pod, json!({ "id": "0-7" }));
        assert_eq!(answer, json!({ "id": "0-7", "namespace": "voice", "pod": "pbx-0" }));
    }

    #[test]
    fn those_that_did_not_answer_are_named() {
        let pod = |name: &str| PodRef { namespace: "voice".to_owned(), name: name.to_owned() };
        let timed_out = AskError::Timeout(Duration::from_secs(3));
        let (came, silent) = sorted(vec![(pod("a"), Ok(1)), (pod("b"), Err(timed_out))]);
        assert_eq!(came, [(pod("a"), 1)]);
        assert_eq!(silent[0].to_string(), "voice/b: no answer within 3 s");
    }
}
