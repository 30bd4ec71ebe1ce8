//! The API server, as far as the agent needs it: one GET at a time, with the pod's token. No client library: a data plane
//! has none.

use anyhow::Context as _;
use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::Request;
use hyper::client::conn::http1::handshake;
use hyper_util::rt::TokioIo;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Largest answer: the pods of one node.
const MAX_BYTES: usize = 64 << 20;

/// The way to the API server.
pub(super) struct Api {
    address: String,
    name: ServerName<'static>,
    connector: TlsConnector,
    token: PathBuf,
}

impl std::fmt::Debug for Api {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Api").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Api {
    /// Nothing is asked yet. `credentials` holds `ca.crt` and `token`, which the kubelet renews.
    pub(super) fn new(host: &str, port: u16, credentials: &Path) -> anyhow::Result<Self> {
        let roots_file = credentials.join("ca.crt");
        let mut roots = rustls::RootCertStore::empty();
        let certificates = CertificateDer::pem_file_iter(&roots_file);
        for certificate in certificates.with_context(|| format!("{}", roots_file.display()))? {
            roots.add(certificate?)?;
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let address = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
        Ok(Self {
            address,
            name: ServerName::try_from(host.to_owned()).context("--api-host")?,
            connector: TlsConnector::from(Arc::new(config)),
            token: credentials.join("token"),
        })
    }

    /// What stands at a path; none where the API server knows no such thing.
    pub(super) async fn get(&self, path: &str) -> anyhow::Result<Option<Value>> {
        let asked = tokio::time::timeout(TIMEOUT, self.ask(path)).await;
        asked.context("no answer within 10 s").flatten().with_context(|| format!("{}{path}", self.address))
    }

    async fn ask(&self, path: &str) -> anyhow::Result<Option<Value>> {
        let token =
            tokio::fs::read_to_string(&self.token).await.with_context(|| format!("{}", self.token.display()))?;
        let stream = TcpStream::connect(&self.address).await?;
        let stream = self.connector.connect(self.name.clone(), stream).await?;
        let (mut sender, connection) = handshake(TokioIo::new(stream)).await?;
        let driver = tokio::spawn(connection);
        let request = Request::get(path)
            .header("host", &self.address)
            .header("accept", "application/json")
            .header("authorization", format!("Bearer {}", token.trim()))
            .body(Empty::<Bytes>::new())?;
        let (head, body) = sender.send_request(request).await?.into_parts();
        let body = Limited::new(body, MAX_BYTES).collect().await.map_err(|error| anyhow::anyhow!(error))?.to_bytes();
        driver.abort();
        match head.status.as_u16() {
            200 => Ok(Some(serde_json::from_slice(&body)?)),
            404 => Ok(None),
            status => {
                let said: Value = serde_json::from_slice(&body).unwrap_or_default();
                anyhow::bail!("status {status}: {}", said["message"].as_str().unwrap_or_default())
            }
        }
    }
}
