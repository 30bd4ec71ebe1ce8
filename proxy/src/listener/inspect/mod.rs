//! A look at a connection's first bytes. What was read is kept for whoever serves the connection.

mod http;
mod proxy_protocol;
mod tls;

use super::chain_match::Hello;
use super::config::Inspectors;
use bytes::BytesMut;
use std::io;
use std::net::SocketAddr;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

/// Bytes that inspection reads at most: a TLS hello may be long, a PROXY header and a request line are not.
const MAX_BYTES: usize = 64 << 10;

/// What one inspector says of the bytes so far.
#[derive(Debug, PartialEq, Eq)]
enum Seen<T> {
    /// Decided.
    Known(T),
    /// More bytes are needed.
    More,
}

/// Addresses that PROXY protocol gave: source and destination; none for health checks of the load balancer.
pub(super) type Proxied = Option<(SocketAddr, SocketAddr)>;

/// What inspection found.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// TLS, server name, protocols.
    pub(super) hello: Hello,
    /// Addresses of PROXY protocol.
    pub(super) proxied: Proxied,
}

/// Runs the inspectors. Cancel-safe: what was read stays in `prefix`.
///
/// # Errors
/// The client closed, or its PROXY header is broken.
pub(super) async fn inspect(
    stream: &mut TcpStream,
    which: Inspectors,
    prefix: &mut BytesMut,
    found: &mut Found,
) -> io::Result<()> {
    if let Some(optional) = which.proxy_protocol {
        found.proxied = loop {
            match proxy_protocol::parse(prefix, optional)? {
                Seen::Known(proxied) => break proxied,
                Seen::More => more(stream, prefix).await?,
            }
        };
    }
    if which.tls {
        loop {
            match tls::parse(prefix) {
                Seen::Known(Some(hello)) => {
                    found.hello = hello;
                    return Ok(());
                }
                Seen::Known(None) => break,
                Seen::More => more(stream, prefix).await?,
            }
        }
    }
    if which.http {
        loop {
            match http::parse(prefix) {
                Seen::Known(protocol) => {
                    found.hello.applications = protocol.into_iter().map(<[u8]>::to_vec).collect();
                    return Ok(());
                }
                Seen::More => more(stream, prefix).await?,
            }
        }
    }
    Ok(())
}

async fn more(stream: &mut TcpStream, prefix: &mut BytesMut) -> io::Result<()> {
    if prefix.len() >= MAX_BYTES {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "first bytes are over the limit"));
    }
    match stream.read_buf(prefix).await? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(()),
    }
}
