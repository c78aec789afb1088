//! The command line.

use std::{net::SocketAddr, path::PathBuf};

use clap::{Args, Parser, Subcommand, ValueEnum};
use sipwarden_otlp::{Endpoint, Otlp, Ratio};

use crate::inject::{Settings, names::STATUS_PORT};

/// The sipwarden operator.
#[derive(Debug, Parser)]
#[command(name = "sipwarden-operator", version)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the operator.
    Run(Box<RunArgs>),
    /// Judge files with SessionPolicies, ClusterSessionPolicies and SidecarConfigs; - is standard input.
    Lint {
        /// The files.
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
}

/// Flags of `run`. Each is also read from the environment.
#[derive(Clone, Debug, Args)]
pub struct RunArgs {
    /// Namespace of the operator: of its Lease and of the Secret with the webhook's CA.
    #[arg(long, env = "POD_NAMESPACE")]
    pub namespace: String,

    /// Name of this replica, different from all others.
    #[arg(long, env = "POD_NAME", default_value_t = default_identity())]
    pub identity: String,

    /// Revision of this control plane; it serves the namespaces labelled sipwarden.dev/rev with it, and `default` also
    /// those without the label.
    #[arg(long, env = "SIPWARDEN_REVISION", default_value = "default")]
    pub revision: String,

    /// Where the API server reaches the webhook.
    #[arg(long, env = "SIPWARDEN_WEBHOOK_LISTEN", default_value = "[::]:9443")]
    pub webhook_listen: SocketAddr,

    /// Service in front of the webhook.
    #[arg(long, env = "SIPWARDEN_WEBHOOK_SERVICE", default_value = "sipwarden-webhook")]
    pub webhook_service: String,

    /// Where probes and Prometheus reach the operator.
    #[arg(long, env = "SIPWARDEN_HTTP", default_value = "[::]:8080")]
    pub http: SocketAddr,

    /// Image of the sidecar.
    #[arg(long, env = "SIPWARDEN_IMAGE")]
    pub image: String,

    /// When the kubelet pulls it: Always, IfNotPresent or Never.
    #[arg(long, env = "SIPWARDEN_IMAGE_PULL_POLICY")]
    pub image_pull_policy: Option<String>,

    /// CPU request of sidecars.
    #[arg(long, env = "SIPWARDEN_SIDECAR_CPU_REQUEST")]
    pub sidecar_cpu_request: Option<String>,

    /// Memory request of sidecars.
    #[arg(long, env = "SIPWARDEN_SIDECAR_MEMORY_REQUEST")]
    pub sidecar_memory_request: Option<String>,

    /// Memory limit of sidecars.
    #[arg(long, env = "SIPWARDEN_SIDECAR_MEMORY_LIMIT")]
    pub sidecar_memory_limit: Option<String>,

    /// Log filter of sidecars.
    #[arg(long, env = "SIPWARDEN_SIDECAR_LOG")]
    pub sidecar_log: Option<String>,

    /// Where sidecars send requests without a Route, such as udp:sbc.example:5060.
    #[arg(long, env = "SIPWARDEN_SIDECAR_NEXT_HOP")]
    pub sidecar_next_hop: Option<String>,

    /// Where the operator traces what it does and sidecars their sessions, by OTLP over HTTP, such as http://otel-collector.monitoring:4318.
    #[arg(long, env = "SIPWARDEN_OTLP")]
    pub otlp: Option<Endpoint>,

    /// How many of the traces that nobody else began, from 0 to 1.
    #[arg(long, env = "SIPWARDEN_OTLP_RATIO", default_value_t = Ratio::ALL)]
    pub otlp_ratio: Ratio,

    /// Port at which sidecars are asked what they obey.
    #[arg(long, env = "SIPWARDEN_STATUS_PORT", default_value_t = STATUS_PORT.unsigned_abs() as u16)]
    pub status_port: u16,

    /// Seconds between two questions to a sidecar that is in step.
    #[arg(long, env = "SIPWARDEN_ACK_INTERVAL_S", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..))]
    pub ack_interval_s: u32,

    /// Seconds for which admission reviews are still answered after SIGTERM: until every API server knows.
    #[arg(long, env = "SIPWARDEN_SHUTDOWN_DELAY_S", default_value_t = 5)]
    pub shutdown_delay_s: u32,

    /// Log filter, such as info or sipwarden_operator=debug.
    #[arg(long, env = "SIPWARDEN_LOG", default_value = "info")]
    pub log: String,

    /// Form of log lines.
    #[arg(long, env = "SIPWARDEN_LOG_FORMAT", default_value = "json")]
    pub log_format: LogFormat,
}

/// Form of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// An object for each line.
    Json,
    /// For people.
    Text,
}

impl RunArgs {
    /// Where the operator is traced.
    pub fn otlp(&self) -> Option<Otlp> {
        self.otlp.clone().map(|endpoint| Otlp { endpoint, ratio: self.otlp_ratio })
    }

    /// What sidecars are given.
    pub fn settings(&self) -> Settings {
        let mut settings = Settings::new(&self.revision, &self.image);
        settings.image_pull_policy.clone_from(&self.image_pull_policy);
        settings.log.clone_from(&self.sidecar_log);
        settings.next_hop.clone_from(&self.sidecar_next_hop);
        settings.otlp = self.otlp.as_ref().map(ToString::to_string);
        settings.otlp_ratio = self.otlp_ratio.to_string();
        for (setting, given) in [
            (&mut settings.cpu_request, &self.sidecar_cpu_request),
            (&mut settings.memory_request, &self.sidecar_memory_request),
            (&mut settings.memory_limit, &self.sidecar_memory_limit),
        ] {
            if let Some(given) = given {
                setting.clone_from(given);
            }
        }
        settings
    }
}

/// Outside of a pod.
fn default_identity() -> String {
    format!("process-{}", std::process::id())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn what_is_not_given_is_the_injectors_default() {
        let run = ["sipwarden-operator", "run", "--namespace", "ns", "--image", "i", "--sidecar-memory-limit", "1Gi"];
        let Command::Run(args) = Cli::parse_from(run).command else { panic!("it is run") };
        let expected = Settings { memory_limit: "1Gi".to_owned(), ..Settings::new("default", "i") };
        assert_eq!(args.settings(), expected);
        assert_eq!(args.status_port, 8643);

        let run = [&run[..], &["--otlp", "http://collector:4318", "--otlp-ratio", "0.25"]].concat();
        let Command::Run(args) = Cli::parse_from(&run).command else { panic!("it is run") };
        let traced =
            Settings { otlp: Some("http://collector:4318".to_owned()), otlp_ratio: "0.25".to_owned(), ..expected };
        assert_eq!(args.settings(), traced);
        let wrong = [&run[..6], &["--otlp", "https://collector:4318"]].concat();
        assert!(Cli::try_parse_from(&wrong).expect_err("TLS").to_string().contains("https is not served"));
    }
}
