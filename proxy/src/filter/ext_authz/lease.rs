//! Answers of the authorization service that may be used again: it says so in `dynamic_metadata`, field
//! `ferromesh.lease` = {`valid_for_s`, `uses`, `by`, `took`}, or over HTTP by the header `x-ferromesh-lease` with the same as
//! JSON. `by` names all that the decision depends on, `took` what to count with each use, as JSON text.

use crate::filter::StreamCx;
use crate::filter::lease::{Asked, Attribute, Count, Leases, Terms};
use crate::telemetry::envoy::EnvoyStats;
use crate::telemetry::names::PolicyMetric;
use proto::envoy::auth::CheckResponse;
use proto::envoy::wkt::{Struct, Value, value::Kind};
use proto::program::{MAX_COUNTED, Took};
use serde::Deserialize as _;
use std::rc::Rc;
use std::time::Duration;

/// The field of the metadata.
const FIELD: &str = "ferromesh.lease";

/// Under which key an answer is kept, and how.
pub(super) type Kept = (Rc<[u8]>, Terms);

/// The answer that was left for requests like this one.
pub(super) fn find<D>(leases: &Leases<D>, filter: u64, asked: Asked<'_>) -> Option<Rc<D>> {
    let now = asked.cx.now();
    asked.cx.facts.leases.shapes.find(filter, asked, |key| leases.take(key, now))
}

/// What an answer by gRPC allows; `None` where it may not be used again, or where its terms are not understood.
pub(super) fn terms(answer: &CheckResponse, filter: u64, asked: Asked<'_>) -> Option<Kept> {
    let field = answer.dynamic_metadata.as_ref()?.fields.get(FIELD)?;
    let Some(Kind::StructValue(lease)) = &field.kind else { return None };
    let uses = lease.fields.contains_key("uses").then(|| number(lease, "uses"));
    let Some(Kind::ListValue(by)) = lease.fields.get("by").and_then(|by| by.kind.as_ref()) else { return None };
    let by = by.values.iter().map(attribute).collect::<Option<Vec<_>>>()?;
    let took = match lease.fields.get("took").and_then(|took| took.kind.as_ref()) {
        Some(Kind::StringValue(text)) => serde_json::from_str(text).unwrap_or_default(),
        _ => Vec::new(),
    };
    agreed((number(lease, "valid_for_s")?, uses, by), &took, filter, asked)
}

/// The same of an answer over HTTP: the text of its header.
pub(super) fn terms_of_text(text: &[u8], filter: u64, asked: Asked<'_>) -> Option<Kept> {
    let lease: serde_json::Value = serde_json::from_slice(text).ok()?;
    let uses = lease.get("uses").map(serde_json::Value::as_f64);
    let by = lease.get("by")?.as_array()?.iter().map(|name| Attribute::parse(name.as_str()?));
    let took = lease.get("took").and_then(|took| Vec::deserialize(took).ok()).unwrap_or_default();
    agreed((lease.get("valid_for_s")?.as_f64()?, uses, by.collect::<Option<_>>()?), &took, filter, asked)
}

/// Seconds, uses where they are counted, and what it depends on; who took part → how it is kept.
fn agreed(
    (seconds, uses, by): (f64, Option<Option<f64>>, Vec<Attribute>),
    took: &[Took],
    filter: u64,
    asked: Asked<'_>,
) -> Option<Kept> {
    let time = Duration::try_from_secs_f64(seconds).ok()?;
    let uses = match uses {
        None => None,
        // this request is one of them
        Some(uses) => Some((uses?.max(1.0) as u64).saturating_sub(1)),
    };
    let key = asked.cx.facts.leases.shapes.key_of(filter, by, asked)?;
    Some((key, Terms { time, uses, counts: counts(took, &asked.cx.facts.stats) }))
}

/// What each use counts, as mixer counts a decision of its own.
fn counts(took: &[Took], stats: &EnvoyStats) -> Box<[Count]> {
    let mut allowed = true;
    let mut count = |took: &Took| {
        let refused: &[_] = match (took.refused, allowed) {
            (false, _) => &[],
            (true, true) => &[PolicyMetric::Refusals, PolicyMetric::Denials],
            (true, false) => &[PolicyMetric::Refusals],
        };
        allowed &= !took.refused;
        let applied = took.applied.then_some(PolicyMetric::Hits);
        let asked = (!took.handler.is_empty()).then_some(PolicyMetric::Dispatches);
        let metrics = applied.into_iter().chain(asked).chain(refused.iter().copied()).collect();
        Count::Rule(stats.policy(&took.rule, &took.handler), metrics)
    };
    took.iter().take(MAX_COUNTED).map(&mut count).collect()
}

/// Keeps an answer.
pub(super) fn keep<D>(leases: &Leases<D>, (key, terms): Kept, answer: D, cx: &StreamCx) {
    leases.keep(key, answer, cx.now(), terms);
}

fn attribute(value: &Value) -> Option<Attribute> {
    match value.kind.as_ref()? {
        Kind::StringValue(name) => Attribute::parse(name),
        _ => None,
    }
}

fn number(lease: &Struct, field: &str) -> Option<f64> {
    match lease.fields.get(field)?.kind.as_ref()? {
        Kind::NumberValue(number) => Some(*number),
        _ => None,
    }
}
