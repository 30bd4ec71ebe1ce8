//! The rate limit service over HTTP (MX-113): `/json` asks, `/healthcheck` says that it lives, `/rlconfig` shows the
//! limits in force.

use crate::ratelimit::domain::Unit;
use crate::ratelimit::limiter::{Answer, Descriptor, Limiter, MAX_DESCRIPTORS, Question, Status};
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use std::fmt::Write as _;
use std::sync::Arc;

/// The largest question, in bytes.
const MAX_BODY: usize = 64 * 1024;

/// The routes.
pub fn router(limiter: Arc<Limiter>) -> Router {
    Router::new()
        .route("/json", post(ask))
        .route("/healthcheck", get(async || "OK"))
        .route("/rlconfig", get(config))
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .with_state(limiter)
}

/// `RateLimitRequest` in protobuf's JSON.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Asked {
    domain: String,
    descriptors: Vec<AskedDescriptor>,
    #[serde(default, alias = "hits_addend")]
    hits_addend: u32,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct AskedDescriptor {
    entries: Vec<AskedEntry>,
    limit: Option<AskedLimit>,
    #[serde(alias = "hits_addend")]
    hits_addend: Option<i64>,
}

#[derive(Debug, Deserialize)]
struct AskedEntry {
    key: String,
    #[serde(default)]
    value: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct AskedLimit {
    #[serde(alias = "requests_per_unit")]
    requests_per_unit: u32,
    unit: String,
}

/// `RateLimitResponse` in protobuf's JSON.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Said {
    overall_code: &'static str,
    statuses: Vec<SaidStatus>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct SaidStatus {
    code: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    current_limit: Option<SaidLimit>,
    #[serde(skip_serializing_if = "Option::is_none")]
    limit_remaining: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    duration_until_reset: Option<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct SaidLimit {
    requests_per_unit: u32,
    unit: String,
}

async fn ask(State(limiter): State<Arc<Limiter>>, body: axum::body::Bytes) -> Response {
    let question = match serde_json::from_slice(&body).map_err(|error| error.to_string()).and_then(question) {
        Ok(question) => question,
        Err(reason) => return (StatusCode::BAD_REQUEST, format!("{reason}\n")).into_response(),
    };
    match limiter.decide(&question).await {
        Ok(answer) => {
            let status = if answer.over { StatusCode::TOO_MANY_REQUESTS } else { StatusCode::OK };
            (status, Json(said(&answer))).into_response()
        }
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

fn question(asked: Asked) -> Result<Question, String> {
    if asked.domain.is_empty() || asked.descriptors.is_empty() || asked.descriptors.len() > MAX_DESCRIPTORS {
        return Err(format!("a domain and 1 to {MAX_DESCRIPTORS} descriptors are asked for"));
    }
    let descriptor = |asked: AskedDescriptor| {
        let limit = asked.limit.map(|limit| match Unit::named(&limit.unit) {
            Some(unit) => Ok((limit.requests_per_unit, unit)),
            None => Err(format!("unknown unit {}", limit.unit)),
        });
        let entries = asked.entries.into_iter().map(|entry| (entry.key, entry.value)).collect();
        Ok(Descriptor { entries, limit: limit.transpose()?, hits: asked.hits_addend })
    };
    let descriptors = asked.descriptors.into_iter().map(descriptor).collect::<Result<_, String>>()?;
    Ok(Question { domain: asked.domain, descriptors, hits: asked.hits_addend, leases: false })
}

fn said(answer: &Answer) -> Said {
    let code = |over| if over { "OVER_LIMIT" } else { "OK" };
    let status = |status: &Status| {
        let limit = status.limit.as_ref().and_then(|limit| Some((limit.per_unit?, limit.unit.name())));
        let counted = limit.is_some();
        SaidStatus {
            code: code(status.over),
            current_limit: limit.map(|(requests_per_unit, unit)| SaidLimit { requests_per_unit, unit }),
            limit_remaining: counted.then_some(status.remaining),
            duration_until_reset: counted.then(|| format!("{}s", status.until_reset.as_secs_f64().ceil())),
        }
    };
    Said { overall_code: code(answer.over), statuses: answer.statuses.iter().map(status).collect() }
}

/// The limits in force, a line each, as envoyproxy/ratelimit prints them.
async fn config(State(limiter): State<Arc<Limiter>>) -> Response {
    let mut text = String::new();
    for domain in limiter.domains() {
        for limit in domain.rules.limits() {
            // Writing to a String cannot fail.
            let _fits = match limit.per_unit {
                Some(per_unit) => writeln!(
                    text,
                    "{}: unit={} requests_per_unit={per_unit}, shadow_mode: {}",
                    limit.path,
                    limit.unit.name(),
                    limit.shadow
                ),
                None => writeln!(text, "{}: unlimited", limit.path),
            }
            .is_err();
        }
    }
    ([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], text).into_response()
}
