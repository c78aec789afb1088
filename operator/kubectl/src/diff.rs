//! `diff`: what a policy would have made of the requests of the last hour, from what the sidecars recorded.
//!
//! The file is compiled as the operator would compile it, held to the bounds of ClusterSessionPolicies, and given to the
//! sidecars of the pods for which it would be in force. They judge again what they have seen; nothing changes.

mod policy;
mod sums;

use hyper::body::Bytes;
use serde_json::{Value, json};

use crate::{
    cli::DiffArgs,
    connection::Connection,
    explain::because,
    outcome::{Failure, Outcome},
    output::{Cell, Format, Screen, Table, Tone},
    sessions::show_silent,
    sidecar::{Answer, Sidecars, Silent, sorted},
    wire::{Decision, WhatIf},
};
use policy::Proposal;
use sums::Sums;

/// Tells what would change.
///
/// # Errors
/// The file is wrong, the pods cannot be listed, or the policy would be in force for none.
pub async fn diff(connection: &Connection, args: &DiffArgs, screen: &mut Screen<'_>) -> Result<Outcome, Failure> {
    let proposal = Proposal::read(connection, args).await?;
    let sidecars = Sidecars::new(connection.client.clone(), &args.pods);
    let body = Bytes::from(serde_json::to_vec(&proposal.config).expect("a config has string keys only"));
    let answers: Vec<Answer<WhatIf>> = sidecars
        .each(&proposal.pods, |sidecars, pod| {
            let body = body.clone();
            async move { sidecars.post(&pod, "/what-if", body).await }
        })
        .await;
    let (came, silent) = sorted(answers);
    let sums = Sums::of(came);
    match args.format.output {
        Format::Text => show(&proposal, &sums, &silent, screen)?,
        format => screen.value(&value(&proposal, &sums, &silent), format)?,
    }
    let found = if sums.changed > 0 { Outcome::Findings } else { Outcome::Fine };
    Ok(if silent.is_empty() { found } else { Outcome::Incomplete })
}

fn value(proposal: &Proposal, sums: &Sums, silent: &[Silent]) -> Value {
    json!({
        "policy": proposal.config.policy, "namespace": proposal.namespace, "hash": proposal.config.hash,
        "pods": proposal.pods, "notes": proposal.notes, "sums": sums, "silent": silent,
    })
}

fn show(proposal: &Proposal, sums: &Sums, silent: &[Silent], screen: &mut Screen<'_>) -> Result<(), Failure> {
    let Proposal { namespace, config, pods, notes } = proposal;
    let count = pods.len() - silent.len();
    screen.line(&format!(
        "policy {} in namespace {namespace}, {count} sidecars: of {} requests since {}, {} would be decided otherwise",
        config.policy,
        sums.judged,
        sums.since.as_deref().unwrap_or("their start"),
        sums.changed
    ))?;
    for note in notes {
        screen.toned(note, Tone::Warn)?;
    }
    if sums.truncated {
        screen.toned("sidecars keep only so many requests; there were more", Tone::Warn)?;
    }
    if !sums.by_kind.is_empty() {
        screen.line("")?;
        screen.table(&table(sums))?;
    }
    for example in &sums.examples {
        screen.line("")?;
        let told = &example.told;
        let peer = told.peer.as_deref().unwrap_or("an unknown peer");
        screen.line(&format!("{} {} call {} of {peer}", told.at, example.pod, told.call_id))?;
        show_decisions("now ", &told.now, Tone::Dim, screen)?;
        show_decisions("then", &told.then, Tone::Warn, screen)?;
    }
    show_silent(silent, screen)
}

fn show_decisions(when: &str, decisions: &[Decision], tone: Tone, screen: &mut Screen<'_>) -> Result<(), Failure> {
    if decisions.is_empty() {
        return screen.toned(&format!("  {when}  passed as it came"), tone);
    }
    for decision in decisions {
        let because = because(decision);
        let because = if because.is_empty() { because } else { format!("  ({because})") };
        screen.toned(&format!("  {when}  {}{because}", decision.text), tone)?;
    }
    Ok(())
}

fn table(sums: &Sums) -> Table {
    let mut table = Table::new(&["DECISION", "NOW", "THEN", "DIFFERENCE"]);
    for counts in &sums.by_kind {
        let difference = i128::from(counts.then) - i128::from(counts.now);
        let tone = if difference == 0 { Tone::Dim } else { Tone::Warn };
        table.row(vec![
            Cell::from(&counts.kind),
            Cell::from(counts.now.to_string()),
            Cell::from(counts.then.to_string()),
            Cell::toned(format!("{difference:+}"), tone),
        ]);
    }
    table
}
