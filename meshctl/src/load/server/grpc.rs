//! Fortio's gRPC server: ping and health checks.

use super::super::grpc::{HEALTH, HealthRequest, HealthResponse, PING, PingMessage, frame, unframe};
use super::super::target::now_nanos;
use super::echo::{Body, full, wait};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use hyper::{Request, Response};
use prost::Message;
use std::time::Duration;

/// Largest message that is taken, in bytes; grpc-go's default.
const MAX_MESSAGE: usize = 4 << 20;
/// Longest delay of a ping.
const MAX_DELAY: Duration = Duration::from_secs(60);
/// gRPC's numbers of statuses.
const INVALID_ARGUMENT: u16 = 3;
const NOT_FOUND: u16 = 5;
const UNIMPLEMENTED: u16 = 12;

const SERVING: i32 = 1;
const NOT_SERVING: i32 = 2;

/// A status that is no success.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Status(u16, String);

/// Answers a request. `service` is the name whose health is good; `<service>_down` is not serving.
pub async fn answer(request: Request<Incoming>, service: &str) -> Response<Body> {
    let path = request.uri().path().to_owned();
    let compress = request.headers().get("grpc-encoding").is_some_and(|value| value == "gzip");
    let outcome = match read(request.into_body()).await {
        Ok(message) => call(&path, &message, service).await,
        Err(status) => Err(status),
    };
    let (body, status) = match outcome {
        Ok(message) => match frame(&message, compress) {
            Ok(framed) => (framed, Status(0, String::new())),
            Err(error) => (Bytes::new(), Status(INVALID_ARGUMENT, error.to_string())),
        },
        Err(status) => (Bytes::new(), status),
    };
    respond(body, &status, compress)
}

fn respond(body: Bytes, status: &Status, compress: bool) -> Response<Body> {
    let mut facts = HeaderMap::new();
    facts.insert("grpc-status", HeaderValue::from(status.0));
    if let Ok(message) = HeaderValue::from_str(&status.1) {
        facts.insert("grpc-message", message);
    }
    let mut response = Response::new(full(Bytes::new()));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    if status.0 != 0 {
        response.headers_mut().extend(facts); // an answer without a message is one block of headers
        return response;
    }
    if compress {
        response.headers_mut().insert("grpc-encoding", HeaderValue::from_static("gzip"));
    }
    let body = Full::new(body).with_trailers(std::future::ready(Some(Ok(facts))));
    *response.body_mut() = body.map_err(|never: std::convert::Infallible| match never {}).boxed_unsync();
    response
}

async fn read(body: Incoming) -> Result<Bytes, Status> {
    let body = Limited::new(body, MAX_MESSAGE).collect().await.map_err(|error| Status(8, error.to_string()))?;
    unframe(&body.to_bytes()).map_err(|error| Status(INVALID_ARGUMENT, error.to_string()))
}

async fn call(path: &str, message: &Bytes, service: &str) -> Result<Vec<u8>, Status> {
    let wrong = |error: prost::DecodeError| Status(INVALID_ARGUMENT, error.to_string());
    match path {
        PING => {
            let mut ping = PingMessage::decode(message.as_ref()).map_err(wrong)?;
            ping.ts = now_nanos();
            let delay = Duration::from_nanos(u64::try_from(ping.delay_nanos).unwrap_or(0));
            wait(delay.min(MAX_DELAY)).await;
            Ok(ping.encode_to_vec())
        }
        HEALTH => {
            let asked = HealthRequest::decode(message.as_ref()).map_err(wrong)?.service;
            let status = match asked.strip_suffix("_down") {
                _ if asked.is_empty() || asked == service => SERVING,
                Some(name) if name == service => NOT_SERVING,
                _ => return Err(Status(NOT_FOUND, "unknown service".to_owned())),
            };
            Ok(HealthResponse { status }.encode_to_vec())
        }
        _ => Err(Status(UNIMPLEMENTED, format!("no such method: {path}"))),
    }
}
