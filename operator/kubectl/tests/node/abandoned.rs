//! A session that nobody refreshes. It mostly waits: it is the first by name, and the others run meanwhile.

use std::time::Duration;

use crate::{
    plugin::{plugin, start},
    stage::{CALLS_LEAST_S, calls, node},
};

/// The interval, and what a busy machine may add.
const LIFE: Duration = Duration::from_secs(180);

#[test]
fn tap_tells_the_end_of_a_session_that_nobody_refreshed_and_explain_says_why() {
    let site = calls();
    let call = node().call(site.service().unwrap(), CALLS_LEAST_S).unwrap();
    let id = call.id();

    let tap = start(&format!("tap -n calls --kind Expired --call-id {id} --last 1 --count 1 -o json"), None).end(LIFE);

    assert_eq!(tap.code, 0, "{tap:?}");
    let decision = tap.json();
    assert_eq!((&decision["kind"], &decision["call_id"]), (&"Expired".into(), &id.into()), "{decision}");
    assert_eq!(decision["pod"], site.pods().unwrap()[0].name);
    let told = plugin(&format!("explain {id} -n calls"));
    assert_eq!(told.code, 0, "{told:?}");
    told.says(&[
        "No refresh came within the session interval of 100 s; the remote side should have sent one.",
        "RFC 4028 §10 · spec.timers.expiry.margin of policy carrier",
        "BYE sent to the remote side.",
        "BYE sent to the application.",
        "RFC 4028 §10, RFC 3326 · spec.timers.expiry.action of policy carrier",
    ]);
}
