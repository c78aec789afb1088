//! Applications for an opted-in namespace. They say nothing of sipwarden, and PodSecurity `restricted` admits them.

use serde_json::{Value, json};

use crate::images;

/// What runs beside the sidecar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum App {
    /// SIPp, which answers calls and knows no session timers.
    Sip,
    /// Kamailio, a proxy of two addresses that routes calls on: to SIPp, in a pod without sidecar behind the Service
    /// `callee`.
    Kamailio,
    /// Nothing that answers: what the sidecar decides alone can be seen.
    Idle,
}

const SCENARIO: &str = "/app/callee.xml";
const PORT: u16 = 5060;

impl App {
    /// Its files, its Deployment of this name, whose pods have the label `app` with it, and whom it needs.
    pub(crate) fn objects(self, namespace: &str, name: &str, replicas: u32) -> impl Iterator<Item = Value> {
        let files = json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "app", "namespace": namespace },
            "data": { "callee.xml": include_str!("callee.xml"), "kamailio.cfg": include_str!("kamailio.cfg") },
        });
        let others = if self == App::Kamailio { callee(namespace) } else { Vec::new() };
        let app = deployment(namespace, name, &json!({ "app": name }), replicas, &self.container());
        [files].into_iter().chain(others).chain([app])
    }

    fn container(self) -> Value {
        match self {
            // The sidecar is the only one to call it.
            App::Sip => container(images::SIPP, &json!(["-sf", SCENARIO, "-nostdin", "-i", "127.0.0.1", "-p", "5060"])),
            App::Kamailio => container(
                images::KAMAILIO,
                &json!(["-f", "/app/kamailio.cfg", "-Y", "/tmp", "-w", "/tmp", "-m", "16", "-M", "4"]),
            ),
            App::Idle => container(images::BUSYBOX, &json!(["-c", "sleep 3600"])),
        }
    }
}

/// A user agent of another party that Kamailio routes to.
fn callee(namespace: &str) -> Vec<Value> {
    let labels = json!({ "app": "callee", "sipwarden.dev/inject": "disabled" });
    let container = container(images::SIPP, &json!(["-sf", SCENARIO, "-nostdin", "-p", "5060"]));
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": { "name": "callee", "namespace": namespace },
        "spec": {
            "selector": { "app": "callee" },
            "ports": [{ "name": "sip", "port": PORT, "targetPort": "sip", "protocol": "UDP" }],
        },
    });
    vec![deployment(namespace, "callee", &labels, 1, &container), service]
}

fn container(image: &str, arguments: &Value) -> Value {
    json!({
        "name": "app", "image": image, "imagePullPolicy": "Never", "args": arguments, "workingDir": "/tmp",
        "ports": [{ "name": "sip", "containerPort": PORT, "protocol": "UDP" }],
        "securityContext": { "allowPrivilegeEscalation": false, "capabilities": { "drop": ["ALL"] } },
        "volumeMounts": [{ "name": "app", "mountPath": "/app" }],
    })
}

fn deployment(namespace: &str, name: &str, labels: &Value, replicas: u32, container: &Value) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": name, "namespace": namespace },
        "spec": {
            "replicas": replicas,
            "selector": { "matchLabels": { "app": name } },
            "template": {
                "metadata": { "labels": labels },
                "spec": {
                    "terminationGracePeriodSeconds": 1,
                    "securityContext": {
                        "runAsNonRoot": true, "runAsUser": 65532, "seccompProfile": { "type": "RuntimeDefault" },
                    },
                    "containers": [container],
                    "volumes": [{ "name": "app", "configMap": { "name": "app" } }],
                },
            },
        },
    })
}
