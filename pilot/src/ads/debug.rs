//! What pilot knows, for people and tools: `/debug/…` on the HTTP port and on that of xDS over TLS (PI-42, PI-43b).

use super::gate::{Ends, Gate, Sight};
use crate::delivery::hub::{Peer, Status, World};
use crate::delivery::{Command, HubHandle};
use crate::source::object::Spec;
use crate::translate::cache::ResourceType;
use crate::translate::node::Role;
use crate::translate::{Encoded, Snapshot};
use anyhow::Context as _;
use axum::Router;
use axum::extract::{Extension, Query, State};
use axum::http::header::{self, HeaderName};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::get;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::Instant;

/// The questions and who answers them.
const QUESTIONS: [(&str, &str); 14] = [
    ("syncz", "how far each connected proxy is, per type"),
    ("nacks", "what proxies refused, with their words"),
    ("status", "what is wrong with objects, with file, line and field"),
    ("config_dump", "what a proxy is told: ?proxyID=NAME.NAMESPACE[&types=cds,eds,lds,rds,sds,nds]"),
    ("edsz", "endpoints that a proxy is told: ?proxyID=NAME.NAMESPACE"),
    ("ndsz", "names that a proxy answers for as DNS server: ?proxyID=NAME.NAMESPACE"),
    ("registryz", "services"),
    ("endpointz", "endpoints by service"),
    ("configz", "objects in force"),
    ("instancesz", "what is served at an address"),
    ("connections", "connected proxies"),
    ("workloadz", "workloads by address; waits for a change with If-None-Match and Prefer: wait=SECONDS"),
    ("ratelimitz", "RateLimit objects in force; waits for a change likewise"),
    ("mesh", "the mesh's own settings"),
];

/// Serves the pages, and `/ready` and `/version` for everybody, in plain text; it is ready when `is_ready` says so.
///
/// # Errors
/// When the server fails.
pub async fn serve(listener: TcpListener, pages: Router, is_ready: watch::Receiver<bool>) -> anyhow::Result<()> {
    let router = Router::new()
        .route("/ready", get(async move || ready(&is_ready)))
        .route("/version", get(async || concat!(env!("CARGO_PKG_VERSION"), "\n")))
        .merge(pages);
    axum::serve(listener, router.into_make_service_with_connect_info::<Ends>()).await.context("serve HTTP")
}

/// The routes below `/debug`, behind the gate.
pub fn router(hub: HubHandle, gate: Gate) -> Router {
    let routes = Router::new()
        .route("/debug", get(list))
        .route("/debug/list", get(list))
        .route("/debug/syncz", get(syncz))
        .route("/debug/nacks", get(nacks))
        .route("/debug/status", get(status))
        .route("/debug/config_dump", get(config_dump))
        .route("/debug/edsz", get(edsz))
        .route("/debug/ndsz", get(ndsz))
        .route("/debug/registryz", get(registryz))
        .route("/debug/endpointz", get(endpointz))
        .route("/debug/endpointShardz", get(endpointz))
        .route("/debug/configz", get(configz))
        .route("/debug/instancesz", get(instancesz))
        .route("/debug/connections", get(connections))
        .route("/debug/workloadz", get(workloadz))
        .route("/debug/ratelimitz", get(ratelimitz))
        .route("/debug/mesh", get(mesh))
        .with_state(hub);
    gate.before(routes)
}

/// What is answered where the hub is gone.
const STOPPING: &str = "pilot is stopping\n";

fn gone() -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, STOPPING).into_response()
}

fn ready(is_ready: &watch::Receiver<bool>) -> Response {
    if *is_ready.borrow() {
        (StatusCode::OK, "ready\n").into_response()
    } else {
        let text =
            "objects are still being taken in, or there is no certificate yet, or the webhooks do not answer yet\n";
        (StatusCode::SERVICE_UNAVAILABLE, text).into_response()
    }
}

async fn list() -> Response {
    let lines = QUESTIONS.iter().map(|(name, text)| format!("/debug/{name:<14} {text}\n"));
    lines.collect::<String>().into_response()
}

async fn peers(hub: &HubHandle) -> Option<Vec<Peer>> {
    let mut peers = hub.ask(Command::Peers).await?;
    peers.sort_by(|a, b| a.node.id.cmp(&b.node.id));
    Some(peers)
}

fn proxy_id(peer: &Peer) -> String {
    format!("{}.{}", peer.node.name, peer.node.namespace)
}

fn kind(role: Role) -> &'static str {
    match role {
        Role::Sidecar => "sidecar",
        Role::Router => "router",
    }
}

