//! `call`: a real call to somebody, as a phone with session timers places it: INVITE, ACK, a session refresh, BYE. It
//! says what came back and whether anybody keeps a session timer. `helm test` and `kubectl sipwarden call-test` run it.

mod agent;
pub(crate) mod packet;
mod report;
mod wire;

use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use clap::{Args, ValueEnum};
use sipwarden_crds::Duration as Seconds;
use sipwarden_sip::Method;
use sipwarden_sip::value::Uri;
use tokio::time::{Instant, sleep};

use self::agent::{Agent, status};
use self::packet::Packet;
pub use self::report::{Report, Side, Step, Timer, Verdict};
use self::wire::Wire;
use crate::address::{NextHop, transport_name};

/// Tries of one request: two hops may each answer 422 with a higher minimum (RFC 4028 §7.3).
const MAX_TRIES: usize = 4;
/// The shortest interval there is (RFC 4028 §4).
const MIN_SECONDS: u32 = 90;
/// Least pause of the owner of the Call-ID after a 491 (RFC 3261 §14.1).
const GLARE_PAUSE: Duration = Duration::from_millis(2100);
/// Between two calls of `--wait`.
const WAIT_PAUSE: Duration = Duration::from_millis(500);

/// Settings of `call`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Exit codes:
  0  set up, refreshed and ended, with a session timer
  1  could not be set up, refreshed or ended; the last line says why
  2  the command line is not understood
  3  works, but nobody keeps a session timer: no sidecar, one that only observes, or no policy

Example:
  sipwarden-sidecar call udp:asterisk.voice.svc:5060 --uri sip:600@asterisk.voice --output json")]
pub struct CallArgs {
    /// Where the INVITE goes: udp:HOST[:PORT] or tcp:HOST[:PORT]; names are looked up as RFC 3263 says
    #[arg(value_name = "TARGET")]
    pub target: NextHop,
    /// Who is called, in Request-URI and To [default: sip:sipwarden-test@HOST[:PORT] of TARGET]
    #[arg(long, value_name = "SIP-URI", value_parser = sip_uri)]
    pub uri: Option<String>,
    /// Who calls, in From [default: sip:sipwarden-call@IP:PORT of this machine]
    #[arg(long, value_name = "SIP-URI", value_parser = sip_uri)]
    pub from: Option<String>,
    /// The session interval asked for, at least 90s; a 422 is followed, so the shortest one shows a policy's minimum
    #[arg(long, value_name = "DURATION", default_value = "90s", value_parser = interval)]
    pub session_expires: Seconds,
    /// How the session is refreshed within the call
    #[arg(long, value_enum, default_value_t)]
    pub refresh: Refresh,
    /// How long the call stays up before it is refreshed
    #[arg(long, value_name = "DURATION", default_value = "1s")]
    pub hold: Seconds,
    /// How long each request may take until its final answer; INVITE includes the ringing
    #[arg(long, value_name = "DURATION", default_value = "10s")]
    pub timeout: Seconds,
    /// Call again for so long until a call passes, as while pods start and a policy is on its way to them
    #[arg(long, value_name = "DURATION", default_value = "0s")]
    pub wait: Seconds,
    /// How the outcome is written to standard output
    #[arg(long, value_enum, default_value_t)]
    pub output: Output,
}

/// How a session is refreshed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Refresh {
    /// By UPDATE where the callee allows it, else by re-INVITE.
    #[default]
    Auto,
    /// By UPDATE (RFC 3311).
    Update,
    /// By re-INVITE with the same SDP.
    Reinvite,
    /// Not at all.
    None,
}

/// How the outcome is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    #[default]
    Text,
    /// One JSON object: verdict, text, target, address, callId, timer, steps.
    Json,
}

