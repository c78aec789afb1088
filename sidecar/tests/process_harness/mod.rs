//! A running sidecar on loopback, with tiny raw clients around it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use sipwarden_otlp::Otlp;
use sipwarden_session_timer::Leg;
use sipwarden_sidecar::app::{self, Bound};
use sipwarden_sidecar::logs::LogFilter;
use sipwarden_sidecar::policy_file::Sources;
use sipwarden_sidecar::readiness::Readiness;
use sipwarden_sidecar::settings::Settings;
use sipwarden_sip::value::Transport;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// Longest wait for anything that must happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// What tests vary.
pub(crate) struct Options {
    pub(crate) ip: &'static str,
    pub(crate) policy: Option<PathBuf>,
    pub(crate) last_good: Option<PathBuf>,
    pub(crate) credentials_dir: PathBuf,
    pub(crate) admin_token_file: Option<PathBuf>,
    pub(crate) workers: usize,
    pub(crate) clock_speed: u32,
    pub(crate) otlp: Option<Otlp>,
    pub(crate) record_mib: u32,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            ip: "127.0.0.1",
            policy: None,
            last_good: None,
            credentials_dir: "/nowhere".into(),
            admin_token_file: None,
            workers: 1,
            clock_speed: 1,
            otlp: None,
            record_mib: 1,
        }
    }
}

/// A sidecar that runs until it is dropped, and the application behind it.
pub(crate) struct Sidecar {
    pub(crate) udp: SocketAddr,
    pub(crate) tcp: SocketAddr,
    pub(crate) app_side: SocketAddr,
    pub(crate) admin: SocketAddr,
    pub(crate) status: SocketAddr,
    pub(crate) readiness: Readiness,
    pub(crate) app: UdpSocket,
    stop: oneshot::Sender<()>,
    running: JoinHandle<anyhow::Result<()>>,
}

impl Sidecar {
    pub(crate) async fn start(options: Options) -> Sidecar {
        let any: SocketAddr = format!("{}:0", options.ip).parse().expect("an address");
        let app = UdpSocket::bind(any).await.expect("a socket");
        let bound = app::build(settings(&options, app.local_addr().expect("an address")), LogFilter::not_ours());
        let bound = bound.expect("bound");
        let local = |leg, transport| endpoint(&bound, leg, transport);
        let (udp, tcp) = (local(Leg::Remote, Transport::Udp), local(Leg::Remote, Transport::Tcp));
        let (app_side, admin, readiness) = (local(Leg::Local, Transport::Udp), bound.admin_addr(), bound.readiness());
        let status = bound.status_addr().expect("asked for");
        let (stop, stopped) = oneshot::channel::<()>();
        let running = tokio::spawn(bound.run(async {
            let _ = stopped.await;
        }));
        timeout(PATIENCE, readiness.ready()).await.expect("ready");
        Sidecar { udp, tcp, app_side, admin, status, readiness, app, stop, running }
    }

    /// Ends it, which must be clean.
    pub(crate) async fn stop(self) {
        drop(self.stop);
        timeout(PATIENCE, self.running).await.expect("ends").expect("no panic").expect("ends cleanly");
    }

    pub(crate) async fn get(&self, path: &str) -> (u16, String) {
        http(self.admin, "GET", path, "").await
    }

    pub(crate) async fn metrics(&self) -> String {
        self.get("/metrics").await.1
    }

    /// The next packet the application gets, and where it came from.
    pub(crate) async fn app_gets(&self) -> String {
        receive(&self.app).await
    }

    /// The application answers `request`.
    pub(crate) async fn app_answers(&self, request: &str, status: &str, lines: &str) {
        self.app.send_to(answer(request, status, lines).as_bytes(), self.app_side).await.expect("sent");
    }
}

fn settings(options: &Options, app: SocketAddr) -> Settings {
    let address = |transport: &str| format!("{transport}:{}:0", options.ip).parse().expect("an address");
    Settings {
        policy: Sources {
            file: options.policy.clone(),
            last_good: options.last_good.clone(),
            credentials_dir: options.credentials_dir.clone(),
        },
        listen: vec![address("udp"), address("tcp")],
        app_listen: vec![address("udp")],
        app: format!("udp:{app}").parse().expect("an address"),
        next_hop: None,
        advertise: None,
        admin: "127.0.0.1:0".parse().expect("an address"),
        admin_token_file: options.admin_token_file.clone(),
        status: Some("127.0.0.1:0".parse().expect("an address")),
        clock_speed: options.clock_speed,
        workers: options.workers,
        record_mib: options.record_mib,
        max_calls: Settings::MOST_CALLS,
        log_sip_users: false,
        otlp: options.otlp.clone(),
    }
}

