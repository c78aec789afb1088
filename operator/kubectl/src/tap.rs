//! `tap`: the decisions of many sidecars as they make them, in one stream.
//!
//! Each sidecar is listened to on a stream of its own. One that breaks is taken up again where it stopped; pods that come
//! are joined, pods that go are left. A reader that is too slow makes the sidecar skip, which is told.

mod listen;

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use serde::Deserialize;
use serde_json::{Value, json};
use tokio::{sync::mpsc, task::AbortHandle};

use crate::{
    cli::TapArgs,
    connection::Connection,
    explain::{because, tone},
    outcome::{Failure, Outcome},
    output::{Format, Screen, Tone},
    scope::{self, PodRef},
    sidecar::{Sidecars, query, with_pod},
    wire::Decision,
};

/// Streams through one API server; beyond it pods have to be chosen.
const MOST_PODS: usize = 256;
/// Decisions that wait to be shown. When they are this many, sidecars are no longer read, and skip.
const WAITING: usize = 1024;
/// Between two looks for pods that came or went.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// What comes out of a stream.
#[derive(Debug, PartialEq)]
pub enum Heard {
    /// The sidecar decided something.
    Decision(Value),
    /// It skipped so many.
    Lost(u64),
    /// The stream broke, or cannot be had; it is tried again.
    Trouble(String),
}

/// Shows decisions until it has shown as many, or for as long, as was asked for.
///
/// # Errors
/// The pods cannot be listed, or are too many.
pub async fn tap(connection: &Connection, args: &TapArgs, screen: &mut Screen<'_>) -> Result<Outcome, Failure> {
    if args.format.output == Format::Yaml {
        return Err(Failure::Usage("a stream has the form text or json".to_owned()));
    }
    let sidecars = Sidecars::new(connection.client.clone(), &args.pods).quiet();
    let (tell, mut heard) = mpsc::channel(WAITING);
    let mut streams = Streams { sidecars, args, tell, running: HashMap::new() };
    streams.follow(scope::with_sidecar(connection, &args.pods).await?)?;
    let end = args.duration_s.map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let mut look = tokio::time::interval(LOOK_AGAIN);
    look.tick().await;
    let (mut shown, mut troubled) = (0, false);
    while args.count.is_none_or(|count| shown < count) {
        tokio::select! {
            Some((pod, heard)) = heard.recv() => {
                shown += u64::from(matches!(heard, Heard::Decision(_)));
                troubled |= matches!(heard, Heard::Trouble(_));
                show(&pod, heard, args, screen)?;
            }
            () = ended(end) => break,
            // Those that are there are heard on, whatever the API server says.
            _ = look.tick() => if let Ok(pods) = scope::with_sidecar(connection, &args.pods).await {
                streams.follow(pods)?;
            }
        }
    }
    Ok(if troubled { Outcome::Incomplete } else { Outcome::Fine })
}

async fn ended(end: Option<Instant>) {
    match end {
        Some(end) => tokio::time::sleep_until(end.into()).await,
        None => std::future::pending().await,
    }
}

/// The streams that are open.
struct Streams<'a> {
    sidecars: Sidecars,
    args: &'a TapArgs,
    tell: mpsc::Sender<(PodRef, Heard)>,
    running: HashMap<PodRef, AbortHandle>,
}

impl Streams<'_> {
    fn follow(&mut self, pods: Vec<PodRef>) -> Result<(), Failure> {
        if pods.len() > MOST_PODS {
            let text = format!("{} pods are meant, of at most {MOST_PODS}; choose some by --selector", pods.len());
            return Err(Failure::Usage(text));
        }
        self.running.retain(|pod, stream| {
            let stays = pods.contains(pod);
            if !stays {
                stream.abort();
            }
            stays
        });
        for pod in pods {
            if !self.running.contains_key(&pod) {
                let filter = filter(self.args);
                let listening =
                    listen::forever(self.sidecars.clone(), pod.clone(), filter, self.args.last, self.tell.clone());
                self.running.insert(pod, tokio::spawn(listening).abort_handle());
            }
        }
        Ok(())
    }
}

/// The query that the sidecar filters by itself.
fn filter(args: &TapArgs) -> String {
    query(
        "",
        [
            ("kind", args.kind.clone()),
            ("rule", args.rule.clone()),
            ("side", args.side.map(|side| side.as_str().to_owned())),
            ("peer", args.peer.clone()),
            ("call_id", args.call_id.clone()),
            ("session", args.session.clone()),
            ("reveal", args.reveal.then(|| "true".to_owned())),
        ],
    )
}

fn show(pod: &PodRef, heard: Heard, args: &TapArgs, screen: &mut Screen<'_>) -> Result<(), Failure> {
    if args.format.output == Format::Json {
        let value = match heard {
            Heard::Decision(value) => with_pod(pod, value),
            Heard::Lost(lost) => with_pod(pod, json!({ "lost": lost })),
            Heard::Trouble(error) => with_pod(pod, json!({ "error": error })),
        };
        screen.raw(format!("{value}\n").as_bytes())?;
        return screen.flush();
    }
    match heard {
        Heard::Decision(value) => {
            let decision = Decision::deserialize(value).unwrap_or_default();
            let of = decision.session.as_deref().unwrap_or("-");
            let peer = decision.peer.as_deref().unwrap_or("-");
            let tone = if decision.observed { Tone::Dim } else { tone(&decision.kind) };
            let because = because(&decision);
            let because = if because.is_empty() { because } else { format!("  ({because})") };
            screen.toned(&format!("{} {pod} {of} {peer} {}{because}", decision.at, decision.text), tone)?;
        }
        Heard::Lost(lost) => screen.toned(&format!("{pod}: {lost} decisions were skipped"), Tone::Bad)?,
        Heard::Trouble(error) => screen.toned(&format!("{pod}: {error}; trying again"), Tone::Bad)?,
    }
    screen.flush()
}
