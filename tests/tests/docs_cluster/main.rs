//! The commands of the documentation that are for Kubernetes, word for word on a real node: page after page, each with what the
//! pages before it left, and last what takes sipwarden out again.
//!
//! In place of images that nobody can pull stand SIPp and Debian's Kamailio, under the names that the pages have.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;
use sipwarden_cluster::tools::Tool;
use sipwarden_cluster::workspace::built;
use sipwarden_cluster::{Call, Cluster, images, operator_program, product};
use sipwarden_tests::docs::{Page, Place, Runner, Step, pages};
use sipwarden_tests::sidecar;
use sipwarden_tests::wait::eventually;

/// Where the images of the pages are said to be.
const REGISTRY: &str = "registry.example.com/";

/// The page that installs, and runs the application of which all others tell.
const FIRST: &str = "docs/kubernetes.md";

/// For the commands of one page.
const LIMIT: Duration = Duration::from_secs(300);

#[test]
fn the_commands_for_kubernetes_run() {
    let pages = pages();
    let tools = [Tool::Kubectl, Tool::Helm].map(|tool| tool.ensure().expect("a tool"));
    let operator = operator_program().expect("the operator is built");
    let ours = [sidecar::binary(), operator, built("kubectl-sipwarden").expect("the plugin is built")];
    let mut runner = Runner::new(&[&tools[..], &ours].concat());
    let cluster = Cluster::node().expect("a node");
    import_images(&cluster, &pages);
    cluster.apply(include_str!("scaled_object.yaml")).expect("the kind is defined");
    let _told = Told(&cluster);

    let shell = shell(&cluster);
    for page in &pages {
        run(&runner, &shell, page, |step| !step.is_last);
        if page.path == Path::new(FIRST) {
            runner.fill("CALL-ID", call_the_application(&cluster).id());
        }
    }
    let ready = ["wait", "--for=condition=Ready", "sessionpolicies/carrier", "--namespace=voice", "--timeout=60s"];
    cluster.kubectl(&ready).expect("the policy of the README is in force");
    let restarts = "jsonpath={.items[*].status.containerStatuses[*].restartCount}";
    let restarts = cluster.kubectl(&["get", "pods", "--namespace=voice", "--output", restarts]).expect("pods");
    assert!(restarts.split_whitespace().all(|count| count == "0"), "applications live: {restarts}");
    call_everyone(&cluster);
    for page in &pages {
        run(&runner, &shell, page, |step| step.is_last);
    }

    let sidecars = "jsonpath={.items[*].spec.initContainers[*].name}";
    let question = ["get", "pods", "--namespace=voice", "--selector=app=pbx", "--output", sidecars];
    let gone = || cluster.kubectl(&question).is_ok_and(|names| names.is_empty()).then_some(());
    eventually("the last commands to take the sidecar out", Duration::from_secs(60), gone);
    let kept = cluster.kubectl(&["get", "sessionpolicies", "carrier", "--namespace=voice"]);
    kept.expect("policies outlive the operator");
}

fn run(runner: &Runner, shell: &Command, page: &Page, is_wanted: impl Fn(&Step) -> bool) {
    let steps: Vec<_> = page.steps(Place::Cluster).into_iter().filter(is_wanted).collect();
    if steps.iter().any(Step::is_command) {
        let started = Instant::now();
        runner.run(page, shell, &steps, LIMIT);
        eprintln!("{}: {:.1} s", page.path.display(), started.elapsed().as_secs_f64());
    }
}

/// Bash in the cluster's network. What a command leaves running ends with the process namespace, whatever becomes of the test.
fn shell(cluster: &Cluster) -> Command {
    let mut shell = cluster.command(Path::new("unshare"));
    shell.args(["--pid", "--fork", "--kill-child", "--mount-proc", "bash"]);
    shell
}

/// One call that is refused, and one that stays up: what the pages show of calls is then there.
fn call_the_application(cluster: &Cluster) -> Call {
    let (_, service) = services(cluster).into_iter().find(|(name, _)| name == "pbx").expect("its Service");
    assert_eq!(cluster.invite(service, 60).expect("an answer").status, 422);
    cluster.call(service, 1800).expect("a call")
}

/// What the pages have configured works: each application answers through its Service, and the call has a session timer.
fn call_everyone(cluster: &Cluster) {
    let services = services(cluster);
    assert!(services.len() >= 6, "{services:?}");
    for (name, service) in services {
        let call = cluster.call(service, 1800).unwrap_or_else(|error| panic!("{name}: {error:#}"));
        assert!(call.answer.header("Session-Expires").is_some(), "{name}: no sidecar is in the way");
        call.hang_up().unwrap_or_else(|error| panic!("{name}: {error:#}"));
    }
}

/// Names of the Services of the pages, and where they are called.
fn services(cluster: &Cluster) -> Vec<(String, SocketAddr)> {
    let path = r#"jsonpath={range .items[*]}{.metadata.name} {.spec.clusterIP}:{.spec.ports[0].port}{"\n"}{end}"#;
    let services = cluster.kubectl(&["get", "services", "--namespace=voice", "--output", path]).expect("Services");
    let services = services.lines().filter_map(|line| line.split_once(' '));
    services.map(|(name, address)| (name.to_owned(), address.parse().expect("an address"))).collect()
}

fn import_images(cluster: &Cluster, pages: &[Page]) {
    let archive = product::image_archive().expect("an image");
    cluster.import_sipwarden(&archive).expect("it is imported");
    for image in [images::callee(), images::kamailio()] {
        image.and_then(|image| cluster.import(&image)).expect("it is imported");
    }
    let names = image_names(pages);
    assert!(names.len() >= 6, "{names:?}");
    for name in names {
        let image = if name.contains("/kamailio:") { images::KAMAILIO } else { images::CALLEE };
        cluster.tag_image(image, &name).expect("it is there");
    }
}

/// What the Deployments of the pages run.
fn image_names(pages: &[Page]) -> BTreeSet<String> {
    let blocks = pages.iter().flat_map(|page| &page.blocks).filter(|block| block.language == "yaml");
    let documents = blocks.flat_map(|block| serde_saphyr::from_multiple::<Value>(&block.text).expect("it is YAML"));
    let names = documents.flat_map(|document| {
        let containers = document["spec"]["template"]["spec"]["containers"].as_array().cloned().unwrap_or_default();
        containers.into_iter().filter_map(|container| Some(container["image"].as_str()?.to_owned()))
    });
    names.filter(|name| name.starts_with(REGISTRY)).collect()
}

/// When the test fails it tells what a person would look at first.
struct Told<'a>(&'a Cluster);

impl Drop for Told<'_> {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        let Told(cluster) = self;
        let questions: [&[&str]; 5] = [
            &["get", "pods,deployments", "--all-namespaces", "--output=wide"],
            &["get", "events", "--all-namespaces", "--field-selector=type=Warning", "--sort-by=.lastTimestamp"],
            &["get", "sessionpolicies,sidecarconfigs", "--namespace=voice", "--output=wide"],
            &["describe", "sessionpolicies", "--namespace=voice"],
            &[
                "logs",
                "--namespace=voice",
                "--selector=app",
                "--all-containers",
                "--prefix",
                "--tail=10",
                "--ignore-errors",
            ],
        ];
        for question in questions {
            let answer = cluster.kubectl(question).unwrap_or_else(|error| error.to_string());
            eprintln!("──── kubectl {}\n{answer}", question.join(" "));
        }
        eprintln!("──── operator\n{}", cluster.operator_log());
    }
}
