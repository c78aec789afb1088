//! Very many calls, more than SIPp processes of one call each can hold: an application and phones on sockets of our own,
//! each with an address of its own on loopback. They answer what they are asked and never hang up.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// T1 of RFC 3261 §17.1.1.1: a request is sent again.
const AGAIN: Duration = Duration::from_millis(500);
const TRIES: u32 = 10;

/// An application that takes every call.
pub(crate) struct App {
    addr: SocketAddr,
    stop: Arc<AtomicBool>,
    answering: Option<JoinHandle<()>>,
}

/// A remote phone.
pub(crate) struct Phone {
    socket: UdpSocket,
    sidecar: SocketAddr,
}

impl App {
    /// Starts it.
    pub(crate) fn start() -> App {
        let socket = socket(Ipv4Addr::LOCALHOST.into());
        let addr = socket.local_addr().expect("a bound socket has an address");
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let answering = thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                answer_next(&socket);
            }
        });
        App { addr, stop, answering: Some(answering) }
    }

    /// Where it listens.
    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }
}

impl Drop for App {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.answering.take().map(JoinHandle::join);
    }
}

impl Phone {
    /// A phone at 127.0.0.`host` that calls through `sidecar`.
    pub(crate) fn at(host: u8, sidecar: SocketAddr) -> Phone {
        Phone { socket: socket(Ipv4Addr::new(127, 0, 0, host).into()), sidecar }
    }

    /// Sets a call up; `user` has its own name in From.
    pub(crate) fn call(&self, user: &str, call_id: &str) {
        self.ask("INVITE", 1, user, call_id, "");
    }

    /// Refreshes a call it has set up.
    pub(crate) fn refresh(&self, user: &str, call_id: &str) {
        self.ask("UPDATE", 2, user, call_id, "Session-Expires: 1800;refresher=uac\r\n");
    }

    /// Sends a request until it is answered 200.
    fn ask(&self, method: &str, cseq: u32, user: &str, call_id: &str, lines: &str) {
        let (from, sidecar) = (self.socket.local_addr().expect("a bound socket has an address"), self.sidecar);
        let branch: String = call_id.chars().filter(char::is_ascii_alphanumeric).collect();
        let to_tag = if cseq > 1 { ";tag=app" } else { "" };
        let request = format!(
            "{method} sip:app@{sidecar} SIP/2.0\r\nVia: SIP/2.0/UDP {from};branch=z9hG4bK{method}{branch}\r\n\
             Max-Forwards: 70\r\nFrom: <sip:{user}@phones.example.com>;tag=p\r\n\
             To: <sip:app@example.com>{to_tag}\r\nCall-ID: {call_id}\r\nCSeq: {cseq} {method}\r\n\
             Contact: <sip:{user}@{from}>\r\nSupported: timer\r\n{lines}Content-Length: 0\r\n\r\n"
        );
        let answered = (0..TRIES).any(|_| {
            self.socket.send_to(request.as_bytes(), sidecar).expect("sent");
            let answer = next(&self.socket);
            answer.is_some_and(|(text, _)| text.starts_with("SIP/2.0 200 ") && text.contains(call_id))
        });
        assert!(answered, "no 200 to {method} of {call_id}");
    }
}

fn socket(ip: IpAddr) -> UdpSocket {
    let socket = UdpSocket::bind((ip, 0)).expect("loopback has a free UDP port");
    socket.set_read_timeout(Some(AGAIN)).expect("a time limit");
    socket
}

fn next(socket: &UdpSocket) -> Option<(String, SocketAddr)> {
    let mut buffer = vec![0; 65_536];
    let (length, from) = socket.recv_from(&mut buffer).ok()?;
    Some((String::from_utf8_lossy(&buffer[..length]).into_owned(), from))
}

/// 200 to any request but ACK.
fn answer_next(socket: &UdpSocket) {
    let Some((request, from)) = next(socket).filter(|(text, _)| !text.starts_with("SIP/2.0 ")) else { return };
    if request.starts_with("ACK ") {
        return;
    }
    let copied = ["via:", "from:", "call-id:", "cseq:", "record-route:"];
    let mut answer = String::from("SIP/2.0 200 OK\r\n");
    for line in request.lines() {
        let name = line.split_inclusive(':').next().unwrap_or_default().to_ascii_lowercase();
        match name.as_str() {
            "to:" if !line.contains(";tag=") => answer += &format!("{line};tag=app\r\n"),
            "to:" => answer += &format!("{line}\r\n"),
            name if copied.contains(&name) => answer += &format!("{line}\r\n"),
            _ => {}
        }
    }
    let contact = socket.local_addr().expect("a bound socket has an address");
    answer += &format!("Contact: <sip:app@{contact}>\r\nContent-Length: 0\r\n\r\n");
    socket.send_to(answer.as_bytes(), from).expect("sent");
}
