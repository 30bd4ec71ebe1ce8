//! Keeps this proxy's certificate fresh: the I/O around `identity::enrol` (spec CA-23; main thread only).
//!
//! The key is made here and never leaves. Key, chain and roots are kept in one 0600 file of the state directory, which
//! is meant to be in memory, so that a proxy starts while its CA is away.

use crate::bootstrap::Environment;
use anyhow::Context;
use hyper_util::rt::TokioIo;
use identity::bundle::TrustBundle;
use identity::csr::Csr;
use identity::enrol::{ATTEMPT_TIMEOUT, Action, Enrolment, Event};
use identity::san::{SanKind, SanMatch, SanPattern, SanText};
use identity::spiffe::{SpiffeId, TrustDomain};
use identity::svid::{Svid, provider};
use identity::verify::server_verifier;
use proto::ca::IstioCertificateRequest;
use proto::ca::istio_certificate_service_client::IstioCertificateServiceClient;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint};
use zeroize::Zeroizing;

/// Name of the file in the state directory.
const KEPT_FILE: &str = "identity.pem";
/// Separates the chain from the roots in that file.
const ROOTS_MARK: &str = "# roots\n";

/// Name in the CA's certificate, token and roots where Istio's injection puts them (PT-14).
const CA_HOST: &str = "istiod.istio-system.svc";
const TOKEN_FILE: &str = "/var/run/secrets/tokens/istio-token";
const ROOT_FILE: &str = "/var/run/secrets/istio/root-cert.pem";

/// Where certificates come from, and for whom.
#[derive(Debug, Clone)]
pub struct EnrolConfig {
    /// host:port of citadel, or of istiod's certificate service.
    pub ca_address: String,
    /// DNS name that the CA's certificate must have, such as `istiod.istio-system.svc`.
    pub ca_host: String,
    /// File with the roots that vouch for the CA.
    pub ca_roots: PathBuf,
    /// File with the bearer token, read again for every request; without it the held certificate is the proof.
    pub token_file: Option<PathBuf>,
    /// Value of the `clusterid` metadata that istiod picks the token reviewer by.
    pub cluster_id: Option<String>,
    /// Who this proxy is.
    pub identity: SpiffeId,
    /// Seconds of validity to ask for; 0 leaves it to the CA.
    pub ttl_s: i64,
    /// Where key and chain are kept; none: nowhere.
    pub state_dir: Option<PathBuf>,
}

impl EnrolConfig {
    /// Reads the variables of Istio's agent: `CA_ADDR` says that this proxy enrols by itself; `CA_ROOT_CA`, `TRUST_DOMAIN`,
    /// `POD_NAMESPACE`, `SERVICE_ACCOUNT` and `ISTIO_META_CLUSTER_ID` are Istio's, `CA_HOST` and `CA_TOKEN_FILE` name
    /// what is fixed there. `None` where the proxy does not enrol.
    ///
    /// # Errors
    /// Names the variable that is missing or cannot be used.
    pub fn from_environment(environment: &Environment, state_dir: Option<&Path>) -> anyhow::Result<Option<Self>> {
        let Some(address) = environment.get("CA_ADDR").filter(|address| !address.is_empty()) else { return Ok(None) };
        let needed = |name: &str| environment.get(name).with_context(|| format!("CA_ADDR is set, so {name} is needed"));
        let domain = TrustDomain::from_mesh_config(environment.get("TRUST_DOMAIN").unwrap_or("cluster.local"))
            .context("TRUST_DOMAIN")?;
        let identity = SpiffeId::service_account(&domain, needed("POD_NAMESPACE")?, needed("SERVICE_ACCOUNT")?)
            .context("POD_NAMESPACE, SERVICE_ACCOUNT")?;
        // The name in the CA's certificate is the one that it is reached by, unless that is an address.
        let by_name = address.rsplit_once(':').map_or(address, |(host, _)| host);
        let by_name = Some(by_name).filter(|host| host.parse::<std::net::IpAddr>().is_err() && !host.contains(':'));
        let token = environment.get("CA_TOKEN_FILE").unwrap_or(TOKEN_FILE);
        Ok(Some(Self {
            ca_address: address.to_owned(),
            ca_host: environment.get("CA_HOST").or(by_name).unwrap_or(CA_HOST).to_owned(),
            ca_roots: environment.get("CA_ROOT_CA").unwrap_or(ROOT_FILE).into(),
            token_file: Some(token).filter(|path| !path.is_empty()).map(Into::into),
            cluster_id: environment.get("ISTIO_META_CLUSTER_ID").map(str::to_owned),
            identity,
            ttl_s: 0,
            state_dir: state_dir.map(Path::to_owned),
        }))
    }
}

