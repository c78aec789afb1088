//! The operator's part, on an API server with objects that nobody runs.

use std::time::{Duration, Instant};

use anyhow::Result;
use sipwarden_cluster::http::get_text;
use sipwarden_cluster::product::Times;
use sipwarden_cluster::wait::eventually;
use sipwarden_cluster::{Cluster, OperatorProcess};
use tokio::time::sleep;

use crate::Table;
use crate::client::client_of;
use crate::fleet::{Fleet, LARGE, PODS, POLICIES, SMALL, STATUS_PORT, Took, USED};
use crate::process::{cpu_s, memory_mib};

const LIMIT: Duration = Duration::from_secs(600);
const STEADY: Duration = Duration::from_secs(60);
/// Pods that come and go, of policies that have ten each.
const COMING: usize = 200;
/// What the operator asks of the API server by itself, to lead and to watch.
const BACKGROUND: [&str; 2] = ["update", "watch"];

/// Policies whose pods come and go, and the one that changes.
const ANY: usize = 17;

pub(crate) fn run() -> Result<Table> {
    let cluster = Cluster::api_only()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(measure(&cluster))
}

async fn measure(cluster: &Cluster) -> Result<Table> {
    let mut table = Table::new();
    cluster.prepare_for_operators()?;
    let started = Instant::now();
    let fleet = Fleet::create(&client_of(cluster).await?).await?;
    eprintln!("{POLICIES} policies and {PODS} pods made in {:.0} s", started.elapsed().as_secs_f64());

    let started = fleet.mark();
    let status_port = STATUS_PORT.to_string();
    let more = ["--status-port", &status_port, "--log", "warn"];
    let operator = OperatorProcess::start(cluster, &cluster.kubeconfig(), "default", "bench", &more)?;
    let took = fleet.written(PODS, started, LIMIT).await?;
    table.add("from cold until every pod has its config", seconds(took.last));
    while fleet.ready().await? < USED {
        sleep(Duration::from_millis(200)).await;
    }
    table.add("… and every policy with pods says Ready", seconds(started.elapsed()));
    table.add("… requests to the API server", format!("{:.2} a pod", requests(&operator)? / PODS as f64));

    calm(&operator)?;
    let (cpu, asked) = (cpu_s(operator.id())?, requests(&operator)?);
    sleep(STEADY).await;
    let used = (cpu_s(operator.id())? - cpu) / STEADY.as_secs_f64() * 100.0;
    table.add("steady, each sidecar asked twice a minute: CPU", format!("{used:.2} % of a core"));
    let asked = requests(&operator)? - asked;
    table.add("… requests to the API server in a minute, but for its lease and watches", format!("{asked:.0}"));
    let (now, most) = memory_mib(operator.id())?;
    table.add("memory: now, most", format!("{now:.0} MiB, {most:.0} MiB"));

    events(&fleet, &operator, &mut table).await?;
    for (policy, pods, changes) in [(ANY, SMALL, 50), (0, LARGE, 5)] {
        let change = async |number| fleet.policy(policy, 90 + number).await;
        measure_changes(&fleet, &operator, &mut table, "a policy changes", pods, changes, change).await?;
    }
    let change = async |number| bound(cluster, 600 + number);
    let what = "a bound changes all policies";
    measure_changes(&fleet, &operator, &mut table, what, PODS, 2, change).await?;
    let (now, most) = memory_mib(operator.id())?;
    table.add("memory after all changes: now, most", format!("{now:.0} MiB, {most:.0} MiB"));

    drop(operator);
    for (policy, pods, times) in [(Some(ANY), SMALL, 50), (Some(0), LARGE, 5), (None, PODS, 2)] {
        let mut last = Vec::new();
        for _ in 0..times {
            last.push(fleet.overwrite(policy, LIMIT).await?.last);
        }
        let last: Times = last.into_iter().collect();
        table.add(format!("without operator, the same patches for {pods} pods"), last.to_string());
    }
    Ok(table)
}

