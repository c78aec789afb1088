//! sipwarden on a real node, installed by Helm and used as its README says: what the operator, the injected sidecars and
//! the charts do together. PodSecurity `restricted` is enforced in every namespace of an application.
//!
//! All tests share one node. Each has a namespace of its own, and all but those that mostly wait have the node for
//! themselves: two cores are not much.

mod abandoned;
mod admission;
mod calls;
mod monitoring;
mod policies;
mod propagation;
mod upgrade;

use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

use sipwarden_cluster::product::Site;
pub(crate) use sipwarden_cluster::product::least;
pub(crate) use sipwarden_cluster::wait::{PATIENCE, SOON};
use sipwarden_cluster::{Cluster, images};

/// The node, with sipwarden.
pub(crate) fn cluster() -> &'static Cluster {
    static NODE: OnceLock<Cluster> = OnceLock::new();
    NODE.get_or_init(|| {
        let started = Instant::now();
        let cluster = Cluster::node().expect("a node starts");
        for image in [images::busybox(), images::sipp(), images::kamailio()] {
            cluster.import(&image.expect("its programs are installed")).expect("containerd takes an OCI archive");
        }
        cluster.install_sipwarden(&[]).expect("the charts install");
        println!("sipwarden installed on a new node after {:.1} s", started.elapsed().as_secs_f64());
        cluster
    })
}

/// A new opted-in namespace.
pub(crate) fn site(namespace: &'static str) -> Site<'static> {
    Site::create(cluster(), namespace).expect("a namespace")
}

/// The node for oneself, whatever became of those before.
pub(crate) fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}
