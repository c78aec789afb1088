//! `sessions`: the calls of many sidecars in one list.

use std::cmp::Ordering;

use clap::ValueEnum;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    cli::{OrderArgs, SessionFilter, SessionsArgs, State},
    connection::Connection,
    outcome::{Failure, Outcome},
    output::{Cell, Format, Screen, Table, Tone, duration},
    scope::{self, PodRef},
    sidecar::{AskError, Sidecars, Silent, query, sorted, with_pod},
    wire::{Page, Session},
};

/// The most that a sidecar gives at once.
const PAGE: usize = 1000;

/// By what sessions are ordered; the smallest is first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum SortKey {
    /// Namespace and pod, then the sidecar's own order.
    #[default]
    Pod,
    /// Time since the call began.
    Age,
    /// Time until the session interval ends.
    Deadline,
    /// Time until the sidecar does something.
    Next,
    /// Session interval.
    Interval,
    /// Address of the remote side.
    Peer,
    /// Name of the policy and its rule.
    Policy,
    /// Active or Ended.
    State,
}

/// A session and the pod it is in.
#[derive(Clone, Debug)]
pub struct Found {
    /// Whose sidecar told.
    pub pod: PodRef,
    /// What is shown.
    pub session: Session,
    /// What was told.
    pub raw: Value,
}

/// All that was found.
#[derive(Debug, Default)]
pub struct Everything {
    /// Up to the limit of each sidecar.
    pub found: Vec<Found>,
    /// How many fit in all.
    pub total: usize,
    /// How many go on, whether they fit or not.
    pub active: usize,
    /// Who did not answer.
    pub silent: Vec<Silent>,
}

/// Lists sessions.
///
/// # Errors
/// The pods cannot be listed.
pub async fn sessions(
    connection: &Connection,
    args: &SessionsArgs,
    screen: &mut Screen<'_>,
) -> Result<Outcome, Failure> {
    let pods = scope::with_sidecar(connection, &args.pods).await?;
    let sidecars = Sidecars::new(connection.client.clone(), &args.pods);
    let mut everything = fetch(&sidecars, &pods, &args.filter).await;
    sort(&mut everything.found, args.order);
    match args.format.output {
        Format::Text => show(&everything, connection.namespace.is_none(), screen)?,
        format => {
            let sessions: Vec<Value> =
                everything.found.iter().map(|found| with_pod(&found.pod, found.raw.clone())).collect();
            let Everything { total, active, silent, .. } = &everything;
            let value = json!({ "sessions": sessions, "total": total, "active": active, "silent": silent });
            screen.value(&value, format)?;
        }
    }
    Ok(if everything.silent.is_empty() { Outcome::Fine } else { Outcome::Incomplete })
}

/// Asks all of `pods`.
pub async fn fetch(sidecars: &Sidecars, pods: &[PodRef], filter: &SessionFilter) -> Everything {
    let answers = sidecars
        .each(pods, |sidecars, pod| {
            let filter = filter.clone();
            async move { pages(&sidecars, &pod, &filter).await }
        })
        .await;
    let (came, silent) = sorted(answers);
    let mut everything = Everything { silent, ..Everything::default() };
    for (pod, page) in came {
        everything.total += page.total;
        everything.active += page.active;
        for raw in page.sessions {
            // One of another shape would be one of another version: what is known of it is shown.
            let session = Session::deserialize(&raw).unwrap_or_default();
            everything.found.push(Found { pod: pod.clone(), session, raw });
        }
    }
    everything
}

/// The pages of one sidecar as one.
async fn pages(sidecars: &Sidecars, pod: &PodRef, filter: &SessionFilter) -> Result<Page, AskError> {
    let limit = filter.limit as usize;
    let mut whole: Page = sidecars.get(pod, &path(filter, 0, limit.min(PAGE))).await?;
    while whole.sessions.len() < limit.min(whole.total) {
        let left = limit - whole.sessions.len();
        let more: Page = sidecars.get(pod, &path(filter, whole.sessions.len(), left.min(PAGE))).await?;
        if more.sessions.is_empty() {
            // They have ended in the meantime.
            break;
        }
        whole.sessions.extend(more.sessions);
    }
    Ok(whole)
}

