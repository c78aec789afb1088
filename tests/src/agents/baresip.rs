//! baresip 1.0, which has neither session timers nor UPDATE: the application behind the sidecar. Told what to do over TCP
//! in netstrings of JSON, by its module ctrl_tcp.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;

use serde_json::{Value, json};

use super::{PATIENCE, configuration, kill_at_once, listens};
use crate::ports::{LOOPBACK, free};
use crate::process::Process;
use crate::wait::until;

/// Where Debian has baresip's modules.
const MODULES: &str = "/usr/lib/baresip/modules";

/// A running baresip that answers every call.
pub struct Baresip {
    process: Process,
    control: BufReader<TcpStream>,
    events: Vec<Value>,
}

impl Baresip {
    /// Starts it at `addr` with `proxy` as its outbound proxy; `None` when that port, or the one to control it, was taken
    /// by others.
    pub fn start(addr: SocketAddr, proxy: SocketAddr) -> Option<Baresip> {
        let modules = fs::exists(MODULES).is_ok_and(|exists| exists);
        assert!(modules, "no baresip modules in {MODULES}: tests/run installs them with baresip-core");
        let control = free(LOOPBACK);
        let mut process = Process::start("baresip", Path::new("baresip"), |command, dir| {
            let (listen, control) = (addr.to_string(), control.to_string());
            let values = [("listen", listen.as_str()), ("control", &control), ("modules", MODULES)];
            let account = format!(
                "<sip:app@{addr}>;outbound=\"sip:{proxy}\";regint=0;answermode=auto;audio_codecs=PCMU/8000/1\n"
            );
            let files = [
                ("config", configuration("baresip.conf", &values)),
                ("accounts", account),
                ("contacts", String::new()),
            ];
            for (file, text) in files {
                fs::write(dir.join(file), text).expect("the directory is ours");
            }
            // IPv4 only, its messages on standard output.
            command.args(["-4", "-s", "-f"]).arg(dir);
        });
        if !listens(&mut process, addr) {
            return None;
        }
        let control = until(PATIENCE, || TcpStream::connect(control).ok())?;
        control.set_read_timeout(Some(PATIENCE)).expect("a time-out above zero is accepted");
        Some(Baresip { process, control: BufReader::new(control), events: Vec::new() })
    }

    /// Calls the user `remote` at `target`, by way of the outbound proxy.
    pub fn call(&mut self, target: SocketAddr) {
        self.command("dial", &format!("sip:remote@{target}"));
    }

    /// Puts its call on hold.
    pub fn hold(&mut self) {
        self.command("hold", "");
    }

    /// Takes its call off hold.
    pub fn resume(&mut self) {
        self.command("resume", "");
    }

    /// Hangs up.
    pub fn hang_up(&mut self) {
        self.command("hangup", "");
    }

    /// Ends it so that it can say nothing to anybody.
    pub fn kill(&mut self) {
        kill_at_once(&mut self.process);
    }

    /// Waits until its call is over.
    pub fn await_end(&mut self) {
        while !self.events.iter().any(|event| event["type"] == "CALL_CLOSED") {
            let event = self.message();
            self.events.push(event);
        }
    }

    fn command(&mut self, command: &str, parameter: &str) {
        let request = json!({"command": command, "params": parameter}).to_string();
        let sent = write!(self.control.get_mut(), "{}:{request},", request.len());
        sent.unwrap_or_else(|error| panic!("{command}: baresip cannot be told: {error}"));
        loop {
            let message = self.message();
            if message["response"] == true {
                assert_eq!(message["ok"], true, "{command}: {message}");
                return;
            }
            self.events.push(message);
        }
    }

    /// The next response or event.
    fn message(&mut self) -> Value {
        let mut digits = Vec::new();
        let read = self.control.read_until(b':', &mut digits);
        read.unwrap_or_else(|error| panic!("baresip said nothing for {PATIENCE:?}: {error}"));
        let digits = String::from_utf8_lossy(&digits);
        let len: usize = digits.trim_end_matches(':').parse().expect("a netstring begins with its length");
        // The comma that ends it as well.
        let mut text = vec![0; len + 1];
        self.control.read_exact(&mut text).expect("baresip ends what it began to say");
        serde_json::from_slice(&text[..len]).expect("baresip speaks JSON")
    }
}
