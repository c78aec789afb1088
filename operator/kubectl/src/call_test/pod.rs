//! The pod that calls, and what it calls.

use k8s_openapi::api::core::v1::{Pod, Service, ServicePort};
use serde_json::json;
use sipwarden_operator::inject::{
    names::{DEFAULT_PORT_NAME, DISABLED, INJECT},
    sidecar_of,
};

use crate::{cli::CallTestArgs, output::clean};

/// What the sidecar's image is, and how its pod gets it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Image {
    name: String,
    pull_policy: Option<String>,
    pull_secrets: Vec<String>,
}

impl Image {
    pub(super) fn named(name: &str) -> Self {
        Self { name: name.to_owned(), pull_policy: None, pull_secrets: Vec::new() }
    }

    pub(super) fn of_sidecar(pod: &Pod) -> Option<Self> {
        let sidecar = sidecar_of(pod)?;
        let secrets = pod.spec.iter().flat_map(|spec| spec.image_pull_secrets.iter().flatten());
        Some(Self {
            name: sidecar.image.clone()?,
            pull_policy: sidecar.image_pull_policy.clone(),
            pull_secrets: secrets.map(|secret| secret.name.clone()).collect(),
        })
    }
}

/// `udp:10.96.0.7:5060`: the port of this name or number; without one the port named `sip`, or the only one.
pub(super) fn target(service: &Service, port: Option<&str>) -> Result<String, String> {
    let spec = service.spec.clone().unwrap_or_default();
    let (name, namespace) = (service.metadata.name.as_deref(), service.metadata.namespace.as_deref());
    let ports = spec.ports.unwrap_or_default();
    let is_meant = |candidate: &&ServicePort| match port {
        Some(port) => candidate.name.as_deref() == Some(port) || candidate.port.to_string() == port,
        None => candidate.name.as_deref() == Some(DEFAULT_PORT_NAME),
    };
    let meant = ports.iter().find(is_meant).or_else(|| ports.first().filter(|_| port.is_none() && ports.len() == 1));
    let Some(meant) = meant else {
        let known = ports.iter().map(|port| port.name.clone().unwrap_or_else(|| port.port.to_string()));
        let known = known.collect::<Vec<_>>().join(", ");
        return Err(format!("which port of the Service is meant? It has {known}; say it by --port"));
    };
    let transport = match meant.protocol.as_deref() {
        None | Some("TCP") => "tcp",
        Some("UDP") => "udp",
        Some(other) => return Err(format!("port {} is neither UDP nor TCP but {other}", meant.port)),
    };
    let host = match spec.cluster_ip.as_deref() {
        // A Service without an address of its own has one name for all its pods.
        None | Some("" | "None") => format!("{}.{}.svc", name.unwrap_or_default(), namespace.unwrap_or_default()),
        Some(address) if address.contains(':') => format!("[{address}]"),
        Some(address) => address.to_owned(),
    };
    Ok(format!("{transport}:{host}:{}", meant.port))
}

/// It takes nothing of the namespace and leaves nothing: no token, no sidecar of its own, an end whatever happens.
pub(super) fn caller(namespace: &str, target: &str, image: &Image, args: &CallTestArgs) -> Pod {
    let mut arguments = vec!["call".to_owned(), target.to_owned(), "--output".to_owned(), "json".to_owned()];
    let mut flag = |name: &str, value: &Option<String>| {
        arguments.extend(value.iter().flat_map(|value| [format!("--{name}"), value.clone()]));
    };
    flag("uri", &args.uri);
    flag("session-expires", &args.session_expires.map(|interval| interval.to_string()));
    let secrets = image.pull_secrets.iter().map(|name| json!({ "name": name }));
    let pod = json!({
        "metadata": {
            "name": format!("sipwarden-call-test-{}", std::process::id()),
            "namespace": namespace,
            "labels": {
                "app.kubernetes.io/name": "sipwarden", "app.kubernetes.io/component": "call-test", INJECT: DISABLED,
            },
        },
        "spec": {
            "restartPolicy": "Never",
            "activeDeadlineSeconds": args.timeout_s,
            "terminationGracePeriodSeconds": 1,
            "automountServiceAccountToken": false,
            "enableServiceLinks": false,
            "imagePullSecrets": secrets.collect::<Vec<_>>(),
            "securityContext": {
                "runAsNonRoot": true, "runAsUser": 65532, "runAsGroup": 65532,
                "seccompProfile": { "type": "RuntimeDefault" },
            },
            "containers": [{
                "name": "call",
                "image": image.name,
                "imagePullPolicy": image.pull_policy,
                "command": ["/sipwarden-sidecar"],
                "args": arguments,
                "resources": { "requests": { "cpu": "10m", "memory": "24Mi" }, "limits": { "memory": "128Mi" } },
                "securityContext": {
                    "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true,
                    "capabilities": { "drop": ["ALL"] },
                },
            }],
        },
    });
    serde_json::from_value(pod).expect("it is a pod")
}