/// Places the call and prints the outcome.
///
/// # Errors
/// The outcome could not be written; everything else is part of it.
pub fn run(args: &CallArgs) -> anyhow::Result<Verdict> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let report = runtime.block_on(place(args));
    match args.output {
        Output::Text => print!("{report}"),
        Output::Json => println!("{}", serde_json::to_string_pretty(&report)?),
    }
    Ok(report.verdict)
}

/// Calls until a call passes or `--wait` is over.
pub async fn place(args: &CallArgs) -> Report {
    let until = Instant::now() + seconds(args.wait);
    loop {
        let report = place_once(args).await;
        if report.verdict == Verdict::Passed || Instant::now() >= until {
            return report;
        }
        sleep(WAIT_PAUSE).await;
    }
}

async fn place_once(args: &CallArgs) -> Report {
    let mut report = Report {
        verdict: Verdict::Failed,
        text: String::new(),
        target: args.target.to_string(),
        address: None,
        call_id: None,
        timer: None,
        steps: Vec::new(),
    };
    let told = match start(args, &mut report).await {
        Ok(mut agent) => {
            report.call_id = Some(agent.call_id().to_owned());
            let told = tell(args, &mut agent).await;
            report.steps = agent.into_steps();
            told
        }
        Err(error) => Err(error),
    };
    (report.verdict, report.text) = match &told {
        Ok(Some(timer)) => (Verdict::Passed, format!("the call works, and its session timer is {timer}")),
        Ok(None) => {
            let check = "is a sidecar in the callee's pod, and is the policy it runs in mode Enforce?";
            (Verdict::NoTimer, format!("the call works, but nobody keeps a session timer for it; {check}"))
        }
        Err(error) => (Verdict::Failed, format!("{error:#}")),
    };
    report.timer = told.ok().flatten();
    report
}

async fn start(args: &CallArgs, report: &mut Report) -> anyhow::Result<Agent> {
    let target = &args.target.0;
    let resolver = agent::resolver(target);
    let (found, _) = resolver.resolve(target).await;
    let (transport, peer) = found.map_err(|_| anyhow!("{} has no address; is the name right?", report.target))?;
    report.address = Some(format!("{}:{peer}", transport_name(transport)));
    let wire = Wire::towards(transport, peer).await?;
    let uri = args.uri.clone().unwrap_or_else(|| format!("sip:sipwarden-test@{}", args.target.host_port()));
    Agent::new(wire, resolver, peer, &uri, args.from.as_deref(), seconds(args.timeout)).await
}

/// The call from INVITE to BYE; the timer that was in force at its end.
async fn tell(args: &CallArgs, agent: &mut Agent) -> anyhow::Result<Option<Timer>> {
    let mut wish = Wish { interval_s: args.session_expires.secs(), min_se: None, timer: None };
    let answer = set_up(agent, &mut wish).await?;
    wish.timer = timer(&answer)?;
    agent.listen(seconds(args.hold)).await?;
    let refreshed = refresh(args.refresh, allows_update(&answer)?, agent, &mut wish).await;
    if let Some(ended) = agent.ended() {
        bail!("{ended}");
    }
    // The call is ended whatever became of the refresh.
    let bye = agent.request(Method::Bye, "").await;
    refreshed?;
    let bye = bye?;
    match status(&bye) {
        200..300 => Ok(wish.timer),
        _ => bail!("the callee refused the BYE: {}", bye.start_line()),
    }
}

/// What the next request asks for.
struct Wish {
    interval_s: u32,
    /// The highest of any 422.
    min_se: Option<u32>,
    timer: Option<Timer>,
}

impl Wish {
    fn lines(&self) -> String {
        let refresher = self.timer.map(|timer| format!(";refresher={}", timer.refresher_param().as_str()));
        let min_se = self.min_se.map(|min_se| format!("Min-SE: {min_se}\r\n")).unwrap_or_default();
        format!(
            "Supported: timer\r\nSession-Expires: {}{}\r\n{min_se}",
            self.timer.map_or(self.interval_s, |timer| timer.interval_s),
            refresher.unwrap_or_default()
        )
    }

