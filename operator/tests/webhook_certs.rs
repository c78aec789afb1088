//! Replicas that keep certificates together, over virtual time: whatever happens, no API server that could call meets a
//! leaf it does not trust.

use std::{
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use prometheus::Registry;
use proptest::{collection::vec, prelude::*};
use rustls::{
    RootCertStore,
    client::{WebPkiServerVerifier, danger::ServerCertVerifier},
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject},
};
use sipwarden_operator::certs::{
    CertsError, Cluster, ClusterError, Configuration, Keeper, LeafSlot, Metrics, Names, ROTATE, Report, Step, StoredCa,
    Timing, Why,
};

const START_S: i64 = 1_800_000_000;
const DAY_S: i64 = 86_400;
const DNS_NAME: &str = "sipwarden-webhook.sipwarden.svc";

/// The API server, shared by all replicas.
#[derive(Clone)]
struct World(Arc<Mutex<State>>);

struct State {
    now_s: i64,
    secret: Option<StoredCa>,
    configurations: Vec<Configuration>,
    /// Every bundle there was, in any configuration, and until when it was the latest.
    replaced: Vec<(i64, usize, String)>,
    version: u64,
    failures: usize,
    /// Calls that are never answered.
    unanswered: usize,
    /// The Secret cannot be written.
    is_read_only: bool,
    /// Who must not be ready while bundles are still to be written.
    waiting: Option<Arc<LeafSlot>>,
    was_early: bool,
    /// How calls of several replicas interleave.
    schedule: u64,
}

impl World {
    fn new() -> Self {
        let configuration = |name: &str, webhooks: usize| Configuration {
            name: name.to_owned(),
            version: "0".to_owned(),
            bundles: vec![String::new(); webhooks],
        };
        Self(Arc::new(Mutex::new(State {
            now_s: START_S,
            secret: None,
            configurations: vec![configuration("injector", 2), configuration("validator", 1)],
            replaced: Vec::new(),
            version: 0,
            failures: 0,
            unanswered: 0,
            is_read_only: false,
            waiting: None,
            was_early: false,
            schedule: 0,
        })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("no test panics with the lock")
    }

    fn replica(&self) -> Replica {
        let slot = Arc::new(LeafSlot::default());
        let metrics = Metrics::new(&Registry::new()).expect("names of their own");
        let dns_names = Names::new("sipwarden", "sipwarden-webhook", "default").dns_names();
        Replica {
            keeper: Keeper::new(self.clone(), "default", dns_names, Timing::default(), slot.clone(), metrics),
            slot,
            world: self.clone(),
        }
    }

    fn pass(&self, seconds: i64) {
        self.state().now_s += seconds;
    }

    fn ask_for_rotation(&self) {
        let mut state = self.state();
        state.version += 1;
        let version = state.version.to_string();
        if let Some(secret) = &mut state.secret {
            secret.annotations.insert(ROTATE.to_owned(), "now".to_owned());
            secret.version = version;
        }
    }

    fn bundles(&self) -> Vec<String> {
        self.state().configurations.iter().flat_map(|configuration| configuration.bundles.clone()).collect()
    }

    /// The bundles that some API server may go by now: the latest, and what was the latest a short while ago.
    fn bundles_in_use(&self) -> Vec<String> {
        let state = self.state();
        let recent =
            state.replaced.iter().filter(|(until_s, ..)| until_s + Timing::default().propagation_s > state.now_s);
        let recent = recent.map(|(_, _, bundle)| bundle.clone()).filter(|bundle| !bundle.is_empty());
        state.configurations.iter().flat_map(|configuration| configuration.bundles.clone()).chain(recent).collect()
    }

    /// Whether a call stays without an answer.
    fn is_lost(&self) -> bool {
        let mut state = self.state();
        let is_lost = state.unanswered > 0;
        state.unanswered = state.unanswered.saturating_sub(1);
        is_lost
    }

    async fn call(&self) -> Result<MutexGuard<'_, State>, ClusterError> {
        let yields = {
            let mut state = self.state();
            state.schedule =
                state.schedule.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state.schedule >> 62) as usize
        };
        for _ in 0..yields {
            tokio::task::yield_now().await;
        }
        if self.is_lost() {
            return std::future::pending().await;
        }
        let mut state = self.state();
        if state.failures > 0 {
            state.failures -= 1;
            return Err(ClusterError::Failed("unreachable".into()));
        }
        Ok(state)
    }
}

impl Cluster for World {
    async fn now_s(&self) -> Option<i64> {
        Some(self.state().now_s)
    }

    async fn load(&self) -> Result<Option<StoredCa>, ClusterError> {
        Ok(self.call().await?.secret.clone())
    }

