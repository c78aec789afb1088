//! `check`: whether a cluster can take sipwarden, and whether it does what it should.
//!
//! Each finding names a section of the documentation ([`catalogue`]). What the user's rights do not show is told as not
//! known, and is no failure.

pub mod catalogue;
mod cluster;
mod fleet;
mod install;
mod metrics;

use serde::Serialize;
use serde_json::json;

use crate::{
    cli::CheckArgs,
    connection::Connection,
    outcome::{Failure, Outcome},
    output::{Format, Screen, Tone},
    sidecar::Sidecars,
};
use catalogue::Check;

/// How something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Level {
    /// As it should be.
    Ok,
    /// The user may not see it.
    Unknown,
    /// It works, and somebody should look at it.
    Warn,
    /// It does not work.
    Fail,
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    check: Check,
    level: Level,
    text: String,
}

/// What all checks look at.
struct Looker<'a> {
    connection: &'a Connection,
    sidecars: Sidecars,
    args: &'a CheckArgs,
}

impl Item {
    fn ok(check: Check, text: impl Into<String>) -> Self {
        Self { check, level: Level::Ok, text: text.into() }
    }

    fn unknown(check: Check, text: impl Into<String>) -> Self {
        Self { check, level: Level::Unknown, text: text.into() }
    }

    fn warn(check: Check, text: impl Into<String>) -> Self {
        Self { check, level: Level::Warn, text: text.into() }
    }

    fn fail(check: Check, text: impl Into<String>) -> Self {
        Self { check, level: Level::Fail, text: text.into() }
    }

    /// What the API server does not let the user see is not known; what it does not have is said by the caller.
    fn of_error(check: Check, what: &str, error: &kube::Error) -> Self {
        Self::unknown(check, format!("{what}: {}", crate::outcome::told(error)))
    }
}

/// Checks all there is, or only what has to be there before sipwarden is installed.
///
/// # Errors
/// The API server does not answer at all.
pub async fn check(connection: &Connection, args: &CheckArgs, screen: &mut Screen<'_>) -> Result<Outcome, Failure> {
    let sidecars = Sidecars::new(connection.client.clone(), &args.pods);
    let looker = Looker { connection, sidecars, args };
    let mut items = looker.cluster().await?;
    if !args.pre {
        items.extend(looker.install().await);
        items.extend(looker.fleet().await);
    }
    match args.format.output {
        Format::Text => show(&items, screen)?,
        format => {
            let shown: Vec<_> = items
                .iter()
                .map(|item| {
                    let Item { check, level, text } = item;
                    json!({ "check": check.id(), "level": level, "text": text, "docs": check.link() })
                })
                .collect();
            screen.value(&json!({ "ok": is_good(&items), "items": shown }), format)?;
        }
    }
    Ok(if is_good(&items) { Outcome::Fine } else { Outcome::Findings })
}

fn is_good(items: &[Item]) -> bool {
    items.iter().all(|item| item.level < Level::Fail)
}

fn show(items: &[Item], screen: &mut Screen<'_>) -> Result<(), Failure> {
    for Item { check, level, text } in items {
        let (mark, tone) = match level {
            Level::Ok => ("ok     ", Tone::Good),
            Level::Unknown => ("unknown", Tone::Dim),
            Level::Warn => ("warning", Tone::Warn),
            Level::Fail => ("FAILED ", Tone::Bad),
        };
        screen.toned(&format!("{mark}  {}: {text}", check.id()), tone)?;
        if *level > Level::Ok {
            screen.toned(&format!("         {}", check.link()), Tone::Dim)?;
        }
    }
    let count = |level| items.iter().filter(|item| item.level == level).count();
    let (failed, warned, unknown) = (count(Level::Fail), count(Level::Warn), count(Level::Unknown));
    screen.line(&format!("{} checks: {failed} failed, {warned} warnings, {unknown} not known", items.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_fails_nothing_and_every_finding_says_where_to_read() {
        let items = [
            Item::ok(Check::ApiServer, "fine"),
            Item::unknown(Check::Operator, "may not be seen"),
            Item::warn(Check::Clock, "off by 3 s"),
        ];
        assert!(is_good(&items));
        assert!(!is_good(&[Item::fail(Check::Crds, "missing")]));
        let mut out = Vec::new();
        show(&items, &mut Screen::plain(&mut out)).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(text.contains("docs/checks.md#clock") && !text.contains("docs/checks.md#api-server"), "{text}");
        assert!(text.ends_with("3 checks: 0 failed, 1 warnings, 1 not known\n"), "{text}");
    }
}
