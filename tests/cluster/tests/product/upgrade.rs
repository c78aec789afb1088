//! An upgrade of the release with calls up.

use sipwarden_cluster::product::{App, EarlierCharts, NAMESPACE};
use sipwarden_cluster::workspace::{charts, repository};

use crate::{PATIENCE, alone, cluster, least, site};

#[test]
fn the_charts_are_upgraded_with_calls_up() {
    let _alone = alone();
    let cluster = cluster();
    let EarlierCharts { folder, origin } =
        EarlierCharts::write(&repository(), &cluster.scratch().join("earlier")).unwrap();
    println!("from the charts of {origin}");
    cluster.upgrade_crds(&folder).unwrap();
    cluster.upgrade_sipwarden(&folder, &["operator.log=debug"]).unwrap();
    let site = site("upgrade");
    site.run_under(&least(100), App::Sip, 1).unwrap();
    let service = site.service().unwrap();
    let mut call = site.call(1800).unwrap();
    let pods = site.pods().unwrap();

    cluster.upgrade_crds(&charts()).unwrap();
    cluster.upgrade_sipwarden(&charts(), &["operator.log=info"]).unwrap();

    call.check().unwrap();
    assert_eq!(site.pods().unwrap(), pods, "running pods are left alone");
    cluster.call(service, 1800).unwrap().hang_up().unwrap();
    site.policy("carrier", &least(200)).unwrap();
    site.eventually("a change after the upgrade", PATIENCE, || site.refuses_below(200, service)).unwrap();
    call.check().unwrap();
    call.hang_up().unwrap();
    let deployment =
        ["-n", NAMESPACE, "get", "deployment", "sipwarden-operator", "-o", "jsonpath={.status.readyReplicas}"];
    assert_eq!(cluster.kubectl(&deployment).unwrap(), "2");
}
