//! `istio.metadata_exchange`: the two proxies of a request tell each other which workload they serve (MD-1, MD-2, MD-4,
//! MD-5).

use super::{FilterState, StreamCx};
use crate::message::{Headers, Known, Request, Response};
use crate::node::NodeFacts;
use crate::refusal::Refusal;
use crate::telemetry::istio::{IstioMetrics, Workload};
use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use prost::Message;
use proto::any;
use proto::envoy::wkt::{Any, Struct, value::Kind};
use proto::missing::TypedStruct;
use std::rc::Rc;

/// Which side of a request takes part, and whether external services are spared.
#[derive(Debug, Clone, Copy, Default)]
pub struct PeerMetadata {
    /// The client's headers are read and taken away (server side).
    downstream_discovery: bool,
    /// The server's headers are read and taken away (client side).
    upstream_discovery: bool,
    /// Ours go to the client, where it sent its own.
    downstream_propagation: bool,
    /// Ours go to the server.
    upstream_propagation: bool,
    /// Not to clusters that the `istio` metadata calls external.
    skip_external: bool,
}

/// Largest metadata header that is decoded, in bytes.
const MAX_BYTES: usize = 16 << 10;

/// Parses the filter: a `TypedStruct` around `io.istio.http.peer_metadata.Config`.
///
/// # Errors
/// A message that cannot be read.
pub fn parse(typed: &Any) -> Result<PeerMetadata, Refusal> {
    let written: TypedStruct = any::decode(typed).map_err(|error| Refusal::new("", error.to_string()))?;
    let fields = written.value.unwrap_or_default().fields;
    let methods = |key: &str| match fields.get(key).and_then(|value| value.kind.as_ref()) {
        Some(Kind::ListValue(list)) => list.values.clone(),
        _ => Vec::new(),
    };
    let by_headers = |key: &str| {
        methods(key).iter().find_map(|method| match method.kind.as_ref()? {
            Kind::StructValue(method) => method.fields.get("istio_headers").cloned(),
            _ => None,
        })
    };
    let propagation = by_headers("upstream_propagation");
    let skip = propagation.as_ref().and_then(|value| match value.kind.as_ref()? {
        Kind::StructValue(options) => options.fields.get("skip_external_clusters")?.kind.as_ref().cloned(),
        _ => None,
    });
    Ok(PeerMetadata {
        downstream_discovery: by_headers("downstream_discovery").is_some(),
        upstream_discovery: by_headers("upstream_discovery").is_some(),
        downstream_propagation: by_headers("downstream_propagation").is_some(),
        upstream_propagation: propagation.is_some(),
        skip_external: matches!(skip, Some(Kind::BoolValue(true))),
    })
}

impl PeerMetadata {
    pub(super) fn on_request(self, st: &mut FilterState, rq: &mut Request, cx: &StreamCx) {
        if self.downstream_discovery {
            let found = discovered(&mut rq.head.headers, cx.peer.peer_id(), &cx.facts.metrics);
            let exchanges = found.is_some();
            cx.info.borrow_mut().downstream_workload = found;
            *st = FilterState::PeerMetadata { exchanges };
        }
        if self.upstream_propagation && !(self.skip_external && is_external(&rq.head, cx)) {
            propagate(&mut rq.head.headers, &cx.facts.node);
        }
    }

    pub(super) fn on_response(self, st: &FilterState, rs: &mut Response, cx: &StreamCx) {
        if self.upstream_discovery
            && let Some(found) = discovered(&mut rs.head.headers, None, &cx.facts.metrics)
        {
            cx.info.borrow_mut().upstream_workload = Some(found);
        }
        if self.downstream_propagation && matches!(st, FilterState::PeerMetadata { exchanges: true }) {
            propagate(&mut rs.head.headers, &cx.facts.node);
        }
    }
}

fn is_external(head: &crate::message::RequestHead, cx: &StreamCx) -> bool {
    let choice = cx.route(head).and_then(|route| route.choose(head, cx.random).map(|choice| choice.cluster));
    let cluster = choice.and_then(|name| cx.cluster(&name));
    cluster.is_some_and(|cluster| cluster.config.external)
}

fn propagate(headers: &mut Headers, node: &NodeFacts) {
    headers.set(Known::XEnvoyPeerMetadataId, node.id.as_bytes());
    headers.set(Known::XEnvoyPeerMetadata, node.exchange.as_bytes());
}

/// Takes the peer's metadata out of the headers. A peer says the same with every message: it is decoded once.
fn discovered(headers: &mut Headers, identity: Option<&str>, metrics: &IstioMetrics) -> Option<Rc<Workload>> {
    let text = headers.get(Known::XEnvoyPeerMetadata).filter(|text| text.len() <= MAX_BYTES);
    let found = text.and_then(|text| {
        metrics.workload_of(text, identity, || {
            let unpadded = text.iter().rposition(|b| *b != b'=').and_then(|end| text.get(..=end)).unwrap_or_default();
            let bytes = STANDARD_NO_PAD.decode(unpadded).ok()?;
            let fields = Struct::decode(bytes.as_slice()).ok()?;
            Some(workload(&fields, identity))
        })
    });
    let known = headers.remove(Known::XEnvoyPeerMetadataId);
    headers.remove(Known::XEnvoyPeerMetadata);
    found.or_else(|| known.then(|| metrics.intern_workload(Workload::default())))
}

/// A workload from the fields of MD-2.
fn workload(fields: &Struct, identity: Option<&str>) -> Workload {
    let text = |key: &str| match fields.fields.get(key).and_then(|value| value.kind.as_ref()) {
        Some(Kind::StringValue(text)) if !text.is_empty() => Some(text.as_str()),
        _ => None,
    };
    let or = |key: &str, default: &str| Box::from(text(key).unwrap_or(default));
    let proven = identity.and_then(|id| id.split("/ns/").nth(1)).and_then(|rest| rest.split('/').next());
    Workload {
        name: or("workload", "unknown"),
        namespace: proven.or_else(|| text("namespace")).unwrap_or("unknown").into(),
        principal: identity.or_else(|| text("identity")).unwrap_or("unknown").into(),
        app: or("app", "unknown"),
        version: or("version", "unknown"),
        canonical_service: or("service", "unknown"),
        canonical_revision: or("revision", "latest"),
        cluster: or("cluster", "unknown"),
    }
}

/// The workload of an endpoint by its `istio.workload` metadata (MD-5):
/// `workload;namespace;canonical name;canonical revision;cluster`.
pub(crate) fn of_endpoint(text: &str, identity: Option<&str>) -> Workload {
    let mut parts = text.split(';').map(|part| if part.is_empty() { "unknown" } else { part });
    let mut next = || Box::from(parts.next().unwrap_or("unknown"));
    let (name, namespace, canonical, revision, cluster): (Box<str>, _, Box<str>, Box<str>, _) =
        (next(), next(), next(), next(), next());
    Workload {
        name,
        namespace,
        principal: identity.unwrap_or("unknown").into(),
        app: canonical.clone(),
        version: revision.clone(),
        canonical_service: canonical,
        canonical_revision: revision,
        cluster,
    }
}
