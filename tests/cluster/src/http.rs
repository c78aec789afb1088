//! One HTTP request in the cluster's network: pods' ports, forwarded ones, `kubectl proxy`.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::cluster::Cluster;

const LIMIT: Duration = Duration::from_secs(10);

impl Cluster {
    /// What `GET path` answers at `address`.
    pub fn get_text(&self, address: SocketAddr, path: &str) -> Result<String> {
        self.in_network(|| get_text(address, path))?
    }

    /// What `GET path` answers at `address`, as JSON.
    pub fn get_json(&self, address: SocketAddr, path: &str) -> Result<Value> {
        self.in_network(|| get_json(address, path))?
    }
}

/// What `GET path` answers, as JSON. For threads that are in the cluster's network already.
pub fn get_json(address: SocketAddr, path: &str) -> Result<Value> {
    Ok(serde_json::from_str(&get_text(address, path)?)?)
}

/// What `GET path` answers. For threads that are in the cluster's network already.
pub fn get_text(address: SocketAddr, path: &str) -> Result<String> {
    let (status, body) = exchange(address, "GET", path, "")?;
    ensure!(status == 200, "GET {path} at {address} was answered with {status}: {body}");
    Ok(body)
}

/// Posts JSON; status and body of the answer. For threads that are in the cluster's network already.
pub fn post_json(address: SocketAddr, path: &str, body: &Value) -> Result<(u16, String)> {
    exchange(address, "POST", path, &body.to_string())
}

/// HTTP/1.0, so that the answer is whole when the connection ends, and never in chunks.
fn exchange(address: SocketAddr, method: &str, path: &str, body: &str) -> Result<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&address, LIMIT).with_context(|| format!("cannot reach {address}"))?;
    stream.set_read_timeout(Some(LIMIT))?;
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.0\r\nHost: {address}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).with_context(|| format!("no answer from {address}"))?;
    let (head, body) = answer.split_once("\r\n\r\n").context("an answer without an empty line")?;
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    Ok((status.context("an answer without a status")?, body.to_owned()))
}
