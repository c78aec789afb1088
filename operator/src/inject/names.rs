//! The names that users, pods and operator share.

/// Label on a namespace or pod: [`ENABLED`] or [`DISABLED`].
pub const INJECT: &str = "sipwarden.dev/inject";
/// Asks for sidecars.
pub const ENABLED: &str = "enabled";
/// Asks for none; on a pod it overrules the namespace.
pub const DISABLED: &str = "disabled";
/// Label on a namespace or a ClusterSessionPolicy: the revision of the control plane it belongs to.
pub const REVISION: &str = "sipwarden.dev/rev";
/// The revision of those without that label.
pub const DEFAULT_REVISION: &str = "default";

/// Annotation: names of container ports to take over, separated by commas.
pub const PORT_NAMES: &str = "sipwarden.dev/port-names";
/// The port taken over where the annotation is absent.
pub const DEFAULT_PORT_NAME: &str = "sip";
/// Annotation: where the application listens, `Loopback` or `PodIP`.
pub const APP_ADDRESS: &str = "sipwarden.dev/app-address";
/// Annotation: another image of the sidecar.
pub const IMAGE: &str = "sipwarden.dev/image";
/// Annotation: the sidecar's log filter.
pub const LOG: &str = "sipwarden.dev/log";
/// Annotation: the sidecar's CPU request.
pub const CPU_REQUEST: &str = "sipwarden.dev/cpu-request";
/// Annotation: the sidecar's memory request.
pub const MEMORY_REQUEST: &str = "sipwarden.dev/memory-request";
/// Annotation: the sidecar's memory limit.
pub const MEMORY_LIMIT: &str = "sipwarden.dev/memory-limit";
/// Annotation: where requests of the application without a Route go.
pub const NEXT_HOP: &str = "sipwarden.dev/next-hop";

/// Annotation written: the config in force, which the sidecar reads as a file.
pub const CONFIG: &str = sipwarden_crds::CONFIG_ANNOTATION;
/// Annotation of a SidecarConfig that is kept for a policy: the pods that take it, as [`super::selectors_text`] has it.
pub const POD_SELECTORS: &str = "sipwarden.dev/pod-selectors";
/// Annotation written: the revision that injected.
pub const INJECTED: &str = "sipwarden.dev/injected";
/// Annotation written: when the kubelet was last made to look at the pod again.
pub const NUDGED: &str = "sipwarden.dev/nudged";
/// Label written, so that watches can select pods that have a sidecar.
pub const SIDECAR: &str = "sipwarden.dev/sidecar";
/// Its value.
pub const SIDECAR_INJECTED: &str = "injected";

/// Annotation of kubectl: the container that `logs` and `exec` mean.
pub const DEFAULT_CONTAINER: &str = "kubectl.kubernetes.io/default-container";
/// Annotation of the kubelet on the image of a static pod, which nobody may change.
pub const MIRROR: &str = "kubernetes.io/config.mirror";

/// The sidecar's container.
pub const CONTAINER: &str = "sipwarden";
/// Every volume of ours starts with it.
pub const VOLUME_PREFIX: &str = "sipwarden-";
/// The volume with the config.
pub const CONFIG_VOLUME: &str = "sipwarden-config";
/// The volume with the last good config.
pub const STATE_VOLUME: &str = "sipwarden-state";
/// Volumes with credentials, numbered.
pub const CREDENTIALS_VOLUME_PREFIX: &str = "sipwarden-credentials-";
/// Each Secret with credentials has a folder of its name in it.
pub const CREDENTIALS_DIR: &str = "/etc/sipwarden/credentials";

/// The name of the sidecar's status port.
pub const STATUS_PORT_NAME: &str = "sipwarden-http";
/// Where the network reaches the sidecar.
pub const SIP_PORT: i32 = 15060;
/// Where the application reaches the sidecar.
pub const APP_LISTEN_PORT: i32 = 15070;
/// The admin interface, on loopback.
pub const ADMIN_PORT: i32 = 8642;
/// Probes, metrics and status.
pub const STATUS_PORT: i32 = 8643;
