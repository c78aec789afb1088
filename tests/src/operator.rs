//! The real operator process against an API server.

use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use sipwarden_cluster::operator_program;

use crate::admin::Admin;
use crate::ports::{LOOPBACK, free};
use crate::process::Process;
use crate::wait::eventually;

/// How long it may take until it has its certificates, its first lists and, where nobody else leads, the lease.
const START: Duration = Duration::from_secs(40);

/// A running operator.
pub struct Operator {
    process: Process,
    http: SocketAddr,
    webhook: SocketAddr,
}

impl Operator {
    /// Starts a replica of the revision `default` with a kubeconfig, and these further flags; waits until it can be scraped.
    pub fn start(kubeconfig: &Path, flags: &[&str]) -> Operator {
        let (http, webhook) = (free(LOOPBACK), free(LOOPBACK));
        let process = Process::start("operator", &operator_program().expect("it is built"), |command, _| {
            command.args(["run", "--namespace", "sipwarden-system", "--image", "localhost/sipwarden:dev"]);
            command.args(["--http", &http.to_string(), "--webhook-listen", &webhook.to_string()]);
            command.args(["--log-format", "text", "--shutdown-delay-s", "0"]).args(flags);
            command.env("KUBECONFIG", kubeconfig);
        });
        let operator = Operator { process, http, webhook };
        eventually("the operator's port", START, || TcpStream::connect(operator.http).ok());
        operator
    }

    /// Waits until it leads.
    pub fn until_leading(self) -> Operator {
        let leads = || (self.admin().metric("sipwarden_operator_leading") == 1.0).then_some(());
        eventually("the operator to lead", START, leads);
        self
    }

    /// Its port for probes and Prometheus.
    pub fn admin(&self) -> Admin {
        Admin::new(self.http)
    }

    /// Where API servers ask it.
    pub fn webhook(&self) -> SocketAddr {
        self.webhook
    }

    /// Ends it as an orchestrator would.
    pub fn stop(mut self) {
        self.process.terminate();
    }
}
