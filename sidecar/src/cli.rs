//! The command line: `run`, `check`, `call`, `answer`, `demo`. `run` takes the same settings from a YAML file.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::{Args, Parser, Subcommand, ValueEnum};
use serde::Deserialize;
use sipwarden_otlp::{Endpoint, Otlp, Ratio};

use crate::address::{Advertised, ListenAddress, NextHop, socket_addr};
use crate::answer::AnswerArgs;
use crate::call::CallArgs;
use crate::memory;
use crate::policy_file::Sources;
use crate::settings::Settings;

/// One session policy over every SIP call of the application behind it.
#[derive(Debug, Parser)]
#[command(name = "sipwarden-sidecar", version, about)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Stand between the network and an application, and hold the session policy
    Run(Box<RunArgs>),
    /// Say what is wrong with a SessionPolicy or SidecarConfig file, with line and field, or what it will do
    Check {
        /// The YAML file
        file: PathBuf,
    },
    /// Place a test call: INVITE, ACK, a session refresh, BYE; say what came back, and whether a session timer is kept
    Call(Box<CallArgs>),
    /// Take every call, as an application without session timers, so that a test call has somebody to talk to
    Answer(AnswerArgs),
    /// Show a call on loopback: 422, negotiation, a refresh, a phone that vanishes, the BYE to both sides
    Demo,
}

/// Settings of `run`. Flags win over the file of `--config`, list by list.
#[derive(Clone, Debug, Default, Args, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct RunArgs {
    /// The same settings in YAML: policy, lastGood, credentialsDir, listen, appListen, app, nextHop, advertise, status,
    /// admin, adminTokenFile, clockSpeed, workers, recordMib, maxCalls, logFormat, log, logSipUsers, otlp, otlpRatio
    #[arg(long, value_name = "FILE")]
    #[serde(skip)]
    pub config: Option<PathBuf>,
    /// A SessionPolicy or SidecarConfig; without one the sidecar only observes
    #[arg(long, value_name = "FILE")]
    pub policy: Option<PathBuf>,
    /// Keep each good policy in this file, and start with it, or with only observing, when that of --policy is missing,
    /// empty or wrong
    #[arg(long, value_name = "FILE")]
    pub last_good: Option<PathBuf>,
    /// Where the Secrets are mounted that a policy names, each a directory with username and password
    /// [default: /etc/sipwarden/credentials]
    #[arg(long, value_name = "DIR")]
    pub credentials_dir: Option<PathBuf>,
    /// Where the network reaches us: udp:IP:PORT or tcp:IP:PORT, may be repeated; port 0 lets the system choose
    #[arg(long, value_name = "TRANSPORT:IP:PORT")]
    pub listen: Vec<ListenAddress>,
    /// Where the application reaches us, may be repeated
    #[arg(long, value_name = "TRANSPORT:IP:PORT")]
    pub app_listen: Vec<ListenAddress>,
    /// Where we reach the application
    #[arg(long, value_name = "TRANSPORT:IP:PORT")]
    pub app: Option<ListenAddress>,
    /// Where requests of the application without a Route go, instead of their request URI
    #[arg(long, value_name = "TRANSPORT:HOST:PORT")]
    pub next_hop: Option<NextHop>,
    /// What Via and Record-Route tell the network; needed when listening on 0.0.0.0 or [::]
    #[arg(long, value_name = "HOST[:PORT]")]
    pub advertise: Option<Advertised>,
    /// Health, metrics and the policy in force over HTTP, for probes and Prometheus; it shows no call and changes nothing
    #[arg(long, value_name = "IP:PORT", value_parser = socket_addr)]
    pub status: Option<SocketAddr>,
    /// Health, metrics and sessions over HTTP [default: 127.0.0.1:8642]
    #[arg(long, value_name = "IP:PORT", value_parser = socket_addr)]
    pub admin: Option<SocketAddr>,
    /// Who shows what is in this file as a bearer token may refresh and end sessions over --admin, and nobody else may
    /// change the log filter
    #[arg(long, value_name = "FILE")]
    pub admin_token_file: Option<PathBuf>,
    /// Session time runs N times faster; for trying things out [default: 1]
    #[arg(long, value_name = "N")]
    pub clock_speed: Option<u32>,
    /// Threads [default: 1]
    #[arg(long, value_name = "N")]
    pub workers: Option<usize>,
    /// Remember decisions and messages in N MiB, for an hour at most; 0 remembers nothing [default: 8]
    #[arg(long, value_name = "N")]
    pub record_mib: Option<u32>,
    /// Calls tracked at once; further ones pass without a timer, and are counted. 100,000 take 75 to 210 MiB
    /// [default: what fits into the memory limit of the control group, 2000000 without one]
    #[arg(long, value_name = "N")]
    pub max_calls: Option<usize>,
    /// How log lines look [default: text]
    #[arg(long, value_enum)]
    pub log_format: Option<LogFormat>,
    /// What is logged, for example info or sipwarden=debug; PUT /log-filter changes it later [default: info]
    #[arg(long, value_name = "FILTER")]
    pub log: Option<String>,
    /// Do not redact the users of SIP URIs in log lines and traces
    #[arg(long)]
    pub log_sip_users: bool,
    /// Trace each session to this collector, by OTLP over HTTP, such as http://otel-collector:4318
    #[arg(long, value_name = "URL")]
    pub otlp: Option<Endpoint>,
    /// How many of the sessions are traced whose INVITE carries no traceparent, from 0 to 1 [default: 1]
    #[arg(long, value_name = "RATIO")]
    pub otlp_ratio: Option<Ratio>,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

