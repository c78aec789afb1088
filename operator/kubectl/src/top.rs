//! `top`: sessions as they are, asked again and again; a full screen on a terminal, plain tables elsewhere.

mod keys;
mod screen;
mod state;

use std::{
    io::IsTerminal,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::{Notify, mpsc};

use crate::{
    cli::{SessionFilter, TopArgs},
    connection::Connection,
    outcome::{Failure, Outcome},
    output::Screen,
    scope,
    sessions::{self, Everything, fetch, sort},
    sidecar::Sidecars,
};
use state::{Change, View};

/// Shows sessions until it is stopped.
///
/// # Errors
/// The pods cannot be listed, or the terminal cannot be used.
pub async fn top(connection: &Connection, args: &TopArgs, screen: &mut Screen<'_>) -> Result<Outcome, Failure> {
    // Whoever has no right to see pods is told before the screen is taken.
    scope::with_sidecar(connection, &args.pods).await?;
    let asker = Asker {
        connection: connection.clone(),
        args: args.clone(),
        sidecars: Sidecars::new(connection.client.clone(), &args.pods).quiet(),
    };
    if std::io::stdout().is_terminal() && !args.plain { full_screen(asker).await } else { plain(asker, screen).await }
}

struct Asker {
    connection: Connection,
    args: TopArgs,
    sidecars: Sidecars,
}

impl Asker {
    fn interval(&self) -> Duration {
        Duration::from_secs(self.args.interval_s)
    }

    async fn ask(&self, filter: &SessionFilter) -> Result<Everything, Failure> {
        let pods = scope::with_sidecar(&self.connection, &self.args.pods).await?;
        Ok(fetch(&self.sidecars, &pods, filter).await)
    }
}

/// A table each time, for files and programs.
async fn plain(asker: Asker, screen: &mut Screen<'_>) -> Result<Outcome, Failure> {
    let mut outcome = Outcome::Fine;
    for shown in 1.. {
        let mut everything = asker.ask(&asker.args.filter).await?;
        sort(&mut everything.found, asker.args.order);
        sessions::show(&everything, asker.connection.namespace.is_none(), screen)?;
        if !everything.silent.is_empty() {
            outcome = Outcome::Incomplete;
        }
        if asker.args.count.is_some_and(|count| shown >= count) {
            break;
        }
        screen.line("")?;
        screen.flush()?;
        tokio::time::sleep(asker.interval()).await;
    }
    Ok(outcome)
}

async fn full_screen(asker: Asker) -> Result<Outcome, Failure> {
    let (tell, mut told) = mpsc::channel(1);
    let wake = Arc::new(Notify::new());
    let mut view = View::new(&asker.args, asker.connection.namespace.is_none());
    let asking = tokio::spawn(ask_again(asker, wake.clone(), tell));
    let mut terminal = ratatui::try_init()?;
    let mut keys = keys::read();
    let ended = loop {
        if let Err(error) = terminal.draw(|frame| screen::draw(frame, &mut view)) {
            break Err(Failure::Output(error));
        }
        tokio::select! {
            Some(key) = keys.recv() => match view.press(key) {
                Change::Quit => break Ok(Outcome::Fine),
                Change::AskNow => wake.notify_one(),
                Change::Draw => {}
            },
            Some(answer) = told.recv() => view.update(answer),
            // Ages and deadlines go on between two answers.
            () = tokio::time::sleep(Duration::from_secs(1)) => {}
        }
    };
    asking.abort();
    ratatui::try_restore()?;
    ended
}

/// Each answer with when it came; a cluster that does not answer is told, and asked again.
async fn ask_again(asker: Asker, wake: Arc<Notify>, tell: mpsc::Sender<(Instant, Result<Everything, String>)>) {
    loop {
        let answer = asker.ask(&asker.args.filter).await.map_err(|error| error.to_string());
        if tell.send((Instant::now(), answer)).await.is_err() {
            return;
        }
        // Whoever waits no longer than the interval, or is woken.
        let _ = tokio::time::timeout(asker.interval(), wake.notified()).await;
    }
}
