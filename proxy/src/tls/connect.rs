//! Client sessions: what this proxy dials with.

use crate::net::Session;
use crate::outcome::{Outcome, Reason};
use arc_swap::ArcSwapOption;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};
use std::sync::Arc;

/// TLS towards one cluster (`UpstreamTlsContext`). The rustls configuration behind it is replaced by the main thread
/// when a secret rotates; sessions that are open keep theirs (D6).
#[derive(Debug)]
pub struct ClientContext {
    /// Name of the context, for errors: its cluster.
    pub name: Box<str>,
    /// Server name to send; none sends none and leaves the check to the SAN list.
    pub sni: Option<Box<str>>,
    /// `None` until the first certificate arrives. Written by the main thread only.
    pub config: ArcSwapOption<ClientConfig>,
}

impl ClientContext {
    /// A new session; `alpn` replaces the configured protocols (`istio.alpn`, MT-1), `server_name` the configured name.
    ///
    /// # Errors
    /// [`Reason::ConnectFailure`] while no certificate has arrived, or where the name is no server name.
    pub fn session(&self, alpn: Option<&[Vec<u8>]>, server_name: Option<&str>) -> Result<Session, Outcome> {
        let fail = |why: &str| Outcome::with_detail(Reason::ConnectFailure, format!("TLS error: {why}"));
        let config = self.config.load_full().ok_or_else(|| fail("no certificate yet"))?;
        let name = server_name.or(self.sni.as_deref());
        let alpn = alpn.unwrap_or(&config.alpn_protocols);
        let config = if config.alpn_protocols == alpn && config.enable_sni == name.is_some() {
            config
        } else {
            let mut changed = ClientConfig::clone(&config);
            changed.alpn_protocols = alpn.to_vec();
            changed.enable_sni = name.is_some();
            Arc::new(changed)
        };
        // rustls always wants a name; without SNI nothing is sent, and no certificate has this one.
        let name = name.unwrap_or("no-sni.invalid").to_owned();
        let name = ServerName::try_from(name).map_err(|_| fail("SNI is no host name"))?;
        let session = ClientConnection::new(config, name).map_err(|error| fail(&error.to_string()))?;
        Ok(Session::Client(session))
    }
}
