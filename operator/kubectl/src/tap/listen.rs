//! One sidecar's stream of decisions, taken up again whenever it breaks.

use std::{collections::HashSet, time::Duration};

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
/// Taken up again after a break; more are lost to this listener.
const MOST_MISSED: u32 = 1000;
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
        let ended = listener.once(first.unwrap_or_default()).await;
        if listener.tell.is_closed() {
            return;
        }
        if listener.seen.is_some() {
            first = None;
        }
        if seen != listener.seen {
            pause = FIRST_PAUSE;
        }
        // A stream that ends without a fault was ended by the sidecar.
        if let Err(error) = ended
            && !listener.tell(Heard::Trouble(error.to_string())).await
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
    /// The highest number known, once the sidecar has answered; what comes later is new.
    seen: Option<u64>,
}

impl Listener {
    /// Listens until the stream ends. A stream begins now, so it is opened before what was missed is asked for; what both
    /// have is told once.
    async fn once(&mut self, last: u32) -> Result<(), AskError> {
        let begins = match self.seen {
            Some(_) => None,
            None => Some(self.newest().await?),
        };
        // The link keeps the connection.
        let (_link, response) = self.sidecars.open(&self.pod, &format!("/decisions/stream{}", self.filter)).await?;
        let (since, missed) = match begins {
            Some(newest) if last == 0 => (newest, Vec::new()),
            Some(newest) => (newest, self.decisions(&self.filter, &format!("limit={last}")).await?),
            None => {
                let newest = self.newest().await?;
                // A sidecar that was started again counts from the beginning.
                let since = self.seen.filter(|seen| *seen <= newest).unwrap_or_default();
                let field = format!("since={since}&limit={MOST_MISSED}");
                (since, self.decisions(&self.filter, &field).await?)
            }
        };
        self.seen = Some(since);
        let mut told = HashSet::new();
        for decision in missed {
            told.extend(seq(&decision));
            self.seen = self.seen.max(seq(&decision));
            self.tell(Heard::Decision(decision)).await;
        }
        self.read(response.into_body(), &told).await
    }

    async fn newest(&self) -> Result<u64, AskError> {
        Ok(self.decisions("", "limit=1").await?.last().and_then(seq).unwrap_or_default())
    }

    async fn decisions(&self, filter: &str, field: &str) -> Result<Vec<Value>, AskError> {
        let path = format!("/decisions{filter}{}{field}", if filter.is_empty() { '?' } else { '&' });
        Ok(self.sidecars.get::<Decisions>(&self.pod, &path).await?.decisions)
    }

    async fn read(&mut self, mut body: Incoming, told: &HashSet<u64>) -> Result<(), AskError> {
        let mut kept = Vec::new();
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame?.into_data() else { continue };
            kept.extend_from_slice(&data);
            while let Some(end) = kept.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = kept.drain(..=end).collect();
                if !self.line(&line, told).await? {
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
    async fn line(&mut self, line: &[u8], told: &HashSet<u64>) -> Result<bool, AskError> {
        if line.trim_ascii().is_empty() {
            return Ok(true);
        }
        let value: Value = serde_json::from_slice(line).map_err(|error| AskError::Form(error.to_string()))?;
        if let Some(seq) = seq(&value) {
            // Those of different shards may come a little out of order.
            self.seen = self.seen.max(Some(seq));
            return Ok(told.contains(&seq) || self.tell(Heard::Decision(value)).await);
        }
        match value["lost"].as_u64() {
            // None lost shows that the sidecar is there.
            None | Some(0) => Ok(true),
            Some(lost) => Ok(self.tell(Heard::Lost(lost)).await),
        }
    }

    async fn tell(&self, heard: Heard) -> bool {
        self.tell.send((self.pod.clone(), heard)).await.is_ok()
    }
}

fn seq(decision: &Value) -> Option<u64> {
    decision["seq"].as_u64()
}