    async fn create(&self, ca: &StoredCa) -> Result<(), ClusterError> {
        let mut state = self.call().await?;
        if state.secret.is_some() {
            return Err(ClusterError::Conflict);
        }
        state.version += 1;
        state.secret = Some(StoredCa { version: state.version.to_string(), ..ca.clone() });
        Ok(())
    }

    async fn replace(&self, ca: &StoredCa) -> Result<(), ClusterError> {
        let mut state = self.call().await?;
        if state.is_read_only {
            return Err(ClusterError::Failed("forbidden".into()));
        }
        if state.secret.as_ref().is_none_or(|secret| secret.version != ca.version) {
            return Err(ClusterError::Conflict);
        }
        state.version += 1;
        state.secret = Some(StoredCa { version: state.version.to_string(), ..ca.clone() });
        Ok(())
    }

    async fn configurations(&self) -> Result<Vec<Configuration>, ClusterError> {
        Ok(self.call().await?.configurations.clone())
    }

    async fn publish(&self, configuration: &Configuration, bundle: &str) -> Result<(), ClusterError> {
        let mut state = self.call().await?;
        let now_s = state.now_s;
        let is_early = state.waiting.as_ref().is_some_and(|slot| slot.is_ready());
        state.was_early |= is_early;
        state.version += 1;
        let version = state.version.to_string();
        let index = state
            .configurations
            .iter()
            .position(|known| known.name == configuration.name)
            .expect("a known configuration");
        let known = &mut state.configurations[index];
        if known.version != configuration.version {
            return Err(ClusterError::Conflict);
        }
        known.version = version;
        let before = std::mem::replace(&mut known.bundles, vec![bundle.to_owned(); configuration.bundles.len()]);
        state.replaced.extend(before.into_iter().map(|before| (now_s, index, before)));
        Ok(())
    }
}

struct Replica {
    keeper: Keeper<World>,
    slot: Arc<LeafSlot>,
    world: World,
}

impl Replica {
    async fn look(&mut self) -> Report {
        self.keeper.look().await.expect("the world answers")
    }

    /// Looks until nothing is left to do at this moment.
    async fn settle(&mut self) -> Vec<Step> {
        let mut steps = Vec::new();
        for _ in 0..10 {
            let report = self.look().await;
            if report.step == Step::Keep && !report.conflict {
                return steps;
            }
            steps.push(report.step);
        }
        panic!("never settles: {steps:?}");
    }

    fn leaf(&self) -> CertificateDer<'static> {
        self.slot.leaf().expect("a leaf").cert[0].clone()
    }

    fn is_trusted_by(&self, bundle: &str) -> Result<(), rustls::Error> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(bundle.as_bytes()) {
            roots.add(certificate.expect("a certificate")).expect("a certificate");
        }
        let provider = Arc::new(aws_lc_rs::default_provider());
        let verifier = WebPkiServerVerifier::builder_with_provider(roots.into(), provider).build().expect("a verifier");
        let now_s = self.world.state().now_s;
        let now = UnixTime::since_unix_epoch(Duration::from_secs(now_s as u64));
        let name = ServerName::try_from(DNS_NAME).expect("a DNS name");
        verifier.verify_server_cert(&self.leaf(), &[], &name, &[], now).map(|_| ())
    }
}

#[tokio::test]
async fn the_first_replica_makes_the_ca_and_the_second_signs_with_it() {
    let world = World::new();
    let (mut first, mut second) = (world.replica(), world.replica());
    assert_eq!(first.settle().await, [Step::Create]);
    assert_eq!(second.settle().await, []);
    assert_ne!(first.leaf(), second.leaf());
    for bundle in world.bundles() {
        first.is_trusted_by(&bundle).unwrap();
        second.is_trusted_by(&bundle).unwrap();
    }
}

#[tokio::test]
async fn no_replica_is_ready_before_its_ca_is_in_every_bundle() {
    let world = World::new();
    world.replica().settle().await;
    // As a replica leaves it that dies between the two.
    world.state().configurations.iter_mut().for_each(|configuration| configuration.bundles.fill(String::new()));
    let mut late = world.replica();
    world.state().waiting = Some(late.slot.clone());
    late.look().await;
    assert!(late.slot.is_ready());
    assert!(!world.state().was_early, "ready while the API server could not know the CA");
}

