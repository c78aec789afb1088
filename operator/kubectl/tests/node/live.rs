//! Calls while they are placed: `tap` and `call-test`.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::{
    PATIENCE,
    plugin::{plugin, start},
    stage::{calls, node},
};

fn lines(text: &str) -> Vec<Value> {
    // The last one may be half written.
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    whole.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error} in {line}"))).collect()
}

#[test]
fn tap_shows_the_decisions_of_a_call_as_they_are_made() {
    let site = calls();
    let service = site.service().unwrap();
    // What it begins with shows that it listens: the past is asked for when the stream is open.
    let tap = start("tap -n calls --last 1 -o json", None);
    tap.until("the past", PATIENCE, |text| (!lines(text).is_empty()).then_some(()));

    let refused = node().invite(service, 60).unwrap().header("Call-ID").unwrap().to_owned();
    let call = node().call(service, 600).unwrap();
    let id = call.id().to_owned();
    call.hang_up().unwrap();
    let told = tap.until("the end of the call", PATIENCE, |text| {
        let lines = lines(text);
        let of_call = |line: &&Value| line["call_id"] == id.as_str();
        let has_ended = lines.iter().filter(of_call).any(|line| line["kind"] == "Ended");
        has_ended.then_some(lines)
    });

    let kinds = |call_id: &str| -> Vec<&str> {
        let of_call = told.iter().filter(|line| line["call_id"] == call_id);
        of_call.filter_map(|line| line["kind"].as_str()).collect()
    };
    assert_eq!(kinds(&refused), ["Rejected"], "{told:?}");
    let of_call = kinds(&id);
    assert!(of_call.contains(&"Established") && of_call.last() == Some(&"Ended"), "{told:?}");
    let seqs: Vec<u64> = told.iter().filter_map(|line| line["seq"].as_u64()).collect();
    assert_eq!(seqs.iter().collect::<BTreeSet<_>>().len(), told.len(), "each once: {seqs:?}");
    assert_eq!(told[0]["pod"], site.pods().unwrap()[0].name);
}

#[test]
fn tap_ends_after_so_many_decisions_or_seconds_and_shows_those_that_were_asked_for() {
    let site = calls();
    let refused = node().invite(site.service().unwrap(), 60).unwrap().header("Call-ID").unwrap().to_owned();

    let counted = plugin(&format!("tap -n calls --call-id {refused} --kind Rejected --last 5 --count 1"));
    assert_eq!((counted.code, counted.out.lines().count()), (0, 1), "{counted:?}");
    counted.says(&[
        "422: it asked for 60 s, the least allowed is 100 s",
        "RFC 4028 §6, §8.1 · spec.timers.minSE of policy",
    ]);
    // What a busy machine hears in that time is its own affair.
    let timed = plugin(&format!("tap -n calls --call-id {refused} --last 5 --for 2 -o json"));
    assert_eq!(timed.code, 0, "{timed:?}");
    assert!(lines(&timed.out).iter().all(|line| line["kind"] == "Rejected"), "{timed:?}");
}

/// PodSecurity `restricted` is enforced in the namespace.
#[test]
fn call_test_passes_through_the_service_and_leaves_nothing() {
    let site = calls();
    for (flags, why) in [("", "agree by --yes"), ("--yes --session-expires 60s", "at least 90s")] {
        let refused = plugin(&format!("call-test app -n calls {flags}"));
        assert!(refused.code == 2 && refused.err.contains(why), "{refused:?}");
    }

    let called = plugin("call-test app -n calls --session-expires 90s --yes -o json");

    assert_eq!(called.code, 0, "{called:?}");
    let report = called.json();
    assert_eq!(report["verdict"], "Passed", "{report}");
    let answers: Vec<&Value> = report["steps"].as_array().unwrap().iter().map(|step| &step["status"]).collect();
    assert_eq!(answers.first(), Some(&&json!(422)), "90 s are too short: {report}");
    assert!(answers[1..].iter().all(|status| **status == 200), "{report}");
    let callers = ["get", "pods", "--selector=app.kubernetes.io/component=call-test", "-o", "name"];
    let gone = || site.kubectl(&callers).is_ok_and(|names| names.is_empty()).then_some(());
    site.eventually("the end of the calling pod", PATIENCE, gone).unwrap();
    let story = plugin(&format!("explain {} -n calls", report["callId"].as_str().unwrap()));
    assert_eq!(story.code, 0, "{story:?}");
    story.says(&["answered 422: it asked for 90 s", "(BYE)"]);
}