fn path(filter: &SessionFilter, offset: usize, limit: usize) -> String {
    let state = filter.state.map(|state| match state {
        State::Active => "Active".to_owned(),
        State::Ended => "Ended".to_owned(),
    });
    query(
        "/sessions",
        [
            ("offset", Some(offset.to_string())),
            ("limit", Some(limit.to_string())),
            ("reveal", filter.reveal.then(|| "true".to_owned())),
            ("state", state),
            ("peer", filter.peer.clone()),
            ("policy", filter.policy.clone()),
            ("call_id", filter.call_id.clone()),
        ],
    )
}

/// Orders them; those that have no such thing are last, whichever way round.
pub fn sort(found: &mut [Found], OrderArgs { sort, reverse }: OrderArgs) {
    let way = |ordering: Ordering| if reverse { ordering.reverse() } else { ordering };
    let number = |a: Option<f64>, b: Option<f64>| match (a, b) {
        (Some(a), Some(b)) => way(a.total_cmp(&b)),
        (a, b) => b.is_some().cmp(&a.is_some()),
    };
    found.sort_by(|a, b| {
        let (x, y) = (&a.session, &b.session);
        match sort {
            SortKey::Pod => way(a.pod.cmp(&b.pod)),
            SortKey::Age => number(Some(x.age_s), Some(y.age_s)),
            SortKey::Deadline => number(x.deadline_in_s, y.deadline_in_s),
            SortKey::Next => number(x.next.as_ref().map(|next| next.in_s), y.next.as_ref().map(|next| next.in_s)),
            SortKey::Interval => number(x.interval_s.map(f64::from), y.interval_s.map(f64::from)),
            SortKey::Peer => way(x.legs.remote.flow.cmp(&y.legs.remote.flow)),
            SortKey::Policy => way((&x.policy, &x.rule).cmp(&(&y.policy, &y.rule))),
            SortKey::State => way(x.state.cmp(&y.state)),
        }
    });
}

/// The list, how many there are, and who did not answer.
///
/// # Errors
/// Nobody reads it.
pub fn show(everything: &Everything, with_namespace: bool, screen: &mut Screen<'_>) -> Result<(), Failure> {
    let Everything { found, total, active, silent } = everything;
    if !found.is_empty() {
        screen.table(&table(found, with_namespace))?;
    }
    screen.line(&format!("{} of {total} sessions, {active} active", found.len()))?;
    show_silent(silent, screen)
}

/// Who did not answer, if anybody.
///
/// # Errors
/// Nobody reads it.
pub fn show_silent(silent: &[Silent], screen: &mut Screen<'_>) -> Result<(), Failure> {
    silent.iter().try_for_each(|pod| screen.toned(&format!("no answer from {pod}"), Tone::Bad))
}

fn table(found: &[Found], with_namespace: bool) -> Table {
    let columns = [
        "NAMESPACE",
        "POD",
        "SESSION",
        "STATE",
        "DIRECTION",
        "PEER",
        "POLICY",
        "INTERVAL",
        "REFRESHER",
        "NEXT",
        "AGE",
        "CALL-ID",
    ];
    let mut table = Table::new(&columns[usize::from(!with_namespace)..]);
    for Found { pod, session, .. } in found {
        let mut cells = vec![
            Cell::from(&pod.name),
            Cell::from(&session.id),
            state(session),
            Cell::from(&session.direction),
            Cell::from(&session.legs.remote.flow),
            Cell::from(policy(session)),
            Cell::from(session.interval_s.map_or_else(|| "-".to_owned(), |seconds| duration(seconds.into()))),
            Cell::from(session.refresher.as_deref().unwrap_or("-")),
            next(session),
            Cell::from(duration(session.age_s)),
            Cell::from(&session.call_id),
        ];
        if with_namespace {
            cells.insert(0, Cell::from(&pod.namespace));
        }
        table.row(cells);
    }
    table
}

/// `Active`, or how it ended.
pub fn state(session: &Session) -> Cell {
    match session.ended.as_deref() {
        None => Cell::toned(&session.state, Tone::Good),
        Some("Bye" | "Requested") => Cell::toned(&session.state, Tone::Dim),
        Some(cause) => Cell::toned(cause, Tone::Bad),
    }
}

/// `carrier/late-phones`, and in brackets that it only observes.
pub fn policy(session: &Session) -> String {
    let rule = session.rule.as_ref().map(|rule| format!("/{rule}")).unwrap_or_default();
    let observes = if session.mode == "Observe" { " (observes)" } else { "" };
    format!("{}{rule}{observes}", session.policy)
}

