//! The command line.

mod examples;

use std::{path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand, ValueEnum};
use sipwarden_crds::{Duration as Interval, LEAST_MIN_SE, ParseDurationError};

use crate::{output::Format, scope::Target, sessions::SortKey};

/// Session timers of SIP applications: who is covered, which calls there are, and why they end.
///
/// Asks the API server and, through port-forwards of the API server, the sidecars, with your own rights. Exit codes: 0
/// nothing to remark, 1 findings, 2 wrong usage or file, 3 the cluster could not be asked, 4 some sidecars did not answer.
#[derive(Debug, Parser)]
#[command(name = "kubectl-sipwarden", bin_name = "kubectl sipwarden", version)]
pub struct Cli {
    /// Which cluster.
    #[command(flatten)]
    pub connection: ConnectionArgs,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Which cluster, and what of it; as with kubectl.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Cluster")]
pub struct ConnectionArgs {
    /// The kubeconfig file; else the files in KUBECONFIG, or ~/.kube/config.
    #[arg(long, global = true, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,

    /// The context in it.
    #[arg(long, global = true, value_name = "NAME")]
    pub context: Option<String>,

    /// The namespace; else that of the context.
    #[arg(short, long, global = true, value_name = "NAME")]
    pub namespace: Option<String>,

    /// All namespaces.
    #[arg(short = 'A', long, global = true, conflicts_with = "namespace")]
    pub all_namespaces: bool,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Judge files with SessionPolicies, ClusterSessionPolicies and SidecarConfigs, without a cluster; - is standard input.
    #[command(after_help = examples::of("lint"))]
    Lint(LintArgs),
    /// Tell of each workload which policy is in force, which pods are in step, and why others have no sidecar.
    #[command(after_help = examples::of("status"))]
    Status(StatusArgs),
    /// List calls: interval, refresher, what comes next.
    #[command(after_help = examples::of("sessions"))]
    Sessions(SessionsArgs),
    /// Watch calls: live and sortable on a terminal, tables elsewhere.
    #[command(after_help = examples::of("top"))]
    Top(TopArgs),
    /// Tell the story of one call: why it was refused, refreshed or ended, with the RFC section and the policy's field.
    #[command(after_help = examples::of("explain"))]
    Explain(ExplainArgs),
    /// Follow the decisions of sidecars as they make them.
    #[command(after_help = examples::of("tap"))]
    Tap(TapArgs),
    /// Tell what a policy would have made of the last hour's requests, from what sidecars recorded; nothing changes.
    #[command(after_help = examples::of("diff"))]
    Diff(DiffArgs),
    /// Check whether the cluster can take sipwarden, and whether all of it works: versions, rights, admission, pods, policies.
    #[command(after_help = examples::of("check"))]
    Check(CheckArgs),
    /// Place a real call through a Service: INVITE, refresh, BYE, and the verdict. Creates a pod for it, and deletes it.
    #[command(after_help = examples::of("call-test"))]
    CallTest(CallTestArgs),
    /// Write an archive for whoever helps: objects, statuses, events, configs, metrics, decisions; nothing secret.
    #[command(after_help = examples::of("report"))]
    Report(ReportArgs),
    /// Serve the sidecars' page on this machine: the calls of a namespace, or of all, in a browser.
    #[command(after_help = examples::of("dashboard"))]
    Dashboard(DashboardArgs),
    /// Print what makes a shell complete commands and flags.
    #[command(
        after_help = "Examples:\n  source <(kubectl-sipwarden completion bash)\n  kubectl-sipwarden completion kubectl > ~/.local/bin/kubectl_complete-sipwarden"
    )]
    Completion(CompletionArgs),
    /// For the script of `completion kubectl`: candidates for the last word, in the form kubectl reads.
    #[command(name = "__complete", hide = true)]
    Complete {
        /// What was typed behind `kubectl sipwarden`; the last word may be empty.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        words: Vec<String>,
    },
}

/// The form of what is told.
#[derive(Clone, Copy, Debug, Default, Args)]
pub struct FormatArgs {
    /// The form: for people, or for programs.
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Format,
}

/// Which pods, and how their sidecars are asked.
#[derive(Clone, Debug, Args)]
pub struct PodArgs {
    /// Only these pods: a pod's name, or a workload such as deployment/pbx.
    #[arg(value_name = "POD|KIND/NAME", help_heading = "Pods")]
    pub target: Option<Target>,

    /// Only pods with these labels.
    #[arg(short = 'l', long, value_name = "LABELS", help_heading = "Pods")]
    pub selector: Option<String>,

    /// Seconds one sidecar has for its answer; the others do not wait for it.
    #[arg(long = "timeout", value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=600), help_heading = "Sidecars")]
    pub timeout_s: u64,

    /// Sidecars asked at the same time.
    #[arg(long, value_name = "NUMBER", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=256), help_heading = "Sidecars")]
    pub parallel: u16,
}

