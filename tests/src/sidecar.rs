//! The real sidecar process: started from its release build, addressed by what its ready line says.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{env, fs};

use crate::admin::Admin;
use crate::ports::LOOPBACK;
use crate::process::Process;
use crate::wait::eventually;

/// Session time runs this many times faster in tests: 90 s pass in 4.5 s.
pub const CLOCK_SPEED: u32 = 20;

/// How long the sidecar may take to be ready.
const START: Duration = Duration::from_secs(10);

/// What a sidecar is started with.
pub struct Setup {
    policy: String,
    app: SocketAddr,
    ip: IpAddr,
    next_hop: Option<String>,
    clock_speed: u32,
    admin_token: Option<String>,
    max_calls: Option<u32>,
}

/// A running sidecar.
pub struct Sidecar {
    process: Process,
    ready: String,
}

impl Setup {
    /// A sidecar that runs `spec`, the YAML of a SessionPolicy's spec, before the app at `app`.
    pub fn new(spec: &str, app: SocketAddr) -> Setup {
        Setup {
            policy: policy(spec),
            app,
            ip: LOOPBACK,
            next_hop: None,
            clock_speed: CLOCK_SPEED,
            admin_token: None,
            max_calls: None,
        }
    }

    /// Listens on this address instead of IPv4 loopback.
    pub fn ip(mut self, ip: IpAddr) -> Setup {
        self.ip = ip;
        self
    }

    /// Sends what has no route of its own here, as `TRANSPORT:HOST:PORT`.
    pub fn next_hop(mut self, next_hop: &str) -> Setup {
        self.next_hop = Some(next_hop.to_owned());
        self
    }

    /// Session time runs as fast as the clock of peers that have one of their own.
    pub fn real_time(mut self) -> Setup {
        self.clock_speed = 1;
        self
    }

    /// Whoever has this token may act through the admin port.
    pub fn admin_token(mut self, token: &str) -> Setup {
        self.admin_token = Some(token.to_owned());
        self
    }

    /// Tracks so many calls at once.
    pub fn max_calls(mut self, calls: u32) -> Setup {
        self.max_calls = Some(calls);
        self
    }

    /// Starts it and waits until it is ready.
    pub fn start(self) -> Sidecar {
        let mut process = Process::start("sidecar", &binary(), |command, dir| {
            let file = dir.join("policy.yaml");
            fs::write(&file, &self.policy).expect("the directory is ours");
            let any = SocketAddr::new(self.ip, 0);
            command.arg("run").arg("--policy").arg(file);
            command.args(["--listen", &format!("udp:{any}"), "--listen", &format!("tcp:{any}")]);
            command.args(["--app-listen", &format!("udp:{any}"), "--app", &format!("udp:{}", self.app)]);
            command.args(["--admin", "127.0.0.1:0", "--clock-speed", &self.clock_speed.to_string()]);
            if let Some(next_hop) = &self.next_hop {
                command.args(["--next-hop", next_hop]);
            }
            if let Some(calls) = self.max_calls {
                command.args(["--max-calls", &calls.to_string()]);
            }
            if let Some(token) = &self.admin_token {
                let file = dir.join("token");
                fs::write(&file, token).expect("the directory is ours");
                command.arg("--admin-token-file").arg(file);
            }
        });
        let ready = eventually("the sidecar's ready line", START, || {
            assert_eq!(process.ended(), None, "the sidecar ended before it was ready");
            process.stdout().lines().find(|line| line.starts_with("sipwarden ready")).map(str::to_owned)
        });
        Sidecar { process, ready }
    }
}

impl Sidecar {
    /// The remote-facing UDP address.
    pub fn udp(&self) -> SocketAddr {
        self.address("listen=udp:")
    }

    /// The remote-facing TCP address.
    pub fn tcp(&self) -> SocketAddr {
        self.address("listen=tcp:")
    }

    /// The app-facing address: the app's outbound proxy.
    pub fn app_side(&self) -> SocketAddr {
        self.address("app-listen=udp:")
    }

    /// Its admin port.
    pub fn admin(&self) -> Admin {
        Admin::new(self.admin_addr())
    }

    /// Where its admin port is.
    pub fn admin_addr(&self) -> SocketAddr {
        self.address("admin=")
    }

    /// Ends it as an orchestrator would, and expects it to end cleanly.
    pub fn stop(mut self) {
        let status = self.process.terminate();
        assert!(status.success(), "the sidecar ended with {status} on SIGTERM");
    }

    fn address(&self, key: &str) -> SocketAddr {
        let value = self.ready.split_whitespace().find_map(|word| word.strip_prefix(key));
        let value = value.unwrap_or_else(|| panic!("no {key} in the ready line: {}", self.ready));
        value.parse().unwrap_or_else(|error| panic!("{key}{value} is no address: {error}"))
    }
}

/// A SessionPolicy file around `spec`.
fn policy(spec: &str) -> String {
    let spec: String = spec.lines().map(|line| format!("  {line}\n")).collect();
    format!("apiVersion: sipwarden.dev/v1alpha1\nkind: SessionPolicy\nmetadata: {{name: test}}\nspec:\n{spec}")
}

/// `SIPWARDEN_SIDECAR`, or the release build beside the profile this test was built in.
pub fn binary() -> PathBuf {
    let built = || {
        let test = env::current_exe().expect("a test knows its own path");
        let target = test.ancestors().nth(3).expect("tests are built in target/PROFILE/deps");
        target.join("release/sipwarden-sidecar")
    };
    let path = env::var_os("SIPWARDEN_SIDECAR").map_or_else(built, PathBuf::from);
    assert!(is_file(&path), "no sidecar at {}: cargo build --release -p sipwarden-sidecar", path.display());
    path
}

fn is_file(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|metadata| metadata.is_file())
}
