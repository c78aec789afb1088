//! The whole node does what sipwarden builds on. All tests share one.

use std::io::{Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::process::Stdio;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use sipwarden_cluster::wait::eventually;
use sipwarden_cluster::{Cluster, Component, images, tools};

/// Until a pod whose image is there has become Ready.
const READY: &str = "--timeout=60s";

fn node() -> &'static Cluster {
    static NODE: OnceLock<Cluster> = OnceLock::new();
    NODE.get_or_init(|| {
        tools::ensure_node().expect("what a node is made of is built or installed");
        let started = Instant::now();
        let cluster = Cluster::node().expect("a node starts");
        println!("node Ready after {:.1} s", started.elapsed().as_secs_f64());
        for image in [images::busybox(), images::sipp(), images::kamailio()] {
            cluster.import(&image.expect("its programs are installed")).expect("containerd takes an OCI archive");
        }
        println!("with images after {:.1} s", started.elapsed().as_secs_f64());
        cluster
    })
}

/// The node with the pod of `sidecar.yaml` Ready.
fn node_with_sidecar() -> &'static Cluster {
    static READY_POD: OnceLock<()> = OnceLock::new();
    READY_POD.get_or_init(|| {
        node().apply(include_str!("node/sidecar.yaml")).expect("restricted admits the pod");
        node().kubectl(&["-n", "sidecar", "wait", "--for=condition=Ready", "pod/uas", READY]).expect("the pod starts");
    });
    node()
}

fn eventually_prints(cluster: &Cluster, question: &[&str], wanted: &str) {
    let answer = || cluster.kubectl(question).is_ok_and(|printed| printed.contains(wanted)).then_some(());
    eventually(&format!("{wanted:?} from kubectl {question:?}"), Duration::from_secs(30), answer)
        .expect("it comes true");
}

#[test]
fn a_service_with_a_named_port_reaches_the_native_sidecar_that_has_the_name() {
    let cluster = node_with_sidecar();
    let question = ["-n", "sidecar", "get", "service", "sip", "-o", "jsonpath={.spec.clusterIP}"];
    let address = format!("{}:5060", cluster.kubectl(&question).unwrap());
    let ports = ["-n", "sidecar", "get", "endpointslices", "-o", "jsonpath={.items[*].ports}"];
    eventually_prints(cluster, &ports, "15060");

    // kube-proxy refuses what is sent to a Service until it knows an endpoint, a moment after the API server does.
    eventually("a call through the Service", Duration::from_secs(30), || {
        let mut call = cluster.command(&tools::program("sipp").unwrap());
        call.args([
            "-sn",
            "uac",
            "-nostdin",
            "-m",
            "1",
            "-timeout",
            "5",
            "-timeout_error",
            "-i",
            "10.240.0.1",
            &address,
        ]);
        let output = call.current_dir(cluster.scratch()).output().unwrap();
        output.status.success().then_some(())
    })
    .unwrap();
}

#[test]
fn logs_and_exec_reach_the_containers() {
    let cluster = node_with_sidecar();

    eventually_prints(cluster, &["-n", "sidecar", "logs", "uas", "-c", "app"], "the app has started");
    let user = cluster.kubectl(&["-n", "sidecar", "exec", "uas", "-c", "sidecar", "--", "id", "-u"]).unwrap();
    assert_eq!(user.trim(), "65532");
}

#[test]
fn a_changed_annotation_shows_in_the_pods_file_within_two_seconds() {
    let cluster = node_with_sidecar();
    cluster.kubectl(&["-n", "sidecar", "annotate", "pod/uas", "--overwrite", "example.com/config=second"]).unwrap();
    let patched = Instant::now();

    let read = ["-n", "sidecar", "exec", "uas", "-c", "app", "--", "cat", "/etc/config/config"];
    let shows = || cluster.kubectl(&read).is_ok_and(|text| text == "second").then_some(());
    eventually("the new value", Duration::from_secs(2), shows).unwrap();
    println!("the file changed within {:.2} s of the patch", patched.elapsed().as_secs_f64());
}

