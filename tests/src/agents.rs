//! User agents that nobody here wrote, without screen and sound card: [`baresip`] knows no session timers, [`linphone`]
//! does. Their configurations are in `tests/agents`.

pub mod baresip;
pub mod linphone;

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::ports::is_bound_by;
use crate::process::Process;
use crate::wait::eventually;

/// How long an agent may take to get ready, or to do what it is told.
const PATIENCE: Duration = Duration::from_secs(15);

/// Waits until the agent listens on `addr`; `false` when it ended because it cannot.
fn listens(process: &mut Process, addr: SocketAddr) -> bool {
    eventually("the agent to listen", PATIENCE, || match process.ended() {
        Some(status) => {
            eprintln!("the agent ended with {status}: {}{}", process.stdout(), process.read(Path::new("stderr")));
            Some(false)
        }
        None => is_bound_by(process.id(), addr).then_some(true),
    })
}

/// Ends it so that it can say nothing to anybody.
fn kill_at_once(process: &mut Process) {
    let pid = i32::try_from(process.id()).expect("process ids fit in i32");
    kill(Pid::from_raw(pid), Signal::SIGKILL).expect("the agent runs and is ours");
    process.wait(PATIENCE);
}

/// A file of `tests/agents` with each `{name}` replaced by its value.
fn configuration(file: &str, values: &[(&str, &str)]) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("agents").join(file);
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    values.iter().fold(text, |text, (name, value)| text.replace(&format!("{{{name}}}"), value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_hole_of_a_configuration_is_filled() {
        let values = [("listen", "127.0.0.1:1"), ("port", "1"), ("control", "127.0.0.1:2"), ("modules", "/lib")];

        for file in ["baresip.conf", "linphonerc"] {
            let filled = configuration(file, &values);
            assert!(!filled.contains(['{', '}']), "{filled}");
        }
    }
}
