//! Answers of the authorization service that may be used again: it says so in `dynamic_metadata`, field
//! `ferromesh.lease` = {`valid_for_s`, `uses`, `by`}. `by` names all that the decision depends on.

use crate::filter::StreamCx;
use crate::filter::lease::{Asked, Attribute};
use proto::envoy::auth::CheckResponse;
use proto::envoy::wkt::{Struct, Value, value::Kind};
use std::rc::Rc;
use std::time::Duration;

/// The field of the metadata.
const FIELD: &str = "ferromesh.lease";

/// Under which key an answer is kept, for how long, and for how many more requests.
pub(super) type Terms = (Rc<[u8]>, Duration, Option<u64>);

/// The answer that was left for requests like this one.
pub(super) fn find(filter: u64, asked: Asked<'_>) -> Option<Rc<CheckResponse>> {
    let book = &asked.cx.facts.leases;
    let now = asked.cx.now();
    book.shapes.keys(filter, asked).iter().find_map(|key| book.checks.take(key, now))
}

/// What the answer allows; `None` where it may not be used again, or where its terms are not understood.
pub(super) fn terms(answer: &CheckResponse, filter: u64, asked: Asked<'_>) -> Option<Terms> {
    let field = answer.dynamic_metadata.as_ref()?.fields.get(FIELD)?;
    let Some(Kind::StructValue(lease)) = &field.kind else { return None };
    let time = Duration::try_from_secs_f64(number(lease, "valid_for_s")?).ok()?;
    let uses = match lease.fields.get("uses") {
        None => None,
        // this request is one of them
        Some(_) => Some((number(lease, "uses")?.max(1.0) as u64).saturating_sub(1)),
    };
    let Some(Kind::ListValue(by)) = lease.fields.get("by").and_then(|by| by.kind.as_ref()) else { return None };
    let by = by.values.iter().map(attribute).collect::<Option<Vec<_>>>()?;
    let key = asked.cx.facts.leases.shapes.key_of(filter, by, asked)?;
    Some((key, time, uses))
}

/// Keeps an answer.
pub(super) fn keep((key, time, uses): Terms, answer: CheckResponse, cx: &StreamCx) {
    cx.facts.leases.checks.keep(key, answer, (cx.now(), time), uses);
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
