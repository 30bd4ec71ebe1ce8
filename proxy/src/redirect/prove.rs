//! Proves that traffic is redirected before anything else of the pod starts (IN-13): what the proxy's user sends to the pod's
//! own address must arrive at the inbound port.

use super::args::RedirectArgs;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

/// A port on which nothing listens.
const NOBODY: u16 = 15002;
/// How long a pod waits for its rules: the node agent may repair it meanwhile.
const PATIENCE: Duration = Duration::from_secs(60);
/// Time between two tries.
const PAUSE: Duration = Duration::from_millis(250);
/// Exit code of a proof that failed, as Istio's repair controller expects it.
pub const EXIT_UNPROVEN: u8 = 126;

/// Waits until traffic is redirected.
///
/// # Errors
/// Where it is not within a minute, or the inbound port is taken.
pub(super) fn prove(args: &RedirectArgs) -> Result<(), String> {
    let own = own_address(true).or_else(|_| own_address(false)).map_err(|error| format!("no address: {error}"))?;
    let any: IpAddr = if own.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let listener = TcpListener::bind((any, args.inbound_port)).and_then(|listener| {
        listener.set_nonblocking(true)?;
        Ok(listener)
    });
    let listener = listener.map_err(|error| format!("port {}: {error}", args.inbound_port))?;
    let until = Instant::now() + PATIENCE;
    while !arrives(&listener, SocketAddr::new(own, NOBODY)) {
        if Instant::now() > until {
            return Err(format!(
                "traffic is not redirected: what is sent to {own}:{NOBODY} does not arrive at port {}. No node agent has set \
                 rules for this pod: is istio-cni-node ready on this node?",
                args.inbound_port
            ));
        }
        pause(PAUSE);
    }
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "a program of its own that does nothing but wait")]
fn pause(time: Duration) {
    std::thread::sleep(time);
}

/// Whether what is sent to an address arrives at the listener.
fn arrives(listener: &TcpListener, to: SocketAddr) -> bool {
    let Ok(sent) = TcpStream::connect_timeout(&to, PAUSE) else { return false };
    let from = sent.local_addr().ok();
    let until = Instant::now() + PAUSE;
    loop {
        match listener.accept() {
            Ok((_, peer)) if Some(peer) == from => return true,
            Err(error) if error.kind() != ErrorKind::WouldBlock => return false,
            _ if Instant::now() > until => return false,
            _ => pause(Duration::from_millis(5)),
        }
    }
}

/// The address from which this network reaches others. Nothing is sent.
///
/// # Errors
/// Where there is no route.
pub fn own_address(v4: bool) -> io::Result<IpAddr> {
    // Addresses for documentation (RFC 5737, RFC 3849): any that is not of this machine does.
    let (any, far): (SocketAddr, SocketAddr) = if v4 {
        ((Ipv4Addr::UNSPECIFIED, 0).into(), (Ipv4Addr::new(192, 0, 2, 1), 9).into())
    } else {
        ((Ipv6Addr::UNSPECIFIED, 0).into(), (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1), 9).into())
    };
    let socket = UdpSocket::bind(any)?;
    socket.connect(far)?;
    Ok(socket.local_addr()?.ip())
}