#[test]
fn a_pod_that_asks_for_more_than_restricted_is_refused() {
    let cluster = node_with_sidecar();

    let run = ["-n", "sidecar", "run", "bad", "--image", images::BUSYBOX, "--image-pull-policy=Never"];
    let error = cluster.kubectl(&run).unwrap_err().to_string();

    assert!(error.contains(r#"violates PodSecurity "restricted"#), "{error}");
}

#[test]
fn names_of_services_resolve_in_pods() {
    let cluster = node_with_sidecar();

    let lookup =
        ["-n", "sidecar", "exec", "uas", "-c", "app", "--", "nslookup", "kubernetes.default.svc.cluster.local"];
    let answer = cluster.kubectl(&lookup).unwrap();

    assert!(answer.contains("10.96.0.1"), "{answer}");
}

#[test]
fn port_forward_reaches_a_port_of_a_pod() {
    let cluster = node();
    cluster.kubectl(&["-n", "kube-system", "wait", "--for=condition=Available", "deployment/coredns", READY]).unwrap();
    let mut forward = cluster.kubectl_command().unwrap();
    forward.args(["-n", "kube-system", "port-forward", "deployment/coredns", "18080:8080"]);
    let mut forward = forward.stdout(Stdio::null()).spawn().unwrap();

    let asked = eventually("the health of CoreDNS through the forward", Duration::from_secs(15), || {
        let mut stream = cluster.in_network(|| TcpStream::connect("127.0.0.1:18080")).unwrap().ok()?;
        stream.write_all(b"GET /health HTTP/1.0\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        (!answer.is_empty()).then_some(answer)
    });
    forward.kill().unwrap();
    forward.wait().unwrap();

    assert!(asked.as_ref().is_ok_and(|answer| answer.contains("200 OK")), "{asked:?}");
}

#[test]
fn kamailio_answers_in_a_pod() {
    let cluster = node();
    cluster.apply(include_str!("node/kamailio.yaml")).unwrap();
    cluster.kubectl(&["-n", "kamailio", "wait", "--for=condition=Ready", "pod/kamailio", READY]).unwrap();
    let address = cluster.kubectl(&["-n", "kamailio", "get", "pod", "kamailio", "-o", "jsonpath={.status.podIP}"]);
    let address = format!("{}:5060", address.unwrap());

    let socket = cluster.in_network(|| UdpSocket::bind("10.240.0.1:0")).unwrap().unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    let options = format!(
        "OPTIONS sip:{address} SIP/2.0\r\nVia: SIP/2.0/UDP 10.240.0.1;rport;branch=z9hG4bK1\r\nMax-Forwards: 70\r\n\
         From: <sip:a@10.240.0.1>;tag=1\r\nTo: <sip:{address}>\r\nCall-ID: 1\r\nCSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n"
    );
    let answer = eventually("an answer of Kamailio", Duration::from_secs(15), || {
        socket.send_to(options.as_bytes(), &address).ok()?;
        let mut bytes = [0; 2048];
        let length = socket.recv(&mut bytes).ok()?;
        Some(String::from_utf8_lossy(&bytes[..length]).into_owned())
    });

    let answer = answer.unwrap();
    assert!(answer.starts_with("SIP/2.0 200 Alive"), "{answer}");
}

#[test]
fn helm_knows_the_cluster() {
    let cluster = node();

    let chart = cluster.scratch().join("chart");
    std::fs::create_dir_all(chart.join("templates")).unwrap();
    std::fs::write(chart.join("Chart.yaml"), "apiVersion: v2\nname: one\nversion: 0.1.0\nkubeVersion: '>=1.36.0'\n")
        .unwrap();
    let map = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: '{{ .Release.Name }}'}\n";
    std::fs::write(chart.join("templates/map.yaml"), map).unwrap();
    cluster.helm(&["install", "first", chart.to_str().unwrap(), "--wait", "--timeout", "30s"]).unwrap();

    assert_eq!(cluster.kubectl(&["get", "configmap", "first", "-o", "name"]).unwrap().trim(), "configmap/first");
}

#[test]
fn a_component_is_killed_and_comes_back() {
    let cluster = node();

    // Nobody else's test needs the scheduler's absence noticed: it comes back at once.
    cluster.kill(Component::Scheduler).unwrap();
    assert!(cluster.kill(Component::Scheduler).is_err());
    cluster.start(Component::Scheduler).unwrap();

    assert!(cluster.start(Component::Scheduler).is_err());
}
