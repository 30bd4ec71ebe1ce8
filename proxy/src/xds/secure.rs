//! TLS towards servers of configuration: the same contexts and secrets as towards any upstream.

use super::{Kind, Store, TlsFor};
use crate::tls::{Secrets, config};
use prost::Message;
use proto::envoy::tls::Secret;
use rustls_pki_types::ServerName;
use std::sync::Arc;
use tokio::sync::watch;

/// The only protocol that gRPC speaks.
const ALPN: &[u8] = b"h2";

/// Makes a client configuration of a cluster's transport socket and of the secrets that are held when it connects, so
/// that a renewed certificate is used at the next connection.
pub(super) fn of_store(store: watch::Receiver<Store>) -> TlsFor {
    Arc::new(move |socket| {
        let spec = config::upstream(Some(socket)).map_err(|refusal| refusal.to_string())?;
        let spec = spec.ok_or_else(|| format!("transport_socket {}: an UpstreamTlsContext is needed", socket.name))?;
        let secrets = secrets(&store.borrow())?;
        let found = secrets.client(&spec).map_err(|refusal| refusal.to_string())?;
        let mut client = found.ok_or("no certificate yet: waiting for the secrets that the transport_socket names")?;
        Arc::make_mut(&mut client).alpn_protocols = vec![ALPN.to_vec()];
        let name = spec.sni.as_deref().map(|sni| ServerName::try_from(sni.to_owned()));
        let name = name.transpose().map_err(|error| format!("sni: {error}"))?;
        Ok((client, name))
    })
}

fn secrets(store: &Store) -> Result<Secrets, String> {
    let mut secrets = Secrets::default();
    for held in store.of(Kind::Secret) {
        let secret = Secret::decode(held.resource.body.clone()).map_err(|error| error.to_string())?;
        secrets.insert(&secret).map_err(|refusal| format!("secret {}: {refusal}", held.resource.name))?;
    }
    Ok(secrets)
}