impl PodArgs {
    /// For one answer.
    pub fn timeout(&self) -> Duration {
        Duration::from_secs(self.timeout_s)
    }
}

/// Flags of `lint`.
#[derive(Clone, Debug, Args)]
pub struct LintArgs {
    /// The files.
    #[arg(required = true)]
    pub files: Vec<PathBuf>,
    #[command(flatten)]
    pub format: FormatArgs,
}

/// Flags of `status`.
#[derive(Clone, Debug, Args)]
pub struct StatusArgs {
    #[command(flatten)]
    pub pods: PodArgs,
    #[command(flatten)]
    pub format: FormatArgs,
    /// Ask every sidecar itself what it obeys; else the operator's count is told.
    #[arg(long)]
    pub live: bool,
}

/// Flags of `sessions`.
#[derive(Clone, Debug, Args)]
pub struct SessionsArgs {
    #[command(flatten)]
    pub pods: PodArgs,
    #[command(flatten)]
    pub filter: SessionFilter,
    #[command(flatten)]
    pub order: OrderArgs,
    #[command(flatten)]
    pub format: FormatArgs,
}

/// Which calls.
#[derive(Clone, Debug, Default, Args)]
pub struct SessionFilter {
    /// Only those that go on, or that are over; sidecars remember those for half a minute.
    #[arg(long, value_enum, help_heading = "Calls")]
    pub state: Option<State>,

    /// Only those whose remote side (address, From or To, Contact) holds this text.
    #[arg(long, value_name = "TEXT", help_heading = "Calls")]
    pub peer: Option<String>,

    /// Only those whose policy or rule has this text in its name.
    #[arg(long, value_name = "TEXT", help_heading = "Calls")]
    pub policy: Option<String>,

    /// Only those whose Call-ID holds this text.
    #[arg(long, value_name = "TEXT", help_heading = "Calls")]
    pub call_id: Option<String>,

    /// Show the users of SIP URIs.
    #[arg(long, help_heading = "Calls")]
    pub reveal: bool,

    /// The most calls to fetch of one sidecar.
    #[arg(long, value_name = "NUMBER", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=1_000_000), help_heading = "Calls")]
    pub limit: u32,
}

/// In which order calls are shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Args)]
pub struct OrderArgs {
    /// By what they are ordered.
    #[arg(long, value_enum, default_value_t, help_heading = "Calls")]
    pub sort: SortKey,
    /// The other way round.
    #[arg(long, help_heading = "Calls")]
    pub reverse: bool,
}

/// Whether a session goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum State {
    /// It has a 2xx and no end.
    Active,
    /// It is over.
    Ended,
}

/// Flags of `top`.
#[derive(Clone, Debug, Args)]
pub struct TopArgs {
    #[command(flatten)]
    pub pods: PodArgs,
    #[command(flatten)]
    pub filter: SessionFilter,
    #[command(flatten)]
    pub order: OrderArgs,
    /// Seconds between two answers.
    #[arg(long = "interval", value_name = "SECONDS", default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub interval_s: u64,
    /// Tables, on a terminal too.
    #[arg(long)]
    pub plain: bool,
    /// End after so many tables.
    #[arg(long, value_name = "NUMBER")]
    pub count: Option<u64>,
}

/// Flags of `call-test`.
#[derive(Clone, Debug, Default, Args)]
pub struct CallTestArgs {
    /// The Service to call through.
    pub service: String,
    /// Its port, by name or number; else the one named sip, or the only one.
    #[arg(long, value_name = "PORT")]
    pub port: Option<String>,
    /// Who is called; else sip:sipwarden-test at the Service.
    #[arg(long, value_name = "SIP-URI")]
    pub uri: Option<String>,
    /// The session interval asked for, at least 90s; a 422 is followed.
    #[arg(long, value_name = "DURATION", value_parser = interval)]
    pub session_expires: Option<Interval>,
    /// The image with the sidecar; else that of the sidecars behind the Service.
    #[arg(long, value_name = "IMAGE")]
    pub image: Option<String>,
    /// Seconds for the pod to start, call and end.
    #[arg(long = "timeout", value_name = "SECONDS", default_value_t = 120, value_parser = clap::value_parser!(u64).range(1..=600))]
    pub timeout_s: u64,
    /// Create the pod without asking.
    #[arg(short, long)]
    pub yes: bool,
    #[command(flatten)]
    pub format: FormatArgs,
}

/// As the caller takes it: what is wrong is told before there is a pod.
fn interval(text: &str) -> Result<Interval, String> {
    let interval: Interval = text.parse().map_err(|error: ParseDurationError| error.to_string())?;
    match interval >= LEAST_MIN_SE {
        true => Ok(interval),
        false => Err(format!("at least {LEAST_MIN_SE}: RFC 4028 §4 knows no shorter one")),
    }
}