/// A certificate with the roots that came with it.
#[derive(Debug)]
pub struct Credentials {
    /// Chain and key.
    pub svid: Svid,
    /// Roots of the mesh.
    pub roots: Arc<TrustBundle>,
}

/// Publishes credentials for as long as somebody listens: first those kept on disk, then fresh ones. A failure keeps
/// the old ones.
pub async fn keep_fresh(config: EnrolConfig, held: watch::Sender<Option<Arc<Credentials>>>) {
    let mut enrolment = Enrolment::new(fastrand::u64(..));
    let kept = config.state_dir.as_deref().and_then(load_kept).filter(|kept| {
        let facts = kept.svid.facts();
        facts.id.as_ref() == Some(&config.identity) && facts.lifetime.not_after > SystemTime::now()
    });
    let lifetime = kept.as_ref().map(|kept| kept.svid.facts().lifetime);
    if let Some(kept) = kept {
        tracing::info!(id = %config.identity, "certificate kept from before is in use");
        held.send_replace(Some(Arc::new(kept)));
    }
    let mut action = enrolment.handle(Event::Started(lifetime), SystemTime::now());
    loop {
        let event = match action {
            Action::WaitUntil(time) => {
                let pause = time.duration_since(SystemTime::now()).unwrap_or_default();
                tokio::select! {
                    () = tokio::time::sleep(pause) => Event::Timer,
                    () = held.closed() => return,
                }
            }
            Action::Ask => ask(&config, &held).await,
        };
        action = enrolment.handle(event, SystemTime::now());
    }
}

async fn ask(config: &EnrolConfig, held: &watch::Sender<Option<Arc<Credentials>>>) -> Event {
    let own = held.borrow().clone();
    match tokio::time::timeout(ATTEMPT_TIMEOUT, attempt(config, own.as_deref())).await {
        Ok(Ok(new)) => {
            let facts = new.svid.facts();
            tracing::info!(id = %config.identity, serial = facts.serial, "certificate installed");
            let lifetime = facts.lifetime;
            held.send_replace(Some(Arc::new(new)));
            Event::Issued(lifetime)
        }
        Ok(Err(error)) => {
            tracing::warn!(id = %config.identity, error = format!("{error:#}"), "no certificate, will try again");
            Event::Failed
        }
        Err(_) => {
            tracing::warn!(id = %config.identity, "no certificate within 10 s, will try again");
            Event::Failed
        }
    }
}

async fn attempt(config: &EnrolConfig, own: Option<&Credentials>) -> anyhow::Result<Credentials> {
    let csr = Csr::generate(&config.identity)?;
    let mut client = IstioCertificateServiceClient::new(connect(config, own).await?);
    let mut request =
        tonic::Request::new(IstioCertificateRequest { csr: csr.pem, validity_duration: config.ttl_s, metadata: None });
    if let Some(path) = &config.token_file {
        let token =
            std::fs::read_to_string(path).with_context(|| format!("cannot read the token {}", path.display()))?;
        let mut value: tonic::metadata::AsciiMetadataValue = format!("Bearer {}", token.trim()).parse()?;
        value.set_sensitive(true);
        request.metadata_mut().insert("authorization", value);
    }
    if let Some(cluster) = &config.cluster_id {
        request.metadata_mut().insert("clusterid", cluster.parse()?);
    }
    let answer = client
        .create_certificate(request)
        .await
        .map_err(|status| anyhow::anyhow!("the CA refused: {}: {}", status.code().description(), status.message()))?;
    let mut chain = answer.into_inner().cert_chain;
    let roots = chain.pop().context("the CA answered without certificates")?;
    anyhow::ensure!(!chain.is_empty(), "the CA answered with roots only");
    let svid = Svid::new(identity::pem::certificates(chain.concat().as_bytes())?, csr.key)?;
    let found = svid.facts().id.as_ref();
    anyhow::ensure!(
        found == Some(&config.identity),
        "the CA issued a certificate of {}, expected {}",
        found.map_or("nobody", SpiffeId::as_str),
        config.identity
    );
    let credentials = Credentials { svid, roots: Arc::new(TrustBundle::from_pem(roots.as_bytes())?) };
    if let Some(directory) = &config.state_dir {
        keep(directory, &credentials)
            .with_context(|| format!("cannot keep the certificate in {}", directory.display()))?;
    }
    Ok(credentials)
}

