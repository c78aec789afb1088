//! Two phones with one process between them.

use anyhow::{Context, Result};

use crate::load::Phones;
use crate::peers::{Kind, Peer, Setup};
use crate::plan::{Outcome, Plan};
use crate::template::Manners;

/// The phones and what stands between them.
pub(crate) struct Rig {
    pub(crate) phones: Phones,
    pub(crate) peer: Peer,
}

impl Rig {
    /// Binds the phones, starts a `kind` between them, and connects them to it.
    ///
    /// # Errors
    /// No sockets, or a process that does not get ready.
    pub(crate) fn start(kind: Kind, setup: &Setup) -> Result<Self> {
        Self::start_with(kind, setup, Manners::default())
    }

    /// The same, with phones of other manners.
    ///
    /// # Errors
    /// No sockets, or a process that does not get ready.
    pub(crate) fn start_with(kind: Kind, setup: &Setup, manners: Manners) -> Result<Self> {
        let phones = Phones::bind(manners)?;
        let (uac, uas) = phones.addresses()?;
        let peer = Peer::start(kind, setup, uac, uas)?;
        phones.connect(peer.remote, peer.app)?;
        Ok(Self { phones, peer })
    }

    /// Makes calls as `plan` says.
    ///
    /// # Errors
    /// A socket that fails for good, or a process that is gone.
    pub(crate) fn run(&mut self, plan: &Plan) -> Result<Outcome> {
        let Self { phones, peer } = self;
        phones.run(plan, &|| peer.tree().cpu()).with_context(|| format!("its last words: {}", peer.last_words()))
    }
}
