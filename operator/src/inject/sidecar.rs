//! The container, its volumes, and the credentials in them.
//!
//! It needs no hook for the end: Kubernetes starts a restartable init container before the application and stops it after
//! the last of the application's containers, and until then its readiness keeps the pod's calls coming.

use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use super::{
    annotations::{AppAddress, Wishes, lesser},
    names,
    patch::Edits,
    ports::Takeover,
    sidecar_of,
};

/// The sidecar, as JSON that Kubernetes knows.
pub(super) fn container(pod: &Pod, wishes: &Wishes, takeover: &Takeover, secrets: &[String]) -> Value {
    let mut container = json!({
        "name": names::CONTAINER,
        "image": wishes.image,
        "restartPolicy": "Always",
        "command": ["/sipwarden-sidecar"],
        "args": args(wishes, takeover),
        "env": [
            field_env("POD_IP", "status.podIP"),
            field_env("POD_NAME", "metadata.name"),
            field_env("POD_NAMESPACE", "metadata.namespace"),
            field_env("NODE_NAME", "spec.nodeName"),
        ],
        "ports": ports(takeover),
        "startupProbe": probe("/readyz", 1, 60),
        "readinessProbe": probe("/readyz", 5, 3),
        "livenessProbe": probe("/livez", 10, 3),
        "resources": resources(pod, wishes),
        "securityContext": {
            "runAsNonRoot": true,
            "runAsUser": 65532,
            "readOnlyRootFilesystem": true,
            "allowPrivilegeEscalation": false,
            "capabilities": { "drop": ["ALL"] },
            "seccompProfile": { "type": "RuntimeDefault" },
        },
        "volumeMounts": volume_mounts(secrets),
    });
    if let Some(policy) = &wishes.image_pull_policy {
        container["imagePullPolicy"] = json!(policy);
    }
    container
}

/// The volumes that [`container`] mounts.
pub(super) fn volumes(secrets: &[String]) -> Vec<Value> {
    let mut volumes = vec![
        json!({
            "name": names::CONFIG_VOLUME,
            "downwardAPI": { "items": [{
                "path": "config",
                "fieldRef": { "fieldPath": format!("metadata.annotations['{}']", names::CONFIG) },
            }] },
        }),
        // Room for the last good config and the one that replaces it.
        json!({ "name": names::STATE_VOLUME, "emptyDir": { "sizeLimit": "1Mi" } }),
    ];
    volumes.extend(secrets.iter().enumerate().map(|(index, secret)| credentials_volume(index, secret)));
    volumes
}

/// The Secrets that a config names, each once and in order. A text that is no config names none: the sidecar tells what
/// is wrong with it.
pub(super) fn secrets_of(config: &str) -> Vec<String> {
    let Ok(config) = sipwarden_crds::from_annotation(config) else { return Vec::new() };
    config.secret_names().into_iter().map(str::to_owned).collect()
}

/// Volumes and mounts for Secrets that an injected pod does not have yet.
pub(super) fn add_missing_credentials(pod: &Pod, secrets: &[String], edits: &mut Edits) {
    let Some(sidecar) = sidecar_of(pod) else { return };
    let spec = pod.spec.iter();
    let Some(place) = spec.flat_map(|spec| spec.init_containers.iter().flatten()).position(|it| it == sidecar) else {
        return;
    };
    let mounts = sidecar.volume_mounts.as_deref().unwrap_or_default();
    let missing = secrets.iter().filter(|secret| mounts.iter().all(|mount| mount.mount_path != mount_path(secret)));
    let first_free = mounts.iter().filter(|mount| mount.name.starts_with(names::CREDENTIALS_VOLUME_PREFIX)).count();
    for (index, secret) in (first_free..).zip(missing) {
        edits.volumes(vec![credentials_volume(index, secret)]);
        let path = ["spec", "initContainers", &place.to_string(), "volumeMounts", "-"];
        edits.add(&path, credentials_mount(index, secret));
    }
}

