//! SDS on a Unix socket for real Envoys (spec CA-24, CA-25): `StreamSecrets` only, one secret per name.

use crate::watch_files;
use credentials::Credentials;
use proto::envoy::core::DataSource;
use proto::envoy::core::data_source::Specifier;
use proto::envoy::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse};
use proto::envoy::secret_service::secret_discovery_service_server::SecretDiscoveryService;
use proto::envoy::tls::secret::Type;
use proto::envoy::tls::{CertificateValidationContext, Secret, TlsCertificate};
use proto::type_url;
use proto::wire::{SECRET_DEFAULT, SECRET_ROOT};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

/// Where root certificates of the system lie, by distribution.
const SYSTEM_ROOTS: &[&str] = &[
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
];
/// Most names that one stream may ask for.
const MAX_NAMES: usize = 64;

/// What a secret's name asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Origin {
    /// `default`: the workload's key and chain.
    Workload,
    /// `ROOTCA`: the roots of the mesh.
    Roots,
    /// `file-cert:<cert>~<key>`.
    FileCert { cert: PathBuf, key: PathBuf },
    /// `file-root:<path>`, `file-root:system`.
    FileRoot(PathBuf),
}

impl Origin {
    fn parse(name: &str) -> Result<Self, Status> {
        let bad = |why: &str| Status::invalid_argument(format!("secret name {name:?}: {why}"));
        match name {
            SECRET_DEFAULT => return Ok(Self::Workload),
            SECRET_ROOT => return Ok(Self::Roots),
            "file-root:system" => {
                let found = SYSTEM_ROOTS.iter().map(Path::new).find(|path| path.exists());
                return found
                    .map(|p| Self::FileRoot(p.to_owned()))
                    .ok_or_else(|| bad("this system has no root bundle"));
            }
            _ => {}
        }
        if let Some(pair) = name.strip_prefix("file-cert:") {
            let (cert, key) = pair.split_once('~').ok_or_else(|| bad("expected file-cert:<certificate>~<key>"))?;
            return Ok(Self::FileCert { cert: cert.into(), key: key.into() });
        }
        if let Some(path) = name.strip_prefix("file-root:") {
            return Ok(Self::FileRoot(path.into()));
        }
        if name.starts_with("builtin://") {
            return Err(Status::unimplemented(format!("not supported yet: secret name {name:?}")));
        }
        Err(bad("expected default, ROOTCA, file-cert:<certificate>~<key> or file-root:<path>"))
    }

    fn files(&self) -> Vec<PathBuf> {
        match self {
            Self::FileCert { cert, key } => vec![cert.clone(), key.clone()],
            Self::FileRoot(path) => vec![path.clone()],
            Self::Workload | Self::Roots => Vec::new(),
        }
    }

