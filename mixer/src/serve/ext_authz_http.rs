//! External authorization over HTTP (MX-96, `envoyExtAuthzHttp`): a proxy sends the head of a request to any path below
//! its prefix; 200 lets it pass, any other answer goes to the client.
//!
//! What a request's head does not say the proxy adds by headers of its own (`headers_to_add`), which beat those of the
//! client: see [`SOURCE_ADDRESS`] and its neighbours. Only a proxy may reach this address.

use super::ext_authz::{ExtAuthz, LEASE_HEADER, denial_headers};
use crate::join::Call;
use crate::policy::decision::{HeaderOperation, LONGEST_LEASE, Operation};
use crate::policy::engine::Caller;
use crate::policy::{Decision, Lease};
use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{HOST, HeaderName, HeaderValue};
use axum::http::{HeaderMap, Response, StatusCode};
use serde_json::json;
use std::collections::HashMap;
use std::sync::Arc;

/// Header with the caller's address: `%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%`.
pub const SOURCE_ADDRESS: &str = "x-ferromesh-source-address";
/// Header with the caller's identity: `%DOWNSTREAM_PEER_URI_SAN%`.
pub const SOURCE_PRINCIPAL: &str = "x-ferromesh-source-principal";
/// Header with the called address: `%DOWNSTREAM_LOCAL_ADDRESS%`.
pub const DESTINATION_ADDRESS: &str = "x-ferromesh-destination-address";
/// Header with the server name that the client asked for: `%REQUESTED_SERVER_NAME%`.
pub const SNI: &str = "x-ferromesh-sni";
/// What Envoy writes where it knows nothing.
const NOTHING: &str = "-";
/// Names of headers that Envoy removes from a request that may pass.
const TO_REMOVE: &str = "x-envoy-auth-headers-to-remove";
/// Headers of Istio's sample (MX-117): what was decided, what was received, and a header of the proxy's own.
const RESULT: &str = "x-ext-authz-check-result";
const RECEIVED: &str = "x-ext-authz-check-received";
const OVERRIDE: &str = "x-ext-authz-additional-header-override";

/// Decides about every path below a prefix.
pub fn router(service: ExtAuthz, prefix: &str) -> Router {
    let prefix: Arc<str> = prefix.trim_end_matches('/').into();
    Router::new().fallback(check).with_state((service, prefix))
}

async fn check(State((service, prefix)): State<(ExtAuthz, Arc<str>)>, request: Request) -> Response<Body> {
    let leases = request.headers().contains_key(LEASE_HEADER);
    let echo = request.headers().get(OVERRIDE).cloned();
    let inferred = inferred(request.headers());
    let Some(call) = call(&request, &prefix) else {
        return plain(StatusCode::NOT_FOUND, format!("only paths below {prefix} are checked\n"));
    };
    let received = format!("{} {} {}", call.method, call.host, call.path);
    let decision = service.decide(call, Caller { leases, dedup: None }).await;
    let mut response = answer(&decision);
    let headers = response.headers_mut();
    set(headers, RESULT, if decision.allowed() { "allowed" } else { "denied" }, Operation::Replace);
    set(headers, RECEIVED, &received, Operation::Replace);
    if let Some(echo) = echo {
        headers.insert(OVERRIDE, echo);
    }
    if let Some(mut lease) = decision.lease(LONGEST_LEASE) {
        let by = inferred.iter().filter(|(attribute, _)| lease.by.iter().any(|by| by == attribute));
        let by: Vec<String> = by.map(|(_, header)| format!("request.headers/{header}")).collect();
        lease.by.extend(by);
        set(headers, LEASE_HEADER, &lease_text(&lease), Operation::Replace);
    }
    response
}

/// Attributes that are read from a header of the client's where the proxy says nothing: a decision by one of them depends
/// on that header.
fn inferred(headers: &HeaderMap) -> Vec<(&'static str, &'static str)> {
    let mut found = vec![("request.scheme", "x-forwarded-proto")];
    if !headers.contains_key(SOURCE_ADDRESS) {
        found.push(("source.address", "x-forwarded-for"));
    }
    found
}

/// The request that the proxy asks about; nothing where its path is not below the prefix.
fn call(request: &Request, prefix: &str) -> Option<Call> {
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    let path = path.strip_prefix(prefix)?;
    let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    let text = |name: &str| {
        let value = request.headers().get(name).and_then(|value| value.to_str().ok());
        value.filter(|value| *value != NOTHING).unwrap_or_default().to_owned()
    };
    let host = request.uri().authority().map(|authority| authority.to_string());
    let mut headers: HashMap<String, String> = HashMap::new();
    for (name, value) in request.headers() {
        let value = String::from_utf8_lossy(value.as_bytes());
        match headers.get_mut(name.as_str()) {
            Some(before) => *before = format!("{before},{value}"),
            None => drop(headers.insert(name.as_str().to_owned(), value.into_owned())),
        }
    }
    // The last address was added by the proxy, those before it by others.
    let forwarded = text("x-forwarded-for");
    let last = forwarded.rsplit(',').next().unwrap_or_default().trim();
    let source = text(SOURCE_ADDRESS);
    Some(Call {
        source: if source.is_empty() { last.parse().ok() } else { source.parse().ok() },
        source_principal: text(SOURCE_PRINCIPAL),
        destination: text(DESTINATION_ADDRESS).parse().ok(),
        http: true,
        method: request.method().as_str().to_owned(),
        host: host.unwrap_or_else(|| text(HOST.as_str())),
        path,
        scheme: text("x-forwarded-proto"),
        sni: text(SNI),
        time: Some(jiff::Timestamp::now()),
        headers,
        ..Call::default()
    })
}

fn answer(decision: &Decision) -> Response<Body> {
    if !decision.allowed() {
        // 200 would let the request pass.
        let status = StatusCode::from_u16(decision.http_status()).ok().filter(|status| *status != StatusCode::OK);
        let mut response = plain(status.unwrap_or(StatusCode::FORBIDDEN), decision.body());
        for HeaderOperation { name, value, operation } in denial_headers(decision) {
            set(response.headers_mut(), &name, &value, operation);
        }
        return response;
    }
    let mut response = plain(StatusCode::OK, String::new());
    let mut remove = Vec::new();
    for HeaderOperation { name, value, operation } in &decision.request_headers {
        match operation {
            Operation::Remove => remove.push(name.as_str()),
            // `:path` and its like cannot be said by headers of an answer.
            _ if name.starts_with(':') => {}
            _ => set(response.headers_mut(), name, value, *operation),
        }
    }
    if !remove.is_empty() {
        set(response.headers_mut(), TO_REMOVE, &remove.join(","), Operation::Replace);
    }
    response
}

fn plain(status: StatusCode, body: String) -> Response<Body> {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    response
}

/// Sets a header; what is no header is left out.
fn set(headers: &mut HeaderMap, name: &str, value: &str, operation: Operation) {
    let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) else { return };
    match operation {
        Operation::Append => drop(headers.append(name, value)),
        Operation::Replace | Operation::Remove => drop(headers.insert(name, value)),
    }
}

/// The same as the field `ferromesh.lease` of gRPC, as JSON.
fn lease_text(lease: &Lease) -> String {
    let mut text = json!({"valid_for_s": lease.valid_for.as_secs_f64(), "by": lease.by, "took": lease.took});
    if let (Some(uses), Some(fields)) = (lease.uses, text.as_object_mut()) {
        fields.insert("uses".to_owned(), uses.into());
    }
    text.to_string()
}
