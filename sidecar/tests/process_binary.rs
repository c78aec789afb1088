//! The real binary: command line, exit codes, signals.

#[path = "process_traces/collector.rs"]
mod collector;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Output, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::{TcpStream, UdpSocket};
use tokio::process::{Child, ChildStderr, ChildStdout, Command};
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(20);
const RUN: [&str; 7] =
    ["run", "--listen", "udp:127.0.0.1:0", "--app-listen", "udp:127.0.0.1:0", "--admin", "127.0.0.1:0"];
const APP: [&str; 2] = ["--app", "udp:127.0.0.1:5070"];
const POLICY: &str = "\
apiVersion: sipwarden.dev/v1alpha1
kind: SessionPolicy
metadata: {name: carrier}
spec:
  timers: {sessionExpires: 10m}
";

fn binary() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sipwarden-sidecar"));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command.env_remove("KUBERNETES_SERVICE_HOST");
    command
}

async fn output(arguments: &[&str]) -> Output {
    timeout(PATIENCE, binary().args(arguments).output()).await.expect("ends").expect("runs")
}

fn policy_file(text: &str) -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("policy.yaml");
    std::fs::write(&path, text).expect("written");
    (directory, path)
}

async fn http(server: SocketAddr, method: &str, path: &str, body: &str) -> String {
    let mut stream = TcpStream::connect(server).await.expect("connected");
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: {server}\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut answer = String::new();
    timeout(PATIENCE, stream.read_to_string(&mut answer)).await.expect("an answer").expect("text");
    answer
}

struct Running {
    child: Child,
    stdout: Lines<BufReader<ChildStdout>>,
    ready: String,
}

impl Running {
    async fn start(arguments: &[&str]) -> Running {
        Running::before(&APP, arguments).await
    }

    /// In front of that application.
    async fn before(app: &[&str], arguments: &[&str]) -> Running {
        let mut child = binary().args(RUN).args(app).args(arguments).spawn().expect("runs");
        let mut stdout = BufReader::new(child.stdout.take().expect("piped")).lines();
        let ready = timeout(PATIENCE, stdout.next_line()).await.expect("ready").expect("text").expect("a line");
        Running { child, stdout, ready }
    }

    /// Where it says that it is, behind that word.
    fn address(&self, word: &str) -> SocketAddr {
        let found = self.ready.split(' ').find_map(|found| found.strip_prefix(word)).expect("a word");
        found.parse().expect("an address")
    }

    fn signal(&self, signal: Signal) {
        let id = i32::try_from(self.child.id().expect("running")).expect("a process id");
        kill(Pid::from_raw(id), signal).expect("signalled");
    }

    /// Standard error, once it has ended with exit code 0 and nothing more on standard output.
    async fn ends_well(mut self) -> String {
        let status = timeout(PATIENCE, self.child.wait()).await.expect("ends").expect("waited");
        assert_eq!(status.code(), Some(0));
        assert_eq!(self.stdout.next_line().await.expect("text"), None);
        let mut log = String::new();
        self.child.stderr.take().expect("piped").read_to_string(&mut log).await.expect("text");
        log
    }
}

#[tokio::test]
async fn sigterm_and_sigint_end_it_with_exit_code_0() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let running = Running::start(&["--listen", "tcp:127.0.0.1:0"]).await;
        let words: Vec<&str> = running.ready.split(' ').collect();
        assert_eq!(words[..2], ["sipwarden", "ready"]);
        for (word, prefix) in words[2..].iter().zip(["listen=udp:", "listen=tcp:", "app-listen=udp:", "admin="]) {
            let address: SocketAddr = word.strip_prefix(prefix).expect(prefix).parse().expect("an address");
            assert_ne!(address.port(), 0);
        }
        running.signal(signal);
        let log = running.ends_well().await;
        assert!(log.contains("no --policy"), "{log}");
    }
}

