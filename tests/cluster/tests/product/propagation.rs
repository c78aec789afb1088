//! Changes of a policy reach many pods. The figures are printed; bounds are those of a busy machine, as kubelet has the
//! largest part in them. The bench measures the same for longer.

use std::time::{Duration, Instant};

use sipwarden_cluster::product::{App, Changes};

use crate::{PATIENCE, SOON, alone, least, site};

const PODS: u32 = 50;
const CHANGES: u32 = 5;
/// Most of the time they do within a second.
const HALF: Duration = Duration::from_secs(5);

#[test]
fn changes_reach_fifty_pods_in_time_and_their_status_says_so() {
    let _alone = alone();
    let site = site("propagation");
    site.policy("carrier", &least(100)).unwrap();
    let started = Instant::now();
    site.run(App::Idle, PODS).unwrap();
    println!("{PODS} pods rolled out after {:.1} s", started.elapsed().as_secs_f64());
    site.eventually("the policy in every sidecar", SOON, || site.all_obey("carrier")).unwrap();

    let changes = Changes::measure(&site, CHANGES, PATIENCE).unwrap();
    let ended = Instant::now();
    let all = i64::from(PODS);
    site.eventually("a status that counts every pod as in step", PATIENCE, || {
        let counts = &site.get("sessionpolicy", "carrier").ok()?["status"]["pods"];
        (counts["inStep"] == all && counts["stale"] == 0 && counts["matched"] == all).then_some(())
    })
    .unwrap();

    println!("{CHANGES} changes with {PODS} pods, from the start of kubectl apply:\n{changes}");
    println!("every pod counted as in step {:.1} s after the last", ended.elapsed().as_secs_f64());
    assert_eq!(changes.late, 0, "sidecars that did not obey within {PATIENCE:?}");
    assert!(changes.obeyed.quantile(500).unwrap() < HALF && changes.judged.quantile(500).unwrap() < HALF, "{changes}");
    assert_eq!(site.condition("carrier", "Ready").as_deref(), Some("True Ready"));
}
