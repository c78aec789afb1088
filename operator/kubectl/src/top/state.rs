//! What the screen shows, and what keys do to it.

use std::time::Instant;

use clap::ValueEnum;
use ratatui::{
    crossterm::event::{KeyCode, KeyEvent, KeyModifiers},
    widgets::TableState,
};

use crate::{
    cli::{OrderArgs, TopArgs},
    sessions::{Everything, Found, SortKey, sort},
};

/// Rows of a page, where the size of the screen is not known yet.
const PAGE: usize = 10;

/// What a key has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// What is shown.
    Draw,
    /// What is asked for: now, not at its time.
    AskNow,
    /// It is over.
    Quit,
}

/// Which sessions are shown, of those there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Shown {
    #[default]
    All,
    Active,
    Ended,
}

/// See the module.
pub(super) struct View {
    pub(super) everything: Everything,
    /// When the answer came; what is shown of time goes on from there.
    pub(super) at: Option<Instant>,
    /// Why there is no newer one.
    pub(super) error: Option<String>,
    pub(super) order: OrderArgs,
    pub(super) shown: Shown,
    pub(super) is_paused: bool,
    pub(super) with_namespace: bool,
    pub(super) table: TableState,
    /// Rows that fit, as last drawn.
    pub(super) page: usize,
}

impl View {
    pub(super) fn new(args: &TopArgs, with_namespace: bool) -> Self {
        Self {
            everything: Everything::default(),
            at: None,
            error: None,
            order: args.order,
            shown: Shown::All,
            is_paused: false,
            with_namespace,
            table: TableState::default(),
            page: PAGE,
        }
    }

    /// Takes an answer, unless it is looked at an older one.
    pub(super) fn update(&mut self, (at, answer): (Instant, Result<Everything, String>)) {
        if self.is_paused {
            return;
        }
        match answer {
            Ok(everything) => {
                // The row that is looked at stays the same session, wherever it is now.
                let picked = self.picked().map(|found| (found.pod.clone(), found.session.id.clone()));
                self.everything = everything;
                self.at = Some(at);
                self.error = None;
                sort(&mut self.everything.found, self.order);
                let place = picked.and_then(|(pod, id)| {
                    self.rows().iter().position(|found| found.pod == pod && found.session.id == id)
                });
                self.select(place.or_else(|| self.table.selected()).unwrap_or_default());
            }
            Err(error) => self.error = Some(error),
        }
    }

    /// Those that are shown, in their order.
    pub(super) fn rows(&self) -> Vec<&Found> {
        let fits = |found: &&Found| match self.shown {
            Shown::All => true,
            Shown::Active => found.session.ended.is_none(),
            Shown::Ended => found.session.ended.is_some(),
        };
        self.everything.found.iter().filter(fits).collect()
    }

    pub(super) fn press(&mut self, key: Option<KeyEvent>) -> Change {
        let Some(KeyEvent { code, modifiers, .. }) = key else { return Change::Draw };
        let at = self.table.selected().unwrap_or_default();
        match code {
            KeyCode::Char('c') if modifiers.contains(KeyModifiers::CONTROL) => return Change::Quit,
            KeyCode::Char('q') | KeyCode::Esc => return Change::Quit,
            KeyCode::Down | KeyCode::Char('j') => self.select(at + 1),
            KeyCode::Up | KeyCode::Char('k') => self.select(at.saturating_sub(1)),
            KeyCode::PageDown => self.select(at + self.page),
            KeyCode::PageUp => self.select(at.saturating_sub(self.page)),
            KeyCode::Home => self.select(0),
            KeyCode::End => self.select(usize::MAX),
            KeyCode::Right | KeyCode::Char('>') => self.reorder(1),
            KeyCode::Left | KeyCode::Char('<') => self.reorder(SortKey::value_variants().len() - 1),
            KeyCode::Char('r') => {
                self.order.reverse = !self.order.reverse;
                sort(&mut self.everything.found, self.order);
            }
            KeyCode::Char('a') => self.show(Shown::Active),
            KeyCode::Char('e') => self.show(Shown::Ended),
            KeyCode::Char(' ') => {
                self.is_paused = !self.is_paused;
                return if self.is_paused { Change::Draw } else { Change::AskNow };
            }
            KeyCode::Enter => return Change::AskNow,
            _ => {}
        }
        Change::Draw
    }

    fn picked(&self) -> Option<&Found> {
        self.rows().get(self.table.selected()?).copied()
    }

    fn select(&mut self, row: usize) {
        let last = self.rows().len().checked_sub(1);
        self.table.select(last.map(|last| row.min(last)));
    }

    /// By the key that many behind this one.
    fn reorder(&mut self, further: usize) {
        let keys = SortKey::value_variants();
        let at = keys.iter().position(|key| *key == self.order.sort).unwrap_or_default();
        self.order.sort = keys[(at + further) % keys.len()];
        sort(&mut self.everything.found, self.order);
    }

