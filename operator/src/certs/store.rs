//! The CAs in the Secret.

use std::collections::BTreeMap;

use super::{
    authority::{Ca, CaCertificate, CaError, END, Timing},
    cluster::StoredCa,
};

/// Annotation on the Secret that asks for a rotation, with any value; it is gone once one has begun.
pub const ROTATE: &str = "sipwarden.dev/rotate";
/// Annotation: when the old CAs are given up, in seconds since 1970.
const OLD_UNTIL: &str = "sipwarden.dev/ca-old-until";

const CURRENT: [&str; 2] = ["ca.crt", "ca.key"];
const NEXT: [&str; 2] = ["ca-next.crt", "ca-next.key"];
const OLD: &str = "ca-old.crt";

/// Everything of ours in the Secret's data.
pub(super) const DATA_KEYS: [&str; 5] = [CURRENT[0], CURRENT[1], NEXT[0], NEXT[1], OLD];
/// All annotations of ours.
pub(super) const ANNOTATIONS: [&str; 2] = [ROTATE, OLD_UNTIL];

/// Most CAs that are trusted for the leaves they have signed: more only come of rotations forced in a row.
const MAX_OLD: usize = 4;
/// A replica may sign a last leaf with a CA it read just before another promoted the next one.
const OLD_GRACE_S: i64 = 600;

/// All CAs that matter.
#[derive(Clone, Debug)]
pub struct CaSet {
    /// Signs.
    pub(super) current: Ca,
    /// Will sign, once it is trusted.
    pub(super) next: Option<Ca>,
    /// Have signed.
    pub(super) old: Vec<CaCertificate>,
    /// When the leaves of the old ones have expired.
    pub(super) old_until_s: i64,
    /// Someone asked for a rotation.
    pub(super) rotation_wanted: bool,
}

impl CaSet {
    pub(super) fn new(current: Ca) -> Self {
        Self { current, next: None, old: Vec::new(), old_until_s: 0, rotation_wanted: false }
    }

    pub(super) fn read(stored: &StoredCa) -> Result<Self, CaError> {
        let text = |key: &str| stored.data.get(key).map(String::as_str);
        let current = ca_of(text, CURRENT).unwrap_or(Err(CaError::Unreadable))?;
        let old = text(OLD).unwrap_or_default().split_inclusive(END);
        let old: Vec<_> = old.filter_map(|pem| CaCertificate::read(pem).ok()).take(MAX_OLD).collect();
        let old_until_s = stored.annotations.get(OLD_UNTIL).and_then(|text| text.parse().ok());
        let last_expiry_s = old.iter().map(|certificate| certificate.not_after_s).max();
        Ok(Self {
            current,
            next: ca_of(text, NEXT).and_then(Result::ok),
            old_until_s: old_until_s.or(last_expiry_s).unwrap_or_default(),
            old,
            rotation_wanted: stored.annotations.contains_key(ROTATE),
        })
    }

    /// The Secret's content, to be written over the state it was read in.
    pub(super) fn to_stored(&self, version: &str) -> StoredCa {
        let mut data = BTreeMap::new();
        let mut put = |[certificate, key]: [&str; 2], ca: &Ca| {
            data.insert(certificate.to_owned(), ca.certificate.pem.clone());
            data.insert(key.to_owned(), ca.key_pem());
        };
        put(CURRENT, &self.current);
        if let Some(next) = &self.next {
            put(NEXT, next);
        }
        let mut annotations = BTreeMap::new();
        if !self.old.is_empty() {
            data.insert(OLD.to_owned(), self.old.iter().map(|certificate| certificate.pem.as_str()).collect());
            annotations.insert(OLD_UNTIL.to_owned(), self.old_until_s.to_string());
        }
        if self.rotation_wanted {
            annotations.insert(ROTATE.to_owned(), "wanted".to_owned());
        }
        StoredCa { data, annotations, version: version.to_owned() }
    }

    /// What clients are to trust.
    pub(super) fn bundle(&self) -> String {
        let next = self.next.iter().map(|ca| &ca.certificate);
        let all = std::iter::once(&self.current.certificate).chain(next).chain(&self.old);
        all.map(|certificate| certificate.pem.as_str()).collect()
    }

    pub(super) fn prepare(&mut self, next: Ca) {
        self.next = Some(next);
        self.rotation_wanted = false;
    }

    pub(super) fn promote(&mut self, now_s: i64, timing: &Timing) {
        let Some(next) = self.next.take() else { return };
        let was_current = std::mem::replace(&mut self.current, next);
        self.old.insert(0, was_current.certificate);
        self.old.truncate(MAX_OLD);
        self.old_until_s = now_s + timing.leaf_life_s + OLD_GRACE_S;
    }

    pub(super) fn retire(&mut self) {
        self.old.clear();
    }
}

/// None if neither is there.
fn ca_of<'a>(text: impl Fn(&str) -> Option<&'a str>, [certificate, key]: [&str; 2]) -> Option<Result<Ca, CaError>> {
    Some(Ca::read(text(certificate)?, text(key)?))
}
