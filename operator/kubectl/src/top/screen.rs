//! The drawing of `top`: totals, a row for each session with how far its interval has passed, keys.

use std::collections::BTreeMap;

use clap::ValueEnum;
use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    style::{Color, Modifier, Style},
    text::{Line, Span},
    widgets::{Cell as TableCell, Paragraph, Row, Table},
};

use super::state::{Shown, View};
use crate::{
    output::{Cell, Tone, clean, duration},
    sessions::{Found, next, policy, state},
    wire::Session,
};

const BAR: usize = 12;
const KEYS: &str = "q quit  ←→ order  r reverse  a active  e ended  space pause  ↑↓ move";

pub(super) fn draw(frame: &mut Frame, view: &mut View) {
    let [totals, table, problems, keys] = Layout::vertical([
        Constraint::Length(2),
        Constraint::Min(3),
        Constraint::Length(u16::from(problem(view).is_some())),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    frame.render_widget(Paragraph::new(totals_text(view)), totals);
    draw_table(frame, table, view);
    if let Some(problem) = problem(view) {
        frame.render_widget(Paragraph::new(problem).style(Style::new().fg(Color::Red)), problems);
    }
    frame.render_widget(Paragraph::new(KEYS).style(Style::new().add_modifier(Modifier::DIM)), keys);
}

fn totals_text(view: &View) -> Vec<Line<'static>> {
    let everything = &view.everything;
    let mut refreshers: BTreeMap<&str, usize> = BTreeMap::new();
    for found in everything.found.iter().filter(|found| found.session.ended.is_none()) {
        *refreshers.entry(found.session.refresher.as_deref().unwrap_or("nobody")).or_default() += 1;
    }
    let refreshers: Vec<String> = refreshers.iter().map(|(who, count)| format!("{who} {count}")).collect();
    let ended = everything.found.iter().filter(|found| found.session.ended.is_some()).count();
    let age = view.at.map_or_else(|| "asking …".to_owned(), |at| format!("as of {} s ago", at.elapsed().as_secs()));
    let paused = if view.is_paused { "  PAUSED" } else { "" };
    let first = format!(
        "{} active, {ended} ended, {} listed of {}  {age}{paused}",
        everything.active,
        everything.found.len(),
        everything.total
    );
    let order = view.order.sort.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default();
    let reversed = if view.order.reverse { ", reversed" } else { "" };
    let shown = match view.shown {
        Shown::All => "",
        Shown::Active => ", active only",
        Shown::Ended => ", ended only",
    };
    let second = format!("refreshed by: {}  ordered by {order}{reversed}{shown}", refreshers.join(", "));
    vec![Line::from(first).style(Style::new().add_modifier(Modifier::BOLD)), Line::from(second)]
}

fn problem(view: &View) -> Option<String> {
    if let Some(error) = &view.error {
        return Some(format!("not asked anew: {}", clean(error)));
    }
    let silent = &view.everything.silent;
    let first = silent.first()?;
    let more = if silent.len() > 1 { format!(", and {} more", silent.len() - 1) } else { String::new() };
    Some(format!("no answer from {}{more}", clean(&first.to_string())))
}

fn draw_table(frame: &mut Frame, area: Rect, view: &mut View) {
    let since_s = view.at.filter(|_| !view.is_paused).map_or(0.0, |at| at.elapsed().as_secs_f64());
    let header =
        ["POD", "SESSION", "STATE", "PEER", "POLICY", "INTERVAL", "PASSED", "REFRESHER", "NEXT", "AGE", "CALL-ID"];
    let widths = [20, 8, 9, 22, 18, 8, 18, 9, 18, 8].map(Constraint::Max).into_iter().chain([Constraint::Min(10)]);
    let with_namespace = view.with_namespace;
    let rows: Vec<Row> = view.rows().iter().map(|found| row(found, with_namespace, since_s)).collect();
    let table = Table::new(rows, widths)
        .header(Row::new(header).style(Style::new().add_modifier(Modifier::BOLD)))
        .row_highlight_style(Style::new().add_modifier(Modifier::REVERSED));
    // The header takes a line.
    view.page = usize::from(area.height.saturating_sub(1)).max(1);
    frame.render_stateful_widget(table, area, &mut view.table);
}

fn row(found: &Found, with_namespace: bool, since_s: f64) -> Row<'static> {
    let session = &advanced(&found.session, since_s);
    let pod = if with_namespace { found.pod.to_string() } else { found.pod.name.clone() };
    let interval = session.interval_s.map_or_else(|| "-".to_owned(), |seconds| duration(seconds.into()));
    Row::new([
        cell(&Cell::from(pod)),
        cell(&Cell::from(&session.id)),
        cell(&state(session)),
        cell(&Cell::from(&session.legs.remote.flow)),
        cell(&Cell::from(policy(session))),
        cell(&Cell::from(interval)),
        TableCell::from(passed(session)),
        cell(&Cell::from(session.refresher.as_deref().unwrap_or("-"))),
        cell(&next(session)),
        cell(&Cell::from(duration(session.age_s))),
        cell(&Cell::from(&session.call_id)),
    ])
}

