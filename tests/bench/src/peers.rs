//! Starts and stops the processes under test. Each is a child of this one, on loopback, in a directory of its own.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::proc::{self, Tree};

/// How long a process may take to get ready, and to end once told.
const PATIENCE: Duration = Duration::from_secs(20);

/// Lines of stderr shown of a process that failed.
const LAST_LINES: usize = 10;

/// The sidecar's timers unless a benchmark names others.
const TIMERS: &str = "{sessionExpires: 30m, minSE: 90s}";

/// What stands between the two phones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// Nothing: the phones talk to each other, which shows what the generator itself can do.
    Direct,
    /// The relay that parses nothing.
    Relay,
    Sidecar,
    Kamailio,
}

/// How the processes are started.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Setup {
    /// The sidecar's binary; the one beside this binary unless given.
    #[arg(long, global = true)]
    sidecar: Option<PathBuf>,
    /// Kamailio's binary.
    #[arg(long, global = true, default_value = "kamailio")]
    kamailio: PathBuf,
    /// Kamailio's UDP children.
    #[arg(long, global = true, default_value_t = 1)]
    kamailio_children: u32,
    /// Kamailio's allocator: tlsf, fm or qm. Unless given tlsf, the fastest, but fm where sessions expire: 5.6.3 with tlsf
    /// crashes there more often than not.
    #[arg(long, global = true)]
    kamailio_allocator: Option<String>,
    /// The sidecar's workers.
    #[arg(long, global = true, default_value_t = 1)]
    workers: u32,
    /// How many times as fast as ours the sidecar's clock runs.
    #[arg(long, global = true, default_value_t = 1)]
    pub(crate) clock_speed: u32,
    /// Who to leave out.
    #[arg(long, global = true, value_enum, value_delimiter = ',')]
    without: Vec<Kind>,
    /// CPU of the generator.
    #[arg(long, global = true, default_value_t = 0)]
    generator_cpu: usize,
    /// CPU of the process under test, the same for all.
    #[arg(long, global = true, default_value_t = 1)]
    tested_cpu: usize,
    /// `timers` of the sidecar's policy, as YAML on one line.
    #[arg(skip)]
    timers: Option<String>,
}

impl Setup {
    /// How the processes are run, in a sentence or two.
    pub(crate) fn description(&self) -> String {
        format!(
            "Generator on CPU {}, each process under test on CPU {}. Sidecar: {} worker. Kamailio: tests/bench/kamailio.cfg, \
             {} UDP child, {} allocator.",
            self.generator_cpu,
            self.tested_cpu,
            self.workers,
            self.kamailio_children,
            self.kamailio_allocator()
        )
    }

    /// Those of `kinds` that take part.
    pub(crate) fn taking_part<const N: usize>(&self, kinds: [Kind; N]) -> impl Iterator<Item = Kind> {
        kinds.into_iter().filter(|kind| !self.without.contains(kind))
    }

    /// The same, with an allocator for Kamailio unless one was given.
    pub(crate) fn with_kamailio_allocator(&self, name: &str) -> Self {
        let allocator = self.kamailio_allocator.clone().unwrap_or_else(|| name.to_owned());
        Self { kamailio_allocator: Some(allocator), ..self.clone() }
    }

    /// The same, with these `timers` in the sidecar's policy: YAML on one line.
    pub(crate) fn with_timers(&self, timers: String) -> Self {
        Self { timers: Some(timers), ..self.clone() }
    }

    /// Kamailio's allocator.
    pub(crate) fn kamailio_allocator(&self) -> &str {
        self.kamailio_allocator.as_deref().unwrap_or("tlsf")
    }

    /// Kamailio's binary.
    pub(crate) fn kamailio(&self) -> &Path {
        &self.kamailio
    }
}

/// A process under test, ready; dropping it ends it.
pub(crate) struct Peer {
    child: Option<Child>,
    tree: Tree,
    /// Where the caller sends.
    pub(crate) remote: SocketAddrV4,
    /// Where the callee's messages come from and go to.
    pub(crate) app: SocketAddrV4,
    dir: TempDir,
}

