//! One sidecar's stream of decisions, taken up again whenever it breaks.

use std::time::Duration;

use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::Value;
use tokio::{sync::mpsc, time::sleep};

use super::Heard;
use crate::{
    scope::PodRef,
    sidecar::{AskError, Sidecars},
    wire::Decisions,
};

/// No decision is as long.
const MAX_LINE: usize = 1024 * 1024;
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(15);

/// Listens until nobody hears it any more. `filter` is empty or begins with `?`; it begins with the `last` decisions there
/// are.
pub(super) async fn forever(
    sidecars: Sidecars,
    pod: PodRef,
    filter: String,
    last: u32,
    tell: mpsc::Sender<(PodRef, Heard)>,
) {
    let mut listener = Listener { sidecars, pod, filter, tell, seen: None };
    let mut pause = FIRST_PAUSE;
    let mut first = Some(last);
    loop {
        let seen = listener.seen;
        let trouble = match listener.once(first.take()).await {
            // A stream that ends without a fault was ended by the sidecar, as when it has been silent for long.
            Ok(()) => None,
            Err(error) => Some(error.to_string()),
        };
        if listener.tell.is_closed() {
            return;
        }
        if seen != listener.seen {
            pause = FIRST_PAUSE;
        }
        if let Some(trouble) = trouble
            && !listener.tell(Heard::Trouble(trouble)).await
        {
            return;
        }
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

struct Listener {
    sidecars: Sidecars,
    pod: PodRef,
    filter: String,
    tell: mpsc::Sender<(PodRef, Heard)>,
    /// The number of the newest decision known; what comes later is new.
    seen: Option<u64>,
}

impl Listener {
    async fn once(&mut self, first: Option<u32>) -> Result<(), AskError> {
        self.find_place(first).await?;
        let path =
            with(&format!("/decisions/stream{}", self.filter), &format!("since={}", self.seen.unwrap_or_default()));
        // The link keeps the connection.
        let (_link, response) = self.sidecars.open(&self.pod, &path).await?;
        self.read(response.into_body()).await
    }

    /// Where the sidecar's numbers are now. A sidecar that was started again counts from the beginning.
    async fn find_place(&mut self, first: Option<u32>) -> Result<(), AskError> {
        let newest = self.newest("", 1).await?;
        let newest = newest.last().and_then(seq).unwrap_or_default();
        match (self.seen, first) {
            (Some(seen), _) if seen <= newest => {}
            (Some(_), _) => self.seen = Some(0),
            (None, Some(last @ 1..)) => {
                let before = self.newest(&self.filter, last).await?;
                self.seen = Some(newest);
                for decision in before.into_iter().filter(|decision| seq(decision).is_none_or(|seq| seq <= newest)) {
                    self.tell(Heard::Decision(decision)).await;
                }
            }
            (None, _) => self.seen = Some(newest),
        }
        Ok(())
    }

    async fn newest(&self, filter: &str, limit: u32) -> Result<Vec<Value>, AskError> {
        let path = with(&format!("/decisions{filter}"), &format!("limit={limit}"));
        Ok(self.sidecars.get::<Decisions>(&self.pod, &path).await?.decisions)
    }

    async fn read(&mut self, mut body: Incoming) -> Result<(), AskError> {
        let mut kept = Vec::new();
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame?.into_data() else { continue };
            kept.extend_from_slice(&data);
            while let Some(end) = kept.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = kept.drain(..=end).collect();
                if !self.line(&line).await? {
                    return Ok(());
                }
            }
            if kept.len() > MAX_LINE {
                return Err(AskError::Form(format!("a line of more than {MAX_LINE} bytes")));
            }
        }
        Ok(())
    }

    /// False once nobody hears it.
    async fn line(&mut self, line: &[u8]) -> Result<bool, AskError> {
        // An empty one shows that the sidecar is there.
        if line.trim_ascii().is_empty() {
            return Ok(true);
        }
        let value: Value = serde_json::from_slice(line).map_err(|error| AskError::Form(error.to_string()))?;
        if let Some(seq) = seq(&value) {
            self.seen = Some(seq);
            return Ok(self.tell(Heard::Decision(value)).await);
        }
        match value["lost"].as_u64() {
            Some(lost) => Ok(self.tell(Heard::Lost(lost)).await),
            None => Ok(true),
        }
    }

    async fn tell(&self, heard: Heard) -> bool {
        self.tell.send((self.pod.clone(), heard)).await.is_ok()
    }
}

fn seq(decision: &Value) -> Option<u64> {
    decision["seq"].as_u64()
}

/// With one more field in its query.
fn with(path: &str, field: &str) -> String {
    format!("{path}{}{field}", if path.contains('?') { '&' } else { '?' })
}
