//! Words of OTLP that logs, metrics and spans share.

use bytes::Bytes;
use prost::Message;
use proto::otlp::common::any_value::Value;
use proto::otlp::common::{AnyValue, KeyValue};
use proto::otlp::resource::Resource;
use std::time::{SystemTime, UNIX_EPOCH};

/// A text attribute.
pub(crate) fn string(key: &str, value: impl Into<String>) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue { value: Some(Value::StringValue(value.into())) }),
        ..KeyValue::default()
    }
}

/// An encoded `Resource` with these attributes.
pub(crate) fn resource(attributes: Vec<(String, String)>) -> Bytes {
    let attributes = attributes.into_iter().map(|(key, value)| string(&key, value)).collect();
    Resource { attributes, ..Resource::default() }.encode_to_vec().into()
}

/// Nanoseconds since 1970.
pub(crate) fn nanos(at: SystemTime) -> u64 {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
