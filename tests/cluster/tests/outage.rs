//! A node without its API server: what runs goes on, what dies is restarted, and what was changed arrives afterwards.

use std::time::{Duration, Instant};

use sipwarden_cluster::wait::eventually;
use sipwarden_cluster::{Cluster, Component, images, tools};

fn call(cluster: &Cluster, address: &str) -> Option<()> {
    let mut call = cluster.command(&tools::program("sipp").expect("SIPp is installed"));
    call.args(["-sn", "uac", "-nostdin", "-m", "1", "-timeout", "3", "-timeout_error", "-i", "10.240.0.1", address]);
    call.current_dir(cluster.scratch()).output().expect("SIPp can be run").status.success().then_some(())
}

#[test]
fn pods_live_and_are_restarted_without_the_api_server() {
    let limit = Duration::from_secs(60);
    let cluster = Cluster::node().unwrap();
    cluster.import(&images::busybox().unwrap()).unwrap();
    cluster.import(&images::sipp().unwrap()).unwrap();
    cluster.apply(include_str!("node/sidecar.yaml")).unwrap();
    cluster.kubectl(&["-n", "sidecar", "wait", "--for=condition=Ready", "pod/uas", "--timeout=60s"]).unwrap();
    let question = ["-n", "sidecar", "get", "service", "sip", "-o", "jsonpath={.spec.clusterIP}"];
    let address = format!("{}:5060", cluster.kubectl(&question).unwrap());
    eventually("a call before", limit, || call(&cluster, &address)).unwrap();

    cluster.kill(Component::ApiServer).unwrap();
    assert!(call(&cluster, &address).is_some(), "a Service that is known goes on");

    cluster.kill_container("sidecar", "uas", "sidecar").unwrap();
    let killed = Instant::now();
    eventually("a call after the sidecar's death", limit, || call(&cluster, &address)).unwrap();
    println!("the sidecar is back {:.1} s after its death", killed.elapsed().as_secs_f64());

    cluster.start(Component::ApiServer).unwrap();
    let started = Instant::now();
    cluster.kubectl(&["-n", "sidecar", "annotate", "pod/uas", "--overwrite", "example.com/config=later"]).unwrap();
    let read = ["-n", "sidecar", "exec", "uas", "-c", "app", "--", "cat", "/etc/config/config"];
    let shows = || cluster.kubectl(&read).is_ok_and(|text| text == "later").then_some(());
    eventually("a change made after the API server came back", limit, shows).unwrap();
    println!("a change arrives {:.1} s after the API server is back", started.elapsed().as_secs_f64());

    let restarts =
        ["-n", "sidecar", "get", "pod", "uas", "-o", "jsonpath={.status.initContainerStatuses[0].restartCount}"];
    let told = || cluster.kubectl(&restarts).is_ok_and(|count| count == "1").then_some(());
    eventually("the restart to be told", limit, told).unwrap();
}