/// istiod's form, which `proxy-status` and Kiali read.
async fn syncz(State(hub): State<HubHandle>) -> Response {
    let Some(peers) = peers(&hub).await else { return gone() };
    let names = [
        (ResourceType::Cluster, "cluster"),
        (ResourceType::Listener, "listener"),
        (ResourceType::Route, "route"),
        (ResourceType::Endpoints, "endpoint"),
    ];
    let one = |peer: &Peer| {
        let mut line = json!({
            "cluster_id": peer.node.cluster,
            "proxy": proxy_id(peer),
            "proxy_type": kind(peer.node.role),
            "istio_version": peer.node.version,
        });
        let mut details = serde_json::Map::new();
        for (kind, name) in names {
            let progress = peer.progress.get(&kind).cloned().unwrap_or_default();
            line[format!("{name}_sent")] = json!(progress.sent);
            line[format!("{name}_acked")] = json!(progress.acked);
        }
        for (kind, progress) in &peer.progress {
            let error = progress.nack.as_ref().map(|nack| nack.message.clone());
            let short = proto::type_url::short_name(kind.type_url());
            let value = json!({"sent": progress.sent, "acked": progress.acked, "resources": progress.resources, "lastError": error});
            details.insert(short.to_owned(), value);
        }
        line["resources"] = Value::Object(details);
        line
    };
    Json(peers.iter().map(one).collect::<Vec<_>>()).into_response()
}

async fn nacks(State(hub): State<HubHandle>) -> Response {
    let Some(peers) = peers(&hub).await else { return gone() };
    let of = |peer: &Peer| {
        let id = proxy_id(peer);
        let refused = peer.progress.iter().filter_map(|(kind, progress)| Some((*kind, progress.nack.clone()?)));
        refused
            .map(|(kind, nack)| {
                let named =
                    |resource: &&Arc<Encoded>| !resource.name.is_empty() && nack.message.contains(&*resource.name);
                let refused: Vec<&Arc<Encoded>> = peer.snapshot.of(kind).iter().filter(named).collect();
                let mut origins = Origins::default();
                for resource in &refused {
                    origins.collect(&proto::json::any_to_value(kind.type_url(), &resource.bytes));
                }
                let names: Vec<&str> = refused.iter().map(|resource| &*resource.name).collect();
                let short = proto::type_url::short_name(kind.type_url());
                json!({
                    "proxy": id, "type": short, "code": nack.code, "message": nack.message, "resources": names,
                    "objects": origins.objects, "services": origins.services,
                })
            })
            .collect::<Vec<_>>()
    };
    Json(peers.iter().flat_map(of).collect::<Vec<_>>()).into_response()
}

/// What refused resources come from, as their metadata says (XI-8).
#[derive(Default)]
struct Origins {
    /// Paths of Istio's objects.
    objects: BTreeSet<String>,
    /// Hosts of services.
    services: BTreeSet<String>,
}

impl Origins {
    fn collect(&mut self, value: &Value) {
        match value {
            Value::Object(fields) => {
                if let Some(istio) = fields.get("istio") {
                    self.objects.extend(istio["config"].as_str().map(str::to_owned));
                    let services = istio["services"].as_array().into_iter().flatten();
                    self.services.extend(services.filter_map(|service| service["host"].as_str()).map(str::to_owned));
                }
                fields.values().for_each(|inner| self.collect(inner));
            }
            Value::Array(items) => items.iter().for_each(|inner| self.collect(inner)),
            _ => {}
        }
    }
}

async fn status(State(hub): State<HubHandle>) -> Response {
    match hub.ask::<Status>(Command::Status).await {
        Some(status) => Json(status).into_response(),
        None => gone(),
    }
}

async fn connections(State(hub): State<HubHandle>) -> Response {
    let Some(peers) = peers(&hub).await else { return gone() };
    let one = |peer: &Peer| {
        let since = peer.since.elapsed().map(|age| age.as_secs()).unwrap_or_default();
        json!({"node": peer.node.id, "address": peer.node.addresses, "connectedSeconds": since, "flavor": peer.node.flavor})
    };
    Json(json!({"totalClients": peers.len(), "clients": peers.iter().map(one).collect::<Vec<_>>()})).into_response()
}

/// The fields of a query.
type Fields = Query<BTreeMap<String, String>>;
/// Why there is nothing to show.
type Refusal = (StatusCode, String);

