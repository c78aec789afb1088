//! Where the user name and password stand that challenges are answered with.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};

/// The longest path there may be, in characters.
pub(crate) const MAX_PATH: usize = 1024;

/// The longest name of an object.
pub(crate) const MAX_OBJECT_NAME: usize = 253;

/// Where the user name and password stand; exactly one place is named.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "Written")]
pub enum Credentials {
    /// In a Secret of this name.
    SecretName(String),
    /// In a YAML file at this path.
    File(String),
}

/// [`Credentials`] as YAML has them.
#[derive(Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "has(self.secretName) != has(self.file)",
    "message": "credentials name exactly one place: secretName or file",
}]))]
struct Written {
    /// A Secret of type kubernetes.io/basic-auth in the namespace of the pod, with username and password, which is mounted
    /// beside the sidecar. Example: trunk-a.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(min = 1, max = MAX_OBJECT_NAME))]
    #[schemars(extend("x-kubernetes-validations" = [{
        "rule": "self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$')",
        "message": "not a name of a Secret: use a-z, 0-9, and - and . inside",
    }]))]
    secret_name: Option<String>,

    /// The absolute path of a YAML file with username, password and, if they are for one realm only, realm.
    /// Example: /etc/sipwarden/trunk-a.yaml.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(min = 1, max = MAX_PATH))]
    #[schemars(extend("x-kubernetes-validations" = [{
        "rule": "self.startsWith('/')",
        "message": "not an absolute path, which begins with /",
    }]))]
    file: Option<String>,
}

impl TryFrom<Written> for Credentials {
    type Error = &'static str;

    fn try_from(written: Written) -> Result<Self, Self::Error> {
        match (written.secret_name, written.file) {
            (Some(name), None) => Ok(Self::SecretName(name)),
            (None, Some(path)) => Ok(Self::File(path)),
            _ => Err("credentials name exactly one place: secretName or file"),
        }
    }
}

impl From<Credentials> for Written {
    fn from(credentials: Credentials) -> Self {
        match credentials {
            Credentials::SecretName(name) => Self { secret_name: Some(name), ..Self::default() },
            Credentials::File(path) => Self { file: Some(path), ..Self::default() },
        }
    }
}

impl JsonSchema for Credentials {
    fn schema_name() -> Cow<'static, str> {
        "Credentials".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        Written::json_schema(generator)
    }
}

/// Whether a Secret may have this name: a DNS subdomain.
pub(crate) fn is_secret_name(name: &str) -> bool {
    name.len() <= MAX_OBJECT_NAME && name.split('.').all(is_label)
}

fn is_label(label: &str) -> bool {
    let legal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    !label.is_empty() && label.bytes().all(legal) && !label.starts_with('-') && !label.ends_with('-')
}

/// Whether it is an absolute path of a fit length.
pub(crate) fn is_path(path: &str) -> bool {
    path.starts_with('/') && path.chars().count() <= MAX_PATH
}