#[tokio::test]
async fn who_may_not_rotate_still_signs_with_the_ca_there_is() {
    let world = World::new();
    world.replica().settle().await;
    world.pass(300 * 86_400);
    world.state().is_read_only = true;
    let mut restarted = world.replica();
    restarted.keeper.look().await.expect_err("the next CA cannot be stored");
    restarted.is_trusted_by(&world.bundles()[0]).expect("the CA is valid for two months more");
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_never_answered_is_given_up_and_made_again() {
    let world = World::new();
    world.state().unanswered = 2;
    let Replica { keeper, slot, .. } = world.replica();
    keeper.run(tokio::time::sleep(Duration::from_secs(30))).await;
    assert!(slot.is_ready());
}

#[tokio::test]
async fn replicas_that_start_at_once_agree_on_one_ca() {
    for schedule in 0..50 {
        let world = World::new();
        world.state().schedule = 0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(schedule);
        let (mut first, mut second) = (world.replica(), world.replica());
        let (one, other) = tokio::join!(first.keeper.look(), second.keeper.look());
        let created = [one.unwrap().step, other.unwrap().step].into_iter().filter(|step| *step == Step::Create).count();
        assert_eq!(created, 1);
        first.settle().await;
        second.settle().await;
        let bundles = world.bundles();
        assert!(bundles.iter().all(|bundle| *bundle == bundles[0]));
        first.is_trusted_by(&bundles[0]).unwrap();
        second.is_trusted_by(&bundles[0]).unwrap();
    }
}

#[tokio::test]
async fn a_rotation_that_was_asked_for_trusts_the_next_ca_first() {
    let world = World::new();
    let mut replica = world.replica();
    replica.settle().await;
    let (leaf, first_bundle) = (replica.leaf(), world.bundles()[0].clone());

    world.ask_for_rotation();
    assert_eq!(replica.settle().await, [Step::Prepare(Why::Asked)]);
    assert_eq!(replica.leaf(), leaf);
    let both = world.bundles()[0].clone();
    assert!(both.starts_with(&first_bundle) && both.len() > first_bundle.len());

    world.pass(59);
    assert_eq!(replica.settle().await, []);
    world.pass(1);
    assert_eq!(replica.settle().await, [Step::Promote]);
    assert_ne!(replica.leaf(), leaf);
    assert!(replica.is_trusted_by(&first_bundle).is_err());
    replica.is_trusted_by(&both).unwrap();

    world.pass(DAY_S + 600);
    assert_eq!(replica.settle().await, [Step::Retire]);
    assert_eq!(world.bundles()[0].matches("BEGIN").count(), 1);
    replica.is_trusted_by(&world.bundles()[0]).unwrap();
}

#[tokio::test]
async fn while_one_configuration_lacks_the_next_ca_it_does_not_sign() {
    let world = World::new();
    let mut replica = world.replica();
    replica.settle().await;
    world.ask_for_rotation();
    replica.settle().await;
    world.pass(59);
    {
        let mut state = world.state();
        state.configurations[1].bundles[0].clear();
        state.configurations[1].version = "upgraded".to_owned();
    }
    assert_eq!(replica.settle().await, []);
    world.pass(59);
    assert_eq!(replica.settle().await, []);
    world.pass(1);
    assert_eq!(replica.settle().await, [Step::Promote]);
}

#[tokio::test]
async fn a_leaf_is_renewed_after_half_its_life() {
    let world = World::new();
    let mut replica = world.replica();
    replica.settle().await;
    let leaf = replica.leaf();
    world.pass(DAY_S / 2 - 1);
    replica.settle().await;
    assert_eq!(replica.leaf(), leaf);
    world.pass(1);
    replica.settle().await;
    assert_ne!(replica.leaf(), leaf);
}

#[tokio::test]
async fn when_the_clock_jumps_back_the_leaf_is_signed_again_and_the_ca_stays() {
    let world = World::new();
    let mut replica = world.replica();
    replica.settle().await;
    world.pass(10 * DAY_S);
    replica.settle().await;
    let bundle = world.bundles()[0].clone();
    world.pass(-9 * DAY_S);
    assert!(replica.is_trusted_by(&bundle).is_err());
    assert_eq!(replica.settle().await, []);
    replica.is_trusted_by(&bundle).unwrap();
}

#[tokio::test]
async fn a_ca_made_by_a_clock_that_was_ahead_is_replaced_once_the_clock_is_right() {
    let world = World::new();
    let mut replica = world.replica();
    world.pass(1000 * DAY_S);
    replica.settle().await;
    world.pass(-1000 * DAY_S);
    assert_eq!(replica.settle().await, [Step::Replace(Why::NotYetValid)]);
    replica.is_trusted_by(&world.bundles()[0]).unwrap();
}

#[tokio::test]
async fn an_operator_that_was_off_for_years_starts_with_a_new_ca() {
    let world = World::new();
    world.replica().settle().await;
    world.pass(800 * DAY_S);
    let mut replica = world.replica();
    assert_eq!(replica.settle().await, [Step::Replace(Why::Expired)]);
    replica.is_trusted_by(&world.bundles()[0]).unwrap();
}

#[tokio::test]
async fn a_secret_that_cannot_be_read_is_replaced() {
    let spoil: [fn(&mut StoredCa); 4] = [
        |secret| drop(secret.data.insert("ca.crt".to_owned(), "nonsense".to_owned())),
        |secret| drop(secret.data.remove("ca.key")),
        |secret| secret.data.clear(),
        |secret| {
            let other = World::new();
            futures_of(other.replica().settle());
            let key = other.state().secret.as_ref().unwrap().data["ca.key"].clone();
            secret.data.insert("ca.key".to_owned(), key);
        },
    ];
    for spoil in spoil {
        let world = World::new();
        let mut replica = world.replica();
        replica.settle().await;
        spoil(world.state().secret.as_mut().unwrap());
        assert_eq!(replica.settle().await, [Step::Replace(Why::Unreadable)]);
        replica.is_trusted_by(&world.bundles()[0]).unwrap();
    }
}

/// Runs what does not wait for anything else, from within a test that runs already.
fn futures_of<T: Send>(future: impl Future<Output = T> + Send) -> T {
    let run =
        || tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime").block_on(future);
    std::thread::scope(|scope| scope.spawn(run).join().expect("no panic"))
}

#[tokio::test]
async fn a_failed_call_leaves_the_leaf_in_use_and_is_told() {
    let world = World::new();
    let mut replica = world.replica();
    replica.settle().await;
    let leaf = replica.leaf();
    world.state().failures = 1;
    let error = replica.keeper.look().await.expect_err("unreachable");
    assert!(matches!(&error, CertsError::Cluster { .. }), "{error}");
    assert_eq!(replica.leaf(), leaf);
}

#[tokio::test]
async fn rotations_in_a_row_keep_trusting_what_may_still_be_served() {
    let world = World::new();
    let (mut busy, mut sleepy) = (world.replica(), world.replica());
    busy.settle().await;
    sleepy.settle().await;
    for _ in 0..3 {
        world.ask_for_rotation();
        busy.settle().await;
        world.pass(60);
        busy.settle().await;
        for bundle in world.bundles() {
            busy.is_trusted_by(&bundle).unwrap();
            sleepy.is_trusted_by(&bundle).unwrap();
        }
    }
}

#[derive(Clone, Debug)]
enum Event {
    /// These replicas look at the same time.
    Look([bool; 3]),
    Pass(i64),
    AskForRotation,
    Fail(usize),
    Restart(usize),
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        10 => any::<[bool; 3]>().prop_map(Event::Look),
        4 => (0..200_i64).prop_map(Event::Pass),
        2 => (0..DAY_S / 4).prop_map(Event::Pass),
        1 => (0..60 * DAY_S).prop_map(Event::Pass),
        2 => Just(Event::AskForRotation),
        1 => (1..4_usize).prop_map(Event::Fail),
        1 => (0..3_usize).prop_map(Event::Restart),
    ];
    vec(event, 1..60)
}

