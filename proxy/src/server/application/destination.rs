//! Where the application is asked, and from where: an address that redirection leaves alone (spec HL-1, PT-13).

use crate::bootstrap::Environment;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use tokio::net::{TcpSocket, TcpStream};

/// The pod's own address.
const ADDRESS_VARIABLE: &str = "INSTANCE_IP";
/// Whether probes go to localhost instead, as those of old Istio versions.
const LOCALHOST_VARIABLE: &str = "REWRITE_PROBE_LEGACY_LOCALHOST_DESTINATION";
/// Addresses from which connections are not redirected.
const SOURCE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 6);
const SOURCE_V6: Ipv6Addr = Ipv6Addr::new(0, 0, 0, 0, 0, 0, 0, 6);

/// Who is asked.
#[derive(Debug, Clone)]
pub(super) struct Destination {
    ip: IpAddr,
    /// As a URL has it.
    pub(super) name: String,
}

impl Default for Destination {
    fn default() -> Self {
        Self { ip: Ipv4Addr::LOCALHOST.into(), name: "localhost".to_owned() }
    }
}

impl From<IpAddr> for Destination {
    fn from(ip: IpAddr) -> Self {
        Self { ip, name: if ip.is_ipv6() { format!("[{ip}]") } else { ip.to_string() } }
    }
}

impl Destination {
    /// The pod, where the kubelet asks too, unless its address is not known or localhost is wanted.
    pub(super) fn of(environment: &Environment) -> Result<Self, String> {
        let wants_localhost = environment.get(LOCALHOST_VARIABLE) == Some("true");
        match environment.get(ADDRESS_VARIABLE).filter(|text| !text.is_empty() && !wants_localhost) {
            None => Ok(Self::default()),
            Some(text) => {
                let ip: Result<IpAddr, _> = text.parse();
                Ok(ip.map_err(|_| format!("{ADDRESS_VARIABLE}: {text:?} is no IP address"))?.into())
            }
        }
    }

    /// The host that a probe names, else this.
    pub(super) fn or(&self, host: Option<&str>) -> Result<Self, String> {
        match host {
            None | Some("") => Ok(self.clone()),
            Some("localhost") => Ok(Self::default()),
            Some(host) => {
                let ip: Result<IpAddr, _> = host.parse();
                Ok(ip.map_err(|_| format!("not supported yet: host {host}"))?.into())
            }
        }
    }

    /// As a Host header has it.
    pub(super) fn authority(&self, port: u16) -> String {
        format!("{}:{port}", self.name)
    }

    /// Connects from the address that redirection leaves alone (PT-13).
    pub(super) async fn connect(&self, port: u16) -> Result<TcpStream, String> {
        let address = SocketAddr::new(self.ip, port);
        let connected = async {
            if self.ip.is_ipv4() {
                let socket = TcpSocket::new_v4()?;
                socket.bind((SOURCE, 0).into())?;
                return socket.connect(address).await;
            }
            let socket = TcpSocket::new_v6()?;
            match socket.bind((SOURCE_V6, 0).into()) {
                // Redirection gives this machine the address, where there is redirection.
                Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => {}
                bound => bound?,
            }
            socket.connect(address).await
        };
        connected.await.map_err(|error: io::Error| format!("{address}: {error}"))
    }
}
