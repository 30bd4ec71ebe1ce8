//! TLS of pilot's servers: a certificate from files that is followed as it is renewed, optional client certificates.

use anyhow::Context as _;
use credentials::accept::server_config;
use identity::bundle::TrustBundle;
use identity::san::SanMatch;
use identity::svid::Svid;
use identity::verify::optional_client_verifier;
use rustls::ServerConfig;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How long files that could not be read are left alone, while they stay as they are.
const RETRY: Duration = Duration::from_secs(1);

/// Inode, time of writing and size of certificate, key and roots.
type Stamp = [Option<(u64, i64, i64, u64)>; 3];

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
    /// Gives the configuration of the moment for a server of these protocols (ALPN): a renewal needs no restart. The files
    /// are read when they have changed. What they hold then may be unfinished or wrong: until it is right, that of before
    /// stays in use, and they are read again each second; before there was any, it is an error.
    pub fn serving(self, protocols: &'static [&[u8]]) -> impl FnMut() -> anyhow::Result<Arc<ServerConfig>> {
        let mut last: Option<(Stamp, Arc<ServerConfig>)> = None;
        let mut failed: Option<(Stamp, Instant)> = None;
        move || {
            // Before reading: what changes meanwhile has another stamp next time.
            let stamp = self.stamp();
            let Some((seen, config)) = &mut last else {
                let config = self.server(protocols)?;
                last = Some((stamp, Arc::clone(&config)));
                return Ok(config);
            };
            let before = failed.filter(|(of, _)| *of == stamp);
            if *seen != stamp && before.is_none_or(|(_, when)| when.elapsed() >= RETRY) {
                match self.server(protocols) {
                    Ok(new) => (*seen, *config) = (stamp, new),
                    Err(error) => {
                        if before.is_none() {
                            tracing::error!("the certificate of before stays in use: {error:#}");
                        }
                        failed = Some((stamp, Instant::now()));
                    }
                }
            }
            Ok(Arc::clone(config))
        }
    }

    /// Which files they are, and when they were written; nothing of those that are missing.
    fn stamp(&self) -> Stamp {
        [&self.certificate, &self.key, &self.roots].map(|path| {
            let facts = std::fs::metadata(path).ok()?;
            Some((facts.ino(), facts.mtime(), facts.mtime_nsec(), facts.size()))
        })
    }

    fn server(&self, protocols: &[&[u8]]) -> anyhow::Result<Arc<ServerConfig>> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_read_when_they_change_and_what_is_wrong_changes_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        let files = Files { certificate: at("cert.pem"), key: at("key.pem"), roots: at("root.pem") };
        let mut serving = files.clone().serving(&[b"h2"]);
        assert!(serving().unwrap_err().to_string().contains("cert.pem"), "there is nothing yet");

        let write = |path: &PathBuf, text: &str| {
            std::fs::write(at("new"), text).unwrap();
            std::fs::rename(at("new"), path).unwrap();
        };
        let issue = || {
            let made = rcgen::generate_simple_self_signed(["pilot".to_owned()]).unwrap();
            write(&files.certificate, &made.cert.pem());
            write(&files.key, &made.signing_key.serialize_pem());
            write(&files.roots, &made.cert.pem());
        };
        issue();
        let first = serving().unwrap();
        assert!(Arc::ptr_eq(&first, &serving().unwrap()), "nothing has changed");
        write(&files.key, "no key");
        assert!(Arc::ptr_eq(&first, &serving().unwrap()), "what worked stays");
        issue();
        let second = serving().unwrap();
        assert!(!Arc::ptr_eq(&first, &second) && Arc::ptr_eq(&second, &serving().unwrap()));
    }

    #[tokio::test(start_paused = true)]
    async fn what_could_not_be_read_once_is_read_again() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        let files = Files { certificate: at("cert.pem"), key: at("key.pem"), roots: at("root.pem") };
        let made = rcgen::generate_simple_self_signed(["pilot".to_owned()]).unwrap();
        std::fs::write(&files.certificate, made.cert.pem()).unwrap();
        std::fs::write(&files.roots, made.cert.pem()).unwrap();
        let key = made.signing_key.serialize_pem();
        std::fs::write(&files.key, &key).unwrap();
        let mut serving = files.clone().serving(&[b"h2"]);
        let first = serving().unwrap();

        // As much is written, and at the same time: the files have not changed, only reading them works again.
        let write = |text: &str| {
            std::fs::write(&files.key, text).unwrap();
            let file = std::fs::File::options().write(true).open(&files.key).unwrap();
            file.set_modified(std::time::UNIX_EPOCH).unwrap();
        };
        write(&"x".repeat(key.len()));
        assert!(Arc::ptr_eq(&first, &serving().unwrap()));
        write(&key);
        assert!(Arc::ptr_eq(&first, &serving().unwrap()), "not before its time");
        tokio::time::advance(RETRY).await;
        assert!(!Arc::ptr_eq(&first, &serving().unwrap()));
    }
}