impl Peer {
    /// Starts a `kind` between the phones at `uac` and `uas`, and returns once it is ready.
    ///
    /// # Errors
    /// The binary is missing, ends, or is not ready within [`PATIENCE`].
    pub(crate) fn start(kind: Kind, setup: &Setup, uac: SocketAddrV4, uas: SocketAddrV4) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        proc::pin(setup.generator_cpu)?;
        if kind == Kind::Direct {
            return Ok(Self { child: None, tree: Tree::default(), remote: uas, app: uac, dir });
        }
        proc::pin(setup.tested_cpu)?;
        let started = match kind {
            Kind::Kamailio => start_kamailio(setup, dir.path()),
            Kind::Sidecar => start_announcing(&mut sidecar_command(setup, dir.path(), uas)?, dir.path()),
            Kind::Relay | Kind::Direct => start_announcing(&mut relay_command(uac, uas)?, dir.path()),
        };
        proc::pin(setup.generator_cpu)?;
        let (child, remote, app) = started.with_context(|| format!("starting {kind:?}: {}", last_words(dir.path())))?;
        let tree = Tree::of(child.id())?;
        Ok(Self { child: Some(child), tree, remote, app, dir })
    }

    /// The end of what it wrote to stderr.
    pub(crate) fn last_words(&self) -> String {
        last_words(self.dir.path())
    }

    /// The process with its descendants; empty for [`Kind::Direct`].
    pub(crate) fn tree(&self) -> &Tree {
        &self.tree
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            end(child);
        }
    }
}

fn sidecar_command(setup: &Setup, dir: &Path, uas: SocketAddrV4) -> Result<Command> {
    let policy = dir.join("policy.yaml");
    let timers = setup.timers.as_deref().unwrap_or(TIMERS);
    let head = "apiVersion: sipwarden.dev/v1alpha1\nkind: SessionPolicy\nmetadata: {name: bench}";
    std::fs::write(&policy, format!("{head}\nspec:\n  mode: Enforce\n  timers: {timers}\n"))?;
    let beside = std::env::current_exe()?.with_file_name("sipwarden-sidecar");
    let mut command = Command::new(setup.sidecar.as_ref().unwrap_or(&beside));
    command.arg("run").arg("--policy").arg(policy);
    command.args(["--listen", "udp:127.0.0.1:0", "--app-listen", "udp:127.0.0.1:0", "--admin", "127.0.0.1:0"]);
    command.args(["--app", &format!("udp:{uas}"), "--workers", &setup.workers.to_string()]);
    command.args(["--clock-speed", &setup.clock_speed.to_string()]);
    Ok(command)
}

fn relay_command(uac: SocketAddrV4, uas: SocketAddrV4) -> Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["relay", "--remote", &uac.to_string(), "--app", &uas.to_string()]);
    Ok(command)
}

/// Starts a process that says `... listen=udp:A app-listen=udp:B ...` on its first line once ready.
fn start_announcing(command: &mut Command, dir: &Path) -> Result<(Child, SocketAddrV4, SocketAddrV4)> {
    let command = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(stderr_file(dir)?);
    let mut child = command.spawn().context("is it built?")?;
    match announced(&mut child) {
        Ok((remote, app)) => Ok((child, remote, app)),
        Err(error) => {
            end(&mut child);
            Err(error)
        }
    }
}