/// As it is so many seconds after the answer.
fn advanced(session: &Session, since_s: f64) -> Session {
    let mut session = session.clone();
    if session.ended.is_none() {
        session.age_s += since_s;
        session.deadline_in_s = session.deadline_in_s.map(|deadline_s| (deadline_s - since_s).max(0.0));
        if let Some(next) = &mut session.next {
            next.in_s = (next.in_s - since_s).max(0.0);
        }
    }
    session
}

/// How much of the session interval has passed. At half of it a refresh is due.
fn passed(session: &Session) -> Line<'static> {
    let (Some(interval), Some(left), None) = (session.interval_s, session.deadline_in_s, &session.ended) else {
        return Line::from("");
    };
    let part = (1.0 - left / f64::from(interval.max(1))).clamp(0.0, 1.0);
    let full = (part * BAR as f64).round() as usize;
    let colour = match part {
        ..0.55 => Color::Green,
        ..0.8 => Color::Yellow,
        _ => Color::Red,
    };
    Line::from(vec![
        Span::styled("█".repeat(full), Style::new().fg(colour)),
        Span::styled("░".repeat(BAR - full), Style::new().add_modifier(Modifier::DIM)),
        Span::raw(format!(" {:.0}%", part * 100.0)),
    ])
}

fn cell(cell: &Cell) -> TableCell<'static> {
    let style = match cell.tone {
        Tone::Plain => Style::new(),
        Tone::Good => Style::new().fg(Color::Green),
        Tone::Warn => Style::new().fg(Color::Yellow),
        Tone::Bad => Style::new().fg(Color::Red),
        Tone::Dim => Style::new().add_modifier(Modifier::DIM),
    };
    TableCell::from(cell.text.clone()).style(style)
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use ratatui::{Terminal, backend::TestBackend};

    use super::*;
    use crate::top::state::tests::{everything, found, view};

    fn drawn(view: &mut View, width: u16, height: u16) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(frame, view)).unwrap();
        terminal.backend().to_string()
    }

    #[test]
    fn each_session_has_a_row_and_the_totals_stand_above() {
        let mut view = view();
        view.update((
            Instant::now(),
            Ok(everything(vec![found("0-1", 450.0, None), found("0-2", 9.0, Some("Expired"))])),
        ));
        let text = drawn(&mut view, 180, 10);
        for part in [
            "2 active, 1 ended",
            "refreshed by: Remote 1",
            "ordered by pod",
            "███░░░░░░░░░ 25%",
            "Expire in 21m58s",
            "ended: Expired",
            "q quit",
        ] {
            assert!(text.contains(part), "{part} in\n{text}");
        }
    }

    #[test]
    fn a_screen_of_any_size_is_drawn() {
        let mut view = view();
        view.update((Instant::now(), Ok(everything((0..50).map(|id| found(&format!("0-{id}"), 1.0, None)).collect()))));
        for (width, height) in [(1, 1), (5, 3), (40, 4), (80, 24), (300, 100)] {
            drawn(&mut view, width, height);
        }
        assert_eq!(view.page, 96, "what is left of 100 lines");
    }

    #[test]
    fn what_did_not_answer_and_what_failed_is_told() {
        let mut view = view();
        view.update((Instant::now(), Err("cannot list pods".to_owned())));
        assert!(drawn(&mut view, 100, 10).contains("not asked anew: cannot list pods"));
    }

    #[test]
    fn time_goes_on_between_two_answers() {
        let later = advanced(&found("0-1", 450.0, None).session, 50.0);
        assert_eq!((later.age_s, later.deadline_in_s), (500.0, Some(1300.0)));
        let ended = advanced(&found("0-1", 450.0, Some("Bye")).session, 50.0);
        assert_eq!(ended.age_s, 450.0);
    }
}