/// The proxy that a query names, if its namespace is in sight.
async fn named(hub: &HubHandle, sight: &Sight, query: &Fields) -> Result<Peer, Refusal> {
    let Some(mut peers) = peers(hub).await else {
        return Err((StatusCode::SERVICE_UNAVAILABLE, STOPPING.to_owned()));
    };
    let Some(wanted) = query.get("proxyID") else {
        return Err((StatusCode::BAD_REQUEST, "name a proxy: ?proxyID=NAME.NAMESPACE\n".to_owned()));
    };
    // What is out of sight is as if it were not there.
    peers.retain(|peer| sight.covers(&peer.node.namespace));
    if let Some(index) = peers.iter().position(|peer| proxy_id(peer) == *wanted || peer.node.id == *wanted) {
        return Ok(peers.swap_remove(index));
    }
    let known: Vec<String> = peers.iter().map(proxy_id).collect();
    Err((StatusCode::NOT_FOUND, format!("{wanted} is not connected; connected: {}\n", known.join(", "))))
}

/// Resources of one proxy as JSON, per type.
async fn config_dump(
    State(hub): State<HubHandle>,
    Extension(sight): Extension<Sight>,
    query: Fields,
) -> Result<Json<Value>, Refusal> {
    let peer = named(&hub, &sight, &query).await?;
    let types: Option<Vec<String>> =
        query.get("types").map(|list| list.split(',').map(str::to_ascii_uppercase).collect());
    let wanted = |short: &str| types.as_ref().is_none_or(|types| types.iter().any(|wanted| wanted == short));
    Ok(Json(dump(&peer.snapshot, wanted)))
}

/// Endpoints of one proxy: a list of `ClusterLoadAssignment`.
async fn edsz(
    State(hub): State<HubHandle>,
    Extension(sight): Extension<Sight>,
    query: Fields,
) -> Result<Json<Vec<Value>>, Refusal> {
    Ok(Json(contents(&named(&hub, &sight, &query).await?, ResourceType::Endpoints)))
}

/// The name table of one proxy; `null` where it has none.
async fn ndsz(
    State(hub): State<HubHandle>,
    Extension(sight): Extension<Sight>,
    query: Fields,
) -> Result<Json<Option<Value>>, Refusal> {
    Ok(Json(contents(&named(&hub, &sight, &query).await?, ResourceType::NameTable).pop()))
}

fn contents(peer: &Peer, kind: ResourceType) -> Vec<Value> {
    peer.snapshot.of(kind).iter().map(|resource| shown(kind, &resource.bytes)).collect()
}

/// A snapshot as `/debug/config_dump` shows it: per short type (`CDS`) that is wanted, name, version and content of each
/// resource.
pub fn dump(snapshot: &Snapshot, wanted: impl Fn(&str) -> bool) -> Value {
    let mut dump = serde_json::Map::new();
    for kind in ResourceType::ALL {
        let short = proto::type_url::short_name(kind.type_url());
        if !wanted(short) {
            continue;
        }
        let resources = snapshot.of(kind).iter().map(|resource| {
            let content = shown(kind, &resource.bytes);
            json!({"name": &*resource.name, "version": crate::translate::cache::version_text(resource.version), "resource": content})
        });
        dump.insert(short.to_owned(), Value::Array(resources.collect()));
    }
    Value::Object(dump)
}

/// A resource with what is secret in it taken out; what cannot be looked at for that is not shown.
fn shown(kind: ResourceType, bytes: &[u8]) -> Value {
    let mut content = proto::json::any_to_value(kind.type_url(), bytes);
    let looked_at = proto::json::redact(proto::any::type_name(kind.type_url()), &mut content);
    if kind == ResourceType::Secret && looked_at.is_err() {
        return Value::Null;
    }
    content
}

async fn world(hub: &HubHandle) -> Option<World> {
    hub.ask(Command::World).await
}

async fn registryz(State(hub): State<HubHandle>) -> Response {
    let Some(world) = world(&hub).await else { return gone() };
    Json(world.mesh.services.iter().map(|service| json!(**service)).collect::<Vec<_>>()).into_response()
}

async fn endpointz(State(hub): State<HubHandle>) -> Response {
    let Some(world) = world(&hub).await else { return gone() };
    let sets: BTreeMap<String, Value> =
        world.mesh.endpoints.iter().map(|(key, set)| (key.to_string(), json!(**set))).collect();
    Json(sets).into_response()
}