    /// Only these, or all again.
    fn show(&mut self, shown: Shown) {
        self.shown = if self.shown == shown { Shown::All } else { shown };
        self.select(self.table.selected().unwrap_or_default());
    }
}

#[cfg(test)]
pub(super) mod tests {
    use clap::Parser;
    use serde::Deserialize;
    use serde_json::json;

    use super::*;
    use crate::{
        cli::{Cli, Command},
        scope::PodRef,
        wire::Session,
    };

    pub(crate) fn view() -> View {
        let cli = Cli::parse_from(["kubectl-sipwarden", "top"]);
        let Command::Top(args) = cli.command else { panic!("it is top") };
        View::new(&args, false)
    }

    pub(crate) fn found(id: &str, age_s: f64, ended: Option<&str>) -> Found {
        let raw = json!({ "id": id, "call_id": format!("call-{id}"), "state": if ended.is_some() { "Ended" } else { "Active" },
            "ended": ended, "age_s": age_s, "interval_s": 1800, "deadline_in_s": 1800.0 - age_s, "refresher": "Remote",
            "policy": "carrier", "mode": "Enforce", "next": { "step": "Expire", "in_s": 1768.0 - age_s },
            "legs": { "remote": { "flow": "192.0.2.7:5060" } } });
        let pod = PodRef { namespace: "voice".to_owned(), name: "pbx-0".to_owned() };
        Found { pod, session: Session::deserialize(&raw).unwrap(), raw }
    }

    pub(crate) fn everything(found: Vec<Found>) -> Everything {
        Everything { total: found.len(), active: found.len(), found, ..Everything::default() }
    }

    fn ids(view: &View) -> Vec<&str> {
        view.rows().iter().map(|found| found.session.id.as_str()).collect()
    }

    fn press(view: &mut View, code: KeyCode) -> Change {
        view.press(Some(KeyEvent::from(code)))
    }

    #[test]
    fn the_picked_session_stays_picked_wherever_it_goes() {
        let mut view = view();
        view.update((Instant::now(), Ok(everything(vec![found("0-1", 5.0, None), found("0-2", 9.0, None)]))));
        while view.order.sort != SortKey::Age {
            press(&mut view, KeyCode::Right);
        }
        press(&mut view, KeyCode::Down);
        assert_eq!(view.picked().unwrap().session.id, "0-2");
        view.update((
            Instant::now(),
            Ok(everything(vec![found("0-3", 1.0, None), found("0-2", 9.0, None), found("0-1", 5.0, None)])),
        ));
        assert_eq!(ids(&view), ["0-3", "0-1", "0-2"]);
        assert_eq!(view.picked().unwrap().session.id, "0-2");
        press(&mut view, KeyCode::Char('r'));
        assert_eq!(ids(&view), ["0-2", "0-1", "0-3"]);
    }

    #[test]
    fn no_key_leaves_the_rows_there_are() {
        let mut view = view();
        for code in [KeyCode::Down, KeyCode::End, KeyCode::PageUp, KeyCode::Up, KeyCode::Char('e')] {
            press(&mut view, code);
            assert_eq!(view.table.selected(), None, "{code:?} without rows");
        }
        press(&mut view, KeyCode::Char('e'));
        view.update((Instant::now(), Ok(everything((0..30).map(|id| found(&format!("0-{id}"), 1.0, None)).collect()))));
        for (code, row) in
            [(KeyCode::End, 29), (KeyCode::Down, 29), (KeyCode::PageUp, 19), (KeyCode::Home, 0), (KeyCode::Up, 0)]
        {
            press(&mut view, code);
            assert_eq!(view.table.selected(), Some(row), "{code:?}");
        }
    }

    #[test]
    fn ended_and_active_ones_can_be_shown_alone() {
        let mut view = view();
        view.update((
            Instant::now(),
            Ok(everything(vec![found("0-1", 5.0, None), found("0-2", 9.0, Some("Expired"))])),
        ));
        press(&mut view, KeyCode::Char('e'));
        assert_eq!(ids(&view), ["0-2"]);
        press(&mut view, KeyCode::Char('a'));
        assert_eq!(ids(&view), ["0-1"]);
        press(&mut view, KeyCode::Char('a'));
        assert_eq!(ids(&view), ["0-1", "0-2"]);
    }

    #[test]
    fn what_is_paused_stays_and_what_fails_is_told_beside_what_was() {
        let mut view = view();
        view.update((Instant::now(), Ok(everything(vec![found("0-1", 5.0, None)]))));
        assert_eq!(press(&mut view, KeyCode::Char(' ')), Change::Draw);
        view.update((Instant::now(), Ok(everything(vec![]))));
        assert_eq!(ids(&view), ["0-1"]);
        assert_eq!(press(&mut view, KeyCode::Char(' ')), Change::AskNow);
        view.update((Instant::now(), Err("no way to the API server".to_owned())));
        assert_eq!((ids(&view), view.error.is_some()), (vec!["0-1"], true));
        assert_eq!(press(&mut view, KeyCode::Char('q')), Change::Quit);
    }
}
