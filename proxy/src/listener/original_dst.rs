//! The address that a redirected client dialled (OD-1).

use std::net::SocketAddr;
use tokio::net::TcpStream;

/// The destination before redirection; `None` where the connection was not redirected.
pub(super) fn of(stream: &TcpStream) -> Option<SocketAddr> {
    let socket = socket2::SockRef::from(stream);
    let local = stream.local_addr().ok()?;
    let original = if local.is_ipv4() { socket.original_dst_v4() } else { socket.original_dst_v6() };
    original.ok().and_then(|address| address.as_socket())
}
