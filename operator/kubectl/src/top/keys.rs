//! Keys of the terminal, read on a thread of their own: the terminal knows no futures.

use std::time::Duration;

use ratatui::crossterm::event::{self, Event, KeyEvent, KeyEventKind};
use tokio::sync::mpsc;

/// Until a thread whose screen is gone notices it.
const LOOK_AGAIN: Duration = Duration::from_millis(200);
/// More than a person types between two drawings.
const WAITING: usize = 64;

/// Keys that are pressed; None where only the screen has to be drawn anew, as when its size changes. The thread ends with
/// the receiver.
pub(super) fn read() -> mpsc::Receiver<Option<KeyEvent>> {
    let (tell, told) = mpsc::channel(WAITING);
    std::thread::spawn(move || {
        while !tell.is_closed() {
            match event::poll(LOOK_AGAIN).and_then(|there| if there { event::read().map(Some) } else { Ok(None) }) {
                Ok(None) => {}
                Ok(Some(Event::Key(key))) if key.kind != KeyEventKind::Release => {
                    if tell.blocking_send(Some(key)).is_err() {
                        return;
                    }
                }
                Ok(Some(_)) => {
                    if tell.blocking_send(None).is_err() {
                        return;
                    }
                }
                // Without a terminal there are no keys, and the screen ends by itself.
                Err(_) => return,
            }
        }
    });
    told
}
