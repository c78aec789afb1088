//! A JSON patch that grows edit by edit, against a pod as it came.

use std::collections::BTreeMap;

use json_patch::{AddOperation, Patch, PatchOperation, RemoveOperation, ReplaceOperation, jsonptr::PointerBuf};
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

/// Edits of one pod. A list or map that the pod lacks is made by the first edit that needs it.
pub(super) struct Edits<'a> {
    labels: Meta<'a>,
    annotations: Meta<'a>,
    has_init_containers: bool,
    has_volumes: bool,
    operations: Vec<PatchOperation>,
}

/// Labels or annotations.
struct Meta<'a> {
    field: &'static str,
    existing: Option<&'a BTreeMap<String, String>>,
    made: bool,
}

impl<'a> Edits<'a> {
    pub(super) fn new(pod: &'a Pod) -> Self {
        let spec = pod.spec.as_ref();
        Self {
            labels: Meta { field: "labels", existing: pod.metadata.labels.as_ref(), made: false },
            annotations: Meta { field: "annotations", existing: pod.metadata.annotations.as_ref(), made: false },
            has_init_containers: spec.is_some_and(|spec| spec.init_containers.is_some()),
            has_volumes: spec.is_some_and(|spec| spec.volumes.is_some()),
            operations: Vec::new(),
        }
    }

    pub(super) fn label(&mut self, key: &str, value: &str) {
        self.labels.set(key, value, &mut self.operations);
    }

    pub(super) fn annotation(&mut self, key: &str, value: &str) {
        self.annotations.set(key, value, &mut self.operations);
    }

    pub(super) fn first_init_container(&mut self, container: Value) {
        let (path, value): (&[&str], _) = match self.has_init_containers {
            true => (&["spec", "initContainers", "0"], container),
            false => (&["spec", "initContainers"], json!([container])),
        };
        self.has_init_containers = true;
        self.add(path, value);
    }

    pub(super) fn volumes(&mut self, volumes: Vec<Value>) {
        for volume in volumes {
            let (path, value): (&[&str], _) = match self.has_volumes {
                true => (&["spec", "volumes", "-"], volume),
                false => (&["spec", "volumes"], json!([volume])),
            };
            self.has_volumes = true;
            self.add(path, value);
        }
    }

    pub(super) fn add(&mut self, path: &[&str], value: Value) {
        self.operations.push(add(path, value));
    }

    pub(super) fn replace(&mut self, path: &[&str], value: Value) {
        self.operations.push(PatchOperation::Replace(ReplaceOperation {
            path: PointerBuf::from_tokens(path.iter().copied()),
            value,
        }));
    }

    pub(super) fn remove(&mut self, path: &[&str]) {
        self.operations
            .push(PatchOperation::Remove(RemoveOperation { path: PointerBuf::from_tokens(path.iter().copied()) }));
    }

    pub(super) fn into_patch(self) -> Patch {
        Patch(self.operations)
    }
}

impl Meta<'_> {
    fn set(&mut self, key: &str, value: &str, operations: &mut Vec<PatchOperation>) {
        if self.existing.and_then(|existing| existing.get(key)).is_some_and(|existing| existing == value) {
            return;
        }
        if self.existing.is_none() && !self.made {
            self.made = true;
            operations.push(add(&["metadata", self.field], json!({})));
        }
        operations.push(add(&["metadata", self.field, key], json!(value)));
    }
}

fn add(path: &[&str], value: Value) -> PatchOperation {
    PatchOperation::Add(AddOperation { path: PointerBuf::from_tokens(path.iter().copied()), value })
}
