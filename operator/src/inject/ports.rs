//! The ports whose names the sidecar takes over.

use k8s_openapi::{
    api::core::v1::{Container, ContainerPort, LifecycleHandler, Pod, Probe},
    apimachinery::pkg::util::intstr::IntOrString,
};
use serde_json::json;

use super::{
    names,
    patch::Edits,
    skip::{PortFault, Skip},
};

const UDP: &str = "UDP";
const TCP: &str = "TCP";

/// Ports found in a pod, at least one and at most one of each protocol.
#[derive(Debug)]
pub(super) struct Takeover<'a> {
    pub(super) taken: Vec<Taken<'a>>,
    /// The container that has the first of them.
    pub(super) app_container: String,
}

/// A port that loses its name to the sidecar.
#[derive(Debug)]
pub(super) struct Taken<'a> {
    pub(super) name: &'a str,
    pub(super) protocol: &'static str,
    pub(super) number: i32,
    container: &'a Container,
    container_index: usize,
    port_index: usize,
}

impl<'a> Takeover<'a> {
    /// Finds the ports of these names, of which there is at least one.
    pub(super) fn find(pod: &'a Pod, port_names: &'a [String]) -> Result<Self, Skip> {
        check_own_ports(pod)?;
        let containers = pod.spec.as_ref().map_or(&[][..], |spec| &spec.containers);
        let mut taken: Vec<Taken> = Vec::with_capacity(port_names.len());
        for name in port_names {
            let port = find_one(containers, name)?;
            if taken.iter().any(|other| other.protocol == port.protocol) {
                return Err(Skip::UnusablePort { name: name.clone(), fault: PortFault::SecondOfProtocol });
            }
            taken.push(port);
        }
        let app_container = taken.first().map(|port| port.container.name.clone()).unwrap_or_default();
        Ok(Self { taken, app_container })
    }

    /// Where the application is reached: over UDP if it has a port for it, as most SIP applications do.
    pub(super) fn app(&self) -> Option<(&'static str, i32)> {
        let udp = self.taken.iter().find(|port| port.protocol == UDP);
        udp.or(self.taken.first()).map(|port| (if port.protocol == UDP { "udp" } else { "tcp" }, port.number))
    }

    /// Takes the names away, and lets probes and hooks that used them go on with the number.
    pub(super) fn edit(&self, edits: &mut Edits) {
        for port in &self.taken {
            let container = port.container_index.to_string();
            edits.remove(&["spec", "containers", &container, "ports", &port.port_index.to_string(), "name"]);
            for user in users_of(port.container, port.name) {
                edits.replace(&[&["spec", "containers", &container], user.as_slice()].concat(), json!(port.number));
            }
        }
    }
}

/// A declared port tells that the application listens there, on every address of the pod.
fn check_own_ports(pod: &Pod) -> Result<(), Skip> {
    let own = |port: &&ContainerPort| {
        let tcp = protocol_of(port) == Some(TCP);
        match port.container_port {
            names::SIP_PORT | names::APP_LISTEN_PORT => true,
            names::ADMIN_PORT | names::STATUS_PORT => tcp,
            _ => false,
        }
    };
    let spec = pod.spec.iter();
    let containers = spec.flat_map(|spec| spec.containers.iter().chain(spec.init_containers.iter().flatten()));
    match containers.flat_map(|container| container.ports.iter().flatten()).find(own) {
        Some(port) => Err(Skip::PortTaken { port: port.container_port }),
        None => Ok(()),
    }
}

fn find_one<'a>(containers: &'a [Container], name: &'a str) -> Result<Taken<'a>, Skip> {
    let unusable = |fault| Skip::UnusablePort { name: name.to_owned(), fault };
    let mut found = containers.iter().enumerate().flat_map(|(container_index, container)| {
        let ports = container.ports.iter().flatten().enumerate();
        ports
            .filter(|(_, port)| port.name.as_deref() == Some(name))
            .map(move |(port_index, port)| (container_index, container, port_index, port))
    });
    let first = found.next().ok_or_else(|| Skip::NoSuchPort { name: name.to_owned() })?;
    if found.next().is_some() {
        return Err(unusable(PortFault::TwoContainers));
    }
    let (container_index, container, port_index, port) = first;
    if port.host_port.is_some_and(|number| number != 0) {
        return Err(unusable(PortFault::HostPort));
    }
    let protocol = protocol_of(port).ok_or_else(|| unusable(PortFault::Protocol))?;
    Ok(Taken { name, protocol, number: port.container_port, container, container_index, port_index })
}

fn protocol_of(port: &ContainerPort) -> Option<&'static str> {
    match port.protocol.as_deref() {
        Some("UDP") => Some(UDP),
        None | Some("" | "TCP") => Some(TCP),
        Some(_) => None,
    }
}

/// The paths at which a container's probes and hooks name a port of it: the kubelet looks names up in that container only.
fn users_of(container: &Container, name: &str) -> Vec<Vec<&'static str>> {
    let probes = [
        ("startupProbe", &container.startup_probe),
        ("readinessProbe", &container.readiness_probe),
        ("livenessProbe", &container.liveness_probe),
    ];
    let probes = probes.into_iter().filter_map(|(field, probe)| {
        let Probe { http_get, tcp_socket, .. } = probe.as_ref()?;
        Some((vec![field], http_get, tcp_socket))
    });
    let lifecycle = container.lifecycle.iter();
    let hooks = lifecycle.flat_map(|hooks| [("postStart", &hooks.post_start), ("preStop", &hooks.pre_stop)]);
    let hooks = hooks.filter_map(|(field, hook)| {
        let LifecycleHandler { http_get, tcp_socket, .. } = hook.as_ref()?;
        Some((vec!["lifecycle", field], http_get, tcp_socket))
    });
    let named = |port: &IntOrString| matches!(port, IntOrString::String(text) if text == name);
    let mut users = Vec::new();
    for (owner, http_get, tcp_socket) in probes.chain(hooks) {
        if http_get.as_ref().is_some_and(|action| named(&action.port)) {
            users.push([&owner[..], &["httpGet", "port"]].concat());
        }
        if tcp_socket.as_ref().is_some_and(|action| named(&action.port)) {
            users.push([&owner[..], &["tcpSocket", "port"]].concat());
        }
    }
    users
}
