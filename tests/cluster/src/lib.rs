//! A real Kubernetes for tests, without Docker and without anything of the host's.
//!
//! [`Cluster::api_only`] is etcd and kube-apiserver on loopback ports, ready in about three seconds: for what needs
//! the real API (schemas, CEL, admission, server-side apply, watches) and no pods. No controllers run in it: nothing
//! makes service accounts, owners' objects are not collected, and a deleted namespace stays `Terminating`.
//!
//! [`Cluster::node`] is a whole node: etcd, API server, controller manager, scheduler, containerd, kubelet, kube-proxy
//! and CoreDNS, in namespaces of its own (network, mounts, processes). It needs root. Nothing can be pulled, so
//! [`images`] makes images from programs of this machine, [`Cluster::import`] and [`Cluster::import_image`] hand them to
//! containerd, and pods say `imagePullPolicy: Never`.
//!
//! A test on a node reads:
//!
//! ```no_run
//! use sipwarden_cluster::{Cluster, images};
//!
//! # fn main() -> anyhow::Result<()> {
//! let cluster = Cluster::node()?;
//! cluster.import(&images::sipp()?)?;
//! cluster.apply("apiVersion: v1\nkind: Namespace\nmetadata: {name: voice}\n")?;
//! cluster.kubectl(&["-n", "voice", "run", "uas", "--image", images::SIPP, "--image-pull-policy", "Never"])?;
//! cluster.kubectl(&["-n", "voice", "wait", "--for", "condition=Ready", "pod/uas", "--timeout", "30s"])?;
//! # Ok(())
//! # }
//! ```
//!
//! One test binary starts one node and its test functions share it (`static NODE: OnceLock<Cluster>`), or one function
//! goes through ordered steps. A cluster ends with the process that started it, however that ends: the process that
//! holds its namespaces reads a pipe, and the kernel kills everything in a process namespace whose first process is
//! gone. What remains of such a run (a directory, empty cgroups) the next start removes; of the last runs the logs
//! stay. Errors name the directory of the logs.
//!
//! Outages: [`Cluster::kill`] and [`Cluster::start`] for components, [`Cluster::kill_container`] for containers. Users with
//! rights of their own: [`Cluster::account`]. Thousands
//! of pods that nobody runs: `start(Component::Kwok)`. Packets and HTTP from the test itself: [`Cluster::in_network`],
//! [`Cluster::command`].
//!
//! The operator against an API server alone: [`OperatorProcess`]. sipwarden itself on a node: [`Cluster::install_sipwarden`] and [`product::Site`]; calls: [`Cluster::invite`] and
//! [`Cluster::call`].
//!
//! Programs are found by [`tools`]: built from Go modules into the user's cache, or Debian packages. Those of this repository
//! are built by [`workspace::built`].

mod account;
mod caller;
mod cluster;
mod component;
mod containers;
pub mod http;
mod image;
pub mod images;
mod layout;
mod node;
mod operator;
mod pki;
pub mod product;
mod run;
mod sandbox;
pub mod tools;
pub mod wait;
pub mod workspace;

pub use caller::{Answer, Call};
pub use cluster::Cluster;
pub use component::Component;
pub use image::Image;
pub use operator::{OperatorProcess, operator_program};
