//! `status`: of each workload, the policy in force, how far its pods are, and why others have no sidecar.

mod summary;

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::{Api, api::ListParams};
use serde_json::json;
use sipwarden_crds::SidecarConfigObject;
use sipwarden_operator::inject::{NamespaceFacts, sidecar_of};

use crate::{
    cli::{PodArgs, StatusArgs},
    connection::Connection,
    outcome::{Failure, Outcome},
    output::{Cell, Format, Screen, Table, Tone},
    scope::{self, PodRef},
    sidecar::{Answer, Sidecars},
    wire::Status,
};

pub use summary::{Row, summary};

/// What is known of the cluster.
#[derive(Debug, Default)]
pub struct Known {
    /// Those that are meant and have not ended.
    pub pods: Vec<Pod>,
    /// What namespaces say of injection; None where the user may not read them.
    pub namespaces: Option<BTreeMap<String, NamespaceFacts>>,
    /// By namespace and name.
    pub configs: BTreeMap<(String, String), SidecarConfigObject>,
    /// What sidecars say of themselves; None if they were not asked.
    pub live: Option<BTreeMap<PodRef, Result<Status, String>>>,
}

/// Tells of each workload.
///
/// # Errors
/// Pods or SidecarConfigs cannot be listed.
pub async fn status(connection: &Connection, args: &StatusArgs, screen: &mut Screen<'_>) -> Result<Outcome, Failure> {
    let mut known = look(connection, &args.pods).await?;
    if args.live {
        let with_sidecar = known.pods.iter().filter(|pod| sidecar_of(pod).is_some());
        let pods: Vec<PodRef> = with_sidecar.map(|pod| PodRef::of(&pod.metadata)).collect();
        let sidecars = Sidecars::new(connection.client.clone(), &args.pods);
        let answers: Vec<Answer<Status>> =
            sidecars.each(&pods, |sidecars, pod| async move { sidecars.get(&pod, "/status").await }).await;
        let answers = answers.into_iter().map(|(pod, answer)| (pod, answer.map_err(|error| error.to_string())));
        known.live = Some(answers.collect());
    }
    let rows = summary(&known);
    match args.format.output {
        Format::Text => show(&rows, &known, connection, screen)?,
        format => screen.value(&json!({ "workloads": rows }), format)?,
    }
    let silent = known.live.iter().flatten().any(|(_, answer)| answer.is_err());
    Ok(if silent { Outcome::Incomplete } else { Outcome::Fine })
}

/// Asks the API server for what [`summary`] needs.
///
/// # Errors
/// Pods or SidecarConfigs cannot be listed.
pub async fn look(connection: &Connection, pods: &PodArgs) -> Result<Known, Failure> {
    let configs: Api<SidecarConfigObject> = match &connection.namespace {
        Some(namespace) => Api::namespaced(connection.client.clone(), namespace),
        None => Api::all(connection.client.clone()),
    };
    let all = ListParams::default();
    let (pods, configs, namespaces) =
        tokio::join!(scope::pods(connection, pods), configs.list(&all), namespaces(connection));
    let doing = format!("list sidecarconfigs{}", connection.place());
    let configs = configs.map_err(Failure::cluster(doing))?.items.into_iter().map(|config| {
        let key = (config.metadata.namespace.clone(), config.metadata.name.clone());
        ((key.0.unwrap_or_default(), key.1.unwrap_or_default()), config)
    });
    Ok(Known { pods: pods?, namespaces, configs: configs.collect(), live: None })
}

async fn namespaces(connection: &Connection) -> Option<BTreeMap<String, NamespaceFacts>> {
    let api: Api<Namespace> = Api::all(connection.client.clone());
    let found = match &connection.namespace {
        Some(name) => vec![api.get(name).await.ok()?],
        None => api.list(&ListParams::default()).await.ok()?.items,
    };
    let facts = |namespace: Namespace| {
        let facts = NamespaceFacts::from_labels(namespace.metadata.labels.iter().flatten());
        Some((namespace.metadata.name?, facts))
    };
    Some(found.into_iter().filter_map(facts).collect())
}

fn show(rows: &[Row], known: &Known, connection: &Connection, screen: &mut Screen<'_>) -> Result<(), Failure> {
    if rows.is_empty() {
        screen
            .line(&format!("no workload has a sidecar, asks for one, or has a port named sip{}", connection.place()))?;
    } else {
        screen.table(&table(rows, connection.namespace.is_none()))?;
    }
    for row in rows {
        for note in &row.notes {
            screen.toned(&format!("{}: {note}", row.workload), Tone::Warn)?;
        }
    }
    if known.namespaces.is_none() {
        let text = "namespaces cannot be read (get namespaces): which pods their namespace opts in is not known";
        screen.toned(text, Tone::Warn)?;
    }
    Ok(())
}

fn table(rows: &[Row], with_namespace: bool) -> Table {
    let columns =
        ["NAMESPACE", "WORKLOAD", "POLICY", "MODE", "HASH", "PODS", "INJECTED", "IN STEP", "STALE", "SESSIONS"];
    let mut table = Table::new(&columns[usize::from(!with_namespace)..]);
    for row in rows {
        let text = |text: &Option<String>| Cell::from(text.as_deref().unwrap_or("-"));
        let alarming = |count: usize| Cell::toned(count.to_string(), if count == 0 { Tone::Plain } else { Tone::Bad });
        let injected = if row.injected < row.pods && row.wants_sidecar { Tone::Bad } else { Tone::Plain };
        let in_step = if row.injected > 0 && row.in_step == row.injected { Tone::Good } else { Tone::Plain };
        let mut cells = vec![
            Cell::from(&row.workload),
            text(&row.policy),
            text(&row.mode),
            text(&row.hash),
            Cell::from(row.pods.to_string()),
            Cell::toned(row.injected.to_string(), injected),
            Cell::toned(row.in_step.to_string(), in_step),
            alarming(row.stale),
            text(&row.sessions.map(|sessions| sessions.to_string())),
        ];
        if with_namespace {
            cells.insert(0, Cell::from(&row.namespace));
        }
        table.row(cells);
    }
    table
}
