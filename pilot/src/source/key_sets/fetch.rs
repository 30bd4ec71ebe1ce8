//! One request for a key set, to places that may be asked only.

use super::KeySource;
use anyhow::{Context as _, bail, ensure};
use futures_util::future::BoxFuture;
use http::header::LOCATION;
use http::{Request, Uri};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::Name;
use hyper_util::rt::TokioExecutor;
use identity::jwks::KeySet;
use ipnet::IpNet;
use rustls::{ClientConfig, RootCertStore};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

/// Largest answer, in bytes.
const MAX_BYTES: usize = 1 << 20;
/// Most redirections that are followed.
const MAX_REDIRECTS: usize = 3;

/// The URL, if it is one that can be asked.
///
/// # Errors
/// When it is none.
pub(super) fn parse(url: &str) -> anyhow::Result<Uri> {
    let uri: Uri = url.parse().with_context(|| format!("{url:?} is no URL"))?;
    ensure!(matches!(uri.scheme_str(), Some("http" | "https")), "{url:?} is no http or https URL");
    ensure!(uri.host().is_some_and(|host| !host.is_empty()), "{url:?} names no host");
    Ok(uri)
}

/// Who asks for key sets.
#[derive(Debug, Clone)]
pub struct Fetcher {
    client: Client<HttpsConnector<HttpConnector<Resolver>>, Empty<bytes::Bytes>>,
    blocked: Arc<[IpNet]>,
}

impl Fetcher {
    /// One that trusts the public roots and those in `extra` (PEM), and never connects to `blocked` addresses: whoever may
    /// write a RequestAuthentication must not learn through pilot what only pilot can reach.
    ///
    /// # Errors
    /// When `extra` cannot be read.
    pub fn new(extra: Option<&Path>, blocked: Vec<IpNet>) -> anyhow::Result<Self> {
        let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
        if let Some(path) = extra {
            let pem = std::fs::read(path).with_context(|| format!("read {}", path.display()))?;
            for certificate in identity::pem::certificates(&pem).with_context(|| format!("{}", path.display()))? {
                roots.add(certificate)?;
            }
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
        let tls = tls.with_root_certificates(roots).with_no_client_auth();
        let blocked: Arc<[IpNet]> = blocked.into();
        let mut http = HttpConnector::new_with_resolver(Resolver { blocked: Arc::clone(&blocked) });
        http.enforce_http(false);
        let https =
            HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1().wrap_connector(http);
        Ok(Self { client: Client::builder(TokioExecutor::new()).build(https), blocked })
    }

    /// The key set at a source.
    ///
    /// # Errors
    /// When it does not come in time, is too large, or is no key set with a usable key.
    pub async fn key_set(&self, source: &KeySource, timeout: Duration) -> anyhow::Result<String> {
        let fetched = tokio::time::timeout(timeout, async {
            let text = self.get(&source.url()).await?;
            let KeySource::Discovery(_) = source else { return Ok(text) };
            let configuration: serde_json::Value = serde_json::from_str(&text).context("no OpenID configuration")?;
            let uri = configuration.get("jwks_uri").and_then(serde_json::Value::as_str);
            self.get(uri.context("the OpenID configuration names no jwks_uri")?).await
        });
        let text = fetched.await.with_context(|| format!("no answer within {timeout:?}"))??;
        KeySet::parse(text.as_bytes())?;
        Ok(text)
    }

    async fn get(&self, url: &str) -> anyhow::Result<String> {
        let mut uri = parse(url)?;
        for _ in 0..=MAX_REDIRECTS {
            self.check_literal(&uri)?;
            let request = Request::get(&uri).header("accept", "application/json").body(Empty::new())?;
            let response = self.client.request(request).await.map_err(|error| anyhow::anyhow!(deepest(&error)))?;
            if response.status().is_redirection() {
                let target = response.headers().get(LOCATION).context("a redirection without target")?.to_str()?;
                uri = if target.starts_with('/') {
                    let authority = uri.authority().map(|authority| authority.as_str()).unwrap_or_default();
                    parse(&format!("{}://{authority}{target}", uri.scheme_str().unwrap_or("https")))?
                } else {
                    parse(target)?
                };
                continue;
            }
            ensure!(response.status().is_success(), "{uri} answers {}", response.status());
            let body = Limited::new(response.into_body(), MAX_BYTES).collect().await;
            let body = body.map_err(|error| anyhow::anyhow!("{error}, at most {MAX_BYTES} bytes are read"))?;
            return String::from_utf8(body.to_bytes().to_vec()).context("the answer is no text");
        }
        bail!("more than {MAX_REDIRECTS} redirections")
    }

    /// Addresses in place of names are not resolved: they are looked at here.
    fn check_literal(&self, uri: &Uri) -> anyhow::Result<()> {
        let host = uri.host().unwrap_or_default();
        let address: Option<IpAddr> = host.trim_start_matches('[').trim_end_matches(']').parse().ok();
        ensure!(address.is_none_or(|ip| may_ask(ip, &self.blocked)), "{host} must not be asked for keys");
        Ok(())
    }
}

/// The innermost error: it says what happened.
fn deepest(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(inner) = error.source() {
        error = inner;
    }
    error.to_string()
}

/// Whether keys may come from this address: link-local ones are those of the machine's own metadata service.
fn may_ask(ip: IpAddr, blocked: &[IpNet]) -> bool {
    let ip = ip.to_canonical();
    let local = match ip {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    !local && !ip.is_unspecified() && !ip.is_multicast() && !blocked.iter().any(|net| net.contains(&ip))
}

/// Resolves names to addresses that may be asked.
#[derive(Debug, Clone)]
struct Resolver {
    blocked: Arc<[IpNet]>,
}

impl tower::Service<Name> for Resolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = std::io::Error;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let blocked = Arc::clone(&self.blocked);
        Box::pin(async move {
            let found: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            let allowed: Vec<SocketAddr> =
                found.into_iter().filter(|address| may_ask(address.ip(), &blocked)).collect();
            if allowed.is_empty() {
                return Err(std::io::Error::other(format!("{name} has no address that may be asked for keys")));
            }
            Ok(allowed.into_iter())
        })
    }
}