impl RunArgs {
    /// The settings of the file of `--config`, if any, under those of the flags.
    ///
    /// # Errors
    /// The file cannot be read or is no such YAML (with line and field).
    pub fn merged(self) -> anyhow::Result<RunArgs> {
        match &self.config {
            None => Ok(self),
            Some(path) => {
                let file = RunArgs::read(path)?;
                Ok(self.over(file))
            }
        }
    }

    /// Checked settings.
    ///
    /// # Errors
    /// Something is missing or contradicts itself; the text names the flag.
    pub fn settings(self) -> anyhow::Result<Settings> {
        let Some(app) = self.app else {
            bail!("--app is missing: where the application listens, for example udp:127.0.0.1:5070")
        };
        if self.otlp.is_none() && self.otlp_ratio.is_some() {
            bail!("--otlp-ratio says how much is traced, but not where to: add --otlp URL")
        }
        let (workers, record_mib) =
            (self.workers.unwrap_or(1), self.record_mib.unwrap_or(Settings::DEFAULT_RECORD_MIB));
        let settings = Settings {
            policy: Sources {
                file: self.policy,
                last_good: self.last_good,
                credentials_dir: self.credentials_dir.unwrap_or_else(|| Sources::CREDENTIALS_DIR.into()),
            },
            listen: self.listen,
            app_listen: self.app_listen,
            app,
            next_hop: self.next_hop.map(|hop| hop.0),
            advertise: self.advertise,
            admin: self.admin.unwrap_or(Settings::DEFAULT_ADMIN),
            admin_token_file: self.admin_token_file,
            status: self.status,
            clock_speed: self.clock_speed.unwrap_or(1),
            workers,
            record_mib,
            max_calls: self.max_calls.unwrap_or_else(|| memory::max_calls(memory::limit(), record_mib).max(workers)),
            log_sip_users: self.log_sip_users,
            otlp: self.otlp.map(|endpoint| Otlp { endpoint, ratio: self.otlp_ratio.unwrap_or(Ratio::ALL) }),
        };
        settings.check()?;
        Ok(settings)
    }

    fn read(path: &Path) -> anyhow::Result<RunArgs> {
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        serde_saphyr::from_str(&text)
            .map_err(|error| anyhow::anyhow!("{}: {}", path.display(), error.without_snippet()))
    }

