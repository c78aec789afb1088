//! A namespace of a SIP application that is opted in: PodSecurity `restricted` is enforced in it.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::apps::App;
use crate::caller::Call;
use crate::cluster::Cluster;
use crate::wait::{PATIENCE, SOON, eventually};

/// Until pods run, on a busy machine.
const READY: &str = "--timeout=180s";
const SIP_PORT: u16 = 15060;
const STATUS_PORT: u16 = 8643;
const NAMESPACE: &str = include_str!("namespace.yaml");

/// An opted-in namespace.
pub struct Site<'a> {
    pub cluster: &'a Cluster,
    pub namespace: &'a str,
}

/// A pod with a sidecar.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pod {
    pub name: String,
    pub ip: IpAddr,
}

impl Pod {
    /// Where its sidecar takes calls.
    pub fn sip_address(&self) -> SocketAddr {
        SocketAddr::new(self.ip, SIP_PORT)
    }

    /// Where its sidecar tells what it obeys.
    pub fn status_address(&self) -> SocketAddr {
        SocketAddr::new(self.ip, STATUS_PORT)
    }
}

impl<'a> Site<'a> {
    /// Makes the namespace, with the application's Service but without pods.
    pub fn create(cluster: &'a Cluster, namespace: &'a str) -> Result<Site<'a>> {
        cluster.apply(&NAMESPACE.replace("@NAMESPACE@", namespace))?;
        let site = Site { cluster, namespace };
        let exists = || site.kubectl(&["get", "serviceaccount", "default"]).is_ok().then_some(());
        eventually("the namespace's service account", SOON, exists)?;
        Ok(site)
    }

    /// Runs so many pods of an application that says nothing of sipwarden as the Deployment `app`, which the Service leads
    /// to, and waits for them.
    pub fn run(&self, app: App, replicas: u32) -> Result<()> {
        self.run_as("app", app, replicas)
    }

    /// The same as a Deployment of another name.
    pub fn run_as(&self, name: &str, app: App, replicas: u32) -> Result<()> {
        let objects: Vec<_> = app.objects(self.namespace, name, replicas).map(|object| object.to_string()).collect();
        self.cluster.apply(&objects.join("\n---\n"))?;
        self.rolled_out()
    }

    /// The same under the policy `carrier` of this spec: waits until the sidecar of each pod obeys it.
    pub fn run_under(&self, spec: &Value, app: App, replicas: u32) -> Result<()> {
        self.policy("carrier", spec)?;
        self.run(app, replicas)?;
        self.eventually("the policy in the sidecars", SOON, || self.all_obey("carrier"))
    }

    /// Waits until all Deployments are as wanted.
    pub fn rolled_out(&self) -> Result<()> {
        self.kubectl(&["rollout", "status", "deployment", READY]).map(drop).with_context(|| self.look())
    }

    /// Applies a SessionPolicy.
    pub fn policy(&self, name: &str, spec: &Value) -> Result<()> {
        self.cluster.apply(&self.policy_text(name, spec)).map(drop)
    }

    /// The SessionPolicy as a file would have it.
    pub fn policy_text(&self, name: &str, spec: &Value) -> String {
        let metadata = json!({ "name": name, "namespace": self.namespace });
        json!({ "apiVersion": "sipwarden.dev/v1alpha1", "kind": "SessionPolicy", "metadata": metadata, "spec": spec })
            .to_string()
    }

    /// kubectl in the namespace.
    pub fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        self.cluster.kubectl(&[&["-n", self.namespace], arguments].concat())
    }

    /// An object of the namespace.
    pub fn get(&self, kind: &str, name: &str) -> Result<Value> {
        Ok(serde_json::from_str(&self.kubectl(&["get", kind, name, "-o", "json"])?)?)
    }

    /// A condition of a policy as `True Accepted`, if it is about the policy as it is now.
    pub fn condition(&self, policy: &str, type_: &str) -> Option<String> {
        let policy = self.get("sessionpolicy", policy).ok()?;
        let conditions = policy["status"]["conditions"].as_array()?;
        let condition = conditions.iter().find(|condition| condition["type"] == type_)?;
        let is_new = condition["observedGeneration"] == policy["metadata"]["generation"];
        is_new.then(|| format!("{} {}", text(&condition["status"]), text(&condition["reason"])))
    }

    /// Waits until a condition of a policy is as wanted, see [`Site::condition`].
    pub fn becomes(&self, policy: &str, type_: &str, wanted: &str) -> Result<()> {
        let what = format!("{type_} of {policy} to be {wanted}");
        self.eventually(&what, PATIENCE, || (self.condition(policy, type_)? == wanted).then_some(()))
    }

    /// Where the Service is, which names its target port.
    pub fn service(&self) -> Result<SocketAddr> {
        let address = text(&self.get("service", "app")?["spec"]["clusterIP"]);
        Ok(SocketAddr::new(address.parse()?, 5060))
    }

    /// A call through the Service that is up. Waits for it: kube-proxy knows endpoints a moment after the API server does.
    pub fn call(&self, session_expires_s: u32) -> Result<Call> {
        let service = self.service()?;
        self.eventually("a call through the Service", PATIENCE, || self.cluster.call(service, session_expires_s).ok())
    }

    /// The application's pods that are not about to end.
    pub fn pods(&self) -> Result<Vec<Pod>> {
        self.pods_of("app")
    }

    /// The same of another Deployment.
    pub fn pods_of(&self, name: &str) -> Result<Vec<Pod>> {
        let selector = format!("--selector=app={name}");
        let list: Value = serde_json::from_str(&self.kubectl(&["get", "pods", &selector, "-o", "json"])?)?;
        let pods = list["items"].as_array().context("a list of pods")?.iter();
        let alive = pods.filter(|pod| pod["metadata"]["deletionTimestamp"].is_null());
        let pod = |pod: &Value| {
            let ip = text(&pod["status"]["podIP"]).parse().context("a pod without address")?;
            Ok(Pod { name: text(&pod["metadata"]["name"]), ip })
        };
        alive.map(pod).collect()
    }

    /// What the sidecar of a pod says it obeys.
    pub fn status(&self, pod: &Pod) -> Result<Value> {
        self.cluster.get_json(pod.status_address(), "/status")
    }

    /// Whether calls to this address at an interval of 90 s are refused with this minimum.
    pub fn refuses_below(&self, least_s: u32, address: SocketAddr) -> Option<()> {
        let answer = self.cluster.invite(address, 90).ok()?;
        (answer.status == 422 && answer.header("Min-SE") == Some(&least_s.to_string())).then_some(())
    }

    /// Whether every sidecar obeys this policy, from the file that the operator fills.
    pub fn all_obey(&self, policy: &str) -> Option<()> {
        let obeys =
            |pod: &Pod| self.status(pod).is_ok_and(|status| status["policy"] == policy && status["source"] == "File");
        self.pods().is_ok_and(|pods| !pods.is_empty() && pods.iter().all(obeys)).then_some(())
    }

    /// The name of the first init container of each of the application's pods.
    pub fn sidecars(&self) -> Result<Vec<String>> {
        let path = "jsonpath={range .items[*]}{.spec.initContainers[0].name}{'\\n'}{end}";
        let names = self.kubectl(&["get", "pods", "--selector=app=app", "-o", path])?;
        Ok(names.lines().map(str::to_owned).collect())
    }

    /// Waits for something; if it does not come, the error shows what to look at.
    pub fn eventually<T>(&self, what: &str, limit: Duration, ask: impl FnMut() -> Option<T>) -> Result<T> {
        eventually(what, limit, ask).with_context(|| self.look())
    }

    /// What a person would look at first.
    pub fn look(&self) -> String {
        let questions: [&[&str]; 5] = [
            &["get", "sessionpolicies,sidecarconfigs,deployments,pods", "-o", "wide"],
            &["describe", "sessionpolicies"],
            &["get", "events", "--field-selector=type=Warning"],
            &["logs", "deployment/app", "--container=sipwarden", "--tail=20"],
            &["logs", "deployment/app", "--container=app", "--tail=20"],
        ];
        let answers = questions.map(|question| self.kubectl(question).unwrap_or_else(|error| error.to_string()));
        format!("{}\n{}", answers.join("\n"), self.cluster.operator_log())
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
