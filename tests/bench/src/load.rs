//! The load generator: a caller (UAC) and a callee (UAS) on one thread, each behind one socket.
//!
//! It knows nothing of the process under test but two addresses and a way to read its CPU time.

use std::net::{SocketAddrV4, UdpSocket};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::socket::MsgFlags;
use nix::sys::time::TimeSpec;

use crate::call::{Calls, Hangup, Held, Phone};
use crate::plan::{Outcome, Plan};
use crate::refreshes::Refreshes;
use crate::sock::{self, BATCH_LEN, Inbox};
use crate::template::Manners;

/// How long calls in progress may take to end once no more are begun.
const DRAIN: Duration = Duration::from_secs(6);

/// Longest sleep; deadlines are looked at no later than this.
const NAP: Duration = Duration::from_millis(100);

/// The two phones with every call between them.
pub(crate) struct Phones {
    uac: UdpSocket,
    uas: UdpSocket,
    inbox: Inbox,
    calls: Calls,
}

/// How far a run has come.
struct Progress {
    begin: Instant,
    launched: u64,
    calls_max: u64,
    outcome: Outcome,
}

impl Phones {
    /// Two phones with these manners on free loopback ports, not yet connected.
    ///
    /// # Errors
    /// No socket to be had.
    pub(crate) fn bind(manners: Manners) -> Result<Self> {
        let (uac, uas) = (sock::bind(0)?, sock::bind(0)?);
        let calls = Calls::new(sock::address(&uac)?, sock::address(&uas)?, manners);
        Ok(Self { uac, uas, inbox: Inbox::new(), calls })
    }

    /// Addresses of the caller and of the callee.
    ///
    /// # Errors
    /// The sockets have no address.
    pub(crate) fn addresses(&self) -> Result<(SocketAddrV4, SocketAddrV4)> {
        Ok((sock::address(&self.uac)?, sock::address(&self.uas)?))
    }

    /// Connects the caller to `remote` and the callee to `app`, the two sides of the path under test.
    ///
    /// # Errors
    /// The kernel refuses an address.
    pub(crate) fn connect(&self, remote: SocketAddrV4, app: SocketAddrV4) -> Result<()> {
        self.uac.connect(remote).with_context(|| format!("connecting the caller to {remote}"))?;
        self.uas.connect(app).with_context(|| format!("connecting the callee to {app}"))
    }

    /// Sessions left standing so far, by call number.
    pub(crate) fn held(&self) -> impl Iterator<Item = (u64, Held)> {
        self.calls.held()
    }

    /// BYEs from outside so far, repeats included.
    pub(crate) fn hangups(&self) -> &[Hangup] {
        self.calls.hangups()
    }

    /// Refreshes and probes from outside so far.
    pub(crate) fn refreshes(&self) -> &Refreshes {
        self.calls.refreshes()
    }

    /// Makes calls as `plan` says; `cpu` reads the CPU time of the process under test.
    ///
    /// # Errors
    /// A socket that fails for good, or `cpu` failing.
    pub(crate) fn run(&mut self, plan: &Plan, cpu: &dyn Fn() -> Result<Duration>) -> Result<Outcome> {
        let begin = Instant::now();
        let mut run = Progress { begin, launched: 0, calls_max: plan.calls_max, outcome: Outcome::new() };
        self.drive(plan, &mut run, begin + plan.warm_up)?;

        let (opened, cpu_before, completed_before) = (Instant::now(), cpu()?, run.outcome.completed);
        run.outcome.latency_ns.reset();
        self.drive(plan, &mut run, opened + plan.window)?;
        run.outcome.elapsed = opened.elapsed();
        run.outcome.cpu = cpu()?.saturating_sub(cpu_before);
        run.outcome.completed_in_window = run.outcome.completed - completed_before;

        run.calls_max = run.launched;
        self.drive(plan, &mut run, Instant::now() + DRAIN)?;
        run.outcome.failed += self.calls.abandon();
        Ok(run.outcome)
    }

    /// Answers every BYE that comes until `enough` says so of the number seen, or until `deadline`.
    ///
    /// # Errors
    /// A socket that fails for good.
    pub(crate) fn await_hangups(&mut self, deadline: Instant, enough: impl Fn(&[Hangup]) -> bool) -> Result<()> {
        let mut outcome = Outcome::new();
        while Instant::now() < deadline {
            if self.exchange(&mut outcome)? == 0 {
                if enough(self.calls.hangups()) {
                    break;
                }
                self.wait(deadline)?;
            }
        }
        Ok(())
    }

    /// Answers what comes until `until`.
    ///
    /// # Errors
    /// A socket that fails for good.
    pub(crate) fn attend(&mut self, until: Instant) -> Result<()> {
        let mut outcome = Outcome::new();
        while Instant::now() < until {
            if self.exchange(&mut outcome)? == 0 {
                self.wait(until)?;
            }
        }
        Ok(())
    }

    /// Begins calls and carries them on until `until`, or until the last there may be has ended.
    fn drive(&mut self, plan: &Plan, run: &mut Progress, until: Instant) -> Result<()> {
        loop {
            let now = Instant::now();
            let left = run.calls_max - run.launched;
            if now >= until || (left == 0 && self.calls.open() == 0) {
                return Ok(());
            }
            let due = plan.pace.due(run.begin, now, run.launched, self.calls.open()).min(left).min(BATCH_LEN as u64);
            for number in run.launched..run.launched + due {
                if !self.calls.launch(plan.interval.seconds(number, now), plan.hold, now) {
                    run.outcome.shed += 1;
                }
            }
            run.launched += due;
            self.calls.resend(now, &mut run.outcome);
            if self.exchange(&mut run.outcome)? == 0 && due == 0 {
                spin();
            }
        }
    }

    /// Sends what is queued, takes one batch from each socket, sends what that gave rise to. Returns how many came.
    fn exchange(&mut self, outcome: &mut Outcome) -> Result<usize> {
        let Self { uac, uas, inbox, calls } = self;
        let mut came = 0;
        for (phone, socket) in [(Phone::Uas, &*uas), (Phone::Uac, &*uac)] {
            calls.queues.uac.iter_mut().for_each(|outbox| outbox.flush(uac));
            calls.queues.uas.iter_mut().for_each(|outbox| outbox.flush(uas));
            came += inbox.receive(socket, MsgFlags::MSG_DONTWAIT).context("receiving")?;
            let now = Instant::now();
            inbox.iter().for_each(|message| calls.receive(phone, message, now, outcome));
        }
        Ok(came)
    }

    /// Sleeps until either socket is readable or `until`, at most [`NAP`].
    fn wait(&self, until: Instant) -> Result<()> {
        let nap = until.saturating_duration_since(Instant::now()).min(NAP);
        let mut sockets = [&self.uac, &self.uas].map(|socket| PollFd::new(socket.as_fd(), PollFlags::POLLIN));
        match ppoll(&mut sockets, Some(TimeSpec::from_duration(nap)), None) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => Ok(()),
            Err(error) => Err(error).context("waiting for the phones' sockets"),
        }
    }
}

/// Passes about a microsecond without sleeping: waking a sleeping generator would cost the process under test a
/// system call's worth of CPU time per message, which no remote peer costs it.
fn spin() {
    (0..50).for_each(|_| std::hint::spin_loop());
}
