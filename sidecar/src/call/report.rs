//! What a call of ours came to, for people and as JSON.

use std::fmt;
use std::time::Duration;

use serde::Serialize;
use sipwarden_sip::value::{RefresherParam, SessionExpires};

use super::packet::Packet;

/// The outcome of a call, and the exit code that says the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Verdict {
    /// Set up, refreshed and ended, with a session timer: 0.
    Passed,
    /// It could not be set up, refreshed or ended: 1.
    Failed,
    /// It works, but nobody keeps a session timer: 3. (2 is a command line that is not understood.)
    NoTimer,
}

/// The whole story of a call.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// The outcome.
    pub verdict: Verdict,
    /// The same as a sentence, with what to check.
    pub text: String,
    /// What was asked to be called.
    pub target: String,
    /// `transport:IP:PORT` that it came to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// By which the call is found in `/sessions` and in logs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub call_id: Option<String>,
    /// The timer that was in force when the call ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timer: Option<Timer>,
    /// Requests and their final answers, in order.
    pub steps: Vec<Step>,
}

/// A session timer (RFC 4028).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Timer {
    /// The session interval in seconds.
    pub interval_s: u32,
    /// Who has to refresh.
    pub refresher: Side,
}

/// One of the two parties.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Side {
    /// This program.
    Caller,
    /// Who was called.
    Callee,
}

/// A request and its final answer.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Step {
    /// The method.
    pub request: &'static str,
    /// Its number.
    pub cseq: u32,
    /// Of the final response; none without one.
    pub status: Option<u16>,
    /// The response's start line without `SIP/2.0`, or why there was none.
    pub answer: String,
    /// From the first copy of the request to the answer.
    pub milliseconds: u64,
    /// The answer's Session-Expires.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_expires: Option<String>,
    /// The answer's Min-SE, in seconds.
    #[serde(rename = "minSE", skip_serializing_if = "Option::is_none")]
    pub min_se: Option<u32>,
}

impl Verdict {
    /// What the process ends with.
    pub fn exit_code(self) -> u8 {
        match self {
            Verdict::Passed => 0,
            Verdict::Failed => 1,
            Verdict::NoTimer => 3,
        }
    }
}

impl Timer {
    /// As a 2xx to a request of the caller says it. Where it does not say who, the caller is it: RFC 4028 §7.2 has the
    /// UAS say so, and then the one who asked is safe to.
    pub(super) fn of(said: SessionExpires) -> Timer {
        let refresher = match said.refresher {
            Some(RefresherParam::Uas) => Side::Callee,
            Some(RefresherParam::Uac) | None => Side::Caller,
        };
        Timer { interval_s: said.delta, refresher }
    }

    /// For the Session-Expires of the caller's next request.
    pub(super) fn refresher_param(self) -> RefresherParam {
        match self.refresher {
            Side::Caller => RefresherParam::Uac,
            Side::Callee => RefresherParam::Uas,
        }
    }
}

impl Step {
    /// `answer` came after `elapsed`.
    pub(super) fn answered(request: &'static str, cseq: u32, answer: &Packet, elapsed: Duration) -> Step {
        let read = answer.read(|message| {
            let said = message.session_expires().ok().flatten();
            let said = said.map(|said| match said.refresher {
                Some(refresher) => format!("{};refresher={}", said.delta, refresher.as_str()),
                None => said.delta.to_string(),
            });
            (message.status(), said, message.min_se().ok().flatten())
        });
        let (status, session_expires, min_se) = read.unwrap_or_default();
        let start = answer.start_line();
        let answer = start.strip_prefix("SIP/2.0 ").unwrap_or(&start).to_owned();
        Step { request, cseq, status, answer, milliseconds: millis(elapsed), session_expires, min_se }
    }

    /// Nothing final came for that long.
    pub(super) fn unanswered(request: &'static str, cseq: u32, elapsed: Duration) -> Step {
        let answer = "no final answer".to_owned();
        Step { request, cseq, status: None, answer, milliseconds: millis(elapsed), session_expires: None, min_se: None }
    }
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Side::Caller => "the caller",
            Side::Callee => "the callee",
        })
    }
}

impl fmt::Display for Timer {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{} s, refreshed by {}", self.interval_s, self.refresher)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let address = self.address.as_ref().map(|address| format!(" at {address}")).unwrap_or_default();
        let call_id = self.call_id.as_ref().map(|id| format!(", Call-ID {id}")).unwrap_or_default();
        writeln!(f, "call to {}{address}{call_id}", self.target)?;
        for step in &self.steps {
            write!(f, "  {:<7} {} ({} ms)", step.request, step.answer, step.milliseconds)?;
            if let Some(said) = &step.session_expires {
                write!(f, ", Session-Expires {said}")?;
            }
            if let Some(min_se) = step.min_se {
                write!(f, ", Min-SE {min_se}")?;
            }
            writeln!(f)?;
        }
        writeln!(f, "{:?}: {}", self.verdict, self.text)
    }
}

fn millis(elapsed: Duration) -> u64 {
    u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)
}
