//! Port numbers for programs that have to be told one, and seeing when such a program has taken it.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};

/// IPv4 loopback, where tests run unless they are about something else.
pub const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// Columns of `/proc/net/udp`, counted from 0.
const LOCAL_ADDRESS: usize = 1;
const INODE: usize = 9;

/// An address whose port is free for UDP and TCP now. Someone else may take it before its user does: retry then.
pub fn free(ip: IpAddr) -> SocketAddr {
    loop {
        let udp = UdpSocket::bind((ip, 0)).expect("loopback has a free UDP port");
        let addr = udp.local_addr().expect("a bound socket has an address");
        if TcpListener::bind(addr).is_ok() {
            return addr;
        }
    }
}

/// Whether process `pid` has bound this UDP address, asked without touching the port.
pub fn is_bound_by(pid: u32, addr: SocketAddr) -> bool {
    let table = if addr.is_ipv4() { "/proc/net/udp" } else { "/proc/net/udp6" };
    let sockets = fs::read_to_string(table).expect("Linux lists its UDP sockets");
    let port = format!(":{:04X}", addr.port());
    sockets.lines().any(|line| {
        let mut fields = line.split_whitespace();
        let local = fields.nth(LOCAL_ADDRESS).unwrap_or_default();
        let inode = fields.nth(INODE - LOCAL_ADDRESS - 1).unwrap_or_default();
        local.ends_with(&port) && owns(pid, inode)
    })
}

fn owns(pid: u32, inode: &str) -> bool {
    let socket = format!("socket:[{inode}]");
    let files = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    files.filter_map(|file| fs::read_link(file.path()).ok()).any(|target| target.as_os_str() == socket.as_str())
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::parent_id;
    use std::process;

    use super::*;

    #[test]
    fn a_port_is_seen_as_bound_by_its_owner_while_the_socket_lives() {
        let addr = free(LOOPBACK);
        assert!(!is_bound_by(process::id(), addr));

        let socket = UdpSocket::bind(addr).unwrap();
        assert!(is_bound_by(process::id(), addr));
        assert!(!is_bound_by(parent_id(), addr));

        drop(socket);
        assert!(!is_bound_by(process::id(), addr));
    }
}