/// What comes next, and when.
pub fn next(session: &Session) -> Cell {
    match (&session.next, session.ended.as_deref()) {
        (_, Some(cause)) => Cell::toned(format!("ended: {cause}"), Tone::Dim),
        (None, None) => Cell::toned("no timer", Tone::Warn),
        (Some(next), None) => {
            // Half of the interval before the deadline is where a refresh was due.
            let is_late = next.step == "Expire"
                && session.interval_s.is_some_and(|interval| next.in_s < f64::from(interval) / 4.0);
            let tone = if is_late { Tone::Warn } else { Tone::Plain };
            Cell::toned(format!("{} in {}", next.step, duration(next.in_s)), tone)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(pod: &str, raw: Value) -> Found {
        let pod = PodRef { namespace: "voice".to_owned(), name: pod.to_owned() };
        Found { pod, session: Session::deserialize(&raw).unwrap(), raw }
    }

    fn three() -> Vec<Found> {
        let flow = |peer: &str| json!({ "remote": { "flow": peer } });
        vec![
            found(
                "b",
                json!({ "id": "0-1", "state": "Active", "interval_s": 1800, "deadline_in_s": 900.5, "age_s": 900.0,
                "policy": "carrier", "rule": "late", "mode": "Observe", "refresher": "Remote", "direction": "Inbound",
                "next": { "step": "Expire", "in_s": 868.0 }, "legs": flow("192.0.2.7:5060"), "call_id": "x\x1b[2J" }),
            ),
            found(
                "a",
                json!({ "id": "0-2", "state": "Ended", "ended": "Expired", "age_s": 95.0, "policy": "carrier",
                "mode": "Enforce", "interval_s": 90, "legs": flow("192.0.2.1:5060") }),
            ),
            found(
                "c",
                json!({ "id": "0-3", "state": "Active", "age_s": 3.0, "policy": "carrier", "mode": "Enforce",
                "interval_s": 90, "deadline_in_s": 87.0, "next": { "step": "Expire", "in_s": 20.0 },
                "legs": flow("192.0.2.9:5060") }),
            ),
        ]
    }

    fn order(sort: SortKey, reverse: bool) -> String {
        let mut found = three();
        super::sort(&mut found, OrderArgs { sort, reverse });
        found.iter().map(|found| found.pod.name.as_str()).collect()
    }

    #[test]
    fn sessions_are_ordered_by_what_is_asked_for() {
        assert_eq!(order(SortKey::Pod, false), "abc");
        assert_eq!(order(SortKey::Age, false), "cab");
        assert_eq!(order(SortKey::Age, true), "bac");
        assert_eq!(order(SortKey::Interval, false), "acb");
        assert_eq!(order(SortKey::Peer, false), "abc");
        assert_eq!(order(SortKey::Policy, false), "acb");
        assert_eq!(order(SortKey::State, true), "abc");
    }

    #[test]
    fn what_has_no_deadline_comes_last_whichever_way_round() {
        assert_eq!(order(SortKey::Deadline, false), "cba");
        assert_eq!(order(SortKey::Deadline, true), "bca");
        assert_eq!(order(SortKey::Next, false), "cba");
    }

    #[test]
    fn a_row_says_what_comes_next_and_moves_no_terminal() {
        let table = table(&three(), true);
        assert_eq!(table.header()[0], "NAMESPACE");
        let row: Vec<&str> = table.rows()[0].iter().map(|cell| cell.text.as_str()).collect();
        assert_eq!(
            row,
            [
                "voice",
                "b",
                "0-1",
                "Active",
                "Inbound",
                "192.0.2.7:5060",
                "carrier/late (observes)",
                "30m",
                "Remote",
                "Expire in 14m28s",
                "15m",
                "x\u{fffd}[2J"
            ]
        );
        assert_eq!(table.rows()[1][3], Cell::toned("Expired", Tone::Bad));
        assert_eq!(table.rows()[1][9], Cell::toned("ended: Expired", Tone::Dim));
        assert_eq!(table.rows()[2][9].tone, Tone::Warn, "its refresh is late");
    }

    #[test]
    fn filters_are_the_sidecars_own() {
        let filter =
            SessionFilter { state: Some(State::Ended), peer: Some("192.0.2.1".to_owned()), ..SessionFilter::default() };
        assert_eq!(path(&filter, 10, 5), "/sessions?offset=10&limit=5&state=Ended&peer=192.0.2.1");
    }
}
