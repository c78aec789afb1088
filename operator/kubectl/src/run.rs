//! From a command line to what is done.

use std::io::Write;

use crate::{
    call_test, check,
    cli::{Cli, Command},
    completion,
    connection::Connection,
    dashboard, diff, explain, lint,
    outcome::{Failure, Outcome},
    output::Screen,
    report, sessions, status, tap, top,
};

/// Does what was asked for, and writes the result to `out`, which is standard output.
///
/// # Errors
/// It could not be done.
pub async fn run(cli: Cli, out: &mut dyn Write) -> Result<Outcome, Failure> {
    let screen = &mut Screen::stdout(out);
    let connection = cli.connection;
    let open = async || Connection::open(&connection).await;
    match cli.command {
        Command::Lint(args) => lint::lint(&args, screen),
        Command::Status(args) => status::status(&open().await?, &args, screen).await,
        Command::Sessions(args) => sessions::sessions(&open().await?, &args, screen).await,
        Command::Explain(args) => explain::explain(&open().await?, &args, screen).await,
        Command::Tap(args) => tap::tap(&open().await?, &args, screen).await,
        Command::Diff(args) => diff::diff(&open().await?, &args, screen).await,
        Command::Check(args) => check::check(&open().await?, &args, screen).await,
        Command::Top(args) => top::top(&open().await?, &args, screen).await,
        Command::CallTest(args) => call_test::call_test(&open().await?, &args, screen).await,
        Command::Report(args) => report::report(&open().await?, &args, screen).await,
        Command::Dashboard(args) => dashboard::dashboard(&open().await?, &args, screen).await,
        Command::Completion(args) => completion::script(args.shell, screen),
        Command::Complete { words } => completion::complete(&words, screen),
    }
}
