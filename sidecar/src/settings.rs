//! What a sidecar is started with, checked.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::PathBuf;

use anyhow::{bail, ensure};
use sipwarden_otlp::Otlp;
use sipwarden_session_timer::Limits;
use sipwarden_shard::Target;

use crate::address::{Advertised, ListenAddress};
use crate::policy_file::Sources;

/// Most `--workers`.
const MAX_WORKERS: usize = 64;
/// Most `--clock-speed`: the least session interval then still lasts about a second.
const MAX_CLOCK_SPEED: u32 = 100;
/// Most `--record-mib`.
const MAX_RECORD_MIB: u32 = 4096;

/// Settings of one sidecar.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where to look for a policy.
    pub policy: Sources,
    /// Remote-facing listeners.
    pub listen: Vec<ListenAddress>,
    /// App-facing listeners.
    pub app_listen: Vec<ListenAddress>,
    /// Where the application listens.
    pub app: ListenAddress,
    /// Where requests of the application without a Route go.
    pub next_hop: Option<Target>,
    /// What Via and Record-Route of the remote-facing side say.
    pub advertise: Option<Advertised>,
    /// The admin interface.
    pub admin: SocketAddr,
    /// What whoever acts on calls through the admin interface must show; `None` lets nobody.
    pub admin_token_file: Option<PathBuf>,
    /// The status interface.
    pub status: Option<SocketAddr>,
    /// Session time runs this many times faster.
    pub clock_speed: u32,
    /// Threads and shards.
    pub workers: usize,
    /// Room for what is remembered of decisions and messages, in MiB; 0 remembers nothing.
    pub record_mib: u32,
    /// Calls tracked at once, by all workers together.
    pub max_calls: usize,
    /// Users of SIP URIs stand in log lines and traces.
    pub log_sip_users: bool,
    /// Where sessions are traced.
    pub otlp: Option<Otlp>,
}

impl Settings {
    /// Most `--max-calls`: as many as the core keeps.
    pub const MOST_CALLS: usize = Limits::DEFAULT.calls;

    /// Loopback, because `/sessions` tells who calls whom.
    pub const DEFAULT_ADMIN: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 8642));

    /// An hour of about one call a second.
    pub const DEFAULT_RECORD_MIB: u32 = 8;

    /// # Errors
    /// Settings that contradict each other; the text names the flag.
    pub fn check(&self) -> anyhow::Result<()> {
        ensure!(
            !self.listen.is_empty(),
            "--listen is missing: where the network reaches us, for example udp:192.0.2.1:5060"
        );
        ensure!(
            !self.app_listen.is_empty(),
            "--app-listen is missing: where the application reaches us, for example udp:127.0.0.1:5062"
        );
        for listen in &self.listen {
            if listen.addr.ip().is_unspecified() && self.advertised(listen.addr).is_none() {
                bail!(
                    "--listen {listen} takes any address, so the network must be told one: add --advertise HOST[:PORT] of \
                     that IP version, or a name"
                );
            }
        }
        for listen in &self.app_listen {
            if listen.addr.ip().is_unspecified() {
                bail!(
                    "--app-listen {listen} must name one address: the application is told it in Via and Record-Route"
                );
            }
        }
        ensure!(
            self.policy.last_good.is_none() || self.policy.file.is_some(),
            "--last-good keeps what --policy FILE held: add --policy, though the file need not exist yet"
        );
        ensure!(self.app.addr.port() != 0, "--app {} needs the port the application listens on", self.app);
        ensure!(
            self.app_listen.iter().any(|listen| self.reaches_app(listen)),
            "--app {} is reached from no --app-listen of the same transport and IP version",
            self.app
        );
        ensure!((1..=MAX_WORKERS).contains(&self.workers), "--workers must be 1 to {MAX_WORKERS}");
        let calls = self.workers..=Settings::MOST_CALLS;
        ensure!(
            calls.contains(&self.max_calls),
            "--max-calls must be {} (one for each worker) to {}",
            calls.start(),
            calls.end()
        );
        ensure!((1..=MAX_CLOCK_SPEED).contains(&self.clock_speed), "--clock-speed must be 1 to {MAX_CLOCK_SPEED}");
        ensure!(self.record_mib <= MAX_RECORD_MIB, "--record-mib must be 0 to {MAX_RECORD_MIB}");
        if self.clock_speed > 1 && std::env::var_os("KUBERNETES_SERVICE_HOST").is_some() {
            bail!("--clock-speed ends real calls too early and is refused in a cluster");
        }
        Ok(())
    }

    /// What is told to the network in place of a remote-facing listener's own address.
    pub fn advertised(&self, listener: SocketAddr) -> Option<&Advertised> {
        self.advertise.as_ref().filter(|advertised| advertised.stands_for(listener))
    }

    /// Requests to the application leave from this listener.
    pub fn reaches_app(&self, listen: &ListenAddress) -> bool {
        listen.transport == self.app.transport && listen.addr.is_ipv4() == self.app.addr.is_ipv4()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> Settings {
        let address = |text: &str| text.parse().expect("an address");
        Settings {
            policy: Sources::default(),
            listen: vec![address("udp:127.0.0.1:0")],
            app_listen: vec![address("udp:127.0.0.1:0")],
            app: address("udp:127.0.0.1:5070"),
            next_hop: None,
            advertise: None,
            admin: Settings::DEFAULT_ADMIN,
            admin_token_file: None,
            status: None,
            clock_speed: 1,
            workers: 1,
            record_mib: 1,
            max_calls: Settings::MOST_CALLS,
            log_sip_users: false,
            otlp: None,
        }
    }

    fn refused(settings: Settings, text: &str) {
        let error = settings.check().expect_err(text).to_string();
        assert!(error.contains(text), "{error}");
    }

    #[test]
    fn sound_settings_pass() {
        settings().check().expect("sound");
    }

    #[test]
    fn listening_on_any_address_needs_an_advertised_one() {
        for any in ["udp:0.0.0.0:5060", "tcp:[::]:5060"] {
            let listen = vec![any.parse().expect("an address")];
            refused(Settings { listen: listen.clone(), ..settings() }, "--advertise");
            let advertise = Some("sip.example.net".parse().expect("a host"));
            Settings { listen: listen.clone(), advertise, ..settings() }.check().expect("advertised");
            refused(Settings { app_listen: listen, ..settings() }, "--app-listen");
        }
    }

    #[test]
    fn the_app_must_be_reachable_from_an_app_listener() {
        for app in ["tcp:127.0.0.1:5070", "udp:[::1]:5070"] {
            refused(Settings { app: app.parse().expect("an address"), ..settings() }, "reached from no --app-listen");
        }
        refused(Settings { app: "udp:127.0.0.1:0".parse().expect("an address"), ..settings() }, "needs the port");
    }

    #[test]
    fn a_last_good_policy_needs_one_to_keep() {
        let policy = Sources { last_good: Some("last-good.json".into()), ..Sources::default() };
        refused(Settings { policy, ..settings() }, "add --policy");
    }

    #[test]
    fn limits_of_numbers_are_told() {
        refused(Settings { workers: 0, ..settings() }, "--workers");
        refused(Settings { clock_speed: 101, ..settings() }, "--clock-speed");
        refused(Settings { record_mib: 4097, ..settings() }, "--record-mib");
        refused(Settings { max_calls: 2_000_001, ..settings() }, "--max-calls");
        refused(Settings { max_calls: 3, workers: 4, ..settings() }, "one for each worker");
    }
}
