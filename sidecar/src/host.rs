//! Under which names the admin interface may be called. It trusts whoever reaches its loopback address, and a browser on
//! the same machine reaches it for any page: a page whose name is made to resolve to 127.0.0.1 (DNS rebinding) would
//! read who calls whom. Such a request says the page's name in `Host`, so only names that nobody else can own are served.

use std::net::{IpAddr, Ipv6Addr};

use axum::extract::Request;
use axum::http::{StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

/// Lets only those through that call us by an address or `localhost`; 421 for others (RFC 9110 §15.5.20).
pub async fn require_own(request: Request, next: Next) -> Response {
    // Browsers always send one; a program may speak HTTP/1.0.
    match request.headers().get(header::HOST) {
        Some(host) if !host.to_str().is_ok_and(is_own) => (
            StatusCode::MISDIRECTED_REQUEST,
            "call the admin interface by its address or as localhost: other names may be another site's\n",
        )
            .into_response(),
        _ => next.run(request).await,
    }
}

/// Is it an IP address or `localhost`, with or without a port?
fn is_own(host: &str) -> bool {
    if let Some(rest) = host.strip_prefix('[') {
        return rest
            .split_once(']')
            .is_some_and(|(address, port)| address.parse::<Ipv6Addr>().is_ok() && is_port(port));
    }
    let (name, port) = host.find(':').map_or((host, ""), |colon| host.split_at(colon));
    is_port(port) && (name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok())
}

/// Nothing, or a colon and a number.
fn is_port(text: &str) -> bool {
    text.is_empty() || text.strip_prefix(':').is_some_and(|port| port.parse::<u16>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_localhost_are_ours() {
        for host in ["127.0.0.1", "127.0.0.1:8642", "localhost", "LocalHost:8642", "[::1]", "[::1]:8642", "192.0.2.1:1"]
        {
            assert!(is_own(host), "{host}");
        }
    }

    #[test]
    fn names_that_somebody_can_own_are_not() {
        for host in [
            "",
            "example.com",
            "example.com:8642",
            "localhost.example.com",
            "127.0.0.1.example.com",
            "[::1].example",
            "127.0.0.1:x",
            "[127.0.0.1]",
            "::1",
        ] {
            assert!(!is_own(host), "{host}");
        }
    }
}
