//! The watchdog's eyes: running pods that have no sidecar, in namespaces where they should, or with a label of their own.
//!
//! A watch for each opted-in namespace is narrow; beyond [`MAX_NAMESPACES`] connections one watch of the whole cluster is
//! the cheaper one. What is read beside metadata is judged and dropped.

use std::collections::{BTreeSet, HashMap};

use k8s_openapi::api::core::v1::Pod;
use kube::{Api, api::ApiResource, runtime::watcher::watcher as kube_watcher};
use tokio::task::JoinHandle;

use super::{
    Watcher, config,
    objects::{BarePod, bare_pod_facts},
};
use crate::{
    index::{Index, Key},
    inject::names,
    state::Watched,
};

/// Watched one by one; each takes a connection.
const MAX_NAMESPACES: usize = 64;
/// Before, the pod may not have been admitted for long; after, it is of no interest.
const RUNNING: &str = "status.phase=Running";
/// Namespaces whose pods no injector touches, as in the chart, beside the operator's own.
const UNTOUCHED: [&str; 2] = ["kube-system", "kube-node-lease"];

/// Which pods one watch sees. No pod is in two of them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Scope {
    /// Pods that ask for themselves, wherever they are.
    Asking,
    /// Pods that leave it to their namespace, in this one.
    Namespace(String),
    /// Pods that leave it to their namespace, in all of them.
    Cluster,
}

/// Watches what should be watched, which changes with the namespaces.
pub(super) async fn run(watcher: Watcher) {
    let mut opted_in = watcher.state.opted_in();
    let mut running = Running(HashMap::new());
    loop {
        let wanted = scopes(&opted_in.borrow_and_update(), &watcher.namespace);
        let unwanted: Vec<Scope> = running.0.keys().filter(|scope| !wanted.contains(scope)).cloned().collect();
        for scope in unwanted {
            if let Some(task) = running.0.remove(&scope) {
                task.abort();
                // Nothing is fed to the index once the task has ended.
                let _ended = task.await;
                watcher.state.update(|index| forget(index, &scope));
            }
        }
        for scope in wanted {
            let start = || tokio::spawn(follow(watcher.clone(), scope.clone()));
            running.0.entry(scope.clone()).or_insert_with(start);
        }
        if opted_in.changed().await.is_err() {
            return;
        }
    }
}

/// Tasks that end with it.
struct Running(HashMap<Scope, JoinHandle<()>>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.values().for_each(JoinHandle::abort);
    }
}

fn scopes(opted_in: &BTreeSet<String>, own: &str) -> Vec<Scope> {
    let mut scopes = vec![Scope::Asking];
    if opted_in.len() > MAX_NAMESPACES {
        scopes.push(Scope::Cluster);
    } else {
        let touched = opted_in.iter().filter(|name| untouched(own).all(|untouched| untouched != *name));
        scopes.extend(touched.cloned().map(Scope::Namespace));
    }
    scopes
}

fn untouched(own: &str) -> impl Iterator<Item = &str> {
    UNTOUCHED.into_iter().chain([own])
}

fn label_selector(scope: &Scope) -> String {
    let bare = format!("{}!={}", names::SIDECAR, names::SIDECAR_INJECTED);
    match scope {
        Scope::Asking => format!("{bare},{}={}", names::INJECT, names::ENABLED),
        Scope::Namespace(_) | Scope::Cluster => {
            format!("{bare},{} notin ({},{})", names::INJECT, names::ENABLED, names::DISABLED)
        }
    }
}

fn field_selector(own: &str) -> String {
    untouched(own).fold(RUNNING.to_owned(), |selector, name| format!("{selector},metadata.namespace!={name}"))
}

fn forget(index: &mut Index, scope: &Scope) {
    match scope {
        Scope::Asking => {}
        Scope::Namespace(name) => index.forget_bare_pods(Some(name)),
        Scope::Cluster => index.forget_bare_pods(None),
    }
}

async fn follow(watcher: Watcher, scope: Scope) {
    let resource = ApiResource::erase::<Pod>(&());
    let api: Api<BarePod> = match &scope {
        Scope::Namespace(name) => Api::namespaced_with(watcher.client.clone(), name, &resource),
        Scope::Asking | Scope::Cluster => Api::all_with(watcher.client.clone(), &resource),
    };
    let (labels, fields) = (label_selector(&scope), field_selector(&watcher.namespace));
    // Others count for as long as the process, but this one ends with its namespaces.
    let _ending = watcher.pulse.ending(api.resource_url(), &labels);
    let stream = kube_watcher(api, config().labels(&labels).fields(&fields));
    watcher
        .follow(
            Watched::BarePods,
            stream,
            |pod: &BarePod| Key::of(&pod.metadata),
            |index, key, pod| {
                let (facts, refusal) = bare_pod_facts(pod, &watcher.settings);
                index.bare_pod(key, facts, refusal);
            },
            Index::remove_bare_pod,
        )
        .await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_namespaces_are_watched_as_one_cluster() {
        let names = |count: usize| (0..count).map(|number| format!("n{number}")).collect();
        let scopes = |opted_in| scopes(&opted_in, "sipwarden-system");
        assert_eq!(scopes(names(0)), [Scope::Asking]);
        assert_eq!(scopes(names(1)), [Scope::Asking, Scope::Namespace("n0".to_owned())]);
        assert_eq!(scopes(names(MAX_NAMESPACES)).len(), MAX_NAMESPACES + 1);
        assert_eq!(scopes(names(MAX_NAMESPACES + 1)), [Scope::Asking, Scope::Cluster]);
    }

    #[test]
    fn only_namespaces_that_injectors_touch_are_watched() {
        let opted_in = ["kube-system", "sipwarden-system", "voice"].map(str::to_owned).into();
        let watched = scopes(&opted_in, "sipwarden-system");
        assert_eq!(watched, [Scope::Asking, Scope::Namespace("voice".to_owned())]);
        assert_eq!(
            field_selector("sipwarden-system"),
            "status.phase=Running,metadata.namespace!=kube-system,metadata.namespace!=kube-node-lease,\
             metadata.namespace!=sipwarden-system"
        );
    }
}