#[tokio::test]
async fn a_log_filter_that_cannot_be_read_keeps_no_pod_from_starting() {
    let running = Running::start(&["--log", "sipwarden=nonsense"]).await;
    running.signal(Signal::SIGTERM);
    let log = running.ends_well().await;
    assert!(log.contains("the log filter cannot be read; it is info") && log.contains("no --policy"), "{log}");
}

/// Killed as a node kills it, and started again before its config is there.
#[tokio::test]
async fn a_restart_without_its_config_obeys_the_last_good_one() {
    let (directory, path) = policy_file(POLICY);
    let last_good = directory.path().join("last-good.json");
    let paths = [&path, &last_good].map(|path| path.to_str().expect("UTF-8").to_owned());
    let arguments = ["--policy", &paths[0], "--last-good", &paths[1], "--status", "127.0.0.1:0"];
    let mut running = Running::start(&arguments).await;
    running.child.kill().await.expect("killed");
    std::fs::remove_file(&path).expect("removed");
    let running = Running::start(&arguments).await;
    let told = http(running.address("status="), "GET", "/status", "").await;
    assert!(told.contains(r#""policy":"carrier""#) && told.contains(r#""source":"LastGood""#), "{told}");
    running.signal(Signal::SIGTERM);
    let log = running.ends_well().await;
    assert!(log.contains("not configured yet"), "{log}");
}

#[tokio::test]
async fn a_password_is_in_no_log_line_of_any_level() {
    let (directory, path) = policy_file(&POLICY.replace("10m", "10m, credentials: {secretName: trunk-a}"));
    let secret = directory.path().join("trunk-a");
    std::fs::create_dir(&secret).expect("made");
    for (key, value) in [("username", "alice"), ("password", "hunter2")] {
        std::fs::write(secret.join(key), value).expect("written");
    }
    let [policy, secrets] = [path.as_path(), directory.path()].map(|path| path.to_str().expect("UTF-8").to_owned());
    let running = Running::start(&["--policy", &policy, "--credentials-dir", &secrets, "--log", "trace"]).await;
    running.signal(Signal::SIGTERM);
    let log = running.ends_well().await;
    assert!(log.contains("policy in force") && !log.contains("no credentials"), "{log}");
    assert!(!log.contains("hunter2"), "{log}");
}

#[tokio::test]
async fn addresses_of_ipv6_pods_need_no_brackets() {
    let running = Running::start(&["--listen", "udp:::1:0", "--status", "::1:0"]).await;
    for part in ["listen=udp:[::1]:", "status=[::1]:"] {
        assert!(running.ready.contains(part), "{}", running.ready);
    }
    running.signal(Signal::SIGTERM);
    running.ends_well().await;
}

#[tokio::test]
async fn sighup_reads_the_policy_again_and_names_line_and_field_of_what_is_wrong() {
    let (_directory, path) = policy_file(POLICY);
    let mut running =
        Running::start(&["--policy", path.to_str().expect("UTF-8"), "--log-format", "json", "--clock-speed", "2"])
            .await;
    let stderr = running.child.stderr.take().expect("piped");
    let mut log = BufReader::new(stderr).lines();
    std::fs::write(&path, POLICY.replace("10m", "10 minutes")).expect("written");
    running.signal(Signal::SIGHUP);
    let told = timeout(PATIENCE, async {
        loop {
            let line = log.next_line().await.expect("text").expect("a line");
            let json: serde_json::Value = serde_json::from_str(&line).expect("JSON");
            let message = json["message"].as_str().expect("a message").to_owned();
            if message.contains("stays as it was") {
                return message;
            }
        }
    });
    let told = told.await.expect("told");
    assert!(told.contains("line 5, spec.timers.sessionExpires"), "{told}");
    running.signal(Signal::SIGTERM);
    assert_eq!(timeout(PATIENCE, running.child.wait()).await.expect("ends").expect("waited").code(), Some(0));
}

/// What is logged of a call and what its collector gets name the same trace; what waits is sent at the end.
#[tokio::test]
async fn log_lines_carry_the_id_of_the_trace_that_the_collector_gets() {
    let collector = collector::Collector::start().await;
    let (_directory, path) = policy_file(&POLICY.replace("  timers", "  mode: Enforce\n  timers"));
    let policy = path.to_str().expect("UTF-8");
    let running =
        Running::start(&["--policy", policy, "--otlp", &collector.url(), "--log-format", "json", "--otlp-ratio", "1"])
            .await;
    let listen = running.address("listen=udp:");
    let phone = UdpSocket::bind("127.0.0.1:0").await.expect("a socket");
    phone.connect(listen).await.expect("connected");
    let invite = format!(
        "INVITE sip:bob@{listen} SIP/2.0\r\nVia: SIP/2.0/UDP {};branch=z9hG4bKl1\r\nMax-Forwards: 70\r\n\
         From: <sip:alice@example.com>;tag=a\r\nTo: <sip:bob@example.com>\r\nCall-ID: l1\r\nCSeq: 1 INVITE\r\n\
         Supported: timer\r\nSession-Expires: 60\r\nContent-Length: 0\r\n\r\n",
        phone.local_addr().expect("an address")
    );
    phone.send(invite.as_bytes()).await.expect("sent");
    received(&phone).await;
    running.signal(Signal::SIGTERM);
    let log = running.ends_well().await;

    let rejected = log.lines().find(|line| line.contains(r#""message":"Rejected""#)).expect("a line");
    let line: serde_json::Value = serde_json::from_str(rejected).expect("JSON");
    let [got] = &collector.spans()[..] else { panic!("not one span: {:?}\n{log}", collector.spans()) };
    assert_eq!(line["trace_id"], got.trace_id());
    assert_eq!((got.text("sipwarden.call_id"), got.events()), ("l1".to_owned(), vec!["Rejected"]));
    assert_eq!(got.parent(), "");
    assert!(got.event_text("Rejected", "sipwarden.asked_s") == "60" && !got.resource.is_empty());
}

/// Reads a log until a line has all of that.
async fn logged(log: &mut Lines<BufReader<ChildStderr>>, parts: &[&str]) -> String {
    let mut before = String::new();
    let line = timeout(PATIENCE, async {
        loop {
            let line = log.next_line().await.expect("text").expect("a line");
            if parts.iter().all(|part| line.contains(part)) {
                return line;
            }
            before += &format!("{line}\n");
        }
    });
    line.await.unwrap_or_else(|_| panic!("no line with {parts:?}"));
    before
}

#[tokio::test]
async fn what_is_logged_can_be_changed_while_it_runs_and_a_bad_filter_changes_nothing() {
    let (_directory, path) = policy_file(POLICY);
    let mut running = Running::start(&["--policy", path.to_str().expect("UTF-8"), "--log", "off"]).await;
    let mut log = BufReader::new(running.child.stderr.take().expect("piped")).lines();
    let admin = running.address("admin=");
    let takes_up = |name: &str| {
        let written = path.with_extension("new");
        std::fs::write(&written, POLICY.replace("carrier", name)).expect("written");
        std::fs::rename(written, &path).expect("renamed");
        running.signal(Signal::SIGHUP);
    };

    let answer = http(admin, "PUT", "/log-filter", "sipwarden=info\n").await;
    assert!(answer.starts_with("HTTP/1.1 204 "), "{answer}");
    takes_up("second");
    assert_eq!(logged(&mut log, &["policy in force", "second"]).await, "", "nothing before");

    let answer = http(admin, "PUT", "/log-filter", "sipwarden=loud").await;
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    assert!(answer.contains("not a filter such as info or sipwarden=debug: "), "{answer}");
    takes_up("third");
    logged(&mut log, &["policy in force", "third"]).await;
}

/// The application calls a phone, which answers as who came by the name that is advertised, and hangs up along it.
#[tokio::test]
async fn the_network_is_told_the_advertised_address_and_finds_us_by_it() {
    let app = UdpSocket::bind("127.0.0.1:0").await.expect("a socket");
    let phone = UdpSocket::bind("127.0.0.1:0").await.expect("a socket");
    let address = |socket: &UdpSocket| socket.local_addr().expect("an address");
    let app_at = format!("udp:{}", address(&app));
    let running = Running::before(&["--app", &app_at], &["--advertise", "sip.example.net:5999"]).await;
    let (listen, app_side) = (running.address("listen=udp:"), running.address("app-listen=udp:"));

    let invite = format!(
        "INVITE sip:bob@{} SIP/2.0\r\nVia: SIP/2.0/UDP {};branch=z9hG4bKa1\r\nMax-Forwards: 70\r\n\
         From: <sip:alice@example.com>;tag=a\r\nTo: <sip:bob@example.com>\r\nCall-ID: a1\r\nCSeq: 1 INVITE\r\n\
         Contact: <sip:alice@{}>\r\nContent-Length: 0\r\n\r\n",
        address(&phone),
        address(&app),
        address(&app),
    );
    app.send_to(invite.as_bytes(), app_side).await.expect("sent");
    let came = received(&phone).await;
    let values = |message: &str, name: &str| -> Vec<String> {
        message.lines().filter_map(|line| line.strip_prefix(&format!("{name}: ")).map(str::to_owned)).collect()
    };
    let (via, routes) = (values(&came, "Via"), values(&came, "Record-Route"));
    assert!(via[0].starts_with("SIP/2.0/UDP sip.example.net:5999;branch="), "{came}");
    assert_eq!(routes, ["<sip:sip.example.net:5999;lr>".to_owned(), format!("<sip:{app_side};lr>")], "{came}");
    assert!(!came.contains(&listen.to_string()), "{came}");

    let routes: String = routes.iter().map(|route| format!("Route: {route}\r\n")).collect();
    let bye = format!(
        "BYE sip:alice@{} SIP/2.0\r\nVia: SIP/2.0/UDP {};branch=z9hG4bKb1\r\nMax-Forwards: 70\r\n{routes}\
         From: <sip:bob@example.com>;tag=b\r\nTo: <sip:alice@example.com>;tag=a\r\nCall-ID: a1\r\nCSeq: 1 BYE\r\n\
         Content-Length: 0\r\n\r\n",
        address(&app),
        address(&phone),
    );
    phone.send_to(bye.as_bytes(), listen).await.expect("sent");
    let came = received(&app).await;
    assert!(came.starts_with("BYE ") && values(&came, "Route").is_empty(), "{came}");
    running.signal(Signal::SIGTERM);
    running.ends_well().await;
}

async fn received(socket: &UdpSocket) -> String {
    let mut buffer = vec![0; 65_536];
    let length = timeout(PATIENCE, socket.recv(&mut buffer)).await.expect("a packet").expect("received");
    String::from_utf8(buffer[..length].to_vec()).expect("text")
}

#[tokio::test]
async fn check_tells_line_and_field_or_what_the_policy_does() {
    let (_directory, path) = policy_file(POLICY);
    let good = output(&["check", path.to_str().expect("UTF-8")]).await;
    assert_eq!(good.status.code(), Some(0));
    assert!(String::from_utf8_lossy(&good.stdout).contains("policy carrier"));

    let (_directory, path) = policy_file(&POLICY.replace("10m", "80s"));
    let bad = output(&["check", path.to_str().expect("UTF-8")]).await;
    assert_eq!(bad.status.code(), Some(1));
    let text = String::from_utf8_lossy(&bad.stderr);
    assert!(text.contains("line 5") && text.contains("spec.timers.sessionExpires"), "{text}");

    assert_eq!(output(&["check", "/nowhere/policy.yaml"]).await.status.code(), Some(1));
}

#[tokio::test]
async fn settings_that_cannot_work_are_refused_with_the_flag_that_helps() {
    for (arguments, told) in [
        (&["--app", "udp:127.0.0.1:5070", "--listen", "udp:0.0.0.0:0"][..], "--advertise"),
        (&["--app", "udp:127.0.0.1:5070", "--policy", "/nowhere/policy.yaml"], "/nowhere/policy.yaml"),
        (&["--app", "udp:127.0.0.1:5070", "--workers", "0"], "--workers"),
        (&["--app", "udp:127.0.0.1:5070", "--otlp-ratio", "0.5"], "add --otlp"),
        (&["--app", "udp:127.0.0.1:5070", "--last-good", "/nowhere/last-good.json"], "add --policy"),
        (&["--app", "tcp:127.0.0.1:5070"], "--app-listen"),
        (&[], "--app is missing"),
    ] {
        let refused = output(&[&RUN, arguments].concat()).await;
        let text = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert_eq!(refused.status.code(), Some(1), "{text}");
        assert!(text.contains(told), "{text}");
    }
}

#[tokio::test]
async fn a_fast_clock_is_refused_in_a_cluster() {
    let mut command = binary();
    command.args(RUN).args(APP).args(["--clock-speed", "2"]).env("KUBERNETES_SERVICE_HOST", "192.0.2.1");
    let refused = timeout(PATIENCE, command.output()).await.expect("ends").expect("runs");
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("--clock-speed"));
}

#[tokio::test]
async fn the_demo_shows_every_step_and_succeeds() {
    let demo = output(&["demo"]).await;
    let text = String::from_utf8_lossy(&demo.stdout);
    assert_eq!(demo.status.code(), Some(0), "{text}\n{}", String::from_utf8_lossy(&demo.stderr));
    let mut rest = text.as_ref();
    for step in [
        "SIP/2.0 422",
        "+ Session-Expires: 180;refresher=uac",
        "Refreshed",
        "Expired",
        "app     <-- BYE",
        "caller  <-- BYE",
    ] {
        let found = rest.find(step).unwrap_or_else(|| panic!("{step} is missing or too early in\n{text}"));
        rest = &rest[found..];
    }
}

#[tokio::test]
async fn a_test_call_tells_its_outcome_as_json_and_by_its_exit_code() {
    let called = output(&["call", "tcp:127.0.0.1:9", "--output", "json"]).await;
    assert_eq!(called.status.code(), Some(1));
    let report: serde_json::Value = serde_json::from_slice(&called.stdout).expect("JSON");
    assert_eq!((&report["verdict"], &report["target"]), (&"Failed".into(), &"tcp:127.0.0.1:9".into()));
    assert!(report["text"].as_str().expect("a sentence").contains("cannot connect"), "{report}");
    for wrong in [
        &["call"][..],
        &["call", "pbx:5060"],
        &["call", "udp:a", "--session-expires", "30s"],
        &["call", "udp:a", "--uri", "x"],
    ] {
        assert_eq!(output(wrong).await.status.code(), Some(2), "{wrong:?}");
    }
}

/// As `helm test` has it, without a cluster.
#[tokio::test]
async fn a_test_call_to_who_answers_test_calls_passes_through_a_sidecar() {
    let (_directory, policy) = policy_file(&POLICY.replace("10m", "10m, minSE: 2m"));
    let first_line = async |child: &mut Child| {
        let mut stdout = BufReader::new(child.stdout.take().expect("piped")).lines();
        timeout(PATIENCE, stdout.next_line()).await.expect("ready").expect("text").expect("a line")
    };
    let mut answerer = binary().args(["answer", "--listen", "udp:127.0.0.1:0"]).spawn().expect("runs");
    let app = first_line(&mut answerer).await.replace("answers listen=", "");
    let policy = policy.to_str().expect("UTF-8");
    let mut sidecar = binary().args(RUN).args(["--app", &app, "--policy", policy]).spawn().expect("runs");
    let ready = first_line(&mut sidecar).await;
    let listen = ready.split(' ').find_map(|word| word.strip_prefix("listen=")).expect("an address");
    let called = output(&["call", listen, "--hold", "0s"]).await;
    let told = String::from_utf8(called.stdout).expect("text");
    assert_eq!(called.status.code(), Some(0), "{told}");
    for part in
        ["INVITE  422 Session Interval Too Small", "Min-SE 120", "Passed: the call works", "refreshed by the caller"]
    {
        assert!(told.contains(part), "{part} in\n{told}");
    }
}