    fn over(self, file: RunArgs) -> RunArgs {
        let list = |flags: Vec<ListenAddress>, file: Vec<ListenAddress>| if flags.is_empty() { file } else { flags };
        RunArgs {
            config: self.config,
            policy: self.policy.or(file.policy),
            last_good: self.last_good.or(file.last_good),
            credentials_dir: self.credentials_dir.or(file.credentials_dir),
            listen: list(self.listen, file.listen),
            app_listen: list(self.app_listen, file.app_listen),
            app: self.app.or(file.app),
            next_hop: self.next_hop.or(file.next_hop),
            advertise: self.advertise.or(file.advertise),
            status: self.status.or(file.status),
            admin: self.admin.or(file.admin),
            admin_token_file: self.admin_token_file.or(file.admin_token_file),
            clock_speed: self.clock_speed.or(file.clock_speed),
            workers: self.workers.or(file.workers),
            record_mib: self.record_mib.or(file.record_mib),
            max_calls: self.max_calls.or(file.max_calls),
            log_format: self.log_format.or(file.log_format),
            log: self.log.or(file.log),
            log_sip_users: self.log_sip_users || file.log_sip_users,
            otlp: self.otlp.or(file.otlp),
            otlp_ratio: self.otlp_ratio.or(file.otlp_ratio),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn run(arguments: &[&str]) -> RunArgs {
        let all = ["sipwarden-sidecar", "run"].iter().chain(arguments);
        match Cli::try_parse_from(all).expect("valid arguments").command {
            Command::Run(args) => *args,
            other => panic!("not run: {other:?}"),
        }
    }

    fn file(text: &str) -> (tempfile::TempDir, String) {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("run.yaml");
        std::fs::write(&path, text).expect("written");
        let path = path.to_str().expect("UTF-8").to_owned();
        (dir, path)
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn flags_win_over_the_file() {
        let (_dir, path) = file(
            "listen: [\"udp:127.0.0.1:5060\", \"tcp:127.0.0.1:5060\"]\nappListen: [\"udp:127.0.0.1:5062\"]\n\
             app: udp:127.0.0.1:5070\nclockSpeed: 5\nnextHop: udp:sip.example.net\nlogFormat: json\n",
        );
        let merged = run(&["--config", &path, "--listen", "udp:127.0.0.1:0"]).merged().expect("merged");
        assert_eq!(merged.log_format, Some(LogFormat::Json));
        let settings = merged.settings().expect("settings");
        assert_eq!(settings.listen, ["udp:127.0.0.1:0".parse().expect("an address")]);
        assert_eq!(settings.app_listen.len(), 1);
        assert_eq!(settings.clock_speed, 5);
        assert_eq!(settings.next_hop.expect("a next hop").host, "sip.example.net");
    }

    #[test]
    fn an_unknown_field_of_the_file_is_named_with_its_line() {
        let (_dir, path) = file("workers: 2\nlisten-on: udp:127.0.0.1:5060\n");
        let error = run(&["--config", &path]).merged().expect_err("unknown field").to_string();
        assert!(error.contains("line 2") && error.contains("listen-on"), "{error}");
    }

    #[test]
    fn a_bad_address_of_the_file_is_told_with_its_line() {
        let (_dir, path) = file("workers: 2\napp: 127.0.0.1:5060\n");
        let error = run(&["--config", &path]).merged().expect_err("bad address").to_string();
        assert!(error.contains("line 2") && error.contains("must begin with udp: or tcp:"), "{error}");
    }

    #[test]
    fn what_a_pod_is_started_with_is_understood() {
        let settings = run(&[
            "--policy",
            "/etc/sipwarden/pod/config",
            "--last-good",
            "/var/lib/sipwarden/last-good.json",
            "--listen",
            "udp:2001:db8::7:15060",
            "--app-listen",
            "udp:[::1]:15070",
            "--app",
            "udp:[::1]:5060",
            "--status",
            "2001:db8::7:8643",
        ])
        .settings()
        .expect("settings");
        assert_eq!(settings.listen[0].addr, "[2001:db8::7]:15060".parse().expect("an address"));
        assert_eq!(settings.status, Some("[2001:db8::7]:8643".parse().expect("an address")));
        assert_eq!(settings.policy.last_good, Some("/var/lib/sipwarden/last-good.json".into()));
        assert_eq!(settings.policy.credentials_dir.to_str(), Some("/etc/sipwarden/credentials"));
    }

    #[test]
    fn a_collector_is_a_url_and_a_ratio_a_part_of_a_whole() {
        let (_dir, path) = file("app: udp:127.0.0.1:5070\notlp: http://collector:4318\notlpRatio: 0.5\n");
        let listen = ["--listen", "udp:127.0.0.1:0", "--app-listen", "udp:127.0.0.1:0"];
        let given = [&["--config", &path, "--otlp-ratio", "0.25"], &listen[..]].concat();
        let otlp = run(&given).merged().expect("merged").settings().expect("settings").otlp.expect("a collector");
        assert_eq!((otlp.endpoint.to_string().as_str(), otlp.ratio.get()), ("http://collector:4318", 0.25));
        for (text, told) in [("otlp: collector:4318\n", "http://"), ("otlpRatio: 2\n", "from 0 to 1")] {
            let (_dir, path) = file(text);
            let error = run(&["--config", &path]).merged().expect_err(text).to_string();
            assert!(error.contains("line 1") && error.contains(told), "{error}");
        }
    }

    #[test]
    fn a_missing_app_is_told() {
        let error = run(&["--listen", "udp:127.0.0.1:0"]).settings().expect_err("no app").to_string();
        assert!(error.contains("--app is missing"), "{error}");
    }
}