/// A leaf whose replica did not look for so long that it expired is no rotation's fault.
fn check_trust(world: &World, replicas: &[Replica]) -> Result<(), TestCaseError> {
    for replica in replicas.iter().filter(|replica| replica.slot.is_ready()) {
        for bundle in world.bundles_in_use() {
            match replica.is_trusted_by(&bundle) {
                Ok(()) | Err(rustls::Error::InvalidCertificate(rustls::CertificateError::ExpiredContext { .. })) => {}
                Err(error) => prop_assert!(false, "a leaf is not trusted: {error}\n{bundle}"),
            }
        }
    }
    Ok(())
}

async fn play(events: Vec<Event>, schedule: u64) -> Result<(), TestCaseError> {
    let world = World::new();
    world.state().schedule = schedule;
    let mut replicas = [world.replica(), world.replica(), world.replica()];
    replicas[0].settle().await;
    for event in events {
        match event {
            Event::Look(who) => {
                let [a, b, c] = &mut replicas;
                let look = async |replica: &mut Replica, does: bool| {
                    if does {
                        // A failed call is what this test is about; what must hold is checked below.
                        drop(replica.keeper.look().await);
                    }
                };
                tokio::join!(look(a, who[0]), look(b, who[1]), look(c, who[2]));
            }
            Event::Pass(seconds) => world.pass(seconds),
            Event::AskForRotation => world.ask_for_rotation(),
            Event::Fail(calls) => world.state().failures = calls,
            Event::Restart(which) => replicas[which] = world.replica(),
        }
        check_trust(&world, &replicas)?;
    }
    world.state().failures = 0;
    for replica in &mut replicas {
        replica.settle().await;
    }
    check_trust(&world, &replicas)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn no_api_server_meets_a_leaf_it_does_not_trust(events in events(), schedule: u64) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(play(events, schedule))?;
    }
}
