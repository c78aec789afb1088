//! A client of the sidecar's admin port. All that tests know of the shape of `/sessions` and `/metrics` is here.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::wait::{eventually, until};

const ANSWER: Duration = Duration::from_secs(5);

/// How long a test waits for the sessions to look as expected.
const EXPECTED: Duration = Duration::from_secs(15);

/// The admin port of one sidecar.
#[derive(Clone, Copy, Debug)]
pub struct Admin {
    addr: SocketAddr,
}

/// One session as `/sessions` tells it.
#[derive(Clone, Debug)]
pub struct Session(Value);

impl Admin {
    /// A client for the admin port at `addr`.
    pub fn new(addr: SocketAddr) -> Admin {
        Admin { addr }
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// All sessions, those that ended lately included.
    pub fn sessions(&self) -> Vec<Session> {
        let body = self.body("/sessions");
        let value: Value = serde_json::from_str(&body).unwrap_or_else(|error| panic!("/sessions: {error}: {body}"));
        value["sessions"].as_array().expect("/sessions lists sessions").iter().cloned().map(Session).collect()
    }

    /// Waits until there is a session that `fits`, and gives it as it is then.
    pub fn session(&self, what: &str, fits: impl Fn(&Session) -> bool) -> Session {
        let found = until(EXPECTED, || self.sessions().into_iter().find(&fits));
        found.unwrap_or_else(|| panic!("no session {what} within {EXPECTED:?}: {:#?}", self.sessions()))
    }

    /// The sum over all label values of a counter or gauge; zero when it has no sample.
    pub fn metric(&self, name: &str) -> f64 {
        self.metric_where(name, "")
    }

    /// The sum over those samples whose labels contain `labels`, as in `side="remote"`.
    pub fn metric_where(&self, name: &str, labels: &str) -> f64 {
        let body = self.body("/metrics");
        let samples = body.lines().filter_map(|line| {
            let (key, value) = line.rsplit_once(' ')?;
            let (found, rest) = key.split_at(key.find('{').unwrap_or(key.len()));
            (found == name && rest.contains(labels)).then(|| value.parse::<f64>().expect("a sample is a number"))
        });
        samples.sum()
    }

    /// Waits until a sum as of [`Admin::metric_where`] reaches `value`.
    pub fn await_metric(&self, name: &str, labels: &str, value: f64) {
        let what = format!("{name}{{{labels}}} to reach {value}");
        eventually(&what, EXPECTED, || (self.metric_where(name, labels) >= value).then_some(()));
    }

    fn body(&self, path: &str) -> String {
        self.get(path).unwrap_or_else(|error| panic!("GET http://{}{path}: {error:#}", self.addr))
    }

    fn get(&self, path: &str) -> Result<String> {
        let mut stream = TcpStream::connect_timeout(&self.addr, ANSWER)?;
        stream.set_read_timeout(Some(ANSWER))?;
        // HTTP/1.0: the body ends where the connection does, never chunked.
        write!(stream, "GET {path} HTTP/1.0\r\nHost: {}\r\n\r\n", self.addr)?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (head, body) = answer.split_once("\r\n\r\n").context("an answer without end of headers")?;
        let status = head.lines().next().unwrap_or_default();
        ensure!(status.contains(" 200 "), "{status}");
        Ok(body.to_owned())
    }
}

impl Session {
    /// Set up and not yet over.
    pub fn is_active(&self) -> bool {
        self.0["state"] == "Active"
    }

    /// Why it ended: `Bye`, `Expired`, …
    pub fn ended(&self) -> &str {
        self.text("ended")
    }

    /// `Inbound` or `Outbound`.
    pub fn direction(&self) -> &str {
        self.text("direction")
    }

    /// The rule that decided its timers.
    pub fn rule(&self) -> Option<&str> {
        self.0["rule"].as_str()
    }

    /// The session interval in seconds, none without a timer.
    pub fn interval_s(&self) -> Option<u64> {
        self.0["interval_s"].as_u64()
    }

    /// `Local` or `Remote`; empty without a timer, and once ended.
    pub fn refresher(&self) -> &str {
        self.text("refresher")
    }

    /// How many of its remembered events are of this kind.
    pub fn count(&self, kind: &str) -> usize {
        self.events(kind).count()
    }

    /// Which side each refresh made the refresher, oldest first.
    pub fn refreshers(&self) -> Vec<&str> {
        self.events("Refreshed").map(|event| event["refresher"].as_str().unwrap_or_default()).collect()
    }

    /// Seconds of session time from its first event of one kind to its first of another.
    pub fn between_s(&self, from: &str, to: &str) -> f64 {
        let ago_s = |kind| {
            let event = self.events(kind).next().unwrap_or_else(|| panic!("no {kind} in {:#}", self.0));
            event["ago_s"].as_f64().expect("events tell how long ago they were")
        };
        ago_s(from) - ago_s(to)
    }

    fn events(&self, kind: &str) -> impl Iterator<Item = &Value> {
        let events = self.0["events"].as_array().expect("a session has events");
        events.iter().filter(move |event| event["kind"] == kind)
    }

    fn text(&self, field: &str) -> &str {
        self.0[field].as_str().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    /// An admin port that gives one answer.
    fn serve(body: &'static str) -> Admin {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let request = BufReader::new(stream.try_clone().unwrap());
            request.lines().map_while(|line| line.ok()).find(String::is_empty);
            write!(stream, "HTTP/1.0 200 OK\r\n\r\n{body}").unwrap();
        });
        Admin::new(addr)
    }

    #[test]
    fn sessions_are_read_with_their_timer() {
        let admin = serve(
            r#"{"total":1,"sessions":[{"state":"Active","direction":"Inbound","rule":null,"interval_s":90,
                "refresher":"Remote","events":[{"ago_s":90.5,"kind":"Established"},{"ago_s":30.0,"kind":"Expired"},
                {"ago_s":80.0,"kind":"Refreshed","refresher":"Local"}]}]}"#,
        );

        let session = admin.session("that is active", Session::is_active);

        assert_eq!(session.interval_s(), Some(90));
        assert_eq!(session.refresher(), "Remote");
        assert_eq!((session.count("ByeSent"), session.count("Expired")), (0, 1));
        assert_eq!(session.refreshers(), ["Local"]);
        assert_eq!(session.between_s("Established", "Expired"), 60.5);
    }

    #[test]
    fn samples_of_one_metric_are_summed_by_label() {
        let body = "# TYPE a counter\na{side=\"local\"} 2\na{side=\"remote\"} 3\na_more 7\n";

        assert_eq!(serve(body).metric("a"), 5.0);
        assert_eq!(serve(body).metric_where("a", "side=\"remote\""), 3.0);
    }
}
