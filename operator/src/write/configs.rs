//! The SidecarConfig of a workload.

use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams, Preconditions},
};
use sipwarden_crds::SidecarConfigObject;

use super::{FIELD_MANAGER, Writer};
use crate::{
    index::{ConfigChange, Key},
    metrics::Written,
    queue::{Outcome, Task},
};

pub(super) async fn write(writer: &Writer, Task { key, .. }: Task<Key>) -> Outcome {
    let Some(change) = writer.state.look(|index| index.config_change(&key)) else { return Outcome::Done };
    let api: Api<SidecarConfigObject> = Api::namespaced(writer.client.clone(), &key.namespace);
    let written = match change {
        ConfigChange::Apply(object) => {
            let params = PatchParams::apply(FIELD_MANAGER).force();
            let patch = Patch::Apply(object);
            writer.attempt(Written::Config, &key.name, api.patch_metadata(&key.name, &params, &patch)).await.map(drop)
        }
        ConfigChange::Delete { uid } => {
            let only = Preconditions { uid: Some(uid), resource_version: None };
            let params = DeleteParams { preconditions: Some(only), ..DeleteParams::default() };
            writer.attempt(Written::Config, &key.name, api.delete(&key.name, &params)).await.map(drop)
        }
    };
    written.err().unwrap_or(Outcome::Done)
}
