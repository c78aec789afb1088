//! SIPp as caller or callee: one process runs one scenario of `tests/sipp` for one call, and says how it went.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::ports::{free, is_bound_by};
use crate::process::Process;
use crate::wait::eventually;

/// SIPp gives up after this many seconds, with an error.
const CALL_LIMIT_S: u64 = 30;
const START: Duration = Duration::from_secs(10);

/// SIPp's exit code when its port is taken.
const CANNOT_BIND: i32 = 254;

/// Tries to get a port that nobody takes between choosing and using it.
const PORT_TRIES: u32 = 5;

/// A caller about to be started.
#[derive(Clone, Debug)]
pub struct Caller {
    scenario: &'static str,
    server: SocketAddr,
    target: SocketAddr,
    options: Vec<&'static str>,
}

/// A running SIPp.
pub struct Sipp {
    scenario: &'static str,
    process: Process,
}

/// What SIPp counted, from its statistics file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counts {
    /// Calls that went as the scenario says.
    pub successful: u64,
    /// Calls that did not.
    pub failed: u64,
    /// Messages SIPp sent again.
    pub retransmissions: u64,
}

/// Starts a callee and waits until it listens; gives its UDP address too.
pub fn callee(scenario: &'static str, ip: IpAddr) -> (Sipp, SocketAddr) {
    let listening = (0..PORT_TRIES).find_map(|_| {
        let addr = free(ip);
        let mut sipp = Sipp::start(scenario, ip, &["-p", &addr.port().to_string()]);
        let listens = eventually("SIPp to listen", START, || match sipp.process.ended() {
            Some(status) if status.code() == Some(CANNOT_BIND) => Some(false),
            Some(status) => panic!("SIPp {scenario} ended with {status} before its call"),
            None => is_bound_by(sipp.process.id(), addr).then_some(true),
        });
        listens.then_some((sipp, addr))
    });
    listening.unwrap_or_else(|| panic!("SIPp {scenario}: {PORT_TRIES} free ports were taken by others"))
}

/// A caller that sends all it has to `server`, over UDP unless told otherwise.
pub fn caller(scenario: &'static str, server: SocketAddr) -> Caller {
    Caller { scenario, server, target: server, options: Vec::new() }
}

impl Caller {
    /// Names this address in the request URI instead of the server.
    pub fn target(mut self, target: SocketAddr) -> Caller {
        self.target = target;
        self
    }

    /// Adds an option of SIPp's own, with its values.
    pub fn option(mut self, option: &[&'static str]) -> Caller {
        self.options.extend(option);
        self
    }

    /// Starts the call, from a port SIPp chooses.
    pub fn start(self) -> Sipp {
        let (server, target) = (self.server.to_string(), self.target.to_string());
        let args = [&[server.as_str(), "-key", "target", &target], self.options.as_slice()].concat();
        Sipp::start(self.scenario, self.server.ip(), &args)
    }
}

impl Sipp {
    fn start(scenario: &'static str, ip: IpAddr, args: &[&str]) -> Sipp {
        let process = Process::start(scenario, Path::new("sipp"), |command, _| {
            // SIPp draws its screen even when nobody looks.
            command.env("TERM", "xterm").args(args);
            command.arg("-sf").arg(scenarios().join(scenario).with_extension("xml"));
            for address in ["-i", "-mi", "-ci"] {
                command.arg(address).arg(ip.to_string());
            }
            command.args(["-m", "1", "-nostdin", "-timeout", &format!("{CALL_LIMIT_S}s"), "-timeout_error"]);
            command.args(["-trace_err", "-error_file", "errors", "-trace_msg", "-message_file", "messages"]);
            command.args(["-trace_stat", "-stf", "counts.csv", "-fd", "1"]);
        });
        Sipp { scenario, process }
    }

    /// Waits for its end and expects that its one call went as the scenario says: by exit code and by count.
    pub fn passes(&mut self) -> Counts {
        let status = self.process.wait(Duration::from_secs(CALL_LIMIT_S) + START);
        let counts = Counts::parse(&self.process.read(Path::new("counts.csv")));
        let counts = counts.unwrap_or_else(|| panic!("SIPp {} ended with {status} and no counts", self.scenario));
        let passed = status.success() && counts.successful == 1 && counts.failed == 0;
        assert!(passed, "SIPp {} ended with {status}, {counts:?}", self.scenario);
        counts
    }
}

impl Counts {
    /// Reads the last line of a statistics file under the names in its first.
    fn parse(csv: &str) -> Option<Counts> {
        let mut lines = csv.lines();
        let names: Vec<_> = lines.next()?.split(';').collect();
        let last: Vec<_> = lines.next_back()?.split(';').collect();
        let count = |name| last.get(names.iter().position(|&found| found == name)?)?.parse().ok();
        Some(Counts {
            successful: count("SuccessfulCall(C)")?,
            failed: count("FailedCall(C)")?,
            retransmissions: count("Retransmissions(C)")?,
        })
    }
}

/// The directory of the scenarios and of Kamailio's configuration.
pub(crate) fn scenarios() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("sipp")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_of_the_statistics_counts() {
        let csv = "StartTime;SuccessfulCall(C);FailedCall(C);Retransmissions(C);\nx;0;0;0;\nx;1;0;2;\n";

        assert_eq!(Counts::parse(csv), Some(Counts { successful: 1, failed: 0, retransmissions: 2 }));
    }

    #[test]
    fn statistics_without_a_line_are_none() {
        assert_eq!(Counts::parse("SuccessfulCall(C);FailedCall(C);Retransmissions(C);\n"), None);
    }
}
