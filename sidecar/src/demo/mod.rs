//! `demo`: the real sidecar with real sockets on loopback between two small phones. Nothing is faked: the phones tell
//! what they send and get, the sidecar tells its events, and the demo fails if something does not happen.

mod console;
mod phone;

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, ensure};
use sipwarden_crds::file;
use sipwarden_session_timer::{Event, EventKind, Leg};
use sipwarden_sip::HeaderName;
use sipwarden_sip::value::Transport;
use tokio::net::UdpSocket;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{sleep, timeout};

use self::console::Console;
use self::phone::Phone;
use crate::address::ListenAddress;
use crate::app;
use crate::call::packet::{Packet, Route};
use crate::logs::LogFilter;
use crate::policy_file::{PolicyFile, Sources};
use crate::settings::Settings;

/// Session time runs this many times faster: three minutes take six seconds.
const CLOCK_SPEED: u32 = 30;
/// Half of the interval the policy allows, in session time.
const HALF_INTERVAL: Duration = Duration::from_secs(90);
const POLICY: &str = "\
apiVersion: sipwarden.dev/v1alpha1
kind: SessionPolicy
metadata:
  name: demo
spec:
  mode: Enforce
  timers:
    sessionExpires: 3m
    minSE: 2m
";

/// Shows one call from its INVITE to the BYEs of its expiry.
///
/// # Errors
/// Something that should have happened did not.
pub fn run() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async { timeout(Duration::from_secs(30), show()).await.context("the demo hangs")? })
}

async fn show() -> anyhow::Result<()> {
    let loopback = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let listen = ListenAddress { transport: Transport::Udp, addr: loopback };
    let (caller, app) = (UdpSocket::bind(loopback).await?, UdpSocket::bind(loopback).await?);
    let settings = Settings {
        policy: Sources::default(),
        listen: vec![listen],
        app_listen: vec![listen],
        app: ListenAddress { transport: Transport::Udp, addr: app.local_addr()? },
        next_hop: None,
        advertise: None,
        admin: loopback,
        admin_token_file: None,
        status: None,
        clock_speed: CLOCK_SPEED,
        workers: 1,
        record_mib: 1,
        max_calls: Settings::MOST_CALLS,
        log_sip_users: false,
        otlp: None,
    };
    let config = file::load(POLICY).map_err(|problems| anyhow::anyhow!("{problems:?}"))?.into_config();
    let mut bound = app::build_with(settings, PolicyFile::without_file(config)?, LogFilter::not_ours())?;
    let (watcher, events) = mpsc::unbounded_channel();
    bound.watch_events(watcher);
    let [remote_side, app_side] = [Leg::Remote, Leg::Local].map(|leg| {
        let endpoint = bound.endpoints().iter().find(|endpoint| endpoint.leg == leg);
        endpoint.expect("each side has a listener").local
    });
    println!(
        "The policy:\n\n{POLICY}\nSession time runs {CLOCK_SPEED} times faster. '+' marks headers that the sidecar put in or changed."
    );

    let console = Console::new(CLOCK_SPEED);
    let caller = Phone::new("caller", caller, remote_side, console.clone());
    let app = Phone::new("app", app, app_side, console.clone());
    let (stop, stopped) = oneshot::channel::<()>();
    let sidecar = bound.run(async {
        let _ = stopped.await;
    });
    let play = async {
        let played = play(&caller, &app, &console, events).await;
        drop(stop);
        played
    };
    let (ran, played) = tokio::join!(sidecar, play);
    ran.and(played)
}

