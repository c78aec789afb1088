//! Kamailio as a record-routing proxy on the far side of the sidecar (`tests/sipp/kamailio.cfg`).

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use crate::ports::{LOOPBACK, free, is_bound_by};
use crate::process::Process;
use crate::sipp::scenarios;
use crate::wait::eventually;

const START: Duration = Duration::from_secs(10);

/// Tries to get a port that nobody takes between choosing and using it.
const PORT_TRIES: u32 = 5;

/// A running Kamailio.
pub struct Kamailio {
    _process: Process,
    addr: SocketAddr,
}

impl Kamailio {
    /// Starts it before the sidecar at `sidecar` and waits until it listens.
    pub fn start(sidecar: SocketAddr) -> Kamailio {
        let started = (0..PORT_TRIES).find_map(|_| Kamailio::try_start(sidecar, free(LOOPBACK)));
        started.unwrap_or_else(|| panic!("Kamailio did not start on any of {PORT_TRIES} free ports"))
    }

    fn try_start(sidecar: SocketAddr, addr: SocketAddr) -> Option<Kamailio> {
        let mut process = Process::start("kamailio", Path::new("kamailio"), |command, dir| {
            command.arg("-f").arg(scenarios().join("kamailio.cfg"));
            command.args(["-l", &format!("udp:{addr}"), "-A", &format!("SIDECAR=\"sip:{sidecar}\"")]);
            // In the foreground, logging to stderr, with 16 MB shared and 4 MB private memory.
            command.args(["-DD", "-E", "-m", "16", "-M", "4"]);
            command.arg("-Y").arg(dir).arg("-w").arg(dir).arg("-P").arg(dir.join("pid"));
        });
        let listens = eventually("Kamailio to listen", START, || match process.ended() {
            Some(status) => {
                eprintln!("Kamailio ended with {status}: {}", process.read(Path::new("stderr")));
                Some(false)
            }
            None => is_bound_by(process.id(), addr).then_some(true),
        });
        listens.then_some(Kamailio { _process: process, addr })
    }

    /// Where it listens, over UDP.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }
}
