//! TLS of the certificate service: a serving certificate of our own authority, optional client certificates.

use crate::ca::root::Authority;
use crate::ca::sign;
use anyhow::Context;
use credentials::accept::server_config;
use identity::san::SanMatch;
use identity::svid::provider;
use identity::verify::optional_client_verifier;
use rcgen::KeyPair;
use rustls::ServerConfig;
use rustls::sign::CertifiedKey;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Life of the serving certificate; it is replaced at half of it.
const SERVING_TTL: Duration = Duration::from_secs(24 * 3600);

/// The TLS configuration of the moment: follows the authority and renews its own certificate.
///
/// # Errors
/// Where the first certificate cannot be made.
pub fn follow(
    mut authority: watch::Receiver<Arc<Authority>>,
    hosts: Vec<String>,
    background: &mut JoinSet<()>,
) -> anyhow::Result<watch::Receiver<Arc<ServerConfig>>> {
    let first = config(&authority.borrow_and_update(), &hosts)?;
    let (sender, receiver) = watch::channel(Arc::new(first));
    background.spawn(async move {
        loop {
            tokio::select! {
                changed = authority.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(SERVING_TTL / 2) => {}
            }
            match config(&authority.borrow_and_update(), &hosts) {
                Ok(new) => drop(sender.send_replace(Arc::new(new))),
                Err(error) => tracing::error!(%error, "cannot renew the serving certificate"),
            }
        }
    });
    Ok(receiver)
}

fn config(authority: &Authority, hosts: &[String]) -> anyhow::Result<ServerConfig> {
    let key = KeyPair::generate()?;
    let chain = sign::server_certificate(authority, &key, hosts, SERVING_TTL, SystemTime::now())
        .context("cannot make the serving certificate")?;
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let own = CertifiedKey::from_der(chain, key, &provider()).context("the serving certificate")?;
    let clients = optional_client_verifier(authority.roots(), SanMatch::any());
    server_config(own, clients, &[b"h2"])
}
