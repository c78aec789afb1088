//! A phone and an application that misbehave as a test wants, with bare SIP over UDP: what SIPp's scenarios would take one
//! file each for.

use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use crate::ports::LOOPBACK;

const ANSWER: Duration = Duration::from_secs(5);

/// A phone on the remote side and the application, on both sides of one sidecar.
pub struct Phones {
    remote: UdpSocket,
    app: UdpSocket,
    sidecar: SocketAddr,
    calls: u32,
}

/// A call that was answered.
pub struct Call {
    number: u32,
    cseq: u32,
    route: String,
    contact: String,
}

/// A socket for the application, to be told to the sidecar.
pub fn app_socket() -> UdpSocket {
    bound()
}

impl Phones {
    /// Both, with the sidecar's remote-facing address.
    pub fn new(app: UdpSocket, sidecar: SocketAddr) -> Phones {
        Phones { remote: bound(), app, sidecar, calls: 0 }
    }

    /// The phone calls with these headers, and the sidecar itself refuses with this status.
    pub fn refused_at_once(&mut self, headers: &str, status: u16) {
        let number = self.invite("phone", headers);
        receive(&self.remote, number, &format!("SIP/2.0 {status} "));
    }

    /// The phone calls, and the application refuses with this status.
    pub fn refused(&mut self, headers: &str, status: u16) {
        let number = self.invite("phone", headers);
        self.answer("INVITE", number, status, "");
        receive(&self.remote, number, &format!("SIP/2.0 {status} "));
    }

    /// The phone of this user calls with these headers, and the application answers with those.
    pub fn call(&mut self, user: &str, headers: &str, answer: &str) -> Call {
        let number = self.invite(user, headers);
        self.answer("INVITE", number, 200, answer);
        let response = receive(&self.remote, number, "SIP/2.0 200 ");
        let route = lines(&response, "Record-Route:").map(|value| format!("Route:{value}\r\n")).collect();
        let contact =
            lines(&response, "Contact:").next().expect("a contact").trim().trim_matches(['<', '>']).to_owned();
        let mut call = Call { number, cseq: 1, route, contact };
        self.send("ACK", &mut call);
        call
    }

    /// The phone refreshes, and the application refuses with this status.
    pub fn refresh_fails(&mut self, call: &mut Call, status: u16) {
        call.cseq += 1;
        self.send("UPDATE", call);
        self.answer("UPDATE", call.number, status, "");
        receive(&self.remote, call.number, &format!("SIP/2.0 {status} "));
    }

    fn invite(&mut self, user: &str, headers: &str) -> u32 {
        self.calls += 1;
        let target = format!("sip:app@{}", self.sidecar);
        self.request("INVITE", &target, self.calls, 1, "", &format!("{}{headers}", self.contact(user)));
        self.calls
    }

    fn send(&self, method: &str, call: &mut Call) {
        let headers = format!("{}{}Supported: timer\r\n", call.route, self.contact("phone"));
        self.request(method, &call.contact, call.number, call.cseq, ";tag=app", &headers);
    }

    fn contact(&self, user: &str) -> String {
        format!("Contact: <sip:{user}@{}>\r\n", self.remote.local_addr().expect("bound"))
    }

    fn request(&self, method: &str, target: &str, number: u32, cseq: u32, to_tag: &str, headers: &str) {
        let remote = self.remote.local_addr().expect("bound");
        let text = format!(
            "{method} {target} SIP/2.0\r\nVia: SIP/2.0/UDP {remote};branch=z9hG4bK{number}x{cseq}{method}\r\n\
             Max-Forwards: 70\r\nFrom: <sip:phone@remote.example>;tag=phone\r\nTo: <sip:app@app.example>{to_tag}\r\n\
             Call-ID: {number}@remote.example\r\nCSeq: {cseq} {method}\r\n{headers}Content-Length: 0\r\n\r\n"
        );
        self.remote.send_to(text.as_bytes(), self.sidecar).expect("loopback takes datagrams");
    }

    /// The application answers what it gets.
    fn answer(&self, method: &str, number: u32, status: u16, headers: &str) {
        let (request, from) = receive_from(&self.app, number, &format!("{method} "));
        let kept = ["Via:", "Record-Route:", "From:", "Call-ID:", "CSeq:"];
        let head: String = request
            .lines()
            .filter(|line| kept.iter().any(|name| line.starts_with(name)))
            .fold(String::new(), |head, line| head + line + "\r\n");
        let app = self.app.local_addr().expect("bound");
        let text = format!(
            "SIP/2.0 {status} Said\r\n{head}To: <sip:app@app.example>;tag=app\r\nContact: <sip:app@{app}>\r\n\
             {headers}Content-Length: 0\r\n\r\n"
        );
        self.app.send_to(text.as_bytes(), from).expect("loopback takes datagrams");
    }
}

fn bound() -> UdpSocket {
    let socket = UdpSocket::bind((LOOPBACK, 0)).expect("loopback has a free UDP port");
    socket.set_read_timeout(Some(ANSWER)).expect("a read timeout");
    socket
}

fn receive(socket: &UdpSocket, number: u32, start: &str) -> String {
    receive_from(socket, number, start).0
}

/// The next message of a call that starts so; others are copies, or BYEs that nobody answers.
fn receive_from(socket: &UdpSocket, number: u32, start: &str) -> (String, SocketAddr) {
    let (deadline, call_id) = (Instant::now() + ANSWER, format!("Call-ID: {number}@"));
    let mut buffer = vec![0; 65_536];
    while Instant::now() < deadline {
        let Ok((length, from)) = socket.recv_from(&mut buffer) else { break };
        let message = String::from_utf8_lossy(&buffer[..length]).into_owned();
        if message.starts_with(start) && message.contains(&call_id) {
            return (message, from);
        }
    }
    panic!("no {start}in call {number} within {ANSWER:?}")
}

fn lines<'a>(message: &'a str, name: &'a str) -> impl Iterator<Item = &'a str> {
    message.lines().filter_map(move |line| line.strip_prefix(name))
}
