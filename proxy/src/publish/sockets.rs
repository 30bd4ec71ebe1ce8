//! A listener's addresses → a socket of each worker.

use crate::listener::ListenerConfig;
use crate::refusal::Refusal;
use socket2::{Domain, Protocol, Socket, Type};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 4096;

/// Where a listener listens: its addresses as they are bound, and the sockets of each worker.
pub(super) type Bound = (Arc<[SocketAddr]>, Vec<Vec<TcpListener>>);

/// The addresses of a listener, and on each of them a socket for each worker; none where others pass it connections.
pub(super) fn listen(config: &ListenerConfig, workers: usize) -> Result<Bound, Refusal> {
    let mut sockets: Vec<Vec<TcpListener>> = (0..workers).map(|_| Vec::new()).collect();
    let mut bound = Vec::new();
    for address in std::iter::once(&config.address).chain(&config.more_addresses) {
        let mut address = *address;
        for mine in sockets.iter_mut().filter(|_| config.bind_to_port) {
            let socket = bind(address)?;
            // The port that the system chose for the first is that of all.
            address = socket.local_addr().map_err(|error| Refusal::new("address", error.to_string()))?;
            mine.push(socket);
        }
        bound.push(address);
    }
    Ok((bound.into(), sockets))
}

/// A socket of one worker: all workers listen on the same address, the kernel spreads connections (decision A).
fn bind(address: SocketAddr) -> Result<TcpListener, Refusal> {
    let socket = || -> std::io::Result<TcpListener> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        socket.set_reuse_port(true)?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        Ok(socket.into())
    };
    socket().map_err(|error| Refusal::new("address", format!("cannot bind or listen on {address}: {error}")))
}
