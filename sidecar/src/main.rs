//! The program: parses the command line, starts logging, and hands over to the library.

use std::process::ExitCode;

use clap::Parser;
use sipwarden_sidecar::cli::{Cli, Command, RunArgs};
use sipwarden_sidecar::logs::{DEFAULT_FILTER, LogFilter};
use sipwarden_sidecar::{answer, app, call, check, demo};
use tokio::signal::unix::{SignalKind, signal};

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Run(args) => run(*args),
        Command::Check { file } => check::check(&file),
        Command::Call(args) => match call::run(&args) {
            Ok(verdict) => return verdict.exit_code().into(),
            Err(error) => Err(error),
        },
        Command::Answer(args) => answer::run(&args),
        Command::Demo => demo::run(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: RunArgs) -> anyhow::Result<()> {
    let args = args.merged()?;
    let log_filter = args.log.as_deref().unwrap_or(DEFAULT_FILTER);
    let log_filter = LogFilter::start(args.log_format.unwrap_or_default(), log_filter)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let bound = app::build(args.settings()?, log_filter)?;
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut hangup = signal(SignalKind::hangup())?;
        let (readiness, line, policy) = (bound.readiness(), bound.ready_line(), bound.policy());
        tokio::spawn(async move {
            readiness.ready().await;
            println!("{line}");
        });
        tokio::spawn(async move {
            while hangup.recv().await.is_some() {
                policy.reload();
            }
        });
        bound
            .run(async move {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
            })
            .await
    })
}
