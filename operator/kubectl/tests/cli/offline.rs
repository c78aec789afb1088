//! What needs no cluster.

use crate::fake::run;

const POLICY: &str = "apiVersion: sipwarden.dev/v1alpha1\nkind: SessionPolicy\nmetadata: {name: a}\nspec: {}\n";

#[tokio::test]
async fn files_are_judged_without_a_cluster() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("good.yaml"), POLICY).unwrap();
    std::fs::write(folder.path().join("bad.yaml"), POLICY.replace("{}", "{timers: {minSE: 10s}}")).unwrap();

    let good = run(folder.path(), &["lint", "good.yaml"]).await;
    assert_eq!((good.code, good.out.as_str()), (0, "good.yaml: 1 judged, none is wrong\n"));

    let bad = run(folder.path(), &["lint", "good.yaml", "bad.yaml", "-o", "json"]).await;
    assert_eq!(bad.code, 1);
    assert_eq!(bad.json()[1]["problems"][0]["path"], "spec.timers.minSE");

    let missing = run(folder.path(), &["lint", "no.yaml"]).await;
    assert_eq!((missing.code, missing.out.as_str()), (2, ""));
    assert!(missing.err.starts_with("error: no.yaml: "), "{missing:?}");
}

#[tokio::test]
async fn without_a_kubeconfig_it_is_said_what_to_check() {
    let folder = tempfile::tempdir().unwrap();
    for arguments in [&["status"][..], &["status", "--kubeconfig", "no.yaml"]] {
        let ran = run(folder.path(), arguments).await;
        assert_eq!(ran.code, 3, "{ran:?}");
        assert!(ran.err.contains("check --kubeconfig, KUBECONFIG and --context"), "{ran:?}");
    }
}

#[tokio::test]
async fn wrong_usage_ends_with_2() {
    let folder = tempfile::tempdir().unwrap();
    for arguments in [&["no-such-command"][..], &["sessions", "--state", "asleep"], &["status", "-A", "-n", "x"]] {
        assert_eq!(run(folder.path(), arguments).await.code, 2, "{arguments:?}");
    }
}

#[tokio::test]
async fn kubectl_is_told_what_may_come_next() {
    let folder = tempfile::tempdir().unwrap();
    let ran = run(folder.path(), &["__complete", "--", "sess"]).await;
    assert!(ran.out.starts_with("sessions\tList calls"), "{ran:?}");
    assert!(ran.out.ends_with("\n:4\n"), "{ran:?}");
}
