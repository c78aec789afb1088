//! The certificate that new connections are given.

use std::sync::{Arc, PoisonError, RwLock};

use rustls::{
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};

/// Where the keeper puts the leaf and the server takes it from: a new one counts from the next connection on.
#[derive(Debug, Default)]
pub struct LeafSlot(RwLock<Option<Arc<CertifiedKey>>>);

impl LeafSlot {
    /// False before the first leaf: no connection can be served yet.
    pub fn is_ready(&self) -> bool {
        self.leaf().is_some()
    }

    /// The leaf in use.
    pub fn leaf(&self) -> Option<Arc<CertifiedKey>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn put(&self, leaf: Arc<CertifiedKey>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Some(leaf);
    }
}

impl ResolvesServerCert for LeafSlot {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.leaf()
    }
}
