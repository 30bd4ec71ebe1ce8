//! External authorization over gRPC: `envoy.service.auth.v3.Authorization` (MX-96).
//!
//! An answer that may be reused says so in `dynamic_metadata`, field `ferromesh.lease`:
//! `{valid_for_s: number, uses: number, by: [parts of the request], took: JSON text of [`Took`]s}`; without `uses` any number
//! of requests may reuse it. `took` says what to count with each use.
//! A caller that honours leases says so by the gRPC metadata [`LEASE_HEADER`]; only then are quotas granted ahead, and only
//! then an answer carries the program by which the caller may decide by itself, where the policy is simple enough.

use crate::join::{Call, Facts};
use crate::policy::decision::{HeaderOperation, LONGEST_LEASE, Operation};
use crate::policy::engine::Caller;
use crate::policy::{Decision, Engine, Lease};
use crate::workload::Follower;
use proto::envoy::auth::attribute_context::{HttpRequest, Peer};
use proto::envoy::auth::authorization_server::{Authorization, AuthorizationServer};
use proto::envoy::auth::check_response::HttpResponse;
use proto::envoy::auth::{AttributeContext, CheckRequest, CheckResponse, DeniedHttpResponse, OkHttpResponse};
use proto::envoy::core::header_value_option::HeaderAppendAction;
use proto::envoy::core::{Address, HeaderValue, HeaderValueOption, address, socket_address};
use proto::envoy::wkt::value::Kind;
use proto::envoy::wkt::{ListValue, Struct, Value};
use proto::envoy::{RpcStatus, types};
use proto::program::{self, Took};
use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use tonic::{Request, Response, Status};
use vitals::prometheus::Histogram;

/// The field of `dynamic_metadata` that carries a lease.
pub const LEASE_FIELD: &str = "ferromesh.lease";
/// Metadata by which a caller says that it honours leases; the value is `1`.
pub const LEASE_HEADER: &str = "x-ferromesh-lease";
/// Metadata that names a question: asked again within a second, quotas count it once.
pub const DEDUP_HEADER: &str = "x-ferromesh-dedup-id";
/// Where Envoy's filter for tokens leaves their claims.
const JWT_METADATA: &str = "envoy.filters.http.jwt_authn";

/// The service.
#[derive(Debug, Clone)]
pub struct ExtAuthz {
    engine: Arc<Engine>,
    workloads: Follower,
    decisions: Histogram,
}

impl ExtAuthz {
    /// Decides by an engine and joins by a table; `decisions` measures the time that takes, in seconds.
    pub fn new(engine: Arc<Engine>, workloads: Follower, decisions: Histogram) -> Self {
        Self { engine, workloads, decisions }
    }

    /// For the gRPC server.
    pub fn service(self) -> AuthorizationServer<Self> {
        AuthorizationServer::new(self)
    }

    /// What the caller may decide by itself of all requests to the workload that this one is for.
    fn program(&self, call: &Call) -> Option<Arc<str>> {
        let policy = self.engine.policy();
        // What a route adds, it adds to its own requests alone.
        if !call.http || !call.context.is_empty() {
            return None;
        }
        if !policy.is_scoped() {
            return policy.programs.get("").cloned();
        }
        // Of other destinations the namespace comes from the request.
        let table = self.workloads.table();
        let destination = table.by_address(call.destination?.ip().to_canonical())?;
        policy.programs.get(&destination.namespace).cloned()
    }

    /// Decides about a call.
    pub async fn decide(&self, call: Call, caller: Caller<'_>) -> Decision {
        let _measured = self.decisions.start_timer();
        let table = self.workloads.table();
        let facts = Facts::join(call, &table);
        let policy = self.engine.policy();
        policy.check(&facts.bag(&policy.vocabulary), caller).await
    }
}

#[tonic::async_trait]
impl Authorization for ExtAuthz {
    async fn check(&self, request: Request<CheckRequest>) -> Result<Response<CheckResponse>, Status> {
        let (metadata, _, message) = request.into_parts();
        let text = |name: &str| metadata.get(name).and_then(|value| value.to_str().ok());
        let caller = Caller { leases: text(LEASE_HEADER).is_some(), dedup: text(DEDUP_HEADER) };
        let attributes = message.attributes.ok_or_else(|| Status::invalid_argument("attributes is missing"))?;
        let call = call(attributes);
        let program = if caller.leases { self.program(&call) } else { None };
        let mut answer = answer(&self.decide(call, caller).await);
        if let Some(program) = program {
            let text = Value { kind: Some(Kind::StringValue(program.to_string())) };
            answer.dynamic_metadata.get_or_insert_default().fields.insert(program::FIELD.to_owned(), text);
        }
        Ok(Response::new(answer))
    }
}

/// What Envoy reports, in our words.
fn call(context: AttributeContext) -> Call {
    let mut call = Call { context: context.context_extensions, ..Call::default() };
    if let Some(source) = context.source {
        call.source = socket(&source).map(|address| address.ip());
        call.source_principal = source.principal;
    }
    if let Some(destination) = context.destination {
        call.destination = socket(&destination);
        call.destination_principal = destination.principal;
    }
    call.sni = context.tls_session.map(|session| session.sni).unwrap_or_default();
    let claims = context.metadata_context.and_then(|mut metadata| metadata.filter_metadata.remove(JWT_METADATA));
    call.claims = claims.map(claims_of).unwrap_or_default();
    if let Some(request) = context.request {
        call.time = request.time.and_then(|time| jiff::Timestamp::new(time.seconds, time.nanos).ok());
        if let Some(http) = request.http {
            take_http(&mut call, http);
        }
    }
    call
}

