//! Following the policy file while calls run, and telling what came of it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use sipwarden_crds::SipUsers;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep};
use tracing::{error, info, warn};

use super::watch::Watch;
use super::{Fault, InForce, PolicyFile, Source, content, in_force, warn_of};
use crate::credentials;
use crate::hub::Hub;
use crate::metrics::{PolicyFacts, Reload};
use crate::report::mode_name;

/// Editors change a file in several steps; reading waits this long after the first. A volume's change is one step.
const SETTLE_TIME: Duration = Duration::from_millis(30);
/// What no watch tells is looked for this often: Secrets, and a policy file whose directory came later.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);

/// Why the file is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Why {
    /// Something in its directory changed.
    Changed,
    /// A person asked.
    Asked,
    /// It is time.
    Due,
}

impl PolicyFile {
    /// Reads the file again whenever it changes or [`Self::reload`] asks, until dropped.
    pub async fn follow(&self, hub: &Hub) {
        self.tell(hub);
        let Some(path) = &self.sources.file else { return std::future::pending().await };
        if self.state().fault.is_some() {
            hub.metrics.policy.reload(Reload::Refused);
        }
        let mut watch = Watch::new();
        if let Err(error) = watch.ensure(path) {
            warn!(%error, "the policy file is not watched yet; it is looked at every {} s", LOOK_INTERVAL.as_secs());
        }
        let mut looks = interval_at(Instant::now() + LOOK_INTERVAL, LOOK_INTERVAL);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // What the directory tells of may be another file, such as a log that our own complaint about this one goes to.
        let mut seen = None;
        // The file may have changed since the start.
        let mut why = Why::Due;
        loop {
            watch.seen();
            let text = content::text_of(path);
            let result = match why {
                Why::Changed | Why::Due if seen.as_ref() == Some(&text) => self.renew_credentials(hub),
                Why::Changed | Why::Due | Why::Asked => self.take(path, &text, why, hub),
            };
            if result != Reload::Unchanged || why != Why::Due {
                hub.metrics.policy.reload(result);
            }
            seen = Some(text);
            why = tokio::select! {
                () = watch.changed() => {
                    sleep(SETTLE_TIME).await;
                    Why::Changed
                }
                () = self.asked.notified() => Why::Asked,
                _ = looks.tick() => Why::Due,
            };
            // It was told above that it fails, and is tried again with the next look.
            let _ = watch.ensure(path);
        }
    }

    /// Obeys what the file says now.
    fn take(&self, path: &Path, text: &Result<String, Fault>, why: Why, hub: &Hub) -> Reload {
        let config = text.clone().and_then(|text| content::parse(path, &text));
        match config.and_then(|config| in_force(Arc::new(config), Source::File, &self.sources)) {
            Ok((new, missing)) => {
                self.change().fault = None;
                let result = self.put(new, missing, hub);
                self.keep();
                result
            }
            Err(Fault::NotConfigured(told)) if self.sources.last_good.is_some() => {
                self.no_longer_configured(&told, hub);
                Reload::Unchanged
            }
            Err(fault) if why != Why::Asked && self.state().fault.as_ref() == Some(&fault) => Reload::Unchanged,
            Err(fault) => {
                error!("the policy stays as it was: {fault}");
                self.change().fault = Some(fault);
                self.tell_problems(hub);
                Reload::Refused
            }
        }
    }

    /// Obeys what the credentials of the policy in force are now.
    fn renew_credentials(&self, hub: &Hub) -> Reload {
        let old = self.in_force();
        if !credentials::named_in(&old.config) {
            return Reload::Unchanged;
        }
        match in_force(old.config, old.source, &self.sources) {
            Ok((new, missing)) => self.put(new, missing, hub),
            // A config that is in force has been converted before.
            Err(_) => Reload::Unchanged,
        }
    }

    fn put(&self, new: InForce, missing: Vec<String>, hub: &Hub) -> Reload {
        let old = self.in_force();
        let is_new = new.policy != old.policy || new.config != old.config || new.source != old.source;
        if is_new {
            hub.set_policy(&new.policy);
            self.change().in_force = new;
        }
        if self.state().missing != missing {
            warn_of(&missing);
            self.change().missing = missing;
        }
        if is_new {
            self.tell(hub);
            return Reload::Applied;
        }
        self.tell_problems(hub);
        Reload::Unchanged
    }

    fn no_longer_configured(&self, told: &str, hub: &Hub) {
        self.change().fault = None;
        if self.in_force().source == Source::File {
            info!("no longer configured, the policy stays as it was: cannot read {told}");
            self.change().in_force.source = Source::LastGood;
            self.tell(hub);
        }
        self.tell_problems(hub);
    }

    fn tell(&self, hub: &Hub) {
        let InForce { policy, config, source, since } = self.in_force();
        let facts = PolicyFacts {
            name: &policy.name,
            generation: config.generation,
            hash: &config.hash,
            mode: mode_name(policy.mode),
            source: source.as_str(),
            since,
        };
        hub.metrics.policy.in_force(facts);
        hub.show_users(config.privacy.sip_users == SipUsers::Show);
        self.tell_problems(hub);
        let PolicyFacts { name, generation, hash, mode, source, .. } = facts;
        info!(policy = name, generation, hash, mode, source, "policy in force");
    }

    fn tell_problems(&self, hub: &Hub) {
        hub.metrics.policy.problems(self.problems().len());
    }
}
