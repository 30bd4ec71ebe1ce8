//! The static resources of the bootstrap, as one accepted version.

use super::{Kind, Resource};
use prost::Message;
use proto::envoy::bootstrap::Bootstrap;
use std::sync::Arc;

/// The version that static resources carry.
const VERSION: &str = "static";

/// Secrets, clusters and listeners of the bootstrap.
pub(super) fn resources(bootstrap: &Bootstrap) -> Vec<(Kind, Arc<Resource>)> {
    let Some(fixed) = &bootstrap.static_resources else { return Vec::new() };
    let version: Arc<str> = VERSION.into();
    let make = |kind: Kind, name: &str, body: Vec<u8>| {
        (kind, Arc::new(Resource { name: name.into(), version: version.clone(), body: body.into() }))
    };
    let secrets = fixed.secrets.iter().map(|secret| make(Kind::Secret, &secret.name, secret.encode_to_vec()));
    let clusters = fixed.clusters.iter().map(|cluster| make(Kind::Cluster, &cluster.name, cluster.encode_to_vec()));
    let listeners = fixed.listeners.iter().enumerate().map(|(index, listener)| {
        let name = if listener.name.is_empty() { format!("static-listener-{index}") } else { listener.name.clone() };
        make(Kind::Listener, &name, listener.encode_to_vec())
    });
    secrets.chain(clusters).chain(listeners).collect()
}