/// What pods that come and go cost.
async fn events(fleet: &Fleet, operator: &OperatorProcess, table: &mut Table) -> Result<()> {
    let config = fleet.config(ANY).await?;
    for (what, config) in [("with its config, as injected", Some(config.as_str())), ("without a config", None)] {
        calm(operator)?;
        let before = requests(operator)?;
        fleet
            .each(
                (0..COMING).collect(),
                |fleet, pod| async move { fleet.pod(ANY, &format!("late-{pod}"), config).await },
            )
            .await?;
        calm(operator)?;
        let each = |asked: f64| format!("{:.2}", asked / COMING as f64);
        table.add(format!("requests for a pod that comes {what}"), each(requests(operator)? - before));
        let before = requests(operator)?;
        fleet
            .each(
                (0..COMING).collect(),
                |fleet, pod| async move { fleet.delete_pod(ANY, &format!("late-{pod}")).await },
            )
            .await?;
        calm(operator)?;
        table.add("… and that goes", each(requests(operator)? - before));
    }
    Ok(())
}

/// From the request that changes something to the annotations of the pods it is about, and what all of it costs the operator.
async fn measure_changes(
    fleet: &Fleet,
    operator: &OperatorProcess,
    table: &mut Table,
    what: &str,
    pods: usize,
    changes: u32,
    change: impl AsyncFn(usize) -> Result<()>,
) -> Result<()> {
    calm(operator)?;
    let (cpu, asked) = (cpu_s(operator.id())?, requests(operator)?);
    let mut took = Vec::new();
    for number in 1..=changes {
        let start = fleet.mark();
        change(number as usize).await?;
        took.push(fleet.written(pods, start, LIMIT).await?);
        if pods > SMALL {
            calm(operator)?;
        }
    }
    calm(operator)?;
    let each = |all: f64| all / f64::from(changes);
    let times = |part: fn(&Took) -> Duration| took.iter().map(part).collect::<Times>();
    table.add(format!("{what}, until the first of its {pods} pods has it"), times(|took| took.first).to_string());
    table.add("… until all have it", times(|took| took.last).to_string());
    table.add("… CPU of the operator, until all is told", format!("{:.3} s", each(cpu_s(operator.id())? - cpu)));
    table.add("… requests of the operator", format!("{:.0}", each(requests(operator)? - asked)));
    Ok(())
}

/// A bound of the cluster that changes every policy.
fn bound(cluster: &Cluster, min_se_s: usize) -> Result<()> {
    cluster
        .apply(&format!(
            "apiVersion: sipwarden.dev/v1alpha1\nkind: ClusterSessionPolicy\nmetadata: {{name: floor}}\n\
             spec: {{timers: {{minSE: {{atLeast: {min_se_s}s}}}}}}\n"
        ))
        .map(drop)
}

/// Waits until nothing waits to be written.
fn calm(operator: &OperatorProcess) -> Result<()> {
    let mut before = None;
    eventually("the operator's queues to be empty", LIMIT, || {
        std::thread::sleep(Duration::from_millis(500));
        let text = get_text(operator.http, "/metrics").ok()?;
        let queued = series(&text, "sipwarden_operator_queued{").filter(|(labels, _)| !labels.contains("acks"));
        let now = (queued.map(|(_, value)| value).sum::<f64>() == 0.0).then(|| total(&text));
        let is_calm = now.is_some() && now == before;
        before = now;
        is_calm.then_some(())
    })
}

/// So far, but for its lease and its watches.
fn requests(operator: &OperatorProcess) -> Result<f64> {
    Ok(total(&get_text(operator.http, "/metrics")?))
}

fn total(metrics: &str) -> f64 {
    let is_background = |labels: &str| BACKGROUND.iter().any(|verb| labels.contains(&format!("verb=\"{verb}\"")));
    let asked = series(metrics, "sipwarden_operator_api_requests_total{");
    asked.filter(|(labels, _)| !is_background(labels)).map(|(_, value)| value).sum()
}

/// Labels and values of what begins so.
fn series<'a>(metrics: &'a str, start: &str) -> impl Iterator<Item = (&'a str, f64)> {
    let lines = metrics.lines().filter_map(move |line| line.strip_prefix(start)?.rsplit_once("} "));
    lines.filter_map(|(labels, value)| Some((labels, value.parse().ok()?)))
}

fn seconds(time: Duration) -> String {
    format!("{:.2} s", time.as_secs_f64())
}