async fn play(
    caller: &Phone,
    app: &Phone,
    console: &Console,
    mut events: mpsc::UnboundedReceiver<(usize, Event)>,
) -> anyhow::Result<()> {
    let call = Call::new(caller, app)?;

    console.heading("A caller with session timers asks for 60 s; the policy's minimum is 120 s.");
    call.invite(1, &["Session-Expires: 60"]).await?;
    tell_until(&mut events, console, |kind| matches!(kind, EventKind::Rejected { .. })).await?;
    let rejected = caller.expect("422").await?;
    ensure!(rejected.first(HeaderName::MinSe)? == "120", "the 422 does not name the minimum");
    call.ack("ACK", 1, &rejected, &[]).await?;

    console.heading("It tries again. The app has no session timers; the sidecar completes its answer.");
    call.invite(2, &["Session-Expires: 180", "Min-SE: 120"]).await?;
    let invite = app.expect("INVITE").await?;
    app.answer(&invite, "200 OK", std::slice::from_ref(&call.app_contact)).await?;
    tell_until(&mut events, console, |kind| matches!(kind, EventKind::Established { interval: Some(180), .. })).await?;
    let answer = caller.expect("200").await?;
    ensure!(answer.first(HeaderName::SessionExpires)?.starts_with("180;refresher=uac"), "the timer was not negotiated");
    let dialog = answer.route()?;
    call.ack(&dialog.target, 2, &answer, &dialog.hops).await?;
    app.expect("ACK").await?;

    console.heading("The caller is the refresher: after half of the interval it refreshes.");
    sleep(HALF_INTERVAL / CLOCK_SPEED).await;
    call.refresh(3, &answer, &dialog).await?;
    let refresh = app.expect("INVITE").await?;
    app.answer(&refresh, "200 OK", std::slice::from_ref(&call.app_contact)).await?;
    tell_until(&mut events, console, |kind| matches!(kind, EventKind::Refreshed { by: Leg::Remote, .. })).await?;
    let refreshed = caller.expect("200").await?;
    call.ack(&dialog.target, 3, &refreshed, &dialog.hops).await?;
    app.expect("ACK").await?;

    console.heading("Now the caller vanishes: no BYE, no refresh. Without the sidecar nobody would end this call.");
    sleep(HALF_INTERVAL / CLOCK_SPEED).await;
    console.note("caller  --- its refresh is due, and nothing comes");
    tell_until(&mut events, console, |kind| matches!(kind, EventKind::Expired { .. })).await?;
    let bye = app.expect("BYE").await?;
    ensure!(bye.first(HeaderName::Reason)?.contains("cause=408"), "the BYE does not say why");
    app.answer(&bye, "200 OK", &[]).await?;
    tell_until(&mut events, console, |kind| matches!(kind, EventKind::ByeDone { to: Leg::Local, .. })).await?;
    caller.expect("BYE").await?;

    console.heading("Both sides got their BYE, 32 s before the interval would have ended (RFC 4028 §10).");
    Ok(())
}

/// Tells events until one that `wanted` accepts.
async fn tell_until(
    events: &mut mpsc::UnboundedReceiver<(usize, Event)>,
    console: &Console,
    wanted: impl Fn(EventKind) -> bool,
) -> anyhow::Result<()> {
    let patience = Duration::from_secs(9);
    loop {
        let next = timeout(patience, events.recv()).await.context("the sidecar did not do what comes next")?;
        let (_, event) = next.context("the sidecar ended")?;
        console.event(&event);
        if wanted(event.kind) {
            return Ok(());
        }
    }
}

/// The caller's side of the demo's call.
struct Call<'a> {
    caller: &'a Phone,
    common: Vec<String>,
    app_uri: String,
    app_contact: String,
}

impl<'a> Call<'a> {
    fn new(caller: &'a Phone, app: &Phone) -> anyhow::Result<Call<'a>> {
        let (caller_address, app_address) = (caller.address()?, app.address()?);
        Ok(Call {
            caller,
            common: vec![
                "From: <sip:caller@example.com>;tag=caller".to_owned(),
                "Call-ID: demo@example.com".to_owned(),
                format!("Contact: <sip:caller@{caller_address}>"),
            ],
            app_uri: format!("sip:app@{app_address}"),
            app_contact: format!("Contact: <sip:app@{app_address}>"),
        })
    }

    async fn invite(&self, cseq: u32, timers: &[&str]) -> anyhow::Result<()> {
        let mut lines = self.lines(cseq, "INVITE", &format!("<{}>", self.app_uri));
        lines.push("Supported: timer".to_owned());
        lines.extend(timers.iter().map(|&line| line.to_owned()));
        self.caller.request(&format!("INVITE {}", self.app_uri), &format!("invite{cseq}"), &lines).await
    }

    async fn refresh(&self, cseq: u32, answer: &Packet, dialog: &Route) -> anyhow::Result<()> {
        let mut lines = self.lines(cseq, "INVITE", &answer.first(HeaderName::To)?);
        lines.extend(["Supported: timer", "Session-Expires: 180;refresher=uac", "Min-SE: 120"].map(str::to_owned));
        lines.extend(route_lines(&dialog.hops));
        self.caller.request(&format!("INVITE {}", dialog.target), &format!("invite{cseq}"), &lines).await
    }

    /// To a 2xx with its target and route, else (target `ACK`) to a failure, which has the INVITE's branch.
    async fn ack(&self, target: &str, cseq: u32, answer: &Packet, hops: &[String]) -> anyhow::Result<()> {
        let (target, branch) = match target {
            "ACK" => (self.app_uri.as_str(), format!("invite{cseq}")),
            target => (target, format!("ack{cseq}")),
        };
        let mut lines = self.lines(cseq, "ACK", &answer.first(HeaderName::To)?);
        lines.extend(route_lines(hops));
        self.caller.request(&format!("ACK {target}"), &branch, &lines).await
    }

    fn lines(&self, cseq: u32, method: &str, to: &str) -> Vec<String> {
        let mut lines = self.common.clone();
        lines.extend([format!("To: {to}"), format!("CSeq: {cseq} {method}")]);
        lines
    }
}

fn route_lines(hops: &[String]) -> impl Iterator<Item = String> {
    hops.iter().map(|hop| format!("Route: {hop}"))
}