/// Flags of `report`.
#[derive(Clone, Debug, Args)]
pub struct ReportArgs {
    #[command(flatten)]
    pub pods: PodArgs,
    /// The archive to write; else sipwarden-report-TIME.tar.gz here. One that is there is not written over.
    #[arg(short, long, value_name = "FILE")]
    pub file: Option<PathBuf>,
    #[command(flatten)]
    pub format: FormatArgs,
}

/// Flags of `dashboard`.
#[derive(Clone, Debug, Args)]
pub struct DashboardArgs {
    #[command(flatten)]
    pub pods: PodArgs,
    /// The port on 127.0.0.1; else a free one.
    #[arg(long, value_name = "PORT", default_value_t = 0)]
    pub port: u16,
}

/// Flags of `explain`.
#[derive(Clone, Debug, Args)]
pub struct ExplainArgs {
    /// A session as `sessions` lists it (0-7, or pbx-0/0-7 for that of one pod), or a Call-ID.
    #[arg(value_name = "SESSION|CALL-ID")]
    pub subject: String,
    #[command(flatten)]
    pub pods: PodArgs,
    /// Show the messages too, and what of each was changed.
    #[arg(long)]
    pub messages: bool,
    /// Show the users of SIP URIs.
    #[arg(long)]
    pub reveal: bool,
    #[command(flatten)]
    pub format: FormatArgs,
}

/// Flags of `tap`.
#[derive(Clone, Debug, Args)]
pub struct TapArgs {
    #[command(flatten)]
    pub pods: PodArgs,
    /// Only decisions of this kind, such as Rejected, Refreshed or Expired.
    #[arg(long, value_name = "KIND", help_heading = "Decisions")]
    pub kind: Option<String>,
    /// Only those made by the rule of this name.
    #[arg(long, value_name = "NAME", help_heading = "Decisions")]
    pub rule: Option<String>,
    /// Only those about this side.
    #[arg(long, value_enum, help_heading = "Decisions")]
    pub side: Option<Side>,
    /// Only those whose peer's address holds this text.
    #[arg(long, value_name = "TEXT", help_heading = "Decisions")]
    pub peer: Option<String>,
    /// Only those of this call.
    #[arg(long, value_name = "CALL-ID", help_heading = "Decisions")]
    pub call_id: Option<String>,
    /// Only those of this session.
    #[arg(long, value_name = "ID", help_heading = "Decisions")]
    pub session: Option<String>,
    /// Show the users of SIP URIs.
    #[arg(long, help_heading = "Decisions")]
    pub reveal: bool,
    /// Begin with so many past decisions of each sidecar.
    #[arg(long, value_name = "NUMBER", default_value_t = 0, value_parser = clap::value_parser!(u32).range(..=1000))]
    pub last: u32,
    /// End after so many decisions.
    #[arg(long, value_name = "NUMBER")]
    pub count: Option<u64>,
    /// End after so many seconds.
    #[arg(long = "for", value_name = "SECONDS")]
    pub duration_s: Option<u64>,
    #[command(flatten)]
    pub format: FormatArgs,
}

/// A side of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Side {
    /// The application in the pod.
    Local,
    /// Whoever is on the other side of the sidecar.
    Remote,
}

impl Side {
    /// As sidecars write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Local => "Local",
            Self::Remote => "Remote",
        }
    }
}

/// Flags of `diff`.
#[derive(Clone, Debug, Args)]
pub struct DiffArgs {
    /// A file with one SessionPolicy, or with a SidecarConfig; - is standard input.
    pub file: PathBuf,
    #[command(flatten)]
    pub pods: PodArgs,
    #[command(flatten)]
    pub format: FormatArgs,
}

/// Flags of `check`.
#[derive(Clone, Debug, Args)]
pub struct CheckArgs {
    #[command(flatten)]
    pub pods: PodArgs,
    /// Only what has to be there before sipwarden is installed.
    #[arg(long)]
    pub pre: bool,
    #[command(flatten)]
    pub format: FormatArgs,
}

/// Flags of `completion`.
#[derive(Clone, Copy, Debug, Args)]
pub struct CompletionArgs {
    /// For which: a shell, where the plugin is called by its own name, or kubectl, which hands completion of `kubectl
    /// sipwarden` to a program named kubectl_complete-sipwarden.
    #[arg(value_enum)]
    pub shell: Shell,
}

/// What completes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Shell {
    /// To be sourced.
    Bash,
    /// To be put in a folder of fpath, as _kubectl-sipwarden.
    Zsh,
    /// To be sourced.
    Fish,
    /// To be put in a folder of PATH, as kubectl_complete-sipwarden.
    Kubectl,
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
    fn flags_of_the_cluster_may_stand_behind_the_command() {
        let cli = Cli::parse_from(["kubectl-sipwarden", "status", "deployment/pbx", "-n", "voice", "--context", "lab"]);
        assert_eq!(cli.connection.namespace.as_deref(), Some("voice"));
        assert_eq!(cli.connection.context.as_deref(), Some("lab"));
    }
}
