//! The process `sipwarden-operator`.

use std::process::ExitCode;

use clap::Parser;
use sipwarden_operator::{
    cli::{Cli, Command, LogFormat, RunArgs},
    lint::lint,
    metrics::Metrics,
    run::bind,
    traces::Traces,
};
use tracing_subscriber::{EnvFilter, Layer, fmt, layer::SubscriberExt, util::SubscriberInitExt};

fn main() -> anyhow::Result<ExitCode> {
    match Cli::parse().command {
        Command::Run(args) => run(*args),
        Command::Lint { files } => {
            let good = lint(&files, &mut std::io::stdout().lock())?;
            Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
    }
}

fn run(args: RunArgs) -> anyhow::Result<ExitCode> {
    // One TLS stack for client and server, whatever else a dependency may bring along.
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    provider.install_default().map_err(|_| anyhow::anyhow!("another TLS provider was installed before"))?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let metrics = Metrics::new()?;
    let entered = runtime.enter();
    let traces = args.otlp().map(|otlp| Traces::begin(&otlp, metrics.clone())).transpose()?;
    drop(entered);
    start_log(&args, traces.as_ref())?;
    let ran = runtime.block_on(async {
        let ran = async { bind(args, metrics).await?.run().await }.await;
        if let Some(traces) = traces {
            traces.finish().await;
        }
        ran
    });
    match ran {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(error) => {
            tracing::error!("{error:#}");
            Ok(ExitCode::FAILURE)
        }
    }
}

/// What is logged does not say what is traced.
fn start_log(args: &RunArgs, traces: Option<&Traces>) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(&args.log)?;
    let log = fmt::layer().with_writer(std::io::stderr);
    let log = match args.log_format {
        LogFormat::Json => log.json().flatten_event(true).with_current_span(false).with_span_list(false).boxed(),
        LogFormat::Text => log.boxed(),
    };
    let log = log.with_filter(filter);
    tracing_subscriber::registry().with(traces.map(Traces::layer)).with(log).init();
    Ok(())
}
