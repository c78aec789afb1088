//! linphonec, which has session timers and UPDATE: the remote side. Told what to do by lines on its standard input; what it
//! sent and heard is in its log.

use std::fs;
use std::io::{PipeWriter, Write, pipe};
use std::net::SocketAddr;
use std::path::Path;

use super::{PATIENCE, configuration, kill_at_once, listens};
use crate::ports::{LOOPBACK, free};
use crate::process::Process;
use crate::wait::eventually;

/// Tries to get a port that nobody takes between choosing and using it.
const PORT_TRIES: u32 = 5;

/// Has an extension, so that a failing test does not show all of it.
const LOG: &str = "linphone.log";

/// A running linphonec that answers every call.
pub struct Linphone {
    process: Process,
    commands: PipeWriter,
    addr: SocketAddr,
}

impl Linphone {
    /// Starts it and waits until it listens.
    pub fn start() -> Linphone {
        let started = (0..PORT_TRIES).find_map(|_| Linphone::try_start(free(LOOPBACK)));
        started.unwrap_or_else(|| panic!("linphonec did not start on any of {PORT_TRIES} free ports"))
    }

    fn try_start(addr: SocketAddr) -> Option<Linphone> {
        let (commands, input) = pipe().map(|(reader, writer)| (writer, reader)).expect("a pipe can be made");
        let mut process = Process::start("linphonec", Path::new("linphonec"), |command, dir| {
            let (listen, port) = (addr.to_string(), addr.port().to_string());
            let file = dir.join("linphone.rc");
            let text = configuration("linphonerc", &[("listen", &listen), ("port", &port)]);
            fs::write(&file, text).expect("the directory is ours");
            // It starts without its database, but then does not listen.
            fs::create_dir_all(dir.join(".local/share/linphone")).expect("the directory is ours");
            command.env("HOME", dir).env_remove("XDG_DATA_HOME").env_remove("XDG_CONFIG_HOME").stdin(input);
            command.arg("-a").arg("-c").arg(file).args(["-d", "6", "-l", LOG]);
        });
        listens(&mut process, addr).then_some(Linphone { process, commands, addr })
    }

    /// Where it listens, over UDP.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Calls the user `app` at `server` and waits until the call is up.
    pub fn call(&mut self, server: SocketAddr) {
        self.command(&format!("call sip:app@{server}"));
        self.await_call("connected");
    }

    /// Puts its call on hold.
    pub fn hold(&mut self) {
        self.command("pause");
    }

    /// Takes its call off hold.
    pub fn resume(&mut self) {
        self.command("resume");
    }

    /// Hangs up.
    pub fn hang_up(&mut self) {
        self.command("terminate");
    }

    /// Ends it so that it can say nothing to anybody.
    pub fn kill(&mut self) {
        kill_at_once(&mut self.process);
    }

    /// Waits until its call is over.
    pub fn await_end(&self) {
        self.await_call("ended");
    }

    /// The bodies of messages that came from this neighbour and begin with these words, oldest first, repetitions included.
    pub fn heard(&self, from: SocketAddr, words: &str) -> Vec<String> {
        bodies(&self.process.read(Path::new(LOG)), &format!("new bytes from [UDP://{from}]"), &format!("{words} "))
    }

    /// Waits until it has said this of its call.
    fn await_call(&self, word: &str) {
        let said =
            |line: &str| line.contains("Call 1 ") && line.split(' ').any(|said| said.trim_end_matches('.') == word);
        let what = format!("linphonec's call: {word}");
        eventually(&what, PATIENCE, || self.process.stdout().lines().any(said).then_some(()));
    }

    fn command(&mut self, line: &str) {
        writeln!(self.commands, "{line}").unwrap_or_else(|error| panic!("{line}: linphonec cannot be told: {error}"));
    }
}

/// Bodies of those messages of a belle-sip log that stand behind a line with `mark` and begin with `start`.
fn bodies(log: &str, mark: &str, start: &str) -> Vec<String> {
    let mut lines = log.lines();
    let mut found = Vec::new();
    while let Some(line) = lines.next() {
        if line.contains(mark) && lines.clone().next().is_some_and(|first| first.starts_with(start)) {
            let message = lines.by_ref().map(str::trim_end);
            let body = message.skip_while(|line| !line.is_empty()).skip(1);
            found.push(body.take_while(|line| line.as_bytes().get(1) == Some(&b'=')).collect::<Vec<_>>().join("\n"));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_are_read_from_the_log() {
        let log = "1 belle-sip-message-channel [0x1]: received [9] new bytes from [UDP://127.0.0.1:1]:\r\n\
                   INVITE sip:a SIP/2.0\r\nCSeq: 2 INVITE\r\n\r\nv=0\r\nm=audio 1 RTP/AVP 0\r\n\n\
                   1 belle-sip-message-channel [0x1]: message sent to [UDP://127.0.0.1:1], size: [9] bytes\r\n\
                   INVITE sip:b SIP/2.0\r\n\r\nv=1\r\n\
                   1 belle-sip-message-channel [0x1]: received [9] new bytes from [UDP://127.0.0.1:1]:\r\n\
                   UPDATE sip:a SIP/2.0\r\n\r\n2 anything\r\n";

        assert_eq!(bodies(log, "new bytes from", "INVITE "), ["v=0\nm=audio 1 RTP/AVP 0"]);
        assert_eq!(bodies(log, "new bytes from", "UPDATE "), [""]);
    }
}
