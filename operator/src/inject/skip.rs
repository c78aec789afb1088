//! Why a pod stays without a sidecar.

use thiserror::Error;

use super::names;

/// Why a pod stays as it is. The text is for the person who made the pod, and says what to change.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Skip {
    /// Neither pod nor namespace asks for a sidecar.
    #[error("neither the pod nor its namespace has the label {}={}", names::INJECT, names::ENABLED)]
    NotOptedIn,
    /// The pod, or its namespace, wants none.
    #[error("the label {}={} says so", names::INJECT, names::DISABLED)]
    Disabled,
    /// The namespace belongs to another control plane.
    #[error("the namespace's label {} names another revision", names::REVISION)]
    OtherRevision,
    /// The sidecar is there, and its config is up to date.
    #[error("the pod has its sidecar already")]
    AlreadyInjected,
    /// The kubelet made it from a file.
    #[error("it is the mirror of a static pod, which cannot be changed")]
    MirrorPod,
    /// Ports of the node would be taken.
    #[error("it has hostNetwork, where the sidecar's ports would be the node's; use the pod's own network")]
    HostNetwork,
    /// Not Linux.
    #[error("its os is not linux, which the sidecar's image is for")]
    OtherOs,
    /// Nothing to take over.
    #[error("no container has a port named {name}; name the SIP port so, or list its name in {}", names::PORT_NAMES)]
    NoSuchPort {
        /// The name looked for.
        name: String,
    },
    /// A port that cannot be taken over.
    #[error("port {name} {fault}")]
    UnusablePort {
        /// Its name.
        name: String,
        /// What is in the way.
        fault: PortFault,
    },
    /// Another container has a port of the sidecar.
    #[error("a container has port {port}, which the sidecar needs; let it listen elsewhere")]
    PortTaken {
        /// Its number.
        port: i32,
    },
    /// A name of ours is in use.
    #[error("it has a {what} of a name that the sidecar needs: sipwarden, or sipwarden-… for volumes; rename it")]
    NameTaken {
        /// `container` or `volume`.
        what: &'static str,
    },
    /// An annotation that cannot be obeyed.
    #[error("annotation {name}: {message}")]
    BadAnnotation {
        /// Which.
        name: &'static str,
        /// What it should say.
        message: String,
    },
}

/// What is wrong with a port that was to be taken over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum PortFault {
    /// The node's port would lead past the sidecar.
    #[error("has a hostPort, which would lead past the sidecar; remove it and use a Service")]
    HostPort,
    /// Neither UDP nor TCP.
    #[error("is neither UDP nor TCP")]
    Protocol,
    /// Two containers have the name.
    #[error("exists in two containers; give each its own name")]
    TwoContainers,
    /// The sidecar has one port for each protocol.
    #[error("is the second of its protocol; one UDP and one TCP port can be taken over")]
    SecondOfProtocol,
}

/// [`Skip`] without its details: the value of a label of metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SkipReason {
    /// See [`Skip::NotOptedIn`].
    NotOptedIn,
    /// See [`Skip::Disabled`].
    Disabled,
    /// See [`Skip::OtherRevision`].
    OtherRevision,
    /// See [`Skip::AlreadyInjected`].
    AlreadyInjected,
    /// See [`Skip::MirrorPod`].
    MirrorPod,
    /// See [`Skip::HostNetwork`].
    HostNetwork,
    /// See [`Skip::OtherOs`].
    OtherOs,
    /// See [`Skip::NoSuchPort`].
    NoSuchPort,
    /// See [`Skip::UnusablePort`].
    UnusablePort,
    /// See [`Skip::PortTaken`].
    PortTaken,
    /// See [`Skip::NameTaken`].
    NameTaken,
    /// See [`Skip::BadAnnotation`].
    BadAnnotation,
}

impl Skip {
    /// Its kind.
    pub fn reason(&self) -> SkipReason {
        match self {
            Self::NotOptedIn => SkipReason::NotOptedIn,
            Self::Disabled => SkipReason::Disabled,
            Self::OtherRevision => SkipReason::OtherRevision,
            Self::AlreadyInjected => SkipReason::AlreadyInjected,
            Self::MirrorPod => SkipReason::MirrorPod,
            Self::HostNetwork => SkipReason::HostNetwork,
            Self::OtherOs => SkipReason::OtherOs,
            Self::NoSuchPort { .. } => SkipReason::NoSuchPort,
            Self::UnusablePort { .. } => SkipReason::UnusablePort,
            Self::PortTaken { .. } => SkipReason::PortTaken,
            Self::NameTaken { .. } => SkipReason::NameTaken,
            Self::BadAnnotation { .. } => SkipReason::BadAnnotation,
        }
    }
}

impl SkipReason {
    /// All of them, in the order of their declaration.
    pub const ALL: [Self; 12] = [
        Self::NotOptedIn,
        Self::Disabled,
        Self::OtherRevision,
        Self::AlreadyInjected,
        Self::MirrorPod,
        Self::HostNetwork,
        Self::OtherOs,
        Self::NoSuchPort,
        Self::UnusablePort,
        Self::PortTaken,
        Self::NameTaken,
        Self::BadAnnotation,
    ];

    /// The pod asked for a sidecar and does not get one: worth a warning and an Event.
    pub fn is_refusal(self) -> bool {
        !matches!(self, Self::NotOptedIn | Self::Disabled | Self::OtherRevision | Self::AlreadyInjected)
    }

    /// As in metrics and Events.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotOptedIn => "NotOptedIn",
            Self::Disabled => "Disabled",
            Self::OtherRevision => "OtherRevision",
            Self::AlreadyInjected => "AlreadyInjected",
            Self::MirrorPod => "MirrorPod",
            Self::HostNetwork => "HostNetwork",
            Self::OtherOs => "OtherOs",
            Self::NoSuchPort => "NoSuchPort",
            Self::UnusablePort => "UnusablePort",
            Self::PortTaken => "PortTaken",
            Self::NameTaken => "NameTaken",
            Self::BadAnnotation => "BadAnnotation",
        }
    }
}