    /// Follows a 422 (RFC 4028 §7.3).
    fn raise(&mut self, answer: &Packet) -> anyhow::Result<()> {
        let min_se = answer.read(|message| message.min_se())?.ok().flatten();
        let min_se = min_se.context("the callee answered 422 without a Min-SE (RFC 4028 §6)")?;
        if self.min_se.is_some_and(|before| min_se <= before) {
            bail!("the callee answered 422 again with a Min-SE of {min_se} that was kept already");
        }
        self.min_se = Some(min_se);
        self.interval_s = self.interval_s.max(min_se);
        if let Some(timer) = &mut self.timer {
            timer.interval_s = timer.interval_s.max(min_se);
        }
        Ok(())
    }
}

async fn set_up(agent: &mut Agent, wish: &mut Wish) -> anyhow::Result<Packet> {
    for _ in 0..MAX_TRIES {
        let answer = agent.invite(&wish.lines()).await?;
        match status(&answer) {
            200..300 => return Ok(answer),
            422 => wish.raise(&answer)?,
            401 | 407 => {
                bail!("the callee asks for credentials; a test call has none, so call one who takes calls without")
            }
            404 | 484 | 604 => bail!("the callee is not known there: {}; who is called is --uri", answer.start_line()),
            _ => bail!("the call was refused: {}", answer.start_line()),
        }
    }
    bail!("{MAX_TRIES} times 422 with a rising Min-SE")
}

/// What the session timer is then; not at all where it was turned off.
async fn refresh(asked: Refresh, allows_update: bool, agent: &mut Agent, wish: &mut Wish) -> anyhow::Result<()> {
    let mut by_update = match asked {
        Refresh::None => return Ok(()),
        Refresh::Update => true,
        Refresh::Reinvite => false,
        Refresh::Auto => allows_update,
    };
    for _ in 0..MAX_TRIES {
        let lines = wish.lines();
        let answer = match by_update {
            true => agent.request(Method::Update, &lines).await?,
            false => agent.invite(&lines).await?,
        };
        match status(&answer) {
            200..300 => {
                wish.timer = timer(&answer)?;
                return Ok(());
            }
            405 | 501 if by_update && asked == Refresh::Auto => by_update = false,
            422 => wish.raise(&answer)?,
            491 => agent.listen(GLARE_PAUSE).await?,
            _ => bail!("the refresh was refused: {}", answer.start_line()),
        }
    }
    bail!("the refresh was refused {MAX_TRIES} times")
}

/// The session timer of a 2xx.
fn timer(answer: &Packet) -> anyhow::Result<Option<Timer>> {
    let said = answer.read(|message| message.session_expires())?;
    let said = said.map_err(|_| anyhow!("the callee's 200 has a Session-Expires that cannot be read"))?;
    Ok(said.map(Timer::of))
}

fn allows_update(answer: &Packet) -> anyhow::Result<bool> {
    Ok(answer.read(|message| message.has_token(sipwarden_sip::HeaderName::Allow, "UPDATE"))?)
}

fn seconds(duration: Seconds) -> Duration {
    Duration::from_secs(duration.secs().into())
}

fn sip_uri(text: &str) -> Result<String, &'static str> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_graphic());
    let parsed = Uri::parse(text.as_bytes()).ok().filter(|uri| is_plain && !uri.host.is_empty());
    parsed.map(|_| text.to_owned()).ok_or("expected a SIP URI such as sip:600@pbx.example.com")
}

fn interval(text: &str) -> Result<Seconds, String> {
    let interval: Seconds = text.parse().map_err(|error| format!("{error}"))?;
    match interval.secs() >= MIN_SECONDS {
        true => Ok(interval),
        false => Err(format!("at least {MIN_SECONDS}s: RFC 4028 §4 knows no shorter one")),
    }
}
