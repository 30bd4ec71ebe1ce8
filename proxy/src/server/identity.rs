//! The proxy's own certificate as secrets like any other: enrolled here, handed to the feed under the names that pilot's
//! TLS contexts use (NM-12, CA-25).

use crate::bootstrap::Bootstrap;
use crate::tls::enrol;
use crate::xds::{FeedHandle, Kind, Resource};
use credentials::{Config, Credentials};
use prost::Message;
use proto::envoy::core::{DataSource, data_source::Specifier};
use proto::envoy::tls::{CertificateValidationContext, Secret, TlsCertificate, secret::Type};
use proto::wire::{CLUSTER_SDS, SECRET_DEFAULT, SECRET_ROOT};
use std::collections::BTreeSet;
use std::sync::Arc;
use tokio::sync::watch;

/// Where and as whom this proxy enrols; `None` where its secrets come from a file or another process, as SPIRE (CA-19).
///
/// # Errors
/// Names the variable that is missing or cannot be used.
pub(super) fn config(bootstrap: &Bootstrap) -> anyhow::Result<Option<Config>> {
    enrol::config(&bootstrap.environment, bootstrap.flags.state_dir.as_deref())
}

/// Clusters whose secret service is not asked, because this process provides what they would.
pub(super) fn own_secret_services(config: Option<&Config>) -> BTreeSet<Arc<str>> {
    config.map(|_| Arc::from(CLUSTER_SDS)).into_iter().collect()
}

/// The identity that this proxy asks for, where the configuration says it.
pub(super) fn own_id(config: Option<&Config>) -> Option<String> {
    config.map(|config| config.identity.to_string())
}

/// Enrols for as long as the feed lives.
pub(super) fn start(config: Config, feed: FeedHandle) {
    let (sender, mut held) = watch::channel::<Option<Arc<Credentials>>>(None);
    tokio::spawn(credentials::keep_fresh(config, sender, Arc::default()));
    tokio::spawn(async move {
        while held.changed().await.is_ok() {
            let Some(credentials) = held.borrow_and_update().clone() else { continue };
            for secret in secrets(&credentials) {
                let resource = Resource {
                    name: secret.name.as_str().into(),
                    version: credentials.svid.facts().serial.as_str().into(),
                    body: secret.encode_to_vec().into(),
                };
                feed.provide(Kind::Secret, Arc::new(resource)).await;
            }
        }
    });
}

/// The roots first: a certificate without them lets nobody in.
fn secrets(credentials: &Credentials) -> [Secret; 2] {
    let inline =
        |bytes: Vec<u8>| Some(DataSource { specifier: Some(Specifier::InlineBytes(bytes)), ..Default::default() });
    let roots = CertificateValidationContext {
        trusted_ca: inline(credentials.roots.to_pem().into_bytes()),
        ..Default::default()
    };
    let own = TlsCertificate {
        certificate_chain: inline(credentials.svid.chain_pem().into_bytes()),
        private_key: inline(credentials.svid.key().to_pem().as_bytes().to_vec()),
        ..Default::default()
    };
    [
        Secret { name: SECRET_ROOT.to_owned(), r#type: Some(Type::ValidationContext(roots)) },
        Secret { name: SECRET_DEFAULT.to_owned(), r#type: Some(Type::TlsCertificate(own)) },
    ]
}