/// The two addresses in the child's first line.
fn announced(child: &mut Child) -> Result<(SocketAddrV4, SocketAddrV4)> {
    let stdout = child.stdout.take().context("the child's stdout was piped")?;
    let readable = poll(&mut [PollFd::new(stdout.as_fd(), PollFlags::POLLIN)], PollTimeout::try_from(PATIENCE)?)?;
    ensure!(readable > 0, "no ready line within {} s", PATIENCE.as_secs());
    let mut line = String::new();
    BufReader::new(stdout).read_line(&mut line)?;
    let address = |key: &str| -> Result<SocketAddrV4> {
        let value = line.split_ascii_whitespace().find_map(|word| word.strip_prefix(key));
        value.with_context(|| format!("no {key} in ready line {line:?}"))?.parse().context("address of ready line")
    };
    Ok((address("listen=udp:")?, address("app-listen=udp:")?))
}

fn start_kamailio(setup: &Setup, dir: &Path) -> Result<(Child, SocketAddrV4, SocketAddrV4)> {
    let config = dir.join("kamailio.cfg");
    std::fs::write(&config, include_str!("../kamailio.cfg"))?;
    let address = SocketAddrV4::new(Ipv4Addr::LOCALHOST, free_port()?);
    let mut child = Command::new(&setup.kamailio)
        .args(["-DD", "-E", "-m", "4096", "-M", "64", "-b", "67108864"])
        .args(["-x", setup.kamailio_allocator(), "-X", setup.kamailio_allocator()])
        .args(["-n", &setup.kamailio_children.to_string(), "-l", &format!("udp:{address}")])
        .arg("-f")
        .arg(&config)
        .arg("-Y")
        .arg(dir)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(stderr_file(dir)?)
        .spawn()
        .context("is Kamailio installed?")?;
    match await_options(&mut child, address) {
        Ok(()) => Ok((child, address, address)),
        Err(error) => {
            end(&mut child);
            Err(error)
        }
    }
}

fn stderr_file(dir: &Path) -> Result<File> {
    File::create(dir.join("stderr")).context("creating a file for stderr")
}

fn last_words(dir: &Path) -> String {
    let text = std::fs::read_to_string(dir.join("stderr")).unwrap_or_default();
    let lines: Vec<&str> = text.lines().rev().take(LAST_LINES).collect();
    lines.into_iter().rev().collect::<Vec<_>>().join("\n")
}

/// Asks with OPTIONS until an answer comes.
fn await_options(child: &mut Child, address: SocketAddrV4) -> Result<()> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    socket.connect(address)?;
    socket.set_read_timeout(Some(Duration::from_millis(50)))?;
    let from = socket.local_addr()?;
    let options = format!(
        "OPTIONS sip:{address} SIP/2.0\r\nVia: SIP/2.0/UDP {from};branch=z9hG4bKready\r\nMax-Forwards: 70\r\n\
         From: <sip:bench@example.com>;tag=1\r\nTo: <sip:{address}>\r\nCall-ID: ready@example.com\r\nCSeq: 1 OPTIONS\r\n\
         Content-Length: 0\r\n\r\n"
    );
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        if let Some(status) = child.try_wait()? {
            bail!("it ended with {status}");
        }
        let answered = socket.send(options.as_bytes()).and_then(|_| socket.recv(&mut [0; 2048]));
        match answered {
            Ok(_) => return Ok(()),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
                std::thread::sleep(Duration::from_millis(10));
            }
            Err(_) => {}
        }
    }
    bail!("no answer to OPTIONS within {} s", PATIENCE.as_secs())
}

fn free_port() -> Result<u16> {
    Ok(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

/// SIGTERM, and SIGKILL to one that does not heed it.
fn end(child: &mut Child) {
    let pid = Pid::from_raw(i32::try_from(child.id()).expect("a process id fits in 31 bits"));
    let told = kill(pid, Signal::SIGTERM).is_ok();
    let deadline = Instant::now() + PATIENCE;
    while told && Instant::now() < deadline {
        match child.try_wait() {
            Ok(None) => std::thread::sleep(Duration::from_millis(10)),
            Ok(Some(_)) | Err(_) => return,
        }
    }
    let _ = writeln!(std::io::stderr(), "process {pid} ignored SIGTERM for {} s", PATIENCE.as_secs());
    let _ = child.kill();
    let _ = child.wait();
}
