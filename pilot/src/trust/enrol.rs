//! pilot's own certificate: asked of citadel with the token of the pod, kept in files from which port 15012 and the relay
//! read (CA-17). A certificate that lives serves on while citadel is away, also after a restart.

use crate::ads::relay::{self, Presents};
use crate::ads::tls::Files;
use anyhow::Context as _;
use identity::csr::Csr;
use identity::enrol::{ATTEMPT_TIMEOUT, Action, Enrolment, Event};
use identity::spiffe::SpiffeId;
use identity::svid::Svid;
use proto::ca::IstioCertificateRequest;
use proto::ca::istio_certificate_service_client::IstioCertificateServiceClient;
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;
use tokio::sync::watch;
use tonic::Request;

/// File with chain and key: one, so that they always belong together.
const CERTIFICATE: &str = "svid.pem";
/// File with the roots.
const ROOTS: &str = "root-cert.pem";

/// Who asks whom, with what.
pub struct Enrol {
    /// citadel: HOST:PORT.
    pub address: String,
    /// File with the token of the pod; read again for every request.
    pub token: PathBuf,
    /// Where certificate and roots are kept.
    pub files: Files,
    /// The identity that the token proves.
    pub id: SpiffeId,
    /// The roots that citadel publishes.
    pub roots: watch::Receiver<Option<String>>,
}

/// The files of a directory, which is made where it is missing, for its owner alone.
///
/// # Errors
/// What the system says.
pub fn files(directory: &Path) -> anyhow::Result<Files> {
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory);
    made.with_context(|| format!("--tls-dir {}", directory.display()))?;
    let certificate = directory.join(CERTIFICATE);
    Ok(Files { key: certificate.clone(), certificate, roots: directory.join(ROOTS) })
}

impl Enrol {
    /// Keeps the certificate fresh for ever, and says when there is one.
    ///
    /// # Errors
    /// When the roots are no longer followed.
    pub async fn run(mut self, certified: watch::Sender<bool>) -> anyhow::Result<()> {
        let mut enrolment = Enrolment::new(fastrand::u64(..));
        let held = self.files.svid().ok().map(|svid| svid.facts().lifetime);
        let kept = held.filter(|held| held.not_after > SystemTime::now() && self.files.roots.exists());
        certified.send_replace(kept.is_some());
        let mut action = enrolment.handle(Event::Started(kept), SystemTime::now());
        loop {
            let event = match action {
                Action::WaitUntil(time) => {
                    let pause = time.duration_since(SystemTime::now()).unwrap_or_default();
                    tokio::select! {
                        () = tokio::time::sleep(pause) => Event::Timer,
                        // Peers of tomorrow may not know the root of today.
                        changed = self.roots.changed() => {
                            changed?;
                            Event::Renew
                        }
                    }
                }
                Action::Ask => match tokio::time::timeout(ATTEMPT_TIMEOUT, self.attempt()).await {
                    Ok(Ok(svid)) => {
                        let facts = svid.facts();
                        tracing::info!(id = %self.id, serial = facts.serial, "certificate installed");
                        certified.send_replace(true);
                        Event::Issued(facts.lifetime)
                    }
                    Ok(Err(error)) => {
                        tracing::warn!(citadel = self.address, "no certificate yet, will try again: {error:#}");
                        Event::Failed
                    }
                    Err(_elapsed) => {
                        tracing::warn!(citadel = self.address, "no certificate yet: citadel does not answer");
                        Event::Failed
                    }
                },
            };
            action = enrolment.handle(event, SystemTime::now());
        }
    }

    async fn attempt(&mut self) -> anyhow::Result<Svid> {
        let roots = self.roots.wait_for(Option::is_some).await?.clone();
        let roots = roots.context("no roots")?;
        write(&self.files.roots, roots.as_bytes(), 0o644)?;
        let token = std::fs::read_to_string(&self.token);
        let token = token.with_context(|| format!("--token-file {}", self.token.display()))?;
        let csr = Csr::generate(&self.id).context("request")?;
        let mut request = Request::new(IstioCertificateRequest { csr: csr.pem, validity_duration: 0, metadata: None });
        let mut bearer: tonic::metadata::AsciiMetadataValue = format!("Bearer {}", token.trim()).parse()?;
        bearer.set_sensitive(true);
        request.metadata_mut().insert("authorization", bearer);
        let channel = relay::channel(&self.address, self.files.clone(), Presents::Nothing)?;
        let answered = IstioCertificateServiceClient::new(channel).create_certificate(request).await;
        let answered = answered.map_err(|status| anyhow::anyhow!("citadel refuses: {}", status.message()))?;
        let mut chain = answered.into_inner().cert_chain;
        // The roots, which the ConfigMap has already named.
        chain.pop();
        let (chain, key) = (chain.concat(), csr.key.to_pem());
        let svid = Svid::from_pem(chain.as_bytes(), key.as_bytes()).context("citadel's answer")?;
        write(&self.files.certificate, format!("{chain}{}", *key).as_bytes(), 0o600)?;
        Ok(svid)
    }
}

/// Writes a file so that readers see the old or the new content, never a part.
fn write(path: &Path, content: &[u8], mode: u32) -> anyhow::Result<()> {
    let new = path.with_extension("new");
    let written = || -> std::io::Result<()> {
        let mut options = std::fs::OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(mode).open(&new)?.write_all(content)?;
        std::fs::rename(&new, path)
    };
    written().with_context(|| format!("write {}", path.display()))
}
