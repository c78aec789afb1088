//! From the JSON of one object to its type, by its kind.

use std::sync::LazyLock;

use kube::CustomResourceExt;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use serde_path_to_error::Segment;

use super::{Faults, shape, tree::join};
use crate::{
    API_VERSION,
    cluster::ClusterSessionPolicy,
    compile::{check_config, compile},
    config::{SidecarConfig, SidecarConfigObject},
    policy::SessionPolicy,
};

/// The kinds that a sidecar obeys.
pub(super) const OBEYED_KINDS: [Kind; 2] = [Kind::SessionPolicy, Kind::SidecarConfig];

/// The kinds there are.
pub(super) const ANY_KIND: [Kind; 3] = [Kind::SessionPolicy, Kind::ClusterSessionPolicy, Kind::SidecarConfig];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    SessionPolicy,
    ClusterSessionPolicy,
    SidecarConfig,
}

/// An object that was read and judged.
pub(super) enum Object {
    SessionPolicy(Box<SessionPolicy>, SidecarConfig),
    ClusterSessionPolicy,
    SidecarConfig(SidecarConfig),
}

/// The object, which is to be one of `kinds`. Without a fault added it is there, and valid.
pub(super) fn read(value: Value, kinds: &[Kind], faults: &mut Faults) -> Option<Object> {
    let Value::Object(mut object) = value else {
        faults.add("", "expected a SessionPolicy with apiVersion, kind, metadata and spec");
        return None;
    };
    if object.remove("apiVersion").as_ref().and_then(Value::as_str) != Some(API_VERSION) {
        faults.add("apiVersion", format!("expected {API_VERSION}"));
    }
    let kind = object.remove("kind");
    let Some(kind) = kinds.iter().find(|known| kind.as_ref().and_then(Value::as_str) == Some(known.name())) else {
        faults.add("kind", format!("expected {}", shape::one_of(kinds.iter().map(|kind| kind.name()))));
        return None;
    };
    if *kind == Kind::SidecarConfig {
        // One in a file needs no name of its own: it says which policy it is.
        object.entry("metadata").or_insert_with(|| json!({}));
    }
    let mut object = Value::from(object);
    shape::check(&mut object, kind.schema(), "", faults);
    if faults.unreadable {
        return None;
    }
    match kind {
        Kind::SessionPolicy => {
            let policy: SessionPolicy = typed(object, faults)?;
            let config = compile(&policy).map_err(|violations| faults.add_all(violations)).ok()?;
            Some(Object::SessionPolicy(Box::new(policy), config))
        }
        Kind::ClusterSessionPolicy => {
            let policy: ClusterSessionPolicy = typed(object, faults)?;
            faults.add_all(policy.violations());
            Some(Object::ClusterSessionPolicy)
        }
        Kind::SidecarConfig => {
            let object: SidecarConfigObject = typed(object, faults)?;
            faults.add_all(check_config(&object.spec));
            Some(Object::SidecarConfig(object.spec))
        }
    }
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::SessionPolicy => "SessionPolicy",
            Self::ClusterSessionPolicy => "ClusterSessionPolicy",
            Self::SidecarConfig => "SidecarConfig",
        }
    }

    fn schema(self) -> &'static Value {
        static SESSION_POLICY: LazyLock<Value> = LazyLock::new(schema_of::<SessionPolicy>);
        static CLUSTER_SESSION_POLICY: LazyLock<Value> = LazyLock::new(schema_of::<ClusterSessionPolicy>);
        static SIDECAR_CONFIG: LazyLock<Value> = LazyLock::new(schema_of::<SidecarConfigObject>);
        match self {
            Self::SessionPolicy => &SESSION_POLICY,
            Self::ClusterSessionPolicy => &CLUSTER_SESSION_POLICY,
            Self::SidecarConfig => &SIDECAR_CONFIG,
        }
    }
}

/// The schema in the definition, which says nothing about `metadata`: the API server knows that itself.
fn schema_of<T: CustomResourceExt>() -> Value {
    let version = T::crd().spec.versions.remove(0);
    let schema = version.schema.and_then(|schema| schema.open_api_v3_schema);
    let mut schema = serde_json::to_value(schema).expect("a schema is JSON");
    schema["properties"]["metadata"] = json!({ "type": "object" });
    schema["required"] = json!(["metadata", "spec"]);
    schema
}

/// The types stop at their first fault: what has it is left out, until they read the rest.
fn typed<T: DeserializeOwned>(mut value: Value, faults: &mut Faults) -> Option<T> {
    let mut left_out = Vec::<String>::new();
    loop {
        let error = match serde_path_to_error::deserialize(&value) {
            Ok(read) => return Some(read).filter(|_| left_out.is_empty()),
            Err(error) => error,
        };
        let path = field_path(error.path());
        if left_out.iter().any(|field| field.starts_with(&path)) {
            // It misses that.
            return None;
        }
        faults.add(path.as_str(), error.inner().to_string());
        leave_out(&mut value, error.path())?;
        left_out.push(path);
    }
}

/// `None` where it is no field.
fn leave_out(value: &mut Value, path: &serde_path_to_error::Path) -> Option<Value> {
    let mut segments: Vec<&Segment> = path.iter().collect();
    let Some(Segment::Map { key }) = segments.pop() else { return None };
    let parent = segments.into_iter().try_fold(value, |value, segment| match segment {
        Segment::Seq { index } => value.get_mut(index),
        Segment::Map { key } => value.get_mut(key),
        Segment::Enum { .. } | Segment::Unknown => None,
    });
    parent?.as_object_mut()?.remove(key)
}

fn field_path(path: &serde_path_to_error::Path) -> String {
    path.iter().fold(String::new(), |path, segment| match segment {
        Segment::Seq { index } => format!("{path}[{index}]"),
        Segment::Map { key } => join(&path, key),
        Segment::Enum { .. } | Segment::Unknown => path,
    })
}
