//! What has to be there before sipwarden is.

use k8s_openapi::{api::authentication::v1::SelfSubjectReview, apimachinery::pkg::version::Info, jiff::Timestamp};
use kube::{Api, api::PostParams};

use super::{Item, Looker, catalogue::Check};
use crate::{outcome::Failure, rights};

/// Native sidecars are what every supported version has; older ones are not tested.
const LEAST_MINOR: u32 = 33;
/// MutatingAdmissionPolicies of version v1.
const POLICY_INJECTOR_MINOR: u32 = 36;
/// In seconds; times of a call in events and of a certificate are compared by people and machines.
const CLOCK_WARN_S: i64 = 5;
const CLOCK_FAIL_S: i64 = 60;
const KINDS: [&str; 3] = ["sessionpolicies", "clustersessionpolicies", "sidecarconfigs"];

impl Looker<'_> {
    pub(super) async fn cluster(&self) -> Result<Vec<Item>, Failure> {
        let client = &self.connection.client;
        let version =
            client.apiserver_version().await.map_err(Failure::cluster("ask the API server for its version"))?;
        let (crds, rights, clock) = tokio::join!(self.crds(), self.rights(), self.clock());
        Ok(vec![judge_version(&version), crds, rights, clock])
    }

    async fn crds(&self) -> Item {
        let found = self.connection.client.list_api_group_resources("sipwarden.dev/v1alpha1").await;
        let there: Vec<String> = match found {
            Ok(list) => list.resources.into_iter().map(|resource| resource.name).collect(),
            Err(kube::Error::Api(status)) if status.code == 404 => Vec::new(),
            Err(error) => return Item::of_error(Check::Crds, "the API server does not tell", &error),
        };
        let missing: Vec<&str> = KINDS.into_iter().filter(|kind| !there.iter().any(|name| name == kind)).collect();
        match missing.is_empty() {
            true => Item::ok(Check::Crds, "sipwarden.dev/v1alpha1 is served"),
            // Before the installation there are none.
            false if self.args.pre => Item::warn(Check::Crds, format!("not installed yet: {}", missing.join(", "))),
            false => {
                let text = format!("not served: {}; install charts/sipwarden-crds", missing.join(", "));
                Item::fail(Check::Crds, text)
            }
        }
    }

    async fn rights(&self) -> Item {
        let missing = rights::missing(self.connection).await;
        match missing {
            Ok(missing) if missing.is_empty() => Item::ok(Check::Rights, "every command of the plugin may be used"),
            Ok(missing) => {
                let lines = missing.iter().map(|(command, rights)| format!("{command} lacks {}", rights.join(", ")));
                Item::warn(Check::Rights, lines.collect::<Vec<_>>().join("; "))
            }
            Err(error) => Item::of_error(Check::Rights, "the API server does not tell", &error),
        }
    }

    /// The answer to a review of oneself is an object made at that moment; nothing is kept of it.
    async fn clock(&self) -> Item {
        let reviews: Api<SelfSubjectReview> = Api::all(self.connection.client.clone());
        let before = Timestamp::now();
        let review = reviews.create(&PostParams::default(), &SelfSubjectReview::default()).await;
        let after = Timestamp::now();
        match review.map(|review| review.metadata.creation_timestamp) {
            Ok(Some(at)) => judge_clock(before, at.0, after),
            Ok(None) => Item::unknown(Check::Clock, "the API server does not tell its time"),
            Err(error) => Item::of_error(Check::Clock, "the API server does not tell its time", &error),
        }
    }
}

fn judge_version(version: &Info) -> Item {
    let number = |text: &str| text.trim_end_matches(|c: char| !c.is_ascii_digit()).parse::<u32>().ok();
    let (Some(major), Some(minor)) = (number(&version.major), number(&version.minor)) else {
        return Item::unknown(Check::ApiServer, format!("version {} cannot be read", version.git_version));
    };
    let git = &version.git_version;
    if (major, minor) < (1, LEAST_MINOR) {
        return Item::fail(Check::ApiServer, format!("{git}: Kubernetes 1.{LEAST_MINOR} or later is needed"));
    }
    let injector = if minor < POLICY_INJECTOR_MINOR && major == 1 { "; injector: policy needs 1.36" } else { "" };
    Item::ok(Check::ApiServer, format!("{git}{injector}"))
}

/// The server's time has no fractions, and was taken between the two.
fn judge_clock(before: Timestamp, server: Timestamp, after: Timestamp) -> Item {
    let server_s = server.as_second();
    let ahead_s = before.as_second() - server_s;
    let behind_s = server_s - after.as_second();
    let off_s = ahead_s.max(behind_s).max(0);
    let text = format!("this machine and the API server are {off_s} s apart");
    match off_s {
        0..=CLOCK_WARN_S => Item::ok(Check::Clock, text),
        _ if off_s < CLOCK_FAIL_S => Item::warn(Check::Clock, text),
        _ => Item::fail(Check::Clock, text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::Level;

    #[test]
    fn versions_are_judged_as_vendors_write_them() {
        let level = |major: &str, minor: &str| {
            let (major, minor) = (major.to_owned(), minor.to_owned());
            judge_version(&Info { major, minor, git_version: "v".to_owned(), ..Info::default() }).level
        };
        assert_eq!(level("1", "33"), Level::Ok);
        assert_eq!(level("1", "36+"), Level::Ok);
        assert_eq!(level("1", "32"), Level::Fail);
        assert_eq!(level("2", "0"), Level::Ok);
        assert_eq!(level("", ""), Level::Unknown);
    }

    #[test]
    fn a_clock_is_off_by_what_the_question_does_not_explain() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let level = |before, server, after| judge_clock(at(before), at(server), at(after)).level;
        assert_eq!(level(100, 100, 100), Level::Ok);
        assert_eq!(level(100, 130, 131), Level::Ok, "a slow answer is not a wrong clock");
        assert_eq!(level(110, 100, 110), Level::Warn);
        assert_eq!(level(100, 200, 101), Level::Fail);
    }
}
