//! The threads of the workers: each makes its runtime, gets the hub, works, and flushes when told to stop.

use std::net::UdpSocket;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow};
use tokio::runtime::{Builder, Handle};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::warn;

use crate::hub::{Command, Hub};
use crate::worker::Worker;

/// Messages of streams and resolved names that wait for a worker; what sends them waits when it is full.
const MAX_COMMANDS: usize = 1024;
/// What is queued gets this long to leave when the process ends.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);

/// The running threads. Dropping them tells them to stop.
pub struct Workers {
    /// The way to each worker.
    pub commands: Vec<mpsc::Sender<Command>>,
    /// The runtime of worker 0, which serves the streams.
    pub runtime: Handle,
    threads: JoinSet<anyhow::Result<()>>,
    hubs: Vec<oneshot::Sender<Arc<Hub>>>,
    stop: watch::Sender<bool>,
}

struct Thread {
    index: usize,
    sockets: Vec<(u16, UdpSocket)>,
    commands: mpsc::Receiver<Command>,
    stop: watch::Receiver<bool>,
    hub: oneshot::Receiver<Arc<Hub>>,
}

impl Workers {
    /// One thread for each set of UDP sockets; they wait for [`Self::work`].
    ///
    /// # Errors
    /// A thread has no runtime.
    pub async fn start(sockets: Vec<Vec<(u16, UdpSocket)>>) -> anyhow::Result<Workers> {
        let (stop, stopped) = watch::channel(false);
        let (mut threads, mut all_commands, mut hubs, mut runtimes) =
            (JoinSet::new(), Vec::new(), Vec::new(), Vec::new());
        for (index, sockets) in sockets.into_iter().enumerate() {
            let (sender, commands) = mpsc::channel(MAX_COMMANDS);
            let (hub_sender, hub) = oneshot::channel();
            let (runtime_sender, runtime) = oneshot::channel();
            let thread = Thread { index, sockets, commands, stop: stopped.clone(), hub };
            threads.spawn_blocking(move || thread.run(runtime_sender));
            all_commands.push(sender);
            hubs.push(hub_sender);
            runtimes.push(runtime);
        }
        let runtime = runtimes.swap_remove(0).await.context("a worker has no runtime")?;
        Ok(Workers { commands: all_commands, runtime, threads, hubs, stop })
    }

    /// Lets them work.
    ///
    /// # Errors
    /// A thread has ended already.
    pub fn work(&mut self, hub: &Arc<Hub>) -> anyhow::Result<()> {
        for sender in self.hubs.drain(..) {
            sender.send(hub.clone()).map_err(|_| anyhow!("a worker ended at once"))?;
        }
        Ok(())
    }

    /// Waits for a worker to end by itself, which none does without an error.
    pub async fn failed(&mut self) -> anyhow::Error {
        match self.threads.join_next().await {
            Some(Ok(Err(error))) => error.context("a worker failed"),
            ended => anyhow!("a worker ended by itself: {ended:?}"),
        }
    }

    /// Tells them to stop and waits until they have sent what they had.
    ///
    /// # Errors
    /// A worker panicked or failed.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        self.stop.send_replace(true);
        while let Some(ended) = self.threads.join_next().await {
            ended.context("a worker panicked")??;
        }
        Ok(())
    }
}

impl Thread {
    fn run(self, started: oneshot::Sender<Handle>) -> anyhow::Result<()> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        // Only the first worker's runtime is asked for.
        let _ = started.send(runtime.handle().clone());
        runtime.block_on(async {
            // Without a hub the process ended before it began to work.
            let Ok(hub) = self.hub.await else { return Ok(()) };
            let mut worker = Worker::new(self.index, hub.clone(), self.sockets, self.commands, self.stop)?;
            worker.run().await;
            let flushing = async {
                worker.flush().await;
                if self.index == 0 {
                    hub.streams.close().await;
                }
            };
            if timeout(FLUSH_TIMEOUT, flushing).await.is_err() {
                warn!("not everything queued could be sent");
            }
            Ok(())
        })
    }
}
