//! TLS of pilot's servers: a certificate from files that is followed as it is renewed, optional client certificates.

use anyhow::Context as _;
use credentials::accept::server_config;
use identity::bundle::TrustBundle;
use identity::san::SanMatch;
use identity::svid::Svid;
use identity::verify::optional_client_verifier;
use rustls::ServerConfig;
use std::path::PathBuf;
use std::sync::Arc;

/// Where certificate, key and roots are.
#[derive(Debug, Clone)]
pub struct Files {
    /// Chain in PEM.
    pub certificate: PathBuf,
    /// Key in PEM.
    pub key: PathBuf,
    /// Roots of clients in PEM.
    pub roots: PathBuf,
}

impl Files {
    /// The configuration of the moment for a server of these protocols (ALPN); the files are read anew for each connection,
    /// so that a renewal needs no restart.
    ///
    /// # Errors
    /// When a file cannot be read or holds something else.
    pub fn server(&self, protocols: &[&[u8]]) -> anyhow::Result<Arc<ServerConfig>> {
        let svid = self.svid()?;
        let roots = std::fs::read(&self.roots).with_context(|| format!("read {}", self.roots.display()))?;
        let bundle = Arc::new(TrustBundle::from_pem(&roots).context("roots of clients")?);
        let clients = optional_client_verifier(bundle, SanMatch::any());
        server_config((*svid.certified_key()).clone(), clients, protocols).map(Arc::new)
    }

    /// Certificate and key.
    ///
    /// # Errors
    /// When a file cannot be read or holds something else.
    pub fn svid(&self) -> anyhow::Result<Svid> {
        let read = |path: &PathBuf| std::fs::read(path).with_context(|| format!("read {}", path.display()));
        Svid::from_pem(&read(&self.certificate)?, &read(&self.key)?).context("serving certificate")
    }
}
