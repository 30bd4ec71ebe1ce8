//! OTLP over HTTP (OTLP specification, "OTLP/HTTP"): `POST /v1/metrics`, `/v1/logs`, `/v1/traces`.

use super::door::Client;
use super::otlp::{MAX_MESSAGE_BYTES, Otlp, Refused};
use axum::Router;
use axum::body::Bytes;
use axum::extract::{ConnectInfo, DefaultBodyLimit, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use prost::Message;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io::Read as _;

/// The routes.
pub fn router(otlp: Otlp) -> Router {
    Router::new()
        .route("/v1/metrics", post(metrics))
        .route("/v1/logs", post(logs))
        .route("/v1/traces", post(traces))
        .layer(DefaultBodyLimit::max(MAX_MESSAGE_BYTES))
        .with_state(otlp)
}

/// How a message is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// `application/x-protobuf`.
    Protobuf,
    /// `application/json`.
    Json,
}

/// What to answer to a message that cannot be read.
pub type Refusal = (StatusCode, String);

/// A body, decompressed, and how it is written.
///
/// # Errors
/// What to answer: 415 for unknown forms, 413 for too much, 400 for broken compression.
pub fn body(headers: &HeaderMap, body: Bytes) -> Result<(Bytes, Encoding), Refusal> {
    let value = |name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let kind = value(header::CONTENT_TYPE).split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let encoding = match kind.as_str() {
        "application/x-protobuf" | "application/protobuf" => Encoding::Protobuf,
        "application/json" => Encoding::Json,
        _ => {
            let text = "send application/x-protobuf or application/json\n";
            return Err((StatusCode::UNSUPPORTED_MEDIA_TYPE, text.to_owned()));
        }
    };
    match value(header::CONTENT_ENCODING) {
        "" | "identity" => Ok((body, encoding)),
        "gzip" => Ok((decompress(&body)?, encoding)),
        _ => Err((StatusCode::UNSUPPORTED_MEDIA_TYPE, "send it as it is or with gzip\n".to_owned())),
    }
}

fn decompress(body: &[u8]) -> Result<Bytes, Refusal> {
    let mut out = Vec::new();
    let limit = MAX_MESSAGE_BYTES as u64 + 1;
    match flate2::read::MultiGzDecoder::new(body).take(limit).read_to_end(&mut out) {
        Ok(_) if out.len() > MAX_MESSAGE_BYTES => {
            Err((StatusCode::PAYLOAD_TOO_LARGE, "send less in one message\n".to_owned()))
        }
        Ok(_) => Ok(out.into()),
        Err(error) => Err((StatusCode::BAD_REQUEST, format!("gzip: {error}\n"))),
    }
}

fn decode<T: Message + Default + DeserializeOwned>(
    headers: &HeaderMap,
    bytes: Bytes,
) -> Result<(T, Encoding), Refusal> {
    let (bytes, encoding) = body(headers, bytes)?;
    let message = match encoding {
        Encoding::Protobuf => T::decode(bytes).map_err(|error| error.to_string()),
        Encoding::Json => serde_json::from_slice(&bytes).map_err(|error| error.to_string()),
    };
    message.map(|message| (message, encoding)).map_err(|error| (StatusCode::BAD_REQUEST, error))
}

fn answer<T: Message + Serialize>(taken: Result<T, Refused>, encoding: Encoding) -> Response {
    match (taken, encoding) {
        (Ok(taken), Encoding::Protobuf) => {
            ([(header::CONTENT_TYPE, "application/x-protobuf")], taken.encode_to_vec()).into_response()
        }
        (Ok(taken), Encoding::Json) => axum::Json(taken).into_response(),
        (Err(refused @ Refused::Busy(_)), _) => {
            (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "1")], format!("{refused}\n")).into_response()
        }
        (Err(refused @ Refused::Forged(_)), _) => (StatusCode::FORBIDDEN, format!("{refused}\n")).into_response(),
    }
}

async fn metrics(
    State(otlp): State<Otlp>,
    ConnectInfo(Client(peer)): ConnectInfo<Client>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    match decode(&headers, body) {
        Ok((request, encoding)) => answer(otlp.metrics(request, (&peer).into()).await, encoding),
        Err(refused) => refused.into_response(),
    }
}

async fn logs(
    State(otlp): State<Otlp>,
    ConnectInfo(Client(peer)): ConnectInfo<Client>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    match decode(&headers, body) {
        Ok((request, encoding)) => answer(otlp.logs(request, (&peer).into()).await, encoding),
        Err(refused) => refused.into_response(),
    }
}

async fn traces(
    State(otlp): State<Otlp>,
    ConnectInfo(Client(peer)): ConnectInfo<Client>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    match decode(&headers, body) {
        Ok((request, encoding)) => answer(otlp.traces(request, (&peer).into()).await, encoding),
        Err(refused) => refused.into_response(),
    }
}