async fn configz(State(hub): State<HubHandle>) -> Response {
    let Some(world) = world(&hub).await else { return gone() };
    let one = |object: &Arc<crate::source::Object>| {
        let file = object.origin.as_ref().map(|origin| origin.file.to_string());
        let spec = match &object.spec {
            Spec::VirtualService(spec) => json!(spec),
            Spec::DestinationRule(spec) => json!(spec),
            Spec::ServiceEntry(spec) => json!(spec),
            Spec::Gateway(spec) => json!(spec),
            Spec::Sidecar(spec) => json!(spec),
            Spec::PeerAuthentication(spec) => json!(spec),
            Spec::AuthorizationPolicy(spec) => json!(spec),
            // Pods, endpoints and the like are shown by registryz and endpointz.
            _ => Value::Null,
        };
        let line = object.origin.as_ref().map(|origin| origin.document.line);
        let key = &object.key;
        json!({
            "kind": key.kind, "namespace": &*key.namespace, "name": &*key.name, "file": file, "line": line, "spec": spec,
        })
    };
    Json(world.objects.iter().map(one).collect::<Vec<_>>()).into_response()
}

async fn instancesz(State(hub): State<HubHandle>) -> Response {
    let Some(world) = world(&hub).await else { return gone() };
    let one = |instance: &crate::model::mesh::Instance| json!({"service": instance.service.key.to_string(), "servicePort": instance.service_port, "port": instance.port});
    let instances: BTreeMap<&String, Vec<Value>> =
        world.mesh.instances.iter().map(|(address, served)| (address, served.iter().map(one).collect())).collect();
    Json(instances).into_response()
}

/// Longest time that a request waits for a change.
const MAX_WAIT: Duration = Duration::from_secs(60);
/// Time between two looks while a request waits.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// Workloads as mixer joins reports by them (MX-106).
async fn workloadz(State(hub): State<HubHandle>, headers: HeaderMap) -> Response {
    followed(&hub, &headers, workloads).await
}

/// RateLimit objects in force, whose shared rules mixer counts for all proxies.
async fn ratelimitz(State(hub): State<HubHandle>, headers: HeaderMap) -> Response {
    followed(&hub, &headers, limits).await
}

/// What `show` makes of the world. With `If-None-Match` and `Prefer: wait=SECONDS` (RFC 7240) the answer waits until that
/// differs.
async fn followed(hub: &HubHandle, headers: &HeaderMap, show: fn(&World) -> Value) -> Response {
    let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let wait = text(HeaderName::from_static("prefer")).and_then(|prefer| prefer.trim().strip_prefix("wait="));
    let wait = wait.and_then(|seconds| seconds.parse().ok()).map_or(Duration::ZERO, Duration::from_secs);
    let until = Instant::now() + wait.min(MAX_WAIT);
    loop {
        let Some(world) = world(hub).await else { return gone() };
        let body = show(&world).to_string();
        let tag = format!("\"{:016x}\"", crate::translate::cache::version_of(body.as_bytes()));
        let known = text(header::IF_NONE_MATCH) == Some(tag.as_str());
        if known && Instant::now() < until {
            tokio::time::sleep(LOOK_AGAIN).await;
        } else if known {
            return (StatusCode::NOT_MODIFIED, [(header::ETAG, tag)]).into_response();
        } else {
            return ([(header::CONTENT_TYPE, "application/json".to_owned()), (header::ETAG, tag)], body)
                .into_response();
        }
    }
}

fn limits(world: &World) -> Value {
    let one = |limit: &crate::model::Shared<crate::model::rate_limit::RateLimit>| json!({"namespace": &*limit.key.namespace, "name": &*limit.key.name, "spec": limit.spec});
    world.mesh.limits.iter().map(one).collect()
}

fn workloads(world: &World) -> Value {
    let mut seen = BTreeSet::new();
    let all = world.mesh.workloads.values().filter(|workload| seen.insert((&workload.namespace, &workload.name)));
    let one = |workload: &Arc<crate::registry::Workload>| {
        let served = workload.addresses.iter().filter_map(|address| world.mesh.instances.get(address)).flatten();
        let services: BTreeSet<&str> = served.map(|instance| &*instance.service.key.host).collect();
        let mut parts = workload.text.split(';');
        let (domain, namespace, account) =
            (&world.mesh.config.trust_domain, &workload.namespace, workload.service_account.as_str());
        let account = if account.is_empty() { "default" } else { account };
        json!({
            "name": workload.name, "namespace": workload.namespace, "addresses": workload.addresses,
            "serviceAccount": workload.service_account,
            "identity": format!("spiffe://{domain}/ns/{namespace}/sa/{account}"), "labels": *workload.labels, "workload": parts.next(),
            "cluster": parts.nth(3), "services": services,
        })
    };
    all.map(one).collect()
}

async fn mesh(State(hub): State<HubHandle>) -> Response {
    let Some(world) = world(&hub).await else { return gone() };
    format!("{:#?}\n", *world.mesh.config).into_response()
}