fn args(wishes: &Wishes, takeover: &Takeover) -> Vec<String> {
    let (transport, app_port) = takeover.app().expect("a takeover has at least one port");
    let app_ip = match wishes.app_address {
        AppAddress::Loopback => "127.0.0.1",
        AppAddress::PodIp => "$(POD_IP)",
    };
    let mut args = vec!["run".to_owned()];
    let mut flag = |name: &str, value: String| args.extend([name.to_owned(), value]);
    flag("--policy", "/etc/sipwarden/pod/config".to_owned());
    flag("--last-good", "/var/lib/sipwarden/last-good.json".to_owned());
    for transport in ["udp", "tcp"] {
        flag("--listen", format!("{transport}:$(POD_IP):{}", names::SIP_PORT));
    }
    for transport in ["udp", "tcp"] {
        flag("--app-listen", format!("{transport}:{app_ip}:{}", names::APP_LISTEN_PORT));
    }
    flag("--app", format!("{transport}:{app_ip}:{app_port}"));
    flag("--status", format!("[::]:{}", names::STATUS_PORT));
    flag("--admin", format!("127.0.0.1:{}", names::ADMIN_PORT));
    flag("--log-format", "json".to_owned());
    if let Some(next_hop) = &wishes.next_hop {
        flag("--next-hop", next_hop.clone());
    }
    if let Some(log) = &wishes.log {
        flag("--log", log.clone());
    }
    if let Some((url, ratio)) = &wishes.otlp {
        flag("--otlp", url.clone());
        flag("--otlp-ratio", ratio.clone());
    }
    args
}

fn ports(takeover: &Takeover) -> Vec<Value> {
    let sip = takeover
        .taken
        .iter()
        .map(|port| json!({ "name": port.name, "containerPort": names::SIP_PORT, "protocol": port.protocol }));
    let status = json!({ "name": names::STATUS_PORT_NAME, "containerPort": names::STATUS_PORT, "protocol": "TCP" });
    sip.chain([status]).collect()
}

fn field_env(name: &str, path: &str) -> Value {
    json!({ "name": name, "valueFrom": { "fieldRef": { "fieldPath": path } } })
}

/// In a pod with resources of its own no requests: the API server has filled in the pod's before, and refuses a pod whose
/// containers ask for more. Its limit stands, within the pod's: without one the kubelet would give it the pod's, and it would
/// take all of the application's memory for calls.
fn resources(pod: &Pod, wishes: &Wishes) -> Value {
    let of_pod = pod.spec.as_ref().and_then(|spec| spec.resources.as_ref());
    let of_pod = of_pod.filter(|of_pod| of_pod.requests.is_some() || of_pod.limits.is_some());
    let (cpu_request, memory_request) = match of_pod {
        // Where none are named, limits count as requests.
        Some(_) => ("0", "0"),
        None => (&*wishes.cpu_request, &*wishes.memory_request),
    };
    let pods_limit = of_pod.and_then(|of_pod| of_pod.limits.as_ref()?.get("memory"));
    let memory_limit = pods_limit.map_or(&*wishes.memory_limit, |limit| lesser(&wishes.memory_limit, &limit.0));
    json!({
        "requests": { "cpu": cpu_request, "memory": memory_request },
        "limits": { "memory": memory_limit },
    })
}

/// By name, so that what looks at the pod sees which port it is.
fn probe(path: &str, period_seconds: u32, failure_threshold: u32) -> Value {
    json!({
        "httpGet": { "path": path, "port": names::STATUS_PORT_NAME },
        "periodSeconds": period_seconds,
        "timeoutSeconds": 2,
        "failureThreshold": failure_threshold,
    })
}

fn volume_mounts(secrets: &[String]) -> Vec<Value> {
    let own = [
        json!({ "name": names::CONFIG_VOLUME, "mountPath": "/etc/sipwarden/pod", "readOnly": true }),
        json!({ "name": names::STATE_VOLUME, "mountPath": "/var/lib/sipwarden" }),
    ];
    own.into_iter().chain(secrets.iter().enumerate().map(|(index, secret)| credentials_mount(index, secret))).collect()
}

/// Optional: a Secret that comes later must not keep the pod from starting.
fn credentials_volume(index: usize, secret: &str) -> Value {
    let name = format!("{}{index}", names::CREDENTIALS_VOLUME_PREFIX);
    json!({ "name": name, "secret": { "secretName": secret, "optional": true } })
}

fn credentials_mount(index: usize, secret: &str) -> Value {
    let name = format!("{}{index}", names::CREDENTIALS_VOLUME_PREFIX);
    json!({ "name": name, "mountPath": mount_path(secret), "readOnly": true })
}

fn mount_path(secret: &str) -> String {
    format!("{}/{secret}", names::CREDENTIALS_DIR)
}