    /// The secret as it is now; `None` while there is none yet (the first certificate is under way).
    fn load(&self, name: &str, held: Option<&Credentials>) -> std::io::Result<Option<Secret>> {
        let kind = match self {
            Self::Workload => {
                held.map(|h| certificate(h.svid.chain_pem().into_bytes(), h.svid.key().to_pem().as_bytes()))
            }
            Self::Roots => held.map(|h| roots(h.roots.to_pem().into_bytes())),
            Self::FileCert { cert, key } => {
                let key = zeroize::Zeroizing::new(std::fs::read(key)?);
                Some(certificate(std::fs::read(cert)?, &key))
            }
            Self::FileRoot(path) => Some(roots(std::fs::read(path)?)),
        };
        Ok(kind.map(|kind| Secret { name: name.to_owned(), r#type: Some(kind) }))
    }
}

fn inline(bytes: Vec<u8>) -> Option<DataSource> {
    Some(DataSource { specifier: Some(Specifier::InlineBytes(bytes)), ..Default::default() })
}

fn certificate(chain: Vec<u8>, key: &[u8]) -> Type {
    Type::TlsCertificate(TlsCertificate {
        certificate_chain: inline(chain),
        private_key: inline(key.to_vec()),
        ..Default::default()
    })
}

fn roots(pem: Vec<u8>) -> Type {
    Type::ValidationContext(CertificateValidationContext { trusted_ca: inline(pem), ..Default::default() })
}

/// The service; every stream follows the secrets that it asked for.
#[derive(Debug)]
pub struct SecretService {
    held: watch::Receiver<Option<Arc<Credentials>>>,
}

impl SecretService {
    /// Serves what `held` holds, and files.
    pub fn new(held: watch::Receiver<Option<Arc<Credentials>>>) -> Self {
        Self { held }
    }
}

#[tonic::async_trait]
impl SecretDiscoveryService for SecretService {
    type DeltaSecretsStream = ReceiverStream<Result<DeltaDiscoveryResponse, Status>>;
    type StreamSecretsStream = ReceiverStream<Result<DiscoveryResponse, Status>>;

    async fn delta_secrets(
        &self,
        _request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaSecretsStream>, Status> {
        Err(Status::unimplemented("DeltaSecrets is not offered: use StreamSecrets"))
    }

    async fn stream_secrets(
        &self,
        request: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamSecretsStream>, Status> {
        let (answers, stream) = mpsc::channel(4);
        let session = Session { held: self.held.clone(), answers, names: Vec::new(), sent: Vec::new(), nonce: 0 };
        tokio::spawn(session.run(request.into_inner()));
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn fetch_secrets(&self, _request: Request<DiscoveryRequest>) -> Result<Response<DiscoveryResponse>, Status> {
        Err(Status::unimplemented("FetchSecrets is not offered: use StreamSecrets"))
    }
}

/// One stream: the names it wants and what was sent last.
struct Session {
    held: watch::Receiver<Option<Arc<Credentials>>>,
    answers: mpsc::Sender<Result<DiscoveryResponse, Status>>,
    names: Vec<(String, Origin)>,
    sent: Vec<Secret>,
    nonce: u64,
}

impl Session {
    async fn run(mut self, mut requests: Streaming<DiscoveryRequest>) {
        let mut files: Option<watch_files::Changes> = None;
        loop {
            let outcome = tokio::select! {
                request = requests.message() => match request {
                    Ok(Some(request)) => self.handle_request(request, &mut files).await,
                    Ok(None) | Err(_) => return,
                },
                changed = self.held.changed() => match changed {
                    Ok(()) => self.push().await,
                    Err(_) => return,
                },
                () = next_change(&mut files) => self.push().await,
            };
            if let Err(status) = outcome {
                drop(self.answers.send(Err(status)).await);
                return;
            }
        }
    }

    async fn handle_request(
        &mut self,
        request: DiscoveryRequest,
        files: &mut Option<watch_files::Changes>,
    ) -> Result<(), Status> {
        if let Some(error) = &request.error_detail {
            tracing::warn!(names = ?request.resource_names, reason = error.message, "secret refused by the proxy");
            return Ok(()); // the proxy keeps its last good secret; the next change is sent as usual
        }
        if request.resource_names.len() > MAX_NAMES {
            return Err(Status::invalid_argument("at most 64 secrets per stream"));
        }
        if request.resource_names.iter().eq(self.names.iter().map(|(name, _)| name)) {
            return Ok(()); // an acknowledgement
        }
        let parse = |name: &String| Origin::parse(name).map(|origin| (name.clone(), origin));
        self.names = request.resource_names.iter().map(parse).collect::<Result<_, _>>()?;
        self.sent.clear();
        let paths: Vec<PathBuf> = self.names.iter().flat_map(|(_, origin)| origin.files()).collect();
        *files = match paths.is_empty() {
            true => None,
            false => {
                Some(watch_files::watch(&paths).map_err(|e| Status::not_found(format!("cannot watch files: {e}")))?)
            }
        };
        self.push().await
    }

    /// Sends the secrets if they differ from those sent last.
    async fn push(&mut self) -> Result<(), Status> {
        let held = self.held.borrow_and_update().clone();
        let mut secrets = Vec::new();
        for (name, origin) in &self.names {
            match origin.load(name, held.as_deref()) {
                Ok(secret) => secrets.extend(secret),
                Err(error) => tracing::error!(%error, name, "cannot read the files of a secret, the last one stays"),
            }
        }
        if secrets.is_empty() || secrets == self.sent {
            return Ok(());
        }
        self.nonce += 1;
        let answer = DiscoveryResponse {
            version_info: self.nonce.to_string(),
            nonce: self.nonce.to_string(),
            type_url: type_url::SECRET.to_owned(),
            resources: secrets.iter().map(proto::any::pack).collect(),
            ..Default::default()
        };
        self.sent = secrets;
        self.answers.send(Ok(answer)).await.map_err(|_| Status::cancelled("the proxy left"))
    }
}

async fn next_change(files: &mut Option<watch_files::Changes>) {
    if let Some(changes) = files
        && changes.changed().await.is_ok()
    {
        return;
    }
    std::future::pending().await
}

#[cfg(test)]
mod tests {
    use super::*;

    // spec: CA-25
    #[test]
    fn names_are_those_of_istio() {
        assert_eq!(Origin::parse("default").unwrap(), Origin::Workload);
        assert_eq!(Origin::parse("ROOTCA").unwrap(), Origin::Roots);
        assert_eq!(
            Origin::parse("file-cert:/etc/certs/cert.pem~/etc/certs/key.pem").unwrap(),
            Origin::FileCert { cert: "/etc/certs/cert.pem".into(), key: "/etc/certs/key.pem".into() }
        );
        assert_eq!(Origin::parse("file-root:/etc/root.pem").unwrap(), Origin::FileRoot("/etc/root.pem".into()));
        match Origin::parse("file-root:system") {
            Ok(Origin::FileRoot(path)) => assert!(path.exists() && path != Path::new("system")),
            Ok(other) => panic!("{other:?}"),
            Err(status) => assert!(status.message().contains("no root bundle"), "{status}"),
        }
        for (name, code) in [
            ("file-cert:/only-one", tonic::Code::InvalidArgument),
            ("kubernetes://gateway", tonic::Code::InvalidArgument),
            ("builtin://", tonic::Code::Unimplemented),
        ] {
            assert_eq!(Origin::parse(name).unwrap_err().code(), code, "{name}");
        }
    }
}