/// A connection for one request; the roots are read anew, they change during a rotation.
async fn connect(config: &EnrolConfig, own: Option<&Credentials>) -> anyhow::Result<Channel> {
    let roots =
        std::fs::read(&config.ca_roots).with_context(|| format!("cannot read {}", config.ca_roots.display()))?;
    let accept = SanMatch::of(vec![SanPattern { kind: SanKind::Dns, text: SanText::Exact(config.ca_host.clone()) }]);
    let verifier = server_verifier(Arc::new(TrustBundle::from_pem(&roots)?), accept);
    let builder = ClientConfig::builder_with_provider(Arc::new(provider()))
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut tls = match own {
        Some(own) if config.token_file.is_none() => {
            builder.with_client_auth_cert(own.svid.chain().to_vec(), own.svid.key().to_der())?
        }
        _ => builder.with_no_client_auth(),
    };
    tls.alpn_protocols = vec![b"h2".to_vec()];
    tls.resumption = rustls::client::Resumption::disabled();
    let connector = TlsConnector::from(Arc::new(tls));
    let name = ServerName::try_from(config.ca_host.clone())?;
    let address = config.ca_address.clone();
    let dial = tower::service_fn(move |_: tonic::transport::Uri| {
        let (connector, name, address) = (connector.clone(), name.clone(), address.clone());
        async move {
            let stream = TcpStream::connect(&address).await?;
            stream.set_nodelay(true)?;
            Ok::<_, std::io::Error>(TokioIo::new(connector.connect(name, stream).await?))
        }
    });
    let endpoint = Endpoint::from_shared(format!("https://{}", config.ca_host))?;
    endpoint.connect_with_connector(dial).await.with_context(|| format!("cannot reach the CA at {}", config.ca_address))
}

/// Writes key, chain and roots as one file, so that a reader never sees the key of one and the chain of another.
fn keep(directory: &Path, credentials: &Credentials) -> std::io::Result<()> {
    let text = Zeroizing::new(format!(
        "{}{}{ROOTS_MARK}{}",
        *credentials.svid.key().to_pem(),
        credentials.svid.chain_pem(),
        credentials.roots.to_pem()
    ));
    let temporary = directory.join(format!(".{KEPT_FILE}.{}", fastrand::u64(..)));
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
    let written = file.write_all(text.as_bytes()).and_then(|()| std::fs::rename(&temporary, directory.join(KEPT_FILE)));
    if written.is_err() {
        drop(std::fs::remove_file(&temporary));
    }
    written
}