pub(super) fn has_ended(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

/// Why it has not ended, as far as Kubernetes tells.
pub(super) fn state(pod: &Pod) -> String {
    let status = pod.status.clone().unwrap_or_default();
    let containers = status.container_statuses.iter().flatten();
    let waiting = containers.filter_map(|container| container.state.as_ref()?.waiting.as_ref()).next();
    let told = waiting.map(|waiting| (waiting.reason.clone(), waiting.message.clone()));
    let unscheduled = status.conditions.iter().flatten().find(|condition| condition.status == "False");
    let told = told.or_else(|| unscheduled.map(|condition| (condition.reason.clone(), condition.message.clone())));
    let (reason, message) = told.unwrap_or_default();
    let text = [Some(status.phase.unwrap_or_else(|| "no phase".to_owned())), reason, message];
    clean(&text.into_iter().flatten().collect::<Vec<_>>().join(", ")).into_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn service(address: &str, ports: Value) -> Service {
        serde_json::from_value(json!({
            "metadata": { "name": "pbx", "namespace": "voice" }, "spec": { "clusterIP": address, "ports": ports },
        }))
        .unwrap()
    }

    #[test]
    fn the_port_named_sip_is_called_or_the_only_one_or_the_one_that_is_named() {
        let two = json!([{ "name": "web", "port": 80 }, { "name": "sip", "port": 5060, "protocol": "UDP" }]);
        let both = service("10.96.0.7", two);
        assert_eq!(target(&both, None).unwrap(), "udp:10.96.0.7:5060");
        assert_eq!(target(&both, Some("web")).unwrap(), "tcp:10.96.0.7:80");
        assert_eq!(target(&both, Some("80")).unwrap(), "tcp:10.96.0.7:80");
        assert!(target(&both, Some("rtp")).unwrap_err().contains("It has web, sip"));
        let one = json!([{ "port": 5062, "protocol": "UDP" }]);
        assert_eq!(target(&service("fd00::7", one.clone()), None).unwrap(), "udp:[fd00::7]:5062");
        assert_eq!(target(&service("None", one), None).unwrap(), "udp:pbx.voice.svc:5062");
        assert!(target(&service("10.0.0.1", json!([{ "port": 1, "protocol": "SCTP" }])), None).is_err());
    }

    #[test]
    fn the_calling_pod_asks_for_nothing() {
        let sidecar: Pod = serde_json::from_value(json!({
            "metadata": { "annotations": { "sipwarden.dev/injected": "default" } },
            "spec": {
                "containers": [], "imagePullSecrets": [{ "name": "registry" }],
                "initContainers": [{ "name": "sipwarden", "image": "sipwarden:1", "imagePullPolicy": "Never" }],
            },
        }))
        .unwrap();
        let image = Image::of_sidecar(&sidecar).unwrap();
        let args = CallTestArgs { uri: Some("sip:600@pbx".to_owned()), timeout_s: 60, ..CallTestArgs::default() };
        let pod = serde_json::to_value(caller("voice", "udp:10.0.0.1:5060", &image, &args)).unwrap();
        assert_eq!(pod["metadata"]["labels"][INJECT], DISABLED, "no sidecar of its own stands in between");
        let spec = &pod["spec"];
        assert_eq!(
            spec["containers"][0]["args"],
            json!(["call", "udp:10.0.0.1:5060", "--output", "json", "--uri", "sip:600@pbx"])
        );
        assert_eq!(
            (&spec["containers"][0]["image"], &spec["imagePullSecrets"][0]["name"]),
            (&json!("sipwarden:1"), &json!("registry"))
        );
        assert_eq!(spec["automountServiceAccountToken"], false);
        assert_eq!(spec["activeDeadlineSeconds"], 60);
    }

    #[test]
    fn why_a_pod_does_not_run_is_told() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {},
            "status": { "phase": "Pending", "containerStatuses": [{
                "name": "call", "image": "i", "imageID": "", "ready": false, "restartCount": 0,
                "state": { "waiting": { "reason": "ErrImagePull", "message": "not found" } },
            }] },
        }))
        .unwrap();
        assert_eq!(state(&pod), "Pending, ErrImagePull, not found");
    }
}
