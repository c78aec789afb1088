//! The process `kubectl-sipwarden`, which kubectl runs for `kubectl sipwarden`.

use std::{
    io::{BufWriter, Write},
    process::ExitCode,
};

use clap::Parser;
use kubectl_sipwarden::{cli::Cli, outcome::Failure, run::run};

fn main() -> ExitCode {
    let cli = Cli::parse();
    // One TLS stack, whatever else a dependency may bring along; the operator has the same.
    if rustls::crypto::aws_lc_rs::default_provider().install_default().is_err() {
        eprintln!("error: another TLS provider was installed before");
        return ExitCode::from(3);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("the system has threads");
    let mut out = BufWriter::new(std::io::stdout());
    let done = runtime.block_on(run(cli, &mut out));
    let done = done.and_then(|outcome| out.flush().map(|()| outcome).map_err(Failure::from));
    // What was found before a failure is worth being seen.
    drop(out);
    // Streams to pods may still be open, and nobody waits for them.
    runtime.shutdown_background();
    match done {
        Ok(outcome) => outcome.exit_code(),
        Err(failure) if failure.is_broken_pipe() => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("error: {failure}");
            failure.exit_code()
        }
    }
}