fn take_http(call: &mut Call, http: HttpRequest) {
    call.http = true;
    call.method = http.method;
    call.host = http.host;
    call.path = http.path;
    call.scheme = http.scheme;
    call.size = u64::try_from(http.size).ok().and(Some(http.size));
    call.headers = http.headers;
    for HeaderValue { key, value, raw_value } in http.header_map.map(|map| map.headers).unwrap_or_default() {
        let value = if value.is_empty() { String::from_utf8_lossy(&raw_value).into_owned() } else { value };
        match call.headers.get_mut(&key) {
            Some(before) => *before = format!("{before},{value}"),
            None => drop(call.headers.insert(key, value)),
        }
    }
}

fn socket(peer: &Peer) -> Option<SocketAddr> {
    let Some(Address { address: Some(address::Address::SocketAddress(socket)) }) = &peer.address else { return None };
    let ip: IpAddr = socket.address.parse().ok()?;
    let Some(socket_address::PortSpecifier::PortValue(port)) = &socket.port_specifier else { return None };
    Some(SocketAddr::new(ip, u16::try_from(*port).ok()?))
}

/// Claims of a token: the fields of the payload that are texts, lists joined by commas.
fn claims_of(metadata: Struct) -> BTreeMap<String, String> {
    let text = |value: Value| match value.kind {
        Some(Kind::StringValue(text)) => Some(text),
        Some(Kind::NumberValue(number)) => Some(number.to_string()),
        Some(Kind::BoolValue(value)) => Some(value.to_string()),
        Some(Kind::ListValue(ListValue { values })) => {
            let texts = values.into_iter().filter_map(|value| match value.kind {
                Some(Kind::StringValue(text)) => Some(text),
                _ => None,
            });
            Some(texts.collect::<Vec<_>>().join(","))
        }
        _ => None,
    };
    let payloads = metadata.fields.into_values().filter_map(|value| match value.kind {
        Some(Kind::StructValue(payload)) => Some(payload.fields),
        _ => None,
    });
    payloads.flatten().filter_map(|(name, value)| Some((name, text(value)?))).collect()
}

/// A decision in Envoy's words.
fn answer(decision: &Decision) -> CheckResponse {
    let http = if decision.allowed() {
        let (remove, set): (Vec<_>, Vec<_>) =
            decision.request_headers.iter().partition(|header| header.operation == Operation::Remove);
        HttpResponse::OkResponse(OkHttpResponse {
            headers: set.into_iter().map(header).collect(),
            headers_to_remove: remove.into_iter().map(|header| header.name.clone()).collect(),
            response_headers_to_add: decision.response_headers.iter().map(header).collect(),
            ..OkHttpResponse::default()
        })
    } else {
        HttpResponse::DeniedResponse(DeniedHttpResponse {
            status: Some(types::HttpStatus { code: i32::from(decision.http_status()) }),
            headers: denial_headers(decision).iter().map(header).collect(),
            body: decision.body(),
        })
    };
    CheckResponse {
        status: Some(RpcStatus { code: decision.code.0, message: decision.message.clone(), details: Vec::new() }),
        dynamic_metadata: decision.lease(LONGEST_LEASE).map(|lease| metadata(&lease)),
        http_response: Some(http),
    }
}

/// Headers of an answer to the client: an adapter's own; `set-cookie` is appended, others replace (MX-25).
pub fn denial_headers(decision: &Decision) -> Vec<HeaderOperation> {
    let typed = decision.direct.headers.iter().any(|(name, _)| name == "content-type");
    let plain = (!typed).then(|| ("content-type".to_owned(), "text/plain".to_owned()));
    let all = decision.direct.headers.iter().cloned().chain(plain);
    all.map(|(name, value)| HeaderOperation {
        operation: if name == "set-cookie" { Operation::Append } else { Operation::Replace },
        name,
        value,
    })
    .collect()
}

fn header(operation: &HeaderOperation) -> HeaderValueOption {
    let action = match operation.operation {
        Operation::Append => HeaderAppendAction::AppendIfExistsOrAdd,
        Operation::Replace | Operation::Remove => HeaderAppendAction::OverwriteIfExistsOrAdd,
    };
    let HeaderOperation { name, value, .. } = operation.clone();
    HeaderValueOption {
        header: Some(HeaderValue { key: name, value, ..HeaderValue::default() }),
        append_action: action.into(),
        ..HeaderValueOption::default()
    }
}

fn took_text(took: &[Took]) -> Option<String> {
    (!took.is_empty()).then(|| serde_json::to_string(took).ok()).flatten()
}

fn metadata(lease: &Lease) -> Struct {
    let number = |number: f64| Value { kind: Some(Kind::NumberValue(number)) };
    let text = |text: &String| Value { kind: Some(Kind::StringValue(text.clone())) };
    let by = ListValue { values: lease.by.iter().map(text).collect() };
    let mut fields = HashMap::from([
        ("valid_for_s".to_owned(), number(lease.valid_for.as_secs_f64())),
        ("by".to_owned(), Value { kind: Some(Kind::ListValue(by)) }),
    ]);
    if let Some(uses) = lease.uses {
        fields.insert("uses".to_owned(), number(f64::from(uses)));
    }
    if let Some(took) = took_text(&lease.took) {
        fields.insert("took".to_owned(), text(&took));
    }
    let lease = Value { kind: Some(Kind::StructValue(Struct { fields })) };
    Struct { fields: HashMap::from([(LEASE_FIELD.to_owned(), lease)]) }
}
