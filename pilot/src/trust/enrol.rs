//! pilot's own certificate: asked of citadel with the token of the pod, kept in files from which port 15012 and the relay
//! read (CA-17). A certificate that lives serves on while citadel is away, also after a restart.

use crate::ads::tls::Files;
use anyhow::Context as _;
use identity::spiffe::SpiffeId;
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::sync::{Notify, watch};

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
    /// When the roots are no longer followed, or a file cannot be written.
    pub async fn run(mut self, certified: watch::Sender<bool>) -> anyhow::Result<()> {
        if !self.files.roots.exists() {
            self.roots.wait_for(Option::is_some).await?;
        }
        write_roots(&self.files, &mut self.roots)?;
        let config = credentials::Config {
            ca_host: credentials::host_of(&self.address).to_owned(),
            ca_address: self.address,
            ca_roots: self.files.roots.clone(),
            token_file: Some(self.token),
            cluster_id: None,
            identity: self.id,
            ttl_s: 0,
            state_dir: self.files.roots.parent().map(Path::to_owned),
        };
        let renew = Arc::new(Notify::new());
        let (sender, mut held) = watch::channel(None);
        let enrolling = credentials::keep_fresh(config, sender, renew.clone());
        tokio::pin!(enrolling);
        loop {
            tokio::select! {
                () = &mut enrolling => anyhow::bail!("the enrolment ended"),
                _ = held.changed() => {}
                changed = self.roots.changed() => {
                    changed?;
                    write_roots(&self.files, &mut self.roots)?;
                    // Peers of tomorrow may not know the root of today.
                    renew.notify_one();
                    continue;
                }
            }
            let Some(credentials) = held.borrow_and_update().clone() else { continue };
            let (chain, key) = (credentials.svid.chain_pem(), credentials.svid.key().to_pem());
            write(&self.files.certificate, format!("{chain}{}", *key).as_bytes(), 0o600)?;
            certified.send_replace(true);
        }
    }
}

/// Writes the roots of the moment, if any were seen.
fn write_roots(files: &Files, roots: &mut watch::Receiver<Option<String>>) -> anyhow::Result<()> {
    let roots = roots.borrow_and_update().clone();
    roots.map_or(Ok(()), |roots| write(&files.roots, roots.as_bytes(), 0o644))
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
