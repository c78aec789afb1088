//! The node, its namespaces, and the calls that tests ask about.

use std::sync::OnceLock;

use sipwarden_cluster::{
    Call, Cluster, images,
    product::{App, Site, least},
};

use crate::{plugin::plugin, ran::Ran};

/// Intervals of the calls that are held, in seconds; nobody refreshes them, and they are longer than the tests.
pub(crate) const HELD_S: [u32; 3] = [1800, 600, 1200];
/// The shortest intervals that the policies of `voice` and `calls` allow, in seconds.
pub(crate) const LEAST_S: u32 = 120;
pub(crate) const CALLS_LEAST_S: u32 = 100;
/// The interval of the first call of a namespace, which is over.
const FIRST_S: u32 = 300;

/// The namespace in which no test places a call. Its policy enforces.
pub(crate) struct Voice {
    pub(crate) site: Site<'static>,
    /// Calls that are up, of the intervals [`HELD_S`].
    pub(crate) held: Vec<Call>,
    /// The Call-ID of a call that was answered 422.
    pub(crate) refused: String,
    /// That of a call whose caller hung up.
    pub(crate) ended: String,
}

/// What `check` said before sipwarden was there.
pub(crate) struct Before {
    pub(crate) pre: Ran,
    pub(crate) whole: Ran,
}

/// The node, whether sipwarden is there yet or not.
pub(crate) fn node() -> &'static Cluster {
    static NODE: OnceLock<Cluster> = OnceLock::new();
    NODE.get_or_init(|| {
        let cluster = Cluster::node().expect("a node starts");
        for image in [images::busybox(), images::sipp()] {
            cluster.import(&image.expect("its programs are installed")).expect("containerd takes an OCI archive");
        }
        cluster
    })
}

/// The node has sipwarden from here on.
pub(crate) fn installed() -> &'static Before {
    static BEFORE: OnceLock<Before> = OnceLock::new();
    BEFORE.get_or_init(|| {
        let before = Before { pre: plugin("check --pre -o json"), whole: plugin("check -A") };
        node().install_sipwarden(&[]).expect("the charts install");
        before
    })
}

/// An opted-in namespace of a node with sipwarden.
pub(crate) fn site(namespace: &'static str) -> Site<'static> {
    installed();
    Site::create(node(), namespace).expect("a namespace")
}

pub(crate) fn voice() -> &'static Voice {
    static VOICE: OnceLock<Voice> = OnceLock::new();
    VOICE.get_or_init(|| {
        let (site, ended) = called("voice", LEAST_S, 2);
        let service = site.service().expect("there is a Service");
        let held = HELD_S.map(|interval_s| node().call(service, interval_s).expect("the call is accepted"));
        let refused = node().invite(service, LEAST_S - 1).expect("an answer");
        assert_eq!(refused.status, 422);
        let refused = refused.header("Call-ID").expect("an answer names its call").to_owned();
        Voice { site, held: held.into(), refused, ended }
    })
}

/// The namespace in which tests place calls.
pub(crate) fn calls() -> &'static Site<'static> {
    static CALLS: OnceLock<Site<'static>> = OnceLock::new();
    CALLS.get_or_init(|| called("calls", CALLS_LEAST_S, 1).0)
}

/// A namespace whose application is called through its Service, and the Call-ID of the first call, which is over.
fn called(namespace: &'static str, least_s: u32, replicas: u32) -> (Site<'static>, String) {
    let site = site(namespace);
    site.run_under(&least(least_s), App::Sip, replicas).expect("its pods obey the policy");
    site.becomes("carrier", "Ready", "True Ready").expect("it comes true in time");
    let first = site.call(FIRST_S).expect("the call is accepted");
    let id = first.id().to_owned();
    first.hang_up().expect("the call is up");
    (site, id)
}