/// What [`keep`] wrote; a file that cannot be used is passed over with a log line.
fn load_kept(directory: &Path) -> Option<Credentials> {
    let path = directory.join(KEPT_FILE);
    let text = Zeroizing::new(std::fs::read_to_string(&path).ok()?);
    let (own, roots) = text.split_once(ROOTS_MARK)?;
    let read = || -> anyhow::Result<Credentials> {
        let svid = Svid::from_pem(own.as_bytes(), own.as_bytes())?;
        Ok(Credentials { svid, roots: Arc::new(TrustBundle::from_pem(roots.as_bytes())?) })
    };
    read().inspect_err(|error| tracing::warn!(%error, path = %path.display(), "kept certificate is unusable")).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::ca::IstioCertificateResponse;
    use proto::ca::istio_certificate_service_server::{IstioCertificateService, IstioCertificateServiceServer};
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SanType};
    use rustls::ServerConfig;
    use std::os::unix::fs::PermissionsExt;
    use std::time::Duration;
    use tonic::{Request, Response, Status};

    const REVIEWS: &str = "spiffe://cluster.local/ns/shop/sa/reviews";

    /// A CA that signs for whoever shows the token.
    struct Ca {
        issuer: Issuer<'static, KeyPair>,
        root: String,
        signs_for: &'static str,
    }

    impl Ca {
        fn new(signs_for: &'static str) -> Self {
            let key = KeyPair::generate().unwrap();
            let mut params = CertificateParams::default();
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            let root = params.self_signed(&key).unwrap().pem();
            Self { issuer: Issuer::new(params, key), root, signs_for }
        }

        fn leaf(&self, name: SanType, key: &impl rcgen::PublicKeyData) -> rcgen::Certificate {
            let mut params = CertificateParams::default();
            params.subject_alt_names = vec![name];
            params.not_before = (SystemTime::now() - Duration::from_secs(60)).into();
            params.not_after = (SystemTime::now() + Duration::from_secs(3600)).into();
            params.signed_by(key, &self.issuer).unwrap()
        }

        fn tls(&self) -> ServerConfig {
            let key = KeyPair::generate().unwrap();
            let cert = self.leaf(SanType::DnsName("istiod.istio-system.svc".try_into().unwrap()), &key);
            let der = rustls_pki_types::PrivateKeyDer::Pkcs8(key.serialize_der().into());
            let mut config = ServerConfig::builder_with_provider(Arc::new(provider()))
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_no_client_auth()
                .with_single_cert(vec![cert.into()], der)
                .unwrap();
            config.alpn_protocols = vec![b"h2".to_vec()];
            config
        }

        async fn serve(self) -> std::net::SocketAddr {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(self.tls()));
            let (ready, incoming) = tokio::sync::mpsc::channel(4);
            tokio::spawn(async move {
                while let Ok((stream, _)) = listener.accept().await {
                    if let Ok(stream) = acceptor.accept(stream).await {
                        ready.send(Ok::<_, std::io::Error>(Plain(stream))).await.unwrap();
                    }
                }
            });
            let incoming =
                futures_util::stream::unfold(incoming, |mut queue| async { Some((queue.recv().await?, queue)) });
            let server = tonic::transport::Server::builder().add_service(IstioCertificateServiceServer::new(self));
            tokio::spawn(server.serve_with_incoming(Box::pin(incoming)));
            address
        }
    }

    #[tonic::async_trait]
    impl IstioCertificateService for Ca {
        async fn create_certificate(
            &self,
            request: Request<IstioCertificateRequest>,
        ) -> Result<Response<IstioCertificateResponse>, Status> {
            if request.metadata().get("authorization").is_none_or(|v| v != "Bearer sesame") {
                return Err(Status::unauthenticated("request authenticate failure"));
            }
            let csr = rcgen::CertificateSigningRequestParams::from_pem(&request.get_ref().csr).unwrap();
            let leaf = self.leaf(SanType::URI(self.signs_for.try_into().unwrap()), &csr.public_key);
            Ok(Response::new(IstioCertificateResponse { cert_chain: vec![leaf.pem(), self.root.clone()] }))
        }
    }

    struct Plain(tokio_rustls::server::TlsStream<TcpStream>);

    impl tonic::transport::server::Connected for Plain {
        type ConnectInfo = ();
        fn connect_info(&self) {}
    }

    impl tokio::io::AsyncRead for Plain {
        fn poll_read(
            mut self: std::pin::Pin<&mut Self>,
            cx: &mut std::task::Context<'_>,
            buf: &mut tokio::io::ReadBuf<'_>,
        ) -> std::task::Poll<std::io::Result<()>> {
            std::pin::Pin::new(&mut self.0).poll_read(cx, buf)
        }
    }

    impl tokio::io::AsyncWrite for Plain {
        fn poll_write(
            mut self: std::pin::Pin<&mut Self>,
            cx: &mut std::task::Context<'_>,
            buf: &[u8],
        ) -> std::task::Poll<std::io::Result<usize>> {
            std::pin::Pin::new(&mut self.0).poll_write(cx, buf)
        }
        fn poll_flush(
            mut self: std::pin::Pin<&mut Self>,
            cx: &mut std::task::Context<'_>,
        ) -> std::task::Poll<std::io::Result<()>> {
            std::pin::Pin::new(&mut self.0).poll_flush(cx)
        }
        fn poll_shutdown(
            mut self: std::pin::Pin<&mut Self>,
            cx: &mut std::task::Context<'_>,
        ) -> std::task::Poll<std::io::Result<()>> {
            std::pin::Pin::new(&mut self.0).poll_shutdown(cx)
        }
    }

    async fn setup(directory: &Path, signs_for: &'static str) -> EnrolConfig {
        let ca = Ca::new(signs_for);
        std::fs::write(directory.join("root.pem"), &ca.root).unwrap();
        std::fs::write(directory.join("token"), "sesame\n").unwrap();
        EnrolConfig {
            ca_address: ca.serve().await.to_string(),
            ca_host: "istiod.istio-system.svc".to_owned(),
            ca_roots: directory.join("root.pem"),
            token_file: Some(directory.join("token")),
            cluster_id: None,
            identity: SpiffeId::parse(REVIEWS).unwrap(),
            ttl_s: 0,
            state_dir: Some(directory.to_owned()),
        }
    }

    async fn first(config: EnrolConfig) -> Arc<Credentials> {
        let (sender, mut held) = watch::channel(None);
        tokio::spawn(keep_fresh(config, sender));
        let found = tokio::time::timeout(Duration::from_secs(10), held.wait_for(Option::is_some)).await;
        found.unwrap().unwrap().clone().unwrap()
    }

    // spec: PT-14
    #[test]
    fn the_environment_says_who_enrols_where() {
        let read = |environment: Environment| EnrolConfig::from_environment(&environment, None);
        assert!(read(Environment::from([("POD_NAMESPACE", "shop")])).unwrap().is_none());
        let found = read(Environment::from([
            ("CA_ADDR", "istiod:15012"),
            ("POD_NAMESPACE", "shop"),
            ("SERVICE_ACCOUNT", "reviews"),
        ]));
        let found = found.unwrap().unwrap();
        assert_eq!(found.identity.as_str(), REVIEWS);
        assert_eq!(found.token_file.as_deref(), Some(Path::new("/var/run/secrets/tokens/istio-token")));
        let error = read(Environment::from([("CA_ADDR", "x"), ("POD_NAMESPACE", "shop")])).unwrap_err();
        assert_eq!(error.to_string(), "CA_ADDR is set, so SERVICE_ACCOUNT is needed");
    }

    // spec: CA-23
    #[tokio::test]
    async fn a_certificate_is_kept_and_used_while_the_ca_is_away() {
        let directory = tempfile::tempdir().unwrap();
        let mut config = setup(directory.path(), REVIEWS).await;
        let fresh = first(config.clone()).await;
        assert_eq!(fresh.svid.facts().uris, [REVIEWS]);
        let mode = std::fs::metadata(directory.path().join(KEPT_FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        config.ca_address = "127.0.0.1:1".to_owned();
        let kept = first(config).await;
        assert_eq!(kept.svid.facts(), fresh.svid.facts());
        assert_eq!(kept.roots, fresh.roots);
    }

    // spec: CA-23
    #[tokio::test(start_paused = true)]
    async fn an_attempt_takes_ten_seconds_at_most() {
        let directory = tempfile::tempdir().unwrap();
        let mut config = setup(directory.path(), REVIEWS).await;
        let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        config.ca_address = silent.local_addr().unwrap().to_string();
        let (sender, _held) = watch::channel(None);
        tokio::spawn(keep_fresh(config, sender));
        let _first = silent.accept().await.unwrap();
        let begun = tokio::time::Instant::now();
        let _second = silent.accept().await.unwrap();
        let pause = begun.elapsed();
        assert!((10_000..10_200).contains(&pause.as_millis()), "{pause:?}");
    }

    #[tokio::test]
    async fn what_was_kept_for_another_identity_is_not_used() {
        let directory = tempfile::tempdir().unwrap();
        let config = setup(directory.path(), REVIEWS).await;
        first(config.clone()).await;
        let other = EnrolConfig {
            identity: SpiffeId::parse("spiffe://cluster.local/ns/shop/sa/ratings").unwrap(),
            ca_address: "127.0.0.1:1".to_owned(),
            ..config
        };
        let (sender, mut held) = watch::channel(None);
        tokio::spawn(keep_fresh(other, sender));
        assert!(tokio::time::timeout(Duration::from_millis(300), held.changed()).await.is_err());
    }

    #[tokio::test]
    async fn says_why_there_is_no_certificate() {
        let directory = tempfile::tempdir().unwrap();
        let config = setup(directory.path(), "spiffe://cluster.local/ns/shop/sa/ratings").await;
        let wrong = attempt(&config, None).await.unwrap_err();
        assert_eq!(
            wrong.to_string(),
            "the CA issued a certificate of spiffe://cluster.local/ns/shop/sa/ratings, expected spiffe://cluster.local/ns/shop/sa/reviews"
        );
        std::fs::write(directory.path().join("token"), "guess").unwrap();
        assert!(attempt(&config, None).await.unwrap_err().to_string().starts_with("the CA refused"));
        let stranger = EnrolConfig { ca_host: "other.istio-system.svc".to_owned(), ..config };
        assert!(attempt(&stranger, None).await.is_err(), "the CA must prove its name");
    }
}
