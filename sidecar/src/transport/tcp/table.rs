//! Which connections there are, and what waits to be written to each.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sipwarden_session_timer::Flow;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::Notify;
use tokio::time::timeout;

/// Bytes that may wait for one peer: a BYE for each of 20,000 calls of a trunk fits.
pub(super) const MAX_QUEUED_LEN: usize = 16 << 20;
/// Bytes that may wait for a peer while more is read from it: who asks and does not read is not listened to.
const MAX_QUEUED_WHILE_READING: usize = 256 << 10;
/// Room a connection keeps after a burst.
const KEPT_LEN: usize = 4 << 10;

pub(super) struct Table {
    budget: Arc<Budget>,
    by_id: HashMap<u32, Arc<Connection>>,
    by_peer: HashMap<(u16, SocketAddr), u32>,
    last_id: u32,
    pub(super) closing: bool,
}

pub(super) struct Connection {
    /// With the connection's own id.
    pub(super) flow: Flow,
    queue: Mutex<Queue>,
    changed: Notify,
    written: Notify,
    budget: Arc<Budget>,
}

#[derive(Default)]
struct Queue {
    bytes: Vec<u8>,
    /// Bytes that left `bytes` and are being written.
    writing: usize,
    closing: bool,
}

impl Queue {
    fn len(&self) -> usize {
        self.bytes.len() + self.writing
    }
}

/// Bytes that may wait for all peers together.
struct Budget {
    most: usize,
    used: AtomicUsize,
}

impl Budget {
    /// False where there is not so much left.
    fn take(&self, len: usize) -> bool {
        let more = |used: usize| used.checked_add(len).filter(|used| *used <= self.most);
        self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }

    fn give_back(&self, len: usize) {
        self.used.fetch_sub(len, Ordering::Relaxed);
    }
}

impl Table {
    /// No connections yet, for all of which together no more than `max_queued` bytes may wait.
    pub(super) fn new(max_queued: usize) -> Table {
        let budget = Arc::new(Budget { most: max_queued, used: AtomicUsize::new(0) });
        Table { budget, by_id: HashMap::new(), by_peer: HashMap::new(), last_id: 0, closing: false }
    }

    pub(super) fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Bytes that wait.
    #[cfg(test)]
    pub(super) fn queued(&self) -> usize {
        self.budget.used.load(Ordering::Relaxed)
    }

    /// The connection that `flow` names, else one with its peer.
    pub(super) fn find(&self, flow: Flow) -> Option<Arc<Connection>> {
        let by_peer = || self.by_id.get(self.by_peer.get(&(flow.endpoint, flow.peer))?);
        self.by_id.get(&flow.connection).or_else(by_peer).cloned()
    }

    pub(super) fn open(&mut self, endpoint: u16, peer: SocketAddr) -> Arc<Connection> {
        let id = self.free_id();
        let flow = Flow { endpoint, connection: id, peer };
        let connection = Arc::new(Connection {
            flow,
            queue: Mutex::default(),
            changed: Notify::new(),
            written: Notify::new(),
            budget: self.budget.clone(),
        });
        self.by_id.insert(id, connection.clone());
        self.by_peer.insert((endpoint, peer), id);
        connection
    }

    pub(super) fn remove(&mut self, connection: &Connection) {
        let Flow { endpoint, connection: id, peer } = connection.flow;
        self.by_id.remove(&id);
        if self.by_peer.get(&(endpoint, peer)) == Some(&id) {
            self.by_peer.remove(&(endpoint, peer));
        }
    }

    /// Opens nothing more, and every connection ends when it has written what it has.
    pub(super) fn close(&mut self) {
        self.closing = true;
        for connection in self.by_id.values() {
            connection.queue().closing = true;
            connection.changed.notify_one();
        }
    }

    /// Never 0, which means no connection.
    fn free_id(&mut self) -> u32 {
        loop {
            self.last_id = self.last_id.wrapping_add(1);
            if self.last_id != 0 && !self.by_id.contains_key(&self.last_id) {
                return self.last_id;
            }
        }
    }
}

impl Connection {
    /// Queues bytes; false when there is no room for them.
    pub(super) fn send(&self, bytes: &[u8]) -> bool {
        let mut queue = self.queue();
        if queue.len() + bytes.len() > MAX_QUEUED_LEN || !self.budget.take(bytes.len()) {
            return false;
        }
        queue.bytes.extend_from_slice(bytes);
        drop(queue);
        self.changed.notify_one();
        true
    }

    /// Waits until the peer has read enough of what is for it.
    pub(super) async fn is_read(&self) {
        while self.queue().len() > MAX_QUEUED_WHILE_READING {
            self.written.notified().await;
        }
    }

    /// Writes what is queued, everything there is at once, until [`Table::close`], or until nothing could be written for
    /// as long as `stall`.
    pub(super) async fn write(&self, mut stream: impl AsyncWrite + Unpin, stall: Duration) -> io::Result<()> {
        let mut batch = Vec::new();
        loop {
            let closing = {
                let mut queue = self.queue();
                std::mem::swap(&mut queue.bytes, &mut batch);
                queue.writing = batch.len();
                queue.closing
            };
            if batch.is_empty() {
                if closing {
                    return stream.shutdown().await;
                }
                self.changed.notified().await;
            } else {
                let mut rest = &batch[..];
                while !rest.is_empty() {
                    let written = timeout(stall, stream.write(rest)).await??;
                    if written == 0 {
                        return Err(io::ErrorKind::WriteZero.into());
                    }
                    rest = &rest[written..];
                    self.queue().writing = rest.len();
                    self.budget.give_back(written);
                    self.written.notify_one();
                }
                batch.clear();
                batch.shrink_to(KEPT_LEN);
            }
        }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.budget.give_back(self.queue().len());
    }
}
