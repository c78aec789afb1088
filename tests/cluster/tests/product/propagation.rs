//! How long a change takes from `kubectl apply` to running sidecars and to the calls they judge.

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use sipwarden_cluster::http::get_json;
use sipwarden_cluster::product::{App, Pod, Site};

use crate::{PATIENCE, SOON, alone, cluster, least, site};

const PODS: u32 = 50;
const CHANGES: u32 = 20;
/// Between two changes.
const PAUSE: Duration = Duration::from_secs(2);
/// When many pods of a node change at once, kubelet now and then misses one; the operator sees that and nudges it, a few
/// seconds later. Of a hundred files, how many may come later than soon even so.
const LATE_PERCENT: usize = 1;

/// From the start of a change, which is that of the kubectl that made it.
#[derive(Default)]
struct Times {
    applied: Vec<Duration>,
    obeyed: Vec<Duration>,
    /// How many did not obey in time.
    late: usize,
    judged: Vec<Duration>,
}

#[test]
fn changes_reach_fifty_pods_in_time_and_their_status_says_so() {
    let _alone = alone();
    let site = site("propagation");
    site.policy("carrier", &least(100)).unwrap();
    let started = Instant::now();
    site.run(App::Idle, PODS).unwrap();
    println!("{PODS} pods rolled out after {:.1} s", started.elapsed().as_secs_f64());
    site.eventually("the policy in every sidecar", SOON, || site.all_obey("carrier")).unwrap();
    in_step(&site);
    let pods = site.pods().unwrap();

    let mut times = Times::default();
    for change in 1..=CHANGES {
        measure(&site, &pods, 100 + change, &mut times);
        thread::sleep(PAUSE);
    }
    in_step(&site);

    println!("{CHANGES} changes with {PODS} pods, from the start of kubectl apply:");
    print("kubectl has ended", &mut times.applied);
    print("a sidecar obeys", &mut times.obeyed);
    print("a call is judged", &mut times.judged);
    print_memory(&pods);
    let (late, all) = (times.late, times.late + times.obeyed.len());
    println!("  later than {SOON:?}: {late} of {all} files");
    assert!(late * 100 <= all * LATE_PERCENT, "{late} of {all} changes in sidecars took more than {SOON:?}");
}

/// One change, until every sidecar obeys it and a call through the Service was judged by it.
fn measure(site: &Site, pods: &[Pod], least_s: u32, times: &mut Times) {
    let service = site.service().expect("there is a Service");
    let policy = site.policy_text("carrier", &least(least_s));
    let generation = site.get("sessionpolicy", "carrier").expect("the object is there")["metadata"]["generation"]
        .as_i64()
        .expect("the object is there")
        + 1;
    let start = Instant::now();
    thread::scope(|scope| {
        let obeyed = scope.spawn(move || watch_pods(site, pods, generation, start));
        let judged = scope.spawn(move || first_judged(site, service, least_s, start));
        site.cluster.apply(&policy).expect("the API server takes it");
        times.applied.push(start.elapsed());
        let obeyed = obeyed.join().expect("the thread does not panic");
        times.late += pods.len() - obeyed.len();
        times.obeyed.extend(obeyed);
        times.judged.push(judged.join().expect("the thread does not panic"));
    });
}

/// When each pod said that it obeys this generation; of those that did in time.
fn watch_pods(site: &Site, pods: &[Pod], generation: i64, start: Instant) -> Vec<Duration> {
    let obeys = |address: SocketAddr| {
        get_json(address, "/status").is_ok_and(|status| status["generation"].as_i64() >= Some(generation))
    };
    let mut waiting: Vec<SocketAddr> = pods.iter().map(Pod::status_address).collect();
    let mut times = Vec::new();
    let watch = || {
        while !waiting.is_empty() && start.elapsed() < SOON {
            waiting.retain(|address| {
                let obeys = obeys(*address);
                times.extend(obeys.then(|| start.elapsed()));
                !obeys
            });
            // The machine has other things to do as well.
            thread::sleep(Duration::from_millis(10));
        }
    };
    site.cluster.in_network(watch).expect("the network is there");
    times
}

fn first_judged(site: &Site, service: SocketAddr, least_s: u32, start: Instant) -> Duration {
    let wanted = least_s.to_string();
    while start.elapsed() < SOON {
        let answer = site.cluster.invite(service, 90).expect("the sidecar answers");
        if answer.header("Min-SE") == Some(&wanted) {
            return start.elapsed();
        }
        thread::sleep(Duration::from_millis(10));
    }
    panic!("no call was judged by the change; {}", site.look())
}

/// Until the status says that every pod obeys the policy as it is.
fn in_step(site: &Site) {
    let start = Instant::now();
    let all = i64::from(PODS);
    site.eventually("a status that counts every pod as in step", PATIENCE, || {
        let status = &site.get("sessionpolicy", "carrier").ok()?["status"];
        let counts = &status["pods"];
        (counts["inStep"] == all && counts["stale"] == 0 && counts["matched"] == all).then_some(())
    })
    .expect("it is there");
    println!("every pod counted as in step after {:.1} s more", start.elapsed().as_secs_f64());
    assert_eq!(site.condition("carrier", "Ready").as_deref(), Some("True Ready"));
}

fn print(what: &str, times: &mut [Duration]) {
    times.sort();
    let part = |permille: usize| times[(times.len() - 1) * permille / 1000].as_secs_f64();
    let (p50, p99, max) = (part(500), part(990), part(1000));
    println!("  {what:<18} p50 {p50:.3} s, p99 {p99:.3} s, max {max:.3} s");
}

/// What kubelet counts for the operator's containers and the sidecars.
fn print_memory(pods: &[Pod]) {
    let stats =
        cluster().kubectl(&["get", "--raw", "/api/v1/nodes/node/proxy/stats/summary"]).expect("kubectl gets an answer");
    let stats: Value = serde_json::from_str(&stats).expect("JSON");
    let mut operators = Vec::new();
    let mut sidecars = Vec::new();
    for pod in stats["pods"].as_array().expect("a list") {
        let is_ours = pods.iter().any(|ours| pod["podRef"]["name"] == ours.name);
        for container in pod["containers"].as_array().expect("a list") {
            let mib = container["memory"]["workingSetBytes"].as_f64().unwrap_or_default() / f64::from(1 << 20);
            match container["name"].as_str() {
                Some("operator") => operators.push(mib),
                Some("sipwarden") if is_ours => sidecars.push(mib),
                _ => {}
            }
        }
    }
    sidecars.sort_by(f64::total_cmp);
    println!(
        "  memory: operator {operators:.1?} MiB, sidecars {:.1?} to {:.1?} MiB",
        sidecars.first(),
        sidecars.last()
    );
}
