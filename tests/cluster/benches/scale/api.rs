//! The operator's part, on an API server with objects that nobody runs.

use std::time::{Duration, Instant};

use anyhow::Result;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use sipwarden_cluster::http::get_text;
use sipwarden_cluster::product::Times;
use sipwarden_cluster::wait::eventually;
use sipwarden_cluster::{Cluster, OperatorProcess};
use tokio::time::sleep;

use crate::Table;
use crate::fleet::{Fleet, LARGE, PODS, POLICIES, SMALL, STATUS_PORT, USED};
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
    let fleet = Fleet::create(&client(cluster).await?).await?;
    eprintln!("{POLICIES} policies and {PODS} pods made in {:.0} s", started.elapsed().as_secs_f64());

    fleet.mark();
    let started = Instant::now();
    let status_port = STATUS_PORT.to_string();
    let more = ["--status-port", &status_port, "--log", "warn"];
    let operator = OperatorProcess::start(cluster, &cluster.kubeconfig(), "default", "bench", &more)?;
    let written = fleet.written(PODS, LIMIT).await?;
    table.add("from cold until every pod has its config", seconds(written - started));
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
    changes(&fleet, &mut table).await?;
    bound(cluster, &fleet, &mut table).await?;
    let (now, most) = memory_mib(operator.id())?;
    table.add("memory after all changes: now, most", format!("{now:.0} MiB, {most:.0} MiB"));
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

/// From the request that changes a policy to the last of its pods' annotations.
async fn changes(fleet: &Fleet, table: &mut Table) -> Result<()> {
    for (policy, pods, changes) in [(ANY, SMALL, 50), (0, LARGE, 5)] {
        let mut times = Vec::new();
        for change in 1..=changes {
            fleet.mark();
            let start = Instant::now();
            fleet.policy(policy, 90 + change).await?;
            times.push(fleet.written(pods, LIMIT).await? - start);
        }
        table.add(
            format!("a policy changes, until {pods} pods have it"),
            times.into_iter().collect::<Times>().to_string(),
        );
    }
    Ok(())
}

/// The same for all pods at once: a bound of the cluster changes every policy.
async fn bound(cluster: &Cluster, fleet: &Fleet, table: &mut Table) -> Result<()> {
    let mut times = Vec::new();
    for min_se_s in [600, 660] {
        fleet.mark();
        let start = Instant::now();
        cluster.apply(&format!(
            "apiVersion: sipwarden.dev/v1alpha1\nkind: ClusterSessionPolicy\nmetadata: {{name: floor}}\n\
             spec: {{timers: {{minSE: {{atLeast: {min_se_s}s}}}}}}\n"
        ))?;
        times.push(fleet.written(PODS, LIMIT).await? - start);
    }
    let what = format!("a bound changes all {POLICIES} policies, until {PODS} pods have it");
    table.add(what, times.into_iter().collect::<Times>().to_string());
    Ok(())
}

async fn client(cluster: &Cluster) -> Result<Client> {
    let kubeconfig = Kubeconfig::read_from(cluster.kubeconfig())?;
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    Ok(Client::try_from(config)?)
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
    format!("{:.1} s", time.as_secs_f64())
}
