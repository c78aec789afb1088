//! Statuses, and Events about them.

use std::fmt::Debug;

use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
    jiff::Timestamp,
};
use kube::{
    Api, Resource, ResourceExt,
    api::{Patch, PatchParams},
    runtime::events::EventType,
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::json;
use sipwarden_crds::{ClusterSessionPolicy, SessionPolicy, SidecarConfigObject};

use super::{FIELD_MANAGER, Note, Writer};
use crate::{
    index::{BarePods, Key},
    metrics::Written,
    queue::{Outcome, Task},
    state::Told,
};

pub(super) async fn write(writer: &Writer, task: Task<Told>) -> Outcome {
    let told = match task.key {
        Told::Policy(key) => policy(writer, key).await,
        Told::Config(key) => config(writer, key).await,
        Told::Cluster(name) => cluster(writer, &name).await,
        Told::InjectedWorkload(key) => {
            injected_workload(writer, &key);
            Ok(())
        }
        Told::BareWorkload(key) => {
            bare_workload(writer, &key);
            Ok(())
        }
    };
    told.err().unwrap_or(Outcome::Done)
}

async fn policy(writer: &Writer, key: Key) -> Result<(), Outcome> {
    let now = now();
    let looked = writer.state.look(|index| {
        let (status, observed) = index.policy_status(&key, &now)?;
        let event = news(&status.conditions, &observed.conditions);
        Some((status, event, index.policy_owner(&key)?))
    });
    let Some((status, event, about)) = looked else { return Ok(()) };
    let api: Api<SessionPolicy> = Api::namespaced(writer.client.clone(), &key.namespace);
    apply_status(writer, Written::PolicyStatus, &api, (&key.name, Some(&about.uid)), &status).await?;
    if let Some((reason, note)) = event {
        let namespace = Some(key.namespace.clone());
        writer.events.send(Note { namespace, about, type_: EventType::Warning, reason, note });
    }
    writer.state.update(|index| index.told(&key, status));
    Ok(())
}

async fn config(writer: &Writer, key: Key) -> Result<(), Outcome> {
    let Some(status) = writer.state.look(|index| index.config_status(&key)) else { return Ok(()) };
    let api: Api<SidecarConfigObject> = Api::namespaced(writer.client.clone(), &key.namespace);
    apply_status(writer, Written::ConfigStatus, &api, (&key.name, None), &status).await
}

async fn cluster(writer: &Writer, name: &str) -> Result<(), Outcome> {
    let now = now();
    let looked = writer.state.look(|index| {
        let (status, observed) = index.cluster_status(name, &now)?;
        let event = news(&status.conditions, &observed.conditions);
        Some((status, event, index.cluster_owner(name)?))
    });
    let Some((status, event, about)) = looked else { return Ok(()) };
    let api: Api<ClusterSessionPolicy> = Api::all(writer.client.clone());
    apply_status(writer, Written::ClusterStatus, &api, (name, Some(&about.uid)), &status).await?;
    if let Some((reason, note)) = event {
        writer.events.send(Note { namespace: None, about, type_: EventType::Warning, reason, note });
    }
    Ok(())
}

fn injected_workload(writer: &Writer, key: &Key) {
    if let Some(owner) = writer.state.look(|index| index.workload_owner(key)) {
        writer.events.send(Note::injected(&key.namespace, owner));
    }
}

fn bare_workload(writer: &Writer, key: &Key) {
    let found = writer.state.look(|index| index.bare_pods_of(key));
    let Some(BarePods { owner, missed, refusals }) = found else { return };
    for refusal in refusals {
        writer.events.send(Note::refused(&key.namespace, owner.clone(), &refusal));
    }
    if missed > 0 {
        let note = format!(
            "pods that run without the sidecar they asked for: {missed}; they were made before they asked, or while \
             nothing injected. Make them anew, such as with kubectl rollout restart"
        );
        writer.events.send(Note::skipped(&key.namespace, owner, note));
    }
}

async fn apply_status<K>(
    writer: &Writer,
    written: Written,
    api: &Api<K>,
    (name, uid): (&str, Option<&str>),
    status: &impl Serialize,
) -> Result<(), Outcome>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    let object = json!({
        "apiVersion": K::api_version(&()),
        "kind": K::kind(&()),
        "metadata": { "name": name, "uid": uid },
        "status": status,
    });
    let params = PatchParams::apply(FIELD_MANAGER).force();
    let answer = writer.attempt(written, name, api.patch_status(name, &params, &Patch::Apply(object))).await?;
    tracing::debug!(name = answer.name_any(), kind = written.as_str(), "status written");
    Ok(())
}

/// What people are to be told once, not for as long as it is so.
fn news(status: &[Condition], observed: &[Condition]) -> Option<(&'static str, String)> {
    let new = accepted(status)?;
    let known = accepted(observed);
    let same = known.is_some_and(|known| known.reason == new.reason);
    match new.reason.as_str() {
        "Invalid" if !same || known.map(|known| &known.message) != Some(&new.message) => {
            Some(("PolicyInvalid", new.message.clone()))
        }
        "Conflicted" if !same => Some(("PolicyConflict", new.message.clone())),
        _ => None,
    }
}

fn accepted(conditions: &[Condition]) -> Option<&Condition> {
    conditions.iter().find(|condition| condition.type_ == "Accepted")
}

fn now() -> Time {
    // Kubernetes stores seconds; a finer time would differ from what it gives back.
    Time(Timestamp::from_second(Timestamp::now().as_second()).unwrap_or(Timestamp::UNIX_EPOCH))
}

#[cfg(test)]
mod tests {
    use sipwarden_crds::{Acceptance, Judgement, Programming};

    use super::*;

    fn conditions(acceptance: Acceptance, message: &str) -> Vec<Condition> {
        let programming = (Programming::Pending, String::new());
        let judgement = Judgement { acceptance: (acceptance, message.to_owned()), programming };
        judgement.conditions(1, &[], &now())
    }

    #[test]
    fn only_what_is_new_is_an_event() {
        use Acceptance::{Accepted, Conflicted, Invalid};
        let news = |new: &[Condition], known: &[Condition]| news(new, known).map(|(reason, _)| reason);
        assert_eq!(news(&conditions(Accepted, ""), &[]), None);
        assert_eq!(news(&conditions(Invalid, "a"), &[]), Some("PolicyInvalid"));
        assert_eq!(news(&conditions(Invalid, "a"), &conditions(Invalid, "a")), None);
        assert_eq!(news(&conditions(Invalid, "b"), &conditions(Invalid, "a")), Some("PolicyInvalid"));
        assert_eq!(news(&conditions(Conflicted, "3 pods"), &conditions(Accepted, "")), Some("PolicyConflict"));
        assert_eq!(news(&conditions(Conflicted, "4 pods"), &conditions(Conflicted, "3 pods")), None);
    }
}
