//! A YAML document as a tree whose nodes know where they stand.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, de};
use serde_json::{Map, Number, Value};
use serde_saphyr::{Location, Spanned};

/// A value and the place where it begins.
pub(super) struct Node {
    at: Location,
    tree: Tree,
}

enum Tree {
    Scalar(Value),
    List(Vec<Node>),
    Map(Vec<(Spanned<String>, Node)>),
}

/// Where each field of a document stands, by paths such as `spec.rules[2].timers.minSE`; the document is the empty path.
pub(super) struct Index(BTreeMap<String, Location>);

impl Node {
    /// The value as JSON, and where its parts stand.
    ///
    /// Fields without a value (`rules:`) are left out, as the API server does.
    pub(super) fn into_json(self) -> (Value, Index) {
        let mut index = BTreeMap::from([(String::new(), self.at)]);
        let value = self.tree.into_json("", &mut index);
        (value, Index(index))
    }
}

impl Index {
    /// Where the field stands, or the nearest field around it that does.
    pub(super) fn locate(&self, path: &str) -> Location {
        let mut path = path;
        loop {
            if let Some(location) = self.0.get(path) {
                return *location;
            }
            path = &path[..path.rfind(['.', '[']).unwrap_or(0)];
        }
    }
}

impl Tree {
    fn into_json(self, path: &str, index: &mut BTreeMap<String, Location>) -> Value {
        match self {
            Self::Scalar(value) => value,
            Self::List(nodes) => {
                let items = nodes.into_iter().enumerate().map(|(i, node)| {
                    let path = format!("{path}[{i}]");
                    index.insert(path.clone(), node.at);
                    node.tree.into_json(&path, index)
                });
                Value::Array(items.collect())
            }
            Self::Map(entries) => {
                let mut map = Map::new();
                for (key, node) in entries {
                    let path = join(path, &key.value);
                    index.insert(path.clone(), key.referenced);
                    let value = node.tree.into_json(&path, index);
                    if !value.is_null() {
                        map.insert(key.value, value);
                    }
                }
                Value::Object(map)
            }
        }
    }
}

/// The path of the field `key` of what stands at `parent`.
pub(super) fn join(parent: &str, key: &str) -> String {
    if parent.is_empty() { key.to_owned() } else { format!("{parent}.{key}") }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Tree>::deserialize(deserializer)?;
        Ok(Self { at: spanned.referenced, tree: spanned.value })
    }
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TreeVisitor)
    }
}

struct TreeVisitor;

impl<'de> de::Visitor<'de> for TreeVisitor {
    type Value = Tree;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("any YAML value")
    }

    fn visit_unit<E>(self) -> Result<Tree, E> {
        Ok(Tree::Scalar(Value::Null))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Tree, E> {
        Ok(Tree::Scalar(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Tree, E> {
        Ok(Tree::Scalar(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Tree, E> {
        Ok(Tree::Scalar(value.into()))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Tree, E> {
        let number = Number::from_f64(value).ok_or_else(|| E::custom("not a finite number"))?;
        Ok(Tree::Scalar(number.into()))
    }

    fn visit_str<E>(self, value: &str) -> Result<Tree, E> {
        Ok(Tree::Scalar(value.into()))
    }

    fn visit_seq<A: de::SeqAccess<'de>>(self, mut seq: A) -> Result<Tree, A::Error> {
        let mut nodes = Vec::new();
        while let Some(node) = seq.next_element()? {
            nodes.push(node);
        }
        Ok(Tree::List(nodes))
    }

    fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<Tree, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(Tree::Map(entries))
    }
}
