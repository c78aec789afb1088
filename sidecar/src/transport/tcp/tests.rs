//! Limits and connection reuse, with real sockets.

use tokio::io::AsyncWriteExt;

use super::table::MAX_QUEUED_LEN;
use super::*;

const PATIENCE: Duration = Duration::from_secs(10);
const MESSAGE: &[u8] = b"OPTIONS sip:x SIP/2.0\r\nContent-Length: 0\r\n\r\n";

struct Fixture {
    streams: Streams,
    addr: SocketAddr,
    inbound: mpsc::Receiver<Command>,
    metrics: Arc<Metrics>,
}

fn fixture(max_connections: usize, idle_timeout: Duration) -> Fixture {
    let metrics = Arc::new(Metrics::new());
    let (sender, inbound) = mpsc::channel(8);
    let streams = Streams::with_limits(Handle::current(), sender, metrics.clone(), max_connections, idle_timeout);
    let listener = bind("127.0.0.1:0".parse().expect("an address")).expect("a listener");
    let addr = listener.local_addr().expect("an address");
    streams.listen(0, listener).expect("listening");
    Fixture { streams, addr, inbound, metrics }
}

async fn next(inbound: &mut mpsc::Receiver<Command>) -> Inbound {
    match timeout(PATIENCE, inbound.recv()).await.expect("a message").expect("open") {
        Command::Message(message) => message,
        Command::Rearm => panic!("not a message"),
    }
}

async fn closed(stream: &mut TcpStream) {
    let mut rest = Vec::new();
    timeout(PATIENCE, stream.read_to_end(&mut rest)).await.expect("closed").ok();
    assert_eq!(rest, b"");
}

#[tokio::test]
async fn an_answer_goes_to_the_connection_its_request_came_on() {
    let mut f = fixture(8, IDLE_TIMEOUT);
    let mut stream = TcpStream::connect(f.addr).await.expect("connected");
    stream.write_all(MESSAGE).await.expect("written");
    let message = next(&mut f.inbound).await;
    assert_eq!(message.bytes, MESSAGE);
    assert_ne!(message.flow.connection, 0);
    assert_eq!(message.flow.peer, stream.local_addr().expect("an address"));
    f.streams.send(message.flow, f.addr, b"answer");
    let mut answer = [0; 6];
    timeout(PATIENCE, stream.read_exact(&mut answer)).await.expect("an answer").expect("read");
    assert_eq!(&answer, b"answer");
}

#[tokio::test]
async fn a_gone_connection_is_made_again_to_its_peer() {
    let f = fixture(8, IDLE_TIMEOUT);
    let peer = TcpListener::bind("127.0.0.1:0").await.expect("a listener");
    let flow = Flow { endpoint: 0, connection: 77, peer: peer.local_addr().expect("an address") };
    f.streams.send(flow, f.addr, b"hello");
    let (mut stream, from) = timeout(PATIENCE, peer.accept()).await.expect("a connection").expect("accepted");
    assert_eq!(from.ip(), f.addr.ip());
    let mut hello = [0; 5];
    timeout(PATIENCE, stream.read_exact(&mut hello)).await.expect("bytes").expect("read");
    assert_eq!(&hello, b"hello");
}

#[tokio::test]
async fn one_connection_more_than_the_limit_is_closed_and_counted() {
    let mut f = fixture(1, IDLE_TIMEOUT);
    let mut first = TcpStream::connect(f.addr).await.expect("connected");
    first.write_all(MESSAGE).await.expect("written");
    next(&mut f.inbound).await;
    closed(&mut TcpStream::connect(f.addr).await.expect("connected")).await;
    assert!(f.metrics.render(0).contains(r#"sipwarden_limits_reached_total{limit="Connections"} 1"#));
}

#[tokio::test]
async fn a_silent_connection_is_closed_and_counted() {
    let f = fixture(8, Duration::from_millis(20));
    closed(&mut TcpStream::connect(f.addr).await.expect("connected")).await;
    assert!(f.metrics.render(0).contains(r#"sipwarden_transport_errors_total{error="Idle",transport="tcp"} 1"#));
}

#[tokio::test]
async fn bytes_beyond_the_write_queue_are_dropped_and_counted() {
    let f = fixture(8, IDLE_TIMEOUT);
    let peer = TcpListener::bind("127.0.0.1:0").await.expect("a listener");
    let flow = Flow { endpoint: 0, connection: 0, peer: peer.local_addr().expect("an address") };
    let half = vec![b'x'; MAX_QUEUED_LEN / 2];
    // Nothing is written in between: the connecting task has had no turn yet.
    for _ in 0..3 {
        f.streams.send(flow, f.addr, &half);
    }
    assert!(f.metrics.render(0).contains(r#"sipwarden_limits_reached_total{limit="WriteQueue"} 1"#));
}

#[tokio::test]
async fn closing_writes_what_is_queued_and_accepts_nothing_more() {
    let mut f = fixture(8, IDLE_TIMEOUT);
    let mut stream = TcpStream::connect(f.addr).await.expect("connected");
    stream.write_all(MESSAGE).await.expect("written");
    let flow = next(&mut f.inbound).await.flow;
    f.streams.send(flow, f.addr, b"last words");
    timeout(PATIENCE, f.streams.close()).await.expect("closed");
    let mut rest = Vec::new();
    timeout(PATIENCE, stream.read_to_end(&mut rest)).await.expect("closed").expect("read");
    assert_eq!(rest, b"last words");
    assert!(f.metrics.render(0).contains("sipwarden_connections 0"));
}
