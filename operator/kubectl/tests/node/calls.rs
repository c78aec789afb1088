//! What is said of calls: `sessions`, `explain`, `diff`.

use serde_json::{Value, json};
use sipwarden_cluster::product::{Pod, least};

use crate::{
    SOON,
    plugin::plugin,
    stage::{HELD_S, LEAST_S, Voice, node, voice},
};

/// What the sidecar of a pod says, asked by kubectl.
fn asked(pod: &Pod, path: &str) -> Value {
    let name = format!("pod/{}", pod.name);
    let forward = node().serve(&["-n", "voice", "port-forward", &name, ":8642"]).expect("kubectl serves a port");
    let answer = voice()
        .site
        .eventually("an answer through a port-forward", SOON, || node().get_json(forward.address, path).ok());
    answer.expect("it comes in time")
}

/// Without what goes on while it is looked at.
fn timeless(mut session: Value) -> Value {
    let fields = session.as_object_mut().expect("a session");
    for field in ["age_s", "deadline_in_s", "expires_in_s", "next", "acting", "events"] {
        assert!(fields.remove(field).is_some(), "a session has {field}");
    }
    session
}

#[test]
fn sessions_lists_what_the_sidecars_list() {
    let Voice { site, held, .. } = voice();
    let mut expected = Vec::new();
    for pod in site.pods().unwrap() {
        let page = asked(&pod, "/sessions?state=Active");
        for session in page["sessions"].as_array().unwrap() {
            let mut session = timeless(session.clone());
            session["namespace"] = json!("voice");
            session["pod"] = json!(pod.name);
            expected.push(session);
        }
    }

    let told = plugin("sessions -n voice --state active --sort interval -o json");

    assert_eq!(told.code, 0, "{told:?}");
    let answer = told.json();
    let sessions: Vec<Value> = answer["sessions"].as_array().unwrap().iter().cloned().map(timeless).collect();
    expected.sort_by_key(|session| session["interval_s"].as_u64());
    assert_eq!(sessions, expected);
    assert_eq!((&answer["total"], &answer["active"], &answer["silent"]), (&json!(3), &json!(3), &json!([])));
    let mut intervals_s = HELD_S;
    intervals_s.sort_unstable();
    let told_s: Vec<u64> = sessions.iter().filter_map(|session| session["interval_s"].as_u64()).collect();
    assert_eq!(told_s, intervals_s.map(u64::from), "{answer}");
    let ids = |id: &&str| sessions.iter().any(|session| session["call_id"] == **id);
    assert!(held.iter().map(|call| call.id()).all(|id| ids(&id)), "{answer}");

    let text = plugin("sessions deployment/app -n voice --state active --sort interval --reverse");
    assert!(text.out.ends_with("3 of 3 sessions, 3 active\n"), "{text:?}");
    let rows: Vec<&str> = text.out.lines().skip(1).take(3).collect();
    for (row, interval) in rows.iter().zip(["30m", "20m", "10m"]) {
        assert!(row.contains(interval) && row.contains("carrier") && row.contains("Remote"), "{text:?}");
    }
    assert!(!text.out.contains("caller@"), "users are hidden: {text:?}");
}

#[test]
fn explain_says_of_a_refused_a_running_and_an_ended_call_why_it_is_so() {
    let Voice { held, refused, ended, .. } = voice();
    let [refused, running, ended] = [refused.as_str(), held[0].id(), ended].map(|id| {
        let told = plugin(&format!("explain {id} -n voice --messages"));
        assert_eq!(told.code, 0, "{told:?}");
        told
    });

    for (told, parts) in [
        (
            refused,
            [
                "no session: it was never answered with a 2xx",
                "The remote side was answered 422: it asked for 119 s, the least allowed is 120 s (Min-SE).",
                "RFC 4028 §6, §8.1 · spec.timers.minSE of policy carrier",
                "[Answered 422]",
            ],
        ),
        (
            running,
            [
                "goes on",
                "session interval 30m, refreshed by Remote",
                "The call was answered (2xx): session interval 1800 s, refreshed by the remote side.",
                "RFC 4028 §7.2, §9 · spec.timers.sessionExpires of policy carrier",
            ],
        ),
        (
            ended,
            [
                "The remote side hung up (BYE).",
                "RFC 3261 §15",
                "RFC 4028 §7.2, §9 · spec.timers.sessionExpires of policy carrier",
                "BYE sip:",
            ],
        ),
    ] {
        told.says(&parts);
        assert!(!told.out.contains("caller@caller.example"), "users are hidden: {told:?}");
    }
    let unknown = plugin("explain nobody-called -n voice");
    assert_eq!(unknown.code, 1, "{unknown:?}");
    assert!(unknown.err.contains("none of 2 sidecars knows a session or Call-ID nobody-called"), "{unknown:?}");
}

#[test]
fn diff_says_how_many_calls_a_stricter_policy_would_decide_otherwise_and_none_of_the_same() {
    let Voice { site, held, .. } = voice();
    let folder = tempfile::tempdir().unwrap();
    let proposed = |spec: &Value| {
        let file = folder.path().join("policy.yaml");
        std::fs::write(&file, site.policy_text("carrier", spec)).unwrap();
        let told = plugin(&format!("diff {} -o json", file.display()));
        let sums = told.json()["sums"].clone();
        let counts =
            |kind: &str| sums["byKind"].as_array().unwrap().iter().find(|counts| counts["kind"] == kind).cloned();
        (told.code, counts("Lowered"), counts("Rejected"), sums.clone())
    };
    let counts = |kind: &str, now: u32, then: u32| Some(json!({ "kind": kind, "now": now, "then": then }));

    let (code, lowered, rejected, same) = proposed(&least(LEAST_S));
    assert_eq!((code, lowered, rejected), (0, None, counts("Rejected", 1, 1)), "{same}");
    assert_eq!(same["changed"], 0, "{same}");
    assert!(same["judged"].as_u64() >= Some(5), "all calls, the refused one too: {same}");

    let mut shorter = least(LEAST_S);
    shorter["timers"]["sessionExpires"] = json!("20m");
    let (code, lowered, _, longest) = proposed(&shorter);
    assert_eq!((code, lowered, &longest["changed"]), (1, counts("Lowered", 0, 1), &json!(1)), "{longest}");
    assert_eq!(longest["examples"][0]["call_id"], held[0].id(), "{longest}");

    // Of the calls that are held one has less; that of the others is a Min-SE which they would be given.
    let (code, _, rejected, all) = proposed(&least(1000));
    assert_eq!((code, &all["changed"]), (1, &all["judged"]), "{all}");
    let then = rejected.as_ref().and_then(|counts| counts["then"].as_u64());
    assert!(then >= Some(3), "the one of 600 s, the first of the namespace, and the refused one: {all}");
}
