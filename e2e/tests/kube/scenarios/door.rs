//! Callers of the gateway from outside of the cluster.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::time::Duration;

/// Status of the gateway's answer to a request for ratings, over a connection of its own; 0 where there is none.
pub(crate) fn status(gateway: SocketAddr, host: &str) -> u16 {
    let ask = || -> std::io::Result<String> {
        let mut stream = std::net::TcpStream::connect_timeout(&gateway, Duration::from_secs(2))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        write!(stream, "GET /ratings/0 HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text).map(|_| text)
    };
    ask().ok().and_then(|text| text.get(9..12)?.parse().ok()).unwrap_or(0)
}
