//! What the demo shows: one line for each thing that happens, with session time.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use sipwarden_session_timer::Event;

use crate::report::Record;

/// Writes lines. Cheap to clone.
#[derive(Clone)]
pub(super) struct Console {
    start: Instant,
    clock_speed: u32,
    /// Headers of the last packet, to mark what differs when it comes out on the other side.
    last_sent: Arc<Mutex<Vec<String>>>,
}

impl Console {
    /// Session time begins now.
    pub(super) fn new(clock_speed: u32) -> Console {
        Console { start: Instant::now(), clock_speed, last_sent: Arc::default() }
    }

    /// What comes next, for people.
    pub(super) fn heading(&self, text: &str) {
        println!("\n{text}");
    }

    /// A packet that `who` sent (`-->`) or got (`<--`), with the headers worth a look. Those the sidecar put in are
    /// marked with `+`.
    pub(super) fn packet(&self, who: &str, arrow: &str, start: &str, headers: &[String]) {
        println!("{} {who:<7} {arrow} {start}", self.time());
        let mut last_sent = self.last_sent.lock().unwrap_or_else(PoisonError::into_inner);
        for header in headers {
            let added = arrow == "<--" && !last_sent.contains(header);
            println!("{:>26}{} {header}", "", if added { "+" } else { " " });
        }
        if arrow == "-->" {
            *last_sent = headers.to_vec();
        }
    }

    /// What the sidecar tells.
    pub(super) fn event(&self, event: &Event) {
        println!("{} sidecar  *  {}", self.time(), Record::from(event));
    }

    /// Something that is no packet.
    pub(super) fn note(&self, text: &str) {
        println!("{} {text}", self.time());
    }

    /// `mm:ss` of session time.
    fn time(&self) -> String {
        let seconds = self.start.elapsed().as_millis() * u128::from(self.clock_speed) / 1000;
        format!("{:>4}:{:02}", seconds / 60, seconds % 60)
    }
}