fn endpoint(bound: &Bound, leg: Leg, transport: Transport) -> SocketAddr {
    let found = bound.endpoints().iter().find(|endpoint| endpoint.leg == leg && endpoint.transport == transport);
    found.expect("an endpoint").local
}

/// A request of the phone at `from` with the lines every request needs.
pub(crate) fn request(method: &str, transport: &str, from: SocketAddr, call: &str, lines: &str) -> String {
    format!(
        "{method} sip:bob@{ip} SIP/2.0\r\nVia: SIP/2.0/{transport} {from};rport;branch=z9hG4bK{call}{method}\r\n\
         Max-Forwards: 70\r\nFrom: <sip:alice@example.com>;tag=a\r\nTo: <sip:bob@example.com>\r\n\
         Call-ID: {call}@example.com\r\nCSeq: 1 {method}\r\nContact: <sip:alice@{from}>\r\n{lines}\
         Content-Length: 0\r\n\r\n",
        ip = if from.is_ipv6() { format!("[{}]", from.ip()) } else { from.ip().to_string() },
    )
}

/// A response to `request`, with a To tag.
pub(crate) fn answer(request: &str, status: &str, lines: &str) -> String {
    let copied = ["via:", "from:", "to:", "call-id:", "cseq:", "record-route:"];
    let mut text = format!("SIP/2.0 {status}\r\n");
    for line in request.lines() {
        let lower = line.to_ascii_lowercase();
        if copied.iter().any(|name| lower.starts_with(name)) {
            let tag = if lower.starts_with("to:") && !lower.contains(";tag=") { ";tag=b" } else { "" };
            text += &format!("{line}{tag}\r\n");
        }
    }
    text + lines + "Content-Length: 0\r\n\r\n"
}

/// The value of the first header line of that name.
pub(crate) fn header<'m>(message: &'m str, name: &str) -> Option<&'m str> {
    message.lines().find_map(|line| {
        let (found, value) = line.split_once(':')?;
        found.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

pub(crate) async fn receive(socket: &UdpSocket) -> String {
    let mut buffer = vec![0; 65_536];
    let length = timeout(PATIENCE, socket.recv(&mut buffer)).await.expect("a packet").expect("received");
    String::from_utf8(buffer[..length].to_vec()).expect("text")
}

/// Reads from a stream until `end`.
pub(crate) async fn read_until(stream: &mut TcpStream, end: &str) -> String {
    let mut bytes = Vec::new();
    while !bytes.ends_with(end.as_bytes()) {
        let read = timeout(PATIENCE, stream.read_buf(&mut bytes)).await.expect("bytes").expect("read");
        assert_ne!(read, 0, "closed after {:?}", String::from_utf8_lossy(&bytes));
    }
    String::from_utf8(bytes).expect("text")
}

/// Status and body.
pub(crate) async fn http(server: SocketAddr, method: &str, path: &str, body: &str) -> (u16, String) {
    http_with(server, method, path, "", body).await
}

/// [`http`] with more header lines.
pub(crate) async fn http_with(server: SocketAddr, method: &str, path: &str, lines: &str, body: &str) -> (u16, String) {
    http_as(server, &server.to_string(), method, path, lines, body).await
}

/// [`http_with`], calling the server by the name `host`.
pub(crate) async fn http_as(
    server: SocketAddr,
    host: &str,
    method: &str,
    path: &str,
    lines: &str,
    body: &str,
) -> (u16, String) {
    let mut stream = TcpStream::connect(server).await.expect("connected");
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{lines}\
         Content-Length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut text = String::new();
    timeout(PATIENCE, stream.read_to_string(&mut text)).await.expect("an answer").expect("text");
    let (head, body) = text.split_once("\r\n\r\n").expect("a head");
    let status = head.split(' ').nth(1).expect("a status").parse().expect("a number");
    (status, body.to_owned())
}

/// Waits until `condition` holds.
pub(crate) async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let mut ticks = tokio::time::interval(Duration::from_millis(10));
    let held = timeout(PATIENCE, async {
        while !condition().await {
            ticks.tick().await;
        }
    });
    held.await.unwrap_or_else(|_| panic!("never: {what}"));
}
