//! A session that nobody refreshes, over its whole life. Of all tests this one mostly waits: it is the first by name, and the
//! others run meanwhile.

use std::time::Duration;

use sipwarden_cluster::product::App;

use crate::calls::{called, play, sessions};

/// The shortest interval there is, and what a busy machine may add.
const LIFE: Duration = Duration::from_secs(180);

#[test]
fn a_caller_that_vanishes_is_hung_up_on_at_the_end_of_its_session() {
    let site = called("expiry", App::Sip, 90);

    // It answers the BYE of the sidecar, and fails without one.
    play(&site, include_str!("../../../sipp/uac_vanishes.xml"), LIFE);

    let page = sessions(&site);
    let ended = page["sessions"].as_array().unwrap().iter().filter(|session| session["ended"] == "Expired");
    assert_eq!(ended.count(), 1, "{page}");
}
