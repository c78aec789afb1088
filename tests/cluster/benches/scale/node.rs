//! A node with fifty pods: how long changes take, kubelet included, and what everybody needs.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::{Value, json};
use sipwarden_cluster::product::{App, Changes, Site, Times};
use sipwarden_cluster::{Cluster, images, product, tools};

use crate::Table;

const PODS: u32 = 50;
const CHANGES: u32 = 50;
const LIMIT: Duration = Duration::from_secs(180);
/// Of a hundred changes, 99 are to be obeyed within it.
const GOAL: Duration = Duration::from_secs(1);

pub(crate) fn run() -> Result<Table> {
    tools::ensure_node()?;
    product::ensure_image()?;
    let mut table = Table::new();
    let started = Instant::now();
    let cluster = Cluster::node()?;
    cluster.import(&images::busybox()?)?;
    cluster.install_sipwarden(&[])?;
    table.add("from nothing to sipwarden on a new node", format!("{:.0} s", started.elapsed().as_secs_f64()));

    let site = Site::create(&cluster, "voice")?;
    site.policy("carrier", &json!({ "timers": { "sessionExpires": "30m", "minSE": "100s" } }))?;
    site.run(App::Idle, PODS)?;
    site.eventually("the policy in every sidecar", LIMIT, || site.all_obey("carrier"))?;

    let changes = Changes::measure(&site, CHANGES, LIMIT)?;
    let all = changes.late + changes.obeyed.count();
    table.add(
        format!("{CHANGES} changes, from the start of kubectl apply: kubectl has ended"),
        changes.applied.to_string(),
    );
    table.add(format!("… each of {PODS} sidecars obeys"), changes.obeyed.to_string());
    table.add("… all of them obey", changes.all_obeyed.to_string());
    table.add("… a call through the Service is judged by it", changes.judged.to_string());
    let share = |times: &Times, of: usize| format!("{:.1} %", 100.0 * times.within(GOAL) as f64 / of as f64);
    let [of_sidecars, of_changes, of_calls] =
        [(&changes.obeyed, all), (&changes.all_obeyed, CHANGES as usize), (&changes.judged, CHANGES as usize)]
            .map(|(times, of)| share(times, of));
    table.add(
        format!("… within {} s: of sidecars, of changes all sidecars, of calls", GOAL.as_secs()),
        format!("{of_sidecars}, {of_changes}, {of_calls}"),
    );
    table.add(format!("… files later than {} s", LIMIT.as_secs()), format!("{} of {all}", changes.late));
    memory(&site, &mut table)?;
    Ok(table)
}

/// What kubelet counts for the operator's containers and the sidecars.
fn memory(site: &Site, table: &mut Table) -> Result<()> {
    let stats = site.cluster.kubectl(&["get", "--raw", "/api/v1/nodes/node/proxy/stats/summary"])?;
    let stats: Value = serde_json::from_str(&stats)?;
    let containers = |name: &str| {
        let pods = stats["pods"].as_array().into_iter().flatten();
        let containers = pods.flat_map(|pod| pod["containers"].as_array().into_iter().flatten());
        let ours = containers.filter(|container| container["name"] == name);
        let mut mib: Vec<f64> =
            ours.filter_map(|it| it["memory"]["workingSetBytes"].as_f64()).map(|bytes| bytes / 1_048_576.0).collect();
        mib.sort_by(f64::total_cmp);
        let (least, most) =
            mib.first().zip(mib.last()).with_context(|| format!("kubelet knows no container {name}"))?;
        anyhow::Ok(format!("{least:.1} to {most:.1} MiB"))
    };
    table.add("memory of the operator's replicas", containers("operator")?);
    table.add("memory of the sidecars", containers("sipwarden")?);
    Ok(())
}
