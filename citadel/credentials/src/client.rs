//! One request to the certificate service of citadel or istiod: a fresh key, a connection that proves the CA by its roots,
//! a token or the held certificate as proof of the caller.

use anyhow::Context as _;
use hyper_util::rt::TokioIo;
use identity::bundle::TrustBundle;
use identity::csr::Csr;
use identity::san::{SanKind, SanMatch, SanPattern, SanText};
use identity::spiffe::SpiffeId;
use identity::svid::{Svid, provider};
use identity::verify::server_verifier;
use proto::ca::IstioCertificateRequest;
use proto::ca::istio_certificate_service_client::IstioCertificateServiceClient;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint};

/// Where certificates come from, and for whom.
#[derive(Debug, Clone)]
pub struct Config {
    /// host:port of citadel, or of istiod's certificate service.
    pub ca_address: String,
    /// DNS name that the CA's certificate must have, such as `istiod.istio-system.svc`.
    pub ca_host: String,
    /// File with the roots that vouch for the CA; read anew for every request, they change during a rotation.
    pub ca_roots: PathBuf,
    /// File with the bearer token, read again for every request; without it the held certificate is the proof.
    pub token_file: Option<PathBuf>,
    /// Value of the `clusterid` metadata that istiod picks the token reviewer by.
    pub cluster_id: Option<String>,
    /// Who this process is.
    pub identity: SpiffeId,
    /// Seconds of validity to ask for; 0 leaves it to the CA.
    pub ttl_s: i64,
    /// Where key and chain are kept; none: nowhere.
    pub state_dir: Option<PathBuf>,
}

/// The name in the CA's certificate where the address that it is reached by is no name.
const CA_HOST: &str = "istiod.istio-system.svc";

/// The name that the CA's certificate must have: the one that it is reached by (host:port), unless that is an address.
pub fn host_of(address: &str) -> &str {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    if host.parse::<std::net::IpAddr>().is_ok() || host.contains(':') { CA_HOST } else { host }
}

/// A certificate with the roots that came with it.
#[derive(Debug)]
pub struct Credentials {
    /// Chain and key.
    pub svid: Svid,
    /// Roots of the mesh.
    pub roots: Arc<TrustBundle>,
}

impl Config {
    /// Makes a key and asks for its certificate; `own` is what is held until now.
    ///
    /// # Errors
    /// Where the CA cannot be reached, is not proven, refuses, or answers for somebody else.
    pub async fn request(&self, own: Option<&Credentials>) -> anyhow::Result<Credentials> {
        let csr = Csr::generate(&self.identity)?;
        let mut client = IstioCertificateServiceClient::new(self.connect(own).await?);
        let message = IstioCertificateRequest { csr: csr.pem, validity_duration: self.ttl_s, metadata: None };
        let mut request = tonic::Request::new(message);
        if let Some(path) = &self.token_file {
            let token = std::fs::read_to_string(path);
            let token = token.with_context(|| format!("cannot read the token {}", path.display()))?;
            let mut value: tonic::metadata::AsciiMetadataValue = format!("Bearer {}", token.trim()).parse()?;
            value.set_sensitive(true);
            request.metadata_mut().insert("authorization", value);
        }
        if let Some(cluster) = &self.cluster_id {
            request.metadata_mut().insert("clusterid", cluster.parse()?);
        }
        let answer = client.create_certificate(request).await.map_err(|status| {
            anyhow::anyhow!("the CA refused: {}: {}", status.code().description(), status.message())
        })?;
        let mut chain = answer.into_inner().cert_chain;
        let roots = chain.pop().context("the CA answered without certificates")?;
        anyhow::ensure!(!chain.is_empty(), "the CA answered with roots only");
        let svid = Svid::new(identity::pem::certificates(chain.concat().as_bytes())?, csr.key)?;
        let found = svid.facts().id.as_ref();
        anyhow::ensure!(
            found.is_some_and(|id| self.identity.is_same_workload(id)),
            "the CA issued a certificate of {}, expected {}",
            found.map_or("nobody", SpiffeId::as_str),
            self.identity
        );
        Ok(Credentials { svid, roots: Arc::new(TrustBundle::from_pem(roots.as_bytes())?) })
    }

    /// How the CA is proven, and what is presented to it.
    ///
    /// # Errors
    /// Where the roots cannot be read now.
    pub fn tls(&self, own: Option<&Credentials>) -> anyhow::Result<ClientConfig> {
        let roots = std::fs::read(&self.ca_roots);
        let roots = roots.with_context(|| format!("cannot read {}", self.ca_roots.display()))?;
        let own = own.filter(|_| self.token_file.is_none());
        tls_by_name(Arc::new(TrustBundle::from_pem(&roots)?), &self.ca_host, own)
    }

    /// A connection for one request.
    async fn connect(&self, own: Option<&Credentials>) -> anyhow::Result<Channel> {
        let connector = TlsConnector::from(Arc::new(self.tls(own)?));
        let name = ServerName::try_from(self.ca_host.clone())?;
        let address = self.ca_address.clone();
        let dial = tower::service_fn(move |_: tonic::transport::Uri| {
            let (connector, name, address) = (connector.clone(), name.clone(), address.clone());
            async move {
                let stream = TcpStream::connect(&address).await?;
                stream.set_nodelay(true)?;
                Ok::<_, std::io::Error>(TokioIo::new(connector.connect(name, stream).await?))
            }
        });
        let endpoint = Endpoint::from_shared(format!("https://{}", self.ca_host))?;
        let reached = endpoint.connect_with_connector(dial).await;
        reached.with_context(|| format!("cannot reach the CA at {}", self.ca_address))
    }
}

/// How a server is proven that goes by a host name, and what is presented to it.
pub(crate) fn tls_by_name(
    roots: Arc<TrustBundle>,
    host: &str,
    own: Option<&Credentials>,
) -> anyhow::Result<ClientConfig> {
    let accept = SanMatch::of(vec![SanPattern { kind: SanKind::Dns, text: SanText::Exact(host.to_owned()) }]);
    let builder = ClientConfig::builder_with_provider(Arc::new(provider()))
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(server_verifier(roots, accept));
    let mut tls = match own {
        Some(own) => builder.with_client_auth_cert(own.svid.chain().to_vec(), own.svid.key().to_der())?,
        None => builder.with_no_client_auth(),
    };
    tls.alpn_protocols = vec![b"h2".to_vec()];
    tls.resumption = rustls::client::Resumption::disabled();
    Ok(tls)
}
