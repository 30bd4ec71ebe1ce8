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
    /// stays in use; before there was any, it is an error.
    pub fn serving(self, protocols: &'static [&[u8]]) -> impl FnMut() -> anyhow::Result<Arc<ServerConfig>> {
        let mut last: Option<(Stamp, Arc<ServerConfig>)> = None;
        move || {
            // Before reading: what changes meanwhile has another stamp next time.
            let stamp = self.stamp();
            match &mut last {
                Some((seen, config)) if *seen == stamp => Ok(Arc::clone(config)),
                Some((seen, config)) => {
                    *seen = stamp;
                    match self.server(protocols) {
                        Ok(new) => *config = new,
                        Err(error) => tracing::error!("the certificate of before stays in use: {error:#}"),
                    }
                    Ok(Arc::clone(config))
                }
                None => {
                    let config = self.server(protocols)?;
                    last = Some((stamp, Arc::clone(&config)));
                    Ok(config)
                }
            }
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
}
