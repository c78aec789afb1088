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

const BOUNDS: Bounds = Bounds { connections: 8, queued: 2 * MAX_QUEUED_LEN, idle: IDLE_TIMEOUT, peer: PEER_TIMEOUT };

fn fixture(bounds: Bounds) -> Fixture {
    let metrics = Arc::new(Metrics::new());
    let (sender, inbound) = mpsc::channel(8);
    let streams = Streams::with_bounds(Handle::current(), sender, metrics.clone(), bounds);
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
    let mut f = fixture(BOUNDS);
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
    let f = fixture(BOUNDS);
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
    let mut f = fixture(Bounds { connections: 1, ..BOUNDS });
    let mut first = TcpStream::connect(f.addr).await.expect("connected");
    first.write_all(MESSAGE).await.expect("written");
    next(&mut f.inbound).await;
    closed(&mut TcpStream::connect(f.addr).await.expect("connected")).await;
    assert!(f.metrics.render(0).contains(r#"sipwarden_limits_reached_total{limit="Connections"} 1"#));
}

#[tokio::test]
async fn a_silent_connection_is_closed_and_counted() {
    let short = Duration::from_millis(20);
    let idle = r#"sipwarden_transport_errors_total{error="Idle",transport="tcp"} 1"#;
    let f = fixture(Bounds { peer: short, ..BOUNDS });
    closed(&mut TcpStream::connect(f.addr).await.expect("connected")).await;
    assert!(f.metrics.render(0).contains(idle), "one that never says anything");

    let mut f = fixture(Bounds { idle: short, ..BOUNDS });
    let mut stream = TcpStream::connect(f.addr).await.expect("connected");
    stream.write_all(MESSAGE).await.expect("written");
    next(&mut f.inbound).await;
    closed(&mut stream).await;
    assert!(f.metrics.render(0).contains(idle));
}

#[tokio::test]
async fn a_peer_that_reads_nothing_is_not_listened_to_and_then_closed() {
    let mut f = fixture(Bounds { peer: Duration::from_millis(300), ..BOUNDS });
    let mut stream = TcpStream::connect(f.addr).await.expect("connected");
    stream.write_all(MESSAGE).await.expect("written");
    let flow = next(&mut f.inbound).await.flow;
    // More than the buffers of the system take.
    f.streams.send(flow, f.addr, &vec![b'x'; MAX_QUEUED_LEN]);
    tokio::time::sleep(Duration::from_millis(50)).await;
    // The first is read by a read that had begun before.
    for _ in 0..3 {
        stream.write_all(MESSAGE).await.expect("written");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let mut heard = 0;
    while f.inbound.try_recv().is_ok() {
        heard += 1;
    }
    assert!(heard <= 1, "{heard}");

    let gone = async {
        while !f.metrics.render(0).contains("sipwarden_connections 0") {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, gone).await.expect("closed");
    assert!(f.metrics.render(0).contains(r#"sipwarden_transport_errors_total{error="Send",transport="tcp"} 1"#));
}

#[tokio::test]
async fn what_waits_for_all_peers_together_is_bounded() {
    let f = fixture(Bounds { queued: 100, ..BOUNDS });
    let reached = || f.metrics.render(0).contains(r#"sipwarden_limits_reached_total{limit="WriteQueue"} 1"#);
    let peers = [
        TcpListener::bind("127.0.0.1:0").await.expect("a listener"),
        TcpListener::bind("127.0.0.1:0").await.expect("a listener"),
    ];
    let flows =
        peers.each_ref().map(|peer| Flow { endpoint: 0, connection: 0, peer: peer.local_addr().expect("an address") });
    f.streams.send(flows[0], f.addr, &[b'x'; 60]);
    f.streams.send(flows[1], f.addr, &[b'y'; 40]);
    assert!(!reached());
    f.streams.send(flows[1], f.addr, b"z");
    assert!(reached());

    let (mut stream, _) = timeout(PATIENCE, peers[0].accept()).await.expect("a connection").expect("accepted");
    let mut written = [0; 60];
    timeout(PATIENCE, stream.read_exact(&mut written)).await.expect("bytes").expect("read");
    let room = async {
        while f.streams.inner.table().queued() > 40 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(PATIENCE, room).await.expect("what is written waits no more");
}

#[tokio::test]
async fn bytes_beyond_the_write_queue_are_dropped_and_counted() {
    let f = fixture(BOUNDS);
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
    let mut f = fixture(BOUNDS);
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
